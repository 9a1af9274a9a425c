"""The codec of arrays with several encodings."""

import zlib

import numcodecs
import numpy as np
import pytest

from byteatlas.codecs import ENCODING_PREFIX, Encodings, encoding_prefix
from byteatlas.errors import Malformed, Unsupported

VALUES = np.arange(500, dtype="<f4").tobytes()


def test_a_prefixed_chunk_is_decoded_by_the_encoding_that_it_names():
    codec = numcodecs.get_codec(
        {
            "id": "byteatlas.encodings",
            "encodings": [
                [{"id": "shuffle", "elementsize": 4}, {"id": "zlib"}],
                [],
                [{"id": "zlib"}],
            ],
        }
    )
    assert isinstance(codec, Encodings)
    shuffled = numcodecs.Shuffle(4).encode(np.frombuffer(VALUES, np.uint8))
    chunks = [zlib.compress(shuffled), VALUES, zlib.compress(VALUES)]
    for position, chunk in enumerate(chunks):
        assert bytes(codec.decode(encoding_prefix(position) + chunk)) == VALUES
        out = np.empty(500, "<f4")
        codec.decode(encoding_prefix(position) + chunk, out=out)
        assert out.tobytes() == VALUES
    with pytest.raises(Malformed, match="has encoding 3, but there are 3"):
        codec.decode(encoding_prefix(3) + VALUES)


def test_the_prefix_is_twenty_bytes_as_documented():
    assert encoding_prefix(258) == b"\x93byteatlas.enc1\n\x02\x01\x00\x00"


@pytest.mark.parametrize("data", [b"", VALUES, ENCODING_PREFIX, ENCODING_PREFIX + b"\0\0\0"])
def test_a_chunk_without_its_prefix_is_refused(data):
    with pytest.raises(Malformed, match="no encoding prefix"):
        Encodings([[]]).decode(data)


def test_an_array_of_several_encodings_cannot_be_written():
    with pytest.raises(Unsupported, match="cannot be written"):
        Encodings([[]]).encode(VALUES)
