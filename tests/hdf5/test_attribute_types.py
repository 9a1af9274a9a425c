"""Attributes of all types: as h5py and netCDF4 give them, in the scan and through an index."""

import io

import h5py
import numpy as np
import pytest
from h5py import h5t

from byteatlas.index.json_reader import read_json
from byteatlas.index.json_writer import to_json_bytes

LIBVER = pytest.mark.parametrize("libver", [None, "v108", "latest"])
TEXT = h5py.string_dtype()
INNER = np.dtype([("a", ">i2"), ("b", "S3")])
RECORD = np.dtype([("x", ">f8"), ("inner", INNER, (2,)), ("flag", "?"), ("z", "<c8")])


def some_values(dtype, count):
    """Return values of a type from bytes that are small numbers or letters."""
    raw = np.random.default_rng(9).integers(65, 91, (count, dtype.itemsize), np.uint8)
    values = raw.view(dtype)[:, 0]
    if dtype.names:
        values["flag"] = True
    return values


KINDS = {
    "complex": np.dtype("<c16"),
    "big-endian complex": np.dtype(">c8"),
    "opaque": np.dtype("V5"),
    "record": RECORD,
    "half": np.dtype(">f2"),
    "bool": np.dtype("?"),
}


def is_same(ours, theirs, difference):
    ours = np.asarray(ours)
    theirs = np.asarray(theirs).reshape(ours.shape)
    return difference(ours, theirs) is None


@LIBVER
@pytest.mark.parametrize("kind", KINDS)
def test_values_of_every_type_are_those_of_h5py(make, scan, difference, libver, kind):
    dtype = KINDS[kind]
    values = some_values(dtype, 6) if dtype.kind != "b" else np.array([True, False] * 3)

    def write(file):
        file.attrs.create("scalar", values[0], shape=(), dtype=dtype)
        file.attrs.create("one", values[:1], dtype=dtype)
        file.attrs.create("several", values, dtype=dtype)
        file.attrs.create("table", values.reshape(3, 2), dtype=dtype)
        file.attrs.create("none", values[:0], dtype=dtype)

    data = make(write, libver=libver)
    group = scan(data)
    assert group.report.skipped == ()
    again = read_json(to_json_bytes(group))
    with h5py.File(io.BytesIO(data)) as file:
        theirs = dict(file.attrs)
    assert group.attrs.keys() == again.attrs.keys() == theirs.keys()
    for attrs in (group.attrs, again.attrs):
        for name, value in theirs.items():
            assert is_same(attrs[name], value, difference), name
        assert isinstance(attrs["scalar"], np.generic)
        assert isinstance(attrs["one"], np.generic)
        assert attrs["table"].shape == (3, 2)
        assert attrs["none"].shape == (0,)


@LIBVER
def test_references_are_the_paths_of_what_they_lead_to(make, scan, libver):
    def write(file):
        file["a/b"] = 1
        file.attrs["before"] = 1
        file.attrs["root"] = file.ref
        file.attrs["b"] = file["a/b"].ref
        pair = np.array([file["a"].ref, h5py.Reference()], h5py.ref_dtype)
        file.attrs.create("pair", pair, dtype=h5py.ref_dtype)
        file.attrs["after"] = 2

    group = scan(make(write, libver=libver, track_order=True))
    assert list(group.attrs.items()) == [
        ("before", 1),
        ("root", "/"),
        ("b", "/a/b"),
        ("pair", ["/a", ""]),
        ("after", 2),
    ]


@LIBVER
def test_one_sequence_is_its_items_as_netcdf4_gives_it(make, scan, libver):
    def write(file):
        one = np.empty(1, object)
        one[0] = np.array([1, -2, 3], "i2")
        file.attrs.create("one", one, dtype=h5py.vlen_dtype("i2"))
        one[0] = np.array([], "i2")
        file.attrs.create("empty", one, dtype=h5py.vlen_dtype("i2"))

    attrs = scan(make(write, libver=libver)).attrs
    assert attrs["one"].dtype == np.int16
    assert attrs["one"].tolist() == [1, -2, 3]
    assert attrs["empty"].shape == (0,)


