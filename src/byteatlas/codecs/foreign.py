"""Codecs that numcodecs or imagecodecs undoes: the size is bounded before it is allocated."""

from __future__ import annotations

import struct
from collections.abc import Callable

from numcodecs.registry import get_codec

from byteatlas.codecs.interface import Bytes, Config, Undo, flat
from byteatlas.codecs.optional import imagecodecs
from byteatlas.errors import Malformed, Unsupported

__all__ = [
    "by_numcodecs",
    "undo_any_blosc",
    "undo_blosc",
    "undo_lz4",
    "undo_zstd",
    "zstd_claim",
]


def by_numcodecs(name: str) -> Undo:
    """Let numcodecs undo a codec whose decoded size follows its encoded size."""

    def decompress(data: Bytes, config: Config, limit: int) -> Bytes:
        del limit
        return flat(get_codec({"id": name, **config}).decode(bytes(data)))

    return decompress


def _check_claim(claim: Callable[[bytes], int], name: str) -> Undo:
    """Let numcodecs decompress what claims, in its own header, no more than is expected."""

    def decompress(data: Bytes, config: Config, limit: int) -> Bytes:
        whole = bytes(data)
        claimed = claim(whole)
        if claimed > limit:
            raise Malformed(f"{name} chunk claims {claimed} bytes, expected at most {limit}")
        return flat(get_codec({"id": name, **config}).decode(whole))

    return decompress


def zstd_claim(data: bytes) -> int:
    """Return the content size in a Zstandard frame header (RFC 8878, 3.1.1.1)."""
    magic, descriptor = struct.unpack_from("<IB", data)
    if magic != 0xFD2FB528:
        raise Malformed(f"zstd chunk begins with {data[:4]!r}, expected b'(\\xb5/\\xfd'")
    flag, single = descriptor >> 6, descriptor >> 5 & 1
    width = (single, 2, 4, 8)[flag]
    if not width:
        raise Unsupported("zstd chunk does not say how many bytes it holds")
    start = 5 + (1 - single) + (0, 1, 2, 4)[descriptor & 3]
    size = int.from_bytes(data[start : start + width], "little")
    return size + 256 if flag == 1 else size


def _blosc_claim(data: bytes) -> int:
    """Return the decoded size in a Blosc header, whose encoded size must be the chunk's."""
    decoded, _, encoded = struct.unpack_from("<III", data, 4)
    if encoded != len(data):
        raise Malformed(f"blosc chunk has {len(data)} bytes, but says it has {encoded}")
    return int(decoded)


def undo_any_blosc(data: Bytes, config: Config, limit: int) -> Bytes:
    """Undo Blosc with any compressor, Snappy included, which numcodecs has not built in."""
    del config
    whole = bytes(data)
    claimed = _blosc_claim(whole)
    if claimed > limit:
        raise Malformed(f"blosc chunk claims {claimed} bytes, expected at most {limit}")
    return flat(imagecodecs("blosc").blosc_decode(whole, numthreads=1, out=claimed))


def _lz4_claim(data: bytes) -> int:
    return int(struct.unpack_from("<I", data)[0])


undo_zstd = _check_claim(zstd_claim, "zstd")
undo_blosc = _check_claim(_blosc_claim, "blosc")
undo_lz4 = _check_claim(_lz4_claim, "lz4")
