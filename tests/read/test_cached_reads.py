"""Reads with a cache: the same values, and requests only for what was not fetched before."""

import pickle
import subprocess
import sys
import threading
import zlib
from dataclasses import replace

import h5py
import numpy as np
import pytest

from byteatlas.errors import ByteatlasError, SourceChanged
from byteatlas.model import WHOLE, ChunkManifest, Codec, Encoding, Source, VirtualArray
from byteatlas.read import Reader
from byteatlas.read import kept as kept_module
from byteatlas.scanning import scan
from byteatlas.sealing import seal
from byteatlas.sources import open_source
from byteatlas.sources.cached_source import CachedSource
from byteatlas.sources.chunk_cache_option import open_cache
from byteatlas.testing.server import RangeServer

NAMES = ["packed", "plain", "whole", "texts"]


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("archive") / "archive.h5"
    random = np.random.default_rng(0)
    values = random.normal(size=(200, 512)).astype("f4")
    texts = np.array([f"text {number}" * (number % 7) for number in range(200)], object)
    with h5py.File(path, "w") as file:
        file.create_dataset("packed", data=values, chunks=(2, 512), compression=1, shuffle=True)
        file.create_dataset("plain", data=values, chunks=(100, 512))
        file.create_dataset("whole", data=values)
        file.create_dataset("texts", data=texts, dtype=h5py.string_dtype(), chunks=(10,))
        file.create_dataset("narrow", data=values, chunks=(2, 512))
    return path


@pytest.fixture
def server(archive):
    with RangeServer({"archive.h5": archive.read_bytes()}) as running:
        yield running


@pytest.fixture
def scanned(server):
    group = scan(server.url("archive.h5"))
    server.clear()
    return group


@pytest.fixture
def expected(archive):
    with h5py.File(archive) as file:
        texts = file["texts"].asstr()[:]
        return {name: texts if name == "texts" else file[name][:] for name in NAMES}


@pytest.fixture(params=["memory", "disk"])
def cache(request, tmp_path):
    """An empty cache of ten megabytes."""
    return open_cache(f"{'memory' if request.param == 'memory' else tmp_path / 'cache'}:10MB")


@pytest.mark.parametrize("name", NAMES)
def test_a_second_read_makes_no_request(scanned, server, expected, cache, name):
    for count in (1, 0, 0):
        server.clear()
        result = Reader(scanned.sources, cache=cache).read(scanned[name])
        np.testing.assert_array_equal(result, expected[name])
        assert bool(server.log) == (count > 0 and name != "texts")  # those are in the index


def test_another_selection_fetches_only_the_chunks_that_lack(scanned, server, expected, cache):
    array = scanned["packed"]
    reader = Reader(scanned.sources, cache=cache)
    reader.read(array, slice(20, 100))
    server.clear()
    np.testing.assert_array_equal(reader.read(array, slice(25, 99, 3)), expected["packed"][25:99:3])
    assert server.log == []
    np.testing.assert_array_equal(reader.read(array, slice(30, 140)), expected["packed"][30:140])
    lacking = int(array.manifest.length[50:70].sum())
    assert lacking <= server.bytes_sent < 1.2 * lacking  # with what lies between chunks
    assert min(entry.range[0] for entry in server.log) == int(array.manifest.offset[50])


@pytest.mark.parametrize("name", ["plain", "whole"])
def test_parts_of_uncompressed_chunks_are_kept_as_they_were_read(
    scanned, server, expected, cache, name
):
    reader = Reader(scanned.sources, cache=cache)
    reader.read(scanned[name], slice(20, 40))
    server.clear()
    for rows in (slice(20, 40), slice(25, 30), slice(39, 19, -5), [21, 37]):
        result = reader.read(scanned[name], (rows, slice(5, 9)))
        np.testing.assert_array_equal(result, expected[name][rows, 5:9])
    assert server.log == []
    np.testing.assert_array_equal(reader.read(scanned[name], 45), expected[name][45])
    assert server.bytes_sent == 2048


