"""Keys of tree nodes, compared from the left."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from byteatlas_scanners.hdf5.key_order import Bounds, are_in_order, is_ascending, is_less

keys = st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=12)


def rows(some):
    return np.array(some, np.uint64).reshape(len(some), -1)


@given(keys)
def test_keys_compare_as_tuples_do(some):
    other = some[::-1]
    assert is_less(rows(some), rows(other)).tolist() == [
        a < b for a, b in zip(some, other, strict=True)
    ]
    ascending = all(a < b for a, b in pairwise(some))
    assert is_ascending(rows(some)) == ascending
    flat = np.array([a * 16 + b * 4 + c for a, b, c in some], np.uint64)
    for inside in (True, False):
        assert are_in_order(rows(some), flat, np.full(len(some), inside)) == ascending


def test_the_largest_numbers_are_compared_as_unsigned():
    assert is_less(rows([(2**63 - 1,), (1,)]), rows([(2**63,), (2**64 - 1,)])).all()


def test_bounds_narrow_from_level_to_level():
    root = Bounds.of_root(2)
    # A node with keys (1, 0) and (4, 0) has children before, between and behind them.
    below = root.between(rows([(1, 0), (4, 0)]), np.array([2]))
    assert below.low.tolist() == [[0, 0], [1, 0], [4, 0]]
    assert below.high[:2].tolist() == [[1, 0], [4, 0]]
    assert not below.outside(rows([(0, 5), (1, 0), (4, 1)]), rows([(0, 9), (3, 9), (9, 9)])).any()
    broken = below.outside(rows([(0, 5), (0, 9), (4, 1)]), rows([(1, 0), (3, 9), (9, 9)]))
    assert broken.tolist() == [True, True, False]
    # Two nodes of one level, with one and two keys.
    two = below.of(slice(0, 2)).between(rows([(0, 3), (2, 0), (3, 0)]), np.array([1, 2]))
    assert two.low.tolist() == [[0, 0], [0, 3], [1, 0], [2, 0], [3, 0]]
    assert two.high.tolist() == [[0, 3], [1, 0], [2, 0], [3, 0], [4, 0]]


@pytest.mark.parametrize("low", [(0, 0), (2, 0)])
def test_bounds_are_never_widened(low):
    bounds = Bounds(rows([(1, 0)]), rows([(3, 0)])).within(rows([low]), rows([(9, 9)]))
    assert bounds.low.tolist() == [list(max(low, (1, 0)))]
    assert bounds.high.tolist() == [[3, 0]]
