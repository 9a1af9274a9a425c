"""The accessor ``.byteatlas`` of datasets and arrays that the engine opened.

It is registered when the engine is imported, so wherever there is something for it to work on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import xarray as xr
from xarray.backends import BackendArray
from xarray.coding.strings import StackedBytesArray
from xarray.core import indexing

from byteatlas.read.cost import Cost
from byteatlas.read.filled import FilledChunk
from byteatlas.store.lazy_array import LazyArray, outer_key
from byteatlas.store.opened import Filled

__all__ = ["ArrayAccessor", "DatasetAccessor"]

BATCH = 64 * 2**20
"""Bytes, before they are decoded by xarray, that `DatasetAccessor.load` reads at once."""


class _Lazy(NamedTuple):
    """What a variable, not loaded yet, would read."""

    variable: xr.Variable
    array: LazyArray
    key: tuple[Any, ...]
    """For each axis an integer, a slice, or an array of integers."""
    nbytes: int


@xr.register_dataarray_accessor("byteatlas")  # type: ignore[no-untyped-call]  # xarray's own
class ArrayAccessor:
    """What byteatlas knows of an array that it opened, and that is not loaded yet.

    Examples
    --------
    >>> ds = xr.open_dataset("index.json", engine="byteatlas")                # doctest: +SKIP
    >>> ds["temp"].isel(time=slice(0, 100)).byteatlas.cost()                  # doctest: +SKIP
    """

    def __init__(self, array: xr.DataArray) -> None:
        self._array = array

    def cost(self) -> Cost:
        """Return what loading the values would take: requests, bytes, chunks and sources.

        Nothing is read.

        Raises
        ------
        ValueError
            The array is loaded already, is of dask, or does not come from this engine.
        """
        lazy = _lazy(self._array.variable, self._array.name)
        array = lazy.array
        return array.opened.reader.cost(array.array, lazy.key, path=array.path)

    @property
    def filled(self) -> list[FilledChunk]:
        """Chunks of the array that did not decode and were filled, in all reads so far.

        What dask's workers fill in other processes, they report as warnings there.

        Raises
        ------
        ValueError
            The array was not opened with ``on_error="fill-and-report"``, or was computed since.
        """
        filled = _filled_of(self._array.variable)
        if filled is None:
            raise ValueError(
                f"nothing is known of filled chunks of {self._array.name!r}:"
                " it was not opened with on_error='fill-and-report', or was computed since"
            )
        return [chunk for chunk in filled.chunks if chunk.path == filled.path]


@xr.register_dataset_accessor("byteatlas")  # type: ignore[no-untyped-call]  # xarray's own
class DatasetAccessor:
    """What byteatlas knows of a dataset that it opened.

    Examples
    --------
    >>> ds = xr.open_dataset("index.json", engine="byteatlas")                # doctest: +SKIP
    >>> ds.isel(station=7).byteatlas.load()                                   # doctest: +SKIP
    """

    def __init__(self, dataset: xr.Dataset) -> None:
        self._dataset = dataset

    def load(self) -> xr.Dataset:
        """Load the dataset as `xarray.Dataset.load` does, but read its variables together.

        xarray loads one variable after the other, and waits for a server each time. Here the
        requests of many are merged and sent at once, 64 MiB at a time.

        Returns
        -------
        xarray.Dataset
            The dataset itself, with its values in memory.
        """
        lazies = [one for one in map(_lazy_or_none, self._dataset.variables.values()) if one]
        for batch in _batches(lazies):
            opened = batch[0].array.opened
            several = [(one.array.array, one.key, one.array.path) for one in batch]
            values = opened.reader.read_many(several)
            found = zip(several, values, strict=True)
            with opened.handing_over((path, key, value) for (_, key, path), value in found):
                for one in batch:
                    one.variable.load()
        return self._dataset.load()

    @property
    def filled(self) -> list[FilledChunk]:
        """Chunks of all variables that did not decode and were filled, in all reads so far.

        See `ArrayAccessor.filled`.
        """
        found = [_filled_of(variable) for variable in self._dataset.variables.values()]
        return [
            chunk
            for filled in found
            if filled is not None
            for chunk in filled.chunks
            if chunk.path == filled.path
        ]


def _filled_of(variable: xr.Variable) -> Filled | None:
    found = variable.encoding.get("byteatlas")
    return found if isinstance(found, Filled) else None


def _lazy(variable: xr.Variable, name: Any) -> _Lazy:
    found = _lazy_or_none(variable)
    if found is None:
        why = "its values are in memory, or it was not opened with engine='byteatlas'"
        if variable.chunks is not None:
            why = "it is an array of dask: open the dataset without chunks"
        raise ValueError(f"there is no telling what reading {name!r} would take: {why}")
    return found


def _lazy_or_none(variable: xr.Variable) -> _Lazy | None:
    """Find the array of an index beneath what xarray lays over it, and what is taken of it."""
    data: Any = variable._data  # noqa: SLF001  # `data` would load it
    key: Any = None
    while not isinstance(data, BackendArray):
        if key is not None:
            # Each of xarray's layers hands an index down to the one beneath it, unread.
            if isinstance(data, StackedBytesArray):
                key = type(key)((*key.tuple[: data.ndim], slice(None)))
                data = data.array
            else:
                data, key = indexing.apply_indexer(data, key), None
        elif isinstance(data, _INDEXED):
            data, key = data.array, data.key
        elif isinstance(data, indexing.ExplicitlyIndexed):
            data = getattr(data, "array", None)
        else:
            return None
    if not isinstance(data, LazyArray):
        return None
    if key is None:
        key = indexing.BasicIndexer((slice(None),) * data.ndim)
    taken = variable.size * data.dtype.itemsize
    return _Lazy(variable, data, outer_key(key, data.shape), taken)


_INDEXED = (indexing.LazilyIndexedArray, indexing.LazilyVectorizedIndexedArray)


def _batches(lazies: list[_Lazy]) -> Iterator[list[_Lazy]]:
    """Split arrays into batches of one reader each, bounded where they are more than one array."""
    batch: list[_Lazy] = []
    for lazy in sorted(lazies, key=lambda one: id(one.array.opened)):
        is_full = sum(one.nbytes for one in batch) + lazy.nbytes > BATCH
        if batch and (is_full or batch[0].array.opened is not lazy.array.opened):
            yield batch
            batch = []
        batch.append(lazy)
    if batch:
        yield batch
