"""Filters as codecs, chunks that skipped some of them, and filters without a codec."""

import re
import sys
import zlib

import h5py
import numpy as np
import pytest

from byteatlas.errors import Malformed, MissingDependency, Unsupported
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
    "lzf": ({"compression": "lzf", "shuffle": True}, ["shuffle", "byteatlas.lzf"]),
    "lz4": ({"compression": hdf5plugin.LZ4()}, ["imagecodecs_lz4h5"]),
    "bitshuffle": ({"compression": hdf5plugin.Bitshuffle()}, ["byteatlas.bitshuffle"]),
    "blosc2": ({"compression": hdf5plugin.Blosc2()}, ["byteatlas.blosc2"]),
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


# Pipelines.


TWICE = {
    "deflate": [(1, (1,)), (1, (9,))],
    "shuffle": [(2, (4,)), (2, (4,)), (1, (6,))],
    "deflate, then shuffle": [(1, (1,)), (2, (5,))],
    "lzf": [(32000, ()), (32000, ())],
    "lzf and lz4": [(32000, ()), (32004, ())],
    "lz4": [(32004, (64,)), (32004, ())],
    "bitshuffle and lzf": [(32008, (0, 2)), (32000, ()), (1, (1,))],
    "fletcher32": [(3, ()), (1, (1,)), (3, ())],
    "scale-offset and more": [(6, (2, 0)), (2, (1,)), (1, (1,)), (3, ())],
    "szip and deflate": [(4, (32, 16)), (1, (1,))],
    "seven": [(2, ()), (1, (1,)), (3, ()), (307, ()), (32015, ()), (1, (1,)), (3, ())],
}


@LIBVER
@pytest.mark.parametrize("name", TWICE)
def test_filters_in_any_order_and_more_than_once_are_undone(make, check, libver, name):
    def write(file):
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((9, 13))
        for identifier, client in TWICE[name]:
            if identifier == h5py.h5z.FILTER_SZIP:
                plist.set_szip(*client)
            else:
                plist.set_filter(identifier, h5py.h5z.FLAG_MANDATORY, client)
        space = h5py.h5s.create_simple(VALUES.shape)
        dataset = h5py.h5d.create(file.id, b"x", h5py.h5t.STD_I32LE, space, plist)
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, VALUES)

    array = check(make(write, libver=libver))["x"]
    assert len(array.encodings[0].codecs) <= len(TWICE[name])


def test_what_follows_a_deflated_stream_is_read_over_as_hdf5_does(make, check):
    def write(file):
        dataset = file.create_dataset("x", (300,), "<i4", chunks=(100,), compression=1)
        for start in (0, 100, 200):
            stream = zlib.compress(np.arange(start, start + 100, dtype="<i4").tobytes())
            rest = [b"", b"\0\0", zlib.compress(b"more")][start // 100]
            dataset.id.write_direct_chunk((start,), stream + rest)

    check(make(write))


UNFILTERED_EDGES = {
    "lzf": (32000, ()),
    "bitshuffle": (32008, (0, 2)),
    "zfp": (32013, hdf5plugin.Zfp(reversible=True).filter_options),
    "szip": (4, (32, 16)),
}


@pytest.mark.parametrize("name", UNFILTERED_EDGES)
def test_edge_chunks_that_are_not_filtered_are_read(make, check, set_property, name):
    identifier, client = UNFILTERED_EDGES[name]

    def write(file):
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((9, 13))
        set_property("H5Pset_chunk_opts", plist, 2)  # H5D_CHUNK_DONT_FILTER_PARTIAL_CHUNKS
        if name == "szip":
            plist.set_szip(*client)
        else:
            plist.set_filter(identifier, h5py.h5z.FLAG_MANDATORY, client)
        space = h5py.h5s.create_simple(VALUES.shape)
        dataset = h5py.h5d.create(file.id, b"x", h5py.h5t.IEEE_F32LE, space, plist)
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, VALUES.astype("<f4"))

    array = check(make(write, libver="latest"))["x"]
    assert len(array.encodings) == 2


def test_chunks_of_codecs_that_only_decode_keep_encodings_of_their_own(make, check):
    def write(file):
        dataset = file.create_dataset(
            "x", data=np.arange(100) // 9, chunks=(10,), **hdf5plugin.LZ4()
        )
        dataset.id.write_direct_chunk((20,), np.arange(10).tobytes(), filter_mask=1)

    array = check(make(write))["x"]
    assert [names_of(encoding) for encoding in array.encodings] == [["imagecodecs_lz4h5"], []]


