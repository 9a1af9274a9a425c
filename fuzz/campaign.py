"""Run many mutants, count what came of them, and boil findings down."""

from __future__ import annotations

import statistics
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fuzz.children import MiB, Phase, Report, peak_rss, run_in_children
from fuzz.mutations import Mutant, mutate
from fuzz.oracle import judge
from fuzz.seeds import SEEDS, Seed, make_seed
from fuzz.subject import examine

__all__ = ["FINDINGS", "KINDS", "Outcome", "Summary", "minimised", "run_files", "run_mutants"]

SCAN_S = 10.0
"""Processor seconds for a scan and the reads that follow; more is a hang."""
ORACLE_S = 1.0
SPARE = 64 * MiB
"""Memory that a scan may take beyond that of the sample and the chunk it declares."""

FINDINGS = ("wrong", "dropped", "foreign", "crash", "hang", "memory")
"""Outcomes that must not be."""
KINDS = ("agree", "skip", "error", "lenient", "unjudged", *FINDINGS)


@dataclass(slots=True)
class Outcome:
    """What came of one file."""

    name: str
    kind: str
    """One of KINDS. ``foreign``: an exception that is not ours; ``unjudged``: the oracle crashed
    or hung, byteatlas did not."""
    details: list[str] = field(default_factory=list)
    edits: list[str] = field(default_factory=list)
    errors: int = 0
    located: int = 0
    cpu_s: float = 0.0
    memory: int = 0
    """Bytes the process grew by, without the largest chunk declared."""


@dataclass(slots=True)
class Summary:
    """Figures of a campaign."""

    counts: Counter[str] = field(default_factory=Counter)
    errors: int = 0
    located: int = 0
    memory: int = 0
    slowest: float = 0.0
    """The largest ratio of a mutant's processor time to its sample's."""
    cpu_s: float = 0.0

    def add(self, outcome: Outcome, pristine: Outcome | None) -> None:
        """Count one more file."""
        self.counts[outcome.kind] += 1
        self.errors += outcome.errors
        self.located += outcome.located
        self.cpu_s += outcome.cpu_s
        before = pristine.memory if pristine else 0
        self.memory = max(self.memory, outcome.memory - before)
        if pristine and pristine.cpu_s:
            self.slowest = max(self.slowest, outcome.cpu_s / pristine.cpu_s)


def run_mutants(
    seed: Seed, numbers: Sequence[int]
) -> tuple[Outcome, Iterator[tuple[Mutant, Outcome]]]:
    """Run some of a sample's mutants; return what comes of the sample itself, too."""
    whole, known = Mutant(seed.name, seed.name, seed.data), frozenset(_refused(seed))
    with tempfile.TemporaryDirectory(dir=_memory()) as folder:
        job = _Job(Path(folder), is_hdf5=seed.is_hdf5, known=known)
        tries = [_outcome(report, whole, SPARE) for report in run_in_children([whole] * 5, job.run)]
    pristine = tries[-1]
    assert pristine.kind == "agree", pristine
    pristine.cpu_s = statistics.median(one.cpu_s for one in tries)
    pristine.memory = min(one.memory for one in tries)

    def outcomes() -> Iterator[tuple[Mutant, Outcome]]:
        for start in range(0, len(numbers), 500):  # so that not all are in memory
            mutants = [mutate(seed, number) for number in numbers[start : start + 500]]
            with tempfile.TemporaryDirectory(dir=_memory()) as folder:
                job = _Job(Path(folder), is_hdf5=seed.is_hdf5, known=known)
                for report in run_in_children(mutants, job.run):
                    mutant = mutants[report.number]
                    yield mutant, _outcome(report, mutant, SPARE + pristine.memory)

    return pristine, outcomes()


def run_files(paths: Sequence[Path]) -> Iterator[tuple[Mutant, Outcome]]:
    """Run files as they are."""
    mutants = [Mutant(path.name, path.name, path.read_bytes()) for path in paths]
    with tempfile.TemporaryDirectory(dir=_memory()) as folder:
        for report in run_in_children(mutants, _Job(Path(folder), is_hdf5=True).run):
            mutant = mutants[report.number]
            yield mutant, _outcome(report, mutant, SPARE)


