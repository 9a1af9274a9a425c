"""Chunks in a version 2 B-tree (HDF5 File Format 3.0, III.A.2, record types 10 and 11)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from byteatlas.errors import Malformed
from byteatlas.steps import Steps
from byteatlas_scanners.hdf5.btree_v2 import walk_btree_v2
from byteatlas_scanners.hdf5.chunks.elements import ElementType
from byteatlas_scanners.hdf5.chunks.grid import ChunkGrid
from byteatlas_scanners.hdf5.chunks.layout import ChunkColumns, ChunkLayout
from byteatlas_scanners.hdf5.file import Hdf5File
from byteatlas_scanners.hdf5.key_order import are_in_order

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
        The tree breaks the specification, its keys are not in the order that a search needs, or
        its records do not fit the dataset.
    """
    rank = len(grid.shape)
    kinds = (_FILTERED if layout.is_filtered else _PLAIN,)

    def decode(_kind: int, raw: NDArray[np.uint8]) -> ChunkColumns:
        record = ElementType.of(file, layout, raw.shape[1], tail=[("scaled", "<u8", (rank,))])
        records = raw.view(record.dtype)[:, 0]
        scaled = records["scaled"]
        index, inside = grid.locate([scaled[:, axis] for axis in range(rank)])
        if not are_in_order(scaled, index, inside):
            raise Malformed("B-tree of chunks: its keys are not in order")
        return record.decode(records, index, inside)

    def keys(raw: NDArray[np.uint8]) -> NDArray[np.uint64]:
        return np.ascontiguousarray(raw[:, -8 * rank :]).view("<u8")

    parts = yield from walk_btree_v2(file, address, kinds, decode, keys)
    return ChunkColumns.join(parts)
