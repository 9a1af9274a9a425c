"""Chunk keys of one array: which chunk each names, and which there are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from byteatlas.errors import Malformed
from byteatlas.index.chunk_keys import ChunkKeys
from byteatlas.model import ChunkManifest

__all__ = ["chunk_keys", "flat_indices", "numbers_below"]

_BLOCK = 2**16
"""Chunk keys are spelled so many at a time."""
_FEW = 8
"""So many keys are faster taken apart one by one than together."""


def flat_indices(
    keys: Sequence[str], spelled: ChunkKeys, grid: tuple[int, ...]
) -> NDArray[np.int64]:
    """Return the flat index (C order) of the chunk that each key names, -1 where it names none.

    Parameters
    ----------
    keys
        Any text.
    spelled
        How the keys of the array are spelled.
    grid
        Shape of its chunk grid.
    """
    if len(keys) > _FEW:
        try:
            return spelled.parse(keys, grid).astype(np.int64)
        except Malformed:
            pass  # at least one is no key of a chunk: then each is looked at by itself
    return np.array([_flat_index(key, spelled, grid) for key in keys], np.int64)


def _flat_index(key: str, spelled: ChunkKeys, grid: tuple[int, ...]) -> int:
    if not grid:
        return 0 if key == spelled.scalar else -1
    numbers = _numbers(key.removeprefix(spelled.lead).split(spelled.separator), grid)
    if numbers is None or len(numbers) != len(grid) or not key.startswith(spelled.lead):
        return -1
    flat = 0
    for number, size in zip(numbers, grid, strict=True):
        flat = flat * size + number
    return flat


def _numbers(parts: Sequence[str], grid: tuple[int, ...]) -> list[int] | None:
    """Return coordinates in a grid from text, None unless they are spelled as in a key."""
    if len(parts) > len(grid):
        return None
    for part, size in zip(parts, grid, strict=False):
        # more digits than the size has cannot be in the grid, and may be very many
        if not (part.isascii() and part.isdigit() and len(part) <= len(str(size))):
            return None
        if (part[0] == "0" and part != "0") or int(part) >= size:
            return None
    return list(map(int, parts))


def chunk_keys(manifest: ChunkManifest, spelled: ChunkKeys) -> Iterator[str]:
    """Spell the keys of all chunks that a manifest has, a block at a time."""
    if not manifest.grid_shape:
        yield from [spelled.scalar] * manifest.present_count
        return
    inline = np.fromiter(manifest.inline, np.uint64, len(manifest.inline))
    for column in (manifest.index, inline):
        count = manifest.virtual_count if column is None else column.size
        for start in range(0, count, _BLOCK):
            stop = min(start + _BLOCK, count)
            flat = np.arange(start, stop) if column is None else column[start:stop].astype(np.int64)
            chunks = np.transpose(np.unravel_index(flat, manifest.grid_shape))
            yield from map(spelled.key, chunks.tolist())


def numbers_below(
    directory: str, spelled: ChunkKeys, manifest: ChunkManifest
) -> Iterator[tuple[str, bool]]:
    """Yield the next numbers of keys in a directory such as ``a/c/0``, and whether more follow."""
    grid = manifest.grid_shape
    parts = f"{directory}/".removeprefix(spelled.lead).split("/")[:-1]
    numbers = _numbers(parts, grid)
    if numbers is None or len(numbers) == len(grid):
        return
    depth = len(numbers)
    stride = math.prod(grid[depth + 1 :])
    low = 0
    for number, size in zip(numbers, grid, strict=False):
        low = low * size + number
    low *= grid[depth] * stride
    here = _present(manifest, low, low + grid[depth] * stride)
    for number in np.unique((here - low) // stride).tolist():
        yield str(number), depth + 1 < len(grid)


def _present(manifest: ChunkManifest, low: int, high: int) -> NDArray[np.int64]:
    """Return the flat indices of chunks, virtual or inlined, from `low` up to `high`."""
    if manifest.index is None:
        return np.arange(low, high)
    first, last = np.searchsorted(manifest.index, np.array([low, high], np.uint64))
    inlined = [flat for flat in manifest.inline if low <= flat < high]
    return np.append(manifest.index[first:last].astype(np.int64), np.array(inlined, np.int64))
