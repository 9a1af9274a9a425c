"""One connection to a web server, which puts each body where it belongs (RFC 9112).

A loop has one piece of memory for heads and what comes with them; what is left of a body is then
received straight into the caller's memory. Answers that are not of the plainest kind (chunked,
folded headers) are not read here: `NotPlain`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

from multidict import CIMultiDict

from byteatlas.errors import SourceError
from byteatlas.sources.line import LARGE, Line

__all__ = ["LEAST_PROGRESS", "Answer", "Connection", "Lost", "NotPlain", "Scratch"]

LEAST_PROGRESS = 1024
"""Fewer bytes within the idle time are silence."""
_LARGEST_HEAD = 64 * 2**10
_MOST_ANNOUNCED = 8
"""Answers that announce another (1xx), at most so many one after the other."""
_LATE = 2**17
"""So many bytes at once had been waiting to be received."""
_END = b"\r\n\r\n"
_STATUS_LINE = re.compile(r"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [^\r\n\0]*)?", re.ASCII)
_NAME = r"\r\n([!#$%&'*+.^_`|~0-9A-Za-z-]+):"
_FIELD = re.compile(_NAME + r"[ \t]*([^\r\n\0]*)", re.ASCII)
_FIELDS = re.compile(f"(?:{_NAME}[^\r\n\0]*)*", re.ASCII)
_LENGTH = re.compile(r"[0-9]{1,18}\Z", re.ASCII)
_NO_BODY = frozenset({204, 304})


class NotPlain(Exception):
    """The answer is in a form that is not read here."""


class Lost(ConnectionError):
    """The connection ended before the head of an answer did."""

    def __init__(self, *, is_stale: bool) -> None:
        super().__init__("the connection was closed")
        self.is_stale = is_stale
        """It had been used before, and nothing came this time: the server was closing it."""


class Scratch:
    """Memory that all connections of a loop receive heads into; it is emptied at once."""

    __slots__ = ("data", "view")

    def __init__(self, size: int = 2**17) -> None:
        self.data = bytearray(size)
        self.view = memoryview(self.data)


class Answer:
    """The head of an answer; its body is still to be taken. Release it in any case."""

    __slots__ = ("_connection", "_early", "_left", "filled", "headers", "is_kept", "status")

    def __init__(
        self, connection: Connection, status: int, headers: CIMultiDict[str], *, is_kept: bool
    ) -> None:
        self.status = status
        self.headers = headers
        self.filled = 0
        """Bytes that the last `fill` has put in place so far."""
        self.is_kept = is_kept
        """The server keeps the connection open."""
        self._connection = connection
        self._early = memoryview(b"")
        self._left: int | None = 0

    @property
    def is_bounded(self) -> bool:
        """The headers tell the length of the body."""
        return self._left is not None

    @property
    def has_more(self) -> bool:
        """The connection has more of the body."""
        return self._left != 0

    @property
    def is_taken(self) -> bool:
        """All of the body was taken."""
        return not self._early and self._left == 0

    def start(self, early: bytes, length: int | None) -> None:
        """Note which part of the body came with the head, and how long all of it is."""
        self._early = memoryview(early if length is None else early[:length])
        self._left = None if length is None else length - len(self._early)
        if length is not None and len(early) > length:
            self.is_kept = False  # an answer to nothing follows

    async def fill(self, view: memoryview) -> None:
        """Receive the next bytes of the body into memory, as many as fit; see `filled`.

        Raises
        ------
        TimeoutError
            Next to nothing came for the idle time.
        """
        early = self._early[: len(view)]
        self._early = self._early[len(early) :]
        view[: len(early)] = early
        self.filled = len(early)
        rest = view[len(early) :] if self._left is None else view[len(early) :][: self._left]
        if rest:
            await self._connection.receive(rest, self)

    def came(self, count: int) -> None:
        """Count bytes that the connection has put in place."""
        self.filled += count
        if self._left is not None:
            self._left -= count

    def release(self) -> None:
        """Give the connection back; it is closed where the body was not taken to its end."""
        self._connection.release(is_reusable=self.is_kept and self.is_taken)


class Connection(asyncio.BufferedProtocol):
    """A connection that answers one request at a time. Lives on the event loop."""

    def __init__(self, scratch: Scratch, line: Line) -> None:
        self.is_open = False
        self.idle_since = 0.0
        self._scratch = scratch
        self._line = line
        self._transport: asyncio.Transport
        self._loop = asyncio.get_running_loop()
        self._head = bytearray()
        self._answer: Answer | None = None
        self._into: memoryview | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._is_head_only = False
        self._is_used = False
        self._announced = 0
        self._is_gauged = False
        self._asked_at = 0.0
        self._checked_at = 0.0
        self._recent = 0
        self.given_back: Callable[[Connection], None] = _nobody

    # --- what a request does ---

    async def ask(self, request: bytes, *, is_head_only: bool = False) -> Answer:
        """Send a request and return the head of its answer.

        Raises
        ------
        Lost
            The connection ended before.
        NotPlain
            The answer is of another kind.
        TimeoutError
            The head did not come within the idle time, or one that announces another did.
        SourceError
            Only answers come that announce another.
        """
        if not self.is_open:
            raise Lost(is_stale=self._is_used)
        self._is_head_only, self._answer, self._announced = is_head_only, None, 0
        self._asked_at = self._loop.time()
        self._transport.write(request)
        await self._wait()
        answer: Answer | None = self._answer
        assert answer is not None
        return answer

    async def receive(self, view: memoryview, answer: Answer) -> None:
        """Receive into memory until it is full or the body ends."""
        if not self.is_open:
            return
        self._answer, self._into = answer, view
        self._transport.resume_reading()
        self._is_gauged = len(view) >= LARGE
        if self._is_gauged:
            self._line.begin(self._asked_at)
        try:
            await self._wait()
        finally:
            self._into = None
            if self._is_gauged:
                self._line.end()

    async def _wait(self) -> None:
        self._checked_at, self._recent = self._loop.time(), 0
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        except BaseException:
            self.close()
            raise
        finally:
            self._waiter = None

    def check(self, now: float, idle_s: float) -> None:
        """End the wait where next to nothing came for the idle time; part of a head is nothing."""
        if self._waiter is None or now - self._checked_at < idle_s:
            return
        if self._answer is None or self._recent < LEAST_PROGRESS:
            self._fail(TimeoutError())
        self._checked_at, self._recent = now, 0

    def release(self, *, is_reusable: bool) -> None:
        """Let the connection serve the next request, or close it."""
        if not is_reusable:
            self.close()
        self._is_used = True
        self.given_back(self)

    def close(self) -> None:
        """Close it at once."""
        if self.is_open:
            self.is_open = False
            self._transport.abort()

    # --- what the event loop calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.is_open = True

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # asyncio's signature
        """Return where the next bytes go."""
        return self._scratch.view if self._into is None else self._into

    def buffer_updated(self, nbytes: int) -> None:
        """Take note of bytes that have come."""
        self._recent += nbytes
        if self._into is not None:
            assert self._answer is not None
            self._answer.came(nbytes)
            self._line.came(nbytes, is_large=self._is_gauged, is_late=nbytes >= _LATE)
            self._into = self._into[nbytes:]
            if not self._into:
                self._into = None
                self._done()
        elif self._waiter is None or self._answer is not None:
            self.close()  # nothing was asked for
        else:
            while nbytes:  # what follows an answer that announces another
                nbytes = self._take_head(nbytes)

    def eof_received(self) -> None:
        """Let the transport close itself."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note that nothing more comes."""
        self.is_open = False
        if self._into is not None:
            self._done()
        else:
            self._fail(Lost(is_stale=self._is_used and not self._recent))
        if exc is not None:
            exc.__traceback__ = None  # it would hold the memory that was received into

    # --- heads ---

    def _take_head(self, count: int) -> int:
        """Read a head, where all of it came; return how many bytes follow that are no body."""
        data, start = self._scratch.data, 0
        if self._head:
            start = max(0, len(self._head) - len(_END))
            self._head += self._scratch.view[:count]
            data, count = self._head, len(self._head)
        end = data.find(_END, start, count)
        if end < 0:
            if count > _LARGEST_HEAD:
                self._fail(NotPlain("the head of the answer is too long"))
            elif data is not self._head:
                self._head += self._scratch.view[:count]
            return 0
        text = data[:end].decode("utf-8", "surrogateescape")
        early = bytes(memoryview(data)[end + len(_END) : count])
        self._head = bytearray()
        try:
            answer, length = self._read_head(text)
        except NotPlain as error:
            self._fail(error)
            return 0
        if answer.status < 200:  # the real answer follows
            self._announced += 1
            if self._announced > _MOST_ANNOUNCED:
                self._fail(SourceError("the server announces one answer after the other"))
                return 0
            self._scratch.view[: len(early)] = early
            return len(early)
        self._line.first_byte(self._loop.time() - self._asked_at)
        self._line.came(len(early), is_large=False)
        answer.start(early, length)
        self._answer = answer
        self._done()
        return 0

    def _read_head(self, text: str) -> tuple[Answer, int | None]:
        match = _STATUS_LINE.match(text)
        if match is None or match[2] == "101":
            raise NotPlain("what came is no answer of HTTP/1.1")
        if not _FIELDS.fullmatch(text, match.end()):
            raise NotPlain("a header without a name came, or one of several lines")
        status = int(match[2])
        fields = _FIELD.findall(text, match.end())
        headers = CIMultiDict([(name, value.rstrip(" \t")) for name, value in fields])
        said = headers.get("Connection", "").lower()
        is_kept = "close" not in said and (match[1] == "1" or "keep-alive" in said)
        has_body = not self._is_head_only and status >= 200 and status not in _NO_BODY
        if has_body and "Transfer-Encoding" in headers:
            raise NotPlain("the body comes in chunks")
        lengths = set(headers.getall("Content-Length", ()))
        if len(lengths) > 1 or not all(map(_LENGTH.match, lengths)):
            raise NotPlain("the answer has no length, or several")
        length = int(lengths.pop()) if lengths else None
        if not has_body:
            length = 0
        return Answer(self, status, headers, is_kept=is_kept and length is not None), length

    def _done(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            if self._answer is not None and self._answer.has_more and self.is_open:
                self._transport.pause_reading()  # until somebody says where to
            self._waiter.set_result(None)

    def _fail(self, error: Exception) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)


def _nobody(_: Connection) -> None:
    """Take back a connection that belongs to no pool."""