def test_a_gap_between_chunks_is_not_kept(scanned, server):
    array = scanned["packed"]
    cache = open_cache("memory:10MB")
    Reader(scanned.sources, cache=cache).read(array, slice(0, None, 20))
    stored = array.manifest.length[::10].astype(int)
    assert server.bytes_sent >= stored.sum()
    from byteatlas.sources.chunk_cache_memory import OVERHEAD

    assert cache.used == stored.sum() + OVERHEAD * stored.size


def test_several_arrays_are_read_together_from_a_cache(scanned, server, expected, cache):
    wanted = [(scanned[name], slice(3, 150), name) for name in NAMES[:3]] * 2
    reader = Reader(scanned.sources, cache=cache)
    reader.read(scanned["plain"], slice(0, 120))
    for _ in range(2):
        for (_, rows, name), result in zip(wanted, reader.read_many(wanted), strict=True):
            np.testing.assert_array_equal(result, expected[name][rows])
    server.clear()
    reader.read_many(wanted[:3])
    reader.read(scanned["packed"], slice(3, 150))
    assert server.log == []


def test_a_cache_that_is_too_small_for_a_read_changes_nothing_but_requests(
    scanned, expected, tmp_path
):
    for option in ("memory:100kB", f"{tmp_path}:100kB"):
        reader = Reader(scanned.sources, cache=option)
        for _ in range(3):
            for name in NAMES:
                np.testing.assert_array_equal(reader.read(scanned[name]), expected[name])


def test_what_goes_while_it_is_wanted_is_fetched(scanned, server, expected, cache, monkeypatch):
    reader = Reader(scanned.sources, cache=cache)
    reader.read(scanned["packed"])
    really = kept_module.held_parts

    def and_then_gone(*args):
        held = really(*args)
        assert held[0].all()
        cache.discard(scanned.sources[0])
        return held

    monkeypatch.setattr("byteatlas.read.pipeline.held_parts", and_then_gone)
    server.clear()
    np.testing.assert_array_equal(reader.read(scanned["packed"]), expected["packed"])
    assert len(server.log) > 0


def test_kept_bytes_that_do_not_decode_are_fetched_again(scanned, server, expected, cache):
    array = scanned["packed"]
    at, length = (
        column[3:6].astype(np.int64) for column in (array.manifest.offset, array.manifest.length)
    )
    cache.put_many(scanned.sources[0], at, length, [bytes(n) for n in length.tolist()])
    reader = Reader(scanned.sources, cache=cache)
    for requests in (True, False):
        server.clear()
        np.testing.assert_array_equal(reader.read(array), expected["packed"])
        assert bool(server.log) == requests


def test_kept_bytes_are_compared_with_a_seal_too(scanned, server, expected, cache):
    sealed = seal(scanned)
    array = sealed["plain"]
    at, length = (
        column.astype(np.int64) for column in (array.manifest.offset, array.manifest.length)
    )
    cache.put_many(sealed.sources[0], at, length, [bytes(n) for n in length.tolist()])
    result = Reader(sealed.sources, cache=cache).read(array, slice(5, 10))
    np.testing.assert_array_equal(result, expected["plain"][5:10])


def test_every_kept_chunk_is_compared_with_its_seal(scanned, server, expected, cache):
    sealed = seal(scanned)
    array = sealed["narrow"]
    at, length = (
        column.astype(np.int64) for column in (array.manifest.offset, array.manifest.length)
    )
    damaged = [bytes([number]) * n for number, n in enumerate(length.tolist())]
    cache.put_many(sealed.sources[0], at, length, damaged)
    result = Reader(sealed.sources, cache=cache).read(array)
    np.testing.assert_array_equal(result, expected["plain"])


