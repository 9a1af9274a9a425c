"""Chunks that could not be read, and were filled because the caller asked for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from byteatlas.errors import ByteatlasError, Malformed, ShortRead, SourceChanged
from byteatlas.model import Attribute, VirtualArray

__all__ = [
    "FilledChunk",
    "FilledChunks",
    "OnError",
    "concerns_one_chunk",
    "filling_value",
    "in_order",
]

OnError: TypeAlias = Literal["raise", "fill-and-report"]
"""What to do with a chunk that cannot be read."""


class FilledChunk(NamedTuple):
    """A chunk that was filled, and why."""

    path: str
    """Of its array."""
    chunk: tuple[int, ...]
    """Its index in the chunk grid."""
    error: ByteatlasError
    """Names source, offset and length."""


class FilledChunks(UserWarning):
    """A read has filled chunks that it could not read."""

    def __init__(self, chunks: Sequence[FilledChunk]) -> None:
        text = "a chunk is filled, since it cannot be read: "
        if len(chunks) > 1:
            text = f"{len(chunks):,} chunks are filled, since they cannot be read; the first: "
        super().__init__(f"{text}{chunks[0].error}")


def concerns_one_chunk(error: ByteatlasError) -> bool:
    """Tell whether an error says that the bytes of one chunk are wrong, and nothing of others."""
    if isinstance(error, SourceChanged):
        return error.is_of_chunk
    return isinstance(error, Malformed | ShortRead)


def filling_value(array: VirtualArray) -> Any:  # Any: follows the array's dtype
    """Return what stands for values that could not be read.

    The attribute ``_FillValue`` or ``missing_value`` where the array has one that its type can
    hold: readers mask it. Else NaN for floats; else what a missing chunk reads as.
    """
    if array.dtype == object:
        return "" if array.fill_value is None else array.fill_value
    for name in ("_FillValue", "missing_value"):
        value = _exactly(array.attrs.get(name), array.dtype)
        if value is not None:
            return value
    if array.dtype.kind in "fc":
        return np.array(np.nan, array.dtype)
    if array.fill_value is not None:
        return array.fill_value
    return np.zeros((), array.dtype)


def _exactly(value: Attribute | None, dtype: np.dtype[Any]) -> NDArray[Any] | None:
    """Return the one value of an attribute as a type, None where it cannot hold it."""
    if value is None or isinstance(value, list):
        return None
    found = np.asarray(value.encode() if isinstance(value, str) else value)
    is_kin = found.dtype.kind == dtype.kind or {found.dtype.kind, dtype.kind} <= set("iufc")
    if found.size != 1 or not is_kin:
        return None
    with np.errstate(all="ignore"):
        held = found.reshape(()).astype(dtype)
    is_same = held == found or (dtype.kind in "fc" and np.isnan(found).all())
    return held if is_same else None


def in_order(filled: Sequence[FilledChunk]) -> list[FilledChunk]:
    """Return each chunk once, by array and index; of one that was read in pieces the first."""
    order = sorted(filled, key=lambda one: (one.path, one.chunk, one.error.offset or 0))
    once: dict[tuple[str, tuple[int, ...]], FilledChunk] = {}
    for one in order:
        once.setdefault((one.path, one.chunk), one)
    return list(once.values())
