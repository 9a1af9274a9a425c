"""Bytes that may be asked for before others have come."""

from __future__ import annotations

import asyncio
from collections import deque

__all__ = ["Allowance"]


class Allowance:
    """Bytes that may still be asked for. Lives on the event loop."""

    def __init__(self, limit: int) -> None:
        self._limit = self._free = limit
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def take(self, count: int) -> None:
        """Wait until there is room for so many bytes; more than the limit waits for all of it."""
        if not self._waiting and self._fits(count):
            self._free -= count
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((count, turn))
        try:
            await turn
        except asyncio.CancelledError:
            self.give_back(count if turn.done() and not turn.cancelled() else 0)
            raise

    def give_back(self, count: int) -> None:
        """Return bytes, and let those go on whose turn it is."""
        self._free += count
        while self._waiting and (self._waiting[0][1].done() or self._fits(self._waiting[0][0])):
            count, turn = self._waiting.popleft()
            if not turn.done():
                self._free -= count
                turn.set_result(None)

    def _fits(self, count: int) -> bool:
        return self._free >= min(count, self._limit)
