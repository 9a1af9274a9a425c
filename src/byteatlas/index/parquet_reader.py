"""Open a Parquet index: its metadata is read, its references are left for later."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from byteatlas.errors import ByteatlasError, Malformed, NotRecognised, Unsupported
from byteatlas.index.facts import Facts, facts_from_json
from byteatlas.index.json_document import decompress, parse_document
from byteatlas.index.lazy_manifest import lazy_manifest
from byteatlas.index.nodes import FILES, Node, read_nodes
from byteatlas.index.parquet_layout import (
    METADATA,
    PartitionTable,
    check_directory,
    has_parquet_name,
)
from byteatlas.index.partitions import PartitionedArray, Partitions
from byteatlas.index.source_table import GrowingSources, SourceTable
from byteatlas.index.templates import Templates
from byteatlas.index.tree import array_paths, built_array, described_array, tree_of
from byteatlas.limits import Limits
from byteatlas.model import Source, VirtualArray, VirtualGroup
from byteatlas.sources.credentials import prepared
from byteatlas.sources.guard import guarded_sources
from byteatlas.sources.local import local_path
from byteatlas.sources.urls import is_chained, scheme_of

__all__ = ["parquet_root", "read_parquet"]


def parquet_root(url: str) -> str | None:
    """Return the URL of the Parquet index that a URL names; None where it names something else.

    Locally any directory is taken for one, whatever its name; of other URLs the text must do: they
    end in ``.parq``, ``.parquet`` or ``.pq`` (in upper or lower case), a slash, or ``/.zmetadata``.
    """
    text = url
    if not is_chained(url) and scheme_of(url) in ("http", "https"):
        text = url.partition("?")[0]
    if text.endswith(f"/{METADATA}"):
        return text.removesuffix(f"/{METADATA}") + url[len(text) :]
    if not is_chained(url) and scheme_of(url) in ("", "file", "local"):
        return url if Path(local_path(url)).is_dir() else None
    last = text.partition("::")[0] if "://" in text.partition("::")[0] else text
    return url if last.endswith("/") or has_parquet_name(url) else None


def read_parquet(
    metadata: bytes,
    root: str,
    *,
    storage_options: Mapping[str, Any] | None = None,
    allow: Sequence[str] = (),
    limits: Limits | None = None,
    origin: Source | None = None,
) -> VirtualGroup:
    """Return the virtual group of a Parquet index, whose partitions are read when needed.

    Parameters
    ----------
    metadata
        Content of the file ``.zmetadata``.
    root
        URL of the index. Relative URLs in it count from the directory that holds it.
    storage_options
        How to reach it, in the words of fsspec. (Any: each protocol's own.)
    allow
        Prefixes of URLs that the index may name, see `byteatlas.read.access`.
    limits
        How much it may hold.
    origin
        The file ``.zmetadata`` as it was seen. Where another program wrote the index, its
        partitions are read only while it still looks so.

    Returns
    -------
    VirtualGroup
        Where byteatlas did not write the index, its table of sources is empty, and grows as
        partitions are read; a partition that is not there then holds no chunk.

    Raises
    ------
    Malformed, Unsupported
        It breaks the layout or Zarr's specification, or has metadata of Zarr version 3.
    NotAllowed
        It names a source that it may not have.
    LimitExceeded
        It is larger or deeper than it may be.
    """
    limits = Limits() if limits is None else limits
    try:
        document = parse_document(decompress(metadata, limits), limits)
        size = document.get("record_size")
        if size is None:
            raise NotRecognised(
                f"a Zarr store, not an index of references: {METADATA} has no 'record_size'",
                hint="open it with zarr, or with xarray.open_zarr",
            )
        if type(size) is not int or not 0 < size < 2**63:
            raise Malformed(f"'record_size' is {size!r:.40}, expected a whole number from 1")
        nodes = _nodes(document.get("metadata"), limits)
        has_facts = "byteatlas" in document
        facts = facts_from_json(document["byteatlas"]) if has_facts else Facts()
        base = root.rstrip("/")
        sources: SourceTable = GrowingSources(base, allow, limits)
        if has_facts:
            sources = SourceTable(
                facts.sources, base, Templates(None, limits), limits, is_closed=True
            )
        partitions = Partitions(root, size, sources, prepared(storage_options), limits, origin)
        arrays = _arrays(nodes, facts, partitions, limits)
        group = tree_of(nodes, arrays, facts, limits)
        table: Sequence[Source] = tuple(guarded_sources(sources.sources, root, allow))
        if isinstance(sources, GrowingSources):
            table = sources
        return replace(group, sources=table, report=facts.report)
    except ByteatlasError as error:
        raise error.at(url=root) from error.__cause__


def _nodes(metadata: Any, limits: Limits) -> dict[str, Node]:
    if not isinstance(metadata, dict):
        raise Malformed("'.zmetadata' has no object 'metadata'")
    limits.check("keys", len(metadata), "the number of its keys")
    for key in metadata:
        name = key.rpartition("/")[2]
        if name == "zarr.json":
            raise Unsupported("a Parquet index cannot have metadata of Zarr version 3")
        if name not in FILES:
            raise Malformed(f"{key!r:.200} is not the key of metadata")
    return read_nodes(metadata, limits)


def _arrays(
    nodes: Mapping[str, Node], facts: Facts, partitions: Partitions, limits: Limits
) -> dict[str, VirtualArray]:
    arrays = {}
    for path in array_paths(nodes, facts):
        try:
            check_directory(path)
            described = described_array(path, nodes[path], limits)
            grid_shape = described.array.manifest.grid_shape
            partitioned = PartitionedArray(
                path,
                cells=math.prod(grid_shape),
                encodings=len(described.array.encodings),
                table=_table(path, facts, math.prod(grid_shape), partitions.record_size),
                filled=tuple(facts.filled(path)),
            )
            manifest = lazy_manifest(grid_shape, partitioned, partitions)
            arrays[path] = built_array(path, nodes[path], described, manifest, facts, limits)
        except ByteatlasError as error:
            raise error.at(path=path) from error.__cause__
    return arrays


def _table(path: str, facts: Facts, cells: int, record_size: int) -> PartitionTable | None:
    entry = facts.arrays.get(path)
    if entry is None:
        return None
    table = PartitionTable.from_json(entry.get("partitions"), entry.get("present"), path)
    count = -(-cells // record_size)
    if table.present > cells or (table.number.size and int(table.number[-1]) >= count):
        raise Malformed(f"the partitions do not fit the grid of {cells} chunks")
    return table
