import asyncio
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from byteatlas.errors import (
    ByteatlasError,
    LimitExceeded,
    RangeIgnored,
    ShortRead,
    SourceChanged,
    SourceDenied,
    SourceError,
    SourceMissing,
)
from byteatlas.model import WHOLE, ByteRange, ByteRanges, Source
from byteatlas.sources import Policy, Trace, open_source
from byteatlas.testing.server import Fault, RangeServer

DATA = bytes(np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8))
NAME = "a.nc"
HASTY = Policy(patience_s=0.5, idle_s=0.3, tries=4)


@pytest.fixture
def server():
    with RangeServer({NAME: DATA, "empty.nc": b"", "big.nc": bytes(2**24)}) as server:
        yield server


def rows(*offsets, length):
    return ByteRanges(np.array(offsets, np.uint64), length)


def asked(server):
    return [entry.range for entry in server.log]


# --- healthy answers ---


def test_the_head_shows_size_and_identity_with_one_request(server):
    source = open_source(server.url(NAME))
    assert bytes(source.read_head(1000)) == DATA[:1000]
    assert source.facts.size == len(DATA)
    assert source.facts.etag.startswith('"')
    assert source.facts.last_modified.endswith("GMT")
    assert asked(server) == [(0, 1000)]
    assert server.log[0].headers["accept-encoding"] == "identity"


def test_the_head_is_shorter_where_the_file_is(server):
    assert bytes(open_source(server.url(NAME)).read_head(2**20)) == DATA
    assert len(server.log) == 1


def test_an_empty_file_has_an_empty_head(server):
    source = open_source(server.url("empty.nc"))
    assert bytes(source.read_head(100)) == b""
    assert source.facts.size == 0


def test_a_batch_is_merged_and_sent_in_one_round(server):
    source = open_source(server.url(NAME), gap=10)
    batch = [ByteRange(100, 10), rows(120, 5000, 5008, length=8), ByteRange(20, 0)]
    first, many, nothing = source.read(batch)
    assert bytes(first) == DATA[100:110]
    assert [bytes(row) for row in many] == [DATA[o : o + 8] for o in (120, 5000, 5008)]
    assert bytes(nothing) == b""
    assert sorted(asked(server)) == [(100, 28), (5000, 16)]
    assert (source.trace.rounds, source.trace.requests, source.trace.bytes_read) == (1, 2, 44)


def test_long_ranges_are_split(server):
    source = open_source(server.url(NAME), policy=Policy(max_request=70_000))
    (got,) = source.read([ByteRange(1000, 200_000)])
    assert bytes(got) == DATA[1000:201_000]
    assert sorted(asked(server)) == [(1000, 70_000), (71_000, 70_000), (141_000, 60_000)]


def test_concurrency_is_bounded(server):
    server.latency_s = 0.05
    source = open_source(server.url(NAME), gap=0, policy=Policy(concurrency=3))
    source.read([rows(*range(0, 10_000, 1000), length=5)])
    assert source.trace.peak_in_flight == 3


def test_an_empty_batch_asks_nothing(server):
    source = open_source(server.url(NAME))
    assert source.read([]) == []
    assert source.read([rows(length=5)])[0].shape == (0, 5)
    assert source.read([ByteRange(7, 0)]) == [b""]
    assert source.trace.rounds == source.trace.requests == 0


def test_a_range_outside_the_source_is_refused_without_a_request(server):
    source = open_source(server.url(NAME))
    source.read_head(10)
    for request in (ByteRange(len(DATA) - 1, 2), rows(0, len(DATA), length=1)):
        with pytest.raises(ShortRead, match="outside the source of 300000 bytes") as caught:
            source.read([request])
        assert caught.value.url == server.url(NAME)
    assert len(server.log) == 1


