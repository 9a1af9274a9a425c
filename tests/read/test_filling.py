"""With ``on_error="fill-and-report"`` a chunk that cannot be read is filled, and listed."""

import pickle
import threading
import warnings
from dataclasses import replace

import numpy as np
import pytest

import byteatlas
from byteatlas.codecs import chain
from byteatlas.errors import (
    ByteatlasError,
    LimitExceeded,
    Malformed,
    ShortRead,
    SourceChanged,
    SourceDenied,
    SourceError,
    SourceMissing,
    Unsupported,
)
from byteatlas.limits import Limits
from byteatlas.model import ChunkManifest, Codec, Encoding, Source, VirtualArray
from byteatlas.read import FilledChunk, FilledChunks, Reader
from byteatlas.read.filled import in_order
from byteatlas.sources import Policy
from byteatlas.testing import Fault, RangeServer

from .bad_chunks import DAMAGES, INDEX, LAYOUTS, VALUES, ZLIB, garbage, make, sealed, spoiled

PARTS = {
    "whole": ...,
    "window": (slice(8, 20, 3), slice(15, 18)),
    "lists": ([19, 0], [13, 12, 29]),
    "backwards": (slice(None, None, -1), slice(25, None, -2)),
    "point": (19, 19),
}


def filling(group, **options):
    return Reader(group.sources, on_error="fill-and-report", **options)


def read_filled(reader, array, selection=...):
    """Read, and return the values and what the one warning says."""
    with pytest.warns(FilledChunks) as caught:
        values = reader.read(array, selection, path="/v")
    assert len(caught) == 1
    assert caught[0].filename == __file__
    return values, str(caught[0].message)


def expected(*chunks, value=np.nan):
    values = VALUES.copy()
    for row, column in chunks:
        values[row * 10 : row * 10 + 10, column * 10 : column * 10 + 10] = value
    return values


@pytest.mark.parametrize("selection", PARTS.values(), ids=PARTS)
@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_chunk_alone_is_filled_and_listed(name, selection, tmp_path):
    damage = DAMAGES[name]
    made = make(tmp_path / "data.bin", damage.codecs, damage.spoil)
    (tmp_path / "data.bin").write_bytes(made.data)
    reader = filling(made.group)
    values, said = read_filled(reader, made.group["v"], selection)
    index = selection if selection is ... else np.ix_(*map(np.atleast_1d, positions(selection)))
    whole = expected(INDEX)
    if name == "raw cut":  # the rows that are there are right
        assert np.isnan(values).any()
        np.testing.assert_array_equal(values[~np.isnan(values)], wanted(VALUES, index, values))
        return
    np.testing.assert_array_equal(values, whole[index].reshape(values.shape))
    (chunk,) = reader.filled
    assert (chunk.path, chunk.chunk) == ("/v", INDEX)
    assert isinstance(chunk.error, damage.kind)
    assert (chunk.error.url, chunk.error.offset) == (str(tmp_path / "data.bin"), made.offset)
    assert said == f"a chunk is filled, since it cannot be read: {chunk.error}"


def wanted(whole, index, values):
    return whole[index].reshape(values.shape)[~np.isnan(values)]


def positions(selection):
    pairs = zip(selection, VALUES.shape, strict=True)
    return [np.arange(size)[one] for one, size in pairs]


def test_all_chunks_that_are_filled_are_listed_in_their_order(tmp_path):
    bad = (5, 0, 3)
    made = make(tmp_path / "data.bin", ZLIB, garbage, bad=bad)
    (tmp_path / "data.bin").write_bytes(made.data)
    reader = filling(made.group)
    values, said = read_filled(reader, made.group["v"])
    np.testing.assert_array_equal(values, expected((1, 2), (0, 0), (1, 0)))
    assert [one.chunk for one in reader.filled] == [(0, 0), (1, 0), (1, 2)]
    assert said.startswith("3 chunks are filled, since they cannot be read; the first: ")
    assert str(reader.filled[0].error) in said
    read_filled(reader, made.group["v"], 0)
    assert [one.chunk for one in reader.filled[3:]] == [(0, 0)]


