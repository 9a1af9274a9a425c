"""Version 2 B-trees (HDF5 File Format 3.0, III.A.2): a header, then the tree level by level.

The records are fixed-size and opaque here; what they mean is their readers' business.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from byteatlas.errors import Malformed
from byteatlas.model import Buffer
from byteatlas.steps import Steps
from byteatlas_scanners.hdf5.blocks import batches, locate, unsigned
from byteatlas_scanners.hdf5.checksum import verify, verify_rows
from byteatlas_scanners.hdf5.file import Hdf5File
from byteatlas_scanners.hdf5.key_order import Bounds

__all__ = ["BTreeV2", "read_btree_v2", "walk_btree_v2"]

T = TypeVar("T")

_HEADER = struct.Struct("<4sBBIHHBB")  # then root address, its records, all records, checksum
_PREFIX = 6  # of a node: signature, version, type
_OVERHEAD = 10  # prefix and checksum
_NODE = "B-tree node"
_PIECE = 2**20
"""Bytes of nodes that are taken apart at once: what is made of them stays in the processor's
cache."""


@dataclass(frozen=True, slots=True, eq=False)
class BTreeV2:
    """All records of one tree."""

    kind: int
    """Type of the records, the specification's number: 5 for links by name, and so on."""
    records: NDArray[np.uint8]
    """One record a row, shape (count, record size). Not in the order of their keys: those of
    internal nodes come first."""


@dataclass(frozen=True, slots=True)
class _Header:
    kind: int
    node_size: int
    record_size: int
    depth: int
    root: int
    root_records: int
    all_records: int


@dataclass(frozen=True, slots=True)
class _Level:
    """Shape of the nodes of one depth; leaves have depth 0."""

    depth: int
    max_records: int
    address_width: int
    count_width: int
    total_width: int

    @property
    def pointer_width(self) -> int:
        return self.address_width + self.count_width + self.total_width


def read_btree_v2(file: Hdf5File, address: int, kinds: Collection[int]) -> Steps[BTreeV2]:
    """Read all records of a version 2 B-tree; see `walk_btree_v2`."""
    parts: list[tuple[int, NDArray[np.uint8]]]
    parts = yield from walk_btree_v2(file, address, kinds, lambda kind, some: (kind, some))
    return BTreeV2(parts[0][0], np.concatenate([records for _, records in parts]))


