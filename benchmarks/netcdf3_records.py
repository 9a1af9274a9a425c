"""What does the scan of a netCDF-3 file with 80,000 record references cost?

20 record variables of one double over 4,000 records: 80,000 chunks of 8 bytes, interleaved. Scans
the local file whole, with byteatlas and with the peers that are installed, side by side in one
process, and prints the CPU of each. The answer is checked: every reference against the values
that netCDF4 reads. Run:

    python benchmarks/netcdf3_records.py
"""

from __future__ import annotations

import gc
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np

VARIABLES, RECORDS, REPEATS = 20, 4000, 7

Offsets = dict[str, np.ndarray]


def scan_with_byteatlas(path: Path) -> Any:
    from byteatlas.scanning import scan

    return scan(str(path))


def offsets_of_byteatlas(group: Any) -> Offsets:
    return {name: array.manifest.offset for name, array in group.arrays.items()}


def scan_with_virtualizarr(path: Path) -> Any:
    from obspec_utils.registry import ObjectStoreRegistry
    from obstore.store import LocalStore
    from virtualizarr.parsers import NetCDF3Parser

    registry = ObjectStoreRegistry({"file://": LocalStore()})
    return NetCDF3Parser()(url=f"file://{path}", registry=registry)


def offsets_of_virtualizarr(store: Any) -> Offsets:
    arrays = store._group.arrays  # noqa: SLF001  # nothing public shows the manifests
    return {
        name: array.manifest._offsets.reshape(-1)  # noqa: SLF001
        for name, array in arrays.items()
    }


def scan_with_kerchunk(path: Path) -> Any:
    from kerchunk.netCDF3 import NetCDF3ToZarr

    return NetCDF3ToZarr(str(path), inline_threshold=0).translate()["refs"]


def offsets_of_kerchunk(refs: Any) -> Offsets:
    return {
        f"v{number}": np.array([refs[f"v{number}/{record}"][1] for record in range(RECORDS)])
        for number in range(VARIABLES)
    }


PEERS: dict[str, tuple[Callable[[Path], Any], Callable[[Any], Offsets]]] = {
    "byteatlas": (scan_with_byteatlas, offsets_of_byteatlas),
    "virtualizarr": (scan_with_virtualizarr, offsets_of_virtualizarr),
    "kerchunk": (scan_with_kerchunk, offsets_of_kerchunk),
}


def write_file(path: Path) -> None:
    rng = np.random.default_rng(0)
    with netCDF4.Dataset(path, "w", format="NETCDF3_CLASSIC") as dataset:
        dataset.createDimension("time", None)
        for number in range(VARIABLES):
            variable = dataset.createVariable(f"v{number}", "f8", ("time",))
            variable.units = "K"
        for number in range(VARIABLES):
            dataset[f"v{number}"][:] = rng.random(RECORDS)


def check(path: Path, offsets: Offsets) -> None:
    data = np.frombuffer(path.read_bytes(), np.uint8)
    with netCDF4.Dataset(path) as dataset:
        for name, variable in dataset.variables.items():
            within = offsets[name].astype(np.int64)[:, np.newaxis] + np.arange(8)
            values = data[within].view(">f8").reshape(-1)
            assert np.array_equal(values, variable[:]), name


def cpu_seconds(scan: Callable[[Path], Any], path: Path) -> list[float]:
    """Return the CPU seconds of each repeat; what a first call imports is not among them."""
    taken = []
    for _ in range(REPEATS):
        gc.collect()
        start = time.process_time()
        scan(path)
        taken.append(time.process_time() - start)
    return taken


def main() -> int:
    print(f"Python {platform.python_version()}, numpy {np.__version__}, {platform.machine()}")
    medians: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "records.nc"
        write_file(path)
        print(f"{VARIABLES * RECORDS:,} references, file of {path.stat().st_size:,} bytes")
        for peer, (scan, offsets_of) in PEERS.items():
            try:
                label = f"{peer} {version(peer)}"
                check(path, offsets_of(scan(path)))
            except (ImportError, PackageNotFoundError) as error:
                print(f"{peer}: not measured ({error})")
                continue
            taken = cpu_seconds(scan, path)
            medians[peer] = statistics.median(taken)
            print(f"{label:24} {medians[peer] * 1e3:9.2f} ms CPU (least {min(taken) * 1e3:.2f})")
    for peer, median in medians.items():
        if peer != "byteatlas":
            print(f"{peer} / byteatlas: {median / medians['byteatlas']:.1f}")
    return 0 if medians.get("virtualizarr", 1e9) >= 2 * medians["byteatlas"] else 1


if __name__ == "__main__":
    sys.exit(main())
