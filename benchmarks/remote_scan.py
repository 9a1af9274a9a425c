"""What does it take to scan a file on a web server 50 ms away?

A loopback server answers each request after a pause, with and without a cap on the bandwidth of
all answers together. Each scan runs in a fresh process, and counts are those of the server:

  scattered  60,000 chunks in 10 variables, 285 MB, metadata all over the file
                                                     at most 7 rounds, 6 MB and 1.5 s
  paged      the same, metadata in pages of 4 MiB    at most 6 requests
  product    a file of 380 KB                        one request
  series     a file of 3 MB                          one more, when its size is known
  two        2 datasets of two chunks, 64 MiB
  many       2,000 datasets of two chunks, 64 MiB    no more rounds than of two

With --peers, VirtualiZarr and kerchunk scan the scattered and the paged file too: some minutes. The
answers are compared with what h5py finds in the local file. Exits with 1 when one differs, whatever
the time and the number of requests.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from _files import CACHE, cached, collection, many_datasets, product, scattered
from _measure import (
    Contender,
    Measured,
    argument_parser,
    measure,
    megabytes,
    print_machine,
    print_table,
    seconds,
    verdict,
)
from _scans import (
    BYTEATLAS_REMOTE,
    H5PY,
    KERCHUNK,
    KERCHUNK_FIRST,
    VIRTUALIZARR,
    VIRTUALIZARR_EAGER,
)

from byteatlas.testing.server import RangeServer

PEERS = (VIRTUALIZARR_EAGER, VIRTUALIZARR, KERCHUNK_FIRST, KERCHUNK)
PACKAGES = ("byteatlas", "aiohttp", "obstore", "numpy", "h5py", "virtualizarr", "kerchunk")
HEADER = ("", "rounds", "requests", "answered", "runs", "wall least", "ratio", "CPU least", "")
MIB = 2**20
ENOUGH_S = 10
"""Wall seconds of one contender's scans of a file after which it is not run again."""


