"""Keys in the nodes of a tree: whether a search would find what lies under each of them.

The library finds a chunk by searching from the root, so what is not in order it takes for never
written. Keys are rows of unsigned integers, compared from the left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Bounds", "are_in_order", "is_ascending", "is_less"]

Keys = NDArray[np.uint64]
"""One key a row, shape (count, width)."""


def is_less(one: Keys, other: Keys) -> NDArray[np.bool_]:
    """Tell of each row whether it comes before that of the other, shape (count,)."""
    less = np.zeros(len(one), np.bool_)
    for column in reversed(range(one.shape[1])):
        less &= one[:, column] == other[:, column]
        less |= one[:, column] < other[:, column]
    return less


def is_ascending(keys: Keys) -> bool:
    """Tell whether each row comes after the one before it."""
    return bool(is_less(keys[:-1], keys[1:]).all())


def are_in_order(keys: Keys, index: NDArray[np.uint64], inside: NDArray[np.bool_]) -> bool:
    """Tell whether the keys of chunks are ascending, by their flat indices where that is the same.

    Parameters
    ----------
    keys : coordinates of the chunks.
    index, inside : what `ChunkGrid` says of each.
    """
    return bool((index[1:] > index[:-1]).all()) if inside.all() else is_ascending(keys)


@dataclass(frozen=True, slots=True, eq=False)
class Bounds:
    """What the nodes above say of the keys in each node of one level."""

    low: Keys
    """No key of the node comes before it."""
    high: Keys
    """All keys of the node come before it."""

    @classmethod
    def of_root(cls, width: int) -> Bounds:
        """Return the bounds of a root, which has none."""
        return cls(np.zeros((1, width), np.uint64), np.full((1, width), 2**64 - 1, np.uint64))

    @classmethod
    def join(cls, parts: Sequence[Bounds]) -> Bounds:
        """Return the bounds of all nodes of several parts."""
        return cls(
            np.concatenate([part.low for part in parts]),
            np.concatenate([part.high for part in parts]),
        )

    def within(self, low: Keys, high: Keys) -> Bounds:
        """Return the narrower of these bounds and others, node by node."""
        return Bounds(
            np.where(is_less(self.low, low)[:, None], low, self.low),
            np.where(is_less(high, self.high)[:, None], high, self.high),
        )

    def between(self, keys: Keys, count: NDArray[np.int64]) -> Bounds:
        """Return the bounds of the children that lie around and between the keys of these nodes.

        Parameters
        ----------
        keys : all keys of the nodes, one after the other.
        count : how many of them each node has; it has one child more.
        """
        stop = np.cumsum(count + 1)
        first, last = stop - count - 1, stop - 1
        low = np.empty((int(stop[-1]), keys.shape[1]), np.uint64)
        high = np.empty_like(low)
        inner = np.ones(len(low), np.bool_)
        inner[first] = False
        low[first], low[inner] = self.low, keys
        inner[first] = True
        inner[last] = False
        high[last], high[inner] = self.high, keys
        return Bounds(low, high)

    def of(self, nodes: NDArray[np.intp] | slice) -> Bounds:
        """Return the bounds of some nodes; of one that is named twice, twice."""
        return Bounds(self.low[nodes], self.high[nodes])

    def outside(self, first: Keys, last: Keys) -> NDArray[np.bool_]:
        """Tell of each node, by its first and its last key, whether it breaks its bounds."""
        return is_less(first, self.low) | ~is_less(last, self.high)
