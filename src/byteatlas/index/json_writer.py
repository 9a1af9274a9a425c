"""Write a virtual group as an index file: kerchunk's reference specification, version 1, in JSON.

Flat, strict and the same on every machine: no templates, no NaN, keys in code-point order, one
reference per line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from os import PathLike
from typing import Any

from byteatlas.index import zarr_v2, zarr_v3
from byteatlas.index.atomic import write_whole
from byteatlas.index.expressible import inline_conflicts, resolve_whole
from byteatlas.index.facts import facts_to_json, source_urls
from byteatlas.index.json_lines import json_bytes, reference_lines
from byteatlas.index.lazy_manifest import loaded
from byteatlas.index.zarr_metadata import ZarrFormat, zarr_metadata
from byteatlas.model import VirtualGroup

__all__ = ["json_pieces", "to_json_bytes", "write_json"]


def write_json(
    group: VirtualGroup,
    path: str | PathLike[str],
    *,
    zarr_format: ZarrFormat = 2,
    keep_query: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    if_unchanged: str | None = None,
) -> None:
    """Write an index file, whole or not at all.

    Of several writers at the same time, the last one's index stays, whole.

    Parameters
    ----------
    group
        The root.
    path
        A local path, or any URL that fsspec can write to.
    zarr_format
        Version of the Zarr metadata in it.
    keep_query
        Keep the query strings of the sources' URLs, which may be signatures.
    storage_options
        Options of the fsspec filesystem (Any: each filesystem's own).
    if_unchanged
        Replace only the index that has this `revision` ("" where there is none). Local paths
        only.

    Raises
    ------
    Conflict
        It is another one by now, and is left as it is.
    Unsupported
        The index cannot say what the group holds.
    OSError
        The file cannot be written. A file that was there before still is.
    """
    pieces = json_pieces(group, zarr_format=zarr_format, keep_query=keep_query)
    write_whole(path, pieces, storage_options=storage_options, if_unchanged=if_unchanged)


def to_json_bytes(
    group: VirtualGroup, *, zarr_format: ZarrFormat = 2, keep_query: bool = False
) -> bytes:
    """Return the bytes that `write_json` writes."""
    return b"".join(json_pieces(group, zarr_format=zarr_format, keep_query=keep_query))


def json_pieces(
    group: VirtualGroup, *, zarr_format: ZarrFormat = 2, keep_query: bool = False
) -> Iterator[bytes]:
    """Yield the bytes that `write_json` writes, some megabytes at a time."""
    group = loaded(group)
    filled: dict[str, list[int]] = {}
    if zarr_format == 2:
        group = inline_conflicts(group, "", filled)
    facts = facts_to_json(group, keep_query=keep_query, filled=filled)
    metadata = zarr_metadata(group, zarr_format)
    urls = [json_bytes(url)[1:-1] for url in source_urls(group.sources, keep_query=keep_query)]
    spell = (zarr_v2 if zarr_format == 2 else zarr_v3).chunk_keys

    # All keys of one array's chunks are neighbours, so a place for the first is one for them all.
    blocks: dict[str, Iterator[bytes]] = {}
    for key, value in metadata.items():
        blocks[key] = iter(
            [b",\n" + json_bytes(key) + b":" + json_bytes(json_bytes(value).decode())]
        )
    for path, array in group.walk_arrays():
        keys = spell(path[1:])
        manifest = resolve_whole(array.manifest, group.sources, path)
        blocks[keys.key((0,) * len(array.shape))] = reference_lines(manifest, keys, urls)

    yield b'{"byteatlas":' + json_bytes(facts) + b',\n"refs":{'
    comma = 1
    for key in sorted(blocks):
        for piece in blocks[key]:
            yield piece[comma:]
            comma = 0
    yield b'\n},\n"version":1}\n'
