"""Requests made in one turn of an event loop are answered as one batch."""

import asyncio

import pytest

from byteatlas.store.gathering import Gathering


class Doubler:
    def __init__(self):
        self.batches = []

    async def answer(self, requests):
        self.batches.append(requests)
        await asyncio.sleep(0)
        return [ValueError(f"no {n}") if n < 0 else 2 * n for n in requests]


async def test_requests_made_together_are_one_batch():
    doubler = Doubler()
    gathering = Gathering(doubler.answer)
    assert await asyncio.gather(*map(gathering.ask, range(5))) == [0, 2, 4, 6, 8]
    assert doubler.batches == [[0, 1, 2, 3, 4]]


async def test_requests_that_come_a_turn_later_are_of_the_same_batch():
    doubler = Doubler()
    gathering = Gathering(doubler.answer)

    async def ask(number):
        for _ in range(number):
            await asyncio.sleep(0)
        return await gathering.ask(number)

    assert await asyncio.gather(*map(ask, range(5))) == [0, 2, 4, 6, 8]
    assert doubler.batches == [[0, 1, 2, 3, 4]]


async def test_a_batch_is_sent_though_requests_keep_coming():
    doubler = Doubler()
    gathering = Gathering(doubler.answer)
    asked = []
    while not doubler.batches:
        asked.append(asyncio.ensure_future(gathering.ask(len(asked))))
        await asyncio.sleep(0)
        assert len(asked) < 50
    assert await asyncio.gather(*asked) == [2 * number for number in range(len(asked))]


async def test_too_few_answers_are_an_error_and_nobody_waits_for_ever():
    async def one(requests):
        return [1]

    gathering = Gathering(one)
    answers = await asyncio.gather(*map(gathering.ask, range(3)), return_exceptions=True)
    assert answers[0] == 1
    assert [type(answer) for answer in answers[1:]] == [ValueError] * 2


async def test_who_waits_is_told_when_the_batch_is_cancelled():
    started = asyncio.Event()

    async def forever(requests):
        started.set()
        await asyncio.sleep(1000)

    gathering = Gathering(forever)
    waiting = asyncio.ensure_future(gathering.ask(1))
    await started.wait()
    for task in gathering._running:
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_requests_made_one_after_the_other_are_not_held_up():
    doubler = Doubler()
    gathering = Gathering(doubler.answer)
    assert [await gathering.ask(n) for n in (1, 2)] == [2, 4]
    assert doubler.batches == [[1], [2]]


async def test_an_error_reaches_only_the_one_who_asked():
    gathering = Gathering(Doubler().answer)
    first, second = await asyncio.gather(
        gathering.ask(-1), gathering.ask(1), return_exceptions=True
    )
    assert isinstance(first, ValueError)
    assert second == 2


async def test_an_error_of_the_whole_batch_reaches_all():
    async def broken(requests):
        raise OSError("down")

    gathering = Gathering(broken)
    errors = await asyncio.gather(*map(gathering.ask, range(3)), return_exceptions=True)
    assert [str(error) for error in errors] == ["down"] * 3


async def test_one_who_gives_up_leaves_the_others_their_answer():
    doubler = Doubler()
    gathering = Gathering(doubler.answer)
    first, second = (asyncio.ensure_future(gathering.ask(n)) for n in (1, 2))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert await second == 4


def test_every_event_loop_has_its_own_batch():
    doubler = Doubler()
    gathering = Gathering(doubler.answer)
    assert asyncio.run(gathering.ask(1)) == 2
    assert asyncio.run(gathering.ask(2)) == 4
