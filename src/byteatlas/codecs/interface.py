"""What all decoders share: the function that each is, and the bytes that go through it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np

__all__ = ["Bound", "Bytes", "Config", "PartStep", "Prepare", "Step", "Undo", "each", "flat"]

Config: TypeAlias = Mapping[str, Any]  # Any: each codec's own JSON values
Bytes: TypeAlias = bytes | bytearray | memoryview
Undo: TypeAlias = Callable[[Bytes, Config, int], Bytes]
"""Takes the encoded bytes, the codec's configuration and the largest number of decoded bytes.

It allocates nothing larger than that, and ends in `Malformed` where more would come out. Any
other exception it raises is taken for `Malformed` too.
"""
Step: TypeAlias = Callable[[Bytes], Bytes]
"""An `Undo` whose configuration and limit are settled: one of these undoes many chunks."""
PartStep: TypeAlias = Callable[[Bytes, int, int], Bytes]
"""Takes the encoded bytes, and the first and the last decoded byte wanted, that one exclusive."""


class Bound(NamedTuple):
    """How many bytes come out of a codec."""

    limit: int
    """At most so many..."""
    is_exact: bool
    """...or just so many, in every chunk that is right."""


Prepare: TypeAlias = Callable[[Config, Bound], Step]
"""Settles what does not depend on a chunk's bytes; raises as its step would."""


def each(undo: Undo) -> Prepare:
    """Leave everything to the step, for codecs that have nothing to settle."""

    def prepare(config: Config, bound: Bound) -> Step:
        limit = bound.limit

        def step(data: Bytes) -> Bytes:
            return undo(data, config, limit)

        return step

    return prepare


def flat(data: Any) -> memoryview:  # Any: whatever has the buffer protocol
    """Return one-dimensional unsigned bytes, a view where that is possible."""
    view = memoryview(data)
    if view.format == "B" and view.ndim == 1 and view.contiguous:
        return view
    if isinstance(data, np.ndarray):
        return np.ascontiguousarray(data).reshape(-1).view(np.uint8).data
    return view.cast("B")
