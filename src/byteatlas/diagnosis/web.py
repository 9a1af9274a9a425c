"""What a web server does with the requests that byteatlas makes, one by one, without retries.

The requests are made here and not by the transport, which hides what goes wrong as long as it can.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import yarl

from byteatlas.diagnosis.checks import Check, Diagnosis
from byteatlas.diagnosis.web_checks import Answer, Seen, unreachable, web_checks
from byteatlas.errors import SourceError, without_query
from byteatlas.sources import loop
from byteatlas.sources.credentials import Renewable, options_for
from byteatlas.sources.http_session import origin_of, route_to
from byteatlas.sources.options import HttpOptions, http_options
from byteatlas.sources.urls import follow, http_url

__all__ = ["diagnose_web"]

HEAD = 2**19
SMALL = 1024
LARGE = 2**22
TIMEOUT_S = 15.0
"""No request takes longer."""
MOST_REDIRECTS = 5
ORIGIN = "https://example.org"
"""The page whose scripts might want to read the source."""
REDIRECTS = frozenset({301, 302, 303, 307, 308})


def diagnose_web(url: str, storage_options: Mapping[str, Any] | None) -> Diagnosis:
    """Do as `byteatlas.diagnose`, for a URL of http or https."""
    given = options_for(url, storage_options)
    options = http_options(given.current() if isinstance(given, Renewable) else given)
    target, user = http_url(url)
    if user is not None:
        options = options.with_login(user)
    return loop.call(_diagnose(target, options))


async def _diagnose(url: str, options: HttpOptions) -> Diagnosis:
    timeout = options.timeout or aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session:
        client = _Client(session, url, options)
        checks: list[Check]
        try:
            first = await client.ask("GET", _range(0, HEAD), most=HEAD)
        except (TimeoutError, OSError, aiohttp.ClientError, SourceError) as error:
            checks = [unreachable(error)]
        else:
            checks = web_checks(await client.look(first))
        return Diagnosis(without_query(url), tuple(checks), client.requests)


@dataclass(slots=True)
class _Client:
    """Asks one URL, and follows its redirects by itself."""

    session: aiohttp.ClientSession
    url: str
    options: HttpOptions
    requests: int = 0
    _own: str = field(init=False)
    """The origin that the caller's headers are for, wherever redirects lead."""
    _chain: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._own = origin_of(self.url)

    async def look(self, first: Answer) -> Seen:
        """Make all further requests that the first answer makes sense of."""
        seen = Seen(
            url=self.url,
            first=first,
            chain=tuple(self._chain),
            has_credentials=bool(
                route_to(self.url, self.options, own=True).headers.keys() & _SECRET
            ),
        )
        if first.status not in (200, 206):
            return seen
        self.url = first.url  # each redirect was looked at once
        seen.head = await self._try("HEAD", {})
        if first.status == 206 and first.total:
            last = max(0, first.total - SMALL)
            for offset in (min(SMALL, last), last // 2, last):
                length = min(SMALL, first.total - offset)
                answer = await self._try("GET", _range(offset, length), most=SMALL)
                if answer is not None:
                    seen.small.append((offset, length, answer))
            if first.total > HEAD + LARGE // 4:
                length = min(LARGE, first.total - HEAD)
                seen.large = await self._try("GET", _range(HEAD, length), most=length)
        seen.conditional = await self._try("GET", {**_range(0, 1), **_condition(first)}, most=1)
        seen.cors = await self._try("GET", {**_range(0, 1), "Origin": ORIGIN}, most=1)
        seen.preflight = await self._try(
            "OPTIONS",
            {
                "Origin": ORIGIN,
                "Access-Control-Request-Method": "GET",
                "Access-Control-Request-Headers": "range",
            },
        )
        return seen

    async def _try(self, method: str, headers: Mapping[str, str], most: int = 0) -> Answer | None:
        try:
            return await self.ask(method, headers, most=most)
        except (TimeoutError, OSError, aiohttp.ClientError, SourceError):
            return None

    async def ask(self, method: str, headers: Mapping[str, str], *, most: int = 0) -> Answer:
        """Send one request, and read at most so many bytes of what comes."""
        url, self._chain = self.url, []
        for _ in range(MOST_REDIRECTS + 1):
            route = route_to(url, self.options, own=origin_of(url) == self._own)
            began = time.perf_counter()
            self.requests += 1
            answer = await self.session.request(
                method,
                yarl.URL(url, encoded=True),
                headers={**route.headers, **headers},
                proxy=route.proxy,
                ssl=self.options.ssl,
                allow_redirects=False,
            )
            try:
                first_byte = time.perf_counter() - began
                self._chain.append(url)
                if answer.status in REDIRECTS:
                    url = follow(url, answer.headers.get("Location"))
                    continue
                body = b"" if method == "HEAD" else await _read(answer, most)
                return Answer(
                    url=url,
                    status=answer.status,
                    headers=answer.headers,
                    body=body,
                    first_byte_s=first_byte,
                    seconds=time.perf_counter() - began,
                    version=answer.version,
                )
            finally:
                answer.release()
        raise SourceError(f"more than {MOST_REDIRECTS} redirects")


_SECRET = {"Authorization", "Cookie"}


async def _read(answer: aiohttp.ClientResponse, most: int) -> bytes:
    """Read what was asked for; of what is longer no more, and of what breaks off what came."""
    parts: list[bytes] = []
    count = 0
    try:
        async for part in answer.content.iter_any():
            parts.append(part)
            count += len(part)
            if count > most:
                answer.close()
                break
    except (TimeoutError, aiohttp.ClientError, ConnectionError):
        pass  # a body that ends early is one of the things that are looked for
    return b"".join(parts)


def _range(offset: int, length: int) -> dict[str, str]:
    return {"Range": f"bytes={offset}-{offset + length - 1}"}


def _condition(first: Answer) -> dict[str, str]:
    """Return a condition that does not hold: an honest server answers 412."""
    if first.headers.get("ETag"):
        return {"If-Match": '"byteatlas-doctor"'}
    return {"If-Unmodified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"}
