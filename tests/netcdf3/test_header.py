import struct

import numpy as np
import pytest

from byteatlas.errors import Malformed, Unsupported
from byteatlas.model import Dimension
from byteatlas.testing.memory import MemoryReader
from byteatlas_scanners.netcdf3 import scanner

# Both from "The NetCDF Classic Format Specification", "Examples".
EMPTY = b"CDF\x01" + bytes(28)
TINY = bytes.fromhex(
    "43444601 00000000 0000000a 00000001"  # magic, numrecs, NC_DIMENSION, 1 dimension
    "00000003 64696d00 00000005"  # "dim", length 5
    "00000000 00000000"  # no global attributes
    "0000000b 00000001 00000002 76780000"  # NC_VARIABLE, 1 variable, "vx"
    "00000001 00000000"  # 1 dimension: 0
    "00000000 00000000"  # no attributes
    "00000003 0000000c 00000050"  # NC_SHORT, vsize 12, begin 80
    "0003 0001 0004 0001 0005 8001"  # values, and padding with the fill value
)


def test_the_empty_file_of_the_specification_is_an_empty_group(scan):
    group = scan(EMPTY)
    assert (group.attrs, group.dimensions, group.arrays, group.groups) == ({}, {}, {}, {})
    assert group.report.scanner == "netcdf3"
    assert group.report.skipped == ()


def test_the_tiny_file_of_the_specification_has_its_one_variable(scan, read):
    group = scan(TINY)
    assert group.dimensions == {"dim": Dimension(5, is_unlimited=False)}
    vx = group.arrays["vx"]
    assert (vx.shape, vx.dtype, vx.chunk_shape) == ((5,), np.dtype(">i2"), (5,))
    assert vx.dimensions == ("dim",)
    assert vx.fill_value is None
    assert (vx.manifest.offset.tolist(), vx.manifest.length.tolist()) == ([80], [10])
    assert read(TINY, vx).tolist() == [3, 1, 4, 1, 5]


def test_the_padding_behind_the_last_variable_may_be_missing(scan, read):
    assert read(TINY[:-2], scan(TINY[:-2]).arrays["vx"]).tolist() == [3, 1, 4, 1, 5]


@pytest.mark.parametrize("version", [1, 2, 5])
def test_the_magic_of_each_version_is_known(version):
    assert scanner.matches(memoryview(b"CDF" + bytes([version, 0, 0])))


@pytest.mark.parametrize("head", [b"", b"CDF", b"CDF\x03", b"CDF\x00", b"cdf\x01", b"\x89HDF"])
def test_other_bytes_are_not_taken_for_netcdf3(head):
    assert not scanner.matches(memoryview(head))


@pytest.mark.parametrize("version", [1, 2, 5])
def test_every_field_is_read_in_every_version(scan, read, classic, version):
    w = classic(version)
    data = w.file(
        dims=[w.dim(b"x", 2), w.dim(b"unused", 7)],
        atts=[w.text(b"title", b"A title")],
        variables=lambda end: [
            w.var(b"a", [0], 5, end, [w.text(b"units", b"K")]),
            w.var(b"abc", [], 4, end + 8),
        ],
        data=struct.pack(">ffi", 1.5, -2.5, 77),
    )
    group = scan(data)
    assert group.attrs == {"title": "A title"}
    assert group.dimensions == {"x": Dimension(2), "unused": Dimension(7)}
    a, scalar = group.arrays["a"], group.arrays["abc"]
    assert a.attrs == {"units": "K"}
    assert read(data, a).tolist() == [1.5, -2.5]
    assert (scalar.shape, scalar.chunk_shape, scalar.dimensions) == ((), (), ())
    assert read(data, scalar).tolist() == 77


