"""Carry out read plans: fetch, decode and place, all at the same time.

The bytes of all sources come as one stream, from which the reading thread and some helpers take
what is there, and decode it straight into the results, in any order. Undecoded bytes are
bounded. The first error ends the read: a result is complete or there is none, unless the caller
asks for chunks that cannot be read to be filled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from byteatlas.errors import ByteatlasError, Malformed, ShortRead, SourceMissing, without_query
from byteatlas.model import Buffer, VirtualArray
from byteatlas.read.costs import Costs
from byteatlas.read.digests import unlike
from byteatlas.read.fetches import FetchPlan, alone, in_result, part_columns, plan_fetches
from byteatlas.read.filled import FilledChunk, concerns_one_chunk, filling_value
from byteatlas.read.kept import KEPT, KeptStream, after_reading, flush, held_parts
from byteatlas.read.placing import Target, target_of
from byteatlas.read.plan import ReadPlan
from byteatlas.read.workers import work_together, worker_count
from byteatlas.sources import ByteSource
from byteatlas.sources.cached_source import CachedSource
from byteatlas.sources.streaming import Stream, stream_from

__all__ = ["Job", "execute"]

MOST_WAITING = 2**24
"""Bytes of all sources together that may wait to be kept in a cache."""
SMALL = 2**18
"""Reads of fewer decoded bytes are decoded by the calling thread alone."""


class Job(NamedTuple):
    """One array of a read."""

    plan: ReadPlan
    array: VirtualArray
    path: str = ""
    """Of the array, for error messages."""
    out: NDArray[Any] | None = None
    """Memory for the result before it is arranged: writable, contiguous, of its shape and type."""


def execute(
    jobs: Sequence[Job],
    source: Callable[[int], ByteSource],
    costs: Costs,
    filled: list[FilledChunk] | None = None,
) -> list[NDArray[Any]]:
    """Fetch, decode and arrange what some plans ask for, all together.

    Parameters
    ----------
    jobs
        Arrays that share a table of sources, and a plan for each.
    source
        Gives the byte source at a position in the table of sources.
    costs
        By which parts are merged into fetches.
    filled
        Where chunks are noted that cannot be read, and are filled then. None: they are errors.

    Returns
    -------
    list of ndarray
        For each job: of its array's dtype, byte order included; shaped as its selection asks.

    Raises
    ------
    SourceError
        The bytes of a source could not be had.
    Malformed, Unsupported
        A chunk cannot be decoded.
    """
    targets = [_target(job) for job in jobs]
    wanted = _place_kept(jobs, targets, source)
    fetches = plan_fetches([job.plan for job in jobs], costs, wanted)
    _Work(jobs, targets, fetches, filled).run(source)
    return [job.plan.arrange(target.result) for job, target in zip(jobs, targets, strict=True)]


def _target(job: Job) -> Target:
    try:
        return target_of(job.plan, job.array, job.out)
    except ByteatlasError as error:
        raise error.at(path=job.path) from error.__cause__


def _place_kept(
    jobs: Sequence[Job], targets: Sequence[Target], source: Callable[[int], ByteSource]
) -> list[NDArray[np.bool_]] | None:
    """Place what a cache has; return which parts of each plan are wanted still, None for all."""
    plans = [job.plan for job in jobs]
    held = held_parts(plans, source)
    if held is None:
        return None
    work = _KeptWork(jobs, targets, plan_fetches(plans, KEPT, held), None)
    work.take(source)
    wanted = [~mine for mine in held]
    for number, cells in work.lost.items():
        wanted[number] |= np.isin(plans[number].cell, cells)
    doubted = list(work.doubted)
    return [
        mine | np.isin(0 if plan.source is None else plan.source, doubted)
        for plan, mine in zip(plans, wanted, strict=True)
    ]


class _Work:
    """One read: what to fetch, and the results that fill up."""

    def __init__(
        self,
        jobs: Sequence[Job],
        targets: Sequence[Target],
        fetches: FetchPlan,
        filled: list[FilledChunk] | None,
    ) -> None:
        self.jobs = jobs
        self.targets = targets
        self.fetches = fetches
        self.filled = filled
        self.used, self.owner = np.unique(fetches.source, return_inverse=True)
        self.sources: list[ByteSource] = []
        self.urls: list[str] = []
        self.bounds: list[int] = fetches.bounds.tolist()
        self.waiting = 0
        """Bytes that wait to be kept in a cache, about."""
        self.direct = in_result([job.plan for job in jobs], fetches)
        self.given: dict[int, memoryview] = {}

    def run(self, source: Callable[[int], ByteSource]) -> None:
        """Place all chunks, inlined ones first."""
        for job, target in zip(self.jobs, self.targets, strict=True):
            pairs = zip(job.plan.inlined.tolist(), job.plan.inlined_data, strict=True)
            for cell, data in pairs:
                self.place_one(job, target, cell, data, 0, None)
            if self.filled is None and job.plan.missing_bytes is not None:
                raise _first_too_short(job, source)
        self.fetch(source)

    def fetch(self, source: Callable[[int], ByteSource]) -> None:
        """Fetch, decode and place all chunks that are not inlined."""
        if not self.owner.size:
            return
        self.sources = sources = [source(position) for position in self.used.tolist()]
        self.urls = [one.url for one in sources]
        fetches, into = self.fetches, None if self.direct is None else self.into
        try:
            with after_reading(sources):
                self.take_all(
                    stream_from(sources, self.owner, fetches.offset, fetches.length, into)
                )
        except ByteatlasError as error:
            if error.path is None:
                error.at(path=self.jobs[self.job_of(error)].path)
            raise

    def take_all(self, opened: Stream) -> None:
        """Decode and place all that a stream has, with the help of other threads."""
        helpers = 0
        if self.owner.size > 1 and sum(map(_decoded_bytes, self.jobs)) >= SMALL:
            helpers = min(worker_count(), self.owner.size) - 1
        with opened as stream:
            work_together(lambda: self.take_from(stream), stream.stop, helpers)

    def job_of(self, error: ByteatlasError) -> int:
        """Return the number of the first job that wants what a source could not give."""
        if self.fetches.plan is None:
            return 0
        urls = np.array([without_query(url) for url in self.urls])[self.owner]
        mine = np.flatnonzero((urls == error.url) & (self.fetches.offset >= (error.offset or 0)))
        return int(self.fetches.plan[self.bounds[int(mine[0]) if mine.size else 0]])

    def take_from(self, stream: Stream) -> None:
        """Decode and place what a stream has, until it has no more."""
        for fetch, data in stream:
            if isinstance(data, ByteatlasError):
                self.refuse(fetch, data)
            else:
                self.place(fetch, data)
                self.keep(fetch, data)

    def keep(self, fetch: int, data: Buffer) -> None:
        """Let a cache, if there is one, keep the parts of a fetch that could all be placed."""
        cached = self.sources[int(self.owner[fetch])]
        if isinstance(cached, CachedSource) and not self.filled:
            offset, length = self.part_columns
            parts = slice(self.bounds[fetch], self.bounds[fetch + 1])
            self.waiting += cached.keep_parts(
                int(self.fetches.offset[fetch]), data, offset[parts], length[parts]
            )
            if self.waiting > MOST_WAITING:
                self.waiting = 0
                flush(self.sources)

    @cached_property
    def part_columns(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Offset and length of each part, in the order of the fetches."""
        return part_columns([job.plan for job in self.jobs], self.fetches)

    def into(self, fetch: int) -> memoryview | None:
        """Return the place in a result where the bytes of a fetch belong as they are."""
        assert self.direct is not None
        position = int(self.direct[fetch])
        if position < 0:
            return None
        number = 0 if self.fetches.plan is None else int(self.fetches.plan[self.bounds[fetch]])
        place = self.targets[number].bytes_at(position, int(self.fetches.length[fetch]))
        self.given[fetch] = place
        return place

    def place(self, fetch: int, data: Buffer) -> None:
        """Decode all parts of one fetch into the results."""
        length = int(self.fetches.length[fetch])
        if length not in (len(data), -1):
            self.refuse(fetch, ShortRead(f"{len(data)} bytes arrived"))
            return
        if self.direct is not None:
            if self.given.pop(fetch, None) is data:
                return
            place = self.into(fetch)
            if place is not None:
                place[:] = data  # type: ignore[assignment]  # any buffer will do
                return
        first, stop = self.bounds[fetch], self.bounds[fetch + 1]
        origin = int(self.fetches.offset[fetch])
        url = self.urls[int(self.owner[fetch])]
        view = memoryview(data)  # type: ignore[arg-type]  # numpy arrays are buffers too
        for number, rows in self.rows_of(first, stop):
            self.place_parts(self.jobs[number], self.targets[number], rows, view, origin, url)

    def rows_of(self, first: int, stop: int) -> list[tuple[int, slice | NDArray[np.int64]]]:
        """Return the plans that some parts are of, and their rows there."""
        plan, part = self.fetches.plan, self.fetches.part
        if plan is None or part is None:
            return [(0, slice(first, stop))]
        numbers = plan[first:stop]
        if (numbers == numbers[0]).all():
            return [(int(numbers[0]), part[first:stop])]
        return [
            (number, part[first:stop][numbers == number]) for number in np.unique(numbers).tolist()
        ]

    def place_parts(
        self,
        job: Job,
        target: Target,
        rows: slice | NDArray[np.int64],
        view: memoryview,
        origin: int,
        url: str,
    ) -> None:
        """Decode parts of one plan, whose bytes begin at `origin` of their source."""
        plan = job.plan
        offsets: list[int] = plan.offset[rows].tolist()
        lengths: list[int] = plan.length[rows].tolist()
        chunks = [
            view[at - origin : at - origin + count] if count >= 0 else view[at - origin :]
            for at, count in zip(offsets, lengths, strict=True)
        ]
        cells: list[int] = plan.cell[rows].tolist()
        by = [0] * len(cells) if plan.encoding is None else plan.encoding[rows].tolist()
        faults: list[int] = [0] * len(cells)
        if plan.missing_bytes is not None:
            faults = plan.missing_bytes[rows].tolist()
        wrong: dict[int, ByteatlasError] = {}
        if plan.digest is not None:
            wrong |= unlike(chunks, plan.digest[rows], offsets)
        if plan.start is not None:
            starts = plan.start[rows].tolist()
            chunks = [chunk[start:] for chunk, start in zip(chunks, starts, strict=True)]
        put = target.put_part if plan.is_partial else None
        for number, (cell, chunk) in enumerate(zip(cells, chunks, strict=True)):
            try:
                if faults[number]:
                    raise _too_short(lengths[number], faults[number])
                if number in wrong:
                    raise wrong[number]
                if put is not None:
                    put(cell, chunk)
                else:
                    target.put(cell, chunk, by[number])
            except ByteatlasError as error:
                at = offsets[number]
                if error.length is None and error.offset in (None, at):
                    error.length = len(chunk)
                self.blame(error.at(url=url, offset=at), job, target, cell)

    def place_one(
        self, job: Job, target: Target, cell: int, data: Buffer, encoding: int, url: str | None
    ) -> None:
        """Decode one chunk that is there."""
        try:
            target.put(cell, data, encoding)
        except ByteatlasError as error:
            self.blame(error.at(url=url), job, target, cell)

    def refuse(self, fetch: int, error: ByteatlasError) -> None:
        """Have the parts of a fetch whose bytes did not come filled, or raise."""
        if self.bounds[fetch + 1] - self.bounds[fetch] > 1 and concerns_one_chunk(error):
            self.fetch_alone(fetch)
            return
        error.at(url=self.urls[int(self.owner[fetch])], offset=int(self.fetches.offset[fetch]))
        if error.length is None:
            error.length = int(self.fetches.length[fetch])
        first, stop = self.bounds[fetch], self.bounds[fetch + 1]
        for number, rows in self.rows_of(first, stop):
            job, target = self.jobs[number], self.targets[number]
            for cell in job.plan.cell[rows].tolist():
                self.blame(error, job, target, cell)

    def fetch_alone(self, fetch: int) -> None:
        """Fetch the parts of a fetch one by one: of some that do not come, others may."""
        parts = slice(self.bounds[fetch], self.bounds[fetch + 1])
        one_by_one = alone(self.fetches, parts, [job.plan for job in self.jobs])
        opened = dict(zip(self.used.tolist(), self.sources, strict=True))
        _Work(self.jobs, self.targets, one_by_one, self.filled).fetch(opened.__getitem__)

    def blame(self, error: ByteatlasError, job: Job, target: Target, cell: int) -> None:
        """Fill a chunk and note why, or raise."""
        chunk = job.plan.chunk_index(cell, job.array.chunk_shape)
        error.at(path=job.path, chunk=chunk)
        if self.filled is None or not concerns_one_chunk(error):
            raise error
        target.fill(cell, filling_value(job.array))
        self.filled.append(FilledChunk(job.path, chunk, error))


