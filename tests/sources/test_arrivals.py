"""Ranges of many remote sources at once, taken by several threads."""

import asyncio
import threading
import time

import numpy as np
import pytest

from byteatlas.errors import ByteatlasError, ShortRead, SourceMissing
from byteatlas.sources import Policy, loop, open_source
from byteatlas.sources.streaming import lines_of, stream_from
from byteatlas.testing.server import Fault, RangeServer

FILES = {
    f"{number:03}.nc": bytes(np.random.default_rng(number).integers(0, 256, 5000, dtype=np.uint8))
    for number in range(40)
}
SIZE = 5000


@pytest.fixture
def server():
    with RangeServer(FILES) as server:
        yield server


def opened(server, names=FILES, **policy):
    return [open_source(server.url(name), policy=Policy(**policy)) for name in names]


def int64(*values):
    return np.array(values, np.int64)


def taken(stream, threads=1):
    """Return the rows that some threads take, with their bytes or errors."""
    got, problems = {}, []

    def take():
        try:
            for row, data in stream:
                assert row not in got
                got[row] = data if isinstance(data, ByteatlasError) else bytes(data)
        except ByteatlasError as error:
            problems.append(error)

    helpers = [threading.Thread(target=take) for _ in range(threads)]
    for helper in helpers:
        helper.start()
    for helper in helpers:
        helper.join()
    if problems:
        raise problems[0]
    return got


@pytest.mark.parametrize("threads", [1, 5])
def test_rows_of_many_sources_are_each_given_out_once(server, threads):
    sources = opened(server)
    owner = np.repeat(np.arange(40), 3)
    offset = np.tile(int64(0, 1000, 4000), 40)
    length = np.tile(int64(700, 0, -1), 40)
    with stream_from(sources, owner, offset, length) as stream:
        got = taken(stream, threads)
    assert sorted(got) == list(range(120))
    for number, data in enumerate(FILES.values()):
        assert got[3 * number] == data[:700]
        assert got[3 * number + 1] == b""
        assert got[3 * number + 2] == data[4000:]
    assert len(server.log) == 80


def test_requests_to_many_sources_are_in_flight_together(server):
    server.latency_s = 0.3
    sources = opened(server, concurrency=16)
    with stream_from(sources, np.arange(40), np.zeros(40, np.int64), np.full(40, 10)) as stream:
        while len(server.log) < 16:
            time.sleep(0.005)
        assert {entry.path for entry in server.log} == {f"/{n:03}.nc" for n in range(16)}
        assert len(taken(stream)) == 40


