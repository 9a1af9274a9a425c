"""Everything behind a network: batches become merged requests, sent together on one loop."""

from __future__ import annotations

import asyncio
import queue
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from byteatlas.errors import ByteatlasError, without_query
from byteatlas.model import WHOLE, Buffer, Request, Source
from byteatlas.sources import loop
from byteatlas.sources.identity import check_identity
from byteatlas.sources.plan import (
    ReadPlan,
    Span,
    columns,
    cut_arena,
    outside,
    plan_reads,
    spans_of,
    split_spans,
)
from byteatlas.sources.trace import LogEntry, Trace

__all__ = ["Fetch", "Meet", "Policy", "RemoteSource", "Transport"]

KIB = 2**10
MIB = 2**20

_FREE_WASTE = 256 * KIB
"""Gaps of so many bytes may always be fetched, and a quarter of the bytes asked for besides."""
_UNCHECKED = 64 * MIB
"""Above this, the size of the source is learnt before memory is taken for its bytes."""
_NOTHING = np.empty(0, np.uint8)

Meet: TypeAlias = Callable[[Source], None]
"""Called with how the source looks in an answer, before its body is read. Raises SourceChanged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How hard to press a server, and how patiently."""

    gap: int = 64 * KIB
    """Ranges at most so many bytes apart are fetched in one request."""
    max_request: int = 8 * MIB
    """Longer spans are split into requests of this length."""
    concurrency: int = 128
    """Requests in flight to one host."""
    max_in_flight: int = 128 * MIB
    """Bytes that `stream` may hold before they are taken."""
    tries: int = 6
    """How often one request is sent at most."""
    patience_s: float = 30.0
    """A host that only failed for so long is not tried again for the same request."""
    idle_s: float = 10.0
    """Silence after which a connection is given up."""


@dataclass(slots=True)
class Fetch:
    """One range on its way: what is asked, and how it goes."""

    offset: int
    length: int | None
    """None means to the end of the source."""
    may_end: bool
    """The source may end before the range does."""
    meet: Meet
    size: int | None = None
    """Size of the source, where it is known already."""
    status: int | None = None
    """Status of the last answer."""
    tries: int = 0
    """How often it was asked for."""


_Arrivals: TypeAlias = "queue.SimpleQueue[tuple[int, bytes | memoryview] | BaseException | None]"


class Transport(Protocol):
    """One source on one kind of server. Its methods are awaited on the background loop."""

    async def get(self, fetch: Fetch) -> bytes | memoryview:
        """Return the bytes of a range, of exactly the length it promises."""

    async def head(self) -> Source:
        """Return how the source looks now."""


