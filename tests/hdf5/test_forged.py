"""Files that no library writes: what they make us do stays in proportion to their size."""

import struct
import tracemalloc
import zlib

import h5py
import numpy as np
import pytest
from fuzz.forge import INT8, TEXT, UNDEFINED, Forge, attribute, collection, dataspace

import byteatlas
from byteatlas.errors import Malformed
from byteatlas.read import Reader
from byteatlas_scanners.hdf5 import attribute as attribute_module
from byteatlas_scanners.hdf5 import objects

MIB = 2**20


@pytest.fixture
def peak(scan):
    """Scan bytes; return the group, and the most memory that was held meanwhile."""

    def measure(data):
        tracemalloc.start()
        try:
            group = scan(data)
            return group, tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    return measure


def reasons(group):
    return " | ".join(reason for _, reason in group.report.skipped)


def test_groups_are_not_followed_beyond_the_depth_that_is_shown(peak):
    forge = Forge()
    address = forge.group([])
    for _ in range(20_000):
        address = forge.group([(b"g", address)])
    group, memory = peak(forge.file(address))
    assert [reason for _, reason in group.report.skipped] == ["groups nested more than 256 deep"]
    assert len(list(group.walk())) == 256
    assert memory < 16 * MIB  # a path for each of the others would take gigabytes


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_fifteen_hundred_nested_groups_are_cut_off_too(make, peak, libver):
    def write(file):
        for _ in range(1500):
            file = file.create_group("g")

    group, memory = peak(make(write, libver=libver))
    assert "nested more than 256 deep" in reasons(group)
    assert memory < 16 * MIB


def test_continuation_blocks_that_overlap_are_not_parsed_for_ever(scan):
    forge, size, count = Forge(), MIB, 1000
    block = forge.put(bytes(size + 8 * count))  # zeros are empty messages
    blocks = [(16, struct.pack("<QQ", block + 8 * number, size)) for number in range(count)]
    data = forge.file(forge.old_header(blocks))
    with pytest.raises(Malformed, match="overlap"):
        scan(data)


def test_a_continuation_block_that_all_objects_share_is_not_parsed_for_ever(scan):
    forge, size, count = Forge(), MIB, 1000
    block = forge.put(bytes(size))
    shared = [(16, struct.pack("<QQ", block, size))]
    members = [(b"%d" % number, forge.old_header(shared)) for number in range(count)]
    group = scan(forge.file(forge.group(members)))
    assert reasons(group).count("overlap") > count - 100


def test_texts_that_are_all_the_same_object_of_a_heap_are_not_copied_for_ever(peak):
    forge, size, count = Forge(), MIB, 4000
    heap = forge.put(collection([b"x" * size]))
    texts = attribute(b"a", TEXT, dataspace(count), struct.pack("<IQI", size, heap, 1) * count)
    group, memory = peak(forge.file(forge.group([], (12, texts))))
    assert "overlap" in reasons(group)
    assert not group.attrs
    assert memory < 64 * MIB


