"""Serve chunks that only point to their strings as chunks that hold them (``vlen-utf8``)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numcodecs.vlen import VLenUTF8
from numpy.typing import NDArray

from byteatlas.codecs import MAX_DECODED
from byteatlas.errors import ByteatlasError, Unsupported
from byteatlas.heap import Heap, heap_ids, heap_of, read_strings
from byteatlas.index.fill_values import fill_value_conflicts, missing_value
from byteatlas.limits import Limits
from byteatlas.model import Buffer, Codec, Encoding, VirtualArray, VirtualGroup
from byteatlas.read.placing import decode_chunk
from byteatlas.sources import ByteSource
from byteatlas.steps import run_async

__all__ = ["Pointing", "as_served", "look_up", "missing_chunk", "serves_missing"]


def as_served(group: VirtualGroup) -> VirtualGroup:
    """Return a group as the store shows it, whose chunks hold the strings themselves."""
    return replace(
        group,
        arrays={name: _as_served(array) for name, array in group.arrays.items()},
        groups={name: as_served(child) for name, child in group.groups.items()},
    )


def _as_served(array: VirtualArray) -> VirtualArray:
    if heap_of(array) is None:
        return array
    array = replace(array, encodings=(Encoding((Codec("vlen-utf8"),)),))
    if fill_value_conflicts(array):  # then `missing_chunk` is served, and no fill value is used
        array = replace(array, fill_value=array.attrs["_FillValue"])
    return array


def serves_missing(array: VirtualArray) -> bool:
    """Tell whether chunks are served for the missing ones of an array of strings in a heap.

    Version 2 of Zarr has one word for the value of missing chunks and for ``_FillValue``. Where
    these differ, chunks of the one are served, and the word is left to the other.
    """
    return heap_of(array) is not None and fill_value_conflicts(array)


def missing_chunk(array: VirtualArray, limits: Limits) -> bytes:
    """Return what is served for a missing chunk of strings, encoded.

    Raises
    ------
    LimitExceeded
        It is larger than a chunk may be.
    """
    text: bytes = missing_value(array).encode()
    count = math.prod(array.chunk_shape)
    item = len(text).to_bytes(4, "little") + text
    limits.check("chunk", 4 + count * len(item), "a missing chunk of strings")
    return count.to_bytes(4, "little") + item * count


class Pointing(NamedTuple):
    """A chunk of heap IDs, as it came from its source."""

    array: VirtualArray
    heap: Heap
    data: Buffer
    encoding: int
    """Position of its encoding in the array's table."""
    path: str
    """Of the array, for error messages."""
    flat: int
    """Its flat index in the chunk grid."""
    offset: int | None
    """Where it is in its source, unless it is inlined."""


async def look_up(chunks: Sequence[Pointing], source: ByteSource) -> list[bytes | ByteatlasError]:
    """Return the chunks of one source with their strings in place, or the error of each.

    The strings of all of them are looked up together. Where that fails, each chunk is looked up
    by itself, so that a damaged one does not take the others with it.
    """
    try:
        return await _together(chunks, source)
    except ByteatlasError as error:
        if len(chunks) == 1:
            return [error.at(url=source.url, path=chunks[0].path, offset=chunks[0].offset)]
    return [one for chunk in chunks for one in await look_up([chunk], source)]


async def _together(chunks: Sequence[Pointing], source: ByteSource) -> list[bytes | ByteatlasError]:
    ids = [_ids(chunk) for chunk in chunks]
    answers: list[bytes | ByteatlasError] = [b""] * len(chunks)
    for heap in dict.fromkeys(chunk.heap for chunk in chunks):
        mine = [place for place, chunk in enumerate(chunks) if chunk.heap == heap]
        rows = np.concatenate([ids[place] for place in mine])
        texts = await run_async(read_strings(rows, heap, source.facts.size), source)
        bounds = np.cumsum([len(ids[place]) for place in mine])[:-1]
        for place, part in zip(mine, np.split(texts, bounds), strict=True):
            answers[place] = _encoded(part)
    return answers


def _ids(chunk: Pointing) -> NDArray[np.uint8]:
    """Return the heap IDs of a chunk; those of the padding beyond the array's edge are empty."""
    array = heap_ids(chunk.array, chunk.heap)
    ids = decode_chunk(array, chunk.data, chunk.encoding)
    place = np.unravel_index(chunk.flat, array.manifest.grid_shape) if array.shape else ()
    sizes = zip(array.shape, array.chunk_shape, place, strict=True)
    inside = tuple(slice(0, int(n - c * at)) for n, c, at in sizes)
    part = ids[inside] if inside else ids
    if part.size != ids.size:
        ids = np.zeros_like(ids)
        ids[inside] = part
    return ids.reshape(-1).view(np.uint8).reshape(-1, chunk.heap.id_size)


def _encoded(texts: NDArray[np.object_]) -> bytes:
    nbytes = 4 + sum(4 + 4 * len(text) for text in texts)  # at most: 4 bytes a character
    if nbytes > MAX_DECODED and 4 + sum(4 + len(text.encode()) for text in texts) > MAX_DECODED:
        raise Unsupported(f"a chunk of more than {MAX_DECODED} bytes of strings")
    return bytes(VLenUTF8().encode(texts))
