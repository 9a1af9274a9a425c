"""An index, or a legacy file, as an xarray dataset: ``xr.open_dataset(x, engine="byteatlas")``.

Variables, attributes and encodings are handed to xarray's own decoding as its netCDF4 engine
hands them, so that both engines give identical datasets. Values come through `byteatlas.read`,
not through zarr-python.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import AbstractDataStore, BackendEntrypoint
from xarray.backends.store import StoreBackendEntrypoint
from xarray.core import indexing

from byteatlas.display import printable
from byteatlas.errors import without_query
from byteatlas.limits import Limits
from byteatlas.model import Attribute, VirtualArray, VirtualGroup
from byteatlas.read.filled import OnError
from byteatlas.read.sequences import is_of_sequences
from byteatlas.sources.chunk_cache_option import CacheOption
from byteatlas.sources.urls import absolute_url
from byteatlas.store import accessor as _accessor  # noqa: F401  # registers itself
from byteatlas.store.dask_chunks import dask_chunks
from byteatlas.store.filled_log import Filled
from byteatlas.store.first_reads import FirstReads, first_reads, is_short
from byteatlas.store.lazy_array import LazyArray
from byteatlas.store.opened import OpenIndex, Options, open_with

__all__ = ["ByteatlasBackendEntrypoint"]

MOST_NAMED = 20
"""So many groups at most are named where one is not found."""


class ByteatlasBackendEntrypoint(BackendEntrypoint):
    """Opens an index (path, URL, JSON object, `VirtualGroup`) or scans a legacy file."""

    description = "Open byteatlas and kerchunk indexes, and legacy files, by byte ranges"
    supports_groups = True
    open_dataset_parameters = (
        "filename_or_obj",
        "mask_and_scale",
        "decode_times",
        "concat_characters",
        "decode_coords",
        "drop_variables",
        "use_cftime",
        "decode_timedelta",
        "group",
        "storage_options",
        "allow",
        "limits",
        "on_error",
        "chunk_cache",
    )

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Tell whether this is an index that byteatlas wrote; never so of a legacy file."""
        if isinstance(filename_or_obj, VirtualGroup):
            return True
        if isinstance(filename_or_obj, Mapping):
            return "byteatlas" in filename_or_obj
        if not isinstance(filename_or_obj, str | os.PathLike):
            return False
        path = Path(filename_or_obj)
        try:
            with (path / ".zmetadata" if path.is_dir() else path).open("rb") as file:
                return b"".join(file.read(256).split()).startswith(b'{"byteatlas":')
        except (OSError, ValueError):
            return False

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        group: str | None = None,
        storage_options: Mapping[str, Any] | None = None,
        allow: Sequence[str] = (),
        limits: Limits | None = None,
        on_error: OnError = "raise",
        chunk_cache: CacheOption = None,
        **decoders: Any,
    ) -> xr.Dataset:
        """Return one group as a dataset.

        Parameters
        ----------
        filename_or_obj
            An index, or a legacy file, as for `byteatlas.open_dataset`.
        drop_variables
            Names of variables to leave out.
        group
            Path of the group; the root by default.
        storage_options
            How to reach the index and its sources, in the words of fsspec.
        allow
            Prefixes of URLs that the index may name, see `byteatlas.open_index`.
        limits
            How large the index may be and what is read, see `byteatlas.Limits`.
        on_error
            What to do with a chunk that does not decode: "raise", or "fill-and-report", which
            fills it, warns, and lists it in ``dataset.byteatlas.filled``.
        chunk_cache
            Where to keep bytes that were fetched, such as ``"memory:256MiB"`` or
            ``"/a/folder:20GiB"``. (xarray's own option ``cache`` is about decoded values.)
        **decoders
            Of xarray's decoding, such as ``decode_times``.
        """
        options = _options(storage_options, allow, limits, on_error, chunk_cache)
        opened = open_with(filename_or_obj, options)
        path, wanted = _find(opened.group, group, filename_or_obj)
        ((_, dataset),) = _decoded(opened, [(path, wanted)], drop_variables, decoders)
        return dataset

    def open_datatree(self, filename_or_obj: Any, **options: Any) -> xr.DataTree:
        """Return all groups, or all below ``group``, as a tree. Takes what `open_dataset` takes."""
        datasets = self.open_groups_as_dict(filename_or_obj, **options)
        tree = xr.DataTree.from_dict(datasets)
        for path, dataset in datasets.items():
            tree[path].set_close(dataset.close)
        return tree

    def open_groups_as_dict(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        group: str | None = None,
        storage_options: Mapping[str, Any] | None = None,
        allow: Sequence[str] = (),
        limits: Limits | None = None,
        on_error: OnError = "raise",
        chunk_cache: CacheOption = None,
        **decoders: Any,
    ) -> dict[str, xr.Dataset]:
        """Return all groups as datasets, by path from `group`. Takes what `open_dataset` takes."""
        options = _options(storage_options, allow, limits, on_error, chunk_cache)
        opened = open_with(filename_or_obj, options)
        top, wanted = _find(opened.group, group, filename_or_obj)
        groups = list(wanted.walk(top))
        return {
            path[len(top) :] or "/": dataset
            for path, dataset in _decoded(opened, groups, drop_variables, decoders)
        }


def _options(
    storage_options: Mapping[str, Any] | None,
    allow: Sequence[str],
    limits: Limits | None,
    on_error: OnError,
    chunk_cache: CacheOption,
) -> Options:
    return Options(
        storage_options=storage_options,
        allow=tuple(allow),
        limits=limits,
        on_error=on_error,
        cache=chunk_cache,
    )


