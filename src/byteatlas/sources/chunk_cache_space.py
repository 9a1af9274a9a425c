"""The room of a cache on disk: how much is taken, and what goes when there is no more.

Layout of the folder that a user names:

    byteatlas-chunks-1/             only its user can look inside
        CACHEDIR.TAG                programs that make backups pass it over
        taken                       bytes taken, u8, and their CRC-32, u4
        <32 hex digits>/            one source
            <16 hex digits>.pack    its chunks, see `byteatlas.sources.chunk_cache_packs`

Who needs room takes the lock on ``taken``, adds to it, and makes its pack longer before it lets
go; what is written into the pack comes afterwards, without the lock. So the bound holds whatever
several processes do at once. The system lets go of the lock of a process that dies. What a dead
process took is in the length of its packs, and goes with them.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from errno import EAGAIN, ENOSPC
from pathlib import Path
from stat import S_ISREG
from struct import Struct
from typing import NamedTuple

__all__ = ["NoRoom", "Pack", "Space", "packs_in", "packs_of", "remove_pack"]

FOLDER = "byteatlas-chunks-1"
PER_PACK = 8192
"""Bytes that a pack takes besides its own, for its folder and the end of its last block."""

_TAKEN = Struct("<QI")
_SOURCE = re.compile("[0-9a-f]{32}")
_PACK = re.compile("[0-9a-f]{16}\\.pack")
_PATIENCE_S = 0.5
"""Who waits longer for the lock goes without room: a process may have been stopped in it."""
_TAG = b"Signature: 8a477f597d28d172789f06886806bc55\n# Chunks that byteatlas fetched; may go.\n"


class NoRoom(OSError):
    """Nothing can be kept just now, though nothing is wrong with the folder."""


class Pack(NamedTuple):
    """A pack file as the file system shows it."""

    used_ns: int
    """When it was last written or read from, in nanoseconds since 1970."""
    size: int
    path: str


class Space:
    """The room that the packs of all sources share.

    Parameters
    ----------
    folder
        What the user named.
    limit
        Bytes that all packs take at most, `PER_PACK` for each included.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder / FOLDER
        self.limit = limit
        self._is_counted = False

    def take(self, count: int, lengthen: Callable[[], None]) -> None:
        """Take room for so many bytes, and call `lengthen` to claim it in a file.

        Packs that were not used for longest are removed first, until there is room and a
        sixteenth of the limit besides.

        Raises
        ------
        OSError
            The folder or its files cannot be written.
        """
        with self._locked() as handle:
            taken = _taken(handle) if self._is_counted else None
            if taken is None:
                taken = sum(pack.size + PER_PACK for pack in packs_in(self.folder))
            if taken + count > self.limit:
                taken = self._make_room(self.limit - self.limit // 16 - count)
            if taken + count > self.limit:
                raise NoRoom(ENOSPC, f"there is no room for {count} bytes")
            value = (taken + count).to_bytes(8, "little")
            os.pwrite(handle, _TAKEN.pack(taken + count, zlib.crc32(value)), 0)
            self._is_counted = True
            lengthen()

    def _make_room(self, target: int) -> int:
        """Remove packs until they take no more than so many bytes; return what they take then."""
        packs = sorted(packs_in(self.folder))
        taken = sum(pack.size + PER_PACK for pack in packs)
        for pack in packs:
            if taken <= target:
                break
            if remove_pack(pack.path):
                taken -= pack.size + PER_PACK
        return taken

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """Open and lock the file that tells how much is taken."""
        path = self.folder / "taken"
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        try:
            handle = os.open(path, flags, 0o600)
        except FileNotFoundError:
            self._make_folder()
            handle = os.open(path, flags, 0o600)
        try:
            _lock(handle)
            try:
                yield handle
            finally:
                with suppress(OSError):  # there are no locks here
                    fcntl.flock(handle, fcntl.LOCK_UN)  # a forked child may hold it open
        finally:
            os.close(handle)

    def _make_folder(self) -> None:
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self.folder.mkdir(0o700, exist_ok=True)
        with suppress(FileExistsError):
            tag = os.open(self.folder / "CACHEDIR.TAG", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            os.write(tag, _TAG)
            os.close(tag)


def packs_in(folder: Path) -> Iterator[Pack]:
    """Yield all packs of all sources, in no order; none where there is no folder.

    Raises
    ------
    OSError
        A folder is there, but cannot be read.
    """
    for source in _entries(folder, _SOURCE):
        yield from packs_of(Path(source.path))


def packs_of(folder: Path) -> Iterator[Pack]:
    """Yield the packs of one source, in no order; none where there is no folder.

    Raises
    ------
    OSError
        The folder is there, but cannot be read.
    """
    for entry in _entries(folder, _PACK):
        with suppress(FileNotFoundError):  # another process removed it
            status = entry.stat(follow_symlinks=False)
            if S_ISREG(status.st_mode):
                yield Pack(status.st_mtime_ns, status.st_size, entry.path)


def remove_pack(path: str) -> bool:
    """Remove a pack, and the folder of its source if it was the last; tell whether it is gone."""
    try:
        os.unlink(path)  # noqa: PTH108  # called very often
    except FileNotFoundError:  # another process was faster
        return True
    except OSError:  # it is another user's
        return False
    with suppress(OSError):  # it is not the last
        os.rmdir(os.path.dirname(path))  # noqa: PTH106, PTH120
    return True


def _entries(folder: Path, name: re.Pattern[str]) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return [entry for entry in found if name.fullmatch(entry.name)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _taken(handle: int) -> int | None:
    """Return the bytes taken; None where the file is new or damaged."""
    data = os.pread(handle, _TAKEN.size, 0)
    if len(data) < _TAKEN.size:
        return None
    taken, check = _TAKEN.unpack(data)
    return int(taken) if zlib.crc32(data[:8]) == check else None


def _lock(handle: int) -> None:
    """Lock a file until it is closed, if its file system knows locks."""
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise NoRoom(EAGAIN, "another process holds the lock") from None
            time.sleep(0.001)
        except OSError:  # without locks the bound may be passed by what is written at once
            return
        else:
            return
