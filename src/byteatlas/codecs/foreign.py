"""Codecs that numcodecs or imagecodecs undoes: the size is bounded before it is allocated."""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np
from numcodecs import blosc, lz4, zstd
from numcodecs.registry import get_codec

from byteatlas.codecs.blosc_parts import prepare_part
from byteatlas.codecs.interface import Bound, Bytes, Config, PartStep, Prepare, Step, flat
from byteatlas.codecs.optional import imagecodecs
from byteatlas.errors import Malformed, Unsupported

__all__ = [
    "by_numcodecs",
    "part_of_any_blosc",
    "part_of_blosc",
    "prepare_blosc",
    "prepare_lz4",
    "prepare_zstd",
    "retyped",
    "undo_any_blosc",
    "zstd_claim",
]


def by_numcodecs(name: str) -> Prepare:
    """Let numcodecs undo a codec whose decoded size follows its encoded size."""

    def prepare(config: Config, bound: Bound) -> Step:
        limit = bound.limit
        decoded, encoded = retyped(config) or (1, 1)
        decode = get_codec({"id": name, **config}).decode

        def step(data: Bytes) -> Bytes:
            if len(data) // encoded * decoded > limit + 4:  # of which checksums take away 4
                raise Malformed(f"{name} chunk decodes to more than the {limit} bytes expected")
            return flat(decode(data))

        return step

    return prepare


def retyped(config: Config) -> tuple[int, int] | None:
    """Return the sizes of an item, decoded and encoded, of a codec that changes its type."""
    decoded = config.get("decode_dtype", config.get("dtype"))
    encoded = config.get("encode_dtype", config.get("astype", decoded))
    if decoded is None or encoded is None:
        return None
    return np.dtype(decoded).itemsize, max(np.dtype(encoded).itemsize, 1)


def _check_claim(
    claim: Callable[[Bytes], int], name: str, decompress: Callable[[Bytes], Bytes]
) -> Prepare:
    """Let numcodecs decompress what claims, in its own header, no more than is expected."""

    def prepare(config: Config, bound: Bound) -> Step:
        del config
        limit = bound.limit

        def step(data: Bytes) -> Bytes:
            claimed = claim(data)
            if claimed > limit:
                raise Malformed(f"{name} chunk claims {claimed} bytes, expected at most {limit}")
            return decompress(data)

        return step

    return prepare


def zstd_claim(data: Bytes) -> int:
    """Return the content size in a Zstandard frame header (RFC 8878, 3.1.1.1)."""
    magic, descriptor = _ZSTD.unpack_from(data)
    if magic != 0xFD2FB528:
        raise Malformed(f"zstd chunk begins with {bytes(data[:4])!r}, expected b'(\\xb5/\\xfd'")
    flag, single = descriptor >> 6, descriptor >> 5 & 1
    width = (single, 2, 4, 8)[flag]
    if not width:
        raise Unsupported("zstd chunk does not say how many bytes it holds")
    start = 5 + (1 - single) + (0, 1, 2, 4)[descriptor & 3]
    size = int.from_bytes(data[start : start + width], "little")
    return size + 256 if flag == 1 else size


def _blosc_claim(data: Bytes) -> int:
    """Return the decoded size in a Blosc header, whose encoded size must be the chunk's."""
    decoded, encoded = _BLOSC.unpack_from(data)
    if encoded != len(data):
        raise Malformed(f"blosc chunk has {len(data)} bytes, but says it has {encoded}")
    return int(decoded)


def undo_any_blosc(data: Bytes, config: Config, limit: int) -> Bytes:
    """Undo Blosc with any compressor, Snappy included, which numcodecs has not built in."""
    del config
    claimed = _blosc_claim(data)
    if claimed > limit:
        raise Malformed(f"blosc chunk claims {claimed} bytes, expected at most {limit}")
    return flat(imagecodecs("blosc").blosc_decode(data, numthreads=1, out=claimed))


def part_of_blosc(config: Config, size: int) -> PartStep:
    """Undo some blocks of a Blosc chunk."""
    del config
    return prepare_part(size, blosc.decompress)


def part_of_any_blosc(config: Config, size: int) -> PartStep:
    """Undo some blocks of a Blosc chunk with any compressor."""
    undo = imagecodecs("blosc").blosc_decode
    del config
    return prepare_part(size, lambda data: undo(data, numthreads=1, out=_blosc_claim(data)))


def _lz4_claim(data: Bytes) -> int:
    return int.from_bytes(data[:4], "little")


_ZSTD = struct.Struct("<IB")
_BLOSC = struct.Struct("<4xI4xI")

prepare_zstd = _check_claim(zstd_claim, "zstd", zstd.decompress)
prepare_blosc = _check_claim(_blosc_claim, "blosc", blosc.decompress)
prepare_lz4 = _check_claim(_lz4_claim, "lz4", lz4.decompress)
