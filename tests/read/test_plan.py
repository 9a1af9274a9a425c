"""Plans fetch what is wanted, merged where that is cheaper, and little else."""

import numpy as np

from byteatlas.model import WHOLE, ChunkManifest, Codec, Encoding, VirtualArray
from byteatlas.read.costs import LOCAL, REMOTE, Costs
from byteatlas.read.fetches import plan_fetches
from byteatlas.read.plan import plan_read

ZLIB = (Encoding((Codec("zlib"),)),)


def costs(gap: int = 0, max_request: int = 10**9) -> Costs:
    return Costs(latency_s=gap, concurrency=1, request_s=0, bandwidth=1, max_request=max_request)


def array(offsets, lengths, *, index=None, source=None, encodings=ZLIB, cells=None):
    manifest = ChunkManifest.build(
        (cells or len(offsets),),
        np.arange(len(offsets), dtype="u8") if index is None else np.array(index, "u8"),
        np.array(offsets, "u8"),
        np.array(lengths, "u8"),
        source=None if source is None else np.array(source, "u4"),
    )
    size = manifest.cells * 2
    return VirtualArray((size,), np.dtype("i4"), (2,), manifest, encodings=encodings)


def fetches(chunks, selection, prices):
    merged = plan_fetches([plan_read(chunks, selection, prices)], prices)
    columns = merged.source.tolist(), merged.offset.tolist(), merged.length.tolist()
    return list(zip(*columns, strict=True))


def test_adjacent_chunks_become_one_fetch():
    assert fetches(array([100, 110, 125], [10, 15, 5]), ..., costs()) == [(0, 100, 30)]
    merged = plan_fetches([plan_read(array([100, 110, 125], [10, 15, 5]), ..., costs())], costs())
    assert merged.bounds.tolist() == [0, 3]


def test_chunks_are_fetched_in_the_order_of_the_source():
    assert fetches(array([125, 100, 110], [5, 10, 15]), ..., costs()) == [(0, 100, 30)]
    plan = plan_read(array([125, 100, 110], [5, 10, 15]), ..., costs())
    assert plan.cell.tolist() == [1, 2, 0]


def test_a_gap_is_fetched_as_long_as_another_request_costs_more():
    chunks = array([0, 20, 41], [10, 10, 10])
    assert fetches(chunks, ..., costs(gap=9)) == [(0, 0, 10), (0, 20, 10), (0, 41, 10)]
    assert fetches(chunks, ..., costs(gap=10)) == [(0, 0, 30), (0, 41, 10)]
    assert fetches(chunks, ..., costs(gap=11)) == [(0, 0, 51)]


def test_fetches_are_not_merged_beyond_the_largest_request():
    chunks = array(np.arange(10) * 10, [10] * 10)
    assert fetches(chunks, ..., costs(max_request=40)) == [
        (0, 0, 40),
        (0, 40, 40),
        (0, 80, 20),
    ]
    assert fetches(chunks, ..., costs(max_request=1)) == [
        (0, 10 * chunk, 10) for chunk in range(10)
    ]


def test_chunks_of_several_sources_are_not_merged():
    assert fetches(array([0, 0, 10, 10], [10] * 4, source=[1, 0, 1, 0]), ..., costs(gap=99)) == [
        (0, 0, 20),
        (1, 0, 20),
    ]


def test_an_open_ended_chunk_is_fetched_alone():
    assert fetches(array([0, 10, 20], [10, 10, WHOLE]), ..., costs(gap=99)) == [
        (0, 0, 20),
        (0, 20, -1),
    ]
    assert fetches(array([0, 10, 20], [WHOLE, 10, 10]), ..., costs(gap=99)) == [
        (0, 0, -1),
        (0, 10, 20),
    ]


def test_chunks_that_overlap_are_fetched_once():
    assert fetches(array([0, 5, 0], [20, 5, 20]), ..., costs()) == [(0, 0, 20)]


def test_missing_chunks_cost_nothing():
    assert fetches(array([10, 20], [5, 5], index=[3, 70], cells=100), ..., costs()) == [
        (0, 10, 5),
        (0, 20, 5),
    ]
    some = array([10], [5], index=[70], cells=100)
    assert plan_read(some, ..., costs()).has_missing
    assert fetches(some, slice(0, 4), costs()) == []
    assert plan_read(some, slice(0, 4), costs()).has_missing
    plan = plan_read(array([10], [5], index=[70], cells=100), slice(140, 142), costs())
    assert not plan.has_missing


def contiguous(shape, dtype="f4", length=None):
    nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    manifest = ChunkManifest.build(
        (1,) * len(shape),
        np.zeros(1, "u8"),
        np.array([1000], "u8"),
        np.array([length or nbytes], "u8"),
    )
    return VirtualArray(shape, np.dtype(dtype), shape, manifest)


def test_of_an_uncompressed_chunk_only_the_rows_asked_for_are_fetched():
    assert fetches(contiguous((1024, 1024)), slice(10, 12), REMOTE) == [
        (0, 1000 + 10 * 4096, 2 * 4096)
    ]
    assert plan_read(contiguous((1024, 1024)), slice(10, 12), REMOTE).is_partial


