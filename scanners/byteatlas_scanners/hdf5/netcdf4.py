"""Dimensions: what netCDF-4 and dimension scales say of the axes of datasets.

netCDF-4 keeps a dimension as a dimension scale, a dataset of its name; a dataset refers to one
scale per axis (HDF5 Dimension Scale Specification; netCDF-4 file format, "dimensions"). Where
nothing names an axis, names are made as h5netcdf and xarray make them: phony_dim_0 and so on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from byteatlas.errors import Unsupported
from byteatlas.model import ChunkManifest, Dimension, VirtualArray

if TYPE_CHECKING:
    from byteatlas_scanners.hdf5.objects import Object

__all__ = [
    "DIMENSION_ONLY",
    "GroupDimensions",
    "default_fill_value",
    "extend",
    "is_dimension_only",
    "is_scale",
    "variable_name",
]

DIMENSION_ONLY = "This is a netCDF dimension but not a netCDF variable"
NON_COORDINATE = "_nc4_non_coord_"

# NC_FILL_BYTE and so on of netcdf.h.
_DEFAULT_FILL = {
    "i1": -127,
    "i2": -32767,
    "i4": -2147483647,
    "i8": -9223372036854775806,
    "u1": 255,
    "u2": 65535,
    "u4": 4294967295,
    "u8": 18446744073709551614,
    "f4": 9.9692099683868690e36,
    "f8": 9.9692099683868690e36,
}


def is_scale(item: Object) -> bool:
    """Tell whether a dataset is a dimension scale."""
    return item.bookkeeping.get("CLASS") == "DIMENSION_SCALE"


def is_dimension_only(item: Object) -> bool:
    """Tell whether a dimension scale stands for a dimension without a variable."""
    return is_scale(item) and item.bookkeeping.get("NAME", "").startswith(DIMENSION_ONLY)


def variable_name(name: str) -> str:
    """Return the netCDF name of a dataset, without the mark of one named like a dimension."""
    return name.removeprefix(NON_COORDINATE)


@dataclass(slots=True)
class GroupDimensions:
    """The dimensions of one group while its tree is assembled."""

    parent: GroupDimensions | None
    own: dict[str, Dimension] = field(default_factory=dict)
    by_address: dict[int, str] = field(default_factory=dict)
    """Names of this group's dimensions, by the address of the scale."""
    by_number: dict[int, str] = field(default_factory=dict)
    """And by netCDF-4's number of the dimension."""
    by_convention: set[str] = field(default_factory=set)
    """Names of those that a product convention names: they stand for nothing else."""

    def add_scale(self, name: str, item: Object) -> None:
        """Add the dimension that a scale defines; of several links to it the last names it."""
        if item.dataspace is None or not item.dataspace.shape:
            return
        self.own.pop(self.by_address.get(item.address, ""), None)
        limit = item.dataspace.max_shape[0]
        self.own[name] = Dimension(item.dataspace.shape[0], limit is None)
        self.by_address[item.address] = name
        for number in item.bookkeeping.get("_Netcdf4Dimid", ())[:1]:
            self.by_number[number] = name

    def add_phony(self, shapes: list[tuple[int, ...]], first: int) -> int:
        """Make names for the axes of datasets without any scale; return the next free number.

        Axes of equal size share a name, but two of one dataset do not, and named dimensions of
        that size are used first.
        """
        needed: Counter[int] = Counter()
        for shape in shapes:
            needed |= Counter(shape)
        named = Counter(size for _, size in self._reusable())
        for size, count in needed.items():
            for _ in range(named[size], count):
                self.own[f"phony_dim_{first}"] = Dimension(size)
                first += 1
        return first

    def phony_names(self, sizes: list[int], taken: set[str]) -> list[str]:
        """Name the axes without a scale by this group's dimensions of their size.

        Parameters
        ----------
        taken : names of the dataset's other axes, which are not given twice.
        """
        names: list[str] = []
        for size in sizes:
            for name, its_size in self._reusable():
                if its_size == size and name not in taken:
                    names.append(name)
                    taken.add(name)
                    break
        return names

    def _reusable(self) -> Iterator[tuple[str, int]]:
        """Yield names and sizes of the dimensions that an axis without a name may be.

        None that a convention names; and none without limit, along which its dataset might have
        to grow.
        """
        for name, (size, is_unlimited) in self.own.items():
            if name not in self.by_convention and not is_unlimited:
                yield name, size

    def scale_name(self, address: int) -> str | None:
        """Return the name of the dimension whose scale is at an address, in this group or above."""
        here: GroupDimensions | None = self
        while here is not None:
            if address in here.by_address:
                return here.by_address[address]
            here = here.parent
        return None

    def numbered_name(self, number: int) -> str | None:
        """Return the name of the dimension of some number, in this group or above."""
        here: GroupDimensions | None = self
        while here is not None:
            if number in here.by_number:
                return here.by_number[number]
            here = here.parent
        return None

    def find(self, name: str) -> tuple[GroupDimensions, Dimension] | None:
        """Return the dimension that a name means here, and where it is defined."""
        here: GroupDimensions | None = self
        while here is not None:
            if name in here.own:
                return here, here.own[name]
            here = here.parent
        return None


def default_fill_value(dtype: np.dtype[Any]) -> Any:
    """Return what netCDF takes for a value that was never written (Any: it follows the dtype)."""
    value = np.zeros(1, dtype)
    value[...] = _DEFAULT_FILL.get(dtype.str[1:], value[0])
    return value[0]


def extend(
    array: VirtualArray, shape: tuple[int, ...], fill_value: object, *, fills_chunks: bool
) -> VirtualArray:
    """Grow an array to the current size of its unlimited dimensions.

    netCDF-4 lets a variable hold fewer records than its unlimited dimension has; the rest read as
    its fill value.

    Raises
    ------
    Unsupported
        The last chunk would show what was never written to it.
    """
    old = array.manifest
    grows_inside = any(
        n != m and n % c for n, m, c in zip(array.shape, shape, array.chunk_shape, strict=True)
    )
    if grows_inside and not fills_chunks:
        raise Unsupported("its last chunk is not filled, and its unlimited dimension is longer")
    grid = tuple(-(-n // c) for n, c in zip(shape, array.chunk_shape, strict=True))
    index = np.arange(old.cells, dtype=np.uint64) if old.index is None else old.index

    def moved(flat: np.ndarray) -> np.ndarray:
        if not flat.size or not grid:
            return flat
        place = np.unravel_index(flat.astype(np.int64), old.grid_shape)
        return np.ravel_multi_index(place, grid).astype(np.uint64)

    inline = np.fromiter(old.inline, np.uint64, len(old.inline))
    manifest = ChunkManifest.build(
        grid,
        moved(index),
        old.offset,
        old.length,
        encoding=old.encoding,
        inline=dict(zip(moved(inline).tolist(), old.inline.values(), strict=True)),
    )
    return replace(array, shape=shape, manifest=manifest, fill_value=fill_value)
