"""Fractal heaps of any size, with tiny and huge objects, and with filters."""

import struct
import zlib

import h5py
import numpy as np
import pytest

from byteatlas.errors import Malformed
from byteatlas_scanners.hdf5.file import Hdf5File
from byteatlas_scanners.hdf5.filters import Filter
from byteatlas_scanners.hdf5.fractal_heap import FractalHeap, read_objects


@pytest.mark.parametrize(
    ("count", "length", "direct", "indirect"),
    [(20, 5, 1, 0), (300, 100, 12, 1), (2500, 700, 100, 9), (12, 5000, 0, 0), (1, 70_000, 0, 0)],
    ids=["one block", "an indirect block", "indirect blocks below one", "huge", "huger"],
)
def test_names_in_heaps_of_any_size_are_read(make, check, count, length, direct, indirect):
    names = [f"{number:06d}" + "n" * length for number in range(count)]

    def write(file):
        file["x"] = 1
        for name in names:
            file[f"g/{name}"] = h5py.SoftLink("/x")

    data = make(write, libver="latest")
    assert data.count(b"FHDB") >= direct
    assert data.count(b"FHIB") >= indirect
    assert list(check(data)["g"].arrays) == names


@pytest.mark.parametrize(("count", "length"), [(20, 5), (300, 100), (1500, 700), (12, 5000)])
@pytest.mark.parametrize(
    "filters",
    [
        [("H5Pset_deflate", 6)],
        [("H5Pset_fletcher32",)],
        [("H5Pset_deflate", 1), ("H5Pset_fletcher32",)],
    ],
    ids=["deflate", "fletcher32", "both"],
)
def test_names_in_filtered_heaps_are_read(make, check, create_group, count, length, filters):
    def write(file):
        group = create_group(file, "g", *filters)
        file["x"] = 1
        for number in range(count):
            group[f"{number:06d}" + "n" * length] = h5py.SoftLink("/x")

    data = make(write, libver="latest")
    assert data.count(b"FRHP") == 1
    assert len(check(data)["g"].arrays) == count


def test_a_filtered_heap_that_decodes_to_anything_else_is_malformed(make, scan, create_group):
    def write(file):
        group = create_group(file, "g", ("H5Pset_deflate", 6))
        for number in range(20):
            group[f"{number}"] = number

    data = make(write, libver="latest")
    start = next(
        at for at in range(len(data)) if data[at : at + 1] == b"\x78" and _inflates(data[at:])
    )
    whole = zlib.decompressobj().decompress(data[start:])
    for other in (whole[:-1], whole + b"x", b"OHDR" + whole[4:], whole[:30] + b"x" + whole[31:]):
        packed = zlib.compress(other)
        damaged = data[:start] + packed + data[start + len(packed) :]
        (skipped,) = scan(damaged).report.skipped
        assert skipped.path == "/g"
    (skipped,) = scan(data[:start] + b"no stream" + data[start + 9 :]).report.skipped
    assert skipped.path == "/g"


def _inflates(data):
    try:
        return zlib.decompressobj().decompress(data).startswith(b"FHDB")
    except zlib.error:
        return False


def objects_of(heap, identifier, data=b"", file=None):
    ids = np.frombuffer(identifier, np.uint8).reshape(1, -1)
    steps = read_objects(file or Hdf5File(size=len(data)), heap, ids)
    try:
        asked = next(steps)
        steps.send([memoryview(data)[one.offset : one.offset + one.length] for one in asked])
    except StopIteration as stop:
        return bytes(stop.value[0])
    raise AssertionError("one round is enough")


def test_tiny_objects_lie_in_their_ids():
    def heap(id_length):
        return FractalHeap(id_length=id_length, offset_width=4, length_width=2, huge_index=0)

    assert objects_of(heap(8), b"\x22abcdefg") == b"abc"
    assert objects_of(heap(18), b"\x2f" + bytes(range(17))) == bytes(range(16))
    # With longer IDs the length takes twelve bits: 0x012 + 1.
    assert objects_of(heap(24), b"\x20\x12" + bytes(range(22))) == bytes(range(19))
    with pytest.raises(Malformed, match="an ID of type 3"):
        objects_of(heap(8), b"\x30abcdefg")


def test_huge_objects_whose_place_is_in_their_ids_are_read():
    data = b"abcdefgh" + zlib.compress(b"z" * 50)
    file = Hdf5File(size=len(data), offset_size=4, length_size=4)
    heap = FractalHeap(id_length=9, offset_width=4, length_width=2, huge_index=0)
    assert objects_of(heap, b"\x10" + struct.pack("<II", 2, 3), data, file) == b"cde"
    filters = (Filter(1, False, "deflate", (6,)),)
    heap = FractalHeap(id_length=17, offset_width=4, length_width=2, huge_index=0, filters=filters)
    packed = struct.pack("<4I", 8, len(data) - 8, 0, 50)
    assert objects_of(heap, b"\x10" + packed, data, file) == b"z" * 50
    skipped = struct.pack("<4I", 2, 3, 1, 3)  # a mask: the only filter was left out
    assert objects_of(heap, b"\x10" + skipped, data, file) == b"cde"


@pytest.mark.parametrize("sizes", [(4, 4), (8, 8), (2, 8)], ids=str)
def test_attributes_too_large_for_a_heap_are_read(make, check_whole, sizes):
    def write(file):
        file["x"] = 1
        for number in range(20):
            file["x"].attrs[f"a{number}"] = np.arange(number + 1)
        for count in (3000, 4000) if sizes[0] == 2 else (3000, 40_000, 200_000):
            file["x"].attrs[f"huge {count}"] = np.arange(count, dtype=">i2")

    check_whole(make(write, create=lambda fcpl: fcpl.set_sizes(*sizes), libver="latest"))
