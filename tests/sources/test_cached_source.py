"""A source with a cache before it: fewer requests, the same bytes, and nothing stale."""

import asyncio
import threading

import numpy as np
import pytest

from byteatlas.errors import ShortRead, SourceChanged, SourceMissing
from byteatlas.model import WHOLE, ByteRange, ByteRanges, Source
from byteatlas.sources import open_source
from byteatlas.sources.cached_source import CachedSource
from byteatlas.sources.chunk_cache_option import open_cache
from byteatlas.testing.server import Fault, RangeServer

DATA = np.random.default_rng(0).bytes(200_000)


@pytest.fixture
def server():
    with RangeServer({"a.nc": DATA}) as running:
        yield running


@pytest.fixture(params=["memory", "disk"])
def cache(request, tmp_path):
    """An empty cache of a megabyte."""
    return open_cache(f"{'memory' if request.param == 'memory' else tmp_path / 'cache'}:1MiB")


@pytest.fixture
def recorded(server):
    """What an index would say of the source."""
    seen = open_source(server.url("a.nc")).stat()
    server.clear()
    return seen


def opened(cache, recorded):
    return CachedSource(open_source(recorded.url, expected=recorded), cache, recorded)


def in_bytes(answers):
    return [bytes(memoryview(one)) for one in answers]


BATCH = [ByteRange(100, 50), ByteRange(0, 10), ByteRange(150_000, 1000), ByteRange(100, 50)]
WANTED = [DATA[100:150], DATA[:10], DATA[150_000:151_000], DATA[100:150]]


@pytest.mark.parametrize("how", ["read", "aread"])
def test_what_was_read_once_is_not_asked_for_again(server, cache, recorded, how):
    def read(source, batch):
        return source.read(batch) if how == "read" else asyncio.run(source.aread(batch))

    assert in_bytes(read(opened(cache, recorded), BATCH)) == WANTED
    assert len(server.log) == 2  # two merged ranges
    server.clear()
    assert in_bytes(read(opened(cache, recorded), BATCH[::-1])) == WANTED[::-1]
    assert server.log == []
    answers = read(opened(cache, recorded), [ByteRange(100, 20), ByteRange(5000, 9), BATCH[1]])
    assert in_bytes(answers) == [DATA[100:120], DATA[5000:5009], DATA[:10]]
    assert [entry.range for entry in server.log] == [(5000, 9)]


def test_rows_of_one_length_are_kept_too(server, cache, recorded):
    rows = ByteRanges(np.array([7, 90_000, 8], np.uint64), 4)
    wanted = [list(DATA[at : at + 4]) for at in (7, 90_000, 8)]
    for _ in range(2):
        (answer,) = opened(cache, recorded).read([rows])
        assert answer.tolist() == wanted
        answer[:] = 0  # the caller owns it
    assert len(server.log) == 2


def test_a_range_to_the_end_is_kept(server, cache, recorded):
    for _ in range(2):
        answer = asyncio.run(opened(cache, recorded).aread_range(199_000, WHOLE))
        assert bytes(answer) == DATA[199_000:]
    assert len(server.log) == 1


def test_small_pieces_are_kept_together_at_the_latest_when_the_source_is_closed(cache, recorded):
    source = opened(cache, recorded)
    source.keep([0, 10], [memoryview(DATA)[:10], b"never", b""][:2])
    one = np.array([0]), np.array([10])
    assert source.holds(*one).tolist() == [False]
    source.close()
    assert source.holds(*one).tolist() == [True]
    assert in_bytes(source.kept(*one)) == [DATA[:10]]


def test_an_index_without_identities_costs_one_question_and_then_is_cached(server, cache):
    unknown = Source(server.url("a.nc"))
    assert in_bytes(opened(cache, unknown).read(BATCH)) == WANTED
    server.clear()
    source = opened(cache, unknown)
    for _ in range(3):
        assert in_bytes(source.read(BATCH)) == WANTED
    assert [entry.method for entry in server.log] == ["HEAD"]


