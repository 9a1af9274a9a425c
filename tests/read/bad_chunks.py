"""Arrays in which a chunk is damaged, in every way that a chunk can be."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import numcodecs
import numpy as np

from byteatlas.errors import ByteatlasError, Malformed
from byteatlas.model import (
    ChunkManifest,
    Codec,
    Dimension,
    Encoding,
    Source,
    VirtualArray,
    VirtualGroup,
)
from byteatlas.read.digests import digests_of

VALUES = np.random.default_rng(0).integers(0, 9, (20, 30)).astype("<f4")
CHUNK = (10, 10)
BAD = 4
INDEX = (1, 1)
"""Of the chunk that is damaged: flat, and in the grid of two by three."""
BLOSC = {"cname": "lz4", "shuffle": 1}


class Damage(NamedTuple):
    codecs: tuple[Codec, ...]
    spoil: Callable[[bytes, bytes], bytes]
    """What becomes of the encoded chunk, from the chunk before and after encoding."""
    kind: type[ByteatlasError] = Malformed
    said: str = ""


def coded(name, **config):
    return (Codec(name, config),)


def flipped(position):
    def spoil(raw, data):
        del raw
        spoiled = bytearray(data)
        spoiled[position] ^= 0x55
        return bytes(spoiled)

    return spoil


def garbage(raw, data):
    del raw
    return b"\xf7" * len(data)


def cut(raw, data):
    del raw
    return data[: len(data) // 2]


def encode_zstd(data):
    return bytes(numcodecs.Zstd().encode(data))


def encode_blosc(data):
    return bytes(numcodecs.Blosc().encode(data))


@cache
def bomb(encode):
    """Return few bytes that decode to very many."""
    return encode(bytes(2**24))


ZLIB = coded("zlib")
SHUFFLED = (Codec("shuffle", {"elementsize": 4}), Codec("zlib"))
CHECKED = (Codec("zlib"), Codec("fletcher32"))
DAMAGES = {
    "zlib does not inflate": Damage(ZLIB, garbage),
    "shuffled does not inflate": Damage(SHUFFLED, garbage),
    "gzip does not inflate": Damage(coded("gzip"), garbage),
    "bz2 does not decode": Damage(coded("bz2"), garbage),
    "lzma does not decode": Damage(coded("lzma"), garbage),
    "zstd does not decode": Damage(coded("zstd"), garbage),
    "lz4 does not decode": Damage(coded("lz4"), garbage),
    "blosc does not decode": Damage(coded("blosc", **BLOSC), garbage),
    "zlib of too few": Damage(ZLIB, lambda raw, _: zlib.compress(raw[:-4]), said="expected 400"),
    "zlib of too many": Damage(ZLIB, lambda raw, _: zlib.compress(raw + raw[:4]), said="400"),
    "shuffled of too few": Damage(SHUFFLED, lambda raw, _: zlib.compress(raw[:-4])),
    "shuffled of too many": Damage(SHUFFLED, lambda raw, _: zlib.compress(raw + raw[:4])),
    "gzip of too few": Damage(coded("gzip"), lambda raw, _: gzip.compress(raw[:-4])),
    "gzip of too many": Damage(coded("gzip"), lambda raw, _: gzip.compress(raw * 2)),
    "bz2 of too many": Damage(coded("bz2"), lambda raw, _: bz2.compress(raw * 2)),
    "lzma of too many": Damage(coded("lzma"), lambda raw, _: lzma.compress(raw * 2)),
    "zstd of too many": Damage(coded("zstd"), lambda raw, _: encode_zstd(raw * 2)),
    "blosc of too few": Damage(coded("blosc", **BLOSC), lambda raw, _: encode_blosc(raw[:-4])),
    "blosc of too many": Damage(coded("blosc", **BLOSC), lambda raw, _: encode_blosc(raw * 2)),
    "nothing": Damage(ZLIB, lambda _raw, _data: b"\0"),
    "zlib's own checksum": Damage(ZLIB, flipped(-1)),
    "gzip's own checksum": Damage(coded("gzip"), flipped(-6)),
    "fletcher32 of zlib": Damage(CHECKED, flipped(20), said="checksum"),
    "fletcher32 alone": Damage(coded("fletcher32"), flipped(20), said="checksum"),
    "fletcher32 cut": Damage(coded("fletcher32"), cut),
    "crc32": Damage(coded("crc32"), flipped(20), said="check"),
    "zlib cut": Damage(ZLIB, cut),
    "shuffled cut": Damage(SHUFFLED, cut),
    "zstd cut": Damage(coded("zstd"), cut),
    "blosc cut": Damage(coded("blosc", **BLOSC), cut),
    "raw cut": Damage((), cut, said="expected"),
    "bomb": Damage(ZLIB, lambda _raw, _data: bomb(zlib.compress)),
    "shuffled bomb": Damage(SHUFFLED, lambda _raw, _data: bomb(zlib.compress)),
    "gzip bomb": Damage(coded("gzip"), lambda _raw, _data: bomb(gzip.compress)),
    "zstd bomb": Damage(coded("zstd"), lambda _raw, _data: bomb(encode_zstd)),
    "bz2 bomb": Damage(coded("bz2"), lambda _raw, _data: bomb(bz2.compress)),
    "lzma bomb": Damage(coded("lzma"), lambda _raw, _data: bomb(lzma.compress)),
    "blosc bomb": Damage(coded("blosc", **BLOSC), lambda _raw, _data: bomb(encode_blosc)),
}


class Made(NamedTuple):
    group: VirtualGroup
    data: bytes
    offset: int
    """Where the bad chunk begins."""
    length: int


def make(url, codecs, spoil=None, *, bad=(BAD,), size=None, attrs=None, values=VALUES, gap=0):
    """Lay the chunks of VALUES out one behind the other, and damage some of them."""
    data, rows = bytearray(b"header"), []
    columns = values.shape[1] // CHUNK[1]
    for flat in range(values.size // np.prod(CHUNK)):
        row, column = divmod(flat, columns)
        part = values[row * 10 : row * 10 + 10, column * 10 : column * 10 + 10]
        encoded = raw = part.tobytes()
        for codec in codecs:
            encoder = numcodecs.get_codec({"id": codec.name, **codec.config})
            encoded = bytes(encoder.encode(encoded))
        if spoil is not None and flat in bad:
            encoded = bytes(spoil(raw, encoded))
        data += bytes(gap)
        rows.append((len(data), len(encoded)))
        data += encoded
    offset, length = np.array(rows, "u8").T
    grid = (values.shape[0] // 10, columns)
    manifest = ChunkManifest.build(grid, np.arange(len(rows), dtype="u8"), offset, length)
    array = VirtualArray(
        values.shape,
        values.dtype,
        CHUNK,
        manifest,
        encodings=(Encoding(tuple(codecs)),),
        dimensions=("y", "x"),
        attrs=attrs or {},
    )
    sizes = {"y": Dimension(values.shape[0]), "x": Dimension(values.shape[1])}
    group = VirtualGroup(
        arrays={"v": array}, dimensions=sizes, sources=(Source(str(url), size=size),)
    )
    return Made(group, bytes(data), *rows[bad[0]])


LAYOUTS = {"raw": (), "zlib": ZLIB, "shuffled": SHUFFLED}


def sealed(made):
    """Give every chunk its digest, before the file is damaged."""
    manifest = made.group["v"].manifest
    view = memoryview(made.data)
    pairs = zip(manifest.offset.tolist(), manifest.length.tolist(), strict=True)
    digest = digests_of([view[at : at + count] for at, count in pairs])
    array = replace(made.group["v"], manifest=replace(manifest, digest=digest))
    return replace(made.group, arrays={"v": array})


def spoiled(made):
    return made.data[: made.offset + 5] + b"\xff\xfe" + made.data[made.offset + 7 :]
