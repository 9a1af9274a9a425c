"""Which chunks dask gets when the user leaves it to the file: ``chunks={}`` and ``"auto"``.

A task of dask costs about a millisecond, and over a network a round trip. A chunk of the file that
decodes to 8 MiB or more is a task; of smaller ones a task takes as many neighbours as fit into
16 MiB, along the last dimension first, as they lie side by side in most files. Uncompressed chunks
of more than 64 MiB, which are read in part, are cut into slabs.

Variables that are chunked alike along a dimension are merged alike along it, and the largest
variable decides: so `Dataset.chunks` exists where the file's own chunks agree. A variable that
would be left in more than 1,000 chunks of less than 1 MiB goes its own way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from byteatlas.model import VirtualArray

__all__ = ["DaskChunks", "dask_chunks"]

FITTING = 16 * 2**20
"""Bytes of a dask chunk that small chunks are merged into, at most."""
SLAB = 64 * 2**20
"""Bytes of a dask chunk that is a part of an uncompressed chunk, at most."""
MANY = 1000
SMALL = 2**20
STRING = 64
"""Bytes that a string of variable length is taken for."""

_Along = tuple[str, int, int]
"""A dimension, its size, and the length of the file's chunks along it."""


class DaskChunks(dict[str, int]):
    """The encoding ``preferred_chunks`` of a variable: chunk lengths by dimension.

    xarray asks it two things. Which chunks to make: ``get(dimension, size)``, which answers with
    the merged ones. And which chunks the user's own would separate, to warn of it:
    ``get(dimension)`` or ``[dimension]``, which are the file's, like all else of the mapping.
    Dimensions along which chunks are cut are only in the first: nothing is lost by cutting them.
    """

    def __init__(self, stored: Mapping[str, int], merged: Mapping[str, int]) -> None:
        super().__init__({name: n for name, n in stored.items() if merged[name] >= n})
        self.merged = dict(merged)

    def get(self, key: Any, default: Any = None) -> Any:  # Any: as of every mapping
        """Return the length to make along a dimension of a size; without a size, the file's."""
        return super().get(key) if default is None else self.merged.get(key, default)


def dask_chunks(arrays: Mapping[str, VirtualArray]) -> dict[str, DaskChunks]:
    """Return the chunks for each array of a group, by the array's name."""
    agreed: dict[_Along, int] = {}
    found = {}
    for name, array in sorted(arrays.items(), key=_weight):
        lengths = _lengths(array, agreed)
        if _is_crowd(array, lengths):
            lengths = _lengths(array, {})
        for along, length in zip(_along(array), lengths, strict=True):
            agreed.setdefault(along, length)
        stored = dict(zip(array.dimensions, array.chunk_shape, strict=False))
        found[name] = DaskChunks(stored, dict(zip(array.dimensions, lengths, strict=False)))
    return found


def _weight(item: tuple[str, VirtualArray]) -> tuple[bool, int]:
    """Order arrays by size, the largest first; those that become indexes decide nothing."""
    name, array = item
    return array.dimensions == (name,), -_bytes(array, array.shape)


def _along(array: VirtualArray) -> list[_Along]:
    return list(zip(array.dimensions, array.shape, array.chunk_shape, strict=True))


def _lengths(array: VirtualArray, agreed: Mapping[_Along, int]) -> list[int]:
    """Return the length of dask's chunks along each axis."""
    alongs = _along(array)
    lengths = [agreed.get(along, along[2]) for along in alongs]
    is_open = [along not in agreed for along in alongs]
    for axis in reversed(range(len(lengths))):
        if not is_open[axis]:
            continue
        fitting = FITTING // max(_bytes(array, lengths), 1)
        chunk, cells = array.chunk_shape[axis], array.manifest.grid_shape[axis]
        if fitting > 1 and cells > 1:
            lengths[axis] = min(chunk * fitting, array.shape[axis])
        if fitting < cells:
            break
    if any(is_open) and _bytes(array, lengths) > SLAB and _is_read_in_part(array):
        _cut(array, lengths, is_open)
    return lengths


def _cut(array: VirtualArray, lengths: list[int], is_open: list[bool]) -> None:
    """Shorten chunks along the leading axes, so that what is left lies together in the source."""
    for axis, length in enumerate(lengths):
        if is_open[axis] and length > 1:
            others = _bytes(array, lengths) // length
            lengths[axis] = max(SLAB // others, 1)
            if others <= SLAB:
                return


def _is_read_in_part(array: VirtualArray) -> bool:
    """Tell whether a part of a chunk is read without the rest of it."""
    has_codecs = any(encoding.codecs for encoding in array.encodings)
    return array.dtype != object and not has_codecs and array.manifest.digest is None


def _is_crowd(array: VirtualArray, lengths: list[int]) -> bool:
    counts = [-(-size // length) for size, length in zip(array.shape, lengths, strict=True)]
    return math.prod(counts) > MANY and _bytes(array, lengths) < SMALL


def _bytes(array: VirtualArray, lengths: list[int] | tuple[int, ...]) -> int:
    return math.prod(lengths) * (STRING if array.dtype == object else array.dtype.itemsize)
