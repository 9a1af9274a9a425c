"""Extensible arrays of chunks (HDF5 File Format 3.0, appendix C, "The Extensible Array Index").

A header, then an index block with the first few elements, the addresses of the first data blocks
and those of super blocks. The array grows in parts: part i has 2**(i // 2) data blocks, each of
2**((i + 1) // 2) times the least number of elements. The index block names the data blocks of the
first few parts, a super block those of each other part. Large data blocks come in pages, and
their super block has a bitmap of the pages written so far.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from byteatlas.errors import Malformed
from byteatlas.model import Buffer, ByteRange
from byteatlas.steps import Steps
from byteatlas_scanners.hdf5.blocks import unsigned
from byteatlas_scanners.hdf5.checksum import verify
from byteatlas_scanners.hdf5.chunks.elements import Blocks, Elements, ElementType, open_block
from byteatlas_scanners.hdf5.chunks.grid import ChunkGrid
from byteatlas_scanners.hdf5.chunks.layout import ChunkColumns, ChunkLayout
from byteatlas_scanners.hdf5.file import Hdf5File

__all__ = ["read_extensible_array"]

_HEADER = struct.Struct("<4s8B")  # then six statistics, address of the index block, checksum
_INDEX_BLOCK = "extensible array index block"
_SUPER_BLOCK = "extensible array super block"
_DATA_BLOCK = "extensible array data block"
_PAGE = "extensible array page"


def read_extensible_array(
    file: Hdf5File, layout: ChunkLayout, address: int, grid: ChunkGrid
) -> Steps[ChunkColumns]:
    """Read all chunks of an extensible array, in at most four rounds.

    The header; the index block; the data blocks it names, and the super blocks; their data blocks.

    Raises
    ------
    Malformed
        A block breaks the specification, fails its checksum, or lies outside the window.
    """
    unlimited = [axis for axis, most in enumerate(grid.most) if most is None]
    if len(unlimited) != 1:
        raise Malformed(f"an extensible array of chunks with {len(unlimited)} unlimited axes")
    head = yield from _read_header(file, layout, address)
    if head.index_block == file.undefined:
        return ChunkColumns.join([])
    kind = ElementType.of(file, layout, head.element_size)
    elements = Elements(file, kind, grid, unlimited[0], head.count)
    inline, direct, super_blocks = yield from _read_index_block(elements, head)
    replies = yield [*(blocks.ranges for blocks in direct), *(at for _, at in super_blocks)]
    found = [
        elements.parse(np.asarray(rows), blocks)
        for blocks, rows in zip(direct, replies[: len(direct)], strict=True)
    ]
    indirect: list[Blocks] = []
    for (part, at), block in zip(super_blocks, replies[len(direct) :], strict=True):
        indirect += _parse_super_block(elements, head, part, block, at.offset)
    rest = yield from elements.read(indirect)
    return ChunkColumns.join([inline, *found, rest])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Header:
    """What the array's header says."""

    owner: bytes
    """Version, client and address of the header, as each block repeats them."""
    element_size: int
    offset_width: int
    """Bytes of a block's offset in the array."""
    inline_count: int
    """Elements in the index block."""
    least: int
    """Elements of the smallest data block."""
    parts: int
    direct: int
    """Parts whose data blocks the index block names."""
    page: int
    """Elements of a page."""
    count: int
    """Number behind the last element that was set ("maximum index set")."""
    index_block: int


