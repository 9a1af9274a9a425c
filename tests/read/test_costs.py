"""How many requests and bytes a read takes over a line of some latency and bandwidth."""

from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from byteatlas.model import ByteRanges, Source
from byteatlas.read import Reader
from byteatlas.read.costs import LOCAL, REMOTE, Costs, costs_over, gaps_to_fetch, merge_parts
from byteatlas.sources import open_source
from byteatlas.sources.http_session import line_to
from byteatlas.sources.line import Line
from byteatlas.testing.server import RangeServer

MIB = 2**20
CHUNK, GAP, CHUNKS = 8_000, 24_000, 5_000
NEEDED = CHUNK * CHUNKS


def over(latency_s, bandwidth, **others):
    """Return the costs over a line that was observed."""
    line = Line()
    line.latency_s, line.bandwidth = latency_s, bandwidth
    return replace(costs_over([line], 128), **others)


def series(costs, gap=GAP, chunk=CHUNK, chunks=CHUNKS):
    """Return requests and bytes of a read of every few chunks of a long row of them."""
    offset = np.arange(chunks) * (chunk + gap)
    length = np.full(chunks, chunk)
    bounds, fetched = merge_parts(None, offset, length, costs)
    assert (np.diff(bounds) > 0).all()
    assert bounds[-1] == chunks
    assert fetched.max() <= costs.max_request + chunk
    return fetched.size, int(fetched.sum())


def test_of_a_line_that_is_not_known_at_most_twice_the_bytes_are_fetched():
    requests, size = series(REMOTE)
    assert 1.9 * NEEDED < size <= 2 * NEEDED
    assert requests == 3_359


@pytest.mark.parametrize(
    ("latency_ms", "mbytes_s", "requests", "times"),
    [
        (20, 105, 3_960, 1.63),  # bytes and requests take equally long
        (20, 20, 5_000, 1.0),  # bytes take longer, whatever the requests
        (20, 1_000, 554, 3.67),  # bytes cost little
        (20, 10_000, 79, 4.0),  # bytes cost nothing: all that lies between is fetched
        (100, 105, 1_473, 3.1),
        (1, 105, 4_280, 1.43),  # the processor has longer than the requests wait
    ],
)
def test_an_observed_line_decides_how_many_gaps_are_fetched(latency_ms, mbytes_s, requests, times):
    count, size = series(over(latency_ms / 1e3, mbytes_s * 1e6))
    assert count == pytest.approx(requests, rel=0.05)
    assert size / NEEDED == pytest.approx(times, rel=0.05)


def test_more_latency_means_fewer_requests_and_less_bandwidth_more():
    counts = [series(over(ms / 1e3, 100e6))[0] for ms in (5, 20, 50, 200)]
    assert counts == sorted(counts, reverse=True)
    counts = [series(over(0.02, rate))[0] for rate in (1e9, 3e8, 1e8, 3e7)]
    assert counts == sorted(counts)


def test_neighbours_are_one_request_whatever_it_costs():
    assert series(over(0, 1), gap=0, chunk=1000, chunks=1000) == (1, 1_000_000)


def test_long_runs_are_cut_so_that_decoding_starts_early():
    requests, size = series(REMOTE, gap=0, chunk=64 * 2**10, chunks=1024)
    assert (requests, size) == (32, 64 * MIB)


def test_a_few_distant_chunks_stay_apart():
    assert series(REMOTE, gap=10 * MIB, chunks=20) == (20, 20 * CHUNK)


def test_gaps_that_are_not_noticed_are_fetched():
    assert series(over(0.02, 100e6), gap=1000, chunks=20) == (1, 20 * CHUNK + 19 * 1000)


def test_of_unequal_gaps_the_smallest_are_fetched():
    gap = np.array([500, 3, 70, 900, 20])
    costs = Costs(latency_s=100, concurrency=1, request_s=0, bandwidth=1, max_request=10**9)
    assert sorted(gaps_to_fetch(gap, 10_000, 6, costs).tolist()) == [1, 2, 4]


def test_of_equal_gaps_those_fetched_lie_all_over():
    costs = over(0.02, 105e6)
    chosen = np.sort(gaps_to_fetch(np.full(CHUNKS - 1, GAP), NEEDED, CHUNKS, costs))
    for part in np.array_split(np.arange(CHUNKS - 1), 10):
        assert np.isin(part, chosen).mean() == pytest.approx(chosen.size / CHUNKS, abs=0.02)