def test_a_read_without_damage_says_nothing(tmp_path):
    made = make(tmp_path / "data.bin", ZLIB, garbage)
    (tmp_path / "data.bin").write_bytes(made.data)
    reader = filling(made.group)
    values = reader.read(made.group["v"], slice(0, 10))  # a warning would be an error
    np.testing.assert_array_equal(values, VALUES[:10])
    assert reader.filled == []


@pytest.mark.parametrize("gap", [0, 200_000], ids=["merged", "apart"])
@pytest.mark.parametrize("codecs", LAYOUTS.values(), ids=LAYOUTS)
def test_of_a_truncated_file_what_is_there_is_read(placed, codecs, gap):
    made = make("", codecs, gap=gap)
    url = placed(made.data[: made.offset + 10])
    group = replace(made.group, sources=(Source(url),))
    reader = filling(group)
    values, _ = read_filled(reader, group["v"])
    np.testing.assert_array_equal(values, expected((1, 1), (1, 2)))
    assert [one.chunk for one in reader.filled] == [(1, 1), (1, 2)]
    offset = group["v"].manifest.offset.tolist()
    for one, at in zip(reader.filled, offset[4:], strict=True):
        assert isinstance(one.error, ShortRead)
        assert (one.error.url, one.error.chunk, one.error.offset) == (url, one.chunk, at)


@pytest.mark.parametrize("codecs", LAYOUTS.values(), ids=LAYOUTS)
def test_a_chunk_unlike_its_digest_is_filled(placed, codecs):
    made = make("", codecs)
    url = placed(spoiled(made))
    group = replace(sealed(made), sources=(Source(url),))
    reader = filling(group)
    values, _ = read_filled(reader, group["v"])
    np.testing.assert_array_equal(values, expected(INDEX))
    (chunk,) = reader.filled
    assert isinstance(chunk.error, SourceChanged)
    assert chunk.error.offset == made.offset


def test_a_chunk_that_is_read_in_pieces_is_listed_once(tmp_path):
    (tmp_path / "data.bin").write_bytes(bytes(20 * 60_000))
    manifest = ChunkManifest.build(
        (1, 1), np.zeros(1, "u8"), np.zeros(1, "u8"), np.array([600_000], "u8")
    )
    array = VirtualArray((20, 60_000), np.dtype("f4"), (20, 60_000), manifest)
    reader = Reader([Source(str(tmp_path / "data.bin"))], on_error="fill-and-report")
    values, said = read_filled(reader, array, (slice(None), slice(10)))
    assert np.isnan(values).all(axis=1).tolist() == [False] * 3 + [True] * 17
    assert [one.chunk for one in reader.filled] == [(0, 0)]
    assert said.startswith("a chunk is filled")


def test_chunks_are_listed_by_array_and_index():
    places = [("/b", (0, 1)), ("/a", (2, 0)), ("/b", (0, 0)), ("/a", (1, 9)), ("/a", (2, 0))]
    filled = [
        FilledChunk(path, chunk, Malformed("bad", offset=9 - number))
        for number, (path, chunk) in enumerate(places)
    ]
    listed = in_order(filled)
    assert [(one.path, one.chunk) for one in listed] == sorted(set(places))
    assert listed[1].error.offset == 5


# What stands for values that could not be read


