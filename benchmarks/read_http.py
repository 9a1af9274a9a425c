"""How fast is a file on a web server read through its index?

A server on loopback, a process of its own, answers each request after 20 ms, with and without a cap
on the bandwidth of all answers together, and counts requests, bytes and requests in flight:

  whole    64 MiB of 4-byte values in chunks of 64 KiB and 1 MiB, shuffled and deflated, and plain
  series   one point through 5,000 chunks of 8 KB; every fourth chunk of the file is wanted
  windows  100 windows of 64 x 64 values, one after the other

Everybody has opened the index before the clock starts, and reads once before it counts, so that
connections are open. obstore alone fetches the chunks and leaves them encoded; with libdeflate it
does what cannot be left out, and no more. Their ways to fetch, and the cache of fsspec, are those
that proved fastest just before.

Answers are compared with what h5py reads from the local file. Exits with 1 when one differs, or
ours is missing, whatever the time.
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
from _files import cached, field, series
from _measure import print_machine, print_table
from _range_server import RangeServerProcess
from _reads import (
    BYTEATLAS,
    BYTEATLAS_ANEW,
    BYTEATLAS_MANY,
    BYTEATLAS_XARRAY,
    H5PY_FSSPEC,
    ICECHUNK,
    KERCHUNK,
    OBSTORE,
    OBSTORE_INFLATE,
    VIRTUALIZARR,
    read_with_h5py,
    stored_answer,
    windows,
)

PACKAGES = (
    "byteatlas", "numpy", "aiohttp", "obstore", "deflate", "h5py", "zarr", "virtualizarr",
    "icechunk", "kerchunk", "fsspec", "xarray",
)  # fmt: skip
STORES = (KERCHUNK, VIRTUALIZARR, ICECHUNK)
OURS = (BYTEATLAS, BYTEATLAS_ANEW, BYTEATLAS_XARRAY)
PEERS = (H5PY_FSSPEC, *STORES)
LATENCY_S = 0.02
CAP = 100 * 2**20
FAST_FETCH = (Aim("wall", 1 / 0.85, "obstore alone", is_floor=True),)
FOUR_TIMES = tuple(Aim("wall", 4, one.name) for one in STORES)
SIX_TIMES = tuple(Aim("wall", 6, name) for name in ("VirtualiZarr", "Icechunk"))


def cases(*, is_quick: bool, directory: Path) -> list[Case]:
    steps, long, count = (16, 500, 20) if is_quick else (64, 5_000, 100)

    def stored(*chunk: int, is_packed: bool = True) -> Path:
        return cached(field, steps, *chunk, is_packed, directory=directory)

    small = stored(1, 128, 128)
    inflated = (*OURS, OBSTORE, OBSTORE_INFLATE, *PEERS)
    through = {
        "path": cached(series, long, directory=directory),
        "selections": ([[0, long], 10, 20],),
        "contenders": (*OURS, OBSTORE, *PEERS),
        "aims": SIX_TIMES,
    }
    return [
        Case(
            title="whole, 64 KiB chunks",
            path=small,
            contenders=inflated,
            aims=(*FAST_FETCH, *FOUR_TIMES),
        ),
        Case(
            title="whole, 64 KiB chunks, at most 100 MiB/s",
            path=small,
            contenders=(*OURS, OBSTORE, OBSTORE_INFLATE, *STORES),
            aims=FAST_FETCH,
            bandwidth=CAP,
        ),
        Case(
            title="whole, 1 MiB chunks",
            path=stored(1, 512, 512),
            contenders=inflated,
            aims=FAST_FETCH,
        ),
        Case(
            title="whole, uncompressed, 64 KiB chunks",
            path=stored(1, 128, 128, is_packed=False),
            contenders=(*OURS, OBSTORE, *PEERS),
            aims=(*FAST_FETCH, *FOUR_TIMES),
        ),
        Case(title=f"series through {long:,} chunks", **through),
        Case(
            title=f"series through {long:,} chunks, at most 100 MiB/s",
            bandwidth=CAP,
            **through | {"contenders": (*OURS, OBSTORE, VIRTUALIZARR, ICECHUNK)},
        ),
        Case(
            title=f"{count} windows of 64 x 64",
            path=small,
            contenders=(BYTEATLAS, BYTEATLAS_MANY, OBSTORE, VIRTUALIZARR, ICECHUNK),
            selections=windows(steps, count),
            aims=(Aim("wall", 1.15, "obstore alone", is_floor=True),),
        ),
    ]


def main() -> int:
    parser = contest_parser(__doc__)
    parser.add_argument("--latency-ms", type=float, default=LATENCY_S * 1e3)
    given = parser.parse_args()
    latency_s = given.latency_ms / 1e3
    print_machine(PACKAGES)
    is_all_right = True
    aims = []
    listed = chosen(cases(is_quick=given.quick, directory=given.files), given.only)
    with RangeServerProcess(given.files) as server:
        for case in listed:
            who = tuple(one for one in case.contenders if one.name not in given.without)
            expected = read_with_h5py(case) | stored_answer(case.request())
            case = replace(  # noqa: PLW2901
                case, contenders=who, expected=expected, latency_s=latency_s
            )
            entrants = compete(case, given.repeats, server)
            is_all_right &= is_right(entrants)
            aims += judged(case, entrants)
            print_table(
                f"{case.title}, {given.latency_ms:g} ms before each answer",
                header(is_remote=True),
                rows_of(entrants),
                is_markdown=given.markdown,
            )
    print_aims(aims, is_markdown=given.markdown)
    return 0 if is_all_right else 1


if __name__ == "__main__":
    sys.exit(main())
