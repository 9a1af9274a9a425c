"""The connections to one origin: as many as may be in use at once, kept while they are of use."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

import aiohappyeyeballs

from byteatlas.sources.addresses import InternalAddress, Resolver
from byteatlas.sources.http_connection import Answer, Connection, Lost, NotPlain, Scratch
from byteatlas.sources.line import Line

__all__ = ["Pool", "Unreachable"]

_KEPT_S = 15.0
"""A connection that was idle for longer is not used again."""
_RESOLVED_S = 10.0
"""Addresses of a host are used for so long."""
_STAGGER_S = 0.25
"""After so long another address is tried beside the first (RFC 8305)."""


class Unreachable(ConnectionError):
    """No connection could be made, for a reason that may pass."""


class Pool:
    """Connections to one origin, of which each serves one request at a time.

    Lives on the event loop.

    Parameters
    ----------
    host, port
        What to connect to; names are resolved and judged by `resolver`.
    tls
        For https: what the certificate is checked against.
    most
        Connections in use at once; further requests wait for their turn.
    idle_s
        Silence after which a wait ends, also that for a connection.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        tls: ssl.SSLContext | None,
        resolver: Resolver,
        scratch: Scratch,
        line: Line,
        most: int,
        idle_s: float,
    ) -> None:
        self.is_plain = True
        """False when an answer was not: this origin is better asked by another client."""
        self._host, self._port, self._tls = host, port, tls
        self._resolver = resolver
        self._scratch = scratch
        self._line = line
        self._most = most
        self._idle_s = idle_s
        self._loop = asyncio.get_running_loop()
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()
        self._in_use = 0
        self._turns: deque[asyncio.Future[None]] = deque()
        self._found: asyncio.Task[Sequence[Any]] | None = None
        self._found_at = 0.0
        self._is_watching = False

    async def ask(self, request: bytes, *, is_head_only: bool = False) -> Answer:
        """Send a request and return the head of its answer.

        One whose connection the server was just closing is sent again, on another.

        Raises
        ------
        Unreachable, OSError
            There is no connection.
        NotPlain, Lost, TimeoutError
            There is no answer.
        """
        while True:
            connection = await self._take()
            try:
                return await connection.ask(request, is_head_only=is_head_only)
            except BaseException as error:
                connection.release(is_reusable=False)
                if isinstance(error, Lost) and error.is_stale:
                    continue
                self.is_plain &= not isinstance(error, NotPlain)
                raise

    def forget_addresses(self) -> None:
        """Resolve the host anew for the next connection."""
        self._found = None

    async def close(self) -> None:
        """Close all connections."""
        for connection in (*self._idle, *self._busy):
            connection.close()
        self._idle.clear()

    async def _take(self) -> Connection:
        if self._in_use < self._most:
            self._in_use += 1
        else:
            turn = self._loop.create_future()
            self._turns.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._pass_on()
                raise
        connection = self._idle_one()
        if connection is None:
            try:
                connection = await self._connect()
            except BaseException:
                self._pass_on()
                raise
        self._busy.add(connection)
        if not self._is_watching:
            self._is_watching = True
            self._loop.call_later(self._idle_s / 4, self._watch)
        return connection

    def _idle_one(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open and self._loop.time() - connection.idle_since < _KEPT_S:
                return connection
            connection.close()
        return None

    def _give_back(self, connection: Connection) -> None:
        if connection not in self._busy:
            return
        self._busy.discard(connection)
        if connection.is_open:
            connection.idle_since = self._loop.time()
            self._idle.append(connection)
        self._pass_on()

    def _pass_on(self) -> None:
        while self._turns:
            turn = self._turns.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._in_use -= 1

    def _watch(self) -> None:
        """End waits in which next to nothing comes."""
        now = self._loop.time()
        for connection in tuple(self._busy):
            connection.check(now, self._idle_s)
        self._is_watching = bool(self._busy)
        if self._is_watching:
            self._loop.call_later(self._idle_s / 4, self._watch)

    async def _connect(self) -> Connection:
        try:
            async with asyncio.timeout(self._idle_s):
                link = await aiohappyeyeballs.start_connection(
                    await self._addresses(), happy_eyeballs_delay=_STAGGER_S
                )
                name = self._host.strip("[]").rstrip(".") if self._tls else None
                _, connection = await self._loop.create_connection(
                    lambda: Connection(self._scratch, self._line),
                    sock=link,
                    ssl=self._tls,
                    server_hostname=name,
                )
        except (InternalAddress, ssl.CertificateError, socket.gaierror, TimeoutError):
            raise
        except OSError as error:
            raise Unreachable(error.errno, error.strerror or str(error)) from None
        connection.given_back = self._give_back
        return connection

    async def _addresses(self) -> Sequence[Any]:
        """Return what to connect to, resolved once for all that want to know at one time."""
        now = self._loop.time()
        if self._found is None or (self._found.done() and now - self._found_at > _RESOLVED_S):
            self._found_at = now
            self._found = self._loop.create_task(self._resolve())
            self._found.add_done_callback(lambda task: task.cancelled() or task.exception())
        try:
            return await asyncio.shield(self._found)
        except BaseException:
            if self._found is not None and self._found.done():
                self._found = None
            raise

    async def _resolve(self) -> Sequence[Any]:
        host = self._host.strip("[]")
        try:
            family = socket.AF_INET6 if ip_address(host).version == 6 else socket.AF_INET
        except ValueError:
            pass
        else:
            return [_info(family, host, self._port)]
        found = await self._resolver.resolve(host, self._port)
        return [_info(one["family"], one["host"], one["port"]) for one in found]


def _info(family: int, host: str, port: int) -> Any:
    address = (host, port, 0, 0) if family == socket.AF_INET6 else (host, port)
    return family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address
