"""The function behind `byteatlas doctor`: web servers are asked directly, all else as read."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from os import PathLike
from pathlib import Path
from typing import Any

from byteatlas.diagnosis.checks import Check, Diagnosis, format_check, speed_check
from byteatlas.display import size
from byteatlas.errors import (
    ByteatlasError,
    SourceChanged,
    SourceDenied,
    SourceError,
    SourceMissing,
    without_query,
)
from byteatlas.model import ByteRange, Source, as_view
from byteatlas.sources import Trace, open_source
from byteatlas.sources.byte_source import ByteSource
from byteatlas.sources.credentials import options_for
from byteatlas.sources.local import local_path
from byteatlas.sources.remote import Policy
from byteatlas.sources.urls import absolute_url, is_chained, scheme_of

__all__ = ["diagnose"]

HEAD = 2**19
SMALL = 1024
POLICY = Policy(tries=2, patience_s=10.0, idle_s=10.0)


def diagnose(
    url: str | PathLike[str],
    *,
    storage_options: Mapping[str, Any] | None = None,
) -> Diagnosis:
    """Find out whether and how well byteatlas can work with a URL.

    Takes about ten small requests and at most one of 4 MiB, each with a limit of time. Nothing is
    raised for a source that cannot be reached: that is what the checks say.

    Parameters
    ----------
    url
        A path, or a URL of any protocol.
    storage_options
        As for `byteatlas.scan`. (Any: each protocol's own.)

    Raises
    ------
    Unsupported
        A storage option or a protocol is not known.
    """
    where = absolute_url(url)
    scheme = "" if is_chained(where) else scheme_of(where)
    if scheme in ("http", "https"):
        from byteatlas.diagnosis.web import diagnose_web  # noqa: PLC0415  # slow to import

        return diagnose_web(where, storage_options)
    trace = Trace(keep_log=True)
    source = open_source(
        where, storage_options=options_for(where, storage_options), trace=trace, policy=POLICY
    )
    is_local = not is_chained(where) and scheme in ("", "file", "local")
    try:
        checks = _checks(source, where, storage_options, is_local=is_local)
    finally:
        source.close()
    return Diagnosis(without_query(where), tuple(checks), trace.requests)


def _checks(
    source: ByteSource, url: str, storage_options: Mapping[str, Any] | None, *, is_local: bool
) -> list[Check]:
    try:
        seen = source.stat()
        began = time.perf_counter()
        head = as_view(source.read_head(HEAD))
        seconds = time.perf_counter() - began
    except ByteatlasError as error:
        return [_unreachable(error, is_local=is_local)]
    total = seen.size if seen.size is not None else source.facts.size or len(head)
    checks = [Check("reach", "ok", f"it is there, {size(total)}", "", {"size": total})]
    checks.append(_identity_check(seen, is_local=is_local))
    try:
        latencies, is_honest = _small_reads(source, head, total)
    except ByteatlasError as error:
        checks.append(Check("ranges", "problem", str(error), "it cannot be read by ranges"))
        return [*checks, format_check(head)]
    if is_honest:
        checks.append(Check("ranges", "ok", "ranges of bytes are what was asked for"))
    else:
        meaning = "its bytes cannot be referred to; copy it elsewhere"
        checks.append(Check("ranges", "problem", "a range holds other bytes", meaning))
    if not is_local:
        checks.append(_condition_check(seen, url, storage_options))
    checks.append(speed_check(latencies, len(head), seconds))
    checks.append(format_check(head))
    return checks


def _unreachable(error: ByteatlasError, *, is_local: bool) -> Check:
    local = "give the path of a file"
    meaning = error.hint or (local if is_local else "check the URL, the network, and its options")
    if isinstance(error, SourceMissing):
        meaning = "check the path" if is_local else "check the URL, bucket and key"
    elif isinstance(error, SourceDenied):
        meaning = (
            "change its permissions, or run as someone who may read it"
            if is_local
            else "for a public bucket add --anon; else give credentials (--storage-option)"
        )
    return Check("reach", "problem", error.problem, meaning, {"error": type(error).__name__})


def _identity_check(seen: Source, *, is_local: bool) -> Check:
    facts = {"etag": seen.etag, "last_modified": seen.last_modified}
    if is_local:
        modified = int(seen.last_modified or 0) / 1e9
        words = f"last modified {format_datetime(datetime.fromtimestamp(modified, UTC))}"
        path = str(Path(local_path(seen.url)).resolve())
        facts["path"] = path
        if modified > time.time() + 60:
            meaning = "a file from the future: after the next change it may look as old as now"
            return Check("identity", "warning", words, meaning, facts)
        return Check("identity", "ok", words, "a later change is noticed by it", facts)
    if seen.etag or seen.last_modified:
        words = ", ".join(filter(None, (seen.etag and f"ETag {seen.etag}", seen.last_modified)))
        return Check("identity", "ok", words, "a later change is noticed by it", facts)
    meaning = "only a change of size is noticed; scan again whenever the file may have changed"
    return Check("identity", "warning", "neither ETag nor modification time", meaning, facts)


def _small_reads(source: ByteSource, head: memoryview, total: int) -> tuple[list[float], bool]:
    """Read a few small ranges one after another, and compare those that are known already."""
    latencies, is_honest = [], True
    last = max(0, total - SMALL)
    for offset in (min(SMALL, last), last // 2, last):
        length = min(SMALL, total - offset)
        began = time.perf_counter()
        (data,) = source.read([ByteRange(offset, length)])
        latencies.append(time.perf_counter() - began)
        known = head[offset : offset + length]
        is_honest &= len(as_view(data)) == length and as_view(data)[: len(known)] == known
    return latencies, is_honest


def _condition_check(seen: Source, url: str, storage_options: Mapping[str, Any] | None) -> Check:
    """Ask for a source as it never was: that must be refused."""
    if not seen.etag and not seen.last_modified:
        words = "there is nothing to make a request depend on"
        return Check("conditions", "warning", words, "a change between two reads is not noticed")
    other = Source(
        url,
        seen.size,
        '"byteatlas-doctor"' if seen.etag else None,
        None if seen.etag else "Thu, 01 Jan 1970 00:00:00 GMT",
    )
    source = open_source(
        url, storage_options=options_for(url, storage_options), expected=other, policy=POLICY
    )
    try:
        source.read([ByteRange(0, 1)])
    except SourceChanged:
        return Check("conditions", "ok", "a source that changed is refused")
    except SourceError as error:
        return Check("conditions", "warning", error.problem, "a change may not be noticed")
    finally:
        source.close()
    return Check(
        "conditions", "warning", "another identity was accepted", "a change is not noticed"
    )
