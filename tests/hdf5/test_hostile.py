"""Broken and hostile bytes: only our own errors come out, soon and within little memory.

Mutants whose values are compared with h5py's are in `tests/fuzz`.
"""

import struct
import tracemalloc
from contextlib import suppress

import h5py
import numpy as np
import pytest

from byteatlas.errors import ByteatlasError, Malformed
from byteatlas.model import VirtualGroup
from byteatlas.steps import run
from byteatlas.testing.memory import MemoryReader
from byteatlas_scanners.hdf5.file import Hdf5File
from byteatlas_scanners.hdf5.object_header import read_header

LIES = (0, 1, 2**16 - 1, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1)


def old_style(file):
    """Write one of everything that old files are made of."""
    file.attrs["text"] = "of variable length"
    file.attrs["numbers"] = np.arange(5)
    values = np.arange(60).reshape(6, 10)
    file["group/contiguous"] = values
    file.create_dataset("chunked", data=values, chunks=(2, 4), compression=1, shuffle=True)
    file.create_dataset("texts", data=["a", "bb", "ccc"])
    file.create_dataset("records", data=np.ones(3, [("a", ">i2"), ("b", "S3"), ("c", "<f8")]))
    file["records"].attrs["many"] = np.arange(300)
    file["soft"] = h5py.SoftLink("/group/contiguous")
    file["alias"] = file["group"]
    file["chunked"].make_scale("scale")
    file["group/contiguous"].dims[0].attach_scale(file["chunked"])


def new_style(file):
    """Write one of every structure of the latest format."""
    old_style(file)
    values = np.arange(60).reshape(6, 10)
    for name, limits in {"fixed": (6, 10), "one": (None, 10), "two": (None, None)}.items():
        file.create_dataset(name, data=values, chunks=(1, 2), maxshape=limits)
    for number in range(12):
        file.attrs[f"number {number}"] = number
        file[f"group/{number}"] = number
    file.create_dataset("enum", data=[0, 1], dtype=h5py.enum_dtype({"A": 0, "B": 1}))
    file.create_dataset("array", (2,), np.dtype(("i4", (2, 3))))


def netcdf(dataset):
    dataset.createDimension("t", None)
    dataset.createDimension("x", 3)
    dataset.createVariable("x", "f4", ("x",))[:] = 1
    dataset.createVariable("t", "f4", ("t", "x"))[0:2] = 1
    group = dataset.createGroup("g")
    group.createVariable("v", "f4", ("t", "x"), zlib=True, fill_value=-1)[0:4] = 1
    group.createVariable("s", str, ("t",))[0] = "text"
    group.units = "K"


@pytest.fixture(scope="module")
def samples(make, make_netcdf, set_property):
    def shared(fcpl):
        set_property("H5Pset_shared_mesg_nindexes", fcpl, 1)
        set_property("H5Pset_shared_mesg_index", fcpl, 0, 0x182A, 10)

    return {
        "old": make(old_style),
        "new": make(new_style, libver="latest"),
        "shared": make(old_style, create=shared, libver="v108"),
        "netcdf": make_netcdf(netcdf),
    }


def survives(data, scan):
    """Scan bytes: either our error comes, or a group."""
    with suppress(ByteatlasError):
        assert isinstance(scan(data), VirtualGroup)


SAMPLES = pytest.mark.parametrize("name", ["old", "new", "shared", "netcdf"])


