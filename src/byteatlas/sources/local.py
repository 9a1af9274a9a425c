"""Local files, read with positioned system calls."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from stat import S_ISREG
from typing import NamedTuple
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from byteatlas.errors import ShortRead, SourceDenied, SourceError, SourceMissing
from byteatlas.model import WHOLE, Buffer, ByteRange, ByteRanges, Request, Source
from byteatlas.sources.identity import check_identity, local_etag
from byteatlas.sources.plan import Span, check_inside, outside
from byteatlas.sources.trace import Trace

__all__ = ["LocalSource", "Positional", "local_path"]


def local_path(url: str) -> str:
    """Return the path that a plain path, ``file:`` or ``local:`` URL names.

    A URL's percent escapes are decoded unless a file of exactly that name exists.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in ("file", "local"):
        return os.path.expanduser(url)  # noqa: PTH111  # Path raises for an unknown user
    path = rest.removeprefix("localhost")
    return path if "%" not in path or Path(path).exists() else unquote(path)


class LocalSource:
    """A file of this machine. It is opened anew for each batch, so nothing stays open."""

    def __init__(self, url: str, *, expected: Source | None, trace: Trace) -> None:
        self.url = url
        self.trace = trace
        self._path = local_path(url)
        if "\0" in self._path:
            raise SourceMissing("no file has such a name", url=url)
        self._known = replace(expected, url=url) if expected else Source(url)

    def __repr__(self) -> str:
        return f"LocalSource({self.url!r})"

    @property
    def facts(self) -> Source:
        """The source as seen so far."""
        return self._known

    @contextmanager
    def _opened(self, offset: int | None = None) -> Iterator[tuple[int, int]]:
        """Open the file and compare it with what was seen before; yield handle and size."""
        try:
            with _handle_of(self._path) as handle:
                seen = _sighting(self.url, handle)
                self._known = check_identity(self._known, seen)
                assert seen.size is not None  # a file's is always known
                yield handle, seen.size
        except SourceError as error:
            raise error.at(url=self.url, offset=offset) from error.__cause__
        except OSError as error:
            raise _translated(error).at(url=self.url, offset=offset) from error

    @contextmanager
    def positional(self, offset: int) -> Iterator[Positional]:
        """Open the file for reads of any thread, which begin with one at `offset`."""
        self.trace.add(rounds=1)
        with self._opened(offset) as (handle, size):
            yield Positional(handle, size, self.trace)

    def read_head(self, length: int) -> memoryview:
        """Return the first bytes, fewer where the file is shorter."""
        with self._opened(0) as (handle, size):
            head = memoryview(_read_range(handle, 0, min(length, size)))
        self.trace.add(rounds=1, requests=1, bytes_read=len(head))
        return head

    def read(self, batch: Sequence[Request]) -> list[Buffer]:
        """Read a batch of ranges; rows are read straight into their array."""
        result: list[Buffer] = []
        requests = bytes_read = 0
        with self._opened(_first_offset(batch)) as (handle, size):
            for request in batch:
                check_inside(request, size)
                if isinstance(request, ByteRange):
                    data = _read_range(handle, *request)
                    result.append(data)
                    requests += 1
                    bytes_read += len(data)
                else:
                    rows, calls = _read_rows(handle, request)
                    result.append(rows)
                    requests += calls
                    bytes_read += rows.nbytes
        self.trace.add(rounds=1, requests=requests, bytes_read=bytes_read)
        return result

    async def aread(self, batch: Sequence[Request]) -> list[Buffer]:
        """Do as `read`, in any event loop."""
        return await asyncio.to_thread(self.read, batch)

    def read_spans(self, batch: Sequence[Request]) -> tuple[list[Buffer], list[Span]]:
        """Do as `read`. Nothing is offered for keeping: the system keeps what was read."""
        return self.read(batch), []

    async def aread_spans(self, batch: Sequence[Request]) -> tuple[list[Buffer], list[Span]]:
        """Do as `read_spans`, in any event loop."""
        return await self.aread(batch), []

    def stream(
        self, offset: NDArray[np.uint64], length: NDArray[np.uint64]
    ) -> Iterator[tuple[int, Buffer]]:
        """Yield (row, bytes) for each row, in order; a length of `WHOLE` means to the end."""
        self.trace.add(rounds=1)
        with self._opened(int(offset[0]) if offset.size else None) as (handle, size):
            rows = zip(offset.tolist(), length.tolist(), strict=True)
            for row, (first, count) in enumerate(rows):
                data = _read_range(handle, first, _wanted(first, count, size))
                self.trace.add(requests=1, bytes_read=len(data))
                yield row, data

    async def aread_range(self, offset: int, length: int) -> Buffer:
        """Read one range, in any event loop; a length of `WHOLE` means to the end."""
        return await asyncio.to_thread(self._read_one, offset, length)

    def _read_one(self, offset: int, length: int) -> Buffer:
        with self._opened(offset) as (handle, size):
            data = _read_range(handle, offset, _wanted(offset, length, size))
        self.trace.add(rounds=1, requests=1, bytes_read=len(data))
        return data

    def stat(self) -> Source:
        """Return how the file looks now, comparing it with nothing."""
        try:
            with _handle_of(self._path) as handle:
                return _sighting(self.url, handle)
        except SourceError as error:
            raise error.at(url=self.url) from None
        except OSError as error:
            raise _translated(error).at(url=self.url) from error

    def close(self) -> None:
        """Do nothing: no file stays open."""


