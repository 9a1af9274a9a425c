"""Parsers as generators: how they run in lockstep, and what the drivers do."""

import asyncio

import numpy as np
import pytest

from byteatlas.errors import Malformed, ShortRead
from byteatlas.model import ByteRange, ByteRanges
from byteatlas.steps import both, chase, from_head, run, run_async, together
from byteatlas.testing.memory import MemoryReader

DATA = bytes(range(100))


@pytest.fixture
def reader():
    return MemoryReader(DATA)


def read(*ranges):
    """Read some ranges one after the other, and return their bytes."""
    found = []
    for offset, length in ranges:
        (data,) = yield [ByteRange(offset, length)]
        found.append(bytes(data))
    return found


def at_once(value):
    return value
    yield


def failing(rounds):
    for _ in range(rounds):
        yield [ByteRange(0, 1)]
    raise Malformed("broken")


def test_a_parser_gets_one_buffer_for_each_request(reader):
    def parse():
        first, rows, empty = yield [
            ByteRange(1, 2),
            ByteRanges(np.array([5, 3], np.uint64), 2),
            ByteRange(9, 0),
        ]
        return bytes(first), np.asarray(rows).tolist(), bytes(empty)

    assert run(parse(), reader) == (b"\1\2", [[5, 6], [3, 4]], b"")
    assert reader.rounds == 1


def test_a_parser_that_asks_for_nothing_costs_no_round(reader):
    assert run(at_once(5), reader) == 5
    assert reader.rounds == 0


def test_an_empty_batch_costs_no_round(reader):
    def parse():
        nothing = yield []
        return list(nothing)

    assert run(parse(), reader) == []
    assert reader.rounds == 0


def test_parsers_in_lockstep_cost_the_rounds_of_the_longest(reader):
    parsers = [read((0, 1)), read((1, 1), (2, 2), (3, 3)), at_once("done"), read((4, 1), (5, 1))]
    assert run(together(parsers), reader) == [
        [b"\0"],
        [b"\1", b"\2\3", b"\3\4\5"],
        "done",
        [b"\4", b"\5"],
    ]
    assert reader.rounds == 3
    assert reader.requests == 6


def test_parsers_in_lockstep_may_run_others_in_lockstep(reader):
    parsers = [together([read((n, 1)) for n in range(3)]), read((9, 1), (8, 1))]
    assert run(together(parsers), reader) == [[[b"\0"], [b"\1"], [b"\2"]], [b"\t", b"\x08"]]
    assert reader.rounds == 2


def test_no_parsers_in_lockstep_give_nothing(reader):
    assert run(together([]), reader) == []
    assert run(together([at_once(1), at_once(2)]), reader) == [1, 2]
    assert reader.rounds == 0


def test_two_parsers_of_different_results_run_in_lockstep(reader):
    assert run(both(read((0, 1)), at_once(7)), reader) == ([b"\0"], 7)


def test_an_error_ends_all_parsers_in_lockstep(reader):
    with pytest.raises(Malformed, match="broken"):
        run(together([read((0, 1), (1, 1)), failing(1)]), reader)
    with pytest.raises(Malformed, match="broken"):
        run(together([failing(0), read((0, 1))]), reader)


def test_parsers_that_follow_join_the_next_round(reader):
    seen = []

    def visit(name, depth):
        (data,) = yield [ByteRange(depth, 1)]
        seen.append((name, bytes(data)))
        return [visit(f"{name}{n}", depth + 1) for n in range(2)] if depth < 3 else ()

    run(chase([visit("r", 0)]), reader)
    assert len(seen) == 1 + 2 + 4 + 8
    assert reader.rounds == 4


def test_parsers_that_follow_may_need_no_round_of_their_own(reader):
    order = []

    def leaf(name):
        order.append(name)
        return ()
        yield

    def node(name):
        yield [ByteRange(0, 1)]
        order.append(name)
        return [leaf(f"{name}{n}") for n in range(2)]

    run(chase([node("a"), node("b")]), reader)
    assert sorted(order) == ["a", "a0", "a1", "b", "b0", "b1"]
    assert reader.rounds == 1


def test_long_chains_of_followers_need_no_deep_stack(reader):
    def link(left):
        return [link(left - 1)] if left else ()
        yield

    run(chase([link(50_000)]), reader)


def test_an_error_of_the_reader_reaches_the_caller(reader):
    with pytest.raises(ShortRead):
        run(read((90, 20)), reader)


def test_both_drivers_do_the_same(reader):
    def parsers():
        return together([read((0, 1), (5, 2)), read((7, 1))])

    expected = run(parsers(), reader)
    other = MemoryReader(DATA)
    assert asyncio.run(run_async(parsers(), other)) == expected
    assert (other.rounds, other.requests) == (reader.rounds, reader.requests)


async def test_the_asynchronous_driver_costs_no_round_for_nothing(reader):
    assert await run_async(at_once(3), reader) == 3
    assert reader.rounds == 0


def test_what_lies_in_the_head_is_answered_at_once(reader):
    head = memoryview(DATA)[:10]
    parser = from_head(read((2, 3), (7, 3), (5, 9), (0, 1)), head)
    assert run(parser, reader) == [DATA[2:5], DATA[7:10], DATA[5:14], DATA[:1]]
    assert (reader.rounds, reader.bytes_read) == (1, 9)


def test_rows_in_the_head_are_answered_at_once(reader):
    def rows(*offsets):
        (found,) = yield [ByteRanges(np.array(offsets, np.uint64), 4)]
        return np.asarray(found).tobytes()

    head = memoryview(DATA)[:10]
    assert run(from_head(rows(6, 0, 6), head), reader) == DATA[6:10] + DATA[:4] + DATA[6:10]
    assert run(from_head(rows(), head), reader) == b""
    assert reader.rounds == 0
    assert run(from_head(rows(6, 7), head), reader) == DATA[6:10] + DATA[7:11]
    assert reader.rounds == 1


def test_a_parser_with_its_bytes_at_hand_joins_its_neighbours_later(reader):
    head = memoryview(DATA)[:10]
    near = read((0, 1), (1, 1), (50, 1))
    far = read((60, 1))
    assert run(both(from_head(near, head), from_head(far, head)), reader) == (
        [DATA[:1], DATA[1:2], DATA[50:51]],
        [DATA[60:61]],
    )
    assert reader.rounds == 1


@pytest.mark.parametrize("request_", [ByteRange(95, 9), ByteRange(2**70, 1), ByteRange(5, -1)])
def test_a_range_outside_the_head_is_left_to_the_reader(reader, request_):
    def parse():
        yield [request_]

    with pytest.raises((ShortRead, OverflowError)):
        run(from_head(parse(), memoryview(DATA)[:10]), reader)
