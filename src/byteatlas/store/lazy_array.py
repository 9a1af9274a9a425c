"""An array of an index as xarray's backends have them: it is read when its values are needed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.coding.strings import create_vlen_dtype
from xarray.core import indexing

from byteatlas.index.lazy_manifest import LazyManifest
from byteatlas.model import Source, VirtualArray, VirtualGroup
from byteatlas.read.selection import Pointwise, Selection
from byteatlas.read.sequences import is_of_sequences
from byteatlas.store.opened import OpenIndex, Options, Origin, reopened

__all__ = ["LazyArray"]


class LazyArray(BackendArray):
    """An array whose values are read when xarray asks for them; of any thread, and picklable.

    A pickle says where the index is, and how it looked; it holds the array itself, with its
    chunks, only where there is no index to open again.
    """

    __slots__ = ("array", "dtype", "opened", "path", "shape")

    def __init__(self, path: str, opened: OpenIndex) -> None:
        self.array = array = opened.array(path)
        self.path = path
        self.opened = opened
        self.shape = array.shape
        self.dtype: np.dtype[Any] = array.dtype
        if array.dtype == object and not is_of_sequences(array):
            self.dtype = create_vlen_dtype(str)  # type: ignore[no-untyped-call]  # xarray's own

    def __repr__(self) -> str:
        return f"LazyArray({self.path!r}, shape={self.shape}, dtype={self.dtype})"

    def __reduce__(self) -> tuple[Any, ...]:
        if self.opened.origin is not None:
            return _from_origin, (self.opened.origin, self.path)
        array, sources = _alone(self.array, self.opened.group.sources)
        return _from_array, (self.path, array, sources, self.opened.options, self.opened.log.token)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        points = self.selection(key)
        if isinstance(points, Pointwise):
            handed = self.opened.handed(self.path, points)
            if handed is not None:
                return handed
            return self.opened.reader.read(self.array, points, path=self.path)
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._read
        )

    async def async_getitem(self, key: indexing.ExplicitIndexer) -> Any:
        """Read a selection together with all others that are asked for at the same time."""
        points = self.selection(key)
        if isinstance(points, Pointwise):
            return await self.opened.gathering.ask((self.array, points, self.path))
        return await indexing.async_explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._read_gathered
        )

    def selection(self, key: indexing.ExplicitIndexer) -> Selection:
        """Return what is read for an index of xarray's: points, or each axis by its own index."""
        is_first = self.opened.first.holds(self.path)  # in memory soon, and easily taken apart
        if isinstance(key, indexing.VectorizedIndexer) and not is_first:
            return Pointwise(key.tuple)
        outer, _ = indexing.decompose_indexer(key, self.shape, indexing.IndexingSupport.OUTER)
        return outer.tuple

    def _read(self, key: tuple[Any, ...]) -> NDArray[Any]:
        found = self._known(key)
        if found is not None:
            return found
        return self.opened.reader.read(self.array, key, path=self.path)

    async def _read_gathered(self, key: tuple[Any, ...]) -> NDArray[Any]:
        if self.opened.first.holds(self.path):
            found = await asyncio.to_thread(self._known, key)
            if found is not None:
                return found
        return await self.opened.gathering.ask((self.array, key, self.path))

    def _known(self, key: tuple[Any, ...]) -> NDArray[Any] | None:
        handed = self.opened.handed(self.path, key)
        if handed is not None:
            return handed
        if self.opened.is_decoding and self.dtype == object and key and not any(map(_is_any, key)):
            # xarray looks whether the first object is a date of cftime. None ever is.
            return np.array("", object)
        return self.opened.first.answer(self.path, key)


def _is_any(index: Any) -> bool:
    """Tell whether an index is anything but the integer 0."""
    return isinstance(index, slice) or np.ndim(index) > 0 or index != 0


def _from_origin(origin: Origin, path: str) -> LazyArray:
    return LazyArray(path, reopened(origin))


def _from_array(
    path: str, array: VirtualArray, sources: Sequence[Source], options: Options, token: str
) -> LazyArray:
    group = VirtualGroup(arrays={path.rpartition("/")[2]: array}, sources=sources)
    for name in path.split("/")[-2:0:-1]:
        group = VirtualGroup(groups={name: group}, sources=sources)
    return LazyArray(path, OpenIndex(group, options, None, token))


def _alone(array: VirtualArray, sources: Sequence[Source]) -> tuple[VirtualArray, Sequence[Source]]:
    """Return an array with those sources alone that its chunks are in."""
    if isinstance(array.manifest, LazyManifest):
        return array, sources  # it says where its columns are, and the table grows with them
    column = array.manifest.source
    if column is None:
        return array, sources[:1]
    used, position = np.unique(column, return_inverse=True)
    manifest = replace(array.manifest, source=position.astype(np.uint32))
    return replace(array, manifest=manifest), tuple(sources[at] for at in used.tolist())
