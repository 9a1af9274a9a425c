"""Seal a virtual group: read all its chunks once, and keep a digest of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byteatlas.errors import ByteatlasError, Malformed, ShortRead
from byteatlas.limits import Limits
from byteatlas.model import WHOLE, ByteRange, Source, VirtualArray, VirtualGroup, as_view
from byteatlas.read.access import is_local, options_for
from byteatlas.read.costs import LOCAL, REMOTE, Costs, merge_parts
from byteatlas.read.digests import digests_of
from byteatlas.sources import ByteSource, Trace, open_source
from byteatlas.sources.credentials import prepared

__all__ = ["seal"]

_LARGE = 2**26
"""Chunks of more bytes are read piece by piece."""


def seal(
    group: VirtualGroup,
    *,
    storage_options: Mapping[str, Any] | None = None,
    trace: Trace | None = None,
    limits: Limits | None = None,
) -> VirtualGroup:
    """Return a group that knows a digest of every virtual chunk, 8 bytes each.

    Whatever reads the group, or an index that it is written to, then compares each chunk that it
    fetches: bytes that were changed, at the source or on the way, are a `SourceChanged` and never
    values. Every chunk is read once now, in merged requests and with bounded memory. Later
    reads of uncompressed chunks fetch whole chunks, not parts of them.

    What HDF5 keeps in its global heap (text, sequences) is not in chunks: there, the digest is of
    the references to it.

    Parameters
    ----------
    group
        The root of what a scan returned, or of an index.
    storage_options
        How to reach the sources, in the words of fsspec. (Any: each protocol's own.)
    trace
        Counts requests and bytes as they happen.
    limits
        No chunk may be larger than its `chunk`.

    Raises
    ------
    SourceError
        The bytes of a source could not be had, or are not those that were scanned.
    LimitExceeded
        A chunk is too large to be read whole.

    Examples
    --------
    >>> group = seal(scan("https://example.org/sst.nc"))    # doctest: +SKIP
    >>> group.to_json("sst.json")                           # doctest: +SKIP
    """
    options, limits = prepared(storage_options), limits or Limits()
    arrays = dict(group.walk_arrays())
    digests = {
        path: np.empty(array.manifest.virtual_count, np.uint64) for path, array in arrays.items()
    }
    for position, source in enumerate(group.sources):
        rows = {path: _rows_of(array, position) for path, array in arrays.items()}
        rows = {path: row for path, row in rows.items() if row.size}
        if not rows:
            continue
        opened = open_source(
            source.url,
            storage_options=options_for(source, options),
            expected=source,
            trace=trace or Trace(),
        )
        with closing(opened):
            found = _digests(opened, source, arrays, rows, limits)
        ends = np.cumsum([row.size for row in rows.values()])[:-1]
        for (path, row), digest in zip(rows.items(), np.split(found, ends), strict=True):
            digests[path][row] = digest
    return _with_digests(group, "", digests)


def _with_digests(
    group: VirtualGroup, path: str, digests: Mapping[str, NDArray[np.uint64]]
) -> VirtualGroup:
    arrays = {
        name: replace(array, manifest=replace(array.manifest, digest=digests[f"{path}/{name}"]))
        for name, array in group.arrays.items()
    }
    groups = {
        name: _with_digests(child, f"{path}/{name}", digests)
        for name, child in group.groups.items()
    }
    return replace(group, arrays=arrays, groups=groups)


def _rows_of(array: VirtualArray, source: int) -> NDArray[np.intp]:
    """Return which rows of an array's manifest point into a source."""
    manifest = array.manifest
    if manifest.source is None:
        return np.arange(manifest.virtual_count if source == 0 else 0)
    return np.flatnonzero(manifest.source == source)


def _digests(
    opened: ByteSource,
    source: Source,
    arrays: Mapping[str, VirtualArray],
    rows: Mapping[str, NDArray[np.intp]],
    limits: Limits,
) -> NDArray[np.uint64]:
    """Return the digests of rows of several arrays, one after the other; all of one source."""
    columns = [(arrays[path].manifest, row) for path, row in rows.items()]
    offset = np.concatenate([manifest.offset[row] for manifest, row in columns]).astype(np.int64)
    stored = np.concatenate([manifest.length[row] for manifest, row in columns])
    length = stored.astype(np.int64)
    whole = stored == np.uint64(WHOLE)
    if whole.any():
        size = opened.stat().size if source.size is None else source.size
        if size is None or size < int(offset[whole].max()):
            raise Malformed("a chunk begins after the end of its source", url=source.public_url)
        length[whole] = size - offset[whole]
    limits.check("chunk", int(length.max()), "a chunk that is to be sealed")
    digest = np.empty(offset.size, np.uint64)
    order = np.argsort(offset, kind="stable")
    order, large = order[length[order] <= _LARGE], np.flatnonzero(length > _LARGE)
    costs = LOCAL if is_local(source.url) else REMOTE
    found = _streamed(opened, offset[order], length[order], costs)
    digest[order] = np.concatenate([*found, np.empty(0, np.uint64)])
    for row in large.tolist():  # each at least as long as a request
        digest[row] = _digest_of_pieces(opened, int(offset[row]), int(length[row]))
    return digest


def _streamed(
    opened: ByteSource, offset: NDArray[np.int64], length: NDArray[np.int64], costs: Costs
) -> list[NDArray[np.uint64]]:
    """Return digests of chunks, ordered by offset; a column for each of the merged fetches."""
    bounds, fetch_length = merge_parts(None, offset, length, costs)
    begin = offset[bounds[:-1]]
    found = [np.empty(0, np.uint64)] * begin.size
    arrivals = opened.stream(begin.astype(np.uint64), fetch_length.astype(np.uint64))
    for fetch, data in arrivals:
        if len(data) != fetch_length[fetch]:
            raise ShortRead(
                f"{len(data)} bytes arrived",
                offset=int(begin[fetch]),
                length=int(fetch_length[fetch]),
            ).at(url=opened.url)
        parts = slice(int(bounds[fetch]), int(bounds[fetch + 1]))
        start = offset[parts] - begin[fetch]
        spans = map(slice, start.tolist(), (start + length[parts]).tolist())
        found[fetch] = digests_of(map(as_view(data).__getitem__, spans))
    return found


def _digest_of_pieces(opened: ByteSource, offset: int, length: int) -> int:
    whole = blake2b(digest_size=8)
    for piece in _pieces(offset, length):
        try:
            (data,) = opened.read([piece])
        except ByteatlasError as error:
            raise error.at(url=opened.url, offset=piece.offset) from error.__cause__
        whole.update(as_view(data))
    return int.from_bytes(whole.digest(), "little")


def _pieces(offset: int, length: int) -> Iterator[ByteRange]:
    for start in range(offset, offset + length, _LARGE):
        yield ByteRange(start, min(_LARGE, offset + length - start))
