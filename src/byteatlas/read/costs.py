"""What requests cost against what bytes cost, and which parts are therefore fetched together.

    time to read = latency + the longest of
        bytes / bandwidth                                     the line is full
        (requests * latency + bytes / bandwidth) / concurrency    the requests in flight wait
        requests * processor time of one + bytes * that of one    this process is busy

To fetch a gap between two parts takes a request away and adds bytes. Of all gaps the smallest are
fetched, as many as make that time least; docs/performance.md has the reasons.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from byteatlas.sources.line import Line

__all__ = ["LOCAL", "REMOTE", "Costs", "costs_over", "merge_parts"]

_SLACK = 1 / 16
"""So much of a latency is not noticed: within it fewer requests are better than fewer bytes."""
_FREE_WASTE = 2**16
"""Gaps of so many bytes together are always allowed."""
_WIDER = 4
"""A line that brought all that this process could receive is thought so many times wider."""
_GOLDEN = 0.6180339887498949


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
    byte_s: float = 0.0
    """Processor time that a byte takes."""
    max_direct: int = 0
    """As `max_request`, for bytes that are read straight into the result, if that is more."""
    is_observed: bool = False
    """The bandwidth was observed: more than twice the bytes may be fetched if that is faster."""
    is_exact: bool = False
    """The bandwidth is known, and need not be tried out."""

    @property
    def gap(self) -> int:
        """Number of unwanted bytes that cost as much as another request."""
        return int((self.latency_s / self.concurrency + self.request_s) * self.bandwidth)


REMOTE = Costs(
    latency_s=0.05,
    concurrency=128,
    request_s=0.00012,
    bandwidth=100e6,
    max_request=2 * 2**20,
    byte_s=0.5e-9,
)
"""Of a line of which nothing is known yet."""
LOCAL = Costs(
    latency_s=0,
    concurrency=1,
    request_s=5e-6,
    bandwidth=2e9,
    max_request=2**20,
    max_direct=2**23,
    byte_s=0.5e-9,
    is_observed=True,
    is_exact=True,
)


def costs_over(lines: Iterable[Line], concurrency: int) -> Costs:
    """Return the costs of requests over some lines, as far as these have been observed.

    Of several lines that of the least bandwidth counts, so that it is not filled with gaps.
    """
    known = [(line.latency_s, *_bandwidth(line)) for line in lines if line.latency_s is not None]
    costs = replace(REMOTE, concurrency=concurrency)
    if not known:
        return costs
    latency_s, bandwidth, is_observed, is_exact = min(known, key=lambda one: one[1])
    return replace(
        costs,
        latency_s=latency_s,
        bandwidth=bandwidth,
        is_observed=is_observed,
        is_exact=is_exact,
    )


def _bandwidth(line: Line) -> tuple[float, bool, bool]:
    """Return the bandwidth to reckon with, whether it was observed, and whether it is exact."""
    seen = line.bandwidth
    if seen is None or (line.is_wider and seen < REMOTE.bandwidth):
        return REMOTE.bandwidth, False, False
    return (_WIDER * seen, True, False) if line.is_wider else (seen, True, True)


def merge_parts(
    source: NDArray[np.int64] | None,
    offset: NDArray[np.int64],
    length: NDArray[np.int64],
    costs: Costs,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Join neighbouring parts, ordered by place, into fetches; return their bounds and lengths.

    Fetch i holds the parts from bounds[i] up to bounds[i + 1].

    Parameters
    ----------
    source, offset, length
        Columns of the parts, each of shape (parts,); a length of -1 means all that follows. None
        for `source` means that all are of one.
    costs
        What decides which gaps between parts are fetched.
    """
    if not offset.size:
        return np.zeros(1, np.int64), offset
    end = offset + length
    is_open = length < 0
    gap = offset[1:] - end[:-1]
    is_apart = is_open[1:] | is_open[:-1]
    if source is not None:
        is_apart |= source[1:] != source[:-1]
    begins = np.ones(offset.size, bool)
    begins[1:] = is_apart | (gap > 0)
    between = np.flatnonzero(~is_apart & (gap > 0))
    if between.size:
        needed = int(length[~is_open].sum())
        fetched = gaps_to_fetch(gap[between], needed, int(begins.sum()), costs)
        begins[1 + between[fetched]] = False
    run = offset[np.flatnonzero(begins)][np.cumsum(begins) - 1]
    size = (offset - run) // costs.max_request
    begins[1:] |= size[1:] != size[:-1]
    first = np.flatnonzero(begins)
    fetch_length = np.maximum.reduceat(end, first) - offset[first]
    fetch_length[is_open[first]] = -1
    return np.append(first, offset.size), fetch_length


def gaps_to_fetch(
    gap: NDArray[np.int64], needed: int, requests: int, costs: Costs
) -> NDArray[np.intp]:
    """Return the positions of the gaps that are fetched, the smallest first.

    Gaps of one width are taken from all over, so that requests are alike. Over a line that is not
    well known yet, gaps of about one width are taken from the beginning: the long requests that
    come of it are sent first, and show the bandwidth.

    Parameters
    ----------
    gap
        Bytes between neighbouring parts, shape (gaps,).
    needed
        Bytes of all parts together.
    requests
        How many there are when no gap is fetched.
    costs
        Of requests and bytes.
    """
    position = np.arange(gap.size)
    if costs.is_exact:
        order = np.lexsort((position * _GOLDEN % 1, gap))
    else:
        order = np.lexsort((position, np.floor(np.log2(gap / gap.min()))))
    wasted = np.append(0, np.cumsum(gap[order]))
    nbytes = needed + wasted
    count = np.maximum(requests - np.arange(nbytes.size), nbytes // costs.max_request)
    full_s = nbytes / costs.bandwidth
    waiting_s = (count * costs.latency_s + full_s) / costs.concurrency
    busy_s = count * costs.request_s + nbytes * costs.byte_s
    seconds = np.maximum(np.maximum(full_s, waiting_s), busy_s)
    if not costs.is_observed:
        seconds[wasted > max(needed, _FREE_WASTE)] = np.inf
    enough = seconds.min() + _SLACK * costs.latency_s
    most = int(np.flatnonzero(seconds <= enough)[-1])
    return order[:most]
