"""Which ranges of one source are kept, and where: sorted columns, looked up by column."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["Found", "KeptRanges"]


class Found(NamedTuple):
    """What was found of some ranges asked for."""

    row: NDArray[np.int64]
    """Positions among the ranges asked for of those that are kept, ascending, shape (rows,)."""
    skip: NDArray[np.int64]
    """How far into a kept range each begins, shape (rows,)."""
    kept: NDArray[np.int64]
    """Length of the kept range that holds it, shape (rows,)."""
    place: NDArray[Any]
    """Where that is kept, shape (rows,) (Any: in the words of who keeps it)."""


class _Run(NamedTuple):
    """Kept ranges, ordered by offset and then by length."""

    offset: NDArray[np.int64]
    end: NDArray[np.int64]
    place: NDArray[Any]


class KeptRanges:
    """The kept ranges of one source. Not for several threads at once.

    A range is found when it lies within one that is kept. Of kept ranges that overlap, the one
    that begins nearest before it is looked at, and of several that begin there the longest:
    others may hold it too, and then it counts as missing.

    New ranges form runs, and runs of like size are merged: adding one by one stays cheap, and a
    lookup searches few runs.

    Parameters
    ----------
    place
        Type of what tells where a range is kept.
    """

    def __init__(self, place: DTypeLike) -> None:
        self._place = np.dtype(place)
        self._runs: list[_Run] = []

    def __len__(self) -> int:
        return sum(run.offset.size for run in self._runs)

    def add(
        self,
        offset: NDArray[np.int64],
        length: NDArray[np.int64],
        place: NDArray[Any],
    ) -> None:
        """Add ranges, in any order; columns of one shape."""
        if offset.size:
            self._runs.append(_sorted(offset, offset + length, place))
        runs = self._runs
        while len(runs) > 1 and runs[-2].offset.size < 2 * runs[-1].offset.size:
            late, early = runs.pop(), runs.pop()
            columns = zip(early, late, strict=True)
            runs.append(_sorted(*map(np.concatenate, columns)))

    def find(self, offset: NDArray[np.int64], length: NDArray[np.int64]) -> Found:
        """Return which of some ranges are kept, and where. Lengths are not negative."""
        start = np.zeros(offset.size, np.int64)
        kept = np.full(offset.size, -1, np.int64)
        place = np.zeros(offset.size, self._place)
        end = offset + length
        for run in reversed(self._runs):
            lacks = np.flatnonzero(kept < 0)
            if not lacks.size:
                break
            at = np.searchsorted(run.offset, offset[lacks], side="right") - 1
            holds = (at >= 0) & (run.end[at] >= end[lacks])  # the last for -1, not used
            row, at = lacks[holds], at[holds]
            start[row] = run.offset[at]
            kept[row] = run.end[at] - run.offset[at]
            place[row] = run.place[at]
        row = np.flatnonzero(kept >= 0)
        return Found(row, offset[row] - start[row], kept[row], place[row])

    def places(self) -> NDArray[Any]:
        """Return where every range is kept, in the order in which `keep` wants its answers."""
        return np.concatenate([np.zeros(0, self._place), *(run.place for run in self._runs)])

    def keep(self, wanted: NDArray[np.bool_]) -> None:
        """Forget all ranges but those that are wanted; one answer for each of `places`."""
        left = []
        for run in self._runs:
            mine, wanted = wanted[: run.offset.size], wanted[run.offset.size :]
            if mine.any():
                left.append(_Run(run.offset[mine], run.end[mine], run.place[mine]))
        self._runs = left


def _sorted(
    offset: NDArray[np.int64],
    end: NDArray[np.int64],
    place: NDArray[Any],
) -> _Run:
    order = np.lexsort((end, offset))
    return _Run(offset[order], end[order], place[order])
