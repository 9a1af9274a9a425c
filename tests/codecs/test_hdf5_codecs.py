"""Codecs of HDF5's filters, each on streams made by hand, cut short, too large and damaged."""

import random
import struct
import sys
import tracemalloc

import h5py
import numcodecs
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from byteatlas.codecs import decode, lzf
from byteatlas.codecs.bits import take_bits
from byteatlas.errors import Malformed, MissingDependency, Unsupported
from byteatlas.model import Codec, Encoding
from byteatlas_scanners.hdf5.filters import Filter, encoding_of

hdf5plugin = pytest.importorskip("hdf5plugin")
hdf5plugin.register()

LZF = Encoding((Codec("byteatlas.lzf"),))
LZ4 = Encoding((Codec("imagecodecs_lz4h5"),))


# Bits.


@settings(deadline=None)
@given(
    st.integers(1, 64),
    st.integers(0, 70),
    st.integers(0, 20),
    st.lists(st.integers(0, 2**64 - 1), max_size=30),
)
def test_numbers_of_any_width_are_taken_from_any_bit(width, skipped, gap, numbers):
    numbers = [number % 2**width for number in numbers]
    bits = "1" * skipped + ("1" * gap).join(f"{number:0{width}b}" for number in numbers)
    bits += "1" * (-len(bits) % 8)
    stream = int(bits or "0", 2).to_bytes(len(bits) // 8, "big") + b"\xff" * 9
    taken = take_bits(stream, skipped, width + gap, len(numbers), width)
    assert taken.tolist() == numbers


# lzf.


def lzf_decoded(instructions):
    """Do what the instructions say: bytes to be copied, or (length, distance)."""
    out = bytearray()
    for item in instructions:
        if isinstance(item, bytes):
            out += item
        else:
            for _ in range(item[0]):
                out.append(out[-item[1]])
    return bytes(out)


def lzf_encoded(instructions):
    out = bytearray()
    for item in instructions:
        if isinstance(item, bytes):
            out += bytes([len(item) - 1]) + item
            continue
        length, back = item[0] - 2, item[1] - 1
        out += bytes([min(length, 7) << 5 | back >> 8])
        out += bytes([length - 7] if length >= 7 else [])
        out += bytes([back & 255])
    return bytes(out)


@st.composite
def lzf_instructions(draw):
    found, size = [draw(st.binary(min_size=1, max_size=32))], 0
    for _ in range(draw(st.integers(0, 30))):
        size = len(lzf_decoded(found))
        matches = st.tuples(st.integers(3, 264), st.integers(1, min(size, 8192)))
        found.append(draw(matches | st.binary(min_size=1, max_size=32)))
    return found


FAR = [bytes([number]) * 32 for number in range(256)]  # 8192 bytes


@settings(deadline=None, max_examples=60)
@given(lzf_instructions())
@example([b"a"])
@example([b"a", (264, 1)])
@example([b"ab", (263, 2), b"c"])
@example([*FAR, (3, 8192)])
@example([*FAR, (264, 8192), (264, 8192), b"x"])
@example([*FAR, b"y", (9, 8192), (8, 8191), (8, 7937)])
@example([b"abc", (3, 3), b"d" * 2])  # as long as it decodes to
@example([b"a" * 3, (4, 1), b"b"])
def test_lzf_streams_are_undone(instructions):
    expected = lzf_decoded(instructions)
    stream = lzf_encoded(instructions)
    assert bytes(decode(stream, LZF, size=len(expected))) == expected
    assert bytes(decode(stream, LZF, size=None)) == expected  # by Blosc, as those below
    assert bytes(decode_lzf_by_blosc(stream, len(expected))) == expected


def decode_lzf_by_blosc(stream, size):
    """Decode as where imagecodecs is not installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lzf, "imagecodecs_if_any", lambda _codec: None)
        return decode(stream, LZF, size=size)


def test_an_lzf_stream_as_long_as_what_it_decodes_to_is_undone():
    lengths = set()
    for count in range(1, 40):
        instructions = [b"xyz", *[(3, 2), b"q"] * count, (5, 3)]
        expected, stream = lzf_decoded(instructions), lzf_encoded(instructions)
        lengths.add(len(stream) - len(expected))
        assert bytes(decode_lzf_by_blosc(stream, len(expected))) == expected
    assert len(lengths) == 1
    for extra in range(1, 12):  # one and two bytes more or less than decoded, too
        instructions = [b"x" * 9, *[b"1"] * extra, (12, 4)]
        expected, stream = lzf_decoded(instructions), lzf_encoded(instructions)
        lengths.add(len(stream) - len(expected))
        assert bytes(decode_lzf_by_blosc(stream, len(expected))) == expected
    assert lengths >= {-1, 0, 1}


def test_many_lzf_instructions_are_undone_in_parts():
    instructions = [b"ab", *[(3, 2), b"c"] * 70_000]
    expected = lzf_decoded(instructions)
    assert bytes(decode(lzf_encoded(instructions), LZF, size=len(expected))) == expected
    assert bytes(decode_lzf_by_blosc(lzf_encoded(instructions), len(expected))) == expected


@pytest.mark.parametrize(
    ("stream", "why"),
    [
        (b"\x20\x00" * 33 + b"\x00a", "cannot decode"),
        (b"\x00a\x20\x01" * 25, "cannot decode"),
        (b"\x60a\x62\x01\x40\x00" + b"\x1f" + b"b" * 32, "cannot decode"),
        (b"\x05abc", "ends inside an instruction"),
        (b"\x00a\xe0\x01", "ends inside an instruction"),
        (b"\x00a\xe0", "ends inside an instruction"),
        (b"\x00a\x3f", "ends inside an instruction"),
        (b"\x00a" * 101, "holds more than 100 bytes"),
        (b"\x00a\xe0\xff\x00", "holds 265 bytes, expected at most 100"),
        (b"\x00a\xe0\x00\x00", "decodes to 10 bytes, expected 100"),
        (b"", "decodes to 0 bytes, expected 100"),
    ],
)
def test_bad_lzf_streams_are_malformed(stream, why):
    with pytest.raises(Malformed, match=why):
        decode(stream, LZF, size=100)
    with pytest.raises(Malformed, match=why):
        decode_lzf_by_blosc(stream, 100)


# lz4 and bitshuffle.


def lz4_block(data):
    return bytes(numcodecs.LZ4().encode(data))[4:]


def framed(decoded, block_size, blocks, rest=b""):
    parts = (struct.pack(">I", len(block)) + block for block in blocks)
    return struct.pack(">QI", decoded, block_size) + b"".join(parts) + rest


def test_lz4_blocks_that_are_not_compressed_stand_as_they_are():
    data = np.random.default_rng(0).integers(0, 256, 1000, np.uint8).tobytes()
    blocks = [data[:400], lz4_block(data[400:800]), data[800:]]
    assert len(blocks[1]) > 400
    assert bytes(decode(framed(1000, 400, blocks), LZ4, size=1000)) == data
    assert bytes(decode(framed(1000, 2000, [data]), LZ4, size=1000)) == data
    assert bytes(decode(framed(0, 0, []), LZ4, size=0)) == b""


@pytest.mark.parametrize(
    ("stream", "why"),
    [
        (framed(101, 50, [b"a" * 50] * 3), "claims 101 bytes, expected at most 100"),
        (framed(100, 0, []), "blocks of 0 bytes"),
        (framed(100, 50, [b"a" * 50]), "ends inside|has .* for 2 blocks"),
        (framed(100, 50, [b"a" * 50] * 2)[:-1], "ends inside a block, 1 bytes early"),
        (framed(100, 1, [b"a"] * 24), "for 100 blocks"),
        (framed(100, 100, [b"garbage"]), "cannot decode"),
        (framed(99, 99, [b"a" * 99]), "decodes to 99 bytes, expected 100"),
        (b"\0" * 11, "cannot decode"),
    ],
)
def test_bad_lz4_chunks_are_malformed(stream, why):
    with pytest.raises(Malformed, match=why):
        decode(stream, LZ4, size=100)


def bitshuffle(item, cname=None, block=0):
    config = {"elementsize": item, "blocksize": block, "cname": cname}
    return Encoding((Codec("byteatlas.bitshuffle", config),))


def bits_shuffled(data, item):
    """Shuffle the bits of one block: bit k of all items, then bit k + 1 of all."""
    bits = np.unpackbits(np.frombuffer(data, np.uint8).reshape(-1, item), 1, bitorder="little")
    return np.packbits(bits.T, bitorder="little").tobytes()


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 9) | st.sampled_from([255, 256, 300]), st.binary(max_size=600), st.data())
def test_bitshuffled_items_of_every_size_are_undone(item, data, draw):
    data = data * (1 + item // 20)
    data = data[: len(data) // item * item]
    block = draw.draw(st.sampled_from([8, 16, 128]))
    whole = len(data) // item // 8 * 8 * item
    starts = range(0, whole, block * item)
    blocks = [data[start : min(start + block * item, whole)] for start in starts]
    blocks = [bits_shuffled(part, item) for part in blocks]
    plain = b"".join([*blocks, data[whole:]])
    assert bytes(decode(plain, bitshuffle(item, None, block), size=len(data))) == data
    encoded = framed(len(data), block * item, map(lz4_block, blocks), data[whole:])
    assert bytes(decode(encoded, bitshuffle(item, "lz4"), size=len(data))) == data
    zstd = [bytes(numcodecs.Zstd().encode(part)) for part in blocks]
    encoded = framed(len(data), block * item, zstd, data[whole:])
    assert bytes(decode(encoded, bitshuffle(item, "zstd"), size=len(data))) == data


@pytest.mark.parametrize(("cname", "size"), [("lz4", 4096), ("zstd", 128)])
def test_a_compressed_block_as_long_as_its_decoded_one_is_decompressed(cname, size):
    noise = np.random.default_rng(1).integers(0, 256, size, np.uint8).tobytes()
    compress = {"lz4": lz4_block, "zstd": lambda data: bytes(numcodecs.Zstd().encode(data))}[cname]
    blocks = (noise[: size - n] + bytes(n) for n in range(1, 64))
    block = next(block for block in blocks if len(compress(block)) == size)
    data = framed(size + 8, size, [compress(block), compress(b"12345678")])
    decoded = bytes(decode(data, bitshuffle(1, cname), size=size + 8))
    assert decoded[:size] != compress(block)
    assert bits_shuffled(decoded[:size], 1) == block


@pytest.mark.parametrize(
    ("encoding", "stream", "why"),
    [
        (bitshuffle(0), b"", "items of 0 bytes"),
        (bitshuffle(3), bytes(100), "bitshuffle of 100 bytes"),
        (bitshuffle(4, None, 12), bytes(100), "blocks of 12 items"),
        (bitshuffle(4, "lzma"), bytes(100), "expected lz4 or zstd"),
        (bitshuffle(4, "lz4"), framed(104, 96, []), "claims 104 bytes"),
        (bitshuffle(4, "lz4"), framed(100, 96, [b"a" * 96], b"123"), "3 bytes after .* not 4"),
        (bitshuffle(4, "lz4"), framed(100, 100, [b"a" * 96], b"1234"), "blocks of 25 items"),
        (bitshuffle(4, "lz4"), framed(100, 96, [b"a" * 96], b"1234"), "cannot decode"),
        (bitshuffle(4, "zstd"), framed(100, 96, [b"a" * 96], b"1234"), "zstd chunk begins"),
    ],
)
def test_bad_bitshuffle_chunks_are_malformed(encoding, stream, why):
    with pytest.raises(Malformed, match=why):
        decode(stream, encoding, size=100)


# n-bit and scale-offset, whose streams h5py makes in tests/hdf5/test_filters.py.


def nbit(*kind, count=10):
    return Encoding((Codec("byteatlas.nbit", {"count": count, "type": list(kind)}),))


@pytest.mark.parametrize(
    ("encoding", "stream", "why"),
    [
        (nbit(1, 4, 0, 20, 0), bytes(24), "has 24 bytes for 10 elements of 20 bits"),
        (nbit(1, 4, 0, 20, 0, count=11), bytes(99), "of 11 elements of 4 bytes"),
        (nbit(1, 4, 0, 20, 13), bytes(99), "20 bits from bit 13"),
        (nbit(1, 4, 2, 20, 0), bytes(99), "20 bits from bit 0"),
        (nbit(7, 4), bytes(99), "class 7"),
        (nbit(1, 4, 0), bytes(99), "goes on after 3 parameters"),
        (nbit(1), bytes(99), "cannot decode"),
        (nbit(3, 4, 2, 0, 4, 2, 3, 4, 2), bytes(99), "2 bytes in 1"),
        (nbit(3, 4, 1, 2**32 - 1, 4, 2), bytes(99), "2 bytes in -"),
        (nbit(*[2, 4] * 40, 4, 4), bytes(99), "17 levels deep"),
        (nbit(3, 4, 2**32 - 1, *[0] * 90), bytes(400), "goes on after 93 parameters"),
        (nbit(3, 4, 9, *[0, 4, 1] * 9), bytes(400), "of 4 bytes has members of 5"),
    ],
)
def test_bad_n_bit_chunks_are_malformed(encoding, stream, why):
    with pytest.raises(Malformed, match=why):
        decode(stream, encoding, size=40)


def test_an_array_of_many_numbers_is_one_step():
    encoding = nbit(2, 4 * 2**20, 1, 4, 0, 32, 0, count=1)
    data = np.arange(2**20, dtype=">u4").tobytes()
    values = np.frombuffer(decode(data, encoding, size=4 * 2**20), "<u4")
    np.testing.assert_array_equal(values, np.arange(2**20))


def test_an_n_bit_type_of_too_many_parts_is_malformed():
    compound = (3, 4, 1, 0, 1, 2, 0, 9, 0)
    with pytest.raises(Malformed, match="more than 16384 different parts"):
        decode(bytes(2**20), nbit(2, 2**20, *compound, count=1), size=2**20)


def scaleoffset(dtype="<i4", count=10, **config):
    config = {"dtype": dtype, "count": count, "fill": None, **config}
    return Encoding((Codec("byteatlas.scaleoffset", config),))


@pytest.mark.parametrize(
    ("encoding", "stream", "why"),
    [
        (scaleoffset(), struct.pack("<I17x", 33) + bytes(99), "33 bits for each"),
        (scaleoffset(), struct.pack("<I17x", 7) + bytes(8), "7 bits for each of 10 .* has 8 bytes"),
        (scaleoffset(), bytes(20), "of 20 bytes, its header has 21"),
        (scaleoffset(count=11), bytes(99), "of 11 numbers, expected at most 40 bytes"),
        (scaleoffset(count=-1), bytes(99), "of -1 numbers"),
        (scaleoffset("<f2"), bytes(99), "of type float16"),
        (scaleoffset("<c8"), bytes(99), "of type complex64"),
        (scaleoffset("S4"), bytes(99), r"of type \|S4"),
        (scaleoffset("<f4"), struct.pack("<I17x", 7) + bytes(99), "cannot decode"),
    ],
)
def test_bad_scale_offset_chunks_are_malformed(encoding, stream, why):
    with pytest.raises(Malformed, match=why):
        decode(stream, encoding, size=40)


# All of them, as their filters write them.


def bombs():
    yield "lzf", LZF, b"\0a" + b"\xe0\xff\x00" * 2**11
    yield "large lzf", LZF, b"\0a" + b"\xe0\xff\x00" * 2**20
    delta = Codec("delta", {"dtype": "V1000000", "astype": "u1"})
    yield "delta", Encoding((delta,)), bytes(4096)
    retyped = Codec("astype", {"encode_dtype": "S1", "decode_dtype": "S1000000"})
    yield "astype", Encoding((retyped,)), bytes(4096)
    yield "lz4", LZ4, framed(2**30, 2**30, [bytes(64)])
    yield "lz4 block", LZ4, framed(4096, 4096, [lz4_block(bytes(2**24))])
    yield "bitshuffle", bitshuffle(4, "lz4"), framed(2**40, 4096, [bytes(64)])
    yield "bitshuffle block", bitshuffle(4, "lz4"), framed(4096, 4096, [lz4_block(bytes(2**24))])
    zstd = bytes(numcodecs.Zstd().encode(bytes(2**27)))
    yield "bitshuffle zstd", bitshuffle(4, "zstd"), framed(4096, 4096, [zstd])
    yield "n-bit", nbit(1, 4, 0, 1, 0, count=2**30), bytes(2**10)
    yield "scale-offset", scaleoffset(count=2**30), bytes(64)
    config = {"options_mask": 141, "pixels_per_block": 8, "bits_per_pixel": 32}
    szip = Codec("imagecodecs_szip", {**config, "pixels_per_scanline": 128})
    yield "szip", Encoding((szip,)), struct.pack("<I", 2**30) + bytes(64)
    header = [0x0570667A, 0x90000004 | 0, 0xFFFFFFFF, 0x0FFFFFFF]
    zfp = Codec("byteatlas.zfp", {"header": header})
    yield "zfp", Encoding((zfp,)), bytes(64)
    blosc2 = b"\x9e\xa8b2frame\0\xd2" + struct.pack(
        ">ixQ5xqxqxixixi", 97, 200, *[2**40] * 2, 1, 1, 1
    )
    yield "blosc2", Encoding((Codec("byteatlas.blosc2"),)), blosc2 + bytes(200)
    blosc = struct.pack("<BBBBIII", 2, 1, 1, 4, 2**30, 2**20, 80) + bytes(64)
    yield "blosc", Encoding((Codec("imagecodecs_blosc"),)), blosc


@pytest.mark.parametrize(("encoding", "bomb"), [pytest.param(*b, id=name) for name, *b in bombs()])
def test_a_bomb_takes_no_more_memory_than_the_chunk_it_should_be(encoding, bomb):
    tracemalloc.start()
    try:
        with pytest.raises(Malformed):
            decode(bomb, encoding, size=4096)
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


PLUGIN = {
    "lzf": {"compression": "lzf"},
    "lz4": hdf5plugin.LZ4(nbytes=256),
    "bitshuffle": hdf5plugin.Bitshuffle(nelems=64, cname="none"),
    "bitshuffle lz4": hdf5plugin.Bitshuffle(nelems=64),
    "bitshuffle zstd": hdf5plugin.Bitshuffle(nelems=64, cname="zstd"),
    "scale-offset": {"scaleoffset": 2},
    "szip": {"compression": "szip"},
    "blosc snappy": hdf5plugin.Blosc(cname="snappy"),
    "blosc2": hdf5plugin.Blosc2(),
    "blosc2 zstd": hdf5plugin.Blosc2(cname="zstd", filters=2),
    "zfp reversible": hdf5plugin.Zfp(reversible=True),
    "zfp rate": hdf5plugin.Zfp(rate=9),
    "zfp accuracy": hdf5plugin.Zfp(accuracy=0.01),
}
NEED_IMAGECODECS = [name for name in PLUGIN if name.split()[0] in ("szip", "blosc2", "zfp")]
NEED_IMAGECODECS.append("blosc snappy")


@pytest.fixture
def stored(request):
    """A dataset of one chunk, how it is encoded, and its bytes."""
    values = np.cumsum(np.arange(40 * 37) % 5 % 3).reshape(40, 37).astype("<f4")
    with h5py.File("made.h5", "w", driver="core", backing_store=False) as file:
        options = PLUGIN[request.param]
        dataset = file.create_dataset("x", data=values, chunks=values.shape, **options)
        mask, raw = dataset.id.read_direct_chunk((0, 0))
        assert not mask
        identifier, _, client, _ = dataset.id.get_create_plist().get_filter(0)
        pipeline = (Filter(identifier, True, "", client),)
        yield dataset, encoding_of(pipeline, chunk_nbytes=values.nbytes), raw


@pytest.mark.parametrize("stored", [*PLUGIN], indirect=True)
def test_a_chunk_cut_short_is_malformed(stored):
    dataset, encoding, raw = stored
    size = dataset.nbytes
    expected = bytes(decode(raw, encoding, size=size))
    for keep in [*range(40), len(raw) // 2, *range(len(raw) - 40, len(raw))]:
        try:
            decoded = bytes(decode(raw[:keep], encoding, size=size))
        except Malformed:
            continue
        # The last bytes only fill up: nothing was lost.
        assert keep > len(raw) - 17
        assert decoded == expected
    with pytest.raises(Malformed):
        decode(raw, encoding, size=size - 4)
    with pytest.raises(Malformed):
        decode(raw, encoding, size=size + 4)


def damaged(raw, draw):
    data = bytearray(raw)
    at = draw.randrange(min(len(data), draw.choice([24, len(data)])))
    match draw.randrange(4):
        case 0:
            data[at] ^= 1 << draw.randrange(8)
        case 1:
            data[at] = draw.choice([0, 1, 127, 128, 255])
        case 2:
            data[at:at] = draw.randbytes(draw.randrange(1, 9))
        case 3:
            del data[at : at + draw.randrange(1, 9)]
    return bytes(data)


@pytest.mark.parametrize("stored", [*PLUGIN], indirect=True)
def test_a_damaged_chunk_is_malformed_or_what_hdf5_makes_of_it(stored, request):
    dataset, encoding, raw = stored
    draw = random.Random(request.node.name)
    compared = refused = 0
    for _ in range(120):
        data = damaged(raw, draw)
        try:
            ours = bytes(decode(data, encoding, size=dataset.nbytes))
        except (Malformed, Unsupported):
            refused += 1
            continue
        dataset.id.write_direct_chunk((0, 0), data)
        try:
            theirs = dataset[...].tobytes()
        except OSError:  # such as a damaged part of a blosc2 frame that nobody needs
            continue
        assert ours == theirs
        compared += 1
    assert compared
    # Any bits mean something to zfp, as long as there are enough.
    assert refused or "zfp" in request.node.name


@pytest.mark.parametrize("stored", [*PLUGIN], indirect=True)
def test_what_only_imagecodecs_decodes_says_how_to_install_it(monkeypatch, stored, request):
    dataset, encoding, raw = stored
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    if request.node.callspec.id not in NEED_IMAGECODECS:
        decode(raw, encoding, size=dataset.nbytes)
        return
    with pytest.raises(MissingDependency, match=r"imagecodecs; pip install 'byteatlas\[hdf5\]'"):
        decode(raw, encoding, size=dataset.nbytes)


@pytest.mark.parametrize("stored", ["szip"], indirect=True)
def test_a_build_of_imagecodecs_without_a_codec_is_named(monkeypatch, stored):
    import imagecodecs

    dataset, encoding, raw = stored
    monkeypatch.setattr(imagecodecs.SZIP, "available", False)
    with pytest.raises(MissingDependency, match="was built without szip"):
        decode(raw, encoding, size=dataset.nbytes)


@pytest.mark.parametrize("stored", ["blosc2"], indirect=True)
def test_a_blosc2_frame_whose_parts_disagree_is_malformed(stored):
    dataset, encoding, raw = stored
    begin = int.from_bytes(raw[11:15], "big")
    encoded = int.from_bytes(raw[39:47], "big")
    for at, value, why in [
        (begin + 29, 2, "have options"),  # of the shuffle, which has none
        (begin + 31, 0x08, "not in it"),  # the chunk is in another file
        (begin + 31, 0x40, "not in it"),  # its values were never set
        (begin + 21, 200, "and filters"),  # a plugin
        (begin + 2, 0xC5, "with flags"),  # a compressor that is a plugin
        (begin + encoded + 32, 1, "begins at 0x1"),
        (37, 1, "claims"),
        (30, 1, "claims"),
    ]:
        data = bytearray(raw)
        data[at] = value
        with pytest.raises(Malformed, match=why):
            decode(bytes(data), encoding, size=dataset.nbytes)
