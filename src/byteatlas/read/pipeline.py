"""Carry out a read plan: fetch, decode and place, all at the same time.

Fetches of one source arrive as a stream, several sources are streamed side by side, and each
fetch is decoded on a pool of threads straight into the result, in any order. Undecoded bytes are
bounded. The first error ends the read: a result is complete or there is none.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event
from types import EllipsisType
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from byteatlas.codecs import decode, decode_objects
from byteatlas.errors import ByteatlasError, ShortRead
from byteatlas.limits import Limits
from byteatlas.model import WHOLE, Buffer, VirtualArray
from byteatlas.read.digests import check_digests
from byteatlas.read.plan import ReadPlan
from byteatlas.read.selection import Axis

__all__ = ["Streamed", "decode_chunk", "execute"]

T = TypeVar("T")
BoxIndex: TypeAlias = tuple[slice | EllipsisType, ...]

SMALL = 2**18
"""Reads of fewer decoded bytes are decoded by the calling thread."""
MAX_WAITING = 2**26
"""Fetched bytes that may wait for decoding, besides those of one fetch."""
MAX_STREAMS = 16
"""Sources that are streamed side by side."""


class Streamed(Protocol):
    """The part of a byte source that reading needs."""

    url: str

    def stream(
        self, offset: NDArray[np.uint64], length: NDArray[np.uint64]
    ) -> Iterator[tuple[int, Buffer]]:
        """Yield (row, bytes) as they arrive, one request per row."""


def execute(
    plan: ReadPlan, array: VirtualArray, source: Callable[[int], Streamed], path: str = ""
) -> NDArray[Any]:
    """Fetch, decode and arrange what a plan asks for.

    Parameters
    ----------
    plan
        Made for `array`.
    array
        What is read.
    source
        Gives the byte source at a position in the table of sources.
    path
        Of the array, for error messages.

    Returns
    -------
    ndarray
        Of the array's dtype, byte order included; shaped as the selection asks.

    Raises
    ------
    SourceError
        The bytes of a source could not be had.
    Malformed, Unsupported
        A chunk cannot be decoded.
    """
    work = _Work(plan, array, _blank(plan, array), Event())
    try:
        work.place_inlined()
        sources, first = np.unique(plan.fetch_source, return_index=True)
        bounds = [*first.tolist(), plan.fetch_source.size]
        with _decoders(work.result.nbytes) as pool:
            if len(sources) < 2:
                for position in sources.tolist():
                    work.stream(source(position), 0, bounds[1], pool)
            else:
                _side_by_side(work, source, sources.tolist(), bounds, pool)
    except ByteatlasError as error:
        error.at(path=path)
        raise
    return plan.arrange(work.result)


def _blank(plan: ReadPlan, array: VirtualArray) -> NDArray[Any]:
    """Allocate the result, filled where chunks are missing from the source by design."""
    fill = array.fill_value
    if not plan.has_missing:
        return np.empty(plan.shape, array.dtype)
    if array.dtype == object:
        return np.full(plan.shape, "" if fill is None else fill, object)
    if fill is None:
        return np.zeros(plan.shape, array.dtype)
    return np.full(plan.shape, fill, array.dtype)


@contextmanager
def _decoders(nbytes: int) -> Iterator[ThreadPoolExecutor | None]:
    """Give a pool of threads for decoding, or None where it would not pay."""
    workers = _worker_count()
    if nbytes < SMALL or workers < 2:
        yield None
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="byteatlas-decode")
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _worker_count() -> int:
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(own or 1, 8)


def _side_by_side(
    work: _Work,
    source: Callable[[int], Streamed],
    positions: list[int],
    bounds: list[int],
    pool: ThreadPoolExecutor | None,
) -> None:
    """Stream several sources on some threads; the first error ends all of them."""

    def stream(position: int, first: int, stop: int) -> None:
        if not work.failed.is_set():
            work.stream(source(position), first, stop, pool)

    with ThreadPoolExecutor(min(len(positions), MAX_STREAMS), "byteatlas-stream") as threads:
        spans = zip(positions, bounds[:-1], bounds[1:], strict=True)
        futures = [threads.submit(stream, *span) for span in spans]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            work.failed.set()
            raise


@dataclass(frozen=True, slots=True)
class _Work:
    """One read: the plan, and the result that fills up."""

    plan: ReadPlan
    array: VirtualArray
    result: NDArray[Any]
    failed: Event
    """Set when another source failed, and this one need not go on."""

    def stream(
        self, source: Streamed, first: int, stop: int, pool: ThreadPoolExecutor | None
    ) -> None:
        """Fetch the plan's fetches from `first` up to `stop`, all of one source, and place them."""
        offset = self.plan.fetch_offset[first:stop].astype(np.uint64)
        length = self.plan.fetch_length[first:stop].astype(np.uint64)  # -1 becomes WHOLE
        waiting: deque[tuple[int, Future[None]]] = deque()
        held = 0
        with _closed_after(source.stream(offset, length)) as arrivals:
            for row, data in arrivals:
                if self.failed.is_set():
                    return
                if length[row] not in (len(data), WHOLE):
                    raise ShortRead(
                        f"{len(data)} bytes arrived",
                        offset=int(offset[row]),
                        length=int(length[row]),
                    ).at(url=source.url)
                if pool is None:
                    self.place(first + row, data, source.url)
                    continue
                waiting.append((len(data), pool.submit(self.place, first + row, data, source.url)))
                held += len(data)
                while waiting and (held > MAX_WAITING or waiting[0][1].done()):
                    size, oldest = waiting.popleft()
                    oldest.result()
                    held -= size
        for _, future in waiting:
            future.result()

    def place(self, fetch: int, data: Buffer, url: str) -> None:
        """Decode all parts of one fetch into the result."""
        plan = self.plan
        parts = slice(int(plan.bounds[fetch]), int(plan.bounds[fetch + 1]))
        cells = _coordinates(plan.cell[parts], plan.touched)
        offset = plan.offset[parts].tolist()
        length = plan.length[parts].tolist()
        encoding = [0] * len(cells) if plan.encoding is None else plan.encoding[parts].tolist()
        origin = int(plan.fetch_offset[fetch])
        view = memoryview(data)  # type: ignore[arg-type]  # numpy arrays are buffers too
        stops = [
            at - origin + count if count >= 0 else None
            for at, count in zip(offset, length, strict=True)
        ]
        chunks = [view[at - origin : stop] for at, stop in zip(offset, stops, strict=True)]
        if plan.digest is not None:
            try:
                check_digests(chunks, plan.digest[parts], offset)
            except ByteatlasError as error:
                error.at(url=url)
                raise
        if plan.start is not None:
            starts = plan.start[parts].tolist()
            chunks = [chunk[start:] for chunk, start in zip(chunks, starts, strict=True)]
        for cell, at, chunk, by in zip(cells, offset, chunks, encoding, strict=True):
            try:
                self.place_cell(cell, chunk, by, is_partial=plan.is_partial)
            except ByteatlasError as error:
                if error.length is None and error.offset in (None, at):
                    error.length = len(chunk)
                error.at(url=url, offset=at)
                raise

    def place_inlined(self) -> None:
        """Decode the chunks that the manifest holds itself."""
        cell, index = self.plan.inlined
        cells = _coordinates(cell, self.plan.touched)
        inline = self.array.manifest.inline
        for at, flat in zip(cells, index.tolist(), strict=True):
            self.place_cell(at, memoryview(inline[flat]), 0, is_partial=False)

    def place_cell(
        self, cell: Sequence[int], data: memoryview, encoding: int, *, is_partial: bool
    ) -> None:
        """Decode one chunk, or what was read of it, and put what is wanted of it in its place."""
        array, taken = self.array, list(zip(self.plan.axes, cell, strict=True))
        box: NDArray[Any]
        if is_partial:
            shape = tuple(int(axis.last[at] - axis.first[at]) + 1 for axis, at in taken)
            box = np.ndarray(shape, array.dtype, data, 0, _byte_strides(array))
        else:
            chunk = decode_chunk(array, data, encoding, self.plan.limits)
            box = chunk[self._box(taken)]
        inside = [axis.inside(at) for axis, at in taken]
        steps = (index if isinstance(index, slice) else slice(None) for index in inside)
        box = box[_keeping_scalars(steps)]
        for number, index in enumerate(inside):
            if not isinstance(index, slice):
                box = np.take(box, index, number)
        target = (slice(axis.bounds[at], axis.bounds[at + 1]) for axis, at in taken)
        self.result[_keeping_scalars(target)] = box

    def _box(self, taken: list[tuple[Axis, int]]) -> BoxIndex:
        """Return the box of a chunk between the first and the last element taken of a cell."""
        lengths = zip(taken, self.plan.cell_shape, self.array.chunk_shape, strict=True)
        starts = (int(axis.chunk[at]) * cell % chunk for (axis, at), cell, chunk in lengths)
        return _keeping_scalars(
            slice(start + int(axis.first[at]), start + int(axis.last[at]) + 1)
            for start, (axis, at) in zip(starts, taken, strict=True)
        )


