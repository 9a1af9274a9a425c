"""Attributes: where they are kept, what their values become, and which are left out."""

import h5py
import numpy as np
import pytest

from byteatlas.testing.memory import MemoryReader

LIBVER = pytest.mark.parametrize("libver", [None, "v108", "latest"])

NUMBERS = [np.dtype(kind).newbyteorder(order) for kind in "bhiqBHIQefd?" for order in "<>"]


@LIBVER
@pytest.mark.parametrize("dtype", NUMBERS, ids=lambda dtype: dtype.str)
def test_numbers_come_in_native_byte_order_and_single_ones_as_scalars(make, scan, libver, dtype):
    values = np.array([0, 1, 1], dtype)

    def write(file):
        file.attrs["scalar"] = values[1]
        file.attrs["one"] = values[1:2]
        file.attrs["several"] = values
        file.attrs["table"] = np.stack([values, values])
        file.attrs.create("empty", np.empty(0, dtype))

    attrs = scan(make(write, libver=libver)).attrs
    native = dtype.newbyteorder("=")
    for name in ("scalar", "one"):
        assert isinstance(attrs[name], np.generic)
        assert attrs[name].dtype == native
        assert attrs[name] == 1
    for name, expected in {
        "several": values,
        "table": np.stack([values, values]),
        "empty": values[:0],
    }.items():
        assert attrs[name].dtype == native
        np.testing.assert_array_equal(attrs[name], expected, strict=False)


@LIBVER
def test_text_comes_as_str_and_several_texts_as_list(make, scan, libver):
    def write(file):
        file.attrs["variable"] = "caf\u00e9"
        file.attrs["fixed"] = np.bytes_(b"fixed")
        file.attrs["empty"] = ""
        file.attrs["null"] = h5py.Empty("S1")
        file.attrs["one"] = np.array(["one"], object)
        file.attrs["several"] = np.array(["a", "", "ccc"], object)
        file.attrs["several fixed"] = np.array([b"a", b"", b"ccc"])
        file.attrs.create("none", np.empty(0, object), dtype=h5py.string_dtype())

    assert scan(make(write, libver=libver)).attrs == {
        "variable": "caf\u00e9",
        "fixed": "fixed",
        "empty": "",
        "null": "",
        "one": "one",
        "several": ["a", "", "ccc"],
        "several fixed": ["a", "", "ccc"],
        "none": [],
    }


@pytest.mark.parametrize(
    ("padding", "stored", "expected"),
    [
        (h5py.h5t.STR_NULLTERM, b"ab\0junk", "ab"),
        (h5py.h5t.STR_NULLPAD, b"ab  \0\0\0", "ab  "),
        (h5py.h5t.STR_SPACEPAD, b"ab     ", "ab"),
        (h5py.h5t.STR_SPACEPAD, b"ab \0\0\0\0", "ab"),
    ],
)
def test_fixed_text_ends_where_its_padding_begins(make, scan, padding, stored, expected):
    def write(file):
        kind = h5py.h5t.C_S1.copy()
        kind.set_size(7)
        kind.set_strpad(padding)
        space = h5py.h5s.create(h5py.h5s.SCALAR)
        attribute = h5py.h5a.create(file.id, b"text", kind, space)
        attribute.write(np.array(stored, "V7"), mtype=kind)

    assert scan(make(write)).attrs == {"text": expected}


def test_text_of_variable_length_ends_at_a_null_byte(make, scan):
    data = make(lambda file: file.attrs.update({"text": "before*after"}))
    assert scan(data.replace(b"before*after", b"before\0after")).attrs == {"text": "before"}


def test_bytes_that_are_no_utf8_are_replaced(make, scan):
    data = make(lambda file: file.attrs.update({"text": np.bytes_("caf\u00e9".encode("latin-1"))}))
    assert scan(data).attrs == {"text": "caf\ufffd"}


