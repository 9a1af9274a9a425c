"""Chunk indexes: where the chunks of one dataset are, as numpy columns.

One module per structure of the specification (HDF5 File Format 3.0, appendix C, and III.A.1 for
version 1 B-trees); `read_chunk_index` picks the right one.
"""

from byteatlas_scanners.hdf5.chunks.index import read_chunk_index
from byteatlas_scanners.hdf5.chunks.layout import ChunkColumns, ChunkIndexKind, ChunkLayout

__all__ = ["ChunkColumns", "ChunkIndexKind", "ChunkLayout", "read_chunk_index"]
