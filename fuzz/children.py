"""Run jobs in forked children, so that whatever happens to one of them harms no other.

A child writes down what it is about to do before it does it: whoever finds it dead knows of which
job, and in which phase. Each phase has a limit of processor time, which a signal enforces that
ends C code too; a phase that only waits is ended by the parent.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import select
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

__all__ = ["MiB", "Phase", "Report", "peak_rss", "run_in_children"]

T = TypeVar("T")

MiB = 2**20
PER_CHILD = 50
ADDRESS_SPACE = 2048 * MiB
"""What a child may map beyond what it has when it starts."""
IDLE_S = 60

Phase = Callable[[str, float], None]
"""Begins a phase of a job: its name, and its limit of processor time in seconds."""


class Report(NamedTuple):
    """How one job ended."""

    number: int
    result: dict[str, Any] | None
    """What the job returned, JSON values only; None when it did not come to that."""
    phase: str = ""
    """The phase it ended in otherwise."""
    death: str = ""
    """``hang``, the name of a signal, or the traceback of an exception."""


def run_in_children(
    jobs: Sequence[T], work: Callable[[T, Phase], dict[str, Any]], *, per_child: int = PER_CHILD
) -> Iterator[Report]:
    """Run a function on each job, some fifty in a child; yield the reports in order.

    A job that ends its child is run again in one of its own, and that counts.

    Parameters
    ----------
    work
        Calls its second argument when a phase begins. Its result must be JSON.
    """
    start = 0
    while start < len(jobs):
        stop = min(start + per_child, len(jobs))
        first = start
        for report in _one_child(jobs, start, stop, work):
            start = report.number + 1
            # Alone once more: what libhdf5 did with a file before may only show now.
            is_again = report.death and report.number > first
            yield from _one_child(jobs, report.number, start, work) if is_again else [report]


def _one_child(
    jobs: Sequence[T], start: int, stop: int, work: Callable[[T, Phase], dict[str, Any]]
) -> Iterator[Report]:
    """Run jobs in one child until the last of them, or the first that ends it."""
    gc.collect()
    gc.freeze()  # or the child's collector touches, and so copies, all that it has from here
    inlet, outlet = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.close(inlet)
        _be_child(jobs, start, stop, work, outlet)
    os.close(outlet)
    number, phase, death = start, "", ""
    try:
        for line in _lines(inlet):
            if line is None:
                death = "hang"
                os.kill(child, signal.SIGKILL)
                break
            kind, number, what = json.loads(line)
            if kind == "phase":
                phase = what
            elif kind == "result":
                yield Report(number, what)
                number, phase = number + 1, ""
            else:
                yield Report(number, None, phase, what)
                number, phase = number + 1, ""
    finally:
        os.close(inlet)
        _, status = os.waitpid(child, 0)
    if number >= stop:
        return
    if not death:
        ended = -os.waitstatus_to_exitcode(status)
        name = signal.Signals(ended).name if ended > 0 else f"exit {-ended}"
        death = "hang" if name == "SIGPROF" else name
    yield Report(number, None, phase, death)


def _lines(inlet: int) -> Iterator[bytes | None]:
    """Yield what the child writes; None when it has written nothing for long."""
    rest = b""
    while True:
        if not select.select([inlet], [], [], IDLE_S)[0]:
            yield None
            return
        data = os.read(inlet, 2**16)
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        yield from lines


def _be_child(
    jobs: Sequence[T],
    start: int,
    stop: int,
    work: Callable[[T, Phase], dict[str, Any]],
    outlet: int,
) -> None:
    """Do the work of a child, which ends here."""
    limit = _mapped() + ADDRESS_SPACE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)  # the libraries print what they think of a file

    def tell(kind: str, number: int, what: Any) -> None:
        os.write(outlet, json.dumps([kind, number, what]).encode() + b"\n")

    for number in range(start, stop):

        def begin(phase: str, limit_s: float, number: int = number) -> None:
            tell("phase", number, phase)
            signal.setitimer(signal.ITIMER_PROF, limit_s)

        try:
            result = work(jobs[number], begin)
        except BaseException:  # noqa: BLE001  # any exception that gets here is a finding
            tell("raised", number, traceback.format_exc()[-3000:])
        else:
            tell("result", number, result)
        signal.setitimer(signal.ITIMER_PROF, 0)
    os._exit(0)


def _mapped() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def peak_rss(*, reset: bool = False) -> int:
    """Return the largest resident size since the last reset, in bytes; after a reset, the size."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
