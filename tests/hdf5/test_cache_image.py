"""Metadata cache images, which hold what belongs elsewhere in the file."""

import ctypes
import os
import struct

import h5py
import numpy as np
import pytest
from h5py import h5f, h5p

from byteatlas.errors import Malformed
from byteatlas_scanners.hdf5.checksum import lookup3


class ImageConfig(ctypes.Structure):
    """H5AC_cache_image_config_t of the library."""

    _fields_ = (
        ("version", ctypes.c_int),
        ("generate_image", ctypes.c_bool),
        ("save_resize_status", ctypes.c_bool),
        ("entry_ageout", ctypes.c_int),
    )


def make_with_image(path, write, low=h5f.LIBVER_EARLIEST, *, is_paged=True):
    fapl = h5p.create(h5p.FILE_ACCESS)
    fapl.set_libver_bounds(low, h5f.LIBVER_LATEST)
    config = ImageConfig(1, True, False, -1)
    library = ctypes.CDLL(h5p.__file__)
    assert library.H5Pset_mdc_image_config(ctypes.c_int64(fapl.id), ctypes.byref(config)) >= 0
    fcpl = h5p.create(h5p.FILE_CREATE)
    if is_paged:
        fcpl.set_file_space_strategy(h5f.FSPACE_STRATEGY_PAGE, False, 1)
        fcpl.set_file_space_page_size(4096)
    else:
        fcpl.set_file_space_strategy(h5f.FSPACE_STRATEGY_FSM_AGGR, True, 1)
    with h5py.File(h5f.create(os.fsencode(path), h5f.ACC_TRUNC, fcpl, fapl)) as file:
        write(file)
    data = path.read_bytes()
    assert data.count(b"MDCI") == 1
    return data


def write_many(file):
    file.attrs["title"] = "text"
    for number in range(30):
        name = f"g/x{number}"
        file.create_dataset(
            name, data=np.arange(400).reshape(20, 20) + number, chunks=(3, 7), compression=1
        )
        file[name].attrs["number"] = number
    file["strings"] = ["a", "bb"]


@pytest.mark.parametrize("is_paged", [True, False], ids=["pages", "no pages"])
@pytest.mark.parametrize("head", [None, 512, 5000])
def test_metadata_left_in_a_cache_image_counts_as_in_its_place(
    tmp_path, scan, read, difference, datasets, head, is_paged
):
    path = tmp_path / "image.h5"
    data = make_with_image(path, write_many, is_paged=is_paged)
    group = scan(data, head=head)
    assert group.report.skipped == ()
    assert group.attrs == {"title": "text"}
    arrays = dict(group.walk_arrays())
    with h5py.File(path) as file:
        for name, dataset in datasets(file):
            array = arrays.pop(name)
            assert difference(read(data, array), dataset[...]) is None
            assert dict(array.attrs) == dict(dataset.attrs)
    assert not arrays


def test_an_image_of_the_latest_structures_is_read(tmp_path, scan, read):
    # The library itself cannot open this one again: "non-parent entry has children".
    def write(file):
        for number in range(10):
            limits = (None, 20) if number % 2 else (None, None)
            values = np.arange(400).reshape(20, 20) + number
            dataset = file.create_dataset(f"x{number}", data=values, chunks=(3, 7), maxshape=limits)
            for one in range(12):
                dataset.attrs[f"a{one}"] = "x" * one

    data = make_with_image(tmp_path / "image.h5", write, h5f.LIBVER_LATEST)
    for head in (None, 512):
        group = scan(data, head=head)
        assert group.report.skipped == ()
        for number in range(10):
            array = group[f"x{number}"]
            assert (read(data, array) == np.arange(400).reshape(20, 20) + number).all()
            assert array.attrs == {f"a{one}": "x" * one for one in range(12)}


def test_strings_are_not_left_in_a_heap_that_may_only_be_in_the_image(tmp_path, scan, read):
    def write(file):
        file["strings"] = ["text" * 20, "b"] * 50

    data = make_with_image(tmp_path / "image.h5", write)
    assert read(data, scan(data)["strings"]).tolist() == ["text" * 20, "b"] * 50
    (skipped,) = scan(data, max_inline=100).report.skipped
    assert skipped.path == "/strings"
    assert "the metadata cache image" in skipped.reason


def test_a_damaged_cache_image_is_malformed(tmp_path, scan):
    data = make_with_image(tmp_path / "image.h5", write_many)
    start = data.find(b"MDCI")
    (length,) = struct.unpack_from("<Q", data, start + 6)

    def with_bytes(at, new):
        image = bytearray(data[start : start + length - 4])
        image[at : at + len(new)] = new
        whole = bytes(image) + struct.pack("<I", lookup3(bytes(image)))
        return data[:start] + whole + data[start + length :]

    scan(with_bytes(0, b"MDCI"))
    first = struct.unpack_from("<QQ", data, start + 18 + 14)
    second = 18 + 30 + first[1] + 14
    places = {
        "expected b'MDCI' version 0": (4, b"\7"),
        "damaged": (14, struct.pack("<I", 2**30)),
        "do not fit into the source": (18 + 14, struct.pack("<Q", 2**40)),
        "longer than it": (18 + 22, struct.pack("<Q", len(data) - first[0])),
        "two entries overlap": (second, struct.pack("<Q", first[0])),
    }
    for problem, (at, new) in places.items():
        with pytest.raises(Malformed, match=problem):
            scan(with_bytes(at, new))
    with pytest.raises(Malformed, match="metadata cache image has checksum"):
        scan(data[: start + 100] + b"\xaa\x55" + data[start + 102 :])
