"""Which chunks the reads of one opening have filled, kept once in each process.

Copies of a dataset, and what a pickle of it gives, share one list with it: they are found by the
token of the opening.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

from byteatlas.read.filled import FilledChunk

__all__ = ["Filled", "FilledLog", "log_of"]


class FilledLog:
    """The chunks that were filled by reads of one opening, in this process.

    A pickle takes along what is listed so far.
    """

    __slots__ = ("__weakref__", "chunks", "token")

    def __init__(self, token: str) -> None:
        self.token = token
        self.chunks: list[FilledChunk] = []
        """Of all arrays of the index, as reads found them; a chunk that is read twice is twice
        in it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _joined, (self.token, tuple(self.chunks))


class Filled(NamedTuple):
    """The encoding ``byteatlas`` of a variable that may have chunks filled: it outlives loading."""

    path: str
    """Of the array."""
    size: int
    """How many values the array has."""
    log: FilledLog
    """Of the opening; grows as its arrays are read."""


_GUARD = Lock()
_LOGS: WeakValueDictionary[str, FilledLog] = WeakValueDictionary()


def log_of(token: str) -> FilledLog:
    """Return the list of an opening: the one that this process has of it, if there is one."""
    with _GUARD:
        found = _LOGS.get(token)
        if found is None:
            found = _LOGS[token] = FilledLog(token)
        return found


def _joined(token: str, chunks: Sequence[FilledChunk]) -> FilledLog:
    log = log_of(token)
    with _GUARD:
        known = {(one.path, one.chunk) for one in log.chunks}
        log.chunks += [one for one in chunks if (one.path, one.chunk) not in known]
    return log
