"""Values behind filters: those of h5py to the bit, for all types and chunk shapes."""

import io

import h5py
import numpy as np
import pytest

from byteatlas.codecs import decode
from byteatlas.model import Encoding
from byteatlas_scanners.hdf5.filters import Filter, encoding_of

hdf5plugin = pytest.importorskip("hdf5plugin")
hdf5plugin.register()  # in place of those that come with netCDF4, which belong to its own libhdf5

H5T = h5py.h5t
ANY = ["u1", "<i2", ">i4", "<i8", "<f4", ">f8", "V7", "S300", "<c16"]
NUMBERS = ["u1", "<i2", ">i2", "<i4", ">u4", "<i8", "<f4", ">f8"]
ZFP = ["<i4", "<i8", "<f4", "<f8"]
EQUAL = {
    "lzf": ({"compression": "lzf"}, ANY),
    "lz4": (hdf5plugin.LZ4(nbytes=512), ANY),
    "lz4, one block": (hdf5plugin.LZ4(), ANY),
    **{
        f"bitshuffle, {cname}, {items}": (hdf5plugin.Bitshuffle(nelems=items, cname=cname), ANY)
        for cname in ("none", "lz4", "zstd")
        for items in (0, 16)
    },
    "bitshuffle, lz4, by its old options": (hdf5plugin.Bitshuffle(nelems=0, lz4=True), ANY),
    "szip": ({"compression": "szip"}, NUMBERS),
    "szip, blocks of 2": ({"compression": "szip", "compression_opts": ("nn", 2)}, NUMBERS),
    "szip, blocks of 10": ({"compression": "szip", "compression_opts": ("ec", 10)}, NUMBERS),
    "szip, blocks of 32": ({"compression": "szip", "compression_opts": ("nn", 32)}, NUMBERS),
    "blosc, snappy, bits": (hdf5plugin.Blosc(cname="snappy", shuffle=2), NUMBERS),
    "blosc, zlib, bits": (hdf5plugin.Blosc(cname="zlib", shuffle=2), ANY),
    "blosc2, blosclz": (hdf5plugin.Blosc2(), NUMBERS),
    "blosc2, zstd, bits": (hdf5plugin.Blosc2(cname="zstd", filters=2), NUMBERS),
    "blosc2, lz4, delta": (hdf5plugin.Blosc2(cname="lz4", filters=3), NUMBERS),
    "blosc2, zlib, plain": (hdf5plugin.Blosc2(cname="zlib", filters=0), NUMBERS),
    "zfp, reversible": (hdf5plugin.Zfp(reversible=True), ZFP),
    "zfp, rate": (hdf5plugin.Zfp(rate=8), ZFP),
    "zfp, precision": (hdf5plugin.Zfp(precision=12), ZFP),
    "zfp, accuracy": (hdf5plugin.Zfp(accuracy=0.01), ["<f4", "<f8"]),
    "zfp, all by hand": (
        hdf5plugin.Zfp(minbits=1, maxbits=3000, maxprec=20, minexp=-1074),
        ZFP,
    ),
    "zstd and bzip2": (hdf5plugin.Zstd(), ANY),
    "scale-offset": ({"scaleoffset": 0}, ["u1", "<i2", ">i4", "<i8", "u8"]),
    "scale-offset, digits": ({"scaleoffset": 2}, ["<f4", ">f4", "<f8", ">f8"]),
}


@pytest.mark.parametrize("name", EQUAL)
def test_values_are_those_of_h5py_for_all_types_and_chunk_shapes(make, check, name):
    options, dtypes = EQUAL[name]
    values = np.repeat(np.random.default_rng(4).integers(0, 1000, (40, 30)), 3, axis=1)

    def write(file):
        for dtype in dtypes:
            data = values.astype("S7").astype(dtype) if dtype == "V7" else values.astype(dtype)
            for number, chunks in enumerate([(7, 11), (40, 90), (9, 90), (16, 64)]):
                file.create_dataset(f"{dtype}, {number}", data=data, chunks=chunks, **options)

    check(make(write))


