"""What a selection takes along each axis of an array, in numbers instead of objects.

A selection is what numpy's basic indexing takes (integers, slices of any step, an ellipsis),
and one-dimensional arrays of integers or booleans, each along its own axis (*orthogonal*: xarray
calls it outer indexing). `Pointwise` takes single points instead, whose positions along several
axes go together. Either is read in ascending order without repeats; `Arrange` then restores the
order that was asked for.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from types import EllipsisType
from typing import Any, SupportsIndex, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Arrange",
    "Axis",
    "Points",
    "Pointwise",
    "Selection",
    "axis_plan",
    "point_plan",
    "resolve",
    "resolve_points",
]

Index: TypeAlias = SupportsIndex | slice | NDArray[Any] | Sequence[int]
Selection: TypeAlias = "EllipsisType | Index | tuple[EllipsisType | Index, ...] | Pointwise"

Positions: TypeAlias = range | NDArray[np.int64]
"""Positions along an axis, ascending and without repeats."""


@dataclass(frozen=True, slots=True, eq=False)
class Pointwise:
    """A selection of points: arrays of integers of any shape go together, as in numpy.

    What it takes has the shape that the arrays are broadcast to, and then the axes that are
    selected by slices; xarray calls it vectorized indexing. An array along a dimension of its own
    selects as a slice does, and costs no more.

    >>> Pointwise((np.array([0, 5, 9]), slice(None), np.array([1, 1, 4])))  # doctest: +SKIP
    """

    indices: tuple[slice | SupportsIndex | NDArray[Any] | Sequence[Any], ...]
    """For each axis a slice, or integers, at least one of these; axes at the end may be left out.
    """


@dataclass(frozen=True, slots=True)
class Arrange:
    """Brings an array that was read in ascending order into the order asked for."""

    steps: tuple[slice | int, ...]
    """Index for each axis: as it is, reversed, or a single position that drops the axis."""
    takes: tuple[tuple[int, NDArray[np.int64]], ...]
    """Axes (before any is dropped) whose positions are to be reordered or repeated."""
    points: tuple[int, ...] | None = None
    """What the first axis is to be shaped as then, if anything."""
    order: tuple[int, ...] | None = None
    """The order of the axes in the end, None as it is."""

    def shape(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """Return the shape of what has such a shape before."""
        sizes = list(sizes)
        for axis, wanted in self.takes:
            sizes[axis] = wanted.size
        steps = zip(sizes, self.steps, strict=True)
        kept = tuple(size for size, step in steps if isinstance(step, slice))
        if self.points is not None:
            kept = (*self.points, *kept[1:])
        return kept if self.order is None else tuple(kept[axis] for axis in self.order)

    def __call__(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return the values as asked for: a view where that is possible."""
        for axis, order in self.takes:
            values = np.take(values, order, axis)
        arranged: NDArray[Any] = values[(*self.steps, ...)]  # "...": a scalar stays an array
        if self.points is not None:
            arranged = arranged.reshape((*self.points, *arranged.shape[1:]))
        return arranged if self.order is None else arranged.transpose(self.order)


def resolve(selection: Selection, shape: tuple[int, ...]) -> tuple[list[Positions], Arrange]:
    """Turn a selection into ascending positions along each axis.

    Raises
    ------
    IndexError
        There are more indices than axes, or one is out of range or of another kind.
    """
    positions: list[Positions] = []
    steps: list[slice | int] = []
    takes: list[tuple[int, NDArray[np.int64]]] = []
    for axis, (index, size) in enumerate(zip(_spread(selection, len(shape)), shape, strict=True)):
        step: slice | int = slice(None)
        if isinstance(index, slice):
            wanted = range(size)[index]
            if wanted.step < 0:
                wanted, step = wanted[::-1], slice(None, None, -1)
            positions.append(wanted)
        elif np.ndim(index) == 0 and not isinstance(index, bool | np.bool_):
            single = _in_range(operator.index(index), size, axis)
            positions.append(range(single, single + 1))
            step = 0
        else:
            several = _several(index, size, axis)
            if several.size > 1 and not (several[1:] > several[:-1]).all():
                several, order = np.unique(several, return_inverse=True)
                takes.append((axis, order))
            positions.append(several)
        steps.append(step)
    return positions, Arrange(tuple(steps), tuple(takes))


