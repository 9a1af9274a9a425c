"""Bytes that a scan has fetched once are not fetched again."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from byteatlas.model import Buffer, ByteRange, ByteRanges, Request, Source
from byteatlas.sources.byte_source import ByteSource
from byteatlas.sources.plan import Span, check_inside, gather_rows
from byteatlas.sources.trace import Trace

__all__ = ["CachedReader"]

MIB = 2**20


class _Missing(NamedTuple):
    """A request, or rows of one, that is not kept."""

    place: int
    request: Request
    rows: NDArray[np.bool_] | None
    """Which rows of the answer the request is for; None for all of it."""


class CachedReader:
    """Reads a source for one scan, and keeps what it read. Not for several threads at once.

    A batch that is wholly answered from what is kept costs no round. Gaps that were fetched
    between merged ranges are kept too. Batches above `largest_batch` bytes are handed on without
    being kept, and when `limit` is reached everything but the head is dropped.

    Parameters
    ----------
    source
        What `open_source` returns.
    limit
        Bytes kept at most, beside the head.
    largest_batch
        Bytes of a batch that is still kept.
    """

    def __init__(
        self, source: ByteSource, *, limit: int = 64 * MIB, largest_batch: int = 32 * MIB
    ) -> None:
        self.source = source
        self._limit = limit
        self._largest_batch = largest_batch
        self._head = memoryview(b"")
        # Disjoint spans in ascending order, the head first.
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._spans: list[memoryview] = []
        self._kept = 0

    def __repr__(self) -> str:
        return f"CachedReader({self.source!r})"

    @property
    def url(self) -> str:
        """URL of the source."""
        return self.source.url

    @property
    def trace(self) -> Trace:
        """Trace of the source."""
        return self.source.trace

    @property
    def facts(self) -> Source:
        """The source as seen so far."""
        return self.source.facts

    def read_head(self, length: int) -> memoryview:
        """Return the first bytes, fewer where the source is shorter; fetch only what lacks."""
        have, size = len(self._head), self.facts.size
        wanted = length if size is None else min(length, size)
        if wanted > have:
            if have:
                (more,), _ = self.source.read_spans([ByteRange(have, wanted - have)])
                self._head = memoryview(bytes(self._head) + bytes(more))
            else:
                self._head = self.source.read_head(length)
            self._keep_head_alone()
        return self._head[:wanted]

    def read(self, batch: Sequence[Request]) -> list[Buffer]:
        """Return one buffer per request, in one round or none."""
        if len(self._head) == self.facts.size:
            return [self._from_head(request) for request in batch]
        answers, missing = self._look_up(batch)
        if missing:
            fetched = self.source.read_spans([lack.request for lack in missing])
            self._fill_in(answers, missing, fetched)
        return cast("list[Buffer]", answers)

    async def aread(self, batch: Sequence[Request]) -> list[Buffer]:
        """Do as `read`, in any event loop."""
        if len(self._head) == self.facts.size:
            return [self._from_head(request) for request in batch]
        answers, missing = self._look_up(batch)
        if missing:
            fetched = await self.source.aread_spans([lack.request for lack in missing])
            self._fill_in(answers, missing, fetched)
        return cast("list[Buffer]", answers)

    def _from_head(self, request: Request) -> Buffer:
        """Answer from the head, which is the whole source."""
        check_inside(request, len(self._head))
        if isinstance(request, ByteRange):
            return self._head[request.offset : request.offset + request.length]
        return _rows(self._head, request.offsets.astype(np.int64), request.length)

    def _look_up(self, batch: Sequence[Request]) -> tuple[list[Buffer | None], list[_Missing]]:
        """Return what is kept, None for the rest, and what lacks."""
        answers: list[Buffer | None] = []
        missing: list[_Missing] = []
        starts, ends = self._starts, self._ends
        for place, request in enumerate(batch):
            if not isinstance(request, ByteRange):
                answers.append(self._look_up_rows(place, request, missing))
                continue
            offset, length = request
            span = bisect_right(starts, offset) - 1
            if span >= 0 and length >= 0 and offset + length <= ends[span]:
                start = offset - starts[span]
                answers.append(self._spans[span][start : start + length])
            else:
                answers.append(None)
                missing.append(_Missing(place, request, None))
        return answers, missing

    def _look_up_rows(
        self, place: int, request: ByteRanges, missing: list[_Missing]
    ) -> NDArray[np.uint8] | None:
        offset, length = request.offsets.astype(np.int64), request.length
        span = np.searchsorted(np.array(self._starts, np.int64), offset, side="right") - 1
        room = np.array([*self._ends, 0], np.int64)[span] - length  # span -1 finds the last, 0
        is_kept = (span >= 0) & (offset <= room)
        if not is_kept.any() or length < 0:
            missing.append(_Missing(place, request, None))
            return None
        rows = np.empty((offset.size, length), np.uint8)
        for one in np.unique(span[is_kept]).tolist():
            here = is_kept & (span == one)
            rows[here] = _rows(self._spans[one], offset[here] - self._starts[one], length)
        if not is_kept.all():
            rest = ByteRanges(request.offsets[~is_kept], length)
            missing.append(_Missing(place, rest, ~is_kept))
        return rows

    def _fill_in(
        self,
        answers: list[Buffer | None],
        missing: list[_Missing],
        fetched: tuple[list[Buffer], list[Span]],
    ) -> None:
        """Put what was fetched in its places, and keep it."""
        buffers, spans = fetched
        for lack, buffer in zip(missing, buffers, strict=True):
            rows = answers[lack.place]
            if lack.rows is not None and isinstance(rows, np.ndarray):
                rows[lack.rows] = buffer
            else:
                answers[lack.place] = buffer
        size = sum(len(span.data) for span in spans)
        if size > self._largest_batch:
            return
        if self._kept + size > self._limit:
            self._keep_head_alone()
        for span in spans:
            self._keep(span)

    def _keep(self, span: Span) -> None:
        """Add a span. No span lies inside another, so starts and ends both ascend."""
        start, end = span.offset, span.offset + len(span.data)
        first = bisect_left(self._starts, start)
        if first and self._ends[first - 1] >= end:
            return
        last = bisect_right(self._ends, end, first)
        self._kept += len(span.data) - sum(map(len, self._spans[first:last]))
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]
        self._spans[first:last] = [span.data]

    def _keep_head_alone(self) -> None:
        self._starts, self._ends, self._spans = [0], [len(self._head)], [self._head]
        self._kept = 0


def _rows(data: memoryview, offset: NDArray[np.int64], length: int) -> NDArray[np.uint8]:
    return gather_rows(np.frombuffer(data, np.uint8), offset, length)
