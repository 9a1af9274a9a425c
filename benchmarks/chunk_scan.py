"""What does it cost to find a million chunks in a local HDF5 file?

One variable of tiny chunks (shuffle and deflate), once for each kind of chunk index: the version 1
B-tree of every netCDF-4 file (of rank 3 and of rank 1), and the fixed array, extensible array and
version 2 B-tree of the latest format. The files are written once, into the system's folder for
temporary files. Each entry scans in a process of its own, imports done before the clock starts;
CPU counts all threads. The answer is checked: the offset and size of every chunk, as h5py gives
them. Run:

    python benchmarks/chunk_scan.py [--count 1000000] [--kinds btree-v1 ...] [--peers h5py ...]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

VALUES = 16  # of each chunk, four bytes each

Chunks = tuple[np.ndarray, np.ndarray]
"""Offset and size of every chunk, in the order of the chunk grid."""


class Kind(NamedTuple):
    """How to have the library choose one kind of chunk index."""

    libver: tuple[str, str]
    unlimited: tuple[bool, ...]
    """Whether each axis is; as many as the rank."""


KINDS = {
    "btree-v1": Kind(("v108", "latest"), (True, False, False)),
    "btree-v1-rank-1": Kind(("v108", "latest"), (True,)),
    "fixed-array": Kind(("latest", "latest"), (False, False, False)),
    "extensible-array": Kind(("latest", "latest"), (True, False, False)),
    "btree-v2": Kind(("latest", "latest"), (True, True, False)),
}


def scan_with_byteatlas(path: Path) -> Any:
    from byteatlas.scanners import find_scanner
    from byteatlas.scanning import scan

    find_scanner(memoryview(b"\x89HDF\r\n\x1a\n"))  # imports the scanners, as a first scan does

    return lambda: scan(str(path))


def chunks_of_byteatlas(group: Any) -> Chunks:
    manifest = group.arrays["x"].manifest
    assert manifest.index is None
    return manifest.offset, manifest.length


def scan_with_h5py(path: Path) -> Any:
    def scan() -> list[Any]:
        found: list[Any] = []
        with h5py.File(path) as file:
            file["x"].id.chunk_iter(found.append)
        return found

    return scan


def chunks_of_h5py(found: list[Any]) -> Chunks:
    found = sorted(found, key=lambda info: info.chunk_offset)
    return (
        np.array([info.byte_offset for info in found], np.uint64),
        np.array([info.size for info in found], np.uint64),
    )


def scan_with_virtualizarr(path: Path) -> Any:
    from obspec_utils.registry import ObjectStoreRegistry
    from obstore.store import LocalStore
    from virtualizarr.parsers import HDFParser

    registry = ObjectStoreRegistry({"file://": LocalStore()})
    return lambda: HDFParser()(url=f"file://{path}", registry=registry)


def chunks_of_virtualizarr(store: Any) -> Chunks:
    # Nothing public shows the columns.
    manifest = store._group.arrays["x"].manifest  # noqa: SLF001
    return manifest._offsets.reshape(-1), manifest._lengths.reshape(-1)  # noqa: SLF001


def scan_with_kerchunk(path: Path) -> Any:
    from kerchunk.hdf import SingleHdf5ToZarr

    return lambda: SingleHdf5ToZarr(str(path), inline_threshold=0).translate()


def chunks_of_kerchunk(index: Any) -> Chunks:
    refs = index["refs"]
    places = sorted(
        (tuple(map(int, key[2:].split("."))), key)
        for key in refs
        if key.startswith("x/") and key[2].isdigit()
    )
    found = np.array([refs[key][1:] for _, key in places], np.uint64)
    return found[:, 0], found[:, 1]


PEERS: dict[str, tuple[Callable[[Path], Any], Callable[[Any], Chunks]]] = {
    "byteatlas": (scan_with_byteatlas, chunks_of_byteatlas),
    "h5py": (scan_with_h5py, chunks_of_h5py),
    "virtualizarr": (scan_with_virtualizarr, chunks_of_virtualizarr),
    "kerchunk": (scan_with_kerchunk, chunks_of_kerchunk),
}


def grid_of(count: int, rank: int) -> tuple[int, ...]:
    return (count,) if rank == 1 else (-(-count // 1000), 100, 10)


def write_file(path: Path, kind: Kind, count: int) -> None:
    """Write a file whose chunks have seven lengths, in the order of the grid."""
    grid = grid_of(count, len(kind.unlimited))
    chunks = (1,) * (len(grid) - 1) + (VALUES,)
    shape = tuple(n * c for n, c in zip(grid, chunks, strict=True))
    limit = tuple(None if u else n for u, n in zip(kind.unlimited, shape, strict=True))
    shuffled = np.arange(VALUES, dtype="<f4").view(np.uint8).reshape(-1, 4).T.tobytes()
    encoded = [zlib.compress(shuffled, 1) + bytes(spare) for spare in range(7)]
    unfinished = path.with_suffix(".part")
    with h5py.File(unfinished, "w", libver=kind.libver) as file:
        options = {"maxshape": limit, "chunks": chunks, "shuffle": True, "compression": 1}
        write = file.create_dataset("x", shape, "<f4", **options).id.write_direct_chunk
        for number, place in enumerate(np.ndindex(*grid)):
            write((*place[:-1], place[-1] * VALUES), encoded[number % 7])
    unfinished.rename(path)


def peak_memory() -> int:
    """Return the most bytes this process has ever had resident."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def measure(peer: str, path: Path) -> None:
    """Scan in this process and print what it cost as JSON."""
    prepare, chunks_of = PEERS[peer]
    scan = prepare(path)
    before = peak_memory()
    cpu, wall = time.process_time(), time.perf_counter()
    found = scan()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    peak = peak_memory() - before
    offset, size = (np.ascontiguousarray(column, "<u8") for column in chunks_of(found))
    digest = hashlib.sha256(offset.tobytes() + size.tobytes()).hexdigest()
    cost = {"cpu": cpu, "wall": wall, "peak": peak / 1e6, "chunks": offset.size, "digest": digest}
    print(json.dumps(cost))


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=1_000_000, help="chunks, in thousands")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--repeats", type=int, default=3, help="runs of each; the median counts")
    parser.add_argument("--measure", nargs=2, metavar=("PEER", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure[0], Path(arguments.measure[1]))
        return 0

    peers = {peer: installed(peer) for peer in arguments.peers}
    print(f"Python {platform.python_version()}, numpy {np.__version__}, {platform.machine()}")
    print(", ".join(f"{peer} {release or 'is not installed'}" for peer, release in peers.items()))
    print(f"HDF5 {h5py.version.hdf5_version}, {arguments.count:,} chunks")
    folder = Path(tempfile.gettempdir()) / "byteatlas-benchmarks"
    folder.mkdir(exist_ok=True)
    right = True
    for name in arguments.kinds:
        path = folder / f"{name}-{arguments.count}.h5"
        if not path.exists():
            write_file(path, KINDS[name], arguments.count)
        print(f"\n{name} ({path.stat().st_size / 1e6:.0f} MB)")
        right &= compare(path, [peer for peer, release in peers.items() if release], arguments)
    return 0 if right else 1


def compare(path: Path, peers: list[str], arguments: argparse.Namespace) -> bool:
    """Measure each peer on one file, print a line for it, and tell whether all agree."""
    with path.open("rb") as file:
        while file.read(2**20):
            pass  # now it is in the page cache
    first = None
    digests = set()
    for peer in peers:
        command = [sys.executable, __file__, "--measure", peer, str(path)]
        runs = []
        for _ in range(arguments.repeats):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"  {peer:13} failed: {done.stderr.strip().splitlines()[-1]}")
                break
            runs.append(json.loads(done.stdout))
        else:
            cpu = statistics.median(run["cpu"] for run in runs)
            peak = statistics.median(run["peak"] for run in runs)
            first = cpu if first is None else first
            digests |= {run["digest"] for run in runs}
            print(
                f"  {peer:13} {cpu:8.3f} s of CPU {peak:6.0f} MB above the imports "
                f"{cpu / first:7.1f} x  {runs[0]['chunks']:,} chunks"
            )
    if len(digests) > 1:
        print("  the answers differ")
    return len(digests) == 1


if __name__ == "__main__":
    sys.exit(main())
