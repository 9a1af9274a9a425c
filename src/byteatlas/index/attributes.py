r"""Attributes and scalars as JSON, and back with their exact types.

JSON has one kind of number and no NaN. A value is written the way other readers expect it, and
its numpy type goes beside it (into the index file's extra key), so that it comes back exactly:

    np.float32(0.5)                     0.5                     "<f4"
    np.array([1, 2], ">i2")             [1, 2]                  ">i2"
    np.float64("nan")                   "NaN"                   "<f8"
    np.complex64(1 + 2j)                [1.0, 2.0]              "<c8"
    np.bytes_(b"ab")                    "ab"                    "|S2"     (Latin-1)
    np.void(b"\0\1")                      "AAE="                  "|V2"     (base64)
    "text", ["a", "b"]                  "text", ["a", "b"]      none
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byteatlas.errors import LimitExceeded, Malformed, Unsupported
from byteatlas.model import Attribute

__all__ = [
    "attribute_from_json",
    "attribute_to_json",
    "attribute_type",
    "attributes_from_json",
    "attributes_to_json",
    "dtype_from_json",
    "dtype_to_json",
    "scalar_from_json",
    "scalar_to_json",
]

MAX_ATTRIBUTE = 64 * 2**20
"""No attribute takes more memory than this, in bytes, unless the caller allows more."""

MAX_ITEM = 16 * 2**20
"""No data type has larger items, in bytes."""

_TYPE_STRING = re.compile(
    r"[<>|]?(b1|[iu][1248]|f2|f4|f8|f16|c8|c16|c32|[SUV]\d{1,9}|[Mm]8(\[\d{0,9}[A-Za-z]{1,2}\])?)"
)


_NUMBER_KINDS: dict[str, set[type]] = {
    "i": {int},
    "u": {int},
    "b": {bool},
    "f": {int, float, str},
}
"""Types of JSON items that arrays of each kind have; text spells what is not finite."""

# JSON values are Any throughout: their shape is data, checked where it is read.


def attributes_to_json(attrs: Mapping[str, Attribute]) -> dict[str, Any]:
    """Return attributes as JSON values, in their order."""
    return {name: attribute_to_json(value) for name, value in attrs.items()}


def attributes_from_json(
    values: Mapping[str, Any], types: Mapping[str, Any], limit: int = MAX_ATTRIBUTE
) -> dict[str, Attribute]:
    """Return attributes from JSON values and the types that were recorded beside them.

    Raises
    ------
    Malformed
        A type is not one, or a value does not fit it.
    LimitExceeded
        An attribute takes more than `limit` bytes.
    """
    return {
        name: attribute_from_json(value, types.get(name), limit) for name, value in values.items()
    }


def attribute_to_json(value: Attribute) -> Any:
    """Return one attribute as a JSON value."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, list):
        return [str(item) for item in value]
    if isinstance(value, np.ndarray) and value.ndim:
        if value.dtype.kind in "iub" or (value.dtype.kind == "f" and np.isfinite(value).all()):
            return value.tolist()
        return [attribute_to_json(item) for item in value]
    return scalar_to_json(value[()] if isinstance(value, np.ndarray) else value)


def attribute_type(value: Attribute) -> Any:
    """Return the type to record beside an attribute; None for text, which needs none."""
    if isinstance(value, str | list):
        return None
    return dtype_to_json(value.dtype)


