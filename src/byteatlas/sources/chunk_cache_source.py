"""What a cache on disk keeps of one source: its packs, and what is known of them."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Sequence
from errno import EAGAIN
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from byteatlas.model import Buffer
from byteatlas.sources.chunk_cache_packs import (
    PLACE,
    Batch,
    batch_size,
    read_batches,
    read_chunks,
    write_batch,
)
from byteatlas.sources.chunk_cache_ranges import Found, KeptRanges
from byteatlas.sources.chunk_cache_space import PER_PACK, NoRoom, Space, packs_of, remove_pack

__all__ = ["KeptSource"]

REFRESH_S = 1.0
"""What other processes have kept is looked for when something lacks, but not more often."""
TOUCH_S = 10.0
"""That a pack was used is noted in its modification time, but not more often."""


class KeptSource:
    """The packs of one source, and what is in them. For several threads at once."""

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder
        self.key = key
        self.writing = threading.Lock()
        """Held by the one thread that appends."""
        self._guard = threading.Lock()
        self._ranges = KeptRanges(PLACE)
        self._paths: list[str] = []  # by number
        self._numbers: dict[str, int] = {}  # by path, of those that are there
        self._ends: list[int] = []  # by number: where the next batch will begin
        self._touched: list[float] = []  # by number
        self._looked_at = -REFRESH_S
        self._own: int | None = None  # the pack that this process appends to

    def find(self, offset: NDArray[np.int64], length: NDArray[np.int64]) -> Found:
        """Return what is kept of some ranges; look for news where something lacks.

        Raises
        ------
        OSError
            The folder is there, but cannot be read.
        """
        with self._guard:
            found = self._ranges.find(offset, length)
            if found.row.size < offset.size and self._is_time():
                self._look_for_packs()
                found = self._ranges.find(offset, length)
            return found

    def look_up(self, offset: NDArray[np.int64], length: NDArray[np.int64]) -> Found:
        """Return what is known to be kept of some ranges."""
        with self._guard:
            return self._ranges.find(offset, length)

    def read(
        self,
        number: int,
        found: Found,
        mine: NDArray[np.intp],
        length: NDArray[np.int64],
        answers: list[Buffer | None],
    ) -> None:
        """Read what was found in one pack, and put it among the answers.

        Parameters
        ----------
        number
            Of the pack.
        found
            What `find` returned.
        mine
            Positions in `found` of what lies in this pack, shape (parts,).
        length
            Bytes of each range asked for.
        answers
            One for each range asked for. Those that are gone or damaged stay as they are.

        Raises
        ------
        OSError
            The pack is there, but cannot be read.
        """
        path = self._paths[number]
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            self._forget(number)
            return
        place = found.place[mine]
        position, first, which = np.unique(
            place["position"], return_index=True, return_inverse=True
        )
        order = np.argsort(which, kind="stable")
        bounds = np.searchsorted(which[order], np.arange(position.size + 1)).tolist()
        row, skip = found.row[mine][order], found.skip[mine][order]
        rows, skips, counts = row.tolist(), skip.tolist(), length[row].tolist()
        try:
            whole = found.kept[mine][first]
            chunks = read_chunks(handle, position, whole, place["crc"][first])
            is_well = True
            for chunk, low, high in zip(chunks, bounds[:-1], bounds[1:], strict=True):
                if chunk is None:
                    is_well = False
                    continue
                for at in range(low, high):
                    part = chunk
                    if counts[at] != len(chunk):  # copied, so that the rest need not be held
                        part = memoryview(bytes(chunk[skips[at] : skips[at] + counts[at]]))
                    answers[rows[at]] = part
            if not is_well:
                self._forget(number)
                remove_pack(path)
            elif time.monotonic() > self._touched[number] + TOUCH_S:
                self._touched[number] = time.monotonic()
                _touch(handle)
        finally:
            os.close(handle)

    def append(
        self,
        space: Space,
        offset: NDArray[np.int64],
        length: NDArray[np.int64],
        data: Sequence[Buffer],
        largest: int,
    ) -> None:
        """Write a batch into this process's pack, or into a new one; `writing` is held."""
        size = batch_size(length)
        handle = self._open_own(largest)
        number, is_new = self._own, handle is None
        path = str(self.folder / f"{secrets.token_hex(8)}.pack")
        start = 0

        def lengthen() -> None:
            nonlocal handle, start, is_new
            if handle is not None and not os.fstat(handle).st_nlink:  # removed to make room
                os.close(handle)
                handle, is_new = None, True
            if handle is None:
                handle = _create(path)
            else:
                start = os.fstat(handle).st_size
            os.ftruncate(handle, start + size)

        try:
            self._own = None  # unless all goes well
            space.take(size + PER_PACK * is_new, lengthen)
            assert handle is not None
            batch = write_batch(handle, start, self.key, offset, length, data)
        except OSError:
            if handle is not None and is_new:
                remove_pack(path)
            elif handle is not None and start:
                os.ftruncate(handle, start)
            raise
        finally:
            if handle is not None:
                os.close(handle)
        with self._guard:
            if number is None or is_new:
                number = self._number(path)
            self._own = number
            self._add(number, [batch], start + size)

    def _open_own(self, largest: int) -> int | None:
        """Open this process's pack for writing; None where a new one is to be begun."""
        own = self._own
        if own is None or self._ends[own] >= largest:
            return None
        try:
            return os.open(self._paths[own], os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:  # it was removed to make room
            self._forget(own)
            return None

    def discard(self) -> None:
        """Remove all packs.

        Raises
        ------
        OSError
            The folder is there, but cannot be read. What is in it is forgotten all the same.
        """
        with self.writing, self._guard:
            self._ranges = KeptRanges(PLACE)
            self._numbers.clear()
            self._own = None
            for pack in packs_of(self.folder):
                remove_pack(pack.path)

    def _is_time(self) -> bool:
        now = time.monotonic()
        if now < self._looked_at + REFRESH_S:
            return False
        self._looked_at = now
        return True

    def _look_for_packs(self) -> None:
        """Read the columns of packs that are new or have grown, and forget those that are gone."""
        gone = dict(self._numbers)
        for pack in packs_of(self.folder):
            gone.pop(pack.path, None)
            known = self._numbers.get(pack.path)
            if known is None or pack.size > self._ends[known]:
                self._read_columns(pack.path, pack.size)
        for path, number in gone.items():
            del self._numbers[path]
            self._drop(number)

    def _read_columns(self, path: str, size: int) -> None:
        number = self._number(path)
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # removed meanwhile, or another user's
            return
        try:
            batches, end, is_well = read_batches(handle, self._ends[number], size, self.key)
        except OSError:  # the disk is damaged
            return
        finally:
            os.close(handle)
        self._add(number, batches, end)
        if not is_well:
            remove_pack(path)
            del self._numbers[path]
            self._drop(number)

    def _number(self, path: str) -> int:
        number = self._numbers.get(path)
        if number is None:
            number = self._numbers[path] = len(self._paths)
            self._paths.append(path)
            self._ends.append(0)
            self._touched.append(-TOUCH_S)
        return number

    def _add(self, number: int, batches: Sequence[Batch], end: int) -> None:
        for batch in batches:
            batch.place["pack"] = number
            self._ranges.add(batch.offset, batch.length, batch.place)
        self._ends[number] = end

    def _forget(self, number: int) -> None:
        with self._guard:
            self._numbers.pop(self._paths[number], None)
            self._drop(number)

    def _drop(self, number: int) -> None:
        if self._own == number:
            self._own = None
        self._ranges.keep(self._ranges.places()["pack"] != number)


def _create(path: str) -> int:
    """Create a pack, and the folder of its source."""
    for _ in range(3):
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:  # another process may remove the folder while it is empty
            Path(path).parent.mkdir(0o700, exist_ok=True)
    raise NoRoom(EAGAIN, "the folder of the source vanishes")


def _touch(handle: int) -> None:
    """Note in a file's modification time that it was used."""
    try:
        os.utime(handle)
    except OSError:  # a folder that can only be read has no order of use
        return
