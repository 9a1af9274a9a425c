"""How large, deep and long an index may be, and what is read through it.

An index is somebody's claim. Each limit is checked before memory is taken for what it bounds.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from typing import Any

from byteatlas.errors import LimitExceeded

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds for what an index may ask of its reader; all can be raised or lowered.

    Examples
    --------
    >>> byteatlas.open_dataset("index.json", limits=Limits(inline=2**28))    # doctest: +SKIP
    >>> Limits(url=10).check("url", 11, "a URL")
    Traceback (most recent call last):
        ...
    byteatlas.errors.LimitExceeded: a URL takes 11, the limit is 10; where you trust the index, \
pass limits=byteatlas.Limits(url=11)
    """

    index: int = 2 * 2**30
    """Bytes of an index: as it is stored, and of its text when decompressed. Of a Parquet index,
    bytes of each of its files."""
    expansion: int = 100
    """Times that the text of a compressed index may be larger than it; 16 MiB are always
    allowed."""
    depth: int = 16
    """Objects and lists in each other in JSON text."""
    keys: int = 2**25
    """References and metadata documents of an index, those of ``gen`` included. Of a Parquet
    index, references of one of its files."""
    generated: int = 10_000_000
    """References that the section ``gen`` describes, counted before they are made."""
    url: int = 8 * 2**10
    """Characters of a URL, and of a template before and after its expansion."""
    template_depth: int = 2
    """Templates in templates."""
    inline: int = 16 * 2**20
    """Bytes of one inlined chunk, as it is encoded."""
    attribute: int = 64 * 2**20
    """Bytes of one attribute in memory."""
    codecs: int = 8
    """Codecs of one encoding."""
    chunk: int = 2**30
    """Bytes of one chunk, as it is stored and when decoded. (Of chunks without codecs that are
    not sealed, only what is wanted is read, and only that is counted.)"""
    cells: int = 2**27
    """Chunks that one read may touch, missing ones included."""
    result: int | None = None
    """Bytes of the result of one read; None means the memory of this machine."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value: Any = getattr(self, field.name)
            if value is None and field.name == "result":
                continue
            if type(value) is not int or value < 0:
                raise ValueError(f"the limit {field.name!r} is {value!r}, expected a whole number")

    def check(self, name: str, value: int, what: str) -> None:
        """Refuse a value above one of the limits.

        Parameters
        ----------
        name
            Of the limit.
        value
            What is asked for, in the limit's own unit.
        what
            What asks for it, for the message.

        Raises
        ------
        LimitExceeded
            It is above the limit.
        """
        limit = getattr(self, name)
        limit = _memory() if limit is None else limit
        if value > limit:
            raise LimitExceeded(
                f"{what} takes {value}, the limit is {limit}",
                hint=f"where you trust the index, pass limits=byteatlas.Limits({name}={value})",
            )


def _memory() -> int:
    """Return the bytes of memory that this machine has; no limit where it does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # not on every system
        return 2**63
