"""Attributes, in the header or in a fractal heap (HDF5 File Format 3.0, IV.A.2.m and IV.A.2.v)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from byteatlas.errors import Malformed, Unsupported
from byteatlas.steps import both, from_head
from byteatlas_scanners.hdf5.btree_v2 import read_btree_v2
from byteatlas_scanners.hdf5.fractal_heap import open_heap, read_objects
from byteatlas_scanners.hdf5.global_heap import GlobalHeap, HeapId, parse_heap_ids
from byteatlas_scanners.hdf5.shared import POINTER_INTO_HEAP
from byteatlas_scanners.hdf5.values import fixed_records, record_ids

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from byteatlas.model import Attribute
    from byteatlas.steps import Steps
    from byteatlas_scanners.hdf5.dataspace import Dataspace
    from byteatlas_scanners.hdf5.datatype import Datatype
    from byteatlas_scanners.hdf5.file import Hdf5File

__all__ = [
    "RawAttribute",
    "attribute_value",
    "heap_ids",
    "read_dense_attributes",
    "referred_addresses",
    "split_attribute",
]

ATTRIBUTES_BY_NAME = 8  # type of the B-tree's records
_prefix = struct.Struct("<BBHHH").unpack_from


class RawAttribute(NamedTuple):
    """An attribute message taken apart, nothing in it interpreted yet."""

    name: str
    datatype: memoryview
    dataspace: memoryview
    data: memoryview
    is_datatype_shared: bool
    is_dataspace_shared: bool


def split_attribute(body: memoryview) -> RawAttribute:
    """Take an attribute message of version 1, 2 or 3 apart."""
    version, flags, name_size, type_size, space_size = _prefix(body)
    if not 1 <= version <= 3:
        raise Unsupported(f"attribute message version {version}")
    start = 9 if version == 3 else 8
    fill = 7 if version == 1 else 0  # version 1 fills up each part to whole eight bytes
    type_start = start + (name_size + fill & ~fill)
    space_start = type_start + (type_size + fill & ~fill)
    data_start = space_start + (space_size + fill & ~fill)
    if data_start > len(body):
        raise Malformed("attribute: the message ends inside it")
    # The last byte ends the name, and the library takes it for a null byte whatever it is.
    name = bytes(body[start : start + max(name_size - 1, 0)]).partition(b"\0")[0]
    is_plain = version == 1
    return RawAttribute(
        name.decode("utf-8", "backslashreplace"),
        body[type_start : type_start + type_size],
        body[space_start : space_start + space_size],
        body[data_start:],
        is_datatype_shared=not is_plain and bool(flags & 1),
        is_dataspace_shared=not is_plain and bool(flags & 2),
    )


def read_dense_attributes(file: Hdf5File, body: memoryview) -> Steps[list[tuple[int, memoryview]]]:
    """Read the attribute messages that an attribute info message keeps in a fractal heap.

    Returns
    -------
    Flags and body of each message, by creation where that is tracked, else by hash. A message that
    is shared (flags bit 1) lies in the heap of shared messages, and its body only points there.
    """
    position = 2 + (2 if body[1] & 1 else 0)
    heap = file.offset_at(body, position)
    index = file.offset_at(body, position + file.offset_size)
    if file.undefined in (heap, index):
        return []
    found, tree = yield from both(
        from_head(open_heap(file, heap), file.head),
        from_head(read_btree_v2(file, index, {ATTRIBUTES_BY_NAME}), file.head),
    )
    # Record: heap ID (8 bytes), message flags, creation order (4 bytes), hash of the name.
    created, hashed = (tree.records[:, at : at + 4].copy().view("<u4")[:, 0] for at in (9, 13))
    records = tree.records[np.lexsort((hashed, created))]
    is_shared = (records[:, 8] & 2) > 0
    messages = iter((yield from read_objects(file, found, records[~is_shared, :8])))
    return [
        (flags, memoryview(POINTER_INTO_HEAP + bytes(row)) if flags & 2 else next(messages))
        for flags, row in zip(records[:, 8].tolist(), records[:, :8], strict=True)
    ]


def heap_ids(
    file: Hdf5File, datatype: Datatype, dataspace: Dataspace, data: memoryview
) -> list[HeapId]:
    """Return the heap IDs of an attribute's values, or of their members."""
    raw = data[: dataspace.elements * datatype.size]
    if datatype.members:
        return parse_heap_ids(file, record_ids(file, bytes(raw), datatype))
    return parse_heap_ids(file, raw) if datatype.is_in_heap else []


