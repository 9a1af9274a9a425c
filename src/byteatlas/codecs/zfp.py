"""HDF5's filter zfp (32013), undone.

The header of the stream is not in the chunk but in the filter's parameters: 32 bits of magic, 52
of type and shape, 12 or 64 of the mode. The chunk's bits follow it at once.
(https://github.com/LLNL/H5Z-ZFP; zfp 1.0, zfp_read_header.)
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np

from byteatlas.codecs.interface import Bytes, Config, flat
from byteatlas.codecs.optional import imagecodecs
from byteatlas.errors import Malformed

__all__ = ["MAGIC", "undo_zfp"]

MAGIC: Final = int.from_bytes(b"zfp\x05", "little")
"""The first parameter of the header: a stream of codec version 5, as of zfp 0.5 and later."""

_LONG = 0xFFF
_DIMENSION_BITS = (48, 24, 16, 12)
_ITEM_BITS = (32, 64, 32, 64)  # int32, int64, float, double


class _Header(NamedTuple):
    bits: int
    """Of the header itself."""
    decoded: int
    """Bytes of the decoded array."""
    least: int
    """Bits that the stream has at least..."""
    most: int
    """...and at most, whatever its bits are."""


def undo_zfp(data: Bytes, config: Config, limit: int) -> Bytes:
    """Undo zfp; `config` has ``header``, the parameters of 32 bits that are the header.

    zfp reads on behind a stream that ends early. So there is room for whatever it may want to
    read: first zeros, then ones, and they must not make a difference.
    """
    words = [int(word) & 0xFFFFFFFF for word in config["header"]]
    whole = sum(word << 32 * place for place, word in enumerate(words))
    header = _parse(whole)
    if header.decoded > limit or header.most > 64 * limit + 2**20:
        raise Malformed(f"zfp chunk of {header.decoded} bytes, expected at most {limit}")
    if 8 * len(data) < header.least:
        raise Malformed(f"zfp chunk of {8 * len(data)} bits, it must have {header.least}")
    stream = whole & (1 << header.bits) - 1 | int.from_bytes(data, "little") << header.bits
    used = header.bits + 8 * len(data)
    size = max((header.bits + header.most) // 8, used // 8) + 16
    package = imagecodecs("zfp")
    out = package.zfp_decode(stream.to_bytes(size, "little"), numthreads=1)
    if header.least < header.most:
        stream |= (1 << 8 * size) - (1 << used)
        again = package.zfp_decode(stream.to_bytes(size, "little"), numthreads=1)
        if not np.array_equal(flat(out), flat(again)):
            raise Malformed("zfp chunk ends early")
    return flat(out)


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
    )
