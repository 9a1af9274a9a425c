"""Memory that ranges are received into: bounded, and used again."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress

import numpy as np

from byteatlas.sources import loop

__all__ = ["LentMemory", "Loan"]

_MOST_SPARE = 32 * 2**20
"""Bytes that are kept for the next range, of all reads together."""
_KEPT_S = 10.0
"""They are given up once nobody has wanted any for so long."""


class LentMemory:
    """Memory that is lent and used again. Lives on the event loop.

    Only `give_back`, `end` and `is_lent` may be called by other threads.

    Parameters
    ----------
    limit
        Bytes that are lent at once, unless a single piece has more.
    """

    def __init__(self, limit: int) -> None:
        self.is_short = False
        """Somebody has waited for memory until it was too late."""
        self._free = self._limit = limit
        self._lent: dict[int, tuple[memoryview, memoryview]] = {}
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._returned: deque[memoryview] = deque()

    async def lend(self, count: int) -> memoryview:
        """Return memory for so many bytes, as soon as there is room for them.

        More than the limit waits until all else was given back.
        """
        size = _size_for(count)
        self._collect()
        if self._waiting or not self._fits(size):
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append((size, turn))
            self._collect()  # what was given back before anybody waited
            try:
                await turn
            except asyncio.CancelledError:
                self.is_short = True
                if turn.done() and not turn.cancelled():
                    self._free += size
                self._collect()
                raise
        else:
            self._free -= size
        whole = loop.shared("spare", _Spare).take(size)
        self._free -= len(whole) - size
        part = whole[:count]
        self._lent[id(part)] = part, whole
        return part

    def is_lent(self, part: memoryview) -> bool:
        """Tell whether a piece of memory is to be given back."""
        return id(part) in self._lent

    def give_back(self, part: memoryview) -> None:
        """Let a piece of memory be used again."""
        self._returned.append(part)
        if self._waiting:
            loop.call_soon(self._collect)

    def end(self) -> None:
        """Leave to others what was given back."""
        if self._returned:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon(self._collect)

    def take_back(self, part: memoryview) -> None:
        """Do as `give_back`, on the loop."""
        self._returned.append(part)
        self._collect()

    def _collect(self) -> None:
        while self._returned:
            _, whole = self._lent.pop(id(self._returned.popleft()))
            loop.shared("spare", _Spare).put(whole)
            self._free += len(whole)
        while self._waiting and (self._waiting[0][1].done() or self._fits(self._waiting[0][0])):
            size, turn = self._waiting.popleft()
            if not turn.done():
                self._free -= size
                turn.set_result(None)

    def _fits(self, size: int) -> bool:
        return self._free >= min(size, self._limit)


def _size_for(count: int) -> int:
    """Return how large a piece is for so many bytes: of four sizes between two powers of two."""
    step: int = 2 ** max(count.bit_length() - 3, 0)
    return -(-count // step) * step


class _Spare:
    """Pieces that nobody has. Fresh memory costs as much time as to receive into it."""

    def __init__(self) -> None:
        self._pieces: dict[int, list[memoryview]] = {}
        self._count = 0
        self._is_idle = self._is_watched = False

    def take(self, size: int) -> memoryview:
        """Return a piece of this size or the next, or a new one in place of others."""
        self._is_idle = False
        for one in (size, _size_for(size + 1)):
            some = self._pieces.get(one)
            if some:
                self._count -= one
                return some.pop()
        self._give_up(max(self._count - size, 0))
        return np.empty(size, np.uint8).data

    def put(self, piece: memoryview) -> None:
        """Keep a piece for a while."""
        self._pieces.setdefault(len(piece), []).append(piece)
        self._count += len(piece)
        self._give_up(_MOST_SPARE)
        if not self._is_watched:
            self._is_idle = False
            self._watch()

    def _give_up(self, most: int) -> None:
        while self._count > most:
            size, some = next(iter(self._pieces.items()))
            if some:
                self._count -= len(some.pop())
            else:
                del self._pieces[size]

    def _watch(self) -> None:
        if self._is_idle:
            self._give_up(0)
        self._is_watched, self._is_idle = self._count > 0, True
        if self._is_watched:
            asyncio.get_running_loop().call_later(_KEPT_S, self._watch)


class Loan:
    """Memory for one range, where it needs some."""

    def __init__(self, of: LentMemory) -> None:
        self.memory: memoryview | None = None
        """What was lent; None as long as nothing was."""
        self._of = of

    async def take(self, count: int) -> memoryview:
        """Take memory for so many bytes, as soon as there is some."""
        self.memory = await self._of.lend(count)
        return self.memory

    def end(self) -> None:
        """Give it back, if there is any."""
        if self.memory is not None:
            self._of.take_back(self.memory)
