"""Parts of Blosc chunks: only the blocks that hold them are decompressed.

A chunk of Blosc 1 is a header of 16 bytes, where each block begins (4 bytes each), and the
blocks, in any order. Each decodes alone, all to the same size except the last. So the blocks
wanted are framed as a chunk of their own, and Blosc decodes that.
(C-Blosc 1, README_CHUNK_FORMAT.rst.)
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Callable
from typing import Final

from byteatlas.codecs.interface import Bytes, PartStep
from byteatlas.errors import Malformed

__all__ = ["prepare_part"]

_HEADER = struct.Struct("<BBBBIII")  # versions, flags, item, decoded, block and encoded size
_COPIED: Final = 0x02
_NOT_SPLIT: Final = 0x10


def prepare_part(size: int, decompress: Callable[[Bytes], Bytes]) -> PartStep:
    """Return what decodes a part of a Blosc chunk of some decoded bytes.

    Parameters
    ----------
    size
        Decoded bytes of the whole chunk.
    decompress
        Decompresses a chunk that is known to decode to no more than that.
    """

    def step(data: Bytes, start: int, stop: int) -> Bytes:
        view = memoryview(data)
        version, inner, flags, item, decoded, block, encoded = _HEADER.unpack_from(view)
        if encoded != len(view):
            raise Malformed(f"blosc chunk has {len(view)} bytes, but says it has {encoded}")
        if decoded != size:
            raise Malformed(f"blosc chunk claims {decoded} bytes, expected {size}")
        if flags & _COPIED and encoded == _HEADER.size + decoded:
            return view[_HEADER.size + start : _HEADER.size + stop]
        if start == stop:
            return view[:0]
        if not block:
            return memoryview(decompress(view))[start:stop]
        count, first, last = -(-decoded // block), start // block, -(-stop // block)
        if flags & _COPIED or last - first == count or _HEADER.size + 4 * count > encoded:
            return memoryview(decompress(view))[start:stop]
        starts = struct.unpack_from(f"<{count}I", view, _HEADER.size)
        wanted, ordered = starts[first:last], [*sorted(starts), encoded]
        begin = min(wanted)
        end = ordered[min(bisect_right(ordered, max(wanted)), count)]
        if not _HEADER.size + 4 * count <= begin < end <= encoded:
            raise Malformed(f"blosc chunk of {encoded} bytes has blocks at {begin} to {end}")
        before = first * block
        part = min(last * block, decoded) - before
        if part < block:  # the last one alone: it is never split
            block, flags = part, flags | _NOT_SPLIT
        table = _HEADER.size + 4 * len(wanted)
        moved = [place - begin + table for place in wanted]
        frame = b"".join(
            (
                _HEADER.pack(version, inner, flags, item, part, block, table + end - begin),
                struct.pack(f"<{len(moved)}I", *moved),
                view[begin:end],
            )
        )
        return memoryview(decompress(frame))[start - before : stop - before]

    return step
