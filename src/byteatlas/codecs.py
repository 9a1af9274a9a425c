"""Decode chunks, within bounds, and the numcodecs codecs that carry what Zarr has no word for.

`decode` undoes the codecs of one chunk. It knows beforehand how many bytes have to come out, so
no chunk can make it allocate more: a compressed stream is stopped at its expected size, and the
size that a zstd, blosc or lz4 header claims is checked before anything is allocated. Codecs come
from an allow-list; a name in an index never imports or runs anything else.
"""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numcodecs.abc import Codec as NumcodecsCodec
from numcodecs.registry import get_codec
from numpy.typing import NDArray

from byteatlas.convert import Convert
from byteatlas.errors import ByteatlasError, Malformed, Unsupported
from byteatlas.model import Buffer, Codec, Encoding

__all__ = [
    "ENCODING_PREFIX",
    "MAX_DECODED",
    "Convert",
    "Encodings",
    "decode",
    "decode_objects",
    "encoding_prefix",
    "fletcher32",
    "unshuffle",
]

MAX_DECODED = 2**30
"""No chunk decodes to more bytes than this, whatever it or its index says."""

Config: TypeAlias = Mapping[str, Any]  # Any: each codec's own JSON values
Bytes: TypeAlias = bytes | memoryview
Undo: TypeAlias = Callable[[Bytes, Config, int], Bytes]
"""Takes the encoded bytes, the codec's configuration and the largest number of decoded bytes."""


def decode(data: Buffer, encoding: Encoding, *, size: int | None) -> Buffer:
    """Undo the codecs of one chunk.

    Parameters
    ----------
    data
        The encoded chunk.
    encoding
        Its codecs, in the order of encoding.
    size
        Number of bytes that must come out; None when it is not known, as only a codec without
        its array does not: then at most `MAX_DECODED`.

    Returns
    -------
    Buffer
        Exactly `size` bytes, one-dimensional; a view of `data` when there is no codec.

    Raises
    ------
    Malformed
        The bytes do not decode, or not to `size` bytes.
    Unsupported
        A codec is not on the allow-list, or the chunk is larger than `MAX_DECODED`.
    """
    if encoding.codecs and size is not None and size > MAX_DECODED:
        raise Unsupported(f"chunks of {size} bytes are not decoded, only up to {MAX_DECODED}")
    sizes = _sizes(encoding.codecs, size)
    out: Bytes = _flat(data)
    for codec, limit in zip(encoding.codecs[::-1], sizes[-2::-1], strict=True):
        try:
            out = _rule(codec).decode(out, codec.config, limit)
        except ByteatlasError:
            raise
        except Exception as error:  # codecs fail in many ways, and all of them mean this
            raise Malformed(f"codec {codec.name!r} cannot decode the chunk: {error}") from error
    if size is not None and len(out) != size:
        raise Malformed(f"chunk decodes to {len(out)} bytes, expected {size}")
    return out


