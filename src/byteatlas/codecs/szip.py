"""HDF5's filter szip (4), undone.

A chunk begins with its decoded size (4 bytes, little-endian); the stream that follows is that of
CCSDS 121.0, in blocks of some pixels within scan lines. (HDF5 library, H5Zszip.c.)
"""

from __future__ import annotations

import numpy as np

from byteatlas.codecs.interface import Bytes, Config
from byteatlas.codecs.optional import imagecodecs
from byteatlas.codecs.shuffle import unshuffle
from byteatlas.errors import Malformed

__all__ = ["undo_szip"]


def undo_szip(data: Bytes, config: Config, limit: int) -> Bytes:
    """Undo szip; `config` is that of imagecodecs' codec."""
    mask, block = int(config["options_mask"]), int(config["pixels_per_block"])
    bits, line = int(config["bits_per_pixel"]), int(config["pixels_per_scanline"])
    if not (2 <= block <= 32 and block % 2 == 0 and block <= line <= 128 * block):
        raise Malformed(f"szip with blocks of {block} pixels in scan lines of {line}")
    if not (1 <= bits <= 24 or bits in (32, 64)) or not 0 <= mask < 256:
        raise Malformed(f"szip with {bits} bits per pixel and options {mask}")
    if not config.get("header", True):
        raise Malformed("szip chunk without its size")
    if len(data) < 4:
        raise Malformed(f"szip chunk of {len(data)} bytes has no room for its size")
    decoded = int.from_bytes(data[:4], "little")
    # Numbers of 4 and 8 bytes are shuffled, and compressed as bytes.
    item, bits = (bits // 8, 8) if bits >= 32 else (1, bits)
    pixel = 1 if bits <= 8 else 2 if bits <= 16 else 4
    if decoded > limit or decoded % pixel or decoded % item:
        raise Malformed(f"szip chunk claims {decoded} bytes, expected at most {limit}")
    # The last block of each line is filled up. All that is undone here and not by the library,
    # which copies what it did not decode.
    full = -(-line // block) * block
    lines = -(-decoded // (pixel * line))
    room = decoded if full == line else lines * full * pixel
    out = imagecodecs("szip").szip_decode(
        bytes(data[4:]), mask, block, bits, full, header=False, out=room
    )
    if len(out) != room:
        raise Malformed(f"szip chunk ends early, {len(out)} of {room} bytes decoded")
    if full != line:
        rows = np.frombuffer(out, np.uint8).reshape(lines, full * pixel)
        out = rows[:, : line * pixel].tobytes()[:decoded]
    return unshuffle(bytes(out), item)
