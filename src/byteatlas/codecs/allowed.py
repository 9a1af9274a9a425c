"""The allow-list: every codec that may be used, and what undoes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from byteatlas.codecs.bitshuffle import undo_bitshuffle
from byteatlas.codecs.blosc2 import undo_blosc2
from byteatlas.codecs.checksum import undo_fletcher32
from byteatlas.codecs.foreign import (
    by_numcodecs,
    undo_any_blosc,
    undo_blosc,
    undo_lz4,
    undo_zstd,
)
from byteatlas.codecs.hdf5_lz4 import undo_hdf5_lz4
from byteatlas.codecs.interface import Bytes, Config, Undo, flat
from byteatlas.codecs.lzf import undo_lzf
from byteatlas.codecs.nbit import undo_nbit
from byteatlas.codecs.scaleoffset import undo_scaleoffset
from byteatlas.codecs.shuffle import undo_shuffle
from byteatlas.codecs.streams import undo_bz2, undo_gzip, undo_lzma, undo_zlib
from byteatlas.codecs.szip import undo_szip
from byteatlas.codecs.zfp import undo_zfp
from byteatlas.convert import Convert
from byteatlas.errors import Malformed, Unsupported
from byteatlas.model import Encoding

__all__ = ["OBJECT_CODECS", "Rule", "only_decodes", "rule_of"]

OBJECT_CODECS = frozenset({"vlen-utf8", "vlen-bytes", "vlen-array"})
"""Codecs that begin the chain of variable-length items."""


class Rule(NamedTuple):
    """How to undo a codec that the allow-list has."""

    decode: Undo
    encoded_size: Callable[[Config, int], int | None] = lambda _config, _size: None
    """Number of encoded bytes of so many decoded ones; None when the data decide."""
    only_decodes: bool = False
    """Nothing here encodes by it."""


def only_decodes(encoding: Encoding) -> bool:
    """Tell whether numcodecs and byteatlas have no way to encode a chunk so.

    numcodecs shuffles whole items only: what a compressor leaves may be no whole items.
    """
    names = [codec.name for codec in encoding.codecs]
    return any(rule_of(name).only_decodes for name in names) or "shuffle" in names[1:]


def rule_of(name: str) -> Rule:
    """Return how to undo a codec.

    Raises
    ------
    Unsupported
        It is not on the list.
    """
    rule = _RULES.get(name)
    if rule is None:
        raise Unsupported(
            f"codec {name!r} is not on the list of codecs that may be used:"
            f" {', '.join(sorted(_RULES))}"
        )
    return rule


def _convert(data: Bytes, config: Config, limit: int) -> Bytes:
    if len(data) // config["stored"] * config["decoded"] > limit:
        raise Malformed(f"records of {config['stored']} bytes decode to more than {limit} bytes")
    return flat(Convert(**config).decode(data))


def _same(_config: Config, size: int) -> int:
    return size


def _four_more(_config: Config, size: int) -> int:
    return size + 4


def _retyped(config: Config, size: int) -> int | None:
    """Size after a codec that turns ``dtype`` (decoded) into ``astype`` (encoded)."""
    decoded = config.get("decode_dtype", config.get("dtype"))
    encoded = config.get("encode_dtype", config.get("astype", decoded))
    if decoded is None or encoded is None:
        return None
    return size // np.dtype(decoded).itemsize * np.dtype(encoded).itemsize


def _converted(config: Config, size: int) -> int:
    return size // int(config["decoded"]) * int(config["stored"])


_RULES: dict[str, Rule] = {
    # Of numcodecs, in HDF5 files too.
    "zlib": Rule(undo_zlib),
    "shuffle": Rule(undo_shuffle, _same),
    "fletcher32": Rule(undo_fletcher32, _four_more),
    "bz2": Rule(undo_bz2),
    "zstd": Rule(undo_zstd),
    "blosc": Rule(undo_blosc),
    # Of numcodecs only.
    "gzip": Rule(undo_gzip),
    "lzma": Rule(undo_lzma),
    "lz4": Rule(undo_lz4),
    "adler32": Rule(by_numcodecs("adler32"), _four_more),
    "crc32": Rule(by_numcodecs("crc32"), _four_more),
    "jenkins_lookup3": Rule(by_numcodecs("jenkins_lookup3"), _four_more),
    "delta": Rule(by_numcodecs("delta"), _retyped),
    "fixedscaleoffset": Rule(by_numcodecs("fixedscaleoffset"), _retyped),
    "astype": Rule(by_numcodecs("astype"), _retyped),
    "quantize": Rule(by_numcodecs("quantize"), _retyped),
    "bitround": Rule(by_numcodecs("bitround"), _same),
    # Of HDF5 only.
    "byteatlas.bitshuffle": Rule(undo_bitshuffle, only_decodes=True),
    "byteatlas.blosc2": Rule(undo_blosc2, only_decodes=True),
    "byteatlas.lzf": Rule(undo_lzf, only_decodes=True),
    "byteatlas.nbit": Rule(undo_nbit, only_decodes=True),
    "byteatlas.scaleoffset": Rule(undo_scaleoffset, only_decodes=True),
    "byteatlas.zfp": Rule(undo_zfp, only_decodes=True),
    "imagecodecs_blosc": Rule(undo_any_blosc, only_decodes=True),
    "imagecodecs_lz4h5": Rule(undo_hdf5_lz4, only_decodes=True),
    "imagecodecs_szip": Rule(undo_szip, only_decodes=True),
    # Ours.
    "byteatlas.convert": Rule(_convert, _converted, only_decodes=True),
}
