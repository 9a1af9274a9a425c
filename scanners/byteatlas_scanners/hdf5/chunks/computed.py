"""The two indexes that take no space: a single chunk, and chunks one after the other.

HDF5 File Format 3.0, appendix C, "Single Chunk" and "Implicit".
"""

from __future__ import annotations

import numpy as np

from byteatlas.errors import Malformed
from byteatlas_scanners.hdf5.chunks.grid import ChunkGrid
from byteatlas_scanners.hdf5.chunks.layout import ChunkColumns, ChunkLayout
from byteatlas_scanners.hdf5.file import Hdf5File

__all__ = ["implicit_chunks", "single_chunk"]


def single_chunk(layout: ChunkLayout, address: int, grid: ChunkGrid) -> ChunkColumns:
    """Return the only chunk of a dataset: the layout message says all about it.

    Raises
    ------
    Malformed
        The dataset has more chunks than one.
    """
    if grid.cells != 1:
        raise Malformed(f"a single chunk index for a chunk grid of {grid.shape}")
    size = layout.chunk_nbytes if layout.single_size is None else layout.single_size
    return ChunkColumns(
        np.zeros(1, np.uint64),
        np.array([address], np.uint64),
        np.array([size], np.uint64),
        np.array([layout.single_mask], np.uint32),
    )


def implicit_chunks(
    file: Hdf5File, layout: ChunkLayout, address: int, grid: ChunkGrid
) -> ChunkColumns:
    """Work out where the chunks are: one after the other, counted at the maximum extents.

    Raises
    ------
    Malformed
        An axis is unlimited, or the chunks do not fit the source.
    """
    count = grid.count_numbers()
    file.span(address, count * layout.chunk_nbytes, "chunks without an index")
    numbers = np.arange(count, dtype=np.uint64)
    index, inside = grid.locate_numbers(numbers)
    return ChunkColumns(
        index,
        np.uint64(address) + numbers * np.uint64(layout.chunk_nbytes),
        np.full(count, layout.chunk_nbytes, np.uint64),
        None,
    ).where(inside)