@dataclass(frozen=True, slots=True)
class _Part:
    """One part of the array: so many data blocks of one size."""

    blocks: int
    count: int
    """Elements of each data block."""
    first: int
    """Number of the first element."""
    pages: int
    """Pages of each data block; 0 when it is not paged."""

    @property
    def bitmap_nbytes(self) -> int:
        return self.blocks * -(-self.pages // 8)


def _read_header(file: Hdf5File, layout: ChunkLayout, address: int) -> Steps[_Header]:
    what = "extensible array header"
    at = file.span(address, _HEADER.size + 6 * file.length_size + file.offset_size + 4, what)
    (block,) = yield [at]
    raw = bytes(block)
    signature, version, client, element_size, bits, inline_count, least, pointers, page_bits = (
        _HEADER.unpack_from(raw)
    )
    if (signature, version, client) != (b"EAHD", 0, layout.is_filtered):
        raise Malformed(
            f"expected a version 0 {what} of client {int(layout.is_filtered)}, "
            f"found {signature!r} version {version} of client {client}",
            offset=at.offset,
        )
    verify(raw, what, at.offset)
    parts = 2 + bits - least.bit_length()
    direct = 2 * (pointers.bit_length() - 1)
    if least.bit_count() != 1 or pointers.bit_count() != 1 or direct > parts or bits > 62:
        raise Malformed(
            f"{what} with {bits} bits, data blocks of {least} and {pointers} pointers",
            offset=at.offset,
        )
    set_at = _HEADER.size + 4 * file.length_size  # the fifth of six statistics
    return _Header(
        owner=bytes([0, client]) + address.to_bytes(file.offset_size, "little"),
        element_size=element_size,
        offset_width=-(-bits // 8),
        inline_count=inline_count,
        least=least,
        parts=parts,
        direct=direct,
        page=1 << page_bits,
        count=file.length_at(raw, set_at),
        index_block=int.from_bytes(raw[-4 - file.offset_size : -4], "little"),
    )


def _parts(head: _Header) -> list[_Part]:
    parts = []
    first = head.inline_count
    for i in range(head.parts):
        blocks, count = 1 << i // 2, head.least << (i + 1) // 2
        parts.append(_Part(blocks, count, first, count // head.page if count > head.page else 0))
        first += blocks * count
    return parts


def _read_index_block(
    elements: Elements, head: _Header
) -> Steps[tuple[ChunkColumns, list[Blocks], list[tuple[_Part, ByteRange]]]]:
    """Return its own chunks, the data blocks it names, and the super blocks."""
    file = elements.file
    parts = _parts(head)
    direct, indirect = parts[: head.direct], parts[head.direct :]
    inline_nbytes = head.inline_count * head.element_size
    pointer_count = sum(part.blocks for part in direct) + len(indirect)
    start = b"EAIB" + head.owner
    length = len(start) + inline_nbytes + pointer_count * file.offset_size + 4
    at = file.span(head.index_block, length, _INDEX_BLOCK)
    (block,) = yield [at]
    body = open_block(block, start, _INDEX_BLOCK, at.offset)
    numbers = np.arange(head.inline_count, dtype=np.uint64)
    inline = elements.decode(body[None, :inline_nbytes], numbers)
    pointers = unsigned(body[inline_nbytes:].reshape(-1, file.offset_size))
    blocks: list[Blocks] = []
    for part in direct:
        if part.pages:
            raise Malformed(f"{_INDEX_BLOCK} of paged data blocks", offset=at.offset)
        blocks += _data_blocks(elements, head, part, pointers[: part.blocks])
        pointers = pointers[part.blocks :]
    super_blocks = []
    for part, pointer in zip(indirect, pointers.tolist(), strict=True):
        if pointer != file.undefined:
            length = len(start) + head.offset_width + part.bitmap_nbytes
            length += part.blocks * file.offset_size + 4
            super_blocks.append((part, file.span(pointer, length, _SUPER_BLOCK)))
    return inline, elements.merge(blocks), super_blocks


def _parse_super_block(
    elements: Elements, head: _Header, part: _Part, block: Buffer, offset: int
) -> list[Blocks]:
    """Return the data blocks of one part."""
    body = open_block(block, b"EASB" + head.owner, _SUPER_BLOCK, offset)
    bitmap, pointers = np.split(body[head.offset_width :], [part.bitmap_nbytes])
    addresses = unsigned(pointers.reshape(-1, elements.file.offset_size))
    if not part.pages:
        return _data_blocks(elements, head, part, addresses)
    written = np.unpackbits(bitmap, count=part.blocks * part.pages).view(np.bool_)
    return _paged_data_blocks(elements, head, part, addresses, written)


def _data_blocks(
    elements: Elements, head: _Header, part: _Part, addresses: NDArray[np.uint64]
) -> list[Blocks]:
    number = np.flatnonzero(addresses != np.uint64(elements.file.undefined)).astype(np.uint64)
    start = b"EADB" + head.owner
    return [
        elements.blocks(
            _DATA_BLOCK,
            addresses[number],
            np.uint64(part.first) + number * np.uint64(part.count),
            part.count,
            prefix=len(start) + head.offset_width,
            start=start,
        )
    ]


def _paged_data_blocks(
    elements: Elements,
    head: _Header,
    part: _Part,
    addresses: NDArray[np.uint64],
    written: NDArray[np.bool_],
) -> list[Blocks]:
    """Return the prefixes of data blocks, which have no elements, and the pages after them."""
    start = b"EADB" + head.owner
    prefix = len(start) + head.offset_width
    page_nbytes = head.page * head.element_size + 4
    defined = addresses != np.uint64(elements.file.undefined)
    number = np.flatnonzero(written & defined.repeat(part.pages)).astype(np.uint64)
    block = number // np.uint64(part.pages)
    page = number % np.uint64(part.pages)
    return [
        elements.blocks(
            _DATA_BLOCK, addresses[defined], addresses[defined], 0, prefix=prefix, start=start
        ),
        elements.blocks(
            _PAGE,
            addresses[block] + np.uint64(prefix + 4) + page * np.uint64(page_nbytes),
            np.uint64(part.first) + number * np.uint64(head.page),
            head.page,
        ),
    ]
