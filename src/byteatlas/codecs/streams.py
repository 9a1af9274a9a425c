"""Compressed streams, stopped at the size expected: zlib, gzip, bz2 and lzma.

Where the size is known, zlib and gzip are inflated by libdeflate, in about half the time. It
knows no streams, only whole chunks, and does not say what is wrong with one: so whatever it
refuses is decided by zlib again.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Final

from byteatlas.codecs.interface import Bound, Bytes, Config, Step, Undo
from byteatlas.errors import Malformed, Unsupported

try:
    import deflate
except ImportError:  # zlib does it all
    deflate = None  # type: ignore[assignment]

__all__ = ["prepare_gzip", "prepare_zlib", "undo_bz2", "undo_lzma"]

_RATIO: Final = 1032
"""No deflated byte makes more than so many: 258 for each match, which takes 2 bits at least."""
_LARGEST: Final = 2**31 - 1
"""The binding to libdeflate takes sizes modulo 2**32."""


def prepare_zlib(config: Config, bound: Bound) -> Step:
    """Undo zlib (RFC 1950); HDF5 calls it deflate, and reads over what follows its stream."""
    del config
    limit = bound.limit

    def by_zlib(data: Bytes) -> Bytes:
        stream = zlib.decompressobj()
        out = stream.decompress(data, limit + 1)
        if len(out) > limit:
            raise Malformed(f"deflated chunk holds more than the {limit} bytes expected")
        if not stream.eof:
            raise Malformed(f"deflated chunk ends early, {len(out)} of {limit} bytes inflated")
        return out

    if deflate is None or not bound.is_exact or not 0 < limit <= _LARGEST:
        return by_zlib
    inflate, refused, least = deflate.zlib_decompress, deflate.DeflateError, limit // _RATIO

    def by_libdeflate(data: Bytes) -> Bytes:
        if len(data) < least:  # before as much is allocated
            return by_zlib(data)
        try:
            return inflate(data, limit)
        except refused:
            return by_zlib(data)

    return by_libdeflate


def prepare_gzip(config: Config, bound: Bound) -> Step:
    """Undo gzip (RFC 1952), one member or more."""
    del config
    limit = bound.limit

    def by_zlib(data: Bytes) -> Bytes:
        parts, left = [], limit
        rest = memoryview(data)
        while rest:
            stream = zlib.decompressobj(wbits=31)
            parts.append(stream.decompress(rest, left + 1))
            left -= len(parts[-1])
            if left < 0:
                raise Malformed(f"gzip chunk holds more than the {limit} bytes expected")
            if not stream.eof:
                raise Malformed(f"gzip chunk ends early, {limit - left} of {limit} bytes inflated")
            rest = memoryview(stream.unused_data)
        return b"".join(parts)

    if deflate is None or not bound.is_exact or not 0 < limit <= _LARGEST:
        return by_zlib
    inflate, refused, least = deflate.gzip_decompress, deflate.DeflateError, limit // _RATIO
    size = limit.to_bytes(4, "little")

    def by_libdeflate(data: Bytes) -> Bytes:
        if len(data) < least or data[-4:] != size:
            return by_zlib(data)
        try:
            out = inflate(data, limit)
        except refused:
            return by_zlib(data)
        # It has read the first member, up to a checksum and a size that fit, and over what follows.
        # Nothing follows if those are at the end of the chunk, and nowhere else in it.
        end = deflate.crc32(out).to_bytes(4, "little") + size
        is_all = len(out) == limit and bytes(data).find(end) == len(data) - 8
        return out if is_all else by_zlib(data)

    return by_libdeflate


def _stop_at(
    make: Callable[[], bz2.BZ2Decompressor | lzma.LZMADecompressor],
) -> Undo:
    def decompress(data: Bytes, config: Config, limit: int) -> Bytes:
        if config.get("filters"):
            raise Unsupported("lzma with a filter chain of its own is not supported")
        stream = make()
        out = stream.decompress(data, limit + 1)
        if len(out) > limit:
            raise Malformed(f"compressed chunk holds more than the {limit} bytes expected")
        if not stream.eof:
            raise Malformed(f"compressed chunk ends early, {len(out)} of {limit} bytes decoded")
        return out

    return decompress


undo_bz2 = _stop_at(bz2.BZ2Decompressor)
undo_lzma = _stop_at(lzma.LZMADecompressor)
