"""Chunks decode to exactly what was encoded, within the size expected, or are refused."""

import bz2
import gzip
import lzma
import struct
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor

import numcodecs
import numpy as np
import pytest

from byteatlas.codecs import MAX_CODECS, decode, decode_objects, decoder_of
from byteatlas.errors import LimitExceeded, Malformed, Unsupported
from byteatlas.model import Codec, Encoding

VALUES = np.arange(500, dtype="<f4").tobytes()


def chain(*codecs: Codec) -> Encoding:
    return Encoding(codecs)


def encode(data: bytes, encoding: Encoding) -> bytes:
    for codec in encoding.codecs:
        data = bytes(numcodecs.get_codec({"id": codec.name, **codec.config}).encode(data))
    return data


SHUFFLE = Codec("shuffle", {"elementsize": 4})
ZLIB = Codec("zlib", {"level": 4})


@pytest.mark.parametrize(
    "encoding",
    [
        chain(),
        chain(ZLIB),
        chain(SHUFFLE, ZLIB),
        chain(SHUFFLE, ZLIB, Codec("fletcher32")),
        chain(Codec("fletcher32"), SHUFFLE, ZLIB),
        chain(ZLIB, ZLIB),
        chain(Codec("gzip")),
        chain(Codec("bz2")),
        chain(Codec("lzma")),
        chain(Codec("zstd", {"level": 3})),
        chain(Codec("blosc", {"cname": "zstd", "shuffle": 1})),
        chain(Codec("lz4")),
        chain(Codec("crc32")),
        chain(Codec("adler32"), Codec("lz4")),
        chain(Codec("jenkins_lookup3")),
        chain(Codec("delta", {"dtype": "<f4"}), Codec("zlib")),
        chain(Codec("astype", {"encode_dtype": "<f8", "decode_dtype": "<f4"}), Codec("zlib")),
        chain(Codec("delta", {"dtype": "<f4", "astype": "<f8"}), SHUFFLE),
        chain(Codec("bitround", {"keepbits": 23}), Codec("zlib")),
        chain(
            Codec("fixedscaleoffset", {"offset": 0, "scale": 1, "dtype": "<f4", "astype": "<i2"}),
            Codec("shuffle", {"elementsize": 2}),
        ),
    ],
    ids=lambda encoding: "+".join(codec.name for codec in encoding.codecs) or "none",
)
def test_a_chain_of_codecs_is_undone(encoding):
    if encoding.codecs and encoding.codecs[0].name == "bitround":
        data = encode(np.frombuffer(VALUES, "<f4"), encoding)
    else:
        data = encode(VALUES, encoding)
    assert bytes(decode(data, encoding, size=len(VALUES))) == VALUES
    assert bytes(decode(memoryview(data), encoding, size=None)) == VALUES
    assert bytes(decode(np.frombuffer(data, np.uint8), encoding, size=len(VALUES))) == VALUES


@pytest.mark.parametrize(
    "name", ["zlib", "gzip", "bz2", "lzma", "zstd", "blosc", "lz4", "fletcher32"]
)
def test_one_decoder_serves_several_threads_at_once(name):
    encoding = chain(SHUFFLE, Codec(name))
    whole = [np.random.default_rng(k).integers(0, 9, 30_000, "<u4").tobytes() for k in range(8)]
    data = [encode(values, encoding) for values in whole]
    decoder = decoder_of(encoding, size=120_000)
    with ThreadPoolExecutor(4) as threads:
        for values, decoded in zip(whole * 4, threads.map(decoder, data * 4), strict=True):
            assert bytes(decoded) == values


@pytest.mark.parametrize("name", ["zlib", "gzip", "bz2", "lzma", "zstd", "blosc", "lz4"])
@pytest.mark.parametrize("wrong", [-1, 1], ids=["more than expected", "less than expected"])
def test_a_compressed_chunk_of_another_size_is_malformed(name, wrong):
    encoding = chain(Codec(name))
    data = encode(VALUES, encoding)
    with pytest.raises(Malformed, match=r"expected|claims"):
        decode(data, encoding, size=len(VALUES) + wrong)


@pytest.mark.parametrize("name", ["zlib", "gzip", "bz2", "lzma"])
@pytest.mark.parametrize("more", [1, 1000])
def test_a_stream_that_goes_on_is_not_said_to_end_early(name, more):
    data = encode(VALUES, chain(Codec(name)))
    with pytest.raises(Malformed, match="holds more than"):
        decode(data, chain(Codec(name)), size=len(VALUES) - more)


