"""Write a virtual group as a Parquet index: the layout of kerchunk's Parquet references.

See `byteatlas.index.parquet_layout`. Partitions are cut out of a manifest's columns one at a
time; those that would hold no chunk are not written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from byteatlas.errors import ByteatlasError, Unsupported
from byteatlas.index.directories import write_directory
from byteatlas.index.expressible import inline_conflicts, resolve_whole
from byteatlas.index.facts import facts_to_json, source_urls
from byteatlas.index.json_lines import json_bytes
from byteatlas.index.lazy_manifest import loaded
from byteatlas.index.parquet_layout import (
    METADATA,
    RECORD_SIZE,
    PartitionTable,
    bytes_digest,
    check_writable,
    partition_name,
)
from byteatlas.index.parquet_partition import Rows, encode_partition, require_pyarrow
from byteatlas.index.zarr_metadata import zarr_metadata
from byteatlas.model import WHOLE, ChunkManifest, VirtualGroup

__all__ = ["write_parquet"]


def write_parquet(
    group: VirtualGroup,
    path: str | PathLike[str],
    *,
    record_size: int | None = None,
    keep_query: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    if_unchanged: str | None = None,
) -> None:
    """Write an index as a directory of Parquet files, whole or not at all.

    How many references it holds does not matter for opening it. Its metadata is of Zarr
    version 2.

    Parameters
    ----------
    group
        The root.
    path
        A local path, or any URL that fsspec can write to; by custom ending in ``.parq`` or
        ``.parquet``.
    record_size
        References in one file; `byteatlas.index.parquet_layout.RECORD_SIZE` by default.
    keep_query
        Keep the query strings of the sources' URLs, which may be signatures.
    storage_options
        Options of the fsspec filesystem (Any: each filesystem's own).
    if_unchanged
        Replace only the index that has this `revision` ("" where there is none). Local paths
        only.

    Raises
    ------
    MissingDependency
        pyarrow is not installed.
    Conflict
        It is another one by now, and is left as it is.
    Unsupported
        The index cannot say what the group holds.
    OSError
        It cannot be written, or something that is no index is in its place. An index that was
        there before still is.
    """
    record_size = RECORD_SIZE if record_size is None else record_size
    if type(record_size) is not int or not 0 < record_size < 2**31:
        raise ValueError(f"record_size is {record_size!r}, expected a whole number below 2**31")
    require_pyarrow()
    files = _files(loaded(group), record_size, keep_query=keep_query)
    write_directory(path, files, storage_options=storage_options, if_unchanged=if_unchanged)


def _files(
    group: VirtualGroup, record_size: int, *, keep_query: bool
) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each file, the metadata last."""
    for path, _ in group.walk():
        if path:
            check_writable(path)
    filled: dict[str, list[int]] = {}
    group = inline_conflicts(group, "", filled)
    metadata = zarr_metadata(group, 2)[METADATA]
    urls = source_urls(group.sources, keep_query=keep_query)
    tables: dict[str, Any] = {}
    for path, array in group.walk_arrays():
        check_writable(path)
        try:
            manifest = resolve_whole(array.manifest, group.sources, path)
            written: list[_Written] = []
            for number, data in _partitions(manifest, record_size, urls):
                yield partition_name(path, number), data
                written.append(_Written(number, len(data), bytes_digest(data)))
        except ByteatlasError as error:
            raise error.at(path=path) from error.__cause__
        tables[path] = _table(manifest, written, len(filled.get(path, []))).to_json()
    facts = facts_to_json(group, keep_query=keep_query, filled=filled, partitions=tables)
    document = {"byteatlas": facts, **metadata, "record_size": record_size}
    yield METADATA, json_bytes(document) + b"\n"


class _Written(NamedTuple):
    number: int
    size: int
    digest: int


def _table(manifest: ChunkManifest, written: Sequence[_Written], filled: int) -> PartitionTable:
    columns = {"encoding": manifest.encoding, "digest": manifest.digest}
    number, size, digest = np.array(written, np.uint64).reshape(-1, 3).T
    return PartitionTable(
        number,
        size,
        digest,
        present=manifest.present_count - filled,
        inlined=len(manifest.inline) - filled,
        columns=tuple(name for name, column in columns.items() if column is not None),
    )


def _partitions(
    manifest: ChunkManifest, record_size: int, urls: Sequence[str]
) -> Iterator[tuple[int, bytes]]:
    """Yield number and content of each partition that holds a chunk, in order."""
    wide = manifest.offset.max(initial=0) >= 2**63
    if wide or (manifest.length[manifest.length != np.uint64(WHOLE)] >= np.uint64(2**63)).any():
        raise Unsupported("an index cannot refer to bytes beyond 2**63")
    inlined = np.array(sorted(manifest.inline), np.uint64)
    for number in _numbers(manifest, inlined, record_size):
        first = number * record_size
        after = min(first + record_size, manifest.cells)
        kept = inlined[slice(*np.searchsorted(inlined, np.array([first, after], np.uint64)))]
        raw = {flat - first: manifest.inline[flat] for flat in kept.tolist()}
        yield number, encode_partition(_rows(manifest, first, after, raw, urls))


def _numbers(
    manifest: ChunkManifest, inlined: NDArray[np.uint64], record_size: int
) -> Sequence[int]:
    """Return which partitions hold chunks, ascending."""
    if manifest.index is None:
        return range(-(-manifest.cells // record_size))
    index = manifest.index // np.uint64(record_size)
    found: list[int] = np.union1d(np.unique(index), inlined // np.uint64(record_size)).tolist()
    return found


def _rows(
    manifest: ChunkManifest, first: int, after: int, raw: dict[int, bytes], urls: Sequence[str]
) -> Rows:
    """Return the rows of one partition: of the chunks from `first` up to `after`."""
    count = after - first
    if manifest.index is None:
        mine, place = slice(first, after), None
    else:
        mine = slice(*np.searchsorted(manifest.index, np.array([first, after], np.uint64)))
        place = (manifest.index[mine] - np.uint64(first)).astype(np.intp)

    def spread(column: NDArray[Any], dtype: Any, missing: int = 0) -> NDArray[Any]:
        values = column[mine].astype(dtype)
        if place is None:
            return values
        full = np.full(count, missing, dtype)
        full[place] = values
        return full

    length = manifest.length
    whole = np.flatnonzero(length[mine] == np.uint64(WHOLE))
    empty = np.flatnonzero((length[mine] == 0) & (manifest.offset[mine] == 0))
    size = spread(length, np.int64)
    for rows in (whole, empty):  # of either, the layout has a size of 0
        size[rows if place is None else place[rows]] = 0
    # Bytes win over a place, so an empty range at 0 is no whole source to any reader.
    empty_rows = empty if place is None else place[empty]
    raw = {**raw, **dict.fromkeys(empty_rows.tolist(), b"")}
    used, url = [0], np.zeros(mine.stop - mine.start, np.int32)
    if manifest.source is not None:
        used_ids, inverse = np.unique(manifest.source[mine], return_inverse=True)
        used, url = used_ids.tolist(), inverse.astype(np.int32)
    if place is not None:
        spread_url = np.full(count, -1, np.int32)
        spread_url[place] = url
        url = spread_url
    return Rows(
        [urls[position] for position in used] if mine.stop > mine.start else [],
        url,
        spread(manifest.offset, np.int64),
        size,
        raw,
        None if manifest.encoding is None else spread(manifest.encoding, np.uint8),
        None if manifest.digest is None else spread(manifest.digest, np.uint64),
    )
