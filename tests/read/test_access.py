"""An index from the network reaches its own origin, public places, and what its reader allows."""

import pytest

from byteatlas.errors import NotAllowed
from byteatlas.model import Source
from byteatlas.read.access import check_sources, is_local, options_for

INDEX = "https://data.example.org/indexes/a.json"


def check(url, index_url=INDEX, allow=()):
    check_sources([Source(url)], index_url, allow)


@pytest.mark.parametrize(
    "url",
    [
        "https://data.example.org/a.nc",
        "https://DATA.example.org:443/deep/er/a.nc?sig=1",
        "https://other.example.org/a.nc",
        "http://93.184.216.34/a.nc",
        "http://[2606:2800:220:1:248:1893:25c8:1946]/a.nc",
        "http://[::ffff:93.184.216.34]/a.nc",
        "s3://bucket/a.nc",
        "gs://bucket/a.nc",
        "az://container/a.nc",
        "abfs://container@account.dfs.core.windows.net/a.nc",
        "https://example.org/a..b/...nc",
    ],
)
def test_an_index_from_the_network_may_name_public_places(url):
    check(url)


@pytest.mark.parametrize(
    "url",
    [
        "/etc/passwd",
        "etc/passwd",
        "file:///etc/passwd",
        "FILE:///etc/passwd",
        "local:///etc/passwd",
        "memory://a.nc",
        "data:text/plain,abc",
        "http://localhost/a.nc",
        "http://LOCALHOST.:8000/a.nc",
        "http://a.localhost/a.nc",
        "http:///a.nc",
        "http://127.0.0.1/a.nc",
        "http://127.0.0.1:8000/a.nc",
        "http://127.1/a.nc",
        "http://2130706433/a.nc",
        "http://0x7f000001/a.nc",
        "http://0177.0.0.1/a.nc",
        "http://0.0.0.0/a.nc",
        "http://[::1]/a.nc",
        "http://[::1]:8080/a.nc",
        "http://[::ffff:127.0.0.1]/a.nc",
        "http://[fe80::1]/a.nc",
        "http://[fd00::1]/a.nc",
        "http://169.254.169.254/latest/meta-data",
        "http://10.0.0.1/a.nc",
        "http://172.16.0.1/a.nc",
        "http://192.168.1.1/a.nc",
        "http://100.64.0.1/a.nc",
        "http://224.0.0.1/a.nc",
        "http://[::ffff:224.0.0.1]/a.nc",
        "ftp://example.org/a.nc",
        "ssh://example.org/a.nc",
        "zip://a.nc::https://data.example.org/a.zip",
        "simplecache::https://data.example.org/a.nc",
        "filecache::file:///etc/passwd",
    ],
)
def test_an_index_from_the_network_may_not_name_private_places(url):
    with pytest.raises(NotAllowed, match="only by permission"):
        check(url)
    check(url, index_url=None)
    check(url, index_url="/archive/a.json")


@pytest.mark.parametrize(
    ("url", "index_url"),
    [
        ("http://127.0.0.1:8000/data/a.nc", "http://127.0.0.1:8000/a.json"),
        ("http://localhost/data/a.nc", "http://localhost:80/a.json?x=1"),
        ("http://10.0.0.1/a.nc", "http://10.0.0.1/a.json"),
        ("https://[::1]:9/a.nc", "https://[::1]:9/b/a.json"),
    ],
)
def test_an_index_may_name_its_own_origin(url, index_url):
    check(url, index_url=index_url)


@pytest.mark.parametrize(
    "index_url",
    [
        "http://127.0.0.1:8001/a.json",
        "https://127.0.0.1:8000/a.json",
        "http://localhost:8000/a.json",
        "s3://127.0.0.1/a.json",
        "zip://a.json::http://127.0.0.1:8000/a.zip",
    ],
)
def test_another_port_scheme_or_host_is_another_origin(index_url):
    with pytest.raises(NotAllowed):
        check("http://127.0.0.1:8000/a.nc", index_url=index_url)


@pytest.mark.parametrize(
    ("url", "prefix"),
    [
        ("/data/a.nc", "/data/"),
        ("/data/a.nc", "/data"),
        ("/data/a.nc", "file:///data"),
        ("file:///data/a.nc", "/data/a.nc"),
        ("/data/a.nc", "file://"),
        ("http://127.0.0.1:8000/x/a.nc", "http://127.0.0.1:8000"),
        ("http://127.0.0.1:8000/x/a.nc", "http://127.0.0.1:8000/x/"),
        ("http://127.0.0.1/x%20y/a.nc", "http://127.0.0.1:80/x y"),
        ("zip://a.nc::https://h/a.zip", "zip://a.nc::https://h/a.zip"),
        ("memory://a/b.nc", "memory://a"),
    ],
)
def test_an_allowed_prefix_lets_what_is_below_it_pass(url, prefix):
    check(url, allow=[prefix])


