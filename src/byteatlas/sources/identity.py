"""Whether this is still the source that was seen before."""

from __future__ import annotations

import os
from dataclasses import replace

from byteatlas.errors import SourceChanged
from byteatlas.model import Source

__all__ = ["check_identity", "is_strong", "local_etag"]

_LOCAL = "stat:"


def check_identity(recorded: Source, seen: Source) -> Source:
    """Compare two sightings of a source, and return what is known from both.

    The size decides wherever both know it; then a strong ETag; then Last-Modified. A weak ETag
    promises equivalent content, not equal bytes, and decides nothing. Of a local file all count:
    size, modification time, and, on the same file system, inode and change time.

    Raises
    ------
    SourceChanged
        They differ. The error has both, as `recorded` and `seen`.
    """
    changed = _difference(recorded, seen)
    if changed:
        error = SourceChanged(f"the source changed: {changed}", hint="scan it again")
        error.recorded, error.seen = recorded, seen
        raise error
    size = seen.size if recorded.size is None else recorded.size
    etag = recorded.etag or seen.etag
    last_modified = recorded.last_modified or seen.last_modified
    if (size, etag, last_modified) == (recorded.size, recorded.etag, recorded.last_modified):
        return recorded
    return replace(recorded, size=size, etag=etag, last_modified=last_modified)


def _difference(recorded: Source, seen: Source) -> str | None:
    if recorded.size is not None and seen.size is not None and recorded.size != seen.size:
        return f"it had {recorded.size} bytes and has {seen.size}"
    if is_strong(recorded.etag) and is_strong(seen.etag):
        if recorded.etag == seen.etag:
            return None
        return f"its ETag was {recorded.etag} and is {seen.etag}"
    then, now = recorded.last_modified, seen.last_modified
    # An HTTP date and a file's nanoseconds cannot be compared: the index saw it by another way.
    if then and now and then != now and then.isdecimal() == now.isdecimal():
        return f"it was modified at {then} and is now of {now}"
    if _is_local(recorded.etag) and _is_local(seen.etag) and recorded.etag != seen.etag:
        where = [str(etag).partition("-")[0] for etag in (recorded.etag, seen.etag)]
        if where[0] == where[1]:
            return "it has its size and modification time, and was replaced or changed all the same"
    return None


def local_etag(status: os.stat_result, handle: int) -> str | None:
    """Return what a local file has in place of an ETag: file system, inode, change time.

    None where the system has no such thing. Inode and change time mean something only within one
    file system: a copy elsewhere that keeps size and modification time is taken for the same.
    """
    if not hasattr(os, "fstatvfs"):
        return None
    place = os.fstatvfs(handle).f_fsid & (2**64 - 1)
    return f"{_LOCAL}{place:x}-{status.st_ino:x}-{status.st_ctime_ns:x}"


def _is_local(etag: str | None) -> bool:
    return etag is not None and etag.startswith(_LOCAL)


def is_strong(etag: str | None) -> bool:
    """Tell whether an ETag is a server's promise of equal bytes."""
    return etag is not None and not etag.startswith(("W/", _LOCAL))
