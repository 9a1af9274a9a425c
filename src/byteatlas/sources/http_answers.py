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

__all__ = [
    "SPARE",
    "Body",
    "body_promised",
    "conditions_for",
    "encoding_of",
    "identity_in",
    "is_confirmed",
    "is_web_page",
    "phrase",
]

_STRONG = re.compile(r'"[\x21\x23-\x7e]*"\Z')
_HTTP_DATE = re.compile(
    r"[A-Z][a-z]{2}, \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} GMT\Z", re.ASCII
)
_CONTENT_RANGE = re.compile(
    r"bytes (?:(\d{1,18})-(\d{1,18})|\*)/(\d{1,18}|\*)\s*$", re.IGNORECASE | re.ASCII
)
_LENGTH = re.compile(r"\d{1,18}$", re.ASCII)

SPARE = 64 * 2**10
"""A whole file sent in place of a range is taken when it is so much longer at most."""


class Body(NamedTuple):
    """The bytes of the source that an answer's body promises to be."""

    offset: int
    length: int


def identity_in(url: str, status: int, headers: Mapping[str, str]) -> Source:
    """Return the source as an answer's headers show it."""
    size: int | None = None
    is_encoded = bool(encoding_of(headers))
    if status == HTTPStatus.OK:
        size = None if is_encoded else _content_length(headers)
    elif match := _CONTENT_RANGE.match(headers.get("Content-Range", "")):
        size = None if match[3] == "*" else int(match[3])
    # An ETag of encoded bytes is not that of the file.
    etag = None if is_encoded else _text(headers.get("ETag"))
    return Source(url, size, etag, _text(headers.get("Last-Modified")))


def _text(value: str | None) -> str | None:
    """Return a header's value as text that an index can hold: what is no UTF-8 is Latin-1."""
    if value is None or value.isascii():
        return value
    said = value.encode("utf-8", "surrogateescape")
    try:
        return said.decode()
    except UnicodeDecodeError:
        return said.decode("latin-1")


def encoding_of(headers: Mapping[str, str]) -> str:
    """Return the Content-Encoding in lower case; "" where the bytes are the file's own."""
    encoding = headers.get("Content-Encoding")
    if not encoding:
        return ""
    encoding = encoding.strip().lower()
    return "" if encoding == "identity" else encoding


def conditions_for(known: Source) -> dict[str, str]:
    """Return the headers that let a request succeed only for the source that is known.

    A strong ETag, or else Last-Modified; a weak ETag matches no If-Match (RFC 9110, 13.1.1). Of a
    source that was seen by another way than the web there may be neither.
    """
    if known.etag is not None and _STRONG.match(known.etag):
        return {"If-Match": known.etag}
    if known.last_modified is not None and _HTTP_DATE.match(known.last_modified):
        return {"If-Unmodified-Since": known.last_modified}
    return {}


def is_confirmed(known: Source, seen: Source, conditions: Mapping[str, str]) -> bool:
    """Tell whether an answer shows that a condition held, although the server said otherwise."""
    if "If-Match" in conditions:
        return known.etag == seen.etag
    return known.last_modified == seen.last_modified


def is_web_page(status: int, headers: Mapping[str, str]) -> bool:
    """Tell whether a page for people came in place of a range of bytes."""
    if status != HTTPStatus.OK:
        return False
    return headers.get("Content-Type", "").lower().startswith(("text/html", "application/xhtml"))


def body_promised(
    status: int,
    headers: Mapping[str, str],
    *,
    offset: int,
    length: int | None,
    may_end: bool,
    size: int | None,
    spare: int = SPARE,
) -> Body:
    """Return which bytes follow, for a request of `length` bytes (None: to the end).

    The promise begins at the offset asked for, except where the whole file is sent and it is
    small; it is shorter than asked for only where the source ends (with `may_end`) or where the
    server sends less at a time. A gzipped body promises its bytes inflated.

    `spare` is by how much the whole file may be longer than what was asked for.

    Raises
    ------
    SourceError
        The one that fits: the answer is not one to this request.
    """
    _refuse_status(status, size=size, offset=offset)
    if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        return _nothing(headers, offset=offset, may_end=may_end, size=size)
    encoding = encoding_of(headers)
    if encoding not in ("", "gzip", "x-gzip", "deflate"):
        raise RangeIgnored(
            f"the body is encoded ({encoding!r}), so its bytes are not the file's",
            hint="the server should not compress files of data",
        )
    if status == HTTPStatus.OK and encoding:
        body = _whole_encoded(offset=offset, length=length, size=size)
    elif status == HTTPStatus.OK:
        body = _whole_file(headers, offset=offset, length=length, spare=spare)
    else:
        body = _part(headers, offset=offset, length=length, size=size)
    end = body.offset + body.length
    if length is not None and not may_end and size is not None and offset + length > size:
        raise ShortRead(f"the source ends at byte {size}", offset=offset, length=length)
    if end <= offset and length != 0 and not may_end:
        raise ShortRead("the answer has no bytes", offset=offset, length=length)
    return body


def _refuse_status(status: int, *, size: int | None, offset: int) -> None:
    if status in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
        return
    said = phrase(status)
    if status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        raise SourceMissing(said, hint="check the URL")
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise SourceDenied(said, hint="check the credentials; a signed URL may have expired")
    if status != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        raise SourceError(f"{said} was not expected")
    if size is not None and offset < size:
        raise SourceChanged(f"{said}, though {size} bytes were there before", hint="scan it again")


def _nothing(headers: Mapping[str, str], *, offset: int, may_end: bool, size: int | None) -> Body:
    if size == 0 and offset == 0 and may_end:
        return Body(0, 0)
    whole = headers.get("Content-Range", "").rpartition("/")[2]
    if not _LENGTH.match(whole):
        whole = "an unknown number of"
    raise ShortRead(
        f"{phrase(416)}: the source has {whole} bytes",
        offset=offset,
        hint="the file is truncated, or not the one that was indexed",
    )


def _whole_encoded(*, offset: int, length: int | None, size: int | None) -> Body:
    """Return the whole file, of which only the length inflated is known, if anything."""
    if size is None or length is None or size - length > SPARE:
        raise RangeIgnored(
            f"the server ignores Range (asked for at {offset}) and sends the whole file gzipped",
            hint="the server should not compress files of data",
        )
    return Body(0, size)


def _whole_file(headers: Mapping[str, str], *, offset: int, length: int | None, spare: int) -> Body:
    total = _content_length(headers)
    wanted = total if length is None and offset == 0 else length or 0
    hint = (
        "serve the file with ranges (Accept-Ranges: bytes), copy it first, or let it be fetched"
        " whole with storage_options={'allow_full_download': <most bytes>}"
    )
    if is_web_page(HTTPStatus.OK, headers):
        raise RangeIgnored("the server answered with a web page", hint="check the URL")
    if total is None:
        raise RangeIgnored("the server ignores Range and does not tell a length", hint=hint)
    if total - (wanted or 0) > spare:
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
    announced = None if encoding_of(headers) else _content_length(headers)
    if announced is not None and announced != end - first:
        raise RangeIgnored(f"Content-Range {stated!r} and Content-Length {announced} differ")
    return Body(first, end - first)


def _content_length(headers: Mapping[str, str]) -> int | None:
    text = headers.get("Content-Length", "")
    return int(text) if _LENGTH.match(text) else None


def phrase(status: int) -> str:
    """Return a status as people write it, such as "HTTP 404 Not Found"."""
    try:
        return f"HTTP {status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"HTTP {status}"
