"""Parts of chunks decode to just what the whole chunk has there."""

import contextlib
import itertools
import struct

import h5py
import numcodecs
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from byteatlas.codecs import decode, decoder_of, part_decoder_of
from byteatlas.errors import LimitExceeded, Malformed, Unsupported
from byteatlas.limits import Limits
from byteatlas.model import Codec, Encoding
from byteatlas_scanners.hdf5.filters import Filter, encoding_of

hdf5plugin = pytest.importorskip("hdf5plugin")

BLOSC = Encoding((Codec("blosc", {"cname": "lz4", "clevel": 5, "shuffle": 1}),))
ANY_BLOSC = Encoding((Codec("imagecodecs_blosc"),))


def values(count, dtype, seed=0):
    """Return numbers that compress somewhat."""
    draw = np.random.default_rng(seed)
    return (np.arange(count) // 3 + draw.integers(0, 4, count)).astype(dtype)


def blosc(data, cname="lz4", clevel=5, shuffle=1, blocksize=0):
    return bytes(numcodecs.Blosc(cname, clevel, shuffle, blocksize).encode(data))


CHUNKS = [
    *(
        (cname, shuffle, "<f4")
        for cname in ("blosclz", "lz4", "zlib", "zstd")
        for shuffle in (0, 1, 2)
    ),
    *(
        ("lz4", shuffle, dtype)
        for shuffle in (1, 2)
        for dtype in ("<u1", "<i8", "S3", "S17", "S300")
    ),
]


@pytest.mark.parametrize(("cname", "shuffle", "dtype"), CHUNKS, ids=str)
@pytest.mark.parametrize("extra", [0, 1, 137], ids=["whole blocks", "short block", "shorter block"])
def test_every_part_of_a_blosc_chunk_equals_that_of_the_whole(cname, shuffle, dtype, extra):
    item = np.dtype(dtype).itemsize
    whole = values(3 * 65536 // item + extra, dtype)  # split blocks have 65536 bytes at least
    data = blosc(whole, cname, 5, shuffle, blocksize=4096)
    size = whole.nbytes
    block = int.from_bytes(data[8:12], "little")
    assert size > 2 * block  # or there would be nothing to leave out
    part = part_decoder_of(BLOSC, size=size)
    expected = bytes(decode(data, BLOSC, size=size))
    assert expected == whole.tobytes()
    bounds = {0, 1, block - 1, block, block + 1, 2 * block, size // block * block, size - 1, size}
    for start in bounds:
        for stop in bounds:
            if start <= stop:
                assert bytes(part(data, start, stop)) == expected[start:stop]


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_any_part_of_any_blosc_chunk_equals_that_of_the_whole(data):
    cname = data.draw(st.sampled_from(["blosclz", "lz4", "lz4hc", "zlib", "zstd"]))
    dtype = data.draw(st.sampled_from(["<u1", "<i2", "S3", "<f4", "<f8", "S16", "S17", "S255"]))
    whole = values(data.draw(st.integers(1, 9000)), dtype, data.draw(st.integers(0, 9)))
    shuffle, level = data.draw(st.integers(0, 2)), data.draw(st.integers(0, 9))
    encoded = blosc(whole, cname, level, shuffle, data.draw(st.sampled_from([0, 256, 1024, 5000])))
    start = data.draw(st.integers(0, whole.nbytes))
    stop = data.draw(st.integers(start, whole.nbytes))
    for encoding in (BLOSC, ANY_BLOSC):
        part = part_decoder_of(encoding, size=whole.nbytes)(encoded, start, stop)
        assert bytes(part) == whole.tobytes()[start:stop]


def test_only_the_blocks_of_a_part_are_decoded():
    whole = values(50_000, "<i4")
    data = bytearray(blosc(whole, "zstd", blocksize=8192))
    starts = struct.unpack_from("<25I", data, 16)
    for number in range(1, 24):  # all but the first and the last
        data[starts[number] + 4 : starts[number] + 8] = b"\xff" * 4
    part = part_decoder_of(BLOSC, size=whole.nbytes)
    expected = whole.tobytes()
    assert bytes(part(data, 8, 8192)) == expected[8:8192]
    assert bytes(part(data, 199_000, 200_000)) == expected[199_000:]
    with pytest.raises(Malformed, match="cannot decode"):
        part(data, 8000, 8200)
    with pytest.raises(Malformed, match="cannot decode"):
        decode(data, BLOSC, size=whole.nbytes)


@pytest.mark.parametrize("seed", range(6))
def test_blocks_may_stand_in_any_order(seed):
    whole = values(50_000, "<i4")
    data = blosc(whole, "zstd", blocksize=8192)
    starts = struct.unpack_from("<25I", data, 16)
    ends = dict(itertools.pairwise([*sorted(starts), len(data)]))
    blocks = [data[start : ends[start]] for start in starts]
    order = np.random.default_rng(seed).permutation(25)
    moved, body, position = [0] * 25, b"", min(starts)
    for number in order:
        moved[number] = position
        body += blocks[number]
        position += len(blocks[number])
    data = data[:16] + struct.pack("<25I", *moved) + body
    part = part_decoder_of(BLOSC, size=whole.nbytes)
    for start in range(0, whole.nbytes, 7001):
        for length in (1, 9000, 40_000, whole.nbytes):
            stop = min(start + length, whole.nbytes)
            assert bytes(part(data, start, stop)) == whole.tobytes()[start:stop]


BROKEN = [
    (lambda data: data[:-1], "but says it has"),
    (lambda data: data[:10], "cannot decode"),
    (lambda data: b"", "cannot decode"),
    (lambda data: data[:4] + (199_999).to_bytes(4, "little") + data[8:], "claims 199999 bytes"),
    (lambda data: data[:8] + bytes(4) + data[12:], "cannot decode"),
    (lambda data: data[:8] + b"\x01\0\0\0" + data[12:], "cannot decode"),
    (lambda data: data[:20] + b"\xff\xff\xff\xff" + data[24:], "blocks at"),
    (lambda data: data[:20] + bytes(4) + data[24:], "blocks at"),
    (lambda data: data[:2] + bytes([data[2] | 2]) + data[3:], "cannot decode"),
]


@pytest.mark.parametrize(("change", "why"), BROKEN)
def test_a_part_of_a_broken_blosc_chunk_is_malformed(change, why):
    whole = values(50_000, "<i4")
    data = change(blosc(whole, "zstd", blocksize=8192))
    part = part_decoder_of(BLOSC, size=whole.nbytes)
    with pytest.raises(Malformed, match=why):
        part(data, 8200, 8300)


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 700), st.integers(0, 255), st.integers(0, 1990), st.integers(0, 300))
@example(place=2, value=0, start=1000, length=10)
def test_a_part_of_a_changed_blosc_chunk_is_some_bytes_or_malformed(place, value, start, length):
    whole = values(500, "<i4")
    data = bytearray(blosc(whole, blocksize=256))
    data[min(place, len(data) - 1)] = value
    stop = min(start + length, whole.nbytes)
    start = min(start, stop)
    try:
        part = bytes(part_decoder_of(BLOSC, size=whole.nbytes)(data, start, stop))
    except Malformed:
        return
    assert len(part) == stop - start
    with contextlib.suppress(Malformed):  # of which it has not seen the rest
        assert part == bytes(decode(data, BLOSC, size=whole.nbytes))[start:stop]


def test_there_is_no_way_to_a_part_of_other_chains():
    for codecs in [(), ("zlib",), ("zstd",), ("blosc", "zlib"), ("shuffle", "blosc")]:
        encoding = Encoding(tuple(map(Codec, codecs)))
        assert part_decoder_of(encoding, size=400) is None


def test_a_part_outside_the_chunk_is_refused():
    part = part_decoder_of(BLOSC, size=400)
    data = blosc(values(100, "<i4"))
    for start, stop in [(-1, 4), (4, 3), (0, 401)]:
        with pytest.raises(ValueError, match="of a chunk of 400"):
            part(data, start, stop)


def test_what_can_be_seen_beforehand_is_refused_beforehand():
    for make in (decoder_of, part_decoder_of):
        with pytest.raises(LimitExceeded, match="a decoded chunk takes 400"):
            make(BLOSC, size=400, limits=Limits(chunk=399))
        with pytest.raises(LimitExceeded, match="chain of codecs takes 9"):
            make(Encoding((Codec("zlib"),) * 9), size=400)
        with pytest.raises(Unsupported, match="not on the list"):
            make(Encoding((Codec("pickle"),)), size=400)


# Of HDF5's own formats of blocks.

BLOCKS = {
    "bitshuffle": hdf5plugin.Bitshuffle(nelems=64, cname="none"),
    "bitshuffle lz4": hdf5plugin.Bitshuffle(nelems=64),
    "bitshuffle zstd": hdf5plugin.Bitshuffle(nelems=128, cname="zstd"),
    "bitshuffle by default": hdf5plugin.Bitshuffle(),
    "lz4": hdf5plugin.LZ4(nbytes=512),
    "lz4 by default": hdf5plugin.LZ4(),
}


@pytest.mark.parametrize("count", [1, 7, 64, 1000, 1029, 5000])
@pytest.mark.parametrize("dtype", ["<u1", "<i2", "<f4", "<f8"])
@pytest.mark.parametrize("name", BLOCKS)
def test_every_part_of_hdf5s_blocks_equals_that_of_the_whole(name, dtype, count):
    whole = values(count, dtype)
    with h5py.File("made.h5", "w", driver="core", backing_store=False) as file:
        dataset = file.create_dataset("x", data=whole, chunks=whole.shape, **BLOCKS[name])
        mask, data = dataset.id.read_direct_chunk((0,))
        number, _, client, _ = dataset.id.get_create_plist().get_filter(0)
    if mask:
        return
    size, expected = whole.nbytes, whole.tobytes()
    encoding = encoding_of((Filter(number, True, "", client),), chunk_nbytes=size)
    part = part_decoder_of(encoding, size=size)
    bounds = [0, 1, size // 3, min(511, size), min(512, size), size - size % 64, size - 1, size]
    for start in bounds:
        for stop in bounds:
            if start <= stop:
                assert bytes(part(data, start, stop)) == expected[start:stop]
    for wrong in (size - whole.itemsize, size + whole.itemsize):
        with pytest.raises(Malformed, match=f"decodes to {size} bytes|claims {size} bytes"):
            part_decoder_of(encoding, size=wrong)(data, 0, min(size, wrong))


def test_only_the_bitshuffled_blocks_of_a_part_are_decoded():
    whole = values(5000, "<i4")
    with h5py.File("made.h5", "w", driver="core", backing_store=False) as file:
        dataset = file.create_dataset("x", data=whole, chunks=(5000,), **BLOCKS["bitshuffle lz4"])
        data = bytearray(dataset.id.read_direct_chunk((0,))[1])
    first = int.from_bytes(data[12:16], "big")
    second = int.from_bytes(data[16 + first : 20 + first], "big")
    data[20 + first : 20 + first + second] = b"\xff" * second
    config = {"elementsize": 4, "blocksize": 64, "cname": "lz4"}
    part = part_decoder_of(Encoding((Codec("byteatlas.bitshuffle", config),)), size=20_000)
    assert bytes(part(data, 3, 256)) == whole.tobytes()[3:256]
    assert bytes(part(data, 512, 20_000)) == whole.tobytes()[512:]
    with pytest.raises(Malformed):
        part(data, 3, 257)


def test_large_bitshuffled_items_are_only_decoded_whole():
    codec = Codec("byteatlas.bitshuffle", {"elementsize": 300, "cname": None})
    assert part_decoder_of(Encoding((codec,)), size=6000) is None
