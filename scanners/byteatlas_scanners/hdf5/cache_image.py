"""The metadata cache image: metadata that a writer left in one block instead of in its places.

HDF5 File Format 4.0, III.J ("Metadata Cache Image Block"). A file that was closed with such an
image has stale bytes, or none, where the image's entries belong until it is opened for writing
again, so every read of it must see the entries in their places.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from byteatlas.errors import Malformed
from byteatlas.model import ByteRange, as_view
from byteatlas_scanners.hdf5.checksum import verify

if TYPE_CHECKING:
    from byteatlas.model import Buffer, Request
    from byteatlas.steps import Steps
    from byteatlas_scanners.hdf5.file import Hdf5File

__all__ = ["CacheImage", "read_cache_image", "with_image"]

T = TypeVar("T")

HAS_PARENTS = 8  # flags of an entry, bit 3

_entry = struct.Struct("<4B3HI")
"""Type, flags, ring, age; children, dirty children, parents; rank."""


class CacheImage(NamedTuple):
    """The entries of an image, in the order of their places, none of which overlap."""

    starts: list[int]
    """Offsets in the window."""
    ends: list[int]
    entries: list[memoryview]

    def put_into(self, offset: int, data: memoryview) -> memoryview:
        """Return the bytes read at an offset, with the entries that belong there."""
        end = offset + len(data)
        first, last = bisect_right(self.ends, offset), bisect_left(self.starts, end)
        if first >= last:
            return data
        whole = bytearray(data)
        for start, entry in zip(self.starts[first:last], self.entries[first:last], strict=True):
            cut = entry[max(offset - start, 0) : end - start]
            place = max(start - offset, 0)
            whole[place : place + len(cut)] = cut
        return memoryview(whole)

    def answer(self, request: Request, reply: Buffer) -> Buffer:
        """Return what was read for a request, with the entries that belong there."""
        if isinstance(request, ByteRange):
            return self.put_into(request.offset, as_view(reply))
        rows = np.asarray(reply)
        offsets = request.offsets.astype(np.int64)
        first = np.searchsorted(np.array(self.ends), offsets, side="right")
        last = np.searchsorted(np.array(self.starts), offsets + request.length, side="left")
        for row in np.flatnonzero(first < last).tolist():
            patched = self.put_into(int(offsets[row]), as_view(rows[row]))
            rows[row] = np.frombuffer(patched, np.uint8)
        return rows


def read_cache_image(file: Hdf5File, address: int, length: int) -> Steps[CacheImage]:
    """Read a metadata cache image, in one round.

    Raises
    ------
    Malformed
        It is damaged, or its entries overlap or do not fit the source.
    """
    where = file.span(address, length, "metadata cache image")
    (reply,) = yield [where]
    block = as_view(reply)
    if bytes(block[:5]) != b"MDCI\0":
        raise Malformed(
            f"metadata cache image: expected b'MDCI' version 0, found {bytes(block[:5])!r}",
            offset=where.offset,
        )
    verify(block, "metadata cache image", where.offset)
    try:
        return _parse(file, block, where.offset)
    except (struct.error, IndexError) as error:
        raise Malformed(f"metadata cache image: damaged ({error})", offset=where.offset) from error


def _parse(file: Hdf5File, block: memoryview, offset: int) -> CacheImage:
    position = 6 + file.length_size
    (count,) = struct.unpack_from("<I", block, position)
    position += 4
    found: list[tuple[int, memoryview]] = []
    for _ in range(count):
        _, flags, _, _, _, _, parents, _ = _entry.unpack_from(block, position)
        position += _entry.size
        address = file.offset_at(block, position)
        size = file.length_at(block, position + file.offset_size)
        position += file.offset_size + file.length_size
        position += parents * file.offset_size if flags & HAS_PARENTS else 0
        place = file.span(address, size, "entry of the metadata cache image")
        if position + size > len(block) - 4:
            raise Malformed("metadata cache image: an entry is longer than it", offset=offset)
        found.append((place.offset, block[position : position + size]))
        position += size
    found.sort(key=lambda one: one[0])
    starts = [start for start, _ in found]
    ends = [start + len(entry) for start, entry in found]
    if any(end > start for end, start in zip(ends, starts[1:], strict=False)):
        raise Malformed("metadata cache image: two entries overlap", offset=offset)
    return CacheImage(starts, ends, [entry for _, entry in found])


def with_image(parser: Steps[T], image: CacheImage) -> Steps[T]:
    """Run a parser on a file as it is with the image's entries in their places."""
    try:
        asked: Sequence[Request] = next(parser)
        while True:
            replies = yield asked
            asked = parser.send(
                [
                    image.answer(request, reply)
                    for request, reply in zip(asked, replies, strict=True)
                ]
            )
    except StopIteration as stop:
        result: T = stop.value
        return result
