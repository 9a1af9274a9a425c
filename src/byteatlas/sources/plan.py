"""Which spans of a source to fetch for a batch of byte ranges: pure functions on columns.

    ranges asked for      [---]  [--]       [---]   [-----------------------]
    spans (merged)        [---------]       [---]   [-----------------------]
    pieces (requests)     [---------]       [---]   [-----------][----------]

The spans of a plan are laid end to end in one buffer, the arena; every range asked for is a
slice of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from byteatlas.errors import ShortRead
from byteatlas.model import Buffer, ByteRange, ByteRanges, Request

__all__ = [
    "ReadPlan",
    "Span",
    "check_inside",
    "columns",
    "cut_arena",
    "gather_rows",
    "outside",
    "plan_reads",
    "spans_of",
    "split_spans",
]

_LARGEST = 2**63 - 1


@dataclass(frozen=True, slots=True, eq=False)
class ReadPlan:
    """Spans to fetch, and where in the arena each range asked for lies."""

    offset: NDArray[np.int64]
    """First byte of each span in the source, ascending and disjoint, shape (spans,)."""
    length: NDArray[np.int64]
    """Length of each span, shape (spans,)."""
    position: NDArray[np.int64]
    """Where each range begins in the arena, shape (ranges,)."""

    @property
    def arena_size(self) -> int:
        """Number of bytes of all spans together."""
        return int(self.length.sum())


class Span(NamedTuple):
    """Bytes of a source, and where they begin in it."""

    offset: int
    data: memoryview


def columns(
    batch: Sequence[Request], size: int | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return offset and length of all ranges of a batch, in order, each of shape (ranges,).

    Raises
    ------
    ShortRead
        A range ends behind the end of the source (where its size is known), or is negative.
    """
    offsets: list[NDArray[np.int64]] = []
    lengths: list[NDArray[np.int64]] = []
    single: list[Request] = []
    for request in batch:
        check_inside(request, size)
        if isinstance(request, ByteRange):
            single.append(request)
            continue
        _append_pairs(single, offsets, lengths)
        offsets.append(request.offsets.astype(np.int64))
        lengths.append(np.full(request.offsets.size, request.length, np.int64))
    _append_pairs(single, offsets, lengths)
    if len(offsets) == 1:
        return offsets[0], lengths[0]
    if not offsets:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    return np.concatenate(offsets), np.concatenate(lengths)


def _append_pairs(
    single: list[Request], offsets: list[NDArray[np.int64]], lengths: list[NDArray[np.int64]]
) -> None:
    if single:
        pairs = np.array(single, np.int64)
        offsets.append(pairs[:, 0])
        lengths.append(pairs[:, 1])
        single.clear()


def check_inside(request: Request, size: int | None) -> None:
    """Raise ShortRead where a request reaches outside a source of so many bytes."""
    if isinstance(request, ByteRange):
        offset, length = request
        least = offset
    else:
        if not request.offsets.size:
            return
        least, offset = int(request.offsets.min()), int(request.offsets.max())
        length = request.length
    if least < 0 or length < 0 or offset + length > (_LARGEST if size is None else size):
        raise outside(int(offset), int(length), size)


def outside(offset: int, length: int, size: int | None) -> ShortRead:
    """Return the error for a range that the source does not have."""
    whole = "" if size is None else f" of {size} bytes"
    return ShortRead(
        f"a byte range outside the source{whole} was asked for",
        offset=offset,
        length=length,
        hint="the file is truncated or damaged",
    )


def plan_reads(
    offset: NDArray[np.int64],
    length: NDArray[np.int64],
    *,
    gap: int = 0,
    waste: int = _LARGEST,
    narrow: int = 0,
    narrow_waste: int = 0,
) -> ReadPlan:
    """Merge ranges that touch, overlap, or lie at most `gap` bytes apart.

    A gap is worth fetching while its bytes cost less than another request does.

    Parameters
    ----------
    offset, length
        The ranges in any order, shape (ranges,).
    gap
        Bytes between two ranges that are rather fetched than left out.
    waste
        Where all gaps together exceed so many bytes, only the smallest ones are fetched.
    narrow, narrow_waste
        Gaps of at most `narrow` bytes are fetched up to `narrow_waste` bytes together, should
        that be more than `waste`.
    """
    if not offset.size:
        return ReadPlan(offset, length, offset)
    order = np.argsort(offset, kind="stable")
    start = offset[order]
    end = np.maximum.accumulate(start + length[order])
    hole = start[1:] - end[:-1]
    is_first = np.empty(start.size, bool)
    is_first[0] = True
    is_first[1:] = hole > 0
    wide = np.flatnonzero((hole > 0) & (hole <= gap))
    is_first[1 + wide[_affordable(hole[wide], waste, narrow, narrow_waste)]] = False
    first = np.flatnonzero(is_first)
    span_offset = start[first]
    span_length = end[np.append(first[1:], start.size) - 1] - span_offset
    shift = np.cumsum(span_length) - span_length - span_offset
    position = np.empty_like(start)
    position[order] = start + shift[np.cumsum(is_first) - 1]
    return ReadPlan(span_offset, span_length, position)


def _affordable(
    gaps: NDArray[np.int64], waste: int, narrow: int, narrow_waste: int
) -> NDArray[np.intp]:
    """Return the positions of the gaps to fetch, the smallest first."""
    order = np.argsort(gaps, kind="stable")
    total = np.cumsum(gaps[order])
    count = int(np.searchsorted(total, waste, side="right"))
    if count < gaps.size:
        cheap = int(np.searchsorted(gaps[order], narrow, side="right"))
        count = max(count, min(cheap, int(np.searchsorted(total, narrow_waste, side="right"))))
    return order[:count]


def split_spans(plan: ReadPlan, largest: int) -> tuple[list[int], list[int]]:
    """Return offset and length of the requests that fetch all spans, none above `largest`."""
    count = -(-plan.length // largest)
    piece = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
    offset = np.repeat(plan.offset, count) + piece * largest
    end = np.repeat(plan.offset + plan.length, count)
    return offset.tolist(), np.minimum(end - offset, largest).tolist()


def spans_of(plan: ReadPlan, arena: NDArray[np.uint8]) -> list[Span]:
    """Return the spans of a plan with their bytes, views of the arena."""
    view = arena.data
    ends = np.cumsum(plan.length).tolist()
    return [
        Span(offset, view[end - length : end])
        for offset, length, end in zip(
            plan.offset.tolist(), plan.length.tolist(), ends, strict=True
        )
    ]


def cut_arena(
    batch: Sequence[Request], arena: NDArray[np.uint8], position: NDArray[np.int64]
) -> list[Buffer]:
    """Return one buffer per request: views of the arena for single ranges, copies for rows."""
    view = arena.data
    result: list[Buffer] = []
    row = 0
    for request in batch:
        if isinstance(request, ByteRanges):
            count = request.offsets.size
            result.append(gather_rows(arena, position[row : row + count], request.length))
            row += count
        else:
            start = int(position[row])
            result.append(view[start : start + request.length])
            row += 1
    return result


def gather_rows(
    arena: NDArray[np.uint8], position: NDArray[np.int64], length: int
) -> NDArray[np.uint8]:
    """Copy slices of one length out of the arena, into an array of shape (slices, length)."""
    if not position.size or not length:
        return np.empty((position.size, length), np.uint8)
    windows: NDArray[np.uint8] = np.lib.stride_tricks.as_strided(
        arena, (arena.size - length + 1, length), (1, 1), writeable=False
    )
    return windows[position]
