"""Write a virtual group as an index file: kerchunk's reference specification, version 1, in JSON.

Flat, strict and the same on every machine: no templates, no NaN, keys in code-point order, one
reference per line.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byteatlas.errors import ByteatlasError, Unsupported
from byteatlas.index import zarr_v2, zarr_v3
from byteatlas.index.atomic import write_whole
from byteatlas.index.facts import facts_to_json, source_urls
from byteatlas.index.fill_values import fill_value_conflicts, missing_value
from byteatlas.index.json_lines import json_bytes, reference_lines
from byteatlas.index.zarr_metadata import ZarrFormat, zarr_metadata
from byteatlas.model import WHOLE, ChunkManifest, Source, VirtualArray, VirtualGroup

__all__ = ["json_pieces", "to_json_bytes", "write_json"]

MAX_FILLED_CHUNKS = 1000
MAX_FILLED_BYTES = 16 * 2**20
"""Missing chunks are inlined, where other readers would misread them, up to these bounds."""


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
    filled: dict[str, list[int]] = {}
    if zarr_format == 2:
        group = _inline_conflicts(group, "", filled)
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
        manifest = _resolve_whole(array.manifest, group.sources, path)
        blocks[keys.key((0,) * len(array.shape))] = reference_lines(manifest, keys, urls)

    yield b'{"byteatlas":' + json_bytes(facts) + b',\n"refs":{'
    comma = 1
    for key in sorted(blocks):
        for piece in blocks[key]:
            yield piece[comma:]
            comma = 0
    yield b'\n},\n"version":1}\n'


def _resolve_whole(
    manifest: ChunkManifest, sources: tuple[Source, ...], path: str
) -> ChunkManifest:
    """Give a length to ranges that go from an offset to the end of a source.

    The format can refer to a whole source, but not to the rest of one.
    """
    rest = np.flatnonzero((manifest.length == np.uint64(WHOLE)) & (manifest.offset > 0))
    if not rest.size:
        return manifest
    length = manifest.length.copy()
    for position, source in enumerate(sources):
        mine = rest if manifest.source is None else rest[manifest.source[rest] == position]
        if not mine.size:
            continue
        if source.size is None:
            raise Unsupported(
                "a chunk goes up to the end of a source of unknown size",
                url=source.public_url,
                path=path,
            )
        length[mine] = np.uint64(source.size) - manifest.offset[mine]
        if manifest.source is None:
            break
    return replace(manifest, length=length)


def _inline_conflicts(group: VirtualGroup, path: str, filled: dict[str, list[int]]) -> VirtualGroup:
    """Inline missing chunks whose value is not the array's ``_FillValue``, where they are few.

    Version 2 metadata has one word for both, so a reader would take the one for the other. The
    chunks that were inlined are noted in `filled`.
    """
    arrays = dict(group.arrays)
    for name, array in group.arrays.items():
        if fill_value_conflicts(array) and len(array.encodings) == 1:
            chunk = _filled_chunk(array)
            if chunk is not None:
                missing = _missing_chunks(array.manifest).tolist()
                filled[f"{path}/{name}"] = missing
                inline = {**array.manifest.inline, **dict.fromkeys(missing, chunk)}
                arrays[name] = replace(array, manifest=replace(array.manifest, inline=inline))
    groups = {
        name: _inline_conflicts(child, f"{path}/{name}", filled)
        for name, child in group.groups.items()
    }
    return replace(group, arrays=arrays, groups=groups)


def _filled_chunk(array: VirtualArray) -> bytes | None:
    """Return the bytes of a missing chunk, encoded; None when that would take too much."""
    count = array.manifest.missing_count
    size = math.prod(array.chunk_shape) * array.dtype.itemsize
    if count > MAX_FILLED_CHUNKS or size > MAX_FILLED_BYTES:
        return None
    from numcodecs.registry import get_codec  # noqa: PLC0415  # rarely needed

    data: Any = np.full(math.prod(array.chunk_shape), missing_value(array), array.dtype)
    for codec in array.encodings[0].codecs:
        try:
            data = get_codec({"id": codec.name, **codec.config}).encode(data)
        except (ByteatlasError, NotImplementedError, ValueError):
            return None  # a codec that only decodes
    chunk = data.tobytes() if isinstance(data, np.ndarray) else bytes(data)
    return chunk if len(chunk) * count <= MAX_FILLED_BYTES else None


def _missing_chunks(manifest: ChunkManifest) -> NDArray[np.intp]:
    is_missing = np.ones(manifest.cells, np.bool_)
    if manifest.index is not None:
        is_missing[manifest.index] = False
    is_missing[list(manifest.inline)] = False
    return np.flatnonzero(is_missing)
