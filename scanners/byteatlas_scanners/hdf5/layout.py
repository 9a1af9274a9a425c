"""The data layout message (HDF5 File Format 3.0, IV.A.2.i)."""

from __future__ import annotations

import math
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from byteatlas.errors import Malformed, Unsupported
from byteatlas_scanners.hdf5.chunks import ChunkIndexKind, ChunkLayout

if TYPE_CHECKING:
    from byteatlas_scanners.hdf5.file import Hdf5File

__all__ = ["Compact", "Contiguous", "Virtual", "parse_layout"]

COMPACT, CONTIGUOUS, CHUNKED, VIRTUAL = 0, 1, 2, 3


class Compact(NamedTuple):
    """Data inside the header."""

    data: bytes


class Contiguous(NamedTuple):
    """Data in one piece."""

    address: int | None
    """None while nothing was allocated."""
    size: int | None
    """Bytes; None where the message does not say."""


class Virtual(NamedTuple):
    """Data in other datasets."""

    address: int | None
    """Of the global heap collection with the list of mappings; None where there is none."""
    number: int
    """Of the list in its collection."""


def parse_layout(
    file: Hdf5File, body: memoryview, *, is_filtered: bool
) -> Compact | Contiguous | ChunkLayout | Virtual:
    """Parse a data layout message of version 1 to 5."""
    version = body[0]
    if version in (1, 2):
        return _version_1_2(file, body, is_filtered=is_filtered)
    if version not in (3, 4, 5):
        raise Unsupported(f"data layout message version {version}")
    kind = body[1]
    if kind == COMPACT:
        (size,) = struct.unpack_from("<H", body, 2)
        return Compact(bytes(body[4 : 4 + size]))
    if kind == CONTIGUOUS:
        address = file.offset_at(body, 2)
        size = file.length_at(body, 2 + file.offset_size)
        return Contiguous(None if address == file.undefined else address, size)
    if kind == VIRTUAL:
        address = file.offset_at(body, 2)
        (index,) = struct.unpack_from("<I", body, 2 + file.offset_size)
        return Virtual(None if address in (0, file.undefined) else address, index)
    if kind != CHUNKED:
        raise Unsupported(f"data layout class {kind}")
    if version == 3:
        rank = body[2]
        address = file.offset_at(body, 3)
        extents = struct.unpack_from(f"<{rank}I", body, 3 + file.offset_size)
        return _chunked(file, ChunkIndexKind.BTREE_V1, address, extents, is_filtered=is_filtered)
    return _version_4(file, body, is_filtered=is_filtered)


def _version_1_2(
    file: Hdf5File, body: memoryview, *, is_filtered: bool
) -> Compact | Contiguous | ChunkLayout:
    rank, kind = body[1], body[2]
    position = 8
    if kind == COMPACT:
        position += 4 * rank
        (size,) = struct.unpack_from("<I", body, position)
        return Compact(bytes(body[position + 4 : position + 4 + size]))
    address = file.offset_at(body, position)
    if kind == CONTIGUOUS:
        return Contiguous(None if address == file.undefined else address, None)
    if kind != CHUNKED:
        raise Unsupported(f"data layout class {kind}")
    extents = struct.unpack_from(f"<{rank}I", body, position + file.offset_size)
    return _chunked(file, ChunkIndexKind.BTREE_V1, address, extents, is_filtered=is_filtered)


def _version_4(file: Hdf5File, body: memoryview, *, is_filtered: bool) -> ChunkLayout:
    flags, rank, width = body[2], body[3], body[4]
    position = 5 + rank * width
    extents = tuple(
        int.from_bytes(body[5 + axis * width : 5 + axis * width + width], "little")
        for axis in range(rank)
    )
    try:
        kind = ChunkIndexKind(body[position])
    except ValueError:
        raise Unsupported(f"chunk index type {body[position]}") from None
    position += 1
    single_size, single_mask = None, 0
    if kind is ChunkIndexKind.SINGLE and flags & 2:
        single_size = file.length_at(body, position)
        (single_mask,) = struct.unpack_from("<I", body, position + file.length_size)
        position += file.length_size + 4
    position += _PARAMETERS[kind]
    layout = _chunked(file, kind, file.offset_at(body, position), extents, is_filtered=is_filtered)
    return replace(
        layout,
        has_plain_edges=bool(flags & 1),
        single_size=single_size,
        single_mask=single_mask,
    )


# Bytes of the creation parameters before the address; the structures repeat what is in them.
_PARAMETERS = {
    ChunkIndexKind.BTREE_V1: 0,
    ChunkIndexKind.SINGLE: 0,
    ChunkIndexKind.IMPLICIT: 0,
    ChunkIndexKind.FIXED_ARRAY: 1,
    ChunkIndexKind.EXTENSIBLE_ARRAY: 5,
    ChunkIndexKind.BTREE_V2: 6,
}


def _chunked(
    file: Hdf5File,
    kind: ChunkIndexKind,
    address: int,
    extents: tuple[int, ...],
    *,
    is_filtered: bool,
) -> ChunkLayout:
    """Make a layout of extents whose last is the bytes of an element."""
    if len(extents) < 2 or 0 in extents:
        raise Malformed(f"data layout: a chunk of {extents}")
    return ChunkLayout(
        kind=kind,
        address=None if address == file.undefined else address,
        chunk_shape=extents[:-1],
        chunk_nbytes=math.prod(extents),
        is_filtered=is_filtered,
    )