def resolve_points(
    selection: Pointwise, shape: tuple[int, ...]
) -> tuple[dict[int, NDArray[np.int64]], dict[int, Positions], Arrange]:
    """Turn a selection of points into positions.

    An index that shares no dimension with another is an axis by itself, as a slice is: xarray
    makes such indices of slices.

    Returns
    -------
    points
        For each axis that goes together with others, the positions of all points, broadcast:
        views, which take no memory. There is one axis at least.
    others
        For each other axis, in their order, ascending positions.
    arrange
        Of a result whose first axis is that of the points, and whose others are the others.

    Raises
    ------
    IndexError
        There are more indices than axes, or no integers; or one is out of range or of another
        kind, or arrays cannot be broadcast.
    """
    indices = _spread(selection.indices, len(shape))
    integers = {
        axis: _integers(index, shape[axis], axis)
        for axis, index in enumerate(indices)
        if not isinstance(index, slice)
    }
    if not integers:
        raise IndexError("a selection of points needs integers along one axis at least")
    try:
        broadcast = np.broadcast_shapes(*[one.shape for one in integers.values()])
    except ValueError as error:
        raise IndexError(f"the indices of points go together, but {error}") from None
    lone = _lone_dimensions(integers, len(broadcast))
    together = [number for number in range(len(broadcast)) if number not in lone.values()]
    points = {
        axis: np.broadcast_to(
            one.reshape([1] * (len(broadcast) - one.ndim) + list(one.shape)).squeeze(
                tuple(lone.values())
            ),
            [broadcast[number] for number in together],
        )
        for axis, one in integers.items()
        if axis not in lone
    }
    behind = [axis for axis in range(len(shape)) if axis not in points]
    positions, arrange = resolve(
        tuple(_sequence(integers[axis]) if axis in lone else indices[axis] for axis in behind),
        tuple(shape[axis] for axis in behind),
    )
    # Where each axis of the result, points unfolded, is to stand: the slices stand behind.
    place = [*together, *(lone.get(axis, len(broadcast) + axis) for axis in behind)]
    order = tuple(sorted(range(len(place)), key=place.__getitem__))
    return (
        points,
        dict(zip(behind, positions, strict=True)),
        Arrange(
            (slice(None), *arrange.steps),
            tuple((axis + 1, wanted) for axis, wanted in arrange.takes),
            tuple(broadcast[number] for number in together),
            None if order == tuple(range(len(place))) else order,
        ),
    )


def _lone_dimensions(integers: dict[int, NDArray[np.int64]], rank: int) -> dict[int, int]:
    """Return for each axis whose index has a dimension of its own, and no other, which it is."""
    used = {
        axis: {rank - one.ndim + n for n, size in enumerate(one.shape) if size != 1}
        for axis, one in integers.items()
    }
    count = [sum(number in dimensions for dimensions in used.values()) for number in range(rank)]
    lone = {
        axis: next(iter(dimensions))
        for axis, dimensions in used.items()
        if len(dimensions) == 1 and count[next(iter(dimensions))] == 1
    }
    if len(lone) == len(integers):
        lone.popitem()  # something has to be points
    return lone


def _sequence(index: NDArray[np.int64]) -> slice | NDArray[np.int64]:
    """Return integers that are evenly spaced as a slice."""
    flat = index.reshape(-1)
    steps = np.diff(flat)
    if flat.size < 2 or steps[0] == 0 or (steps != steps[0]).any():
        return flat
    start, stop, step = int(flat[0]), int(flat[-1] + steps[0]), int(steps[0])
    return slice(start, stop if stop >= 0 else None, step)


