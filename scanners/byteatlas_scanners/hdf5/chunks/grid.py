"""The chunk grid of one dataset, now and at its maximum extents."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from byteatlas.errors import Malformed

__all__ = ["ChunkGrid"]


@dataclass(frozen=True, slots=True)
class ChunkGrid:
    """Number of chunks along each axis."""

    shape: tuple[int, ...]
    most: tuple[int | None, ...]
    """At the dataset's maximum extents; None along an unlimited axis."""

    @classmethod
    def of(
        cls,
        shape: Sequence[int],
        max_shape: Sequence[int | None],
        chunk_shape: Sequence[int],
    ) -> ChunkGrid:
        """Return the grid of a dataset.

        Raises
        ------
        Malformed
            The ranks differ, a chunk is empty, an extent exceeds its maximum, or there are more
            than 2**63 chunks.
        """
        if not len(shape) == len(max_shape) == len(chunk_shape) or not all(chunk_shape):
            raise Malformed(f"chunks of shape {tuple(chunk_shape)} in shape {tuple(shape)}")
        if any(most is not None and most < now for now, most in zip(shape, max_shape, strict=True)):
            raise Malformed(f"shape {tuple(shape)} exceeds its maximum {tuple(max_shape)}")
        grid = tuple(-(-n // c) for n, c in zip(shape, chunk_shape, strict=True))
        if math.prod(grid) >= 2**63:
            raise Malformed(f"a chunk grid of {grid}")
        most = tuple(
            None if n is None else -(-n // c) for n, c in zip(max_shape, chunk_shape, strict=True)
        )
        return cls(grid, most)

    @property
    def cells(self) -> int:
        """Number of chunks that the current extents have room for."""
        return math.prod(self.shape)

    def locate(
        self, axes: Sequence[NDArray[np.uint64]]
    ) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
        """Turn chunk coordinates into flat indices.

        Parameters
        ----------
        axes : coordinates along each axis, shape (count,) each.

        Returns
        -------
        The flat index (C order), and whether it lies inside the current extents: a chunk that
        does not is one the library does not see either, and its index means nothing.

        Raises
        ------
        Malformed
            A chunk lies outside the maximum extents.
        """
        for axis, most in zip(axes, self.most, strict=True):
            furthest = int(axis.max(initial=0))
            if most is not None and furthest >= most:
                raise Malformed(f"chunk {furthest} along an axis of at most {most} chunks")
        return self._flatten(axes)

    def count_numbers(self) -> int:
        """Return how many elements an array index needs for the current extents.

        Raises
        ------
        Malformed
            An axis other than the first is unlimited.
        """
        count = self.shape[0]
        for most in self.most[1:]:
            if most is None:
                raise Malformed("an array of chunks with an unlimited axis that is not the first")
            count *= most
        return count

    def locate_numbers(
        self, numbers: NDArray[np.uint64], slowest: int = 0
    ) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
        """Turn the numbers of an array index's elements into flat indices, as `locate` does.

        Elements are numbered in C order over the grid at its *maximum* extents, with the axis
        `slowest` (the unlimited one) moved to the front.
        """
        others = [axis for axis in range(len(self.shape)) if axis != slowest]
        if not slowest and all(self.shape[axis] == self.most[axis] for axis in others):
            return numbers, numbers < np.uint64(self.cells)
        axes = [numbers] * len(self.shape)
        rest = numbers
        for axis in reversed(others):
            most = self.most[axis]
            if most is None:
                raise Malformed("an array of chunks with two unlimited axes")
            rest, axes[axis] = np.divmod(rest, np.uint64(most))
        axes[slowest] = rest
        return self._flatten(axes)

    def _flatten(
        self, axes: Sequence[NDArray[np.uint64]]
    ) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
        index = np.zeros(axes[0].size, np.uint64)
        inside = np.ones(axes[0].size, np.bool_)
        for axis, now in zip(axes, self.shape, strict=True):
            inside &= axis < np.uint64(now)
            index *= np.uint64(now)
            index += axis
        return index, inside
