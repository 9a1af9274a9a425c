"""The error tree: what each error says, and what it must never be taken for."""

import copy
import pickle

import pytest

import byteatlas.errors
from byteatlas.errors import (
    ByteatlasError,
    Malformed,
    MissingDependency,
    NotAllowed,
    ShortRead,
    SourceDenied,
    SourceError,
    SourceMissing,
    Unsupported,
    without_query,
)

ALL = [getattr(byteatlas.errors, name) for name in byteatlas.errors.__all__]


def test_a_message_has_four_parts():
    error = Unsupported(
        "filter 32000 (lzf) has no codec here",
        url="s3://b/a.nc",
        path="/temp",
        offset=4096,
        length=16,
        hint="skip the variable",
    )
    assert str(error) == (
        "s3://b/a.nc: /temp: filter 32000 (lzf) has no codec here at byte 4096 (0x1000), length 16;"
        " skip the variable"
    )


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, "wrong"),
        ({"url": "a.nc"}, "a.nc: wrong"),
        ({"path": "/x"}, "/x: wrong"),
        ({"path": "/x", "chunk": (4, 0)}, "/x: chunk (4, 0): wrong"),
        ({"chunk": ()}, "chunk (): wrong"),
        ({"offset": 0}, "wrong at byte 0 (0x0)"),
        ({"length": 9}, "wrong"),
        ({"hint": "look"}, "wrong; look"),
    ],
)
def test_parts_that_are_not_known_are_left_out(facts, expected):
    assert str(Malformed("wrong", **facts)) == expected


def test_a_location_is_added_once_and_never_replaced():
    error = Malformed("wrong", offset=7)
    assert error.at(url="https://host/a.nc?token=secret", path="/x", chunk=(2,), offset=9) is error
    error.at(url="https://other/b.nc", path="/y", chunk=(3,))
    assert (error.url, error.path, error.chunk) == ("https://host/a.nc", "/x", (2,))
    assert error.offset == 7
    assert "secret" not in str(error)


@pytest.mark.parametrize(
    ("url", "public"),
    [
        ("https://user:pass@host/a%20b.nc?signature=s#x", "https://host/a%20b.nc"),
        ("http://host", "http://host"),
        ("s3://bucket/a?b.nc", "s3://bucket/a?b.nc"),
        ("ftp://user@host/a", "ftp://host/a"),
        ("/data/a?b@c.nc", "/data/a?b@c.nc"),
        ("file:///data/a?b@c.nc", "file:///data/a?b@c.nc"),
        ("https://host/a@b/c.nc?d=e@f", "https://host/a@b/c.nc"),
        ("HTTPS://host/a.nc?signature=s", "HTTPS://host/a.nc"),
    ],
)
def test_secrets_are_taken_out_of_a_url(url, public):
    assert without_query(url) == public


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_error_is_ours_and_survives_a_process_boundary(kind):
    error = kind("wrong", url="a.nc", path="/x", offset=1, length=2, hint="look")
    assert isinstance(error, ByteatlasError)
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is kind
        assert str(twin) == str(error)
        assert (twin.problem, twin.length, twin.hint) == ("wrong", 2, "look")


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_no_error_is_taken_for_a_missing_chunk(kind):
    # Array libraries catch these, and fill in what "was never written".
    assert not issubclass(
        kind, KeyError | FileNotFoundError | IsADirectoryError | NotADirectoryError
    )


def test_each_error_is_the_builtin_that_its_caller_expects():
    assert issubclass(Malformed, ValueError)
    assert issubclass(Unsupported, NotImplementedError)
    assert issubclass(MissingDependency, ImportError)
    assert issubclass(NotAllowed, PermissionError)
    assert issubclass(SourceError, OSError)
    for kind in (SourceMissing, SourceDenied, ShortRead):
        assert issubclass(kind, SourceError)


def test_the_outline_at_the_top_of_the_file_is_the_tree():
    outline = byteatlas.errors.__doc__
    for name in byteatlas.errors.__all__:
        assert f"{name} " in outline or f"{name}\n" in outline, name


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://[::1]:8000/a.nc?sig=secret", "http://[::1]:8000/a.nc"),
        ("https://h/a.nc?sig=a::secret", "https://h/a.nc"),
        ("zip://a::https://[fe80::1]/b.zip?sig=secret", "zip://a::https://[fe80::1]/b.zip"),
        ("simplecache::https://u:secret@h/b?x=secret", "simplecache::https://h/b"),
        ("https://h/a::b.nc?sig=secret", "https://h/a::b.nc"),
        ("zip://a::https://h/b::c.zip?sig=secret", "zip://a::https://h/b::c.zip"),
        ("https://u:se::cret@h/a", "https://h/a"),
        ("http://[::1/no.nc?sig=secret", "http://[::1/no.nc"),
    ],
)
def test_no_part_of_a_query_is_taken_for_a_link_of_a_chain(url, shown):
    assert without_query(url) == shown
