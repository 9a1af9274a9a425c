"""Cut chunks that are not encoded into smaller ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from byteatlas.model import ChunkManifest, VirtualArray

__all__ = ["contiguous_form", "cut", "is_plain"]

T = TypeVar("T", bound=np.generic)


def is_plain(array: VirtualArray) -> bool:
    """Tell whether all chunks are nothing but their elements in C order."""
    return array.dtype != object and not any(encoding.codecs for encoding in array.encodings)


def contiguous_form(chunk: Sequence[int], piece: Sequence[int]) -> tuple[int, ...]:
    """Return the largest piece within a piece of a chunk that is one range of its bytes.

    It is 1 along all axes before the last one that is cut.
    """
    cuts = [axis for axis, (n, c) in enumerate(zip(chunk, piece, strict=True)) if n != c]
    last = cuts[-1] if cuts else 0
    return (1,) * last + tuple(piece[last:])


def cut(array: VirtualArray, piece: tuple[int, ...]) -> ChunkManifest:
    """Return the manifest of a plain array whose chunks are cut into pieces.

    Parameters
    ----------
    piece
        A chunk shape that divides the array's, of `contiguous_form`.
    """
    manifest, chunk = array.manifest, array.chunk_shape
    if piece == chunk:
        return manifest
    itemsize = array.dtype.itemsize
    parts = tuple(n // c for n, c in zip(chunk, piece, strict=True))
    grid = tuple(-(-n // c) for n, c in zip(array.shape, piece, strict=True))
    within = np.zeros(1, np.uint64)
    for axis, count in enumerate(parts):
        stride = itemsize * math.prod(chunk[axis + 1 :]) * piece[axis]
        steps = np.arange(count, dtype=np.uint64) * np.uint64(stride)
        within = np.add.outer(within, steps).reshape(-1)
    old = np.arange(manifest.offset.size) if manifest.index is None else manifest.index
    index, inside = _pieces_of(old.astype(np.int64), manifest.grid_shape, parts, grid)
    offset = np.add.outer(manifest.offset, within)[inside]
    inline: dict[int, bytes] = {}
    for flat, data in manifest.inline.items():  # few by nature
        places, kept = _pieces_of(np.array([flat]), manifest.grid_shape, parts, grid)
        pieces = _split(np.frombuffer(data, f"V{itemsize}"), parts, piece)
        inline |= dict(zip(places.tolist(), map(bytes, pieces[kept[0]]), strict=True))
    return ChunkManifest.build(
        grid,
        index.astype(np.uint64),
        offset,
        np.full(offset.size, itemsize * math.prod(piece), np.uint64),
        source=_repeated(manifest.source, inside),
        encoding=_repeated(manifest.encoding, inside),
        inline=inline,
    )


def _pieces_of(
    flat: NDArray[np.int64],
    old_grid: tuple[int, ...],
    parts: tuple[int, ...],
    grid: tuple[int, ...],
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the indexes of all pieces of some chunks, and which pieces are in the grid.

    Returns
    -------
    Shapes (pieces in the grid,) and (chunks, pieces of a chunk).
    """
    count = math.prod(parts)
    index = np.zeros((flat.size, count), np.int64)
    inside = np.ones((flat.size, count), np.bool_)
    numbers = np.arange(count)
    stride = 1
    for old, part, cells in zip(old_grid[::-1], parts[::-1], grid[::-1], strict=True):
        flat, outer = np.divmod(flat, old)
        numbers, inner = np.divmod(numbers, part)
        place = np.add.outer(outer * part, inner)
        inside &= place < cells
        index += place * stride
        stride *= cells
    return index[inside], inside


def _split(
    elements: NDArray[np.void], parts: tuple[int, ...], piece: tuple[int, ...]
) -> NDArray[np.void]:
    """Return the pieces of one chunk, shape (pieces, elements of a piece)."""
    rank = len(parts)
    mixed = elements.reshape([n for pair in zip(parts, piece, strict=True) for n in pair])
    ordered = mixed.transpose([*range(0, 2 * rank, 2), *range(1, 2 * rank, 2)])
    return np.ascontiguousarray(ordered).reshape(math.prod(parts), math.prod(piece))


def _repeated(column: NDArray[T] | None, inside: NDArray[np.bool_]) -> NDArray[T] | None:
    if column is None:
        return None
    return np.broadcast_to(column[:, np.newaxis], inside.shape)[inside]