def decode_objects(data: Buffer, encoding: Encoding, *, count: int) -> NDArray[np.object_]:
    """Undo the codecs of a chunk of variable-length items, the first codec being their own.

    Parameters
    ----------
    data
        The encoded chunk.
    encoding
        Its codecs; the first is ``vlen-utf8``, ``vlen-bytes`` or ``vlen-array``.
    count
        Number of items that must come out.

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
    if not encoding.codecs or encoding.codecs[0].name not in _OBJECT_CODECS:
        raise Unsupported(
            f"variable-length items are encoded by {[codec.name for codec in encoding.codecs]!r},"
            f" expected one of {sorted(_OBJECT_CODECS)} first"
        )
    items, rest = encoding.codecs[0], Encoding(encoding.codecs[1:])
    flat = bytes(decode(data, rest, size=None))
    found = int.from_bytes(flat[:4], "little")
    if found != count or len(flat) < 4 + 4 * count:  # before anything of that size is allocated
        raise Malformed(f"chunk of {len(flat)} bytes says it holds {found} items, expected {count}")
    try:
        decoded = get_codec({"id": items.name, **items.config}).decode(flat)
    except Exception as error:
        raise Malformed(f"codec {items.name!r} cannot decode the chunk: {error}") from error
    values: NDArray[np.object_] = decoded
    return values


# Codecs written here: those of HDF5, because nearly every legacy chunk needs them.


def _inflate(data: Bytes, config: Config, limit: int) -> Bytes:
    """Undo zlib (RFC 1950); HDF5 calls it deflate."""
    del config
    stream = zlib.decompressobj()
    out = stream.decompress(data, limit + 1)
    if len(out) > limit:
        raise Malformed(f"deflated chunk holds more than the {limit} bytes expected")
    if not stream.eof:
        raise Malformed(f"deflated chunk ends early, {len(out)} of {limit} bytes inflated")
    if stream.unused_data:
        raise Malformed(f"deflated chunk is followed by {len(stream.unused_data)} bytes")
    return out


def unshuffle(data: Bytes, item: int) -> Bytes:
    """Undo HDF5's shuffle: byte k of all items stands together, then byte k + 1 of all.

    Parameters
    ----------
    data
        Shuffled bytes; the rest that fills no item stands unchanged at their end.
    item
        Size of an item, in bytes.
    """
    if item < 1:
        raise Malformed(f"shuffle with items of {item} bytes, expected at least 1")
    if item == 1:
        return data
    source = np.frombuffer(data, np.uint8)
    count = source.size // item
    out = np.empty(source.size, np.uint8)
    for byte in range(item):
        out[byte : count * item : item] = source[byte * count : (byte + 1) * count]
    out[count * item :] = source[count * item :]
    return out.data


def fletcher32(data: Bytes) -> int:
    """Return HDF5's Fletcher checksum: two sums of big-endian 16-bit words, modulo 65535.

    The first sum counts each word once, the second the last word once, the one before it twice
    and so on. An odd last byte is the high half of a word. A sum is 0 only if all words are.
    (HDF5 library, ``H5_checksum_fletcher32``.)
    """
    source = np.frombuffer(data, np.uint8)
    count = -(-source.size // 2)
    rows = -(-count // _ROW)
    words = np.zeros(rows * _ROW)  # float64: a row's sums stay below 2**53, and BLAS is fast
    words[: source.size // 2] = source[: source.size // 2 * 2].view(">u2")
    if source.size % 2:
        words[count - 1] = int(source[-1]) << 8
    plain, falling = (words.reshape(rows, _ROW) @ _ROW_WEIGHTS).astype(np.int64).T
    below = (count - _ROW * np.arange(1, rows + 1)) % 65535  # words after a row, as its weight
    first = int(plain.sum())
    second = int(falling.sum()) + int((plain * below).sum())
    return (_fold(second) << 16) | _fold(first)


def _fold(total: int) -> int:
    return (total - 1) % 65535 + 1 if total else 0


_ROW = 4096
_ROW_WEIGHTS = np.stack([np.ones(_ROW), np.arange(_ROW, 0.0, -1.0)], axis=1)


def _check_fletcher32(data: Bytes, config: Config, limit: int) -> Bytes:
    del config, limit
    if len(data) < 4:
        raise Malformed(f"chunk of {len(data)} bytes has no room for its checksum of 4")
    body, stored = data[:-4], bytes(data[-4:])
    computed = fletcher32(body).to_bytes(4, "little")
    swapped = bytes(computed[byte] for byte in (1, 0, 3, 2))  # as HDF5 before 1.6.3 wrote it
    if stored not in (computed, swapped):
        raise Malformed(f"checksum is {computed.hex()}, but the chunk says {stored.hex()}")
    return body


# Codecs of the standard library and of numcodecs: the size is bounded before it is allocated.


def _gunzip(data: Bytes, config: Config, limit: int) -> Bytes:
    """Undo gzip (RFC 1952), one member or more."""
    del config
    parts, left = [], limit
    rest = memoryview(data)
    while rest:
        stream = zlib.decompressobj(wbits=31)
        parts.append(stream.decompress(rest, left + 1))
        left -= len(parts[-1])
        if left < 0:
            raise Malformed(f"gzip chunk holds more than the {limit} bytes expected")
        if not stream.eof:
            raise Malformed(f"gzip chunk ends early, {limit - left} of {limit} bytes inflated")
        rest = memoryview(stream.unused_data)
    return b"".join(parts)


def _stop_at(
    make: Callable[[], bz2.BZ2Decompressor | lzma.LZMADecompressor],
) -> Undo:
    def decompress(data: Bytes, config: Config, limit: int) -> Bytes:
        if config.get("filters"):
            raise Unsupported("lzma with a filter chain of its own is not supported")
        stream = make()
        out = stream.decompress(data, limit + 1)
        if len(out) > limit:
            raise Malformed(f"compressed chunk holds more than the {limit} bytes expected")
        if not stream.eof:
            raise Malformed(f"compressed chunk ends early, {len(out)} of {limit} bytes decoded")
        return out

    return decompress


def _check_claim(claim: Callable[[bytes], int], name: str) -> Undo:
    """Let numcodecs decompress what claims, in its own header, no more than is expected."""

    def decompress(data: Bytes, config: Config, limit: int) -> Bytes:
        flat = bytes(data)
        claimed = claim(flat)
        if claimed > limit:
            raise Malformed(f"{name} chunk claims {claimed} bytes, expected at most {limit}")
        return _flat(get_codec({"id": name, **config}).decode(flat))

    return decompress


def _zstd_claim(data: bytes) -> int:
    """Return the content size in a Zstandard frame header (RFC 8878, 3.1.1.1)."""
    magic, descriptor = struct.unpack_from("<IB", data)
    if magic != 0xFD2FB528:
        raise Malformed(f"zstd chunk begins with {data[:4]!r}, expected b'(\\xb5/\\xfd'")
    flag, single = descriptor >> 6, descriptor >> 5 & 1
    width = (single, 2, 4, 8)[flag]
    if not width:
        raise Unsupported("zstd chunk does not say how many bytes it holds")
    start = 5 + (1 - single) + (0, 1, 2, 4)[descriptor & 3]
    size = int.from_bytes(data[start : start + width], "little")
    return size + 256 if flag == 1 else size


def _blosc_claim(data: bytes) -> int:
    """Return the decoded size in a Blosc header, whose encoded size must be the chunk's."""
    decoded, _, encoded = struct.unpack_from("<III", data, 4)
    if encoded != len(data):
        raise Malformed(f"blosc chunk has {len(data)} bytes, but says it has {encoded}")
    return int(decoded)


