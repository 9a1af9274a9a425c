"""Fractal heaps (HDF5 File Format 3.0, III.G): where dense links and attributes are kept.

A heap is one address space, cut into direct blocks whose sizes follow a doubling table; indirect
blocks point to them. Heap IDs are offsets and lengths in that space. Direct blocks and huge
objects may be filtered, as chunks are.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from byteatlas.codecs import decode
from byteatlas.errors import Malformed, Unsupported
from byteatlas.model import ByteRange, as_view
from byteatlas_scanners.hdf5.btree_v2 import read_btree_v2
from byteatlas_scanners.hdf5.checksum import verify
from byteatlas_scanners.hdf5.filters import encoding_of, parse_filter_pipeline

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from byteatlas.steps import Steps
    from byteatlas_scanners.hdf5.file import Hdf5File
    from byteatlas_scanners.hdf5.filters import Filter

__all__ = ["FractalHeap", "open_heap", "read_objects"]

MANAGED, HUGE, TINY = 0, 1, 2
HUGE_INDIRECT, HUGE_FILTERED = 1, 2  # types of the records of the B-tree of huge objects
LONGEST_NORMAL = 18
"""In longer IDs the length of a tiny object takes twelve bits (the longest has 16 bytes)."""
MAX_DECODED = 2**26
"""All filtered blocks and objects of a heap, decoded, take at most so many bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FractalHeap:
    """A heap's header, with all direct blocks."""

    id_length: int
    offset_width: int
    """Bytes of an offset in a heap ID."""
    length_width: int
    """Bytes of a length in a heap ID."""
    huge_index: int
    """Address of the B-tree of huge objects, or the undefined address."""
    filters: tuple[Filter, ...] = ()
    """What direct blocks and huge objects went through."""
    starts: list[int] = field(default_factory=list)
    """Heap offset of each direct block, ascending."""
    blocks: list[memoryview] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """The doubling table."""

    width: int
    first_size: int
    max_direct: int
    offset_width: int
    has_checksums: bool
    filters: tuple[Filter, ...]

    def block_size(self, row: int) -> int:
        return self.first_size << max(row - 1, 0)

    @property
    def direct_rows(self) -> int:
        return (self.max_direct // self.first_size).bit_length() + 1

    def row_start(self, row: int) -> int:
        """Offset of a row from the start of its indirect block, in the heap's space."""
        return self.width * self.first_size << (row - 1) if row else 0


class _Direct(NamedTuple):
    """A direct block that is yet to be read."""

    start: int
    """Its offset in the heap's space."""
    where: ByteRange
    size: int
    """Its bytes, once decoded."""
    mask: int
    """Of the filters that it skipped."""


class _Huge(NamedTuple):
    """A huge object that is yet to be read."""

    where: ByteRange
    size: int
    mask: int


def open_heap(file: Hdf5File, address: int) -> Steps[FractalHeap]:
    """Read a heap's header and blocks: one round each, one more per level of indirect blocks.

    Raises
    ------
    Malformed
        A block is damaged or lies outside the source.
    Unsupported
        A filter of the heap has no codec here.
    """
    o, n = file.offset_size, file.length_size
    length = 26 + 12 * n + 3 * o
    where = file.span(address, length, "fractal heap")
    (reply,) = yield [where]
    head = as_view(reply)
    filters_length = int.from_bytes(head[7:9], "little")
    if filters_length:
        (reply,) = yield [file.span(address, length + n + 4 + filters_length, "fractal heap")]
        head = as_view(reply)
    if bytes(head[:4]) != b"FRHP" or head[4] != 0:
        raise Malformed(
            f"fractal heap: expected b'FRHP' version 0, found {bytes(head[:5])!r}",
            offset=where.offset,
        )
    id_length, _, flags, max_managed = struct.unpack_from("<HHBI", head, 5)
    verify(head, "fractal heap", where.offset)
    position = 14 + n
    huge_index = file.offset_at(head, position)
    position = 14 + n + o + n + o + 8 * n
    (width,) = struct.unpack_from("<H", head, position)
    first_size = file.length_at(head, position + 2)
    max_direct = file.length_at(head, position + 2 + n)
    (max_bits,) = struct.unpack_from("<H", head, position + 2 + 2 * n)
    root = file.offset_at(head, position + 6 + 2 * n)
    (rows,) = struct.unpack_from("<H", head, position + 6 + 2 * n + o)
    if not (
        width and first_size and first_size & (first_size - 1) == 0 and max_direct >= first_size
    ):
        raise Malformed("fractal heap: impossible doubling table", offset=where.offset)
    filters = parse_filter_pipeline(head[length + n :]) if filters_length else ()
    table = _Table(
        width=width,
        first_size=first_size,
        max_direct=max_direct,
        offset_width=(max_bits + 7) // 8,
        has_checksums=bool(flags & 2),
        filters=filters,
    )
    heap = FractalHeap(
        id_length=id_length,
        offset_width=table.offset_width,
        length_width=min(_width(max_direct), _width(max_managed)),
        huge_index=huge_index,
        filters=filters,
    )
    if root == file.undefined:
        return heap
    if rows:
        first = _indirect_span(file, table, root, rows)
        yield from _read_blocks(file, table, [], [(0, rows, first)], heap)
        return heap
    stored, mask = first_size, 0
    if filters:  # the header says of the only block what an indirect block says of each
        stored = file.length_at(head, length - 4)
        (mask,) = struct.unpack_from("<I", head, length - 4 + n)
    block = _Direct(0, file.span(root, stored, "fractal heap block"), first_size, mask)
    yield from _read_blocks(file, table, [block], [], heap)
    return heap


def _width(limit: int) -> int:
    """Return the bytes that hold numbers up to a limit, as the library counts them."""
    return (max(limit, 1).bit_length() - 1) // 8 + 1


def _read_blocks(
    file: Hdf5File,
    table: _Table,
    direct: list[_Direct],
    indirect: list[tuple[int, int, ByteRange]],
    heap: FractalHeap,
) -> Steps[None]:
    """Read blocks level by level; of an indirect one its heap offset, rows and place are given."""
    room = MAX_DECODED
    found: list[tuple[int, memoryview]] = []
    seen: set[int] = set()
    while direct or indirect:
        ranges = [block.where for block in direct] + [where for _, _, where in indirect]
        for where in ranges:
            if where.offset in seen:
                raise Malformed("fractal heap: a block is used twice", offset=where.offset)
            seen.add(where.offset)
            file.spend(where.length, where.offset)
        replies = yield ranges
        for (start, where, size, mask), data in zip(direct, replies, strict=False):
            room -= size if heap.filters else 0
            block = _decoded(heap, as_view(data), size, mask, where.offset, room)
            _check_block(block, b"FHDB", where.offset)
            if table.has_checksums:
                _verify_direct(file, table, block, where.offset)
            found.append((start, block))
        parents, replies = indirect, replies[len(direct) :]
        direct, indirect = [], []
        for (start, count, where), data in zip(parents, replies, strict=True):
            block = as_view(data)
            _check_block(block, b"FHIB", where.offset)
            verify(block, "fractal heap indirect block", where.offset)
            _read_indirect(file, table, block, start, count, direct, indirect)
    found.sort(key=lambda item: item[0])
    heap.starts.extend(start for start, _ in found)
    heap.blocks.extend(block for _, block in found)


def _decoded(
    heap: FractalHeap, data: memoryview, size: int, mask: int, offset: int, room: int
) -> memoryview:
    """Undo the heap's filters; `room` is what may still be decoded after this block."""
    if not heap.filters:
        return data
    if room < 0:
        raise Unsupported(
            f"a filtered fractal heap of more than {MAX_DECODED} bytes", offset=offset
        )
    encoding = encoding_of(heap.filters, chunk_nbytes=size, mask=mask)
    return as_view(decode(data, encoding, size=size))


def _check_block(block: memoryview, signature: bytes, offset: int) -> None:
    if bytes(block[:4]) != signature or block[4] != 0:
        raise Malformed(
            f"fractal heap: expected {signature!r} version 0, found {bytes(block[:5])!r}",
            offset=offset,
        )


def _verify_direct(file: Hdf5File, table: _Table, block: memoryview, offset: int) -> None:
    """Check a direct block, whose checksum counts as zeros and lies behind its header."""
    start = 5 + file.offset_size + table.offset_width
    stored = block[start : start + 4]
    verify(b"".join([block[:start], bytes(4), block[start + 4 :], stored]), "fractal heap", offset)


def _indirect_span(file: Hdf5File, table: _Table, address: int, rows: int) -> ByteRange:
    length = 5 + file.offset_size + table.offset_width + rows * table.width * file.offset_size + 4
    if table.filters:
        length += min(rows, table.direct_rows) * table.width * (file.length_size + 4)
    return file.span(address, length, "fractal heap indirect block")


def _read_indirect(
    file: Hdf5File,
    table: _Table,
    block: memoryview,
    start: int,
    rows: int,
    direct: list[_Direct],
    indirect: list[tuple[int, int, ByteRange]],
) -> None:
    position = 5 + file.offset_size + table.offset_width
    for row in range(rows):
        size = table.block_size(row)
        for column in range(table.width):
            address = file.offset_at(block, position)
            position += file.offset_size
            stored, mask = size, 0
            if table.filters and row < table.direct_rows:
                stored = file.length_at(block, position)
                (mask,) = struct.unpack_from("<I", block, position + file.length_size)
                position += file.length_size + 4
            if address == file.undefined:
                continue
            offset = start + table.row_start(row) + column * size
            if row < table.direct_rows:
                where = file.span(address, stored, "fractal heap block")
                direct.append(_Direct(offset, where, size, mask))
                continue
            below = (size // (table.first_size * table.width)).bit_length()
            indirect.append((offset, below, _indirect_span(file, table, address, below)))


def read_objects(
    file: Hdf5File, heap: FractalHeap, ids: NDArray[np.uint8]
) -> Steps[list[memoryview]]:
    """Return the objects of some heap IDs (III.G.4), reading those too big for the heap.

    Parameters
    ----------
    ids : shape (count, at least the heap's ID length), uint8.
    """
    objects: list[memoryview] = [memoryview(b"")] * len(ids)
    huge: list[tuple[int, bytes]] = []
    for position, row in enumerate(ids):
        identifier = row[: heap.id_length].tobytes()
        kind = identifier[0] >> 4 & 3
        if kind == MANAGED:
            objects[position] = _managed(heap, identifier)
        elif kind == TINY:
            length = (identifier[0] & 15) + 1
            start = 1
            if heap.id_length > LONGEST_NORMAL:
                length, start = ((identifier[0] & 15) << 8 | identifier[1]) + 1, 2
            objects[position] = memoryview(identifier)[start : start + length]
        elif kind == HUGE:
            huge.append((position, identifier[1:]))
        else:
            raise Malformed(f"fractal heap: an ID of type {kind}")
    if huge:
        places = yield from _find_huge(file, heap, [key for _, key in huge])
        replies = yield [place.where for place in places]
        room = MAX_DECODED
        for (position, _), place, data in zip(huge, places, replies, strict=True):
            room -= place.size if heap.filters else 0
            objects[position] = _decoded(
                heap, as_view(data), place.size, place.mask, place.where.offset, room
            )
    file.spend(sum(map(len, objects)))
    return objects


def _managed(heap: FractalHeap, identifier: bytes) -> memoryview:
    middle = 1 + heap.offset_width
    offset = int.from_bytes(identifier[1:middle], "little")
    length = int.from_bytes(identifier[middle : middle + heap.length_width], "little")
    position = bisect_right(heap.starts, offset) - 1
    if position < 0:
        raise Malformed(f"fractal heap: no block holds offset {offset}")
    start = offset - heap.starts[position]
    found = heap.blocks[position][start : start + length]
    if len(found) != length:
        raise Malformed(f"fractal heap: no block holds {length} bytes at offset {offset}")
    return found


def _find_huge(file: Hdf5File, heap: FractalHeap, keys: list[bytes]) -> Steps[list[_Huge]]:
    o, n = file.offset_size, file.length_size
    extra = 4 + n if heap.filters else 0  # filter mask, and the size once decoded
    if heap.id_length >= 1 + o + n + extra:  # the ID itself says where the object is
        return [_huge(file, heap, key) for key in keys]
    kind = HUGE_FILTERED if heap.filters else HUGE_INDIRECT
    tree = yield from read_btree_v2(file, heap.huge_index, {kind})
    records = {file.length_at(row, o + n + extra): row for row in map(bytes, tree.records)}
    places = []
    for key in keys:
        identifier = int.from_bytes(key[: min(n, len(key))], "little")
        if identifier not in records:
            raise Malformed(f"fractal heap: no huge object {identifier}")
        places.append(_huge(file, heap, records[identifier]))
    return places


def _huge(file: Hdf5File, heap: FractalHeap, record: bytes) -> _Huge:
    """Parse what an ID or a record says of a huge object."""
    o, n = file.offset_size, file.length_size
    length = file.length_at(record, o)
    where = file.span(file.offset_at(record, 0), length, "huge object")
    if not heap.filters:
        return _Huge(where, length, 0)
    (mask,) = struct.unpack_from("<I", record, o + n)
    return _Huge(where, file.length_at(record, o + n + 4), mask)
