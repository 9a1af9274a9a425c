"""HDF5's filter zfp (32013), undone.

The header of the stream is not in the chunk but in the filter's parameters: 32 bits of magic, 52
of type and shape, 12 or 64 of the mode. The chunk's bits follow it at once.
(https://github.com/LLNL/H5Z-ZFP; zfp 1.0, zfp_read_header.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from byteatlas.codecs.interface import Bytes, Config, flat
from byteatlas.codecs.optional import imagecodecs
from byteatlas.errors import Malformed

__all__ = ["MAGIC", "undo_zfp"]

MAGIC: Final = int.from_bytes(b"zfp\x05", "little")
"""The first parameter of the header: a stream of codec version 5, as of zfp 0.5 and later."""

_LONG = 0xFFF
_DIMENSION_BITS = (48, 24, 16, 12)
_ITEM_BITS = (32, 64, 32, 64)  # int32, int64, float, double
_MORE: Final = 66
"""Blocks that are decoded behind an array to see whether it ended before its stream."""


class _Header(NamedTuple):
    bits: int
    """Of the header itself."""
    decoded: int
    """Bytes of the decoded array."""
    least: int
    """Bits that the stream has at least..."""
    most: int
    """...and at most, whatever its bits are."""
    per_block: int
    """Bits that a block has at most."""
    shape: list[int]
    """Numbers along each axis, the fastest first."""
    width: int
    """Bits of each number of the shape."""
    has_point: bool
    """Whether it is of floating-point numbers in one of the usual modes."""


def undo_zfp(data: Bytes, config: Config, limit: int) -> Bytes:
    """Undo zfp; `config` has ``header``, the parameters of 32 bits that are the header.

    zfp reads on behind a stream that ends early. So there is room for whatever it may want to
    read: first ones, then zeros, and they must not make a difference. For numbers with a point,
    `_decode_with_more` mostly finds out without the zeros.
    """
    words = [int(word) & 0xFFFFFFFF for word in config["header"]]
    whole = sum(word << 32 * place for place, word in enumerate(words))
    header = _parse(whole)
    if header.decoded > limit or header.most > 64 * limit + 2**20:
        raise Malformed(f"zfp chunk of {header.decoded} bytes, expected at most {limit}")
    if 8 * len(data) < header.least:
        raise Malformed(f"zfp chunk of {8 * len(data)} bits, it must have {header.least}")
    undo = partial(imagecodecs("zfp").zfp_decode, numthreads=1)
    if header.least == header.most:
        return flat(undo(_stream(header, whole, data, header.most // 8, b"\0")))
    out, has_ended = _decode_with_more(undo, header, whole, data)
    if not has_ended:
        again = undo(_stream(header, whole, data, header.most // 8, b"\0"))
        if not np.array_equal(out, flat(again)):
            raise Malformed("zfp chunk ends early")
    return out


def _stream(header: _Header, whole: int, data: Bytes, room: int, filler: bytes) -> bytes:
    """Return a stream with its header, filled up to more than some bytes."""
    head = whole & (1 << header.bits) - 1
    if header.bits % 8:  # by half a byte
        number = head | int.from_bytes(data, "little") << header.bits
        number |= (filler[0] & 15) << header.bits + 8 * len(data)
        start: tuple[Bytes, ...] = (number.to_bytes(header.bits // 8 + 1 + len(data), "little"),)
    else:
        start = (head.to_bytes(header.bits // 8, "little"), data)
    rest = max(room + header.bits // 8 - sum(map(len, start)), 0) + 16
    return b"".join((*start, filler * rest))


def _decode_with_more(
    undo: Callable[[bytes], NDArray[Any]], header: _Header, whole: int, data: Bytes
) -> tuple[Bytes, bool]:
    """Decode an array that goes on behind its end, and tell whether it ended before its stream.

    What the writer leaves of its last word are zeros, and a block that begins with a zero is one
    of zeros. After them come ones. So if the next block is of zeros, and one of those after it is
    not, the array has ended before the stream: else all of these blocks would be read from ones
    only, and be alike.
    """
    # Blocks follow each other along this axis at last: slower ones have a single block.
    axis = max((axis for axis, n in enumerate(header.shape) if n > 4), default=0)
    count = header.shape[axis]
    per_row = math.prod(-(-n // 4) for n in header.shape[:axis])
    rows = -(-_MORE // per_row)
    begin = -(-count // 4) * 4
    longer = begin + 4 * rows
    rank = len(header.shape)
    is_little = rows * per_row * 4**rank <= math.prod(header.shape) + _MORE * 4 ** (rank + 1)
    if not header.has_point or longer > 1 << header.width or not is_little:
        rows, longer = 0, count
    whole += (longer - count) << 36 + header.width * axis
    room = (header.most + rows * per_row * header.per_block) // 8
    out = undo(_stream(header, whole, data, room, b"\xff"))
    lead = (slice(None),) * (out.ndim - 1 - axis)
    more = out[(*lead, slice(begin, None))].view(f"u{out.itemsize}")
    is_zero = not more[(slice(4),) * out.ndim].any()
    return flat(out[(*lead, slice(count))]), is_zero and bool(more.any())


def _parse(whole: int) -> _Header:
    meta, mode = whole >> 32 & (1 << 52) - 1, whole >> 84 & _LONG
    if whole & 0xFFFFFFFF != MAGIC:
        raise Malformed(
            f"zfp header begins with {whole & 0xFFFFFFFF:#010x}, expected {MAGIC:#010x}"
        )
    item, rank = _ITEM_BITS[meta & 3], (meta >> 2 & 3) + 1
    width = _DIMENSION_BITS[rank - 1]
    shape = [(meta >> 4 + width * axis & (1 << width) - 1) + 1 for axis in range(rank)]
    blocks = math.prod(-(-n // 4) for n in shape)
    # All a block may read: its exponent, and each bit of each value with a bit that leads to it.
    per_block = 2 * 4**rank * item + 4**rank + 64
    least = 0
    if mode == _LONG:
        long = whole >> 96
        least, most = (long & 0x7FFF) + 1, (long >> 15 & 0x7FFF) + 1
        per_block = max(least, min(most, per_block))
    elif mode < 2048:
        least = per_block = mode + 1
    return _Header(
        bits=148 if mode == _LONG else 96,
        decoded=math.prod(shape) * item // 8,
        least=blocks * least,
        most=blocks * per_block,
        per_block=per_block,
        shape=shape,
        width=width,
        has_point=meta & 3 >= 2 and mode != _LONG,
    )
