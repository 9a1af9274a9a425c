"""The demo: `python -m byteatlas.cli.demo DIRECTORY`.

Serves the files of a directory on loopback, and of each: scans it over HTTP, writes its index,
opens the index with xarray, and compares every variable with netCDF4 reading the local file.
Exits with 1 when a single bit differs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import netCDF4
import numpy as np
import xarray as xr
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from byteatlas import display
from byteatlas.index import write_json
from byteatlas.model import VirtualArray, VirtualGroup
from byteatlas.reference import Reference, open_reference
from byteatlas.scanning import SMALL, scan
from byteatlas.testing.server import RangeServer
from byteatlas.verification import describe_difference, same_dtype

__all__ = ["main"]

INDEXES = Path("demo_out")


@dataclass(slots=True)
class Tally:
    """What the whole demo adds up to."""

    files: int = 0
    variables: int = 0
    wrong: int = 0
    skipped: int = 0


def main() -> None:
    """Run the demo over the directory that the command line names."""
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        sys.exit("usage: python -m byteatlas.cli.demo DIRECTORY")
    samples = [p for p in Path(sys.argv[1]).iterdir() if p.suffix in (".nc", ".h5")]
    INDEXES.mkdir(exist_ok=True)
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = 100
    console.print(
        "Each file is served on loopback, scanned over HTTP, opened through its index with xarray, "
        f"and compared with netCDF4 {netCDF4.__version__} reading the local file.\n"
    )
    tally = Tally()
    with _larger_file() as larger:
        for path in [*sorted(samples), larger]:
            with RangeServer(path.parent) as server:
                _show_file(console, server, path, tally)
    is_good = not (tally.wrong or tally.skipped)
    verdict = (
        Text("all equal to netCDF4, to the bit", "bold green")
        if is_good
        else Text(f"{tally.wrong} differ, {tally.skipped} skipped", "bold red")
    )
    console.print(
        Text(f"{tally.files} files, {tally.variables} variables: ", "bold") + verdict,
        Text(f"The indexes are in {INDEXES}/. Look at one: byteatlas info {INDEXES}/...", "dim"),
        sep="\n",
    )
    sys.exit(0 if is_good else 1)


def _show_file(console: Console, server: RangeServer, path: Path, tally: Tally) -> None:
    url = server.url(path.name)
    size = path.stat().st_size
    console.print(Text(path.name, "bold cyan"), Text(f"{display.size(size)}  {url}", "dim"))

    group = scan(url)
    scanned = server.bytes_sent
    index = INDEXES / f"{path.name}.json"
    write_json(group, index)
    server.clear()
    with open_reference(str(path), library="netCDF4") as reference:
        table = _compare(group, index, reference, tally)
    tally.files += 1
    tally.skipped += len(group.report.skipped)

    rounds = display.plural(group.report.rounds, "round")
    requests = display.plural(group.report.requests, "request")
    share = f"{display.size(scanned)} of {display.size(size)} ({scanned / size:.0%})"
    lines = [
        f"scanned in {rounds}, {requests}, {share}; index {display.size(index.stat().st_size)}",
        f"all values read, variable by variable, in {_cost(server)}",
        *(f"skipped {skipped.path}: {skipped.reason}" for skipped in group.report.skipped),
    ]
    if size > SMALL:
        server.clear()
        name = next(iter(group.arrays))
        with xr.open_dataset(index, engine="byteatlas") as ds:
            ds[name][0].load()
        lines.append(f"one step of {name} read in {_cost(server)}")
    console.print(Padding(table, (0, 0, 0, 2)))
    console.print(*(Text(f"  {line}", "dim") for line in lines), "", sep="\n")


def _cost(server: RangeServer) -> str:
    return f"{display.plural(len(server.log), 'request')}, {display.size(server.bytes_sent)}"


def _compare(group: VirtualGroup, index: Path, reference: Reference, tally: Tally) -> Table:
    """Compare each variable of an index, opened with xarray, with netCDF4's."""
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column("variable", no_wrap=True)
    for name in ("type", "chunks", "codecs"):
        table.add_column(name)
    table.add_column("virtual", justify="right")
    table.add_column("other")
    table.add_column("netCDF4")
    missing = set(reference.paths())
    for path, part in group.walk():
        if path and part.arrays:
            table.add_row(Text(f"{path}/", "dim"))
        with xr.open_dataset(index, engine="byteatlas", group=path or None, decode_cf=False) as ds:
            for name, array in part.arrays.items():
                problem = _difference(ds, name, reference, f"{path}/{name}")
                table.add_row(*_cells(name, array, is_nested=bool(path)), _verdict(problem))
                missing.discard(f"{path}/{name}")
                tally.variables += 1
                tally.wrong += bool(problem)
    for path in sorted(missing):
        table.add_row(Text(path), *[""] * 5, _verdict("not in the index"))
        tally.wrong += 1
    return table


def _difference(ds: xr.Dataset, name: str, reference: Reference, path: str) -> str:
    if reference.resolve(path) is None:
        return "not in the source"
    ours, theirs = ds.variables[name].values, reference.array(path)
    if ours.dtype.kind == "U":  # xarray's way with strings
        ours = ours.astype(object)
    if not same_dtype(ours.dtype, theirs.dtype):
        return f"type {ours.dtype}, not {theirs.dtype}"
    return describe_difference(ours, theirs.read((slice(None),) * ours.ndim))


def _cells(name: str, array: VirtualArray, *, is_nested: bool) -> list[Text]:
    axes = f"({', '.join(array.dimensions)})" if array.shape else ""
    kinds = display.chunk_kinds(array.manifest)
    others = [f"{kinds[kind]:,} {kind}" for kind in ("inlined", "missing") if kinds[kind]]
    return [
        Text("  " * is_nested) + Text(name, "bold") + Text(axes),
        Text(display.dtype(array.dtype)),
        Text(display.shape(array.chunk_shape)),
        Text(display.codecs(array.encodings)),
        Text(f"{kinds['virtual']:,}"),
        Text(", ".join(others)),
    ]


def _verdict(problem: str) -> Text:
    return Text(problem, "bold red") if problem else Text("equal", "green")


@contextmanager
def _larger_file() -> Iterator[Path]:
    """Write a file of some 40 MB, of which a scan reads a small part."""
    with TemporaryDirectory() as directory:
        path = Path(directory) / "larger.nc"
        values = np.random.default_rng(0).normal(280, 10, (100, 50, 50)).astype("f4")
        with netCDF4.Dataset(path, "w") as root:
            for name, length in (("time", None), ("lat", 50), ("lon", 50)):
                root.createDimension(name, length)
            variables = [
                root.createVariable(
                    name,
                    "f4",
                    ("time", "lat", "lon"),
                    chunksizes=(1, 50, 50),
                    compression="zlib",
                    complevel=1,
                    shuffle=True,
                )
                for name in ("temperature", "pressure", "humidity", "wind")
            ]
            for start in range(0, 1200, 100):  # in turns, which scatters what describes them
                for position, variable in enumerate(variables):
                    variable[start : start + 100] = np.roll(values, position, axis=0)
        yield path


if __name__ == "__main__":
    main()
