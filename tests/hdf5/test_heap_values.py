"""Values in the heap besides plain strings: sequences, strings within records; and references."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import h5py
import numpy as np
import pytest
import zarr
from h5py import h5t

import byteatlas
from byteatlas.index.json_reader import read_json
from byteatlas.index.json_writer import to_json_bytes
from byteatlas.read import Reader
from byteatlas.store.zarr_store import IndexStore
from byteatlas_scanners.hdf5 import global_heap

LIBVER = pytest.mark.parametrize("libver", [None, "v112", "latest"])
TEXT = h5py.string_dtype()


@LIBVER
@pytest.mark.parametrize("kind", ["<i4", "<f8", "|u1", "|S3", "?", "<c8"])
def test_sequences_are_arrays_of_their_items(make, check, libver, kind):
    dtype = np.dtype(kind)
    values = np.arange(10).astype(dtype)

    def write(file):
        for path, options in {"line": {}, "chunked": {"chunks": (2,), "compression": 1}}.items():
            dataset = file.create_dataset(path, (5,), h5py.vlen_dtype(dtype), **options)
            for place, count in enumerate([3, 0, 10, 1]):
                dataset[place] = values[:count]
        file.create_dataset("never", (2, 3), h5py.vlen_dtype(dtype))
        file.create_dataset("scalar", (), h5py.vlen_dtype(dtype))[()] = values[2:5]

    group = check(make(write, libver=libver))
    for array in group.arrays.values():
        assert array.notes == {"sequence": dtype.str}
        assert [codec.name for codec in array.encodings[0].codecs] == ["vlen-bytes"]


def test_sequences_of_big_endian_and_unusual_numbers_are_what_was_written(make, scan, read):
    # No comparison with h5py: it gives the bytes of such numbers in the wrong order.
    kind = h5t.STD_I32BE.copy()
    kind.set_precision(20)

    def write(file):
        for name, base in {"big": h5t.STD_I32BE, "odd": kind}.items():
            plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            space = h5py.h5s.create_simple((2,))
            dataset = h5py.h5d.create(file.id, name.encode(), h5t.vlen_create(base), space, plist)
            h5py.Dataset(dataset)[0] = np.array([-5, 7, 2**18])

    data = make(write)
    group = scan(data)
    for name, dtype in {"big": ">i4", "odd": "<i4"}.items():
        assert group[name].notes == {"sequence": dtype}
        assert [one.tolist() for one in read(data, group[name])] == [[-5, 7, 2**18], []]


def test_sequences_that_are_too_large_or_not_of_numbers_are_refused(make, check):
    def write(file):
        file.create_dataset("large", (2,), h5py.vlen_dtype("i4"))[0] = np.zeros(3000, "i4")
        file.create_dataset("many", (3000,), h5py.vlen_dtype("i4"))
        record = np.dtype([("a", "i4")])
        file.create_dataset("records", (2,), h5py.vlen_dtype(record))
        file.create_dataset("nested", (2,), h5py.vlen_dtype(h5py.vlen_dtype("i4")))
        file.create_dataset("texts", (2,), h5py.vlen_dtype(TEXT))
        file.create_dataset("arrays", (2,), h5py.vlen_dtype(np.dtype(("i4", (2,)))))
        file.create_dataset("good", (2,), h5py.vlen_dtype("i4"))[0] = np.zeros(10, "i4")

    check(
        make(write),
        {
            "/large": "12000 bytes of variable-length sequences, at most 8000 are kept",
            "/many": "at most 8000 bytes of their heap IDs",
            "/records": "variable-length sequences of compounds",
            "/nested": "variable-length sequences of other values of variable length",
            "/texts": "variable-length sequences of other values of variable length",
            "/arrays": "variable-length sequences of arrays",
        },
        max_inline=8000,
    )


def test_sequences_and_references_are_read_through_every_way(tmp_path):
    path = tmp_path / "values.h5"
    with h5py.File(path, "w") as file:
        ragged = file.create_dataset("group/ragged", (2, 2), h5py.vlen_dtype(">i2"))
        ragged[0, 1], ragged[1, 0] = [1, -2, 3], [4]
        file["links"] = np.array([file["group"].ref, ragged.ref], h5py.ref_dtype)
        file.create_dataset("scalar", (), h5py.vlen_dtype("i4"))[()] = [5, 6, 7]
    group = byteatlas.scan(path)
    again = read_json(to_json_bytes(group))
    reader = Reader(again.sources)
    found = reader.read(again["group/ragged"])
    assert [item.tolist() for item in found.reshape(-1)] == [[], [1, -2, 3], [4], []]
    assert found[0, 1].dtype == np.dtype(">i2")
    assert reader.read(again["group/ragged"], (1, 0)).item().tolist() == [4]
    assert reader.read(again["scalar"]).item().tolist() == [5, 6, 7]
    assert reader.read(again["links"]).tolist() == ["/group", "/group/ragged"]
    with byteatlas.open_dataset(group) as dataset:
        assert dataset["links"].values.tolist() == ["/group", "/group/ragged"]
    with byteatlas.open_dataset(group, group="group") as dataset:
        values = dataset["ragged"].values
        assert [item.tolist() for item in values.reshape(-1)] == [[], [1, -2, 3], [4], []]
    for zarr_format in (2, 3):
        store = zarr.open_group(IndexStore(group, zarr_format=zarr_format), mode="r")
        assert np.asarray(store["links"][...], object).tolist() == ["/group", "/group/ragged"]
        as_bytes = store["group/ragged"][...]  # others are shown the bytes of each sequence
        assert np.frombuffer(as_bytes[0, 1], ">i2").tolist() == [1, -2, 3]


def test_verify_compares_sequences_references_and_strings_in_the_heap(tmp_path):
    path, other = tmp_path / "values.h5", tmp_path / "other.h5"
    for place, number in ((path, 1), (other, 2)):
        with h5py.File(place, "w") as file:
            ragged = file.create_dataset("ragged", (3,), h5py.vlen_dtype("i4"))
            ragged[1] = [1, number]
            file["links"] = np.array([file.ref, (file, ragged)[number - 1].ref], h5py.ref_dtype)
            file["texts"] = np.array(["a" * 100, f"{number}" * 100], object)
            file.attrs["link"] = (file, ragged)[number - 1].ref
    group = byteatlas.scan(path, max_inline=150)
    assert group["texts"].manifest.virtual_count == 1
    report = byteatlas.verify(group)
    assert report.differences == ()
    assert [one.path for one in report.checked if one.is_equal] == ["/links", "/ragged", "/texts"]
    theirs = byteatlas.scan(other, max_inline=150)
    mixed = replace(theirs, sources=group.sources)
    found = {difference.path for difference in byteatlas.verify(mixed).differences}
    assert found == {"/", "/links", "/ragged"}


@LIBVER
def test_object_references_are_the_paths_of_what_they_lead_to(make, check, libver):
    def write(file):
        file["good"] = np.arange(3)
        file["a/b/c"] = 1
        file["other name"] = file["a/b"]
        file["number"] = np.dtype("i4")
        named = [
            file.ref,
            file["good"].ref,
            file["a/b/c"].ref,
            file["number"].ref,
            h5py.Reference(),
        ]
        file.create_dataset("several", data=np.array(named, h5py.ref_dtype))
        file.create_dataset("scalar", data=file["a"].ref, dtype=h5py.ref_dtype)
        file.create_dataset("never", (2, 3), h5py.ref_dtype, chunks=(1, 2))
        file.create_dataset("none", (0,), h5py.ref_dtype)

    group = check(make(write, libver=libver))
    assert group["several"].notes == {"reference": "object"}
    assert group["several"].dtype == object


def test_references_to_what_is_not_in_the_tree_or_to_regions_are_refused(make, check):
    def write(file):
        file["gone"] = 1
        file["good"] = np.arange(3)
        file["lost"] = np.array([file["good"].ref, file["gone"].ref], h5py.ref_dtype)
        file.attrs["lost"] = file["gone"].ref
        file["region"] = np.array([file["good"].regionref[0:2]], h5py.regionref_dtype)
        file["many"] = np.array([file["good"].ref] * 2000, h5py.ref_dtype)
        del file["gone"]

    check(
        make(write),
        {
            "/lost": "a reference to an object that no link leads to",
            "@lost": "a reference to an object that no link leads to",
            "/region": "region references",
            "/many": "at most 8000 bytes",
        },
        max_inline=8000,
    )


INNER = np.dtype([("s", TEXT), ("n", ">i4"), ("t", TEXT, (2,))])
NESTED = {
    "in a record": np.dtype([("a", "i1"), ("inner", INNER), ("b", "<f8")]),
    "in an array": np.dtype([("several", TEXT, (3,)), ("n", ">i2")]),
    "in an array of records": np.dtype([("n", "u1"), ("inner", INNER, (2,)), ("s", TEXT)]),
    "in a record in a record": np.dtype([("o", [("m", [("s", TEXT)]), ("k", "S3")])]),
}


def fill_strings(values, rng):
    """Put texts of some lengths into all members that hold any."""
    if values.dtype.names:
        for name in values.dtype.names:
            fill_strings(values[name], rng)
    elif values.dtype.hasobject:
        flat = values.reshape(-1)
        for place in range(flat.size):
            flat[place] = "\u00e9" * int(rng.integers(0, 3)) + "a" * int(rng.integers(0, 9))
        values[...] = flat.reshape(values.shape)
    elif values.dtype.kind != "S":
        values[...] = rng.integers(0, 99, values.shape)


@LIBVER
@pytest.mark.parametrize("name", NESTED)
def test_strings_anywhere_in_records_get_the_size_of_the_longest(make, check, libver, name):
    values = np.zeros(7, NESTED[name])
    fill_strings(values, np.random.default_rng(6))

    def write(file):
        file["x"] = values
        file.create_dataset("chunked", data=values, chunks=(3,), compression=1)
        file.create_dataset("never", (3,), NESTED[name])

    group = check(make(write, libver=libver))
    assert not group["x"].dtype.hasobject


def test_array_datatypes_of_records_with_strings_become_axes(make, check):
    dtype = np.dtype((INNER, (2, 2)))
    values = np.zeros((3, 2, 2), INNER)
    fill_strings(values, np.random.default_rng(7))

    def write(file):
        file.create_dataset("x", (3,), dtype)[...] = values

    group = check(make(write))
    assert group["x"].shape == (3, 2, 2)


def test_strings_in_records_need_not_be_utf8(make, check, read, scan):
    dtype = np.dtype([("s", h5py.string_dtype("ascii"))])

    def write(file):
        file["x"] = np.array([(b"caf\xe9",), (b"",)], dtype)

    data = make(write)
    assert read(data, scan(data)["x"])["s"].tolist() == [b"caf\xe9", b""]
    with h5py.File(io.BytesIO(data)) as file:
        assert file["x"]["s"].tolist() == [b"caf\xe9", b""]


def test_an_element_of_very_many_strings_is_refused(make, check):
    def write(file):
        for count in (10_000, 10_001):
            dtype = np.dtype([("s", TEXT, (count,))])
            file.create_dataset(f"of {count}", (1,), dtype, chunks=(1,))

    check(make(write), {"/of 10001": "an element with more than 10000 variable-length strings"})


def test_collections_that_would_take_more_than_the_file_are_refused(make, scan):
    texts = np.array([letter * 70_000 for letter in "abc"], object)
    data = bytearray(make(lambda file: file.create_dataset("x", data=texts)))
    at = -1
    while (at := data.find(b"GCOL", at + 1)) >= 0:
        data[at + 8 : at + 16] = (len(data) - at).to_bytes(8, "little")
    reason = dict(scan(bytes(data)).report.skipped)["/x"]
    assert f"bytes, in {len(data)}" in reason


def test_many_collections_are_read_in_parts(make, check, monkeypatch):
    monkeypatch.setattr(global_heap, "TOGETHER", 3)
    texts = np.array([f"{n}" * 2000 for n in range(10, 30)], object)
    check(make(lambda file: file.create_dataset("x", data=texts)))


def test_reasons_name_what_a_user_can_do(make, scan):
    def write(file):
        file.create_dataset("x", (100,), np.dtype([("s", TEXT)]))[3] = ("a" * 2000,)

    reasons = dict(scan(make(write), max_inline=1700).report.skipped)
    assert re.search("at most 1700 are kept in an index.*; raise max_inline", reasons["/x"])
