"""Filters as codecs, chunks that skipped some of them, and filters without a codec."""

import h5py
import numpy as np
import pytest

from byteatlas.errors import Malformed, Unsupported
from byteatlas.model import Codec, Encoding
from byteatlas_scanners.hdf5.filters import Filter, encoding_of

hdf5plugin = pytest.importorskip("hdf5plugin")
hdf5plugin.register()  # in place of those that come with netCDF4, which belong to its own libhdf5

VALUES = (np.arange(40 * 30) // 99).reshape(40, 30).astype("<i4")
LIBVER = pytest.mark.parametrize("libver", [None, "latest"])


def names_of(encoding):
    return [codec.name for codec in encoding.codecs]


FILTERS = {
    "shuffle": ({"shuffle": True}, ["shuffle"]),
    "deflate": ({"compression": 4}, ["zlib"]),
    "fletcher32": ({"fletcher32": True}, ["fletcher32"]),
    "all": (
        {"shuffle": True, "compression": 9, "fletcher32": True},
        ["shuffle", "zlib", "fletcher32"],
    ),
    "zstd": ({"compression": hdf5plugin.Zstd(clevel=5), "shuffle": True}, ["shuffle", "zstd"]),
    "bzip2": ({"compression": hdf5plugin.BZip2()}, ["bz2"]),
    **{
        f"blosc, {name}": ({"compression": hdf5plugin.Blosc(cname=name, shuffle=kind)}, ["blosc"])
        for name, kind in {"blosclz": 1, "lz4": 2, "zstd": 0}.items()
    },
    "blosc, lz4hc": ({"compression": hdf5plugin.Blosc(cname="lz4hc")}, ["blosc"]),
    "blosc, zlib": ({"compression": hdf5plugin.Blosc(cname="zlib")}, ["blosc"]),
}


@LIBVER
@pytest.mark.parametrize("name", FILTERS)
def test_filters_are_codecs_in_the_order_of_encoding(make, check, libver, name):
    options, codecs = FILTERS[name]

    def write(file):
        for path, dtype in {"int": ">i4", "byte": "u1", "string": "S3", "odd": "V7"}.items():
            values = VALUES.astype("S7").astype(dtype) if dtype == "V7" else VALUES.astype(dtype)
            file.create_dataset(path, data=values, chunks=(7, 11), **options)

    group = check(make(write, libver=libver))
    assert [names_of(encoding) for encoding in group["int"].encodings] == [codecs]
    if "shuffle" in codecs:
        assert group["odd"].encodings[0].codecs[0].config == {"elementsize": 7}
        assert "shuffle" not in names_of(group["byte"].encodings[0])


def test_a_chunk_of_no_whole_words_has_its_checksum(make, check):
    def write(file):
        for size in (1, 2, 3, 5, 1000):
            values = np.arange(2 * size).astype("u1")
            file.create_dataset(f"x{size}", data=values, chunks=(size,), fletcher32=True)

    check(make(write))


def test_a_damaged_checksum_is_found_when_its_chunk_is_read(make, scan, read):
    data = bytearray(make(lambda file: file.create_dataset("x", data=VALUES, fletcher32=True)))
    array = scan(bytes(data))["x"]
    data[int(array.manifest.offset[0]) + 5] ^= 1
    with pytest.raises(Malformed, match="checksum"):
        read(bytes(data), array)


def skip_filters(dataset, masks):
    """Write chunks of zeros and ones again, without the filters that each mask names."""
    chunk = np.prod(dataset.chunks)
    for number, (region, mask) in enumerate(zip(dataset.iter_chunks(), masks, strict=False)):
        data = np.full(dataset.chunks, number, dataset.dtype).tobytes()
        if not mask & 1:
            data = np.frombuffer(data, np.uint8).reshape(chunk, -1).T.tobytes()
        if not mask & 2:
            raise AssertionError("chunks are written without deflate")
        dataset.id.write_direct_chunk([part.start for part in region], data, filter_mask=mask)


@LIBVER
@pytest.mark.parametrize(
    ("masks", "kept", "encodings"),
    [
        ([2], 24, [["shuffle", "zlib"]]),
        ([2, 3, 2], 22, [["shuffle", "zlib"]]),
        ([3] * 20, 20, [[]]),
        ([2] * 25, 25, [["shuffle"]]),
        ([3] * 25, 25, [[]]),
    ],
    ids=["one", "three", "most", "all shuffled", "all"],
)
def test_few_chunks_that_skipped_filters_are_encoded_like_the_others(
    make, check, libver, masks, kept, encodings
):
    def write(file):
        dataset = file.create_dataset(
            "x", data=np.arange(100, dtype="<i4"), chunks=(4,), shuffle=True, compression=1
        )
        skip_filters(dataset, masks)

    array = check(make(write, libver=libver))["x"]
    assert [names_of(encoding) for encoding in array.encodings] == encodings
    assert array.manifest.encoding is None
    assert array.manifest.virtual_count == kept
    assert len(array.manifest.inline) == 25 - kept


@LIBVER
def test_many_chunks_that_skipped_filters_keep_encodings_of_their_own(make, check, libver):
    masks = np.arange(1500) % 2 + 2

    def write(file):
        dataset = file.create_dataset(
            "x", data=np.zeros(8000, "<i2"), chunks=(2,), shuffle=True, compression=1
        )
        skip_filters(dataset, masks.tolist())

    array = check(make(write, libver=libver))["x"]
    assert [names_of(encoding) for encoding in array.encodings] == [
        ["shuffle", "zlib"],
        ["shuffle"],
        [],
    ]
    assert array.manifest.encoding[:1500].tolist() == (masks - 1).tolist()
    assert not array.manifest.encoding[1500:].any()
    assert not array.manifest.inline


def test_large_chunks_that_skipped_filters_are_not_kept_in_the_index(make, check):
    def write(file):
        dataset = file.create_dataset(
            "x", data=np.ones(5 * 10**6, "u1"), chunks=(10**6,), shuffle=True, compression=1
        )
        dataset.id.write_direct_chunk((0,), bytes(10**6), filter_mask=3)
        dataset.id.write_direct_chunk((10**6,), bytes(10**6), filter_mask=3)

    array = check(make(write))["x"]
    assert not array.manifest.inline
    assert array.manifest.encoding.tolist() == [1, 1, 0, 0, 0]


@LIBVER
def test_a_mask_on_a_single_chunk_counts(make, check, libver):
    def write(file):
        dataset = file.create_dataset("x", (10,), "<i4", chunks=(10,), compression=1)
        dataset.id.write_direct_chunk((0,), np.arange(10, dtype="<i4").tobytes(), filter_mask=1)

    assert check(make(write, libver=libver))["x"].encodings == (Encoding(),)


def test_an_optional_filter_that_did_not_make_a_chunk_smaller_was_skipped(make, check):
    def write(file):
        noise = np.random.default_rng(3).integers(0, 256, 4000).astype("u1")
        file.create_dataset("x", data=noise, chunks=(400,), compression="lzf")
        file.create_dataset("y", data=np.zeros(4000), chunks=(400,), compression="lzf")

    group = check(make(write), {"/y": "filter 32000 (lzf) has no codec here"})
    assert group["x"].encodings == (Encoding(),)


@LIBVER
def test_filters_without_a_codec_are_refused_by_name(make, check, libver):
    def write(file):
        create = file.create_dataset
        create("lzf", data=VALUES, compression="lzf")
        create("lz4", data=VALUES, **hdf5plugin.LZ4())
        create("bitshuffle", data=VALUES, **hdf5plugin.Bitshuffle())
        create("blosc2", data=VALUES, **hdf5plugin.Blosc2())
        create("zfp", data=VALUES.astype("f4"), **hdf5plugin.Zfp())
        create("scaleoffset", data=VALUES, scaleoffset=7)
        create("szip", data=VALUES, compression="szip")
        nbit = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        nbit.set_chunk((4,))
        nbit.set_filter(h5py.h5z.FILTER_NBIT)
        space = h5py.h5s.create_simple((8,))
        h5py.Dataset(h5py.h5d.create(file.id, b"nbit", h5py.h5t.STD_I32LE, space, nbit))[...] = 1
        create("good", data=VALUES, compression=1)

    group = check(
        make(write, libver=libver),
        {
            "/lzf": "filter 32000 (lzf) has no codec here",
            "/lz4": "filter 32004 (",
            "/bitshuffle": "filter 32008 (",
            "/blosc2": "filter 32026 (",
            "/zfp": "filter 32013 (",
            "/scaleoffset": "filter 6 (scale",
            "/szip": "filter 4 (szip)",
            "/nbit": "filter 5 (n",
        },
    )
    assert list(group.arrays) == ["good"]


def filters(*items):
    return tuple(Filter(identifier, True, "", client) for identifier, client in items)


@pytest.mark.parametrize(
    ("client", "config"),
    [
        (
            (2, 2, 4, 400, 7, 2, 5),
            {"cname": "zstd", "clevel": 7, "shuffle": 2, "blocksize": 0},
        ),
        ((2, 2, 4, 400), {"cname": "blosclz", "clevel": 5, "shuffle": 1, "blocksize": 0}),
        ((), {"cname": "blosclz", "clevel": 5, "shuffle": 1, "blocksize": 0}),
    ],
)
def test_blosc_parameters_that_are_not_given_are_those_of_its_filter(client, config):
    assert encoding_of(filters((32001, client)), chunk_nbytes=400) == Encoding(
        (Codec("blosc", config),)
    )


def test_a_shuffle_that_does_not_divide_its_chunks_is_refused():
    with pytest.raises(Unsupported, match="shuffle of 3-byte elements in chunks of 10 bytes"):
        encoding_of(filters((2, (3,))), chunk_nbytes=10)


def test_a_mask_takes_filters_out_by_their_position():
    pipeline = filters((2, (4,)), (1, (6,)), (3, ()))
    for mask, expected in enumerate(
        [
            ["shuffle", "zlib", "fletcher32"],
            ["zlib", "fletcher32"],
            ["shuffle", "fletcher32"],
            ["fletcher32"],
            ["shuffle", "zlib"],
            ["zlib"],
            ["shuffle"],
            [],
        ]
    ):
        assert names_of(encoding_of(pipeline, chunk_nbytes=40, mask=mask)) == expected
    assert encoding_of(filters((99, ())), chunk_nbytes=4, mask=1) == Encoding()
