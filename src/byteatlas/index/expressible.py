"""What the reference formats have no word for, said in words that they have."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byteatlas.errors import ByteatlasError, Unsupported
from byteatlas.index.fill_values import fill_value_conflicts, missing_value
from byteatlas.model import WHOLE, ChunkManifest, Source, VirtualArray, VirtualGroup

__all__ = ["inline_conflicts", "resolve_whole"]

MAX_FILLED_CHUNKS = 1000
MAX_FILLED_BYTES = 16 * 2**20
"""Missing chunks are inlined, where other readers would misread them, up to these bounds."""


def resolve_whole(manifest: ChunkManifest, sources: Sequence[Source], path: str) -> ChunkManifest:
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


def inline_conflicts(group: VirtualGroup, path: str, filled: dict[str, list[int]]) -> VirtualGroup:
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
        name: inline_conflicts(child, f"{path}/{name}", filled)
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
