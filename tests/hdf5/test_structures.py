"""Headers, shared messages, chunks of more than 4 GiB, and files that end too early."""

import io
import os
import struct
import zlib

import h5py
import numpy as np
import pytest
from h5py import h5d, h5f, h5p, h5s, h5t

import byteatlas
from byteatlas.errors import Malformed, Unsupported
from byteatlas_scanners.hdf5.checksum import lookup3

LIBVER = pytest.mark.parametrize("libver", [None, "v108", "latest"])


def write_many(file):
    file.attrs["title"] = "text"
    for number in range(30):
        name = f"g/x{number}"
        file.create_dataset(
            name, data=np.arange(400).reshape(20, 20) + number, chunks=(3, 7), compression=1
        )
        file[name].attrs["number"] = number
    file["strings"] = ["a", "bb"]


@LIBVER
def test_attributes_and_links_may_be_dense_from_the_first_or_never(
    make, check_whole, set_property, create_group, libver
):
    def write(file):
        for name, phases, count in (("dense", (0, 0), 2), ("in place", (60_000, 0), 300)):
            plist = h5p.create(h5p.DATASET_CREATE)
            set_property("H5Pset_attr_phase_change", plist, *phases)
            space = h5s.create_simple((3,))
            dataset = h5py.Dataset(h5d.create(file.id, name.encode(), h5t.STD_I32LE, space, plist))
            for number in range(count):
                dataset.attrs[f"a{number}"] = number
        for name, phases, count in (("g1", (0, 0), 3), ("g2", (100, 2), 50)):
            group = create_group(file, name, ("H5Pset_link_phase_change", *phases))
            for number in range(count):
                group[f"m{number}"] = number

    check_whole(make(write, libver=libver))


@LIBVER
def test_attributes_come_by_creation_where_that_is_tracked(make, check_whole, set_property, libver):
    names = [f"{97 * number % 100}" for number in range(30)]

    def write(file):
        for name, count in (("few", 5), ("many", 30)):
            plist = h5p.create(h5p.DATASET_CREATE)
            set_property("H5Pset_attr_creation_order", plist, 3)
            space = h5s.create_simple((3,))
            dataset = h5py.Dataset(h5d.create(file.id, name.encode(), h5t.STD_I32LE, space, plist))
            for one in names[:count]:
                dataset.attrs[one] = 1

    group = check_whole(make(write, libver=libver))
    assert list(group["few"].attrs) == names[:5]
    assert list(group["many"].attrs) == names


@LIBVER
def test_headers_that_grew_in_many_blocks_are_read(make, check_whole, libver):
    def write(file):
        for number in range(5):
            file.create_dataset(f"x{number}", data=np.arange(3), track_times=number % 2 == 0)
        for length in (1, 30, 200, 3000):
            for number in range(5):  # in turns, so that no block can be enlarged
                file[f"x{number}"].attrs[f"a{length}"] = "t" * length
                file[f"x{number}"].attrs[f"b{length}"] = np.arange(length)
        for number in range(5):
            del file[f"x{number}"].attrs["a30"]  # leaves a gap

    check_whole(make(write, libver=libver))


def with_message(data, kind, flags):
    """Turn the modification time into a message of any type."""
    old = struct.pack("<HHB", 0x12, 8, 0)
    assert data.count(old) == 1
    return data.replace(old, struct.pack("<HHB", kind, 8, flags))


@pytest.mark.parametrize(
    ("kind", "flags", "is_refused"),
    [
        (0x30, 0x00, False),
        (0x30, 0x08, False),  # only those who would write must know it
        (0x30, 0x10, False),
        (0x30, 0x80, True),
        (0x19, 0x80, True),
        (0x09, 0x80, True),
        (0x18, 0x80, False),
    ],
)
def test_messages_that_must_be_known_are_refused_as_the_library_does(
    make, scan, kind, flags, is_refused
):
    data = make(lambda file: file.create_dataset("x", data=[1, 2], track_times=True))
    data = with_message(data, kind, flags)
    with h5py.File(io.BytesIO(data)) as file:
        if is_refused:
            with pytest.raises(KeyError, match="fail if unknown"):
                file["x"]
        else:
            assert file["x"][...].tolist() == [1, 2]
    group = scan(data)
    if is_refused:
        (skipped,) = group.report.skipped
        assert skipped.path == "/x"
        assert f"message {kind:#x}" in skipped.reason
    else:
        assert group.report.skipped == ()
        assert "x" in group.arrays


# Shared messages.

SHARED = {"dataspaces": 1 << 1, "datatypes": 1 << 3, "fills": 1 << 5, "filters": 1 << 11}
SHARED |= {"attributes": 1 << 12}
SHARED |= {"all": sum(SHARED.values())}