def test_scanning_needs_no_optional_package(make, scan, read, monkeypatch):
    records = np.zeros(VALUES.shape, [("a", ">i4"), ("b", "<f8")])

    def write(file):
        for name, options in {
            "szip": {"compression": "szip"},
            "blosc2": hdf5plugin.Blosc2(),
            "zfp": hdf5plugin.Zfp(rate=8),
            "blosc with snappy": hdf5plugin.Blosc(cname="snappy"),
        }.items():
            data = VALUES.astype("<f4")
            file.create_dataset(name, data=data, chunks=VALUES.shape, **options)
        file.create_dataset("records", data=records, chunks=VALUES.shape, **hdf5plugin.Blosc2())

    data = make(write)
    assert len(scan(data).arrays) == 5
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    group = scan(data)
    assert len(group.arrays) == 5
    assert group.report.skipped == ()
    for array in group.arrays.values():
        with pytest.raises(MissingDependency, match=r"pip install 'byteatlas\[hdf5\]'"):
            read(data, array)


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
        noise[:400] = 0
        file.create_dataset("y", data=noise, chunks=(400,), compression="lzf")
        file.create_dataset("z", data=noise[::-1], chunks=(400,), **hdf5plugin.Blosc2())

    group = check(make(write))
    assert group["x"].encodings == (Encoding(),)
    assert group["y"].encodings == (Encoding(), Encoding((Codec("byteatlas.lzf"),)))[:1]


@LIBVER
def test_filters_without_a_codec_are_refused_by_number_and_name(make, check, libver):
    def write(file):
        create = file.create_dataset
        create("sz", data=VALUES.astype("f4"), **hdf5plugin.SZ(absolute=1))
        create("sz3", data=VALUES.astype("f4"), **hdf5plugin.SZ3(absolute=1))
        create("sperr", data=VALUES.astype("f4"), **hdf5plugin.Sperr(rate=8))
        create("fcidecomp", data=VALUES.astype("u2"), **hdf5plugin.FciDecomp())
        create("good", data=VALUES, compression=1)

    group = check(
        make(write, libver=libver),
        {
            "/sz": "filter 32017 (SZ",
            "/sz3": "filter 32024 (SZ3",
            "/sperr": "filter 32028 (H5Z-SPERR)",
            "/fcidecomp": "filter 32018 (HDF5 JPEG-LS filter)",
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


def test_parameters_that_do_not_fit_the_chunk_are_malformed():
    for pipeline, why in {
        filters((5, (8, 0, 9, 1, 4, 0, 20, 0))): "n-bit of 9 elements of 4 bytes in 40",
        filters((6, (2, 0, 9, 0, 4, 1, 0, 0))): "scale-offset of 9 elements of 4 bytes in 40",
        filters((6, (2, 0, 10))): "filter 6 with 3 parameters, it needs more",
        filters((4, (141, 32))): "filter 4 with 2 parameters",
        filters((32008, (0, 4))): "filter 32008 with 2 parameters",
        filters((32013, ())): "filter 32013 with 0 parameters",
    }.items():
        with pytest.raises(Malformed, match=why):
            encoding_of(pipeline, chunk_nbytes=40)


@pytest.mark.parametrize(
    ("pipeline", "why"),
    [
        ((32008, (0, 4, 4, 0, 9)), "bitshuffle with compressor 9"),
        ((32001, (2, 2, 4, 40, 5, 1, 9)), "blosc with compressor 9"),
        ((32013, (0, 0x0470667A)), "zfp stream that begins with 0x470667a"),
        ((6, (1, 2, 10, 1, 4, 1, 0, 0)), "scale-offset by method 1 of class 1"),
        ((6, (0, 2, 10, 0, 4, 1, 0, 0)), "scale-offset by method 0 of class 0"),
        ((6, (2, 2, 5, 0, 8, 1, 0, 0)), None),
        ((6, (2, 2, 20, 1, 2, 1, 0, 0)), "scale-offset of class 1 and 2 bytes"),
    ],
)
def test_parameters_that_have_no_codec_are_refused(pipeline, why):
    if why is None:
        assert encoding_of(filters(pipeline), chunk_nbytes=40).codecs
        return
    with pytest.raises(Unsupported, match=why):
        encoding_of(filters(pipeline), chunk_nbytes=40)


def test_a_pipeline_may_only_be_so_long():
    assert len(encoding_of(filters(*[(1, ())] * 7), chunk_nbytes=40).codecs) == 7
    with pytest.raises(Unsupported, match="a pipeline of 8 filters, at most 7"):
        encoding_of(filters(*[(1, ())] * 8), chunk_nbytes=40)


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


@pytest.mark.corpus
def test_foreign_files_with_filters_have_codecs_but_for_three(corpus, scan):
    known = re.compile(r"(?:deflate|shuffle|fletcher32|,|\s)*")
    rows = (line.split("\t") for line in (corpus / "MANIFEST.tsv").read_text().splitlines()[1:])
    paths = [row[0] for row in rows if row[1] == "hdf5" and not known.fullmatch(row[12])]
    reasons = [
        reason for path in paths for _, reason in scan((corpus / path).read_bytes()).report.skipped
    ]
    refused = {found[1] for reason in reasons if (found := re.match(r"filter (\d+) ", reason))}
    assert len(paths) > 8
    assert refused <= {"300", "305", "32002", "32028"}
    assert not [
        reason for reason in reasons if re.match(r"blosc|bitshuffle|zfp|scale|n-bit", reason)
    ]
