"""The codec that rearranges records of fixed size."""

import json
import string

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numcodecs import get_codec

from byteatlas.codecs import decode
from byteatlas.convert import Convert, Move, convert
from byteatlas.errors import Malformed
from byteatlas.model import Codec, Encoding


def converted(raw, stored, decoded, *moves):
    return convert(np.frombuffer(raw, np.uint8), stored, decoded, moves).tobytes()


def test_bytes_are_copied_to_their_place_and_the_rest_is_null():
    moves = Move("copy", 1, 2, 2), Move("copy", 0, 0, 1)
    assert converted(b"abcABC", 3, 5, *moves) == b"a\0bc\0" + b"A\0BC\0"


def test_every_item_of_a_swap_is_turned_round():
    assert converted(b"abcdef", 6, 6, Move("swap", 0, 0, 6, 2)) == b"badcfe"
    assert converted(b"abcdef", 6, 6, Move("swap", 0, 0, 6, 3)) == b"cbafed"
    values = np.array([1, -2, 3.5], ">f8")
    assert converted(values.tobytes(), 8, 8, Move("swap", 0, 0, 8, 8)) == (
        values.astype("<f8").tobytes()
    )


@pytest.mark.parametrize(
    ("kind", "stored", "decoded"),
    [
        ("null", b"ab\0cd", b"ab\0\0\0"),
        ("null", b"abcde", b"abcde"),
        ("null", b"\0abcd", b"\0\0\0\0\0"),
        ("null", b"a   \0", b"a   \0"),
        ("space", b"ab   ", b"ab\0\0\0"),
        ("space", b" a b ", b" a b\0"),
        ("space", b"     ", b"\0\0\0\0\0"),
        ("space", b"abcde", b"abcde"),
        ("space", b"ab\0  ", b"ab\0\0\0"),
    ],
)
def test_strings_end_where_their_padding_begins(kind, stored, decoded):
    assert converted(stored * 3, 5, 5, Move(kind, 0, 0, 5)) == decoded * 3


def test_no_records_give_no_records():
    assert converted(b"", 3, 5, Move("copy", 0, 0, 3)) == b""


def test_bytes_that_are_no_whole_records_are_malformed():
    with pytest.raises(Malformed, match="7 bytes are not whole records of 3"):
        converted(bytes(7), 3, 3, Move("copy", 0, 0, 3))


MEMBERS = st.lists(
    st.tuples(st.sampled_from(["i1", "<i2", ">i2", "<u4", ">f4", ">f8", "S3"]), st.integers(0, 3)),
    min_size=1,
    max_size=6,
)


@given(MEMBERS, st.integers(0, 5), st.integers(0, 2**32))
def test_any_record_becomes_the_packed_little_endian_one(members, count, seed):
    names = string.ascii_lowercase[: len(members)]
    position, offsets = 0, []
    for kind, gap in members:
        offsets.append(position + gap)
        position = offsets[-1] + np.dtype(kind).itemsize
    formats = [kind for kind, _ in members]
    stored = np.dtype(
        {"names": list(names), "formats": formats, "offsets": offsets, "itemsize": position}
    )
    packed = np.dtype(
        [(n, np.dtype(f).newbyteorder("<")) for n, f in zip(names, formats, strict=True)]
    )
    moves = []
    for name in names:
        dtype, at = stored.fields[name][:2]
        kind = "swap" if dtype.str[0] == ">" else "copy"
        moves.append(Move(kind, at, packed.fields[name][1], dtype.itemsize, dtype.itemsize))
    raw = np.random.default_rng(seed).integers(0, 256, count * stored.itemsize, np.uint8)
    values = np.frombuffer(raw.tobytes(), stored)
    found = convert(raw, stored.itemsize, packed.itemsize, tuple(moves)).tobytes()
    for name in names:
        expected = values[name].astype(packed[name])
        assert np.frombuffer(found, packed)[name].tobytes() == expected.tobytes()


THREE_BYTES = Move("integer", 1, 2, 6, 3, 4, ">", (4, 16, 1))
HALF = Move("float", 0, 0, 4, 2, 4, "<", (15, 10, 5, 15, 0, 10))


def test_integers_of_some_bits_become_whole_ones():
    data = np.array([[9, 0x12, 0x34, 0x56, 0xFF, 0xFF, 0xFF, 9]], np.uint8)
    found = convert(data, 8, 10, (THREE_BYTES,))
    assert found[:, :2].tolist() == [[0, 0]]
    assert found[:, 2:].copy().view("<i4").tolist() == [[0x2345, -1]]


def test_floats_of_all_bit_patterns_are_those_of_numpy():
    halves = np.arange(2**16, dtype="<u2")
    found = convert(halves.view(np.uint8), 4, 8, (HALF,)).reshape(-1).view("<f4")
    expected = halves.view("<f2").astype("<f4")
    is_number = ~np.isnan(expected)
    assert found[is_number].tobytes() == expected[is_number].tobytes()
    assert np.isnan(found[~is_number]).all()


