"""Rounds against depth: no file takes more than two beyond its longest chain of structures.

The chain is worked out from what h5py tells of a file: how its groups are nested, how many blocks
its headers have, and how deep trees of so many members and chunks are at the least fill that the
format allows.
"""

import h5py
import pytest
from h5py import h5d, h5o

from byteatlas.errors import ByteatlasError
from byteatlas.testing.memory import MemoryReader
from byteatlas_scanners.hdf5.superblock import find_signature

pytestmark = pytest.mark.corpus

# Least entries of the nodes of trees, as the library makes them unless told otherwise.
SYMBOLS, GROUPS, CHUNKS, LINKS, ATTRIBUTES = 4, 16, 32, 18, 11
HEADER = 1024
"""Of a longer first block of a header the rest takes one more round."""
LARGEST_IN_HEAP = 4096


def levels(count, fan):
    """Levels of a tree of so many entries when each node has at least `fan`, the root any."""
    depth = 1
    while count > 2 * fan:
        count, depth = -(-count // fan), depth + 1
    return depth


def dense_depth(count, fan, nbytes):
    """A header, the deeper of tree and heap, and the objects that are too large for a heap."""
    heap = 1 + (nbytes > 512) + (nbytes > 2**18)
    huge = 2 * (nbytes > LARGEST_IN_HEAP)
    return 1 + max(levels(count, fan), heap) + huge


class Depths:
    """The depths of one file's objects."""

    def __init__(self, file, data):
        self.file = file
        self.has_table = b"SMTB" in data

    def of_file(self):
        version = self.file.id.get_create_plist().get_version()[0]
        return 1 + (version > 1) + self.below(self.file["/"])

    def below(self, item, above=()):
        """Return the longest chain from an object's header down."""
        info = h5o.get_info(item.id)
        own = info.hdr.nchunks + (info.hdr.space.total > HEADER)
        attributes = self.attributes(item, info)
        if isinstance(item, h5py.Dataset):
            return own + max(attributes, self.values(item))
        if not isinstance(item, h5py.Group):
            return own
        below = [0]
        for name in item:
            link = item.id.links.get_info(name.encode("utf-8", "surrogateescape"))
            if link.type == h5py.h5l.TYPE_HARD:
                child = item[name]
                if h5o.get_info(child.id).addr not in (*above, info.addr):
                    below.append(self.below(child, (*above, info.addr)))
        return own + max(attributes, self.links(item, info) + max(below))

    def links(self, group, info):
        sizes = info.meta_size.obj
        if not sizes.index_size:
            return 0  # they are in the header
        count = len(group)
        if info.hdr.mesg.present >> 17 & 1:  # a symbol table: heap and tree, names and nodes
            return 1 + levels(-(-count // SYMBOLS), GROUPS)
        return dense_depth(count, LINKS, sizes.heap_size)

    def attributes(self, item, info):
        sizes, depth = info.meta_size.attr, 0
        if sizes.index_size:
            depth = dense_depth(info.num_attrs, ATTRIBUTES, sizes.heap_size)
        kinds = [h5py.h5a.open(item.id, index=n).get_type() for n in range(info.num_attrs)]
        is_committed = any(kind.committed() for kind in kinds)
        return depth + self.shared(is_committed) + 2 * any(map(is_in_heap, kinds))

    def shared(self, is_committed):
        """A table, and the header and blocks of its heap; or the header of a datatype."""
        return 4 if self.has_table else int(is_committed)

    def values(self, dataset):
        kind, plist = dataset.id.get_type(), dataset.id.get_create_plist()
        depth = self.shared(kind.committed())
        if plist.get_layout() == h5d.CHUNKED and dataset.shape and all(dataset.shape):
            count = max(dataset.id.get_num_chunks(), 1)
            is_new = h5o.get_info(dataset.id).hdr.version == 2
            is_one = all(c >= n for n, c in zip(dataset.shape, dataset.chunks, strict=True))
            depth += max(levels(count, CHUNKS), 4 * is_new * (not is_one))
        # Values that have no numpy form are read and inlined, texts with their heap.
        return depth + 1 + 2 * is_in_heap(kind)


def is_in_heap(kind):
    """Tell whether values of a type, or parts of them, are of variable length."""
    if isinstance(kind, h5py.h5t.TypeCompoundID):
        return any(is_in_heap(kind.get_member_type(n)) for n in range(kind.get_nmembers()))
    if isinstance(kind, h5py.h5t.TypeArrayID):
        return is_in_heap(kind.get_super())
    is_text = isinstance(kind, h5py.h5t.TypeStringID)
    return isinstance(kind, h5py.h5t.TypeVlenID) or (is_text and kind.is_variable_str())


def test_no_file_takes_more_rounds_than_its_depth_and_two(corpus, scan):
    compared, problems = 0, []
    for path in sorted((corpus / "hdf5").rglob("*")):
        if not path.is_file():
            continue
        data = path.read_bytes()
        start = find_signature(memoryview(data))
        if start is None:
            continue
        reader = MemoryReader(data)
        try:  # only the superblock is at hand, so that every structure costs its round
            scan(data, head=start + 128, reader=reader)
            with h5py.File(path) as file:
                depth = Depths(file, data).of_file()
        except (ByteatlasError, OSError, RuntimeError, KeyError):  # h5py cannot tell
            continue
        compared += 1
        if reader.rounds > depth + 2:
            problems.append(f"{path.name}: {reader.rounds} rounds, depth {depth}")
    assert problems == []
    assert compared > 200
