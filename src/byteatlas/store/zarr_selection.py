"""Which box of an array zarr-python asks for, seen from the chunks that it takes apart.

zarr hands a codec pipeline one entry a chunk: its key, what is wanted of the chunk, and where
that goes in the result. For integers and slices, the entries are the product of one list for each
axis. They are put together again into one selection, and compared, all of them, with what that
selection means: what is not exactly a box is none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Box", "box_of"]

Box: TypeAlias = tuple[int | slice, ...]
"""An integer or a slice with a positive step for each axis."""

# What a selection of zarr holds is Any: it is checked here.


def box_of(
    flat: NDArray[np.int64],
    chunk_selections: Sequence[Any],
    out_selections: Sequence[Any],
    *,
    grid: tuple[int, ...],
    chunk_shape: tuple[int, ...],
    out_shape: tuple[int, ...],
) -> Box | None:
    """Return the selection that some parts of chunks make up, None where they are no box.

    Parameters
    ----------
    flat
        Flat index (C order) of each chunk in the grid, shape (n,).
    chunk_selections
        What is wanted of each chunk.
    out_selections
        Where in the result it goes.
    grid, chunk_shape
        Of the array.
    out_shape
        Of the result; the box fills it.
    """
    if not grid:
        is_all = len(flat) == 1 and chunk_selections[0] == out_selections[0] == ()
        return () if is_all and out_shape == () else None
    coordinates = [np.unique(along) for along in np.unravel_index(flat, grid)]
    counts = [along.size for along in coordinates]
    if math.prod(counts) != len(flat) or not np.array_equal(flat, _flat(coordinates, grid)):
        return None
    strides = [math.prod(counts[axis + 1 :]) for axis in range(len(grid))]
    wanted = _along_axes(chunk_selections, counts, strides)
    if wanted is None:
        return None
    kept = [axis for axis, along in enumerate(wanted) if isinstance(along[0], slice)]
    places = _along_axes(
        out_selections, [counts[axis] for axis in kept], [strides[axis] for axis in kept]
    )
    if places is None or len(kept) != len(out_shape):
        return None
    room = dict(zip(kept, zip(places, out_shape, strict=True), strict=True))
    box: list[int | slice] = []
    for axis, (chunk, along, size) in enumerate(zip(coordinates, wanted, chunk_shape, strict=True)):
        found: int | slice | None
        if axis in room:
            found = _interval(chunk * size, along, size, *room[axis])
        else:
            found = _single(chunk * size, along, size)
        if found is None:
            return None
        box.append(found)
    return tuple(box)


def _flat(coordinates: Sequence[NDArray[np.int64]], grid: tuple[int, ...]) -> NDArray[np.int64]:
    """Return the flat indices of all combinations of coordinates, in C order."""
    flat = np.zeros(1, np.int64)
    for along, size in zip(coordinates, grid, strict=True):
        flat = np.add.outer(flat * size, along).reshape(-1)
    return flat


def _along_axes(
    selections: Sequence[Any], counts: Sequence[int], strides: Sequence[int]
) -> list[list[Any]] | None:
    """Return what is selected along each axis, None unless all is the product of that."""
    try:
        axes = [
            [selections[place * stride][axis] for place in range(count)]
            for axis, (count, stride) in enumerate(zip(counts, strides, strict=True))
        ]
        # zarr makes such a product too: mostly the very same objects are compared, in no time
        return axes if list(product(*axes)) == list(selections) else None
    except (IndexError, TypeError, ValueError):
        return None  # other axes, or arrays, which are not compared so


def _single(origin: NDArray[np.int64], along: list[Any], size: int) -> int | None:
    """Return the position that an integer takes along an axis of chunks of some size."""
    (index,) = along if len(along) == 1 else (None,)
    if not isinstance(index, int | np.integer) or not 0 <= index < size:
        return None
    return int(origin[0]) + int(index)


def _interval(
    origin: NDArray[np.int64], along: list[Any], size: int, places: list[Any], room: int
) -> slice | None:
    """Return the slice that slices of chunks make up along an axis, whose result has `room`."""
    if not all(isinstance(one, slice) for one in [*along, *places]):
        return None
    columns = [(one.start, one.stop, 1 if one.step is None else one.step) for one in along]
    ends = [(one.start, one.stop, 1 if one.step is None else one.step) for one in places]
    if not all(type(number) is int for numbers in [*columns, *ends] for number in numbers):
        return None
    start, stop, steps = np.array(columns, np.int64).T
    first, end, strides = np.array(ends, np.int64).T
    step = int(steps[0])
    if step < 1 or (steps != step).any() or (strides != 1).any():
        return None
    if (start < 0).any() or (start >= stop).any() or (stop > size).any():
        return None
    count = -((start - stop) // step)
    bounds = np.append(0, np.cumsum(count))
    begin = origin + start
    is_one_slice = (begin[1:] == (begin + count * step)[:-1]).all()
    if not (is_one_slice and (first == bounds[:-1]).all() and (end == bounds[1:]).all()):
        return None
    if bounds[-1] != room:
        return None
    return slice(int(begin[0]), int(begin[-1] + (count[-1] - 1) * step) + 1, step)
