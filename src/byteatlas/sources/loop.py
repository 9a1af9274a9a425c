"""One event loop on a background thread, for everything that talks to servers."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from concurrent.futures import Future
from typing import Any, TypeVar

__all__ = ["call", "call_async", "call_soon", "peek", "shared", "submit"]

T = TypeVar("T")


class _LoopThread:
    """A running event loop, and what its coroutines share."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.shared: dict[Hashable, Any] = {}  # each key's own type
        self.closers: list[Callable[[], Awaitable[None]]] = []
        self._thread = threading.Thread(target=self._run, name="byteatlas-io", daemon=True)
        self._thread.start()
        atexit.register(self._stop)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def _stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self.loop).result(timeout=10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(timeout=10)
        self.loop.close()

    async def _close(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for closer in self.closers:
            await closer()

    def forget(self) -> None:
        """Do nothing at exit: a forked child has this object, but not its thread."""
        atexit.unregister(self._stop)


_guard = threading.Lock()
_current: _LoopThread | None = None
_left_behind: list[_LoopThread] = []


def _thread() -> _LoopThread:
    global _current  # noqa: PLW0603  # a process has one such thread
    if _current is None:
        with _guard:
            if _current is None:
                _current = _LoopThread()
    return _current


def _after_fork() -> None:
    # The connections belong to the parent: they are kept from being closed by the child.
    global _guard, _current  # noqa: PLW0603  # a process has one such thread
    _guard = threading.Lock()
    if _current is not None:
        _current.forget()
        _left_behind.append(_current)
        _current = None


os.register_at_fork(after_in_child=_after_fork)


def submit(work: Coroutine[Any, Any, T]) -> Future[T]:
    """Start a coroutine on the loop, from any thread."""
    return asyncio.run_coroutine_threadsafe(work, _thread().loop)


def call(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the loop and wait for it; interrupting the wait cancels it."""
    future = submit(work)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


async def call_async(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the loop and await it in the caller's own event loop."""
    return await asyncio.wrap_future(submit(work))


def call_soon(function: Callable[..., object], *arguments: object) -> None:
    """Have a function called on the loop, from any thread."""
    _thread().loop.call_soon_threadsafe(function, *arguments)


def shared(
    key: Hashable, make: Callable[[], T], close: Callable[[T], Awaitable[None]] | None = None
) -> T:
    """Return the loop's one object of a key, made at its first use. Call it on the loop."""
    thread = _thread()
    if key not in thread.shared:
        made = thread.shared[key] = make()
        if close is not None:
            thread.closers.append(lambda: close(made))
    result: T = thread.shared[key]
    return result


def peek(key: Hashable) -> Any:  # each key's own type
    """Return the loop's object of a key if there is one already, to look at from any thread."""
    return None if _current is None else _current.shared.get(key)