def _memory() -> str | None:
    """Return a folder in memory, where there is one."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108  # only its folders


def _refused(seed: Seed) -> dict[str, str]:
    with tempfile.TemporaryDirectory(dir=_memory()) as folder:
        path = Path(folder, "sample")
        path.write_bytes(seed.data)
        return examine(path).refused


@dataclass(frozen=True, slots=True)
class _Job:
    """What is done with each file, in a child."""

    folder: Path
    is_hdf5: bool
    known: frozenset[str] = frozenset()
    """Paths that are skipped in the undamaged sample."""

    def run(self, mutant: Mutant, begin: Phase) -> dict[str, Any]:
        path = self.folder / mutant.name.replace("/", "-")
        path.write_bytes(mutant.data)
        try:
            before = peak_rss(reset=True)
            begin("scan", SCAN_S)
            start = time.process_time()
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                reading = examine(path, self.known, with_index=_is_chosen(mutant.name))
            spent = time.process_time() - start
            memory = peak_rss() - before - reading.largest_chunk
            begin("oracle", ORACLE_S)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                kind, details = judge(reading, path, self.known, is_hdf5=self.is_hdf5)
        finally:
            path.unlink()
        return {
            "kind": kind,
            "details": list(details),
            "errors": reading.errors,
            "located": reading.located,
            "unlocated": reading.unlocated,
            "cpu_s": spent,
            "memory": memory,
        }


def _is_chosen(name: str) -> bool:
    """Choose the mutants whose index is written and read: that takes as long as all the rest."""
    number = name.rpartition("/")[2]
    return not number.isdecimal() or int(number) % 32 < 2


def _outcome(report: Report, mutant: Mutant, most: int) -> Outcome:
    edits = list(mutant.edits)
    if report.result is None:
        if report.phase == "oracle" and not report.death.startswith("Traceback"):
            return Outcome(mutant.name, "unjudged", [f"oracle: {report.death}"], edits)
        kind = "hang" if report.death == "hang" else "crash"
        kind = "foreign" if report.death.startswith("Traceback") else kind
        return Outcome(mutant.name, kind, [f"{report.phase}: {report.death}"], edits)
    facts = dict(report.result)
    unlocated = facts.pop("unlocated")
    outcome = Outcome(mutant.name, edits=edits, **facts)
    outcome.details += [f"not located: {one}" for one in unlocated]
    if outcome.memory > most:
        outcome.details.append(f"{outcome.memory >> 20} MiB")
        outcome.kind = "memory"
    return outcome


def minimised(seed: Seed, mutant: Mutant, kind: str, *, tries: int = 200) -> Mutant:
    """Undo as much of a mutant's damage as leaves the same kind of outcome.

    Only bytes that were overwritten are given back; one that was cut off or grew stays so long.
    """
    if len(mutant.data) > len(seed.data):
        return mutant
    changed = [
        place
        for place, (one, other) in enumerate(zip(mutant.data, seed.data, strict=False))
        if one != other
    ]
    size = max(len(changed) // 2, 1)
    while size and tries > 0:
        start = 0
        while start < len(changed) and tries > 0:
            fewer = changed[:start] + changed[start + size :]
            data = bytearray(seed.data[: len(mutant.data)])
            for place in fewer:
                data[place] = mutant.data[place]
            smaller = mutant._replace(data=bytes(data), edits=_listed(data, seed.data))
            tries -= 1
            if _kind(seed, smaller) == kind:
                mutant, changed = smaller, fewer
            else:
                start += size
        size //= 2
    return mutant


def _listed(data: bytes | bytearray, pristine: bytes) -> tuple[str, ...]:
    size = f"{len(data)} of {len(pristine)} bytes"
    pairs = enumerate(zip(data, pristine, strict=False))
    return (size, *(f"byte {place}: {b} -> {a}" for place, (a, b) in pairs if a != b))


def _kind(seed: Seed, mutant: Mutant) -> str:
    with tempfile.TemporaryDirectory(dir=_memory()) as folder:
        job = _Job(Path(folder), is_hdf5=seed.is_hdf5, known=frozenset(_refused(seed)))
        (report,) = run_in_children([mutant], job.run)
    return _outcome(report, mutant, SPARE).kind


def all_seeds(names: Sequence[str] = ()) -> list[Seed]:
    """Write the samples, or those of some names."""
    return [make_seed(name) for name in (names or SEEDS)]


def as_json(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome as JSON values."""
    return asdict(outcome)