def _keeping_scalars(index: Iterable[slice]) -> BoxIndex:
    """Add an ellipsis to an index: with it, an array without axes stays an array."""
    return (*index, ...)


def decode_chunk(
    array: VirtualArray, data: Buffer, encoding: int, limits: Limits | None = None
) -> NDArray[Any]:
    """Decode one chunk of an array.

    Parameters
    ----------
    array
        The array it is of.
    data
        The encoded chunk.
    encoding
        Position of its encoding in the array's table.
    limits
        How large it may be.

    Returns
    -------
    ndarray
        Of the array's dtype and chunk shape; may be a view of `data`, and not writable.

    Raises
    ------
    Malformed, Unsupported
        The chunk cannot be decoded, or not to as many bytes as its shape needs.
    """
    codecs = array.encodings[encoding]
    count = math.prod(array.chunk_shape)
    if array.dtype == object:
        return decode_objects(data, codecs, count=count, limits=limits).reshape(array.chunk_shape)
    flat = decode(data, codecs, size=count * array.dtype.itemsize, limits=limits)
    return np.frombuffer(flat, array.dtype).reshape(array.chunk_shape)


def _coordinates(flat: NDArray[np.int64], shape: tuple[int, ...]) -> list[list[int]]:
    """Return the coordinates of flat positions (C order); also of a scalar's, which has none."""
    columns = np.empty((flat.size, len(shape)), np.int64)
    for axis in reversed(range(len(shape))):
        flat, columns[:, axis] = np.divmod(flat, shape[axis])
    coordinates: list[list[int]] = columns.tolist()
    return coordinates


def _byte_strides(array: VirtualArray) -> tuple[int, ...]:
    itemsize, chunk = array.dtype.itemsize, array.chunk_shape
    return tuple(itemsize * math.prod(chunk[axis + 1 :]) for axis in range(len(chunk)))


@contextmanager
def _closed_after(arrivals: Iterator[T]) -> Iterator[Iterator[T]]:
    """Stop a stream's remaining requests when it is left early."""
    try:
        yield arrivals
    finally:
        if isinstance(arrivals, Generator):
            arrivals.close()