def test_a_range_outside_a_source_of_unknown_size_is_short(server):
    for offset in (len(DATA) - 5, len(DATA) + 5):
        with pytest.raises(ShortRead) as caught:
            open_source(server.url(NAME)).read([ByteRange(offset, 10)])
        assert caught.value.offset == offset


def test_a_huge_range_of_unknown_size_costs_no_memory(server):
    with pytest.raises(ShortRead, match="outside the source"):
        open_source(server.url(NAME)).read([ByteRange(0, 2**50)])
    assert [entry.method for entry in server.log] == ["HEAD"]


def test_asynchronous_reads_work_in_any_loop(server):
    source = open_source(server.url(NAME))

    async def read():
        batches = [[ByteRange(o, 50)] for o in range(0, 1000, 100)]
        got = await asyncio.gather(*map(source.aread, batches))
        return got, await source.aread_range(299_990, WHOLE), await source.aread_range(5, 0)

    for _ in range(2):
        got, last, nothing = asyncio.run(read())
        assert [bytes(one) for (one,) in got] == [DATA[o : o + 50] for o in range(0, 1000, 100)]
        assert bytes(last) == DATA[299_990:]
        assert nothing == b""


def test_synchronous_reads_work_inside_a_running_loop(server):
    async def read():
        return open_source(server.url(NAME)).read([ByteRange(5, 5)])

    assert bytes(asyncio.run(read())[0]) == DATA[5:10]


