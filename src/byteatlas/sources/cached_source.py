"""A source with a cache before it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from byteatlas.errors import SourceChanged, SourceError
from byteatlas.model import WHOLE, Buffer, ByteRange, Request, Source
from byteatlas.sources.byte_source import ByteSource
from byteatlas.sources.chunk_cache import ChunkCache, source_key
from byteatlas.sources.plan import Span
from byteatlas.sources.remote import RemoteSource
from byteatlas.sources.trace import Trace

__all__ = ["CachedSource"]

_GATHERED = 2**22
"""Small pieces are copied and kept together, so many bytes at a time."""


class CachedSource:
    """Answers from a cache what is kept there, and from its source the rest, which is then kept.

    What is kept is found by what the index recorded of the source. Where it recorded nothing that
    identifies the source, the source is asked once how it looks now. A read that is answered
    from the cache alone asks the source nothing, and so does not notice that it changed; once it
    is known to have changed, nothing that was kept of it is used any more.

    A head, spans for a scan, and streams are not cached.

    Parameters
    ----------
    source
        Where the bytes are.
    cache
        Where they are kept.
    recorded
        What the index says of the source.
    """

    def __init__(self, source: ByteSource, cache: ChunkCache, recorded: Source) -> None:
        self.source = source
        self.cache = cache
        self.url = source.url
        self.trace: Trace = source.trace
        self._recorded = recorded
        self._guard = threading.Lock()
        self._identity: Source | None = recorded if source_key(recorded) else None
        self._is_asked = self._identity is not None
        self._pending: list[tuple[int, bytes]] = []
        self._pending_size = 0

    def __repr__(self) -> str:
        return f"CachedSource({self.source!r}, {self.cache!r})"

    @property
    def facts(self) -> Source:
        """The source as its own answers showed it so far."""
        facts = self.source.facts
        if facts.size is None and self._identity is not None:
            return replace(facts, size=self._identity.size)
        return facts

    # What a cache adds

    @property
    def is_asked(self) -> bool:
        """Whether `identity` answers without a request."""
        return self._is_asked

    def identity(self) -> Source | None:
        """Return what ranges are kept by; None where nothing identifies the source.

        It takes a request, once, where the index recorded too little.
        """
        with self._guard:
            if not self._is_asked:
                self._is_asked = True
                seen = self.source.facts
                if source_key(seen) is None:
                    try:
                        seen = self.source.stat()
                        if isinstance(self.source, RemoteSource) and source_key(seen):
                            self.source.meet(seen)  # else the rest may be of a later version
                            seen = self.source.facts
                    except SourceError:  # reading will tell; until then nothing is kept
                        return None
                self._identity = seen if source_key(seen) else None
            return self._identity

    def _confirmed(self) -> Source | None:
        """Return what new ranges are kept by: what the source itself last answered fits it."""
        identity = self.identity()
        if identity is None or identity is self._recorded:
            return identity
        return identity if source_key(self.source.facts) == source_key(identity) else None

    def holds(self, offset: NDArray[np.int64], length: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tell which ranges are kept, shape (ranges,); a length of -1 means to the end."""
        identity = self.identity()
        if identity is None:
            return np.zeros(offset.size, bool)
        length = _closed(offset, length, identity.size)
        held = self.cache.holds(identity, offset, np.maximum(length, 0))
        return held & (length > 0)

    def kept(self, offset: NDArray[np.int64], length: NDArray[np.int64]) -> list[Buffer | None]:
        """Return the bytes of ranges, None for each that is not kept; -1 means to the end."""
        identity = self.identity()
        if identity is None:
            return [None] * offset.size
        length = _closed(offset, length, identity.size)
        known = np.flatnonzero(length > 0)
        if known.size == offset.size:
            return self.cache.get_many(identity, offset, length)
        answers: list[Buffer | None] = [None] * offset.size
        several = self.cache.get_many(identity, offset[known], length[known])
        for row, data in zip(known.tolist(), several, strict=True):
            answers[row] = data
        return answers

    def keep(self, offset: Sequence[int], data: Sequence[Buffer]) -> int:
        """Keep what was fetched: at once, or when `flush` is called or enough has come.

        Returns the bytes that wait from now on.

        Parameters
        ----------
        offset
            First byte of each piece.
        data
            The pieces. They are copied where they have to wait.
        """
        size = sum(map(len, data))
        if size >= _GATHERED // 4:
            self._put(offset, data)
            return 0
        with self._guard:
            self._pending += zip(offset, map(bytes, data), strict=True)
            self._pending_size += size
            is_enough = self._pending_size >= _GATHERED
        if is_enough:
            self.flush()
        return size

    def keep_parts(
        self,
        origin: int,
        data: Buffer,
        offset: NDArray[np.int64],
        length: NDArray[np.int64],
    ) -> int:
        """Keep parts of what was fetched, and not what lies between them.

        Parameters
        ----------
        origin
            First byte of `data` in the source.
        data
            What was fetched.
        offset, length
            First byte and number of bytes of each part, -1 for all that follow, shape (parts,).

        Returns
        -------
        int
            The bytes that wait from now on to be kept, see `keep`.
        """
        if self.identity() is None:
            return 0
        view = memoryview(data)  # type: ignore[arg-type]  # numpy arrays are buffers too
        starts: list[int] = offset.tolist()
        stops = [
            at - origin + count if count >= 0 else None
            for at, count in zip(starts, length.tolist(), strict=True)
        ]
        parts = [view[at - origin : stop] for at, stop in zip(starts, stops, strict=True)]
        return self.keep(starts, parts)

    def flush(self) -> None:
        """Keep what has been waiting for more."""
        with self._guard:
            pending, self._pending, self._pending_size = self._pending, [], 0
        if pending:
            offset, data = zip(*pending, strict=True)
            self._put(offset, data)

    def _put(self, offset: Sequence[int], data: Sequence[Buffer]) -> None:
        identity = self._confirmed()
        if identity is None:
            return
        some = [(at, piece) for at, piece in zip(offset, data, strict=True) if len(piece)]
        firsts = np.array([at for at, _ in some], np.int64)
        lengths = np.array([len(piece) for _, piece in some], np.int64)
        self.cache.put_many(identity, firsts, lengths, [piece for _, piece in some])

    def discard(self) -> None:
        """Forget all that is kept of the source."""
        with self._guard:
            self._pending, self._pending_size = [], 0
        if self._identity is not None:
            self.cache.discard(self._identity)

    # What every source does

    def read(self, batch: Sequence[Request]) -> list[Buffer]:
        """Return one buffer per request: kept ones, and the others in one round."""
        answers, lacking = self._look_up(batch)
        if lacking:
            with self._discarding():
                fetched = self.source.read([batch[number] for number in lacking])
            self._fill_in(batch, answers, lacking, fetched)
        return [answer for answer in answers if answer is not None]

    async def aread(self, batch: Sequence[Request]) -> list[Buffer]:
        """Do as `read`, in any event loop."""
        answers, lacking = await asyncio.to_thread(self._look_up, batch)
        if lacking:
            with self._discarding():
                fetched = await self.source.aread([batch[number] for number in lacking])
            await asyncio.to_thread(self._fill_in, batch, answers, lacking, fetched)
        return [answer for answer in answers if answer is not None]

    async def aread_range(self, offset: int, length: int) -> Buffer:
        """Return one range, in any event loop; a length of `WHOLE` means to the end."""
        columns = np.array([offset]), np.array([-1 if length == WHOLE else length])
        (data,) = await asyncio.to_thread(self.kept, *columns)
        if data is None:
            with self._discarding():
                data = await self.source.aread_range(offset, length)
            await asyncio.to_thread(self._put, [offset], [data])
        return data

    def _look_up(self, batch: Sequence[Request]) -> tuple[list[Buffer | None], list[int]]:
        """Return what is kept, None for the rest, and the numbers of the requests that lack."""
        offsets, lengths, counts = [], [], []
        for request in batch:
            if isinstance(request, ByteRange):
                offsets.append([request.offset])
                counts.append(1)
            else:
                offsets.append(request.offsets.tolist())
                counts.append(request.offsets.size)
            lengths.append(request.length)
        offset = np.array([at for several in offsets for at in several], np.int64)
        length = np.repeat(np.array(lengths, np.int64), counts)
        kept = iter(self.kept(offset, length))
        answers: list[Buffer | None] = []
        for request, count in zip(batch, counts, strict=True):
            pieces = [next(kept) for _ in range(count)]
            answers.append(_answer(request, pieces))
        return answers, [number for number, one in enumerate(answers) if one is None]

    def _fill_in(
        self,
        batch: Sequence[Request],
        answers: list[Buffer | None],
        lacking: Sequence[int],
        fetched: Sequence[Buffer],
    ) -> None:
        """Put what was fetched in its places, and keep it."""
        offset: list[int] = []
        data: list[Buffer] = []
        for number, answer in zip(lacking, fetched, strict=True):
            answers[number] = answer
            request = batch[number]
            if isinstance(request, ByteRange):
                offset.append(request.offset)
                data.append(answer)
            else:
                offset += request.offsets.tolist()
                data += list(answer)  # type: ignore[arg-type]  # rows of an array
        self._put(offset, data)

    @contextmanager
    def _discarding(self) -> Iterator[None]:
        """Forget what is kept of a source that turns out to have changed."""
        try:
            yield
        except SourceChanged:
            self.discard()
            raise

    def read_head(self, length: int) -> memoryview:
        """Return the first bytes, with one request."""
        return self.source.read_head(length)

    def read_spans(self, batch: Sequence[Request]) -> tuple[list[Buffer], list[Span]]:
        """Read as the source does."""
        return self.source.read_spans(batch)

    async def aread_spans(self, batch: Sequence[Request]) -> tuple[list[Buffer], list[Span]]:
        """Read as the source does."""
        return await self.source.aread_spans(batch)

    def stream(
        self, offset: NDArray[np.uint64], length: NDArray[np.uint64]
    ) -> Iterator[tuple[int, Buffer]]:
        """Stream as the source does."""
        return self.source.stream(offset, length)

    def stat(self) -> Source:
        """Ask how the source looks now."""
        return self.source.stat()

    def close(self) -> None:
        """Release what the source alone holds."""
        self.flush()
        self.source.close()


def _closed(
    offset: NDArray[np.int64], length: NDArray[np.int64], size: int | None
) -> NDArray[np.int64]:
    """Return lengths with those to the end, -1, worked out where the size is known."""
    if size is None or not (length < 0).any():
        return length
    return np.where(length < 0, size - offset, length)


def _answer(request: Request, pieces: Sequence[Buffer | None]) -> Buffer | None:
    """Return what answers a request, from its pieces; None where one lacks."""
    if any(piece is None for piece in pieces):
        return None
    if isinstance(request, ByteRange):
        return pieces[0]
    joined = b"".join(piece for piece in pieces if piece is not None)  # type: ignore[misc]  # numpy arrays are buffers too
    return np.frombuffer(joined, np.uint8).reshape(len(pieces), request.length).copy()
