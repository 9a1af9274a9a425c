"""Groups of the old style: a B-tree of symbol table nodes, and a local heap with the names.

HDF5 File Format 3.0, III.A.1 (version 1 B-trees, node type 0), III.B (symbol table nodes),
III.C (symbol table entries) and III.D (local heaps).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from byteatlas.errors import Malformed
from byteatlas.model import ByteRanges, as_view
from byteatlas.steps import both, from_head
from byteatlas_scanners.hdf5.links import Link

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from byteatlas.steps import Steps
    from byteatlas_scanners.hdf5.file import Hdf5File

__all__ = ["read_local_heap", "read_symbol_table"]

SOFT_LINK = 2  # cache type of an entry
SPARE = 2**16
"""Characters of names that a group may have beyond twice its heap: writers do not share names."""


def read_symbol_table(file: Hdf5File, body: memoryview) -> Steps[list[Link]]:
    """Read the links of a group from its symbol table message (IV.A.2.r).

    One round for each level of the B-tree and one for its symbol table nodes; the names, in a
    heap, come in two of these.
    """
    tree, heap = file.offset_at(body, 0), file.offset_at(body, file.offset_size)
    names, entries = yield from both(
        from_head(read_local_heap(file, heap), file.head),
        from_head(_read_entries(file, tree), file.head),
    )
    return _links(entries, names)


def read_local_heap(file: Hdf5File, address: int) -> Steps[bytes]:
    """Read the data segment of a local heap."""
    where = file.span(address, 8 + 2 * file.length_size + file.offset_size, "local heap")
    (reply,) = yield [where]
    head = as_view(reply)
    if bytes(head[:4]) != b"HEAP":
        raise Malformed(
            f"local heap: expected b'HEAP', found {bytes(head[:4])!r}", offset=where.offset
        )
    segment = file.offset_at(head, 8 + 2 * file.length_size)
    names = file.span(segment, file.length_at(head, 8), "local heap")
    file.spend(names.length, names.offset)
    (reply,) = yield [names]
    return bytes(as_view(reply))


def _read_entries(file: Hdf5File, address: int) -> Steps[NDArray[np.void]]:
    """Read the entries of all symbol table nodes, level by level of the B-tree above them."""
    size = _node_size(file)
    root = file.span(address, size, "group B-tree")
    offsets = np.array([root.offset], np.uint64)
    (nodes,) = yield [ByteRanges(offsets, size)]
    level, children = _children(file, np.asarray(nodes), offsets)
    seen = 1
    while True:
        size = _node_size(file) if level else _symbol_node_size(file)
        seen += children.size
        if seen * 8 > file.size:
            raise Malformed(
                "group B-tree: more nodes than the source has room for", offset=root.offset
            )
        offsets = _inside(file, children, size)
        file.spend(size * children.size, root.offset)
        (nodes,) = yield [ByteRanges(offsets, size)]
        if level == 0:
            return _entries(file, np.asarray(nodes), offsets)
        found, children = _children(file, np.asarray(nodes), offsets)
        if found != level - 1:
            raise Malformed(
                f"group B-tree: level {found} below level {level}", offset=int(offsets[0])
            )
        level = found


def _node_size(file: Hdf5File) -> int:
    k = file.group_internal_k
    return 8 + 2 * file.offset_size + 2 * k * file.offset_size + (2 * k + 1) * file.length_size


def _symbol_node_size(file: Hdf5File) -> int:
    return 8 + 2 * file.group_leaf_k * (2 * file.offset_size + 24)


def _inside(file: Hdf5File, children: NDArray[np.uint64], size: int) -> NDArray[np.uint64]:
    room = file.size - file.base - size
    outside = np.flatnonzero(children > max(room, 0))
    if outside.size or (room < 0 and children.size):
        raise Malformed(
            "group B-tree: a node lies outside the source",
            offset=int(children[outside[0]]) if outside.size else file.base,
        )
    return children + np.uint64(file.base)


def _children(
    file: Hdf5File, nodes: NDArray[np.uint8], offsets: NDArray[np.uint64]
) -> tuple[int, NDArray[np.uint64]]:
    """Return the level of some sibling nodes and the addresses of their children, in order."""
    k, o, n = file.group_internal_k, file.offset_size, file.length_size
    record = np.dtype(
        [
            ("signature", "S4"),
            ("kind", "u1"),
            ("level", "u1"),
            ("used", "<u2"),
            ("siblings", f"V{2 * o}"),
            ("entries", [("key", f"V{n}"), ("child", f"<u{o}")], (2 * k,)),
            ("last", f"V{n}"),
        ]
    )
    node = nodes.view(record)[:, 0]
    wrong = (
        (node["signature"] != b"TREE")
        | (node["kind"] != 0)
        | (node["level"] != node["level"][0])
        | (node["used"] > 2 * k)
    )
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise Malformed(
            f"group B-tree: not a node of a group, {bytes(nodes[first, :8])!r}",
            offset=int(offsets[first]),
        )
    used = np.arange(2 * k) < node["used"][:, None]
    return int(node["level"][0]), node["entries"]["child"][used].astype(np.uint64)


def _entries(
    file: Hdf5File, nodes: NDArray[np.uint8], offsets: NDArray[np.uint64]
) -> NDArray[np.void]:
    """Return the used entries of symbol table nodes."""
    o = file.offset_size
    record = np.dtype(
        [
            ("signature", "S4"),
            ("version", "u1"),
            ("reserved", "u1"),
            ("used", "<u2"),
            (
                "entries",
                [
                    ("name", f"<u{o}"),
                    ("header", f"<u{o}"),
                    ("cache", "<u4"),
                    ("reserved", "<u4"),
                    ("soft", "<u4"),
                    ("scratch", "V12"),
                ],
                (2 * file.group_leaf_k,),
            ),
        ]
    )
    node = nodes.view(record)[:, 0]
    wrong = (node["signature"] != b"SNOD") | (node["used"] > 2 * file.group_leaf_k)
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise Malformed(
            f"symbol table node: expected b'SNOD', found {bytes(nodes[first, :4])!r}",
            offset=int(offsets[first]),
        )
    used = np.arange(2 * file.group_leaf_k) < node["used"][:, None]
    entries: NDArray[np.void] = node["entries"][used]
    return entries


def _links(entries: NDArray[np.void], heap: bytes) -> list[Link]:
    links, room = [], 2 * len(heap) + SPARE
    for name, header, cache, soft in zip(
        entries["name"].tolist(),
        entries["header"].tolist(),
        entries["cache"].tolist(),
        entries["soft"].tolist(),
        strict=True,
    ):
        link = Link(_text(heap, name), address=None if cache == SOFT_LINK else header)
        if cache == SOFT_LINK:
            link = link._replace(target=_text(heap, soft))
        links.append(link)
        room -= len(link.name) + len(link.target or "")
        if room < 0:
            raise Malformed("local heap: its names overlap")
    return links


def _text(heap: bytes, start: int) -> str:
    end = heap.find(b"\0", start)
    if start >= len(heap) or end < 0:
        raise Malformed(f"local heap: no name at {start}")
    return heap[start:end].decode("utf-8", "backslashreplace")
