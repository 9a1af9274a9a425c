"""The filter pipeline message, and filters as codecs (HDF5 File Format 3.0, IV.A.2.l)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from byteatlas.errors import Unsupported
from byteatlas.model import Codec, Encoding

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Filter", "encoding_of", "parse_filter_pipeline"]

DEFLATE, SHUFFLE, FLETCHER32, BZIP2, BLOSC, ZSTD = 1, 2, 3, 307, 32001, 32015

# For the reason given when a filter has no codec: https://github.com/HDFGroup/hdf5_plugins
_NAMES = {
    4: "szip",
    5: "n-bit",
    6: "scale-offset",
    305: "lzo",
    32000: "lzf",
    32004: "lz4",
    32008: "bitshuffle",
    32013: "zfp",
    32017: "sz",
    32018: "fcidecomp",
    32019: "jpeg",
    32024: "sz3",
    32026: "blosc2",
    32028: "sperr",
}


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
        A filter has no codec here.
    """
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
        codec = translate(item, chunk_nbytes)
        if codec is not None:
            codecs.append(codec)
    return Encoding(tuple(codecs))


def _shuffle(item: Filter, chunk_nbytes: int) -> Codec | None:
    size = item.client[0] if item.client else 1
    if size <= 1:
        return None
    if chunk_nbytes % size:
        raise Unsupported(f"shuffle of {size}-byte elements in chunks of {chunk_nbytes} bytes")
    return Codec("shuffle", {"elementsize": size})


def _deflate(item: Filter, _chunk_nbytes: int) -> Codec:
    return Codec("zlib", {"level": item.client[0] if item.client else 6})


def _blosc(item: Filter, _chunk_nbytes: int) -> Codec:
    # Client data: two versions, element size, chunk size, level, shuffle, compressor.
    level, shuffle, compressor = (*item.client[4:7], 5, 1, 0)[:3]
    if compressor >= len(_BLOSC_COMPRESSORS) or compressor == _SNAPPY:
        raise Unsupported(f"blosc with compressor {compressor}, which numcodecs has not built in")
    name = _BLOSC_COMPRESSORS[compressor]
    return Codec("blosc", {"cname": name, "clevel": level, "shuffle": shuffle, "blocksize": 0})


_BLOSC_COMPRESSORS = ("blosclz", "lz4", "lz4hc", "snappy", "zlib", "zstd")
_SNAPPY = 3

# Decoding needs none of the parameters but shuffle's; those kept are what encoding would need.
_CODECS: dict[int, Callable[[Filter, int], Codec | None]] = {
    DEFLATE: _deflate,
    SHUFFLE: _shuffle,
    FLETCHER32: lambda _item, _size: Codec("fletcher32"),
    BZIP2: lambda _item, _size: Codec("bz2", {"level": 9}),
    BLOSC: _blosc,
    ZSTD: lambda item, _size: Codec("zstd", {"level": item.client[0] if item.client else 3}),
}
