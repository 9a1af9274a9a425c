"""What requests to one host have shown of the way there: its latency and its bandwidth."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

__all__ = ["LARGE", "Line"]

LARGE = 2**17
"""Bodies with so many bytes to come show the bandwidth; smaller ones show other delays."""

_ENOUGH = 32
"""Before so many answers nothing is known of a line: a few may have been lucky, or not."""
_TOGETHER_S = 1.0
"""Of the answers of so long the one that began soonest counts: others waited for each other."""
_WAITS = 30
"""So many of these count, the last ones."""
_RATES = 16
"""So many of the last spells of bodies under way count."""
_SPELL = 2**20
"""A spell ends with so many bytes; or when no body is under way, if it had a quarter of that."""
_LONG_SPELL = 16 * _SPELL
"""It takes more where this process was late to receive, for some came before the spell."""
_ANSWER_S = 0.5e-3
"""With more than one answer in so long it is this process that is busy, not the line."""
_SHORTEST_S = 1e-3
_KNOWN = 8 * _SPELL
"""Before so many bytes the bandwidth is not known: the first may have come in a burst."""
_BUSY = 0.4
"""A loop that computes for so much of a time is what the bytes wait for, not the line. (Over lines
of 100 MB/s it was 0.04 to 0.3, over loopback 0.5 to 0.8.)"""


class Line:
    """The way to a host, as its answers have shown it so far.

    The event loop adds to it. The properties may be read by any thread: each is one number that
    is replaced, never changed.

    Parameters
    ----------
    clock
        Tells the time in seconds.
    busy
        Tells for how many of them the loop has computed.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        busy: Callable[[], float] = time.thread_time,
    ) -> None:
        self.latency_s: float | None = None
        """Seconds until the first byte comes over a line that is not full: the least but one of
        the last half minute in which there were answers. None before there were enough."""
        self.bandwidth: float | None = None
        """Bytes a second of all bodies that are under way together: the upper quartile of the last
        spells, for some have too few bodies to fill the line. None before there were enough."""
        self.is_wider = False
        """The bandwidth is that of this process, which could not receive what came faster."""
        self._clock = clock
        self._busy = busy
        self._waits: deque[float] = deque(maxlen=_WAITS)
        self._waits_since = 0.0
        self._least_s = 0.0
        self._answers = 0
        self._begun = 0
        self._rates: deque[tuple[float, bool]] = deque(maxlen=_RATES)
        self._under_way = 0
        self._since = 0.0
        self._seconds = 0.0
        self._busy_since = self._busy_s = 0.0
        self._bytes = self._small = self._late = 0
        self._passed_over = 0
        self._shown = 0

    def first_byte(self, seconds: float) -> None:
        """Note how long an answer took to begin."""
        now = self._clock()
        self._answers += 1
        self._begun += 1
        if not self._waits or now - self._waits_since >= _TOGETHER_S:
            self._waits.append(seconds)
            self._waits_since = now
        elif seconds < self._waits[-1]:
            self._waits[-1] = seconds
        elif self._answers != _ENOUGH:
            return
        ordered = sorted(self._waits)
        self._least_s = ordered[1 if len(ordered) > 2 else 0]
        if self._answers >= _ENOUGH:
            self.latency_s = self._least_s

    def begin(self, asked_at: float) -> None:
        """Note that more of a large body (`LARGE` or more) is waited for.

        `asked_at` is when it was asked for. A latency later its bytes are on the way, and wait
        somewhere where this process is late to receive them: that shall not look like bandwidth.
        """
        if not self._under_way:
            since = min(asked_at + self._least_s, self._clock())
            self._since = max(self._since, since)
            self._busy_since = self._busy()
            if not self._bytes:
                self._begun = 0
        self._under_way += 1

    def came(self, count: int, *, is_large: bool = True, is_late: bool = False) -> None:
        """Note bytes of a body, a large one or another.

        `is_late` says that they had been waiting for this process, not it for them.
        """
        if not self._under_way:
            return
        self._bytes += count
        if is_late:
            self._late += count
        if not is_large:
            self._small += count
        if self._bytes >= _SPELL:
            self._end_spell(_SPELL)

    def end(self) -> None:
        """Note that such a body is no longer waited for."""
        self._under_way -= 1
        if not self._under_way:
            self._end_spell(_SPELL // 4)

    def _end_spell(self, least: int) -> None:
        now, busy = self._clock(), self._busy()
        self._seconds += now - self._since
        self._busy_s += busy - self._busy_since
        self._since, self._busy_since = now, busy
        is_late = (
            2 * self._late > self._bytes
            or self._begun * _ANSWER_S > self._seconds
            or self._busy_s > _BUSY * self._seconds
        )
        if self._bytes < (_LONG_SPELL if is_late else least) or self._seconds < _SHORTEST_S:
            return
        rate = self._bytes / self._seconds
        is_least = is_late and rate < (self.bandwidth or 0.0)
        self._passed_over = self._passed_over + 1 if is_least else 0
        # Else requests, or others, have kept this process from receiving.
        if 2 * self._small < self._bytes and (not is_least or self._passed_over > _RATES):
            self._show(rate, self._bytes, is_late=is_late)
        self._bytes, self._small, self._late = 0, 0, 0
        self._seconds = self._busy_s = 0.0
        self._begun = 0

    def _show(self, rate: float, nbytes: int, *, is_late: bool) -> None:
        self._rates.append((rate, is_late))
        self._shown += nbytes
        if self._shown >= _KNOWN:
            self.bandwidth = sorted(self._rates)[3 * (len(self._rates) - 1) // 4][0]
            self.is_wider = all(late for _, late in self._rates)
