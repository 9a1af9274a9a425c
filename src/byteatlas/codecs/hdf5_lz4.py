"""HDF5's filter lz4 (32004), undone.

A chunk begins with its decoded size (8 bytes, big-endian) and that of a block (4). Each block
follows after its encoded size (4); one that has its decoded size is not compressed.
(https://github.com/HDFGroup/hdf5_plugins, LZ4.)
"""

from __future__ import annotations

import struct

from byteatlas.codecs.blosc_frames import undo_blocks
from byteatlas.codecs.interface import Bytes, Config, PartStep
from byteatlas.errors import Malformed

__all__ = ["part_of_hdf5_lz4", "read_blocks", "undo_hdf5_lz4"]

_HEADER = struct.Struct(">QI")


def undo_hdf5_lz4(data: Bytes, config: Config, limit: int) -> Bytes:
    """Undo lz4 in the framing of HDF5."""
    del config
    blocks, block_size, decoded = _parsed(data, limit)
    return undo_blocks(blocks, block_size, decoded)


def part_of_hdf5_lz4(config: Config, size: int) -> PartStep:
    """Undo some blocks of a chunk."""
    del config

    def step(data: Bytes, start: int, stop: int) -> Bytes:
        blocks, block_size, decoded = _parsed(data, size)
        if decoded != size:
            raise Malformed(f"chunk decodes to {decoded} bytes, expected {size}")
        if start == stop:
            return b""
        first, last = start // block_size, -(-stop // block_size)
        before = first * block_size
        whole = min(last * block_size, decoded) - before
        out = undo_blocks(blocks[first:last], block_size, whole)
        return out[start - before : stop - before]

    return step


def _parsed(data: Bytes, limit: int) -> tuple[list[memoryview], int, int]:
    """Return the blocks, the decoded size of each, and that of all together."""
    view = memoryview(data)
    decoded, block_size = _HEADER.unpack_from(view)
    if decoded > limit:
        raise Malformed(f"lz4 chunk claims {decoded} bytes, expected at most {limit}")
    if not block_size and decoded:
        raise Malformed("lz4 chunk claims blocks of 0 bytes")
    block_size = min(block_size, decoded)
    blocks, _ = read_blocks(view[_HEADER.size :], -(-decoded // max(block_size, 1)))
    return blocks, block_size, decoded


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