def test_when_a_kept_chunk_does_not_fit_nothing_kept_of_its_source_is_used(
    scanned, expected, cache
):
    names = ["plain", "packed"]  # of the first nobody can tell that it is wrong
    for name in names:
        manifest = scanned[name].manifest
        at, length = (one.astype(np.int64) for one in (manifest.offset, manifest.length))
        cache.put_many(scanned.sources[0], at, length, [bytes(n) for n in length.tolist()])
    reader = Reader(scanned.sources, cache=cache)
    found = reader.read_many([(scanned[name], ..., name) for name in names])
    for name, values in zip(names, found, strict=True):
        np.testing.assert_array_equal(values, expected[name])


def test_a_chunk_that_does_not_decode_is_not_kept(cache):
    data = b"no stream of deflate" + zlib.compress(bytes(40))
    manifest = ChunkManifest.build(
        (2,),
        np.arange(2, dtype="u8"),
        np.array([0, 20], "u8"),
        np.array([20, len(data) - 20], "u8"),
    )
    array = VirtualArray(
        (20,), np.dtype("f4"), (10,), manifest, encodings=(Encoding((Codec("zlib", {}),)),)
    )
    with RangeServer({"a": data}) as server:
        source = Source(server.url("a"))
        with pytest.raises(ByteatlasError):
            Reader([source], cache=cache).read(array)
        reader = Reader([source], on_error="fill-and-report", cache=cache)
        for _ in range(2):
            with pytest.warns(UserWarning, match="chunk"):
                values = reader.read(array)
            assert values[10:].tolist() == [0.0] * 10
            assert len(reader.filled) == 1
            reader.filled.clear()
        bad = np.array([0]), np.array([20])
        assert not cache.holds(reader.source(0).identity(), *bad).any()


def test_a_source_that_changed_is_noticed_at_the_first_request_and_then_never_served(
    scanned, server, expected, cache
):
    reader = Reader(scanned.sources, cache=cache)
    reader.read(scanned["packed"], slice(0, 20))
    server.content = {"archive.h5": bytes(len(server.content["archive.h5"]))}
    np.testing.assert_array_equal(
        reader.read(scanned["packed"], slice(0, 20)), expected["packed"][:20]
    )
    with pytest.raises(SourceChanged):
        reader.read(scanned["packed"], slice(0, 40))
    for again in (reader, Reader(scanned.sources, cache=cache)):
        with pytest.raises(SourceChanged):
            again.read(scanned["packed"], slice(0, 20))


def test_an_index_that_tells_no_identities_costs_one_request_for_each_source(
    scanned, server, expected, cache
):
    sources = [Source(scanned.sources[0].url)]
    for _ in range(2):
        server.clear()
        reader = Reader(sources, cache=cache)
        for name in NAMES:
            np.testing.assert_array_equal(reader.read(scanned[name]), expected[name])
    assert [entry.method for entry in server.log] == ["HEAD"]


def test_what_a_stream_to_the_end_brings_is_kept_too(cache):
    manifest = ChunkManifest.build(
        (1,), np.arange(1, dtype="u8"), np.array([8], "u8"), np.array([WHOLE])
    )
    array = VirtualArray((5,), np.dtype("u1"), (5,), manifest)
    with RangeServer({"a": bytes(range(13))}) as server:
        source = Source(server.url("a"))
        for _ in range(2):
            server.clear()
            result = Reader([source], cache=cache).read(array)
            assert result.tolist() == [8, 9, 10, 11, 12]
        assert [entry.method for entry in server.log] == ["HEAD"]


def test_many_sources_are_read_from_a_cache(server, cache, archive):
    server.content = {f"{number}.h5": archive.read_bytes() for number in range(5)}
    groups = [scan(server.url(f"{number}.h5")) for number in range(5)]
    parts = [group["packed"].manifest for group in groups]
    manifest = ChunkManifest.build(
        (500, 1),
        np.arange(500, dtype="u8"),
        np.concatenate([part.offset for part in parts]),
        np.concatenate([part.length for part in parts]),
        source=np.repeat(np.arange(5, dtype="u4"), 100),
    )
    array = replace(groups[0]["packed"], shape=(1000, 512), manifest=manifest)
    sources = [group.sources[0] for group in groups]
    server.clear()
    results = [Reader(sources, cache=cache).read(array, slice(150, 650)) for _ in range(2)]
    requests = len(server.log)
    np.testing.assert_array_equal(*results)
    assert Reader(sources, cache=cache).read(array).shape == (1000, 512)
    assert requests < len(server.log)
    server.clear()
    Reader(sources, cache=cache).read(array)
    assert server.log == []


