"""What zarr-python asks of its codec pipeline, in the terms of byteatlas."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from zarr.abc.store import ByteGetter, ByteRequest
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer, BufferPrototype, NDBuffer
from zarr.storage import StorePath

from byteatlas.model import VirtualArray
from byteatlas.store.contents import Answer, Contents, Slice
from byteatlas.store.lookup import Found
from byteatlas.store.reading import Wanted
from byteatlas.store.zarr_selection import box_of
from byteatlas.store.zarr_store import IndexStore

__all__ = ["Entry", "contents_of", "groups", "is_tiny", "keys_of", "wanted", "with_values"]

Entry: TypeAlias = tuple[ByteGetter, ArraySpec, Any, Any, bool]
"""Where a chunk's bytes are, its type, what is wanted of it, where that goes, if it is all of it.
(Any: zarr's selections hold numbers, slices or arrays.)"""

_MOST_HELD = 2**28
"""Chunks of so many decoded bytes are fetched at once, before any is decoded."""
_FEW, _SMALL = 2, 2**16
"""So few chunks, of so few decoded bytes together, cost less one by one than a planned read."""


def contents_of(batch: Sequence[Entry]) -> Contents | None:
    """Return what serves the chunks of a batch, None unless it is an `IndexStore`."""
    store = getattr(batch[0][0], "store", None) if batch else None
    if not isinstance(store, IndexStore):
        return None
    if all(type(entry[0]) is StorePath and entry[0].store is store for entry in batch):
        return store.contents
    return None


def keys_of(batch: Sequence[Entry]) -> list[str]:
    """Return the keys of the chunks of a batch, which are in a store."""
    return [entry[0].path for entry in batch]  # type: ignore[attr-defined]  # a StorePath


def is_tiny(batch: Sequence[Entry], contents: Contents) -> bool:
    """Tell whether zarr's default takes less time for a batch, and does the same."""
    return (
        len(batch) <= _FEW
        and len(batch) * _chunk_size(batch) <= _SMALL
        and contents.reader.on_error == "raise"
    )


def _chunk_size(batch: Sequence[Entry]) -> int:
    spec = batch[0][1]
    return math.prod(spec.shape) * spec.dtype.to_native_dtype().itemsize


def groups(batch: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    """Cut a batch into some whose bytes may be in memory together."""
    several = max(_MOST_HELD // max(_chunk_size(batch), 1), 1)
    for start in range(0, len(batch), several):
        yield batch[start : start + several]


async def with_values(contents: Contents, batch: Sequence[Entry]) -> list[Entry]:
    """Fetch the chunks of a batch, and return it with their bytes in place of where they are."""
    values = await contents.get_many(list(map(Slice, keys_of(batch))))
    return [(_Held(value), *entry[1:]) for value, entry in zip(values, batch, strict=True)]


def wanted(found: Found, batch: Sequence[Entry], out: NDBuffer) -> Wanted | None:
    """Return what a batch asks for as one selection, None where it is none."""
    array, spec, target = found.keyed.array, batch[0][1], out.as_ndarray_like()
    if not isinstance(target, np.ndarray) or spec.shape != array.chunk_shape:
        return None
    if not _holds(target.dtype, array):
        return None
    box = box_of(
        found.flat,
        [entry[2] for entry in batch],
        [entry[3] for entry in batch],
        grid=array.manifest.grid_shape,
        chunk_shape=array.chunk_shape,
        out_shape=target.shape,
    )
    if box is None:
        return None
    if not found.keyed.serves_missing:
        fill = spec.dtype.default_scalar() if spec.fill_value is None else spec.fill_value
        array = replace(array, fill_value=fill)  # what zarr says, in whichever words
    return Wanted(array, box, found.keyed.path, target)


def _holds(dtype: np.dtype[Any], array: VirtualArray) -> bool:
    """Tell whether zarr's data type holds values of an array as they are, but for byte order."""
    if array.dtype != object:
        return array.dtype.newbyteorder("=") == dtype.newbyteorder("=")
    first = array.encodings[0].codecs[0].name if array.encodings[0].codecs else ""
    return dtype.kind in "OT" and first == "vlen-utf8"


class _Held(NamedTuple):
    """The bytes of a chunk, or why there are none, in place of where they are."""

    value: Answer

    async def get(
        self, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return all bytes: zarr asks for parts of chunks only where they are shards."""
        assert byte_range is None
        if isinstance(self.value, Exception):
            raise self.value
        return None if self.value is None else prototype.buffer.from_bytes(self.value)  # type: ignore[arg-type]  # any buffer will do
