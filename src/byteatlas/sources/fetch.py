"""One byte range on its way from a server, whatever the protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np

from byteatlas.errors import SourceError
from byteatlas.model import Buffer, Source
from byteatlas.sources.line import Line

__all__ = ["Fetch", "Meet", "NoRoom", "Room", "Transport", "given_up"]

Meet: TypeAlias = Callable[[Source], Source]
"""Called with how the source looks in an answer, before its body is read.

Returns what is known from then on. Raises SourceChanged.
"""


Room: TypeAlias = Callable[[int], Awaitable[memoryview]]
"""Gives memory for so many bytes, as soon as there is some."""

_ROOM_S = 5.0
"""A connection is kept for so long by a body for which there is no memory yet."""


class NoRoom(Exception):
    """There was no memory for a body in time. Others may have it, and wait for a connection."""


@dataclass(slots=True)
class Fetch:
    """One range on its way: what is asked, and how it goes."""

    offset: int
    length: int | None
    """None means to the end of the source."""
    may_end: bool
    """The source may end before the range does."""
    known: Source
    """What is known of the source; only this source's bytes are wanted."""
    meet: Meet
    status: int | None = None
    """Status of the last answer."""
    tries: int = 0
    """How often it was asked for."""
    is_renewed: bool = False
    """Other credentials were asked for already."""
    into: memoryview | None = None
    """Where the bytes go."""
    room: Room | None = None
    """Where the bytes go is asked of this once they are about to come; None: it is new memory."""
    have: int = 0
    """Bytes that have come."""
    came: Callable[[int], None] | None = None
    """Told of bytes as they come."""

    async def make_room(self) -> None:
        """Have a place for the bytes of a body that is about to come.

        Raises
        ------
        NoRoom
            There is none; the connection is to be left to others.
        """
        if self.into is None and self.room is not None and self.length is not None:
            try:
                async with asyncio.timeout(_ROOM_S):
                    self.into = await self.room(self.length)
            except TimeoutError:
                raise NoRoom from None

    def place(self, count: int) -> memoryview:
        """Return where the next bytes go; memory is taken when they are promised."""
        if self.into is None:
            assert self.length is not None  # it is known when bytes come
            self.into = np.empty(self.length, np.uint8).data
        return self.into[self.have : self.have + count]

    def take(self, data: Buffer) -> None:
        """Put bytes that have come in their place."""
        view = memoryview(data)  # type: ignore[arg-type]  # what has the protocol
        self.place(len(view))[:] = view
        self.advance(len(view))

    def advance(self, count: int) -> None:
        """Count bytes that have come to their place."""
        self.have += count
        if self.came is not None:
            self.came(count)


def given_up(
    fetch: Fetch, problem: str, seconds: float, kind: type[SourceError] = SourceError
) -> SourceError:
    """Return the error for a range that could not be had in all its tries."""
    times = f"{fetch.tries} time" if fetch.tries == 1 else f"{fetch.tries} times"
    tried = f"tried {times} in {seconds:.1f} s"
    if not fetch.tries:
        tried = f"not tried again: the host failed all others for {seconds:.1f} s"
    return kind(f"{problem}, {tried}", offset=fetch.offset, length=fetch.length)


class Transport(Protocol):
    """One source on one kind of server. Its methods are awaited on the background loop."""

    async def get(self, fetch: Fetch) -> None:
        """Put the bytes of a range in their place: exactly as many as it promises.

        Raises
        ------
        SourceError
            They could not be had.
        NoRoom
            See `Fetch.make_room`; nothing is lost, it may be called again.
        """

    async def head(self) -> Source:
        """Return how the source looks now."""

    @property
    def line(self) -> Line | None:
        """What is known of the way there; may be read by any thread."""
