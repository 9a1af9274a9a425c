"""Arrays and groups as Zarr version 3 metadata, and back.

Zarr core specification version 3.1: ``zarr.json``. Codecs have their core name where they decode
alike (gzip, zstd, blosc, crc32c), else the name zarr-python gives them, such as
``numcodecs.zlib``. ``fill_value`` is what missing chunks hold; CF's ``_FillValue`` stays an
attribute, encoded as xarray does for version 3.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import numpy as np

from byteatlas.errors import Malformed, Unsupported
from byteatlas.index.attributes import (
    attributes_to_json,
    dtype_from_json,
    scalar_from_json,
    scalar_to_json,
)
from byteatlas.index.chunk_keys import ChunkKeys
from byteatlas.index.fill_values import as_value_of, missing_value
from byteatlas.index.opaque import as_presented
from byteatlas.index.zarr_v2 import (
    DIMENSIONS,
    ENCODINGS,
    ArrayDescription,
    empty_array,
    encodings_from_json,
    encodings_to_json,
)
from byteatlas.model import Codec, Encoding, VirtualArray, VirtualGroup

__all__ = ["array_from_metadata", "array_metadata", "chunk_keys", "group_metadata"]

_NAMES = {
    "bool": "|b1",
    **{f"int{8 * size}": f"<i{size}" for size in (1, 2, 4, 8)},
    **{f"uint{8 * size}": f"<u{size}" for size in (1, 2, 4, 8)},
    **{f"float{8 * size}": f"<f{size}" for size in (2, 4, 8)},
    "complex64": "<c8",
    "complex128": "<c16",
}
"""Core data types, and the numpy type string of each."""

_OBJECT_CODECS = {"string": "vlen-utf8", "variable_length_bytes": "vlen-bytes"}
"""Data types of variable length, and the codec that begins their chain."""

_ARRAY_CODECS = ("delta", "fixedscaleoffset", "astype", "packbits", "quantize", "bitround")
"""numcodecs' codecs from array to array, which stand before ``bytes``."""

_Endian: TypeAlias = Literal["<", ">"]

_BLOSC_SHUFFLE = ("noshuffle", "shuffle", "bitshuffle")

# JSON values are Any throughout: their shape is data, checked where it is read.


def group_metadata(group: VirtualGroup) -> dict[str, Any]:
    """Return the metadata of one group, without its members: file name to JSON object."""
    node = {"attributes": attributes_to_json(group.attrs), "node_type": "group", "zarr_format": 3}
    return {"zarr.json": node}


def array_metadata(array: VirtualArray) -> dict[str, Any]:
    """Return the metadata of one array: file name to JSON object.

    Raises
    ------
    Unsupported
        The data type has no spelling that readers agree on.
    """
    array = as_presented(array)
    attrs = {name: value for name, value in array.attrs.items() if name != DIMENSIONS}
    masked = attrs.pop("_FillValue", None)
    attributes = attributes_to_json(attrs)
    own = as_value_of(array.dtype, masked)
    if own is not None and array.dtype.kind in "biufcSUO":
        attributes = {"_FillValue": _masked_value_to_json(own), **attributes}
    node = {
        "attributes": attributes,
        "chunk_grid": {
            "configuration": {"chunk_shape": list(array.chunk_shape)},
            "name": "regular",
        },
        "chunk_key_encoding": {"configuration": {"separator": "/"}, "name": "default"},
        "codecs": _codecs_to_json(array),
        "data_type": _object_type(array) or _data_type(array.dtype),
        "fill_value": _fill_value_to_json(missing_value(array)),
        "node_type": "array",
        "shape": list(array.shape),
        "storage_transformers": [],
        "zarr_format": 3,
    }
    if len(array.dimensions) == len(array.shape):
        node["dimension_names"] = list(array.dimensions)
    return {"zarr.json": dict(sorted(node.items()))}


def chunk_keys(path: str, separator: str = "/") -> ChunkKeys:
    """Return how version 3 spells the chunk keys of the array at a path such as ``a/temp``."""
    return ChunkKeys(lead=f"{path}/c{separator}", separator=separator, scalar=f"{path}/c")


