"""How data that lies in one piece is split into chunks of a bearable size."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from byteatlas.model import ChunkManifest

__all__ = ["contiguous_manifest", "split_rows"]

_SMALLEST_SHARE = 8
"""A split keeps chunks of at least max_chunk over this, where it can choose."""
_LAST_SHARE = 256
"""Where it cannot, chunks of max_chunk over this are still better than a single huge one."""
_CANDIDATES = 2**16
"""So many ways of cutting an axis are tried at most."""


def split_rows(
    shape: tuple[int, ...], itemsize: int, max_chunk: int, *, room_after: int
) -> tuple[int, ...]:
    """Return a chunk shape that cuts a C-contiguous array into contiguous byte ranges.

    It has the form ``(1, ..., 1, r, full, ..., full)``, and an array of at most `max_chunk` bytes
    stays whole. All chunks of a Zarr array have the same size, so where r does not divide its
    axis, the last chunk along it reaches past the rows that it holds. Zarr ignores that padding,
    but the bytes must exist: except at the very end they are the array's own next rows, and there
    they are whatever follows it in the source. So r is, in this order of preference:

    1. the largest divisor of the axis within a factor of 8 of what `max_chunk` allows;
    2. an even share that is not a divisor, when `room_after` holds the padding;
    3. the largest divisor within a factor of 256;
    4. the whole axis, which makes chunks larger than `max_chunk`.

    Parameters
    ----------
    shape
        Shape of the array, whose data lies within the source.
    itemsize
        Size of an element, in bytes; at least 1.
    max_chunk
        Size of a chunk to stay below, in bytes. A single element may be larger.
    room_after
        Number of bytes between the array's end and the end of the source; not negative.
    """
    whole = tuple(max(n, 1) for n in shape)
    row = itemsize * math.prod(shape)
    if row <= max_chunk or not shape:
        return whole
    axis = -1
    while row > max_chunk and axis + 1 < len(shape):
        axis += 1
        row //= shape[axis]
    rows = _rows_per_chunk(shape[axis], max(max_chunk // row, 1), room_after // row)
    return (1,) * axis + (rows,) + whole[axis + 1 :]


def _rows_per_chunk(count: int, most: int, spare: int) -> int:
    """Choose into chunks of how many rows to cut `count` rows.

    `most` is the number of rows that a chunk should hold at most, `spare` the number of rows that
    the source could hold after the last.
    """
    rows = _shares(count, most, _SMALLEST_SHARE)
    padding = -count % rows
    for fits in (padding == 0, padding <= spare):
        if fits.any():
            return int(rows[fits.argmax()])
    rows = _shares(count, most, _LAST_SHARE)
    even = count % rows == 0
    return int(rows[even.argmax()]) if even.any() else count


def _shares(count: int, most: int, factor: int) -> NDArray[np.int64]:
    """Return numbers of rows that share an axis out evenly, from `most` down by a `factor`.

    The larger come first. All divisors of `count` in this span are among them, unless there are
    too many ways to try.
    """
    if most <= _CANDIDATES:
        rows = np.arange(most, max(most // factor, 1) - 1, -1, dtype=np.int64)
        pieces = -(-count // rows)
    else:
        fewest = -(-count // most)
        tries = min(fewest * (factor - 1) + 1, _CANDIDATES)
        pieces = np.arange(fewest, fewest + tries, dtype=np.int64)
    return -(-count // pieces)


def contiguous_manifest(
    shape: tuple[int, ...],
    chunk_shape: tuple[int, ...],
    itemsize: int,
    begin: int,
    *,
    row_stride: int | None = None,
) -> ChunkManifest:
    """Return where the chunks of uncompressed data in C order lie.

    Parameters
    ----------
    shape
        Shape of the array.
    chunk_shape
        A chunk shape as `split_rows` returns it.
    itemsize
        Size of an element, in bytes.
    begin
        Offset of the first element, in bytes.
    row_stride
        Distance in bytes from one index of the first axis to the next, where other data lies
        between; `chunk_shape` must then be 1 along this axis.
    """
    grid_shape = tuple(-(-n // c) for n, c in zip(shape, chunk_shape, strict=True))
    if 0 in grid_shape:
        return ChunkManifest.empty(grid_shape)
    strides = [itemsize * math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    if row_stride is not None:
        strides[0] = row_stride
    offset = np.array(begin, np.uint64)
    for cells, chunk, stride in zip(grid_shape, chunk_shape, strides, strict=True):
        steps = np.arange(cells, dtype=np.uint64) * np.uint64(chunk * stride)
        offset = np.add.outer(offset, steps)
    offset = offset.reshape(-1)
    length = np.full(offset.shape, itemsize * math.prod(chunk_shape), np.uint64)
    return ChunkManifest(grid_shape=grid_shape, offset=offset, length=length)
