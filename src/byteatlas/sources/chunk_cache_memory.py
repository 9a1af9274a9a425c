"""A cache of chunks in the memory of this process."""

from __future__ import annotations

import os
import secrets
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from byteatlas.model import Buffer, Source
from byteatlas.sources.chunk_cache import source_key
from byteatlas.sources.chunk_cache_ranges import KeptRanges

__all__ = ["MemoryCache"]

OVERHEAD = 384
"""Bytes that a kept range takes besides its own: its object, its place in the order of use and
its rows in columns, which may be there twice while runs are merged."""


class MemoryCache:
    """Keeps chunks in memory, those that were used last; for any number of threads.

    Pickled, it becomes an empty cache of the same size in another process, and stays the same
    one in its own.

    Parameters
    ----------
    limit
        Bytes that it takes at most, with all that it needs to find them.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._token = secrets.token_hex(16)
        self._empty()

    def _empty(self) -> None:
        self._guard = threading.Lock()
        self._process = os.getpid()
        self._used = 0
        self._next = 0
        self._forgotten = 0
        self._data: OrderedDict[int, bytes] = OrderedDict()  # by slot, the longest unused first
        self._ranges: dict[str, KeptRanges] = {}

    def __repr__(self) -> str:
        return f"MemoryCache({self.limit})"

    def __reduce__(self) -> tuple[Any, ...]:
        with _all_guard:
            _all[self._token] = self
        return _unpickled, (self._token, self.limit)

    @property
    def used(self) -> int:
        """Bytes that it takes now."""
        return self._used

    def get_many(
        self, source: Source, offset: NDArray[np.int64], length: NDArray[np.int64]
    ) -> list[Buffer | None]:
        """Return the bytes of ranges, None for each that is not kept; see `ChunkCache`."""
        answers: list[Buffer | None] = [None] * offset.size
        self._check_process()
        with self._guard:
            ranges = self._ranges.get(source_key(source) or "")
            if ranges is None:
                return answers
            found = ranges.find(offset, length)
            count = length[found.row]
            is_part = count != found.kept
            data, touch = self._data.get, self._data.move_to_end
            for row, slot in zip(found.row.tolist(), found.place.tolist(), strict=True):
                kept = data(slot)
                if kept is not None:
                    touch(slot)
                    answers[row] = kept
        for at in np.flatnonzero(is_part).tolist():
            row, skip = int(found.row[at]), int(found.skip[at])
            whole = answers[row]
            if isinstance(whole, bytes):
                answers[row] = memoryview(whole)[skip : skip + int(count[at])]
        return answers

    def holds(
        self, source: Source, offset: NDArray[np.int64], length: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Tell which ranges are kept, shape (ranges,); see `ChunkCache`."""
        answers = np.zeros(offset.size, bool)
        self._check_process()
        with self._guard:
            ranges = self._ranges.get(source_key(source) or "")
            if ranges is not None:
                found = ranges.find(offset, length)
                live = [slot in self._data for slot in found.place.tolist()]
                answers[found.row] = live
        return answers

    def put_many(
        self,
        source: Source,
        offset: NDArray[np.int64],
        length: NDArray[np.int64],
        data: Sequence[Buffer],
    ) -> None:
        """Keep ranges; see `ChunkCache`."""
        key = source_key(source)
        if key is None:
            return
        self._check_process()
        fits = np.flatnonzero(length + OVERHEAD <= self.limit)
        copies = {row: bytes(data[row]) for row in fits.tolist()}
        with self._guard:
            ranges = self._ranges.setdefault(key, KeptRanges(np.int64))
            found = ranges.find(offset, length)
            for row, slot in zip(found.row.tolist(), found.place.tolist(), strict=True):
                if slot in self._data:
                    copies.pop(row, None)
            rows = np.fromiter(copies, np.int64, len(copies))
            slots = np.arange(self._next, self._next + rows.size)
            self._next += rows.size
            self._data.update(zip(slots.tolist(), copies.values(), strict=True))
            self._used += int(length[rows].sum()) + OVERHEAD * rows.size
            ranges.add(offset[rows], length[rows], slots)
            while self._used > self.limit:
                _, oldest = self._data.popitem(last=False)
                self._used -= len(oldest) + OVERHEAD
                self._forgotten += 1
            if self._forgotten > len(self._data):
                self._forget()

    def discard(self, source: Source) -> None:
        """Forget all that is kept of a source as it was seen."""
        self._check_process()
        with self._guard:
            ranges = self._ranges.pop(source_key(source) or "", None)
            if ranges is None:
                return
            for slot in ranges.places().tolist():
                kept = self._data.pop(slot, None)
                if kept is not None:
                    self._used -= len(kept) + OVERHEAD

    def _forget(self) -> None:
        """Take the ranges out of the columns whose bytes are gone."""
        live = np.sort(np.fromiter(self._data, np.int64, len(self._data)))
        for key, ranges in list(self._ranges.items()):
            ranges.keep(np.isin(ranges.places(), live))
            if not len(ranges):
                del self._ranges[key]
        self._forgotten = 0

    def _check_process(self) -> None:
        """Begin anew in a forked child: another thread may have been at work in its parent."""
        if os.getpid() != self._process:
            self._empty()


# A reader that is pickled and read back in its own process must find its cache, and a cache must
# not outlive its readers: so it is known by name for as long as something holds it.
_all: WeakValueDictionary[str, MemoryCache] = WeakValueDictionary()
_all_guard = threading.Lock()


def _unpickled(token: str, limit: int) -> MemoryCache:
    with _all_guard:
        cache = _all.get(token)
        if cache is None:
            cache = MemoryCache(limit)
            cache._token = token  # noqa: SLF001  # its own module
            _all[token] = cache
        return cache