def _masked_value_to_json(value: Any) -> Any:
    """Spell ``_FillValue`` as xarray's FillValueCoder for version 3 does."""
    if isinstance(value, np.floating):
        return base64.b64encode(struct.pack("<d", float(value))).decode("ascii")
    if isinstance(value, np.complexfloating):
        return [_masked_value_to_json(value.real), _masked_value_to_json(value.imag)]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    return scalar_to_json(value)


def _masked_value_from_json(value: Any, dtype: np.dtype[Any]) -> Any:
    """Undo `_masked_value_to_json`, to the JSON value of an ordinary attribute."""
    try:
        if dtype.kind == "f" and isinstance(value, str):
            (number,) = struct.unpack("<d", base64.b64decode(value, validate=True))
            return scalar_to_json(np.float64(number))
        if dtype.kind == "c" and isinstance(value, list):
            return [_masked_value_from_json(part, np.dtype("f8")) for part in value]
        if dtype.kind == "S" and isinstance(value, str):
            return base64.b64decode(value, validate=True).decode("latin-1")
    except (binascii.Error, ValueError, struct.error):
        pass  # not encoded so: an ordinary attribute
    return value


def _object_type(array: VirtualArray) -> str | None:
    """Return the data type of variable length that the first codec is of."""
    first = [codec.name for codec in array.encodings[0].codecs[:1]]
    names = (name for name, codec in _OBJECT_CODECS.items() if [codec] == first)
    return next(names, None) if array.dtype.kind == "O" else None


def _data_type(dtype: np.dtype[Any]) -> Any:
    if dtype.fields is not None:
        return {
            "configuration": {
                "fields": [[name, _data_type(dtype[name])] for name in dtype.names or ()]
            },
            "name": "structured",
        }
    if dtype.kind == "O":
        return "string"
    if dtype.kind in "SUV":
        name = {"S": "null_terminated_bytes", "U": "fixed_length_utf32", "V": "raw_bytes"}
        if dtype.subdtype is None:
            return {"configuration": {"length_bytes": dtype.itemsize}, "name": name[dtype.kind]}
    if dtype.kind in "Mm":
        unit, count = np.datetime_data(dtype)
        name = {"M": "numpy.datetime64", "m": "numpy.timedelta64"}
        return {"configuration": {"scale_factor": count, "unit": unit}, "name": name[dtype.kind]}
    if dtype.name in _NAMES:
        return dtype.name
    raise Unsupported(
        f"Zarr version 3 has no data type for {dtype}", hint="write the index with zarr_format=2"
    )


def _dtype_from_json(data_type: Any, endian: _Endian) -> np.dtype[Any]:
    if isinstance(data_type, str):
        if data_type in _OBJECT_CODECS:
            return np.dtype(object)
        if re.fullmatch(r"r\d{1,10}", data_type):
            return dtype_from_json(f"|V{int(data_type[1:]) // 8}")
        if data_type not in _NAMES:
            raise Unsupported(f"data type {data_type!r:.40} is not known")
        return dtype_from_json(_NAMES[data_type].replace("<", endian))
    if not isinstance(data_type, dict) or not isinstance(data_type.get("configuration"), dict):
        raise Malformed(f"{data_type!r:.80} is not a data type")
    name, config = data_type.get("name"), data_type["configuration"]
    size = config.get("length_bytes", 0)
    try:
        if name == "null_terminated_bytes":
            return dtype_from_json(f"|S{size}")
        if name == "raw_bytes":
            return dtype_from_json(f"|V{size}")
        if name == "fixed_length_utf32":
            return dtype_from_json(f"{endian}U{size // 4}")
        if name in ("numpy.datetime64", "numpy.timedelta64"):
            kind = "M" if name == "numpy.datetime64" else "m"
            return dtype_from_json(f"{endian}{kind}8[{config['scale_factor']}{config['unit']}]")
        if name in ("structured", "struct"):
            fields = [
                (field["name"], field["data_type"]) if isinstance(field, dict) else tuple(field)
                for field in config["fields"]
            ]
            return np.dtype([(label, _dtype_from_json(kind, endian)) for label, kind in fields])
    except (TypeError, ValueError, KeyError, RecursionError) as error:
        raise Malformed(f"{data_type!r:.80} is not a data type") from error
    raise Unsupported(f"data type {name!r:.40} is not known")


