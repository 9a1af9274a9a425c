"""Answer together what is asked one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

__all__ = ["Gathering", "together"]

Q = TypeVar("Q")
A = TypeVar("A")

_MOST_TURNS = 16
"""A batch is sent after so many turns of the loop, even where each still brings requests."""


class _Batch(NamedTuple, Generic[Q, A]):
    requests: list[Q]
    answers: list[asyncio.Future[A]]
    """One for each request; its asker waits for it, and may give up on it."""


class Gathering(Generic[Q, A]):
    """Collects the requests made together in an event loop, and has them answered as one.

    Array libraries ask for chunks one by one, many at the same time. Gathered, neighbouring
    chunks become one request to their source. A batch is complete when a turn of the loop brought
    no more to it.

    Parameters
    ----------
    answer
        Gives an answer for each request, in order; an exception as an answer is raised where the
        request was made.
    """

    def __init__(self, answer: Callable[[list[Q]], Awaitable[Sequence[A | Exception]]]) -> None:
        self._answer = answer
        self._open: dict[asyncio.AbstractEventLoop, _Batch[Q, A]] = {}
        self._running: set[asyncio.Task[None]] = set()

    async def ask(self, request: Q) -> A:
        """Return the answer to one request."""
        loop = asyncio.get_running_loop()
        batch = self._open.get(loop)
        if batch is None:
            batch = self._open[loop] = _Batch([], [])
            task = loop.create_task(self._run(loop, batch))
            self._running.add(task)  # a loop alone holds its tasks weakly
            task.add_done_callback(self._running.discard)
        answer: asyncio.Future[A] = loop.create_future()
        batch.requests.append(request)
        batch.answers.append(answer)
        return await answer

    async def _run(self, loop: asyncio.AbstractEventLoop, batch: _Batch[Q, A]) -> None:
        try:
            try:
                await _until_complete(batch.requests)
            finally:
                del self._open[loop]
            answers = await self._answer(batch.requests)
            for waiting, answer in zip(batch.answers, answers, strict=True):
                _tell(waiting, answer)
        except BaseException as error:
            for waiting in batch.answers:
                _tell(waiting, error)
            if not isinstance(error, Exception):
                raise


async def together(works: Sequence[Coroutine[Any, Any, A]]) -> list[A]:
    """Await coroutines side by side; one alone without a task of its own, which would cost."""
    return [await works[0]] if len(works) == 1 else await asyncio.gather(*works)


async def _until_complete(requests: Sequence[Q]) -> None:
    """Wait until a turn of the loop brings no more requests."""
    for _ in range(_MOST_TURNS):
        count = len(requests)
        await asyncio.sleep(0)
        if len(requests) == count:
            return


def _tell(waiting: asyncio.Future[A], answer: A | BaseException) -> None:
    """Give an answer to who waits for it, unless he gave up or has one."""
    if waiting.done():
        return
    if isinstance(answer, Exception):
        waiting.set_exception(answer)
    elif isinstance(answer, BaseException):
        waiting.cancel()
    else:
        waiting.set_result(answer)
