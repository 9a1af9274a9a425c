"""Links of groups of the new style (HDF5 File Format 3.0, IV.A.2.c and IV.A.2.g)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from byteatlas.errors import Malformed, Unsupported
from byteatlas.steps import both, from_head
from byteatlas_scanners.hdf5.btree_v2 import read_btree_v2
from byteatlas_scanners.hdf5.fractal_heap import open_heap, read_objects

if TYPE_CHECKING:
    from byteatlas.steps import Steps
    from byteatlas_scanners.hdf5.file import Hdf5File

__all__ = ["Link", "parse_link", "read_dense_links"]

HARD, SOFT, EXTERNAL = 0, 1, 64
LINKS_BY_NAME = 5  # type of the B-tree's records


class Link(NamedTuple):
    """One name in a group."""

    name: str
    address: int | None = None
    """Of the object's header, for a hard link."""
    target: str | None = None
    """The path that a soft link holds."""
    elsewhere: str | None = None
    """What the link is, when it leads out of the file or nowhere known."""
    order: int = 0
    """Creation order, where it is tracked."""
    outside: tuple[str, str] | None = None
    """File and path that an external link leads to."""


def parse_link(file: Hdf5File, body: memoryview) -> Link:
    """Parse a link message."""
    version, flags = body[0], body[1]
    if version != 1:
        raise Unsupported(f"link message version {version}")
    position, kind, order = 2, HARD, 0
    if flags & 0x08:
        kind = body[position]
        position += 1
    if flags & 0x04:
        (order,) = struct.unpack_from("<q", body, position)
        position += 8
    if flags & 0x10:
        position += 1
    width = 1 << (flags & 3)
    length = int.from_bytes(body[position : position + width], "little")
    position += width
    if position + length > len(body):
        raise Malformed("link: the message ends inside the name")
    name = bytes(body[position : position + length]).decode("utf-8", "backslashreplace")
    position += length
    if kind == HARD:
        return Link(name, address=file.offset_at(body, position), order=order)
    (size,) = struct.unpack_from("<H", body, position)
    value = bytes(body[position + 2 : position + 2 + size])
    if kind == SOFT:
        return Link(name, target=value.decode("utf-8", "backslashreplace"), order=order)
    if kind == EXTERNAL:
        parts = value[1:].decode("utf-8", "replace").split("\0")
        goal = ":".join(part for part in parts if part)
        outside = (parts[0], parts[1]) if len(parts) > 1 and "\ufffd" not in goal else None
        return Link(name, elsewhere=f"an external link to {goal!r}", order=order, outside=outside)
    return Link(name, elsewhere=f"a link of user-defined type {kind}", order=order)


def read_dense_links(file: Hdf5File, body: memoryview) -> Steps[list[Link]]:
    """Read the links that a link info message keeps in a fractal heap; none if it has no heap."""
    flags = body[1]
    position = 2 + (8 if flags & 1 else 0)
    heap = file.offset_at(body, position)
    index = file.offset_at(body, position + file.offset_size)
    if file.undefined in (heap, index):
        return []
    found, tree = yield from both(
        from_head(open_heap(file, heap), file.head),
        from_head(read_btree_v2(file, index, {LINKS_BY_NAME}), file.head),
    )
    messages = yield from read_objects(file, found, tree.records[:, 4:])
    return [parse_link(file, message) for message in messages]
