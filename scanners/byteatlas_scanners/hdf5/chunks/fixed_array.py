"""Fixed arrays of chunks (HDF5 File Format 3.0, appendix C, "The Fixed Array Index").

A header, then one data block with an element for every chunk that the maximum extents allow. A
data block of more than one page has a bitmap of the pages written so far.
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from byteatlas.errors import Malformed
from byteatlas.model import Buffer
from byteatlas.steps import Steps
from byteatlas_scanners.hdf5.checksum import verify
from byteatlas_scanners.hdf5.chunks.elements import BATCH, Elements, ElementType, open_block
from byteatlas_scanners.hdf5.chunks.grid import ChunkGrid
from byteatlas_scanners.hdf5.chunks.layout import ChunkColumns, ChunkLayout
from byteatlas_scanners.hdf5.file import Hdf5File

__all__ = ["read_fixed_array"]

_HEADER = struct.Struct("<4sBBBB")  # then number of elements, address of the data block, checksum


def read_fixed_array(
    file: Hdf5File, layout: ChunkLayout, address: int, grid: ChunkGrid
) -> Steps[ChunkColumns]:
    """Read all chunks of a fixed array: its header in one round, the rest in another.

    Raises
    ------
    Malformed
        A block breaks the specification, fails its checksum, or lies outside the window.
    """
    where = file.span(
        address, _HEADER.size + file.length_size + file.offset_size + 4, "fixed array header"
    )
    (block,) = yield [where]
    head = bytes(block)
    signature, version, client, nbytes, page_bits = _HEADER.unpack_from(head)
    if (signature, version, client) != (b"FAHD", 0, layout.is_filtered):
        raise Malformed(
            f"expected a version 0 fixed array header of client {int(layout.is_filtered)}, "
            f"found {signature!r} version {version} of client {client}",
            offset=where.offset,
        )
    verify(head, "fixed array header", where.offset)
    count = int.from_bytes(head[_HEADER.size : _HEADER.size + file.length_size], "little")
    data_block = int.from_bytes(head[_HEADER.size + file.length_size : -4], "little")
    if count < grid.count_numbers():
        raise Malformed(
            f"a fixed array of {count} elements for {grid.count_numbers()} chunks",
            offset=where.offset,
        )
    if data_block == file.undefined:
        return ChunkColumns.join([])
    elements = Elements(file, ElementType.of(file, layout, nbytes), grid)
    start = b"FADB" + bytes([0, client]) + address.to_bytes(file.offset_size, "little")
    page = 1 << page_bits
    if count > page:
        return (yield from _read_paged(elements, start, data_block, count, page))
    whole = elements.blocks(
        "fixed array data block",
        np.array([data_block], np.uint64),
        np.zeros(1, np.uint64),
        count,
        prefix=len(start),
        start=start,
    )
    return (yield from elements.read([whole]))


def _read_paged(
    elements: Elements, start: bytes, address: int, count: int, page: int
) -> Steps[ChunkColumns]:
    file, element_size = elements.file, elements.kind.dtype.itemsize
    pages = -(-count // page)
    prefix = len(start) + -(-pages // 8) + 4
    where = file.span(address, prefix + count * element_size + 4 * pages, "fixed array data block")
    first = np.arange(pages, dtype=np.uint64)
    addresses = np.uint64(address + prefix) + first * np.uint64(page * element_size + 4)
    first *= np.uint64(page)
    what = "fixed array page"
    full = elements.blocks(what, addresses[:-1], first[:-1], page)
    last = elements.blocks(what, addresses[-1:], first[-1:], count - page * (pages - 1))
    head = where._replace(length=prefix)
    if where.length > BATCH:
        (block,) = yield [head]
        written = _written(block, start, pages, where.offset)
        return (yield from elements.read([full.where(written[:-1]), last.where(written[-1:])]))
    block, *replies = yield [head, full.ranges, last.ranges]
    written = _written(block, start, pages, where.offset)
    parts = []
    for blocks, rows, keep in zip(
        (full, last), map(np.asarray, replies), (written[:-1], written[-1:]), strict=True
    ):
        parts.append(elements.parse(rows if keep.all() else rows[keep], blocks.where(keep)))
    return ChunkColumns.join(parts)


def _written(block: Buffer, start: bytes, pages: int, offset: int) -> NDArray[np.bool_]:
    """Return which pages of a data block were written, from its prefix."""
    bitmap = open_block(block, start, "fixed array data block", offset)
    return np.unpackbits(bitmap, count=pages).view(np.bool_)
