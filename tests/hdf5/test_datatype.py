"""Datatypes: each as h5py reads it, or refused with its reason."""

import ctypes
import io

import h5py
import numpy as np
import pytest
from h5py import h5t

LIBHDF5 = ctypes.CDLL(h5py.h5p.__file__)
LIBVER = pytest.mark.parametrize("libver", [None, "v112", "latest"])

NUMBERS = [np.dtype(kind).newbyteorder(order) for kind in "bhiqBHIQefdFD?" for order in "<>"]


def one(write):
    """Return a writer of a dataset x."""
    return lambda file: file.create_dataset("x", **write)


def stored_raw(write_raw, kind, data, shape):
    return lambda file: write_raw(file, "x", kind, data, shape)


@LIBVER
def test_numbers_keep_their_type_and_byte_order(make, check, libver):
    def write(file):
        for number, dtype in enumerate(NUMBERS):
            file[f"{number} {dtype.str}"] = np.array([[0, 1, 127], [5, 6, 7]]).astype(dtype)

    group = check(make(write, libver=libver))
    for number, dtype in enumerate(NUMBERS):
        assert group[f"{number} {dtype.str}"].dtype == dtype


@LIBVER
def test_enumerations_are_their_integers_with_names_noted(make, check, libver):
    names = {"RED": -1, "GREEN": 0, "BLUE": 300}

    def write(file):
        for base in ("<i2", ">i4"):
            dtype = h5py.enum_dtype(names, basetype=base)
            file.create_dataset(base, data=[0, 300, -1], dtype=dtype)

    group = check(make(write, libver=libver))
    for base in ("<i2", ">i4"):
        assert group[base].notes == {"enum": names}
        assert group[base].dtype == np.dtype(base)


@LIBVER
def test_booleans_are_the_enumeration_that_h5py_makes_of_them(make, check, libver):
    group = check(make(one({"data": [True, False, True]}), libver=libver))
    assert group["x"].dtype == bool
    assert group["x"].notes == {}


