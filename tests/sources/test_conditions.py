"""Every request but the first is for the source that is known, and for no other."""

import numpy as np
import pytest

from byteatlas.errors import SourceChanged
from byteatlas.model import ByteRange, Source
from byteatlas.sources import Policy, open_source
from byteatlas.sources.http_answers import conditions_for
from byteatlas.testing.server import Fault, RangeServer

DATA = bytes(np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8))
NAME = "bucket/a.nc"
HASTY = Policy(first_pause_s=0.01, patience_s=1.0)
KINDS = pytest.mark.parametrize("kind", ["http", "s3"])


@pytest.fixture
def server():
    with RangeServer({NAME: DATA}, modified_s=1_600_000_000.0) as server:
        yield server


@pytest.fixture
def open_it(server):
    def open_it(kind="http", expected=None):
        url = server.url(NAME) if kind == "http" else "s3://bucket/a.nc"
        options = {"anon": True, "client_kwargs": {"endpoint_url": server.url("")[:-1]}}
        return open_source(
            url,
            storage_options=None if kind == "http" else options,
            expected=expected and Source(url, *expected),
            policy=HASTY,
        )

    return open_it


def sent(server, name):
    return [entry.headers.get(name) for entry in server.log]


@pytest.mark.parametrize(
    ("etag", "modified", "header"),
    [
        ('"abc"', "Mon, 02 Nov 1998 00:00:00 GMT", {"If-Match": '"abc"'}),
        ('W/"abc"', "Mon, 02 Nov 1998 00:00:00 GMT", "If-Unmodified-Since"),
        (None, "Mon, 02 Nov 1998 00:00:00 GMT", "If-Unmodified-Since"),
        ('W/"abc"', None, {}),
        ("unquoted", None, {}),
        ('"two", "etags"', None, {}),
        ('"line\r\nbreak"', None, {}),
        ("stat:1-2-3", "1600000000000000000", {}),
        (None, "yesterday", {}),
        (None, None, {}),
    ],
)
def test_what_may_be_a_condition(etag, modified, header):
    header = {header: modified} if isinstance(header, str) else header
    assert conditions_for(Source("http://h/a", 5, etag, modified)) == header


def test_a_day_that_no_calendar_has_is_no_condition_but_compared(open_it):
    source = open_it("s3", (len(DATA), None, "Mon, 99 Nov 1998 00:00:00 GMT"))
    with pytest.raises(SourceChanged):
        source.read([ByteRange(0, 10)])


@KINDS
def test_the_condition_goes_with_every_request_at_no_extra_request(server, open_it, kind):
    source = open_it(kind)
    source.read_head(10)
    for offset in (0, 100_000, 200_000):
        (got,) = source.read([ByteRange(offset, 10)])
        assert bytes(got) == DATA[offset : offset + 10]
    etag = source.facts.etag
    assert sent(server, "if-match") == [None, etag, etag, etag]


@KINDS
def test_without_a_strong_etag_the_time_is_the_condition(server, open_it, kind):
    server.faults = [Fault(headers={"ETag": 'W/"weak"'})]
    source = open_it(kind)
    source.read_head(10)
    source.read([ByteRange(5, 10)])
    assert sent(server, "if-match") == [None, None]
    assert sent(server, "if-unmodified-since") == [None, source.facts.last_modified]


@KINDS
@pytest.mark.parametrize("size", [300_000, 200_000])
def test_a_replaced_source_is_an_error_that_has_both(server, open_it, kind, size):
    source = open_it(kind)
    source.read_head(10)
    known = source.facts
    server.content = {NAME: DATA[::-1][:size]}
    with pytest.raises(SourceChanged, match="scan it again") as caught:
        source.read([ByteRange(100, 10)])
    assert server.log[1].status == 412
    error = caught.value
    assert (error.offset, error.length) == (100, 10)
    assert error.recorded == known
    assert error.seen.size == size


@KINDS
def test_a_replaced_source_is_found_by_its_time_alone(server, open_it, kind):
    server.faults = [Fault(headers={"ETag": 'W/"weak"'})]
    source = open_it(kind)
    source.read_head(10)
    server.content = {NAME: DATA[::-1]}
    with pytest.raises(SourceChanged):
        source.read([ByteRange(100, 10)])