def counted(count: int | None, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


@dataclass(frozen=True, slots=True)
class Case:
    """A file, and what its scan may take."""

    name: str
    path: Path
    rounds: int | None = None
    requests: int | None = None
    size: float | None = None
    wall_s: float | None = None
    has_peers: bool = False


@dataclass(frozen=True, slots=True)
class Counted:
    """How a contender did, and what the server saw of it."""

    measured: Measured
    requests: int
    size: int

    @property
    def rounds(self) -> int | None:
        return (self.measured.answer or {}).get("rounds")

    def verdicts(self, case: Case) -> str:
        """Say which limits are met."""
        compared = (
            (self.rounds, case.rounds, f"<= {counted(case.rounds, 'round')}"),
            (self.requests, case.requests, f"<= {counted(case.requests, 'request')}"),
            (self.size, case.size, f"<= {megabytes(case.size or 0)}"),
            (self.measured.least_wall_s, case.wall_s, f"<= {seconds(case.wall_s or 0)}"),
        )
        return ", ".join(
            verdict(is_met=value <= limit, limit=text)
            for value, limit, text in compared
            if value is not None and limit is not None
        )


def scan_remotely(
    server: RangeServer, contender: Contender, path: Path, warm_up: Path, repeats: int
) -> Counted:
    """Scan in several fresh processes, each after a first scan of a small file."""
    name = path.name
    runs: list[Measured] = []
    for _ in range(repeats):
        server.clear()
        runs.append(measure(contender, server.url(name), warm_up=[server.url(warm_up.name)]))
        if runs[-1].problem or sum(run.wall_s[0] for run in runs) > ENOUGH_S:
            break
    requests = [entry for entry in server.log if entry.path == f"/{name}"]
    if warm_up == path:
        requests = requests[len(requests) // 2 :]
    joined = replace(
        runs[-1],
        cpu_s=tuple(value for run in runs for value in run.cpu_s),
        wall_s=tuple(value for run in runs for value in run.wall_s),
    )
    return Counted(joined, len(requests), sum(entry.bytes_sent for entry in requests))


def row_of(name: str, counted: Counted, ours: Counted, remark: str) -> tuple[str, ...]:
    measured = counted.measured
    if measured.problem:
        return (f"{name}, {measured.name}", *[""] * 7, measured.problem)
    return (
        f"{name}, {measured.name}",
        "" if counted.rounds is None else str(counted.rounds),
        f"{counted.requests:,}",
        megabytes(counted.size),
        str(len(measured.wall_s)),
        seconds(measured.least_wall_s),
        "" if ours.measured.problem else ratio(measured, ours.measured),
        seconds(measured.least_cpu_s),
        remark,
    )


def ratio(measured: Measured, ours: Measured) -> str:
    return "" if measured is ours else f"{measured.least_wall_s / ours.least_wall_s:.1f}"


def compare(
    server: RangeServer,
    cases: list[Case],
    expected: Mapping[str, Mapping[str, int]],
    repeats: int,
    peers: tuple[Contender, ...],
) -> tuple[list[tuple[str, ...]], bool]:
    """Return the rows of one table, and whether all answers are right."""
    rows = []
    is_right = True
    small = cases[-1].path
    rounds: dict[str, int | None] = {}
    for case in cases:
        ours = scan_remotely(server, BYTEATLAS_REMOTE, case.path, small, repeats)
        rounds[case.name] = ours.rounds
        if case.name == "many":
            case = replace(case, rounds=rounds["two"])  # noqa: PLW2901  # its limit is known now
        seen = {"requests": ours.requests, "bytes": ours.size}
        difference = ours.measured.differs_from({**expected[case.name], **seen})
        is_right &= not difference and not ours.measured.problem
        remark = f"WRONG: {difference}" if difference else ours.verdicts(case)
        rows.append(row_of(case.name, ours, ours, remark))
        for peer in peers if case.has_peers else ():
            theirs = scan_remotely(server, peer, case.path, small, repeats)
            difference = theirs.measured.differs_from(expected[case.name])
            is_right &= not difference
            remark = f"WRONG: {difference}" if difference else ""
            rows.append(row_of(case.name, theirs, ours, remark))
    return rows, is_right


def main() -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("--latency-ms", type=float, default=50, help="before each answer")
    parser.add_argument(
        "--caps", type=float, nargs="+", default=[0, 100], help="MiB per second; 0: none"
    )
    parser.add_argument("--chunks", type=int, default=60_000, help="of the scattered file")
    parser.add_argument("--variables", type=int, default=10, help="of the scattered file")
    parser.add_argument("--size-mb", type=float, default=285, help="of the scattered file")
    parser.add_argument("--datasets", type=int, default=2_000, help="of the file of many")
    parser.add_argument("--repeats", type=int, default=5, help="of scans that do not take long")
    parser.add_argument("--peers", action="store_true", help="scan with the peers too")
    parser.add_argument("--files", type=Path, default=CACHE, help=f"where they lie ({CACHE})")
    given = parser.parse_args()
    print_machine(PACKAGES)
    sizes = (given.chunks, given.variables, int(given.size_mb * 1e6))
    files = given.files
    cases = [
        Case(
            "scattered",
            cached(scattered, *sizes, False, directory=files),  # noqa: FBT003
            rounds=7,
            size=6e6,
            wall_s=1.5,
            has_peers=True,
        ),
        Case(
            "paged",
            cached(scattered, *sizes, True, directory=files),  # noqa: FBT003
            requests=6,
            has_peers=True,
        ),
        Case("two", cached(many_datasets, 2, 64 * MIB, directory=files)),
        Case("many", cached(many_datasets, given.datasets, 64 * MIB, directory=files)),
        Case("series", cached(collection, 480, directory=files), requests=2),
        Case("product", cached(product, 6, directory=files), requests=1),
    ]
    expected = {}
    for case in cases:
        answer = measure(H5PY, str(case.path)).answer
        assert answer is not None, case.name
        expected[case.name] = answer
    is_right = True
    for cap in given.caps:
        with RangeServer(
            files, latency_s=given.latency_ms / 1e3, bandwidth=cap * MIB or None
        ) as server:
            peers = PEERS if given.peers else ()
            rows, is_cap_right = compare(server, cases, expected, given.repeats, peers)
        is_right &= is_cap_right
        limited = f"at most {cap:g} MiB/s" if cap else "no cap on the bandwidth"
        print_table(f"{given.latency_ms:g} ms before each answer, {limited}", HEADER, rows)
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
