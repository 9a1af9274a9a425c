"""From a selection to the byte ranges that it takes: pure functions on numpy columns.

    selection -> touched chunks along each axis -> cells (their product)
              -> places of the chunks -> parts of sources

A *cell* is a chunk, or of uncompressed data a slab of one, that the selection touches. Cells
that are virtual become parts of a source, which `byteatlas.read.fetches` merges.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from byteatlas.limits import Limits
from byteatlas.model import WHOLE, VirtualArray
from byteatlas.read.costs import Costs
from byteatlas.read.selection import (
    Arrange,
    Axis,
    Points,
    Pointwise,
    Positions,
    Selection,
    axis_plan,
    point_plan,
    resolve,
    resolve_points,
)

__all__ = ["ReadPlan", "by_place", "cell_index", "plan_read"]

_S = TypeVar("_S", bound=np.generic)


@dataclass(frozen=True, slots=True, eq=False)
class ReadPlan:
    """What of which chunks a selection takes, and where in the result it goes.

    The columns of parts are ordered by source and offset.
    """

    axes: tuple[Axis | Points, ...]
    """Those of the result before `arrange`; `Points` are one of these, the first."""
    arrange: Arrange
    """Brings the result into the order asked for."""
    cell_shape: tuple[int, ...]
    """Shape of a cell: a chunk's, or of uncompressed chunks one of a slab."""
    is_partial: bool
    """Parts hold only what lies between the first and the last element taken of a cell."""
    has_missing: bool
    """Some cells are neither virtual nor inlined, and read as the fill value."""
    inlined: NDArray[np.int64]
    """Cell of each inlined chunk, shape (inlined,)."""
    inlined_data: list[bytes]
    """The encoded bytes of each inlined chunk."""
    cell: NDArray[np.int64]
    """Cell of each part, counted through the product of the axes in C order, shape (parts,)."""
    source: NDArray[np.int64] | None
    """Position in the table of sources, shape (parts,); None means all 0."""
    offset: NDArray[np.int64]
    """First byte of each part in its source, shape (parts,)."""
    length: NDArray[np.int64]
    """Number of bytes of each part, -1 for all that follow, shape (parts,)."""
    encoding: NDArray[np.uint8] | None = None
    """Position in the array's table of encodings, shape (parts,); None means all 0."""
    digest: NDArray[np.uint64] | None = None
    """Digest of each part, which then is a whole chunk, shape (parts,); None: not sealed."""
    start: NDArray[np.int64] | None = None
    """Where in a part that is fetched whole for its digest's sake begins what is wanted of it,
    shape (parts,); None means at 0."""
    position: NDArray[np.int64] | None = None
    """Where in the result, in bytes, a part belongs as it is, -1 where it has to be taken apart,
    shape (parts,); None means nowhere."""
    missing_bytes: NDArray[np.int64] | None = None
    """How many bytes an uncompressed chunk lacks of what is wanted of it, shape (parts,); None
    where none does."""
    limits: Limits = field(default_factory=Limits)
    """How large a decoded chunk may be."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the result before `arrange`."""
        return tuple(axis.size for axis in self.axes)

    @property
    def touched(self) -> tuple[int, ...]:
        """Number of cells along each axis; their product is the number of cells."""
        return tuple(axis.bounds.size - 1 for axis in self.axes)

    def chunk_index(self, cell: int, chunk_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the index in the chunk grid of the chunk that a cell is of."""
        index = [0] * len(chunk_shape)
        for axis, at in zip(self.axes, cell_index(cell, self.touched), strict=True):
            for number, corner in axis.corners(self.cell_shape):
                index[number] = int(corner[at]) // chunk_shape[number]
        return tuple(index)


def plan_read(
    array: VirtualArray, selection: Selection, costs: Costs, limits: Limits | None = None
) -> ReadPlan:
    """Plan the reading of a selection of an array.

    Parameters
    ----------
    array
        Its manifest is asked for the chunks that the selection touches, and for no others.
    selection
        What is wanted.
    costs
        By which uncompressed chunks are cut into slabs.
    limits
        How much one read may take.

    Raises
    ------
    IndexError
        The selection does not fit the array's shape, or is of a kind that is not supported.
    LimitExceeded
        The selection touches too many chunks or too large ones, or the result is too large.
    """
    limits = Limits() if limits is None else limits
    is_raw = array.dtype != object and not any(e.codecs for e in array.encodings)
    chunk, manifest = array.chunk_shape, array.manifest
    is_sealed = manifest.is_sealed  # its chunks are fetched whole
    axes, arrange, cell_shape = _axes_of(
        array, selection, limits, costs if is_raw and not is_sealed else None
    )
    if not is_raw and all(axis.size for axis in axes):
        limits.check("chunk", math.prod(chunk) * array.dtype.itemsize, "a decoded chunk")

    corners = [axis.corners(cell_shape) for axis in axes]
    grid = _strides(manifest.grid_shape)
    flat = _outer_sum([_total([c // chunk[n] * grid[n] for n, c in one]) for one in corners])
    found = manifest.locate(flat)
    cell = found.virtual
    place: NDArray[np.int64] | None = None
    if is_raw:
        first, count = _taken(array, axes, corners, cell)
        end = np.where(found.length == WHOLE, first + count, found.length.astype(np.int64))
        lack = np.clip(first + count - end, 0, count)
        offset, length = found.offset.astype(np.int64) + first, count - lack
        place = _in_result(array, axes, cell, count)
        if place is not None and lack.any():
            place = np.where(lack > 0, -1, place)
    else:
        lack = np.empty(0, np.int64)
    start: NDArray[np.int64] | None = None
    if not is_raw or is_sealed:
        start, place = (first, None) if is_raw else (None, None)
        offset = found.offset.astype(np.int64)
        length = found.length.astype(np.int64)  # WHOLE becomes -1
        limits.check("chunk", int(length.max(initial=0)), "a chunk")
    source = None if found.source is None else found.source.astype(np.int64)
    order = by_place(source, offset)

    def ordered(column: NDArray[_S] | None) -> NDArray[_S] | None:
        return column if column is None or order is None else column[order]

    return ReadPlan(
        axes=axes,
        arrange=arrange,
        cell_shape=cell_shape,
        is_partial=is_raw,
        has_missing=cell.size + found.inlined.size < flat.size,
        inlined=found.inlined,
        inlined_data=found.data,
        cell=cell if order is None else cell[order],
        source=ordered(source),
        offset=offset if order is None else offset[order],
        length=length if order is None else length[order],
        encoding=ordered(found.encoding),
        digest=ordered(found.digest),
        start=ordered(start),
        position=ordered(place),
        missing_bytes=ordered(lack) if lack.any() else None,
        limits=limits,
    )


def cell_index(cell: int, touched: tuple[int, ...]) -> tuple[int, ...]:
    """Return which of the touched chunks a cell is, along each axis."""
    at: list[int] = []
    for count in touched[::-1]:
        cell, place = divmod(cell, count)
        at.append(place)
    return tuple(at[::-1])


def _axes_of(
    array: VirtualArray, selection: Selection, limits: Limits, costs: Costs | None
) -> tuple[tuple[Axis | Points, ...], Arrange, tuple[int, ...]]:
    """Return the axes of the result, how it is arranged, and the shape of cells.

    `costs` are given where chunks may be cut into slabs.
    """
    if not isinstance(selection, Pointwise):
        positions, arrange = resolve(selection, array.shape)
        cell = array.chunk_shape if costs is None else _slabs(array, positions, costs)
        size = arrange.shape([*map(len, positions)])
        _check_size(array, size, _spans(positions, cell), limits)
        return tuple(map(axis_plan, positions, cell, range(len(cell)))), arrange, cell
    cell = array.chunk_shape if costs is None else _small_slabs(array, costs)
    columns, others, arrange = resolve_points(selection, array.shape)
    spans = _spans(list(others.values()), [cell[axis] for axis in others])
    size = arrange.shape([0, *map(len, others.values())])
    _check_size(array, size, spans, limits)
    points, order = point_plan(columns, array.shape, cell)
    _check_size(array, size, [points.bounds.size - 1, *spans], limits)
    along = [axis_plan(taken, cell[axis], axis) for axis, taken in others.items()]
    return (points, *along), replace(arrange, takes=((0, order), *arrange.takes)), cell


def _spans(positions: Sequence[Positions], cell: Sequence[int]) -> list[int]:
    """Return how many cells may be touched along each axis."""
    return [
        min(len(taken), int(taken[-1]) // size - int(taken[0]) // size + 1) if len(taken) else 0
        for taken, size in zip(positions, cell, strict=True)
    ]


def _check_size(
    array: VirtualArray, shape: Sequence[int], cells: Sequence[int], limits: Limits
) -> None:
    """Refuse a selection before anything is allocated that grows with it."""
    size = math.prod(shape) * array.dtype.itemsize
    limits.check("result", size, "the result of the selection")
    limits.check("cells", math.prod(cells), "the number of chunks that the selection touches")


def _slabs(array: VirtualArray, positions: list[Positions], costs: Costs) -> tuple[int, ...]:
    """Return the shape of the slabs that uncompressed chunks are read by.

    A chunk is cut along its leading axes as long as that leaves out more than a gap: not where
    everything behind is wanted anyway, nor where the pieces would be fetched together again.
    What is then still more than one request is cut into several.
    """
    chunk = array.chunk_shape
    whole = [len(taken) == size for taken, size in zip(positions, array.shape, strict=True)]
    slab = list(chunk)
    for axis in range(len(chunk) - 1):
        row = array.dtype.itemsize * math.prod(chunk[axis + 1 :])
        if all(whole[axis + 1 :]) or row <= costs.gap:
            break
        slab[axis] = 1
    for axis, size in enumerate(slab):
        row = array.dtype.itemsize * math.prod(slab[axis + 1 :])
        if row * size <= costs.max_request:
            break
        slab[axis] = max(costs.max_request // max(row, 1), 1)
        while array.manifest.grid_shape[axis] > 1 and size % slab[axis]:
            slab[axis] -= 1  # a slab lies in one chunk
    return tuple(slab)


def _small_slabs(array: VirtualArray, costs: Costs) -> tuple[int, ...]:
    """Return the shape of slabs that are no larger than a gap, by which points are read."""
    slab = list(array.chunk_shape)
    for axis, size in enumerate(slab):
        row = array.dtype.itemsize * math.prod(slab[axis + 1 :])
        if row * size <= costs.gap:
            break
        slab[axis] = max(costs.gap // max(row, 1), 1)
        while array.manifest.grid_shape[axis] > 1 and size % slab[axis]:
            slab[axis] -= 1  # a slab lies in one chunk
    return tuple(slab)


def _taken(
    array: VirtualArray,
    axes: tuple[Axis | Points, ...],
    corners: list[list[tuple[int, NDArray[np.int64]]]],
    cell: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first byte wanted of each cell's chunk, and how many up to the last."""
    chunk, strides = array.chunk_shape, _strides(array.chunk_shape)
    begins = [_total([c % chunk[n] * strides[n] for n, c in one]) for one in corners]
    reaches = [axis.reach(strides) for axis in axes]
    first = _outer_sum([b + low for b, (low, _) in zip(begins, reaches, strict=True)])[cell]
    last = _outer_sum([b + high for b, (_, high) in zip(begins, reaches, strict=True)])[cell]
    itemsize = array.dtype.itemsize
    return first * itemsize, (last - first + 1) * itemsize


def _in_result(
    array: VirtualArray,
    axes: tuple[Axis | Points, ...],
    cell: NDArray[np.int64],
    count: NDArray[np.int64],
) -> NDArray[np.int64] | None:
    """Return where in the result the bytes of each cell stand as they are, -1 where they do not.

    They do where nothing between the first and the last is left out, here and there. (Of points
    and slices the axes are in another order here than there.)
    """
    if len(axes) > 1 and isinstance(axes[0], Points):
        return None
    itemsize, strides = array.dtype.itemsize, _strides(tuple(axis.size for axis in axes))
    taken = [np.diff(axis.bounds) for axis in axes]
    elements = np.ones(1, np.int64)
    for along in taken:
        elements = np.multiply.outer(elements, along).reshape(-1)
    spread = _outer_sum([(n - 1) * s for n, s in zip(taken, strides, strict=True)]) + 1
    elements, spread = elements[cell], spread[cell]
    is_whole = (elements * itemsize == count) & (elements == spread)
    if not is_whole.any():
        return None
    begin = _outer_sum([a.bounds[:-1] * s for a, s in zip(axes, strides, strict=True)])[cell]
    return np.where(is_whole, begin * itemsize, -1)


def _total(columns: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    total = columns[0]
    for column in columns[1:]:
        total = total + column
    return total


def _strides(shape: tuple[int, ...]) -> list[int]:
    return [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]


def _outer_sum(columns: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Add one element of each column, for all combinations in C order."""
    total = np.zeros(1, np.int64)
    for column in columns:
        total = np.add.outer(total, column).reshape(-1)
    return total


def by_place(
    source: NDArray[np.int64] | None, offset: NDArray[np.int64]
) -> NDArray[np.intp] | None:
    """Return the order of parts by source and offset, None when they are in order already."""
    if source is None:
        is_sorted = bool((offset[1:] >= offset[:-1]).all())
        return None if is_sorted else np.argsort(offset, kind="stable")
    return np.lexsort((offset, source))
