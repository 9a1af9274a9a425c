"""How fast is a local file read through its index?

64 MiB of 4-byte values, whole, out of chunks of 64 KiB, 1 MiB and 8 MiB that are shuffled and
deflated, and out of uncompressed ones; 1,000 tiny chunks; one point through 5,000 chunks; 100
windows of 64 x 64 values. Everybody opens the file and its index before the clock starts and then
reads by turns, each in a process of its own. Two contenders do less than a reader must, and show
the limits: libdeflate with one numpy store for each byte plane, and preadv into a fresh array.

All answers are compared with what h5py reads. Exits with 1 when one differs, or ours is missing,
whatever the time.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from _contest import (
    Aim,
    Case,
    chosen,
    compete,
    contest_parser,
    header,
    is_right,
    judged,
    print_aims,
    rows_of,
)
from _files import cached, field, series, tiny_chunks
from _measure import print_machine, print_table
from _reads import (
    BARE_INFLATE,
    BYTEATLAS,
    BYTEATLAS_XARRAY,
    H5PY,
    ICECHUNK,
    KERCHUNK,
    NETCDF4,
    PREADV,
    PYFIVE,
    VIRTUALIZARR,
    read_with_h5py,
    windows,
)

PACKAGES = (
    "byteatlas", "numpy", "deflate", "h5py", "netCDF4", "pyfive", "zarr", "virtualizarr",
    "icechunk", "kerchunk", "fsspec", "xarray",
)  # fmt: skip
STORES = (KERCHUNK, VIRTUALIZARR, ICECHUNK)
LIBRARIES = (H5PY, NETCDF4, PYFIVE)
PACKED = (BYTEATLAS, BYTEATLAS_XARRAY, BARE_INFLATE, *LIBRARIES, *STORES)
PLAIN = (BYTEATLAS, BYTEATLAS_XARRAY, PREADV, *LIBRARIES, *STORES)
FEW = (BYTEATLAS, BYTEATLAS_XARRAY, *LIBRARIES, *STORES)
AS_FAST = (Aim("wall", 1.3, "bare libdeflate", is_floor=True),)
LESS_CPU = (Aim("CPU", 1.4, "h5py"), Aim("CPU", 1.4, "netCDF4"))


def faster(times: float, *names: str) -> tuple[Aim, ...]:
    return tuple(Aim("wall", times, name) for name in names)


def cases(*, is_quick: bool, directory: Path) -> list[Case]:
    steps, long, tiny = (16, 500, 200) if is_quick else (64, 5_000, 1_000)

    def stored(*chunk: int, is_packed: bool) -> Path:
        return cached(field, steps, *chunk, is_packed, directory=directory)

    small = stored(1, 128, 128, is_packed=True)
    series_aims = (Aim("CPU", 1, "h5py"), Aim("CPU", 8, "VirtualiZarr"), Aim("CPU", 8, "Icechunk"))
    return [
        Case(
            title="whole, 64 KiB chunks",
            path=small,
            contenders=PACKED,
            aims=(
                *faster(2.2, "h5py", "netCDF4"),
                *LESS_CPU,
                *faster(8, "VirtualiZarr", "Icechunk", "kerchunk"),
                *AS_FAST,
            ),
        ),
        Case(
            title="whole, 1 MiB chunks",
            path=stored(1, 512, 512, is_packed=True),
            contenders=PACKED,
            aims=(*faster(3, "h5py", "netCDF4"), *LESS_CPU, *AS_FAST),
        ),
        Case(
            title="whole, 8 MiB chunks",
            path=stored(8, 512, 512, is_packed=True),
            contenders=PACKED,
            aims=(*faster(3, "h5py", "netCDF4"), *LESS_CPU, *AS_FAST),
        ),
        *(
            Case(
                title=f"whole, uncompressed, {name}",
                path=stored(*chunk, is_packed=False),
                contenders=PLAIN if chunk[0] else tuple(c for c in PLAIN if c is not ICECHUNK),
                aims=(Aim("wall", 1.3, "preadv", is_floor=True),),
            )
            for name, chunk in (
                ("64 KiB chunks", (1, 128, 128)),
                ("1 MiB chunks", (1, 512, 512)),
                ("contiguous", (0, 0, 0)),
            )
        ),
        Case(
            title=f"{tiny:,} tiny chunks",
            path=cached(tiny_chunks, tiny, directory=directory),
            contenders=FEW,
            aims=(Aim("CPU", 1e-4, per=tiny),),
        ),
        Case(
            title=f"series through {long:,} chunks",
            path=cached(series, long, directory=directory),
            contenders=FEW,
            selections=([[0, long], 10, 20],),
            aims=series_aims,
        ),
        Case(
            title="100 windows of 64 x 64",
            path=small,
            contenders=FEW,
            selections=windows(steps),
        ),
    ]


def main() -> int:
    parser = contest_parser(__doc__)
    given = parser.parse_args()
    print_machine(PACKAGES)
    is_all_right = True
    aims = []
    for case in chosen(cases(is_quick=given.quick, directory=given.files), given.only):
        who = tuple(one for one in case.contenders if one.name not in given.without)
        case = replace(case, contenders=who, expected=read_with_h5py(case))  # noqa: PLW2901
        entrants = compete(case, given.repeats)
        is_all_right &= is_right(entrants)
        aims += judged(case, entrants)
        print_table(
            f"{case.title}, local file",
            header(is_remote=False),
            rows_of(entrants),
            is_markdown=given.markdown,
        )
    print_aims(aims, is_markdown=given.markdown)
    return 0 if is_all_right else 1


if __name__ == "__main__":
    sys.exit(main())
