"""Ways to the bytes of one URL: over redirects, our own connections or aiohttp's."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

import aiohttp
import yarl

from byteatlas.errors import SourceError
from byteatlas.sources.addresses import InternalAddress, internal_addresses
from byteatlas.sources.guard import Guard
from byteatlas.sources.http_connection import Answer, NotPlain
from byteatlas.sources.http_pool import Pool
from byteatlas.sources.http_session import (
    Borrowed,
    Route,
    host_of,
    keep_cookies,
    origin_of,
    pool_for,
    request_text,
    route_to,
    session_for,
)
from byteatlas.sources.options import HttpOptions
from byteatlas.sources.places import Place
from byteatlas.sources.remote import Policy
from byteatlas.sources.urls import follow, with_params

__all__ = ["Ways"]

_MOST_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_WAYS = 16


class _Way(NamedTuple):
    """How one place is asked."""

    url: yarl.URL
    route: Route
    guard: Guard | None
    reach: frozenset[str] | None
    """Internal addresses that may be connected to; None means any."""
    pool: Pool | None
    """Our own connections there; None where only aiohttp can ask."""
    text: str
    """What follows the method in each request."""
    loop: asyncio.AbstractEventLoop
    """The one that the connections live on; a forked child has another."""


class Ways:
    """How a URL is asked with some options, and where its redirects have led.

    Lives on the event loop.

    Parameters
    ----------
    url
        Spelt for the wire.
    options, policy
        How to talk to its server.
    guard
        What may be reached; None where the caller names the URL.
    """

    def __init__(self, url: str, options: HttpOptions, policy: Policy, guard: Guard | None) -> None:
        self.options = options
        self._url = url
        self._origin = origin_of(url)
        self._policy = policy
        self._guard = guard
        self._moved_to: str | None = None
        self._known: dict[str, _Way] = {}

    @property
    def last(self) -> str:
        """The place that was last found to have the bytes."""
        return self._moved_to or self._url

    async def ask(self, method: str, headers: Mapping[str, str]) -> Answer | Borrowed:
        """Send a request, following redirects; the last place that worked is asked first."""
        started_at = url = self.last
        for _ in range(_MOST_REDIRECTS + 1):
            answer = await self._ask_at(url, method, headers)
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
            return await self.ask(method, headers)
        self._moved_to = None if url == self._url else url
        return answer

    async def _ask_at(self, url: str, method: str, headers: Mapping[str, str]) -> Answer | Borrowed:
        """Send a request to one place, if it may be reached."""
        way = self._known.get(url)
        if way is None or way.loop is not asyncio.get_running_loop():
            way = await self._way_to(url)
        host = host_of(self._origin)
        try:
            if way.pool is not None and way.pool.is_plain and not host.gave_cookies:
                with suppress(NotPlain):
                    return await self._ask_plainly(way, method, headers)
            session = session_for(self.options, self._policy, way.reach)
            answer = await session.request(
                method,
                way.url,
                headers={**way.route.headers, **headers},
                proxy=way.route.proxy,
                ssl=self.options.ssl,
                allow_redirects=False,
            )
        except (InternalAddress, aiohttp.ClientConnectorDNSError) as error:
            cause = error if isinstance(error, InternalAddress) else error.os_error
            if way.guard is not None and isinstance(cause, InternalAddress):
                problem = f"its host has the address {cause.address}, which is not public"
                raise way.guard.refusal(url, problem) from None
            raise
        return Borrowed(answer, self._policy.idle_s)

    async def _ask_plainly(self, way: _Way, method: str, headers: Mapping[str, str]) -> Answer:
        """Send a request over our own connections."""
        assert way.pool is not None
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        request = f"{method}{way.text}{lines}\r\n".encode("utf-8", "surrogateescape")
        answer = await way.pool.ask(request, is_head_only=method == "HEAD")
        try:
            given = answer.headers.getall("Set-Cookie", ()) if answer.status >= 300 else ()
            if given:  # it will want them back, perhaps in another place
                session = session_for(self.options, self._policy, way.reach)
                keep_cookies(str(way.url), [*given], session)
                host_of(self._origin).gave_cookies = True
        except BaseException:
            answer.release()
            raise
        return answer

    async def _way_to(self, url: str) -> _Way:
        """Judge a place by its name, and note how to ask there."""
        options, guard = self.options, self._guard
        is_own = origin_of(url) == self._origin
        if guard is None and not is_own:
            guard = await self._guard_of_redirects()
        if guard is not None:
            guard.check(url)
        route = route_to(url, options, own=is_own)
        # What a proxy is asked for it resolves itself; names were judged all the same.
        reach = None if guard is None or route.proxy else guard.reach(url)
        spelt = with_params(url, options.params) if is_own else url
        if len(self._known) > _MOST_WAYS:  # signatures that expired
            self._known.clear()
        pool = None if route.proxy else pool_for(origin_of(url), options, self._policy, reach)
        text = request_text(spelt, route.headers)
        wire = yarl.URL(spelt, encoded=True)
        way = _Way(wire, route, guard, reach, pool, text, asyncio.get_running_loop())
        self._known[url] = way
        return way

    async def _guard_of_redirects(self) -> Guard | None:
        """Return what a redirect may lead to: from a public place to public places only."""
        place = Place.of(self._url)
        if place.is_internal or await internal_addresses(place.host):
            return None
        return Guard(self._url, is_redirect=True)
