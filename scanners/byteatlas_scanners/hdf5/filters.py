"""The filter pipeline message, and filters as codecs (HDF5 File Format 3.0, IV.A.2.l)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, NamedTuple

from byteatlas.codecs.zfp import MAGIC as ZFP_MAGIC
from byteatlas.errors import Malformed, Unsupported
from byteatlas.model import Codec, Encoding

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Filter", "encoding_of", "parse_filter_pipeline"]

DEFLATE, SHUFFLE, FLETCHER32, SZIP, NBIT, SCALEOFFSET = 1, 2, 3, 4, 5, 6
BZIP2, LZF, BLOSC, LZ4, BITSHUFFLE, ZFP = 307, 32000, 32001, 32004, 32008, 32013
ZSTD, BLOSC2 = 32015, 32026

# For the reason given when a filter has no codec: https://github.com/HDFGroup/hdf5_plugins
_NAMES = {
    305: "lzo",
    32017: "sz",
    32018: "fcidecomp",
    32019: "jpeg",
    32024: "sz3",
    32028: "sperr",
}

MAX_FILTERS = 7
"""Filters of one pipeline: with what rearranges records, as many codecs as are undone."""


class Filter(NamedTuple):
    """One filter of a pipeline."""

    id: int
    is_optional: bool
    name: str
    client: tuple[int, ...]
    """The filter's parameters ("client data")."""


