"""Parse the text of an index strictly: whole, bounded, and without a member given twice."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from typing import Any

from byteatlas.errors import Malformed, Unsupported

__all__ = ["MAX_DOCUMENT", "decompress", "is_unicode", "parse_document"]

MAX_DOCUMENT = 2 * 2**30
"""An index is refused above so many bytes of text."""

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"


def decompress(data: bytes) -> bytes:
    """Return the text of an index, which may be compressed with gzip or zstd.

    Raises
    ------
    Malformed
        The compressed stream is broken.
    Unsupported
        The text is larger than `MAX_DOCUMENT`.
    """
    text = bytes(data)
    if text.startswith(_GZIP):
        text = _gunzip(text)
    elif text.startswith(_ZSTD):
        text = _unzstd(text)
    if len(text) > MAX_DOCUMENT:
        raise _too_large(len(text))
    return text


def parse_document(text: bytes) -> dict[str, Any]:
    """Return the JSON object in some text.

    Raises
    ------
    Malformed
        It is not JSON, nests too deep, is no object, or an object has a member twice. (Most JSON
        readers let the last one win; which one was meant cannot be known.)
    """
    try:
        # Measured on a million references: no slower than ujson, which cannot see duplicates.
        document = json.loads(text, object_pairs_hook=_object)
    except RecursionError as error:
        raise Malformed("the JSON text nests too deep") from error
    except ValueError as error:
        raise Malformed(f"not JSON text: {error}") from error
    if not isinstance(document, dict):
        raise Malformed(f"the JSON text is a {type(document).__name__}, expected an object")
    return document


def is_unicode(text: str) -> bool:
    """Tell whether a string has no lone surrogates, which JSON can spell but UTF-8 cannot."""
    return text.encode(errors="replace").decode() == text


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) != len(members):
        twice, _ = Counter(name for name, _ in members).most_common(1)[0]
        raise Malformed(f"the member {twice!r:.200} is given twice")
    return found


def _gunzip(data: bytes) -> bytes:
    """Undo gzip (RFC 1952), one member after the other."""
    parts = []
    room = MAX_DOCUMENT
    while data:
        stream = zlib.decompressobj(wbits=31)
        try:
            parts.append(stream.decompress(data, room + 1))
        except zlib.error as error:
            raise Malformed(f"the gzip stream is broken: {error}") from error
        room -= len(parts[-1])
        if room < 0:
            raise _too_large(MAX_DOCUMENT + 1)
        if not stream.eof:
            raise Malformed("the gzip stream ends early")
        data = stream.unused_data
    return b"".join(parts)


def _unzstd(data: bytes) -> bytes:
    """Undo one zstd frame (RFC 8878), whose header must say how large its content is."""
    size = _zstd_content_size(data)
    if size is None:
        raise Unsupported("the zstd frame does not say its size", hint="decompress it first")
    if size > MAX_DOCUMENT:
        raise _too_large(size)
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


def _too_large(size: int) -> Unsupported:
    return Unsupported(f"the index is {size} bytes of text or more, the limit is {MAX_DOCUMENT}")
