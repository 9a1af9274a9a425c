"""libdeflate and zlib make the same of every stream, bytes or error."""

import gzip
import random
import tracemalloc
import zlib

import numpy as np
import pytest

from byteatlas.codecs import decode, decoder_of, streams
from byteatlas.errors import Malformed
from byteatlas.model import Codec, Encoding

VALUES = (np.arange(1500) // 7 * 1.5).astype("<f4").tobytes()
NOISE = np.random.default_rng(0).integers(0, 256, 3000, np.uint8).tobytes()
ZLIB, GZIP, SHUFFLED = (
    Encoding(tuple(map(Codec, names))) for names in (["zlib"], ["gzip"], ["shuffle", "zlib"])
)


def made(data, encoding, size):
    """Return the decoded bytes, or what is said of them."""
    try:
        return bytes(decode(data, encoding, size=size))
    except Malformed as error:
        return error.problem


def by_zlib(data, encoding, size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "deflate", None)
        return made(data, encoding, size)


def deflated(data, *, level=6, bits=15, strategy=zlib.Z_DEFAULT_STRATEGY, words=None):
    more = {} if words is None else {"zdict": words}
    stream = zlib.compressobj(level, zlib.DEFLATED, bits, 9, strategy, **more)
    return stream.compress(data) + stream.flush()


WHOLE = {
    **{f"level {level}": deflated(VALUES, level=level) for level in range(10)},
    **{f"window of {bits} bits": deflated(VALUES, bits=bits) for bits in range(9, 16)},
    **{
        f"strategy {strategy}": deflated(VALUES, strategy=strategy)
        for strategy in (zlib.Z_FILTERED, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE, zlib.Z_FIXED)
    },
    "trailing bytes": deflated(VALUES) + b"rest",
    "trailing stream": deflated(VALUES) * 2,
}


@pytest.mark.parametrize("name", WHOLE)
def test_every_way_to_deflate_is_inflated(name):
    assert streams.deflate is not None  # or this would compare zlib with itself
    for kind in (bytes, bytearray, memoryview, lambda data: np.frombuffer(data, np.uint8)):
        assert made(kind(WHOLE[name]), ZLIB, len(VALUES)) == VALUES
    assert by_zlib(WHOLE[name], ZLIB, len(VALUES)) == VALUES
    shuffled = np.frombuffer(VALUES, np.uint8).reshape(-1, 4).T.tobytes()
    assert made(deflated(shuffled), SHUFFLED, len(VALUES)) == VALUES


def test_whole_streams_are_inflated_by_libdeflate(monkeypatch):
    def never(*_args, **_options):
        raise AssertionError

    decoders = [decoder_of(encoding, size=len(VALUES)) for encoding in (ZLIB, GZIP)]
    monkeypatch.setattr(streams.zlib, "decompressobj", never)
    for decoder, data in zip(decoders, [deflated(VALUES), gzip.compress(VALUES)], strict=True):
        assert bytes(decoder(data)) == VALUES


def damaged(data):
    """Return what may become of a stream: cut short, continued, with a byte changed."""
    draw = random.Random(5)
    yield from (data[:keep] for keep in (*range(20), len(data) // 2, *range(-9, 0)))
    yield data + b"rest"
    yield data * 2
    for place in [*range(12), *range(-9, 0), *draw.choices(range(len(data)), k=200)]:
        changed = bytearray(data)
        changed[place % len(data)] ^= 1 << draw.randrange(8)
        yield bytes(changed)


@pytest.mark.parametrize("wrong", [0, -1, 1, -2999, 10**6], ids="{:+}".format)
@pytest.mark.parametrize(
    "values", [VALUES, NOISE, b"", b"a"], ids=["values", "noise", "none", "one"]
)
def test_a_damaged_stream_is_to_libdeflate_what_it_is_to_zlib(values, wrong):
    size = max(len(values) + wrong, 0)
    for encoding, data in [(ZLIB, deflated(values)), (GZIP, gzip.compress(values, mtime=0))]:
        outcomes = set()
        for stream in [data, *damaged(data)]:
            expected = by_zlib(stream, encoding, size)
            assert made(stream, encoding, size) == expected
            outcomes.add(type(expected))
        assert str in outcomes
        assert bytes in outcomes or size != len(values)


def test_a_stream_with_a_dictionary_of_its_own_is_malformed():
    data = deflated(VALUES, words=VALUES[:100])
    assert "cannot decode" in made(data, ZLIB, len(VALUES))
    assert made(data, ZLIB, len(VALUES)) == by_zlib(data, ZLIB, len(VALUES))


def header(flags, *parts):
    return b"\x1f\x8b\x08" + bytes([flags]) + bytes(6) + b"".join(parts)


BODY = gzip.compress(VALUES, mtime=0)[10:]
MEMBERS = {
    "two members": gzip.compress(VALUES[:99]) + gzip.compress(VALUES[99:]),
    "an empty member before": gzip.compress(b"") + gzip.compress(VALUES),
    "an empty member behind": gzip.compress(VALUES) + gzip.compress(b""),
    "a member twice": gzip.compress(VALUES) * 2,
    "zeros behind": gzip.compress(VALUES) + bytes(8),
    "bytes behind, then the checksum": gzip.compress(VALUES) + BODY[-8:-4] + b"rest",
    "bytes behind, then the size": gzip.compress(VALUES) + b"rest" + BODY[-4:],
    "bytes behind that end alike": gzip.compress(VALUES) + b"rest" + BODY[-8:],
    "with a name": header(8, b"name\0", BODY),
    "with a name that looks like a member": header(8, b"\x1f\x8b\x08\0", BODY),
    "with more": header(4, b"\x03\0abc", BODY),
    "with a comment": header(16, b"comment\0", BODY),
    "with flags that nobody knows": header(128, BODY),
    "with another method": b"\x1f\x8b\x07" + header(0, BODY)[3:],
}


@pytest.mark.parametrize("name", MEMBERS)
def test_members_of_gzip_are_to_libdeflate_what_they_are_to_zlib(name):
    for size in (len(VALUES), 2 * len(VALUES), 99):
        assert made(MEMBERS[name], GZIP, size) == by_zlib(MEMBERS[name], GZIP, size)


@pytest.mark.parametrize("codec", ["zlib", "gzip", "byteatlas.lzf"])
def test_nothing_is_allocated_that_so_few_bytes_cannot_decode_to(codec):
    encoding = Encoding((Codec(codec),))
    data = {"zlib": zlib.compress, "gzip": gzip.compress}.get(codec, lambda x: b"\x00" + x)(b"a")
    decode(data, encoding, size=1)
    tracemalloc.start()
    try:
        with pytest.raises(Malformed, match="decodes to 1 bytes, expected 536870912"):
            decode(data, encoding, size=2**29)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_a_stream_of_unknown_size_takes_no_more_memory_than_it_decodes_to():
    noise = np.random.default_rng(1).integers(0, 256, 3 * 2**20, np.uint8).tobytes()
    for codec, compress in [("zlib", zlib.compress), ("gzip", gzip.compress)]:
        data = compress(noise, 1)
        tracemalloc.start()
        try:
            assert bytes(decode(data, Encoding((Codec(codec),)), size=None)) == noise
            assert tracemalloc.get_traced_memory()[1] < 2**25
        finally:
            tracemalloc.stop()


def test_too_little_memory_is_no_fault_of_the_chunk(monkeypatch):
    def none_left(*_arguments, **_options):
        raise MemoryError

    monkeypatch.setattr(streams.zlib, "decompressobj", none_left)
    with pytest.raises(MemoryError):
        decode(deflated(VALUES), ZLIB, size=None)
