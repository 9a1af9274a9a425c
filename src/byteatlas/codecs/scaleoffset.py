"""HDF5's filter scale-offset (6), undone.

Each number is stored as its distance from the smallest, in as many bits as the largest distance
needs; floating-point numbers are first multiplied by a power of ten and rounded. A chunk begins
with the number of bits (4 bytes, little-endian), the size of the smallest number (1) and that
number (16 bytes of room); the distances follow as a stream of bits, the highest bit first. All
ones stand for the fill value. Numbers that need all their bits are stored as they are, in the
order of the machine that wrote them: taken for little-endian here, as HDF5 does on such machines.
(HDF5 library, H5Zscaleoffset.c.)
"""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byteatlas.codecs.bits import SLAB, take_bits
from byteatlas.codecs.interface import Bytes, Config
from byteatlas.errors import Malformed

__all__ = ["undo_scaleoffset"]

_HEADER = 21


def undo_scaleoffset(data: Bytes, config: Config, limit: int) -> Bytes:
    """Undo scale-offset.

    `config` has ``dtype``, an integer or floating-point type as numpy spells it; ``count``, the
    numbers of a chunk; ``fill``, the bytes of the fill value as a little-endian whole number, or
    None; ``digits``, decimal digits after the point, for floating-point types.
    """
    dtype, count = np.dtype(config["dtype"]), int(config["count"])
    if dtype.kind not in "iuf" or (dtype.kind == "f" and dtype.itemsize < 4) or dtype.itemsize > 8:
        raise Malformed(f"scale-offset of type {dtype}")
    if count < 0 or count * dtype.itemsize > limit:
        raise Malformed(f"scale-offset of {count} numbers, expected at most {limit} bytes")
    if len(data) < _HEADER:
        raise Malformed(f"scale-offset chunk of {len(data)} bytes, its header has {_HEADER}")
    full = dtype.itemsize * 8
    bits, size = struct.unpack_from("<IB", data)
    needed = -(-count * bits // 8)
    if bits > full or len(data) - _HEADER < needed:
        raise Malformed(
            f"scale-offset chunk with {bits} bits for each of {count} numbers has"
            f" {len(data) - _HEADER} bytes"
        )
    stream = bytes(data[_HEADER : _HEADER + needed])
    if bits == full:
        # In the byte order of the machine that wrote them, whatever that of the type is.
        return np.frombuffer(stream, dtype.newbyteorder("<")).astype(dtype).view(np.uint8).data
    least = int.from_bytes(data[5 : 5 + min(size, 8)], "little") & (1 << full) - 1
    out = np.empty(count, dtype)
    if bits:
        stream += bytes(9)
        for start in range(0, count, SLAB):
            part = out[start : start + SLAB]
            distance = take_bits(stream, start * bits, bits, part.size, bits)
            part[:] = _restore(distance, bits, least, dtype, config)
    else:
        out[:] = _restore(np.zeros(1, np.uint64), 0, least, dtype, config)
    return out.view(np.uint8).data


def _restore(
    distance: NDArray[np.uint64], bits: int, least: int, dtype: np.dtype[Any], config: Config
) -> NDArray[Any]:
    """Return numbers, in native byte order, by their distance from the smallest one."""
    native = dtype.newbyteorder("=")
    unsigned = np.dtype(f"u{dtype.itemsize}")
    plain = distance.astype(unsigned)
    numbers: NDArray[Any]
    if dtype.kind == "f":
        # As the library computes: every step in the type itself.
        power = native.type(math.pow(10.0, int(config["digits"])))
        with np.errstate(all="ignore"):
            whole = plain.view(f"i{dtype.itemsize}").astype(native)
            numbers = whole / power + np.array(least, unsigned).view(native)
    else:
        numbers = (plain + unsigned.type(least)).view(native)
    fill = config.get("fill")
    if fill is not None:
        value = np.array(int(fill) & (1 << 8 * dtype.itemsize) - 1, unsigned).view(native)
        numbers[distance == np.uint64((1 << bits) - 1)] = value
    return numbers