class RemoteSource:
    """A byte source whose ranges come one by one from a transport."""

    def __init__(
        self,
        url: str,
        transport: Transport,
        *,
        policy: Policy,
        expected: Source | None,
        trace: Trace,
    ) -> None:
        self.url = url
        self.trace = trace
        self._public_url = without_query(url)
        self._transport = transport
        self._policy = policy
        self._known = replace(expected, url=url) if expected else Source(url)

    def __repr__(self) -> str:
        return f"RemoteSource({self._public_url!r})"

    @property
    def facts(self) -> Source:
        """The source as its own answers showed it so far."""
        return self._known

    def _meet(self, seen: Source) -> None:
        self._known = check_identity(self._known, seen)

    def read_head(self, length: int) -> memoryview:
        """Return the first bytes, fewer where the source is shorter, with one request.

        One more where the server does not tell the size beside a range.
        """
        self.trace.add(rounds=1)
        head = memoryview(loop.call(self._get(0, length, may_end=True)))
        if self._known.size is None:
            self._meet(self.stat())
        return head

    def read(self, batch: Sequence[Request]) -> list[Buffer]:
        """Fetch a batch of ranges in one round: merged, split, all requests sent together."""
        return self.read_spans(batch)[0]

    async def aread(self, batch: Sequence[Request]) -> list[Buffer]:
        """Do as `read`, in any event loop."""
        return (await self.aread_spans(batch))[0]

    def read_spans(self, batch: Sequence[Request]) -> tuple[list[Buffer], list[Span]]:
        """Do as `read`, and return also all that was fetched, gaps included."""
        plan = self._plan(batch)
        arena = loop.call(self._fill(plan)) if plan.offset.size else _NOTHING
        return cut_arena(batch, arena, plan.position), spans_of(plan, arena)

    async def aread_spans(self, batch: Sequence[Request]) -> tuple[list[Buffer], list[Span]]:
        """Do as `read_spans`, in any event loop."""
        plan = self._plan(batch)
        arena = await loop.call_async(self._fill(plan)) if plan.offset.size else _NOTHING
        return cut_arena(batch, arena, plan.position), spans_of(plan, arena)

    def _plan(self, batch: Sequence[Request]) -> ReadPlan:
        try:
            offset, length = columns(batch, self._known.size)
        except ByteatlasError as error:
            raise error.at(url=self._public_url) from None
        waste = int(length.sum()) // 4 + _FREE_WASTE
        return plan_reads(offset, length, gap=self._policy.gap, waste=waste)

    async def _fill(self, plan: ReadPlan) -> NDArray[np.uint8]:
        """Fetch the spans of a plan in one round, laid end to end."""
        if self._known.size is None and plan.arena_size > _UNCHECKED:
            self._meet(await self._transport.head())
        end = int(plan.offset[-1] + plan.length[-1])
        if self._known.size is not None and end > self._known.size:
            raise outside(int(plan.offset[-1]), int(plan.length[-1]), self._known.size).at(
                url=self._public_url
            )
        arena = np.empty(plan.arena_size, np.uint8)
        offsets, lengths = split_spans(plan, self._policy.max_request)
        self.trace.add(rounds=1 if offsets else 0)
        ends = np.cumsum(lengths).tolist()
        todo = iter(zip(offsets, lengths, ends, strict=True))

        async def work() -> None:
            for offset, length, end in todo:
                data = await self._get(offset, length)
                arena[end - length : end] = np.frombuffer(data, np.uint8)

        await _all_of(work() for _ in range(min(self._policy.concurrency, len(offsets))))
        return arena

    async def _get(
        self, offset: int, length: int | None, *, may_end: bool = False
    ) -> bytes | memoryview:
        size = self._known.size
        if length == 0 or (length is None and offset == size):
            return b""
        if size is not None and not may_end and offset + (length or 0) > size:
            raise outside(offset, length or 0, size).at(url=self._public_url)
        fetch = Fetch(offset, length, may_end, self._meet, size)
        data: bytes | memoryview = b""
        self.trace.begin()
        began = time.perf_counter()
        try:
            data = await self._transport.get(fetch)
        except ByteatlasError as error:
            raise error.at(url=self._public_url, offset=offset) from error.__cause__
        finally:
            seconds = time.perf_counter() - began
            self.trace.end(
                LogEntry(self._public_url, offset, len(data), fetch.status, fetch.tries, seconds)
            )
        return data

    def stream(
        self, offset: NDArray[np.uint64], length: NDArray[np.uint64]
    ) -> Iterator[tuple[int, Buffer]]:
        """Yield (row, bytes) as they arrive, with one request per row.

        A length of `WHOLE` means to the end. At most `Policy.max_in_flight` bytes (or one row)
        are under way or wait to be taken.
        """
        self.trace.add(rounds=1)
        arrived: _Arrivals = queue.SimpleQueue()
        allowance = _Allowance(self._policy.max_in_flight)
        rows = zip(offset.tolist(), length.tolist(), strict=True)
        feeding = loop.submit(self._feed(enumerate(rows), offset.size, allowance, arrived))
        try:
            while (item := arrived.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
                loop.call_soon(allowance.give_back, len(item[1]))
        finally:
            feeding.cancel()

    async def _feed(
        self,
        rows: Iterator[tuple[int, tuple[int, int]]],
        count: int,
        allowance: _Allowance,
        arrived: _Arrivals,
    ) -> None:
        async def work() -> None:
            for row, (offset, length) in rows:
                wanted = None if length == WHOLE else length
                expected = (self._known.size or offset) - offset if wanted is None else wanted
                await allowance.take(expected)
                data = await self._get(offset, wanted)
                allowance.give_back(expected - len(data))
                arrived.put((row, data))

        try:
            await _all_of(work() for _ in range(min(self._policy.concurrency, count)))
            arrived.put(None)
        except BaseException as error:
            arrived.put(error)
            raise

    async def aread_range(self, offset: int, length: int) -> Buffer:
        """Fetch one range, in any event loop; a length of `WHOLE` means to the end."""
        self.trace.add(rounds=1)
        wanted = None if length == WHOLE else length
        return await loop.call_async(self._get(offset, wanted))

    def stat(self) -> Source:
        """Ask the server how the source looks now, comparing it with nothing."""
        self.trace.add(rounds=1, requests=1)
        try:
            return loop.call(self._transport.head())
        except ByteatlasError as error:
            raise error.at(url=self._public_url) from error.__cause__

    def close(self) -> None:
        """Do nothing: connections are shared, and closed when the process ends."""


class _Allowance:
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
        await turn

    def give_back(self, count: int) -> None:
        """Return bytes, and let those go on whose turn it is."""
        self._free += count
        while self._waiting and self._fits(self._waiting[0][0]):
            count, turn = self._waiting.popleft()
            if not turn.done():
                self._free -= count
                turn.set_result(None)

    def _fits(self, count: int) -> bool:
        return self._free >= min(count, self._limit)


async def _all_of(works: Iterable[Coroutine[None, None, None]]) -> None:
    """Await coroutines together; the first error cancels the others."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