@pytest.mark.parametrize(
    ("dtype", "attrs", "fill_value", "value"),
    [
        ("<f4", {"_FillValue": np.float32(-99)}, np.float32(7), -99),
        ("<f4", {"_FillValue": np.array([-99], "<f4")}, None, -99),
        (">f8", {}, np.float64(7), np.nan),
        ("<c8", {}, None, np.nan),
        ("<i2", {"_FillValue": np.int16(-99)}, np.int16(7), -99),
        ("<i2", {"_FillValue": np.float32(-99)}, None, -99),
        ("<i2", {"_FillValue": np.float64(1e20)}, np.int16(7), 7),
        ("<i2", {"_FillValue": np.float64("nan")}, np.int16(7), 7),
        ("<u1", {"_FillValue": np.int16(-1)}, None, 0),
        ("<i2", {"_FillValue": "none"}, None, 0),
        ("<i2", {"_FillValue": ["a", "b"]}, None, 0),
        ("<i2", {"missing_value": np.int16(5)}, np.int16(7), 5),
        ("<f4", {"_FillValue": np.float64(-99.9)}, None, np.nan),
        ("<f4", {"_FillValue": np.float64("nan")}, None, np.nan),
        ("|S3", {"_FillValue": "too long"}, None, b""),
        ("<i2", {}, None, 0),
        ("|b1", {}, None, False),
        ("|S3", {"_FillValue": "xyz"}, None, b"xyz"),
        ("|S3", {}, None, b""),
        ("<M8[s]", {}, None, 0),
    ],
)
def test_the_value_is_that_which_readers_mask(tmp_path, dtype, attrs, fill_value, value):
    values = np.ones((20, 30), "i1").astype(dtype)
    made = make(tmp_path / "data.bin", ZLIB, garbage, values=values, attrs=attrs)
    (tmp_path / "data.bin").write_bytes(made.data)
    array = replace(made.group["v"], fill_value=fill_value)
    result, _ = read_filled(filling(made.group), array)
    assert result.dtype == values.dtype
    filled = values.copy()
    filled[10:, 10:20] = np.array(value).astype(dtype)
    np.testing.assert_array_equal(result, filled)


def test_strings_are_filled_with_the_fill_value(tmp_path):
    text = b"\1\0\0\0" + b"\2\0\0\0hi"
    (tmp_path / "data.bin").write_bytes(text + b"\1\0\0\0" + b"\x09\0\0\0no" + text)
    offset, length = np.array([0, 10, 20], "u8"), np.array([10, 10, 10], "u8")
    manifest = ChunkManifest.build((3,), np.arange(3, dtype="u8"), offset, length)
    encodings = (Encoding((Codec("vlen-utf8"),)),)
    array = VirtualArray((3,), np.dtype(object), (1,), manifest, encodings=encodings)
    source = Source(str(tmp_path / "data.bin"))
    for fill_value, filled in ((None, ""), ("?", "?")):
        reader = Reader([source], on_error="fill-and-report")
        result, _ = read_filled(reader, replace(array, fill_value=fill_value))
        assert result.tolist() == ["hi", filled, "hi"]
        assert [one.chunk for one in reader.filled] == [(1,)]


def test_a_damaged_inlined_chunk_is_filled(tmp_path):
    (tmp_path / "data.bin").write_bytes(b"")
    manifest = ChunkManifest.empty((2,), {0: b"abcd", 1: b"ab"})
    array = VirtualArray((2,), np.dtype("<f4"), (1,), manifest)
    reader = Reader([Source(str(tmp_path / "data.bin"))], on_error="fill-and-report")
    result, _ = read_filled(reader, array)
    assert np.isnan(result).tolist() == [False, True]
    (chunk,) = reader.filled
    assert (chunk.path, chunk.chunk, chunk.error.url) == ("/v", (1,), None)


# What is never filled: it is no fault of a chunk


FAULTS = {
    "missing": (Fault(status=404), SourceMissing),
    "denied": (Fault(status=403), SourceDenied),
    "failing": (Fault(status=503, headers={"Retry-After": "0"}), SourceError),
    "replaced": (Fault(headers={"ETag": '"other"'}), SourceChanged),
    "replaced, and refused": (Fault(status=412), SourceChanged),
    "replaced by less": (Fault(status=416), SourceChanged),
    "without ranges": (Fault(ignore_range=True, body=b"x" * 10**6), SourceError),
}


@pytest.mark.parametrize(("fault", "kind"), FAULTS.values(), ids=FAULTS)
def test_a_source_that_cannot_be_had_is_an_error(tmp_path, fault, kind):
    made = make("", ZLIB, gap=200_000)
    (tmp_path / "data.bin").write_bytes(made.data)
    with RangeServer(tmp_path) as server:
        url = server.url("data.bin")
        is_known = kind is SourceChanged
        source = Source(url, size=len(made.data), etag='"first"') if is_known else Source(url)
        server.faults.append(fault)
        reader = Reader([source], on_error="fill-and-report", policy=Policy(first_pause_s=0.001))
        with pytest.raises(kind) as caught:
            reader.read(made.group["v"], path="/v")
        assert (caught.value.url, caught.value.path) == (url, "/v")
        assert reader.filled == []


