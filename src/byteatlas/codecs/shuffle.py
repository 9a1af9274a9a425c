"""HDF5's shuffle, undone.

Blosc shuffles too, and undoes it with the vector instructions of the machine, at three times the
speed of strides in numpy. So the bytes are framed as a chunk of Blosc that is shuffled and not
compressed. (C-Blosc 1, README_CHUNK_FORMAT.rst.)
"""

from __future__ import annotations

import struct
from typing import Final

import numpy as np
from numcodecs import blosc

from byteatlas.codecs.interface import Bound, Bytes, Config, Step
from byteatlas.errors import Malformed

__all__ = ["prepare_shuffle", "unshuffle"]

_HEADER = struct.Struct("<BBBBIIIII")
"""Versions, flags, item; decoded, block and encoded size; place and size of the only block."""
_SHUFFLED_NOT_SPLIT_LZ4: Final = 0x31
_FAST: Final = frozenset({2, 4, 8, 16})
"""Items for which Blosc has vector instructions."""
_PIECE: Final = 2**18
"""Bytes that are unshuffled at once: they and what they become fit into the cache."""


def prepare_shuffle(config: Config, bound: Bound) -> Step:
    """Undo the codec ``shuffle``, whose items have 4 bytes where it does not say."""
    del bound  # as many bytes come out as go in
    item = config.get("elementsize", 4)
    if type(item) is not int or item < 1:
        raise Malformed(f"shuffle with items of {item!r:.40} bytes, expected 1 or more")

    def step(data: Bytes) -> Bytes:
        return unshuffle(data, item)

    return step


def unshuffle(data: Bytes, item: int) -> Bytes:
    """Undo HDF5's shuffle: byte k of all items stands together, then byte k + 1 of all.

    Parameters
    ----------
    data
        Shuffled bytes; the rest that fills no item stands unchanged at their end.
    item
        Size of an item, in bytes.
    """
    if item < 1:
        raise Malformed(f"shuffle with items of {item} bytes, expected 1 or more")
    count = len(data) // item
    if item == 1 or count < 2:
        return data
    if item in _FAST:
        return _unshuffle_by_blosc(memoryview(data), item, count)
    return _unshuffle_by_numpy(data, item, count)


def _unshuffle_by_blosc(data: memoryview, item: int, count: int) -> Bytes:
    whole = count * item
    if len(data) == whole <= _PIECE:
        out: bytes = blosc.decompress(b"".join((_frame(whole, item), data)))
        return out
    # In pieces, so that only the result takes memory that is not in the cache.
    result = np.empty(len(data), np.uint8)
    result[whole:] = data[whole:]
    planes = range(0, whole, count)
    step = _PIECE // item
    for start in range(0, count, step):
        stop = min(start + step, count)
        piece = [data[plane + start : plane + stop] for plane in planes]
        frame = b"".join((_frame((stop - start) * item, item), *piece))
        blosc.decompress(frame, result[start * item : stop * item])
    return result.data


def _frame(size: int, item: int) -> bytes:
    """Return what stands before shuffled bytes in a chunk of Blosc that has one block."""
    length = _HEADER.size + size
    return _HEADER.pack(2, 1, _SHUFFLED_NOT_SPLIT_LZ4, item, size, size, length, 20, size)


def _unshuffle_by_numpy(data: Bytes, item: int, count: int) -> Bytes:
    source = np.frombuffer(data, np.uint8)
    out = np.empty(source.size, np.uint8)
    if item <= count:
        for byte in range(item):
            out[byte : count * item : item] = source[byte * count : (byte + 1) * count]
    else:  # a damaged file may say that items are large: then there are few of them
        for place in range(count):
            out[place * item : (place + 1) * item] = source[place : count * item : count]
    out[count * item :] = source[count * item :]
    return out.data