@LIBVER
def test_enumerations_arrays_and_dates_come_as_numbers(make, scan, libver):
    array = np.dtype((">i4", (3,)))
    dates = np.array(["2020-01-01", "NaT"], "M8[s]")

    def write(file):
        file.attrs.create("flag", 1, dtype=h5py.enum_dtype({"NO": 0, "YES": 1}, "i1"))
        file.attrs.create("triple", np.arange(3), dtype=array)
        file.attrs["dates"] = dates.astype(h5py.opaque_dtype(dates.dtype))

    attrs = scan(make(write, libver=libver)).attrs
    assert attrs["flag"] == 1
    assert attrs["flag"].dtype == np.int8
    assert attrs["triple"].tolist() == [0, 1, 2]
    assert attrs["triple"].dtype == np.int32
    assert attrs["dates"].dtype == dates.dtype
    np.testing.assert_array_equal(attrs["dates"], dates)


@LIBVER
def test_attributes_without_such_a_form_are_left_out_alone(make, scan, libver):
    def write(file):
        dataset = file.create_dataset("x", data=1)
        dataset.attrs["good"] = 1
        dataset.attrs["long double"] = np.longdouble(1)
        dataset.attrs["region"] = dataset.regionref[()]
        two = np.empty(2, object)
        two[:] = [np.arange(2), np.arange(3)]
        dataset.attrs.create("sequences", two, dtype=h5py.vlen_dtype("i4"))
        dataset.attrs["also good"] = 2

    group = scan(make(write, libver=libver))
    assert group["x"].attrs == {"good": 1, "also good": 2}
    reasons = dict(group.report.skipped)
    assert set(reasons) == {f"/x@{name}" for name in ("long double", "region", "sequences")}
    assert "floating point of 80 bits" in reasons["/x@long double"]
    assert "region references" in reasons["/x@region"]
    assert "2 variable-length sequences of values in an attribute" in reasons["/x@sequences"]


def test_attributes_left_out_are_listed_under_each_name_of_their_array(make, scan):
    def write(file):
        file["x"] = 1
        file["x"].attrs["bad"] = np.longdouble(1)
        file["y"] = file["x"]

    assert {path for path, _ in scan(make(write)).report.skipped} == {"/x@bad", "/y@bad"}


@LIBVER
@pytest.mark.parametrize("count", [1, 8, 9, 100, 3000])
def test_any_number_of_attributes_is_read(make, scan, libver, count):
    def write(file):
        attrs = file.create_dataset("x", data=1).attrs
        for number in range(count):
            attrs[f"number {number}"] = np.arange(number % 9, dtype="i2")

    attrs = scan(make(write, libver=libver))["x"].attrs
    assert len(attrs) == count
    for number in range(count):
        assert np.ravel(attrs[f"number {number}"]).tolist() == list(range(number % 9))


def test_attributes_come_by_creation_where_that_is_tracked(make, scan):
    names = [f"{97 * number % 100}" for number in range(60)]

    def write(file):
        for path, count in (("few", 5), ("many", 60)):
            dataset = file.create_dataset(path, data=1, track_order=True)
            for name in names[:count]:
                dataset.attrs[name] = 1

    group = scan(make(write))
    assert list(group["few"].attrs) == names[:5]
    assert list(group["many"].attrs) == names