@pytest.mark.parametrize(
    ("url", "prefix"),
    [
        ("/database/a.nc", "/data"),
        ("/data/../etc/passwd", "/data"),
        ("/data", "/data/a.nc"),
        ("memory://a.nc", "/"),
        ("http://127.0.0.1:8000/xy/a.nc", "http://127.0.0.1:8000/x"),
        ("http://127.0.0.1:8000/a.nc", "http://127.0.0.1"),
        ("http://127.0.0.1.example.org@127.0.0.1/a.nc", "http://127.0.0.1.example.org"),
        ("http://127.0.0.2/a.nc", "http://127.0.0.1"),
        ("zip://a.nc::file:///etc/x.zip", "file://"),
    ],
)
def test_an_allowed_prefix_lets_nothing_else_pass(url, prefix):
    with pytest.raises(NotAllowed):
        check(url, allow=[prefix])


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("https://data.example.org/../a.nc", "segment '..'"),
        ("https://data.example.org/x/%2e%2e/a.nc", "segment '..'"),
        ("https://data.example.org/x/%2E./a.nc", "segment '..'"),
        ("https://data.example.org/x/..%2fa.nc", "segment '..'"),
        ("https://data.example.org/x\\..\\a.nc", "segment '..'"),
        ("file:///data/../etc/passwd", "segment '..'"),
        ("s3://bucket/../a.nc", "segment '..'"),
        ("zip://../a.nc::https://h/a.zip", "segment '..'"),
        ("https://user:secret@data.example.org/a.nc", "user info"),
        ("https://user@data.example.org", "user info"),
        ("gopher://example.org/a.nc", "scheme 'gopher'"),
        ("javascript://x/a.nc", "scheme 'javascript'"),
    ],
)
@pytest.mark.parametrize("index_url", [INDEX, None, "/archive/a.json"])
def test_some_forms_are_refused_whoever_asks(url, problem, index_url):
    with pytest.raises(NotAllowed, match=problem) as caught:
        check(url, index_url=index_url, allow=[url, "file://", "https://data.example.org"])
    assert "secret" not in str(caught.value)


def test_the_error_lists_the_prefixes_to_allow():
    urls = [f"/data/{year}/{month}.nc" for year in (2000, 2001) for month in range(3)]
    urls += ["http://127.0.0.1:9/x/a.nc?sig=secret", "https://data.example.org/fine.nc"]
    with pytest.raises(NotAllowed) as caught:
        check_sources(map(Source, urls), INDEX, ())
    text = str(caught.value)
    assert text.startswith(INDEX)
    assert "names 7 sources" in text
    assert "/data/2000/ (3), /data/2001/ (3), http://127.0.0.1:9/x/ (1)" in text
    allow = ["/data/2000/", "/data/2001/", "http://127.0.0.1:9/x/"]
    assert f"pass allow={allow}" in text
    assert "secret" not in text
    check_sources(map(Source, urls), INDEX, allow)


def test_very_many_prefixes_are_counted_not_listed():
    with pytest.raises(NotAllowed, match="and 995 more prefixes"):
        check_sources([Source(f"/data/{n}/a.nc") for n in range(1000)], INDEX, ())


def test_what_is_local_has_no_network_between():
    assert is_local("a.nc")
    assert is_local("/a.nc")
    assert is_local("file:///a.nc")
    assert is_local("memory://a.nc")
    assert not is_local("http://localhost/a.nc")
    assert not is_local("zip://a.nc::/a.zip")


def test_options_of_one_protocol_are_for_that_protocol():
    options = {"timeout": 5, "s3": {"anon": True}, "https": {"headers": {"x": "y"}}}
    assert options_for("s3://b/a", options) == {"timeout": 5, "anon": True}
    assert options_for("http://h/a", options) == {"timeout": 5, "headers": {"x": "y"}}
    assert options_for("gs://b/a", options) == {"timeout": 5}
    assert options_for("/data/a", options) == {}
    assert options_for("zip://a::s3://b/a.zip", options) == options
    assert options_for("s3://b/a", None) == {}
