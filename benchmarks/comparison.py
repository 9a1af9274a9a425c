"""What byteatlas, kerchunk, VirtualiZarr and pyfive make of the files of other projects.

Every array of every file is read in full and compared with what h5py reads, type and bits. Each
project has each file in a child process of its own, with limits. What was found is kept in a
cache, by project and version, so that a run goes on where the last one was stopped, and a project
that needs another interpreter can be run with that one:

    python benchmarks/comparison.py --corpus DIRECTORY
    python3.13 benchmarks/comparison.py --corpus DIRECTORY --only virtualizarr
    python benchmarks/comparison.py --corpus DIRECTORY --only byteatlas --again --write

The last line measures byteatlas anew and writes docs/comparison.md. Exits with 1 where byteatlas
has a wrong value.
"""

from __future__ import annotations

import argparse
import csv
import datetime as dt
import gc
import json
import platform
import re
import sys
import tempfile
import textwrap
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # registers its filters for h5py, and whoever uses h5py
import numpy as np
from _isolated import Say, run
from _readers import READERS, Opened, Reader

ROOT = Path(__file__).resolve().parents[1]
CORPUS = ROOT.parent / "shared" / "corpus"
CACHE = Path(tempfile.gettempdir()) / "byteatlas-comparison"
PAGE = ROOT / "docs" / "comparison.md"

WALL_S = 30.0
MEMORY = 6 * 2**30
LARGEST = 2**27
"""Of arrays of more bytes, only the first and the last rows are compared."""
ONLY_A_DIMENSION = b"This is a netCDF dimension but not a netCDF variable"

OUTCOMES = ("virtual", "inlined", "skipped", "wrong", "error", "hang")
TRAITS = {
    "superblock": "superblock version",
    "layout_or_chunk_index": "layout or chunk index",
    "filters": "filter",
    "type_classes": "class of types",
    "links": "links",
    "structures": "structures",
}
"""Columns of MANIFEST.tsv that are reported, and their names."""


# The oracle


def datasets(file: h5py.File) -> Iterator[tuple[str, h5py.Dataset]]:
    """Yield each dataset by each of its paths; groups within themselves are not entered."""

    def walk(path: str, group: h5py.Group, above: list[Any]) -> Iterator[tuple[str, Any]]:
        for name in group:
            kind = group.id.links.get_info(name.encode("utf-8", "surrogateescape")).type
            if kind not in (h5py.h5l.TYPE_HARD, h5py.h5l.TYPE_SOFT):
                continue
            try:
                item = group[name]
            except (KeyError, OSError, RuntimeError):  # a dangling link, a damaged object
                continue
            if isinstance(item, h5py.Dataset):
                if not is_only_a_dimension(item):
                    yield f"{path}/{name}", item
            elif isinstance(item, h5py.Group) and item not in above:
                yield from walk(f"{path}/{name}", item, [*above, item])

    yield from walk("", file, [file["/"]])


def is_only_a_dimension(dataset: h5py.Dataset) -> bool:
    try:
        name = dataset.attrs.get("NAME", b"")
    except (OSError, RuntimeError, TypeError):
        return False
    return isinstance(name, bytes) and name.startswith(ONLY_A_DIMENSION)


def is_undefined(dataset: h5py.Dataset) -> bool:
    plist = dataset.id.get_create_plist()
    is_never = plist.get_fill_time() == h5py.h5d.FILL_TIME_NEVER
    space = dataset.id.get_space_status()
    return is_never and space != h5py.h5d.SPACE_STATUS_ALLOCATED


def regions(dataset: h5py.Dataset) -> list[tuple[slice, ...]]:
    if dataset.shape and dataset.size * dataset.dtype.itemsize > LARGEST:
        last = dataset.shape[0]
        return [(slice(0, 1000),), (slice(max(0, last - 1000), last),)]
    return [()]


