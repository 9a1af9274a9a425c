"""Run something in a forked child with limits, and keep what it said until it ended."""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

Say = Callable[[Any], None]


class Ended(NamedTuple):
    """What a child said, and how it ended."""

    said: list[Any]
    problem: str
    """Empty when it ended well; else "hang: ..." or "crash: ..."."""
    seconds: float


def run(work: Callable[[Say], None], *, wall_s: float, memory: int) -> Ended:
    """Fork, let the child call `work` with a function that hands a JSON value to its parent."""
    reading, writing = os.pipe()
    began = time.monotonic()
    child = os.fork()
    if not child:
        os.close(reading)
        _be_child(work, writing, wall_s, memory)
    os.close(writing)
    data, is_late = _listen(reading, began + wall_s)
    os.close(reading)
    if is_late:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    whole, _, _ = data.rpartition(b"\n")
    said = [json.loads(line) for line in whole.split(b"\n") if line]
    problem = ""
    if is_late or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU):
        problem = f"hang: still busy after {wall_s:g} s"
    elif os.WIFSIGNALED(status):
        problem = f"crash: {signal.Signals(os.WTERMSIG(status)).name}"
    elif status:
        problem = f"crash: exit status {os.waitstatus_to_exitcode(status)}"
    return Ended(said, problem, time.monotonic() - began)


def _be_child(work: Callable[[Say], None], writing: int, wall_s: float, memory: int) -> None:
    """Do the work and end the process, without any of the parent's business at exit."""
    code = 70
    try:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(nowhere, number)
        limit = int(wall_s) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 2))
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

        def say(value: Any) -> None:
            data = json.dumps(value).encode() + b"\n"
            while data:
                data = data[os.write(writing, data) :]

        work(say)
        code = 0
    finally:
        sys.stdout.flush()
        os._exit(code)


def _listen(reading: int, until: float) -> tuple[bytes, bool]:
    parts: list[bytes] = []
    while True:
        left = until - time.monotonic()
        if left <= 0:
            return b"".join(parts), True
        if select.select([reading], [], [], left)[0]:
            part = os.read(reading, 2**16)
            if not part:
                return b"".join(parts), False
            parts.append(part)
