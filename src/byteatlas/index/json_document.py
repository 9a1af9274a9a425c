"""Parse the text of an index strictly: whole, bounded, and without a member given twice."""

from __future__ import annotations

import json
import operator
import zlib
from collections import Counter
from functools import partial
from itertools import chain, compress
from typing import Any

from byteatlas.errors import LimitExceeded, Malformed, Unsupported
from byteatlas.limits import Limits

__all__ = ["check_depth", "decompress", "is_unicode", "parse_document"]

_FREE = 16 * 2**20
"""Bytes of text that a compressed index may always have, however small it is."""

_STEP_IN, _STEP_OUT = 2**16, 2**22
"""Bytes that go into decompression at once, and that come out."""

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"


def decompress(data: bytes, limits: Limits) -> bytes:
    """Return the text of an index, which may be compressed with gzip or zstd.

    Raises
    ------
    Malformed
        The compressed stream is broken.
    LimitExceeded
        The text is larger than it may be. No more than that is made of it.
    Unsupported
        A zstd frame does not say its size.
    """
    limits.check("index", len(data), "the index")
    text = bytes(data)
    if text.startswith(_GZIP):
        return _gunzip(text, limits)
    if text.startswith(_ZSTD):
        return _unzstd(text, limits)
    return text


def parse_document(text: bytes, limits: Limits) -> dict[str, Any]:
    """Return the JSON object in some text.

    Raises
    ------
    Malformed
        It is not JSON, is no object, or an object has a member twice. (Most JSON readers let the
        last one win; which one was meant cannot be known.)
    LimitExceeded
        It nests too deep.
    """
    try:
        # Measured on a million references: no slower than ujson, which cannot see duplicates.
        document = json.loads(text, object_pairs_hook=_object)
    except RecursionError as error:
        raise _too_deep(limits) from error
    except ValueError as error:
        raise Malformed(f"not JSON text: {error}") from error
    if not isinstance(document, dict):
        raise Malformed(f"the JSON text is a {type(document).__name__}, expected an object")
    check_depth(document, limits)
    return document


def check_depth(document: dict[str, Any], limits: Limits) -> None:
    """Refuse objects and lists that nest too deep.

    Level by level, in loops that run in C.

    Raises
    ------
    LimitExceeded
        They do.
    """
    objects: list[dict[str, Any]] = [document]
    lists: list[list[Any]] = []
    for _ in range(limits.depth):
        members = list(chain.from_iterable(map(dict.values, objects)))
        members += chain.from_iterable(lists)
        kinds = list(map(type, members))
        objects = list(compress(members, map(partial(operator.is_, dict), kinds)))
        lists = list(compress(members, map(partial(operator.is_, list), kinds)))
        if not objects and not lists:
            return
    raise _too_deep(limits)


def _too_deep(limits: Limits) -> LimitExceeded:
    return LimitExceeded(
        f"the JSON text nests more than {limits.depth} deep",
        hint="where you trust the index, raise it with limits=byteatlas.Limits(depth=...)",
    )


def is_unicode(text: str) -> bool:
    """Tell whether a string has no lone surrogates, which JSON can spell but UTF-8 cannot."""
    return text.encode(errors="replace").decode() == text


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) != len(members):
        twice, _ = Counter(name for name, _ in members).most_common(1)[0]
        raise Malformed(f"the member {twice!r:.200} is given twice")
    return found


def _gunzip(data: bytes, limits: Limits) -> bytes:
    """Undo gzip (RFC 1952), one member after the other, some megabytes at a time."""
    parts: list[bytes] = []
    largest = min(limits.index, max(_FREE, limits.expansion * len(data)))
    room, start, view = largest, 0, memoryview(data)
    while start < len(view):
        stream = zlib.decompressobj(wbits=31)
        while start < len(view) and not stream.eof:
            piece: bytes | memoryview = view[start : start + _STEP_IN]
            start += len(piece)
            while True:
                try:
                    parts.append(stream.decompress(piece, _STEP_OUT))
                except zlib.error as error:
                    raise Malformed(f"the gzip stream is broken: {error}") from error
                room -= len(parts[-1])
                if room < 0:
                    _check_size(largest + 1, len(data), limits)
                piece = stream.unconsumed_tail
                if not piece and len(parts[-1]) < _STEP_OUT:
                    break
        if not stream.eof:
            raise Malformed("the gzip stream ends early")
        start -= len(stream.unused_data)
    return b"".join(parts)


def _unzstd(data: bytes, limits: Limits) -> bytes:
    """Undo one zstd frame (RFC 8878), whose header must say how large its content is."""
    size = _zstd_content_size(data)
    if size is None:
        raise Unsupported("the zstd frame does not say its size", hint="decompress it first")
    _check_size(size, len(data), limits)
    from numcodecs.zstd import decompress as zstd_decompress  # noqa: PLC0415  # rarely needed

    try:
        return bytes(zstd_decompress(data))
    except RuntimeError as error:
        raise Malformed(f"the zstd frame is broken: {error}") from error


def _zstd_content_size(data: bytes) -> int | None:
    """Return the content size in a frame header (RFC 8878, 3.1.1.1); None when it has none."""
    descriptor = data[4] if len(data) > 4 else 0
    is_single_segment = descriptor >> 5 & 1
    width = (is_single_segment, 2, 4, 8)[descriptor >> 6]
    start = 5 + (1 - is_single_segment) + (0, 1, 2, 4)[descriptor & 3]
    if not width or len(data) < start + width:
        return None
    return int.from_bytes(data[start : start + width], "little") + 256 * (width == 2)


def _check_size(size: int, compressed: int, limits: Limits) -> None:
    """Refuse so many bytes of text, or more, of so many bytes of a compressed index."""
    limits.check("index", size, "the text of the index")
    if size > _FREE:
        limits.check("expansion", -(-size // compressed), "the text of the compressed index")
