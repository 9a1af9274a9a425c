"""HDF5's filter lz4 (32004), undone.

A chunk begins with its decoded size (8 bytes, big-endian) and that of a block (4). Each block
follows after its encoded size (4); one that has its decoded size is not compressed.
(https://github.com/HDFGroup/hdf5_plugins, LZ4.)
"""

from __future__ import annotations

import struct

from byteatlas.codecs.blosc_frames import undo_blocks
from byteatlas.codecs.interface import Bytes, Config
from byteatlas.errors import Malformed

__all__ = ["read_blocks", "undo_hdf5_lz4"]

_HEADER = struct.Struct(">QI")


def undo_hdf5_lz4(data: Bytes, config: Config, limit: int) -> Bytes:
    """Undo lz4 in the framing of HDF5."""
    del config
    view = memoryview(data)
    decoded, block_size = _HEADER.unpack_from(view)
    if decoded > limit:
        raise Malformed(f"lz4 chunk claims {decoded} bytes, expected at most {limit}")
    if not block_size and decoded:
        raise Malformed("lz4 chunk claims blocks of 0 bytes")
    block_size = min(block_size, decoded)
    blocks, _ = read_blocks(view[_HEADER.size :], -(-decoded // max(block_size, 1)))
    return undo_blocks(blocks, block_size, decoded)


def read_blocks(data: memoryview, count: int) -> tuple[list[memoryview], memoryview]:
    """Return blocks that each follow their size (4 bytes, big-endian), and what is after them.

    Raises
    ------
    Malformed
        There are fewer.
    """
    blocks, position = [], 0
    if 4 * count > len(data):
        raise Malformed(f"chunk has {len(data)} bytes for {count} blocks")
    for _ in range(count):
        begin = position + 4
        position = begin + int.from_bytes(data[position:begin], "big")
        if position > len(data):
            raise Malformed(f"chunk ends inside a block, {position - len(data)} bytes early")
        blocks.append(data[begin:position])
    return blocks, data[position:]