def _lz4_claim(data: bytes) -> int:
    return int(struct.unpack_from("<I", data)[0])


def _by_numcodecs(name: str) -> Undo:
    """Let numcodecs undo a codec whose decoded size follows its encoded size."""

    def decompress(data: Bytes, config: Config, limit: int) -> Bytes:
        del limit
        return _flat(get_codec({"id": name, **config}).decode(bytes(data)))

    return decompress


def _convert(data: Bytes, config: Config, limit: int) -> Bytes:
    if len(data) // config["stored"] * config["decoded"] > limit:
        raise Malformed(f"records of {config['stored']} bytes decode to more than {limit} bytes")
    return _flat(Convert(**config).decode(data))


# The allow-list.


class _Rule(NamedTuple):
    """How to undo a codec that the allow-list has."""

    decode: Undo
    encoded_size: Callable[[Config, int], int | None] = lambda _config, _size: None
    """Number of encoded bytes of so many decoded ones; None when the data decide."""


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


_RULES: dict[str, _Rule] = {
    "zlib": _Rule(_inflate),
    "shuffle": _Rule(lambda data, config, _: unshuffle(data, config.get("elementsize", 4)), _same),
    "fletcher32": _Rule(_check_fletcher32, _four_more),
    "gzip": _Rule(_gunzip),
    "bz2": _Rule(_stop_at(bz2.BZ2Decompressor)),
    "lzma": _Rule(_stop_at(lzma.LZMADecompressor)),
    "zstd": _Rule(_check_claim(_zstd_claim, "zstd")),
    "blosc": _Rule(_check_claim(_blosc_claim, "blosc")),
    "lz4": _Rule(_check_claim(_lz4_claim, "lz4")),
    "adler32": _Rule(_by_numcodecs("adler32"), _four_more),
    "crc32": _Rule(_by_numcodecs("crc32"), _four_more),
    "jenkins_lookup3": _Rule(_by_numcodecs("jenkins_lookup3"), _four_more),
    "delta": _Rule(_by_numcodecs("delta"), _retyped),
    "fixedscaleoffset": _Rule(_by_numcodecs("fixedscaleoffset"), _retyped),
    "astype": _Rule(_by_numcodecs("astype"), _retyped),
    "quantize": _Rule(_by_numcodecs("quantize"), _retyped),
    "bitround": _Rule(_by_numcodecs("bitround"), _same),
    "byteatlas.convert": _Rule(_convert, _converted),
}
_OBJECT_CODECS = frozenset({"vlen-utf8", "vlen-bytes", "vlen-array"})


