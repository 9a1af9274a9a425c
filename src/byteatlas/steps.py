"""Parsers without I/O: generators that ask for batches of byte ranges.

A parser yields a batch of requests, is handed one buffer for each, and returns its result:

    def read_tail(size: int) -> Steps[bytes]:
        (tail,) = yield [ByteRange(size - 8, 8)]
        return bytes(tail)

`together` runs many parsers in lockstep and asks for everything they want in one batch, so the
number of dependent rounds follows the depth of a format's structures, never their number.
`run` and `run_async` are the two drivers.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from byteatlas.model import Buffer, ByteRange, Request

__all__ = [
    "BatchReader",
    "Followers",
    "Steps",
    "both",
    "chase",
    "from_head",
    "run",
    "run_async",
    "together",
]

T = TypeVar("T")
U = TypeVar("U")

Steps: TypeAlias = Generator[Sequence[Request], Sequence[Buffer], T]
"""A parser: yields batches of requests, receives one buffer per request, returns a T."""

Followers: TypeAlias = "Steps[Iterable[Followers]]"
"""A parser whose result is the parsers to run after it; see `chase`."""


class BatchReader(Protocol):
    """Whatever can answer a batch of requests in one round."""

    def read(self, batch: Sequence[Request]) -> Sequence[Buffer]:
        """Return one buffer per request, each of exactly the length asked for."""

    async def aread(self, batch: Sequence[Request]) -> Sequence[Buffer]:
        """Do as `read`, in any event loop."""


def together(parsers: Iterable[Steps[T]]) -> Steps[list[T]]:
    """Run parsers in lockstep: each round asks for what all of them want, in one batch.

    The results come in the order of the parsers. An error in one parser ends all of them, so a
    parser that must not harm its neighbours catches its own.
    """
    results: list[T] = []
    active: list[tuple[int, Steps[T], int]] = []
    batch: list[Request] = []
    for position, parser in enumerate(parsers):
        results.append(None)  # type: ignore[arg-type]  # replaced when the parser returns
        try:
            asked = next(parser)
        except StopIteration as stop:
            results[position] = stop.value
        else:
            active.append((position, parser, len(asked)))
            batch.extend(asked)
    replies: Sequence[Buffer] = ()
    while active:
        replies = ()  # let go of the last round's bytes before the next ones arrive
        replies = yield batch
        batch, waiting, start = [], active, 0
        active = []
        for position, parser, count in waiting:
            try:
                asked = parser.send(replies[start : start + count])
            except StopIteration as stop:
                results[position] = stop.value
            else:
                active.append((position, parser, len(asked)))
                batch.extend(asked)
            start += count
    return results


def both(first: Steps[T], second: Steps[U]) -> Steps[tuple[T, U]]:
    """Run two parsers of different results in lockstep."""
    parsers: tuple[Steps[Any], Steps[Any]] = (first, second)
    one, other = yield from together(parsers)
    return one, other


def chase(parsers: Iterable[Followers]) -> Steps[None]:
    """Run parsers in lockstep, and with them, at once, the parsers that they return.

    Where what to read next is only known as one reads (the objects of a file, group by group),
    each parser leaves its result with whoever made it and returns the parsers that follow from
    it. They join the very next round, so the number of rounds is that of the longest chain.
    """
    active: list[tuple[Followers, int]] = []
    batch: list[Request] = []
    fresh = list(parsers)
    replies: Sequence[Buffer] = ()
    while True:
        waiting, active, batch, start = active, [], [], 0
        for parser, count in waiting:
            try:
                asked = parser.send(replies[start : start + count])
            except StopIteration as stop:
                fresh += stop.value
            else:
                active.append((parser, len(asked)))
                batch.extend(asked)
            start += count
        while fresh:
            parser = fresh.pop()
            try:
                asked = next(parser)
            except StopIteration as stop:
                fresh += stop.value
            else:
                active.append((parser, len(asked)))
                batch.extend(asked)
        if not active:
            return
        replies = ()
        replies = yield batch


def from_head(parser: Steps[T], head: memoryview) -> Steps[T]:
    """Answer a parser at once whenever all it asks for lies in bytes that are at hand.

    In lockstep a parser waits for its neighbours. With this it goes on while the head has what it
    needs, and joins them in a later step of its own chain.

    Parameters
    ----------
    head : the first bytes of the source.
    """
    try:
        asked = next(parser)
        while True:
            if all(_is_in(request, len(head)) for request in asked):
                asked = parser.send([_cut(request, head) for request in asked])
            else:
                asked = parser.send((yield asked))
    except StopIteration as stop:
        result: T = stop.value
        return result


def _is_in(request: Request, size: int) -> bool:
    if isinstance(request, ByteRange):
        return 0 <= request.offset <= request.offset + request.length <= size
    if not request.offsets.size:
        return 0 <= request.length <= size
    return 0 <= request.length <= int(request.offsets.max()) + request.length <= size


def _cut(request: Request, head: memoryview) -> Buffer:
    if isinstance(request, ByteRange):
        return head[request.offset : request.offset + request.length]
    places = len(head) - request.length + 1
    everywhere: NDArray[np.uint8] = np.ndarray(
        (places, request.length), np.uint8, head, strides=(1, 1)
    )
    return everywhere[request.offsets.astype(np.int64)]


def run(steps: Steps[T], reader: BatchReader) -> T:
    """Drive a parser to its end, reading each batch with `reader.read`."""
    try:
        batch = next(steps)
        while True:
            batch = steps.send(reader.read(batch) if batch else ())
    except StopIteration as stop:
        result: T = stop.value
        return result


async def run_async(steps: Steps[T], reader: BatchReader) -> T:
    """Drive a parser to its end, awaiting each batch from `reader.aread`."""
    try:
        batch = next(steps)
        while True:
            batch = steps.send(await reader.aread(batch) if batch else ())
    except StopIteration as stop:
        result: T = stop.value
        return result
