"""HDF5's shuffle, undone."""

from __future__ import annotations

import numpy as np

from byteatlas.codecs.interface import Bytes, Config
from byteatlas.errors import Malformed

__all__ = ["undo_shuffle", "unshuffle"]


def undo_shuffle(data: Bytes, config: Config, limit: int) -> Bytes:
    """Undo the codec ``shuffle``, whose items have 4 bytes where it does not say."""
    del limit  # as many bytes come out as go in
    return unshuffle(data, config.get("elementsize", 4))


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
        raise Malformed(f"shuffle with items of {item} bytes, expected at least 1")
    source = np.frombuffer(data, np.uint8)
    count = source.size // item
    if item == 1 or count < 2:
        return data
    out = np.empty(source.size, np.uint8)
    if item <= count:
        for byte in range(item):
            out[byte : count * item : item] = source[byte * count : (byte + 1) * count]
    else:  # a damaged file may say that items are large: then there are few of them
        for place in range(count):
            out[place * item : (place + 1) * item] = source[place : count * item : count]
    out[count * item :] = source[count * item :]
    return out.data