def test_what_waits_to_be_kept_is_bounded_over_all_sources(cache, monkeypatch):
    names = [f"{number}.bin" for number in range(20)]
    contents = {name: bytes([number]) * 4000 for number, name in enumerate(names)}
    zeros = np.zeros(20, "u8")
    manifest = ChunkManifest.build(
        (20,), np.arange(20, dtype="u8"), zeros, zeros + 4000, source=np.arange(20, dtype="u4")
    )
    array = VirtualArray((80_000,), np.dtype("u1"), (4000,), manifest)
    opened, waiting = [], []
    really = CachedSource.keep

    def keep(source, *args):
        opened.append(source)
        size = really(source, *args)
        waiting.append(sum(one._pending_size for one in set(opened)))
        return size

    monkeypatch.setattr("byteatlas.read.pipeline.MOST_WAITING", 10_000)
    monkeypatch.setattr(CachedSource, "keep", keep)
    with RangeServer(contents) as server:
        sources = [scan_identity(server.url(name)) for name in names]
        for _ in range(2):
            server.clear()
            values = Reader(sources, cache=cache).read(array)
            assert values.reshape(20, 4000)[:, 0].tolist() == list(range(20))
        assert server.log == []
    assert len(waiting) == 20
    assert max(waiting) <= 16_000


def scan_identity(url):
    """Return what an index would record of a source."""
    return open_source(url).stat()


def test_local_sources_are_read_as_without_a_cache(archive, expected, tmp_path):
    group = scan(archive)
    cache = open_cache(f"{tmp_path / 'cache'}:10MB")
    reader = Reader(group.sources, cache=cache)
    for name in NAMES:
        np.testing.assert_array_equal(reader.read(group[name]), expected[name])
    assert not (tmp_path / "cache").exists()


def test_a_pickled_reader_has_the_same_cache_here_and_one_like_it_elsewhere(scanned, server):
    reader = Reader(scanned.sources, cache="memory:10MB")
    reader.read(scanned["packed"])
    again = pickle.loads(pickle.dumps(reader))
    assert again.cache is reader.cache
    code = (
        "import pickle, sys; reader, array = pickle.load(sys.stdin.buffer);"
        "assert reader.cache.used == 0;"
        "one = reader.read(array); used = reader.cache.used; reader.read(array);"
        "print(reader.cache.limit, used == reader.cache.used > 0)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps((reader, scanned["packed"])),
        capture_output=True,
        check=False,
    )
    assert result.stdout.split() == [b"10000000", b"True"], result.stderr


def test_many_threads_share_a_cache(scanned, server, expected, cache):
    reader = Reader(scanned.sources, cache=cache)
    wrong = []

    def work(seed):
        random = np.random.default_rng(seed)
        for _ in range(6):
            name = NAMES[random.integers(4)]
            first = int(random.integers(150))
            result = reader.read(scanned[name], slice(first, first + 50))
            if not np.array_equal(result, expected[name][first : first + 50]):
                wrong.append((name, first))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_an_option_that_means_nothing_is_refused_at_once():
    with pytest.raises(ValueError, match="write cache='memory:256MiB'"):
        Reader([], cache="256MiB")


def test_a_source_that_parameters_select_is_not_cached(scanned, cache):
    options = {"params": {"id": "1"}}
    reader = Reader(scanned.sources, options, cache=cache)
    assert not isinstance(reader.source(0), CachedSource)
    assert isinstance(Reader(scanned.sources, cache=cache).source(0), CachedSource)
