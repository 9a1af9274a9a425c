"""What missing chunks read as, beside what an array calls missing itself.

Two things are named alike: the value that HDF5 or Zarr gives to chunks that were never written,
and CF's attribute ``_FillValue``, which marks values as missing. They may differ.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from byteatlas.model import Attribute, VirtualArray

__all__ = ["as_value_of", "fill_value_conflicts", "is_zero", "missing_value"]

# A fill value is Any throughout: its type follows the array's dtype.


def missing_value(array: VirtualArray) -> Any:
    """Return what missing chunks hold: a scalar of the array's dtype (str for object)."""
    if array.fill_value is not None:
        return array.fill_value
    return "" if array.dtype.kind == "O" else np.zeros((), array.dtype)[()]


def is_zero(value: Any) -> bool:
    """Tell whether all bytes of a scalar are zero (for a str: whether it is empty)."""
    return not value if isinstance(value, str) else not any(value.tobytes())


def as_value_of(dtype: np.dtype[Any], attribute: Attribute | None) -> Any:
    """Return an attribute as a scalar of a dtype, or None when it is not exactly one."""
    if dtype.kind == "O":
        return attribute if isinstance(attribute, str) else None
    if attribute is None or isinstance(attribute, list) or np.size(attribute) != 1:
        return None
    value = np.asarray(attribute).reshape(())
    if value.dtype.kind == "U" and dtype.kind == "S" and str(value).isascii():
        value = value.astype("S")
    if value.dtype.kind == dtype.kind and dtype.kind in "SU" and value.itemsize <= dtype.itemsize:
        return value.astype(dtype)[()]
    if value.dtype == dtype:
        return value.astype(dtype)[()]  # in the byte order of dtype
    if value.dtype.kind not in "biuf" or dtype.kind not in "biuf":
        return None
    with np.errstate(all="ignore"):
        converted = value.astype(dtype)
    return converted[()] if converted == value else None


def fill_value_conflicts(array: VirtualArray) -> bool:
    """Tell whether missing chunks hold another value than the attribute ``_FillValue``.

    Zarr version 2 has one place for both.
    """
    own = as_value_of(array.dtype, array.attrs.get("_FillValue"))
    if own is None or _is_same(array, own):
        return False
    return array.manifest.missing_count > 0  # last, for counting may have to read


def _is_same(array: VirtualArray, own: Any) -> bool:
    missing = missing_value(array)
    if isinstance(own, str):
        return bool(own == missing)
    return bool(own.astype(array.dtype).tobytes() == missing.astype(array.dtype).tobytes())
