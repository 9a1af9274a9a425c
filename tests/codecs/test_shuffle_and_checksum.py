"""Shuffle and Fletcher's checksum, as HDF5 has them."""

import h5py
import numcodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byteatlas.codecs import decode, fletcher32, unshuffle
from byteatlas.errors import Malformed
from byteatlas.model import Codec, Encoding

VALUES = np.arange(500, dtype="<f4").tobytes()
FLETCHER32 = Encoding((Codec("fletcher32"),))


@given(
    st.binary(max_size=200),
    st.integers(1, 16),
)
def test_unshuffle_equals_numcodecs(data, item):
    if len(data) % item:  # numcodecs refuses what does not fill items; HDF5 leaves it as it is
        whole = len(data) // item * item
        shuffled = bytes(numcodecs.Shuffle(item).encode(data[:whole])) + data[whole:]
    else:
        shuffled = bytes(numcodecs.Shuffle(item).encode(data))
    assert bytes(unshuffle(shuffled, item)) == data


@pytest.mark.parametrize("item", [2, 3, 4, 8, 16])
@pytest.mark.parametrize("count", [2, 50_000, 2**17, 150_001])
def test_unshuffle_of_large_chunks_equals_numcodecs(item, count):
    values = np.random.default_rng(item).integers(0, 256, item * count, np.uint8)
    shuffled = bytes(numcodecs.Shuffle(item).encode(values))
    for rest in (b"", b"x"):
        assert bytes(unshuffle(memoryview(shuffled + rest), item)) == values.tobytes() + rest


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=20_000) | st.integers(1, 40_000).map(b"\xff".__mul__))
def test_fletcher32_equals_numcodecs(data):
    expected = bytes(numcodecs.Fletcher32().encode(data))[-4:]
    assert fletcher32(data).to_bytes(4, "little") == expected


@pytest.mark.parametrize("length", [1, 2, 3, 359, 360, 361, 720, 8191, 8192, 8193, 100_001])
def test_the_checksum_equals_the_one_hdf5_stores(tmp_path, length):
    values = np.random.default_rng(length).integers(0, 256, length, np.uint8)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = file.create_dataset("v", data=values, chunks=(length,), fletcher32=True)
        _, stored = dataset.id.read_direct_chunk((0,))
    assert bytes(decode(stored, FLETCHER32, size=length)) == values.tobytes()


def test_a_checksum_of_zeros_is_zero_and_of_ones_is_not():
    assert fletcher32(b"") == 0
    assert fletcher32(bytes(1000)) == 0
    assert fletcher32(b"\xff\xff" * 1000) == 0xFFFFFFFF


def test_a_flipped_bit_fails_the_checksum():
    data = bytearray(bytes(numcodecs.Fletcher32().encode(VALUES)))
    data[100] ^= 1
    with pytest.raises(Malformed, match=r"checksum is .*, but the chunk says"):
        decode(bytes(data), FLETCHER32, size=len(VALUES))


def test_a_checksum_in_the_order_of_old_libraries_is_accepted():
    data = bytes(numcodecs.Fletcher32().encode(VALUES))
    body, (a, b, c, d) = data[:-4], data[-4:]
    assert bytes(decode(body + bytes([b, a, d, c]), FLETCHER32, size=2000)) == VALUES