def test_sequences_of_characters_are_texts(make, scan):
    names = ["first", "", "second field"]

    def write(file):
        several = np.empty(3, object)
        several[:] = [np.array(list(name), "S1") for name in names]
        file.attrs.create("several", several, dtype=h5py.vlen_dtype("S1"))
        file.attrs.create("one", several[:1], dtype=h5py.vlen_dtype("S1"))
        several[1] = np.array([b"a", b"", b"b"], "S1")
        file.attrs.create("null", several, dtype=h5py.vlen_dtype("S1"))
        file.attrs.create("pairs", several, dtype=h5py.vlen_dtype("S2"))

    group = scan(make(write))
    assert group.attrs == {"several": names, "one": "first"}
    reasons = dict(group.report.skipped)
    assert reasons.keys() == {"@null", "@pairs"}
    assert "3 variable-length sequences of strings" in reasons["@pairs"]


@LIBVER
def test_records_with_texts_get_texts_of_the_longest(make, scan, difference, libver):
    inner = np.dtype([("s", TEXT, (2,)), ("n", ">i4")])
    dtype = np.dtype([("t", TEXT), ("inner", inner)])
    values = np.zeros(3, dtype)
    values["t"] = ["one", "", "th\u00e9e"]
    values["inner"]["s"] = [["a", "bb"], ["", "ccc"], ["d", ""]]
    values["inner"]["n"] = [1, 2, -3]

    def write(file):
        file.attrs.create("several", values, dtype=dtype)
        file.attrs.create("scalar", values[2], shape=(), dtype=dtype)

    group = scan(make(write, libver=libver))
    again = read_json(to_json_bytes(group))
    for attrs in (group.attrs, again.attrs):
        assert attrs["several"].dtype["t"] == np.dtype("S5")
        assert attrs["several"].dtype["inner"]["s"] == np.dtype(("S3", (2,)))
        assert is_same(attrs["several"], values, difference)
        assert is_same(attrs["scalar"], values[2:], difference)


def test_unusual_numbers_are_those_of_the_library(make, scan):
    kind = h5t.STD_I32BE.copy()
    kind.set_precision(20)
    kind.set_offset(4)
    raw = np.random.default_rng(3).integers(0, 256, 12, np.uint8).view("V4")

    def write(file):
        space = h5py.h5s.create_simple((3,))
        attribute = h5py.h5a.create(file.id, b"odd", kind, space)
        attribute.write(raw, mtype=kind)

    data = make(write)
    with h5py.File(io.BytesIO(data)) as file:
        theirs = file.attrs["odd"]
    ours = scan(data).attrs["odd"]
    assert ours.dtype == np.int32
    assert ours.tolist() == theirs.tolist()


def test_enumerations_are_their_integers(make, scan):
    def write(file):
        dtype = h5py.enum_dtype({"NO": 0, "YES": 1}, "u1")
        file.attrs.create("several", np.array([1, 0, 1], "u1"), dtype=dtype)

    attrs = scan(make(write)).attrs
    assert attrs["several"].tolist() == [1, 0, 1]
    assert attrs["several"].dtype == np.uint8


def test_compounds_of_netcdf4_are_as_it_gives_them(make_netcdf, check_netcdf):
    def write(dataset):
        kind = np.dtype([("day", "i1"), ("elevation", "<i2"), ("time", "<f8")], align=True)
        record = dataset.createCompoundType(kind, "observation")
        dataset.setncattr("value", np.array((1, -2, 3.5), record.dtype_view))
        dataset.createDimension("x", 2)
        variable = dataset.createVariable("v", record, ("x",))
        variable[:] = np.array([(1, 2, 3.5), (4, 5, 6.5)], record.dtype_view)

    group = check_netcdf(make_netcdf(write))
    assert group["v"].dtype.names == ("day", "elevation", "time")


def test_sequences_of_netcdf4_are_as_it_gives_them(make_netcdf, check_netcdf):
    def write(dataset):
        dataset.createDimension("t", None)
        dataset.createDimension("x", 3)
        kind = dataset.createVLType("f4", "ragged")
        for name, dimensions in {"v": ("x",), "w": ("t", "x")}.items():
            variable = dataset.createVariable(name, kind, dimensions)
            place = (1,) if name == "v" else (2, 1)
            variable[place] = np.array([1, 2, 3], "f4")

    group = check_netcdf(make_netcdf(write))
    assert group["w"].shape == (3, 3)
