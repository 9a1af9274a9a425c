"""How patient to be with one host: pauses between tries, shared by all its sources."""

from __future__ import annotations

import asyncio
import random
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

__all__ = ["Host", "retry_after"]

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 5.0
_LONGEST_ORDERED_PAUSE_S = 60.0
_FORGOTTEN_AFTER_S = 60.0


_jitter = random.SystemRandom()  # leaves the generator that everybody shares alone


class Host:
    """What the requests to one host have seen of it. Lives on the event loop."""

    def __init__(self) -> None:
        self._failing_since: float | None = None
        self._failed_at = 0.0
        self._quiet_until = 0.0

    async def ready(self) -> None:
        """Wait as long as the host asked for."""
        delay = self._quiet_until - time.monotonic()
        if delay > 0:
            await asyncio.sleep(delay)

    def succeeded(self) -> None:
        """Note that it answered."""
        self._failing_since = None

    def pause_after(
        self, tries: int, ordered_s: float | None, *, most_tries: int, patience_s: float
    ) -> float | None:
        """Note a failure, and return how long to pause before the next try; None: give up.

        All requests to the host share its patience: a dead host costs it once, not once for
        each chunk. `ordered_s` is what the host asked for; it holds for all requests.
        """
        now = time.monotonic()
        if self._failing_since is None or now - self._failed_at > _FORGOTTEN_AFTER_S:
            self._failing_since = now
        self._failed_at = now
        if tries >= most_tries or now - self._failing_since > patience_s:
            return None
        if ordered_s is None:
            longest = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** (tries - 1))
            return _jitter.uniform(longest / 2, longest)
        ordered_s = min(ordered_s, _LONGEST_ORDERED_PAUSE_S)
        self._quiet_until = max(self._quiet_until, now + ordered_s)
        self._failing_since = self._failed_at = self._quiet_until
        return 0.0


def retry_after(value: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks for, given as a number or as a date."""
    if not value:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (date.astimezone(UTC) - datetime.now(UTC)).total_seconds())
