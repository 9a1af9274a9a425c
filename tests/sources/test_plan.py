import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from byteatlas.errors import ShortRead
from byteatlas.model import ByteRange, ByteRanges
from byteatlas.sources.plan import columns, cut_arena, gather_rows, plan_reads, split_spans

DATA = np.random.default_rng(0).integers(0, 256, 4000, dtype=np.uint8)


def plan(*ranges, **options):
    offset, length = np.array(ranges, np.int64).reshape(-1, 2).T
    return plan_reads(offset, length, **options)


def spans(made):
    return list(zip(made.offset.tolist(), made.length.tolist(), strict=True))


def arena_of(made):
    parts = [DATA[offset : offset + length] for offset, length in spans(made)]
    return np.concatenate([DATA[:0], *parts])


def test_touching_ranges_become_one_span():
    made = plan((0, 10), (10, 5), (20, 5))
    assert spans(made) == [(0, 15), (20, 5)]
    assert made.position.tolist() == [0, 10, 15]


def test_a_gap_is_fetched_when_it_is_small_enough():
    assert spans(plan((0, 10), (14, 6), gap=4)) == [(0, 20)]
    assert spans(plan((0, 10), (15, 5), gap=4)) == [(0, 10), (15, 5)]


def test_unordered_and_overlapping_ranges_are_found_in_the_arena():
    made = plan((50, 10), (0, 60), (5, 1), (55, 20))
    assert spans(made) == [(0, 75)]
    assert made.position.tolist() == [50, 0, 5, 55]


def test_of_too_many_gaps_only_the_smallest_are_fetched():
    ranges = [(0, 1), (11, 1), (14, 1), (114, 1), (116, 1)]  # gaps 10, 2, 99, 1
    assert spans(plan(*ranges, gap=100)) == [(0, 117)]
    assert spans(plan(*ranges, gap=100, waste=13)) == [(0, 15), (114, 3)]
    assert spans(plan(*ranges, gap=100, waste=3)) == [(0, 1), (11, 4), (114, 3)]
    assert spans(plan(*ranges, gap=100, waste=0)) == [(o, n) for o, n in ranges]


def test_of_gaps_of_equal_width_as_many_are_fetched_as_the_bytes_allow():
    ranges = [(0, 1), (3, 1), (6, 1)]
    assert spans(plan(*ranges, gap=9, waste=4)) == [(0, 7)]
    assert spans(plan(*ranges, gap=9, waste=3)) == [(0, 4), (6, 1)]
    assert spans(plan(*ranges, gap=9, waste=1)) == ranges


def test_narrow_gaps_may_cost_more_together_than_wide_ones():
    ranges = [(n * 10, 8) for n in range(100)] + [(1050, 1)]  # 99 gaps of 2, one of 52
    narrow = {"narrow": 2, "narrow_waste": 198}
    assert spans(plan(*ranges, gap=60, waste=20, **narrow)) == [(0, 998), (1050, 1)]
    assert len(spans(plan(*ranges, gap=60, waste=20))) == 91
    assert len(spans(plan(*ranges, gap=60, waste=20, narrow=1, narrow_waste=999))) == 91
    assert len(spans(plan(*ranges, gap=60, waste=20, narrow=2, narrow_waste=100))) == 51
    assert spans(plan(*ranges, gap=60, waste=300, **narrow)) == [(0, 1051)]


def test_no_ranges_make_an_empty_plan():
    made = plan()
    assert made.arena_size == 0
    assert split_spans(made, 8) == ([], [])


def test_long_spans_are_split_into_requests():
    made = plan((0, 25), (100, 10), (200, 0))
    assert split_spans(made, 10) == ([0, 10, 20, 100], [10, 10, 5, 10])


@pytest.mark.parametrize(
    "request_",
    [
        ByteRange(95, 6),
        ByteRange(-1, 2),
        ByteRange(5, -1),
        ByteRange(2**64, 1),
        ByteRanges(np.array([0, 96], np.uint64), 5),
        ByteRanges(np.array([2**64 - 1], np.uint64), 5),
        ByteRanges(np.array([1], np.uint64), -5),
    ],
)
def test_ranges_outside_the_source_are_refused(request_):
    with pytest.raises(ShortRead, match="outside the source"):
        columns([ByteRange(0, 100), request_], 100)


def test_without_a_known_size_only_impossible_ranges_are_refused():
    assert columns([ByteRange(2**40, 5)], None)[0].tolist() == [2**40]
    with pytest.raises(ShortRead):
        columns([ByteRange(2**63, 5)], None)


def test_columns_keep_the_order_of_the_batch():
    batch = [
        ByteRange(7, 1),
        ByteRanges(np.array([3, 9], np.uint64), 2),
        ByteRanges(np.empty(0, np.uint64), 4),
        ByteRange(1, 0),
        ByteRange(0, 5),
    ]
    offset, length = columns(batch, 100)
    assert offset.tolist() == [7, 3, 9, 1, 0]
    assert length.tolist() == [1, 2, 2, 0, 5]


def test_rows_are_copies_that_may_be_written_to():
    arena = DATA.copy()
    rows = gather_rows(arena, np.array([5, 5, 0]), 3)
    rows[:] = 0
    assert (arena == DATA).all()


single = st.tuples(st.integers(0, 3900), st.integers(0, 100)).map(lambda pair: ByteRange(*pair))
many = st.builds(
    lambda offsets, length: ByteRanges(np.array(offsets, np.uint64), length),
    st.lists(st.integers(0, 3900), max_size=8),
    st.integers(0, 100),
)
batches = st.lists(single | many, max_size=12)


@given(batches, st.integers(0, 200), st.integers(0, 2000))
def test_a_merged_batch_holds_the_bytes_of_single_reads(batch, gap, waste):
    offset, length = columns(batch, DATA.size)
    made = plan_reads(offset, length, gap=gap, waste=waste)
    ends = made.offset + made.length
    assert (made.offset[1:] > ends[:-1]).all()
    asked = np.zeros(DATA.size, bool)
    fetched = np.zeros(DATA.size, bool)
    for start, count in zip(offset, length, strict=True):
        asked[start : start + count] = True
    for start, count in spans(made):
        fetched[start : start + count] = True
    assert not (asked & ~fetched).any()
    assert (fetched & ~asked).sum() <= waste
    for request, buffer in zip(batch, cut_arena(batch, arena_of(made), made.position), strict=True):
        if isinstance(request, ByteRange):
            assert bytes(buffer) == DATA[request.offset :][: request.length].tobytes()
        else:
            assert buffer.shape == (request.offsets.size, request.length)
            for row, start in zip(buffer, request.offsets.tolist(), strict=True):
                assert (row == DATA[start : start + request.length]).all()


@given(batches, st.integers(1, 300))
def test_split_requests_tile_the_spans(batch, largest):
    made = plan_reads(*columns(batch, DATA.size))
    offsets, lengths = split_spans(made, largest)
    assert all(0 < length <= largest for length in lengths)
    tiled = np.concatenate(
        [np.arange(0), *(np.arange(o, o + n) for o, n in zip(offsets, lengths, strict=True))]
    )
    whole = np.concatenate([np.arange(0), *(np.arange(o, o + n) for o, n in spans(made))])
    assert (tiled == whole).all()
