"""What an HTTP answer to a range request says, and whether it may be used: no I/O.

Status codes, Range, Content-Range and If-Range as in RFC 9110, sections 14 and 15.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import NamedTuple

from byteatlas.errors import (
    RangeIgnored,
    ShortRead,
    SourceChanged,
    SourceDenied,
    SourceError,
    SourceMissing,
)
from byteatlas.model import Source

__all__ = ["Body", "body_promised", "identity_in", "phrase"]

_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)\s*$", re.IGNORECASE)

_SPARE = 64 * 2**10
"""A whole file sent in place of a range is taken when it is so much longer at most."""


class Body(NamedTuple):
    """The bytes of the source that an answer's body promises to be."""

    offset: int
    length: int


def identity_in(url: str, status: int, headers: Mapping[str, str]) -> Source:
    """Return the source as an answer's headers show it."""
    size: int | None = None
    if status == HTTPStatus.OK:
        size = _content_length(headers)
    elif match := _CONTENT_RANGE.match(headers.get("Content-Range", "")):
        size = None if match[3] == "*" else int(match[3])
    return Source(url, size, headers.get("ETag"), headers.get("Last-Modified"))


def body_promised(
    status: int,
    headers: Mapping[str, str],
    *,
    offset: int,
    length: int | None,
    may_end: bool,
    size: int | None,
) -> Body:
    """Return which bytes follow, for a request of `length` bytes (None: to the end).

    The promise begins at the offset asked for, except where the whole file is sent and it is
    small; it is shorter than asked for only where the source ends (with `may_end`) or where the
    server sends less at a time.

    Raises
    ------
    SourceError
        The one that fits: the answer is not one to this request.
    """
    _refuse_status(status, headers, size=size, offset=offset)
    if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        return _nothing(headers, offset=offset, may_end=may_end, size=size)
    encoding = headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise RangeIgnored(
            f"the body is encoded ({encoding!r}), so its bytes are not the file's",
            hint="the server should not compress files of data",
        )
    if status == HTTPStatus.OK:
        body = _whole_file(headers, offset=offset, length=length)
    else:
        body = _part(headers, offset=offset, length=length, size=size)
    end = body.offset + body.length
    if length is not None and not may_end and size is not None and offset + length > size:
        raise ShortRead(f"the source ends at byte {size}", offset=offset, length=length)
    if end <= offset and length != 0 and not may_end:
        raise ShortRead("the answer has no bytes", offset=offset, length=length)
    return body


def _refuse_status(
    status: int, headers: Mapping[str, str], *, size: int | None, offset: int
) -> None:
    if status in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
        return
    said = phrase(status)
    if status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        raise SourceMissing(said, hint="check the URL")
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise SourceDenied(said, hint="check the credentials; a signed URL may have expired")
    if status != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        raise SourceError(f"{said} was not expected")
    if size is not None and offset < size and not headers.get("Content-Range"):
        raise SourceChanged(f"{said}, though {size} bytes were there before", hint="scan it again")


def _nothing(headers: Mapping[str, str], *, offset: int, may_end: bool, size: int | None) -> Body:
    if size == 0 and offset == 0 and may_end:
        return Body(0, 0)
    whole = headers.get("Content-Range", "").rpartition("/")[2] or "an unknown number of"
    raise ShortRead(
        f"{phrase(416)}: the source has {whole} bytes",
        offset=offset,
        hint="the file is truncated, or not the one that was indexed",
    )


def _whole_file(headers: Mapping[str, str], *, offset: int, length: int | None) -> Body:
    total = _content_length(headers)
    kind = headers.get("Content-Type", "")
    wanted = total if length is None and offset == 0 else length
    hint = "serve the file with ranges (Accept-Ranges: bytes), or copy it first"
    if kind.lower().startswith("text/html"):
        raise RangeIgnored("the server answered with a web page", hint="check the URL")
    if total is None:
        raise RangeIgnored("the server ignores Range and does not tell a length", hint=hint)
    if wanted is None or total - wanted > _SPARE:
        raise RangeIgnored(f"the server ignores Range and sends all {total} bytes", hint=hint)
    return Body(0, total)


def _part(headers: Mapping[str, str], *, offset: int, length: int | None, size: int | None) -> Body:
    stated = headers.get("Content-Range", "")
    match = _CONTENT_RANGE.match(stated)
    last = None if length is None else offset + length - 1
    if size is not None:
        last = size - 1 if last is None else min(last, size - 1)
    asked = f"bytes {offset}-{'' if last is None else last}"
    if not match or match[1] is None:
        raise RangeIgnored(f"asked for {asked}, answered with Content-Range {stated!r}")
    first, end = int(match[1]), int(match[2]) + 1
    if first != offset or end <= first or (last is not None and end > last + 1):
        raise RangeIgnored(f"asked for {asked}, answered with Content-Range {stated!r}")
    announced = _content_length(headers)
    if announced is not None and announced != end - first:
        raise RangeIgnored(f"Content-Range {stated!r} and Content-Length {announced} differ")
    return Body(first, end - first)


def _content_length(headers: Mapping[str, str]) -> int | None:
    text = headers.get("Content-Length", "")
    return int(text) if text.isdecimal() else None


def phrase(status: int) -> str:
    """Return a status as people write it, such as "HTTP 404 Not Found"."""
    try:
        return f"HTTP {status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"HTTP {status}"