@pytest.mark.parametrize("name", ["blosc2, zstd, bits", "zfp, reversible", "szip", "lzf"])
def test_chunks_of_one_to_four_dimensions_are_those_of_h5py(make, check, name):
    options, _ = EQUAL[name]
    values = np.cumsum(np.random.default_rng(5).integers(0, 5, 42000)).astype("<f4")

    def write(file):
        for shape, chunks in {
            (42000,): (9000,),
            (300, 140): (250, 101),
            (20, 30, 70): (7, 11, 32),
            (20, 30, 7, 10): (3, 16, 5, 10),
        }.items():
            data = values.reshape(shape)
            file.create_dataset(f"{len(shape)}", data=data, chunks=chunks, **options)

    check(make(write))


def test_blosc2_chunks_of_several_blocks_are_put_together(make, check):
    values = np.cumsum(np.random.default_rng(6).integers(0, 5, (600, 700)), axis=1)

    def write(file):
        for dtype in ("u1", "<i4", ">f8"):
            data = values.astype(dtype)
            file.create_dataset(dtype, data=data, chunks=(500, 333), **hdf5plugin.Blosc2())
        data = values.reshape(20, 30, 700)
        file.create_dataset("3", data=data, chunks=(11, 30, 333), **hdf5plugin.Blosc2(clevel=9))

    check(make(write))


@pytest.mark.parametrize("value", [0, 1, np.nan])
def test_chunks_of_one_value_are_those_of_h5py(make, check, value):
    def write(file):
        data = np.full((50, 50), value, "<f4")
        names = ["lzf", "lz4", "bitshuffle, zstd, 0", "szip", "blosc2, zstd, bits", "zfp, rate"]
        for name in names:
            options, _ = EQUAL[name]
            file.create_dataset(name, data=data, chunks=(20, 30), **options)

    check(make(write))


# Scale-offset.


def test_scale_offset_keeps_fill_values_and_extremes(make, check):
    draw = np.random.default_rng(6)

    def write(file):
        for dtype in ("i1", "u1", "<i2", ">u2", "<i4", ">i4", "<u8", ">i8"):
            info = np.iinfo(dtype)
            narrow = draw.integers(3, 90, 500).astype(dtype)
            wide = draw.integers(info.min, info.max, 500, dtype=dtype.strip("<>"), endpoint=True)
            filled = np.where(narrow % 7 == 0, 9, narrow).astype(dtype)
            for name, data, bits, fill in [
                ("narrow", narrow, 0, None),
                ("filled", filled, 0, 9),
                ("wide", wide.astype(dtype), 0, None),
                ("wide, filled", wide.astype(dtype), 0, 9),
                ("bits", narrow, 7, 100),
                ("few bits", narrow, 3, 100),
                ("all bits", narrow, 8 * info.bits // 8, None),
                ("constant", np.full(500, info.max, dtype), 0, None),
                ("constant, filled", np.full(500, info.min, dtype), 0, info.max),
                ("nothing but fill values", np.full(500, 9, dtype), 0, 9),
            ]:
                path = f"{dtype} {name}"
                file.create_dataset(path, data=data, chunks=(60,), scaleoffset=bits, fillvalue=fill)

    group = check(make(write))
    assert group["<i4 all bits"].encodings == (Encoding(),)


def test_scale_offset_of_floats_computes_as_hdf5_does(make, check):
    draw = np.random.default_rng(7)

    def create(file, path, data, digits, fill=None):
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((60,))
        plist.set_scaleoffset(h5py.h5z.SO_FLOAT_DSCALE, digits)
        if fill is not None:
            plist.set_fill_value(np.array(fill, data.dtype))
        space = h5py.h5s.create_simple(data.shape)
        kind = h5py.h5t.py_create(data.dtype)
        dataset = h5py.h5d.create(file.id, path.encode(), kind, space, plist)
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, data)

    def write(file):
        for dtype in ("<f4", ">f4", "<f8", ">f8"):
            for digits in (0, 1, 2, 5, 9, 12):
                data = (draw.normal(size=500) * 1000).astype(dtype)
                create(file, f"{dtype} {digits}", data, digits)
                data[::9] = -999.25
                create(file, f"{dtype} {digits} filled", data, digits, -999.25)
            huge = (draw.normal(size=500) * 1e30).astype(dtype)
            create(file, f"{dtype} huge", huge, 3)
            create(file, f"{dtype} constant", np.full(500, 1 / 3, dtype), 4)

    check(make(write))


