"""The accessor ``.byteatlas`` of datasets and arrays that the engine opened.

It is registered when the engine is imported, so wherever there is something for it to work on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.coding.strings import StackedBytesArray
from xarray.core import indexing

from byteatlas.model import VirtualArray
from byteatlas.read.cost import Cost
from byteatlas.read.filled import FilledChunk, in_order
from byteatlas.read.selection import Selection
from byteatlas.store.dataset_cost import DatasetCost, cost_together
from byteatlas.store.filled_log import Filled, FilledLog
from byteatlas.store.lazy_array import LazyArray

__all__ = ["ArrayAccessor", "DatasetAccessor"]

BATCH = 64 * 2**20
"""Bytes, before they are decoded by xarray, that `DatasetAccessor.load` reads at once."""


class _Lazy(NamedTuple):
    """What a variable, not loaded yet, would read."""

    variable: xr.Variable
    array: LazyArray
    key: Selection
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
        return _cost(_lazy(self._array.variable, self._array.name))

    def load(self) -> xr.DataArray:
        """Load the array as `xarray.DataArray.load` does, together with its coordinates.

        Returns
        -------
        xarray.DataArray
            The array itself, with its values in memory.
        """
        coordinates = [one.variable for one in self._array.coords.values()]
        _load_together([self._array.variable, *coordinates])
        return self._array.load()

    @property
    def filled(self) -> list[FilledChunk]:
        """Chunks of the array that did not decode and were filled, in all reads so far.

        Each is listed once, by its index. Reads of copies count, and so do those of what was
        pickled and read in this process. What dask's workers fill in other processes is not
        listed here: the warning (`byteatlas.FilledChunks`) appears there.

        Raises
        ------
        ValueError
            The array was not opened with ``on_error="fill-and-report"``, was computed since, or
            holds more values than were opened, as what was put together of several does.
        """
        return _listed([_filled_of(self._array.variable, self._array.name)])


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
        _load_together(self._dataset.variables.values())
        return self._dataset.load()

    def cost(self) -> DatasetCost:
        """Return what `load` would take: requests, bytes, chunks and sources.

        Nothing is read. Requests are counted as they are merged by `load`, and `variables` has
        the costs of each variable alone: xarray's own ``load`` takes the sum of those. What is in
        memory already costs nothing.

        Raises
        ------
        ValueError
            A variable is of dask, or is not in memory and does not come from this engine.
        """
        items = self._dataset.variables.items()
        lazies = {name: _lazy(one, name) for name, one in items if not _is_loaded(one)}
        batches = [
            (batch[0].array.opened.reader, [_wanted(one) for one in batch])
            for batch in _batches(list(lazies.values()))
        ]
        return cost_together({str(name): _cost(one) for name, one in lazies.items()}, batches)

    @property
    def filled(self) -> list[FilledChunk]:
        """Chunks of all variables that did not decode and were filled, in all reads so far.

        Each is listed once, by the path of its array and its index; see `ArrayAccessor.filled`.

        Raises
        ------
        ValueError
            A data variable was not opened with ``on_error="fill-and-report"``, was computed
            since, or holds more values than were opened.
        """
        # Coordinates outlive what was computed of the rest, and say nothing of it.
        items = self._dataset.variables.items()
        named = self._dataset.data_vars or self._dataset.variables
        if not named:
            raise ValueError(f"{UNKNOWN} a dataset without variables")
        return _listed(
            [
                _filled_of(variable, name)
                for name, variable in items
                if name in named or "byteatlas" in variable.encoding
            ]
        )


UNKNOWN = "nothing is known of filled chunks of"


def _filled_of(variable: xr.Variable, name: Any) -> Filled:
    found: Filled | None = variable.encoding.get("byteatlas")
    if found is None:
        raise ValueError(
            f"{UNKNOWN} {name!r}: it was not opened with on_error='fill-and-report',"
            " or was computed since"
        )
    if variable.size > found.size:
        raise ValueError(
            f"{UNKNOWN} {name!r}: it holds more values than were opened, as what is put together"
            " of several datasets does; ask each of them"
        )
    return found


def _listed(several: list[Filled]) -> list[FilledChunk]:
    """Return the chunks that were filled of some arrays, each once."""
    paths: dict[FilledLog, set[str]] = {}
    for one in several:
        paths.setdefault(one.log, set()).add(one.path)
    return [
        chunk
        for log, wanted in paths.items()
        for chunk in in_order([one for one in list(log.chunks) if one.path in wanted])
    ]


def _is_loaded(variable: xr.Variable) -> bool:
    """Tell whether the values are in memory, be it beneath a selection that is still to be made."""
    data: Any = variable._data  # noqa: SLF001  # `data` would load it
    while isinstance(data, indexing.ExplicitlyIndexed) and not isinstance(data, BackendArray):
        data = getattr(data, "array", None)
    return isinstance(data, np.ndarray) or bool(variable._in_memory)  # noqa: SLF001  # no other way


def _wanted(lazy: _Lazy) -> tuple[VirtualArray, Selection, str]:
    return lazy.array.array, lazy.key, lazy.array.path


def _cost(lazy: _Lazy) -> Cost:
    array, key, path = _wanted(lazy)
    return lazy.array.opened.reader.cost(array, key, path=path)


def _load_together(variables: Iterable[xr.Variable]) -> None:
    """Load the variables that come from this engine, many with one batch of requests."""
    lazies = [one for one in map(_lazy_or_none, variables) if one]
    for batch in _batches(lazies):
        opened = batch[0].array.opened
        several = [_wanted(one) for one in batch]
        values = opened.reader.read_many(several)
        found = zip(several, values, strict=True)
        with opened.handing_over((path, key, value) for (_, key, path), value in found):
            for one in batch:
                one.variable.load()


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
    return _Lazy(variable, data, data.selection(key), taken)


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
