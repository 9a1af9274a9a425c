"""HDF5's filter lzf (32000), undone.

An LZF stream is a list of instructions. The first byte of each says what it is: below 32, that
so many bytes and one follow, to be copied; else its upper three bits and two are the length of a
match, and its lower five bits with the byte that follows the distance back, less one. A length of
9 or more has another byte in between. (LibLZF, lzf_d.c.)

BloscLZ is the same, but for two codes that mean "and another": a second length byte after one of
255, and a longer distance after one of 8191. LZF means just these numbers by them, so zeros are
inserted after each; Blosc then decodes the stream.
"""

from __future__ import annotations

import re
from array import array
from functools import partial
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from byteatlas.codecs.bits import SLAB
from byteatlas.codecs.blosc_frames import undo_blocks
from byteatlas.codecs.interface import Bound, Bytes, Config, Step
from byteatlas.codecs.optional import imagecodecs_if_any
from byteatlas.errors import Malformed

__all__ = ["prepare_lzf"]

_LITERALS = [b"\\x%02x.{%d}" % (count, count + 1) for count in range(32)]
_SHORT = [
    b"[\\x%02x-\\x%02x]." % (code, code + 30) + b"|\\x%02x[^\\xff]" % (code + 31)
    for code in range(0x20, 0xE0, 0x20)
]
_LONG = [b"[\\xe0-\\xfe][^\\xff].", b"\\xff[^\\xff][^\\xff]"]
_PLAIN = re.compile(b"(?s:(?:" + b"|".join([*_SHORT, *_LITERALS, *_LONG]) + b")*+)")
"""Instructions that mean the same to BloscLZ, as many as follow each other."""

_STEP = [*range(2, 34), *[2] * 192, *[3] * 32]
"""Bytes of an instruction, literals included, by its first byte."""
_MOST = 88
"""An instruction of 3 bytes decodes to at most 264."""


def prepare_lzf(config: Config, bound: Bound) -> Step:
    """Undo lzf: by imagecodecs where it is installed, else by Blosc, in three times the time.

    Raises
    ------
    Malformed
        More bytes would come out than expected, the stream ends inside an instruction, or it
        refers to what is before its beginning.
    """
    del config
    limit = bound.limit
    package = imagecodecs_if_any("lzf") if bound.is_exact and limit else None
    if package is None:
        return partial(_undo_by_blosc, limit=limit)
    decode, refused, least = package.lzf_decode, package.LzfError, limit // _MOST

    def step(data: Bytes) -> Bytes:
        if len(data) > least:
            try:
                whole: bytes = decode(data, out=limit)
            except refused:  # without saying why
                pass
            else:
                return whole
        return _undo_by_blosc(data, limit)

    return step


def _undo_by_blosc(data: Bytes, limit: int) -> Bytes:
    """Undo lzf as BloscLZ.

    A stream does not say how much it decodes to, and Blosc wants to know. Mostly that is just the
    limit; only where it is not, the lengths of all instructions are added up.
    """
    stream = bytes(data)
    if len(stream) > 2 * limit:  # no instruction takes more than twice the bytes that it makes
        raise Malformed(f"lzf chunk of {len(stream)} bytes holds more than {limit} bytes")
    framed = _as_blosclz(stream)
    if limit <= _MOST * len(stream):
        try:
            return _decompress(framed, limit)
        except RuntimeError:  # by Blosc, whatever is wrong
            decoded = _decoded_size(stream)
            if decoded == limit:
                raise
    else:
        decoded = _decoded_size(stream)
    if decoded > limit:
        raise Malformed(f"lzf chunk holds {decoded} bytes, expected at most {limit}")
    return _decompress(framed, decoded)


def _as_blosclz(stream: bytes) -> bytes:
    zeros = array("q")  # before which bytes
    position, end = 0, len(stream)
    while True:
        plain = _PLAIN.match(stream, position)
        position = plain.end() if plain else position
        if position == end:
            break
        code = stream[position]
        low = position + 1 + (code >= 224)
        if code < 32 or low >= end:
            raise Malformed("lzf chunk ends inside an instruction")
        if code >= 224 and stream[position + 1] == 255:
            zeros.append(low)
        position = low + 1
        if code & 31 == 31 and stream[low] == 255:
            zeros.extend((position, position))
    if not zeros:
        return stream
    return np.insert(np.frombuffer(stream, np.uint8), np.frombuffer(zeros, np.int64), 0).tobytes()


def _decompress(blosclz: bytes, decoded: int) -> memoryview:
    # Blosc wants literals at the end: one or two, which are dropped again. It would take a stream
    # as long as what comes out for one that is not compressed.
    literals = 1 if len(blosclz) + 2 != decoded + 1 else 2
    total = decoded + literals
    block = blosclz + b"\0\0" * literals
    return undo_blocks([block], total, total, compressor="blosclz")[:decoded]


def _decoded_size(stream: bytes) -> int:
    """Return the bytes that a stream decodes to."""
    decoded = position = 0
    while position < len(stream):
        begin = position
        first, position = _instructions(stream, begin)
        source = np.frombuffer(stream, np.uint8, position - begin, begin)
        code = source[first - begin].astype(np.int64)
        extra = source[first - begin + (code >= 224)].astype(np.int64)
        matched = np.where(code >= 224, 9 + extra, (code >> 5) + 2)
        decoded += int(np.where(code >= 32, matched, code + 1).sum())
    return decoded


def _instructions(stream: bytes, position: int) -> tuple[NDArray[np.int64], int]:
    """Return where the next instructions begin, at most `SLAB`, and where those after them do."""
    found: list[int] = []
    end, step = len(stream), _STEP
    add = found.append
    for _ in repeat(None, SLAB):
        if position >= end:
            break
        add(position)
        position += step[stream[position]]
    return np.array(found, np.int64), position
