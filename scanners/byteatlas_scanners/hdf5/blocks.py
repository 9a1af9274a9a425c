"""Many blocks of one length, such as the nodes of one level of a tree: where they are."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from byteatlas.errors import Malformed
from byteatlas.model import ByteRanges
from byteatlas_scanners.hdf5.file import Hdf5File

__all__ = ["BATCH", "batches", "locate", "unsigned"]

BATCH = 16 * 2**20
"""At most so many bytes are asked for at once, so that a level of any size needs little memory;
a request of so many bytes takes far longer than the round trip it costs."""


def locate(
    file: Hdf5File, addresses: NDArray[np.uint64], length: int, what: str
) -> NDArray[np.uint64]:
    """Turn addresses of blocks into offsets in the window.

    Parameters
    ----------
    addresses : relative to the base address, shape (count,).
    length : bytes of each block.
    what : name of the blocks, for the error.

    Raises
    ------
    Malformed
        A block does not lie inside the window.
    """
    end = file.size - file.base - length  # the last address that leaves room for a block
    outside = addresses > np.uint64(end) if end >= 0 else np.ones(addresses.size, np.bool_)
    if outside.any():
        raise Malformed(
            f"{what} lies outside the {file.size} bytes of the source",
            offset=file.base + int(addresses[outside.argmax()]),
            length=length,
        )
    return addresses + np.uint64(file.base)


def batches(offsets: NDArray[np.uint64], length: int) -> Iterator[ByteRanges]:
    """Cut the requests for many blocks of one length into batches of at most `BATCH` bytes."""
    step = max(1, BATCH // max(length, 1))
    for start in range(0, offsets.size, step):
        yield ByteRanges(offsets[start : start + step], length)


def unsigned(raw: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Decode little-endian unsigned integers of any width.

    Parameters
    ----------
    raw : shape (..., width), width 1 to 8, contiguous along its last axis.

    Returns
    -------
    shape (...).
    """
    width = raw.shape[-1]
    if width in (1, 2, 4, 8):
        value: NDArray[np.uint64] = raw.view(f"<u{width}")[..., 0].astype(np.uint64)
        return value
    value = raw[..., 0].astype(np.uint64)
    for place in range(1, width):
        value |= raw[..., place].astype(np.uint64) << np.uint64(8 * place)
    return value