def test_scale_offset_chunks_that_skipped_their_filter_are_read(make, check):
    def write(file):
        data = np.arange(400, dtype="<i4")
        dataset = file.create_dataset("x", data=data, chunks=(40,), scaleoffset=0)
        for start in (80, 160):
            plain = np.arange(start, start + 40, dtype="<i4") * 1000
            dataset.id.write_direct_chunk((start,), plain.tobytes(), filter_mask=1)

    array = check(make(write))["x"]
    assert [[codec.name for codec in one.codecs] for one in array.encodings] == [
        ["byteatlas.scaleoffset"],
        [],
    ]


# N-bit.


def number(base, precision, offset=0):
    """Return an integer type of which only some bits are used."""
    kind = base.copy()
    kind.set_precision(precision)
    kind.set_offset(offset)
    return kind


def compound(size, **members):
    kind = h5py.h5t.create(h5py.h5t.COMPOUND, size)
    for name, (offset, member) in members.items():
        kind.insert(name.encode(), offset, member)
    return kind


def string(size):
    kind = h5py.h5t.C_S1.copy()
    kind.set_size(size)
    return kind


def float_of_20_bits():
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_fields(26, 20, 6, 7, 13)
    kind.set_offset(7)
    kind.set_precision(20)
    kind.set_ebias(31)
    return kind


RECORD = compound(
    40,
    number=(1, number(H5T.STD_I32LE, 11, 5)),
    numbers=(8, H5T.array_create(number(H5T.STD_U16BE, 9, 3), (3,))),
    text=(20, string(5)),
    texts=(26, H5T.array_create(string(1), (2,))),
    double=(28, H5T.IEEE_F64BE),
)
NBIT = {
    **{
        f"{name}, {precision} bits from {offset}": number(getattr(H5T, name), precision, offset)
        for name, pairs in {
            "STD_I8LE": [(7, 0), (5, 2), (1, 0), (4, 4)],
            "STD_I16LE": [(15, 1), (9, 1), (8, 8)],
            "STD_I32LE": [(31, 0), (17, 1), (16, 16), (29, 2)],
            "STD_I32BE": [(31, 1), (17, 3), (16, 16)],
            "STD_U64LE": [(63, 0), (58, 1), (33, 1), (32, 32)],
            "STD_U64BE": [(63, 1), (61, 2), (57, 0)],
        }.items()
        for precision, offset in pairs
    },
    "float": float_of_20_bits(),
    "array": H5T.array_create(number(H5T.STD_I32BE, 17, 3), (2, 3)),
    "array of arrays": H5T.array_create(
        H5T.array_create(number(H5T.STD_I32BE, 17, 3), (2, 3)), (4,)
    ),
    "compound": RECORD,
    "array of compounds": H5T.array_create(RECORD, (3,)),
    "compound in compound": compound(60, a=(3, RECORD), b=(50, number(H5T.STD_I64LE, 33, 2))),
    # Here HDF5 loses the member after the array when it writes; what is read is the same.
    "array of compounds in compound": compound(
        100,
        a=(3, H5T.array_create(RECORD, (2,))),
        b=(90, number(H5T.STD_I64LE, 33, 2)),
    ),
    "whole numbers": H5T.STD_I32LE,
    "80-bit float": H5T.NATIVE_LDOUBLE,
    "array of strings": H5T.array_create(string(5), (3,)),
}


@pytest.mark.parametrize("kind", NBIT.values(), ids=NBIT)
def test_n_bit_elements_are_those_of_h5py(make, kind):
    size, count = kind.get_size(), 31
    element = f"V{size}"
    raw = np.random.default_rng(8).integers(0, 256, count * size, np.uint8).view(element)

    def write(file):
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((count,))
        plist.set_filter(h5py.h5z.FILTER_NBIT)
        space = h5py.h5s.create_simple((count,))
        dataset = h5py.h5d.create(file.id, b"x", kind, space, plist)
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, raw, mtype=kind)

    with h5py.File(io.BytesIO(make(write))) as file:  # anew: the writer still has its own bytes
        dataset = file["x"].id
        theirs = np.zeros(count, element)
        dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, theirs, mtype=kind)
        mask, encoded = dataset.read_direct_chunk((0,))
        identifier, _, client, _ = dataset.get_create_plist().get_filter(0)
    assert not mask
    encoding = encoding_of((Filter(identifier, True, "", client),), chunk_nbytes=raw.nbytes)
    assert bytes(decode(encoded, encoding, size=raw.nbytes)) == theirs.tobytes()