def test_many_threads_may_read_at_once(server):
    source = open_source(server.url(NAME))
    wrong = []

    def read(offset):
        (got,) = source.read([ByteRange(offset, 100)])
        if bytes(got) != DATA[offset : offset + 100]:
            wrong.append(offset)

    threads = [threading.Thread(target=read, args=(o,)) for o in range(0, 20_000, 1000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert source.trace.rounds == 20


def test_the_log_has_a_line_for_each_request(server):
    trace = Trace(keep_log=True)
    open_source(server.url(NAME) + "?sig=secret", trace=trace).read([ByteRange(7, 9)])
    (entry,) = trace.log
    assert entry[:5] == (server.url(NAME), 7, 9, 206, 1)


# --- streams ---


def test_a_stream_yields_rows_as_they_arrive(server):
    source = open_source(server.url(NAME))
    offset = np.array([1000, 0, 299_000, 5], np.uint64)
    length = np.array([20, 0, WHOLE, 100_000], np.uint64)
    got = {row: bytes(data) for row, data in source.stream(offset, length)}
    assert got == {0: DATA[1000:1020], 1: b"", 2: DATA[299_000:], 3: DATA[5:100_005]}
    assert source.trace.rounds == 1


def test_a_stream_holds_few_bytes_until_they_are_taken(server):
    source = open_source(server.url(NAME), policy=Policy(max_in_flight=3000))
    offset = np.arange(0, 20_000, 1000, dtype=np.uint64)
    stream = source.stream(offset, np.full(20, 1000, np.uint64))
    next(stream)
    while len(server.log) < 3:
        time.sleep(0.01)
    time.sleep(0.1)
    assert len(server.log) == 3
    assert len(list(stream)) == 19


def test_a_row_above_the_bound_is_fetched_alone(server):
    source = open_source(server.url(NAME), policy=Policy(max_in_flight=10))
    got = dict(source.stream(np.array([0, 5], np.uint64), np.array([100, 200], np.uint64)))
    assert [len(got[0]), len(got[1])] == [100, 200]
    assert source.trace.peak_in_flight == 1


def test_an_abandoned_stream_stops_asking(server):
    server.latency_s = 0.02
    source = open_source(server.url(NAME), policy=Policy(concurrency=2))
    stream = source.stream(np.arange(1000, dtype=np.uint64), np.full(1000, 10, np.uint64))
    next(stream)
    stream.close()
    time.sleep(0.5)
    seen = len(server.log)
    time.sleep(0.2)
    assert len(server.log) == seen < 20


def test_an_error_in_a_stream_is_raised(server):
    source = open_source(server.url("none.nc"))
    with pytest.raises(SourceMissing):
        list(source.stream(np.zeros(3, np.uint64), np.ones(3, np.uint64)))


# --- faults ---

ONCE = {
    "503": Fault(status=503, times=1),
    "500": Fault(status=500, times=1),
    "429": Fault(status=429, times=1),
    "reset before headers": Fault(reset=-1, times=1),
    "reset in the body": Fault(reset=100_000, times=1),
    "truncated": Fault(cut=100_000, times=1),
    "truncated at once": Fault(cut=0, times=1),
    "stall before headers": Fault(stall_before_s=30, times=1),
    "stall in the body": Fault(stall_s=30, times=1),
    "truncated without Content-Length": Fault(
        cut=100_000, headers={"Content-Length": "", "Connection": "close"}, times=1
    ),
}


@pytest.mark.parametrize("fault", ONCE.values(), ids=ONCE.keys())
def test_what_fails_once_is_recovered(server, fault):
    server.faults = [fault]
    has_stall = fault.stall_s or fault.stall_before_s
    policy = Policy(idle_s=1) if has_stall else Policy()
    source = open_source(server.url(NAME), policy=policy)
    (got,) = source.read([ByteRange(10, 250_000)])
    assert bytes(got) == DATA[10:250_010]
    assert len(server.log) == 2
    assert source.trace.requests == 1


def test_repeats_are_counted_apart_from_requests(server):
    server.faults = [Fault(status=503, times=2)]
    source = open_source(server.url(NAME))
    source.read_head(10)
    assert (source.trace.requests, source.trace.retries) == (1, 2)


def test_a_truncated_body_is_resumed_where_it_stopped(server):
    server.faults = [Fault(cut=100_000, times=1)]
    open_source(server.url(NAME)).read([ByteRange(10, 250_000)])
    assert asked(server) == [(10, 250_000), (100_010, 150_000)]


def test_a_server_that_sends_less_at_a_time_is_asked_for_the_rest(server):
    server.faults = [
        Fault(body=DATA[10:20], headers={"Content-Range": "bytes 10-19/300000"}, times=1)
    ]
    (got,) = open_source(server.url(NAME)).read([ByteRange(10, 100)])
    assert bytes(got) == DATA[10:110]
    assert asked(server)[1] == (20, 90)


def test_a_body_that_always_stops_is_a_short_read_that_tells_everything(server):
    server.faults = [Fault(cut=0)]
    with pytest.raises(ShortRead, match="after 0 of 100 bytes, tried 3 times") as caught:
        open_source(server.url(NAME), policy=Policy(tries=3)).read([ByteRange(7, 100)])
    error = caught.value
    assert (error.url, error.offset, error.length) == (server.url(NAME), 7, 100)
    assert len(server.log) == 3


def test_a_server_that_is_down_for_a_while_is_waited_for(server):
    server.faults = [Fault(status=503, for_s=0.3)]
    source = open_source(server.url(NAME), gap=0)
    (got,) = source.read([rows(*range(0, 100_000, 2000), length=100)])
    assert [bytes(row) for row in got] == [DATA[o : o + 100] for o in range(0, 100_000, 2000)]
    assert len(server.log) <= 4 * 50


def test_a_server_that_stays_down_costs_its_patience_once(server):
    server.faults = [Fault(status=503)]
    source = open_source(server.url(NAME), policy=HASTY)
    for tries in (r"\d times", "1 time"):
        with pytest.raises(SourceError, match=f"HTTP 503 .*, tried {tries} in") as caught:
            source.read([ByteRange(9, 5)])
        assert type(caught.value) is SourceError
        assert caught.value.offset == 9
    assert len(server.log) <= HASTY.tries + 1


def test_retry_after_is_waited_for_by_all_requests(server):
    server.faults = [Fault(status=429, headers={"Retry-After": "1"}, for_s=0.5)]
    source = open_source(server.url(NAME), gap=0)
    source.read([rows(0, 5000, 10_000, length=10)])
    per_range = [asked(server).count((o, 10)) for o in (0, 5000, 10_000)]
    assert all(count <= 1 for count in per_range)
    refused = [entry for entry in server.log if entry.status == 429]
    served = [entry for entry in server.log if entry.status == 206]
    assert len(refused) == len(served) == 3
    assert min(e.at_s for e in served) - max(e.at_s for e in refused) >= 0.95


def test_a_silent_server_is_given_up(server):
    server.faults = [Fault(stall_before_s=30)]
    with pytest.raises(SourceError, match=r"silence for 0.3 s, tried"):
        open_source(server.url(NAME), policy=HASTY).read([ByteRange(0, 5)])


def test_nobody_listening_is_our_error():
    with RangeServer({}) as server:
        url = server.url("x")
    with pytest.raises(SourceError, match="tried") as caught:
        open_source(url + "?sig=secret", policy=HASTY).read_head(5)
    assert "secret" not in str(caught.value)


def test_an_unknown_host_is_our_error():
    with pytest.raises(SourceError):
        open_source("http://no-such-host.invalid/x", policy=HASTY).read_head(5)


@pytest.mark.parametrize("options", [{}, {"timeout": 5}], ids=["own", "aiohttp"])
@pytest.mark.parametrize("host", ["a..b", 64 * "a" + ".invalid"])
def test_what_is_no_name_of_a_host_is_our_error(host, options):
    source = open_source(f"http://{host}/x", storage_options=options, policy=HASTY)
    with pytest.raises(SourceError, match="no such host"):
        source.read_head(5)


def first_byte(source):
    """Ask for a byte; it must not wait for a connection that nobody gives back."""
    asyncio.run(asyncio.wait_for(source.aread_range(0, 1), 10))


def test_answers_that_are_refused_for_their_cookies_do_not_keep_connections(server, monkeypatch):
    def keep_cookies(*_):
        raise MemoryError

    server.faults = [Fault(status=404, headers={"Set-Cookie": "a/b=1"})]
    source = open_source(server.url(NAME), policy=Policy(concurrency=1))
    with monkeypatch.context() as patch:
        patch.setattr("byteatlas.sources.http_ways.keep_cookies", keep_cookies)
        for _ in range(2):
            with pytest.raises(MemoryError):
                first_byte(source)
    for _ in range(2):
        with pytest.raises(SourceMissing):
            first_byte(source)


def test_answers_that_are_too_long_do_not_keep_connections(server):
    seen = open_source(server.url(NAME)).stat()
    server.faults = [Fault(status=400, having="if-match")]
    policy = Policy(concurrency=1, max_rest=1000)
    for _ in range(3):
        known = Source(seen.url, None, seen.etag)
        source = open_source(server.url(NAME), expected=known, policy=policy)
        with pytest.raises(LimitExceeded):
            asyncio.run(asyncio.wait_for(source.aread_range(0, WHOLE), 10))


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, SourceError), (401, SourceDenied), (403, SourceDenied), (404, SourceMissing),
     (410, SourceMissing), (418, SourceError)],
)  # fmt: skip
def test_client_errors_are_never_tried_again(server, status, error):
    server.faults = [Fault(status=status)]
    with pytest.raises(SourceError, match=f"HTTP {status}") as caught:
        open_source(server.url(NAME) + "?sig=secret").read([ByteRange(77, 5)])
    assert type(caught.value) is error
    assert not isinstance(caught.value, FileNotFoundError | PermissionError | KeyError)
    assert (caught.value.url, caught.value.offset) == (server.url(NAME), 77)
    assert "secret" not in str(caught.value)
    assert len(server.log) == 1


