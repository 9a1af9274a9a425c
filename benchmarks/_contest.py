"""Run several readers in turn, each in a process of its own that stays, and compare them.

Whoever is compared opens what it reads once, before the clock starts. Then they read by turns, one
at a time: what else the machine does meanwhile falls on all of them. Each answer is worked out and
compared after the clock stopped.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import select
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from _files import CACHE
from _measure import (
    Contender,
    Measured,
    argument_parser,
    cpu_seconds,
    print_table,
    seconds,
)
from _range_server import Counts, RangeServerProcess

PATIENCE_S = 300
"""A reader that takes longer has failed."""


@dataclass(frozen=True, slots=True)
class Aim:
    """What is to be shown: of a figure of ours, or of its ratio to that of somebody else."""

    figure: Literal["wall", "CPU"]
    limit: float
    than: str = ""
    """Name of the other contender; "" where the figure itself is limited, in seconds."""
    is_floor: bool = False
    """The other does less: ours may take `limit` times as long, instead of so many times less."""
    per: int = 1
    """The figure is divided by this number of chunks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Something that is read."""

    title: str
    path: Path
    contenders: tuple[Contender, ...]
    """Ours is the first."""
    expected: Mapping[str, int] = field(default_factory=dict)
    """The right answer."""
    variable: str = "v"
    selections: Sequence[Sequence[Any]] = ((),)
    """What is read, one after the other: of each axis an integer, or a start and a stop."""
    aims: tuple[Aim, ...] = ()
    latency_s: float = 0.0
    bandwidth: float | None = None

    def request(self) -> dict[str, Any]:
        """Return what a contender is told."""
        selections = [list(selection) for selection in self.selections]
        return {"path": str(self.path), "variable": self.variable, "selections": selections}


@dataclass(slots=True)
class Entrant:
    """A contender in its process, and how it did so far."""

    contender: Contender
    setting: str = ""
    problem: str = ""
    is_missing: bool = False
    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    counts: list[Counts] = field(default_factory=list)
    differs: str = ""

    @property
    def label(self) -> str:
        return f"{self.contender.name}{f', {self.setting}' if self.setting else ''}"

    def median(self, figure: str) -> float:
        return statistics.median(self.wall_s if figure == "wall" else self.cpu_s)


def compete(case: Case, repeats: int, server: RangeServerProcess | None = None) -> list[Entrant]:
    """Let all contenders of a case read by turns."""
    entrants = [Entrant(contender) for contender in case.contenders]
    workers = [_Worker() for _ in entrants]
    request = case.request()
    if server is not None:
        name = case.path.name
        plain = f"http://127.0.0.1/{name}" if server.default_port else None
        request |= {"url": server.url(name), "url_without_port": plain}
        server.behave(latency_s=case.latency_s, bandwidth=case.bandwidth)
    try:
        for entrant, worker in zip(entrants, workers, strict=True):
            _prepare(entrant, worker, request)
        for _ in range(repeats):
            for entrant, worker in zip(entrants, workers, strict=True):
                if not entrant.problem:
                    _take_turn(entrant, worker, case, server)
    finally:
        for worker in workers:
            worker.stop()
    return entrants


def _prepare(entrant: Entrant, worker: _Worker, request: Mapping[str, Any]) -> None:
    load = entrant.contender.load
    home = Path(sys.modules[load.__module__].__file__ or "")
    place = {"directory": str(home.parent), "module": home.stem, "function": load.__name__}
    reply = worker.ask({**request, **place})
    entrant.is_missing = "missing" in reply
    entrant.setting = reply.get("setting", "")
    entrant.problem = _problem(reply)


def _problem(reply: Mapping[str, Any]) -> str:
    return next((f"{word}: {reply[word]}" for word in ("missing", "failed") if word in reply), "")


def _take_turn(
    entrant: Entrant, worker: _Worker, case: Case, server: RangeServerProcess | None
) -> None:
    if server is not None:
        server.take()
    reply = worker.ask({})
    entrant.problem = _problem(reply)
    if entrant.problem:
        return
    entrant.wall_s.append(reply["wall_s"])
    entrant.cpu_s.append(reply["cpu_s"])
    if server is not None:
        entrant.counts.append(server.take())
    answer = Measured(entrant.contender.name, answer=reply["answer"])
    entrant.differs = entrant.differs or answer.differs_from(case.expected)


class _Worker:
    """A fresh process that reads when it is told to."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        asking, answering = self._process.stdin, self._process.stdout
        assert asking is not None
        assert answering is not None
        try:
            asking.write(json.dumps(request).encode() + b"\n")
            asking.flush()
        except BrokenPipeError:
            return {"failed": "its process ended"}
        if not select.select([answering], [], [], PATIENCE_S)[0]:
            self._process.kill()
            return {"failed": f"still busy after {PATIENCE_S} s"}
        line = answering.readline()
        return json.loads(line) if line else {"failed": "its process ended"}

    def stop(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


def _work() -> None:
    """Be the fresh process: prepare, then read each time a line arrives."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no reply

    def reply(value: Mapping[str, Any]) -> None:
        replies.write(json.dumps(value) + "\n")
        replies.flush()

    request = json.loads(sys.stdin.readline())
    sys.path.insert(0, request["directory"])
    try:
        opened = getattr(import_module(request["module"]), request["function"])()
        read, summarise, setting = opened(request)
        summarise(read())  # does what is done once in a process
    except (ImportError, NotImplementedError) as error:
        reply({"missing": str(error)})
        return
    except Exception as error:  # noqa: BLE001  # it is shown in the table
        reply({"failed": f"{type(error).__name__}: {error}"[:150]})
        return
    reply({"setting": setting})
    for _ in sys.stdin:
        gc.collect()
        wall, cpu = time.perf_counter(), cpu_seconds()
        try:
            values = read()
        except Exception as error:  # noqa: BLE001  # it is shown in the table
            reply({"failed": f"{type(error).__name__}: {error}"[:150]})
            return
        cpu, wall = cpu_seconds() - cpu, time.perf_counter() - wall
        reply({"cpu_s": cpu, "wall_s": wall, "answer": summarise(values)})
        del values


# --- what is printed ---


def rows_of(entrants: Sequence[Entrant]) -> list[tuple[str, ...]]:
    """Return a row for each entrant, under `header`."""
    ours = entrants[0]
    return [_row(entrant, ours) for entrant in entrants]


def header(*, is_remote: bool) -> tuple[str, ...]:
    counted = ("requests", "MB", "peak") if is_remote else ()
    return ("", "wall", "ratio", "CPU", "ratio", *counted, "")


def _row(entrant: Entrant, ours: Entrant) -> tuple[str, ...]:
    width = len(header(is_remote=bool(ours.counts or entrant.counts))) - 2
    if entrant.problem:
        return (entrant.label, *[""] * width, entrant.problem)
    cells = []
    for figure in ("wall", "CPU"):
        value = entrant.median(figure)
        ratio = "" if entrant is ours or ours.problem else f"{value / ours.median(figure):.2f}"
        cells += [seconds(value), ratio]
    if entrant.counts:
        last = sorted(entrant.counts)[len(entrant.counts) // 2]
        cells += [f"{last.requests:,}", f"{last.size / 1e6:,.1f}", str(last.peak)]
    return (entrant.label, *cells, f"WRONG: {entrant.differs}" if entrant.differs else "")


def judged(case: Case, entrants: Sequence[Entrant]) -> list[tuple[str, ...]]:
    """Return a row for each aim: case, aim, ours, the other's, what was reached, the verdict."""
    by_name = {entrant.contender.name: entrant for entrant in entrants}
    ours = entrants[0]
    rows = []
    for aim in case.aims:
        other = by_name.get(aim.than)
        if ours.problem or (aim.than and (other is None or other.problem)):
            rows.append((case.title, _worded(aim), "", "", "", "not measured"))
            continue
        mine = ours.median(aim.figure) / aim.per
        theirs = "" if other is None else seconds(other.median(aim.figure))
        if other is None:
            reached, is_met = "", mine <= aim.limit
        elif aim.is_floor:
            ratio = mine / other.median(aim.figure)
            reached, is_met = f"{ratio:.2f}", ratio <= aim.limit
        else:
            ratio = other.median(aim.figure) / mine
            reached, is_met = f"{ratio:.2f}", ratio >= aim.limit
        verdict = "met" if is_met else "MISSED"
        rows.append((case.title, _worded(aim), seconds(mine), theirs, reached, verdict))
    return rows


def _worded(aim: Aim) -> str:
    if not aim.than:
        each = " a chunk" if aim.per > 1 else ""
        return f"{aim.figure} at most {seconds(aim.limit)}{each}"
    if aim.is_floor:
        return f"{aim.figure} at most {aim.limit:.3g} times that of {aim.than}"
    return f"{aim.figure} at least {aim.limit:g} times less than {aim.than}"


def is_right(entrants: Sequence[Entrant]) -> bool:
    """Tell whether ours gave an answer, and nobody gave a wrong one."""
    return not entrants[0].problem and not any(entrant.differs for entrant in entrants)


def print_aims(rows: Sequence[tuple[str, ...]], *, is_markdown: bool) -> None:
    joined = [(f"{case}: {aim}", *rest) for case, aim, *rest in rows]
    if joined:
        columns = ("", "byteatlas", "the other", "reached", "")
        print_table("Aims", columns, joined, is_markdown=is_markdown)


def contest_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser of the options that all contests have."""
    parser = argument_parser(description)
    parser.add_argument("--repeats", type=int, default=5, help="of each; the median counts")
    parser.add_argument("--quick", action="store_true", help="small files")
    parser.add_argument("--only", nargs="+", default=[], help="cases with one of these words")
    parser.add_argument("--without", nargs="+", default=[], help="names of contenders to leave out")
    parser.add_argument("--files", type=Path, default=CACHE, help=f"where they lie ({CACHE})")
    parser.add_argument("--markdown", action="store_true", help="tables for a page")
    return parser


def chosen(cases: Sequence[Case], only: Sequence[str]) -> list[Case]:
    return [case for case in cases if not only or any(word in case.title for word in only)]


if __name__ == "__main__":
    _work()
