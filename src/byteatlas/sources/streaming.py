"""Many byte ranges of many sources, taken by several threads as they come.

A stream is what stands between fetching and decoding: each thread that decodes asks it for the
next bytes that are there. Local bytes are read by the thread that asks; remote ones arrive on
their own, in any order, and wait in bounded memory.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import Protocol, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from byteatlas.errors import ByteatlasError
from byteatlas.model import Buffer
from byteatlas.sources.arrivals import Arrivals
from byteatlas.sources.byte_source import ByteSource
from byteatlas.sources.cached_source import CachedSource
from byteatlas.sources.line import Line
from byteatlas.sources.local import LocalSource, Positional
from byteatlas.sources.remote import RemoteSource

__all__ = ["Into", "Item", "Stream", "lines_of", "stream_from"]

Item: TypeAlias = tuple[int, Buffer | ByteatlasError]
"""A row, and its bytes or why they could not be had."""

Into: TypeAlias = Callable[[int], memoryview | None]
"""Where the bytes of a row may be put at once: writable, of exactly the row's length."""


class Stream(Protocol):
    """Rows of bytes, each given out once, in any order; of any number of threads.

    A buffer is valid until the same thread asks for the next one. An error as an item concerns
    its row alone, and the stream goes on; an error that is raised ends it. To leave the context
    releases what the stream holds: no thread may be asking for a row then.
    """

    def __enter__(self) -> Self:
        """Return the stream."""

    def __exit__(self, *error: object) -> None:
        """Stop, and release what is held."""

    def __iter__(self) -> Self:
        """Return the stream."""

    def __next__(self) -> Item:
        """Return the next row that is there; waits for one to arrive."""

    def stop(self) -> None:
        """Cancel what is under way. Threads that wait for a row see the end of the stream."""


def lines_of(sources: Iterable[ByteSource]) -> list[Line]:
    """Return what is known of the ways to some sources, each way once."""
    bare = (one.source if isinstance(one, CachedSource) else one for one in sources)
    lines = (one.line for one in bare if isinstance(one, RemoteSource))
    return list({id(line): line for line in lines if line is not None}.values())


def stream_from(
    sources: Sequence[ByteSource],
    owner: NDArray[np.int64],
    offset: NDArray[np.int64],
    length: NDArray[np.int64],
    into: Into | None = None,
) -> Stream:
    """Start to fetch ranges of some sources.

    Parameters
    ----------
    sources
        What the ranges are of.
    owner
        Position in `sources` of each row, ascending, shape (rows,).
    offset
        First byte of each row, shape (rows,).
    length
        Number of bytes of each row, -1 for all that follow, shape (rows,).
    into
        Asked for the place of a row before it is read. Sources that can read straight into
        memory do, and give out the very object; the others ignore it.
    """
    bounds = np.searchsorted(owner, np.arange(len(sources) + 1)).tolist()
    streams: list[Stream] = []
    remote: dict[int, RemoteSource] = {}
    for position, source in enumerate(sources):
        mine = slice(bounds[position], bounds[position + 1])
        if mine.start == mine.stop:
            continue
        bare = source.source if isinstance(source, CachedSource) else source
        part = mine.start, offset[mine], length[mine]
        if isinstance(bare, RemoteSource):
            remote[position] = bare
        elif isinstance(bare, LocalSource):
            streams.append(_LocalStream(bare, *part, into))
        else:
            streams.append(_OneByOne(bare, *part))
    if remote:  # last, for its rows arrive while the others are read
        is_remote = np.isin(np.arange(len(sources)), list(remote))
        rows = np.flatnonzero(is_remote[owner])
        among = (np.cumsum(is_remote) - 1)[owner[rows]]
        columns = rows, among, offset[rows], length[rows]
        streams.append(Arrivals(list(remote.values()), *columns, into))
    return streams[0] if len(streams) == 1 else _Chained(streams)


class _LocalStream:
    """Rows of a local file, read by the threads that ask for them."""

    def __init__(
        self,
        source: LocalSource,
        first: int,
        offset: NDArray[np.int64],
        length: NDArray[np.int64],
        into: Into | None,
    ) -> None:
        rows = zip(range(first, first + offset.size), offset.tolist(), length.tolist(), strict=True)
        self._rows = deque(rows)
        self._unread = offset.size
        self._done = itertools.count(1)
        self._into = into
        self._own = threading.local()
        self._source = source
        self._offset = int(offset[0])
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._file: Positional | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
        self._stack.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Item:
        try:
            row, offset, length = self._rows.popleft()
        except IndexError:
            raise StopIteration from None
        file = self._file or self._open()
        try:
            length = file.check(offset, length)
            place = None if self._into is None else self._into(row)
            if place is None:
                place = self._scratch(length)
            file.read_into(offset, place)
        except ByteatlasError as error:
            return row, error.at(url=self._source.url)
        finally:
            if next(self._done) == self._unread:  # many files are not open at once
                self._stack.close()
        return row, place

    def _open(self) -> Positional:
        with self._lock:
            if self._file is None:
                self._file = self._stack.enter_context(self._source.positional(self._offset))
            return self._file

    def _scratch(self, length: int) -> memoryview:
        buffer: memoryview | None = getattr(self._own, "buffer", None)
        if buffer is None or len(buffer) < length:
            buffer = self._own.buffer = memoryview(np.empty(length, np.uint8))  # type: ignore[arg-type]  # an array is a buffer
        return buffer[:length]

    def stop(self) -> None:
        self._rows.clear()


class _OneByOne:
    """Rows of one source that streams them itself, handed out under a lock."""

    def __init__(
        self,
        source: ByteSource,
        first: int,
        offset: NDArray[np.int64],
        length: NDArray[np.int64],
    ) -> None:
        self._first = first
        self._items: Iterator[tuple[int, Buffer]] | None = source.stream(
            offset.astype(np.uint64), length.astype(np.uint64)
        )
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Item:
        with self._lock:
            if self._items is None:
                raise StopIteration
            row, data = next(self._items)
            return self._first + row, data

    def stop(self) -> None:
        with self._lock:
            items, self._items = self._items, None
            if isinstance(items, Generator):
                items.close()


class _Chained:
    """One stream after the other."""

    def __init__(self, streams: Sequence[Stream]) -> None:
        self._streams = streams
        self._current = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
        with ExitStack() as stack:
            for stream in self._streams:
                stack.enter_context(stream)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Item:
        while (current := self._current) < len(self._streams):
            try:
                return next(self._streams[current])
            except StopIteration:
                self._current = max(self._current, current + 1)
        raise StopIteration

    def stop(self) -> None:
        self._current = len(self._streams)
        for stream in self._streams:
            stream.stop()
