"""Integers and floats of unusual widths: as libhdf5 converts them, or refused with a reason."""

import ctypes
import io

import h5py
import numpy as np
import pytest
from h5py import h5t

LIBHDF5 = ctypes.CDLL(h5py.h5p.__file__)

# Bytes, bits, first bit.
INTEGERS = [
    (1, 8, 0),
    (1, 5, 0),
    (1, 1, 3),
    (2, 12, 0),
    (2, 7, 9),
    (3, 24, 0),
    (3, 17, 3),
    (4, 24, 0),
    (4, 20, 5),
    (5, 40, 0),
    (6, 33, 2),
    (7, 56, 0),
    (8, 60, 4),
    (8, 63, 1),
    (9, 64, 3),
    (16, 64, 63),
    (16, 10, 70),
]

# Bytes; sign, exponent (first bit, bits, bias), mantissa (first bit, bits); decoded type.
FLOATS = {
    "bfloat16": (2, 15, 7, 8, 127, 0, 7, "f4"),
    "E4M3": (1, 7, 3, 4, 7, 0, 3, "f2"),
    "E5M2": (1, 7, 2, 5, 15, 0, 2, "f2"),
    "half in 4 bytes": (4, 15, 10, 5, 15, 0, 10, "f4"),
    "shifted half": (4, 31, 26, 5, 15, 10, 16, "f4"),
    "half of another bias": (2, 15, 10, 5, 20, 0, 10, "f4"),
    "three bytes": (3, 23, 16, 7, 63, 0, 16, "f4"),
    "wide exponent": (4, 31, 20, 11, 1023, 0, 20, "f8"),
    "six bytes": (6, 47, 36, 11, 1023, 0, 36, "f8"),
    "sign below": (4, 0, 24, 8, 127, 1, 23, "f4"),
}


def integer(size, bits, first, order, is_signed):
    kind = getattr(h5t, f"STD_{'I' if is_signed else 'U'}64{'LE' if order == '<' else 'BE'}").copy()
    kind.set_size(size)
    kind.set_precision(bits)
    kind.set_offset(first)
    return kind


def floating(name, order="<"):
    size, sign, first, count, bias, mantissa, digits, _ = FLOATS[name]
    kind = (h5t.IEEE_F64LE if order == "<" else h5t.IEEE_F64BE).copy()
    kind.set_fields(sign, first, count, mantissa, digits)
    kind.set_precision(max(sign, first + count - 1, mantissa + digits - 1) + 1)
    kind.set_size(size)
    kind.set_ebias(bias)
    return kind


def predefined(name):
    """Return a type that h5py has no name for."""
    number = ctypes.c_int64.in_dll(LIBHDF5, f"H5T_{name}_g").value
    return h5t.TypeFloatID(number).copy()


def some_bytes(kind):
    """Return elements of a type: all that there are of few bytes, else some."""
    if kind.get_size() <= 2:
        return np.arange(256 ** kind.get_size(), dtype=f"<u{kind.get_size()}").tobytes()
    data = np.random.default_rng(4).integers(0, 256, (2000, kind.get_size()), np.uint8)
    data[:50] = 0
    data[50:100] = 255
    data[100:500, ::2] = data[500:900, 1:] = 255
    data[900:1300, 1:] = 0
    return data.tobytes()


def by_the_library(data, name, dtype, order):
    """Read a dataset as libhdf5 converts it to a type.

    It is read in the byte order of the file, as h5py does it: where only the order differs, the
    library swaps all bytes, and what is beside the value's bits comes along.
    """
    mtype = h5t.py_create(dtype)
    mtype.set_order(h5t.ORDER_LE if order == "<" else h5t.ORDER_BE)
    with h5py.File(io.BytesIO(data)) as file:
        values = np.empty(file[name].shape, dtype.newbyteorder(order))
        file[name].id.read(h5py.h5s.ALL, h5py.h5s.ALL, values, mtype=mtype)
        return values.astype(dtype)


def writer(write_raw, kind, data):
    """Return a writer of the dataset `small`, which is inlined, and of a `large` one."""

    def write(file):
        write_raw(file, "small", kind, data, (len(data) // kind.get_size(),))
        many = data * (2**20 // len(data) + 1)
        write_raw(file, "large", kind, many, (len(many) // kind.get_size(),))

    return write


def check_both(data, scan, read, dtype, order="<"):
    """Compare both datasets with the library's values, bit by bit."""
    group = scan(data)
    assert group.report.skipped == ()
    codecs = [codec.name for codec in group["large"].encodings[0].codecs]
    assert codecs == ["byteatlas.convert"]
    for name in ("small", "large"):
        array = group[name]
        assert array.dtype == dtype
        theirs = by_the_library(data, name, dtype, order)
        assert read(data, array).tobytes() == theirs.tobytes()


@pytest.mark.parametrize("is_signed", [True, False], ids=["signed", "unsigned"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("size", "bits", "first"), INTEGERS[1:], ids=str)
def test_integers_of_any_bits_are_those_of_the_library(
    make, scan, read, write_raw, size, bits, first, order, is_signed
):
    kind = integer(size, bits, first, order, is_signed)
    width = next((width for width in (1, 2, 4) if size <= width), 8)
    data = make(writer(write_raw, kind, some_bytes(kind)))
    check_both(data, scan, read, np.dtype(f"<{'i' if is_signed else 'u'}{width}"), order)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("name", FLOATS)
def test_floats_of_any_bits_are_those_of_the_library(make, scan, read, write_raw, name, order):
    kind = floating(name, order)
    data = make(writer(write_raw, kind, some_bytes(kind)))
    check_both(data, scan, read, np.dtype("<" + FLOATS[name][-1]), order)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("VAX_F32", "<f8"),
        ("FLOAT_BFLOAT16LE", "<f4"),
        ("FLOAT_BFLOAT16BE", "<f4"),
        ("FLOAT_F8E4M3", "<f2"),
        ("FLOAT_F8E5M2", "<f2"),
    ],
)
def test_named_floats_are_those_of_the_library(make, scan, read, write_raw, name, dtype):
    try:
        kind = predefined(name)
    except ValueError:
        pytest.skip("this libhdf5 does not know the type")
    data = make(writer(write_raw, kind, some_bytes(kind)))
    check_both(data, scan, read, np.dtype(dtype))


def most_significant_set():
    kind = h5t.IEEE_F32LE.copy()
    kind.set_norm(h5t.NORM_MSBSET)
    return kind


def no_narrower_than_a_double():
    kind = h5t.IEEE_F64LE.copy()
    kind.set_fields(63, 51, 12, 0, 51)
    kind.set_ebias(2047)
    return kind


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (integer(16, 65, 3, "<", is_signed=True), "integers of 65 bits, numpy has at most 64"),
        (integer(16, 128, 0, ">", is_signed=False), "integers of 128 bits"),
        (most_significant_set(), "floating point of 32 bits that is not IEEE 754"),
        (no_narrower_than_a_double(), "floating point of 64 bits that is not IEEE 754"),
        (h5t.py_create(np.longdouble), "floating point of 80 bits that is not IEEE 754"),
        (h5t.UNIX_D32LE.copy(), "the HDF5 time datatype"),
        (h5t.COMPLEX_IEEE_F16LE.copy(), "complex numbers that are no pairs of 4- or 8-byte floats"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_types_that_numpy_lacks_are_refused(make, check, write_raw, kind, reason):
    def write(file):
        write_raw(file, "x", kind, bytes(2 * kind.get_size()), (2,))
        file["good"] = 1

    check(make(write, libver="latest"), {"/x": reason})
