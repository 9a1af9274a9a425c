"""Superblocks of all versions, their extensions, user blocks and widths of addresses."""

import struct

import h5py
import numpy as np
import pytest

from byteatlas.errors import Malformed, Unsupported
from byteatlas.scanners import Window
from byteatlas.steps import run
from byteatlas.testing.memory import MemoryReader
from byteatlas_scanners.hdf5.superblock import find_signature, read_superblock


def write_one_of_each(file):
    """Write data of every layout, strings, and more attributes than a header holds."""
    file.attrs["title"] = "one of each"
    file["group/contiguous"] = np.arange(10, dtype=">i2")
    compact = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    compact.set_layout(h5py.h5d.COMPACT)
    space = h5py.h5s.create_simple((4,))
    h5py.Dataset(h5py.h5d.create(file.id, b"compact", h5py.h5t.STD_I32LE, space, compact))[...] = (
        range(4)
    )
    file["strings"] = ["a", "bb", ""]
    file["never"] = h5py.Empty("f4")
    values = np.arange(400).reshape(20, 20)
    for name, options in {
        "plain": {},
        "filtered": {"compression": 1, "shuffle": True},
        "single": {"chunks": (20, 20)},
    }.items():
        file.create_dataset(name, data=values, **{"chunks": (3, 7), **options})
    for number in range(20):
        file["plain"].attrs[f"number {number}"] = number


def write_unlimited(file):
    values = np.arange(400).reshape(20, 20)
    file.create_dataset("one", data=values, chunks=(3, 7), maxshape=(None, 20))
    file.create_dataset("two", data=values, chunks=(3, 7), maxshape=(None, None))


NULL = {"/never": "null dataspace"}


@pytest.mark.parametrize(
    ("libver", "version"), [(None, 0), ("v108", 2), ("v110", 3), ("v114", 3), ("latest", 3)]
)
def test_files_of_every_version_of_the_library_are_read(make, check, libver, version):
    data = make(write_one_of_each, libver=libver)
    assert data[8] == version
    group = check(data, NULL)
    assert group.attrs == {"title": "one of each"}
    assert len(group["plain"].attrs) == 20
    check(make(write_unlimited, libver=libver))


def as_version_1(data, istore_k):
    """Turn a version 0 superblock into version 1, which is 4 bytes longer.

    The root group's header, which these 4 bytes overwrite, moves to the end of the file.
    """
    (root,) = struct.unpack_from("<Q", data, 64)
    (size,) = struct.unpack_from("<I", data, root + 8)
    assert root == 96
    block = data[:24] + struct.pack("<HH", istore_k, 0) + data[24:96]
    moved = bytearray(block + data[100:] + data[root : root + 16 + size])
    moved[8] = 1
    struct.pack_into("<Q", moved, 44, len(moved))  # the end of the file
    struct.pack_into("<Q", moved, 68, len(data))  # the root group's header
    return bytes(moved)


def test_superblock_version_1_is_read(make, check):
    check(as_version_1(make(write_one_of_each), 32), NULL)


def test_superblock_version_1_gives_the_size_of_chunk_btree_nodes(make, scan, check):
    data = make(write_one_of_each)  # with 21 chunks in one node
    check(as_version_1(data, 16), NULL)
    reasons = dict(scan(as_version_1(data, 8)).report.skipped)
    assert set(reasons) == {"/never", "/plain", "/filtered"}
    assert "at most 16 entries" in reasons["/plain"]


def test_the_extension_gives_the_sizes_of_btree_nodes(make, check, set_property):
    def create(fcpl):
        set_property("H5Pset_istore_k", fcpl, 3)
        set_property("H5Pset_sym_k", fcpl, 2, 5)

    data = make(write_one_of_each, create=create, libver="v108")
    assert data[8] == 2
    check(data, NULL)
    file, _ = run(read_superblock(Window(memoryview(data), len(data))), MemoryReader(data))
    assert (file.istore_k, file.group_internal_k, file.group_leaf_k) == (3, 2, 5)