def values_of(dataset: h5py.Dataset, region: tuple[slice, ...]) -> np.ndarray:
    """Read with h5py; references become the names of what they lead to."""
    values = np.asarray(dataset[region or ...])
    if h5py.check_ref_dtype(dataset.dtype) is None:
        return values
    named = np.empty(values.shape, object)
    for place, reference in np.ndenumerate(values):
        named[place] = dataset.file[reference].name if reference else ""
    return named


def list_arrays(path: str, say: Say) -> None:
    """Say of each dataset whether h5py can read it."""
    with h5py.File(path) as file:
        for name, dataset in datasets(file):
            if dataset.shape is None:
                say([name, "has no shape"])
                continue
            try:
                for region in regions(dataset):
                    values_of(dataset, region)
                if is_undefined(dataset):
                    say([name, "it was not written, and has no fill value: anything is right"])
                    continue
            except (KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
                say([name, f"h5py cannot read it: {error}"])
            else:
                say([name, ""])


# Comparison: the type but for its byte order, and every bit.


def difference(ours: Any, theirs: Any) -> str:
    """Say how values differ, or "" where they do not."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    if ours.shape != theirs.shape:
        return f"shape {ours.shape}, not {theirs.shape}"
    if theirs.dtype.names and ours.dtype.kind == "c":
        ours = ours.view([(name, ours.real.dtype) for name in theirs.dtype.names[:2]])
    if theirs.dtype.names or ours.dtype.names:
        if ours.dtype.names != theirs.dtype.names:
            return f"members {ours.dtype}, not {theirs.dtype}"
        each = ((name, difference(ours[name], theirs[name])) for name in ours.dtype.names)
        return next((f"{name}: {why}" for name, why in each if why), "")
    kinds = ours.dtype.kind + theirs.dtype.kind
    if "O" in kinds or ours.dtype.kind in "UT" or kinds == "SS":
        pairs = zip(ours.ravel().tolist(), theirs.ravel().tolist(), strict=True)
        return next((why for pair in pairs if (why := item_difference(*pair))), "")
    same = ours.dtype.newbyteorder("<") == theirs.dtype.newbyteorder("<")
    if not same and not is_alike(ours.dtype, theirs.dtype):
        return f"type {ours.dtype}, not {theirs.dtype}"
    if little_endian(ours) != little_endian(theirs):
        return f"values {ours.ravel()[:5]}, not {theirs.ravel()[:5]}"
    return ""


def is_alike(ours: np.dtype[Any], theirs: np.dtype[Any]) -> bool:
    """Tell whether types differ only in spelling: truth values, bytes that are opaque."""
    if ours.itemsize != theirs.itemsize:
        return False
    if theirs.kind == "b":
        return ours.kind in "iu"
    return {ours.kind, theirs.kind} <= {"V", "S"} and not theirs.names


def item_difference(ours: Any, theirs: Any) -> str:
    if isinstance(theirs, np.ndarray):
        return difference(ours, theirs)
    if theirs is None or (isinstance(theirs, h5py.Reference) and not theirs):
        theirs = ""
    one, other = (text(item) if isinstance(item, str | bytes) else item for item in (ours, theirs))
    return "" if one == other else f"item {ours!r:.60}, not {theirs!r:.60}"


def text(item: str | bytes) -> str:
    item = item.decode("utf-8", "surrogateescape") if isinstance(item, bytes) else item
    return item.rstrip("\0")


def little_endian(values: np.ndarray) -> bytes:
    return values.astype(values.dtype.newbyteorder("<")).tobytes()


# One file, one reader


def compare(reader: Any, path: str, names: list[str], say: Say) -> None:
    """Say of each array [name, outcome, detail, reason of a fallback]."""
    try:
        opened: Opened = reader(path)
    except Exception as error:  # noqa: BLE001  # whatever a reader raises is its outcome
        for name in names:
            say([name, "error", "the whole file: " + words(error), ""])
        return
    with h5py.File(path) as file:
        for name in names:
            outcome, detail = outcome_of(opened, name, file[name])
            say([name, outcome, detail, opened.fallback.get(name, "")])


def compare_calmly(reader: Any, path: str, names: list[str], say: Say) -> None:
    """Do as `compare`, without collecting garbage.

    kerchunk runs zarr's event loop while it holds h5py's lock; when the loop's thread happens to
    collect an object of h5py's, both wait for each other for ever.
    """
    gc.disable()
    compare(reader, path, names, say)


def outcome_of(opened: Opened, name: str, dataset: h5py.Dataset) -> tuple[str, str]:
    try:
        found = opened.find(name)
    except KeyError:
        spelled = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        return "skipped", opened.skipped.get(spelled, "left out")
    except Exception as error:  # noqa: BLE001  # whatever a reader raises is its outcome
        return "error", words(error)
    for region in regions(dataset):
        theirs = values_of(dataset, region)
        try:
            ours = found.read(region)
        except Exception as error:  # noqa: BLE001  # the same
            return "error", words(error)
        # Along an unlimited dimension, what follows in netCDF-4 are fill values.
        if found.shape != dataset.shape and np.ndim(ours) == theirs.ndim:
            ours = ours[tuple(slice(0, size) for size in theirs.shape)]
        if why := difference(ours, theirs):
            return "wrong", why
    return found.kind, ""


def words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:300]


# All files


class Results:
    """Outcomes by file, kept in a file of one line each."""

    def __init__(self, cache: Path, name: str, versions: str, *, again: bool = False) -> None:
        self.versions = versions
        cache.mkdir(parents=True, exist_ok=True)
        number = versions.partition(",")[0].rpartition(" ")[2]
        self.path = cache / f"{name}-{number}.jsonl"
        if again:
            self.path.unlink(missing_ok=True)
        self.by_file: dict[str, dict[str, Any]] = {}
        if self.path.exists():
            for line in self.path.read_text().splitlines():
                entry = json.loads(line)
                self.by_file[entry["file"]] = entry
                self.versions = entry["versions"]

    def add(self, file: str, **entry: Any) -> None:
        entry = {"file": file, "versions": self.versions, **entry}
        self.by_file[file] = entry
        with self.path.open("a") as lines:
            lines.write(json.dumps(entry) + "\n")


def ask_oracle(files: list[Path], corpus: Path, cache: Path) -> dict[str, dict[str, Any]]:
    """Return for each file its arrays, those that h5py reads and those that it does not."""
    results = Results(cache, "h5py", f"h5py {h5py.__version__}")
    for path in files:
        file = str(path.relative_to(corpus))
        if file not in results.by_file:
            ended = run(
                lambda say, path=path: list_arrays(str(path), say), wall_s=60, memory=MEMORY
            )
            results.add(file, arrays=ended.said, problem=ended.problem)
    return results.by_file


def measure(reader: Reader, files: list[Path], options: Any) -> None:
    """Run a reader over all files that its cache does not have."""
    results = Results(options.cache, reader.name, reader.versions, again=options.again)
    oracle = ask_oracle(files, options.corpus, options.cache)
    todo = [path for path in files if str(path.relative_to(options.corpus)) not in results.by_file]
    if not todo:
        return
    began = time.monotonic()
    load = reader.load()
    for number, path in enumerate(todo, 1):
        file = str(path.relative_to(options.corpus))
        names = [name for name, problem in oracle[file]["arrays"] if not problem]
        if oracle[file]["problem"] or not names:
            results.add(file, arrays=[], problem="")
            continue
        ended = run(
            lambda say, path=path, names=names: compare(load, str(path), names, say),
            wall_s=WALL_S,
            memory=MEMORY,
        )
        has_hung = ended.problem.startswith("hang")
        if has_hung:  # more time, and nothing that h5py could wait for: see `compare_calmly`
            ended = run(
                lambda say, path=path, names=names: compare_calmly(load, str(path), names, say),
                wall_s=2 * WALL_S,
                memory=MEMORY,
            )
        said = {entry[0] for entry in ended.said}
        is_hang = ended.problem.startswith("hang")
        rest = [
            [name, "hang" if is_hang else "error", ended.problem, ""]
            for name in names
            if name not in said
        ]
        results.add(file, arrays=ended.said + rest, problem=ended.problem, has_hung=has_hung)
        if number % 50 == 0 or number == len(todo):
            so_far = f"{number} of {len(todo)} files, {time.monotonic() - began:.0f} s"
            print(f"{reader.name}: {so_far}", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--corpus", type=Path, default=CORPUS)
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--only", action="append", help="measure only this project")
    parser.add_argument("--again", action="store_true", help="forget what the cache has of it")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    options = parser.parse_args()
    options.corpus = options.corpus.resolve()
    if not (options.corpus / "MANIFEST.tsv").is_file():
        parser.error(f"no MANIFEST.tsv in {options.corpus}; name the corpus with --corpus")
    warnings.simplefilter("ignore")
    files = [path for path in sorted((options.corpus / "hdf5").rglob("*")) if path.is_file()]
    for reader in READERS:
        if options.only and reader.name not in options.only:
            continue
        try:
            measure(reader, files, options)
        except (ImportError, PackageNotFoundError) as error:
            print(f"{reader.name} is not run: {error}", file=sys.stderr)
    found = Table(options, files)
    page = "\n".join(found.page()) + "\n"
    if options.write:
        PAGE.write_text(page)
    else:
        print(page)
    return 1 if any(outcome == "wrong" for *_, outcome, _, _ in found.outcomes("byteatlas")) else 0


# The page


class Table:
    """Everything in the cache, as Markdown."""

    def __init__(self, options: Any, files: list[Path]) -> None:
        self.files = [str(path.relative_to(options.corpus)) for path in files]
        oracle = ask_oracle(files, options.corpus, options.cache)
        self.unreadable = {
            file: problem for file in self.files if (problem := oracle[file]["problem"])
        }
        self.names = {
            file: [name for name, problem in oracle[file]["arrays"] if not problem]
            for file in self.files
        }
        self.left_out = Counter(
            normal(problem)
            for file in self.files
            for _, problem in oracle[file]["arrays"]
            if problem
        )
        with (options.corpus / "MANIFEST.tsv").open(newline="") as lines:
            rows = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
            self.traits = {row["path"]: row for row in rows}
        self.readers = []
        self.results: dict[str, dict[str, Any]] = {}
        for reader in READERS:
            found = options.cache.glob(f"{reader.name}-*.jsonl")
            newest = max(found, key=version_of, default=None)
            if newest is not None:
                self.readers.append(reader)
                entries = map(json.loads, newest.read_text().splitlines())
                self.results[reader.name] = {entry["file"]: entry for entry in entries}

    def outcomes(self, name: str) -> Iterator[tuple[str, str, str, str, str]]:
        """Yield file, array, outcome, detail and reason of a fallback."""
        for file in self.files:
            entry = self.results.get(name, {}).get(file)
            wanted = set(self.names[file])
            for array, outcome, detail, fallback in entry["arrays"] if entry else ():
                if array in wanted:
                    yield file, array, outcome, detail, fallback

    def page(self) -> Iterator[str]:
        count = sum(map(len, self.names.values()))
        compared = sum(1 for names in self.names.values() if names)
        yield "# Comparison with kerchunk, VirtualiZarr and pyfive"
        yield ""
        yield "<!-- Written by benchmarks/comparison.py: run it again, do not edit. -->"
        yield ""
        yield from prose(
            f"{len(self.files)} HDF5 and netCDF-4 files with which other projects test (none was"
            f" written for byteatlas), read array by array, every value compared with what h5py"
            f" reads: shape, type and bits. {compared} of them have arrays that h5py can read,"
            f" {count:,} in all; one file has 2,001 of them. Each project has each file in a"
            f" process of its own, with {WALL_S:g} s, {2 * WALL_S:g} s at a second try where that"
            f" was not enough, and {MEMORY // 2**30} GiB of memory."
        )
        yield ""
        today = dt.datetime.now(dt.UTC).date()
        yield f"{today}, Linux, {platform.machine()}:"
        yield ""
        for reader in self.readers:
            versions = sorted({e["versions"] for e in self.results[reader.name].values()})
            yield f"- {'; '.join(versions)}: {reader.settings}"
        yield f"- the oracle: h5py {h5py.__version__} (HDF5 {h5py.version.hdf5_version}),"
        yield f"  hdf5plugin {hdf5plugin.version}"
        yield ""
        yield "## All files"
        yield ""
        yield from self.totals()
        yield ""
        yield from prose(
            "*Virtual*: equal, its values stay in the file. *Inlined*: equal, kept in the index."
            " *Skipped*: left out, byteatlas with a reason. *Wrong*: another shape, type or value."
            " *Error*: it, or its whole file, raises or crashes. *Hang*: not done in time. pyfive"
            " makes no index: what it reads counts as virtual. *Whole*: every array equal."
        )
        yield ""
        yield from bullets(
            "VirtualiZarr is all or nothing: one variable that it cannot express fails the file,"
            " and all its arrays count as errors. Whoever names those variables by hand gets the"
            " others.",
            *self.hangs(),
            "Of the h5fc_ext*.h5 files, written by an early version of the HDF5 library, h5py"
            " itself reads half as fill value; here what h5py reads is right.",
            "A reference is equal when it is given as the name of what it leads to, a string with"
            " or without its padding, a truth value also as an integer of one byte.",
            "Attributes and dimension names are not compared here.",
        )
        yield ""
        yield "## What byteatlas skips, and why"
        yield ""
        yield from self.reasons()
        yield ""
        yield "## Wrong values"
        yield ""
        yield from self.wrong()
        yield ""
        yield "## By trait"
        yield ""
        yield from prose(
            "Arrays of the files that have a trait (anywhere in the file), by outcome: v virtual, i"
            " inlined, s skipped, **w** wrong, e error, h hang. The traits are those of the corpus'"
            " MANIFEST.tsv."
        )
        yield ""
        yield from self.by_trait()
        yield ""
        yield "## Left out"
        yield ""
        yield from self.not_compared()
        yield ""
        yield "## Run it"
        yield ""
        docstring = (__doc__ or "").partition("\n\n")[2].rstrip()
        yield docstring

    def totals(self) -> Iterator[str]:
        yield "| | files whole | files with a wrong value | " + " | ".join(OUTCOMES) + " |"
        yield "|---|---|---|" + "---|" * len(OUTCOMES)
        for reader in self.readers:
            by_file: dict[str, set[str]] = defaultdict(set)
            counts: Counter[str] = Counter()
            for file, _, outcome, *_ in self.outcomes(reader.name):
                by_file[file].add(outcome)
                counts[outcome] += 1
            whole = sum(found <= {"virtual", "inlined"} for found in by_file.values())
            wrong = sum("wrong" in found for found in by_file.values())
            numbers = " | ".join(f"{counts[outcome]:,}" for outcome in OUTCOMES)
            yield f"| {reader.name} | {whole} of {len(by_file)} | {wrong} | {numbers} |"

    def hangs(self) -> Iterator[str]:
        for reader in self.readers:
            entries = self.results[reader.name].values()
            if hung := sum(entry.get("has_hung", False) for entry in entries):
                yield (
                    f"With {reader.name}, {hung} files were not done at the first try; counted is"
                    " the second one, for which Python's garbage collector was switched off. (The"
                    " number varies: kerchunk runs zarr's event loop under h5py's lock, and waits"
                    " for ever when garbage of h5py's happens to be collected meanwhile.)"
                )

    def reasons(self) -> Iterator[str]:
        reasons: Counter[str] = Counter()
        fallbacks: Counter[str] = Counter()
        for _, _, outcome, detail, fallback in self.outcomes("byteatlas"):
            if outcome == "skipped":
                reasons[normal(detail)] += 1
            if fallback:
                fallbacks[normal(fallback.partition("(")[2].rstrip(")"))] += 1
        yield "| arrays | reason |"
        yield "|---|---|"
        for reason, count in reasons.most_common():
            yield f"| {count} | {cell(reason)} |"
        yield ""
        if not fallbacks:
            yield "No array needs h5py."
            return
        yield "[Read by h5py](fallback.md), because our own reader says:"
        yield ""
        yield "| arrays | reason |"
        yield "|---|---|"
        for reason, count in fallbacks.most_common():
            yield f"| {count} | {cell(reason)} |"

    def wrong(self) -> Iterator[str]:
        for reader in self.readers:
            found = [entry for entry in self.outcomes(reader.name) if entry[2] == "wrong"]
            if not found:
                yield f"{reader.name}: none."
                yield ""
                continue
            yield f"{reader.name}: {len(found)}, of which the first of each file:"
            yield ""
            first: dict[str, tuple[str, str]] = {}
            for file, array, _, detail, _ in found:
                first.setdefault(file, (array, detail))
            for file, (array, detail) in first.items():
                yield f"- `{Path(file).name}` `{array}`: {cell(detail)[:150]}"
            yield ""

    def by_trait(self) -> Iterator[str]:
        names = [reader.name for reader in self.readers]
        counts: dict[tuple[str, str], dict[str, Counter[str]]] = defaultdict(
            lambda: defaultdict(Counter)
        )
        files: dict[tuple[str, str], set[str]] = defaultdict(set)
        for name in names:
            for file, _, outcome, *_ in self.outcomes(name):
                for trait in self.traits_of(file):
                    counts[trait][name][outcome] += 1
                    files[trait].add(file)
        yield "| trait | files | " + " | ".join(names) + " |"
        yield "|---|---|" + "---|" * len(names)
        for column, title in TRAITS.items():
            for kind, value in sorted(counts):
                if kind == column:
                    cells = " | ".join(short(counts[kind, value][name]) for name in names)
                    yield f"| {title}: {value} | {len(files[kind, value])} | {cells} |"

    def traits_of(self, file: str) -> Iterator[tuple[str, str]]:
        row = self.traits.get(file, {})
        for column in TRAITS:
            for value in (row.get(column) or "").split(","):
                if value.strip():
                    yield column, value.strip()

    def not_compared(self) -> Iterator[str]:
        yield f"{len(self.unreadable)} files that h5py cannot open, and arrays without values:"
        yield ""
        yield "| arrays | because |"
        yield "|---|---|"
        for reason, count in self.left_out.most_common():
            yield f"| {count} | {cell(reason)} |"


def version_of(path: Path) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", path.stem)))


def bullets(*texts: str) -> Iterator[str]:
    for text in texts:
        for number, line in enumerate(textwrap.wrap(text, 98, break_on_hyphens=False)):
            yield f"{'  ' if number else '- '}{line}"


def prose(text: str) -> Iterator[str]:
    yield from textwrap.wrap(text, 100, break_long_words=False, break_on_hyphens=False)


def short(counts: Counter[str]) -> str:
    letters = {"wrong": "**{} w**"}
    shown = (
        letters.get(one, "{} " + one[0]).format(counts[one]) for one in OUTCOMES if counts[one]
    )
    return ", ".join(shown)


def normal(reason: str) -> str:
    """Return a reason without its places, so that equal ones can be counted."""
    reason = re.sub(r" at byte \d+ \(0x[0-9a-f]+\)(, length \d+)?", "", reason)
    return re.sub(r"0x[0-9a-f]+|'[^']*/[^']*'", "…", reason)


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main())
