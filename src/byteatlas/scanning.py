"""Scan one source: find its scanner, drive it, and say where every byte came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

from byteatlas.fallback import AUTO, scan_with
from byteatlas.model import VirtualGroup
from byteatlas.others import HEAD, SMALL, Scan
from byteatlas.scanners import MAX_CHUNK, MAX_INLINE, ScanOptions
from byteatlas.sources import Trace, open_source
from byteatlas.sources.cache import CachedReader
from byteatlas.sources.credentials import prepared
from byteatlas.sources.guard import as_tuple
from byteatlas.sources.urls import absolute_url

__all__ = ["HEAD", "SMALL", "scan", "scan_source"]


def scan(
    url: str | PathLike[str],
    *,
    storage_options: Mapping[str, Any] | None = None,
    scanner: str | None = None,
    max_chunk: int = MAX_CHUNK,
    max_inline: int = MAX_INLINE,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    conventions: bool = True,
    follow_links: bool = False,
    allow: Sequence[str] = (),
    engine: str = AUTO,
    seal: bool = False,
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
        Glob patterns of array paths, such as ``"/forecast/temp*"``, or one of them alone; exclude
        wins.
    conventions
        Name dimensions that the file names nowhere after the conventions of products, such as
        HDF-EOS5; each such array says so in its notes. Else they are ``phony_dim_0`` and so on.
    follow_links
        Show what links to other files lead to, under the links' names; else they are skipped.
    allow
        Values may lie in other files, which the scanned file names (external files and virtual
        datasets of HDF5, links that are followed). Such a file is opened when it lies in the
        directory of the one that names it, or below. These prefixes of URLs allow others, such as
        ``"/archive/raw/"``; an array whose values lie elsewhere is skipped.
    engine
        ``"auto"``: what our own reader refuses, though another library may read it, is tried with
        that library (h5py for HDF5), in a child process with limits; each such array says so in
        its notes. ``"native"``: our own reader alone. ``"h5py"``: that library alone.
    seal
        Read every chunk once and keep a digest of it, see `byteatlas.seal`.
    trace
        Counts rounds, requests and bytes as they happen; the totals are in the report as well.

    Returns
    -------
    The root group. What could not be expressed is in its ``report.skipped``, with the reason. Its
    first source is the file, the others hold values of it.

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
        include=as_tuple(include),
        exclude=as_tuple(exclude),
        conventions=conventions,
        follow_links=follow_links,
    )
    source = open_source(absolute_url(url), storage_options=storage_options, trace=trace)
    try:
        group = scan_source(
            CachedReader(source),
            options,
            scanner=scanner,
            storage_options=storage_options,
            allow=allow,
            engine=engine,
        )
    finally:
        source.close()
    if not seal:
        return group
    from byteatlas.sealing import seal as sealed  # noqa: PLC0415  # reads: only if it is asked for

    return sealed(group, storage_options=storage_options, trace=trace)


def scan_source(
    reader: CachedReader,
    options: ScanOptions,
    *,
    scanner: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    allow: Sequence[str] = (),
    engine: str = AUTO,
) -> VirtualGroup:
    """Do as `scan` with a source that is open already, and perhaps read in part."""
    scan = Scan(prepared(storage_options), as_tuple(allow))

    def native() -> VirtualGroup:
        return scan.scan(reader, options, scanner=scanner)

    return scan_with(engine, reader, options, native, scanner=scanner)
