"""The body of an answer: as many bytes as it promised, put in their place."""

from __future__ import annotations

import zlib
from typing import Protocol

from byteatlas.errors import RangeIgnored, SourceError
from byteatlas.sources.fetch import Fetch
from byteatlas.sources.http_answers import Body

__all__ = ["Truncated", "Unread", "read_body", "read_encoded", "read_whole"]

_SPARE = 64 * 2**10
"""An encoded body may be so much longer than its bytes."""
_PIECE = 64 * 2**10
_STEP = 512 * 2**10
"""After so many bytes those who wait are told."""


class Truncated(Exception):
    """The body ended early; what arrived is kept."""


class Unread(Protocol):
    """An answer whose body is still to be taken."""

    filled: int
    """Bytes that the last `fill` has put in place so far."""

    @property
    def is_bounded(self) -> bool:
        """No more bytes can come than the headers say."""

    async def fill(self, view: memoryview) -> None:
        """Receive the next bytes, as many as fit, fewer only at the end of the body."""


async def read_body(answer: Unread, body: Body, fetch: Fetch, length: int) -> None:
    """Receive the next bytes of what is fetched, `length` of them.

    Raises
    ------
    Truncated
        Some of them did not come.
    TimeoutError
        Next to nothing came for the idle time.
    SourceError
        More came than was promised.
    """
    before = fetch.offset + fetch.have - body.offset
    after = body.length - before - length
    await _skip(answer, before)
    end = fetch.have + length
    while fetch.have < end:
        view = fetch.place(min(end - fetch.have, _STEP))
        try:
            await answer.fill(view)
        finally:
            fetch.advance(answer.filled)
        if answer.filled < len(view):
            raise Truncated
    if after:
        await _skip(answer, after)
    await _refuse_more(answer, body)


async def read_whole(answer: Unread, body: Body) -> memoryview:
    """Return all of a body; it raises as `read_body` does."""
    data = memoryview(bytearray(body.length))
    await answer.fill(data)
    if answer.filled < body.length:
        raise Truncated
    await _refuse_more(answer, body)
    return data


async def _skip(answer: Unread, count: int) -> None:
    piece = memoryview(bytearray(min(count, _PIECE)))
    while count:
        await answer.fill(piece[:count])
        if not answer.filled:
            raise Truncated
        count -= answer.filled


async def _refuse_more(answer: Unread, body: Body) -> None:
    if answer.is_bounded:
        return
    await answer.fill(memoryview(bytearray(1)))
    if answer.filled:
        raise SourceError(f"the body is longer than the {body.length} bytes promised")


async def read_encoded(answer: Unread, most: int) -> bytes:
    """Return a gzipped body inflated: at most `most` bytes, whatever it claims to hold.

    Raises
    ------
    RangeIgnored
        It holds more, is not gzip, or fails its checksum.
    Truncated, TimeoutError
        It ends early; nothing is kept.
    """
    inflater = zlib.decompressobj(wbits=47)  # the header tells gzip from zlib
    data = bytearray()
    taken = 0
    piece = memoryview(bytearray(min(most + _SPARE, _PIECE)))
    while True:
        await answer.fill(piece)
        taken += answer.filled
        try:
            data.extend(inflater.decompress(piece[: answer.filled], most + 1 - len(data)))
        except zlib.error as error:
            raise RangeIgnored("the body says that it is gzipped, and is not") from error
        if len(data) > most or taken > most + _SPARE or inflater.unused_data:
            raise RangeIgnored(f"the gzipped body holds more than the {most} bytes asked for")
        if answer.filled < len(piece):
            break
    if not inflater.eof:
        raise Truncated
    return bytes(data)
