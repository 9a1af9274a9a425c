"""Datasets whose raw values are in other files: the same values as with h5py, or a reason."""

import os
import random
import struct
from functools import partial

import h5py
import numpy as np
import pytest

import byteatlas
from byteatlas.errors import ByteatlasError
from byteatlas.read import Reader
from byteatlas.testing.server import RangeServer

UNLIMITED = h5py.h5f.UNLIMITED
VALUES = np.arange(60, dtype="<i4").reshape(10, 6)

scan = partial(byteatlas.scan, engine="native")


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Return a function that writes a dataset to external files, relative to the directory."""
    monkeypatch.chdir(tmp_path)  # libhdf5 counts names from the working directory

    def make(files, data=VALUES, *, folder=tmp_path, **options):
        monkeypatch.chdir(folder)
        with h5py.File("x.h5", "w") as file:
            file.create_dataset("x", data=data, external=files, **options)
        return folder / "x.h5"

    return make


@pytest.fixture
def equal(difference, monkeypatch):
    def compare(path, **options):
        group = scan(path, **options)
        assert group.report.skipped == ()
        monkeypatch.chdir(path.parent)
        with h5py.File(path) as file:
            ours = Reader(group.sources).read(group["x"])
            assert difference(ours, file["x"][...]) is None
        return group

    return compare


def reason(path, **options):
    group = scan(path, **options)
    assert group.arrays == {}
    assert len(group.sources) == 1
    return dict(group.report.skipped)["/x"]


@pytest.mark.parametrize(
    "files",
    [
        [("a.bin", 0, UNLIMITED)],
        [("a.bin", 100, 240)],
        [("a.bin", 0, 72), ("b.bin", 10, 168)],
        [("a.bin", 0, 24), ("a.bin", 500, 48), ("b.bin", 7, UNLIMITED)],
        [("a.bin", 0, 120), ("b.bin", 0, 1000), ("c.bin", 0, 9)],
        [("a.bin", 0, 4), ("b.bin", 0, 4), ("c.bin", 0, UNLIMITED)],
    ],
    ids=["one", "offset", "two", "the same twice", "more than needed", "cut in a row"],
)
@pytest.mark.parametrize("max_chunk", [8, 50, 2**23])
def test_values_in_external_files_are_virtual(write, equal, files, max_chunk):
    group = equal(write(files), max_chunk=max_chunk)
    array = group.arrays["x"]
    assert array.manifest.inline == {}
    assert array.manifest.missing_count == 0
    names = {name for name, _, size in files if size != 9}
    assert {source.url.rpartition("/")[2] for source in group.sources} == {"x.h5", *names}


@pytest.mark.parametrize(
    "data",
    [
        np.float64(3.5),
        np.arange(7, dtype=">i2"),
        np.array([b"a", b"bcd"], "S5"),
        np.array([(1, 2.5), (3, 4.5)], [("a", ">i2"), ("b", "<f8")]),
        np.zeros((0, 3)),
        np.array([True, False]),
    ],
    ids=["scalar", "big-endian", "strings", "records", "empty", "booleans"],
)
def test_values_of_any_type_are_read_from_external_files(write, equal, data):
    equal(write([("a.bin", 3, UNLIMITED)], data))


def test_large_arrays_in_one_file_are_cut_like_contiguous_ones(write, equal):
    data = np.arange(1009 * 3, dtype="<i4").reshape(1009, 3)
    array = equal(write([("a.bin", 0, UNLIMITED)], data), max_chunk=1200).arrays["x"]
    assert array.manifest.cells > 10


def test_names_count_from_the_directory_of_the_file(write, tmp_path, monkeypatch):
    path = write([("a.bin", 0, UNLIMITED)])
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "a.bin").write_bytes(bytes(240))
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("HDF5_EXTFILE_PREFIX", str(elsewhere))
    group = scan(path)
    assert (Reader(group.sources).read(group["x"]) == VALUES).all()
    assert byteatlas.verify(group, sample=None).checked[0].is_equal


def test_a_file_that_is_too_short_is_a_reason_and_never_zeros(write, tmp_path):
    path = write([("a.bin", 0, 120), ("b.bin", 5, UNLIMITED)])
    os.truncate(tmp_path / "b.bin", 121)
    assert "'b.bin', which is too short: it has 121 bytes, 125 are needed" in reason(path)
    assert "b.bin" in reason(path, engine="auto")
    with h5py.File(path) as file:
        assert file["x"][9].tolist() == [54, 55, 56, 57, 58, 0]


def test_a_file_that_is_missing_is_a_reason(write, tmp_path):
    path = write([("a.bin", 0, 120), ("b.bin", 5, UNLIMITED)])
    (tmp_path / "a.bin").unlink()
    assert "its values are in an external file" in reason(path)
    assert "a.bin" in reason(path, engine="auto")


def test_an_element_in_two_files_is_refused(write):
    path = write([("a.bin", 0, 6), ("b.bin", 0, UNLIMITED)])
    assert "ends within an element" in reason(path)


def test_a_dataset_cut_into_countless_pieces_is_refused(write, within):
    data = np.zeros(300_007, "u1")
    with within(5):
        assert "pieces of 1 bytes" in reason(
            write([("a.bin", 0, 1), ("b.bin", 0, UNLIMITED)], data)
        )


@pytest.mark.parametrize("engine", ["native", "auto"])
def test_files_outside_the_directory_are_not_disclosed(write, tmp_path, engine):
    secret = tmp_path / "secret"
    secret.write_bytes(VALUES.tobytes())
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link").symlink_to(secret)
    for name in ("../secret", str(secret), "link", "../inside/link"):
        path = write([(name, 0, UNLIMITED)], VALUES, folder=inside)
        assert f"pass allow=['{tmp_path}/'] (--allow {tmp_path}/)" in reason(path, engine=engine)
        group = scan(path, allow=[f"{tmp_path}/"], engine=engine)
        assert (Reader(group.sources).read(group["x"]) == VALUES).all()
    for name in ("/etc/passwd", "/proc/self/environ", "file:///etc/passwd", "~/x", "/dev/zero"):
        path = write([(name, 0, UNLIMITED)], None, folder=inside, shape=(10, 6), dtype="<i4")
        assert reason(path, engine=engine)


def test_remote_files_are_read_from_beside_their_source(write, tmp_path, difference):
    (tmp_path / "raw").mkdir()
    path = write([("raw/a.bin", 0, 120), ("raw/b c.bin", 9, UNLIMITED)])
    with RangeServer(tmp_path) as server:
        group = scan(server.url("x.h5"))
        assert group.report.rounds == 2
        assert server.log[0].path == "/x.h5"
        assert {entry.path for entry in server.log} == {"/x.h5", "/raw/a.bin", "/raw/b%20c.bin"}
        ours = Reader(group.sources).read(group["x"])
        assert difference(ours, VALUES) is None
        assert all(source.etag for source in group.sources)
        path.write_bytes(path.read_bytes().replace(b"raw/a.bin\0", b"/secretss\0"))
        assert "a path of the machine where" in reason(server.url("x.h5"))


def test_a_raw_file_that_changed_is_an_error_on_reading(write, tmp_path):
    group = scan(write([("a.bin", 0, UNLIMITED)]))
    (tmp_path / "a.bin").write_bytes(bytes(300))
    with pytest.raises(ByteatlasError, match=r"a\.bin"):
        Reader(group.sources).read(group["x"])


def test_an_index_of_external_files_is_read_back(write, tmp_path):
    path = write([("a.bin", 0, 120), ("b.bin", 5, UNLIMITED)])
    scan(path).to_json(tmp_path / "index.json")
    dataset = byteatlas.open_dataset(tmp_path / "index.json")
    assert (dataset["x"].values == VALUES).all()
    assert byteatlas.verify(tmp_path / "index.json", sample=None).is_equal


def test_any_damage_to_the_list_of_files_gives_our_error_or_the_right_values(
    write, tmp_path, within, difference
):
    path = write([("a.bin", 0, 72), ("a.bin", 72, 168)])
    data, rng = path.read_bytes(), random.Random(2)
    heap = data.index(b"HEAP", data.index(b"HEAP") + 1)
    message = data.index(struct.pack("<QQ", 72, 168))
    for number in range(200):
        damaged = bytearray(data)
        start, room = (heap, 60) if number % 2 else (message - 60, 90)
        damaged[start + rng.randrange(room)] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        with within(5):
            try:
                group = scan(path)
            except ByteatlasError:
                continue
        if "x" in group.arrays and group.arrays["x"].shape == VALUES.shape:
            try:
                with h5py.File(path) as file:
                    expected = file["x"][...]
            except (OSError, RuntimeError, KeyError, ValueError, TypeError):
                continue
            assert difference(Reader(group.sources).read(group["x"]), expected) is None
