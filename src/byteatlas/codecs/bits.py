"""Numbers of any number of bits, from a stream of bits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["SLAB", "take_bits"]

SLAB = 2**16
"""Numbers that are best taken at once: what they need along the way then stays in the cache."""


def take_bits(data: bytes, first: int, stride: int, count: int, width: int) -> NDArray[np.uint64]:
    """Return numbers that begin at regular places of a stream of bits, the highest bit first.

    Every eighth of them begins at the same bit of a byte, so there are eight steps for all.

    Parameters
    ----------
    data
        The stream; its first bit is the highest of its first byte. It must have 9 more bytes
        than the numbers need.
    first
        First bit of the first number.
    stride
        Bits from the first bit of a number to that of the next.
    count
        How many numbers.
    width
        Bits of each, 1 to 64.

    Returns
    -------
    ndarray
        Shape (count,), uint64.
    """
    numbers = np.empty(count, np.uint64)
    for phase in range(min(count, 8)):
        byte, skipped = divmod(first + phase * stride, 8)
        rows = ((count - phase + 7) // 8,)
        part = np.ndarray(rows, ">u8", data, byte, (stride,)).astype(np.uint64)
        part <<= np.uint64(skipped)
        if skipped + width > 64:  # it ends in the byte after the eight
            last = np.ndarray(rows, np.uint8, data, byte + 8, (stride,)).astype(np.uint64)
            part |= last >> np.uint64(8 - skipped)
        part >>= np.uint64(64 - width)
        numbers[phase::8] = part
    return numbers