def test_a_large_file_without_ranges_is_refused_before_its_body(server):
    server.faults = [Fault(ignore_range=True)]
    with pytest.raises(RangeIgnored, match="sends all 16777216 bytes") as caught:
        open_source(server.url("big.nc")).read([ByteRange(5, 5)])
    assert caught.value.offset == 5
    assert len(server.log) <= 1
    server.stop()
    assert server.bytes_sent < 8 * 2**20  # what fits into the buffers of two sockets
    server.stop = lambda: None


def test_a_small_file_without_ranges_is_read_whole(server):
    server.faults = [Fault(ignore_range=True)]
    source = open_source(server.url(NAME))
    assert bytes(source.read_head(512 * 1024)) == DATA
    (last,) = source.read([ByteRange(50_000, 250_000)])
    assert bytes(last) == DATA[50_000:]
    assert bytes(open_source(server.url(NAME)).read_head(299_000)) == DATA[:299_000]


def test_a_web_page_in_place_of_the_file_is_refused(server):
    page = Fault(status=200, headers={"Content-Type": "text/html"}, body=b"<html>sorry</html>")
    server.faults = [page]
    with pytest.raises(RangeIgnored, match="web page"):
        open_source(server.url(NAME)).read_head(1000)


def test_another_range_is_refused(server):
    for stated in ("bytes 0-9/300000", "bytes 100-110/300000", "bytes 100-109", ""):
        server.faults = [Fault(headers={"Content-Range": stated})]
        with pytest.raises(RangeIgnored, match="asked for bytes 100-109"):
            open_source(server.url(NAME)).read([ByteRange(100, 10)])


