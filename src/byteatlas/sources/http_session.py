"""Connections to web servers, and what goes with every request to one of them."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from netrc import NetrcParseError, netrc
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from byteatlas.sources import loop
from byteatlas.sources.addresses import Resolver
from byteatlas.sources.options import HttpOptions
from byteatlas.sources.remote import Policy
from byteatlas.version import __version__

__all__ = ["Route", "origin_of", "route_to", "session_for"]


@dataclass(frozen=True, slots=True)
class Route:
    """What goes with every request to one origin."""

    headers: Mapping[str, str]
    proxy: str | None


def origin_of(url: str) -> str:
    """Return scheme, host and port of a URL as it is spelt on the wire."""
    return "/".join(url.split("/", 3)[:3])


def session_for(
    options: HttpOptions, policy: Policy, reach: frozenset[str] | None
) -> aiohttp.ClientSession:
    """Return the connections that sources with equal options share. Call it on the loop.

    Parameters
    ----------
    reach
        Internal addresses that may be connected to; None means any. Connections that differ in
        this are kept apart.
    """
    return loop.shared(
        ("http", options, policy.concurrency, policy.idle_s, reach),
        lambda: _new_session(options, policy, reach),
        aiohttp.ClientSession.close,
    )


def _new_session(
    options: HttpOptions, policy: Policy, reach: frozenset[str] | None
) -> aiohttp.ClientSession:
    idle_s = policy.idle_s
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=0, limit_per_host=policy.concurrency, resolver=Resolver(reach)
        ),
        timeout=options.timeout
        or aiohttp.ClientTimeout(total=None, sock_connect=idle_s, sock_read=idle_s),
        auto_decompress=False,
    )


def route_to(url: str, options: HttpOptions, *, own: bool) -> Route:
    """Return the route to a URL's origin; the caller's headers go to the source's own alone."""
    origin = origin_of(url)
    proxy = options.proxy or (_proxy(origin) if options.trust_env else None)
    return Route(_headers(options, origin, own=own), proxy)


def _headers(options: HttpOptions, origin: str, *, own: bool) -> dict[str, str]:
    result = {"User-Agent": f"byteatlas/{__version__}", "Accept-Encoding": "identity"}
    if own:
        result |= dict(options.headers)
    if options.trust_env and "authorization" not in map(str.lower, result):
        try:
            login = netrc().authenticators(urlsplit(origin).hostname or "")
        except (OSError, NetrcParseError):
            login = None
        if login:
            pair = f"{login[0]}:{login[2]}".encode()
            result["Authorization"] = "Basic " + b64encode(pair).decode()
    return result


def _proxy(origin: str) -> str | None:
    parts = urlsplit(origin)
    if proxy_bypass(parts.hostname or ""):
        return None
    return getproxies().get(parts.scheme)
