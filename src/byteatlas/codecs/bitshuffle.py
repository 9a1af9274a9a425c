"""HDF5's filter bitshuffle (32008), undone, with or without compression.

Items are taken in blocks of a multiple of 8 of them; within a block, bit k of all items stands
together, then bit k + 1. The last block has what is left in whole eights; up to 7 items after it
are stored as they are. A compressed chunk begins with its decoded size (8 bytes, big-endian) and
that of a block in bytes (4); each block follows after its encoded size (4).
(https://github.com/kiyo-masui/bitshuffle, bshuf_h5filter.c.)
"""

from __future__ import annotations

import struct
from typing import NamedTuple, cast

from numcodecs import lz4, zstd

from byteatlas.codecs.blosc_frames import MAX_ITEM, Compressor, undo_blocks
from byteatlas.codecs.foreign import zstd_claim
from byteatlas.codecs.hdf5_lz4 import read_blocks
from byteatlas.codecs.interface import Bytes, Config, PartStep
from byteatlas.codecs.shuffle import unshuffle
from byteatlas.errors import Malformed

__all__ = ["part_of_bitshuffle", "undo_bitshuffle"]

_HEADER = struct.Struct(">QI")


class _Blocks(NamedTuple):
    """What a chunk consists of."""

    blocks: list[memoryview]
    size: int
    """Decoded bytes of each, except of the last, which may have fewer."""
    whole: int
    """Decoded bytes of all."""
    rest: memoryview
    """Up to seven items, as they are."""
    item: int
    compressor: Compressor | None


def undo_bitshuffle(data: Bytes, config: Config, limit: int) -> Bytes:
    """Undo bitshuffle.

    `config` has ``elementsize``; ``blocksize`` in items, 0 for bitshuffle's own choice (what a
    compressed chunk says counts more); ``cname``, one of ``lz4``, ``zstd`` and None.
    """
    blocks = _parsed(data, config, limit)
    return _undo(blocks, bytes(blocks.rest))


def part_of_bitshuffle(config: Config, size: int) -> PartStep | None:
    """Undo some blocks of a bitshuffled chunk."""
    if int(config["elementsize"]) > MAX_ITEM:
        return None

    def step(data: Bytes, start: int, stop: int) -> Bytes:
        found = _parsed(data, config, size)
        decoded = found.whole + len(found.rest)
        if decoded != size:
            raise Malformed(f"chunk decodes to {decoded} bytes, expected {size}")
        out: Bytes = b""
        first = start // max(found.size, 1)
        before = first * found.size
        if start < found.whole and start < stop:
            last = -(-min(stop, found.whole) // found.size)
            whole = min(last * found.size, found.whole) - before
            out = _undo(found._replace(blocks=found.blocks[first:last], whole=whole), b"")
        if stop > found.whole:
            rest = found.rest[max(start - found.whole, 0) : stop - found.whole]
            return b"".join([memoryview(out)[start - before :], rest])
        return memoryview(out)[start - before : stop - before]

    return step


def _parsed(data: Bytes, config: Config, limit: int) -> _Blocks:
    item, compressor = int(config["elementsize"]), config.get("cname")
    if item < 1:
        raise Malformed(f"bitshuffle with items of {item} bytes, expected at least 1")
    view = memoryview(data)
    if compressor is None:
        decoded, block_size = len(view), int(config.get("blocksize", 0)) * item
    elif compressor in ("lz4", "zstd"):
        decoded, block_size = _HEADER.unpack_from(view)
        view = view[_HEADER.size :]
    else:
        raise Malformed(f"bitshuffle with compressor {compressor!r:.20}, expected lz4 or zstd")
    if decoded > limit:
        raise Malformed(f"bitshuffle chunk claims {decoded} bytes, expected at most {limit}")
    items = block_size // item or _default_block(item)
    if decoded % item or items % 8 or items < 0:
        raise Malformed(f"bitshuffle of {decoded} bytes in blocks of {items} items of {item} bytes")
    whole = decoded // item // 8 * 8 * item
    block_size = min(items * item, whole)
    if compressor is None:
        starts = range(0, whole, block_size) if whole else ()
        blocks = [view[start : min(start + block_size, whole)] for start in starts]
        rest = view[whole:]
    else:
        blocks, rest = read_blocks(view, -(-whole // max(block_size, 1)))
    if len(rest) != decoded - whole:
        raise Malformed(f"{len(rest)} bytes after bitshuffled blocks, not {decoded - whole}")
    return _Blocks(blocks, block_size, whole, rest, item, cast("Compressor | None", compressor))


def _default_block(item: int) -> int:
    """Return the items of a block: about 8192 bytes of them, but at least 128."""
    return max(8192 // item // 8 * 8, 128)


def _undo(found: _Blocks, rest: bytes) -> Bytes:
    blocks, block_size, whole, _, item, compressor = found
    name = compressor or "lz4"
    if compressor is not None:
        blocks = _distinct(blocks, block_size, whole, name)
    if item <= MAX_ITEM:
        out = undo_blocks(blocks, block_size, whole, compressor=name, bitshuffled_item=item)
        return b"".join([out, rest]) if rest else out
    # Bits shuffled within large items are bytes shuffled, and then bits within each plane of them.
    plain = undo_blocks(blocks, block_size, whole, compressor=name)
    parts: list[Bytes] = []
    for start in range(0, whole, max(block_size, 1)):
        block = plain[start : start + block_size]
        plane = len(block) // item
        planes = [block[at : at + plane] for at in range(0, len(block), plane)]
        parts.append(unshuffle(undo_blocks(planes, plane, len(block), bitshuffled_item=1), item))
    return b"".join([*parts, rest])


def _distinct(
    blocks: list[memoryview], block_size: int, whole: int, name: Compressor
) -> list[memoryview]:
    """Decompress the few blocks that are compressed, but as long as if they were not."""
    for number, block in enumerate(blocks):
        size = min(block_size, whole - number * block_size)
        if len(block) == size:
            encoded = bytes(block)
            if name == "lz4":
                decoded = lz4.decompress(size.to_bytes(4, "little") + encoded)
            else:
                if zstd_claim(encoded) != size:
                    raise Malformed(f"block of {zstd_claim(encoded)} bytes, expected {size}")
                decoded = zstd.decompress(encoded)
            if len(decoded) != size:
                raise Malformed(f"block of {len(decoded)} bytes, expected {size}")
            blocks[number] = memoryview(decoded)
    return blocks
