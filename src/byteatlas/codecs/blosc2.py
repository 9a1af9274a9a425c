"""HDF5's filter blosc2 (32026), undone.

A chunk is a contiguous frame of Blosc2: a header, one chunk, and where that begins. Arrays of two
dimensions and more are cut into blocks, which stand one after the other; the header's metalayer
``b2nd`` says how. (C-Blosc2, README_CFRAME_FORMAT.rst, README_CHUNK_FORMAT.rst,
README_B2ND_METALAYER.rst.)
"""

from __future__ import annotations

import math
import struct
from typing import Final

import numpy as np

from byteatlas.codecs.interface import Bytes, Config, flat
from byteatlas.codecs.optional import imagecodecs
from byteatlas.errors import Malformed

__all__ = ["undo_blosc2"]

_FRAME = struct.Struct(">2x8sxixQx4sxqxqxixixi")  # each number after a byte that tells its type
_CHUNK = struct.Struct("<BBBBiii6s2x6sxB")  # versions, flags, item, sizes, filters, more flags
_METALAYERS: Final = 87
_ZEROS: Final = 0x81 << 56
_COMPRESSORS = (0, 1, 3, 4)  # blosclz, lz4, zlib, zstd; others are plugins, found by running Python
_FILTERS = frozenset({0, 1, 2, 3, 4})  # none, shuffle, bitshuffle, delta, truncation
_TRUNCATION = 4  # its option is how many bits were kept
_LAZY, _UNSET = 0x08, 4


def undo_blosc2(data: Bytes, config: Config, limit: int) -> Bytes:
    """Undo blosc2."""
    del config
    frame = bytes(data)
    magic, begin, size, _, decoded, encoded, _, _, chunk = _FRAME.unpack_from(frame)
    if magic != b"b2frame\0" or size > len(frame):
        raise Malformed(f"blosc2 chunk of {len(frame)} bytes is a frame of {size} ({magic!r})")
    # A block may be filled up to a multiple of the block shape along each dimension.
    if not 0 < decoded <= 8 * limit + 2**16 or chunk != decoded:
        raise Malformed(f"blosc2 chunk claims {decoded} bytes in chunks of {chunk}")
    if begin < _METALAYERS or encoded < 0 or begin + encoded > size:
        raise Malformed(f"blosc2 chunk of {encoded} bytes at {begin} in a frame of {size}")
    place = int.from_bytes(_decompress(frame[begin + encoded : size], 8), "little")
    if place != (0 if encoded else _ZEROS):
        raise Malformed(f"blosc2 chunk of {encoded} bytes begins at {place:#x}")
    whole: Bytes = bytes(decoded)
    if encoded:
        whole = _decompress(frame[begin : begin + encoded], decoded)
    shapes = _shapes(frame[:begin])
    if shapes is None:
        return whole
    shape, block = shapes
    if min(block) < 1 or min(shape) < 1:
        raise Malformed(f"blosc2 array of shape {shape} in blocks of {block}")
    grid = tuple(-(-n // b) for n, b in zip(shape, block, strict=True))
    item, rest = divmod(decoded, math.prod(grid) * math.prod(block))
    if rest or not 0 < math.prod(shape) * item <= limit:
        raise Malformed(f"blosc2 array of shape {shape} in blocks of {block} has {decoded} bytes")
    blocks = np.frombuffer(whole, f"V{item}").reshape(*grid, *block)
    axes = [axis + part * len(grid) for axis in range(len(grid)) for part in (0, 1)]
    full = tuple(g * b for g, b in zip(grid, block, strict=True))
    array = blocks.transpose(axes).reshape(full)[tuple(slice(0, n) for n in shape)]
    return flat(np.ascontiguousarray(array).reshape(-1).view(np.uint8))


def _decompress(chunk: bytes, decoded: int) -> Bytes:
    """Decompress one chunk of Blosc2 that must decode to some bytes."""
    _, _, flags, _, claimed, _, size, filters, options, more = _CHUNK.unpack_from(chunk)
    if claimed != decoded or not _CHUNK.size <= size <= len(chunk):
        raise Malformed(f"blosc2 chunk claims {claimed} bytes in {size}, expected {decoded}")
    if flags & 5 != 5 or flags >> 5 not in _COMPRESSORS or not _FILTERS.issuperset(filters):
        raise Malformed(f"blosc2 chunk with flags {flags:#04x} and filters {filters.hex()}")
    if any(option and kind != _TRUNCATION for kind, option in zip(filters, options, strict=True)):
        raise Malformed(f"blosc2 chunk whose filters {filters.hex()} have options {options.hex()}")
    if more & _LAZY or more >> 4 & 7 == _UNSET:
        raise Malformed(f"blosc2 chunk with flags {more:#04x}, whose values are not in it")
    out = imagecodecs("blosc2").blosc2_decode(chunk[:size], numthreads=1, out=decoded)
    if len(out) != decoded:
        raise Malformed(f"blosc2 chunk decodes to {len(out)} bytes, expected {decoded}")
    return bytes(out)


def _shapes(header: bytes) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Return shape and block shape of the one chunk; None where there are no dimensions.

    All numbers are in MessagePack, big-endian, at places that are always the same.
    """
    _, _, count = struct.unpack_from(">BxHxH", header, _METALAYERS)[:3]
    if not count:
        return None
    at = _METALAYERS + 7
    if count != 1 or header[at : at + 6] != b"\xa4b2nd\xd2":
        raise Malformed(f"blosc2 frame with {count} metalayers, of which the first is no b2nd")
    (place,) = struct.unpack_from(">i", header, at + 6)
    rank = header[place + 7]
    axes = f"x{'xq' * rank}x{'xi' * rank}x{'xi' * rank}"
    if header[place + 5] != 0x97 or not 1 <= rank <= 8:
        raise Malformed(f"blosc2 array of {rank} dimensions")
    numbers = struct.unpack_from(">" + axes, header, place + 8)
    shape, chunk, block = numbers[:rank], numbers[rank : 2 * rank], numbers[2 * rank :]
    if shape != chunk:
        raise Malformed(f"blosc2 array of shape {shape} in chunks of {chunk}")
    return shape, block
