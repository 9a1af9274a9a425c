"""HTTP and HTTPS, with aiohttp: every answer is checked before its body is read.

aiohttp and not obstore, which hides the status, Retry-After and what a server sent in place of a
range, and costs more CPU per request: docs/transport.md has the figures.
"""

from __future__ import annotations

import asyncio
import socket
import time
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from netrc import NetrcParseError, netrc
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import yarl

from byteatlas.errors import ShortRead, SourceError
from byteatlas.model import Source
from byteatlas.sources import loop
from byteatlas.sources.hosts import Host, retry_after
from byteatlas.sources.http_answers import Body, body_promised, identity_in, phrase
from byteatlas.sources.options import HttpOptions
from byteatlas.sources.remote import Fetch, Policy
from byteatlas.sources.urls import follow, http_url
from byteatlas.version import __version__

__all__ = ["HttpTransport"]

_MOST_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class _Failure(Exception):
    """The server failed in a way that may pass."""

    def __init__(self, problem: str, ordered_s: float | None = None) -> None:
        super().__init__(problem)
        self.ordered_s = ordered_s


class _Truncated(Exception):
    """The body ended early; what arrived is kept."""


_TRANSIENT = (
    _Failure,
    _Truncated,
    TimeoutError,
    ConnectionError,
    aiohttp.ClientConnectionError,
    aiohttp.ClientPayloadError,
)


@dataclass(frozen=True, slots=True)
class _Route:
    """What goes with every request to one origin."""

    headers: Mapping[str, str]
    proxy: str | None


