"""What all decoders share: the function that each is, and the bytes that go through it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

__all__ = ["Bytes", "Config", "Undo", "flat"]

Config: TypeAlias = Mapping[str, Any]  # Any: each codec's own JSON values
Bytes: TypeAlias = bytes | memoryview
Undo: TypeAlias = Callable[[Bytes, Config, int], Bytes]
"""Takes the encoded bytes, the codec's configuration and the largest number of decoded bytes.

It allocates nothing larger than that, and ends in `Malformed` where more would come out. Any
other exception it raises is taken for `Malformed` too.
"""


def flat(data: Any) -> memoryview:  # Any: whatever has the buffer protocol
    """Return one-dimensional unsigned bytes, a view where that is possible."""
    if isinstance(data, np.ndarray):
        return np.ascontiguousarray(data).reshape(-1).view(np.uint8).data
    view = memoryview(data)
    return view if view.format == "B" and view.ndim == 1 else view.cast("B")
