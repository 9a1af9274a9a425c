"""Attributes as h5py reads them, for `byteatlas_scanners.hdf5.by_h5py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from byteatlas.errors import ByteatlasError, Unsupported
from byteatlas.index.attributes import attribute_to_json, attribute_type
from byteatlas_scanners.hdf5.objects import BOOKKEEPING, IGNORED

if TYPE_CHECKING:
    from byteatlas.model import Attribute

__all__ = ["FAILURES", "read_attributes", "words_of"]

FAILURES = (
    ByteatlasError,
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What h5py and numpy raise for what they cannot read."""


def read_attributes(item: h5py.Group | h5py.Dataset) -> tuple[dict[str, Any], dict[str, str]]:
    """Return attributes as JSON values with their types, and the reasons of those left out."""
    found: dict[str, Any] = {}
    lost: dict[str, str] = {}
    try:
        names = [name for name in item.attrs if name not in BOOKKEEPING | IGNORED]
    except FAILURES as error:
        return {}, {"*": words_of(error)}
    for name in names:
        try:
            value = _attribute(item.attrs[name])
            found[name] = [attribute_to_json(value), attribute_type(value)]
        except FAILURES as error:
            lost[name] = words_of(error)
    return found, lost


def _attribute(value: Any) -> Attribute:
    """Return an attribute's value, typed as netCDF4 gives it: one element as a scalar."""
    if isinstance(value, h5py.Empty):
        if value.dtype.kind in "SO":
            return ""
        raise Unsupported("an attribute without a value")
    values = np.asarray(value)
    if values.dtype.kind in "SUO":
        texts = [_text(one) for one in values.ravel().tolist()]
        return texts[0] if len(texts) == 1 else texts
    if values.dtype.kind not in "iufb":
        raise Unsupported(f"an attribute of type {values.dtype}")
    values = values.astype(values.dtype.newbyteorder("="))
    return values.ravel()[0] if values.size == 1 else values


def _text(item: Any) -> str:
    if not isinstance(item, str | bytes):
        raise Unsupported(f"an attribute of {type(item).__name__} items")
    text = item.decode("utf-8", "replace") if isinstance(item, bytes) else item
    return text.partition("\0")[0]


def words_of(error: BaseException) -> str:
    """Return what an error says, and of a foreign one its kind."""
    return str(error) if isinstance(error, ByteatlasError) else f"{type(error).__name__}: {error}"
