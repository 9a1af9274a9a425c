"""Version 2 B-trees, as the library writes them and by hand."""

import io
import struct
from collections.abc import Iterator

import h5py
import numpy as np
import pytest

from byteatlas.errors import Malformed
from byteatlas.steps import run
from byteatlas.testing.memory import MemoryReader
from byteatlas_scanners.hdf5.btree_v2 import BTreeV2, read_btree_v2
from byteatlas_scanners.hdf5.checksum import lookup3
from byteatlas_scanners.hdf5.file import Hdf5File

LINK_NAME, LINK_ORDER, ATTRIBUTE_NAME, ATTRIBUTE_ORDER = 5, 6, 8, 9


def read(data: bytes, address: int, kind: int, base: int = 0) -> tuple[BTreeV2, MemoryReader]:
    reader = MemoryReader(data)
    tree = run(read_btree_v2(Hdf5File(size=len(data), base=base), address, (kind,)), reader)
    assert tree.kind == kind
    return tree, reader


def headers(data: bytes, kind: int) -> Iterator[int]:
    position = data.find(b"BTHD")
    while position >= 0:
        if data[position + 5] == kind:
            yield position
        position = data.find(b"BTHD", position + 1)


def words(records: np.ndarray, start: int) -> list[int]:
    return sorted(np.ascontiguousarray(records[:, start : start + 4]).view("<u4")[:, 0].tolist())


@pytest.mark.parametrize(("count", "rounds"), [(9, 2), (300, 3), (4000, 4)])
def test_links_of_a_group_are_all_there_whatever_the_depth(count: int, rounds: int) -> None:
    buffer = io.BytesIO()
    names = [f"link {i}" for i in range(count)]
    with h5py.File(buffer, "w", libver="latest", track_order=True) as file:
        for name in names:
            file[name] = h5py.SoftLink("/nowhere")
    data = buffer.getvalue()
    (address,) = headers(data, LINK_NAME)
    tree, reader = read(data, address, LINK_NAME)
    assert tree.records.shape == (count, 11)
    assert words(tree.records, 0) == sorted(lookup3(name.encode()) for name in names)
    assert reader.rounds == rounds
    (address,) = headers(data, LINK_ORDER)
    tree, _ = read(data, address, LINK_ORDER)
    assert words(tree.records, 0) == list(range(count))


def test_attributes_are_all_there_behind_a_user_block() -> None:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver="latest", userblock_size=512, track_order=True) as file:
        for i in range(500):
            file.attrs[f"attribute {i}"] = i
    data = buffer.getvalue()
    (address,) = headers(data, ATTRIBUTE_NAME)
    tree, _ = read(data, address - 512, ATTRIBUTE_NAME, base=512)
    assert words(tree.records, 13) == sorted(lookup3(f"attribute {i}".encode()) for i in range(500))
    (address,) = headers(data, ATTRIBUTE_ORDER)
    tree, _ = read(data, address - 512, ATTRIBUTE_ORDER, base=512)
    assert words(tree.records, 9) == list(range(500))


# By hand: nodes of 64 bytes with records of 8, so 6 in a leaf and 2 above

KIND, NODE, RECORD = 5, 64, 8
HEADER = 38


def checked(block: bytes) -> bytes:
    return block + struct.pack("<I", lookup3(block))


def header(depth: int, root: int, root_records: int, records: int, kind: int = KIND) -> bytes:
    head = struct.pack("<4sBBIHHBB", b"BTHD", 0, kind, NODE, RECORD, depth, 100, 40)
    return checked(head + struct.pack("<QHQ", root, root_records, records))


def leaf(*records: int) -> bytes:
    body = b"".join(struct.pack("<Q", record) for record in records)
    return checked(b"BTLF" + bytes([0, KIND]) + body).ljust(NODE, b"\0")


def internal(records: list[int], children: list[tuple[int, int]]) -> bytes:
    body = b"".join(struct.pack("<Q", record) for record in records)
    body += b"".join(struct.pack("<QB", address, count) for address, count in children)
    return checked(b"BTIN" + bytes([0, KIND]) + body).ljust(NODE, b"\0")


def values(data: bytes) -> list[int]:
    tree, _ = read(data, 0, KIND)
    return tree.records.view("<u8")[:, 0].tolist()


def test_a_tree_of_one_leaf() -> None:
    assert values(header(0, HEADER, 3, 3) + leaf(7, 8, 9)) == [7, 8, 9]


def test_a_tree_of_two_levels_gives_the_records_of_both() -> None:
    first, second = HEADER + NODE, HEADER + 2 * NODE
    data = header(1, HEADER, 1, 6) + internal([3], [(first, 2), (second, 3)])
    assert values(data + leaf(1, 2) + leaf(4, 5, 6)) == [3, 1, 2, 4, 5, 6]


def test_a_tree_without_records_has_no_root() -> None:
    tree, reader = read(header(0, 2**64 - 1, 0, 0), 0, KIND)
    assert tree.records.shape == (0, RECORD)
    assert reader.rounds == 1


CHILD = HEADER + NODE
BROKEN = {
    "other type": (header(0, HEADER, 1, 1, kind=6) + leaf(1), "type 6"),
    "not a header": (leaf(1) + leaf(1), "expected a version 0 B-tree header"),
    "header checksum": (header(0, HEADER, 1, 1)[:-1] + b"\0" + leaf(1), "header has checksum"),
    "leaf checksum": (header(0, HEADER, 1, 1) + leaf(1)[:10].ljust(NODE, b"\0"), "node has check"),
    "leaf of another type": (
        header(0, HEADER, 1, 1) + leaf(1).replace(b"BTLF\0\5", b"BTLF\0\6"),
        "expected a B-tree node",
    ),
    "internal where a leaf should be": (
        header(0, HEADER, 1, 1) + internal([1], [(HEADER, 1)] * 2),
        "expected a B-tree node",
    ),
    "root outside": (header(0, 2**40, 1, 1) + leaf(1), "lies outside"),
    "root nowhere": (header(0, 2**64 - 1, 1, 1) + leaf(1), "lies outside"),
    "too many records in a node": (header(0, HEADER, 7, 7) + leaf(*range(6)), "than fit it"),
    "fewer records than announced": (header(0, HEADER, 1, 2) + leaf(1), "has 1 records"),
    "more records than announced": (header(0, HEADER, 2, 1) + leaf(1, 2), "its header says"),
    "more records than bytes": (header(0, HEADER, 1, 2**60) + leaf(1), "records"),
    "loop": (
        header(1, HEADER, 1, 3) + internal([1], [(HEADER, 1), (CHILD, 1)]) + leaf(1) * 2,
        "expected a B-tree node",
    ),
    "more nodes than fit": (
        header(1, HEADER, 2, 5) + internal([1, 2], [(CHILD, 1)] * 3) + leaf(1),
        "more nodes",
    ),
    "too deep": (header(65535, HEADER, 1, 1) + leaf(1), "depth 65535"),
    "cut off": (header(0, HEADER, 1, 1) + leaf(1)[:-1], "lies outside"),
}


@pytest.mark.parametrize(("data", "problem"), BROKEN.values(), ids=BROKEN)
def test_a_broken_tree_is_malformed(data: bytes, problem: str) -> None:
    with pytest.raises(Malformed, match=problem):
        values(data)
