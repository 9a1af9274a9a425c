"""URLs as people write them: which kind, how spelt on the wire, and without their secrets."""

from __future__ import annotations

import re
from os import PathLike, fspath
from pathlib import Path
from urllib.parse import quote, unquote, urljoin, urlsplit

from byteatlas.errors import SourceError, chain_links

__all__ = ["absolute_url", "follow", "http_url", "is_chained", "redact", "scheme_of", "with_params"]

# Everything a request line may carry as it is; "%" is looked at by itself.
_LEGAL = "!$&'()*+,;=:@/?[]~-._%"
_LONE_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_QUERY = re.compile(r"\?[^\s'\"<>)]*")
_USER = re.compile(r"(?<=://)[^/\s@]*@")


def is_chained(url: str) -> bool:
    """Tell whether a URL is a chain in fsspec's words, such as ``zip://a.nc::https://host/b``."""
    if "::" not in url:
        return False
    first, *rest = chain_links(url)
    return bool(rest) and (any("://" in link for link in rest) or _is_protocol(first))


def _is_protocol(name: str) -> bool:
    from fsspec.registry import known_implementations  # noqa: PLC0415  # slow, and rarely needed

    return name in known_implementations


def absolute_url(target: str | PathLike[str]) -> str:
    """Return a URL as it is and a path as an absolute one: the working directory may change."""
    url = fspath(target)
    is_path = not scheme_of(url) and not is_chained(url)
    return str(Path(url).expanduser().absolute()) if is_path else url


def scheme_of(url: str) -> str:
    """Return the scheme in lower case; "" for a plain path."""
    scheme, separator, _ = url.partition("://")
    return scheme.lower() if separator else ""


def redact(text: str) -> str:
    """Return a foreign message without query strings and user info."""
    return _USER.sub("", _QUERY.sub("?...", text))


def http_url(url: str) -> tuple[str, str | None]:
    """Spell a URL for the wire, and take its user info ("user:password") out.

    Only what is not yet encoded is encoded, so a signature stays valid: "%2F" stays "%2F", a "%"
    that begins no escape becomes "%25". A "#" is part of the path, for data files have no
    fragments. The first "?" begins the query string; in a file's name it is written "%3F".
    """
    scheme, _, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    if not slash and "?" in authority:
        authority, _, query = authority.partition("?")
        path = f"?{query}"
    user, _, host = authority.rpartition("@")
    try:
        host = host if host.isascii() else host.encode("idna").decode()
        port = urlsplit(f"{scheme}://{host}").port
    except ValueError as error:
        raise SourceError("the URL has no valid host", url=url) from error
    if not host or port == 0 or re.search(r"[\s#%\\<>\"{}|^`]", host):
        raise SourceError("the URL has no valid host", url=url)
    try:
        # What was no UTF-8 in a header or an argument is spelt byte by byte.
        path = quote(_LONE_PERCENT.sub("%25", path), safe=_LEGAL, errors="surrogateescape")
    except UnicodeEncodeError as error:
        raise SourceError("the URL is no Unicode text", url=url) from error
    return f"{scheme.lower()}://{host}/{path}", unquote(user) if user else None


def with_params(url: str, params: str) -> str:
    """Return a URL with more of a query string, encoded already."""
    if not params:
        return url
    return f"{url}{'&' if '?' in url else '?'}{params}"


def follow(url: str, location: str | None) -> str:
    """Return where a redirect leads, spelt for the wire.

    Raises
    ------
    SourceError
        It leads nowhere, or out of the web.
    """
    if not location:
        raise SourceError("a redirect without a Location")
    try:
        target = urljoin(url, location.partition("#")[0])
    except ValueError as error:
        raise SourceError(f"a redirect to what is no URL ({error})") from error
    if scheme_of(target) not in ("http", "https"):
        raise SourceError(f"a redirect to a {scheme_of(target) or 'strange'} URL is not followed")
    return http_url(target)[0]