class Positional(NamedTuple):
    """A file that is open, for reads at any place by any thread."""

    handle: int
    size: int
    trace: Trace

    def check(self, offset: int, length: int) -> int:
        """Return the length of a range, of which -1 means all that follows.

        Raises
        ------
        ShortRead
            It ends behind the end of the file.
        """
        return _wanted(offset, WHOLE if length < 0 else length, self.size)

    def read_into(self, offset: int, place: memoryview) -> None:
        """Fill some memory with the bytes from `offset`."""
        try:
            got = os.preadv(self.handle, [place], offset)
            if got < len(place):
                place[got:] = _read_range(self.handle, offset + got, len(place) - got)
        except OSError as error:
            raise _translated(error).at(offset=offset) from error
        self.trace.add(requests=1, bytes_read=len(place))


@contextmanager
def _handle_of(path: str) -> Iterator[int]:
    # Opening a pipe must not wait for somebody to write into it.
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        yield handle
    finally:
        os.close(handle)


def _sighting(url: str, handle: int) -> Source:
    status = os.fstat(handle)
    if not S_ISREG(status.st_mode):
        raise SourceError("not a regular file")
    etag = local_etag(status, handle)
    return Source(url, status.st_size, etag, str(status.st_mtime_ns))


def _first_offset(batch: Sequence[Request]) -> int | None:
    for request in batch:
        if isinstance(request, ByteRange):
            return request.offset
        if request.offsets.size:
            return int(request.offsets[0])
    return None


def _translated(error: OSError) -> SourceError:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return SourceMissing("no such file")
    if isinstance(error, PermissionError):
        return SourceDenied("may not be read")
    return SourceError(f"cannot be read: {error.strerror}")


def _wanted(offset: int, length: int, size: int) -> int:
    """Return the length of a range, checked against the size of the file."""
    wanted = size - offset if length == WHOLE else length
    if offset < 0 or wanted < 0 or offset + wanted > size:
        raise outside(offset, wanted, size)
    return wanted


def _read_range(handle: int, offset: int, length: int) -> bytes:
    data = os.pread(handle, length, offset)
    while len(data) < length:  # one call gives 2 GiB at most, or the file has just shrunk
        more = os.pread(handle, length - len(data), offset + len(data))
        if not more:
            raise ShortRead(f"{len(data)} of {length} bytes came", offset=offset, length=length)
        data += more
    return data


def _read_rows(handle: int, request: ByteRanges) -> tuple[NDArray[np.uint8], int]:
    """Fill rows of one length, with one system call for each run of adjacent rows."""
    offsets, length = request.offsets.astype(np.int64), request.length
    rows = np.empty((offsets.size, length), np.uint8)
    if not rows.size:
        return rows, 0
    first = np.flatnonzero(np.diff(offsets, prepend=-1 - length) != length)
    starts = first * length
    ends = np.append(starts[1:], rows.size)
    view = rows.data.cast("B")
    runs = zip(offsets[first].tolist(), starts.tolist(), ends.tolist(), strict=True)
    for offset, start, end in runs:
        got = os.preadv(handle, [view[start:end]], offset)
        if got < end - start:
            view[start + got : end] = _read_range(handle, offset + got, end - start - got)
    return rows, first.size
