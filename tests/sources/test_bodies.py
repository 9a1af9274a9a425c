"""Bodies that are gzipped, whole files, slow, cut into pieces, or not what the headers say."""

import gzip
import tracemalloc
import zlib

import numpy as np
import pytest

from byteatlas.errors import RangeIgnored, ShortRead, SourceChanged, SourceError
from byteatlas.model import WHOLE, ByteRange, ByteRanges
from byteatlas.sources import Policy, open_source
from byteatlas.testing.server import Fault, RangeServer

DATA = bytes(np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8))
NAME = "a.nc"
HASTY = Policy(first_pause_s=0.01, patience_s=0.5, idle_s=0.1)
GZIPPED = {"Content-Encoding": "gzip"}


@pytest.fixture
def server():
    with RangeServer({NAME: DATA}) as server:
        yield server


def whole_download(limit):
    return {"allow_full_download": limit}


# --- gzipped ---


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "GZIP"])
def test_a_gzipped_range_is_inflated(server, encoding):
    server.faults = [Fault(is_gzipped=True, headers={"Content-Encoding": encoding})]
    source = open_source(server.url(NAME))
    assert bytes(source.read_head(1000)) == DATA[:1000]
    assert bytes(source.read([ByteRange(5000, 70_000)])[0]) == DATA[5000:75_000]
    assert {entry.headers["accept-encoding"] for entry in server.log} == {"identity"}


def test_a_small_file_that_is_sent_whole_and_gzipped_is_inflated(server):
    known = open_source(server.url(NAME))
    known.read_head(10)
    server.faults = [Fault(is_gzipped=True, ignore_range=True)]
    (got,) = known.read([ByteRange(50_000, 250_000)])
    assert bytes(got) == DATA[50_000:]
    with pytest.raises(RangeIgnored, match="whole file gzipped"):
        known.read([ByteRange(0, 10)])
    with pytest.raises(RangeIgnored, match="whole file gzipped"):
        open_source(server.url(NAME)).read_head(10)  # of a length that nobody knows


def test_the_etag_of_a_gzipped_body_is_not_the_file_s(server):
    source = open_source(server.url(NAME))
    source.read_head(10)
    server.faults = [Fault(is_gzipped=True, headers={"ETag": '"abc-gzip"'})]
    assert bytes(source.read([ByteRange(5, 10)])[0]) == DATA[5:15]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (gzip.compress(DATA[100:111]), "more than the 10 bytes"),
        (gzip.compress(DATA[100:109]), "holds 9 bytes, expected 10"),
        (gzip.compress(DATA[100:110]) + b"more", "more than the 10 bytes"),
        (DATA[100:110], "is not"),
        (gzip.compress(DATA[100:110])[:-8] + bytes(8), "is not"),
    ],
    ids=["long", "short", "trailing", "plain", "checksum"],
)
def test_a_gzipped_body_that_is_not_the_range_is_refused(server, body, problem):
    server.faults = [Fault(body=body, headers=GZIPPED)]
    with pytest.raises(RangeIgnored, match=problem) as caught:
        open_source(server.url(NAME), policy=HASTY).read([ByteRange(100, 10)])
    assert (caught.value.offset, caught.value.length) == (100, 10)


def test_a_gzipped_body_that_ends_early_is_asked_for_again(server):
    server.faults = [Fault(is_gzipped=True, cut=500, times=1)]
    (got,) = open_source(server.url(NAME), policy=HASTY).read([ByteRange(100, 1000)])
    assert bytes(got) == DATA[100:1100]
    assert [entry.range for entry in server.log] == [(100, 1000)] * 2


def test_a_bomb_takes_no_memory(server):
    bomb = zlib.compressobj(9, wbits=31)
    pieces = [bomb.compress(bytes(2**20)) for _ in range(256)]
    server.faults = [Fault(body=b"".join([*pieces, bomb.flush()]), headers=GZIPPED)]
    source = open_source(server.url(NAME), policy=HASTY)
    tracemalloc.start()
    try:
        with pytest.raises(RangeIgnored, match="more than the 10 bytes asked for"):
            source.read([ByteRange(100, 10)])
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()


# --- whole files ---


def test_a_large_file_without_ranges_costs_next_to_nothing():
    faults = [Fault(ignore_range=True)]
    with RangeServer({"large": bytes(200 * 2**20)}, faults=faults, bandwidth=1e6) as server:
        with pytest.raises(RangeIgnored, match="allow_full_download"):
            open_source(server.url("large")).read([ByteRange(5, 5)])
        assert server.bytes_sent <= 2**16 + 5


def test_the_caller_may_let_a_file_be_fetched_whole_once(server):
    server.faults = [Fault(ignore_range=True)]
    source = open_source(server.url(NAME), storage_options=whole_download(300_000), gap=0)
    offsets = np.array([5, 100_000, 250_000], np.uint64)
    (rows,) = source.read([ByteRanges(offsets, 10)])
    assert [bytes(row) for row in rows] == [DATA[o : o + 10] for o in offsets.tolist()]
    begun = len(server.log)
    got = dict(source.stream(np.array([299_000, 7], np.uint64), np.array([WHOLE, 2], np.uint64)))
    assert (bytes(got[0]), bytes(got[1])) == (DATA[299_000:], DATA[7:9])
    assert bytes(source.read_head(10)) == DATA[:10]
    assert len(server.log) == begun <= 3
    with pytest.raises(ShortRead):
        source.read([ByteRange(299_999, 2)])