@pytest.mark.parametrize("internal", [1, 2, 40])
@pytest.mark.parametrize("leaf", [1, 7])
def test_the_superblock_gives_the_sizes_of_group_btree_nodes(
    make, check, set_property, internal, leaf
):
    def create(fcpl):
        set_property("H5Pset_sym_k", fcpl, internal, leaf)

    def write(file):
        for number in range(60):
            file[f"member {number}"] = number

    group = check(make(write, create=create))
    assert len(group.arrays) == 60


@pytest.mark.parametrize("sizes", [(4, 4), (8, 4), (4, 8), (2, 8)], ids=str)
@pytest.mark.parametrize("libver", [None, "latest"])
def test_addresses_and_lengths_of_other_widths_are_read(make, check, libver, sizes):
    data = make(write_one_of_each, create=lambda fcpl: fcpl.set_sizes(*sizes), libver=libver)
    check(data, NULL)


def test_addresses_of_a_width_that_nobody_writes_are_refused(make, scan):
    data = bytearray(make(write_one_of_each))
    data[13] = 16
    with pytest.raises(Unsupported, match="16 bytes"):
        scan(bytes(data))


@pytest.mark.parametrize("size", [512, 1024, 4096])
@pytest.mark.parametrize("libver", [None, "latest"])
def test_all_addresses_count_from_behind_the_user_block(tmp_path, check, libver, size):
    path = tmp_path / "user.h5"
    with h5py.File(path, "w", libver=libver, userblock_size=size) as file:
        write_one_of_each(file)
        write_unlimited(file)
    data = path.read_bytes()
    assert find_signature(memoryview(data)) == size
    group = check(data, NULL)
    assert int(group["group/contiguous"].manifest.offset[0]) > size


def test_something_put_in_front_of_a_file_is_a_user_block_too(make, check):
    check(b"#!/bin/sh\n".ljust(2048, b"\0") + make(write_one_of_each), NULL)


def test_the_signature_is_only_looked_for_at_doubling_offsets():
    signature = b"\x89HDF\r\n\x1a\n"
    assert find_signature(memoryview(bytes(1024) + signature)) == 1024
    assert find_signature(memoryview(bytes(1536) + signature)) is None
    assert find_signature(memoryview(signature[:7])) is None


@pytest.mark.parametrize("libver", [None, "latest"])
def test_files_with_paged_space_are_read(make, check, libver):
    data = make(write_one_of_each, libver=libver, fs_strategy="page", fs_page_size=4096)
    check(data, NULL)


@pytest.mark.parametrize("libver", [None, "latest"])
def test_a_member_of_a_family_of_files_is_refused_as_a_whole(tmp_path, scan, libver):
    path = tmp_path / "family%d.h5"
    with h5py.File(path, "w", libver=libver, driver="family", memb_size=2**20) as file:
        file["x"] = 1
    with pytest.raises(Unsupported, match="split or written by a special driver") as caught:
        scan((tmp_path / "family0.h5").read_bytes())
    assert "h5repart" in caught.value.hint


def test_a_version_that_is_not_known_is_refused(make, scan):
    data = bytearray(make(write_one_of_each))
    data[8] = 9
    with pytest.raises(Unsupported, match="superblock version 9"):
        scan(bytes(data))


def test_a_superblock_with_a_wrong_checksum_is_malformed(make, scan):
    data = bytearray(make(write_one_of_each, libver="latest"))
    data[20] ^= 1
    with pytest.raises(Malformed, match=r"superblock.*checksum"):
        scan(bytes(data))


def test_a_root_group_that_is_no_group_is_malformed(make, scan):
    data = bytearray(make(lambda file: file.create_dataset("x", data=[1, 2, 3])))
    (header,) = struct.unpack_from("<Q", data, 64)
    data[header] = 7
    with pytest.raises(Malformed, match="object header: expected version 1"):
        scan(bytes(data))


@pytest.mark.parametrize("libver", [None, "latest"])
def test_a_file_that_ends_inside_its_superblock_is_malformed(make, scan, libver):
    data = make(lambda file: file.create_dataset("x", data=1), libver=libver)
    for size in (8, 9, 20, 47):
        with pytest.raises(Malformed, match="superblock"):
            scan(data[:size])
