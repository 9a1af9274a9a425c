"""What does it cost to scan files whose headers and attributes outweigh their chunks?

Local netCDF-4 and HDF5 files are scanned whole by byteatlas, by h5py (open, every attribute,
every chunk by `chunk_iter`), by VirtualiZarr and by kerchunk, each in a fresh process:

  product     13 variables, 89 attributes, 380 KB                   at most 4 ms of CPU
  crowded     the same with so many attributes that they lie in heaps
  collection  30 variables of 40 attributes, groups, 21,000 chunks         at most 0.1 s
  many        2,000 datasets of two chunks in one group                    at most 0.4 s

The answers are compared with h5py's. Exits with 1 when one differs, whatever the time.
"""

from __future__ import annotations

import sys
from pathlib import Path

from _files import CACHE, cached, collection, many_datasets, product
from _measure import (
    Measured,
    argument_parser,
    measure,
    megabytes,
    print_machine,
    print_table,
    seconds,
    verdict,
)
from _scans import BYTEATLAS, H5PY, KERCHUNK, VIRTUALIZARR

CONTENDERS = (BYTEATLAS, H5PY, VIRTUALIZARR, KERCHUNK)
PACKAGES = ("byteatlas", "numpy", "h5py", "netCDF4", "virtualizarr", "kerchunk")
HEADER = ("", "CPU least", "ratio", "median", "repeats", "memory", "")


def compare(title: str, path: Path, limit_s: float | None, repeats: int, enough_s: float) -> bool:
    """Print one file's table, and tell whether all answers are right."""
    results = [
        measure(contender, str(path), repeats=repeats, enough_s=enough_s)
        for contender in CONTENDERS
    ]
    ours, oracle = results[:2]
    expected = oracle.answer or {}
    rows = [row_of(result, ours, expected, limit_s) for result in results]
    size = path.stat().st_size
    title = f"{title}: {size:,} bytes, " + ", ".join(
        f"{expected[key]:,} {key}" for key in ("references", "attributes") if key in expected
    )
    print_table(title, HEADER, rows)
    is_checked = not ours.problem and not oracle.problem
    return is_checked and not any(result.differs_from(expected) for result in results)


def row_of(
    result: Measured, ours: Measured, expected: dict[str, int], limit_s: float | None
) -> tuple[str, ...]:
    if result.problem:
        return (result.name, "", "", "", "", "", result.problem)
    difference = result.differs_from(expected)
    remark = f"WRONG: {difference}" if difference else ""
    if result is ours and limit_s and not difference:
        remark = verdict(is_met=result.least_cpu_s <= limit_s, limit=f"<= {seconds(limit_s)}")
    return (
        result.name,
        seconds(result.least_cpu_s),
        "" if ours.problem else f"{result.least_cpu_s / ours.least_cpu_s:.1f}",
        seconds(result.median_cpu_s),
        str(len(result.cpu_s)),
        megabytes(result.peak),
        remark,
    )


def main() -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("--references", type=int, default=21_000, help="chunks of the collection")
    parser.add_argument("--datasets", type=int, default=2_000, help="datasets of the file of many")
    parser.add_argument("--repeats", type=int, default=300, help="at most, of each scan")
    parser.add_argument("--enough-s", type=float, default=10, help="CPU seconds that end repeats")
    parser.add_argument("--files", type=Path, default=CACHE, help=f"where they lie ({CACHE})")
    given = parser.parse_args()
    print_machine(PACKAGES)
    cases = {
        "product": (cached(product, 6, directory=given.files), 0.004),
        "crowded": (cached(product, 16, directory=given.files), None),
        "collection": (cached(collection, given.references, directory=given.files), 0.1),
        "many": (cached(many_datasets, given.datasets, 2**22, directory=given.files), 0.4),
    }
    is_right = [
        compare(title, path, limit_s, given.repeats, given.enough_s)
        for title, (path, limit_s) in cases.items()
    ]
    return 0 if all(is_right) else 1


if __name__ == "__main__":
    sys.exit(main())
