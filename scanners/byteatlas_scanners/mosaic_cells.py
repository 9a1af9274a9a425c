"""Which chunks of a part become which chunks of a mosaic: columns, never chunk by chunk."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from byteatlas.errors import Unsupported
from byteatlas.model import ChunkManifest

__all__ = ["Joint", "Layout", "Located", "check_overlaps", "expand", "locate"]

Positions: TypeAlias = NDArray[np.int64]

MAX_PAIRS = 2048
"""Parts that are compared each with each for overlaps."""
MAX_CELLS = 2**24
"""Chunks that are compared for overlaps of parts that are interleaved."""


class Joint(NamedTuple):
    """One axis of a part: pieces that are contiguous in the array and in the whole."""

    axis: int | None
    """The array's axis; None where the whole has an axis of which the part is one index."""
    taken: Positions
    placed: Positions
    length: Positions


class Layout(NamedTuple):
    """How a part lies in the grid of the whole. Positions are multiples of chunks."""

    joints: tuple[Joint, ...]
    """For each axis of the whole."""
    fixed: tuple[tuple[int, int], ...]
    """Axes of the array that the whole has not, and the one chunk that is taken of each."""
    chunk: tuple[int, ...]
    grid: tuple[int, ...]

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of chunks along each axis of the whole."""
        return tuple(
            int((-(-joint.length // c)).sum())
            for joint, c in zip(self.joints, self.chunk, strict=True)
        )


class Located(NamedTuple):
    """The chunks of a part that are there."""

    row: Positions
    """Rows of the part's manifest."""
    place: Positions
    """Their flat indexes in the whole."""
    inline: dict[int, int]
    """Inlined chunks: flat index in the whole to flat index in the part."""
    missing: int
    """Number of chunks of the part that were never written."""
    work: int
    """Number of chunks looked at."""


def locate(layout: Layout, manifest: ChunkManifest) -> Located:
    """Find the chunks of a part that are there, by whichever way is shorter."""
    cells = math.prod(layout.counts)
    inline: dict[int, int] = {}
    if manifest.inline:
        kept = np.fromiter(manifest.inline, np.int64, len(manifest.inline))
        places, is_taken = _carry(layout, kept, manifest.grid_shape)
        inline = dict(zip(places[is_taken].tolist(), kept[is_taken].tolist(), strict=True))
    rows = manifest.offset.size
    if cells <= 4 * rows + 64:
        taken, placed = expand(layout, manifest.grid_shape)
        found = manifest.rows(taken)
        there = found >= 0
        row, place, work = found[there], placed[there], cells
    else:
        index = np.arange(rows) if manifest.index is None else manifest.index.astype(np.int64)
        placed, there = _carry(layout, index, manifest.grid_shape)
        row, place, work = np.flatnonzero(there), placed[there], rows
    return Located(row, place, inline, cells - row.size - len(inline), work)


def expand(layout: Layout, grid: tuple[int, ...]) -> tuple[Positions, Positions]:
    """Return the flat indexes of all chunks of a part: in it, with this grid, and in the whole."""
    strides = _strides(grid)
    taken = np.full(1, sum(at * strides[axis] for axis, at in layout.fixed), np.int64)
    placed = np.zeros(1, np.int64)
    axes = zip(layout.joints, layout.chunk, _strides(layout.grid), strict=True)
    for joint, chunk, stride in axes:
        counts = -(-joint.length // chunk)
        which = np.repeat(np.arange(counts.size), counts)
        within = np.arange(which.size) - (np.cumsum(counts) - counts)[which]
        step = 0 if joint.axis is None else strides[joint.axis]
        taken = np.add.outer(taken, (joint.taken[which] // chunk + within) * step).reshape(-1)
        placed = np.add.outer(placed, (joint.placed[which] // chunk + within) * stride).reshape(-1)
    return taken, placed


def _carry(
    layout: Layout, flat: Positions, grid: tuple[int, ...]
) -> tuple[Positions, NDArray[np.bool_]]:
    """Return the flat index in the whole of chunks of a part, and which of them are shown."""
    place = np.zeros(flat.shape, np.int64)
    inside = np.ones(flat.shape, np.bool_)
    strides = _strides(grid)
    for axis, only in layout.fixed:
        inside &= flat // strides[axis] % grid[axis] == only
    axes = zip(layout.joints, layout.chunk, _strides(layout.grid), strict=True)
    for joint, chunk, stride in axes:
        if joint.axis is None:
            place += joint.placed[0] // chunk * stride
            continue
        at = flat // strides[joint.axis] % grid[joint.axis]
        starts = joint.taken // chunk
        which = np.maximum(np.searchsorted(starts, at, side="right") - 1, 0)
        within = at - starts[which]
        inside &= (within >= 0) & (within < -(-joint.length // chunk)[which])
        place += (joint.placed[which] // chunk + within) * stride
    return place, inside


def _strides(grid: Sequence[int]) -> list[int]:
    return [math.prod(grid[axis + 1 :]) for axis in range(len(grid))]


def check_overlaps(layouts: Sequence[Layout]) -> None:
    """Refuse parts that are shown in the same place.

    Raises
    ------
    Unsupported
        Some are, or there are too many interleaved chunks to tell.
    """
    if len(layouts) < 2 or not layouts[0].joints:
        if len(layouts) > 1:
            raise Unsupported("several parts are shown in the same place")
        return
    start = np.array([[int(joint.placed[0]) for joint in one.joints] for one in layouts])
    stop = np.array(
        [[int(joint.placed[-1] + joint.length[-1]) for joint in one.joints] for one in layouts]
    )
    for axis in range(start.shape[1]):
        order = np.argsort(start[:, axis], kind="stable")
        if (stop[order[:-1], axis] <= start[order[1:], axis]).all():
            return
    if len(layouts) <= MAX_PAIRS:
        apart = np.zeros((len(layouts), len(layouts)), np.bool_)
        for axis in range(start.shape[1]):
            apart |= np.less_equal.outer(stop[:, axis], start[:, axis])
        if (apart | apart.T | np.eye(len(layouts), dtype=np.bool_)).all():
            return
    cells = sum(math.prod(one.counts) for one in layouts)
    if cells > MAX_CELLS:
        raise Unsupported(f"parts that may overlap, of {cells} chunks")
    taken = np.concatenate([expand(one, one.grid)[1] for one in layouts])
    if np.unique(taken).size != taken.size:
        raise Unsupported("several parts are shown in the same place")
