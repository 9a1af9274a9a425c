"""A cache of chunks in a folder, shared by all processes that name it."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byteatlas.model import Buffer, Source
from byteatlas.sources.chunk_cache import source_key
from byteatlas.sources.chunk_cache_packs import batch_size
from byteatlas.sources.chunk_cache_source import KeptSource
from byteatlas.sources.chunk_cache_space import PER_PACK, NoRoom, Space

__all__ = ["CacheWarning", "DiskCache"]

LARGEST_PACK = 2**26
"""Bytes after which a new pack is begun; packs are what is removed when there is no more room."""
_ALONE = batch_size(np.zeros(1, np.int64)) + PER_PACK
"""Bytes that the only chunk of a pack takes besides its own."""
PAUSE_S = 60.0
"""After the folder could not be written, it is left alone for so long."""


class CacheWarning(UserWarning):
    """The folder of a cache cannot be used; what is read is right, only not kept."""


class DiskCache:
    """Keeps chunks in a folder, those that were used last; for any number of processes.

    No more is kept open than what is being read or written. A process that dies at any moment
    leaves the folder in order. A damaged file is removed and never served.

    Parameters
    ----------
    folder
        Absolute path. It is made when something is first kept; what is in it is readable by its
        user alone.
    limit
        Bytes that it takes at most.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._guard = threading.Lock()
        self._space = Space(self.folder, self.limit)
        self._kept: dict[str, KeptSource] = {}
        self._is_told = False
        self._rests_until = 0.0
        self._is_ours: bool | None = None

    def __repr__(self) -> str:
        return f"DiskCache({str(self.folder)!r}, {self.limit})"

    def __reduce__(self) -> tuple[Any, ...]:
        return DiskCache, (self.folder, self.limit)

    def get_many(
        self, source: Source, offset: NDArray[np.int64], length: NDArray[np.int64]
    ) -> list[Buffer | None]:
        """Return the bytes of ranges, None for each that is not kept; see `ChunkCache`."""
        kept = self._source(source)
        answers: list[Buffer | None] = [None] * offset.size
        if kept is None or not offset.size:
            return answers
        try:
            found = kept.find(offset, length)
        except OSError as error:
            self._tell(error, "read")
            return answers
        pack = found.place["pack"]
        for number in np.unique(pack).tolist():
            mine = np.flatnonzero(pack == number)
            try:
                kept.read(number, found, mine, length, answers)
            except OSError as error:
                self._tell(error, "read")
        return answers

    def holds(
        self, source: Source, offset: NDArray[np.int64], length: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Tell which ranges are kept, shape (ranges,); see `ChunkCache`."""
        answers = np.zeros(offset.size, bool)
        kept = self._source(source)
        if kept is None:
            return answers
        try:
            answers[kept.find(offset, length).row] = True
        except OSError as error:
            self._tell(error, "read")
        return answers

    def put_many(
        self,
        source: Source,
        offset: NDArray[np.int64],
        length: NDArray[np.int64],
        data: Sequence[Buffer],
    ) -> None:
        """Keep ranges; see `ChunkCache`. A warning is given once if the folder cannot be written.

        Warns
        -----
        CacheWarning
            The folder cannot be written. It is tried again after a minute.
        """
        kept = self._source(source)
        if kept is None or time.monotonic() < self._rests_until:
            return
        largest = min(LARGEST_PACK, max(self.limit // 16, PER_PACK))
        try:
            with kept.writing:
                lacks = np.ones(offset.size, bool)
                lacks[kept.look_up(offset, length).row] = False
                lacks &= length + _ALONE <= self.limit
                rows = np.flatnonzero(lacks)
                order = np.cumsum(length[rows]) // largest
                for batch in np.split(rows, np.flatnonzero(np.diff(order)) + 1):
                    if batch.size:
                        several = [data[row] for row in batch.tolist()]
                        kept.append(self._space, offset[batch], length[batch], several, largest)
        except NoRoom:
            return
        except OSError as error:
            self._rests_until = time.monotonic() + PAUSE_S
            self._tell(error, "written")

    def discard(self, source: Source) -> None:
        """Forget all that is kept of a source as it was seen."""
        kept = self._source(source)
        if kept is None:
            return
        try:
            kept.discard()
        except OSError as error:
            self._tell(error, "read")

    def _source(self, source: Source) -> KeptSource | None:
        """Return what is kept of a source, None where nothing may be."""
        if os.getpid() != self._process:  # a pack is written by one process only
            self._begin()
        key = source_key(source)
        if key is None or not self._may_be_used():
            return None
        with self._guard:
            kept = self._kept.get(key)
            if kept is None:
                kept = self._kept[key] = KeptSource(self._space.folder / key, key)
            return kept

    def _may_be_used(self) -> bool:
        """Tell whether nobody else can have put anything into the folder; it may not exist yet."""
        if self._is_ours is None:
            try:
                status = self._space.folder.stat()
            except OSError:
                return True
            is_of_other = status.st_uid not in (os.geteuid(), 0)
            self._is_ours = not is_of_other and not status.st_mode & 0o022
            if not self._is_ours:
                reason = "it is another user's" if is_of_other else "other users can write into it"
                self._tell(PermissionError(reason), "trusted")
        return self._is_ours

    def _tell(self, error: OSError, what: str) -> None:
        """Warn, once, that the folder cannot be used."""
        if not self._is_told:
            self._is_told = True
            reason = error.strerror or error
            warnings.warn(
                f"the cache in {self.folder} cannot be {what}: {reason}; reading goes on without",
                CacheWarning,
                stacklevel=4,
            )