def walk_btree_v2(
    file: Hdf5File,
    address: int,
    kinds: Collection[int],
    take: Callable[[int, NDArray[np.uint8]], T],
    keys: Callable[[NDArray[np.uint8]], NDArray[np.uint64]] | None = None,
) -> Steps[list[T]]:
    """Hand the records of a version 2 B-tree over, some thousands at a time.

    Takes one round for the header and one for each level.

    Parameters
    ----------
    address : of the tree's header.
    kinds : the types of records the caller can read.
    take : called with the type of the records, and with one record a row, shape (count, record
        size), not in the order of their keys: those of internal nodes come first.
    keys : given to have it checked that a search from the root would find each record. Returns
        the keys of some records, one a row (`key_order`); `take` checks the order within a call.

    Returns
    -------
    What `take` returned: first for no records, then for all there are.

    Raises
    ------
    Malformed
        The tree is not one, has another type, fails a checksum, or lies outside the file; or its
        keys are not in order.
    """
    where = file.span(
        address, _HEADER.size + file.offset_size + file.length_size + 6, "B-tree header"
    )
    (block,) = yield [where]
    head = _parse_header(file, block, where.offset, kinds)
    taken = [take(head.kind, np.empty((0, head.record_size), np.uint8))]
    found = 0
    nodes_left = file.size // head.node_size
    addresses = np.array([head.root] if head.root_records else [], np.uint64)
    counts = np.array([head.root_records], np.int64)
    step = max(1, _PIECE // head.node_size)
    order = _Order(keys) if keys else None
    for level in reversed(_levels(file, head, where.offset)):
        nodes_left -= addresses.size
        if nodes_left < 0:
            raise Malformed("B-tree has more nodes than fit the file", offset=where.offset)
        if (counts > level.max_records).any():
            raise Malformed("B-tree node has more records than fit it", offset=where.offset)
        found += int(counts.sum())
        if found > head.all_records:
            raise Malformed("B-tree has more records than its header says", offset=where.offset)
        below = [np.empty((0, level.pointer_width), np.uint8)]
        start = 0
        for batch in batches(locate(file, addresses, head.node_size, _NODE), head.node_size):
            (block,) = yield [batch]
            for first in range(0, len(block), step):
                nodes = np.asarray(block)[first : first + step]
                count = counts[start : start + len(nodes)]
                start += len(nodes)
                _verify_nodes(nodes, count, batch.offsets[first : first + step], head, level)
                records = _records(nodes, count, head.record_size)
                if order and not order.holds(records, count, has_children=level.depth > 0):
                    raise Malformed(
                        "B-tree: its keys are not in order", offset=int(batch.offsets[first])
                    )
                taken.append(take(head.kind, records))
                if level.depth:
                    below.append(_pointers(nodes, count, head.record_size, level.pointer_width))
            del block, nodes, records  # before the next batch comes
        addresses, counts = _parse_pointers(np.concatenate(below), level)
        if order:
            order.go_down()
    if found != head.all_records:
        raise Malformed(
            f"B-tree has {found} records, its header says {head.all_records}", offset=where.offset
        )
    return taken


class _Order:
    """Checks the keys of a tree, node by node: whether they keep to what those above say."""

    def __init__(self, keys: Callable[[NDArray[np.uint8]], NDArray[np.uint64]]) -> None:
        self._keys = keys
        self._level: Bounds | None = None
        """Bounds of all nodes of the level; None for the root."""
        self._done = 0
        """Nodes of the level seen so far."""
        self._below: list[Bounds] = []

    def holds(
        self, records: NDArray[np.uint8], count: NDArray[np.int64], *, has_children: bool
    ) -> bool:
        """Tell whether the next nodes, with so many records each, keep to their bounds."""
        stop = np.cumsum(count)
        if not count.all():
            return not count.any()  # only a root may be empty
        first, last = self._keys(records[stop - count]), self._keys(records[stop - 1])
        if self._level is None:
            self._level = Bounds.of_root(first.shape[1])
        bounds = self._level.of(slice(self._done, self._done + count.size))
        self._done += count.size
        if has_children:
            self._below.append(bounds.between(self._keys(records), count))
        return not bounds.outside(first, last).any()

    def go_down(self) -> None:
        """Go on with the children of all nodes seen, in their order."""
        self._level, self._done = Bounds.join(self._below) if self._below else None, 0
        self._below = []


def _parse_header(file: Hdf5File, block: Buffer, offset: int, kinds: Collection[int]) -> _Header:
    block = bytes(block)
    signature, version, kind, node_size, record_size, depth, _, _ = _HEADER.unpack_from(block)
    if signature != b"BTHD" or version != 0:
        raise Malformed(
            f"expected a version 0 B-tree header, found {signature!r} version {version}",
            offset=offset,
        )
    verify(block, "B-tree header", offset)
    if kind not in kinds:
        raise Malformed(f"B-tree has records of type {kind}, expected {kinds!r}", offset=offset)
    if not record_size or node_size < _OVERHEAD + record_size:
        raise Malformed(
            f"B-tree nodes of {node_size} bytes with records of {record_size}", offset=offset
        )
    rest = block[_HEADER.size :]
    middle = file.offset_size + 2
    all_records = int.from_bytes(rest[middle : middle + file.length_size], "little")
    if all_records * record_size > file.size:
        raise Malformed(f"B-tree of {all_records} records", offset=offset)
    return _Header(
        kind=kind,
        node_size=node_size,
        record_size=record_size,
        depth=depth,
        root=int.from_bytes(rest[: file.offset_size], "little"),
        root_records=int.from_bytes(rest[file.offset_size : middle], "little"),
        all_records=all_records,
    )


def _levels(file: Hdf5File, head: _Header, offset: int) -> list[_Level]:
    """Return the shape of the nodes of each depth.

    Counts take as few bytes as can hold the greatest that is possible there.
    """
    most = (head.node_size - _OVERHEAD) // head.record_size
    count_width = _width(most)
    levels = [_Level(0, most, file.offset_size, count_width, 0)]
    most_below = most
    for depth in range(1, head.depth + 1):
        total_width = _width(most_below) if depth > 1 else 0
        pointer = file.offset_size + count_width + total_width
        most = (head.node_size - _OVERHEAD - pointer) // (head.record_size + pointer)
        most_below = (most + 1) * most_below + most
        if most < 1 or most_below >= 2**64:
            raise Malformed(
                f"B-tree of depth {head.depth} with nodes of {head.node_size} bytes", offset=offset
            )
        levels.append(_Level(depth, most, file.offset_size, count_width, total_width))
    return levels


def _width(most: int) -> int:
    return max(1, -(-most.bit_length() // 8))


def _verify_nodes(
    nodes: NDArray[np.uint8],
    count: NDArray[np.int64],
    offsets: NDArray[np.uint64],
    head: _Header,
    level: _Level,
) -> None:
    """Check what the nodes of one depth start with, and their checksums."""
    signature = b"BTIN" if level.depth else b"BTLF"
    expected = np.frombuffer(signature + bytes([0, head.kind]), np.uint8)
    strange = (nodes[:, :_PREFIX] != expected).any(axis=1)
    if strange.any():
        first = int(strange.argmax())
        raise Malformed(
            f"expected a B-tree node starting with {bytes(expected)!r}, "
            f"found {bytes(nodes[first, :_PREFIX])!r}",
            offset=int(offsets[first]),
        )
    length = _PREFIX + count * head.record_size
    if level.depth:
        length += (count + 1) * level.pointer_width
    verify_rows(nodes, length, _NODE, offsets)


def _records(nodes: NDArray[np.uint8], count: NDArray[np.int64], size: int) -> NDArray[np.uint8]:
    """Return the records of all nodes, one a row."""
    most = int(count.max())
    places = nodes[:, _PREFIX : _PREFIX + most * size].view(f"V{size}")
    records: NDArray[np.uint8] = places[np.arange(most) < count[:, None]].view(np.uint8)
    return records.reshape(-1, size)


def _pointers(
    nodes: NDArray[np.uint8], count: NDArray[np.int64], record_size: int, width: int
) -> NDArray[np.uint8]:
    """Return the child pointers of all nodes, one a row: they start where the records end."""
    row = np.repeat(np.arange(len(nodes)), count + 1)
    place = np.arange(row.size) - (np.cumsum(count + 1) - count - 1)[row]
    column = _PREFIX + count[row] * record_size + place * width
    length = nodes.shape[1]
    anywhere: NDArray[np.void] = np.ndarray(
        (len(nodes), length - width + 1), f"V{width}", nodes, strides=(length, 1)
    )
    pointers: NDArray[np.uint8] = anywhere[row, column].view(np.uint8)
    return pointers.reshape(-1, width)


def _parse_pointers(
    pointers: NDArray[np.uint8], level: _Level
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Return the address and the number of records of each child."""
    end = level.address_width + level.count_width
    return (
        unsigned(pointers[:, : level.address_width]),
        unsigned(pointers[:, level.address_width : end]).astype(np.int64),
    )