@pytest.mark.parametrize("kinds", SHARED)
@pytest.mark.parametrize(
    "phases", [(50, 40), (0, 0), (5, 2)], ids=["a list", "a B-tree", "a list, then a B-tree"]
)
@pytest.mark.parametrize("libver", [None, "latest"])
def test_messages_shared_by_many_headers_are_read(
    make, check_whole, set_property, kinds, phases, libver
):
    def create(fcpl):
        set_property("H5Pset_shared_mesg_nindexes", fcpl, 1)
        set_property("H5Pset_shared_mesg_index", fcpl, 0, SHARED[kinds], 1)
        set_property("H5Pset_shared_mesg_phase_change", fcpl, *phases)

    def write(file):
        for number in range(12):
            plist = h5p.create(h5p.DATASET_CREATE)
            plist.set_chunk((4,))
            plist.set_deflate(1)
            plist.set_fill_value(np.array(7, "<i4"))
            space = h5s.create_simple((10,))
            name = f"x{number}".encode()
            dataset = h5py.Dataset(h5d.create(file.id, name, h5t.STD_I32LE, space, plist))
            dataset[:5] = range(5)
            dataset.attrs["units"] = "K" * (number % 3 + 1)
            dataset.attrs["scalar"] = 3
            dataset.attrs["several"] = np.arange(number)
            dataset.attrs["large"] = np.arange(3000)  # too large for the heap's blocks
            for other in range(12 * (number % 2)):
                dataset.attrs[f"a{other}"] = other % 2

    data = make(write, create=create, libver=libver)
    assert data.count(b"SMTB") == 1
    group = check_whole(data)
    assert {array.fill_value.item() for array in group.arrays.values()} == {7}


def test_several_indexes_of_shared_messages_are_told_apart(make, check_whole, set_property):
    def create(fcpl):
        set_property("H5Pset_shared_mesg_nindexes", fcpl, 3)
        for number, kinds in enumerate(("datatypes", "attributes", "dataspaces")):
            set_property("H5Pset_shared_mesg_index", fcpl, number, SHARED[kinds], 1)

    def write(file):
        for number in range(6):
            file[f"x{number}"] = np.ones((2, 3), [("a", "i4"), ("b", ">f8")])
            file[f"x{number}"].attrs["t"] = np.arange(number % 3)

    check_whole(make(write, create=create))


@LIBVER
def test_committed_datatypes_serve_datasets_and_attributes(make, check_whole, libver):
    def write(file):
        file["type"] = np.dtype(">i4")
        file["types/text"] = h5py.string_dtype()
        file["types/text"].attrs["note"] = "of a type"
        for name in ("x", "y"):
            dataset = file.create_dataset(name, (3,), file["type"])
            dataset[...] = [1, 2, 3]
            dataset.attrs.create("a", [1, 2], dtype=file["type"])
            dataset.attrs.create("t", "text", dtype=file["types/text"])
            for number in range(20):  # so that they go to a heap
                dataset.attrs.create(f"a{number}", number, dtype=file["type"])

    check_whole(make(write, libver=libver))


# Chunks of more than 4 GiB.


def test_chunks_of_more_than_4_gib_are_found(tmp_path):
    size = 5 * 2**30
    path = tmp_path / "large.h5"  # sparse: nothing of it is written
    fapl = h5p.create(h5p.FILE_ACCESS)
    fapl.set_libver_bounds(h5f.LIBVER_LATEST, h5f.LIBVER_LATEST)
    cases = {
        "single": ((size,), (size,), False),
        "implicit": ((size, 2), (size, 2), False),
        "fixed array": ((size, 2), (size, 2), True),
        "extensible array": ((size, 2), (size, h5s.UNLIMITED), True),
        "B-tree 2": ((size, 2), (h5s.UNLIMITED, h5s.UNLIMITED), False),
        "B-tree 2 filtered": ((size, 2), (h5s.UNLIMITED, h5s.UNLIMITED), True),
    }
    with h5py.File(h5f.create(os.fsencode(path), h5f.ACC_TRUNC, None, fapl)) as file:
        for name, (shape, limits, is_filtered) in cases.items():
            plist = h5p.create(h5p.DATASET_CREATE)
            plist.set_chunk((size, 1)[: len(shape)])
            plist.set_fill_time(h5d.FILL_TIME_NEVER)
            if is_filtered:
                plist.set_deflate(1)
            else:
                plist.set_alloc_time(h5d.ALLOC_TIME_EARLY)
            space = h5s.create_simple(shape, limits)
            dataset = h5d.create(file.id, name.encode(), h5t.STD_U8LE, space, plist)
            if is_filtered:
                dataset.write_direct_chunk((0, 1), zlib.compress(b"x" * 100))
    group = byteatlas.scan(path)
    assert group.report.skipped == ()
    with h5py.File(path) as file:
        for name in cases:
            array, dataset = group[name], file[name].id
            chunks = [dataset.get_chunk_info(n) for n in range(dataset.get_num_chunks())]
            assert chunks
            assert array.manifest.offset.tolist() == [chunk.byte_offset for chunk in chunks]
            assert array.manifest.length.tolist() == [chunk.size for chunk in chunks]
            assert array.chunk_shape == file[name].chunks


