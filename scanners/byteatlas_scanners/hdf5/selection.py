"""Selections of a dataspace, as mappings hold them (HDF5 File Format 3.0, III.F).

A selection is a set of positions along each axis, and all their combinations. Those that are no
such product (points, most irregular sets of blocks) are refused.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from byteatlas.errors import Malformed, Unsupported
from byteatlas_scanners.mosaic import Runs

__all__ = ["Everything", "Regular", "Selection", "parse_selection"]

NONE, POINTS, HYPERSLABS, ALL = 0, 1, 2, 3
MAX_RANK = 32
MAX_RUNS = 2**20
"""Runs of positions along one axis."""


class Regular(NamedTuple):
    """Blocks of one size at one distance, along one axis."""

    start: int
    stride: int
    times: int | None
    """Number of blocks; None where unlimited."""
    block: int | None
    """Elements of each; None where it goes on for ever."""

    @property
    def is_unlimited(self) -> bool:
        """Tell whether the extent of a dataset decides how far it goes."""
        return self.times is None or self.block is None

    def positions_below(self, extent: int) -> int:
        """Return how many positions are smaller than an extent."""
        room = max(extent - self.start, 0)
        if self.block is None:
            return room
        full, rest = divmod(room, self.stride)
        if self.times is not None and full >= self.times:
            return self.times * self.block
        return full * self.block + min(rest, self.block)

    def extent_of(self, positions: int) -> int:
        """Return one more than the last of so many positions; 0 without any."""
        if not positions:
            return 0
        if self.block is None:
            return self.start + positions
        full, rest = divmod(positions - 1, self.block)
        return self.start + full * self.stride + rest + 1

    def runs(self, positions: int | None = None) -> Runs:
        """Return the positions, of an unlimited axis so many."""
        if positions is None:
            assert self.times is not None
            assert self.block is not None
            positions = self.times * self.block
        if not positions:
            return Runs.of(0, 0)
        block = positions if self.block is None else self.block
        if block == self.stride or positions <= block:
            return Runs.of(self.start, positions)
        blocks = -(-positions // block)
        if blocks > MAX_RUNS:
            raise Unsupported(f"a selection of {blocks} blocks along one axis")
        length = np.full(blocks, block, np.int64)
        length[-1] = positions - (blocks - 1) * block
        return Runs(self.start + np.arange(blocks) * self.stride, length)


@dataclass(frozen=True, slots=True)
class Everything:
    """All positions along all axes."""


Selection: TypeAlias = "tuple[Regular | Runs, ...] | Everything | None"
"""For each axis; None where nothing is selected."""


def parse_selection(data: memoryview, position: int) -> tuple[Selection, int]:
    """Parse a selection; return it and where it ends.

    Raises
    ------
    Unsupported
        It is no product of positions along the axes.
    Malformed
        It is of an unknown type, or contradicts itself.
    """
    kind, version = struct.unpack_from("<II", data, position)
    if kind in (NONE, ALL) and version == 1:
        return (Everything() if kind == ALL else None), position + 16
    if kind == POINTS:
        raise Unsupported("a selection of single points")
    if kind != HYPERSLABS or version not in (1, 2, 3):
        raise Malformed(f"a selection of type {kind}, version {version}")
    position += 8
    is_regular, width = False, 4
    if version == 1:
        position += 8  # reserved, length
    elif version == 2:
        is_regular, width = bool(data[position] & 1), 8
        position += 5  # flags, length
    else:
        is_regular, width = bool(data[position] & 1), data[position + 1]
        position += 2
    if width not in (2, 4, 8):
        raise Malformed(f"a selection of numbers of {width} bytes")
    (rank,) = struct.unpack_from("<I", data, position)
    position += 4
    if not 1 <= rank <= MAX_RANK:
        raise Malformed(f"a selection of rank {rank}")
    if is_regular:
        numbers = _numbers(data, position, 4 * rank, width).tolist()
        limit = 2 ** (8 * width) - 1
        axes = tuple(_regular(numbers[4 * axis : 4 * axis + 4], limit) for axis in range(rank))
        return axes, position + 4 * rank * width
    count = int.from_bytes(data[position : position + width], "little")
    position += width
    blocks = _numbers(data, position, 2 * rank * count, width)
    end = position + 2 * rank * count * width
    return _product(blocks.reshape(count, 2, rank).astype(np.int64)), end


def _numbers(data: memoryview, position: int, count: int, width: int) -> NDArray[np.uint64]:
    if position + count * width > len(data):
        raise Malformed("a selection that goes on beyond the end of its block")
    return np.frombuffer(data, f"<u{width}", count, position).astype(np.uint64)


def _regular(numbers: list[int], limit: int) -> Regular:
    start, stride, count, block = numbers
    found = Regular(
        start, stride, None if count == limit else count, None if block == limit else block
    )
    if stride < 1 or (found.block is not None and not 1 <= found.block <= max(stride, 1)):
        if not (found.times == 1 and found.block):
            raise Malformed(f"a selection of blocks of {block} every {stride}")
        found = found._replace(stride=found.block)
    if found.block is None and found.times != 1:
        raise Malformed("a selection of several blocks without end")
    last = start + stride * ((found.times or 1) - 1) + (found.block or 1)
    if last >= 2**63:
        raise Malformed(f"a selection up to {last}")
    return found


def _product(blocks: NDArray[np.int64]) -> Selection:
    """Return blocks (count, first and last, rank) as positions along each axis.

    Raises
    ------
    Unsupported
        They are not all combinations of some runs along the axes.
    """
    if not blocks.size:
        return None
    if (blocks < 0).any() or (blocks[:, 1] < blocks[:, 0]).any():
        raise Malformed("a selection of blocks that end before they begin")
    if len(blocks) == 1:
        first, last = blocks[0].tolist()
        return tuple(Runs.of(a, b + 1 - a) for a, b in zip(first, last, strict=True))
    axes = []
    for axis in range(blocks.shape[2]):
        runs = np.unique(blocks[:, :, axis], axis=0)
        if (runs[1:, 0] <= runs[:-1, 1]).any():
            raise Unsupported("a selection of blocks in an irregular pattern")
        axes.append(runs)
    is_whole = math.prod(len(runs) for runs in axes) == len(blocks)
    if not is_whole or len(np.unique(blocks.reshape(len(blocks), -1), axis=0)) != len(blocks):
        raise Unsupported("a selection of blocks in an irregular pattern")
    return tuple(_merged(runs) for runs in axes)


def _merged(runs: NDArray[np.int64]) -> Runs:
    """Join runs that touch."""
    begins = np.ones(len(runs), np.bool_)
    begins[1:] = runs[1:, 0] != runs[:-1, 1] + 1
    first = np.flatnonzero(begins)
    last = np.append(first[1:], len(runs)) - 1
    return Runs(runs[first, 0], runs[last, 1] + 1 - runs[first, 0])
