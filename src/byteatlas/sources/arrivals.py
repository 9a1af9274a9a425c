"""Ranges of any number of remote sources, all in flight together, for several threads to take.

One event loop fetches them into memory that is used again as soon as a thread has done with it;
what is in flight or waits to be taken is bounded. Where the bytes are wanted as they are, they are
received straight into their place.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from byteatlas.errors import ByteatlasError, ShortRead
from byteatlas.model import Buffer
from byteatlas.sources import loop
from byteatlas.sources.allowance import Allowance
from byteatlas.sources.lent_memory import LentMemory, Loan
from byteatlas.sources.line import LARGE, Line
from byteatlas.sources.remote import RemoteSource

__all__ = ["Arrivals"]

_Item: TypeAlias = tuple[int, Buffer | ByteatlasError]
_Row: TypeAlias = tuple[int, int, int, int]
"""Row, position of its source, offset and length."""
_UNKNOWN_WINDOW = 16 * 2**20
_LEAST_WINDOW = 8 * 2**20
_FILLED = 4
"""A line is sure to be full with so many times what it brings in one latency."""
_ENDED_S, _INTERRUPTED_S = 10.0, 0.5
"""How long leaving a stream waits for what was cancelled; it takes a few turns of the loop."""


class Arrivals:
    """A stream (see `streaming.Stream`) of rows of remote sources, in the order they arrive.

    Parameters
    ----------
    sources
        What the ranges are of; the first one's policy holds for all.
    rows, owner, offset, length
        Number of each row, position of its source, and its range, of which a length of -1 means
        all that follows; each of shape (rows,).
    into
        Gives the place of a row, where it has one.
    """

    def __init__(
        self,
        sources: Sequence[RemoteSource],
        rows: NDArray[np.int64],
        owner: NDArray[np.int64],
        offset: NDArray[np.int64],
        length: NDArray[np.int64],
        into: Callable[[int], memoryview | None] | None = None,
    ) -> None:
        policy = sources[0].policy
        self._sources = sources
        self._into = into
        self._arrived: queue.SimpleQueue[_Item | BaseException | None] = queue.SimpleQueue()
        self._memory = LentMemory(policy.max_in_flight)
        self._window = Allowance(_window_of(sources[0].line))
        self._own = threading.local()
        self._is_stopped = False
        for trace in {id(one.trace): one.trace for one in sources}.values():
            trace.add(rounds=1)
        columns = (rows.tolist(), owner.tolist(), offset.tolist(), length.tolist())
        todo = zip(*columns, strict=True)
        self._feeding: asyncio.Task[None] | None = None
        self._ended = threading.Event()
        loop.call_soon(self._begin, todo, min(policy.concurrency, rows.size))

    def __enter__(self) -> Self:
        """Return the stream."""
        return self

    def __exit__(self, *error: object) -> None:
        """Cancel what is under way, and wait for its end: nothing is written to its place then."""
        self.stop()
        is_interrupted = isinstance(error[1], BaseException) and not isinstance(error[1], Exception)
        self._ended.wait(_INTERRUPTED_S if is_interrupted else _ENDED_S)
        self._memory.end()

    def __iter__(self) -> Self:
        """Return the stream."""
        return self

    def __next__(self) -> _Item:
        """Return the next row that has arrived; the memory of this thread's last one is free."""
        held: memoryview | None = getattr(self._own, "held", None)
        if held is not None:
            self._own.held = None
            self._memory.give_back(held)
        item = self._arrived.get()
        if item is None:
            self._arrived.put(None)  # for the other threads
            raise StopIteration
        if isinstance(item, BaseException):
            self._arrived.put(None)
            raise item
        data = item[1]
        if isinstance(data, memoryview) and self._memory.is_lent(data):
            self._own.held = data
        return item

    def stop(self) -> None:
        """Cancel what is under way. Threads that wait for a row see the end of the stream."""
        self._is_stopped = True
        if not self._ended.is_set():
            loop.call_soon(self._cancel)
        self._into = None  # it holds the result, and what is cancelled may live on for a while
        self._arrived.put(None)

    def _begin(self, todo: Iterator[_Row], workers: int) -> None:
        self._feeding = asyncio.get_running_loop().create_task(self._feed(todo, workers))
        self._feeding.add_done_callback(self._end)

    def _cancel(self) -> None:
        if self._feeding is not None:
            self._feeding.cancel()

    def _end(self, feeding: asyncio.Task[None]) -> None:
        self._feeding = None
        if feeding.cancelled():
            # Not by `stop`: the loop ends, and what is missing must not look like the end. (A new
            # error, for the traceback of the task's holds the result.)
            self._arrived.put(None if self._is_stopped else asyncio.CancelledError())
        self._ended.set()

    async def _feed(self, todo: Iterator[_Row], workers: int) -> None:
        tasks = [asyncio.ensure_future(self._work(todo)) for _ in range(workers)]
        try:
            await asyncio.gather(*tasks)
            self._arrived.put(None)
        except Exception as error:  # noqa: BLE001  # raised where rows are taken
            self._arrived.put(error)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, todo: Iterator[_Row]) -> None:
        """Fetch one row after the other; several of these are at work."""
        for row, position, offset, length in todo:
            source = self._sources[position]
            into = self._into
            place = None if into is None or length < 0 else into(row)
            loan = Loan(self._memory)
            try:
                if place is not None or length == 0:
                    data: Buffer | ByteatlasError = await source.fetch(offset, length, into=place)
                elif 0 < length < LARGE:
                    data = await source.fetch(offset, length, into=await loan.take(length))
                else:
                    wanted = None if length < 0 else length
                    data = await self._fetch(source, offset, wanted, loan)
            except ShortRead as error:  # of this row alone
                data = error
                loan.end()
            self._arrived.put((row, data))

    async def _fetch(
        self, source: RemoteSource, offset: int, length: int | None, loan: Loan
    ) -> Buffer:
        """Fetch a large row when there is room for it on the line; what has come makes room.

        Memory is lent to it only when its bytes are about to come. So the line stays full while
        all memory is lent to what is being decoded.
        """
        left = length or 0

        def came(count: int) -> None:
            nonlocal left
            count = min(count, left)
            left -= count
            self._window.give_back(count)

        await self._window.take(left)
        try:
            if length is not None and self._memory.is_short:  # whoever decodes is slow
                place = await loan.take(length)
                return await source.fetch(offset, length, into=place, came=came)
            return await source.fetch(offset, length, room=loan.take, came=came)
        finally:
            self._window.give_back(left)


def _window_of(line: Line | None) -> int:
    """Return how many bytes of large rows may be asked for that have not come.

    All that is under way shares the line, and arrives together: what is more than enough to fill
    it would only make the first row come later, and decoding begin later.
    """
    if line is None or line.latency_s is None or line.bandwidth is None:
        return _UNKNOWN_WINDOW
    return max(_LEAST_WINDOW, int(_FILLED * line.latency_s * line.bandwidth))