def attribute_from_json(value: Any, kind: Any = None, limit: int = MAX_ATTRIBUTE) -> Attribute:
    """Return one attribute from its JSON value and recorded type.

    Without a type, whole numbers become int64 (uint64 above its range), other numbers float64,
    and what an attribute cannot be (objects, null, mixed lists) becomes its JSON text.

    Raises
    ------
    Malformed
        The type is not one, or the value does not fit it.
    LimitExceeded
        It takes more than `limit` bytes.
    """
    if kind is None:
        items = len(value) if isinstance(value, str | list) else 1
        _check_size(items if isinstance(value, str) else 8 * items, limit)
        return _untyped(value)
    dtype = dtype_from_json(kind)
    is_scalar = not isinstance(value, list) or (dtype.kind == "c" and _is_pair(value))
    _check_size(dtype.itemsize * (1 if is_scalar else len(value)), limit)
    if is_scalar:
        scalar: np.generic = scalar_from_json(value, dtype)
        return scalar
    try:
        if dtype.kind in "iubf":
            return _numbers(value, dtype)
        shape, parts = _flattened(value, dtype)
        _check_size(dtype.itemsize * len(parts), limit)
        array: NDArray[Any] = np.empty(len(parts), dtype)
        for position, item in enumerate(parts):
            array[position] = scalar_from_json(item, dtype)
        array = array.reshape(shape)
    except (TypeError, ValueError, OverflowError) as error:
        raise Malformed(f"an attribute does not fit its recorded type {dtype}: {error}") from error
    return array


def _flattened(value: list[Any], dtype: np.dtype[Any]) -> tuple[tuple[int, ...], list[Any]]:
    """Return the shape of nested lists, and their items in C order; a complex number is a pair."""
    shape, items = [len(value)], value
    while items and all(isinstance(one, list) for one in items):
        if dtype.kind == "c" and all(map(_is_pair, items)):
            break
        if any(len(one) != len(items[0]) for one in items):
            raise ValueError("lists of different lengths")
        shape.append(len(items[0]))
        items = [part for one in items for part in one]
    return tuple(shape), items


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise LimitExceeded(
            f"an attribute takes {size} bytes, the limit is {limit}",
            hint=f"where you trust the index, pass limits=byteatlas.Limits(attribute={size})",
        )


