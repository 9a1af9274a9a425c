"""Memory that ranges are received into: bounded, and used again."""

from __future__ import annotations

import asyncio
from collections import deque

import numpy as np

from byteatlas.sources import loop

__all__ = ["LentMemory", "Loan"]

_STEP = 2**16
"""Memory is taken by multiples of this, so that it fits other ranges too."""
_MOST_SPARE = 32 * 2**20
"""Bytes that are kept for the next range, of all reads together."""
_KEPT_S = 10.0
"""They are given up once nobody has wanted any for so long."""


class LentMemory:
    """Memory that is lent and used again. Lives on the event loop.

    Only `give_back` and `is_lent` may be called by other threads.

    Parameters
    ----------
    limit
        Bytes that are held at once, unless more are asked for in one piece.
    """

    def __init__(self, limit: int) -> None:
        self._free = self._limit = limit
        self._lent: dict[int, memoryview] = {}
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._returned: deque[memoryview] = deque()

    async def lend(self, count: int) -> memoryview:
        """Return memory for so many bytes, as soon as there is room for them.

        More than the limit waits until all else was given back.
        """
        self._collect()
        if self._waiting or not self._fits(count):
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append((count, turn))
            self._collect()  # what was given back before anybody waited
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._free += count
                    self._collect()
                raise
        else:
            self._free -= count
        whole = loop.shared("spare", _Spare).take(count)
        part = whole[:count]
        self._lent[id(part)] = whole
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
        """Leave to others what was given back; may be called by any thread."""
        loop.call_soon(self._collect)

    def take_back(self, part: memoryview) -> None:
        """Do as `give_back`, on the loop."""
        self._returned.append(part)
        self._collect()

    def _collect(self) -> None:
        while self._returned:
            part = self._returned.popleft()
            whole = self._lent.pop(id(part))
            loop.shared("spare", _Spare).put(whole)
            self._free += len(part)
        while self._waiting and self._fits(self._waiting[0][0]):
            count, turn = self._waiting.popleft()
            if not turn.done():
                self._free -= count
                turn.set_result(None)

    def _fits(self, count: int) -> bool:
        return self._free >= min(count, self._limit)


class _Spare:
    """Pieces that nobody has. Fresh memory costs as much time as to receive into it."""

    def __init__(self) -> None:
        self._pieces: dict[int, list[memoryview]] = {}
        self._count = 0
        self._is_idle = self._is_watched = False

    def take(self, count: int) -> memoryview:
        """Return a piece of about this size, or a new one in place of others."""
        self._is_idle = False
        most = 2 * count + _STEP
        fitting = [size for size, some in self._pieces.items() if some and count <= size <= most]
        if fitting:
            size = min(fitting)
            self._count -= size
            return self._pieces[size].pop()
        size = -(-count // _STEP) * _STEP
        self._give_up(max(self._count - size, 0))
        return np.empty(size, np.uint8).data

    def put(self, piece: memoryview) -> None:
        """Keep a piece for a while."""
        self._pieces.setdefault(len(piece), []).append(piece)
        self._count += len(piece)
        self._give_up(_MOST_SPARE)
        if not self._is_watched:
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
