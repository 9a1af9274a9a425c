"""Scan one source: find its scanner, drive it, and say where every byte came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from typing import Any

from byteatlas.errors import ByteatlasError
from byteatlas.garbage import paused_gc
from byteatlas.model import Source, VirtualGroup, as_view
from byteatlas.scanners import MAX_CHUNK, MAX_INLINE, ScanOptions, Window, find_scanner
from byteatlas.sources import Trace, open_source
from byteatlas.sources.cache import CachedReader
from byteatlas.sources.urls import absolute_url
from byteatlas.steps import run
from byteatlas.version import __version__

__all__ = ["HEAD", "SMALL", "scan", "scan_source"]

HEAD = 2**19
"""Bytes of the first request: enough to recognise a format and for most files' headers."""
SMALL = 2**22
"""A source of at most so many bytes is read whole, which saves all further rounds."""


def scan(
    url: str | PathLike[str],
    *,
    storage_options: Mapping[str, Any] | None = None,
    scanner: str | None = None,
    max_chunk: int = MAX_CHUNK,
    max_inline: int = MAX_INLINE,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    trace: Trace | None = None,
) -> VirtualGroup:
    """Scan a file where it lies and return its arrays as byte ranges.

    Parameters
    ----------
    url
        A path, or a URL of any protocol that fsspec knows.
    storage_options
        Credentials and the like, spelled as fsspec's file system for the protocol wants them.
        (Any: each protocol's own.)
    scanner
        Name of the scanner to use; by default the source's first bytes decide.
    max_chunk
        Contiguous data is split into chunks of at most so many bytes.
    max_inline
        Values that can only be kept in the index are refused above so many bytes of one array.
    include, exclude
        Glob patterns of array paths, such as ``"/forecast/temp*"``; exclude wins.
    trace
        Counts rounds, requests and bytes as they happen; the totals are in the report as well.

    Returns
    -------
    The root group. What could not be expressed is in its ``report.skipped``, with the reason.

    Raises
    ------
    NotRecognised
        No scanner recognises the source.
    SourceError
        The source cannot be read.
    Malformed, Unsupported
        The source as a whole is damaged, or of a kind that is refused.
    """
    trace = Trace() if trace is None else trace
    options = ScanOptions(
        max_chunk=max_chunk,
        max_inline=max_inline,
        include=tuple(include),
        exclude=tuple(exclude),
    )
    source = open_source(absolute_url(url), storage_options=storage_options, trace=trace)
    try:
        return scan_source(CachedReader(source), options, scanner=scanner)
    finally:
        source.close()


def scan_source(
    reader: CachedReader, options: ScanOptions, *, scanner: str | None = None
) -> VirtualGroup:
    """Do as `scan` with a source that is open already, and perhaps read in part."""
    try:
        head = as_view(reader.read_head(HEAD))
        size = reader.facts.size
        assert size is not None  # the first answer says it
        if len(head) < size <= SMALL:
            head = as_view(reader.read_head(size))
        found = find_scanner(head, only=(scanner,) if scanner else ())
        with paused_gc():
            group = run(found.scan(Window(head, size), options), reader)
    except ByteatlasError as error:
        raise error.at(url=reader.url) from error.__cause__
    return _finished(group, found.name, reader.facts, reader.trace)


def _finished(group: VirtualGroup, scanner: str, facts: Source, trace: Trace) -> VirtualGroup:
    report = replace(
        group.report,
        scanner=scanner,
        version=__version__,
        rounds=trace.rounds,
        requests=trace.requests,
        bytes_read=trace.bytes_read,
    )
    return replace(group, sources=(facts,), report=report)