@pytest.mark.parametrize(
    ("nc_type", "raw", "expected"),
    [
        (1, b"\xff", np.int8(-1)),
        (3, b"\x01\x02", np.int16(258)),
        (4, b"\xff\xff\xff\xfe", np.int32(-2)),
        (5, b"\x3f\xc0\x00\x00", np.float32(1.5)),
        (6, struct.pack(">d", 0.1), np.float64(0.1)),
        (7, b"\xff", np.uint8(255)),
        (8, b"\xff\xfe", np.uint16(65534)),
        (9, b"\xff\xff\xff\xfe", np.uint32(2**32 - 2)),
        (10, struct.pack(">q", -5), np.int64(-5)),
        (11, struct.pack(">Q", 2**64 - 5), np.uint64(2**64 - 5)),
    ],
)
def test_numeric_attributes_are_native_scalars_of_their_type_or_arrays(
    scan, classic, nc_type, raw, expected
):
    w = classic(5)
    group = scan(
        w.file(
            atts=[
                w.att(b"one", nc_type, 1, raw),
                w.att(b"two", nc_type, 2, raw * 2),
                w.att(b"none", nc_type, 0, b""),
            ]
        )
    )
    one, two, none = (group.attrs[name] for name in ("one", "two", "none"))
    assert type(one) is type(expected)
    assert one == expected
    assert one.dtype.isnative
    assert two.dtype == none.dtype == expected.dtype
    assert two.tolist() == [expected, expected]
    assert none.shape == (0,)


def test_text_attributes_are_str_as_netcdf4_decodes_them(scan, classic):
    w = classic()
    texts = {b"a": b"", b"b": b"x\0y\0\0", b"c": "°C".encode(), b"d": b"\xb0C"}
    group = scan(w.file(atts=[w.text(name, raw) for name, raw in texts.items()]))
    assert group.attrs == {"a": "", "b": "xy", "c": "°C", "d": "\ufffdC"}


def test_the_fill_value_of_a_char_variable_is_bytes(scan, classic):
    w = classic()
    value = scan(w.file(atts=[w.text(b"_FillValue", b"\0")])).attrs["_FillValue"]
    assert type(value) is np.bytes_
    assert value == b"\0"


def test_the_first_of_two_attributes_with_one_name_counts(scan, classic):
    w = classic()
    assert scan(w.file(atts=[w.text(b"a", b"1"), w.text(b"a", b"2")])).attrs == {"a": "1"}


def test_names_are_utf8_or_else_latin1_and_end_at_a_null_byte(scan, classic):
    w = classic()
    names = ["größe".encode(), "größe".encode("latin-1"), b"cut\0off"]
    group = scan(
        w.file(
            dims=[w.dim(b"x", 1), *(w.dim(name, 1) for name in names[1:])],
            variables=lambda end: [w.var(names[0], [0], 1, end)],
            data=b"\1",
        )
    )
    assert list(group.arrays) == ["größe"]
    assert list(group.dimensions) == ["x", "größe", "cut"]


def test_a_list_without_items_may_have_any_tag(scan):
    assert scan(EMPTY[:8] + b"\0\0\0\x0a" + EMPTY[12:]).dimensions == {}


@pytest.mark.parametrize("name", [b"a/b", b"", b".", b"..", b".zattrs", b"a\nb", b"a\x7f"])
def test_a_variable_whose_name_cannot_be_part_of_a_path_is_skipped(scan, classic, name):
    w = classic()
    group = scan(
        w.file(
            variables=lambda end: [w.var(name, [], 4, end), w.var(b"fine", [], 4, end + 4)],
            data=bytes(8),
        )
    )
    assert list(group.arrays) == ["fine"]
    (skipped,) = group.report.skipped
    assert skipped.path == f"/{name.decode()}"
    assert "name" in skipped.reason


def one_var(w, **changes):
    """Return a file whose one variable has one thing wrong."""
    field = {"name": b"v", "dimids": [0], "nc_type": 1} | changes
    dims = [w.dim(b"x", 3), w.dim(b"t", 0)]
    return w.file(dims=dims, variables=lambda end: [w.var(**({"begin": end} | field))])


