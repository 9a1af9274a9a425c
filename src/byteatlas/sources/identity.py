"""Whether this is still the source that was seen before."""

from __future__ import annotations

from dataclasses import replace

from byteatlas.errors import SourceChanged
from byteatlas.model import Source

__all__ = ["check_identity"]


def check_identity(recorded: Source, seen: Source) -> Source:
    """Compare two sightings of a source, and return what is known from both.

    The size decides wherever both know it; then a strong ETag; then Last-Modified. A weak ETag
    promises equivalent content, not equal bytes, and decides nothing.

    Raises
    ------
    SourceChanged
        They differ.
    """
    changed = _difference(recorded, seen)
    if changed:
        raise SourceChanged(f"the source changed: {changed}", hint="scan it again")
    return replace(
        recorded,
        size=seen.size if recorded.size is None else recorded.size,
        etag=recorded.etag or seen.etag,
        last_modified=recorded.last_modified or seen.last_modified,
    )


def _difference(recorded: Source, seen: Source) -> str | None:
    if recorded.size is not None and seen.size is not None and recorded.size != seen.size:
        return f"it had {recorded.size} bytes and has {seen.size}"
    if _is_strong(recorded.etag) and _is_strong(seen.etag):
        if recorded.etag == seen.etag:
            return None
        return f"its ETag was {recorded.etag} and is {seen.etag}"
    then, now = recorded.last_modified, seen.last_modified
    # An HTTP date and a file's nanoseconds cannot be compared: the index saw it by another way.
    if then and now and then != now and then.isdecimal() == now.isdecimal():
        return f"it was modified at {then} and is now of {now}"
    return None


def _is_strong(etag: str | None) -> bool:
    return etag is not None and not etag.startswith("W/")