def _fill_value_to_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    return scalar_to_json(value)


def _fill_value_from_json(value: Any, dtype: np.dtype[Any]) -> Any:
    if dtype.kind == "S":
        return scalar_from_json(_masked_value_from_json(value, dtype), dtype)
    if dtype.kind == "V" and not isinstance(value, str):
        return _void_from_json(value, dtype)
    if dtype.kind == "f" and isinstance(value, str) and value.startswith("0x"):
        try:
            bits = int(value, 16).to_bytes(dtype.itemsize, "big")
        except (ValueError, OverflowError) as error:
            raise Malformed(f"fill_value {value!r:.40} is not the bits of a {dtype}") from error
        return np.frombuffer(bits, dtype.newbyteorder(">"))[0].astype(dtype)
    if dtype.kind in "Mm" and value == "NaT":
        return np.array(value, dtype)[()]
    return scalar_from_json(value, dtype)


def _void_from_json(value: Any, dtype: np.dtype[Any]) -> Any:
    """Return a fill value spelled as a list of bytes, or as an object of fields."""
    try:
        if dtype.fields is None:
            return np.frombuffer(bytes(value), dtype, 1)[0]
        whole = np.zeros((), dtype)
        for name in dtype.names or ():
            whole[name] = _fill_value_from_json(value[name], dtype[name])
        return whole[()]
    except (TypeError, ValueError, KeyError) as error:
        raise Malformed(f"fill_value {value!r:.60} is not a value of type {dtype}") from error


def _codecs_to_json(array: VirtualArray) -> list[Any]:
    serializer = _serializer(array.dtype)
    if len(array.encodings) > 1:
        table = encodings_to_json(array.encodings)
        return [*serializer, {"configuration": {"encodings": table}, "name": ENCODINGS}]
    before: list[Any] = []
    after: list[Any] = []
    for codec in array.encodings[0].codecs:
        if codec.name in _OBJECT_CODECS.values():
            serializer = [{"configuration": {}, "name": codec.name}]
        elif codec.name in _ARRAY_CODECS:
            before.append(_codec_to_json(codec, array.dtype))
        else:
            after.append(_codec_to_json(codec, array.dtype))
    return [*before, *serializer, *after]


def _serializer(dtype: np.dtype[Any]) -> list[Any]:
    parts = [dtype] if dtype.fields is None else _leaves(dtype)
    orders = {part.str[0] for part in parts} - {"|"}
    if dtype.fields is not None and orders - {"<"}:
        raise Unsupported(
            f"big-endian fields of {dtype} are read wrongly by clients of Zarr version 3",
            hint="write the index with zarr_format=2",
        )
    if not orders:
        return [{"name": "bytes"}]
    endian = "big" if orders == {">"} else "little"
    return [{"configuration": {"endian": endian}, "name": "bytes"}]


def _leaves(dtype: np.dtype[Any]) -> list[np.dtype[Any]]:
    if dtype.fields is None:
        return [dtype.base]
    return [leaf for name in dtype.names or () for leaf in _leaves(dtype[name])]


def _codec_to_json(codec: Codec, dtype: np.dtype[Any]) -> dict[str, Any]:
    config = dict(codec.config)
    name = codec.name
    if name == "zstd":
        config = {"checksum": bool(config.get("checksum", False)), "level": config.get("level", 0)}
    elif name == "blosc" and config.get("shuffle", 1) in (0, 1, 2):
        config = {
            "blocksize": config.get("blocksize", 0),
            "clevel": config.get("clevel", 5),
            "cname": config.get("cname", "lz4"),
            "shuffle": _BLOSC_SHUFFLE[config.get("shuffle", 1)],
            "typesize": dtype.itemsize,
        }
    elif name == "gzip":
        config = {"level": config.get("level", 1)}
    elif name != "crc32c" and "." not in name:
        name = f"numcodecs.{name}"
    return {"configuration": config, "name": name}


