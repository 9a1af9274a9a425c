"""What is read equals what was stored, whatever the layout; else an error says where."""

import threading
import time
import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import basic_indices

from byteatlas.errors import Malformed, ShortRead, SourceMissing
from byteatlas.model import WHOLE, ChunkManifest, Codec, Encoding, VirtualArray
from byteatlas.read import LOCAL, REMOTE, Job, execute, plan_read
from byteatlas.read.placing import Target

from .conftest import SHUFFLE_ZLIB, FakeSource, build


def read(made, selection=..., costs=REMOTE, path="/group/temp"):
    return read_from(made.array, lambda position: made.sources[position], selection, costs, path)


def read_from(array, source, selection=..., costs=LOCAL, path=""):
    return execute([Job(plan_read(array, selection, costs), array, path)], source, costs)[0]


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_any_selection_of_any_layout_equals_the_values(data):
    shape = tuple(data.draw(st.lists(st.integers(1, 12), max_size=3), "shape"))
    chunk_shape = tuple(data.draw(st.integers(1, 14), "chunk") for _ in shape)
    cells = int(np.prod([-(-n // c) for n, c in zip(shape, chunk_shape, strict=True)]))
    some = st.lists(st.integers(0, cells - 1), max_size=cells).map(tuple)
    dtype = data.draw(st.sampled_from(["<i4", ">i4", "<f8", "|i1", "|S3", "<c8", "|b1"]), "dtype")
    values = np.arange(int(np.prod(shape))).astype(dtype).reshape(shape)
    shuffle = Codec("shuffle", {"elementsize": values.itemsize})
    codecs = [(), (Codec("zlib"),), (Codec("fletcher32"),), (shuffle,), (shuffle, Codec("zlib"))]
    made = build(
        values,
        chunk_shape,
        codecs=data.draw(st.sampled_from(codecs), "codecs"),
        gap=data.draw(st.sampled_from([0, 7]), "gap"),
        sources=data.draw(st.integers(1, 3), "sources"),
        missing=data.draw(some, "missing"),
        inlined=data.draw(some, "inlined"),
        fill_value=data.draw(st.sampled_from([None, np.array(1).astype(dtype)[()]]), "fill"),
    )
    selection = data.draw(basic_indices(shape), "selection") if shape else ()
    result = read(made, selection, data.draw(st.sampled_from([LOCAL, REMOTE]), "costs"))
    expected = made.values[selection]
    assert result.dtype == values.dtype
    assert result.shape == np.shape(expected)
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("codecs", [(), SHUFFLE_ZLIB], ids=["raw", "compressed"])
def test_arrays_select_along_their_own_axis(make_array, codecs):
    values = np.arange(20 * 30, dtype="<f4").reshape(20, 30)
    made = make_array(values, (6, 7), codecs=codecs)
    rows, columns = np.array([17, 3, 3, -1]), np.array([0, 29, 8])
    np.testing.assert_array_equal(read(made, (rows, columns)), values[np.ix_(rows, columns)])
    np.testing.assert_array_equal(
        read(made, (slice(None, None, -3), columns)), values[::-3, columns]
    )
    assert read(made, (np.array([], int),)).shape == (0, 30)


def test_big_endian_values_keep_their_byte_order(make_array):
    values = np.arange(10, dtype=">i2")
    result = read(make_array(values, (4,)))
    assert result.dtype.str == ">i2"
    np.testing.assert_array_equal(result, values)


def test_structured_values_are_read(make_array):
    values = np.array([(1, 2.5), (3, 4.5)], [("a", "<i2"), ("b", ">f8")])
    result = read(make_array(values, (3,)))
    assert result.dtype == values.dtype
    np.testing.assert_array_equal(result, values)


def test_chunks_of_several_encodings_are_each_decoded_by_their_own():
    values = np.arange(8, dtype="<i4")
    chunks = [values[:2].tobytes(), zlib.compress(values[2:4].tobytes())]
    chunks += [zlib.compress(values[4:6].tobytes()), values[6:].tobytes()]
    offset = np.cumsum([0, *map(len, chunks[:-1])]).astype("u8")
    manifest = ChunkManifest.build(
        (4,),
        np.arange(4, dtype="u8"),
        offset,
        np.array(list(map(len, chunks)), "u8"),
        encoding=np.array([1, 0, 0, 1], "u1"),
    )
    encodings = (Encoding((Codec("zlib"),)), Encoding())
    array = VirtualArray((8,), values.dtype, (2,), manifest, encodings=encodings)
    source = FakeSource(b"".join(chunks))
    result = read_from(array, lambda _: source)
    np.testing.assert_array_equal(result, values)


def test_strings_are_objects_and_missing_ones_are_empty():
    text = b"\2\0\0\0" + b"\2\0\0\0\xc3\xa9" + b"\0\0\0\0"
    manifest = ChunkManifest.empty((2,), {1: text})
    array = VirtualArray(
        (4,), np.dtype(object), (2,), manifest, encodings=(Encoding((Codec("vlen-utf8"),)),)
    )
    result = read_from(array, lambda _: None)
    assert result.dtype == object
    assert result.tolist() == ["", "", "é", ""]


@pytest.mark.parametrize("fill", [None, np.float32(-1.5), np.float32("nan")])
def test_missing_chunks_read_as_the_fill_value(make_array, fill):
    made = make_array(np.ones((4, 4), "f4"), (2, 2), missing=(0, 3), fill_value=fill)
    np.testing.assert_array_equal(read(made), made.values)


def test_an_open_ended_chunk_reaches_to_the_end_of_its_source():
    values = np.arange(6, dtype="<i4")
    data = b"head" + zlib.compress(values.tobytes())
    manifest = ChunkManifest.build(
        (1,), np.zeros(1, "u8"), np.array([4], "u8"), np.array([WHOLE], "u8")
    )
    array = VirtualArray(
        (6,), values.dtype, (6,), manifest, encodings=(Encoding((Codec("zlib"),)),)
    )
    source = FakeSource(data)
    result = read_from(array, lambda _: source, costs=REMOTE)
    np.testing.assert_array_equal(result, values)


@pytest.mark.parametrize("selection", [..., (slice(None), 700)], ids=["all", "a point of each"])
def test_much_is_decoded_on_several_threads(make_array, monkeypatch, selection):
    monkeypatch.setattr("byteatlas.read.pipeline.worker_count", lambda: 2)
    values = np.arange(2**18, dtype="<f4").reshape(256, 1024)
    made = make_array(values, (2, 1024), codecs=SHUFFLE_ZLIB, gap=10**6)
    seen = set()
    put = Target.put

    def spy(*arguments):
        seen.add(threading.current_thread())
        time.sleep(0.001)
        put(*arguments)

    monkeypatch.setattr(Target, "put", spy)
    np.testing.assert_array_equal(read(made, selection), values[selection])
    assert len(seen) == 2
    assert threading.current_thread() in seen


def test_several_arrays_are_read_together(make_array):
    values = np.arange(100, dtype="<f4"), np.arange(60, dtype=">i2").reshape(6, 10)
    made = [
        make_array(values[0], (10,), codecs=SHUFFLE_ZLIB, gap=3),
        make_array(values[1], (4, 4), missing=(1,), fill_value=np.int16(7)),
    ]
    source = FakeSource(made[0].sources[0].data + made[1].sources[0].data)
    second = made[1].array
    shifted = replace(
        second.manifest, offset=second.manifest.offset + np.uint64(len(made[0].sources[0].data))
    )
    arrays = made[0].array, replace(second, manifest=shifted)
    jobs = [Job(plan_read(one, ..., LOCAL), one) for one in arrays]
    results = execute(jobs, lambda _: source, LOCAL)
    for result, one in zip(results, made, strict=True):
        assert result.dtype == one.values.dtype
        np.testing.assert_array_equal(result, one.values)


# Errors: where, and never a value instead.


def test_a_damaged_chunk_is_an_error_with_url_path_and_offset(make_array):
    made = make_array(np.arange(100, dtype="<f4"), (10,), codecs=SHUFFLE_ZLIB, gap=3)
    offset = int(made.array.manifest.offset[4])
    damaged = bytearray(made.sources[0].data)
    damaged[offset + 5] ^= 0xFF
    made.sources[0].data = bytes(damaged)
    with pytest.raises(Malformed) as caught:
        read(made)
    error = caught.value
    assert (error.url, error.path, error.offset) == ("memory://fake", "/group/temp", offset)


def test_a_damaged_inline_chunk_is_an_error_with_the_path(make_array):
    made = make_array(np.arange(4, dtype="<f4"), (2,), codecs=SHUFFLE_ZLIB, inlined=(1,))
    made.array.manifest.inline[1] = b"no"
    with pytest.raises(Malformed) as caught:
        read(made)
    assert caught.value.path == "/group/temp"


@pytest.mark.parametrize("sources", [1, 5])
def test_the_error_of_a_source_ends_the_read(make_array, sources):
    made = make_array(np.arange(1000, dtype="<f4"), (10,), codecs=SHUFFLE_ZLIB, sources=sources)

    def missing(offset, length):
        yield 0, made.sources[-1].data[int(offset[0]) :][: int(length[0])]
        raise SourceMissing("gone", url="memory://gone")

    made.sources[-1].stream = missing
    with pytest.raises(SourceMissing, match="memory://gone: /group/temp: gone"):
        read(made, costs=LOCAL)


def test_no_further_source_is_begun_once_one_has_failed():
    begun = []

    class Slow(FakeSource):
        def stream(self, offset, length):
            begun.append(self)
            time.sleep(0.02)
            yield from super().stream(offset, length)

    class Broken(FakeSource):
        def stream(self, offset, length):
            raise SourceMissing("gone")

    made = build(np.arange(400, dtype="<f4"), (1,), sources=200)
    sources = [Broken(b""), *(Slow(one.data) for one in made.sources[1:])]
    with pytest.raises(SourceMissing):
        read(made._replace(sources=sources))
    assert len(begun) < 100


def test_fewer_bytes_than_asked_for_are_an_error(make_array):
    made = make_array(np.arange(100, dtype="<f4"), (10,))
    made.sources[0].data = made.sources[0].data[:-1]
    with pytest.raises(ShortRead) as caught:
        read(made)
    assert caught.value.url == "memory://fake"
    assert caught.value.path == "/group/temp"


def test_a_stream_is_closed_when_decoding_fails(make_array):
    made = make_array(np.arange(100, dtype="<f4"), (10,), codecs=SHUFFLE_ZLIB, gap=10**6)
    made.sources[0].data = bytes(len(made.sources[0].data))
    with pytest.raises(Malformed):
        read(made)
    assert made.sources[0].closed_early.is_set()
