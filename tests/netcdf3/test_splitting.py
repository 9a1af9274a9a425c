import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from byteatlas_scanners.splitting import contiguous_manifest, split_rows


@pytest.mark.parametrize("shape", [(), (1,), (100,), (10, 10), (0,), (0, 5), (5, 0)])
def test_what_fits_stays_whole(shape):
    whole = tuple(max(n, 1) for n in shape)
    assert split_rows(shape, 1, 100, room_after=0) == whole


@pytest.mark.parametrize(
    ("shape", "max_chunk", "expected"),
    [
        ((100,), 50, (50,)),
        ((100,), 49, (25,)),
        ((100, 7), 70, (10, 7)),
        ((4, 100), 60, (1, 50)),
        ((4, 3, 100), 60, (1, 1, 50)),
        ((4, 3, 100), 350, (1, 3, 100)),
        ((4, 3, 100), 250, (1, 1, 100)),
        ((4, 4, 100), 250, (1, 2, 100)),
    ],
)
def test_the_largest_divisor_that_fits_is_taken(shape, max_chunk, expected):
    assert split_rows(shape, 1, max_chunk, room_after=10**9) == expected


def test_an_uneven_cut_balances_the_pieces_and_needs_the_padding_behind_the_array():
    # 1009 is prime. 11 pieces of 92 rows reach 3 rows too far, 92 * 11 - 1009.
    assert split_rows((1009,), 4, 400, room_after=10**6) == (92,)
    assert split_rows((1009,), 4, 400, room_after=12) == (92,)
    assert split_rows((1009,), 4, 400, room_after=11) != (92,)


def test_without_room_behind_a_small_divisor_is_better_than_one_huge_chunk():
    assert split_rows((1009,), 4, 400, room_after=0) == (1,)
    assert split_rows((8761, 100, 100), 4, 8 * 2**20, room_after=0) == (1, 100, 100)


def test_without_room_behind_an_axis_without_divisors_stays_whole():
    assert split_rows((1_000_003,), 1, 1000, room_after=0) == (1_000_003,)
    assert split_rows((3, 1_000_003), 1, 1000, room_after=0) == (1, 1_000_003)


def test_an_element_larger_than_a_chunk_may_be_is_a_chunk():
    assert split_rows((5, 3), 100, 10, room_after=0) == (1, 1)


def test_huge_axes_are_split_without_trying_every_divisor():
    tebi = 2**40
    assert split_rows((tebi,), 1, 2**23, room_after=0) == (2**23,)
    (cut,) = split_rows((tebi + 15,), 1, 2**30, room_after=2**31)
    assert 2**27 <= cut <= 2**30
    (cut,) = split_rows((tebi + 15,), 1, 40, room_after=2**31)
    assert 5 <= cut <= 40


@given(
    shape=st.lists(st.integers(1, 12), max_size=4).map(tuple),
    itemsize=st.sampled_from([1, 2, 4, 8]),
    max_chunk=st.integers(1, 2000),
    room_after=st.integers(0, 300),
    begin=st.integers(0, 100),
)
def test_every_chunk_is_one_range_and_every_element_is_in_exactly_one(
    shape, itemsize, max_chunk, room_after, begin
):
    chunk_shape = split_rows(shape, itemsize, max_chunk, room_after=room_after)
    count = math.prod(shape)
    elements = np.arange(count).reshape(shape)
    manifest = contiguous_manifest(shape, chunk_shape, itemsize, begin)
    assert manifest.offset.dtype == manifest.length.dtype == np.uint64
    assert manifest.index is None
    assert manifest.virtual_count == manifest.cells

    seen = np.zeros(count, int)
    for row, cell in enumerate(np.ndindex(manifest.grid_shape)):
        part = elements[
            tuple(slice(i * c, (i + 1) * c) for i, c in zip(cell, chunk_shape, strict=True))
        ]
        offset, length = int(manifest.offset[row]), int(manifest.length[row])
        assert length == itemsize * math.prod(chunk_shape)
        assert begin <= offset
        assert offset + length <= begin + count * itemsize + room_after
        # The chunk's elements are a run, and start its range: an edge is padded only at its end.
        run = part.reshape(-1)
        assert offset == begin + run[0] * itemsize
        assert (np.diff(run) == 1).all()
        seen[run] += 1
    assert (seen == 1).all()


@given(
    count=st.integers(1, 5000),
    most=st.integers(1, 500),
    room_after=st.integers(0, 5000),
)
def test_chunks_are_neither_too_large_nor_needlessly_many(count, most, room_after):
    (cut,) = split_rows((count,), 1, most, room_after=room_after)
    if count <= most:
        assert cut == count
    elif room_after >= most:
        assert most // 8 / 2 < cut <= most
    else:
        assert cut <= most or all(count % rows for rows in range(max(most // 256, 1), most + 1))


def test_rows_that_lie_apart_have_their_own_stride():
    manifest = contiguous_manifest((3, 4), (1, 2), 2, begin=100, row_stride=50)
    assert manifest.grid_shape == (3, 2)
    assert manifest.offset.tolist() == [100, 104, 150, 154, 200, 204]
    assert manifest.length.tolist() == [4] * 6


@pytest.mark.parametrize(("shape", "grid"), [((0,), (0,)), ((0, 3), (0, 1)), ((3, 0), (1, 0))])
def test_an_array_without_elements_has_no_chunks(shape, grid):
    manifest = contiguous_manifest(shape, split_rows(shape, 8, 4, room_after=0), 8, begin=9)
    assert manifest.grid_shape == grid
    assert manifest.virtual_count == 0


def test_a_scalar_is_one_chunk():
    manifest = contiguous_manifest((), (), 8, begin=9)
    assert (manifest.grid_shape, manifest.offset.tolist(), manifest.length.tolist()) == (
        (),
        [9],
        [8],
    )