def test_of_an_uncompressed_chunk_the_fetch_ends_with_the_last_element():
    assert fetches(contiguous((1024, 1024)), (5, slice(3, 7)), REMOTE) == [
        (0, 1000 + 4 * (5 * 1024 + 3), 16)
    ]


def test_a_column_of_wide_slabs_is_fetched_piece_by_piece():
    slab, element = 4 * 1024 * 1024, 4 * (7 * 1024 + 9)
    selection = (slice(None), 7, 9)
    assert fetches(contiguous((10, 1024, 1024)), selection, REMOTE) == [
        (0, 1000 + slab * step + element, 4) for step in range(10)
    ]


def test_a_column_of_narrow_rows_is_fetched_as_a_whole():
    assert fetches(contiguous((1000, 100)), (slice(None), 7), REMOTE) == [
        (0, 1000 + 28, 4 * (999 * 100 + 1))
    ]


def test_a_whole_array_is_not_cut_into_slabs():
    plan = plan_read(contiguous((10, 1024, 1024)), ..., costs())
    assert plan.cell.size == 1
    assert fetches(contiguous((10, 1024, 1024)), (slice(2, 5),), costs()) == [
        (0, 1000 + 2 * 4 * 2**20, 3 * 4 * 2**20)
    ]


def test_a_short_uncompressed_chunk_is_read_as_far_as_it_goes():
    short = contiguous((10, 4), length=9 * 16)
    assert fetches(short, slice(0, 9), LOCAL) == [(0, 1000, 144)]
    plan = plan_read(short, ..., LOCAL)
    assert plan.length.tolist() == [144]
    assert plan.missing_bytes.tolist() == [16]


def test_the_gap_follows_from_what_requests_and_bytes_cost():
    assert costs(gap=77).gap == 77
    assert LOCAL.gap < 2**14 < REMOTE.gap < 2**19


def test_a_million_chunks_are_planned_without_an_object_for_each():
    offsets = 100 * np.arange(10**6)
    plan = plan_read(array(offsets, np.full(10**6, 100)), ..., REMOTE)
    assert plan.cell.size == 10**6
    assert plan_fetches([plan], REMOTE).offset.size == -(-(10**8) // REMOTE.max_request)


def test_an_empty_array_of_astronomic_shape_is_planned_where_it_is_asked():
    manifest = ChunkManifest.empty((2**20, 2**40))
    huge = VirtualArray((2**30, 2**50), np.dtype("u1"), (2**10, 2**10), manifest)
    plan = plan_read(huge, (slice(0, 5), -1), REMOTE)
    assert plan.shape == (5, 1)
    assert plan.has_missing


def test_a_large_uncompressed_chunk_is_fetched_in_pieces():
    whole = fetches(contiguous((10, 1024, 1024)), ..., REMOTE)
    assert all(length <= REMOTE.max_request for _, _, length in whole)
    assert whole[0][1] == 1000
    assert sum(length for _, _, length in whole) == 40 * 2**20
    line = fetches(contiguous((10 * 2**20,)), ..., REMOTE)
    assert all(length <= REMOTE.max_request for _, _, length in line)
    assert sum(length for _, _, length in line) == 40 * 2**20


def test_what_is_read_straight_into_the_result_is_read_in_larger_pieces():
    assert LOCAL.max_direct == 8 * 2**20
    lengths = [length for _, _, length in fetches(contiguous((40, 1024, 1024)), ..., LOCAL)]
    assert lengths == [LOCAL.max_direct] * 20
    every_other = fetches(contiguous((40, 1024, 1024)), (..., slice(None, None, 2)), LOCAL)
    assert all(length <= LOCAL.max_request for _, _, length in every_other)


def test_pieces_do_not_reach_from_chunk_to_chunk():
    chunk = 7 * 2**18
    manifest = ChunkManifest.build(
        (2,), np.arange(2, dtype="u8"), np.array([0, 10**8], "u8"), np.array([4 * chunk] * 2, "u8")
    )
    two = VirtualArray((2 * chunk,), np.dtype("f4"), (chunk,), manifest)
    plan = plan_read(two, ..., REMOTE)
    assert chunk % plan.cell_shape[0] == 0
    assert plan.cell_shape[0] * 4 <= REMOTE.max_request


def test_bytes_that_stand_in_the_result_as_they_do_in_the_source_are_known():
    rows = plan_read(contiguous((1024, 1024)), slice(10, 12), REMOTE)
    assert rows.position.tolist() == [0]
    pieces = plan_read(contiguous((10, 1024, 1024)), ..., REMOTE)
    assert (pieces.position == pieces.offset - 1000).all()
    assert plan_read(contiguous((1000, 100)), (slice(None), slice(7)), REMOTE).position is None
    assert plan_read(contiguous((1000,)), slice(None, None, 2), REMOTE).position is None


def test_parts_of_several_arrays_are_merged():
    one, other = array([0, 20], [10, 10]), array([10, 30], [10, 10])
    plans = [plan_read(each, ..., costs()) for each in (one, other)]
    merged = plan_fetches(plans, costs())
    assert (merged.offset.tolist(), merged.length.tolist()) == ([0], [40])
    assert merged.plan.tolist() == [0, 1, 0, 1]
    assert merged.part.tolist() == [0, 0, 1, 1]