def test_a_file_that_is_not_there_or_shorter_than_recorded_is_an_error(tmp_path):
    made = make(tmp_path / "data.bin", ZLIB)
    with pytest.raises(SourceMissing):
        filling(made.group).read(made.group["v"])
    (tmp_path / "data.bin").write_bytes(made.data[:-1])
    sources = (Source(str(tmp_path / "data.bin"), size=len(made.data)),)
    with pytest.raises(SourceChanged):
        filling(replace(made.group, sources=sources)).read(made.group["v"])


@pytest.mark.parametrize(
    ("codecs", "limits", "kind"),
    [
        ((Codec("pickle"),), Limits(), Unsupported),
        (ZLIB, Limits(chunk=100), LimitExceeded),
        (ZLIB, Limits(result=100), LimitExceeded),
        (ZLIB * 3, Limits(codecs=2), LimitExceeded),
    ],
    ids=["unknown codec", "large chunk", "large result", "many codecs"],
)
def test_what_is_refused_as_a_whole_is_not_filled(tmp_path, codecs, limits, kind):
    made = make(tmp_path / "data.bin", ZLIB)
    (tmp_path / "data.bin").write_bytes(made.data)
    array = replace(made.group["v"], encodings=(Encoding(codecs),))
    reader = filling(made.group, limits=limits)
    with pytest.raises(kind):
        reader.read(array)
    assert reader.filled == []


def test_want_of_memory_is_no_fault_of_a_chunk(tmp_path, monkeypatch):
    made = make(tmp_path / "data.bin", ZLIB)
    (tmp_path / "data.bin").write_bytes(made.data)

    def prepared(codec, bound):
        del codec, bound

        def step(data):
            raise MemoryError

        return step

    monkeypatch.setattr(chain, "_prepared", prepared)
    reader = filling(made.group)
    with pytest.raises(LimitExceeded, match="not enough memory"):
        reader.read(made.group["v"])
    assert reader.filled == []


def test_without_being_asked_nothing_is_filled(tmp_path):
    made = make(tmp_path / "data.bin", ZLIB, garbage)
    (tmp_path / "data.bin").write_bytes(made.data)
    with pytest.raises(ByteatlasError):
        Reader(made.group.sources).read(made.group["v"])
    with pytest.raises(ValueError, match="fill-and-report"):
        Reader(made.group.sources, on_error="ignore")


def test_a_pickled_reader_still_fills(tmp_path):
    made = make(tmp_path / "data.bin", ZLIB, garbage)
    (tmp_path / "data.bin").write_bytes(made.data)
    reader = pickle.loads(pickle.dumps(filling(made.group)))
    values, _ = read_filled(reader, made.group["v"])
    np.testing.assert_array_equal(values, expected(INDEX))
    assert pickle.loads(pickle.dumps(reader.filled)) != []


def test_many_threads_list_all_that_they_fill(tmp_path):
    made = make(tmp_path / "data.bin", ZLIB, garbage)
    (tmp_path / "data.bin").write_bytes(made.data)
    reader = filling(made.group)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        threads = [threading.Thread(target=reader.read, args=(made.group["v"],)) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(reader.filled) == len(caught) == 20


@pytest.mark.parametrize("chunks", [None, {}], ids=["at once", "dask"])
def test_xarray_masks_what_was_filled(tmp_path, chunks):
    attrs = {"_FillValue": np.int16(-99), "scale_factor": np.float64(0.5)}
    values = VALUES.astype("<i2")
    made = make(tmp_path / "data.bin", ZLIB, garbage, values=values, attrs=attrs)
    (tmp_path / "data.bin").write_bytes(made.data)
    options = {"chunks": chunks, "on_error": "fill-and-report"}
    with byteatlas.open_dataset(made.group, **options) as dataset:
        with pytest.warns(FilledChunks, match=r"/v: chunk \(1, 1\)"):
            result = dataset["v"].values
        np.testing.assert_array_equal(result, expected(INDEX) * 0.5)
        assert [one.chunk for one in dataset["v"].byteatlas.filled] == [INDEX]