def test_the_words_of_a_vax_number_stand_in_another_order():
    one = Move("float", 0, 0, 4, 4, 8, "vax", (31, 23, 8, 129, 0, 23))
    data = np.array([0x80, 0x40, 0, 0, 0x80, 0xC1, 0, 0], np.uint8)
    assert convert(data, 4, 8, (one,)).reshape(-1).view("<f8").tolist() == [1.0, -4.0]


# As a codec.

MOVES = (Move("swap", 0, 0, 2, 2), Move("null", 2, 2, 3))

INTEGER = {"kind": "integer", "stored": 0, "decoded": 0, "size": 3, "item": 3, "width": 4}
FLOAT = {"kind": "float", "stored": 0, "decoded": 0, "size": 2, "item": 2, "width": 4}
WRONG_NUMBERS = [
    {**INTEGER, "layout": [0, 25, 0]},
    {**INTEGER, "layout": [20, 5, 0]},
    {**INTEGER, "layout": [0, 0, 0]},
    {**INTEGER, "layout": [-1, 8, 0]},
    {**INTEGER, "layout": [0, 8, 2]},
    {**INTEGER, "layout": [0, 8]},
    {**INTEGER, "layout": []},
    {**INTEGER, "layout": ["0", 8, 0]},
    {**INTEGER, "layout": [0, 8, 0], "width": 3},
    {**INTEGER, "layout": [0, 8, 0], "width": 0},
    {**INTEGER, "layout": [0, 8, 0], "decoded": 2},
    {**INTEGER, "layout": [0, 8, 0], "order": "vax"},
    {**INTEGER, "layout": [0, 8, 0], "order": "="},
    {**FLOAT, "layout": [15, 10, 5, 15, 0, 11], "width": 2},
    {**FLOAT, "layout": [16, 10, 5, 15, 0, 10]},
    {**FLOAT, "layout": [15, 10, 7, 15, 0, 10]},
    {**FLOAT, "layout": [15, 10, 5, 200, 0, 10]},
    {**FLOAT, "layout": [15, 10, 5, 15, 0, 10], "width": 1},
    {"kind": "copy", "stored": 0, "decoded": 0, "size": 5, "width": 4},
]


def test_the_configuration_of_numbers_is_json_too():
    for move, sizes in ((THREE_BYTES, (8, 10)), (HALF, (4, 8))):
        config = json.loads(json.dumps(Convert.config(*sizes, (move,))))
        data = np.arange(sizes[0], dtype=np.uint8)
        codec = get_codec({"id": "byteatlas.convert", **config})
        assert bytes(codec.decode(data)) == convert(data, *sizes, (move,)).tobytes()
    assert "layout" not in Convert.config(5, 5, MOVES)["moves"][0]


def test_the_codec_is_found_by_its_name_and_its_configuration_is_json():
    config = json.loads(json.dumps(Convert.config(5, 5, MOVES)))
    codec = get_codec({"id": "byteatlas.convert", **config})
    assert bytes(codec.decode(b"\1\2a\0b")) == b"\2\1a\0\0"
    assert get_codec(codec.get_config()).decode(b"\1\2a\0b").tobytes() == b"\2\1a\0\0"


def test_the_codec_decodes_into_a_given_buffer():
    out = np.zeros(5, np.uint8)
    Convert(**Convert.config(5, 5, MOVES)).decode(b"\1\2a\0b", out=out)
    assert out.tobytes() == b"\2\1a\0\0"


def test_the_codec_does_not_encode():
    with pytest.raises(NotImplementedError):
        Convert(**Convert.config(5, 5, MOVES)).encode(b"\1\2a\0b")


def test_decoding_is_bounded_by_the_size_of_a_chunk():
    encoding = Encoding((Codec("byteatlas.convert", Convert.config(5, 5, MOVES)),))
    assert bytes(decode(b"\1\2a\0b", encoding, size=5)) == b"\2\1a\0\0"
    with pytest.raises(Malformed):
        decode(b"\1\2a\0b" * 2, encoding, size=5)
    with pytest.raises(Malformed):
        decode(b"\1\2a\0", encoding, size=5)


@pytest.mark.parametrize(
    "config",
    [
        {"stored": 0, "decoded": 5, "moves": []},
        {"stored": 5, "decoded": 0, "moves": []},
        {"stored": 5, "decoded": -5, "moves": []},
        {
            "stored": 5,
            "decoded": 5,
            "moves": [{"kind": "copy", "stored": 4, "decoded": 0, "size": 9}],
        },
        {
            "stored": 5,
            "decoded": 5,
            "moves": [{"kind": "swap", "stored": 0, "decoded": 0, "size": 5, "item": 2}],
        },
        {
            "stored": 5,
            "decoded": 5,
            "moves": [{"kind": "run", "stored": 0, "decoded": 0, "size": 5}],
        },
        *({"stored": 5, "decoded": 5, "moves": [move]} for move in WRONG_NUMBERS),
        {"stored": 5, "decoded": 5, "moves": [{"kind": "copy"}]},
        {"stored": "5", "decoded": 5, "moves": []},
        {"stored": 5, "decoded": 2**40, "moves": []},
        {},
    ],
)
def test_a_configuration_that_cannot_be_is_malformed(config):
    with pytest.raises(Malformed):
        decode(b"\1\2a\0b", Encoding((Codec("byteatlas.convert", config),)), size=5)
