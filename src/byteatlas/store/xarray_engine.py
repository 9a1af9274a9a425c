"""An index, or a legacy file, as an xarray dataset: ``xr.open_dataset(x, engine="byteatlas")``.

Variables, attributes and encodings are handed to xarray's own decoding as its netCDF4 engine
hands them, so that both engines give identical datasets. Values come through `byteatlas.read`,
not through zarr-python.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import AbstractDataStore, BackendArray, BackendEntrypoint
from xarray.backends.store import StoreBackendEntrypoint
from xarray.coding.strings import create_vlen_dtype
from xarray.core import indexing

from byteatlas.limits import Limits
from byteatlas.model import Attribute, VirtualArray, VirtualGroup
from byteatlas.opening import open_group
from byteatlas.read.reader import Reader
from byteatlas.read.sequences import is_of_sequences

__all__ = ["ByteatlasBackendEntrypoint"]


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
    )

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Tell whether this is an index that byteatlas wrote; never so of a legacy file."""
        if isinstance(filename_or_obj, VirtualGroup):
            return True
        if isinstance(filename_or_obj, Mapping):
            return "byteatlas" in filename_or_obj
        if not isinstance(filename_or_obj, str | os.PathLike):
            return False
        try:
            with open(filename_or_obj, "rb") as file:  # noqa: PTH123  # may be a str
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
        **decoders
            Of xarray's decoding, such as ``decode_times``.
        """
        root = open_group(
            filename_or_obj, storage_options=storage_options, allow=allow, limits=limits
        )
        reader = Reader(root.sources, storage_options, limits)
        path, wanted = _find(root, group)
        return _decode(_GroupStore(wanted, path, reader), drop_variables, decoders)

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
        **decoders: Any,
    ) -> dict[str, xr.Dataset]:
        """Return all groups as datasets, by path from `group`. Takes what `open_dataset` takes."""
        root = open_group(
            filename_or_obj, storage_options=storage_options, allow=allow, limits=limits
        )
        reader = Reader(root.sources, storage_options, limits)
        top, wanted = _find(root, group)
        return {
            path[len(top) :] or "/": _decode(
                _GroupStore(part, path, reader), drop_variables, decoders
            )
            for path, part in wanted.walk(top)
        }


def _find(root: VirtualGroup, group: str | None) -> tuple[str, VirtualGroup]:
    """Return the path ("" for the root) and the group that a user's path names."""
    parts = [part for part in (group or "").split("/") if part]
    try:
        found = root["/".join(parts)]
    except KeyError:
        found = None
    if not isinstance(found, VirtualGroup):
        raise OSError(f"group not found: {group}")
    return "".join(f"/{part}" for part in parts), found


def _decode(
    store: _GroupStore, drop_variables: str | Iterable[str] | None, decoders: Mapping[str, Any]
) -> xr.Dataset:
    return StoreBackendEntrypoint().open_dataset(store, drop_variables=drop_variables, **decoders)


class _GroupStore(AbstractDataStore):
    """One group, in the terms of xarray's decoding."""

    def __init__(self, group: VirtualGroup, path: str, reader: Reader) -> None:
        self._group = group
        self._path = path
        self._reader = reader

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
        self._reader.close()

    def _variable(self, name: str, array: VirtualArray) -> xr.Variable:
        data = indexing.LazilyIndexedArray(_LazyArray(array, f"{self._path}/{name}", self._reader))
        attrs: dict[str, Any] = dict(array.attrs)
        if array.dtype.kind == "S" and isinstance(attrs.get("_FillValue"), str):
            attrs["_FillValue"] = np.bytes_(attrs["_FillValue"].encode())
        encoding = _encoding(array)
        if "least_significant_digit" in attrs:
            encoding["least_significant_digit"] = attrs.pop("least_significant_digit")
        if len(self._reader.sources) == 1:
            encoding["source"] = self._reader.sources[0].public_url
        return xr.Variable(array.dimensions, data, attrs, encoding)


def _encoding(array: VirtualArray) -> dict[str, Any]:
    """Return what xarray's netCDF4 engine keeps, so that a dataset can be written alike."""
    codecs = {codec.name: codec.config for codec in array.encodings[0].codecs}
    encoding: dict[str, Any] = {
        "dtype": _encoded_dtype(array),
        "original_shape": array.shape,
        "chunksizes": array.chunk_shape or None,
        "preferred_chunks": dict(zip(array.dimensions, array.chunk_shape, strict=False)),
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
        return str
    if "enum" in array.notes:
        meaning = {"enum": dict(array.notes["enum"]), "enum_name": array.notes.get("enum_name")}
        return np.dtype(array.dtype, metadata=meaning)
    return array.dtype


class _LazyArray(BackendArray):
    """An array whose values are read when xarray asks for them; picklable."""

    __slots__ = ("array", "dtype", "path", "reader", "shape")

    def __init__(self, array: VirtualArray, path: str, reader: Reader) -> None:
        self.array = array
        self.path = path
        self.reader = reader
        self.shape = array.shape
        self.dtype: np.dtype[Any] = array.dtype
        if array.dtype == object and not is_of_sequences(array):
            self.dtype = create_vlen_dtype(str)  # type: ignore[no-untyped-call]  # xarray's own

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._read
        )

    def _read(self, key: tuple[Any, ...]) -> NDArray[Any]:
        return self.reader.read(self.array, key, path=self.path)
