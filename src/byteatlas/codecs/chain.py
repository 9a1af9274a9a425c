"""Decode one chunk: its codecs undone one after the other, each within bounds. And encode one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numcodecs.registry import get_codec
from numpy.typing import NDArray

from byteatlas.codecs.allowed import OBJECT_CODECS, rule_of
from byteatlas.codecs.interface import Bytes, flat
from byteatlas.errors import ByteatlasError, Malformed, Unsupported
from byteatlas.limits import Limits
from byteatlas.model import Buffer, Codec, Encoding

__all__ = ["MAX_CODECS", "MAX_DECODED", "decode", "decode_objects", "encode"]

_DEFAULT = Limits()

MAX_DECODED = _DEFAULT.chunk
"""No chunk decodes to more bytes than this, unless the caller allows more."""

MAX_CODECS = _DEFAULT.codecs
"""No chunk is encoded by more codecs than this, unless the caller allows more."""


def decode(
    data: Buffer, encoding: Encoding, *, size: int | None, limits: Limits | None = None
) -> Buffer:
    """Undo the codecs of one chunk.

    Parameters
    ----------
    data
        The encoded chunk.
    encoding
        Its codecs, in the order of encoding.
    size
        Number of bytes that must come out; None when it is not known, as only a codec without
        its array does not: then at most the limit.
    limits
        How many codecs there may be, and how many bytes may come out of them.

    Returns
    -------
    Buffer
        Exactly `size` bytes, one-dimensional; a view of `data` when there is no codec.

    Raises
    ------
    Malformed
        The bytes do not decode, or not to `size` bytes.
    Unsupported
        A codec is not on the allow-list.
    LimitExceeded
        There are more codecs, or the chunk is larger, than the limits allow.
    MissingDependency
        A codec needs an optional package.
    """
    limits = _DEFAULT if limits is None else limits
    if encoding.codecs and size is not None:
        limits.check("chunk", size, "a decoded chunk")
    limits.check("codecs", len(encoding.codecs), "its chain of codecs")
    sizes = _sizes(encoding.codecs, size, limits.chunk)
    out: Bytes = flat(data)
    for codec, limit in zip(encoding.codecs[::-1], sizes[-2::-1], strict=True):
        try:
            out = rule_of(codec.name).decode(out, codec.config, limit)
        except ByteatlasError:
            raise
        except Exception as error:  # codecs fail in many ways, and all of them mean this
            raise Malformed(f"codec {codec.name!r} cannot decode the chunk: {error}") from error
    if size is not None and len(out) != size:
        raise Malformed(f"chunk decodes to {len(out)} bytes, expected {size}")
    return out


def decode_objects(
    data: Buffer, encoding: Encoding, *, count: int, limits: Limits | None = None
) -> NDArray[np.object_]:
    """Undo the codecs of a chunk of variable-length items, the first codec being their own.

    Parameters
    ----------
    data
        The encoded chunk.
    encoding
        Its codecs; the first is ``vlen-utf8``, ``vlen-bytes`` or ``vlen-array``.
    count
        Number of items that must come out.
    limits
        As for `decode`.

    Returns
    -------
    ndarray
        Items, shape (count,), of type str, bytes or ndarray.

    Raises
    ------
    Malformed
        The bytes do not decode, or not to `count` items.
    Unsupported
        The first codec is another one, or one is not on the allow-list.
    """
    if not encoding.codecs or encoding.codecs[0].name not in OBJECT_CODECS:
        raise Unsupported(
            f"variable-length items are encoded by {[codec.name for codec in encoding.codecs]!r},"
            f" expected one of {sorted(OBJECT_CODECS)} first"
        )
    items, rest = encoding.codecs[0], Encoding(encoding.codecs[1:])
    whole = bytes(decode(data, rest, size=None, limits=limits))
    found = int.from_bytes(whole[:4], "little")
    if found != count or len(whole) < 4 + 4 * count:  # before anything of that size is allocated
        raise Malformed(
            f"chunk of {len(whole)} bytes says it holds {found} items, expected {count}"
        )
    try:
        decoded = get_codec({"id": items.name, **items.config}).decode(whole)
    except Exception as error:
        raise Malformed(f"codec {items.name!r} cannot decode the chunk: {error}") from error
    values: NDArray[np.object_] = decoded
    return values


def encode(data: Buffer, encoding: Encoding) -> bytes:
    """Encode one chunk, as for one that is kept inline among others that are encoded so.

    Raises
    ------
    Unsupported
        A codec only decodes (`byteatlas.codecs.only_decodes`), or refuses the data.
    """
    buffer: Any = data
    try:
        for codec in encoding.codecs:
            buffer = get_codec({"id": codec.name, **codec.config}).encode(buffer)
    except (NotImplementedError, ValueError) as error:
        raise Unsupported(f"chunks to keep inline, which cannot be encoded ({error})") from error
    return bytes(buffer)


def _sizes(codecs: Sequence[Codec], size: int | None, largest: int) -> list[int]:
    """Bound the bytes before the first codec, between the codecs, and after the last.

    Exact as long as every codec so far says what it makes of a size; after a compressor, which
    does not, no more than twice the decoded size and some, because none expands its input so.
    """
    bounds = [largest if size is None else size]
    for codec in codecs:
        rule = rule_of(codec.name)
        try:
            after = None if size is None else rule.encoded_size(codec.config, size)
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise Malformed(f"codec {codec.name!r} is configured wrongly: {error!r}") from error
        bounds.append(min(2 * bounds[-1] + 2**16, largest) if after is None else after)
        size = after
    return bounds
