"""Connections to web servers, and what goes with every request to one of them.

Plain requests go over connections of our own (`pool_for`); those through a proxy, and to servers
whose answers are not plain or that give cookies, through aiohttp (`session_for`).
"""

from __future__ import annotations

import re
import ssl
import time
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from netrc import NetrcParseError, netrc
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import yarl
from multidict import CIMultiDict

from byteatlas.errors import SourceError
from byteatlas.sources import loop
from byteatlas.sources.addresses import Resolver
from byteatlas.sources.hosts import Host
from byteatlas.sources.http_connection import LEAST_PROGRESS, Scratch
from byteatlas.sources.http_pool import Pool
from byteatlas.sources.line import Line
from byteatlas.sources.options import HttpOptions
from byteatlas.sources.remote import Policy
from byteatlas.version import __version__

__all__ = [
    "Borrowed",
    "Route",
    "host_of",
    "keep_cookies",
    "line_to",
    "origin_of",
    "pool_for",
    "request_text",
    "route_to",
    "session_for",
]

_PORTS = {"http": 80, "https": 443}
_OURS = re.compile(r"range|if-.*|accept-encoding", re.IGNORECASE)
"""Headers that say which bytes are wanted, and of which source."""
_BREAK = re.compile(r"[\0\r\n]")


@dataclass(frozen=True, slots=True)
class Route:
    """What goes with every request to one origin."""

    headers: Mapping[str, str]
    proxy: str | None


def origin_of(url: str) -> str:
    """Return scheme, host and port of a URL as it is spelt on the wire."""
    return "/".join(url.split("/", 3)[:3])


def host_of(origin: str) -> Host:
    """Return what all requests to an origin have seen of it. Call it on the loop."""
    return loop.shared(("host", origin), Host)


def line_to(url: str) -> Line | None:
    """Return what is known of the way to a URL; of any thread."""
    host: Host | None = loop.peek(("host", origin_of(url)))
    return None if host is None else host.line


def pool_for(
    origin: str, options: HttpOptions, policy: Policy, reach: frozenset[str] | None
) -> Pool | None:
    """Return our own connections to an origin; None where they cannot do what the options ask.

    Call it on the loop. `reach` is as in `session_for`.
    """
    is_usual = options.timeout is None and isinstance(options.ssl, bool | ssl.SSLContext | None)
    if not is_usual:
        return None
    parts = urlsplit(origin)
    tls = _tls(options.ssl) if parts.scheme == "https" else None
    return loop.shared(
        ("pool", origin, tls, policy.concurrency, policy.idle_s, reach),
        lambda: Pool(
            parts.hostname or "",
            parts.port or _PORTS[parts.scheme],
            tls=tls,
            resolver=Resolver(reach),
            scratch=loop.shared("scratch", Scratch),
            line=host_of(origin).line,
            most=policy.concurrency,
            idle_s=policy.idle_s,
        ),
        Pool.close,
    )


def _tls(given: bool | ssl.SSLContext | None) -> ssl.SSLContext:  # noqa: FBT001  # aiohttp's word
    if isinstance(given, ssl.SSLContext):
        return given
    return loop.shared(("tls", given is False), lambda: _new_tls(is_checked=given is not False))


def _new_tls(*, is_checked: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if not is_checked:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context


def request_text(url: str, headers: Mapping[str, str]) -> str:
    """Return what follows the method in a request, but for the empty line at its end.

    Raises
    ------
    SourceError
        A header has a line break.
    """
    origin = origin_of(url)
    target = url[len(origin) :]
    lines = [f" {target if target.startswith('/') else '/' + target} HTTP/1.1"]
    if "host" not in map(str.lower, headers):  # the caller's own, through a tunnel
        lines.append(f"Host: {origin.partition('://')[2]}")
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if any(map(_BREAK.search, lines)):
        raise SourceError("a header to be sent has a line break")
    return "\r\n".join([*lines, ""])


class Borrowed:
    """An answer that aiohttp reads, with the methods of one that we read."""

    def __init__(self, answer: aiohttp.ClientResponse, idle_s: float) -> None:
        self.status = answer.status
        self.headers = answer.headers
        self.filled = 0
        self.is_bounded = False
        self._answer = answer
        self._idle_s = idle_s
        self._more = memoryview(b"")

    async def fill(self, view: memoryview) -> None:
        """Receive the next bytes of the body into memory, as many as fit; see `Answer.fill`."""
        self.filled = 0
        since, recent = time.monotonic(), 0
        while self.filled < len(view):
            if not self._more:
                self._more = memoryview(await self._next())
                if not self._more:
                    return
            part = self._more[: len(view) - self.filled]
            self._more = self._more[len(part) :]
            view[self.filled : self.filled + len(part)] = part
            self.filled += len(part)
            recent += len(part)
            now = time.monotonic()
            if now - since >= self._idle_s:
                if recent < LEAST_PROGRESS and not self._answer.content.at_eof():
                    raise TimeoutError
                since, recent = now, 0

    async def _next(self) -> bytes:
        try:
            return await self._answer.content.readany()
        except (
            ConnectionError,
            aiohttp.ClientConnectionError,
            aiohttp.ClientPayloadError,
        ) as error:
            if isinstance(error, TimeoutError):
                raise
            return b""

    def release(self) -> None:
        """Give the connection back; it is closed where the body was not taken to its end."""
        self._answer.release()


def keep_cookies(url: str, given: list[str], session: aiohttp.ClientSession) -> None:
    """Have cookies that came with an answer sent back from now on."""
    for text in given:
        try:
            text.encode()
            cookie = SimpleCookie(text)
        except (CookieError, UnicodeEncodeError):  # it could not be sent back
            continue
        session.cookie_jar.update_cookies(cookie, yarl.URL(url, encoded=True))


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
    """Return the route to a URL's origin; the caller's headers go to the source's own alone.

    Each header is there once, however it is spelt; `_OURS` are never the caller's.
    """
    origin = origin_of(url)
    proxy = options.proxy or (_proxy(origin) if options.trust_env else None)
    return Route(_headers(options, origin, own=own), proxy)


def _headers(options: HttpOptions, origin: str, *, own: bool) -> dict[str, str]:
    result = CIMultiDict({"User-Agent": f"byteatlas/{__version__}", "Accept-Encoding": "identity"})
    if own:
        for name, value in options.headers:
            if not _OURS.fullmatch(name):
                result[name] = value
    if options.trust_env and "Authorization" not in result:
        try:
            login = netrc().authenticators(urlsplit(origin).hostname or "")
        except (OSError, NetrcParseError):
            login = None
        if login:
            pair = f"{login[0]}:{login[2]}".encode()
            result["Authorization"] = "Basic " + b64encode(pair).decode()
    return dict(result)


def _proxy(origin: str) -> str | None:
    parts = urlsplit(origin)
    if proxy_bypass(parts.hostname or ""):
        return None
    return getproxies().get(parts.scheme)