@LIBVER
@pytest.mark.parametrize("padding", [h5t.STR_NULLTERM, h5t.STR_NULLPAD, h5t.STR_SPACEPAD])
def test_what_follows_the_end_of_a_string_is_not_shown(make, check, write_raw, libver, padding):
    texts = b"ab\0junab    a b   \0\0\0\0\0\0      123456 ab\0  "

    def write(file):
        for size in (1, 2, 3, 6, 42):
            kind = h5t.C_S1.copy()
            kind.set_size(size)
            kind.set_strpad(padding)
            write_raw(file, f"x{size}", kind, texts, (42 // size,))
            record = h5t.create(h5t.COMPOUND, size + 3)
            record.insert(b"text", 2, kind)
            record.insert(b"number", 0, h5t.STD_U16BE)
            data = b"".join(b"\1\2" + texts[i : i + size] + b"!" for i in range(0, 42, size))
            write_raw(file, f"record{size}", record, data, (42 // size,))

    check(make(write, libver=libver))


@LIBVER
@pytest.mark.parametrize("text", ["ascii", "caf\u00e9 \u4e2d\u6587", "", "long " * 1000])
def test_strings_of_variable_length_are_kept_in_the_index(make, check, libver, text):
    def write(file):
        file["scalar"] = text
        file["several"] = np.array([text, "", "b" + text], object)
        file["table"] = np.array([[text, "x"], ["", text]], object)
        file.create_dataset("none", (0, 3), h5py.string_dtype())
        file.create_dataset("ascii", (3,), h5py.string_dtype("ascii"))

    group = check(make(write, libver=libver))
    for array in group.arrays.values():
        assert array.dtype == object
        assert [codec.name for codec in array.encodings[0].codecs] == ["vlen-utf8"]
        assert array.manifest.virtual_count == array.manifest.missing_count == 0


def test_strings_end_at_a_null_byte_as_for_the_library(make, check):
    data = make(lambda file: file.create_dataset("x", data=["before*after", "other"]))
    check(data.replace(b"before*after", b"before\0after"))


def test_strings_that_are_no_utf8_are_refused(make, check):
    def write(file):
        file["x"] = np.array([b"caf\xe9"], h5py.string_dtype("ascii"))

    check(make(write), {"/x": "not UTF-8"})


RECORDS = {
    "packed": np.dtype([("a", "i1"), ("b", "<f8"), ("c", "S3")]),
    "gaps": np.dtype([("a", "i1"), ("b", "<f8"), ("c", "S3")], align=True),
    "any order": np.dtype(
        {"names": ["b", "a"], "formats": ["<i4", "<i2"], "offsets": [4, 0], "itemsize": 12}
    ),
    "big-endian": np.dtype([("a", ">i4"), ("b", ">f8"), ("c", ">c16"), ("d", "?"), ("e", "<u2")]),
    "nested": np.dtype([("a", "i1"), ("b", [("c", [("d", ">i2"), ("e", "<i4")]), ("f", ">i8")])]),
    "arrays": np.dtype([("a", "<f4", (2, 3)), ("b", ">i2", (3,)), ("c", "S4", (2,))]),
    "nested array": np.dtype([("a", [("b", ">i2"), ("c", "i1")], (2,)), ("d", ">f4")]),
    "nested in array": np.dtype([("a", [("b", ">i2", (2,)), ("c", "S3", (2,))], (2, 2))]),
    "dates": np.dtype([("a", "i1"), ("b", h5py.opaque_dtype("<M8[s]"))]),
    "one": np.dtype([("a", ">i2")]),
    "tail": np.dtype({"names": ["a"], "formats": ["<i4"], "offsets": [0], "itemsize": 7}),
    "like complex": np.dtype([("r", "<i4"), ("i", "<i4")]),
    "half complex": np.dtype([("r", "<f2"), ("i", "<f2")]),
    "complex the other way round": np.dtype([("i", "<f4"), ("r", "<f4")]),
}


@LIBVER
@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize("is_large", [False, True], ids=["small", "large"])
def test_records_are_packed_and_little_endian(make, scan, read, difference, libver, name, is_large):
    dtype = RECORDS[name]
    count = 2**20 // dtype.itemsize + 10 if is_large else 3
    raw = np.random.default_rng(1).integers(65, 91, (count, dtype.itemsize), np.uint8)
    raw[:, ::3] &= 1  # booleans must be 0 or 1
    values = raw.view(dtype)[:, 0]

    def write(file):
        file["contiguous"] = values
        for path, options in {
            "chunked": {},
            "filtered": {"compression": 1, "shuffle": True, "fletcher32": True},
        }.items():
            file.create_dataset(path, data=values, chunks=(-(-count // 3),), **options)
        file.create_dataset("fill", (5,), dtype, fillvalue=values[0], chunks=(2,))
        file["fill"][3] = values[1]

    data = make(write, libver=libver)
    group = scan(data)
    assert group.report.skipped == ()
    for path in ("contiguous", "chunked", "filtered"):
        codecs = [codec.name for codec in group[path].encodings[0].codecs]
        is_stored_so = group[path].dtype == dtype
        assert ("byteatlas.convert" in codecs) == (is_large and not is_stored_so)
        assert bool(group[path].manifest.inline) == (not is_large and not is_stored_so)
        found = read(data, group[path])
        assert difference(found, values) is None
        assert ">" not in str(found.dtype)
        assert found.dtype.itemsize == sum(
            found.dtype[member].itemsize for member in found.dtype.names
        )
    expected = np.array([values[0]] * 3 + [values[1]] + [values[0]])
    assert difference(read(data, group["fill"]), expected) is None


@LIBVER
def test_records_with_strings_of_variable_length_get_strings_of_the_longest(make, check, libver):
    text = h5py.string_dtype()
    dtype = np.dtype([("s", text), ("n", ">i4"), ("t", text), ("u", "S3"), ("v", ">f4", (2,))])
    values = np.array(
        [("a" * n, n, "t", b"uu", (n, 2)) for n in range(5)] + [("", 9, "", b"", (0, 0))], dtype
    )

    def write(file):
        for path, options in {
            "contiguous": {},
            "chunked": {"chunks": (3,)},
            "deflated": {"chunks": (3,), "compression": 1},
        }.items():
            file.create_dataset(path, data=values, **options)
            file.create_dataset(f"{path}, never", (3,), dtype, **options)
            file.create_dataset(f"{path}, once", (7,), dtype, **options)[5] = values[3]

    group = check(make(write, libver=libver))
    assert group["chunked"].dtype == np.dtype(
        [("s", "S4"), ("n", "<i4"), ("t", "S1"), ("u", "S3"), ("v", "<f4", (2,))]
    )


@pytest.mark.parametrize("part", [h5t.IEEE_F32LE, h5t.IEEE_F64BE], ids=["<f4", ">f8"])
@pytest.mark.parametrize("offsets", [(0, 8), (0, 12), (8, 0), (4, 16)], ids=str)
def test_pairs_of_floats_named_r_and_i_are_complex_wherever_they_lie(
    make, scan, read, difference, write_raw, part, offsets
):
    pair = h5t.create(h5t.COMPOUND, 24)
    for name, offset in zip((b"r", b"i"), offsets, strict=True):
        pair.insert(name, offset, part)
    record = h5t.create(h5t.COMPOUND, 26)
    record.insert(b"pair", 2, pair)
    raw = np.random.default_rng(3).integers(0, 99, 26 * 5, np.uint8).tobytes()

    def write(file):
        write_raw(file, "x", pair, raw[:120], (5,))
        write_raw(file, "record", record, raw, (5,))

    data = make(write)
    group = scan(data)
    with h5py.File(io.BytesIO(data)) as file:
        assert file["x"].dtype.kind == group["x"].dtype.kind == "c"
        assert difference(read(data, group["x"]), file["x"][...]) is None
        assert difference(read(data, group["record"]), file["record"][...]) is None


def test_a_member_that_has_no_array_form_refuses_its_record(make, check):
    def write(file):
        for path, kind in {
            "reference": h5py.ref_dtype,
            "sequence": h5py.vlen_dtype("i4"),
            "long double": np.longdouble,
        }.items():
            file.create_dataset(path, (2,), np.dtype([("a", "i4"), ("bad", kind)]))
        inner = np.dtype([("s", h5py.string_dtype()), ("bad", h5py.ref_dtype)])
        file.create_dataset("nested", (2,), np.dtype([("in", inner)]))
        file["good"] = 1

    check(
        make(write),
        {
            "/reference": "member 'bad' holds object references",
            "/sequence": "member 'bad' holds variable-length sequences",
            "/long double": "member 'bad' holds floating point of 80 bits",
            "/nested": "member 'in' holds a compound whose member 'bad' holds object references",
        },
    )


@LIBVER
@pytest.mark.parametrize("element", [">i4", "<f8", "S3", "?", [("a", ">i2"), ("b", "i1")]], ids=str)
def test_array_datatypes_become_further_axes(make, check, libver, element):
    dtype = np.dtype((np.dtype(element), (2, 3)))
    rng = np.random.default_rng(2)
    values = rng.integers(0, 2, 30 * dtype.base.itemsize, np.uint8).view(dtype.base)

    def write(file):
        for path, options in {
            "contiguous": {},
            "chunked": {"chunks": (2,)},
            "filtered": {"chunks": (2,), "compression": 1, "shuffle": True},
        }.items():
            file.create_dataset(path, (5,), dtype, **options)[...] = values.reshape(5, 2, 3)
        file.create_dataset("scalar", (), dtype)[...] = values[:6].reshape(2, 3)
        file.create_dataset("never", (5,), dtype)

    group = check(make(write, libver=libver))
    assert group["chunked"].shape == (5, 2, 3)
    assert group["chunked"].chunk_shape == (2, 2, 3)
    assert group["scalar"].shape == (2, 3)


def test_arrays_of_arrays_become_axes_of_all(make, check, write_raw):
    inner = h5t.array_create(h5t.STD_I16BE, (3,))
    kind = h5t.array_create(inner, (2,))
    data = np.arange(24, dtype=">i2").tobytes()
    group = check(make(stored_raw(write_raw, kind, data, (4,))))
    assert group["x"].shape == (4, 2, 3)


@LIBVER
def test_opaque_bytes_stay_as_they_are(make, check, libver):
    group = check(make(one({"data": np.array([b"ab", b"\0\xff"], "V3")}), libver=libver))
    assert group["x"].dtype == np.dtype("V3")


@LIBVER
@pytest.mark.parametrize("dtype", ["<M8[s]", ">M8[ns]", "<m8[25us]", ">m8[D]"])
def test_dates_and_durations_are_those_that_h5py_stores(make, scan, read, libver, dtype):
    values = np.array([0, 10**9, "NaT"], dtype)
    data = make(one({"data": values.astype(h5py.opaque_dtype(dtype))}), libver=libver)
    array = scan(data)["x"]
    assert array.dtype == np.dtype(dtype)
    assert read(data, array).tobytes() == values.tobytes()


@pytest.mark.parametrize(
    "tag",
    [b"NUMPY:<i8", b"NUMPY:<a8", b"NUMPY:<M8[xx]", b"NUMPY:<M8", b"NUMPY:\xff", b"M8[s]", b""],
)
def test_other_tags_of_opaque_bytes_are_not_run_as_types(make, scan, write_raw, tag):
    kind = h5t.create(h5t.OPAQUE, 8)
    kind.set_tag(tag)
    array = scan(make(stored_raw(write_raw, kind, bytes(16), (2,))))["x"]
    assert array.dtype in (np.dtype("V8"), np.dtype("M8"))


def test_bitfields_are_unsigned_integers(make, check, write_raw):
    group = check(make(stored_raw(write_raw, h5t.STD_B16BE, bytes(range(6)), (3,))))
    assert group["x"].dtype == np.dtype(">u2")


@pytest.mark.parametrize("name", ["F32LE", "F32BE", "F64LE", "F64BE"])
def test_complex_datatypes_of_the_latest_format_are_complex(make, check, write_raw, name):
    kind = getattr(h5t, f"COMPLEX_IEEE_{name}").copy()
    values = np.arange(4.0).astype(
        ("<" if name.endswith("LE") else ">") + f"f{int(name[1:3]) // 8}"
    )
    group = check(make(stored_raw(write_raw, kind, values.tobytes(), (2,)), libver="latest"))
    assert group["x"].dtype.kind == "c"


@pytest.mark.parametrize("bits", [32, 20], ids=["plain", "of 20 bits"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_enumerations_of_any_integers_are_their_integers(make, check, write_raw, order, bits):
    base = (h5t.STD_I32LE if order == "<" else h5t.STD_I32BE).copy()
    if bits != 32:
        base.set_precision(bits)
    kind = h5t.enum_create(base)
    names = {"A": -3, "B": 0, "C": 7}
    for name, number in names.items():
        kind.enum_insert(name.encode(), number)
    data = np.array([-3, 7, 0], order + "i4").tobytes()
    group = check(make(stored_raw(write_raw, kind, data, (3,))))
    assert group["x"].notes == {"enum": names}


def test_a_boolean_of_other_integers_is_no_numpy_boolean(make, scan, read, write_raw):
    base = h5t.STD_I8LE.copy()
    base.set_precision(4)
    kind = h5t.enum_create(base)
    kind.enum_insert(b"FALSE", 0)
    kind.enum_insert(b"TRUE", 1)
    data = make(stored_raw(write_raw, kind, b"\x01\x00\x07\xf1", (4,)))
    array = scan(data)["x"]
    assert array.notes == {"enum": {"FALSE": 0, "TRUE": 1}}
    assert read(data, array).tolist() == [1, 0, 7, 1]


def test_numbers_of_unusual_widths_are_members_and_arrays_too(make, check, write_raw):
    three, half = h5t.STD_I32BE.copy(), h5t.IEEE_F32LE.copy()
    three.set_precision(20)
    three.set_offset(3)
    half.set_fields(15, 10, 5, 0, 10)
    half.set_precision(16)
    half.set_ebias(15)
    record = h5t.create(h5t.COMPOUND, 30)
    record.insert(b"numbers", 2, h5t.array_create(three, (2, 2)))
    record.insert(b"float", 20, half)
    raw = np.random.default_rng(8).integers(0, 256, 30 * 16, np.uint8)

    def write(file):
        write_raw(file, "record", record, raw.tobytes(), (16,))
        write_raw(file, "array", h5t.array_create(three, (3,)), raw.tobytes(), (40,))
        write_raw(file, "records", h5t.array_create(record, (2,)), raw.tobytes(), (8,))
        pair = h5t.create(h5t.COMPOUND, 8)
        pair.insert(b"r", 0, half)
        pair.insert(b"i", 4, half)
        raw.reshape(-1, 4)[:, 1] &= 0x7B  # neither infinite nor not a number
        write_raw(file, "pair", pair, raw.tobytes(), (60,))

    group = check(make(write))
    assert group["record"].dtype == np.dtype([("numbers", "<i4", (2, 2)), ("float", "<f4")])


@LIBVER
def test_a_fill_value_that_differs_within_an_array_datatype_fills_few_chunks(make, check, libver):
    kind = h5t.array_create(h5t.STD_I32BE, (2, 3))
    fill = np.arange(6, dtype=">i4")

    def create(file, name, rows, chunk, deflate=None):
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        ids = ctypes.c_int64(plist.id), ctypes.c_int64(kind.id)
        assert LIBHDF5.H5Pset_fill_value(*ids, fill.ctypes.data_as(ctypes.c_void_p)) >= 0
        if chunk:
            plist.set_chunk((chunk,))
        if deflate:
            plist.set_deflate(deflate)
        space = h5py.h5s.create_simple((rows,))
        return h5py.Dataset(h5py.h5d.create(file.id, name.encode(), kind, space, plist))

    def write(file):
        create(file, "plain", 9, 2)[4] = np.ones((2, 3))
        create(file, "deflated", 9, 2, deflate=1)[4] = np.ones((2, 3))
        create(file, "never", 5, None)
        create(file, "many", 10**7, 10)
        create(file, "large", 10**7, 10**6)

    why = "a fill value that differs within an array datatype"
    check(make(write, libver=libver), {"/many": why, "/large": why})


@LIBVER
def test_committed_datatypes_are_looked_up(make, check, libver):
    def write(file):
        file["number"] = np.dtype(">i4")
        file["record"] = np.dtype([("a", ">i2"), ("b", "S3")])
        file["group/text"] = h5py.string_dtype()
        file.create_dataset("x", data=[1, 2], dtype=file["number"])
        file.create_dataset("y", (3,), dtype=file["record"])[1] = (1, b"ab")
        file.create_dataset("z", data=["a", "bb"], dtype=file["group/text"])

    group = check(make(write, libver=libver))
    assert group["x"].dtype == np.dtype(">i4")