def test_a_system_call_is_worth_ten_thousand_bytes():
    assert series(LOCAL, gap=9_000, chunks=50)[0] == 1
    assert series(LOCAL, gap=12_000, chunks=50)[0] == 50


def test_over_an_unknown_line_the_first_requests_are_long_enough_to_show_its_bandwidth():
    rng = np.random.default_rng(0)
    length = rng.integers(7_000, 9_000, CHUNKS)
    offset = np.cumsum(rng.integers(23_000, 25_000, CHUNKS) + length)
    _, fetched = merge_parts(None, offset, length, REMOTE)
    assert np.count_nonzero(fetched > MIB) > 15
    assert (fetched[:15] > MIB).all()
    assert fetched.sum() <= 2 * length.sum()
    _, fetched = merge_parts(None, offset, length, over(0.02, 105e6))
    assert (fetched < MIB // 4).all()


def test_of_several_lines_the_narrowest_counts():
    lines = [Line(), Line(), Line()]
    lines[0].latency_s, lines[0].bandwidth = 0.2, 1e9
    lines[1].latency_s, lines[1].bandwidth = 0.03, 2e7
    costs = costs_over(lines, 64)
    assert (costs.latency_s, costs.bandwidth, costs.concurrency) == (0.03, 2e7, 64)
    assert costs.is_observed
    assert costs_over([Line()], 128) == costs_over([], 128) == REMOTE


def test_a_line_of_known_latency_alone_does_not_allow_more_than_twice_the_bytes():
    costs = over(0.5, None)
    assert not costs.is_observed
    assert series(costs)[1] <= 2 * NEEDED


def test_a_line_that_could_have_brought_more_is_not_thought_narrow():
    line = Line()
    line.latency_s, line.bandwidth, line.is_wider = 0.02, 5e6, True
    assert costs_over([line], 128) == replace(REMOTE, latency_s=0.02)
    line.bandwidth = 5e8
    assert costs_over([line], 128).bandwidth == 2e9
    assert not costs_over([line], 128).is_exact


columns = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 10**7), st.integers(-1, 10**6)), max_size=30
)
lines = st.builds(
    Costs,
    latency_s=st.sampled_from([0, 0.02, 1]),
    concurrency=st.sampled_from([1, 128]),
    request_s=st.sampled_from([0, 0.0002]),
    bandwidth=st.sampled_from([1e6, 1e9]),
    max_request=st.sampled_from([1000, 2**21]),
    is_observed=st.booleans(),
)


@given(columns, lines)
def test_fetches_hold_all_their_parts_and_waste_no_more_than_they_may(parts, costs):
    parts = sorted(parts)
    source, offset, length = np.array(parts, np.int64).reshape(-1, 3).T
    bounds, fetched = merge_parts(source, offset, length, costs)
    for fetch, (first, stop) in enumerate(pairwise(bounds.tolist())):
        rows = slice(first, stop)
        assert len(set(source[rows].tolist())) == 1
        if fetched[fetch] < 0:
            assert stop == first + 1
        else:
            assert (offset[rows] + length[rows]).max() == offset[first] + fetched[fetch]
    closed = length[length > 0].sum()
    if not costs.is_observed:
        assert fetched[fetched > 0].sum() <= closed + max(closed, 2**16)


def test_what_a_host_has_shown_is_known_to_readers_that_come_later():
    data = bytes(2 * MIB)
    with ExitStack() as stack:
        servers = (stack.enter_context(RangeServer({"a": data, "b": data})) for _ in range(20))
        server = next(  # the port of another may have been in use before
            one for one in servers if Reader([Source(one.url("a"))]).costs == REMOTE
        )
        sources = [Source(server.url(name), len(data)) for name in "ab"]
        few, more = ByteRanges(np.arange(5) * 200, 10), ByteRanges(np.arange(50) * 200, 10)
        source = open_source(sources[0].url, gap=0)
        source.read([few])
        assert Reader(sources[1:]).costs == REMOTE
        source.read([more])
        line = line_to(sources[0].url)
        costs = Reader(sources[1:]).costs
        assert costs.latency_s == line.latency_s > 0
        assert server.log[-1].path == "/a"
