"""Which engine reads what: our own reader, and another library where that one refuses."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from byteatlas.errors import LimitExceeded, Malformed, Unsupported
from byteatlas.fallback.building import completed
from byteatlas.fallback.process import ask
from byteatlas.model import ScanReport, VirtualGroup, as_view
from byteatlas.others import HEAD
from byteatlas.scanners import Scanner, ScanOptions, find_scanner
from byteatlas.sources.cache import CachedReader
from byteatlas.version import __version__

__all__ = ["AUTO", "NATIVE", "scan_with"]

AUTO, NATIVE = "auto", "native"

_ON_PURPOSE = re.compile(
    r"excluded as|not followed|leads nowhere|no link leads to|link back|link to a group"
    r"|cannot be a name|nested more than|more than \d+ objects|null dataspace"
    r"|virtual dataset|its sources? |mappings|external (?:file|link)|other source|driver"
    r"|only those may read|raise max_|kept in an index|the limit is|not allowed"
    r"|mean nothing outside|Zarr has no form"
)
"""Reasons that another library shall not, or cannot, make up for."""


def scan_with(
    engine: str,
    reader: CachedReader,
    options: ScanOptions,
    native: Callable[[], VirtualGroup],
    *,
    scanner: str | None = None,
) -> VirtualGroup:
    """Scan with the engine asked for.

    Parameters
    ----------
    engine
        ``"native"``: our own reader alone. ``"auto"``: where it refuses an array, or the whole
        source, for a reason that another library may make up for, the scanner's first engine.
        Or the name of one of the scanner's engines, for everything.
    native
        Scans with our own reader.
    scanner
        Name of the scanner to use.

    Raises
    ------
    Unsupported
        The scanner has no such engine.
    ByteatlasError
        Neither can read the source as a whole: what our own reader says, and why the other failed.
    """
    if engine == NATIVE:
        return native()
    if engine != AUTO:
        return _whole(engine, reader, options, scanner, "asked for")
    try:
        group = native()
    except (Malformed, Unsupported) as error:
        if isinstance(error, LimitExceeded) or _ON_PURPOSE.search(error.problem):
            raise
        if not _scanner(reader, scanner).engines:
            raise
        try:
            return _whole(None, reader, options, scanner, error.problem)
        except Unsupported as other:
            error.problem += f" ({other.problem})"
            raise error from None
    wanted = {path: reason for path, reason in group.report.skipped if _may_help(path, reason)}
    found = _scanner(reader, scanner) if wanted else None
    if found is None or not found.engines:
        return group
    name = next(iter(found.engines))
    answer = ask(name, found.engines[name], reader, options, list(wanted))
    return _counted(completed(group, answer, options, wanted, name), reader)


def _may_help(path: str, reason: str) -> bool:
    return "@" not in path.rpartition("/")[2] and not _ON_PURPOSE.search(reason)


def _scanner(reader: CachedReader, name: str | None) -> Scanner:
    return find_scanner(as_view(reader.read_head(HEAD)), only=(name,) if name else ())


def _whole(
    engine: str | None,
    reader: CachedReader,
    options: ScanOptions,
    scanner: str | None,
    reason: str,
) -> VirtualGroup:
    """Let an engine (the first one, where none is named) read all there is."""
    found = _scanner(reader, scanner)
    name = engine or next(iter(found.engines), "")
    if name not in found.engines:
        known = ", ".join([AUTO, NATIVE, *found.engines])
        raise Unsupported(
            f"{name!r} is no engine for {found.name}; there is {known}", url=reader.url
        )
    answer = ask(name, found.engines[name], reader, options, None)
    if answer.problem and not answer.items:
        raise Unsupported(f"{name}: {answer.problem}", url=reader.url)
    empty = VirtualGroup(
        sources=(reader.facts,), report=ScanReport(scanner=found.name, version=__version__)
    )
    return _counted(completed(empty, answer, options, {"": reason}, name), reader)


def _counted(group: VirtualGroup, reader: CachedReader) -> VirtualGroup:
    trace = reader.trace
    report = replace(
        group.report,
        rounds=trace.rounds,
        requests=trace.requests,
        bytes_read=trace.bytes_read,
    )
    return replace(group, report=report)
