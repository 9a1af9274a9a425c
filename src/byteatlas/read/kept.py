"""What a cache has of some read plans, before anything is fetched for them."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Self

import numpy as np
from numpy.typing import NDArray

from byteatlas.errors import SourceChanged, SourceMissing, without_query
from byteatlas.model import Buffer
from byteatlas.read.costs import Costs
from byteatlas.read.fetches import FetchPlan
from byteatlas.read.plan import ReadPlan
from byteatlas.sources import ByteSource
from byteatlas.sources.cached_source import CachedSource
from byteatlas.sources.streaming import Item

__all__ = ["KEPT", "KeptStream", "after_reading", "flush", "held_parts"]

KEPT = Costs(latency_s=0, concurrency=1, request_s=0, bandwidth=1, max_request=2**16)
"""Parts that a cache has are handed on together where they are neighbours: it has no gaps."""

_AT_ONCE = 2**20
"""Bytes that one thread takes from a cache at a time."""
_ASKED_AT_ONCE = 16
"""Sources that are asked at the same time how they look, where the index does not say."""


def held_parts(
    plans: Sequence[ReadPlan], source: Callable[[int], ByteSource]
) -> list[NDArray[np.bool_]] | None:
    """Return which parts of each plan a cache has, shape (parts,); None where there is no cache."""
    first = next(
        (0 if one.source is None else int(one.source[0]) for one in plans if one.offset.size), None
    )
    if first is None or not isinstance(source(first), CachedSource):  # all are, or none
        return None
    owners = [
        np.zeros(plan.offset.size, np.int64) if plan.source is None else plan.source
        for plan in plans
    ]
    held = [np.zeros(owner.size, bool) for owner in owners]
    used = [np.unique(owner).tolist() for owner in owners]
    cached: dict[int, CachedSource] = {}
    for position in set().union(*used):
        one = source(position)
        if isinstance(one, CachedSource):
            cached[position] = one
    _identify([one for one in cached.values() if not one.is_asked])
    for plan, owner, answers, positions in zip(plans, owners, held, used, strict=True):
        bounds = np.searchsorted(owner, [*positions, positions[-1] + 1] if positions else [])
        for position, low, high in zip(positions, bounds[:-1], bounds[1:], strict=True):
            if position in cached:
                mine = slice(low, high)
                answers[mine] = cached[position].holds(plan.offset[mine], plan.length[mine])
        if plan.missing_bytes is not None:
            np.logical_and(answers, plan.missing_bytes == 0, out=answers)
    return held


def _identify(sources: Sequence[CachedSource]) -> None:
    """Ask sources how they look, several at a time."""
    if sources:
        with ThreadPoolExecutor(min(len(sources), _ASKED_AT_ONCE)) as threads:
            list(threads.map(CachedSource.identity, sources))


@contextmanager
def after_reading(sources: Sequence[ByteSource]) -> Iterator[None]:
    """Keep what is left to be kept; of sources that turn out to have changed keep nothing."""
    cached = [one for one in sources if isinstance(one, CachedSource)]
    try:
        yield
    except SourceChanged as error:
        for one in cached:
            if without_query(one.url) == error.url:
                one.discard()
        raise
    finally:
        flush(cached)


def flush(sources: Iterable[ByteSource]) -> None:
    """Have all that waits to be kept in a cache kept now."""
    for one in sources:
        if isinstance(one, CachedSource):
            one.flush()


class KeptStream:
    """A stream (`byteatlas.sources.streaming.Stream`) of what a cache has.

    Each thread takes about a mebibyte at a time. A fetch of which something is gone by then, or
    is damaged, comes as an error.

    Parameters
    ----------
    sources
        What the fetches are of.
    owner
        Position in `sources` of each fetch, ascending, shape (fetches,).
    fetches
        Parts that are held, merged without gaps.
    offset, length
        Of each part, in the order of the fetches, shape (parts,).
    """

    def __init__(
        self,
        sources: Sequence[ByteSource],
        owner: NDArray[np.int64],
        fetches: FetchPlan,
        offset: NDArray[np.int64],
        length: NDArray[np.int64],
    ) -> None:
        self._sources = sources
        self._owner = owner
        self._fetches = fetches
        self._offset = offset
        self._length = length
        end = np.cumsum(np.maximum(fetches.length, 0))
        group = end // _AT_ONCE
        begins = np.flatnonzero((np.diff(group) > 0) | (np.diff(owner) > 0)) + 1
        self._groups = [0, *begins.tolist(), owner.size]
        self._next = itertools.count()
        self._own = threading.local()
        self._is_stopped = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def __iter__(self) -> Self:
        return self

    def stop(self) -> None:
        """Have all threads see the end."""
        self._is_stopped = True

    def __next__(self) -> Item:
        waiting: deque[Item] | None = getattr(self._own, "waiting", None)
        if not waiting:
            group = next(self._next)
            if self._is_stopped or group >= len(self._groups) - 1:
                raise StopIteration
            waiting = self._own.waiting = self._read(*self._groups[group : group + 2])
        return waiting.popleft()

    def _read(self, first: int, stop: int) -> deque[Item]:
        """Read the fetches from `first` up to `stop`, all of one source."""
        bounds: list[int] = self._fetches.bounds[first : stop + 1].tolist()
        parts = slice(bounds[0], bounds[-1])
        source = self._sources[int(self._owner[first])]
        assert isinstance(source, CachedSource)  # others hold nothing
        offset = self._offset[parts]
        kept = source.kept(offset, self._length[parts])
        begins: list[int] = self._fetches.offset[first:stop].tolist()
        lengths: list[int] = self._fetches.length[first:stop].tolist()
        items: deque[Item] = deque()
        for number, (begin, length) in enumerate(zip(begins, lengths, strict=True)):
            low, high = bounds[number] - parts.start, bounds[number + 1] - parts.start
            whole = _joined(kept[low:high], offset[low:high], begin, length)
            items.append(
                (first + number, SourceMissing("no longer kept") if whole is None else whole)
            )
        return items


def _joined(
    pieces: Sequence[Buffer | None], offset: NDArray[np.int64], begin: int, length: int
) -> Buffer | None:
    """Return pieces that lie without gaps, as one; None where one of them is missing."""
    if len(pieces) == 1:
        return pieces[0]
    if any(piece is None for piece in pieces):
        return None
    some = [piece for piece in pieces if piece is not None]
    if sum(map(len, some)) == length:  # they do not overlap
        return b"".join(some)  # type: ignore[arg-type]  # numpy arrays are buffers too
    whole = bytearray(length)
    for at, piece in zip(offset.tolist(), some, strict=True):
        whole[at - begin : at - begin + len(piece)] = piece
    return whole
