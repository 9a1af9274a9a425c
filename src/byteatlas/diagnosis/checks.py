"""What a diagnosis consists of, and the checks that all kinds of sources have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Literal, NamedTuple, TypeAlias

from byteatlas.display import size
from byteatlas.errors import ByteatlasError, NotRecognised
from byteatlas.opening import is_index
from byteatlas.scanners import find_scanner

__all__ = ["Check", "Diagnosis", "Verdict", "format_check", "speed_check"]

Verdict: TypeAlias = Literal["ok", "warning", "problem"]

SLOW_LATENCY_S = 0.5
SLOW_BANDWIDTH = 2 * 10**6
"""Bytes per second."""


class Check(NamedTuple):
    """One thing that was looked at."""

    name: str
    verdict: Verdict
    """``problem`` where byteatlas cannot use the source; ``warning`` where it can, but something
    is lost."""
    found: str
    """What was seen."""
    meaning: str = ""
    """What it means, and what to do next; empty where there is nothing to do."""
    facts: Mapping[str, Any] = {}
    """The same as JSON values. (Any: each check's own.)"""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What `diagnose` found out about a URL."""

    url: str
    """Without user info and query string."""
    checks: tuple[Check, ...] = field(default_factory=tuple)
    requests: int = 0
    """How many requests it took."""

    @property
    def is_usable(self) -> bool:
        """Whether byteatlas can work with the source: no check found a problem."""
        return all(check.verdict != "problem" for check in self.checks)

    def __getitem__(self, name: str) -> Check:
        """Return the check of a name."""
        for check in self.checks:
            if check.name == name:
                return check
        raise KeyError(name)


def format_check(head: memoryview) -> Check:
    """Say which scanner recognises the first bytes of a source."""
    if is_index(head):
        return Check(
            "format",
            "ok",
            "the index of a scan, as JSON",
            "open it with byteatlas.open_dataset",
            {"format": "index"},
        )
    try:
        scanner = find_scanner(head)
    except NotRecognised as error:
        text = bytes(head[:64]).lstrip().lower()
        if text.startswith((b"<!doctype", b"<html", b"<?xml")):
            return Check(
                "format",
                "problem",
                "a web page or an error message, not a data file",
                "look at the URL in a browser: a login or a landing page may be in between",
                {"format": None},
            )
        return Check("format", "problem", error.problem, error.hint or "", {"format": None})
    except ByteatlasError as error:
        return Check("format", "problem", error.problem, error.hint or "", {"format": None})
    return Check(
        "format",
        "ok",
        f"{scanner.name}, by its first bytes",
        "byteatlas scan can index it",
        {"format": scanner.name},
    )


def speed_check(latencies_s: Sequence[float], count: int, seconds: float) -> Check:
    """Say how long a small range takes, and how many bytes come in a second.

    Parameters
    ----------
    latencies_s
        Seconds of small reads.
    count, seconds
        Bytes of a large read, and its seconds after the first byte.
    """
    latency = median(latencies_s)
    rate = count / max(seconds, 1e-6) if count >= 2**17 else None
    words = f"{latency * 1000:.3g} ms for a small range (median of {len(latencies_s)})"
    if rate is not None:
        words += f", {size(rate)}/s"
    facts = {
        "latency_s": round(latency, 6),
        "bandwidth": None if rate is None else round(rate),
        "latencies_s": [round(one, 6) for one in latencies_s],
    }
    if latency > SLOW_LATENCY_S:
        meaning = "each dependent round of a scan costs this long; scan from a machine closer to it"
        return Check("speed", "warning", words, meaning, facts)
    if rate is not None and rate < SLOW_BANDWIDTH:
        meaning = "reading many chunks will be slow; scanning reads little, and is not"
        return Check("speed", "warning", words, meaning, facts)
    return Check("speed", "ok", words, "", facts)