class HttpTransport:
    """One URL of a web server."""

    def __init__(self, url: str, options: HttpOptions, policy: Policy) -> None:
        self._url, user = http_url(url)
        self._options = options if user is None else options.with_login(user)
        self._policy = policy
        self._moved_to: str | None = None
        self._routes: dict[str, _Route] = {}

    async def get(self, fetch: Fetch) -> bytes:
        """Fetch one range, trying again and resuming as `Policy` allows."""
        host = loop.shared(("host", _origin(self._url)), Host)
        parts: list[bytes] = []
        began = time.monotonic()
        while True:
            fetch.tries += 1
            await host.ready()
            try:
                await self._receive(fetch, parts)
            except _TRANSIENT as error:
                _refuse_hopeless(error)
                pause = host.pause_after(
                    fetch.tries,
                    getattr(error, "ordered_s", None),
                    most_tries=self._policy.tries,
                    patience_s=self._policy.patience_s,
                )
                if pause is None:
                    raise self._given_up(fetch, parts, error, time.monotonic() - began) from None
                await asyncio.sleep(pause)
            except aiohttp.ClientError as error:
                raise SourceError(f"no HTTP came back ({type(error).__name__})") from None
            else:
                host.succeeded()
                return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _receive(self, fetch: Fetch, parts: list[bytes]) -> None:
        """Send one request for what is still missing, and append what arrives."""
        have = sum(map(len, parts))
        offset = fetch.offset + have
        length = None if fetch.length is None else fetch.length - have
        last = "" if length is None else offset + length - 1
        answer = await self._ask("GET", {"Range": f"bytes={offset}-{last}"})
        try:
            fetch.status = answer.status
            if answer.status >= 500 or answer.status == HTTPStatus.TOO_MANY_REQUESTS:
                ordered_s = retry_after(answer.headers.get("Retry-After"))
                raise _Failure(phrase(answer.status), ordered_s)
            seen = identity_in(self._url, answer.status, answer.headers)
            if answer.status in (200, 206, 416):  # others are not about the source's bytes
                fetch.meet(seen)
            body = body_promised(
                answer.status,
                answer.headers,
                offset=offset,
                length=length,
                may_end=fetch.may_end,
                size=fetch.size if seen.size is None else seen.size,
            )
            end = body.offset + body.length if seen.size is None else seen.size
            if length is None or fetch.may_end:
                length = end - offset if length is None else min(length, end - offset)
                fetch.length, fetch.may_end = have + length, False
            await _read_body(answer, body, offset, length, parts)
        finally:
            answer.release()  # closes the connection where the body was not read to its end

    async def _ask(self, method: str, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        """Send a request, following redirects; the last place that worked is asked first."""
        options, policy = self._options, self._policy
        session = loop.shared(
            ("http", options, policy.concurrency, policy.idle_s),
            lambda: _new_session(options, policy),
            aiohttp.ClientSession.close,
        )
        started_at = url = self._moved_to or self._url
        for _ in range(_MOST_REDIRECTS + 1):
            route = self._route(url)
            answer = await session.request(
                method,
                yarl.URL(url, encoded=True),
                headers={**route.headers, **headers},
                proxy=route.proxy,
                ssl=options.ssl,
                allow_redirects=False,
            )
            if answer.status not in _REDIRECTS:
                break
            answer.release()
            url = follow(url, answer.headers.get("Location"))
        else:
            raise SourceError(f"more than {_MOST_REDIRECTS} redirects")
        if 400 <= answer.status < 500 and started_at != self._url:
            # A redirect often leads to a signed URL that expires: begin where we were told to.
            answer.release()
            self._moved_to = None
            return await self._ask(method, headers)
        self._moved_to = None if url == self._url else url
        return answer

    def _route(self, url: str) -> _Route:
        origin = _origin(url)
        if origin not in self._routes:
            own = origin == _origin(self._url)
            self._routes[origin] = _Route(
                headers=_headers(self._options, origin, own=own),
                proxy=self._options.proxy or (_proxy(origin) if self._options.trust_env else None),
            )
        return self._routes[origin]

    def _given_up(
        self, fetch: Fetch, parts: list[bytes], error: Exception, seconds: float
    ) -> SourceError:
        tried = f"tried {fetch.tries} times in {seconds:.1f} s"
        if isinstance(error, _Truncated):
            have = sum(map(len, parts))
            problem = f"the body ends after {have} of {fetch.length} bytes"
            return ShortRead(f"{problem}, {tried}", offset=fetch.offset, length=fetch.length)
        return SourceError(
            f"{self._describe(error)}, {tried}", offset=fetch.offset, length=fetch.length
        )

    def _describe(self, error: Exception) -> str:
        """Say what happened, without the URL that some messages carry."""
        if isinstance(error, _Failure):
            return str(error)
        if isinstance(error, TimeoutError):
            return f"silence for {self._policy.idle_s:g} s"
        if isinstance(error, OSError) and error.strerror:
            return error.strerror
        return "the connection was closed"

    async def head(self) -> Source:
        """Return how the source looks now: HEAD, or one byte where that is refused."""
        try:
            answer = await self._ask("HEAD", {})
            answer.release()
        except (TimeoutError, ConnectionError, aiohttp.ClientError) as error:
            _refuse_hopeless(error)
        else:
            seen = identity_in(self._url, answer.status, answer.headers)
            encoded = answer.headers.get("Content-Encoding")
            if answer.status == HTTPStatus.OK and seen.size is not None and not encoded:
                return seen
        sightings: list[Source] = []
        await self.get(Fetch(0, 1, may_end=True, meet=sightings.append))
        return sightings[-1]


async def _read_body(
    answer: aiohttp.ClientResponse, body: Body, offset: int, length: int, parts: list[bytes]
) -> None:
    """Append the bytes from `offset` on; raise _Truncated where some of them did not come."""
    at = body.offset
    end = offset + length
    try:
        async for piece in answer.content.iter_any():
            start, at = at, at + len(piece)
            if at > body.offset + body.length:
                raise SourceError(f"the body is longer than the {body.length} bytes promised")
            if start >= offset and at <= end:
                parts.append(piece)
            elif at > offset and start < end:
                parts.append(piece[max(offset - start, 0) : end - start])
    except (ConnectionError, aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as error:
        if isinstance(error, TimeoutError):
            raise
        raise _Truncated from error
    if at < end:
        raise _Truncated


def _new_session(options: HttpOptions, policy: Policy) -> aiohttp.ClientSession:
    idle_s = policy.idle_s
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, limit_per_host=policy.concurrency),
        timeout=options.timeout
        or aiohttp.ClientTimeout(total=None, sock_connect=idle_s, sock_read=idle_s),
        auto_decompress=False,
    )


def _origin(url: str) -> str:
    return "/".join(url.split("/", 3)[:3])


def _headers(options: HttpOptions, origin: str, *, own: bool) -> dict[str, str]:
    """Return the headers for one origin: the user's go to the URL's own origin alone."""
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


def _refuse_hopeless(error: Exception) -> None:
    """Raise at once what no further try can mend."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        cause = error.os_error
        if isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_AGAIN:
            return
        raise SourceError("no such host", hint="check the URL") from None
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        reason = getattr(error.certificate_error, "verify_message", "not trusted")
        raise SourceError(f"the server's certificate is refused: {reason}") from None