def test_an_index_without_identities_finds_nothing_of_an_older_source(server, cache):
    unknown = Source(server.url("a.nc"))
    opened(cache, unknown).read(BATCH)
    server.content = {"a.nc": DATA[::-1]}
    answers = opened(cache, unknown).read(BATCH[:1])
    assert in_bytes(answers) == [DATA[::-1][100:150]]


@pytest.mark.parametrize("recorded_as", [(None, None), ('W/"1"', None), ("stat:1-2-3", "16" * 9)])
def test_what_is_kept_is_never_mixed_with_a_later_version(server, cache, recorded_as):
    unknown = Source(server.url("a.nc"), None, *recorded_as)
    opened(cache, unknown).read(BATCH[:1])
    source = opened(cache, unknown)
    server.clear()
    assert in_bytes(source.read(BATCH[:1])) == WANTED[:1]
    assert [entry.method for entry in server.log] == ["HEAD"]  # the rest is from the cache
    server.content = {"a.nc": DATA[::-1]}
    with pytest.raises(SourceChanged):
        source.read(BATCH)
    with pytest.raises(SourceChanged):
        source.read(BATCH[:1])


def test_a_source_that_shows_no_identity_is_read_without_a_cache(cache):
    with RangeServer(
        {"a.nc": DATA}, faults=[Fault(headers={"ETag": "", "Last-Modified": ""})]
    ) as server:
        source = opened(cache, Source(server.url("a.nc")))
        for _ in range(2):
            assert in_bytes(source.read(BATCH)) == WANTED
        assert [entry.method for entry in server.log].count("HEAD") == 1
        assert [entry.method for entry in server.log].count("GET") == 4


def test_once_a_source_is_known_to_have_changed_nothing_kept_of_it_is_served(
    server, cache, recorded
):
    source = opened(cache, recorded)
    source.read(BATCH)
    server.content = {"a.nc": DATA[::-1]}
    assert in_bytes(source.read(BATCH)) == WANTED  # by what was recorded: nobody was asked
    with pytest.raises(SourceChanged):
        source.read([*BATCH, ByteRange(60_000, 10)])
    with pytest.raises(SourceChanged):
        source.read(BATCH)
    with pytest.raises(SourceChanged):
        opened(cache, recorded).read(BATCH)


def test_errors_are_those_of_the_source(server, cache, recorded):
    source = opened(cache, recorded)
    with pytest.raises(ShortRead):
        source.read([ByteRange(199_990, 20)])
    server.content = {}
    with pytest.raises(SourceMissing):
        source.read([ByteRange(0, 20)])
    with pytest.raises(SourceMissing):
        opened(cache, Source(server.url("a.nc"))).read([ByteRange(0, 20)])


def test_everything_else_is_as_of_the_source_itself(server, cache, recorded):
    source = opened(cache, recorded)
    assert source.facts == recorded
    assert source.url == recorded.url
    assert bytes(source.read_head(10)) == DATA[:10]
    assert in_bytes(source.read_spans(BATCH)[0]) == WANTED
    assert in_bytes(asyncio.run(source.aread_spans(BATCH))[0]) == WANTED
    rows = dict(source.stream(np.array([5], "u8"), np.array([3], "u8")))
    assert in_bytes(rows.values()) == [DATA[5:8]]
    assert source.stat() == recorded
    assert source.trace is source.source.trace
    assert "a.nc" in repr(source)


def test_many_threads_read_through_one_cache(server, cache, recorded):
    source = opened(cache, recorded)
    wrong = []

    def work(seed):
        random = np.random.default_rng(seed)
        for _ in range(15):
            batch = [ByteRange(int(at) * 1000, 900) for at in random.integers(200, size=5)]
            for asked, answer in zip(batch, in_bytes(source.read(batch)), strict=True):
                if answer != DATA[asked.offset : asked.offset + 900]:
                    wrong.append(asked)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(server.log) < 8 * 15 * 5
