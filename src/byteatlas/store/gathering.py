"""Answer together what is asked one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

__all__ = ["Gathering"]

Q = TypeVar("Q")
A = TypeVar("A")


class _Batch(NamedTuple, Generic[Q, A]):
    requests: list[Q]
    answers: asyncio.Task[Sequence[A | Exception]]


class Gathering(Generic[Q, A]):
    """Collects the requests made in one turn of an event loop, and has them answered as one.

    Array libraries ask for chunks one by one, many at the same time. Gathered, neighbouring
    chunks become one request to their source.

    Parameters
    ----------
    answer
        Gives an answer for each request, in order; an exception as an answer is raised where the
        request was made.
    """

    def __init__(self, answer: Callable[[list[Q]], Awaitable[Sequence[A | Exception]]]) -> None:
        self._answer = answer
        self._open: dict[asyncio.AbstractEventLoop, _Batch[Q, A]] = {}

    async def ask(self, request: Q) -> A:
        """Return the answer to one request."""
        loop = asyncio.get_running_loop()
        batch = self._open.get(loop)
        if batch is None:
            batch = self._open[loop] = _Batch([], loop.create_task(self._run(loop)))
        batch.requests.append(request)
        position = len(batch.requests) - 1
        answer = (await asyncio.shield(batch.answers))[position]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _run(self, loop: asyncio.AbstractEventLoop) -> Sequence[A | Exception]:
        await asyncio.sleep(0)  # all that ask in this turn of the loop come first
        return await self._answer(self._open.pop(loop).requests)
