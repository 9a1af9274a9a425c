"""Compressed streams that the standard library decodes: stopped at the size expected."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable

from byteatlas.codecs.interface import Bytes, Config, Undo
from byteatlas.errors import Malformed, Unsupported

__all__ = ["undo_bz2", "undo_gzip", "undo_lzma", "undo_zlib"]


def undo_zlib(data: Bytes, config: Config, limit: int) -> Bytes:
    """Undo zlib (RFC 1950); HDF5 calls it deflate, and reads over what follows its stream."""
    del config
    stream = zlib.decompressobj()
    out = stream.decompress(data, limit + 1)
    if len(out) > limit:
        raise Malformed(f"deflated chunk holds more than the {limit} bytes expected")
    if not stream.eof:
        raise Malformed(f"deflated chunk ends early, {len(out)} of {limit} bytes inflated")
    return out


def undo_gzip(data: Bytes, config: Config, limit: int) -> Bytes:
    """Undo gzip (RFC 1952), one member or more."""
    del config
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
