import pytest

from byteatlas.errors import (
    RangeIgnored,
    ShortRead,
    SourceChanged,
    SourceDenied,
    SourceError,
    SourceMissing,
)
from byteatlas.model import Source
from byteatlas.sources.http_answers import Body, body_promised, identity_in

MIB = 2**20


def promised(status, headers, *, offset=100, length=50, may_end=False, size=1000):
    return body_promised(status, headers, offset=offset, length=length, may_end=may_end, size=size)


def test_the_range_asked_for_is_accepted():
    headers = {"Content-Range": "bytes 100-149/1000", "Content-Length": "50"}
    assert promised(206, headers) == Body(100, 50)


def test_a_head_may_end_with_the_source():
    headers = {"Content-Range": "bytes 0-999/1000"}
    assert promised(206, headers, offset=0, length=4096, may_end=True) == Body(0, 1000)


def test_a_range_to_the_end_is_accepted():
    headers = {"Content-Range": "bytes 100-999/1000"}
    assert promised(206, headers, length=None) == Body(100, 900)


def test_less_than_asked_for_is_a_part_of_the_answer():
    headers = {"Content-Range": "bytes 100-119/1000"}
    assert promised(206, headers) == Body(100, 20)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Range": "bytes 0-49/1000"},
        {"Content-Range": "bytes 101-149/1000"},
        {"Content-Range": "bytes 100-150/1000"},
        {"Content-Range": "bytes 100-99/1000"},
        {"Content-Range": "bytes */1000"},
        {"Content-Range": "items 100-149/1000"},
        {"Content-Range": f"bytes 100-149/{'9' * 5000}"},
        {"Content-Range": "bytes 100-149/1000", "Content-Length": "51"},
        {"Content-Range": "bytes 100-149/1000", "Content-Encoding": "br"},
        {"Content-Type": "multipart/byteranges; boundary=x"},
    ],
    ids=str,
)
def test_any_other_part_is_refused(headers):
    with pytest.raises(RangeIgnored):
        promised(206, headers)


def test_a_part_that_ends_with_a_shorter_source_is_short():
    with pytest.raises(ShortRead, match="ends at byte 120"):
        promised(206, {"Content-Range": "bytes 100-119/120"}, size=120)


@pytest.mark.parametrize(
    ("length", "total"), [(50, 150), (50, 50 + 64 * 1024), (None, 10 * MIB), (4096, 4096)]
)
def test_the_whole_file_is_taken_for_a_range_when_it_is_little_more(length, total):
    headers = {"Content-Length": str(total)}
    got = promised(200, headers, offset=0, length=length, size=total)
    assert got == Body(0, total)


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Length": str(51 + 64 * 1024)},
        {},
        {"Content-Length": "60", "Content-Type": "text/html; charset=utf-8"},
        {"Content-Length": "60", "Content-Encoding": "gzip"},
    ],
    ids=str,
)
def test_any_other_200_is_refused(headers):
    with pytest.raises(RangeIgnored):
        promised(200, headers, offset=0, length=50, size=None)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, SourceDenied),
        (403, SourceDenied),
        (404, SourceMissing),
        (410, SourceMissing),
        (400, SourceError),
        (204, SourceError),
        (304, SourceError),
        (418, SourceError),
        (799, SourceError),
    ],
)
def test_other_statuses_have_their_error(status, error):
    with pytest.raises(SourceError, match=f"HTTP {status}") as caught:
        promised(status, {})
    assert type(caught.value) is error


def test_416_is_a_change_where_the_range_was_inside_the_source():
    with pytest.raises(SourceChanged):
        promised(416, {})


def test_416_behind_the_end_is_a_short_read():
    with pytest.raises(ShortRead, match="has 10 bytes"):
        promised(416, {"Content-Range": "bytes */10"}, size=10)
    with pytest.raises(ShortRead, match="unknown number"):
        promised(416, {}, size=None)


def test_416_is_the_answer_of_an_empty_file():
    headers = {"Content-Range": "bytes */0"}
    assert promised(416, headers, offset=0, may_end=True, size=0) == Body(0, 0)


@pytest.mark.parametrize(
    ("status", "headers", "size"),
    [
        (206, {"Content-Range": "bytes 0-1/10", "Content-Length": "2"}, 10),
        (206, {"Content-Range": "bytes 0-1/*"}, None),
        (206, {"Content-Range": "nonsense"}, None),
        (416, {"Content-Range": "bytes */10"}, 10),
        (200, {"Content-Length": "10"}, 10),
        (200, {}, None),
    ],
)
def test_identity_is_read_from_the_headers(status, headers, size):
    seen = identity_in("u", status, headers | {"ETag": '"e"', "Last-Modified": "then"})
    assert seen == Source("u", size, '"e"', "then")
