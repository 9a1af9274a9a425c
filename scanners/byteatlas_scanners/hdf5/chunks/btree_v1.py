"""Version 1 B-trees of chunks (HDF5 File Format 3.0, III.A.1, node type 1).

Nodes have one size, full or not: 24 bytes of header, then 2K pairs of a key (stored size, filter
mask, offsets of the chunk's first element) and a child, then one more key. All nodes of a level
are asked for together and decoded through one structured dtype. They carry no checksum, so
everything that can be checked is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from byteatlas.errors import Malformed
from byteatlas.model import ByteRanges
from byteatlas.steps import Steps
from byteatlas_scanners.hdf5.blocks import batches, locate, unsigned
from byteatlas_scanners.hdf5.chunks.grid import ChunkGrid
from byteatlas_scanners.hdf5.chunks.layout import ChunkColumns, ChunkLayout
from byteatlas_scanners.hdf5.file import Hdf5File
from byteatlas_scanners.hdf5.key_order import Bounds, are_in_order

__all__ = ["read_btree_v1"]

_CHUNK_NODE = 1
_START, _USED = np.uint64(2**48 - 1), np.uint64(48)
"""Of a node's first eight bytes: signature, type and level; then the number of entries used."""


@dataclass(frozen=True, slots=True)
class _Geometry:
    """Layout of one tree's nodes."""

    header: int
    """Bytes before the first entry."""
    children: int
    entry: np.dtype[np.void]
    """A key and its child."""
    length: int

    @classmethod
    @lru_cache(maxsize=64)  # files of many small datasets have few geometries
    def of(cls, offset_size: int, istore_k: int, rank: int) -> _Geometry:
        key = [("size", "<u4"), ("mask", "<u4"), ("offset", "<u8", (rank + 1,))]
        entry = np.dtype([*key, ("address", "u1", (offset_size,))])
        header = 8 + 2 * offset_size
        children = 2 * istore_k
        length = header + children * entry.itemsize + np.dtype(key).itemsize
        return cls(header, children, entry, length)

    def entries(self, rows: NDArray[np.uint8], used: NDArray[np.int64]) -> NDArray[np.void]:
        """Return the used entries of all nodes, one after the other."""
        body = rows[:, self.header : self.header + self.children * self.entry.itemsize]
        entries: NDArray[np.void] = body.view(self.entry)
        return entries[np.arange(self.children) < used[:, None]]


@dataclass(frozen=True, slots=True, eq=False)
class _Nodes:
    """Nodes of one level that came together."""

    geometry: _Geometry
    rows: NDArray[np.uint8]
    """One node a row."""
    used: NDArray[np.int64]
    """How many entries of each are used."""
    room: NDArray[np.int64]
    """How many bytes of each are there."""
    entries: NDArray[np.void]
    """The used entries of all, one after the other."""


def read_btree_v1(
    file: Hdf5File, layout: ChunkLayout, address: int, grid: ChunkGrid
) -> Steps[ChunkColumns]:
    """Read all chunks of a version 1 B-tree, in one round for each level.

    Raises
    ------
    Malformed
        A node is not one, has the wrong level or too many entries, is met twice, or lies outside
        the window; its keys are not in the order that a search needs; or the offsets of a chunk
        are not those of a chunk.
    """
    geometry = _Geometry.of(file.offset_size, file.istore_k, len(grid.shape))
    nodes_left = file.size // geometry.length + 1  # the last may be cut off after its entries
    addresses = np.array([address], np.uint64)
    bounds: Bounds | None = None  # a root has none
    level = None
    chunks: list[ChunkColumns] = []
    while addresses.size and level != 0:
        nodes_left -= addresses.size
        if nodes_left < 0 or _has_repeats(addresses):
            raise Malformed("B-tree node is met twice", offset=file.base + int(addresses[0]))
        expected = None if level is None else level - 1
        below = [addresses[:0]]
        narrower: list[Bounds] = []
        done = 0
        for batch, cut in _batches(file, addresses, geometry.length):
            (rows,) = yield [batch]
            rows = _align(np.asarray(rows), cut, geometry.length)
            level = int(rows[0, 5]) if expected is None else expected
            nodes = _take_apart(rows, batch, cut, level, geometry)
            above = None if bounds is None else bounds.of(slice(done, done + len(rows)))
            done += len(rows)
            if level:
                below.append(unsigned(nodes.entries["address"]))
                narrower.append(_bounds_below(nodes, above or Bounds.of_root(len(grid.shape) + 1)))
            else:
                found, is_ordered = _decode(file, nodes.entries, layout, grid)
                is_ordered &= _is_closed(nodes) if above is None else _are_within(nodes, above)
                if not is_ordered:
                    raise Malformed(
                        "B-tree of chunks: its keys are not in order", offset=int(batch.offsets[0])
                    )
                chunks.append(found)
            del rows, nodes  # before the next batch comes
        addresses = np.concatenate(below)
        bounds = Bounds.join(narrower) if level else bounds
    return ChunkColumns.join(chunks)


def _bounds_below(nodes: _Nodes, above: Bounds) -> Bounds:
    """Return the bounds of the children of some nodes: each lies between its key and the next."""
    keys, used = nodes.entries["offset"], nodes.used
    following = np.empty_like(keys)
    following[:-1] = keys[1:]
    following[np.cumsum(used)[used > 0] - 1] = _last_keys(nodes)[used > 0]
    return above.of(np.repeat(np.arange(used.size), used)).within(keys, following)