def test_a_body_longer_than_promised_is_refused(server):
    server.faults = [Fault(body=DATA[:11], headers={"Content-Length": "", "Connection": "close"})]
    with pytest.raises(SourceError, match="longer than the 10 bytes"):
        open_source(server.url(NAME)).read([ByteRange(0, 10)])


def test_an_encoded_body_is_refused(server):
    server.faults = [Fault(headers={"Content-Encoding": "gzip"})]
    with pytest.raises(RangeIgnored, match="gzip"):
        open_source(server.url(NAME)).read([ByteRange(0, 10)])


def test_no_http_at_all_is_our_error(server):
    server.faults = [Fault(headers={"Content-Length": "many"})]
    with pytest.raises(SourceError):
        open_source(server.url(NAME), policy=HASTY).read([ByteRange(0, 10)])


def test_a_missing_total_is_asked_for(server):
    server.faults = [Fault(headers={"Content-Range": "bytes 0-99/*"}, times=1)]
    source = open_source(server.url(NAME))
    assert bytes(source.read_head(100)) == DATA[:100]
    assert source.facts.size == len(DATA)


# --- changed sources ---


@pytest.mark.parametrize(
    "headers",
    [
        {"ETag": '"other"'},
        {"ETag": "", "Last-Modified": "Mon, 02 Nov 1998 00:00:00 GMT"},
        {"Content-Range": "bytes 100-109/300001"},
    ],
    ids=str,
)
def test_a_source_that_changes_between_reads_is_an_error(server, headers):
    source = open_source(server.url(NAME))
    source.read_head(10)
    server.faults = [Fault(headers=headers)]
    with pytest.raises(SourceChanged, match="scan it again") as caught:
        source.read([ByteRange(100, 10)])
    assert (caught.value.url, caught.value.offset) == (server.url(NAME), 100)


def test_a_source_that_shrank_is_an_error(server):
    source = open_source(server.url(NAME))
    source.read_head(10)
    server.content = {NAME: DATA[:1000]}
    with pytest.raises(SourceChanged):  # answered with 416
        source.read([ByteRange(2000, 10)])
    with pytest.raises(SourceChanged):  # answered with a part
        source.read([ByteRange(995, 10)])


def test_416_without_a_size_is_a_changed_source(server):
    source = open_source(server.url(NAME))
    source.read_head(10)
    server.faults = [Fault(status=416)]
    with pytest.raises(SourceChanged):
        source.read([ByteRange(2000, 10)])


