"""Put decoded chunks where they belong in a result.

What does not depend on the chunk is worked out once for each read: the slices along each axis,
and how each encoding is undone. Where little is wanted of a chunk, HDF5's shuffle is undone for
that alone: its byte planes are written into the result one by one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import EllipsisType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from byteatlas.codecs import decode_objects, decoder_of, part_decoder_of
from byteatlas.limits import Limits
from byteatlas.model import Buffer, Encoding, VirtualArray
from byteatlas.read.plan import ReadPlan, cell_index
from byteatlas.read.selection import Axis, Points

__all__ = ["Target", "decode_chunk", "target_of"]

Inside: TypeAlias = slice | NDArray[np.int64]
Slices: TypeAlias = tuple[slice | EllipsisType, ...]

MOST_PLANES = 16
"""Longer items are put back together first."""
FEW = 8
"""Shuffle is undone for those elements alone that are wanted, where these are so many times fewer
than all of the chunk."""


def target_of(plan: ReadPlan, array: VirtualArray, out: NDArray[Any] | None = None) -> Target:
    """Return the result of a read plan, to be filled; see `Target`."""
    is_of_points = any(isinstance(axis, Points) for axis in plan.axes)
    return (PointTarget if is_of_points else Target)(plan, array, out)


class Target:
    """The result of one read plan, which fills up chunk by chunk; of any number of threads.

    Parameters
    ----------
    plan
        Made for `array`.
    array
        What is read.
    out
        Memory for the result, writable, contiguous, of the plan's shape and the array's dtype.
    """

    def __init__(
        self, plan: ReadPlan, array: VirtualArray, out: NDArray[Any] | None = None
    ) -> None:
        self.plan = plan
        self.array = array
        self.result = _blank(plan, array, out)
        self.touched = plan.touched
        chunk = array.chunk_shape
        self._shape = chunk
        self._dtype = array.dtype
        self._strides = tuple(
            array.dtype.itemsize * math.prod(chunk[axis + 1 :]) for axis in range(len(chunk))
        )
        self._targets = [_targets(axis) for axis in plan.axes]
        self._is_plain = array.dtype != object
        self._lists = sum(axis.positions is not None for axis in plan.axes)
        self._undo: list[_Undo | None] = [None] * len(array.encodings)
        itemsize = array.dtype.itemsize
        self._planes: NDArray[np.uint8] | None = None
        if array.dtype != object and itemsize > 1:
            flat = self.result.reshape(-1).view(np.uint8)
            self._planes = flat.reshape(*self.result.shape, itemsize)
        self._prepare()

    def _prepare(self) -> None:
        plan = self.plan
        self._axes = axes = [axis for axis in plan.axes if isinstance(axis, Axis)]
        begins = [
            (axis.chunk * cell % size).tolist()
            for axis, cell, size in zip(axes, plan.cell_shape, self._shape, strict=True)
        ]
        self._first = [_plus(axis.first, begin) for axis, begin in zip(axes, begins, strict=True)]
        self._last = [_plus(axis.last, begin) for axis, begin in zip(axes, begins, strict=True)]

    def bytes_at(self, first: int, length: int) -> memoryview:
        """Return writable memory of the result, which is contiguous."""
        flat = self.result.reshape(-1).view(np.uint8)
        return flat[first : first + length].data

    def fill(self, cell: int, value: Any) -> None:
        """Put one value everywhere where a chunk would have been put."""
        self.result[self._place(cell_index(cell, self.touched))] = value

    def put_part(self, cell: int, data: Buffer) -> None:
        """Put what was read of an uncompressed chunk, from the first to the last byte wanted."""
        at = cell_index(cell, self.touched)
        self.result[self._place(at)] = self._cut_from_first(at, data)

    def put(self, cell: int, data: Buffer, encoding: int) -> None:
        """Decode a whole chunk, and put what is wanted of it.

        Raises
        ------
        Malformed, Unsupported
            It cannot be decoded, or not to as many bytes as its shape needs.
        """
        at = cell_index(cell, self.touched)
        place = self._place(at)
        undo = self._undo[encoding]
        if undo is None:
            undo = self._undo[encoding] = _Undo(self.array, encoding, self.plan.limits)
        if undo.part is not None:
            first, stop = self._span(at)
            if 4 * (stop - first) <= 3 * undo.size:
                part = undo.part(data, first, stop)
                self.result[place] = self._cut_from_first(at, part)
                return
        if undo.planes and self._planes is not None and FEW * self._taken(at) <= undo.size:
            shuffled = np.ndarray((undo.planes, *self._shape), np.uint8, undo.shuffled(data))
            target = self._planes[place]
            if self._lists < 2:
                wanted = shuffled[(slice(None), *self._inside(at), ...)]
            else:
                wanted = self._cut(shuffled, at, 1)
            for byte in range(undo.planes):
                target[..., byte] = wanted[byte]
            return
        decoded = undo(data)
        if self._is_plain:
            decoded = np.ndarray(self._shape, self._dtype, decoded)
        self.result[place] = self._cut(decoded, at, 0)

    def _span(self, at: tuple[int, ...]) -> tuple[int, int]:
        """Return which bytes of a chunk hold what is wanted of it."""
        first = sum(f[i] * s for f, i, s in zip(self._first, at, self._strides, strict=True))
        last = sum(f[i] * s for f, i, s in zip(self._last, at, self._strides, strict=True))
        return first, last + self._dtype.itemsize

    def _taken(self, at: tuple[int, ...]) -> int:
        """Return how many bytes are taken of a chunk."""
        count = self._dtype.itemsize
        for targets, i in zip(self._targets, at, strict=True):
            count *= targets[i].stop - targets[i].start
        return count

    def _place(self, at: tuple[int, ...]) -> Slices:
        # The ellipsis keeps an array without axes an array.
        return (*[targets[i] for targets, i in zip(self._targets, at, strict=True)], ...)

    def _inside(self, at: tuple[int, ...]) -> list[Inside]:
        return [
            slice(first[i], last[i] + 1, axis.step)
            if axis.positions is None
            else axis.positions[axis.bounds[i] : axis.bounds[i + 1]] + (first[i] - axis.first[i])
            for axis, i, first, last in zip(self._axes, at, self._first, self._last, strict=True)
        ]

    def _cut(self, values: NDArray[Any], at: tuple[int, ...], lead: int) -> NDArray[Any]:
        """Take what is wanted of a chunk, whose axes are behind `lead` others."""
        inside = self._inside(at)
        if self._lists < 2:
            index: list[Any] = [slice(None)] * lead + inside
            taken: NDArray[Any] = values[(*index, ...)]
            return taken
        for axis, wanted in enumerate(inside, lead):
            values = _take(values, wanted, axis)
        return values

    def _cut_from_first(self, at: tuple[int, ...], data: Buffer) -> NDArray[Any]:
        """Take what is wanted of the bytes from the first element wanted to the last."""
        shape = tuple(
            last[i] - first[i] + 1
            for first, last, i in zip(self._first, self._last, at, strict=True)
        )
        box: NDArray[Any] = np.ndarray(shape, self._dtype, data, 0, self._strides)
        for number, (axis, i) in enumerate(zip(self._axes, at, strict=True)):
            if axis.positions is not None or axis.step > 1:
                box = _take(box, axis.inside(i), number)
        return box


class PointTarget(Target):
    """The result of a plan of points, whose first axis they are."""

    def _prepare(self) -> None:
        points, *others = self.plan.axes
        assert isinstance(points, Points)
        self._axes = [axis for axis in others if isinstance(axis, Axis)]
        self._order = [*points.along, *(axis.along[0] for axis in self._axes)]
        self._elements = [stride // self._dtype.itemsize for stride in self._strides]
        self._places = points.places(self._elements)
        self._bounds: list[int] = points.bounds.tolist()
        # Positions count from the beginning of a cell, which may be a slab of its chunk.
        own, *begins = [
            [corner % self._shape[n] for n, corner in axis.corners(self.plan.cell_shape)]
            for axis in self.plan.axes
        ]
        counts = np.diff(points.bounds)
        self._positions = points.positions + [np.repeat(begin, counts) for begin in own]
        self._begins = [begin for (begin,) in begins]
        self._lists = 2  # points are lists of positions

    def _span(self, at: tuple[int, ...]) -> tuple[int, int]:
        first, last = self._places[self._bounds[at[0]]], self._places[self._bounds[at[0] + 1] - 1]
        for axis, i in zip(self._axes, at[1:], strict=True):
            stride = self._elements[axis.along[0]]
            first, last = first + axis.first[i] * stride, last + axis.last[i] * stride
        itemsize = self._dtype.itemsize
        return int(first) * itemsize, int(last + 1) * itemsize

    def _cut(self, values: NDArray[Any], at: tuple[int, ...], lead: int) -> NDArray[Any]:
        first, stop = self._bounds[at[0]], self._bounds[at[0] + 1]
        values = values.transpose(*range(lead), *(lead + axis for axis in self._order))
        index = (*[slice(None)] * lead, *self._positions[:, first:stop])
        taken: NDArray[Any] = values[index]
        for number, (axis, begin, i) in enumerate(
            zip(self._axes, self._begins, at[1:], strict=True), lead + 1
        ):
            box = slice(int(begin[i] + axis.first[i]), int(begin[i] + axis.last[i]) + 1)
            taken = _take(_take(taken, box, number), axis.inside(i), number)
        return taken

    def _cut_from_first(self, at: tuple[int, ...], data: Buffer) -> NDArray[Any]:
        places = self._places[self._bounds[at[0]] : self._bounds[at[0] + 1]]
        places = places - places[0]
        for axis, i in zip(self._axes, at[1:], strict=True):
            along = np.arange(int(axis.last[i] - axis.first[i]) + 1)[axis.inside(i)]
            places = np.add.outer(places, along * self._elements[axis.along[0]])
        flat: NDArray[Any] = np.ndarray((int(places.max()) + 1,), self._dtype, data)
        taken: NDArray[Any] = flat[places]
        return taken


class _Undo:
    """How the chunks of one encoding are undone."""

    def __init__(self, array: VirtualArray, encoding: int, limits: Limits) -> None:
        chain = array.encodings[encoding]
        count = math.prod(array.chunk_shape)
        self.size = count * array.dtype.itemsize
        self.part: Callable[[Buffer, int, int], Buffer] | None = None
        self.planes = 0
        """Byte planes that `shuffled` gives; 0 where the chunk is not shuffled."""
        self.shuffled: Callable[[Buffer], Buffer]
        """Undoes all but the shuffle."""
        self._decode: Callable[[Buffer], Any]
        if array.dtype == object:
            shape = array.chunk_shape
            self._decode = lambda data: decode_objects(
                data, chain, count=count, limits=limits
            ).reshape(shape)
            return
        self._decode = decoder_of(chain, size=self.size, limits=limits)
        codecs = chain.codecs
        if codecs and codecs[0].name == "shuffle" and count > 1:
            item = codecs[0].config.get("elementsize", 4)
            if item == array.dtype.itemsize and 1 < item <= MOST_PLANES:
                self.planes = item
                self.shuffled = decoder_of(Encoding(codecs[1:]), size=self.size, limits=limits)
        if not self.planes:
            self.part = part_decoder_of(chain, size=self.size, limits=limits)

    def __call__(self, data: Buffer) -> Any:
        return self._decode(data)


def decode_chunk(
    array: VirtualArray, data: Buffer, encoding: int, limits: Limits | None = None
) -> NDArray[Any]:
    """Decode one chunk of an array.

    Parameters
    ----------
    array
        The array it is of.
    data
        The encoded chunk.
    encoding
        Position of its encoding in the array's table.
    limits
        How large it may be.

    Returns
    -------
    ndarray
        Of the array's dtype and chunk shape; may be a view of `data`, and not writable.

    Raises
    ------
    Malformed, Unsupported
        The chunk cannot be decoded, or not to as many bytes as its shape needs.
    """
    codecs = array.encodings[encoding]
    count = math.prod(array.chunk_shape)
    if array.dtype == object:
        return decode_objects(data, codecs, count=count, limits=limits).reshape(array.chunk_shape)
    flat = decoder_of(codecs, size=count * array.dtype.itemsize, limits=limits)(data)
    return np.frombuffer(flat, array.dtype).reshape(array.chunk_shape)


def _blank(plan: ReadPlan, array: VirtualArray, out: NDArray[Any] | None) -> NDArray[Any]:
    """Allocate the result, filled where chunks are missing from the source by design."""
    fill = array.fill_value
    if out is not None:
        if plan.has_missing:
            out[...] = np.zeros((), array.dtype) if fill is None else fill
        return out
    if not plan.has_missing:
        return np.empty(plan.shape, array.dtype)
    if array.dtype == object:
        return np.full(plan.shape, "" if fill is None else fill, object)
    if fill is None:
        return np.zeros(plan.shape, array.dtype)
    return np.full(plan.shape, fill, array.dtype)


def _take(values: NDArray[Any], wanted: Inside, axis: int) -> NDArray[Any]:
    if isinstance(wanted, slice):
        index: tuple[Any, ...] = (*[slice(None)] * axis, wanted, ...)
        view: NDArray[Any] = values[index]
        return view
    return np.take(values, wanted, axis)


def _targets(axis: Axis | Points) -> list[slice]:
    bounds = axis.bounds.tolist()
    return list(map(slice, bounds[:-1], bounds[1:]))


def _plus(column: NDArray[np.int64], begin: list[int]) -> list[int]:
    total: list[int] = (column + begin).tolist()
    return total