def _integers(index: Any, size: int, axis: int) -> NDArray[np.int64]:
    array = np.asarray(index)
    if array.dtype.kind not in "iu" and array.size:
        raise IndexError(f"axis {axis} of points is indexed by {array.dtype}, not by integers")
    return _all_in_range(array, size, axis)


def _spread(selection: Selection, ndim: int) -> list[Any]:
    """Give every axis its index, whole axes where the selection says nothing."""
    indices = list(selection) if isinstance(selection, tuple) else [selection]
    dots = [place for place, index in enumerate(indices) if index is Ellipsis]
    if len(dots) > 1:
        raise IndexError("an index can only have a single ellipsis ('...')")
    if len(indices) - len(dots) > ndim:
        raise IndexError(f"{len(indices) - len(dots)} indices for an array of {ndim} axes")
    at = dots[0] if dots else len(indices)
    missing = ndim - (len(indices) - len(dots))
    return [*indices[:at], *[slice(None)] * missing, *indices[at + 1 :]]


def _in_range(index: int, size: int, axis: int) -> int:
    if not -size <= index < size:
        raise IndexError(f"index {index} is out of range for axis {axis} of size {size}")
    return index % size


def _all_in_range(array: NDArray[Any], size: int, axis: int) -> NDArray[np.int64]:
    if array.size:  # before they are cast: the largest would become negative
        _in_range(int(array.min()), size, axis)
        _in_range(int(array.max()), size, axis)
    array = array.astype(np.int64)
    return np.where(array < 0, array + size, array)


def _several(index: Any, size: int, axis: int) -> NDArray[np.int64]:
    array = np.asarray(index)
    if array.ndim == 1 and array.dtype == bool and array.size == size:
        return np.flatnonzero(array)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise IndexError(
            f"axis {axis} is indexed by an array of shape {array.shape} and type {array.dtype};"
            f" only one-dimensional arrays of integers, or of {size} booleans, are supported"
        )
    return _all_in_range(array, size, axis)


