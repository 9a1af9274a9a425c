"""What a read would take, counted on its plan: nothing is read for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from byteatlas.display import plural, size
from byteatlas.heap import heap_ids, heap_of
from byteatlas.limits import Limits
from byteatlas.model import Source, VirtualArray
from byteatlas.read.costs import Costs
from byteatlas.read.fetches import FetchPlan, plan_fetches
from byteatlas.read.plan import ReadPlan, plan_read
from byteatlas.read.selection import Selection

__all__ = ["Cost", "SourceCost", "cost_of"]

UNLIMITED = 2**63 - 1
"""Bytes of a result that is only counted."""


class SourceCost(NamedTuple):
    """What a read would take of one source."""

    url: str
    """Without user info and query string."""
    requests: int
    bytes_fetched: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What reading a selection of an array would take.

    Every number is that of the read itself, repeats after faults aside: it follows the same plan.
    Bytes that are kept in a cache are counted as if they were not.
    """

    shape: tuple[int, ...]
    """Shape of the result."""
    result_bytes: int
    """Size of the result (8 bytes per variable-length string)."""
    requests: int
    """Ranges asked of servers, or of local files; neighbouring chunks share one."""
    bytes_fetched: int
    """Bytes of all requests. Those of `open_requests` are not among them."""
    bytes_needed: int
    """The part of it that is decoded; the rest lies between chunks, and costs less than further
    requests."""
    open_requests: int
    """Requests that go to the end of a source of unknown size."""
    chunks: int
    """Virtual chunks that are touched."""
    inlined: int
    """Touched chunks whose bytes are kept in the index."""
    missing: int
    """Touched chunks that read as the fill value."""
    decoded_bytes: int
    """Size of the touched chunks when decoded; of uncompressed ones what is read of them."""
    sources: tuple[SourceCost, ...]
    """The sources that are asked, in the order of the table of sources."""
    has_lookup: bool
    """The chunks only point to their strings. To look those up takes one or two rounds more of
    requests, which depend on what the chunks hold and cannot be counted before."""

    def __str__(self) -> str:
        fetched = f"{size(self.bytes_fetched)} fetched"
        if self.bytes_needed != self.bytes_fetched:
            fetched += f" ({size(self.bytes_needed)} needed)"
        more = {"inlined": self.inlined, "missing": self.missing}
        chunks = [plural(self.chunks, "chunk"), *(f"{n:,} {kind}" for kind, n in more.items() if n)]
        parts = [
            plural(self.requests, "request"),
            fetched,
            f"{', '.join(chunks)} of {plural(len(self.sources), 'source')}",
            f"{size(self.decoded_bytes)} decoded",
        ]
        return "; ".join([*parts, *self.notes])

    @property
    def notes(self) -> tuple[str, ...]:
        """What cannot be counted before reading, in words; () where all is counted."""
        notes = []
        if self.open_requests:
            ends = plural(self.open_requests, "request")
            notes.append(f"{ends} to the end of a source of unknown size, not in the bytes")
        if self.has_lookup:
            notes.append("and then the requests that look up its strings, which depend on them")
        return tuple(notes)


def cost_of(
    array: VirtualArray,
    selection: Selection,
    costs: Costs,
    limits: Limits,
    sources: Sequence[Source],
) -> Cost:
    """Count what reading a selection of an array would take.

    Parameters
    ----------
    array
        An array whose manifest points into `sources`.
    selection
        As for `byteatlas.read.Reader.read`.
    costs
        By which fetches are merged.
    limits
        How much one read may take.
    sources
        The table of sources.

    Raises
    ------
    IndexError
        The selection does not fit the array.
    Malformed
        A chunk is too short for what is to be read of it.
    LimitExceeded
        The read takes more than the limits allow. A result of any size is counted.
    """
    heap = heap_of(array)
    stored = array if heap is None else heap_ids(array, heap)
    plan = plan_read(stored, selection, costs, replace(limits, result=UNLIMITED))
    fetches = plan_fetches([plan], costs)
    asked, first, requests = np.unique(fetches.source, return_index=True, return_counts=True)
    known, is_unknown = _known_lengths(fetches, asked, sources)
    fetched = np.add.reduceat(known, first) if first.size else known
    kinds = _count_chunks(plan, stored)
    whole = math.prod(array.chunk_shape) * stored.dtype.itemsize
    shape = plan.arrange.shape(plan.shape)  # it need not fit into memory
    return Cost(
        shape=shape,
        result_bytes=math.prod(shape) * array.dtype.itemsize,
        requests=int(fetches.source.size),
        bytes_fetched=int(known.sum()),
        bytes_needed=_needed(plan, fetches, known),
        open_requests=int(np.count_nonzero(is_unknown)),
        chunks=kinds.virtual,
        inlined=kinds.inlined,
        missing=kinds.missing,
        decoded_bytes=kinds.inlined * whole
        + (int(plan.length.sum()) if plan.is_partial else kinds.virtual * whole),
        sources=tuple(
            SourceCost(sources[position].public_url, *counts)
            for position, *counts in zip(
                asked.tolist(), requests.tolist(), fetched.tolist(), strict=True
            )
        ),
        has_lookup=heap is not None and kinds.virtual + kinds.inlined > 0,
    )


def _known_lengths(
    fetches: FetchPlan, asked: NDArray[np.int64], sources: Sequence[Source]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the number of bytes of each fetch, and whether it goes to an end that is not known.

    Of such a fetch the number is 0.
    """
    is_open = fetches.length < 0
    if not is_open.any():
        return fetches.length, is_open
    sizes = (sources[position].size for position in asked.tolist())
    ends = np.array([-1 if size is None else size for size in sizes], np.int64)
    end = ends[np.searchsorted(asked, fetches.source)]
    known = np.where(is_open, np.maximum(end - fetches.offset, 0), fetches.length)
    return known, is_open & (end < 0)


def _needed(plan: ReadPlan, fetches: FetchPlan, known: NDArray[np.int64]) -> int:
    """Return how many of the bytes fetched belong to a part; parts may overlap."""
    if not known.size:
        return 0
    fetch = np.repeat(np.arange(known.size), np.diff(fetches.bounds))
    start = plan.offset - fetches.offset[fetch]
    end = np.where(plan.length < 0, known[fetch], start + plan.length)
    # As if each fetch began where the one before it ends, so that no part reaches into the next.
    begin = (np.cumsum(known) - known)[fetch]
    reached = np.maximum.accumulate(begin + end)
    before = np.append(0, reached[:-1])
    return int(np.maximum(reached - np.maximum(before, begin + start), 0).sum())


class _Kinds(NamedTuple):
    virtual: int
    inlined: int
    missing: int


def _count_chunks(plan: ReadPlan, array: VirtualArray) -> _Kinds:
    """Count the chunks that a plan touches; its cells may be slabs of them."""
    grid = array.manifest.grid_shape
    flat = np.zeros(1, np.int64)
    for axis in plan.axes:
        touched = np.zeros(1, np.int64)
        for number, corner in axis.corners(plan.cell_shape):
            at = corner // array.chunk_shape[number]
            touched = touched + at * math.prod(grid[number + 1 :])
        flat = np.add.outer(flat, np.unique(touched)).reshape(-1)
    found = array.manifest.locate(flat)
    virtual, inlined = int(found.virtual.size), int(found.inlined.size)
    return _Kinds(virtual, inlined, flat.size - virtual - inlined)
