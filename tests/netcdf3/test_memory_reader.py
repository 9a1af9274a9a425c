import doctest

import numpy as np
import pytest

import byteatlas.testing.memory
from byteatlas.errors import ShortRead
from byteatlas.model import ByteRange, ByteRanges
from byteatlas.testing.memory import MemoryReader


def test_its_example_is_true():
    assert doctest.testmod(byteatlas.testing.memory).failed == 0


async def test_ranges_of_one_length_are_answered_by_one_array_that_the_parser_owns():
    reader = MemoryReader(b"0123456789")
    ranges = ByteRanges(np.array([8, 0, 3], np.uint64), 2)
    one, many = await reader.aread([ByteRange(4, 2), ranges])
    assert bytes(one) == b"45"
    assert [row.tobytes() for row in many] == [b"89", b"01", b"34"]
    assert many.flags.writeable
    assert (reader.rounds, reader.requests, reader.bytes_read) == (1, 4, 8)


@pytest.mark.parametrize(
    "request_",
    [ByteRange(8, 3), ByteRange(-1, 1), ByteRanges(np.array([0, 9], np.uint64), 2)],
)
def test_a_range_past_the_end_is_a_short_read(request_):
    with pytest.raises(ShortRead):
        MemoryReader(b"0123456789").read([request_])
