"""The body of an answer: as many bytes as it promised, within the time it may take."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable

import aiohttp

from byteatlas.errors import RangeIgnored, SourceError
from byteatlas.sources.http_answers import Body

__all__ = ["Truncated", "read_body", "read_encoded"]

_LEAST_PROGRESS = 1024
"""Fewer bytes within the idle time are silence."""
_SPARE = 64 * 2**10
"""An encoded body may be so much longer than its bytes."""


class Truncated(Exception):
    """The body ended early; what arrived is kept."""


async def read_body(
    answer: aiohttp.ClientResponse,
    body: Body,
    offset: int,
    length: int,
    parts: list[bytes],
    idle_s: float,
) -> None:
    """Append the bytes of the source from `offset` on, as they arrive.

    Raises
    ------
    Truncated
        Some of them did not come.
    TimeoutError
        Next to nothing came for `idle_s`.
    SourceError
        More came than was promised.
    """
    at = body.offset
    end = offset + length

    def take(piece: bytes) -> None:
        nonlocal at
        start, at = at, at + len(piece)
        if at > body.offset + body.length:
            raise SourceError(f"the body is longer than the {body.length} bytes promised")
        if start >= offset and at <= end:
            parts.append(piece)
        elif at > offset and start < end:
            parts.append(piece[max(offset - start, 0) : end - start])

    await _receive(answer, take, idle_s)
    if at < end:
        raise Truncated


async def read_encoded(answer: aiohttp.ClientResponse, most: int, idle_s: float) -> bytes:
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

    def take(piece: bytes) -> None:
        nonlocal taken
        taken += len(piece)
        try:
            data.extend(inflater.decompress(piece, most + 1 - len(data)))
        except zlib.error as error:
            raise RangeIgnored("the body says that it is gzipped, and is not") from error
        if len(data) > most or taken > most + _SPARE or inflater.unused_data:
            raise RangeIgnored(f"the gzipped body holds more than the {most} bytes asked for")

    await _receive(answer, take, idle_s)
    if not inflater.eof:
        raise Truncated
    return bytes(data)


async def _receive(
    answer: aiohttp.ClientResponse, take: Callable[[bytes], None], idle_s: float
) -> None:
    since, recent = time.monotonic(), 0
    try:
        async for piece in answer.content.iter_any():
            take(piece)
            recent += len(piece)
            now = time.monotonic()
            if now - since >= idle_s:
                if recent < _LEAST_PROGRESS and not answer.content.at_eof():
                    raise TimeoutError
                since, recent = now, 0
    except (ConnectionError, aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as error:
        if isinstance(error, TimeoutError):
            raise
        raise Truncated from error