# What the library's own list of chunks gets wrong.


@pytest.mark.parametrize("shape", [(4, 6), (9, 50)])
def test_an_extensible_array_whose_last_axis_grows_is_not_read_as_chunk_iter_tells(
    make, check, shape
):
    values = np.arange(np.prod(shape), dtype="<i2").reshape(shape)

    def write(file):
        file.create_dataset("x", data=values, chunks=(1, 2), maxshape=(10, None))

    data = make(write, libver="latest")
    assert b"EAHD" in data
    array = check(data)["x"]  # the values are those of h5py
    told = []
    with h5py.File(io.BytesIO(data)) as file:
        file["x"].id.chunk_iter(lambda chunk: told.append(chunk.chunk_offset))
    columns = shape[1] // 2
    found = {(int(cell) // columns, 2 * (int(cell) % columns)) for cell in range(len(told))}
    assert len(told) == array.manifest.virtual_count == len(found)
    if set(told) == found:
        pytest.fail("chunk_iter is right now: it may be used to check chunk offsets")


# The ends of files.


@LIBVER
def test_what_follows_a_file_does_not_matter(make, check_whole, libver):
    data = make(write_many, libver=libver)
    check_whole(data + b"tail" * 1000)


@LIBVER
def test_of_a_truncated_file_what_is_left_is_read_and_the_rest_skipped(
    make, scan, read, difference, libver
):
    data = make(write_many, libver=libver)
    whole = dict(scan(data).walk_arrays())
    found, lost = 0, 0
    for size in range(1000, len(data), 1777):
        cut = data[:size]
        with pytest.raises(OSError, match=r"truncated file|Unable to|unable to"):
            h5py.File(io.BytesIO(cut))
        try:
            group = scan(cut)
        except Malformed:
            continue
        lost += len(group.report.skipped)
        for path, array in group.walk_arrays():
            assert difference(read(cut, array), read(data, whole[path])) is None
            found += 1
    assert found
    assert lost


def test_a_file_that_its_writer_did_not_close_is_read_as_it_is(make, check, scan):
    data = bytearray(make(write_many, libver="latest"))
    group = scan(bytes(data))
    data[11] |= 5  # open for writing, and for readers beside the writer
    data[44:48] = struct.pack("<I", lookup3(bytes(data[:44])))
    marked = scan(bytes(data))
    assert set(dict(marked.walk_arrays())) == set(dict(group.walk_arrays()))
    assert marked.report.skipped == ()


@pytest.mark.parametrize("size", [2**k for k in range(9, 22)])
def test_superblocks_are_found_behind_user_blocks_of_any_size(make, check_whole, scan, size):
    data = make(write_many)
    if size in (512, 2**20):
        check_whole(bytes(size) + data)
    else:
        assert scan(bytes(size) + data).report.skipped == ()


@pytest.mark.parametrize("sizes", [(8, 16), (16, 8), (16, 16), (2, 16)], ids=str)
@pytest.mark.parametrize("libver", [None, "latest"])
def test_addresses_and_lengths_of_16_bytes_are_refused(make, scan, libver, sizes):
    data = make(
        lambda file: file.create_dataset("x", data=[1]),
        create=lambda fcpl: fcpl.set_sizes(*sizes),
        libver=libver,
    )
    with pytest.raises(Unsupported, match="addresses or lengths of 16 bytes"):
        scan(data)


@pytest.mark.parametrize(
    ("sizes", "libver"),
    [((2, 4), None), ((4, 4), None), ((8, 4), None), ((4, 2), None), ((8, 2), None)],
    ids=str,
)
def test_small_files_of_narrow_addresses_are_read(make, check_whole, sizes, libver):
    def write(file):
        file["a"] = np.arange(10)
        file["g/s"] = ["a", "b"]
        file["g"].attrs["t"] = "text"
        file.create_dataset("c", data=np.arange(40).reshape(5, 8), chunks=(3, 7), compression=1)

    check_whole(make(write, create=lambda fcpl: fcpl.set_sizes(*sizes), libver=libver))


@pytest.mark.parametrize(("libver", "place"), [(None, 13), ("latest", 9)])
@pytest.mark.parametrize("width", [0, 1, 3, 32, 255])
def test_addresses_of_impossible_widths_are_refused(make, scan, libver, place, width):
    data = bytearray(make(lambda file: file.create_dataset("x", data=[1]), libver=libver))
    data[place] = width
    with pytest.raises(Unsupported, match=f"addresses or lengths of {width} bytes"):
        scan(bytes(data))


@pytest.mark.parametrize("libver", [None, "latest"])
def test_the_metadata_of_a_file_split_in_two_is_refused(tmp_path, scan, libver):
    with h5py.File(tmp_path / "split", "w", libver=libver, driver="split") as file:
        file["x"] = np.arange(100)
    with pytest.raises(Unsupported, match="split or written by a special driver"):
        scan((tmp_path / "split-m.h5").read_bytes())
