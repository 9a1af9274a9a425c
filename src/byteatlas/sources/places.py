"""URLs taken apart so that places can be compared, and addresses that are not public."""

from __future__ import annotations

import re
import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from posixpath import normpath
from typing import NamedTuple
from urllib.parse import unquote

from byteatlas.sources.urls import is_chained, scheme_of

__all__ = ["LOCAL_SCHEMES", "SAME_SCHEME", "Place", "address_of", "is_internal_address"]

LOCAL_SCHEMES = frozenset({"", "file", "local", "memory"})
SAME_SCHEME = {"": "file", "local": "file", "s3a": "s3", "gcs": "gs", "abfs": "az", "abfss": "az"}
_PORTS = {"http": "80", "https": "443"}

# Registries: IANA special-purpose addresses (RFC 6890), private (1918), shared (6598), unique
# local (4193). Written out, for the ipaddress module's own lists differ between Pythons.
_INTERNAL_4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
            "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15",
            "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
        ),
    )
)  # fmt: skip
_INTERNAL_6 = tuple(
    map(
        IPv6Network,
        (
            "::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "3fff::/20",
            "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
        ),
    )
)  # fmt: skip
_EMBEDS_4 = (  # an IPv4 address inside, so many bits from the right
    (IPv6Network("::ffff:0:0/96"), 0),  # mapped (RFC 4291, 2.5.5.2)
    (IPv6Network("::ffff:0:0:0/96"), 0),  # translated (RFC 2765)
    (IPv6Network("64:ff9b::/96"), 0),  # NAT64 (RFC 6052): all that an IPv6-only network sees
    (IPv6Network("2002::/16"), 80),  # 6to4 (RFC 3056)
)


def is_internal_address(text: str) -> bool:
    """Tell whether an address is this machine's, a private network's, or no host's at all.

    IPv6 forms that carry an IPv4 address are judged by that address.
    """
    address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv6Address):
        for network, shift in _EMBEDS_4:
            if address in network:
                return is_internal_address(str(IPv4Address(int(address) >> shift & 0xFFFFFFFF)))
        return any(address in network for network in _INTERNAL_6)
    return any(address in network for network in _INTERNAL_4)


def address_of(host: str) -> str | None:
    """Return the address that a host is spelled as, in any spelling that a resolver takes."""
    try:
        return str(ip_address(host))
    except ValueError:
        pass
    try:
        return socket.inet_ntoa(socket.inet_aton(host))  # 127.1, 0x7f000001, 2130706433, ...
    except (OSError, ValueError):
        return None


class Place(NamedTuple):
    """A URL taken apart and normalised."""

    scheme: str
    host: str
    """Host of a web server, bucket of an object store."""
    port: str
    path: str
    is_chained: bool

    @classmethod
    def of(cls, url: str) -> Place:
        """Take a URL apart: host in lower case and IDNA, path decoded once, default ports named."""
        if is_chained(url):  # of no scheme: only a prefix of the whole chain allows it
            return cls("", "", "", url, is_chained=True)
        scheme = scheme_of(url)
        scheme, rest = SAME_SCHEME.get(scheme, scheme), url.partition("://")[2] if scheme else url
        if scheme in LOCAL_SCHEMES:
            path = unquote(rest) if "://" in url else rest
            return cls(scheme, "", "", path and normpath(path), is_chained=False)
        authority, _, path = rest.partition("/")
        authority, question, _ = authority.partition("?")
        if scheme in ("http", "https"):
            path = "" if question else unquote(path.partition("?")[0])
        host, port = authority.lower(), ""
        if not host.endswith("]") and host.rpartition(":")[2].isdigit():
            host, _, port = host.rpartition(":")
        host = _in_ascii(host.rstrip(".").strip("[]"))
        return cls(scheme, host, port or _PORTS.get(scheme, ""), path, is_chained=False)

    def is_within(self, prefix: Place) -> bool:
        """Tell whether this place is the prefix or below it."""
        if (self.scheme, self.is_chained) != (prefix.scheme, prefix.is_chained):
            return False
        if prefix.host and (self.host, self.port) != (prefix.host, prefix.port):
            return False
        path = prefix.path.rstrip("/")
        return not prefix.path or self.path == path or self.path.startswith(path + "/")

    def is_same_origin(self, other: Place) -> bool:
        """Tell whether scheme, host and port are the same; of an object store the bucket."""
        return self[:3] == other[:3] and not self.is_chained and not other.is_chained

    @property
    def is_internal(self) -> bool:
        """Tell whether the host's text is this machine, or an address that is not public."""
        if self.scheme not in ("http", "https"):
            return False
        address = address_of(self.host)
        if address is not None:
            return is_internal_address(address)
        return self.host in ("", "localhost") or self.host.endswith(".localhost")

    @property
    def has_web_port(self) -> bool:
        """Tell whether it is asked at port 80 or 443; object stores choose theirs themselves."""
        return self.scheme not in ("http", "https") or self.port in _PORTS.values()


def _in_ascii(host: str) -> str:
    if host.isascii():
        return host
    try:
        return re.sub(r"\s", "", host.encode("idna").decode())
    except UnicodeError:
        return host
