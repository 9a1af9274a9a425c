"""Elements of chunk arrays, and the blocks and pages that hold them.

Fixed and extensible arrays share them (HDF5 File Format 3.0, appendix C): an element is a chunk's
address, and with filters also its stored size and filter mask. Elements lie in blocks that start
with a prefix and end in a checksum; the pages of large blocks have no prefix.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byteatlas.errors import Malformed
from byteatlas.model import Buffer, ByteRanges
from byteatlas.steps import Steps
from byteatlas_scanners.hdf5.blocks import locate, unsigned
from byteatlas_scanners.hdf5.checksum import verify, verify_rows
from byteatlas_scanners.hdf5.chunks.grid import ChunkGrid
from byteatlas_scanners.hdf5.chunks.layout import ChunkColumns, ChunkLayout
from byteatlas_scanners.hdf5.file import Hdf5File

__all__ = ["BATCH", "Blocks", "ElementType", "Elements", "open_block"]

BATCH = 32 * 2**20
"""At most so many bytes of elements are asked for at once: some two million chunks."""


@dataclass(frozen=True, slots=True)
class ElementType:
    """How an index stores what it knows of a chunk."""

    dtype: np.dtype[Any]
    """Fields `address` and, with filters, `size` and `mask`."""
    undefined: int
    """The address of a chunk that is not allocated."""
    chunk_nbytes: int
    """Size of all chunks when there are no filters."""

    @classmethod
    def of(
        cls, file: Hdf5File, layout: ChunkLayout, nbytes: int, tail: Sequence[Any] = ()
    ) -> ElementType:
        """Return the type of elements of `nbytes` bytes that end in the fields of `tail`.

        The size of a filtered chunk is as wide as there is room for.

        Raises
        ------
        Malformed
            No element has that many bytes.
        """
        fields = [("address", "u1", (file.offset_size,)), *tail]
        if layout.is_filtered:
            width = nbytes - np.dtype(fields).itemsize - 4
            if not 1 <= width <= 8:
                raise Malformed(f"an index of filtered chunks with elements of {nbytes} bytes")
            fields[1:1] = [("size", "u1", (width,)), ("mask", "<u4")]
        dtype = np.dtype(fields)
        if dtype.itemsize != nbytes:
            raise Malformed(f"an index of chunks with elements of {nbytes} bytes")
        return cls(dtype, file.undefined, layout.chunk_nbytes)

    def decode(
        self, raw: NDArray[np.void], index: NDArray[np.uint64], inside: NDArray[np.bool_]
    ) -> ChunkColumns:
        """Return the allocated chunks of those inside the grid.

        Parameters
        ----------
        raw : elements of `dtype`, of any shape.
        index, inside : what the grid says of each, flattened.
        """
        address = unsigned(raw["address"]).ravel()
        if "size" in (self.dtype.names or ()):
            size, mask = unsigned(raw["size"]).ravel(), raw["mask"].ravel()
        else:
            size, mask = np.full(address.size, self.chunk_nbytes, np.uint64), None
        found = ChunkColumns(index, address, size, mask)
        return found.where(inside & (address != np.uint64(self.undefined)))


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """Blocks or pages of one length."""

    what: str
    """What they are, for errors."""
    offsets: NDArray[np.uint64]
    """Where they start in the window, shape (blocks,)."""
    first: NDArray[np.uint64]
    """Number of the first element in each, shape (blocks,)."""
    count: int
    """Elements in each."""
    length: int
    """Bytes of each."""
    prefix: int
    """Bytes before the first element."""
    start: bytes
    """What each starts with."""

    @property
    def ranges(self) -> ByteRanges:
        """Where their bytes are."""
        return ByteRanges(self.offsets, self.length)

    def where(self, keep: NDArray[np.bool_] | slice) -> Blocks:
        """Return some of the blocks."""
        return replace(self, offsets=self.offsets[keep], first=self.first[keep])


@dataclass(frozen=True, slots=True)
class Elements:
    """Reads the elements of one array."""

    file: Hdf5File
    kind: ElementType
    grid: ChunkGrid
    slowest: int = 0
    """The axis along which the array grows."""
    count: int | None = None
    """Elements from this number on were never set, whatever their blocks hold; None: all were."""

    def blocks(
        self,
        what: str,
        addresses: NDArray[np.uint64],
        first: NDArray[np.uint64],
        count: int,
        *,
        prefix: int = 0,
        start: bytes = b"",
    ) -> Blocks:
        """Describe blocks at addresses relative to the base address."""
        length = prefix + count * self.kind.dtype.itemsize + 4
        offsets = locate(self.file, addresses, length, what)
        return Blocks(what, offsets, first, count, length, prefix, start)

    def merge(self, groups: Sequence[Blocks]) -> list[Blocks]:
        """Put blocks of one sort and size together.

        Raises
        ------
        Malformed
            They are longer than the source, all together.
        """
        alike: dict[tuple[str, int], list[Blocks]] = {}
        for blocks in groups:
            if blocks.first.size:
                alike.setdefault((blocks.what, blocks.length), []).append(blocks)
        if sum(blocks.length * blocks.first.size for blocks in groups) > self.file.size:
            raise Malformed(f"{groups[0].what}s take more bytes than the source has")
        return [
            replace(
                some[0],
                offsets=np.concatenate([blocks.offsets for blocks in some]),
                first=np.concatenate([blocks.first for blocks in some]),
            )
            for some in alike.values()
        ]

    def read(self, groups: Sequence[Blocks]) -> Steps[ChunkColumns]:
        """Read the chunks in many blocks, in one round for each `BATCH` bytes."""
        parts = []
        for batch in _batches(self.merge(groups)):
            replies = yield [blocks.ranges for blocks in batch]
            parts += [
                self.parse(np.asarray(rows), blocks)
                for blocks, rows in zip(batch, replies, strict=True)
            ]
        return ChunkColumns.join(parts)

    def parse(self, rows: NDArray[np.uint8], blocks: Blocks) -> ChunkColumns:
        """Return the chunks in the bytes of some blocks, one block a row."""
        start = np.frombuffer(blocks.start, np.uint8)
        strange = (rows[:, : start.size] != start).any(axis=1)
        if strange.any():
            row = int(strange.argmax())
            raise Malformed(
                f"expected a {blocks.what} starting with {blocks.start!r}, "
                f"found {bytes(rows[row, : start.size])!r}",
                offset=int(blocks.offsets[row]),
            )
        verify_rows(rows, blocks.length - 4, blocks.what, blocks.offsets)
        numbers = np.add.outer(blocks.first, np.arange(blocks.count, dtype=np.uint64))
        return self.decode(rows[:, blocks.prefix : -4], numbers.ravel())

    def decode(self, rows: NDArray[np.uint8], numbers: NDArray[np.uint64]) -> ChunkColumns:
        """Return the chunks in rows of elements with the given numbers."""
        index, inside = self.grid.locate_numbers(numbers, self.slowest)
        if self.count is not None:
            inside &= numbers < np.uint64(self.count)
        return self.kind.decode(rows.view(self.kind.dtype), index, inside)


def open_block(block: Buffer, start: bytes, what: str, offset: int) -> NDArray[np.uint8]:
    """Return what is between the start and the checksum of a block.

    Raises
    ------
    Malformed
        It starts otherwise, or its checksum is wrong.
    """
    raw = bytes(block)
    if not raw.startswith(start):
        raise Malformed(
            f"expected a {what} starting with {start!r}, found {raw[: len(start)]!r}",
            offset=offset,
        )
    verify(raw, what, offset)
    return np.frombuffer(raw, np.uint8)[len(start) : -4]


def _batches(groups: Sequence[Blocks]) -> Iterator[list[Blocks]]:
    """Cut groups of blocks into batches of about `BATCH` bytes."""
    batch: list[Blocks] = []
    room = BATCH
    for blocks in groups:
        start = 0
        while start < blocks.first.size:
            some = blocks.where(slice(start, start + max(1, room // blocks.length)))
            batch.append(some)
            start += some.first.size
            room -= some.first.size * blocks.length
            if room < blocks.length:
                yield batch
                batch, room = [], BATCH
    if batch:
        yield batch