@SAMPLES
def test_a_file_cut_off_anywhere_gives_our_error_or_a_group(samples, scan, within, name):
    data = samples[name]
    with within(60):
        for size in range(0, len(data), 1 + len(data) // 300):
            survives(data[:size], scan)


def lie(data, rng):
    """Overwrite a number, most likely one that means something."""
    broken = bytearray(data)
    used = np.flatnonzero(np.frombuffer(data, np.uint8))
    for _ in range(rng.integers(1, 4)):
        position = int(rng.choice(used))
        width = int(rng.choice([1, 2, 4, 8]))
        choices = [*LIES, len(data), len(data) - 1, position, int(rng.choice(used))]
        value = choices[rng.integers(len(choices))] % 2 ** (8 * width)
        broken[position : position + width] = value.to_bytes(width, "little")
    return bytes(broken[: len(data)])


def many_attributes(file):
    attrs = file.create_dataset("x", data=1, track_order=True).attrs
    for number in range(1500):
        attrs[f"number {number}"] = np.arange(10)


def large_attributes(file):
    for number in range(8):
        file.attrs[f"number {number}"] = np.arange(100)
        file[f"after {number}"] = number  # so that the header cannot grow in its place


@pytest.mark.parametrize(
    ("write", "signature"),
    [
        (new_style, b"OHDR"),
        (large_attributes, b"OCHK"),
        (new_style, b"FRHP"),
        (new_style, b"FHDB"),
        (many_attributes, b"FHIB"),
        (new_style, b"BTHD"),
        (new_style, b"BTLF"),
        (many_attributes, b"BTIN"),
        (old_style, b"SMTB"),
        (new_style, b"FAHD"),
        (new_style, b"EAHD"),
        (new_style, b"EAIB"),
    ],
)
def test_a_damaged_structure_is_found_by_its_checksum(make, scan, set_property, write, signature):
    def shared(fcpl):
        set_property("H5Pset_shared_mesg_nindexes", fcpl, 1)
        set_property("H5Pset_shared_mesg_index", fcpl, 0, 0x182A, 10)

    data = make(write, create=shared if signature == b"SMTB" else None, libver="latest")
    position = data.index(signature)
    damaged = bytearray(data)
    damaged[position + 16] ^= 4
    try:
        problems = [reason for _, reason in scan(bytes(damaged)).report.skipped]
    except Malformed as error:
        problems = [str(error)]
    assert any("checksum" in problem for problem in problems), problems


@pytest.mark.corpus
def test_foreign_files_whose_numbers_lie_give_our_error_or_a_group(corpus, scan, within):
    rng = np.random.default_rng(14)
    files = [path for path in sorted((corpus / "hdf5").rglob("*")) if path.is_file()]
    small = [path for path in files if 0 < path.stat().st_size < 50_000]
    with within(120):
        for path in small[::3]:
            data = path.read_bytes()
            for _ in range(5):
                with within(20):
                    survives(lie(data, rng), scan)


def test_random_bytes_behind_the_signature_give_our_error_or_a_group(scan):
    rng = np.random.default_rng(15)
    for version in (0, 1, 2, 3):
        head = b"\x89HDF\r\n\x1a\n" + bytes([version, 8, 8, 0, 0, 8, 8, 0])
        for _ in range(100):
            survives(head + rng.integers(0, 3, 200, np.uint8).tobytes(), scan)
            survives(head + rng.bytes(200), scan)


def test_promises_of_much_cost_no_memory(make, scan):
    def write(file):
        big = 2**40
        file.create_dataset("contiguous", (big,), "f8")
        file.create_dataset("chunked", (big, big // 2**20), "f4", chunks=(1, 1))
        file.create_dataset("huge chunks", (big,), "u1", chunks=(2**31,))
        file.create_dataset("texts", (big,), h5py.string_dtype())
        file.create_dataset(
            "chunked texts", (3,), h5py.string_dtype(), maxshape=(None,), chunks=(2**27,)
        )
        record = np.dtype([("a", ">i2"), ("s", h5py.string_dtype())])
        file.create_dataset("records", (big,), record)

    data = make(write, libver="latest")
    tracemalloc.start()
    try:
        group = scan(data)
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()
    assert all(array.manifest.present_count == 0 for array in group.arrays.values())
    skipped = {path for path, _ in group.report.skipped}
    assert skipped <= {"/texts", "/chunked texts", "/records"}
    assert len(skipped) + len(group.arrays) == 6


def test_what_a_small_file_makes_us_allocate_is_bounded(samples, scan):
    rng = np.random.default_rng(16)
    tracemalloc.start()
    try:
        for name, data in samples.items():
            for _ in range(60):
                broken = lie(data, rng)
                tracemalloc.reset_peak()
                with suppress(ByteatlasError):
                    scan(broken)
                assert tracemalloc.get_traced_memory()[1] < 64 * 2**20, name
    finally:
        tracemalloc.stop()


def test_continuation_blocks_that_repeat_are_not_followed_for_ever():
    def continued_at(address):
        return struct.pack("<HH4x", 0x10, 16) + struct.pack("<QQ", address, 24)

    header = struct.pack("<BxHII4x", 1, 2, 1, 24) + continued_at(40)
    for target in (0, 40):
        reader = MemoryReader(header + continued_at(target) + bytes(100))
        with pytest.raises(Malformed, match="continuation blocks repeat"):
            run(read_header(Hdf5File(size=len(reader.data)), 0), reader)
