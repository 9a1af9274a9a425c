"""What a chunked layout message says, and what a chunk index yields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

__all__ = ["ChunkColumns", "ChunkIndexKind", "ChunkLayout"]


class ChunkIndexKind(IntEnum):
    """Structures that index chunks, numbered as in layout messages of version 4 and 5."""

    BTREE_V1 = 0
    """The only one that layout messages before version 4 know; they do not name it."""
    SINGLE = 1
    IMPLICIT = 2
    FIXED_ARRAY = 3
    EXTENSIBLE_ARRAY = 4
    BTREE_V2 = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkLayout:
    """A chunked layout message (HDF5 File Format 3.0, IV.A.2.i), as far as reading needs it.

    The creation parameters that a message repeats for arrays and version 2 B-trees are left out:
    the structures carry their own.
    """

    kind: ChunkIndexKind
    address: int | None
    """Address of the index, relative to the base address; None while no chunk is allocated."""
    chunk_shape: tuple[int, ...]
    """Elements along each axis, without the message's last dimension (bytes of an element)."""
    chunk_nbytes: int
    """Bytes of a chunk before filters."""
    is_filtered: bool
    """Whether the dataset has a filter pipeline that is not empty."""
    has_plain_edges: bool = False
    """Flag 0 of versions 4 and 5: chunks that cross the dataset's edge skip all filters."""
    single_size: int | None = None
    """Bytes of a filtered single chunk (flag 1)."""
    single_mask: int = 0
    """Filter mask of a filtered single chunk (flag 1)."""


@dataclass(frozen=True, slots=True, eq=False)
class ChunkColumns:
    """The allocated chunks of one dataset, one a row, in no particular order."""

    index: NDArray[np.uint64]
    """Flat index in the chunk grid, C order, shape (count,)."""
    address: NDArray[np.uint64]
    """First byte, shape (count,). From `read_chunk_index` an offset in the window; from the
    readers of single structures relative to the base address, as stored."""
    size: NDArray[np.uint64]
    """Bytes as stored, shape (count,)."""
    mask: NDArray[np.uint32] | None
    """Filter mask, shape (count,): bit i set means that filter i was skipped. None: all zero."""

    @classmethod
    def join(cls, parts: Sequence[ChunkColumns]) -> ChunkColumns:
        """Return the rows of all parts."""
        if len(parts) == 1:
            return parts[0]
        mask = None
        if any(part.mask is not None for part in parts):
            mask = np.concatenate(
                [
                    np.zeros(part.index.size, np.uint32) if part.mask is None else part.mask
                    for part in parts
                ]
            )
        nothing = np.empty(0, np.uint64)
        return cls(
            np.concatenate([nothing, *(part.index for part in parts)]),
            np.concatenate([nothing, *(part.address for part in parts)]),
            np.concatenate([nothing, *(part.size for part in parts)]),
            mask,
        )

    def where(self, keep: NDArray[np.bool_]) -> ChunkColumns:
        """Return the rows where `keep` is true; the columns themselves when it is everywhere."""
        if keep.all():
            return self
        mask = None if self.mask is None else self.mask[keep]
        return ChunkColumns(self.index[keep], self.address[keep], self.size[keep], mask)
