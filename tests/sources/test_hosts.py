import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from byteatlas.sources import hosts
from byteatlas.sources.hosts import Host, retry_after


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 1000.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(hosts, "time", clock)
    return clock


def pause(host, tries, ordered_s=None):
    return host.pause_after(tries, ordered_s, most_tries=6, patience_s=30)


def test_pauses_grow_and_are_jittered(clock):
    for tries, longest in ((1, 0.2), (2, 0.4), (3, 0.8), (4, 1.6), (5, 3.2)):
        pauses = {pause(Host(), tries) for _ in range(50)}
        assert len(pauses) > 1
        assert all(longest / 2 <= one <= longest for one in pauses)


def test_the_last_try_has_no_pause_after_it(clock):
    assert pause(Host(), 6) is None


def test_a_dead_host_costs_its_patience_once(clock):
    host = Host()
    assert pause(host, 1) is not None
    clock.now += 29
    assert pause(host, 2) is not None
    clock.now += 2
    assert pause(host, 1) is None  # another request does not begin again
    host.succeeded()
    assert pause(host, 1) is not None


def test_an_old_failure_is_forgotten(clock):
    host = Host()
    pause(host, 1)
    clock.now += 3600
    assert pause(host, 1) is not None


def test_an_ordered_pause_holds_for_all_requests_and_spends_no_patience(clock, monkeypatch):
    slept = []

    async def sleep(seconds):
        slept.append(seconds)

    monkeypatch.setattr(hosts.asyncio, "sleep", sleep)
    host = Host()
    assert pause(host, 1, ordered_s=1000) == 0
    asyncio.run(host.ready())
    assert slept == [60]  # no longer than that
    clock.now += 61
    asyncio.run(host.ready())
    assert slept == [60]
    assert pause(host, 2) is not None


@pytest.mark.parametrize(
    ("value", "seconds"), [("7", 7.0), (None, None), ("", None), ("soon", None), ("-1", None)]
)
def test_retry_after_in_seconds(value, seconds):
    assert retry_after(value) == seconds


def test_retry_after_as_a_date():
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    assert 95 <= retry_after(later) <= 100
    assert retry_after("Mon, 02 Nov 1998 00:00:00 GMT") == 0
