"""Everything behind a network: batches become merged requests, sent together on one loop."""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from byteatlas.errors import ByteatlasError, LimitExceeded, without_query
from byteatlas.model import WHOLE, Buffer, ByteRange, Request, Source
from byteatlas.sources import loop
from byteatlas.sources.allowance import Allowance
from byteatlas.sources.fetch import Fetch, NoRoom, Room, Transport
from byteatlas.sources.hosts import Patience
from byteatlas.sources.identity import check_identity, is_strong
from byteatlas.sources.line import Line
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

__all__ = ["Policy", "RemoteSource"]

KIB = 2**10
MIB = 2**20

_FREE_WASTE = 256 * KIB
"""Gaps of so many bytes may always be fetched, and a quarter of the bytes asked for besides."""
_NARROW = 16
"""Gaps of a sixteenth of `Policy.gap` cost less than a request on a line of 5 MB/s too."""
_NARROW_WASTE = 16 * MIB
"""They are fetched up to so many bytes in a round."""
_FEW, _AHEAD = 32, 32 * KIB
"""For a scan, a round of at most so many ranges reads so many bytes from the start of each: what a
structure points to is often near it, and one more round costs more than these bytes."""
_UNCHECKED = 64 * MIB
"""Above this, the size of the source is learnt before memory is taken for its bytes."""
_NOTHING = np.empty(0, np.uint8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How hard to press a server, and how patiently."""

    gap: int = 64 * KIB
    """Ranges at most so many bytes apart are fetched in one request.

    So many bytes take, at 120 MB/s, as long as a request: 50 ms of latency that 128 requests
    share, and 0.15 ms of CPU. Reading chunks goes by what a line has shown: `read.costs`.
    """
    max_request: int = 8 * MIB
    """Longer spans are split into requests of this length."""
    concurrency: int = 128
    """Requests in flight to one host."""
    max_in_flight: int = 32 * MIB
    """Bytes of memory that a read takes for what comes, or waits to be taken. Large bodies may be
    asked for before; they wait in their connections."""
    max_rest: int = 2**30
    """A range that goes to the end of a source is refused when it has more bytes than this."""
    tries: int = 6
    """How often one request is sent at most, and how often a failing host is asked in a row."""
    patience_s: float = 30.0
    """A host that has only failed for so long is given up."""
    total_s: float = 60.0
    """A range is not asked for again when it has got nowhere for so long."""
    idle_s: float = 10.0
    """Silence after which a connection is given up; less than 1 KiB in so long is silence."""
    first_pause_s: float = 0.1
    """The first pause between tries; each further one is twice as long, up to 5 s."""

    @property
    def patience(self) -> Patience:
        """When to try again, and when to give up."""
        return Patience(
            tries=self.tries,
            patience_s=self.patience_s,
            total_s=self.total_s,
            first_pause_s=self.first_pause_s,
        )


_Arrivals: TypeAlias = "queue.SimpleQueue[tuple[int, Buffer] | BaseException | None]"


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
        self.policy = policy
        self._known = replace(expected, url=url) if expected else Source(url)

    def __repr__(self) -> str:
        return f"RemoteSource({self._public_url!r})"

    @property
    def facts(self) -> Source:
        """The source as its own answers showed it so far."""
        return self._known

    @property
    def line(self) -> Line | None:
        """What the answers of its host have shown of the way there; None before the first."""
        return self._transport.line

    def _meet(self, seen: Source) -> Source:
        self._known = check_identity(self._known, seen)
        return self._known

    def meet(self, seen: Source) -> None:
        """Take a sighting of the source for what it is: another source is an error from now on.

        What it shows is known then, also in place of what no server can confirm.

        Raises
        ------
        SourceChanged
            It is not what is known already.
        """

        async def compare() -> None:  # between answers, which are compared too
            known = self._meet(seen)
            self._known = replace(
                known,
                etag=seen.etag if is_strong(seen.etag) else known.etag,
                last_modified=seen.last_modified or known.last_modified,
            )

        loop.call(compare())

    def read_head(self, length: int) -> memoryview:
        """Return the first bytes, fewer where the source is shorter, with one request.

        One more where the server does not tell the size beside a range.
        """
        self.trace.add(rounds=1)
        head = memoryview(loop.call(self.fetch(0, length, may_end=True)))  # type: ignore[arg-type]  # as above
        if self._known.size is None:
            self._meet(self.stat())
        return head

    def read(self, batch: Sequence[Request]) -> list[Buffer]:
        """Fetch a batch of ranges in one round: merged, split, all requests sent together."""
        plan = self._plan(batch)
        return cut_arena(batch, loop.call(self._fill(plan)), plan.position)

    async def aread(self, batch: Sequence[Request]) -> list[Buffer]:
        """Do as `read`, in any event loop."""
        plan = self._plan(batch)
        return cut_arena(batch, await loop.call_async(self._fill(plan)), plan.position)

    def read_spans(self, batch: Sequence[Request]) -> tuple[list[Buffer], list[Span]]:
        """Do as `read`, and return also all that was fetched: gaps, and what was read ahead."""
        plan = self._plan([*batch, *self._ahead(batch)])
        arena = loop.call(self._fill(plan))
        return cut_arena(batch, arena, plan.position), spans_of(plan, arena)

    async def aread_spans(self, batch: Sequence[Request]) -> tuple[list[Buffer], list[Span]]:
        """Do as `read_spans`, in any event loop."""
        plan = self._plan([*batch, *self._ahead(batch)])
        arena = await loop.call_async(self._fill(plan))
        return cut_arena(batch, arena, plan.position), spans_of(plan, arena)

    def _ahead(self, batch: Sequence[Request]) -> list[ByteRange]:
        """Return what is worth having beside a small batch; see `_FEW`."""
        size = self._known.size
        starts = [start for request in batch for start in _starts(request)]
        if size is None or len(starts) > _FEW:
            return []
        return [ByteRange(at, min(_AHEAD, size - at)) for at in starts if 0 <= at < size]

    def _plan(self, batch: Sequence[Request]) -> ReadPlan:
        try:
            offset, length = columns(batch, self._known.size)
        except ByteatlasError as error:
            raise error.at(url=self._public_url) from None
        waste = int(length.sum()) // 4 + _FREE_WASTE
        gap = self.policy.gap
        return plan_reads(
            offset,
            length,
            gap=gap,
            waste=waste,
            narrow=gap // _NARROW,
            narrow_waste=_NARROW_WASTE,
        )

    async def _fill(self, plan: ReadPlan) -> NDArray[np.uint8]:
        """Fetch the spans of a plan in one round, laid end to end."""
        if not plan.offset.size:
            return _NOTHING
        if self._known.size is None and plan.arena_size > _UNCHECKED:
            self._meet(await self._transport.head())
        end = int(plan.offset[-1] + plan.length[-1])
        if self._known.size is not None and end > self._known.size:
            raise outside(int(plan.offset[-1]), int(plan.length[-1]), self._known.size).at(
                url=self._public_url
            )
        arena = np.empty(plan.arena_size, np.uint8)
        view = arena.data
        offsets, lengths = split_spans(plan, self.policy.max_request)
        self.trace.add(rounds=1 if offsets else 0)
        ends = np.cumsum(lengths).tolist()
        todo = iter(zip(offsets, lengths, ends, strict=True))

        async def work() -> None:
            for offset, length, end in todo:
                await self.fetch(offset, length, into=view[end - length : end])

        await _all_of(work() for _ in range(min(self.policy.concurrency, len(offsets))))
        return arena

    def _meet_rest(self, offset: int, seen: Source) -> Source:
        """Do as `_meet` for an answer that holds all bytes from an offset."""
        known = self._meet(seen)
        if known.size is not None and known.size - offset > self.policy.max_rest:
            raise LimitExceeded(
                f"{known.size - offset} bytes follow, the limit is {self.policy.max_rest}",
                hint="where you trust the index, pass limits=byteatlas.Limits"
                f"(chunk={known.size - offset})",
            )
        return known

    async def fetch(
        self,
        offset: int,
        length: int | None,
        *,
        may_end: bool = False,
        into: memoryview | None = None,
        room: Room | None = None,
        came: Callable[[int], None] | None = None,
    ) -> Buffer:
        """Fetch one range, on the background loop.

        Parameters
        ----------
        offset
            First byte.
        length
            Number of bytes; None means to the end of the source.
        may_end
            The source may end before.
        into
            Where the bytes go: writable, of exactly this length. It is what is returned then.
        room
            Asked for that place once the bytes are about to come.
        came
            Told of bytes as they come.
        """
        size = self._known.size
        if length == 0 or (length is None and offset == size):
            return b""
        if size is not None and not may_end and offset + (length or 0) > size:
            raise outside(offset, length or 0, size).at(url=self._public_url)
        meet = self._meet if length is not None else partial(self._meet_rest, offset)
        fetch = Fetch(offset, length, may_end, self._known, meet, into=into, room=room, came=came)
        self.trace.begin()
        began = time.perf_counter()
        try:
            try:
                await self._transport.get(fetch)
            except NoRoom:  # it is waited for without a connection
                assert room is not None
                assert fetch.length is not None
                fetch.into = await room(fetch.length)
                await self._transport.get(fetch)
        except ByteatlasError as error:
            if error.length is None and error.offset in (None, offset):
                error.length = length
            raise error.at(url=self._public_url, offset=offset) from error.__cause__
        finally:
            seconds = time.perf_counter() - began
            self.trace.end(
                LogEntry(
                    self._public_url, offset, fetch.have, fetch.status, max(1, fetch.tries), seconds
                )
            )
        if fetch.into is None:
            return b""
        return fetch.into if fetch.have == len(fetch.into) else fetch.into[: fetch.have]

    def stream(
        self, offset: NDArray[np.uint64], length: NDArray[np.uint64]
    ) -> Iterator[tuple[int, Buffer]]:
        """Yield (row, bytes) as they arrive, with one request per row.

        A length of `WHOLE` means to the end. At most `Policy.max_in_flight` bytes (or one row)
        are under way or wait to be taken.
        """
        self.trace.add(rounds=1)
        arrived: _Arrivals = queue.SimpleQueue()
        allowance = Allowance(self.policy.max_in_flight)
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
        allowance: Allowance,
        arrived: _Arrivals,
    ) -> None:
        async def work() -> None:
            for row, (offset, length) in rows:
                wanted = None if length == WHOLE else length
                expected = (self._known.size or offset) - offset if wanted is None else wanted
                await allowance.take(expected)
                data = await self.fetch(offset, wanted)
                allowance.give_back(expected - len(data))
                arrived.put((row, data))

        try:
            await _all_of(work() for _ in range(min(self.policy.concurrency, count)))
            arrived.put(None)
        except BaseException as error:
            arrived.put(error)
            raise

    async def aread_range(self, offset: int, length: int) -> Buffer:
        """Fetch one range, in any event loop; a length of `WHOLE` means to the end."""
        self.trace.add(rounds=1)
        wanted = None if length == WHOLE else length
        return await loop.call_async(self.fetch(offset, wanted))

    def stat(self) -> Source:
        """Ask the server how the source looks now, comparing it with nothing."""
        self.trace.add(rounds=1, requests=1)
        try:
            return loop.call(self._transport.head())
        except ByteatlasError as error:
            raise error.at(url=self._public_url) from error.__cause__

    def close(self) -> None:
        """Do nothing: connections are shared, and closed when the process ends."""


def _starts(request: Request) -> list[int]:
    """Return where the ranges of a request start; of many no more than needed to see that."""
    if isinstance(request, ByteRange):
        return [request.offset]
    starts: list[int] = request.offsets[: _FEW + 1].tolist()
    return starts


async def _all_of(works: Iterable[Coroutine[None, None, None]]) -> None:
    """Await coroutines together; the first error cancels the others."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
