"""What reading has cost so far: rounds, requests, bytes."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["LogEntry", "Trace"]


class LogEntry(NamedTuple):
    """One request, as it ended."""

    url: str
    """Without user info and query string."""
    offset: int
    length: int
    """Bytes that arrived."""
    status: int | None
    """HTTP status of the last answer; None where there is none."""
    tries: int
    seconds: float


@dataclass(slots=True)
class Trace:
    """Counters that every read adds to; one trace may serve any number of sources.

    A *round* is a batch that had to be waited for before the next one could be asked for. A
    *request* is one range asked of a server (its retries are not counted, but logged) or one
    system call on a local file.
    """

    keep_log: bool = False
    """Keep a `LogEntry` for each request."""
    rounds: int = 0
    requests: int = 0
    retries: int = 0
    bytes_read: int = 0
    in_flight: int = 0
    peak_in_flight: int = 0
    log: list[LogEntry] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def add(self, *, rounds: int = 0, requests: int = 0, bytes_read: int = 0) -> None:
        """Count work that is done."""
        with self._lock:
            self.rounds += rounds
            self.requests += requests
            self.bytes_read += bytes_read

    def begin(self) -> None:
        """Count a request that is being sent."""
        with self._lock:
            self.in_flight += 1
            self.peak_in_flight = max(self.peak_in_flight, self.in_flight)

    def end(self, entry: LogEntry) -> None:
        """Count a request that has ended."""
        with self._lock:
            self.in_flight -= 1
            self.requests += 1
            self.retries += entry.tries - 1
            self.bytes_read += entry.length
            if self.keep_log:
                self.log.append(entry)

    def __str__(self) -> str:
        parts = [
            _count(self.rounds, "round"),
            _count(self.requests, "request"),
            _in_units(self.bytes_read),
        ]
        if self.peak_in_flight > 1:
            parts.append(f"at most {self.peak_in_flight} in flight")
        if self.retries:
            parts.append(_count(self.retries, "repeat"))
        return ", ".join(parts)


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _in_units(count: int) -> str:
    if count < 1000:
        return f"{count} bytes"
    for unit, size in (("kB", 1e3), ("MB", 1e6), ("GB", 1e9)):
        if count < 999.5 * size:
            return f"{count / size:.3g} {unit}"
    return f"{count / 1e12:,.3g} TB"
