"""Threads that lend a hand to whoever decodes, shared by all reads of the process.

The thread that reads does the work itself; helpers join it where some are free. So a read never
waits for a thread, and many reads at the same time need no more threads than there are
processors.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

__all__ = ["work_together", "worker_count"]

MOST = 8
"""Threads that decode for one read, the caller's included."""

_guard = threading.Lock()
_pool: ThreadPoolExecutor | None = None


def worker_count() -> int:
    """Return how many threads may decode at the same time."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(own or 1, MOST)


def work_together(work: Callable[[], None], stop: Callable[[], None], helpers: int) -> None:
    """Run the same work on this thread and on up to so many helpers, until all have returned.

    Parameters
    ----------
    work
        Takes pieces from something shared until none is left.
    stop
        Called after an error or an interrupt: makes `work` return soon on all threads.
    helpers
        How many threads are asked to join. Those that are busy elsewhere do not.

    Raises
    ------
    BaseException
        The first error of any of them.
    """
    if helpers < 1:
        work()
        return
    helping = [_helpers().submit(_stopping(work, stop)) for _ in range(helpers)]
    try:
        work()
    except BaseException:
        stop()
        raise
    finally:
        joined: list[Future[None]] = [one for one in helping if not one.cancel()]
        try:
            wait(joined)
        except BaseException:  # they must not work on what the caller takes back
            stop()
            wait(joined)
            raise
    for one in joined:
        one.result()


def _stopping(work: Callable[[], None], stop: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        try:
            work()
        except BaseException:
            stop()
            raise

    return run


def _helpers() -> ThreadPoolExecutor:
    global _pool  # noqa: PLW0603  # a process has one such pool
    with _guard:
        if _pool is None:
            _pool = ThreadPoolExecutor(max(worker_count() - 1, 1), "byteatlas-decode")
        return _pool


def _after_fork() -> None:
    # The threads are the parent's, and the lock may be held by one of them.
    global _guard, _pool  # a process has one such pool
    _guard, _pool = threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