def _numbers(value: list[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    items = np.array(value, object).ravel().tolist()
    if not set(map(type, items)) <= _NUMBER_KINDS[dtype.kind]:
        raise TypeError("an item of another kind")
    if dtype.kind in "iu" and items:
        _check_range(min(items), dtype)
        _check_range(max(items), dtype)
    return np.array(value, dtype)


def _check_range(value: int, dtype: np.dtype[Any]) -> None:
    """Refuse a number that does not fit: older numpy would wrap it around."""
    limits = np.iinfo(dtype)
    if not limits.min <= value <= limits.max:
        raise OverflowError(f"{value} is beyond {dtype}")


def _is_pair(value: list[Any]) -> bool:
    return len(value) == 2 and not any(isinstance(part, list) for part in value)


def _untyped(value: Any) -> Attribute:
    if isinstance(value, str):
        return value
    items = value if isinstance(value, list) else [value]
    kinds = set(map(type, items))
    try:
        if kinds <= {str} and isinstance(value, list):
            return list(value)
        if kinds == {bool}:
            return np.array(value, np.bool_)[()]
        if kinds == {int}:
            dtype = np.dtype(np.int64 if max(items) < 2**63 else np.uint64)
            _check_range(min(items), dtype)
            _check_range(max(items), dtype)
            return np.array(value, dtype)[()]
        if kinds <= {int, float}:
            return np.array(value, np.float64)[()]
    except OverflowError:
        pass  # a whole number beyond 64 bits stays text
    return json.dumps(value, ensure_ascii=False)


def scalar_to_json(value: Any) -> Any:
    """Return a numpy scalar (or str) as a JSON value.

    Raises
    ------
    Unsupported
        JSON has no spelling for its type.
    """
    if isinstance(value, str):
        return str(value)
    kind = value.dtype.kind
    if kind in "biu":
        return value.item()
    if kind == "f":
        return _float_to_json(float(value))
    if kind == "c":
        return [_float_to_json(float(value.real)), _float_to_json(float(value.imag))]
    if kind == "S":
        return bytes(value).decode("latin-1")
    if kind == "V":
        return base64.b64encode(value.tobytes()).decode("ascii")
    if kind in "Mm":
        return int(value.astype(np.int64))
    raise Unsupported(f"a value of type {value.dtype} has no JSON spelling")


def _float_to_json(value: float) -> Any:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def scalar_from_json(value: Any, dtype: np.dtype[Any]) -> Any:
    """Return the numpy scalar of a dtype (str for object) that a JSON value spells.

    Raises
    ------
    Malformed
        The value does not fit the type.
    """
    try:
        return _scalar(value, dtype)
    except (TypeError, ValueError, OverflowError, binascii.Error) as error:
        raise Malformed(f"{value!r:.60} is not a value of type {dtype}") from error


def _scalar(value: Any, dtype: np.dtype[Any]) -> Any:
    if dtype.kind in "OUSV" and not isinstance(value, str):
        raise TypeError(value)
    if dtype.kind in "OU":
        return value if dtype.kind == "O" else np.array(value, dtype)[()]
    if dtype.kind == "c":
        real, imag = value
        whole = np.zeros((), dtype)
        whole.real, whole.imag = float(real), float(imag)
        return whole[()]
    if dtype.kind == "S":
        return np.array(value.encode("latin-1"), dtype)[()]
    if dtype.kind == "V":
        return np.frombuffer(base64.b64decode(value, validate=True), dtype, 1)[0]
    if dtype.kind in "Mm":
        return np.array(value, np.int64).astype(dtype)[()]
    if dtype.kind in "iu":
        if isinstance(value, bool | str) or value != int(value):
            raise TypeError(value)
        _check_range(int(value), dtype)
    if dtype.kind == "b" and not isinstance(value, bool | int):
        raise TypeError(value)
    return np.array(value if dtype.kind != "f" else float(value), dtype)[()]


def dtype_to_json(dtype: np.dtype[Any]) -> Any:
    """Return the type string of a dtype, or a list of fields for a structured one.

    This is the spelling of Zarr version 2, section "Data type encoding".

    Raises
    ------
    Unsupported
        The fields of a structured dtype overlap or leave gaps.
    """
    if dtype.fields is None:
        return "|O" if dtype.kind == "O" else dtype.str
    fields = []
    position = 0
    for name in dtype.names or ():
        field, offset = dtype.fields[name][:2]
        if offset != position:
            raise Unsupported(f"the fields of {dtype} are not packed one after another")
        position += field.itemsize
        base, shape = field.subdtype or (field, ())
        fields.append([name, dtype_to_json(base), *([list(shape)] if shape else [])])
    if position != dtype.itemsize:
        raise Unsupported(f"the fields of {dtype} are not packed one after another")
    return fields


def dtype_from_json(spec: Any, depth: int = 0) -> np.dtype[Any]:
    """Return the dtype of a type string or a list of fields.

    Raises
    ------
    Malformed
        It is neither.
    Unsupported
        Its items are larger than `MAX_ITEM`.
    """
    if spec in ("|O", "O") and not depth:
        return np.dtype(object)
    dtype = _dtype(spec, depth)
    if dtype.itemsize > MAX_ITEM:
        raise Unsupported(f"an item of type {spec!r:.80} is larger than {MAX_ITEM} bytes")
    return dtype


def _dtype(spec: Any, depth: int) -> np.dtype[Any]:
    try:
        if isinstance(spec, str) and _TYPE_STRING.fullmatch(spec):
            return np.dtype(spec)
        if isinstance(spec, list) and spec and depth < 8:
            fields: list[Any] = [
                (name, dtype_from_json(kind, depth + 1), *map(tuple, shape))
                for name, kind, *shape in spec
            ]
            return np.dtype(fields)
    except (TypeError, ValueError, OverflowError) as error:
        raise Malformed(f"{spec!r:.80} is not a data type: {error}") from error
    raise Malformed(f"{spec!r:.80} is not a data type")