def test_an_expected_identity_is_checked_with_the_first_answer(server):
    first = open_source(server.url(NAME))
    first.read_head(1)
    seen = first.facts
    open_source(server.url(NAME), expected=seen).read([ByteRange(0, 5)])
    server.content = {NAME: DATA[::-1]}
    with pytest.raises(SourceChanged):
        open_source(server.url(NAME), expected=seen).read([ByteRange(0, 5)])
    assert [entry.status for entry in server.log] == [206, 206, 412, 206]


def test_the_body_of_a_changed_source_is_not_read(server):
    source = open_source(server.url("big.nc"))
    source.read_head(1)
    server.faults = [Fault(headers={"ETag": '"other"'})]
    with pytest.raises(SourceChanged):
        source.read([ByteRange(0, 8 * 2**20)])


# --- stat ---


def test_stat_asks_with_head(server):
    source = open_source(server.url(NAME))
    seen = source.stat()
    assert seen.size == len(DATA)
    assert source.facts.size is None
    assert [entry.method for entry in server.log] == ["HEAD"]


@pytest.mark.parametrize(
    "fault",
    [
        Fault(methods=("HEAD",), status=403),
        Fault(methods=("HEAD",), status=405),
        Fault(methods=("HEAD",), headers={"Content-Encoding": "gzip"}),
        Fault(methods=("HEAD",), reset=-1),
    ],
    ids=["403", "405", "gzip", "reset"],
)
def test_stat_asks_for_a_byte_where_head_is_refused(server, fault):
    server.faults = [fault]
    source = open_source(server.url(NAME))
    assert source.stat().size == len(DATA)
    assert server.log[-1].range == (0, 1)
    assert source.stat().etag == open_source(server.url(NAME)).stat().etag


def test_stat_of_a_missing_source_says_so(server):
    with pytest.raises(SourceMissing) as caught:
        open_source(server.url("none.nc") + "?sig=secret").stat()
    assert caught.value.url == server.url("none.nc")


# --- redirects ---


def redirect(location, **options):
    return Fault(path="old.nc", status=302, headers={"Location": location}, **options)


def test_a_redirect_is_followed_and_remembered(server):
    server.faults = [redirect(server.url(NAME))]
    source = open_source(server.url("old.nc"))
    source.read_head(10)
    (got,) = source.read([ByteRange(100, 10)])
    assert bytes(got) == DATA[100:110]
    assert [entry.path for entry in server.log] == ["/old.nc", "/a.nc", "/a.nc"]


def test_where_a_redirect_led_may_expire(server):
    server.faults = [redirect("/a.nc?sig=1")]
    source = open_source(server.url("old.nc"))
    source.read_head(10)
    server.faults = [redirect("/a.nc?sig=2"), Fault(path=NAME, status=403, times=1)]
    source.read([ByteRange(100, 10)])
    assert [entry.path for entry in server.log] == [
        "/old.nc", "/a.nc?sig=1", "/a.nc?sig=1", "/old.nc", "/a.nc?sig=2",
    ]  # fmt: skip


def test_a_redirect_loop_ends(server):
    server.faults = [redirect("/old.nc")]
    with pytest.raises(SourceError, match="more than 5 redirects"):
        open_source(server.url("old.nc")).read_head(10)
    assert len(server.log) == 6


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://h/x", ""])
def test_a_redirect_out_of_the_web_is_refused(server, location):
    server.faults = [redirect(location)]
    with pytest.raises(SourceError, match="redirect"):
        open_source(server.url("old.nc")).read_head(10)


