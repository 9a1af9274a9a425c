"""From a selection to the requests that fetch it: pure functions on numpy columns.

    selection -> touched chunks along each axis -> cells (their product)
              -> manifest rows -> parts of sources -> fetches (merged parts)

A *cell* is a chunk, or of uncompressed data a slab of one, that the selection touches. Cells
that are virtual become parts of a source; parts that lie close together become one fetch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byteatlas.errors import Malformed
from byteatlas.limits import Limits
from byteatlas.model import WHOLE, VirtualArray
from byteatlas.read.selection import Arrange, Axis, Positions, Selection, axis_plan, resolve

__all__ = ["LOCAL", "REMOTE", "Costs", "ReadPlan", "merge_parts", "plan_read"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What a request costs against what bytes cost; merging follows from it."""

    latency_s: float
    """From sending a request to its first byte."""
    concurrency: int
    """Requests in flight at once, which share the latency."""
    request_s: float
    """Processor time that a request takes."""
    bandwidth: float
    """Bytes a second."""
    max_request: int
    """Fetches are not merged beyond so many bytes, so that decoding starts early."""

    @property
    def gap(self) -> int:
        """Number of unwanted bytes that cost as much as another request."""
        return int((self.latency_s / self.concurrency + self.request_s) * self.bandwidth)


REMOTE = Costs(
    latency_s=0.05, concurrency=32, request_s=0.0005, bandwidth=100e6, max_request=4 * 2**20
)
LOCAL = Costs(latency_s=0, concurrency=1, request_s=5e-6, bandwidth=2e9, max_request=2**20)


@dataclass(frozen=True, slots=True, eq=False)
class ReadPlan:
    """What to fetch for a selection, and where in the result every part of it goes."""

    axes: tuple[Axis, ...]
    arrange: Arrange
    """Brings the result into the order asked for."""
    cell_shape: tuple[int, ...]
    """Shape of a cell: a chunk's, or of uncompressed chunks one of a slab."""
    is_partial: bool
    """Parts hold only what lies between the first and the last element taken of a cell."""
    has_missing: bool
    """Some cells are neither virtual nor inlined, and read as the fill value."""
    inlined: tuple[NDArray[np.int64], NDArray[np.int64]]
    """Cell and flat chunk index of each inlined chunk; two columns of shape (inlined,)."""
    cell: NDArray[np.int64]
    """Cell of each part, counted through the product of the axes in C order, shape (parts,)."""
    offset: NDArray[np.int64]
    """First byte of each part in its source, shape (parts,)."""
    length: NDArray[np.int64]
    """Number of bytes of each part, -1 for all that follow, shape (parts,)."""
    encoding: NDArray[np.uint8] | None
    """Position in the array's table of encodings, shape (parts,); None means all 0."""
    bounds: NDArray[np.int64]
    """Fetch i holds the parts from bounds[i] up to bounds[i + 1]; shape (fetches + 1,)."""
    fetch_source: NDArray[np.int64]
    """Position in the table of sources, ascending, shape (fetches,)."""
    fetch_offset: NDArray[np.int64]
    """First byte of each fetch, shape (fetches,)."""
    fetch_length: NDArray[np.int64]
    """Number of bytes of each fetch, -1 for all that follow, shape (fetches,)."""
    digest: NDArray[np.uint64] | None = None
    """Digest of each part, which then is a whole chunk, shape (parts,); None: not sealed."""
    start: NDArray[np.int64] | None = None
    """Where in a part that is fetched whole for its digest's sake begins what is wanted of it,
    shape (parts,); None means at 0."""
    limits: Limits = field(default_factory=Limits)
    """How large a decoded chunk may be."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the result before `arrange`."""
        return tuple(axis.size for axis in self.axes)

    @property
    def touched(self) -> tuple[int, ...]:
        """Number of cells along each axis; their product is the number of cells."""
        return tuple(axis.chunk.size for axis in self.axes)