@dataclass(frozen=True, slots=True, eq=False)
class Axis:
    """The chunks that a selection touches along one axis, as columns of shape (touched,)."""

    chunk: NDArray[np.int64]
    """Chunk coordinate, ascending."""
    bounds: NDArray[np.int64]
    """Chunk i fills the result from bounds[i] up to bounds[i + 1]; shape (touched + 1,)."""
    first: NDArray[np.int64]
    """First position taken, counted from the start of its chunk."""
    last: NDArray[np.int64]
    """Last position taken, counted likewise."""
    step: int
    """Distance of the positions taken, where `positions` is None."""
    positions: NDArray[np.int64] | None = None
    """Every position taken, counted from the start of its chunk, shape (bounds[-1],)."""
    along: tuple[int, ...] = (0,)
    """Which axis of the array it is, a tuple of one."""

    @property
    def size(self) -> int:
        """Number of positions taken in all chunks."""
        return int(self.bounds[-1])

    def corners(self, cell: Sequence[int]) -> list[tuple[int, NDArray[np.int64]]]:
        """Return the axis of the array, and where the touched cells of such a shape begin there."""
        return [(self.along[0], self.chunk * cell[self.along[0]])]

    def reach(self, strides: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the first and the last position as places in each chunk, by its strides."""
        stride = strides[self.along[0]]
        return self.first * stride, self.last * stride

    def inside(self, touched: int) -> slice | NDArray[np.int64]:
        """Return what is taken of one chunk, counted from the first position taken there."""
        if self.positions is None:
            return slice(None, None, self.step)
        taken = self.positions[self.bounds[touched] : self.bounds[touched + 1]]
        from_first: NDArray[np.int64] = taken - taken[0]
        return from_first


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """The chunks that points touch, as columns of shape (touched,): an axis of the result."""

    chunk: NDArray[np.int64]
    """Chunk coordinates along each of their axes, shape (axes, touched), in ascending order."""
    bounds: NDArray[np.int64]
    """Chunk i fills the result from bounds[i] up to bounds[i + 1]; shape (touched + 1,)."""
    positions: NDArray[np.int64]
    """Of every point, counted from the start of its chunk, shape (axes, bounds[-1])."""
    along: tuple[int, ...]
    """Which axes of the array they are in."""

    @property
    def size(self) -> int:
        """Number of points in all chunks."""
        return int(self.bounds[-1])

    def corners(self, cell: Sequence[int]) -> list[tuple[int, NDArray[np.int64]]]:
        """Return the axes of the array, and where the touched cells of such a shape begin there."""
        return [(n, chunk * cell[n]) for n, chunk in zip(self.along, self.chunk, strict=True)]

    def places(self, strides: Sequence[int]) -> NDArray[np.int64]:
        """Return the place of each point in its chunk, by the chunk's strides; ascending there."""
        factors = np.array([strides[axis] for axis in self.along])
        places: NDArray[np.int64] = factors @ self.positions
        return places

    def reach(self, strides: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the first and the last place in each chunk."""
        places = self.places(strides)
        return places[self.bounds[:-1]], places[self.bounds[1:] - 1]


def axis_plan(positions: Positions, chunk: int, along: int = 0) -> Axis:
    """Find the chunks along one axis that hold the given positions.

    Parameters
    ----------
    positions
        Ascending, without repeats.
    chunk
        Length of a chunk along this axis.
    along
        Which axis of the array it is.
    """
    place = (along,)
    if isinstance(positions, range) and positions and positions.step <= chunk:
        start, step, count = positions.start, positions.step, len(positions)
        touched = np.arange(start // chunk, positions[-1] // chunk + 1)
        origin = touched * chunk
        bounds = np.append(np.maximum(-((start - origin) // step), 0), count)
        first = start + bounds[:-1] * step - origin
        return Axis(touched, bounds, first, first + (np.diff(bounds) - 1) * step, step, along=place)
    everywhere = np.asarray(positions, np.int64)
    of_chunk = everywhere // chunk
    begins = np.flatnonzero(np.diff(of_chunk, prepend=-1))
    bounds = np.append(begins, everywhere.size)
    inside = everywhere - of_chunk * chunk
    first, last = inside[begins], inside[bounds[1:] - 1]
    return Axis(of_chunk[begins], bounds, first, last, 1, inside, place)


def point_plan(
    points: dict[int, NDArray[np.int64]], shape: tuple[int, ...], chunk: tuple[int, ...]
) -> tuple[Points, NDArray[np.intp]]:
    """Find the chunks that hold points.

    Parameters
    ----------
    points
        Positions along some axes of the array, all of one shape.
    shape, chunk
        Of the array, and of a chunk, along all axes of the array.

    Returns
    -------
    points
        Without repeats, ordered by chunk, and in a chunk by place.
    order
        Which of these each point is, in C order, shape (points,).
    """
    sizes = tuple(shape[axis] for axis in points)
    columns = [column.reshape(-1) for column in points.values()]
    if math.prod(sizes) < 2**63:
        flat = np.ravel_multi_index(columns, sizes)
        distinct, which = np.unique(flat, return_inverse=True)
        everywhere = np.stack(np.unravel_index(distinct, sizes)).astype(np.int64)
    else:
        everywhere, which = np.unique(np.stack(columns), axis=1, return_inverse=True)
    length = np.array([chunk[axis] for axis in points])[:, np.newaxis]
    of_chunk = everywhere // length
    inside = everywhere - of_chunk * length
    by_chunk = np.lexsort((*inside[::-1], *of_chunk[::-1]))
    of_chunk, inside = of_chunk[:, by_chunk], inside[:, by_chunk]
    is_first = np.ones(by_chunk.size, bool)
    is_first[1:] = (of_chunk[:, 1:] != of_chunk[:, :-1]).any(axis=0)
    begins = np.flatnonzero(is_first)
    order = np.empty_like(by_chunk)
    order[by_chunk] = np.arange(by_chunk.size)
    bounds = np.append(begins, by_chunk.size)
    return Points(of_chunk[:, begins], bounds, inside, tuple(points)), order[which.reshape(-1)]