def _are_within(leaves: _Nodes, above: Bounds) -> bool:
    """Tell whether the keys of all leaves keep to the bounds that the nodes above give them."""
    keys, used = leaves.entries["offset"], leaves.used
    filled = np.flatnonzero(used)
    end = np.cumsum(used)[filled]
    bounds = above.of(filled).within(above.low[filled], _last_keys(leaves)[filled])
    return not bounds.outside(keys[end - used[filled]], keys[end - 1]).any()


def _is_closed(leaf: _Nodes) -> bool:
    """Tell of a root that is a leaf whether the key after its last entry comes after that entry's.

    It is what `_are_within` tells, at less cost: most trees are a single leaf.
    """
    keys = leaf.entries["offset"]
    start = leaf.geometry.header + leaf.entries.nbytes + 8
    end = start + 8 * keys.shape[1]
    if not keys.size or end > leaf.room[0]:
        return not keys.size  # cut off before that key: a search would not get there
    key = leaf.rows[0, start:end].view("<u8")
    return tuple(key.tolist()) > tuple(keys[-1].tolist())


def _last_keys(nodes: _Nodes) -> NDArray[np.uint64]:
    """Return the offsets in the key after the last entry of each node.

    Of a node that is cut off before it they are zeros: no chunk lies below that key.
    """
    entry = nodes.geometry.entry
    width = 8 * entry["offset"].shape[0]
    start = nodes.geometry.header + nodes.used * entry.itemsize + 8
    is_there = start + width <= nodes.room
    column = np.where(is_there, start, 0)[:, None] + np.arange(width)
    keys: NDArray[np.uint64] = np.take_along_axis(nodes.rows, column, axis=1).view("<u8")
    keys[~is_there] = 0
    return keys


def _has_repeats(addresses: NDArray[np.uint64]) -> bool:
    return addresses.size > 1 and np.unique(addresses).size < addresses.size


def _batches(
    file: Hdf5File, addresses: NDArray[np.uint64], length: int
) -> Iterator[tuple[ByteRanges, NDArray[np.uint64]]]:
    """Ask for whole nodes, and say how many bytes too early each range starts.

    Some writers give a node only the room that its entries need: the last one is then shorter
    than a node, and its range moves back from the end of the source.
    """
    offsets = locate(file, addresses, 1, "B-tree node")
    length = min(length, file.size)
    starts = np.minimum(offsets, np.uint64(file.size - length))
    done = 0
    for batch in batches(starts, length):
        yield batch, offsets[done : done + batch.offsets.size] - batch.offsets
        done += batch.offsets.size


def _align(nodes: NDArray[np.uint8], cut: NDArray[np.uint64], length: int) -> NDArray[np.uint8]:
    """Move nodes that were asked for too far back to the front of their rows, and fill up."""
    if nodes.shape[1] < length:
        nodes = np.pad(nodes, ((0, 0), (0, length - nodes.shape[1])))
    if cut.any():
        for row in np.flatnonzero(cut):
            nodes[row] = np.pad(nodes[row, int(cut[row]) :], (0, int(cut[row])))
    return nodes


def _take_apart(
    rows: NDArray[np.uint8],
    batch: ByteRanges,
    cut: NDArray[np.uint64],
    level: int,
    geometry: _Geometry,
) -> _Nodes:
    """Check the headers of one level's nodes and find their entries."""
    start: NDArray[np.uint64] = rows[:, :8].view("<u8")[:, 0]
    used = (start >> _USED).astype(np.int64)
    expected = int.from_bytes(b"TREE" + bytes([_CHUNK_NODE, level]), "little")
    room = batch.length - cut.astype(np.int64)
    strange = (start & _START) != expected
    strange |= used > np.minimum(
        (room - geometry.header) // geometry.entry.itemsize, geometry.children
    )
    if strange.any():
        first = int(strange.argmax())
        raise Malformed(
            f"expected a B-tree node of chunks at level {level} with at most {geometry.children} "
            f"entries, found {bytes(rows[first, :6])!r} with {used[first]}",
            offset=int(batch.offsets[first] + cut[first]),
        )
    return _Nodes(geometry, rows, used, room, geometry.entries(rows, used))


def _decode(
    file: Hdf5File, entries: NDArray[np.void], layout: ChunkLayout, grid: ChunkGrid
) -> tuple[ChunkColumns, bool]:
    """Turn the entries of leaves into chunks; tell whether they are in order."""
    offset = entries["offset"]
    axes = []
    strange = offset[:, -1] != 0
    for axis, extent in enumerate(layout.chunk_shape):
        along = offset[:, axis]
        scaled = along // np.uint64(extent)
        strange |= scaled * np.uint64(extent) != along
        axes.append(scaled)
    if strange.any():
        first = int(strange.argmax())
        raise Malformed(f"a chunk of shape {layout.chunk_shape} at offset {offset[first].tolist()}")
    index, inside = grid.locate(axes)
    address = unsigned(entries["address"])
    chunks = ChunkColumns(
        index, address, entries["size"].astype(np.uint64), entries["mask"].copy()
    ).where(inside & (address != np.uint64(file.undefined)))
    return chunks, are_in_order(offset, index, inside)