def test_local_and_remote_sources_may_be_mixed(server, tmp_path):
    names = list(FILES)[:6]
    sources = opened(server, names)
    for position in (0, 3, 5):
        path = tmp_path / names[position]
        path.write_bytes(FILES[names[position]])
        sources[position] = open_source(str(path))
    owner = np.repeat(np.arange(6), 2)
    offset = np.tile(int64(5, 500), 6)
    with stream_from(sources, owner, offset, np.full(12, 100)) as stream:
        got = taken(stream, 3)
    for row in range(12):
        start = int(offset[row])
        assert got[row] == FILES[names[row // 2]][start : start + 100]
    assert len(server.log) == 6


def test_bytes_go_straight_to_their_place(server):
    target = np.zeros(300, np.uint8)
    places = {row: target[100 * row : 100 * (row + 1)].data for row in (0, 2)}
    with stream_from(
        opened(server, ["000.nc"]), int64(0, 0, 0), int64(0, 50, 900), int64(100, 100, 100),
        places.get,
    ) as stream:  # fmt: skip
        for row, data in stream:
            assert (data is places.get(row)) == (row in places)
    data = FILES["000.nc"]
    assert target.tobytes() == data[:100] + bytes(100) + data[900:1000]


def test_memory_is_bounded_and_used_again(server):
    (source,) = opened(server, ["000.nc"], max_in_flight=2048)
    with stream_from(
        [source], np.zeros(50, np.int64), np.arange(50) * 90, np.full(50, 500)
    ) as stream:
        _, held = next(stream)
        time.sleep(0.2)
        assert len(server.log) == 4  # the first is held, three wait
        addresses = {np.frombuffer(held, np.uint8).ctypes.data}
        for _, data in stream:
            addresses.add(np.frombuffer(data, np.uint8).ctypes.data)
    assert len(addresses) <= 5
    assert len(server.log) == 50


def test_a_row_above_the_bound_is_fetched_alone(server):
    (source,) = opened(server, ["000.nc"], max_in_flight=10)
    with stream_from([source], int64(0, 0), int64(0, 9), int64(4000, 3000)) as stream:
        got = taken(stream)
    assert [len(got[0]), len(got[1])] == [4000, 3000]
    assert source.trace.peak_in_flight == 1


def test_a_row_that_the_source_does_not_have_is_an_error_of_that_row(server):
    (source,) = opened(server, ["000.nc"])
    source.read_head(10)
    with stream_from([source], int64(0, 0, 0), int64(0, 4990, 70), int64(10, 20, 10)) as stream:
        got = taken(stream, 2)
    assert isinstance(got[1], ShortRead)
    assert (got[1].url, got[1].offset) == (server.url("000.nc"), 4990)
    assert (got[0], got[2]) == (FILES["000.nc"][:10], FILES["000.nc"][70:80])


def test_an_error_of_a_source_ends_the_stream_for_all_threads(server):
    server.faults = [Fault(path="007.nc", status=404)]
    sources = opened(server, concurrency=4)
    with stream_from(sources, np.arange(40), np.zeros(40, np.int64), np.full(40, 10)) as stream:
        with pytest.raises(SourceMissing) as caught:
            taken(stream, 4)
        assert caught.value.url == server.url("007.nc")
        assert list(stream) == []
    assert len(server.log) < 40


def test_a_stream_that_is_stopped_ends_at_once_and_asks_no_more(server):
    server.latency_s = 0.02
    sources = opened(server, concurrency=2)
    stream = stream_from(sources, np.arange(40), np.zeros(40, np.int64), np.full(40, 10))
    waiting = threading.Thread(target=lambda: list(stream))
    with stream:
        next(stream)
        waiting.start()
        stream.stop()
        waiting.join(5)
        assert not waiting.is_alive()
    time.sleep(0.5)
    assert len(server.log) < 20


class Stubborn:
    """Fetches in place of a source: it never has a byte, and writes when it is cancelled."""

    def __init__(self, release):
        self.began, self.release, self.ended = threading.Event(), release, threading.Event()

    async def __call__(self, offset, length, *, into=None, room=None, came=None):
        self.began.set()
        try:
            await asyncio.sleep(60)
        finally:
            await self.release()
            into[:] = bytes(len(into))
            self.ended.set()


def test_nothing_is_written_to_its_place_once_a_stream_was_left(server, monkeypatch):
    (source,) = opened(server, ["000.nc"])
    fetch = Stubborn(lambda: asyncio.sleep(0.1))
    monkeypatch.setattr(source, "fetch", fetch)
    place = np.ones(10, np.uint8)
    with stream_from([source], int64(0), int64(0), int64(10), lambda _: place.data):
        assert fetch.began.wait(10)
    assert fetch.ended.is_set()
    place[:] = 2
    assert place.tolist() == [2] * 10


def test_an_interrupt_does_not_wait_for_what_does_not_end(server, monkeypatch):
    monkeypatch.setattr("byteatlas.sources.arrivals._ENDED_S", 30)
    (source,) = opened(server, ["000.nc"])
    gate = asyncio.Event()
    fetch = Stubborn(gate.wait)
    monkeypatch.setattr(source, "fetch", fetch)
    stream = stream_from([source], int64(0), int64(0), int64(10), lambda _: bytearray(10))
    assert fetch.began.wait(10)
    loop.call_soon(lambda: asyncio.get_running_loop().call_later(5, gate.set))

    def interrupt():
        with stream:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert not fetch.ended.is_set()
    loop.call_soon(gate.set)
    assert fetch.ended.wait(10)


def test_a_stream_may_be_left_before_it_began(server):
    (source,) = opened(server, ["000.nc"])
    for _ in range(20):
        with stream_from([source], int64(0), int64(0), int64(10)) as stream:
            pass
        assert stream._ended.is_set()
        assert stream._feeding is None


def test_threads_that_wait_when_a_stream_is_stopped_see_no_error(server):
    server.latency_s = 0.3
    sources = opened(server, concurrency=2)
    ended = []

    def take(stream):
        for _ in stream:
            pass
        ended.append(stream)

    with stream_from(sources, np.arange(40), np.zeros(40, np.int64), np.full(40, 10)) as stream:
        threads = [threading.Thread(target=take, args=(stream,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        stream.stop()
        for thread in threads:
            thread.join(5)
    assert len(ended) == 8


def test_a_stream_whose_loop_ends_does_not_look_complete(server):
    server.latency_s = 0.3
    (source,) = opened(server, ["000.nc"])
    with stream_from([source], int64(0), int64(0), int64(10)) as stream:
        loop.call(cancel_all())
        with pytest.raises(asyncio.CancelledError):
            next(stream)


async def cancel_all():
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()


def test_connections_are_used_again(server):
    ports = set()
    sources = opened(server, concurrency=3)
    with stream_from(sources, np.arange(40), np.zeros(40, np.int64), np.full(40, SIZE)) as stream:
        taken(stream)
    ports = {id(writer) for writer in server._writers}
    assert len(ports) <= 3


LARGE_ROWS = 2**20 * np.arange(40)


@pytest.mark.parametrize(
    ("latency_s", "bandwidth", "mbytes"),
    [(None, None, 16), (0.02, None, 16), (0.02, 2**28, 20), (0.001, 2**20, 8), (1, 2**30, 40)],
)
def test_large_rows_under_way_are_no_more_than_fill_the_line(latency_s, bandwidth, mbytes):
    with RangeServer({"a": bytes(40 * 2**20)}, latency_s=0.5) as server:
        source = open_source(server.url("a"))
        source.read_head(1)
        source.line.latency_s, source.line.bandwidth = latency_s, bandwidth
        with stream_from(
            [source], np.zeros(40, np.int64), LARGE_ROWS, np.full(40, 2**20)
        ) as stream:
            while len(server.log) < mbytes + 1:
                time.sleep(0.005)
            time.sleep(0.1)
            assert len(server.log) == mbytes + 1
            stream.stop()


NOISE = np.random.default_rng(1).bytes(2**20) * 12


def large(source, count=12):
    return [source], np.zeros(count, np.int64), LARGE_ROWS[:count], np.full(count, 2**20)


def test_large_rows_are_asked_for_before_there_is_memory_for_them():
    with RangeServer({"a": NOISE}) as server:
        source = open_source(server.url("a"), policy=Policy(max_in_flight=2 * 2**20))
        with stream_from(*large(source)) as stream:
            _, held = next(stream)
            while len(server.log) < 12:
                time.sleep(0.005)
            time.sleep(0.1)
            assert stream._memory._free == 0
            assert len(stream._memory._lent) == 2
            assert bytes(held) == NOISE[: 2**20]
            got = taken(stream, 2)
        assert len(got) == 11
        assert all(data == NOISE[: 2**20] for data in got.values())
        assert len(server.log) == 12


def test_rows_that_wait_for_memory_leave_their_connections_to_others(monkeypatch):
    monkeypatch.setattr("byteatlas.sources.fetch._ROOM_S", 0.1)
    with RangeServer({"a": NOISE}) as server:
        policy = Policy(max_in_flight=2 * 2**20, concurrency=4)
        source = open_source(server.url("a"), policy=policy)
        with stream_from(*large(source)) as stream:
            _, held = next(stream)
            time.sleep(0.5)
            other = open_source(server.url("a"), policy=policy)
            assert bytes(other.read_head(10)) == NOISE[:10]
            assert bytes(held) == NOISE[: 2**20]
            got = taken(stream, 2)
        assert len(got) == 11
        assert all(data == NOISE[: 2**20] for data in got.values())


def test_slow_decoding_has_few_bodies_fetched_twice(monkeypatch):
    monkeypatch.setattr("byteatlas.sources.fetch._ROOM_S", 0.05)
    with RangeServer({"a": NOISE * 3}) as server:
        source = open_source(server.url("a"), policy=Policy(max_in_flight=2 * 2**20))
        rows = 2**20 * np.arange(36)
        with stream_from([source], np.zeros(36, np.int64), rows, np.full(36, 2**20)) as stream:
            for _ in stream:
                time.sleep(0.03)
        assert 36 <= len(server.log) <= 36 + 16  # as many as were under way at first


def test_a_stream_may_be_left_when_the_loop_has_ended(server, monkeypatch):
    (source,) = opened(server, ["000.nc"])
    stream = stream_from([source], int64(0), int64(0), int64(10))
    with stream:
        list(stream)
        assert stream._ended.wait(10)
        assert stream._memory._returned  # the last row, to be left to others

        def closed(*_):
            raise RuntimeError("Event loop is closed")

        monkeypatch.setattr(loop, "call_soon", closed)


def test_what_the_answers_have_shown_of_the_way_is_known_once_for_a_host(server):
    sources = opened(server)
    assert lines_of(sources) == []
    with stream_from(sources, np.arange(40), np.zeros(40, np.int64), np.full(40, 10)) as stream:
        taken(stream)
    (line,) = lines_of(sources)
    assert line.latency_s > 0
    assert line.bandwidth is None  # too little has come
