"""How patient to be with one host: one budget of tries, shared by all requests to it.

While a host fails, one request at a time finds out whether it is back; all others wait for the
verdict. So an outage costs each range one request more, and a dead host costs one budget, not
one for each chunk.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from byteatlas.sources.line import Line

__all__ = ["Host", "Patience", "Turn", "retry_after"]

_LONGEST_ORDERED_PAUSE_S = 60.0
_FORGOTTEN_AFTER_S = 60.0

_jitter = random.SystemRandom()  # leaves the generator that everybody shares alone


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """When to try again, and when to give up."""

    tries: int = 6
    """How often one request is sent at most, and how often a failing host is asked in a row."""
    patience_s: float = 30.0
    """A host that has only failed for so long is given up."""
    total_s: float = 60.0
    """A request is not sent again when its tries have taken so long; ordered pauses excepted."""
    first_pause_s: float = 0.1
    """The first pause; each further one is twice as long, and a jitter of as much is added."""
    longest_pause_s: float = 5.0
    """No pause is longer, its jitter included."""

    def pause(self, failures: int) -> float:
        """Return how long to pause after so many failures."""
        # Not from zero: six tries shall outlast an outage of half a second in any case.
        longest = min(self.longest_pause_s, self.first_pause_s * 2 ** min(failures, 30))
        return _jitter.uniform(longest / 2, longest)


class Turn:
    """The permission to send one request."""

    __slots__ = ("verdict",)

    def __init__(self, verdict: asyncio.Future[bool] | None) -> None:
        self.verdict = verdict
        """Of a request that finds out about a failing host: what all others wait for."""


_FREE = Turn(None)


class Host:
    """What the requests to one host have seen of it. Lives on the event loop."""

    def __init__(self) -> None:
        self.problem = ""
        """How the last request failed."""
        self.takes_conditions = True
        """False when it refused a condition that held."""
        self.gave_cookies = False
        """It wants back what it gave, as hosts with a login do."""
        self.line = Line()
        """What its answers have shown of the way to it."""
        self._failing_since: float | None = None
        self._failed_at = 0.0
        self._rounds = 0
        self._quiet_until = 0.0
        self._ordered_s = 0.0
        self._next_at = 0.0
        self._verdict: asyncio.Future[bool] | None = None

    def free_turn(self) -> Turn | None:
        """Return the permission to send a request at once; None while the host fails."""
        is_quiet = self._quiet_until and self._quiet_until > time.monotonic()
        return None if is_quiet or self._failing_since is not None else _FREE

    async def turn(self) -> Turn | None:
        """Wait until a request may be sent; None: the host was given up meanwhile."""
        while True:
            delay = self._quiet_until - time.monotonic()
            if delay > 0:
                await asyncio.sleep(delay)
                continue
            if self._failing_since is None:
                return _FREE
            if time.monotonic() - self._failed_at > _FORGOTTEN_AFTER_S:
                self.succeeded()
                continue
            if self._verdict is not None:
                if not await asyncio.shield(self._verdict):
                    return None
                continue
            turn = Turn(asyncio.get_running_loop().create_future())
            self._verdict = turn.verdict
            try:
                await asyncio.sleep(max(0.0, self._next_at - time.monotonic()))
            except asyncio.CancelledError:
                self.end(turn)
                raise
            return turn

    def end(self, turn: Turn) -> None:
        """Note that a request has ended, in whatever way: others may find out now."""
        if turn.verdict is None:
            return
        if self._verdict is turn.verdict:
            self._verdict = None
        if not turn.verdict.done():
            turn.verdict.set_result(True)

    def succeeded(self) -> None:
        """Note that it answered."""
        if self._failing_since is None:
            return
        self._failing_since, self._rounds, self._ordered_s = None, 0, 0.0
        if self._verdict is not None and not self._verdict.done():
            self._verdict.set_result(True)
        self._verdict = None

    def failed(self, turn: Turn, problem: str, ordered_s: float | None, patience: Patience) -> bool:
        """Note a failure, and tell whether the host is given up.

        `ordered_s` is the pause that the host asked for; it holds for all requests.
        """
        now = time.monotonic()
        is_first = self._failing_since is None
        since = self._failing_since = now if self._failing_since is None else self._failing_since
        self._failed_at, self.problem = now, problem
        if is_first or turn.verdict is not None:
            self._rounds += 1
            self._next_at = now + patience.pause(self._rounds)
        is_out = self._ordered_s >= _LONGEST_ORDERED_PAUSE_S
        if turn.verdict is not None and (
            is_out or self._rounds >= patience.tries or now - since > patience.patience_s
        ):
            self._next_at = now
            if not turn.verdict.done():
                turn.verdict.set_result(False)
            return True
        if ordered_s is not None and not is_out:
            until = now + min(ordered_s, _LONGEST_ORDERED_PAUSE_S)
            if until > self._quiet_until:
                self._ordered_s += until - max(now, self._quiet_until)
                self._quiet_until = self._next_at = until
                self._failing_since = until
        return False


def retry_after(value: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks for, given as a number or as a date."""
    if not value:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        date = parsedate_to_datetime(value).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return max(0.0, (date - datetime.now(UTC)).total_seconds())
