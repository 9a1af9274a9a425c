"""Decode one chunk: its codecs undone one after the other, each within bounds. And encode one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numcodecs.registry import get_codec
from numpy.typing import NDArray

from byteatlas.codecs.allowed import OBJECT_CODECS, rule_of
from byteatlas.codecs.interface import Bound, Bytes, Step, flat
from byteatlas.errors import ByteatlasError, Malformed, Unsupported
from byteatlas.limits import Limits
from byteatlas.model import Buffer, Codec, Encoding

__all__ = [
    "MAX_CODECS",
    "MAX_DECODED",
    "Decoder",
    "PartDecoder",
    "decode",
    "decode_objects",
    "decoder_of",
    "encode",
    "part_decoder_of",
]

_DEFAULT = Limits()

MAX_DECODED = _DEFAULT.chunk
"""No chunk decodes to more bytes than this, unless the caller allows more."""

MAX_CODECS = _DEFAULT.codecs
"""No chunk is encoded by more codecs than this, unless the caller allows more."""

Decoder: TypeAlias = Callable[[Buffer], Buffer]
"""Takes an encoded chunk and returns it decoded; see `decoder_of`."""

PartDecoder: TypeAlias = Callable[[Buffer, int, int], Buffer]
"""Takes an encoded chunk, start and stop, and returns that part decoded; see `part_decoder_of`."""


def decode(
    data: Buffer, encoding: Encoding, *, size: int | None, limits: Limits | None = None
) -> Buffer:
    """Undo the codecs of one chunk; for many chunks make a decoder once, with `decoder_of`.

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
    return decoder_of(encoding, size=size, limits=limits)(data)


def decoder_of(encoding: Encoding, *, size: int | None, limits: Limits | None = None) -> Decoder:
    """Return what undoes the codecs of a chunk, for many chunks that are encoded alike.

    All that does not depend on a chunk's bytes is done here, once. The result may be called by
    several threads at the same time.

    Parameters
    ----------
    encoding
        The chunks' codecs, in the order of encoding.
    size
        Number of bytes that must come out of each chunk; None when it is not known: then at most
        the limit.
    limits
        How many codecs there may be, and how many bytes may come out of them.

    Returns
    -------
    callable
        Takes an encoded chunk and returns exactly `size` bytes, one-dimensional: a view of the
        chunk when there is no codec, or none that changes its bytes. It raises as `decode` does.

    Raises
    ------
    Malformed
        A codec is configured wrongly.
    Unsupported
        A codec is not on the allow-list.
    LimitExceeded
        There are more codecs, or the chunks are larger, than the limits allow.
    """
    limits = _DEFAULT if limits is None else limits
    _check(encoding, size, limits)
    bounds = _bounds(encoding.codecs, size, limits.chunk)
    steps = [
        (codec.name, _prepared(codec, bound))
        for codec, bound in zip(encoding.codecs[::-1], bounds[-2::-1], strict=True)
    ]

    def decoder(data: Buffer) -> Bytes:
        out: Bytes = flat(data)
        name = ""
        try:
            for name, step in steps:  # noqa: B007  # for the message
                out = step(out)
        except (ByteatlasError, MemoryError):  # want of memory is no fault of the chunk
            raise
        except Exception as error:  # codecs fail in many ways, and all of them mean this
            raise _cannot_decode(name, error) from error
        if size is not None and len(out) != size:
            raise Malformed(f"chunk decodes to {len(out)} bytes, expected {size}")
        return out

    return decoder


def part_decoder_of(
    encoding: Encoding, *, size: int, limits: Limits | None = None
) -> PartDecoder | None:
    """Return what decodes a part of a chunk without the rest of it, where there is such a way.

    Parameters
    ----------
    encoding
        The chunks' codecs, in the order of encoding.
    size
        Number of bytes that the whole chunk decodes to.
    limits
        As for `decoder_of`.

    Returns
    -------
    callable or None
        Takes an encoded chunk, the first decoded byte that is wanted and the one after the last,
        ``0 <= start <= stop <= size``; returns the bytes between them, one-dimensional. It raises
        as `decode` does, as far as it has looked. None where a chunk is only decoded whole.

    Raises
    ------
    Malformed, Unsupported, LimitExceeded
        As by `decoder_of`.
    """
    limits = _DEFAULT if limits is None else limits
    _check(encoding, size, limits)
    if len(encoding.codecs) != 1:
        return None
    (codec,) = encoding.codecs
    try:
        step = rule_of(codec.name).part(codec.config, size)
    except ByteatlasError:
        raise
    except Exception as error:
        raise _cannot_decode(codec.name, error) from error
    if step is None:
        return None
    part_step = step

    def decoder(data: Buffer, start: int, stop: int) -> Bytes:
        if not 0 <= start <= stop <= size:
            raise ValueError(f"bytes {start} to {stop} of a chunk of {size}")
        try:
            out = part_step(flat(data), start, stop)
        except (ByteatlasError, MemoryError):
            raise
        except Exception as error:
            raise _cannot_decode(codec.name, error) from error
        if len(out) != stop - start:
            raise Malformed(f"chunk decodes to {len(out)} bytes, expected {stop - start}")
        return out

    return decoder


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


def _check(encoding: Encoding, size: int | None, limits: Limits) -> None:
    if encoding.codecs and size is not None:
        limits.check("chunk", size, "a decoded chunk")
    limits.check("codecs", len(encoding.codecs), "its chain of codecs")


def _prepared(codec: Codec, bound: Bound) -> Step:
    try:
        return rule_of(codec.name).prepare(codec.config, bound)
    except ByteatlasError:
        raise
    except Exception as error:
        raise _cannot_decode(codec.name, error) from error


def _cannot_decode(name: str, error: Exception) -> Malformed:
    return Malformed(f"codec {name!r} cannot decode the chunk: {error}")


def _bounds(codecs: Sequence[Codec], size: int | None, largest: int) -> list[Bound]:
    """Bound the bytes before the first codec, between the codecs, and after the last.

    Exact as long as every codec so far says what it makes of a size; after a compressor, which
    does not, no more than twice the decoded size and some, because none expands its input so.
    """
    bounds = [Bound(largest if size is None else size, is_exact=size is not None)]
    for codec in codecs:
        rule = rule_of(codec.name)
        try:
            after = None if size is None else rule.encoded_size(codec.config, size)
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise Malformed(f"codec {codec.name!r} is configured wrongly: {error!r}") from error
        limit = min(2 * bounds[-1].limit + 2**16, largest) if after is None else after
        bounds.append(Bound(limit, is_exact=after is not None))
        size = after
    return bounds