class _KeptWork(_Work):
    """The part of a read that a cache has. What turns out not to do is fetched after all."""

    def __init__(self, *args: Any) -> None:  # of _Work
        super().__init__(*args)
        self.lost: dict[int, list[int]] = {}
        """Cells by number of job."""
        self.doubted: set[int] = set()
        """Positions of sources of which something that is kept does not fit."""

    def take(self, source: Callable[[int], ByteSource]) -> None:
        """Place all that is kept."""
        if not self.owner.size:
            return
        self.sources = [source(position) for position in self.used.tolist()]
        self.urls = [one.url for one in self.sources]
        self.take_all(KeptStream(self.sources, self.owner, self.fetches, *self.part_columns))

    def keep(self, fetch: int, data: Buffer) -> None:
        """Do nothing: it is kept."""

    def blame(self, error: ByteatlasError, job: Job, target: Target, cell: int) -> None:
        """Note a chunk that is gone; or does not decode, and then nothing of its source is kept."""
        del target
        number = next(number for number, one in enumerate(self.jobs) if one is job)
        self.lost.setdefault(number, []).append(cell)
        if not isinstance(error, SourceMissing):
            pairs = zip(self.used.tolist(), self.sources, self.urls, strict=True)
            for position, one, url in pairs:
                if isinstance(one, CachedSource) and without_query(url) == error.url:
                    one.discard()
                    self.doubted.add(position)


def _decoded_bytes(job: Job) -> int:
    """Return how many bytes come of the decoding of a job's parts, of which few may be wanted."""
    plan, array = job.plan, job.array
    if plan.is_partial:
        return int(plan.length.sum())
    return plan.offset.size * math.prod(array.chunk_shape) * array.dtype.itemsize


def _first_too_short(job: Job, source: Callable[[int], ByteSource]) -> ByteatlasError:
    """Return the error for chunks that their index says are too short, before any is fetched."""
    plan = job.plan
    assert plan.missing_bytes is not None
    row = int(np.flatnonzero(plan.missing_bytes)[0])
    position = 0 if plan.source is None else int(plan.source[row])
    error = _too_short(int(plan.length[row]), int(plan.missing_bytes[row]))
    error.length = int(plan.length[row])
    return error.at(
        url=source(position).url,
        path=job.path,
        chunk=plan.chunk_index(int(plan.cell[row]), job.array.chunk_shape),
        offset=int(plan.offset[row]),
    )


def _too_short(length: int, missing: int) -> Malformed:
    return Malformed(f"uncompressed chunk has {length} bytes there, expected {length + missing}")