def referred_addresses(
    file: Hdf5File, datatype: Datatype, dataspace: Dataspace, data: memoryview
) -> list[int]:
    """Return the addresses of the objects that an attribute refers to."""
    nbytes = _checked_size(datatype, dataspace, data)
    return [file.offset_at(data, at) for at in range(0, nbytes, file.offset_size)]


def attribute_value(
    file: Hdf5File, datatype: Datatype, dataspace: Dataspace, data: memoryview, heap: GlobalHeap
) -> Attribute:
    """Return an attribute's value, typed as netCDF4 gives it.

    One element comes as a scalar, several as an array; strings as str or list of str; numbers in
    native byte order, and one variable-length sequence of numbers as their array. What is not
    UTF-8 in a string is replaced, as there. Variable-length values need their heap collections
    loaded.

    Raises
    ------
    Unsupported
        The datatype has no such form.
    """
    if datatype.refusal or datatype.is_reference:
        raise Unsupported(datatype.refusal or "object references")
    raw = data[: _checked_size(datatype, dataspace, data)]
    shape = (0,) if dataspace.is_null else dataspace.shape + datatype.shape
    if datatype.heap:
        return _text(_items(heap, parse_heap_ids(file, raw)))
    if datatype.sequence:
        base, ids = datatype.sequence, parse_heap_ids(file, raw)
        items = _items(heap, ids, base.size)
        if base.is_fixed_string and base.size == 1 and not any(b"\0" in item for item in items):
            return _text(items)  # characters, as MATLAB spells the names of fields
        if len(items) != 1 or base.is_fixed_string:
            what = "strings" if base.is_fixed_string else "values"
            raise Unsupported(f"{len(items)} variable-length sequences of {what} in an attribute")
        return _native(base.values(items[0]))
    if datatype.members:
        ids = heap_ids(file, datatype, dataspace, data)
        strings = [item.partition(b"\0")[0] for item in _items(heap, ids)]
        dtype, records = fixed_records(bytes(raw), datatype, strings, MAX_RECORDS)
        return _scalar_or_array(np.frombuffer(records, dtype).reshape(shape))
    if datatype.is_fixed_string:
        if not raw:
            return ""
        is_padded = datatype.moves is not None and datatype.moves[0].kind == "space"
        size, strip = datatype.element.size, b" \0" if is_padded else b"\0"
        whole = bytes(raw)
        texts = [whole[start : start + size] for start in range(0, len(whole), size)]
        return _text([text.partition(b"\0")[0].rstrip(strip) for text in texts])
    return _scalar_or_array(_native(datatype.values(raw)).reshape(shape))


MAX_RECORDS = 64 * 2**20
"""Bytes of an attribute that may be kept in an index, those of its compounds' strings included."""


def _items(heap: GlobalHeap, ids: list[HeapId], item_size: int = 1) -> list[bytes]:
    items = heap.values(ids, item_size)
    _check_limit(sum(map(len, items)))
    return [bytes(item) for item in items]


def _check_limit(nbytes: int) -> None:
    if nbytes > MAX_RECORDS:
        raise Unsupported(f"an attribute of {nbytes} bytes, at most {MAX_RECORDS} are kept")


def _checked_size(datatype: Datatype, dataspace: Dataspace, data: memoryview) -> int:
    """Return how many bytes the values take, which must be there."""
    nbytes = dataspace.elements * datatype.size
    if nbytes > len(data):
        raise Malformed(f"attribute: {dataspace.elements} elements, but {len(data)} bytes")
    _check_limit(nbytes)
    return nbytes


def _text(items: list[bytes]) -> str | list[str]:
    texts = [item.partition(b"\0")[0].decode("utf-8", "replace") for item in items]
    return texts[0] if len(texts) == 1 else texts


def _native(values: NDArray[Any]) -> NDArray[Any]:
    """Return numbers in native byte order; opaque bytes and records as they are."""
    kind = values.dtype
    return values.copy() if kind.kind == "V" else values.astype(kind.newbyteorder("="))


def _scalar_or_array(values: NDArray[Any]) -> Attribute:
    if values.size == 1:
        scalar: np.generic = values.reshape(-1)[0]
        return scalar
    return values