def _codec_from_json(name: str, config: dict[str, Any]) -> Codec:
    if name == "zstd" and config.get("checksum") is False:
        config = {key: value for key, value in config.items() if key != "checksum"}
    elif name == "blosc" and config.get("shuffle") in _BLOSC_SHUFFLE:
        config = {**config, "shuffle": _BLOSC_SHUFFLE.index(config["shuffle"])}
        config.pop("typesize", None)
    return Codec(name.removeprefix("numcodecs."), config)


def array_from_metadata(path: str, node: Mapping[str, Any]) -> ArrayDescription:
    """Return the array that ``zarr.json`` describes.

    Raises
    ------
    Malformed
        A member is missing or not what the specification says.
    Unsupported
        Shards, transposed chunks, storage transformers, irregular chunk grids, unknown types.
    """
    if node.get("zarr_format") != 3:
        raise Unsupported(f"zarr_format is {node.get('zarr_format')!r}, expected 3")
    if node.get("storage_transformers"):
        raise Unsupported("storage transformers are not known")
    grid, grid_config = _named(node.get("chunk_grid"), "chunk_grid")
    if grid != "regular":
        raise Unsupported(f"chunk grid is {grid!r:.40}, expected 'regular'")
    encodings, endian = _codecs_from_json(node.get("codecs"), node.get("shape"))
    dtype = _dtype_from_json(node.get("data_type"), endian)
    names = node.get("dimension_names")
    attributes = node.get("attributes", {})
    if not isinstance(attributes, dict):
        raise Malformed(f"attributes are {attributes!r:.80}, expected an object")
    array = empty_array(
        node.get("shape"),
        grid_config.get("chunk_shape"),
        dtype=dtype,
        encodings=encodings,
        fill_value=_fill_value_from_json(node.get("fill_value"), dtype),
        dimensions=None if isinstance(names, list) and None in names else names,
    )
    attrs = dict(attributes)
    if "_FillValue" in attrs:
        attrs["_FillValue"] = _masked_value_from_json(attrs["_FillValue"], dtype)
    return ArrayDescription(array, attrs, _keys_from_json(path, node.get("chunk_key_encoding")))


def _named(value: Any, what: str) -> tuple[str, dict[str, Any]]:
    if isinstance(value, str):
        return value, {}
    if isinstance(value, dict) and isinstance(value.get("name"), str):
        config = value.get("configuration", {})
        if isinstance(config, dict):
            return value["name"], config
    raise Malformed(f"{what} is {value!r:.80}, expected an object with a name")


def _keys_from_json(path: str, value: Any) -> ChunkKeys:
    name, config = _named(value, "chunk_key_encoding")
    separator = config.get("separator", "/" if name == "default" else ".")
    if name not in ("default", "v2") or separator not in (".", "/"):
        raise Unsupported(f"chunk_key_encoding {value!r:.80} is not known")
    if name == "default":
        return chunk_keys(path, separator)
    return ChunkKeys(lead=f"{path}/", separator=separator, scalar=f"{path}/0")


def _codecs_from_json(value: Any, shape: Any) -> tuple[tuple[Encoding, ...], _Endian]:
    if not isinstance(value, list):
        raise Malformed(f"codecs are {value!r:.80}, expected a list")
    codecs: list[Codec] = []
    endian: _Endian = "<"
    for item in value:
        name, config = _named(item, "codec")
        if name == "bytes":
            endian = ">" if config.get("endian") == "big" else "<"
        elif name == ENCODINGS:
            return encodings_from_json(config.get("encodings")), endian
        elif name == "transpose":
            order = config.get("order")
            if order != "C" and (not isinstance(shape, list) or order != list(range(len(shape)))):
                raise Unsupported(f"chunks are transposed, in order {order!r:.40}")
        elif name == "sharding_indexed":
            raise Unsupported("shards hold chunks whose place is in the shard, not in the index")
        else:
            codecs.append(_codec_from_json(name, config))
    return (Encoding(tuple(codecs)),), endian
