"""Write a file whole or not at all."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

from byteatlas.errors import Conflict, MissingDependency, Unsupported
from byteatlas.index.parquet_layout import METADATA

__all__ = [
    "check_revision",
    "refuse_web",
    "remove_leftovers",
    "revision",
    "temporary_name",
    "write_whole",
]

_STEP = 2**20


def write_whole(
    path: str | os.PathLike[str],
    pieces: Iterable[bytes],
    *,
    storage_options: Mapping[str, Any] | None = None,
    if_unchanged: str | None = None,
) -> None:
    """Write pieces of bytes as one file, so that there is the old file or the new one.

    A local file is written beside its place, flushed to the disk and then renamed over it: a
    crash at any time, or a full disk, leaves the old one as it was. What a writer that was killed
    left behind, the next one removes. Anything else is handed to its filesystem in one put, which
    object stores do whole or not at all.

    Parameters
    ----------
    path
        A local path (a symbolic link is followed) or any URL that fsspec can write to.
    pieces
        The content, in order.
    storage_options
        Options of the fsspec filesystem (Any: each filesystem's own).
    if_unchanged
        Replace only the file that has this `revision`. Of several writers that give the same one,
        one succeeds. (Writers that give none are not waited for.)

    Raises
    ------
    OSError
        The file cannot be written; the error names it.
    Conflict
        The file is another one by now. It is left as it is.
    Unsupported
        The file is on a web server, or `if_unchanged` is given for one that is not local.
    """
    text = os.fspath(path)
    if "://" not in text or text.startswith("file://"):
        _replace(Path(text.removeprefix("file://")).resolve(), pieces, if_unchanged)
    elif if_unchanged is None:
        _put(text, pieces, storage_options or {})
    else:
        raise Unsupported("only local files are replaced on condition", url=text)


def refuse_web(url: str) -> None:
    """Refuse a place on a web server, which gives files and takes none.

    Raises
    ------
    Unsupported
        It is one.
    """
    if url.lower().startswith(("http://", "https://")):
        raise Unsupported(
            "a web server takes no files", url=url, hint="write to a local path or to a bucket"
        )


def revision(path: str | os.PathLike[str]) -> str:
    """Return what tells the content of a local index from any other; "" where there is none.

    Of a directory that is the metadata in it, which knows a digest of every other file.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    digest = blake2b(digest_size=16)
    target = Path(os.fspath(path).removeprefix("file://"))
    try:
        with (target / METADATA if target.is_dir() else target).open("rb") as file:
            while piece := file.read(_STEP):
                digest.update(piece)
    except FileNotFoundError:
        return ""
    return digest.hexdigest()


def _put(url: str, pieces: Iterable[bytes], storage_options: Mapping[str, Any]) -> None:
    refuse_web(url)
    import fsspec  # noqa: PLC0415  # slow to import, and local files do not need it

    try:
        filesystem, path = fsspec.url_to_fs(url, **storage_options)
    except ImportError as error:
        raise MissingDependency(f"writing needs another package: {error}", url=url) from error
    filesystem.pipe_file(path, b"".join(pieces))


def _replace(target: Path, pieces: Iterable[bytes], if_unchanged: str | None) -> None:
    try:
        remove_leftovers(target, os.O_WRONLY, os.unlink)
        with _beside(target) as (handle, name):
            for piece in pieces:
                _write(handle, piece)
            os.fsync(handle)
            directory = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                if if_unchanged is not None:
                    fcntl.flock(directory, fcntl.LOCK_EX)  # until it is closed
                    check_revision(target, if_unchanged)
                os.rename(name, target)  # noqa: PTH104  # as all calls here, on what os offers
                os.fsync(directory)  # the new name, too, must survive a crash
            finally:
                os.close(directory)
    except OSError as error:
        if error.errno is None:  # not of a system call
            raise
        raise OSError(error.errno, error.strerror, str(target)) from error


@contextmanager
def _beside(target: Path) -> Iterator[tuple[int, str]]:
    """Create a locked file beside a target, and remove it unless it was renamed."""
    handle, name = _create(target)
    try:
        try:
            yield handle, name
        except BaseException:
            _unlink(name)
            raise
    finally:
        os.close(handle)


def _create(target: Path) -> tuple[int, str]:
    """Create and lock a file beside a target; its lock shows that its writer lives."""
    while True:
        name = str(temporary_name(target))
        handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            if _lock(handle) and os.fstat(handle).st_nlink:
                return handle, name
        except BaseException:
            _unlink(name)
            os.close(handle)
            raise
        os.close(handle)  # another writer takes it for a leftover


def _lock(handle: int) -> bool:
    """Lock a file, and tell whether nobody else has."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a filesystem without locks: then nobody removes leftovers either
        return True
    return True


def _unlink(name: str) -> None:
    with suppress(OSError):  # what went wrong before is told; the next writer removes it
        os.unlink(name)  # noqa: PTH108


def temporary_name(target: Path) -> Path:
    """Return a new name beside a target, by which `remove_leftovers` knows it."""
    return target.with_name(f"{_lead(target)}{secrets.token_hex(8)}.tmp")


def _lead(target: Path) -> str:
    return f".{target.name[:200]}."


def remove_leftovers(target: Path, flags: int, remove: Callable[[str], None]) -> None:
    """Remove what killed writers left beside a target; what living ones have is locked.

    Parameters
    ----------
    target
        What they were writing.
    flags
        By which what they wrote is opened, to be locked.
    remove
        Removes it.
    """
    ours = re.compile(re.escape(_lead(target)) + "[0-9a-f]{16}\\.tmp")
    with os.scandir(target.parent) as found:
        names = [entry.path for entry in found if ours.fullmatch(entry.name)]
    for name in names:
        with suppress(OSError):  # somebody else removed it, or it is not ours to remove
            handle = os.open(name, flags | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove(name)
            finally:
                os.close(handle)


def check_revision(target: Path, if_unchanged: str) -> None:
    """Refuse a target that has another revision than this.

    Raises
    ------
    Conflict
        It has.
    """
    found = revision(target)
    if found != if_unchanged:
        raise Conflict(
            f"the index has revision {found or 'none'}, expected {if_unchanged or 'none'}",
            url=str(target),
            hint="another writer replaced it; read it again and repeat",
        )


def _write(handle: int, piece: bytes) -> None:
    rest = memoryview(piece)
    while rest:
        rest = rest[os.write(handle, rest) :]