def test_a_resumed_body_is_of_the_same_source(server, open_it):
    source = open_it()
    source.read_head(10)
    server.faults = [Fault(cut=20_000, times=1)]
    (got,) = source.read([ByteRange(1000, 50_000)])
    assert bytes(got) == DATA[1000:51_000]
    assert server.log[2].range == (21_000, 30_000)
    assert sent(server, "if-match")[1:] == [source.facts.etag] * 2


def test_a_source_that_is_replaced_in_the_middle_of_a_body_is_an_error(server, open_it):
    source = open_it()
    source.read_head(10)

    class Replaced(dict):
        def get(self, key):
            return self.pop(key, DATA[::-1])

    server._content = Replaced({NAME: DATA})  # without a new time: the first answer is the old one
    server._replaced = 0
    server.faults = [Fault(cut=20_000, times=1)]
    asked, server._look_up = server._look_up, None

    def look_up(path):
        size, modified, data = asked(path)
        return size, modified + (data is not DATA), data

    server._look_up = look_up
    with pytest.raises(SourceChanged):
        source.read([ByteRange(1000, 50_000)])
    assert [entry.status for entry in server.log][:3] == [206, 206, 412]


@KINDS
@pytest.mark.parametrize("status", [400, 412, 501])
def test_a_server_that_refuses_conditions_that_hold_is_asked_without(server, open_it, kind, status):
    source = open_it(kind)
    source.read_head(10)
    for header in ("if-match", "if-unmodified-since"):
        server.faults.append(Fault(status=status, having=header))
    for offset in (100, 200_000):
        (got,) = source.read([ByteRange(offset, 10)])
        assert bytes(got) == DATA[offset : offset + 10]
    gets = [entry.status for entry in server.log if entry.method == "GET"]
    assert gets == [206, status, 206, 206]  # it is refused once for each host, not each time


@KINDS
def test_a_server_that_refuses_conditions_is_still_compared(server, open_it, kind):
    source = open_it(kind)
    source.read_head(10)
    server.content = {NAME: DATA[::-1]}
    server.faults = [Fault(status=400, having="if-match")]
    with pytest.raises(SourceChanged):
        source.read([ByteRange(100, 10)])


def test_a_server_that_ignores_conditions_is_still_compared(server, open_it):
    source = open_it()
    source.read_head(10)
    server.faults = [Fault(headers={"ETag": '"other"'})]
    with pytest.raises(SourceChanged, match="its ETag was"):
        source.read([ByteRange(100, 10)])


@pytest.mark.parametrize("headers", [{"ETag": ""}, {"ETag": 'W/"weak"'}])
def test_an_answer_without_an_etag_does_not_outweigh_a_412(server, open_it, headers):
    source = open_it()
    source.read_head(10)
    server.faults = [Fault(status=412, having="if-match"), Fault(headers=headers)]
    with pytest.raises(SourceChanged, match="412"):
        source.read([ByteRange(100, 10)])


def test_a_server_that_answers_412_to_everything_has_changed(server, open_it):
    source = open_it()
    source.read_head(10)
    server.faults = [Fault(status=412)]
    with pytest.raises(SourceChanged, match="412"):
        source.read([ByteRange(100, 10)])
    assert len(server.log) == 3


def test_what_an_index_recorded_is_the_condition_of_the_first_request(server, open_it):
    seen = open_it().stat()
    server.clear()
    recorded = (seen.size, seen.etag, seen.last_modified)
    open_it(expected=recorded).read([ByteRange(0, 5)])
    assert sent(server, "if-match") == [seen.etag]
    with pytest.raises(SourceChanged):
        open_it(expected=(seen.size, '"other"', None)).read([ByteRange(0, 5)])


def test_a_local_identity_is_no_condition(server, open_it):
    size = len(DATA)
    open_it(expected=(size, "stat:1-2-3", "1600000000000000000")).read([ByteRange(0, 5)])
    assert sent(server, "if-match") == sent(server, "if-unmodified-since") == [None]
