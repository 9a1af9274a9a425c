"""Records that Zarr has no data type for are shown to other readers as opaque bytes.

zarr-python knows records of plain fields only. One whose fields are records or arrays themselves
would make it refuse the whole store, so its metadata says "so many bytes per element", which is
true; the extra key of the index keeps the real dtype for our own reader.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from byteatlas.errors import Inconsistent
from byteatlas.model import VirtualArray

__all__ = ["as_presented", "is_opaque", "restored_dtype"]


def is_opaque(dtype: np.dtype[Any]) -> bool:
    """Tell whether a dtype is a record with fields that are records or arrays."""
    fields = [dtype[name] for name in dtype.names or ()]
    return any(field.subdtype or field.fields for field in fields)


def as_presented(array: VirtualArray) -> VirtualArray:
    """Return the array as metadata describes it."""
    if not is_opaque(array.dtype):
        return array
    dtype = np.dtype(f"V{array.dtype.itemsize}")
    fill_value = array.fill_value
    if fill_value is not None:
        fill_value = np.frombuffer(fill_value.tobytes(), dtype)[0]
    return replace(array, dtype=dtype, fill_value=fill_value)


def restored_dtype(shown: np.dtype[Any], real: np.dtype[Any], path: str) -> np.dtype[Any]:
    """Return the real dtype of an array, which the metadata shows as bytes.

    Raises
    ------
    Inconsistent
        The metadata shows something else.
    """
    if shown.kind != "V" or shown.fields or shown.itemsize != real.itemsize:
        raise Inconsistent(f"the metadata says {shown}, the extra key {real}", path=path)
    return real