@pytest.mark.parametrize("name", ["zlib", "gzip", "bz2", "lzma", "zstd", "blosc", "lz4"])
def test_a_compressed_chunk_cut_short_is_malformed(name):
    encoding = chain(Codec(name))
    data = encode(VALUES, encoding)
    for keep in (len(data) - 1, len(data) // 2, 5, 1, 0):
        with pytest.raises(Malformed):
            decode(data[:keep], encoding, size=len(VALUES))


def test_what_follows_a_deflated_stream_is_read_over():
    data = zlib.compress(VALUES) + zlib.compress(VALUES)
    assert bytes(decode(data, chain(ZLIB), size=len(VALUES))) == VALUES


def test_a_chunk_of_astronomic_size_is_not_decoded():
    with pytest.raises(LimitExceeded, match="a decoded chunk takes 1099511627776"):
        decode(struct.pack("<i", -1), chain(Codec("lz4")), size=2**40)


def test_gzip_members_are_joined():
    data = gzip.compress(VALUES[:100]) + gzip.compress(VALUES[100:])
    assert bytes(decode(data, chain(Codec("gzip")), size=len(VALUES))) == VALUES


@pytest.mark.parametrize(
    ("name", "bomb"),
    [
        ("zlib", zlib.compress(bytes(2**27))),
        ("gzip", gzip.compress(bytes(2**27), 1)),
        ("bz2", bz2.compress(bytes(2**27))),
        ("lzma", lzma.compress(bytes(2**27), preset=0)),
        ("zstd", numcodecs.Zstd().encode(bytes(2**27))),
        ("lz4", struct.pack("<i", 2**30) + bytes(64)),
        ("blosc", struct.pack("<BBBBIII", 2, 1, 1, 4, 2**30, 2**20, 80) + bytes(64)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bomb_takes_no_more_memory_than_the_chunk_it_should_be(name, bomb):
    tracemalloc.start()
    try:
        with pytest.raises(Malformed):
            decode(bomb, chain(Codec(name)), size=4096)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_a_zstd_frame_without_its_size_is_unsupported():
    frame = b"\x28\xb5\x2f\xfd\x00\x58\x01\x00\x00"
    with pytest.raises(Unsupported, match="does not say how many bytes"):
        decode(frame, chain(Codec("zstd")), size=0)


@pytest.mark.parametrize("size", [1, 255, 256, 257, 65535, 65536, 65791, 65792, 70000])
def test_zstd_frames_of_every_header_width_are_read(size):
    data = bytes(numcodecs.Zstd().encode(bytes(size)))
    assert bytes(decode(data, chain(Codec("zstd")), size=size)) == bytes(size)


@pytest.mark.parametrize("name", ["pickle", "json2", "msgpack2", "base64", "os.system", "zfpy"])
def test_a_codec_that_is_not_on_the_list_is_unsupported(name):
    with pytest.raises(Unsupported, match=f"codec '{name}' is not on the list"):
        decode(b"", chain(Codec(name)), size=0)


def test_a_codec_with_a_strange_configuration_is_malformed():
    for config in ({"elementsize": 0}, {"elementsize": -4}, {"elementsize": "x"}):
        with pytest.raises(Malformed):
            decode(b"12345678", chain(Codec("shuffle", config)), size=8)
    with pytest.raises(Malformed, match="cannot decode"):
        decode(b"12345678", chain(Codec("delta", {"dtype": "<f4", "no": 1})), size=8)


@pytest.mark.parametrize("count", [MAX_CODECS, MAX_CODECS + 1])
def test_a_chain_may_only_be_so_long(count):
    encoding = chain(*[ZLIB] * count)
    data = encode(VALUES, encoding)
    if count == MAX_CODECS:
        assert bytes(decode(data, encoding, size=len(VALUES))) == VALUES
        return
    with pytest.raises(LimitExceeded, match="chain of codecs takes 9"):
        decode(data, encoding, size=len(VALUES))


# Variable-length items.


@pytest.mark.parametrize(
    ("codec", "items"),
    [
        (Codec("vlen-utf8"), ["", "é", "abc"]),
        (Codec("vlen-bytes"), [b"", b"\0", b"abc"]),
    ],
    ids=["utf8", "bytes"],
)
@pytest.mark.parametrize("rest", [(), (ZLIB,)], ids=["plain", "zlib"])
def test_variable_length_items_are_decoded(codec, items, rest):
    raw = numcodecs.get_codec({"id": codec.name}).encode(np.array(items, object))
    data = encode(bytes(raw), Encoding(rest))
    decoded = decode_objects(data, Encoding((codec, *rest)), count=3)
    assert decoded.dtype == object
    assert decoded.tolist() == items


def test_a_claimed_number_of_items_is_checked_before_it_is_allocated():
    data = struct.pack("<I", 2**31 - 1)
    with pytest.raises(Malformed, match="says it holds 2147483647 items, expected 3"):
        decode_objects(data, chain(Codec("vlen-utf8")), count=3)
    with pytest.raises(Malformed, match="says it holds"):
        decode_objects(data, chain(Codec("vlen-utf8")), count=2**31 - 1)


def test_an_item_that_runs_over_the_end_is_malformed():
    data = struct.pack("<II", 1, 2**31) + b"ab"
    with pytest.raises(Malformed, match="cannot decode"):
        decode_objects(data, chain(Codec("vlen-utf8")), count=1)


@pytest.mark.parametrize("encoding", [chain(), chain(ZLIB), chain(Codec("pickle"))])
def test_objects_need_a_codec_of_their_own(encoding):
    with pytest.raises(Unsupported, match="variable-length"):
        decode_objects(b"", encoding, count=1)