def _rule(codec: Codec) -> _Rule:
    rule = _RULES.get(codec.name)
    if rule is None:
        raise Unsupported(
            f"codec {codec.name!r} is not on the list of codecs that may be used:"
            f" {', '.join(sorted(_RULES))}"
        )
    return rule


def _sizes(codecs: Sequence[Codec], size: int | None) -> list[int]:
    """Bound the bytes before the first codec, between the codecs, and after the last.

    Exact as long as every codec so far says what it makes of a size; after a compressor, which
    does not, no more than twice the decoded size and some, because none expands its input so.
    """
    bounds = [MAX_DECODED if size is None else size]
    for codec in codecs:
        rule = _rule(codec)
        try:
            after = None if size is None else rule.encoded_size(codec.config, size)
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise Malformed(f"codec {codec.name!r} is configured wrongly: {error!r}") from error
        bounds.append(min(2 * bounds[-1] + 2**16, MAX_DECODED) if after is None else after)
        size = after
    return bounds


def _flat(data: Any) -> memoryview:  # Any: whatever has the buffer protocol
    """Return one-dimensional unsigned bytes, a view where that is possible."""
    if isinstance(data, np.ndarray):
        return np.ascontiguousarray(data).reshape(-1).view(np.uint8).data
    view = memoryview(data)
    return view if view.format == "B" and view.ndim == 1 else view.cast("B")


# Codecs registered with numcodecs.

ENCODING_PREFIX = b"\x93byteatlas.enc1\n"
"""Magic in front of a chunk that says by which of its array's encodings it was encoded."""


def encoding_prefix(position: int) -> bytes:
    """Return the 20 bytes that mark a chunk as encoded by the encoding at `position`."""
    return ENCODING_PREFIX + position.to_bytes(4, "little")


class Encodings(NumcodecsCodec):  # type: ignore[misc]  # numcodecs has no type information
    """Decodes arrays whose chunks are not all encoded alike.

    Each chunk begins with a prefix of 20 bytes: a magic and the position (4 bytes, little-endian)
    of its encoding in the list that configures this codec. The byteatlas store and filesystem
    put it there. Whoever reads the chunk's bytes from its source directly finds no prefix, and
    is refused.

    Parameters
    ----------
    encodings
        Each encoding: a list of numcodecs configurations in the order of encoding.
    """

    codec_id = "byteatlas.encodings"

    def __init__(self, encodings: Sequence[Sequence[Mapping[str, Any]]]) -> None:
        self.encodings = [[dict(codec) for codec in encoding] for encoding in encodings]

    def encode(self, buf: Any) -> Any:
        """Refuse: an index is only read."""
        del buf
        raise Unsupported("arrays read through byteatlas cannot be written")

    def decode(self, buf: Any, out: Any = None) -> Any:
        """Decode a chunk by the encoding that its prefix names."""
        flat = _flat(buf)
        start = len(ENCODING_PREFIX) + 4
        if bytes(flat[: len(ENCODING_PREFIX)]) != ENCODING_PREFIX or len(flat) < start:
            raise Malformed(
                "chunk has no encoding prefix",
                hint="its array has several encodings; open the index with byteatlas",
            )
        position = int.from_bytes(flat[len(ENCODING_PREFIX) : start], "little")
        if position >= len(self.encodings):
            raise Malformed(f"chunk has encoding {position}, but there are {len(self.encodings)}")
        codecs = (
            Codec(config["id"], {key: value for key, value in config.items() if key != "id"})
            for config in self.encodings[position]
        )
        decoded = decode(flat[start:], Encoding(tuple(codecs)), size=None)
        if out is None:
            return decoded
        np.frombuffer(out, np.uint8)[:] = np.frombuffer(decoded, np.uint8)
        return out
