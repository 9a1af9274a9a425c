"""Memory that ranges are received into: bounded, lent again, and given up when nobody wants it."""

import asyncio

import numpy as np
import pytest

from byteatlas.sources import loop
from byteatlas.sources.lent_memory import LentMemory, _Spare

MIB = 2**20


def address(part):
    return np.frombuffer(part, np.uint8).ctypes.data


@pytest.fixture
def spare(monkeypatch):
    """What nobody has, which is nothing at first."""
    one = _Spare()
    monkeypatch.setattr(loop, "shared", lambda key, make: one)
    return one


def test_no_more_is_lent_than_may_be(spare):
    async def lend():
        memory = LentMemory(10)
        first, second = await memory.lend(4), await memory.lend(6)
        waiting = asyncio.ensure_future(memory.lend(5))
        memory.take_back(first)
        await asyncio.sleep(0)
        assert not waiting.done()
        memory.take_back(second)
        assert len(await waiting) == 5

    asyncio.run(lend())


def test_more_than_the_limit_is_lent_alone(spare):
    async def lend():
        memory = LentMemory(10)
        first = await memory.lend(1)
        waiting = asyncio.ensure_future(memory.lend(20))
        await asyncio.sleep(0)
        assert not waiting.done()
        memory.take_back(first)
        assert len(await waiting) == 20

    asyncio.run(lend())


def test_the_next_read_has_the_memory_of_the_last(spare):
    async def lend():
        places = set()
        for count in (MIB, MIB + 1, MIB - 1, MIB):
            memory = LentMemory(4 * MIB)
            parts = [await memory.lend(count) for _ in range(2)]
            assert [len(part) for part in parts] == [count] * 2
            places |= {address(part) for part in parts}
            for part in parts:
                memory.take_back(part)
        assert len(places) <= 4  # two were too small for the second

    asyncio.run(lend())


def test_new_memory_takes_the_place_of_what_does_not_fit(spare):
    async def lend():
        memory = LentMemory(8 * MIB)
        for part in [await memory.lend(MIB) for _ in range(8)]:
            memory.take_back(part)
        assert spare._count == 8 * MIB
        held = [await memory.lend(4 * MIB)]
        assert spare._count == 4 * MIB
        held.append(await memory.lend(4 * MIB))
        assert spare._count == 0

    asyncio.run(lend())


def test_so_much_is_kept_and_no_longer_than_it_is_wanted(spare, monkeypatch):
    monkeypatch.setattr("byteatlas.sources.lent_memory._MOST_SPARE", 3 * MIB)
    monkeypatch.setattr("byteatlas.sources.lent_memory._KEPT_S", 0.05)

    async def lend():
        memory = LentMemory(8 * MIB)
        for part in [await memory.lend(MIB) for _ in range(8)]:
            memory.take_back(part)
        assert spare._count == 3 * MIB
        for _ in range(6):
            memory.take_back(await memory.lend(MIB))
            await asyncio.sleep(0.02)
        assert spare._count == 3 * MIB
        await asyncio.sleep(0.5)
        assert spare._count == 0
        memory.take_back(await memory.lend(MIB))
        await asyncio.sleep(0.5)
        assert spare._count == 0

    asyncio.run(lend())


def test_a_wait_that_is_given_up_blocks_nobody(spare):
    async def lend():
        memory = LentMemory(100)
        await memory.lend(60)
        large, small = (asyncio.ensure_future(memory.lend(n)) for n in (80, 30))
        await asyncio.sleep(0)
        assert not memory.is_short
        large.cancel()
        assert len(await asyncio.wait_for(small, 10)) == 30
        assert memory.is_short

    asyncio.run(lend())


def test_memory_is_counted_as_large_as_it_is(spare):
    async def lend():
        memory = LentMemory(10 * MIB)
        for part in [await memory.lend(2 * MIB) for _ in range(5)]:
            memory.take_back(part)
        parts = []
        while (waiting := asyncio.ensure_future(memory.lend(MIB + MIB // 2 + 1))) is not None:
            await asyncio.sleep(0)
            if not waiting.done():
                break
            parts.append(waiting.result())
        waiting.cancel()
        whole = sum(len(whole) for _, whole in memory._lent.values())
        assert len(parts) == 5  # 2 MiB each, though less is asked for
        assert whole == 10 * MIB

    asyncio.run(lend())


def test_a_wait_for_memory_that_is_given_up_takes_none(spare):
    async def lend():
        memory = LentMemory(10)
        part = await memory.lend(10)
        waiting = [asyncio.ensure_future(memory.lend(10)) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.sleep(0)
        memory.take_back(part)
        waiting[1].cancel()  # it is its turn already
        assert len(await asyncio.wait_for(waiting[2], 10)) == 10
        assert memory._free == 0
        assert len(memory._lent) == 1

    asyncio.run(lend())
