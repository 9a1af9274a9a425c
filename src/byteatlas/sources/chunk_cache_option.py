"""The option ``cache=``: from what people write to a cache."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TypeAlias

from byteatlas.sources.chunk_cache import ChunkCache
from byteatlas.sources.chunk_cache_disk import DiskCache
from byteatlas.sources.chunk_cache_memory import MemoryCache
from byteatlas.sources.urls import is_chained, scheme_of

__all__ = ["CacheOption", "open_cache", "parse_size"]

_UNITS = {
    "": 1,
    **{letter: 1000**power for power, letter in enumerate("kmgt", 1)},
    **{f"{letter}i": 1024**power for power, letter in enumerate("kmgt", 1)},
}
_SIZE = re.compile(r"\s*(\d{1,18}(?:\.\d{1,9})?)\s*([kmgt]i?)?b?\s*", re.IGNORECASE)
_ENDS_IN_PATH = re.compile(r":[^:]*[\\/][^:]*$")
"""What follows the last colon belongs to a path, as in ``C:\\cache``."""
_IS_PATH = re.compile(r"[.~]|(?!\w{2,}:).*[\\/]", re.DOTALL)
"""A lone word, or one with a colon, is rather a kind of cache that there is not than a folder."""
_LEAST = 2**16
_EXAMPLES = "write cache='memory:256MiB' or cache='/a/folder:20GiB'"

CacheOption: TypeAlias = "str | os.PathLike[str] | ChunkCache | None"
"""``"memory:256MiB"``, ``"/a/folder:20GiB"``, a cache that is shared, or None for none."""


def open_cache(option: CacheOption) -> ChunkCache | None:
    """Return the cache that an option means; None for None.

    No folder is made yet. Two caches in memory share nothing, even if they were opened by the
    same words; hand the same object to all that shall share one. A folder is shared by all that
    name it, in all processes.

    Parameters
    ----------
    option
        ``"memory:SIZE"``, or ``"FOLDER:SIZE"`` for a folder on a local disk. A relative folder
        has a slash, as ``"./chunks:20GiB"``; a `Path` needs none. A size is a number with a unit:
        B, kB, MB, GB, TB in powers of 1000, KiB, MiB, GiB, TiB in powers of 1024, in any case;
        the B may be left out, and without a unit it is bytes. It bounds all that the cache takes,
        and has to be given. A cache is returned as it is.

    Raises
    ------
    ValueError
        It is none of these; the message says what to write.

    Examples
    --------
    >>> open_cache("memory:256MiB")
    MemoryCache(268435456)
    >>> open_cache("20GiB")
    Traceback (most recent call last):
        ...
    ValueError: cache='20GiB' says how much, but not where; write cache='memory:256MiB' or \
cache='/a/folder:20GiB'
    """
    if option is None:
        return None
    if not isinstance(option, str | os.PathLike):
        if not callable(getattr(option, "get_many", None)):
            raise ValueError(f"cache={option!r} is no cache; {_EXAMPLES}")  # noqa: TRY004
        return option
    text = os.fspath(option)
    place, colon, size = text.rpartition(":")
    limit = parse_size(size)
    if limit is None:
        if not text.strip():
            raise ValueError(f"cache={text!r} names no cache; {_EXAMPLES}")
        is_size = colon and size and not _ENDS_IN_PATH.search(text)
        problem = f"has the size {size!r}, which is none" if is_size else "has no size"
        raise ValueError(f"cache={text!r} {problem}; {_EXAMPLES}")
    if not place.strip():
        raise ValueError(f"cache={text!r} says how much, but not where; {_EXAMPLES}")
    if limit < _LEAST:
        raise ValueError(
            f"cache={text!r} has room for {limit} bytes, less than one chunk; {_EXAMPLES}"
        )
    if place.lower() == "memory":
        return MemoryCache(limit)
    place = place.removeprefix("file://")
    if scheme_of(place) or is_chained(place):
        raise ValueError(f"cache={text!r} is no folder on a local disk; {_EXAMPLES}")
    if isinstance(option, str) and not _IS_PATH.match(place):
        raise ValueError(
            f"cache={text!r} names no kind of cache: {place!r} is not 'memory', and a folder of"
            f" that name is './{place}:{size.strip()}'; {_EXAMPLES}"
        )
    try:
        folder = Path(place).expanduser()
    except RuntimeError as error:
        raise ValueError(f"cache={text!r} is of an unknown home; {_EXAMPLES}") from error
    return DiskCache(folder.absolute(), limit)


def parse_size(text: str) -> int | None:
    """Return the number of bytes that a size such as ``20GiB`` means; None when it is none.

    >>> parse_size("1.5 KiB"), parse_size("20GB"), parse_size("4096"), parse_size("much")
    (1536, 20000000000, 4096, None)
    """
    found = _SIZE.fullmatch(text)
    if not found:
        return None
    return int(float(found[1]) * _UNITS[(found[2] or "").lower()])
