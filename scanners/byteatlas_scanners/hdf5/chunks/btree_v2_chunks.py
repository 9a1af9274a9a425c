"""Chunks in a version 2 B-tree (HDF5 File Format 3.0, III.A.2, record types 10 and 11)."""

from __future__ import annotations

from byteatlas.steps import Steps
from byteatlas_scanners.hdf5.btree_v2 import read_btree_v2
from byteatlas_scanners.hdf5.chunks.elements import ElementType
from byteatlas_scanners.hdf5.chunks.grid import ChunkGrid
from byteatlas_scanners.hdf5.chunks.layout import ChunkColumns, ChunkLayout
from byteatlas_scanners.hdf5.file import Hdf5File

__all__ = ["read_btree_v2_chunks"]

_PLAIN, _FILTERED = 10, 11


def read_btree_v2_chunks(
    file: Hdf5File, layout: ChunkLayout, address: int, grid: ChunkGrid
) -> Steps[ChunkColumns]:
    """Read all chunks of a version 2 B-tree.

    A record is what an array index has for an element, followed by the chunk's coordinates.

    Raises
    ------
    Malformed
        The tree breaks the specification, or its records do not fit the dataset.
    """
    tree = yield from read_btree_v2(file, address, (_FILTERED if layout.is_filtered else _PLAIN,))
    rank = len(grid.shape)
    size = tree.records.shape[1]
    record = ElementType.of(file, layout, size, tail=[("scaled", "<u8", (rank,))])
    records = tree.records.view(record.dtype)[:, 0]
    index, inside = grid.locate([records["scaled"][:, axis] for axis in range(rank)])
    return record.decode(records, index, inside)