def _find(root: VirtualGroup, group: str | None, target: Any) -> tuple[str, VirtualGroup]:
    """Return the path ("" for the root) and the group that a user's path names."""
    parts = [part for part in (group or "").split("/") if part]
    try:
        found = root["/".join(parts)]
    except KeyError:
        found = None
    if not isinstance(found, VirtualGroup):
        raise OSError(printable(_not_found(root, group, target, is_array=found is not None)))
    return "".join(f"/{part}" for part in parts), found


def _not_found(root: VirtualGroup, group: str | None, target: Any, *, is_array: bool) -> str:
    """Return a line that says what was looked for, where, and which groups there are."""
    is_named = isinstance(target, str | os.PathLike)
    where = f"{without_query(absolute_url(target))}: " if is_named else ""
    what = f"group not found: {group}{', which is a variable' if is_array else ''}"
    paths = [path for path, _ in islice(root.walk(), 1, MOST_NAMED + 2)]
    groups = ", ".join(paths[:MOST_NAMED]) + (", ..." if len(paths) > MOST_NAMED else "")
    return f"{where}{what}; {f'its groups are {groups}' if groups else 'it has no groups'}"


def _decoded(
    opened: OpenIndex,
    groups: list[tuple[str, VirtualGroup]],
    drop_variables: str | Iterable[str] | None,
    decoders: Mapping[str, Any],
) -> Iterator[tuple[str, xr.Dataset]]:
    """Yield each group as xarray decodes it; what it looks at is read for all of them at once."""
    named = [drop_variables] if isinstance(drop_variables, str) else drop_variables or ()
    dropped = frozenset(named)
    opened.first = FirstReads(first_reads(groups, dropped, decoders), opened.reader)
    opened.is_decoding = True
    try:
        for path, group in groups:
            store = _GroupStore(group, path, opened, dropped)
            decoded = StoreBackendEntrypoint().open_dataset(
                store, drop_variables=drop_variables, **decoders
            )
            yield path, decoded
    finally:
        opened.is_decoding = False


class _GroupStore(AbstractDataStore):
    """One group, in the terms of xarray's decoding."""

    def __init__(
        self, group: VirtualGroup, path: str, opened: OpenIndex, dropped: frozenset[str]
    ) -> None:
        self._group = group
        self._path = path
        self._opened = opened
        kept = {name: array for name, array in group.arrays.items() if name not in dropped}
        self._chunks = dask_chunks(kept)

    def get_variables(self) -> dict[str, xr.Variable]:
        return {name: self._variable(name, array) for name, array in self._group.arrays.items()}

    def get_attrs(self) -> dict[str, Attribute]:
        return dict(self._group.attrs)

    def get_dimensions(self) -> dict[str, int]:
        return {name: dimension.size for name, dimension in self._group.dimensions.items()}

    def get_encoding(self) -> dict[str, set[str]]:
        dimensions = self._group.dimensions.items()
        return {"unlimited_dims": {name for name, one in dimensions if one.is_unlimited}}

    def close(self) -> None:
        self._opened.reader.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _Elsewhere, ()  # of a dataset's pickle it is only for closing

    def _variable(self, name: str, array: VirtualArray) -> xr.Variable:
        path = f"{self._path}/{name}"
        data = indexing.LazilyIndexedArray(LazyArray(path, self._opened))
        attrs: dict[str, Any] = dict(array.attrs)
        if array.dtype.kind == "S" and isinstance(attrs.get("_FillValue"), str):
            attrs["_FillValue"] = np.bytes_(attrs["_FillValue"].encode())
        encoding = _encoding(array)
        if name in self._chunks:
            encoding["preferred_chunks"] = self._chunks[name]
        if "least_significant_digit" in attrs:
            encoding["least_significant_digit"] = attrs.pop("least_significant_digit")
        sources = self._opened.group.sources
        if len(sources) == 1:
            encoding["source"] = sources[0].public_url
        if self._opened.options.on_error != "raise":
            encoding["byteatlas"] = Filled(path, math.prod(array.shape), self._opened.log)
        return xr.Variable(array.dimensions, data, attrs, encoding)


class _Elsewhere:
    """What a dataset that was opened in another process, or pickled, has to close: nothing."""

    def close(self) -> None:
        """Do nothing: the arrays share what this process has open of their index."""


def _encoding(array: VirtualArray) -> dict[str, Any]:
    """Return what xarray's netCDF4 engine keeps, so that a dataset can be written alike."""
    codecs = {codec.name: codec.config for codec in array.encodings[0].codecs}
    encoding: dict[str, Any] = {
        "dtype": _encoded_dtype(array),
        "original_shape": array.shape,
        "chunksizes": array.chunk_shape or None,
        "zlib": "zlib" in codecs,
        "shuffle": "shuffle" in codecs,
        "fletcher32": "fletcher32" in codecs,
        "contiguous": not array.chunk_shape,
    }
    if "level" in codecs.get("zlib", {}):
        encoding["complevel"] = codecs["zlib"]["level"]
    return encoding


def _encoded_dtype(array: VirtualArray) -> Any:
    if array.dtype == object and not is_of_sequences(array):
        # xarray reads all strings at once where this is str, to find the length of the longest.
        return str if is_short(array) else array.dtype
    if "enum" in array.notes:
        meaning = {"enum": dict(array.notes["enum"]), "enum_name": array.notes.get("enum_name")}
        return np.dtype(array.dtype, metadata=meaning)
    return array.dtype
