"""Selections resolve to ascending positions, and are arranged back as asked for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import basic_indices

from byteatlas.read.selection import axis_plan, resolve

SHAPE = (7, 5, 3)
VALUES = np.arange(105).reshape(SHAPE)


def take(selection):
    """Read by positions from an array in memory, as a reader does from chunks."""
    positions, arrange = resolve(selection, SHAPE)
    return arrange(VALUES[np.ix_(*(np.asarray(axis, int) for axis in positions))])


@given(basic_indices(SHAPE, allow_ellipsis=True))
def test_basic_selections_equal_those_of_numpy(selection):
    np.testing.assert_array_equal(take(selection), VALUES[selection])


@given(
    st.tuples(
        *(
            st.lists(st.integers(-size, size - 1), max_size=9).map(lambda x: np.array(x, int))
            | st.slices(size)
            | st.lists(st.booleans(), min_size=size, max_size=size).map(np.array)
            for size in SHAPE
        )
    )
)
def test_arrays_select_along_their_own_axis(selection):
    expected = VALUES
    for axis, index in enumerate(selection):
        expected = expected[(slice(None),) * axis + (index,)]
    np.testing.assert_array_equal(take(selection), expected)


def test_a_single_position_drops_its_axis_and_an_array_of_one_does_not():
    assert take((1, np.array([2]), slice(None))).shape == (1, 3)
    assert take((1, 2, 0)).shape == ()
    assert take((np.int16(-1), np.uint8(2))).shape == (3,)


@pytest.mark.parametrize(
    ("selection", "problem"),
    [
        ((7,), "index 7 is out of range for axis 0 of size 7"),
        ((0, -6), "index -6 is out of range for axis 1"),
        ((0, 0, 0, 0), "4 indices for an array of 3 axes"),
        ((..., 0, ...), "single ellipsis"),
        ((np.array([0, 9]),), "index 9 is out of range"),
        ((np.array([2**64 - 1], "u8"),), "index 18446744073709551615 is out of range"),
        ((np.zeros((2, 2), int),), "only one-dimensional arrays"),
        ((np.array([1.5]),), "only one-dimensional arrays"),
        ((np.array([True, False]),), "only one-dimensional arrays"),
        ((True,), "only one-dimensional arrays"),
    ],
)
def test_what_does_not_fit_is_an_index_error(selection, problem):
    with pytest.raises(IndexError, match=problem):
        resolve(selection, SHAPE)


@given(
    st.integers(1, 40).flatmap(
        lambda size: st.tuples(
            st.slices(size).map(lambda s: range(size)[s]).map(lambda r: r[:: np.sign(r.step)])
            | st.lists(st.integers(0, size - 1), unique=True).map(
                lambda x: np.array(sorted(x), int)
            ),
            st.integers(1, 12),
        )
    )
)
def test_the_chunks_of_an_axis_hold_all_positions_once(case):
    positions, chunk = case
    axis = axis_plan(positions, chunk)
    assert axis.size == len(positions)
    assert (np.diff(axis.chunk) > 0).all()
    found = []
    for touched in range(axis.chunk.size):
        origin = axis.chunk[touched] * chunk
        box = np.arange(axis.first[touched], axis.last[touched] + 1)
        inside = box[axis.inside(touched)]
        assert inside.size == axis.bounds[touched + 1] - axis.bounds[touched] > 0
        assert inside[0] == axis.first[touched]
        assert inside[-1] == axis.last[touched] < chunk
        found += (origin + inside).tolist()
    assert found == list(positions)


def test_a_slice_over_many_chunks_makes_no_object_per_chunk():
    axis = axis_plan(range(0, 10**7, 3), 10)
    assert axis.positions is None
    assert axis.chunk.size == 10**6