def test_a_whole_file_that_breaks_off_is_fetched_again(server):
    server.faults = [Fault(ignore_range=True, cut=1000, times=1), Fault(ignore_range=True)]
    options = whole_download(300_000)
    source = open_source(server.url(NAME), storage_options=options, policy=HASTY)
    assert bytes(source.read([ByteRange(5, 10)])[0]) == DATA[5:15]


def test_no_more_is_fetched_whole_than_the_caller_allows(server):
    server.faults = [Fault(ignore_range=True)]
    with pytest.raises(RangeIgnored, match="sends all 300000 bytes"):
        open_source(server.url(NAME), storage_options=whole_download(299_999)).read_head(10)


def test_a_whole_file_is_compared_as_well(server):
    source = open_source(server.url(NAME), storage_options=whole_download(2**20))
    source.read_head(10)
    server.faults = [Fault(ignore_range=True)]
    server.content = {NAME: DATA[::-1]}
    with pytest.raises(SourceChanged):
        source.read([ByteRange(5, 10)])


# --- in pieces ---


def test_a_server_that_sends_little_at_a_time_is_asked_on_without_pauses(server):
    server.faults = [Fault(at_most=10_000)]
    source = open_source(server.url(NAME), policy=Policy(first_pause_s=60))
    (got,) = source.read([ByteRange(1000, 100_000)])
    assert bytes(got) == DATA[1000:101_000]
    assert [entry.range for entry in server.log] == [(1000 + n * 10_000, 10_000) for n in range(10)]


def test_a_body_that_breaks_off_again_and_again_is_resumed_while_it_gets_on(server):
    server.faults = [Fault(cut=70_000)]
    source = open_source(server.url(NAME), policy=Policy(tries=2, first_pause_s=0.01))
    (got,) = source.read([ByteRange(0, 300_000)])
    assert bytes(got) == DATA
    assert len(server.log) == 5


@pytest.mark.parametrize(
    "fault", [Fault(drip_s=0.005), Fault(stall_s=30), Fault(stall_before_s=30)], ids=str
)
def test_next_to_nothing_is_silence(server, fault):
    server.faults = [fault]
    with pytest.raises(SourceError, match=r"silence for 0.1 s, tried \d times? in") as caught:
        open_source(server.url(NAME), policy=HASTY).read([ByteRange(9, 4000)])
    assert caught.value.offset == 9
    assert len(server.log) <= HASTY.tries


def test_a_stall_is_resumed_where_it_began(server):
    server.faults = [Fault(stall_s=30, times=1)]
    (got,) = open_source(server.url(NAME), policy=HASTY).read([ByteRange(0, 50_000)])
    assert bytes(got) == DATA[:50_000]
    assert [entry.range for entry in server.log] == [(0, 50_000), (25_000, 25_000)]


# --- headers that contradict each other ---


@pytest.mark.parametrize(
    "header", [("Content-Range", "bytes 0-9/300000"), ("ETag", '"another"')], ids=str
)
def test_a_header_that_comes_twice_and_differs_is_refused(server, header):
    server.faults = [Fault(more_headers=[header])]
    with pytest.raises(RangeIgnored, match="they differ"):
        open_source(server.url(NAME)).read([ByteRange(5, 10)])


def test_two_lengths_of_one_body_are_refused(server):
    server.faults = [Fault(more_headers=[("Content-Length", "11")])]
    with pytest.raises(SourceError):
        open_source(server.url(NAME), policy=HASTY).read([ByteRange(5, 10)])


def test_a_header_that_comes_twice_and_agrees_is_taken(server):
    again = ("Content-Range", "bytes 5-14/300000")
    server.faults = [Fault(more_headers=[again])]
    assert bytes(open_source(server.url(NAME)).read([ByteRange(5, 10)])[0]) == DATA[5:15]


@pytest.mark.parametrize("headers", [{}, {"Content-Range": "bytes */300000"}], ids=str)
def test_416_inside_the_known_size_is_a_changed_source(server, headers):
    source = open_source(server.url(NAME))
    source.read_head(10)
    server.faults = [Fault(status=416, headers=headers)]
    with pytest.raises(SourceChanged, match="416"):
        source.read([ByteRange(2000, 10)])


def test_a_web_page_is_called_so_whatever_its_length(server):
    source = open_source(server.url(NAME))
    source.read_head(10)
    page = {"Content-Type": "text/html; charset=utf-8"}
    server.faults = [Fault(status=200, headers=page, body=b"<html>sorry</html>")]
    with pytest.raises(RangeIgnored, match="web page"):
        source.read([ByteRange(2000, 10)])


def test_a_range_that_has_got_nowhere_for_long_enough_is_not_asked_for_again(server):
    server.faults = [Fault(status=503)]
    with pytest.raises(SourceError, match="tried 1 time in"):
        open_source(server.url(NAME), policy=Policy(total_s=0)).read([ByteRange(5, 10)])
    assert len(server.log) == 1