MALFORMED = {
    "wrong list tag": (
        "tag 12, found 10",
        lambda w: swap(w.file(atts=[w.text(b"a", b"")]), 12, 10),
    ),
    "nc_type 0": ("nc_type from 1", lambda w: w.file(atts=[w.att(b"a", 0, 1, b"1")])),
    "nc_type 12": ("nc_type from 1", lambda w: w.file(atts=[w.att(b"a", 12, 1, b"1")])),
    "variable of nc_type 99": ("found 99", lambda w: one_var(w, nc_type=99)),
    "no such dimension": ("there are 2 dimensions", lambda w: one_var(w, dimids=[2])),
    "too many dimensions": ("has 1025 dimensions", lambda w: one_var(w, dimids=[0] * 1025)),
    "record dimension second": ("record dimension", lambda w: one_var(w, dimids=[0, 1])),
    "negative begin": ("not negative, found -4", lambda w: one_var(w, begin=-4)),
    "two dimensions x": ("two dimensions", lambda w: w.file(dims=[w.dim(b"x", 3)] * 2)),
    "two variables v": (
        "two variables",
        lambda w: w.file(variables=lambda end: [w.var(b"v", [], 1, end)] * 2),
    ),
    "attribute past the end": (
        "source ends",
        lambda w: w.file(atts=[w.att(b"a", 1, 2**31 - 4, b"")]),
    ),
    "name past the end": ("source ends", lambda w: w.file(dims=[w.count(2**31 - 4)])),
}


def swap(data, old, new):
    return data.replace(struct.pack(">I", old), struct.pack(">I", new), 1)


@pytest.mark.parametrize("case", MALFORMED)
@pytest.mark.parametrize("version", [1, 2, 5])
def test_a_header_that_breaks_the_specification_is_refused(scan, classic, version, case):
    reason, build = MALFORMED[case]
    with pytest.raises(Malformed, match=reason) as raised:
        scan(build(classic(version)))
    assert raised.value.offset is not None or "two" in reason


def test_types_of_cdf5_are_refused_elsewhere(scan, classic):
    w = classic(2)
    with pytest.raises(Malformed, match="from 1 to 6, found 7"):
        scan(w.file(atts=[w.att(b"a", 7, 1, b"\0")]))


def test_negative_counts_of_cdf5_are_refused(scan, classic):
    w = classic(5)
    with pytest.raises(Malformed, match="not negative, found -1"):
        scan(w.file(dims=[w.dim(b"x", -1)]))


def large_header(w, text=b"", variables=100):
    data = np.arange(variables, dtype=">i4").tobytes()
    return w.file(
        atts=[w.text(b"history", text)],
        variables=lambda end: [
            w.var(b"v%d" % i, [], 4, end + 4 * i, [w.text(b"note", b"x" * 40)])
            for i in range(variables)
        ],
        data=data + bytes(100_000),
    )


def test_a_header_within_the_head_needs_no_further_round(scan, classic):
    reader = MemoryReader(data := large_header(classic()))
    scan(data, head=20_000, reader=reader)
    assert reader.rounds == 0


def test_a_header_that_goes_on_is_fetched_to_its_end_in_one_round(scan, classic):
    data = large_header(classic())
    begin = int(scan(data).arrays["v0"].manifest.offset[0])
    reader = MemoryReader(data)
    group = scan(data, head=1000, reader=reader)
    assert len(group.arrays) == 100
    assert (reader.rounds, reader.requests) == (1, 1)
    assert reader.bytes_read == begin - 1000


def test_a_long_attribute_before_the_variables_is_fetched_at_once(scan, classic):
    reader = MemoryReader(data := large_header(classic(), text=b"h" * 50_000))
    assert len(scan(data, head=1000, reader=reader).arrays) == 100
    assert reader.rounds == 2


def test_a_header_can_be_read_from_a_head_of_any_length(scan, classic):
    data = large_header(classic(5), variables=3)
    expected = list(scan(data).arrays)
    for head in range(4, 600):
        assert list(scan(data, head=head).arrays) == expected


def test_a_header_longer_than_any_sane_one_is_refused_before_it_is_fetched(scan, classic):
    w = classic()
    data = w.file(atts=[w.att(b"a", 1, 17 * 2**20, bytes(17 * 2**20))])
    reader = MemoryReader(data)
    with pytest.raises(Unsupported, match="16777216 bytes"):
        scan(data, head=1000, reader=reader)
    assert reader.rounds == 0
