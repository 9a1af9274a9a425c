"""What a web server's answers mean for byteatlas, in words: no I/O.

Ranges, conditions and validators as in RFC 9110, sections 8.8, 13 and 14; cross-origin requests as
in the Fetch standard, section 3.3.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import pairwise
from typing import NamedTuple

import aiohttp

from byteatlas.diagnosis.checks import Check, format_check, speed_check
from byteatlas.display import plural, size
from byteatlas.errors import SourceError
from byteatlas.sources.http_answers import SPARE, phrase
from byteatlas.sources.http_session import origin_of

__all__ = ["Answer", "Seen", "unreachable", "web_checks"]

SKEW_S = 300
"""Clocks that differ by more confuse caches and signatures."""
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)\s*$", re.IGNORECASE)
_LENGTH = re.compile(r"\d{1,18}$")


class Answer(NamedTuple):
    """One answer, redirects followed."""

    url: str
    status: int
    headers: Mapping[str, str]
    """Case-insensitive."""
    body: bytes
    first_byte_s: float
    """Seconds from the request to the headers."""
    seconds: float
    """Seconds from the request to the end of the body."""
    version: tuple[int, int] | None

    @property
    def content_range(self) -> tuple[int, int, int | None] | None:
        """Offset, length and size that Content-Range says; None where it says nothing."""
        found = _CONTENT_RANGE.match(self.headers.get("Content-Range", ""))
        if not found:
            return None
        first, last = int(found[1]), int(found[2])
        return first, last - first + 1, None if found[3] == "*" else int(found[3])

    @property
    def total(self) -> int | None:
        """Size of the source, as the answer has it."""
        if self.status == 206:
            said = self.content_range
            return said[2] if said else None
        length = self.headers.get("Content-Length", "")
        return int(length) if _LENGTH.match(length) and self.status == 200 else None


@dataclass(slots=True)
class Seen:
    """All answers that a diagnosis got; None where there was none."""

    url: str
    first: Answer
    """To a request for the first 512 KiB."""
    chain: tuple[str, ...]
    """The URLs asked, the last one answered."""
    has_credentials: bool = False
    head: Answer | None = None
    small: list[tuple[int, int, Answer]] = field(default_factory=list)
    """Offset, length and answer of small ranges."""
    large: Answer | None = None
    conditional: Answer | None = None
    """To a condition that does not hold."""
    cors: Answer | None = None
    preflight: Answer | None = None


def unreachable(error: Exception) -> Check:
    """Say why there was no answer at all."""
    facts = {"error": type(error).__name__}
    if isinstance(error, SourceError):
        return Check("reach", "problem", error.problem, "the server's redirects are wrong", facts)
    if isinstance(error, TimeoutError):
        return Check(
            "reach",
            "problem",
            "no answer in time",
            "the server is down or overloaded, or a firewall swallows requests",
            facts,
        )
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return Check("reach", "problem", "no such host", "check the spelling of the URL", facts)
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError):
        return Check(
            "reach",
            "problem",
            "the server's certificate is not trusted",
            "if you trust it yourself: --storage-option ssl=false",
            facts,
        )
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    code = cause.errno if isinstance(cause, OSError) else None
    words = os.strerror(code).lower() if code and code > 0 else "no HTTP came back"
    meaning = "check host and port, and whether the server runs"
    return Check("reach", "problem", words, meaning, facts)


def web_checks(seen: Seen) -> list[Check]:
    """Return what the answers mean, the most important first."""
    checks = [_reach(seen), *_redirects(seen)]
    if seen.first.status not in (200, 206):
        return [*checks, *_authentication(seen)]
    checks += [_ranges(seen), _compression(seen), _size(seen), _head(seen)]
    checks += [_identity(seen.first), _conditions(seen)]
    checks += _authentication(seen)
    checks += [_speed(seen), _clock(seen.first), _cors(seen)]
    body = seen.first.body
    is_encoded = "Content-Encoding" in seen.first.headers
    return checks if is_encoded else [*checks, format_check(memoryview(body))]


def _reach(seen: Seen) -> Check:
    first = seen.first
    version = "HTTP" if first.version is None else f"HTTP/{first.version[0]}.{first.version[1]}"
    facts = {
        "status": first.status,
        "version": version,
        "first_byte_s": round(first.first_byte_s, 6),
    }
    words = f"{phrase(first.status)} over {version}, first byte after {_ms(first.first_byte_s)}"
    if "h3" in first.headers.get("Alt-Svc", "") or "h2" in first.headers.get("Alt-Svc", ""):
        words += " (newer versions offered)"
    if first.status in (200, 206):
        return Check("reach", "ok", words, "", facts)
    return Check("reach", "problem", words, _STATUS.get(first.status, _STATUS[0]), facts)


_STATUS = {
    0: "the server does not give the file: ask whoever runs it",
    401: "it wants a login: see authentication",
    403: "not allowed: give credentials; a signed URL may have expired",
    404: "there is nothing at this URL: check its spelling",
    410: "it was removed",
    416: "it takes no range of this file, which may be empty",
    429: "too many requests: wait, and ask for less at a time",
    500: "the server is broken: try later",
    502: "the server behind the gateway is down: try later",
    503: "the server is overloaded: try later",
    504: "the server behind the gateway is too slow: try later",
}


def _redirects(seen: Seen) -> list[Check]:
    if len(seen.chain) < 2:
        return []
    origins = [origin_of(url) for url in seen.chain]
    words = f"{plural(len(seen.chain) - 1, 'redirect')}, to {origins[-1]}"
    facts = {"origins": origins}
    if any(a.startswith("https:") and b.startswith("http:") for a, b in pairwise(origins)):
        meaning = "the way leads from https to http, where anybody may read along; use another URL"
        return [Check("redirects", "warning", words, meaning, facts)]
    if origins[0] != origins[-1] and seen.has_credentials:
        meaning = "your credentials stay with the first host, and are not sent to the other"
        return [Check("redirects", "ok", words, meaning, facts)]
    meaning = "the last URL that worked is asked first from then on"
    return [Check("redirects", "ok", words, meaning, facts)]


def _authentication(seen: Seen) -> list[Check]:
    status, headers = seen.first.status, seen.first.headers
    scheme = headers.get("WWW-Authenticate", "").partition(" ")[0]
    facts = {"scheme": scheme or None, "given": seen.has_credentials}
    how = "--storage-option headers.Authorization='Bearer ...', or auth=user:password"
    if status == 401:
        words = f"needed: {scheme}" if scheme else "needed, the server does not say which"
        given = "the credentials given were refused; renew them: " if seen.has_credentials else ""
        return [Check("authentication", "problem", words, given + how, facts)]
    if status == 403:
        words = "refused with the credentials given" if seen.has_credentials else "refused"
        return [Check("authentication", "problem", words, how, facts)]
    if status in (200, 206):
        words = "credentials accepted" if seen.has_credentials else "none needed"
        return [Check("authentication", "ok", words, "", facts)]
    return []


def _ranges(seen: Seen) -> Check:
    first = seen.first
    facts = {"accept_ranges": first.headers.get("Accept-Ranges"), "status": first.status}
    if first.status == 200:
        words = "a request for a range is answered with the whole file"
        if first.total is not None and first.total <= SPARE:
            meaning = "it is small, so that works; of a large one nothing could be read by ranges"
            return Check("ranges", "warning", words, meaning, facts)
        meaning = "nothing can be read by ranges here: copy the file, or ask for another server"
        return Check("ranges", "problem", words, meaning, facts)
    lie = _lie(seen)
    if lie:
        meaning = "its bytes cannot be trusted: a proxy or cache in between may be broken"
        return Check("ranges", "problem", lie, meaning, facts)
    asked = plural(1 + len(seen.small), "range")
    return Check("ranges", "ok", f"{asked} asked for, and exactly these came", "", facts)


def _lie(seen: Seen) -> str:
    """Return how an answer is not the range that was asked for, or ""."""
    said = seen.first.content_range
    if said is None:
        return "206 without a Content-Range that can be read"
    if said[0] != 0:
        return f"bytes from {said[0]} on came, not from 0"
    if len(seen.first.body) != said[1]:
        return f"Content-Range says {said[1]} bytes, {len(seen.first.body)} came"
    for offset, length, answer in seen.small:
        if answer.status != 206:
            return f"{phrase(answer.status)} in answer to {length} bytes at {offset}"
        if answer.content_range != (offset, length, said[2]):
            have = answer.headers.get("Content-Range")
            return f"Content-Range {have!r} in answer to {length} bytes at {offset}"
        if len(answer.body) != length:
            return f"{len(answer.body)} of {length} bytes came at {offset}"
        known = seen.first.body[offset : offset + length]
        if answer.body[: len(known)] != known:
            return f"the bytes at {offset} were other ones the second time"
    return ""


def _compression(seen: Seen) -> Check:
    encoding = seen.first.headers.get("Content-Encoding", "identity").strip().lower()
    facts = {"content_encoding": encoding}
    if encoding not in ("", "identity"):
        meaning = "bytes are counted in the compressed file; switch compression off for data files"
        return Check("compression", "problem", f"the body comes as {encoding}", meaning, facts)
    return Check("compression", "ok", "bytes come as they are", "", facts)


def _size(seen: Seen) -> Check:
    total = seen.first.total
    facts = {"size": total}
    if total is None:
        meaning = "a truncated file is not noticed before its end is read"
        return Check("size", "warning", "the server does not say it", meaning, facts)
    told = None if seen.head is None else seen.head.total
    if seen.head is not None and told is not None and told != total:
        words = f"{total} bytes by Content-Range, {told} by HEAD"
        meaning = "one of two servers behind this name may have an old file; ranges are believed"
        return Check("size", "warning", words, meaning, facts)
    return Check("size", "ok", f"{size(total)} ({total} bytes)", "", facts)


def _head(seen: Seen) -> Check:
    if seen.head is None or seen.head.status != 200:
        words = "no answer" if seen.head is None else phrase(seen.head.status)
        meaning = "nothing is lost: one byte is asked for instead"
        return Check("HEAD", "ok", words, meaning, {"status": seen.head and seen.head.status})
    return Check("HEAD", "ok", "answered", "", {"status": 200})


def _identity(first: Answer) -> Check:
    etag, modified = first.headers.get("ETag"), first.headers.get("Last-Modified")
    facts = {"etag": etag, "last_modified": modified}
    if etag and not etag.startswith("W/"):
        return Check(
            "identity", "ok", f"strong ETag {etag}", "every later change is noticed", facts
        )
    if modified:
        words = f"{'weak ETag, ' if etag else 'no ETag, '}Last-Modified {modified}"
        meaning = "a change within the same second is not noticed"
        return Check("identity", "ok", words, meaning, facts)
    if etag:
        words, meaning = f"weak ETag {etag} alone", "small changes may not be noticed"
        return Check("identity", "warning", words, meaning, facts)
    meaning = "only a change of size is noticed; scan again whenever the file may have changed"
    return Check("identity", "warning", "neither ETag nor Last-Modified", meaning, facts)


def _conditions(seen: Seen) -> Check:
    first, answer = seen.first, seen.conditional
    name = "If-Match" if first.headers.get("ETag") else "If-Unmodified-Since"
    status = None if answer is None else answer.status
    facts = {"condition": name, "status": status}
    if status == 412:
        return Check("conditions", "ok", f"{name} is honoured", "", facts)
    meaning = "answers are compared after they came instead; nothing is lost but a transfer"
    if not first.headers.get("ETag") and not first.headers.get("Last-Modified"):
        meaning = "and there is nothing to compare: a change between two reads is not noticed"
    words = "no answer" if answer is None else f"{name} that does not hold: {phrase(answer.status)}"
    return Check("conditions", "warning", words, meaning, facts)


def _speed(seen: Seen) -> Check:
    latencies = [answer.seconds for _, _, answer in seen.small] or [seen.first.first_byte_s]
    bulk = seen.large if seen.large is not None and seen.large.status == 206 else seen.first
    return speed_check(latencies, len(bulk.body), bulk.seconds - bulk.first_byte_s)


def _clock(first: Answer) -> Check:
    said, modified = _date(first.headers.get("Date")), _date(first.headers.get("Last-Modified"))
    if said is None:
        return Check("clock", "ok", "the server does not say its time", "", {"skew_s": None})
    skew = said.timestamp() - time.time()
    facts = {"skew_s": round(skew)}
    if modified is not None and modified > said:
        words = "Last-Modified lies after the server's own time"
        meaning = "a change may not be noticed by its time"
        return Check("clock", "warning", words, meaning, facts)
    if abs(skew) > SKEW_S:
        words = f"the server's clock and yours differ by {abs(skew):.0f} s"
        meaning = "signed requests may be refused; set the clock of this machine"
        return Check("clock", "warning", words, meaning, facts)
    return Check("clock", "ok", "the server's clock and yours agree", "", facts)


def _date(text: str | None) -> datetime | None:
    try:
        return parsedate_to_datetime(text).astimezone(UTC) if text else None
    except (ValueError, OverflowError):
        return None


def _cors(seen: Seen) -> Check:
    """Say whether a web page on another host could read the source: byteatlas itself need not."""
    headers: Mapping[str, str] = {} if seen.cors is None else seen.cors.headers
    origin = headers.get("Access-Control-Allow-Origin")
    exposed = {
        name.strip().lower() for name in headers.get("Access-Control-Expose-Headers", "").split(",")
    }
    before: Mapping[str, str] = {} if seen.preflight is None else seen.preflight.headers
    allowed = before.get("Access-Control-Allow-Headers", "").lower()
    is_allowed = before.get("Access-Control-Allow-Origin") is not None and (
        "range" in allowed or "*" in allowed
    )
    facts = {
        "allow_origin": origin,
        "exposes_content_range": bool(exposed & {"content-range", "*"}),
        "preflight_allows_range": is_allowed,
    }
    if origin is None:
        meaning = "web pages of other hosts cannot read it; programs such as byteatlas can"
        return Check("CORS", "warning", "not allowed", meaning, facts)
    lacks = []
    if not facts["exposes_content_range"]:
        lacks.append("Access-Control-Expose-Headers: Content-Range, ETag")
    if not is_allowed:
        lacks.append("Access-Control-Allow-Headers: Range")
    if lacks:
        meaning = f"for web pages the server should send {' and '.join(lacks)}"
        return Check("CORS", "warning", f"allowed for {origin}, in part", meaning, facts)
    return Check("CORS", "ok", f"allowed for {origin}, ranges included", "", facts)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms"
