import asyncio

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byteatlas.errors import ShortRead
from byteatlas.model import ByteRange, ByteRanges, Source
from byteatlas.sources import CachedReader, Trace, open_source
from byteatlas.sources.plan import columns, cut_arena, plan_reads, spans_of
from byteatlas.testing.server import RangeServer

DATA = np.random.default_rng(0).integers(0, 256, 2000, dtype=np.uint8)


class Fake:
    """A source in memory that merges over gaps of 16 bytes and remembers what it was asked."""

    url = "memory"

    def __init__(self, size=DATA.size):
        self.data = DATA[:size]
        self.trace = Trace()
        self.facts = Source(self.url)
        self.fetched = []

    def read_head(self, length):
        self.facts = Source(self.url, self.data.size)
        self.fetched.append((0, min(length, self.data.size)))
        return self.data[:length].data

    def read_spans(self, batch):
        plan = plan_reads(*columns(batch, self.data.size), gap=16)
        spans = list(zip(plan.offset.tolist(), plan.length.tolist(), strict=True))
        self.fetched += spans
        arena = np.concatenate([self.data[:0], *(self.data[o : o + n] for o, n in spans)])
        return cut_arena(batch, arena, plan.position), spans_of(plan, arena)

    async def aread_spans(self, batch):
        return self.read_spans(batch)


def rows(*offsets, length):
    return ByteRanges(np.array(offsets, np.uint64), length)


def is_right(batch, buffers):
    for request, buffer in zip(batch, buffers, strict=True):
        if isinstance(request, ByteRange):
            assert bytes(buffer) == DATA[request.offset :][: request.length].tobytes()
        else:
            expected = [DATA[o : o + request.length].tobytes() for o in request.offsets.tolist()]
            assert [bytes(row) for row in buffer] == expected
    return True


def test_nothing_is_fetched_after_the_head_of_a_small_source():
    source = Fake(size=100)
    reader = CachedReader(source)
    assert bytes(reader.read_head(512)) == DATA[:100].tobytes()
    batch = [ByteRange(90, 10), rows(5, 50, 0, length=7), ByteRange(100, 0), rows(length=3)]
    assert is_right(batch, reader.read(batch))
    assert source.fetched == [(0, 100)]


@pytest.mark.parametrize("request_", [ByteRange(95, 6), rows(0, 95, length=6), ByteRange(-1, 1)])
def test_a_range_outside_a_small_source_is_refused(request_):
    reader = CachedReader(Fake(size=100))
    reader.read_head(512)
    with pytest.raises(ShortRead):
        reader.read([request_])


def test_a_longer_head_fetches_only_what_lacks():
    source = Fake()
    reader = CachedReader(source)
    reader.read_head(100)
    assert bytes(reader.read_head(50)) == DATA[:50].tobytes()
    assert bytes(reader.read_head(300)) == DATA[:300].tobytes()
    assert bytes(reader.read_head(10**6)) == DATA.tobytes()
    assert source.fetched == [(0, 100), (100, 200), (300, 1700)]


def test_bytes_and_gaps_are_fetched_once():
    source = Fake()
    reader = CachedReader(source)
    reader.read_head(100)
    reader.read([ByteRange(500, 10), ByteRange(520, 10)])
    batch = [ByteRange(505, 20), rows(0, 90, 510, length=10), ByteRange(0, 100)]
    assert is_right(batch, reader.read(batch))
    assert source.fetched == [(0, 100), (500, 30)]


def test_only_the_rows_that_lack_are_fetched():
    source = Fake()
    reader = CachedReader(source)
    reader.read_head(100)
    reader.read([ByteRange(1000, 100)])
    batch = [rows(1050, 500, 20, 1950, 1000, length=50)]
    assert is_right(batch, reader.read(batch))
    assert source.fetched[2:] == [(500, 50), (1950, 50)]


