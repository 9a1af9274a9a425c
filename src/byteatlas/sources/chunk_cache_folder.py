"""What the folder of a cache on disk holds, and how it is emptied."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from byteatlas.sources.chunk_cache_packs import read_batches
from byteatlas.sources.chunk_cache_space import FOLDER, PER_PACK, Pack, packs_in, remove_pack

__all__ = ["CacheUse", "empty_cache", "is_cache", "use_of_cache"]


class CacheUse(NamedTuple):
    """What a cache on disk holds."""

    size: int
    """Bytes, as its limit counts them."""
    sources: int
    chunks: int
    oldest_ns: int | None
    """When that was last used which was not used for longest, in nanoseconds since 1970."""
    newest_ns: int | None
    """When anything was last used."""


def is_cache(folder: Path) -> bool:
    """Tell whether something was kept in a folder."""
    return (folder / FOLDER).is_dir()


def use_of_cache(folder: Path) -> CacheUse:
    """Return what is kept in a folder; it takes a look at each file in it.

    Raises
    ------
    OSError
        It may not be read.
    """
    packs = list(packs_in(folder / FOLDER))
    used = [pack.used_ns for pack in packs]
    return CacheUse(
        size=sum(pack.size + PER_PACK for pack in packs),
        sources=len({os.path.dirname(pack.path) for pack in packs}),  # noqa: PTH120  # many
        chunks=sum(map(_chunks, packs)),
        oldest_ns=min(used, default=None),
        newest_ns=max(used, default=None),
    )


def empty_cache(folder: Path) -> None:
    """Remove all that is kept in a folder. What is being written meanwhile may stay.

    Raises
    ------
    OSError
        Something may not be removed.
    """
    for pack in packs_in(folder / FOLDER):
        if not remove_pack(pack.path):
            raise PermissionError(f"{pack.path} may not be removed")


def _chunks(pack: Pack) -> int:
    """Return the number of chunks in a pack; none if it has gone meanwhile."""
    with suppress(FileNotFoundError):
        handle = os.open(pack.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            batches, _, _ = read_batches(handle, 0, pack.size, Path(pack.path).parent.name)
        finally:
            os.close(handle)
        return sum(batch.offset.size for batch in batches)
    return 0