def test_credentials_do_not_follow_to_another_origin(server):
    options = {"headers": {"X-Key": "k"}, "client_kwargs": {"auth": ("me", "pw")}}
    with RangeServer({NAME: DATA}) as other:
        server.faults = [redirect(other.url(NAME), times=1), redirect("/a.nc")]
        source = open_source(server.url("old.nc"), storage_options=options)
        source.read_head(10)
        open_source(server.url("old.nc"), storage_options=options).read_head(10)
        for entry in server.log:
            assert entry.headers["x-key"] == "k"
            assert entry.headers["authorization"] == "Basic bWU6cHc="
        assert [entry.path for entry in server.log] == ["/old.nc", "/old.nc", "/a.nc"]
        (elsewhere,) = other.log
    assert not {"x-key", "authorization"} & set(elsewhere.headers)


# --- URLs, options, processes ---


@pytest.mark.parametrize(
    "name", ["a b.nc", "run#1.nc", "100%.nc", "é ü.nc", "a+b&c=d;e.nc", "x/y z/%20.nc", "q?.nc"]
)
def test_strange_names_are_found(name):
    with RangeServer({name: DATA}) as server:
        encoded = open_source(server.url(name))
        assert bytes(encoded.read_head(10)) == DATA[:10]
        if "?" not in name and "%20" not in name:
            plain = open_source(f"{server.url('')}{name}")
            assert bytes(plain.read_head(10)) == DATA[:10]


def test_a_signed_query_arrives_as_it_was_given(server):
    query = "?X-Amz-Credential=a%2Fb%2Bc&X-Amz-Signature=12==&t=1:2/3+4"
    open_source(server.url(NAME) + query).read_head(1)
    assert server.log[0].path == "/a.nc" + query


def test_user_info_becomes_a_login(server):
    url = server.url(NAME).replace("http://", "http://me:pw@")
    source = open_source(url)
    source.read_head(1)
    assert server.log[0].headers["authorization"] == "Basic bWU6cHc="
    assert "pw" not in repr(source)


def test_cookies_and_headers_are_sent(server):
    options = {"headers": {"User-Agent": "me"}, "cookies": {"a": "1"}, "timeout": 5}
    open_source(server.url(NAME), storage_options=options).read_head(1)
    sent = server.log[0].headers
    assert (sent["user-agent"], sent["cookie"]) == ("me", "a=1")


def test_logins_come_from_netrc_when_the_environment_is_trusted(server, tmp_path, monkeypatch):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password pw\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    open_source(server.url(NAME)).read_head(1)
    trusting = {"client_kwargs": {"trust_env": True}}
    open_source(server.url(NAME), storage_options=trusting).read_head(1)
    assert [entry.headers.get("authorization") for entry in server.log] == [
        None, "Basic bWU6cHc=",
    ]  # fmt: skip


def test_every_error_of_a_batch_is_ours_and_tells_where(server):
    faults = [
        Fault(status=404), Fault(cut=0), Fault(ignore_range=True), Fault(reset=-1),
        Fault(headers={"Content-Range": "bytes 1-1/1"}), Fault(status=500),
    ]  # fmt: skip
    for fault in faults:
        server.faults = [fault]
        with pytest.raises(ByteatlasError) as caught:
            open_source(server.url("big.nc"), policy=HASTY).read([ByteRange(4096, 5)])
        text = str(caught.value)
        assert server.url("big.nc") in text
        assert "at byte 4096 (0x1000)" in text


SCRIPT = """
import os, sys, warnings
from byteatlas.model import ByteRange
from byteatlas.sources import open_source
source = open_source(sys.argv[1])
source.read_head(10)
pid = os.fork()
(got,) = source.read([ByteRange(0, 3)])
assert bytes(got) == bytes.fromhex(sys.argv[2])
if pid:
    assert os.waitpid(pid, 0)[1] == 0
else:
    os._exit(0)
"""


def test_a_process_may_fork_and_ends_without_warnings(server):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", "-W", "ignore::DeprecationWarning",
         "-c", SCRIPT, server.url(NAME), DATA[:3].hex()],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
