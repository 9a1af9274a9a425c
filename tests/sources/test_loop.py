import asyncio
import threading

import pytest

from byteatlas.sources import loop


async def thread_name():
    return threading.current_thread().name


def test_work_runs_on_one_background_thread():
    assert loop.call(thread_name()) == "byteatlas-io"
    assert asyncio.run(loop.call_async(thread_name())) == "byteatlas-io"


def test_errors_come_back():
    async def fail():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        loop.call(fail())


def test_an_interrupted_wait_cancels_the_work(monkeypatch):
    cancelled = threading.Event()

    async def wait():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    real = loop.submit

    def interrupted(work):
        future = real(work)
        future.result = lambda: (
            real(asyncio.sleep(0.05)).result() or exec("raise KeyboardInterrupt")
        )
        return future

    monkeypatch.setattr(loop, "submit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        loop.call(wait())
    assert cancelled.wait(5)


def test_shared_objects_are_made_once():
    made = []

    async def use(key):
        return loop.shared(key, lambda: made.append(key) or object())

    one = loop.call(use("test-one"))
    assert loop.call(use("test-one")) is one
    assert loop.call(use("test-two")) is not one
    assert made == ["test-one", "test-two"]
