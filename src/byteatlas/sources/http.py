"""HTTP and HTTPS: every answer is checked before its body is read.

Not with obstore, which hides the status, Retry-After and what a server sent in place of a range,
and costs more CPU per request: docs/transport.md has the figures.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Any

import aiohttp

from byteatlas.errors import RangeIgnored, ShortRead, SourceChanged, SourceError, without_query
from byteatlas.model import Source
from byteatlas.sources.credentials import Options, Renewable
from byteatlas.sources.fetch import Fetch, given_up
from byteatlas.sources.guard import Guard
from byteatlas.sources.hosts import Host, retry_after
from byteatlas.sources.http_answers import (
    SPARE,
    Body,
    body_promised,
    conditions_for,
    encoding_of,
    identity_in,
    is_confirmed,
    is_web_page,
    phrase,
)
from byteatlas.sources.http_body import Truncated, read_body, read_encoded, read_whole
from byteatlas.sources.http_connection import Answer
from byteatlas.sources.http_session import (
    Borrowed,
    host_of,
    line_to,
    origin_of,
)
from byteatlas.sources.http_ways import Ways
from byteatlas.sources.line import Line
from byteatlas.sources.options import HttpOptions, http_options
from byteatlas.sources.remote import Policy
from byteatlas.sources.urls import http_url

__all__ = ["HttpTransport"]

_REFUSALS = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504, *range(506, 600)})
_NO_CONDITIONS = frozenset({400, 405, 412, 501})
"""Statuses by which a server may mean that it does not take conditions."""
_PROGRESS = 64 * 2**10
"""After so many bytes more, tries are counted anew."""
_SINGLE = ("Content-Range", "ETag")


class _Failure(Exception):
    """The server failed in a way that may pass."""

    def __init__(self, problem: str, ordered_s: float | None = None) -> None:
        super().__init__(problem)
        self.ordered_s = ordered_s


class _Less(Exception):
    """The server sends less at a time than was asked for."""


class _Renewed(Exception):
    """There are other credentials than those that were refused."""


_TRANSIENT = (
    _Failure,
    Truncated,
    TimeoutError,
    ConnectionError,
    socket.gaierror,
    ssl.CertificateError,
    aiohttp.ClientConnectionError,
    aiohttp.ClientPayloadError,
)


class HttpTransport:
    """One URL of a web server."""

    def __init__(
        self, url: str, storage_options: Options, policy: Policy, guard: Guard | None = None
    ) -> None:
        self._url, self._user = http_url(url)
        self._origin = origin_of(self._url)
        self._policy = policy
        self._patience = policy.patience
        self._guard = guard
        self._renewable = storage_options if isinstance(storage_options, Renewable) else None
        self._given: Mapping[str, Any] | None = None  # Any: the caller's options
        self._ways = self._ways_with(HttpOptions())
        if isinstance(storage_options, Mapping):
            self._use(storage_options)
        self._conditions: tuple[Source | None, Mapping[str, str]] = (None, {})
        self._whole: memoryview | None = None
        self._whole_lock = asyncio.Lock()

    def _use(self, given: Mapping[str, Any]) -> None:
        options = http_options(given)
        if self._user is not None:
            options = options.with_login(self._user)
        self._given, self._ways = given, self._ways_with(options)

    def _ways_with(self, options: HttpOptions) -> Ways:
        return Ways(self._url, options, self._policy, self._guard)

    async def _ready(self) -> None:
        if self._renewable is not None and self._given is None:
            self._use(await asyncio.to_thread(self._renewable.current))

    @property
    def line(self) -> Line | None:
        """What answers of its host have shown of the way there."""
        return line_to(self._ways.last)

    async def get(self, fetch: Fetch) -> None:
        """Fetch one range, trying again and resuming as `Policy` allows."""
        host = host_of(self._origin)
        patience = self._patience
        began = time.monotonic()
        failures, had = 0, 0
        await self._ready()
        while True:
            turn = host.free_turn() or await host.turn()
            if turn is None:
                raise given_up(fetch, host.problem, time.monotonic() - began)
            fetch.tries += 1
            try:
                await self._receive(fetch, host)
            except (_Renewed, _Less):
                pause = 0.0
            except _TRANSIENT as error:
                self._refuse_hopeless(error)
                problem, seconds = self._describe(error, fetch), time.monotonic() - began
                ordered_s = getattr(error, "ordered_s", None)
                have = fetch.have
                if have - had >= _PROGRESS:  # who gets on may be resumed again and again
                    failures, began = 0, time.monotonic()
                    host.succeeded()
                failures, had = failures + 1, have
                is_out = host.failed(turn, problem, ordered_s, patience)
                if is_out or failures >= patience.tries or seconds > patience.total_s:
                    kind = ShortRead if isinstance(error, Truncated) else SourceError
                    raise given_up(fetch, problem, seconds, kind) from None
                pause = patience.pause(failures) if ordered_s is None else 0.0
            except SourceError:
                host.succeeded()  # it answered
                raise
            except aiohttp.ClientError as error:
                raise SourceError(f"no HTTP came back ({type(error).__name__})") from None
            else:
                host.succeeded()
                if self._renewable is not None and self._given is not None:
                    self._renewable.worked(self._given)
                return
            finally:
                host.end(turn)
            await asyncio.sleep(pause)

    async def _receive(self, fetch: Fetch, host: Host) -> None:
        """Send one request for what is still missing, and put what arrives in its place."""
        have = fetch.have
        offset = fetch.offset + have
        length = None if fetch.length is None else fetch.length - have
        if self._whole is not None:
            await fetch.make_room()
            return self._take_from(self._whole, fetch, offset, length)
        given = self._given
        answer = await self._ask_for(fetch, offset, length, host)
        try:
            fetch.status = answer.status
            if answer.status in _PASSING:
                ordered_s = retry_after(answer.headers.get("Retry-After"))
                raise _Failure(phrase(answer.status), ordered_s)
            if answer.status in _REFUSALS:
                await self._renew(fetch, given)
            self._meet(fetch, answer)
            body = body_promised(
                answer.status,
                answer.headers,
                offset=offset,
                length=length,
                may_end=fetch.may_end,
                size=fetch.known.size,
                spare=max(SPARE, self._ways.options.allow_full_download - (length or 0)),
            )
            is_encoded = "Content-Encoding" in answer.headers and encoding_of(answer.headers)
            is_large = body.length - (length or 0) > SPARE and not is_encoded
            if answer.status == HTTPStatus.OK and is_large:
                data = await self._download(answer, body)
                await fetch.make_room()
                return self._take_from(data, fetch, offset, length)
            end = body.offset + body.length if fetch.known.size is None else fetch.known.size
            if length is None or fetch.may_end:
                length = end - offset if length is None else min(length, end - offset)
                fetch.length, fetch.may_end = have + length, False
            await fetch.make_room()
            if is_encoded:
                inflated = await read_encoded(answer, body.length)
                if len(inflated) != body.length:
                    raise RangeIgnored(
                        f"the gzipped body holds {len(inflated)} bytes, expected {body.length}"
                    )
                fetch.take(inflated[offset - body.offset :][:length])
            else:
                upto = min(length, body.offset + body.length - offset)
                await read_body(answer, body, fetch, upto)
            if body.offset + body.length < offset + length:
                raise _Less
        finally:
            answer.release()  # closes the connection where the body was not read to its end

    async def _ask_for(
        self, fetch: Fetch, offset: int, length: int | None, host: Host
    ) -> Answer | Borrowed:
        """Ask for a range of the source that is known, and of no other.

        Where the condition fails, the range is asked for once more without one: the answer shows
        what the source is now, or that the server does not understand conditions.
        """
        last = "" if length is None else offset + length - 1
        headers = {"Range": f"bytes={offset}-{last}"}
        conditions = self._conditions_for(fetch.known) if host.takes_conditions else {}
        answer = await self._ways.ask("GET", {**headers, **conditions})
        refused = answer.status
        if not conditions or refused not in _NO_CONDITIONS:
            return answer
        answer.release()
        fetch.tries += 1
        known = fetch.known
        answer = await self._ways.ask("GET", headers)
        if answer.status == HTTPStatus.PRECONDITION_FAILED:
            answer.release()
            raise _changed(known, None)
        if answer.status in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
            try:
                seen = self._meet(fetch, answer)
                if refused == HTTPStatus.PRECONDITION_FAILED:
                    _confirm(known, seen, conditions)
            except BaseException:
                answer.release()
                raise
            host.takes_conditions = False
        return answer

    def _conditions_for(self, known: Source) -> Mapping[str, str]:
        if known is not self._conditions[0]:
            self._conditions = known, conditions_for(known)
        return self._conditions[1]

    def _meet(self, fetch: Fetch, answer: Answer | Borrowed) -> Source:
        """Compare an answer with what is known of the source, where it is about its bytes."""
        for name in _SINGLE:
            values = answer.headers.getall(name, ())
            if len(values) > 1 and len(set(values)) > 1:
                raise RangeIgnored(f"the answer has several headers {name}, and they differ")
        seen = identity_in(self._url, answer.status, answer.headers)
        if answer.status in (200, 206, 416) and not is_web_page(answer.status, answer.headers):
            fetch.known = fetch.meet(seen)
        return seen

    async def _renew(self, fetch: Fetch, refused: Mapping[str, Any] | None) -> None:
        """Get other credentials, once for each range; raise _Renewed when there are some."""
        if self._renewable is None or refused is None or fetch.is_renewed:
            return
        fetch.is_renewed = True
        given = await asyncio.to_thread(self._renewable.renewed, refused)
        if given is None:
            return
        if given is not self._given:
            self._use(given)
        raise _Renewed

    async def _download(self, answer: Answer | Borrowed, body: Body) -> memoryview:
        """Fetch the whole file, once for all ranges: the caller allows it."""
        async with self._whole_lock:
            if self._whole is None:
                self._whole = await read_whole(answer, body)
            return self._whole

    def _take_from(self, whole: memoryview, fetch: Fetch, offset: int, length: int | None) -> None:
        end = len(whole) if length is None else offset + length
        if end > len(whole) and not fetch.may_end:
            raise ShortRead(f"the source ends at byte {len(whole)}", offset=offset, length=length)
        part = whole[offset:end]
        fetch.length = fetch.have + len(part)
        fetch.take(part)

    def _describe(self, error: Exception, fetch: Fetch) -> str:
        """Say what happened, without the URL that some messages carry."""
        if isinstance(error, _Failure):
            return str(error)
        if isinstance(error, Truncated):
            return f"the body ends after {fetch.have} of {fetch.length} bytes"
        if isinstance(error, TimeoutError):
            return f"silence for {self._policy.idle_s:g} s"
        if isinstance(error, OSError) and error.strerror:
            return error.strerror
        return "the connection was closed"

    def _refuse_hopeless(self, error: Exception) -> None:
        """Raise at once what no further try can mend."""
        cause = error.os_error if isinstance(error, aiohttp.ClientConnectorDNSError) else error
        if isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_AGAIN:
            return
        if isinstance(cause, socket.gaierror) or cause is not error:
            raise SourceError("no such host", hint="check the URL") from None
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            cause = error.certificate_error
        if isinstance(cause, ssl.CertificateError):
            reason = getattr(cause, "verify_message", "not trusted")
            raise SourceError(f"the server's certificate is refused: {reason}") from None

    async def head(self) -> Source:
        """Return how the source looks now: HEAD, or one byte where that is refused."""
        await self._ready()
        try:
            answer = await self._ways.ask("HEAD", {})
            answer.release()
        except (*_TRANSIENT, aiohttp.ClientError) as error:
            self._refuse_hopeless(error)
        else:
            seen = identity_in(self._url, answer.status, answer.headers)
            if answer.status == HTTPStatus.OK and seen.size is not None:
                return seen
        sightings: list[Source] = []

        def meet(seen: Source) -> Source:
            sightings.append(seen)
            return seen

        await self.get(Fetch(0, 1, may_end=True, known=Source(self._url), meet=meet))
        return sightings[-1]


def _confirm(known: Source, seen: Source, conditions: Mapping[str, str]) -> None:
    if not is_confirmed(known, seen, conditions):
        raise _changed(known, seen)


def _changed(recorded: Source, seen: Source | None) -> SourceChanged:
    problem = f"the source changed: {phrase(412)}, asked for the source that was there before"
    error = SourceChanged(problem, hint="scan it again")
    error.recorded, error.seen = replace(recorded, url=without_query(recorded.url)), seen
    return error
