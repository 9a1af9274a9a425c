"""Where does the time of a read go, and how far is it from its limit?

Each read is taken apart into what cannot be left out, and every part is done alone, one after the
other in one thread, on the very ranges of the read's own plan:

  plan     from the selection to the fetches, on columns
  fetch    positioned reads into memory that is used again, or where bytes stand in the file as in
           the result, into a fresh array; over HTTP the requests, answers thrown away as they come
  inflate  libdeflate, results thrown away
  place    values into a fresh array: byte planes one by one, or an uncompressed chunk as it is
  rest     what the whole read takes beyond these parts: Python for each chunk

The limit is the sum of fetch, inflate and place. All are CPU seconds, the least of the repeats,
since other work on a machine only ever adds to it; the whole read runs by turns with its parts.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from _contest import contest_parser
from _files import cached, field, series, tiny_chunks
from _measure import cpu_seconds, print_machine, print_table, seconds
from _range_server import RangeServerProcess
from _reads import index_of, windows

import byteatlas
from byteatlas.model import VirtualArray
from byteatlas.read import Reader
from byteatlas.read.fetches import FetchPlan, plan_fetches
from byteatlas.read.plan import ReadPlan, plan_read
from byteatlas.sources.streaming import stream_from

STEPS = ("plan", "fetch", "inflate", "place")
HEADER = ("", *STEPS, "rest", "whole", "rest a chunk", "whole / limit", "wall", "")
LATENCY_S = 0.02
ENOUGH = 100
"""Of fewer chunks the rest says little about each."""


class Plans(NamedTuple):
    """The plans of one read."""

    read: list[ReadPlan]
    fetches: list[FetchPlan]


class Subject:
    """One array that is read by some selections, and the parts of doing so."""

    def __init__(self, url: str, path: Path, selections: list[Any]) -> None:
        self.group = byteatlas.scan(url)
        self.array: VirtualArray = self.group["v"]
        self.reader = Reader(self.group.sources)
        self.wanted = [index_of(selection) for selection in selections]
        self.is_local = "://" not in url
        self.scratch = memoryview(bytearray(2**24))
        self.whole()  # opens what is opened once, and lets it see the latency
        self.plans = self.plan()
        self.chunks = sum(plan.offset.size for plan in self.plans.read)
        self.is_packed = any(encoding.codecs for encoding in self.array.encodings)
        self.size = int(np.prod(self.array.chunk_shape)) * self.array.dtype.itemsize
        self.stored = self._stored(path)
        self.is_whole = self.wanted == [(...,)]
        positions = [plan.position for plan in self.plans.read]
        self.is_direct = all(one is not None and bool((one >= 0).all()) for one in positions)

    def steps(self) -> dict[str, Callable[[], Any]]:
        found: dict[str, Callable[[], Any]] = {"plan": self.plan, "fetch": self.fetch}
        if self.is_packed:
            found["inflate"] = self.inflate
        if self.is_whole and not (self.is_direct and self.is_local):
            found["place"] = self.place
        return found | {"whole": self.whole}

    def whole(self) -> list[Any]:
        return [self.reader.read(self.array, index) for index in self.wanted]

    def plan(self) -> Plans:
        costs = self.reader.costs
        plans = [plan_read(self.array, index, costs) for index in self.wanted]
        return Plans(plans, [plan_fetches([plan], costs) for plan in plans])

    def fetch(self) -> None:
        scratch = self.scratch
        if self.is_direct:
            scratch = memoryview(
                np.empty(self.array.shape, self.array.dtype).view(np.uint8).reshape(-1)
            )
        for fetches in self.plans.fetches:
            if not fetches.offset.size:
                continue
            owner = np.zeros(fetches.offset.size, np.int64)
            source = [self.reader.source(0)]
            if self.is_local:
                with self.reader.source(0).positional(0) as file:  # type: ignore[attr-defined]
                    pairs = zip(fetches.offset.tolist(), fetches.length.tolist(), strict=True)
                    at = 0
                    for offset, length in pairs:
                        os.preadv(file.handle, [scratch[at : at + length]], offset)
                        at += length if self.is_direct else 0
                continue
            with stream_from(source, owner, fetches.offset, fetches.length) as stream:
                for _ in stream:
                    pass

    def inflate(self) -> None:
        import deflate

        for data in self.stored:
            deflate.zlib_decompress(data, self.size)

    def place(self) -> None:
        array = self.array
        out = np.empty(array.shape, array.dtype)
        item, chunk = array.dtype.itemsize, array.chunk_shape
        raw = out.view(np.uint8).reshape(*array.shape, item)
        chunk_bytes = np.zeros(self.size, np.uint8)
        values = chunk_bytes.view(array.dtype).reshape(chunk)
        planes = chunk_bytes.reshape(item, *chunk)
        for at in np.ndindex(*array.manifest.grid_shape):
            box = tuple(slice(i * n, (i + 1) * n) for i, n in zip(at, chunk, strict=True))
            if self.is_packed:
                place = raw[box]
                for number in range(item):
                    place[..., number] = planes[number]
            else:
                out[box] = values

    def _stored(self, path: Path) -> list[bytes]:
        handle = os.open(path, os.O_RDONLY)
        try:
            return [
                os.pread(handle, length, offset)
                for plan in self.plans.read
                for offset, length in zip(plan.offset.tolist(), plan.length.tolist(), strict=True)
            ]
        finally:
            os.close(handle)


def profile(subject: Subject, repeats: int) -> tuple[dict[str, float], float]:
    """Return the least CPU seconds of each part, and the least wall seconds of the whole."""
    spent: dict[str, list[float]] = {}
    wall: list[float] = []
    for _ in range(repeats):
        for name, act in subject.steps().items():
            began, cpu = time.perf_counter(), cpu_seconds()
            act()
            spent.setdefault(name, []).append(cpu_seconds() - cpu)
            if name == "whole":
                wall.append(time.perf_counter() - began)
    return {name: min(each) for name, each in spent.items()}, min(wall)


def row_of(name: str, subject: Subject, spent: Mapping[str, float], wall: float) -> tuple[str, ...]:
    rest = spent["whole"] - sum(spent.get(step, 0.0) for step in STEPS)
    limit = sum(spent.get(step, 0.0) for step in STEPS[1:])
    return (
        name,
        *(seconds(spent[step]) if step in spent else "" for step in STEPS),
        seconds(max(rest, 0)),
        seconds(spent["whole"]),
        f"{max(rest, 0) / subject.chunks * 1e6:.1f} us" if subject.chunks >= ENOUGH else "",
        f"{spent['whole'] / limit:.2f}",
        seconds(wall),
        f"{subject.chunks:,} chunks, {sum(f.offset.size for f in subject.plans.fetches):,} fetches",
    )


def cases(directory: Path, *, is_quick: bool) -> dict[str, tuple[Path, list[Any]]]:
    steps, long, tiny = (16, 500, 200) if is_quick else (64, 5_000, 1_000)

    def stored(*chunk: int, is_packed: bool = True) -> Path:
        return cached(field, steps, *chunk, is_packed, directory=directory)

    small = stored(1, 128, 128)
    through = cached(series, long, directory=directory)
    return {
        "whole, 64 KiB chunks": (small, [[]]),
        "whole, 1 MiB chunks": (stored(1, 512, 512), [[]]),
        "whole, 8 MiB chunks": (stored(8, 512, 512), [[]]),
        "whole, uncompressed, 64 KiB chunks": (stored(1, 128, 128, is_packed=False), [[]]),
        "whole, uncompressed, contiguous": (stored(0, 0, 0, is_packed=False), [[]]),
        f"{tiny:,} tiny chunks": (cached(tiny_chunks, tiny, directory=directory), [[]]),
        f"series through {long:,} chunks": (through, [[[0, long], 10, 20]]),
        "100 windows of 64 x 64": (small, windows(steps)),
    }


def main() -> int:
    parser = contest_parser(__doc__)
    given = parser.parse_args()
    print_machine(("byteatlas", "numpy", "deflate"))
    listed = {
        name: case
        for name, case in cases(given.files, is_quick=given.quick).items()
        if not given.only or any(word in name for word in given.only)
    }
    rows = []
    for name, (path, selections) in listed.items():
        subject = Subject(str(path), path, selections)
        rows.append(row_of(name, subject, *profile(subject, given.repeats)))
    print_table("Local file, CPU", HEADER, rows, is_markdown=given.markdown)
    rows = []
    with RangeServerProcess(given.files) as server:
        server.behave(latency_s=LATENCY_S, bandwidth=None)
        for name, (path, selections) in listed.items():
            subject = Subject(server.url(path.name), path, selections)
            rows.append(row_of(name, subject, *profile(subject, given.repeats)))
    title = f"HTTP, {LATENCY_S * 1e3:g} ms before each answer, CPU"
    print_table(title, HEADER, rows, is_markdown=given.markdown)
    return 0


if __name__ == "__main__":
    sys.exit(main())
