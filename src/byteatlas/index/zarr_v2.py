"""Arrays and groups as Zarr version 2 metadata, and back.

Zarr storage specification version 2: ``.zarray``, ``.zattrs``, ``.zgroup``. Readers differ in
what they make of it; the choices here are the ones that most of them read alike:

- A single codec that they know as a compressor is the ``compressor``. Any other chain stands in
  ``filters``, with no compressor: a reader that ignores filters then fails, and does not return
  shuffled bytes as numbers.
- xarray takes ``fill_value`` for CF's ``_FillValue``. So it is null unless the array has that
  attribute, or has missing chunks that are not zero.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from byteatlas.errors import Malformed, Unsupported
from byteatlas.index.attributes import (
    attributes_to_json,
    dtype_from_json,
    dtype_to_json,
    scalar_from_json,
    scalar_to_json,
)
from byteatlas.index.chunk_keys import ChunkKeys
from byteatlas.index.fill_values import (
    as_value_of,
    fill_value_conflicts,
    is_zero,
    missing_value,
)
from byteatlas.index.opaque import as_presented
from byteatlas.model import ChunkManifest, Codec, Encoding, VirtualArray, VirtualGroup

__all__ = [
    "DIMENSIONS",
    "ENCODINGS",
    "ArrayDescription",
    "array_from_metadata",
    "array_metadata",
    "chunk_keys",
    "codec_from_json",
    "codec_to_json",
    "empty_array",
    "encodings_from_json",
    "encodings_to_json",
    "group_metadata",
    "is_prefixed",
]

DIMENSIONS = "_ARRAY_DIMENSIONS"
"""The attribute in which xarray keeps the names of an array's axes."""

ENCODINGS = "byteatlas.encodings"
"""The codec of an array whose chunks say, in a prefix, which of several encodings they have."""

_COMPRESSORS = ("zlib", "gzip", "blosc", "zstd", "lz4", "bz2", "lzma")
"""Codecs that readers of version 2 know as compressors."""

# JSON values are Any throughout: their shape is data, checked where it is read.


class ArrayDescription(NamedTuple):
    """What the metadata of an array says."""

    array: VirtualArray
    """The array, without a chunk and without attributes."""
    attrs: dict[str, Any]
    """Its attributes, as JSON values."""
    keys: ChunkKeys
    """How its chunk keys are spelled."""


def group_metadata(group: VirtualGroup) -> dict[str, Any]:
    """Return the metadata of one group, without its members: file name to JSON object."""
    return {".zattrs": attributes_to_json(group.attrs), ".zgroup": {"zarr_format": 2}}


def array_metadata(array: VirtualArray) -> dict[str, Any]:
    """Return the metadata of one array: file name to JSON object.

    Raises
    ------
    Unsupported
        The data type has no spelling.
    """
    array = as_presented(array)
    attrs = {name: value for name, value in array.attrs.items() if name != DIMENSIONS}
    missing = missing_value(array)
    own = as_value_of(array.dtype, attrs.get("_FillValue"))
    if own is not None and not fill_value_conflicts(array):
        fill_value = own
        del attrs["_FillValue"]
    else:  # counting may have to read, so it comes last
        fill_value = None if is_zero(missing) or not array.manifest.missing_count else missing
    zattrs = attributes_to_json(attrs)
    if len(array.dimensions) == len(array.shape):
        zattrs[DIMENSIONS] = list(array.dimensions)
    filters, compressor = _codecs_to_json(array)
    zarray = {
        "chunks": list(array.chunk_shape),
        "compressor": compressor,
        "dtype": dtype_to_json(array.dtype),
        "fill_value": None if fill_value is None else _fill_value_to_json(fill_value),
        "filters": filters,
        "order": "C",
        "shape": list(array.shape),
        "zarr_format": 2,
    }
    return {".zarray": zarray, ".zattrs": zattrs}


def is_prefixed(array: VirtualArray) -> bool:
    """Tell whether chunks carry an encoding prefix when served under version 2 metadata."""
    return len(array.encodings) > 1 or fill_value_conflicts(array)


def chunk_keys(path: str, separator: str = ".") -> ChunkKeys:
    """Return how version 2 spells the chunk keys of the array at a path such as ``a/temp``."""
    return ChunkKeys(lead=f"{path}/", separator=separator, scalar=f"{path}/0")


def _fill_value_to_json(value: Any) -> Any:
    if isinstance(value, np.bytes_ | np.void):
        return base64.b64encode(value.tobytes().rstrip(b"\0" * isinstance(value, bytes))).decode()
    return scalar_to_json(value)


def _fill_value_from_json(value: Any, dtype: np.dtype[Any]) -> Any:
    if value is None:
        return None
    if dtype.kind in "OU" and value == 0:
        return scalar_from_json("", dtype)  # zarr-python 2 wrote 0 for empty text
    if dtype.kind in "Mm" and value == "NaT":
        return np.array(value, dtype)[()]
    if dtype.kind == "S":
        try:
            return np.array(base64.b64decode(value, validate=True), dtype)[()]
        except (TypeError, ValueError, binascii.Error) as error:
            raise Malformed(f"fill_value {value!r:.60} is not base64") from error
    return scalar_from_json(value, dtype)


def _codecs_to_json(array: VirtualArray) -> tuple[Any, Any]:
    if is_prefixed(array):
        return [{"id": ENCODINGS, "encodings": encodings_to_json(array.encodings)}], None
    codecs = array.encodings[0].codecs
    if len(codecs) == 1 and codecs[0].name in _COMPRESSORS:
        return None, codec_to_json(codecs[0])
    return [codec_to_json(codec) for codec in codecs] or None, None


