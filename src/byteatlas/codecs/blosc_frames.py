"""Blosc frames made of blocks that other formats compressed.

HDF5's filters lz4, bitshuffle and lzf cut, shuffle and compress as Blosc does, but frame the
result in their own way. Framed as Blosc expects it, Blosc undoes them: many blocks in one call,
at the speed of C, with each block's decoded size verified.
(C-Blosc 1, README_CHUNK_FORMAT.rst.)
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, Literal

from numcodecs import blosc

from byteatlas.codecs.interface import Bytes, flat
from byteatlas.errors import Malformed

__all__ = ["MAX_ITEM", "Compressor", "undo_blocks"]

Compressor = Literal["blosclz", "lz4", "zstd"]

MAX_ITEM = 255
"""Largest item that Blosc shuffles, in bytes."""

_FORMATS: dict[Compressor, int] = {"blosclz": 0, "lz4": 1, "zstd": 4}
_BITSHUFFLE, _NOT_SPLIT = 0x04, 0x10
_HEADER = struct.Struct("<BBBBIII")  # versions, flags, item, decoded, block and encoded size
_LARGEST: Final = 2**31 - 1 - 2**20  # sizes are signed; some room for the frame itself


def undo_blocks(
    blocks: Sequence[Bytes],
    block_size: int,
    decoded: int,
    *,
    compressor: Compressor = "lz4",
    bitshuffled_item: int | None = None,
) -> memoryview:
    """Decompress blocks, and join them.

    Parameters
    ----------
    blocks
        Each compressed, or as it is: whatever is as long as it would be decoded is not compressed.
    block_size
        Decoded bytes of each block, except of the last, which may have fewer.
    decoded
        Decoded bytes of all together. The caller has bounded it.
    compressor
        Of the blocks.
    bitshuffled_item
        Where the bits of each decompressed block are shuffled, the bytes of an item, at most
        `MAX_ITEM`; blocks must have whole eights of items.

    Raises
    ------
    Malformed
        A block does not decode to its size.
    """
    if not decoded:
        return memoryview(b"")
    block_size = min(block_size, decoded)
    if len(blocks) != -(-decoded // block_size):
        raise Malformed(f"{len(blocks)} blocks of {block_size} bytes for {decoded} bytes")
    encoded = _HEADER.size + sum(map(len, blocks)) + 8 * len(blocks)
    if max(encoded, decoded) > _LARGEST:
        raise Malformed(f"blocks of {encoded} bytes for {decoded} bytes")
    flags = _FORMATS[compressor] << 5 | _NOT_SPLIT | (_BITSHUFFLE if bitshuffled_item else 0)
    header = _HEADER.pack(2, 1, flags, bitshuffled_item or 1, decoded, block_size, encoded)
    parts: list[Bytes] = [header, b""]  # to be replaced by where each block begins
    position, starts = _HEADER.size + 4 * len(blocks), []
    for block in blocks:
        starts.append(position)
        parts += [len(block).to_bytes(4, "little"), block]
        position += 4 + len(block)
    parts[1] = struct.pack(f"<{len(starts)}I", *starts)
    return flat(blosc.decompress(b"".join(parts)))
