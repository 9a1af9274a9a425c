"""Which sources an index may have: it says which it wants, its reader decides.

An index that came over the network may name

- sources of its own origin (the same scheme, host and port; of an object store the same bucket),
- sources at public addresses, over http, https, s3, gs and az,
- whatever its reader allows by a prefix.

So it reaches neither local files nor addresses inside the reader's network. An index that the
reader has locally, or hands over as an object, may name what it likes. From neither are accepted
URLs with ``..``, with user info, or of a scheme that nothing here can read.

A host name is judged by its text; what it resolves to is not asked.
"""

from __future__ import annotations

import re
import socket
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from posixpath import normpath
from typing import Any, NamedTuple
from urllib.parse import unquote

from fsspec.registry import known_implementations

from byteatlas.errors import NotAllowed, without_query
from byteatlas.model import Source
from byteatlas.sources.urls import is_chained, scheme_of

__all__ = ["check_sources", "is_local", "options_for"]

_LOCAL = {"", "file", "local", "memory"}
_SAME_AS = {"": "file", "local": "file", "s3a": "s3", "gcs": "gs", "abfs": "az", "abfss": "az"}
_NETWORK = {"http", "https", "s3", "gs", "az", *_SAME_AS} - _LOCAL
_PORTS = {"http": "80", "https": "443"}
_AT_IS_NO_USER = {"az", "abfs", "abfss", "wasb", "wasbs"}  # container@account


def is_local(url: str) -> bool:
    """Tell whether a URL names something on this machine, without a network between."""
    return not is_chained(url) and scheme_of(url) in _LOCAL


def options_for(url: str, storage_options: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the storage options that concern one URL.

    An index and its sources may be of different protocols. Options of one protocol alone stand
    under its name, as fsspec has it for chained URLs: ``{"s3": {"anon": True}}``. Options beside
    them are for every URL that is not local.
    """
    if is_chained(url):
        return dict(storage_options or {})
    if is_local(url):
        return {}
    options: dict[str, Any] = {}
    scheme = scheme_of(url)
    for name, value in (storage_options or {}).items():
        if name not in known_implementations or not isinstance(value, Mapping):
            options[name] = value
        elif _family(name) == _family(scheme):
            options |= value
    return options


def _family(scheme: str) -> str:
    return "http" if scheme == "https" else _SAME_AS.get(scheme, scheme)


def check_sources(sources: Iterable[Source], index_url: str | None, allow: Sequence[str]) -> None:
    """Refuse sources that an index may not have.

    Parameters
    ----------
    sources
        What the index names.
    index_url
        Where the index came from; None when the caller made it.
    allow
        Prefixes of URLs that the caller allows beside the index's own origin. A prefix ends at a
        segment: ``"https://host/data"`` allows ``"https://host/data/a.nc"``, not
        ``"https://host/database"``. A scheme alone, such as ``"file://"``, allows all under it.

    Raises
    ------
    NotAllowed
        The index names something else. The message lists the prefixes to allow.
    """
    granted = [_Place.of(prefix) for prefix in allow]
    is_trusted = index_url is None or is_local(index_url)
    origin = None if index_url is None or is_trusted else _Place.of(index_url)
    refused: Counter[str] = Counter()
    for source in sources:
        reason = _malformed(source.url)
        if reason:
            url = without_query(source.url)
            raise NotAllowed(f"the index names a source whose URL {reason}", url=url)
        place = _Place.of(source.url)
        if is_trusted or any(place.is_within(prefix) for prefix in granted):
            continue
        if origin is not None and place[:3] == origin[:3] and not place.is_chained:
            continue
        if place.scheme not in _NETWORK or place.is_internal:
            refused[without_query(source.url).rpartition("/")[0] + "/"] += 1
    if refused:
        raise _not_allowed(refused, index_url)


def _not_allowed(refused: Counter[str], index_url: str | None) -> NotAllowed:
    listed = ", ".join(f"{prefix} ({count})" for prefix, count in refused.most_common(5))
    more = f" and {len(refused) - 5} more prefixes" if len(refused) > 5 else ""
    return NotAllowed(
        f"this index came over the network and names {refused.total()} sources that it may have"
        f" only by permission, under {listed}{more}",
        url=index_url and without_query(index_url),
        hint=f"if you trust it, pass allow={[prefix for prefix, _ in refused.most_common(5)]}",
    )


def _malformed(url: str) -> str | None:
    """Say what is wrong with a URL that nobody may name, None when nothing is."""
    for link in url.split("::") if is_chained(url) else [url]:
        scheme = scheme_of(link)
        if "://" not in link:
            continue  # a path, or in a chain the bare name of a protocol
        if scheme not in known_implementations and scheme not in _SAME_AS:
            return f"has the scheme {scheme!r}, which is not known"
        rest = link.partition("://")[2]
        if "@" in re.split("[/?]", rest)[0] and scheme not in _AT_IS_NO_USER:
            return "has user info"
        if ".." in re.split(r"[/\\?]", unquote(rest)):
            return "has a segment '..'"
    return None


class _Place(NamedTuple):
    """A URL taken apart and normalised, so that places can be compared."""

    scheme: str
    host: str
    """Host of a web server, bucket of an object store."""
    port: str
    path: str
    is_chained: bool

    @classmethod
    def of(cls, url: str) -> _Place:
        if is_chained(url):  # of no scheme: only a prefix of the whole chain allows it
            return cls("", "", "", url, is_chained=True)
        scheme = scheme_of(url)
        scheme, rest = _SAME_AS.get(scheme, scheme), url.partition("://")[2] if scheme else url
        if scheme in _LOCAL:
            path = unquote(rest) if "://" in url else rest
            return cls(scheme, "", "", path and normpath(path), is_chained=False)
        authority, _, path = rest.partition("/")
        authority, question, _ = authority.partition("?")
        if scheme in ("http", "https"):
            path = "" if question else unquote(path.partition("?")[0])
        host, port = authority.lower(), ""
        if not host.endswith("]") and host.rpartition(":")[2].isdigit():
            host, _, port = host.rpartition(":")
        host = host.rstrip(".").strip("[]")
        return cls(scheme, host, port or _PORTS.get(scheme, ""), path, is_chained=False)

    def is_within(self, prefix: _Place) -> bool:
        """Tell whether this place is the prefix or below it."""
        if (self.scheme, self.is_chained) != (prefix.scheme, prefix.is_chained):
            return False
        if prefix.host and (self.host, self.port) != (prefix.host, prefix.port):
            return False
        path = prefix.path.rstrip("/")
        return not prefix.path or self.path == path or self.path.startswith(path + "/")

    @property
    def is_internal(self) -> bool:
        """Tell whether the host is this machine, or an address that is not public."""
        if self.scheme not in ("http", "https"):
            return False
        address = _address(self.host)
        if address is None:
            return self.host in ("", "localhost") or self.host.endswith(".localhost")
        mapped = getattr(address, "ipv4_mapped", None)
        address = address if mapped is None else mapped
        return not address.is_global or address.is_multicast


def _address(host: str) -> IPv4Address | IPv6Address | None:
    """Return the address that a host is spelled as, in any spelling that a resolver takes."""
    try:
        return ip_address(host)
    except ValueError:
        pass
    try:
        return IPv4Address(socket.inet_aton(host))  # 127.1, 0x7f000001, 2130706433, ...
    except (OSError, ValueError):
        return None
