"""Read whichever structure indexes a dataset's chunks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from byteatlas.errors import Malformed
from byteatlas.steps import Steps
from byteatlas_scanners.hdf5.chunks.btree_v1 import read_btree_v1
from byteatlas_scanners.hdf5.chunks.btree_v2_chunks import read_btree_v2_chunks
from byteatlas_scanners.hdf5.chunks.computed import implicit_chunks, single_chunk
from byteatlas_scanners.hdf5.chunks.extensible_array import read_extensible_array
from byteatlas_scanners.hdf5.chunks.fixed_array import read_fixed_array
from byteatlas_scanners.hdf5.chunks.grid import ChunkGrid
from byteatlas_scanners.hdf5.chunks.layout import ChunkColumns, ChunkIndexKind, ChunkLayout
from byteatlas_scanners.hdf5.file import Hdf5File

__all__ = ["read_chunk_index"]

_ALL_FILTERS = np.uint32(0xFFFFFFFF)

_READERS: dict[
    ChunkIndexKind, Callable[[Hdf5File, ChunkLayout, int, ChunkGrid], Steps[ChunkColumns]]
] = {
    ChunkIndexKind.BTREE_V1: read_btree_v1,
    ChunkIndexKind.FIXED_ARRAY: read_fixed_array,
    ChunkIndexKind.EXTENSIBLE_ARRAY: read_extensible_array,
    ChunkIndexKind.BTREE_V2: read_btree_v2_chunks,
}


def read_chunk_index(
    file: Hdf5File,
    layout: ChunkLayout,
    shape: Sequence[int],
    max_shape: Sequence[int | None],
) -> Steps[ChunkColumns]:
    """Read where all chunks of a dataset are.

    Rounds: the levels of a version 1 B-tree; 2 for a fixed array, at most 4 for an extensible
    one, 2 and its depth for a version 2 B-tree, none for the other two. Where a round would take
    more than 16 or 32 MiB (`BATCH` in `blocks` and `elements`), it is several. Memory: so many
    bytes, and twice the columns.

    Parameters
    ----------
    file : the file the dataset is in.
    layout : the dataset's layout message.
    shape : its extents, in elements.
    max_shape : its maximum extents; None along an unlimited axis.

    Returns
    -------
    The allocated chunks, their addresses as offsets in the window; a chunk that is not among
    them was never written. No row is checked for being there twice (`ChunkManifest.build` does).

    Raises
    ------
    Malformed
        The index breaks the specification, or a chunk lies outside the window.
    """
    grid = ChunkGrid.of(shape, max_shape, layout.chunk_shape)
    if layout.chunk_nbytes < 1:
        raise Malformed(f"chunks of {layout.chunk_nbytes} bytes")
    if layout.address is None or not grid.cells:
        return ChunkColumns.join([])
    if layout.kind is ChunkIndexKind.SINGLE:
        found = single_chunk(layout, layout.address, grid)
    elif layout.kind is ChunkIndexKind.IMPLICIT:
        found = implicit_chunks(file, layout, layout.address, grid)
    else:
        found = yield from _READERS[layout.kind](file, layout, layout.address, grid)
    return _finish(file, layout, shape, found)


def _finish(
    file: Hdf5File, layout: ChunkLayout, shape: Sequence[int], found: ChunkColumns
) -> ChunkColumns:
    """Check where the chunks lie, and turn addresses into offsets in the window."""
    address, size, mask = found.address, found.size, found.mask
    if not layout.is_filtered and (size != np.uint64(layout.chunk_nbytes)).any():
        raise Malformed(f"a chunk without filters is not {layout.chunk_nbytes} bytes long")
    end = address + size
    outside = (end > np.uint64(max(file.size - file.base, 0))) | (end < address)
    if outside.any():
        first = int(outside.argmax())
        raise Malformed(
            f"chunk {int(found.index[first])} lies outside the {file.size} bytes of the source",
            offset=file.base + int(address[first]),
            length=int(size[first]),
        )
    if file.base:
        address = address + np.uint64(file.base)
    if layout.has_plain_edges and layout.is_filtered:
        edge = _crosses_edge(layout, shape, found)
        if edge.any():
            mask = np.zeros(edge.size, np.uint32) if mask is None else mask.copy()
            mask[edge] = _ALL_FILTERS
    if mask is not None and not mask.any():
        mask = None
    return ChunkColumns(found.index, address, size, mask)


def _crosses_edge(
    layout: ChunkLayout, shape: Sequence[int], found: ChunkColumns
) -> NDArray[np.bool_]:
    """Tell which chunks reach beyond the dataset's extents."""
    edge = np.zeros(found.index.size, np.bool_)
    rest = found.index
    for n, c in zip(reversed(shape), reversed(layout.chunk_shape), strict=True):
        rest, place = np.divmod(rest, np.uint64(-(-n // c)))
        if n % c:
            edge |= place == np.uint64(n // c)
    return edge