def plan_read(
    array: VirtualArray, selection: Selection, costs: Costs, limits: Limits | None = None
) -> ReadPlan:
    """Plan the reading of a selection of an array.

    Raises
    ------
    IndexError
        The selection does not fit the array's shape, or is of a kind that is not supported.
    Malformed
        A chunk is too short for what is to be read of it.
    LimitExceeded
        The selection touches too many chunks or too large ones, or the result is too large.
    """
    limits = Limits() if limits is None else limits
    positions, arrange = resolve(selection, array.shape)
    is_partial = array.dtype != object and not any(e.codecs for e in array.encodings)
    chunk = array.chunk_shape
    manifest = array.manifest
    is_sealed = manifest.digest is not None  # its chunks are fetched whole
    cell_shape = chunk
    if is_partial and not is_sealed:
        cell_shape = _slabs(array, positions, costs.gap)
    _check_size(array, positions, cell_shape, limits, is_partial=is_partial)
    axes = tuple(map(axis_plan, positions, cell_shape))

    grid_strides = _strides(manifest.grid_shape)
    at = [axis.chunk * length for axis, length in zip(axes, cell_shape, strict=True)]
    flat = _outer_sum([a // c * s for a, c, s in zip(at, chunk, grid_strides, strict=True)])
    row = manifest.rows(flat)
    cell = np.flatnonzero(row >= 0)
    inlined, has_missing = _inlined(manifest.inline, flat, row)
    if cell.size != flat.size:
        row = row[cell]
    if is_partial:
        strides = _strides(chunk)
        within = [a % c for a, c in zip(at, chunk, strict=True)]
        columns = list(zip(within, axes, strides, strict=True))
        start = _outer_sum([(w + axis.first) * s for w, axis, s in columns])[cell]
        stop = _outer_sum([(w + axis.last) * s for w, axis, s in columns])[cell] + 1
        part = array.dtype.itemsize * start, array.dtype.itemsize * (stop - start)
    else:
        part = None

    offset, length = _parts(manifest.offset[row], manifest.length[row], part)
    digest = None if manifest.digest is None else manifest.digest[row]
    begin: NDArray[np.int64] | None = None
    if is_sealed and part is not None:
        begin = part[0]
        offset, length = _parts(manifest.offset[row], manifest.length[row], None)
    if length.size and (is_sealed or not is_partial):
        limits.check("chunk", int(length.max()), "a chunk")
    source = None if manifest.source is None else manifest.source[row].astype(np.int64)
    encoding = None if manifest.encoding is None else manifest.encoding[row]
    order = _by_place(source, offset)
    if order is not None:
        cell, offset, length = cell[order], offset[order], length[order]
        source = None if source is None else source[order]
        encoding = None if encoding is None else encoding[order]
        digest = None if digest is None else digest[order]
        begin = None if begin is None else begin[order]
    bounds, fetch_length = merge_parts(source, offset, length, costs)
    first = bounds[:-1]
    return ReadPlan(
        axes=axes,
        arrange=arrange,
        cell_shape=cell_shape,
        is_partial=is_partial,
        has_missing=has_missing,
        inlined=inlined,
        cell=cell,
        offset=offset,
        length=length,
        encoding=encoding,
        bounds=bounds,
        fetch_source=np.zeros(first.size, np.int64) if source is None else source[first],
        fetch_offset=offset[first],
        fetch_length=fetch_length,
        digest=digest,
        start=begin,
        limits=limits,
    )


def _check_size(
    array: VirtualArray,
    positions: list[Positions],
    cell_shape: tuple[int, ...],
    limits: Limits,
    *,
    is_partial: bool,
) -> None:
    """Refuse a selection before anything is allocated that grows with it."""
    sizes = list(map(len, positions))
    cells: list[int] = [
        min(size, int(taken[-1]) // cell - int(taken[0]) // cell + 1) if size else 0
        for size, taken, cell in zip(sizes, positions, cell_shape, strict=True)
    ]
    limits.check("cells", math.prod(cells), "the number of chunks that the selection touches")
    size = math.prod(sizes) * array.dtype.itemsize
    limits.check("result", size, "the result of the selection")
    if not is_partial and all(cells):
        size = math.prod(array.chunk_shape) * array.dtype.itemsize
        limits.check("chunk", size, "a decoded chunk")


def _slabs(array: VirtualArray, positions: list[Positions], gap: int) -> tuple[int, ...]:
    """Return the shape of the slabs that uncompressed chunks are read by.

    A chunk is cut along its leading axes as long as that leaves out more than a gap: not where
    everything behind is wanted anyway, nor where the pieces would be fetched together again.
    """
    chunk = array.chunk_shape
    whole = [len(taken) == size for taken, size in zip(positions, array.shape, strict=True)]
    cut = 0
    while cut < len(chunk) - 1:
        is_contiguous = all(whole[cut + 1 :])
        if is_contiguous or array.dtype.itemsize * math.prod(chunk[cut + 1 :]) <= gap:
            break
        cut += 1
    return (1,) * cut + chunk[cut:]


def _strides(shape: tuple[int, ...]) -> list[int]:
    return [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]


def _outer_sum(columns: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Add one element of each column, for all combinations in C order."""
    total = np.zeros(1, np.int64)
    for column in columns:
        total = np.add.outer(total, column).reshape(-1)
    return total


def _inlined(
    inline: Any, flat: NDArray[np.int64], row: NDArray[np.int64]
) -> tuple[tuple[NDArray[np.int64], NDArray[np.int64]], bool]:
    """Split the cells that are not virtual into inlined and missing ones."""
    left = np.flatnonzero(row < 0)
    if not inline or not left.size:
        return (left[:0], left[:0]), bool(left.size)
    kept = np.fromiter(inline, np.int64, len(inline))
    cell = left[np.isin(flat[left], kept)]
    return (cell, flat[cell]), cell.size < left.size


def _parts(
    offset: NDArray[np.uint64],
    length: NDArray[np.uint64],
    part: tuple[NDArray[np.int64], NDArray[np.int64]] | None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return offset and length of what is read of each chunk, -1 meaning all that follows."""
    stored = length.astype(np.int64)  # WHOLE becomes -1
    if part is None:
        return offset.astype(np.int64), stored
    start, count = part
    short = np.flatnonzero((length != WHOLE) & (start + count > stored))
    if short.size:
        at = int(short[0])
        raise Malformed(
            f"uncompressed chunk has {stored[at]} bytes, expected {start[at] + count[at]} or more",
            offset=int(offset[at]),
            length=int(stored[at]),
        )
    return offset.astype(np.int64) + start, count


def _by_place(
    source: NDArray[np.int64] | None, offset: NDArray[np.int64]
) -> NDArray[np.intp] | None:
    """Return the order of parts by source and offset, None when they are in order already."""
    if source is None:
        is_sorted = bool((offset[1:] >= offset[:-1]).all())
        return None if is_sorted else np.argsort(offset, kind="stable")
    return np.lexsort((offset, source))


def merge_parts(
    source: NDArray[np.int64] | None,
    offset: NDArray[np.int64],
    length: NDArray[np.int64],
    costs: Costs,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Join neighbouring parts, ordered by place, into fetches; return their bounds and lengths.

    Fetch i holds the parts from bounds[i] up to bounds[i + 1].
    """
    if not offset.size:
        return np.zeros(1, np.int64), offset
    end = offset + length
    is_open = length < 0
    begins = np.ones(offset.size, bool)
    begins[1:] = (offset[1:] - end[:-1] > costs.gap) | is_open[1:] | is_open[:-1]
    if source is not None:
        begins[1:] |= source[1:] != source[:-1]
    run = offset[np.flatnonzero(begins)][np.cumsum(begins) - 1]
    size = (offset - run) // costs.max_request
    begins[1:] |= size[1:] != size[:-1]
    first = np.flatnonzero(begins)
    fetch_length = np.maximum.reduceat(end, first) - offset[first]
    fetch_length[is_open[first]] = -1
    return np.append(first, offset.size), fetch_length
