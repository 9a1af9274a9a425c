"""Fetch the byte ranges behind many keys of one source: merged, checked, and cut out again.

Everything is a column over the keys until their bytes are there. Per key, only the cutting is
Python.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from byteatlas.codecs import ENCODING_PREFIX, encoding_prefix
from byteatlas.errors import ByteatlasError
from byteatlas.model import WHOLE, Buffer, ByteRange, as_view
from byteatlas.read.costs import merge_parts
from byteatlas.read.digests import check_digests
from byteatlas.read.reader import Reader
from byteatlas.sources import ByteSource
from byteatlas.sources.cached_source import CachedSource

__all__ = [
    "PREFIX",
    "Part",
    "Ranges",
    "apart",
    "fetch",
    "resolved_lengths",
    "row_of",
]

PREFIX = len(ENCODING_PREFIX) + 4
"""Length of an encoding prefix, in bytes."""


class Part(NamedTuple):
    """Which bytes of values are wanted, as columns of slices: a negative start is from the end."""

    start: NDArray[np.int64]
    stop: NDArray[np.int64]


class Ranges(NamedTuple):
    """Byte ranges that are the values of keys, as columns of shape (keys,)."""

    place: NDArray[np.int64]
    """Position of each key among those that were asked for."""
    source: NDArray[np.int64]
    """Position in the table of sources."""
    offset: NDArray[np.int64]
    """First byte in the source."""
    length: NDArray[np.int64]
    """Number of bytes, -1 for all that follow."""
    prefix: NDArray[np.int64]
    """The encoding whose prefix stands in front of the value, -1 for none."""
    digest: NDArray[np.uint64]
    """Digest of the bytes in the source."""
    is_sealed: NDArray[np.bool_]
    """There is a digest, and the bytes are fetched whole for its sake."""

    def take(self, rows: NDArray[np.int64]) -> Ranges:
        """Return some of the rows."""
        return Ranges(
            self.place[rows],
            self.source[rows],
            self.offset[rows],
            self.length[rows],
            self.prefix[rows],
            self.digest[rows],
            self.is_sealed[rows],
        )


async def resolved_lengths(reader: Reader, source: int, ranges: Ranges) -> NDArray[np.int64]:
    """Return the lengths of ranges of one source, where needed by asking it for its size."""
    is_open = ranges.length < 0
    if not is_open.any():
        return ranges.length
    opened = reader.source(source)
    size = opened.facts.size
    if size is None:
        size = (await asyncio.to_thread(opened.stat)).size or 0
    return np.where(is_open, np.maximum(size - ranges.offset, 0), ranges.length)


async def fetch(
    reader: Reader, source: int, ranges: Ranges, part: Part | None = None
) -> list[Buffer | ByteatlasError]:
    """Fetch the values of keys, or parts of them (None: all), from one source in one round.

    Neighbouring ranges become one request, by the reader's own rule. Of a range that is sealed
    all bytes are fetched, whatever part of them is wanted.

    Returns
    -------
    list
        The bytes of each range, in order; views of what was fetched where no prefix is due. Or a
        SourceChanged, where they are not those that were sealed.

    Raises
    ------
    SourceError
        The bytes of the source could not be had.
    LimitExceeded
        More bytes of one chunk are to be fetched than the limits allow.
    """
    opened = reader.source(source)
    if part is None and ranges.length.size == 1 and ranges.length[0] < 0:
        offset = int(ranges.offset[0])  # its size need not be known
        await asyncio.to_thread(reader.check_rest, source, offset)
        bodies: list[Buffer] = [await opened.aread_range(offset, WHOLE)]
        wrong = _not_as_sealed(ranges, bodies, opened)
        return [*wrong.values()] or [*_with_prefixes(ranges.prefix, None, bodies)]
    length = await resolved_lengths(reader, source, ranges)
    cut = None if part is None else _cuts(part, length, ranges.prefix >= 0)
    if cut is None:
        offset_wanted, wanted = ranges.offset, length
    else:
        offset_wanted = np.where(ranges.is_sealed, ranges.offset, ranges.offset + cut.skip)
        wanted = np.where(ranges.is_sealed, length, cut.length)
    reader.limits.check("chunk", int(wanted.max(initial=0)), "a chunk")
    bodies = await _merged(reader, opened, offset_wanted, wanted)
    wrong = _not_as_sealed(ranges, bodies, opened)
    if cut is not None:
        for row in np.flatnonzero(ranges.is_sealed).tolist():
            skip = int(cut.skip[row])
            bodies[row] = bodies[row][skip : skip + int(cut.length[row])]
    values: list[Buffer | ByteatlasError] = [*_with_prefixes(ranges.prefix, cut, bodies)]
    for row, error in wrong.items():
        values[row] = error
    return values


def apart(ranges: Ranges, size: int | None) -> list[NDArray[np.int64]]:
    """Return the rows that lie inside a source of so many bytes, and those that do not."""
    if size is None:
        return []
    is_inside = ranges.offset + np.maximum(ranges.length, 0) <= size
    return [rows for rows in map(np.flatnonzero, (is_inside, ~is_inside)) if rows.size]


def row_of(error: ByteatlasError, ranges: Ranges) -> int:
    """Return the range that an error is about; the first where it does not say."""
    if error.offset is None:
        return 0
    is_about = (ranges.offset <= error.offset) & (error.offset < ranges.offset + ranges.length)
    return int(np.argmax(is_about))


class _Cuts(NamedTuple):
    """What is wanted of values that may begin with a prefix, as columns."""

    head_start: NDArray[np.int64]
    """First byte wanted of the prefix."""
    head_stop: NDArray[np.int64]
    """And the first one behind it that is not."""
    skip: NDArray[np.int64]
    """How many bytes of the source's are left out in front."""
    length: NDArray[np.int64]
    """How many of them are wanted."""


