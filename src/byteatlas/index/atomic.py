"""Write a file whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from byteatlas.errors import MissingDependency

__all__ = ["write_whole"]


def write_whole(
    path: str | os.PathLike[str],
    pieces: Iterable[bytes],
    *,
    storage_options: Mapping[str, Any] | None = None,
) -> None:
    """Write pieces of bytes as one file, so that there is the old file or the new one.

    A local file is written beside its place, flushed to the disk and then renamed over it: a
    crash at any time, or a full disk, leaves the old one as it was. Anything else is handed to
    its filesystem in one put.

    Parameters
    ----------
    path
        A local path (a symbolic link is followed) or any URL that fsspec can write to.
    pieces
        The content, in order.
    storage_options
        Options of the fsspec filesystem (Any: each filesystem's own).

    Raises
    ------
    OSError
        The file cannot be written.
    """
    text = os.fspath(path)
    if "://" in text and not text.startswith("file://"):
        _put(text, pieces, storage_options or {})
    else:
        _replace(Path(text.removeprefix("file://")).resolve(), pieces)


def _put(url: str, pieces: Iterable[bytes], storage_options: Mapping[str, Any]) -> None:
    import fsspec  # noqa: PLC0415  # slow to import, and local files do not need it

    try:
        filesystem, path = fsspec.url_to_fs(url, **storage_options)
    except ImportError as error:
        raise MissingDependency(f"writing needs another package: {error}", url=url) from error
    filesystem.pipe_file(path, b"".join(pieces))


def _replace(target: Path, pieces: Iterable[bytes]) -> None:
    beside = target.with_name(f".{target.name[:200]}.{secrets.token_hex(8)}.tmp")
    try:
        with beside.open("xb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    directory = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(directory)  # the new name, too, must survive a crash
    finally:
        os.close(directory)
