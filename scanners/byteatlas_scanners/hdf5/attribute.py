"""Attributes, in the header or in a fractal heap (HDF5 File Format 3.0, IV.A.2.m and IV.A.2.v)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from byteatlas.errors import Malformed, Unsupported
from byteatlas.steps import both, from_head
from byteatlas_scanners.hdf5.btree_v2 import read_btree_v2
from byteatlas_scanners.hdf5.fractal_heap import open_heap, read_objects
from byteatlas_scanners.hdf5.global_heap import GlobalHeap, parse_heap_ids
from byteatlas_scanners.hdf5.shared import POINTER_INTO_HEAP

if TYPE_CHECKING:
    from byteatlas.model import Attribute
    from byteatlas.steps import Steps
    from byteatlas_scanners.hdf5.dataspace import Dataspace
    from byteatlas_scanners.hdf5.datatype import Datatype
    from byteatlas_scanners.hdf5.file import Hdf5File

__all__ = ["RawAttribute", "attribute_value", "read_dense_attributes", "split_attribute"]

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
    name = bytes(body[start : start + name_size]).partition(b"\0")[0]
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


def attribute_value(
    file: Hdf5File, datatype: Datatype, dataspace: Dataspace, data: memoryview, heap: GlobalHeap
) -> Attribute:
    """Return an attribute's value, typed as netCDF4 gives it.

    One element comes as a scalar, several as an array; strings as str or list of str; numbers in
    native byte order. What is not UTF-8 in a string is replaced, as there. Variable-length values
    need their heap collections loaded.

    Raises
    ------
    Unsupported
        The datatype has no such form.
    """
    count = dataspace.elements
    if datatype.refusal:
        raise Unsupported(datatype.refusal)
    if count * datatype.size > len(data):
        raise Malformed(f"attribute: {count} elements, but {len(data)} bytes")
    raw = data[: count * datatype.size]
    if datatype.heap:
        texts = [
            bytes(item).partition(b"\0")[0].decode("utf-8", "replace")
            for item in heap.values(parse_heap_ids(file, raw))
        ]
        return texts[0] if len(texts) == 1 else texts
    if datatype.members or datatype.dtype.kind in "VcO":
        raise Unsupported(f"an attribute of type {datatype.dtype}")
    if datatype.is_fixed_string:
        size = datatype.dtype.itemsize
        if not count:
            return ""
        whole = bytes(raw)
        strip = b" \0" if datatype.moves and datatype.moves[0].kind == "space" else b"\0"
        texts = [
            whole[start : start + size].partition(b"\0")[0].rstrip(strip).decode("utf-8", "replace")
            for start in range(0, len(whole), size)
        ]
        return texts[0] if len(texts) == 1 else texts
    dtype = datatype.dtype.newbyteorder("=")
    values = np.frombuffer(raw, datatype.dtype).astype(dtype)
    shape = dataspace.shape + datatype.shape
    if values.size == 1:
        scalar: np.generic = values[0]
        return scalar
    return values.reshape(shape) if len(shape) > 1 else values