def _cuts(part: Part, length: NDArray[np.int64], is_prefixed: NDArray[np.bool_]) -> _Cuts:
    lead = np.where(is_prefixed, PREFIX, 0)
    size = lead + length
    start, stop = (
        np.where(end < 0, np.maximum(size + end, 0), np.minimum(end, size)) for end in part
    )
    return _Cuts(
        head_start=np.minimum(start, lead),
        head_stop=np.minimum(stop, lead),
        skip=np.maximum(start - lead, 0),
        length=np.maximum(stop - np.maximum(start, lead), 0),
    )


def _with_prefixes(
    prefix: NDArray[np.int64], cut: _Cuts | None, bodies: list[Buffer]
) -> list[Buffer]:
    for row in np.flatnonzero(prefix >= 0).tolist():
        head = encoding_prefix(int(prefix[row]))
        if cut is not None:
            head = head[int(cut.head_start[row]) : int(cut.head_stop[row])]
        bodies[row] = head + bytes(bodies[row])
    return bodies


async def _merged(
    reader: Reader, opened: ByteSource, offset: NDArray[np.int64], length: NDArray[np.int64]
) -> list[Buffer]:
    """Fetch ranges in any order with few requests, and return the bytes of each."""
    if offset.size == 1 or isinstance(opened, CachedSource):  # which keeps each range by itself
        return await opened.aread(list(map(ByteRange, offset.tolist(), length.tolist())))
    order = None
    if not (offset[1:] >= offset[:-1]).all():
        order = np.argsort(offset, kind="stable")
        offset, length = offset[order], length[order]
    bounds, fetch_length = merge_parts(None, offset, length, reader.costs)
    fetch_offset = offset[bounds[:-1]]
    pairs = zip(fetch_offset.tolist(), fetch_length.tolist(), strict=True)
    views = list(map(as_view, await opened.aread([ByteRange(*pair) for pair in pairs])))
    counts = np.diff(bounds)
    begin = offset - np.repeat(fetch_offset, counts)
    cuts = zip(
        np.repeat(np.arange(counts.size), counts).tolist(),
        begin.tolist(),
        (begin + length).tolist(),
        strict=True,
    )
    bodies: list[Buffer] = [views[fetch][first:stop] for fetch, first, stop in cuts]
    if order is None:
        return bodies
    place = np.empty_like(order)
    place[order] = np.arange(order.size)
    return [bodies[row] for row in place.tolist()]


def _not_as_sealed(
    ranges: Ranges, bodies: list[Buffer], opened: ByteSource
) -> dict[int, ByteatlasError]:
    """Compare what was fetched of sealed ranges with their digests; return the rows that differ."""
    rows = np.flatnonzero(ranges.is_sealed)
    if not rows.size or _difference(ranges, bodies, rows) is None:
        return {}
    if isinstance(opened, CachedSource):
        opened.discard()
    each = np.split(rows, rows.size)
    found = ((int(one[0]), _difference(ranges, bodies, one)) for one in each)
    return {row: error.at(url=opened.url) for row, error in found if error is not None}


def _difference(
    ranges: Ranges, bodies: list[Buffer], rows: NDArray[np.int64]
) -> ByteatlasError | None:
    sealed = [bodies[row] for row in rows.tolist()]
    try:
        check_digests(sealed, ranges.digest[rows], ranges.offset[rows].tolist())
    except ByteatlasError as error:
        return error
    return None
