"""What a selection takes along each axis of an array, in numbers instead of objects.

A selection is what numpy's basic indexing takes (integers, slices of any step, an ellipsis),
and one-dimensional arrays of integers or booleans, each along its own axis (*orthogonal*: xarray
calls it outer indexing). It is read in ascending order without repeats; `Arrange` then restores
the order that was asked for.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from types import EllipsisType
from typing import Any, SupportsIndex, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Arrange", "Axis", "Selection", "axis_plan", "resolve"]

Index: TypeAlias = SupportsIndex | slice | NDArray[Any] | Sequence[int]
Selection: TypeAlias = EllipsisType | Index | tuple[EllipsisType | Index, ...]

Positions: TypeAlias = range | NDArray[np.int64]
"""Positions along an axis, ascending and without repeats."""


@dataclass(frozen=True, slots=True)
class Arrange:
    """Brings an array that was read in ascending order into the order asked for."""

    steps: tuple[slice | int, ...]
    """Index for each axis: as it is, reversed, or a single position that drops the axis."""
    takes: tuple[tuple[int, NDArray[np.int64]], ...]
    """Axes (before any is dropped) whose positions are to be reordered or repeated."""

    def __call__(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return the values as asked for: a view where that is possible."""
        for axis, order in self.takes:
            values = np.take(values, order, axis)
        arranged: NDArray[Any] = values[(*self.steps, ...)]  # "...": a scalar stays an array
        return arranged


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


def _several(index: Any, size: int, axis: int) -> NDArray[np.int64]:
    array = np.asarray(index)
    if array.ndim == 1 and array.dtype == bool and array.size == size:
        return np.flatnonzero(array)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise IndexError(
            f"axis {axis} is indexed by an array of shape {array.shape} and type {array.dtype};"
            f" only one-dimensional arrays of integers, or of {size} booleans, are supported"
        )
    array = array.astype(np.int64)
    if array.size:
        _in_range(int(array.min()), size, axis)
        _in_range(int(array.max()), size, axis)
    return np.where(array < 0, array + size, array)


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

    @property
    def size(self) -> int:
        """Number of positions taken in all chunks."""
        return int(self.bounds[-1])

    def inside(self, touched: int) -> slice | NDArray[np.int64]:
        """Return what is taken of one chunk, counted from the first position taken there."""
        if self.positions is None:
            return slice(None, None, self.step)
        taken = self.positions[self.bounds[touched] : self.bounds[touched + 1]]
        from_first: NDArray[np.int64] = taken - taken[0]
        return from_first


def axis_plan(positions: Positions, chunk: int) -> Axis:
    """Find the chunks along one axis that hold the given positions.

    Parameters
    ----------
    positions
        Ascending, without repeats.
    chunk
        Length of a chunk along this axis.
    """
    if isinstance(positions, range) and positions and positions.step <= chunk:
        start, step, count = positions.start, positions.step, len(positions)
        touched = np.arange(start // chunk, positions[-1] // chunk + 1)
        origin = touched * chunk
        bounds = np.append(np.maximum(-((start - origin) // step), 0), count)
        first = start + bounds[:-1] * step - origin
        return Axis(touched, bounds, first, first + (np.diff(bounds) - 1) * step, step)
    everywhere = np.asarray(positions, np.int64)
    of_chunk = everywhere // chunk
    begins = np.flatnonzero(np.diff(of_chunk, prepend=-1))
    bounds = np.append(begins, everywhere.size)
    inside = everywhere - of_chunk * chunk
    first, last = inside[begins], inside[bounds[1:] - 1]
    return Axis(of_chunk[begins], bounds, first, last, 1, inside)
