"""Write a directory of files whole or not at all."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from byteatlas.errors import ByteatlasError, MissingDependency, SourceError, Unsupported
from byteatlas.index.atomic import (
    check_revision,
    refuse_web,
    remove_leftovers,
    temporary_name,
)
from byteatlas.index.parquet_layout import METADATA

__all__ = ["is_directory_index", "write_directory"]

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def write_directory(
    path: str | os.PathLike[str],
    files: Iterable[tuple[str, bytes]],
    *,
    storage_options: Mapping[str, Any] | None = None,
    if_unchanged: str | None = None,
) -> None:
    """Write files as one directory, so that there is the old index or the new one.

    Locally the files are written into a directory beside its place and flushed to the disk; then
    the two change places in one step (where the system cannot do that, in two, of which the first
    is undone when the second fails). What a writer that was killed left behind, the next one
    removes. On a server, all is written beside an index that is there already, and only then
    copied over it, the metadata last; in that last step the old index is not to be read.

    Parameters
    ----------
    path
        A local path (a symbolic link is followed) or any URL that fsspec can write to.
    files
        Name below the directory and content of each; the metadata last.
    storage_options
        Options of the fsspec filesystem (Any: each filesystem's own).
    if_unchanged
        Replace only the index that has this `byteatlas.index.revision`.

    Raises
    ------
    OSError
        It cannot be written, or what is there is no index; the error names it.
    Conflict
        The index is another one by now. It is left as it is.
    Unsupported
        `if_unchanged` is given for a directory that is not local.
    """
    text = os.fspath(path)
    if "://" not in text or text.startswith("file://"):
        _replace(Path(text.removeprefix("file://")).resolve(), files, if_unchanged)
    elif if_unchanged is None:
        _put(text, files, storage_options or {})
    else:
        raise Unsupported("only local indexes are replaced on condition", url=text)


def is_directory_index(path: Path) -> bool:
    """Tell whether a local directory is an index, and no other Zarr store."""
    try:
        with (path / METADATA).open("rb") as file:
            return isinstance(json.load(file).get("record_size"), int)
    except (OSError, ValueError, AttributeError, RecursionError):
        return False


def _replace(target: Path, files: Iterable[tuple[str, bytes]], if_unchanged: str | None) -> None:
    try:
        _check_replaceable(target)
        remove_leftovers(target, os.O_RDONLY | os.O_DIRECTORY, _remove)
        with _beside(target) as beside:
            made = {beside}
            for name, content in files:
                file = beside / name
                if file.parent not in made:
                    file.parent.mkdir(parents=True, exist_ok=True)
                    made.update(parent for parent in file.parents if beside in parent.parents)
                _write(file, content)
            for directory in made:
                _flush(directory)
            parent = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                if if_unchanged is not None:
                    fcntl.flock(parent, fcntl.LOCK_EX)  # until it is closed
                    check_revision(target, if_unchanged)
                _change_places(beside, target)
                os.fsync(parent)
            finally:
                os.close(parent)
    except OSError as error:
        if error.errno is None or isinstance(error, ByteatlasError):
            raise
        raise OSError(error.errno, error.strerror, str(target)) from error


def _check_replaceable(target: Path) -> None:
    if target.is_dir():
        if any(target.iterdir()) and not is_directory_index(target):
            raise FileExistsError(errno.EEXIST, "a directory that is no index", str(target))
    elif target.exists():
        raise FileExistsError(errno.EEXIST, "a file that is no directory", str(target))


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """Create a locked directory beside a target, and remove what has its name afterwards."""
    beside = temporary_name(target)
    beside.mkdir()
    handle = os.open(beside, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # without locks nobody removes leftovers either
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield beside
    finally:
        shutil.rmtree(beside, ignore_errors=True)  # the old index, or what could not be finished
        os.close(handle)


def _remove(name: str) -> None:
    shutil.rmtree(name, ignore_errors=True)


def _write(file: Path, content: bytes) -> None:
    with file.open("xb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())


def _flush(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _change_places(beside: Path, target: Path) -> None:
    """Put a directory in the place of a target; what was there gets its name."""
    try:
        beside.rename(target)  # there is none, or an empty one
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    else:
        return
    if _exchange(beside, target):
        return
    aside = beside.with_name(beside.name.removesuffix(".tmp") + ".old")
    target.rename(aside)
    try:
        beside.rename(target)
    except BaseException:
        aside.rename(target)
        raise
    aside.rename(beside)


def _exchange(one: Path, other: Path) -> bool:
    """Let two directories change places in one step; tell whether the system can."""
    if sys.platform != "linux":
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    names = os.fsencode(one), os.fsencode(other)
    if rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(other))


# On a server


def _put(url: str, files: Iterable[tuple[str, bytes]], storage_options: Mapping[str, Any]) -> None:
    refuse_web(url)
    import fsspec  # noqa: PLC0415  # slow to import, and local files do not need it

    try:
        filesystem, root = fsspec.url_to_fs(url, **storage_options)
    except ImportError as error:
        raise MissingDependency(f"writing needs another package: {error}", url=url) from error
    root = root.rstrip("/")
    with tempfile.TemporaryDirectory() as folder:
        names = []
        for name, content in files:  # all of them, before anything there is touched
            file = Path(folder, name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
            names.append(name)
        *partitions, metadata = names
        if not filesystem.exists(root):
            _upload(filesystem, folder, root, partitions, metadata)
            return
        _check_replaceable_there(filesystem, root, url)
        beside = f"{root}.{secrets.token_hex(8)}.tmp"
        stale = {f"{root}/{name}" for name in names}
        _upload(filesystem, folder, beside, partitions, metadata)
        old = [found for found in filesystem.find(root) if found.rpartition("/")[2] != METADATA]
        for name in (*partitions, metadata):
            parent = f"{root}/{name}".rpartition("/")[0]
            filesystem.makedirs(parent, exist_ok=True)
            filesystem.copy(f"{beside}/{name}", f"{root}/{name}")
        gone = [found for found in old if f"/{found.lstrip('/')}" not in _rooted(stale)]
        if gone:
            filesystem.rm(gone)
        filesystem.rm(beside, recursive=True)


def _rooted(names: Iterable[str]) -> set[str]:
    return {f"/{name.lstrip('/')}" for name in names}


def _check_replaceable_there(filesystem: Any, root: str, url: str) -> None:
    try:
        is_index = "record_size" in json.loads(filesystem.cat_file(f"{root}/{METADATA}"))
    except (OSError, ValueError, TypeError):
        is_index = not filesystem.ls(root)
    if not is_index:
        raise FileExistsError(errno.EEXIST, "what is there is no index", url)


def _upload(filesystem: Any, folder: str, root: str, partitions: list[str], metadata: str) -> None:
    """Upload an index into a place of its own, the metadata last; or leave nothing there."""
    try:
        for parent in sorted({f"{root}/{name}".rpartition("/")[0] for name in partitions} | {root}):
            filesystem.makedirs(parent, exist_ok=True)
        for names in (partitions, [metadata]):
            if names:
                local = [f"{folder}/{name}" for name in names]
                filesystem.put(local, [f"{root}/{name}" for name in names])
        for name in (*partitions, metadata):
            _check_arrived(filesystem, f"{root}/{name}", Path(folder, name).stat().st_size)
    except BaseException:
        with suppress(OSError):  # what went wrong before is told
            filesystem.rm(root, recursive=True)
        raise


def _check_arrived(filesystem: Any, name: str, size: int) -> None:
    found = filesystem.size(name)
    if found != size:
        raise SourceError(f"{found} bytes arrived, {size} were written", url=name)