def encodings_to_json(encodings: Sequence[Encoding]) -> list[list[Any]]:
    """Return encodings as lists of codecs, in the order of encoding."""
    return [[codec_to_json(codec) for codec in encoding.codecs] for encoding in encodings]


def encodings_from_json(value: Any) -> tuple[Encoding, ...]:
    """Return encodings from lists of codecs, in the order of encoding.

    Raises
    ------
    Malformed
        It is not such a list, is empty, or has more than 256 entries.
    """
    if not isinstance(value, list) or not 0 < len(value) <= 256:
        raise Malformed(f"{value!r:.80} is not a list of 1 to 256 encodings")
    if not all(isinstance(codecs, list) for codecs in value):
        raise Malformed(f"{value!r:.80} is not a list of encodings")
    return tuple(Encoding(tuple(map(codec_from_json, codecs))) for codecs in value)


def codec_to_json(codec: Codec) -> dict[str, Any]:
    """Return a codec as numcodecs spells it."""
    config = {
        name: value
        for name, value in codec.config.items()
        if (name, value) != ("checksum", False)  # zstd's; readers refuse members they don't know
    }
    return {"id": codec.name, **config}


def codec_from_json(value: Any) -> Codec:
    """Return the codec that numcodecs spells so.

    Raises
    ------
    Malformed
        It is not an object with an ``id``.
    """
    if not isinstance(value, dict) or not isinstance(value.get("id"), str):
        raise Malformed(f"{value!r:.80} is not a codec, an object with an 'id'")
    return Codec(value["id"], {name: item for name, item in value.items() if name != "id"})


def array_from_metadata(path: str, zarray: Any, zattrs: Mapping[str, Any]) -> ArrayDescription:
    """Return the array that ``.zarray`` and ``.zattrs`` describe.

    Raises
    ------
    Malformed
        A member is missing or not what the specification says.
    Unsupported
        Another version of Zarr, or chunks in Fortran order.
    """
    if not isinstance(zarray, dict):
        raise Malformed(f"{zarray!r:.80} is not the metadata of an array")
    if zarray.get("zarr_format") != 2:
        raise Unsupported(f"zarr_format is {zarray.get('zarr_format')!r}, expected 2")
    filters, compressor = zarray.get("filters"), zarray.get("compressor")
    if not isinstance(filters, list | None):
        raise Malformed(f"filters are {filters!r:.80}, expected a list or null")
    codecs = [*(filters or []), *([] if compressor is None else [compressor])]
    if codecs and isinstance(codecs[0], dict) and codecs[0].get("id") == ENCODINGS:
        encodings = encodings_from_json(codecs[0].get("encodings"))
    else:
        encodings = encodings_from_json([codecs])
    dtype = dtype_from_json(zarray.get("dtype"))
    array = empty_array(
        zarray.get("shape"),
        zarray.get("chunks"),
        dtype=dtype,
        encodings=encodings,
        fill_value=_fill_value_from_json(zarray.get("fill_value"), dtype),
        dimensions=zattrs.get(DIMENSIONS),
    )
    if zarray.get("order") != "C" and sum(size > 1 for size in array.chunk_shape) > 1:
        raise Unsupported(f"chunks are in order {zarray.get('order')!r}, expected 'C'")
    separator = zarray.get("dimension_separator", ".")
    if separator not in (".", "/"):
        raise Malformed(f"dimension_separator is {separator!r:.20}, expected '.' or '/'")
    attrs = {name: value for name, value in zattrs.items() if name != DIMENSIONS}
    return ArrayDescription(array, attrs, chunk_keys(path, separator))


def empty_array(
    shape: Any,
    chunk_shape: Any,
    *,
    dtype: np.dtype[Any],
    encodings: tuple[Encoding, ...],
    fill_value: Any,
    dimensions: Any,
) -> VirtualArray:
    """Return an array without chunks, its shapes and dimensions checked as they come from JSON.

    Raises
    ------
    Malformed
        They do not fit each other, or are no shapes.
    Unsupported
        The chunk grid has 2**63 chunks or more.
    """
    for name, sizes, least in (("shape", shape, 0), ("chunks", chunk_shape, 1)):
        if not isinstance(sizes, list) or len(sizes) > 32:
            raise Malformed(f"{name} is {sizes!r:.80}, expected a list of at most 32 sizes")
        if not all(type(size) is int and least <= size < 2**63 for size in sizes):
            raise Malformed(f"{name} is {sizes!r:.80}, expected whole numbers from {least}")
    if len(shape) != len(chunk_shape):
        raise Malformed(f"shape {shape} and chunks {chunk_shape} have not as many axes")
    if dimensions is not None and not (
        isinstance(dimensions, list)
        and len(dimensions) == len(shape)
        and all(isinstance(name, str) for name in dimensions)
    ):
        raise Malformed(f"dimensions are {dimensions!r:.80}, expected {len(shape)} names")
    manifest = ChunkManifest.empty(
        tuple(-(-size // chunk) for size, chunk in zip(shape, chunk_shape, strict=True))
    )
    if manifest.cells >= 2**63:
        raise Unsupported(f"the grid {manifest.grid_shape} has {manifest.cells} chunks")
    return VirtualArray(
        shape=tuple(shape),
        dtype=dtype,
        chunk_shape=tuple(chunk_shape),
        manifest=manifest,
        encodings=encodings,
        fill_value=fill_value,
        dimensions=tuple(dimensions or ()),
    )
