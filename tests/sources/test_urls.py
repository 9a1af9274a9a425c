import pytest
from hypothesis import given
from hypothesis import strategies as st

from byteatlas.errors import SourceError, without_query
from byteatlas.sources.urls import follow, http_url, is_chained, redact


@pytest.mark.parametrize(
    ("given_url", "on_the_wire"),
    [
        ("http://h/a b.nc", "http://h/a%20b.nc"),
        ("http://h/a%20b.nc", "http://h/a%20b.nc"),
        ("http://h/a%2Fb.nc", "http://h/a%2Fb.nc"),
        ("http://h/100%.nc", "http://h/100%25.nc"),
        ("http://h/run#1.nc", "http://h/run%231.nc"),
        ("http://h/é.nc", "http://h/%C3%A9.nc"),
        ("http://h/a.nc?X-Sig=a%2Fb+c==&t=1:2", "http://h/a.nc?X-Sig=a%2Fb+c==&t=1:2"),
        ("http://h/a.nc?q=a b", "http://h/a.nc?q=a%20b"),
        ("http://h/a+b;c=1,(2)'~!$&@[0].nc", "http://h/a+b;c=1,(2)'~!$&@[0].nc"),
        ('http://h/"<>\\^`{|}', "http://h/%22%3C%3E%5C%5E%60%7B%7C%7D"),
        ("http://h/a\r\nX-Injected: 1", "http://h/a%0D%0AX-Injected:%201"),
        ("HTTP://h:8080/x", "http://h:8080/x"),
        ("http://h", "http://h/"),
        ("http://h?x=1", "http://h/?x=1"),
        ("http://bücher.example/x", "http://xn--bcher-kva.example/x"),
        ("http://[::1]:80/x", "http://[::1]:80/x"),
    ],
)
def test_only_what_is_not_yet_encoded_is_encoded(given_url, on_the_wire):
    assert http_url(given_url) == (on_the_wire, None)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_spelling_a_url_for_the_wire_twice_changes_nothing(text):
    once, _ = http_url(f"https://host/{text}")
    assert once.isascii()
    assert http_url(once)[0] == once


def test_user_info_is_taken_out_and_decoded():
    assert http_url("https://me:p%40ss@h/a") == ("https://h/a", "me:p@ss")


@pytest.mark.parametrize(
    "url", ["http:///a", "http://a b/c", "http://h:port/", "http://h:0/", "http://@/"]
)
def test_a_url_without_a_host_is_refused(url):
    with pytest.raises(SourceError, match="host"):
        http_url(url)


@pytest.mark.parametrize(
    ("location", "leads_to"),
    [
        ("/b?x=1", "https://h/b?x=1"),
        ("c.nc", "https://h/d/c.nc"),
        ("//o/c.nc", "https://o/c.nc"),
        ("http://u:p@o/c d.nc#part", "http://o/c%20d.nc"),
        ("/\udcff.nc", "https://h/%FF.nc"),  # a byte of a header that is no UTF-8
    ],
)
def test_redirects_are_joined(location, leads_to):
    assert follow("https://h/d/a.nc", location) == leads_to


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://h/a", "data:,x", "", None])
def test_redirects_out_of_the_web_are_refused(location):
    with pytest.raises(SourceError, match="redirect"):
        follow("https://h/a", location)


@pytest.mark.parametrize("location", ["http://[::1/a", "//[x]/a", "http://o:p/a", "/\ud800"])
def test_redirects_to_what_is_no_url_are_our_error(location):
    with pytest.raises(SourceError, match=r"no URL|no valid host|no Unicode"):
        follow("https://h/a", location)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("zip://a.nc::https://h/b.zip", True),
        ("simplecache::s3://b/k", True),
        ("filecache::/data/a.nc", True),
        ("https://h/a::b.nc", False),
        ("/data/a::b.nc", False),
        ("/data/a.nc", False),
    ],
)
def test_chained_urls_are_told_from_names_with_colons(url, expected):
    assert is_chained(url) is expected


def test_secrets_are_left_out_of_what_people_see():
    assert without_query("zip://a.nc::https://u:p@h/b.zip?sig=s") == "zip://a.nc::https://h/b.zip"
    assert without_query("https://u:p@h/b?sig=s") == "https://h/b"
    text = redact("GET https://u:p@h/b?sig=secret failed (see https://h/c?x=1)")
    assert text == "GET https://h/b?... failed (see https://h/c?...)"
