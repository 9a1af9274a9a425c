import http.client
import time
from urllib.request import Request, urlopen

import pytest

from byteatlas.testing import Fault, RangeServer
from byteatlas.testing.server import main

DATA = bytes(range(256)) * 4


@pytest.fixture
def server(tmp_path):
    (tmp_path / "a b.nc").write_bytes(DATA)
    with RangeServer(tmp_path) as server:
        yield server


def get(url, *, method="GET", **headers):
    with urlopen(Request(url, method=method, headers=headers), timeout=10) as answer:
        return answer.status, answer.headers, answer.read()


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [("bytes=5-9", 5, 9), ("bytes=1000-", 1000, 1023), ("bytes=-4", 1020, 1023),
     ("bytes=1000-5000", 1000, 1023)],
)  # fmt: skip
def test_a_range_is_answered_with_206(server, asked, first, last):
    status, headers, body = get(server.url("a b.nc"), Range=asked)
    assert (status, body) == (206, DATA[first : last + 1])
    assert headers["Content-Range"] == f"bytes {first}-{last}/1024"
    assert server.log[0].range == (first, last + 1 - first)
    assert server.bytes_sent == last + 1 - first


def test_without_a_range_the_whole_file_is_sent(server):
    status, headers, body = get(server.url("a b.nc"))
    assert (status, body, headers["Accept-Ranges"]) == (200, DATA, "bytes")


def test_head_has_the_headers_alone(server):
    status, headers, body = get(server.url("a b.nc"), method="HEAD")
    assert (status, headers["Content-Length"], body) == (200, "1024", b"")
    assert server.bytes_sent == 0


def test_one_connection_serves_many_requests(server):
    link = http.client.HTTPConnection("127.0.0.1", server.port)
    for _ in range(3):
        link.request("GET", "/a%20b.nc", headers={"Range": "bytes=0-1"})
        assert link.getresponse().read() == DATA[:2]
    link.close()
    assert len(server.log) == 3


@pytest.mark.parametrize("path", ["none.nc", "../a b.nc", "%2e%2e/x", ""])
def test_what_is_not_there_is_404(server, path):
    link = http.client.HTTPConnection("127.0.0.1", server.port)
    link.request("GET", "/" + path.replace(" ", "%20"))
    assert link.getresponse().status == 404
    link.close()


def test_behind_the_end_is_416(server):
    link = http.client.HTTPConnection("127.0.0.1", server.port)
    link.request("GET", "/a%20b.nc", headers={"Range": "bytes=1024-"})
    answer = link.getresponse()
    assert (answer.status, answer.headers["Content-Range"]) == (416, "bytes */1024")
    link.close()


def test_the_etag_follows_the_content(server, tmp_path):
    first = get(server.url("a b.nc"))[1]["ETag"]
    assert get(server.url("a b.nc"))[1]["ETag"] == first
    (tmp_path / "a b.nc").write_bytes(DATA[1:])
    assert get(server.url("a b.nc"))[1]["ETag"] != first


def test_content_may_be_given_as_bytes():
    with RangeServer({"x/y": b"one"}) as server:
        first = get(server.url("x/y"))
        server.content = {"x/y": b"two"}
        second = get(server.url("x/y"))
    assert (first[2], second[2]) == (b"one", b"two")
    assert first[1]["ETag"] != second[1]["ETag"]


def test_latency_and_bandwidth_slow_it_down():
    with RangeServer({"a": bytes(100_000)}, latency_s=0.1, bandwidth=1e6) as server:
        began = time.monotonic()
        get(server.url("a"))
        assert time.monotonic() - began >= 0.2


def test_a_fault_strikes_when_and_where_it_is_told_to(server):
    server.faults = [Fault(path="a*", after=1, times=2, status=503)]
    statuses = []
    for _ in range(4):
        link = http.client.HTTPConnection("127.0.0.1", server.port)
        link.request("GET", "/a%20b.nc")
        statuses.append(link.getresponse().status)
        link.close()
    assert statuses == [200, 503, 503, 200]
    server.clear()
    assert server.log == []


def test_it_runs_from_the_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(RangeServer, "wait", lambda self: None)
    main([str(tmp_path)])
    assert capsys.readouterr().out.startswith("http://127.0.0.1:")