def test_rows_belong_to_the_caller():
    reader = CachedReader(Fake())
    reader.read_head(100)
    for _ in range(2):
        batch = [rows(10, 500, length=10)]
        (got,) = reader.read(batch)
        assert is_right(batch, [got])
        got[:] = 0


def test_large_batches_are_not_kept():
    source = Fake()
    reader = CachedReader(source, largest_batch=100)
    reader.read_head(10)
    reader.read([ByteRange(500, 101)])
    reader.read([ByteRange(500, 101)])
    assert source.fetched[1:] == [(500, 101)] * 2


def test_memory_is_bounded_and_the_head_stays():
    source = Fake()
    reader = CachedReader(source, limit=150)
    reader.read_head(100)
    for offset in (500, 700, 500):
        reader.read([ByteRange(offset, 100), ByteRange(0, 100)])
    assert source.fetched[1:] == [(500, 100), (700, 100), (500, 100)]


def test_the_asynchronous_read_keeps_bytes_too():
    source = Fake()
    reader = CachedReader(source)
    batch = [ByteRange(3, 5), rows(50, 80, length=2)]
    for _ in range(2):
        assert is_right(batch, asyncio.run(reader.aread(batch)))
    assert source.fetched == [(3, 5), (50, 2), (80, 2)]


single = st.tuples(st.integers(0, 1900), st.integers(0, 100)).map(lambda pair: ByteRange(*pair))
many = st.builds(
    lambda offsets, length: rows(*offsets, length=length),
    st.lists(st.integers(0, 1900), max_size=8),
    st.integers(0, 100),
)


@given(
    st.lists(st.lists(single | many, max_size=6), max_size=8),
    st.integers(1, 300),
    st.integers(50, 3000),
    st.integers(50, 3000),
)
@settings(max_examples=300)
def test_any_batches_give_the_bytes_of_the_source(batches, head, limit, largest_batch):
    source = Fake()
    reader = CachedReader(source, limit=limit, largest_batch=largest_batch)
    reader.read_head(head)
    for batch in batches:
        assert is_right(batch, reader.read(batch))
        assert reader._starts == sorted(set(reader._starts))
        assert reader._ends == sorted(set(reader._ends))
        before = list(source.fetched)
        if limit == largest_batch == 3000:
            assert is_right(batch, reader.read(batch))
            assert source.fetched == before


def test_a_batch_from_the_cache_costs_no_round():
    with RangeServer({"a": DATA.tobytes()}) as server:
        reader = CachedReader(open_source(server.url("a"), gap=0))
        reader.read_head(100)
        batch = [ByteRange(200, 10), rows(300, 5, length=5)]
        for _ in range(3):
            assert is_right(batch, reader.read(batch))
        assert (reader.trace.rounds, reader.trace.requests) == (2, 2)
        assert reader.facts.size == DATA.size
        assert str(server.url("a")) in repr(reader)


def test_a_small_round_reads_on_and_a_large_one_does_not():
    """What a structure points to is often near it."""
    data = np.random.default_rng(5).integers(0, 256, 1_000_000, np.uint8).tobytes()
    spread = np.arange(100_000, 1_000_000, 20_000, dtype=np.uint64)
    with RangeServer({"a": data}) as server:
        reader = CachedReader(open_source(server.url("a"), gap=0))
        reader.read_head(100)
        assert reader.read([ByteRange(50_000, 10)]) == [data[50_000:50_010]]
        assert reader.read([ByteRange(50_010, 20_000)]) == [data[50_010:70_010]]
        assert (reader.trace.rounds, reader.trace.requests) == (2, 2)
        (found,) = reader.read([ByteRanges(spread, 4)])
        assert found.tobytes() == b"".join(data[at : at + 4] for at in spread.tolist())
        assert reader.trace.bytes_read == 100 + 2**15 + 4 * spread.size
        assert reader.read([ByteRange(999_990, 10)]) == [data[-10:]]  # no further than there is
