"""The allow-list: every codec that may be used, and what undoes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from byteatlas.codecs.bitshuffle import part_of_bitshuffle, undo_bitshuffle
from byteatlas.codecs.blosc2 import undo_blosc2
from byteatlas.codecs.checksum import prepare_fletcher32
from byteatlas.codecs.foreign import (
    by_numcodecs,
    part_of_any_blosc,
    part_of_blosc,
    prepare_blosc,
    prepare_lz4,
    prepare_zstd,
    retyped,
    undo_any_blosc,
)
from byteatlas.codecs.hdf5_lz4 import part_of_hdf5_lz4, undo_hdf5_lz4
from byteatlas.codecs.interface import Bytes, Config, PartStep, Prepare, each, flat
from byteatlas.codecs.lzf import prepare_lzf
from byteatlas.codecs.nbit import undo_nbit
from byteatlas.codecs.scaleoffset import undo_scaleoffset
from byteatlas.codecs.shuffle import prepare_shuffle
from byteatlas.codecs.streams import prepare_gzip, prepare_zlib, undo_bz2, undo_lzma
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

    prepare: Prepare
    encoded_size: Callable[[Config, int], int | None] = lambda _config, _size: None
    """Number of encoded bytes of so many decoded ones; None when the data decide."""
    only_decodes: bool = False
    """Nothing here encodes by it."""
    part: Callable[[Config, int], PartStep | None] = lambda _config, _size: None
    """How to undo a part of a chunk that decodes to so many bytes; None where there is no way."""


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
    sizes = retyped(config)
    return None if sizes is None else size // sizes[0] * sizes[1]


def _converted(config: Config, size: int) -> int:
    return size // int(config["decoded"]) * int(config["stored"])


_RULES: dict[str, Rule] = {
    # Of numcodecs, in HDF5 files too.
    "zlib": Rule(prepare_zlib),
    "shuffle": Rule(prepare_shuffle, _same),
    "fletcher32": Rule(prepare_fletcher32, _four_more),
    "bz2": Rule(each(undo_bz2)),
    "zstd": Rule(prepare_zstd),
    "blosc": Rule(prepare_blosc, part=part_of_blosc),
    # Of numcodecs only.
    "gzip": Rule(prepare_gzip),
    "lzma": Rule(each(undo_lzma)),
    "lz4": Rule(prepare_lz4),
    "adler32": Rule(by_numcodecs("adler32"), _four_more),
    "crc32": Rule(by_numcodecs("crc32"), _four_more),
    "jenkins_lookup3": Rule(by_numcodecs("jenkins_lookup3"), _four_more),
    "delta": Rule(by_numcodecs("delta"), _retyped),
    "fixedscaleoffset": Rule(by_numcodecs("fixedscaleoffset"), _retyped),
    "astype": Rule(by_numcodecs("astype"), _retyped),
    "quantize": Rule(by_numcodecs("quantize"), _retyped),
    "bitround": Rule(by_numcodecs("bitround"), _same),
    # Of HDF5 only.
    "byteatlas.bitshuffle": Rule(each(undo_bitshuffle), only_decodes=True, part=part_of_bitshuffle),
    "byteatlas.blosc2": Rule(each(undo_blosc2), only_decodes=True),
    "byteatlas.lzf": Rule(prepare_lzf, only_decodes=True),
    "byteatlas.nbit": Rule(each(undo_nbit), only_decodes=True),
    "byteatlas.scaleoffset": Rule(each(undo_scaleoffset), only_decodes=True),
    "byteatlas.zfp": Rule(each(undo_zfp), only_decodes=True),
    "imagecodecs_blosc": Rule(each(undo_any_blosc), only_decodes=True, part=part_of_any_blosc),
    "imagecodecs_lz4h5": Rule(each(undo_hdf5_lz4), only_decodes=True, part=part_of_hdf5_lz4),
    "imagecodecs_szip": Rule(each(undo_szip), only_decodes=True),
    # Ours.
    "byteatlas.convert": Rule(each(_convert), _converted, only_decodes=True),
}
