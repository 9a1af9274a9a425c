"""Version 1 B-trees of chunks by hand, for what no library writes."""

import struct

import pytest

from byteatlas.errors import Malformed
from byteatlas.steps import run
from byteatlas.testing.memory import MemoryReader
from byteatlas_scanners.hdf5.chunks import (
    ChunkColumns,
    ChunkIndexKind,
    ChunkLayout,
    read_chunk_index,
)
from byteatlas_scanners.hdf5.file import Hdf5File

BTREE_V1 = ChunkIndexKind.BTREE_V1
LAYOUT = ChunkLayout(kind=BTREE_V1, address=0, chunk_shape=(10,), chunk_nbytes=20, is_filtered=True)
NODE = 24 + 64 * 32 + 24
NOWHERE = 2**64 - 1


def node(
    level: int, entries: list[tuple[int, int, int]], *, used: int | None = None, end: int = 100
) -> bytes:
    """Return a node of (size, offset, child) entries, and a key behind the last of them."""
    count = len(entries) if used is None else used
    head = struct.pack("<4sBBHQQ", b"TREE", 1, level, count, NOWHERE, NOWHERE)
    body = b"".join(struct.pack("<IIQQQ", size, 0, at, 0, child) for size, at, child in entries)
    last = struct.pack("<IIQQ", 0, 0, end + 10, 0) if entries else b""
    return (head + body + last).ljust(NODE, b"\0")


def tree(data: bytes, shape: int = 100, max_shape: int | None = None) -> ChunkColumns:
    steps = read_chunk_index(Hdf5File(size=len(data)), LAYOUT, (shape,), (max_shape,))
    return run(steps, MemoryReader(data))


def test_a_tree_of_one_leaf_by_hand() -> None:
    columns = tree(node(0, [(5, 0, 16), (6, 30, 40), (7, 90, NOWHERE)]))
    assert columns.index.tolist() == [0, 3]
    assert columns.address.tolist() == [16, 40]
    assert columns.size.tolist() == [5, 6]
    assert columns.mask is None


def test_a_leaf_without_entries_is_an_empty_dataset() -> None:
    assert tree(node(0, [])).index.size == 0


def test_chunks_beyond_the_extents_are_not_there_as_the_library_has_it() -> None:
    assert tree(node(0, [(5, 0, 16), (6, 90, 40), (6, 100, 50)])).index.tolist() == [0, 9]


@pytest.mark.parametrize("length", [24 + 2 * 32 + 24, 24 + 3 * 32, NODE - 1])
def test_a_last_node_cut_off_behind_its_entries_is_read(length: int) -> None:
    leaf = node(0, [(5, 0, 16), (6, 30, 40)])
    columns = tree(leaf[:length])
    assert columns.index.tolist() == [0, 3]
    root = node(1, [(0, 0, NODE)])
    columns = tree(root + leaf[:length])
    assert columns.index.tolist() == [0, 3]
    assert columns.address.tolist() == [16, 40]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (node(0, [(5, 0, 16)])[: 24 + 31], "entries"),
        (node(0, [], used=65), "with 65"),
        (node(0, [(5, 3, 16)]), "at offset"),
        (node(0, [(5, 0, 16)]).replace(b"TREE", b"TRUE"), "expected a B-tree node"),
        (node(0, [(5, 0, NODE - 4)]), "lies outside"),
        (node(0, [(5, 0, 2**64 - 3)]), "lies outside"),
        (node(1, [(0, 0, 2**40)]), "lies outside"),
        (node(1, [(0, 0, NOWHERE)]), "lies outside"),
        (node(1, [(0, 0, 0)]), "at level 0"),
        (node(2, [(0, 0, NODE)]) + node(0, [(5, 0, 16)]), "at level 1"),
        (node(1, [(0, 0, NODE), (0, 10, NODE)]) + node(0, [(5, 0, 16)]), "met twice"),
        (node(1, [(0, 0, at) for at in range(NODE, NODE + 9)]) + bytes(NODE), "met twice"),
    ],
    ids=[
        "entries cut off",
        "too many entries",
        "offset between chunks",
        "signature",
        "chunk over the end",
        "chunk far beyond",
        "child beyond the end",
        "child nowhere",
        "loop",
        "level skipped",
        "child named twice",
        "more nodes than fit",
    ],
)
def test_a_broken_tree_is_malformed(data: bytes, problem: str) -> None:
    with pytest.raises(Malformed, match=problem):
        tree(data)


def test_a_last_node_cut_off_inside_its_last_key_is_malformed() -> None:
    for length in range(24 + 2 * 32, 24 + 2 * 32 + 24):
        with pytest.raises(Malformed, match="not in order"):
            tree(node(0, [(5, 0, 16), (6, 30, 40)])[:length])


@pytest.mark.parametrize(
    "data",
    [
        node(0, [(5, 30, 16), (5, 0, 40)]),
        node(0, [(5, 0, 16), (5, 0, 40)]),
        node(0, [(5, 0, 16), (5, 30, 40)]).replace(struct.pack("<IIQQ", 0, 0, 110, 0), bytes(24)),
        node(1, [(0, 10, NODE), (0, 60, 2 * NODE)])
        + node(0, [(5, 0, 16), (5, 30, 40)])
        + node(0, [(5, 60, 16)]),
        node(1, [(0, 0, NODE), (0, 60, 2 * NODE)])
        + node(0, [(5, 0, 16), (5, 60, 40)])
        + node(0, [(5, 70, 16)]),
        node(2, [(0, 0, NODE)], end=0)
        + node(1, [(0, 0, 2 * NODE), (0, 10, 3 * NODE)])
        + node(0, [(5, 0, 16)])
        + node(0, [(5, 10, 16)]),
    ],
    ids=[
        "in a leaf",
        "twice in a leaf",
        "at a leaf's end",
        "before a child's key",
        "behind the next child's key",
        "behind the end of the level above",
    ],
)
def test_chunks_that_a_search_would_not_find_are_malformed(data: bytes) -> None:
    with pytest.raises(Malformed, match="not in order"):
        tree(data)


def test_a_chunk_beyond_the_maximum_extents_is_malformed() -> None:
    with pytest.raises(Malformed, match="at most 10 chunks"):
        tree(node(0, [(5, 100, 16)]), max_shape=100)


def test_an_internal_node_without_children_is_an_empty_dataset() -> None:
    assert tree(node(3, [])).index.size == 0


def test_chunks_without_filters_are_all_of_one_size() -> None:
    data = node(0, [(20, 0, 16), (19, 10, 40)])
    layout = ChunkLayout(
        kind=BTREE_V1, address=0, chunk_shape=(10,), chunk_nbytes=20, is_filtered=False
    )
    with pytest.raises(Malformed, match="not 20 bytes"):
        run(read_chunk_index(Hdf5File(size=NODE), layout, (100,), (100,)), MemoryReader(data))