@pytest.mark.parametrize("nbytes", [4_000, 60_000, 70_000, 2_000_000])
def test_attributes_of_any_size_are_read(make, scan, nbytes):
    values = np.arange(nbytes // 8, dtype="f8")

    def write(file):
        file.attrs["small"] = 1
        file.attrs["large"] = values
        file.attrs["text"] = "x" * nbytes

    attrs = scan(make(write, libver="latest")).attrs
    np.testing.assert_array_equal(attrs["large"], values)
    assert attrs["text"] == "x" * nbytes
    assert attrs["small"] == 1


@LIBVER
def test_attributes_of_committed_datatypes_are_read(make, scan, libver):
    def write(file):
        file["integer"] = np.dtype(">i4")
        file["record"] = np.dtype("i4,i2")
        file.create_dataset("x", data=[1, 2], dtype=file["integer"])
        for number in range(20):
            file["x"].attrs.create(f"number {number}", number, dtype=file["integer"])
        file["x"].attrs.create("pair", np.array((1, 2), "i4,i2"), dtype=file["record"])

    reader = MemoryReader(make(write, libver=libver))
    group = scan(reader.data, reader=reader)
    attrs = dict(group["x"].attrs)
    assert attrs.pop("pair").tolist() == (1, 2)
    assert attrs == {f"number {number}": number for number in range(20)}
    assert reader.rounds <= 6  # not one for each attribute


# Flags of H5Pset_shared_mesg_index: dataspaces, datatypes, fill values, filters, attributes.
SHARED = [1 << 1, 1 << 3, 1 << 5, 1 << 11, 1 << 12]


@pytest.mark.parametrize("libver", [None, "latest"])
@pytest.mark.parametrize("smallest", [10, 40, 1000])
@pytest.mark.parametrize("indexes", [[sum(SHARED)], SHARED], ids=len)
def test_messages_in_the_heap_of_shared_messages_are_read(
    make, check, set_property, libver, smallest, indexes
):
    def create(fcpl):
        set_property("H5Pset_shared_mesg_nindexes", fcpl, len(indexes))
        for number, flags in enumerate(indexes):
            set_property("H5Pset_shared_mesg_index", fcpl, number, flags, smallest)

    def write(file):
        record = np.dtype([("a", "i4"), ("b", ">f8")])
        for number in range(12):
            dataset = file.create_dataset(
                f"x{number}",
                data=np.zeros((3, 4), record) if number % 2 else np.arange(12.0).reshape(3, 4),
                fillvalue=None if number % 2 else 2.5,
                chunks=(2, 2),
                compression=1,
            )
            dataset.attrs["units"] = "kelvin kelvin kelvin kelvin"
            dataset.attrs["numbers"] = np.arange(20)
            dataset.attrs[f"own {number}"] = np.arange(10.0)
        for number in range(30):  # more than the header holds, so in a heap of their own
            dataset.attrs[f"many {number}"] = np.arange(20 + number)

    group = check(make(write, create=create, libver=libver))
    for number in range(12):
        attrs = group[f"x{number}"].attrs
        assert attrs["units"] == "kelvin kelvin kelvin kelvin"
        assert attrs["numbers"].tolist() == list(range(20))
        assert attrs[f"own {number}"].tolist() == list(range(10))
    for number in range(30):
        assert group["x11"].attrs[f"many {number}"].tolist() == list(range(20 + number))


@LIBVER
def test_bookkeeping_is_left_out_whatever_it_holds(make, scan, libver):
    names = ["CLASS", "NAME", "_Netcdf4Dimid", "_Netcdf4Coordinates", "DIMENSION_LIST"]
    names += ["REFERENCE_LIST", "_NCProperties", "_nc3_strict"]
    values = [[1, 2, 3], 1.5, np.arange(4).reshape(2, 2), np.array(["a", "b"], object), b"x"]
    values += [True, h5py.Empty("f4"), np.array(["DIMENSION_SCALE"], object)]

    def write(file):
        for number, value in enumerate(values):
            file[f"x{number}"] = np.arange(6).reshape(2, 3)
            file[f"scale{number}"] = np.arange(6).reshape(2, 3)
            file[f"scale{number}"].make_scale()
            for name in names:
                file[f"x{number}"].attrs[name] = value
            for name in names[1:4]:
                file[f"scale{number}"].attrs[name] = value

    group = scan(make(write, libver=libver))
    assert group.report.skipped == ()
    assert len(group.arrays) == 2 * len(values)
    assert all(array.attrs == {} for array in group.arrays.values())


def test_a_damaged_heap_of_attributes_costs_only_them(make, scan):
    def write(file):
        file["x"] = 1
        file["x"].attrs["inside"] = 1
        for number in range(20):
            file.attrs[f"number {number}"] = "text"

    data = make(write, libver="latest")
    group = scan(data.replace(b"FRHP", b"FRHQ"))
    assert group["x"].attrs == {"inside": 1}
    assert group.attrs == {}
    ((path, reason),) = group.report.skipped
    assert path == "@*"
    assert "fractal heap" in reason