def parse_filter_pipeline(body: memoryview) -> tuple[Filter, ...]:
    """Parse a filter pipeline message of version 1 or 2; the filters come in encoding order."""
    version, count = body[0], body[1]
    if version not in (1, 2):
        raise Unsupported(f"filter pipeline message version {version}")
    position = 8 if version == 1 else 2
    filters = []
    for _ in range(count):
        (identifier,) = struct.unpack_from("<H", body, position)
        position += 2
        name_length = 0
        if version == 1 or identifier >= 256:
            (name_length,) = struct.unpack_from("<H", body, position)
            position += 2
        flags, values = struct.unpack_from("<HH", body, position)
        position += 4
        name = (
            bytes(body[position : position + name_length]).rstrip(b"\0").decode("utf-8", "replace")
        )
        position += -(-name_length // 8) * 8 if version == 1 else name_length
        client = struct.unpack_from(f"<{values}I", body, position)
        position += 4 * values
        if version == 1 and values % 2:
            position += 4
        filters.append(Filter(identifier, bool(flags & 1), name, client))
    return tuple(filters)


def encoding_of(filters: tuple[Filter, ...], *, chunk_nbytes: int, mask: int = 0) -> Encoding:
    """Return a pipeline as codecs, without the filters that a chunk's mask says were skipped.

    Raises
    ------
    Unsupported
        A filter has no codec here, or its parameters are not what that takes; or there are more
        than `MAX_FILTERS`.
    Malformed
        A filter's parameters do not fit the chunk.
    """
    if len(filters) > MAX_FILTERS:
        raise Unsupported(f"a pipeline of {len(filters)} filters, at most {MAX_FILTERS} are undone")
    codecs = []
    for position, item in enumerate(filters):
        if mask >> position & 1:
            continue
        translate = _CODECS.get(item.id)
        if translate is None:
            name = item.name or _NAMES.get(item.id, "an unregistered one")
            raise Unsupported(
                f"filter {item.id} ({name}) has no codec here",
                hint="skip the variable, or rewrite the file with deflate or zstd",
            )
        try:
            codec = translate(item, chunk_nbytes)
        except LookupError as error:
            raise Malformed(
                f"filter {item.id} with {len(item.client)} parameters, it needs more"
            ) from error
        if codec is not None:
            codecs.append(codec)
    return Encoding(tuple(codecs))


def _shuffle(item: Filter, _chunk_nbytes: int) -> Codec | None:
    size = item.client[0] if item.client else 1
    return Codec("shuffle", {"elementsize": size}) if size > 1 else None


def _deflate(item: Filter, _chunk_nbytes: int) -> Codec:
    return Codec("zlib", {"level": item.client[0] if item.client else 6})


def _szip(item: Filter, _chunk_nbytes: int) -> Codec:
    names = ("options_mask", "pixels_per_block", "bits_per_pixel", "pixels_per_scanline")
    return Codec("imagecodecs_szip", {name: item.client[at] for at, name in enumerate(names)})


def _nbit(item: Filter, chunk_nbytes: int) -> Codec | None:
    # Client data: their number, whether nothing is done, the chunk's elements, and their type.
    client = item.client
    if client[1]:
        return None
    if client[2] * client[4] != chunk_nbytes:
        raise Malformed(f"n-bit of {client[2]} elements of {client[4]} bytes in {chunk_nbytes}")
    return Codec("byteatlas.nbit", {"count": client[2], "type": list(client[3:])})


def _scaleoffset(item: Filter, chunk_nbytes: int) -> Codec | None:
    # Client data: how to scale, digits or bits, the chunk's elements, and their class, size, sign
    # and byte order; whether there is a fill value, and its bytes.
    method, factor, count, kind, size, sign, order, has_fill = (item.client[at] for at in range(8))
    if count * size != chunk_nbytes:
        raise Malformed(f"scale-offset of {count} elements of {size} bytes in {chunk_nbytes}")
    letter = "f" if kind == 1 else "iu"[sign == 0]
    if kind not in (0, 1) or size not in ((4, 8) if kind else (1, 2, 4, 8)):
        raise Unsupported(f"scale-offset of class {kind} and {size} bytes")
    if method != (0 if kind else 2):
        raise Unsupported(f"scale-offset by method {method} of class {kind}, as with HDF5 itself")
    if kind == 0 and factor == 8 * size:
        return None
    config: dict[str, Any] = {"dtype": f"{'>' if order else '<'}{letter}{size}", "count": count}
    if kind:
        config["digits"] = (factor + 2**31) % 2**32 - 2**31
    words = struct.pack("<12I", *(*item.client[8:], *[0] * 12)[:12])
    config["fill"] = int.from_bytes(words[:size], "little") if has_fill == 1 else None
    return Codec("byteatlas.scaleoffset", config)


def _blosc(item: Filter, _chunk_nbytes: int) -> Codec:
    # Client data: two versions, element size, chunk size, level, shuffle, compressor.
    level, shuffle, compressor = (*item.client[4:7], 5, 1, 0)[:3]
    if compressor >= len(_BLOSC_COMPRESSORS):
        raise Unsupported(f"blosc with compressor {compressor}")
    if compressor == _SNAPPY:  # which numcodecs has not built in
        return Codec("imagecodecs_blosc")
    name = _BLOSC_COMPRESSORS[compressor]
    return Codec("blosc", {"cname": name, "clevel": level, "shuffle": shuffle, "blocksize": 0})


def _bitshuffle(item: Filter, _chunk_nbytes: int) -> Codec:
    # Client data: two versions, element size, items of a block, compressor, level.
    item_size, (block, compressor) = item.client[2], (*item.client[3:5], 0, 0)[:2]
    if compressor not in _BITSHUFFLE_COMPRESSORS:
        raise Unsupported(f"bitshuffle with compressor {compressor}")
    return Codec(
        "byteatlas.bitshuffle",
        {
            "elementsize": item_size,
            "blocksize": block,
            "cname": _BITSHUFFLE_COMPRESSORS[compressor],
        },
    )


def _zfp(item: Filter, _chunk_nbytes: int) -> Codec:
    # Client data: versions, and the header of the stream.
    if item.client[1] != ZFP_MAGIC:
        raise Unsupported(f"zfp stream that begins with {item.client[1]:#x}, not {ZFP_MAGIC:#x}")
    return Codec("byteatlas.zfp", {"header": list(item.client[1:])})


_BLOSC_COMPRESSORS = ("blosclz", "lz4", "lz4hc", "snappy", "zlib", "zstd")
_SNAPPY = 3
_BITSHUFFLE_COMPRESSORS = {0: None, 2: "lz4", 3: "zstd"}

# Decoding needs few of the parameters; the others kept are what encoding would need.
_CODECS: dict[int, Callable[[Filter, int], Codec | None]] = {
    DEFLATE: _deflate,
    SHUFFLE: _shuffle,
    FLETCHER32: lambda _item, _size: Codec("fletcher32"),
    SZIP: _szip,
    NBIT: _nbit,
    SCALEOFFSET: _scaleoffset,
    BZIP2: lambda _item, _size: Codec("bz2", {"level": 9}),
    LZF: lambda _item, _size: Codec("byteatlas.lzf"),
    BLOSC: _blosc,
    LZ4: lambda _item, _size: Codec("imagecodecs_lz4h5"),
    BITSHUFFLE: _bitshuffle,
    ZFP: _zfp,
    ZSTD: lambda item, _size: Codec("zstd", {"level": item.client[0] if item.client else 3}),
    BLOSC2: lambda _item, _size: Codec("byteatlas.blosc2"),
}