def test_heaps_that_overlap_are_not_parsed_for_ever(scan):
    forge, size, count = Forge(), MIB, 4000
    objects_in = b"".join(struct.pack("<HHIQ8x", n + 1, 1, 0, 8) for n in range(size // 24))
    start = forge.end
    heads = []
    for number in range(count):
        # Each collection is a head, an object over the heads that follow, and all the objects.
        skipped = 32 * (count - number - 1)
        head = b"GCOL\x01\0\0\0" + struct.pack("<Q", 32 + skipped + len(objects_in))
        heads.append(head + struct.pack("<HHIQ", 60_000, 1, 0, skipped))
    forge.put(b"".join(heads) + objects_in)
    ids = b"".join(struct.pack("<IQI", 8, start + 32 * n, 1) for n in range(count))
    group = scan(forge.file(forge.group([], (12, attribute(b"a", TEXT, dataspace(count), ids)))))
    assert "collections of" in reasons(group)  # more bytes than there are


def test_names_that_overlap_in_a_heap_are_not_copied_for_ever(peak):
    forge, size = Forge(), MIB
    segment = forge.put(b"x" * (size - 1) + b"\0")
    heap = forge.put(b"HEAP\0\0\0\0" + struct.pack("<QQQ", size, UNDEFINED, segment))
    nodes = []
    for first in range(0, 256, 8):
        entries = (struct.pack("<QQII16x", first + n, 96, 0, 0) for n in range(8))
        nodes.append(forge.put(b"SNOD\x01\0" + struct.pack("<H", 8) + b"".join(entries)))
    children = b"".join(struct.pack("<QQ", 0, node) for node in nodes) + bytes(8)
    tree = forge.put(b"TREE\0\0" + struct.pack("<HQQ", 32, UNDEFINED, UNDEFINED) + children)
    data = forge.file(forge.old_header([(17, struct.pack("<QQ", tree, heap))]))
    group, memory = peak(data)
    assert "names overlap" in reasons(group)
    assert memory < 16 * MIB


@pytest.mark.parametrize("level", [0, 1, 5])
def test_a_group_tree_that_leads_back_to_itself_is_malformed(scan, level):
    forge = Forge()
    heap = forge.put(b"HEAP\0\0\0\0" + struct.pack("<QQQ", 8, UNDEFINED, forge.end))
    node = forge.end
    head = b"TREE\0" + bytes([level]) + struct.pack("<HQQ", 32, node, node)
    forge.put(head + struct.pack("<QQ", 0, node) * 32 + bytes(8))
    group = scan(forge.file(forge.old_header([(17, struct.pack("<QQ", node, heap))])))
    assert "level" in reasons(group) or "symbol table node" in reasons(group)


def test_a_heap_whose_blocks_lead_back_to_each_other_is_malformed(scan):
    forge = Forge()
    root = forge.end
    pointers = struct.pack("<Q", root) * 4 * 20
    forge.checked(b"FHIB\0" + struct.pack("<QI", 0, 0) + pointers)
    table = struct.pack("<HQQHHQH", 4, 512, 512, 32, 1, root, 20)
    head = b"FRHP\0" + struct.pack("<HHBI", 7, 0, 0, 4096)
    heap = forge.checked(head + struct.pack("<12Q", 0, UNDEFINED, *[0] * 10) + table)
    tree = forge.checked(
        b"BTHD\0\x05" + struct.pack("<IHHBBQHQ", 512, 11, 0, 100, 40, UNDEFINED, 0, 0)
    )
    info = b"\0\0" + struct.pack("<QQ", heap, tree)
    group = scan(forge.file(forge.header([(2, info)])))
    assert "twice" in reasons(group)


def test_datatypes_nested_for_ever_are_refused(scan):
    layout = (8, b"\x03\x01" + struct.pack("<QQ", UNDEFINED, 0))
    array = bytes([0x3A, 0, 0, 0, 1, 0, 0, 0, 1, 1, 0, 0, 0])
    sequence = bytes([0x19, 0, 0, 0, 16, 0, 0, 0])
    forge = Forge()
    members = [
        (name, forge.old_header([(1, dataspace(2)), (3, kind * 4000 + INT8), layout]))
        for name, kind in {b"arrays": array, b"sequences": sequence}.items()
    ]
    group = scan(forge.file(forge.group(members)))
    assert {path for path, _ in group.report.skipped} == {"/arrays", "/sequences"}
    assert reasons(group).count("nested") == 2


def test_more_objects_than_the_limit_are_reported(make, scan, monkeypatch):
    monkeypatch.setattr(objects, "MAX_OBJECTS", 10)

    def write(file):
        for number in range(20):
            file[f"{number:02}"] = number

    group = scan(make(write))
    assert 0 < len(group.arrays) <= 10
    assert len(group.arrays) + len([path for path, _ in group.report.skipped if path != "/"]) == 20
    assert dict(group.report.skipped)["/"].startswith("more than 10 objects")


@pytest.fixture
def at_path(tmp_path):
    """Scan a file that h5py writes; return the group, its reader, and the path."""

    def write_and_scan(write):
        path = tmp_path / "forged.h5"
        with h5py.File(path, "w") as file:
            write(file)
        group = byteatlas.scan(path)
        return group, Reader(group.sources), path

    return write_and_scan


def test_a_chunk_that_inflates_to_more_than_it_declares_is_stopped(at_path):
    def write(file):
        data = file.create_dataset("x", (16,), "u1", chunks=(16,), compression=9)
        data.id.write_direct_chunk((0,), zlib.compress(bytes(2**27), 9))

    group, reader, path = at_path(write)
    tracemalloc.start()
    try:
        with pytest.raises(Malformed, match="more than the 16 bytes expected") as caught:
            reader.read(group.arrays["x"], path="/x")
        assert tracemalloc.get_traced_memory()[1] < MIB
    finally:
        tracemalloc.stop()
    error = caught.value
    assert (error.path, error.url) == ("/x", str(path))
    assert error.offset == group.arrays["x"].manifest.offset[0]


def test_a_chunk_whose_checksum_is_wrong_is_named_with_its_place(at_path):
    def write(file):
        file.create_dataset("x", data=np.arange(32), chunks=(16,), fletcher32=True)

    group, reader, path = at_path(write)
    offset = int(group.arrays["x"].manifest.offset[1])
    data = bytearray(path.read_bytes())
    data[offset + 3] ^= 1
    path.write_bytes(data)
    group = byteatlas.scan(path)
    reader = Reader(group.sources)
    assert reader.read(group.arrays["x"], slice(0, 16)).tolist() == list(range(16))
    with pytest.raises(Malformed, match="checksum") as caught:
        reader.read(group.arrays["x"], path="/x")
    assert (caught.value.path, caught.value.url) == ("/x", str(path))
    assert caught.value.offset == offset


@pytest.mark.parametrize("excess", [-1, 0, 1])
def test_attributes_of_more_bytes_than_the_limit_are_left_out(make, scan, monkeypatch, excess):
    limit = 10_000
    monkeypatch.setattr(attribute_module, "MAX_RECORDS", limit)

    def write(file):
        file.attrs["numbers"] = np.zeros(limit + excess, "u1")
        file.attrs["texts"] = "x" * (limit + excess)
        file.attrs["small"] = 1

    group = scan(make(write, libver="latest"))
    assert group.attrs.keys() == ({"small"} if excess > 0 else {"numbers", "texts", "small"})
    assert reasons(group).count(f"at most {limit} are kept") == (2 if excess > 0 else 0)
