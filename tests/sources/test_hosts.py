import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from byteatlas.sources import hosts
from byteatlas.sources.hosts import Host, Patience, retry_after

PATIENCE = Patience()


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 1000.0

        def monotonic(self):
            return self.now

    async def sleep(seconds):
        clock.now += seconds
        await no_sleep(0)

    clock = Clock()
    no_sleep = asyncio.sleep
    monkeypatch.setattr(hosts, "time", clock)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    return clock


async def fail(host, ordered_s=None, patience=PATIENCE):
    """Take a turn and fail; tell whether the host is given up."""
    turn = await host.turn()
    try:
        return host.failed(turn, "down", ordered_s, patience)
    finally:
        host.end(turn)


def test_pauses_grow_from_a_tenth_of_a_second_and_are_jittered():
    for failures, longest in ((1, 0.2), (2, 0.4), (3, 0.8), (4, 1.6), (5, 3.2), (9, 5.0)):
        pauses = {PATIENCE.pause(failures) for _ in range(50)}
        assert len(pauses) > 1
        assert all(longest / 2 <= one <= longest for one in pauses)


def test_six_tries_outlast_half_a_second_and_end_within_a_minute():
    least = sum(min(5.0, 0.2 * 2**n) / 2 for n in range(5))
    assert least > 0.5
    assert 2 * least < PATIENCE.total_s


async def test_a_healthy_host_makes_nobody_wait(clock):
    host = Host()
    turns = [await host.turn() for _ in range(3)]
    assert all(turn.verdict is None for turn in turns)
    assert clock.now == 1000


async def test_one_request_finds_out_and_all_others_wait(clock):
    host = Host()
    await fail(host)
    turn = await host.turn()
    others = [asyncio.ensure_future(host.turn()) for _ in range(50)]
    for _ in range(5):
        await asyncio.sleep(0)
    assert not any(other.done() for other in others)
    host.succeeded()
    host.end(turn)
    assert all(turn.verdict is None for turn in await asyncio.gather(*others))


async def test_a_dead_host_costs_one_budget(clock):
    host, sent, given_up = Host(), [], []

    async def ask():
        while True:
            turn = await host.turn()
            if turn is None:
                given_up.append("told")
                return
            sent.append(clock.now)
            await asyncio.sleep(0)
            is_out = host.failed(turn, "down", None, PATIENCE)
            host.end(turn)
            if is_out:
                given_up.append("found")
                return

    await asyncio.gather(*(ask() for _ in range(50)))
    assert given_up.count("found") == 1
    assert given_up.count("told") == 49
    assert len(sent) == 50 + PATIENCE.tries - 1


async def test_after_that_each_new_request_is_tried_once(clock):
    host = Host()
    assert [await fail(host) for _ in range(8)] == [False] * 5 + [True] * 3
    before = clock.now
    assert await fail(host)
    assert clock.now == before
    host.succeeded()
    assert not await fail(host)


async def test_a_host_that_only_fails_is_given_up_after_its_patience(clock):
    host = Host()
    await fail(host)
    clock.now += 29
    assert not await fail(host)
    clock.now += 2
    assert await fail(host)


async def test_an_old_failure_is_forgotten(clock):
    host = Host()
    await fail(host)
    clock.now += 3600
    assert (await host.turn()).verdict is None


async def test_who_is_interrupted_while_finding_out_leaves_it_to_another(clock):
    host = Host()
    await fail(host)
    first = await host.turn()
    second = asyncio.ensure_future(host.turn())
    await asyncio.sleep(0)
    host.end(first)
    assert (await second).verdict is not None
    host.end(await second)
    waiting = asyncio.ensure_future(host.turn())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (await host.turn()).verdict is not None


async def test_an_ordered_pause_holds_for_all_requests_and_spends_no_patience(clock):
    host = Host()
    await fail(host, ordered_s=40)
    assert (await host.turn()) is not None
    assert clock.now >= 1040
    host.succeeded()


async def test_nobody_is_waited_for_longer_than_a_minute_in_all(clock):
    host = Host()
    await fail(host, ordered_s=3600)
    assert await fail(host, ordered_s=3600)
    assert clock.now <= 1061


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        (None, None),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("Fri, 31 Dec 9999 23:59:59 -2359", None),
    ],
)
def test_retry_after_in_seconds(value, seconds):
    assert retry_after(value) == seconds


def test_retry_after_as_a_date():
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    assert 95 <= retry_after(later) <= 100
    assert retry_after("Mon, 02 Nov 1998 00:00:00 GMT") == 0
