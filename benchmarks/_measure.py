"""Measure actions side by side, each in a fresh process, and print them as a table.

What is measured is CPU time, that of child processes included, wall time and peak memory. Imports
are done before the clock starts. The answer is worked out after it stopped, and compared.
"""

from __future__ import annotations

import argparse
import datetime as dt
import gc
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

Answer = dict[str, int]
Action = tuple[Callable[..., Any], Callable[[Any], Answer]]
"""What is timed, and what makes an answer of its result afterwards."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to do what is measured."""

    name: str
    package: str
    """The distribution whose version is shown."""
    load: Callable[[], Action]
    """A function of a module that does the imports and returns the action."""


@dataclass(frozen=True, slots=True)
class Measured:
    """How a contender did."""

    name: str
    problem: str = ""
    """Why there are no figures: it is missing, or it failed."""
    is_missing: bool = False
    cpu_s: tuple[float, ...] = ()
    wall_s: tuple[float, ...] = ()
    peak: int = 0
    """Bytes of memory at the highest point of the first repeat, above those before it."""
    answer: Mapping[str, int] | None = None

    @property
    def least_cpu_s(self) -> float:
        return min(self.cpu_s)

    @property
    def median_cpu_s(self) -> float:
        return statistics.median(self.cpu_s)

    @property
    def least_wall_s(self) -> float:
        return min(self.wall_s)

    def differs_from(self, expected: Mapping[str, int]) -> str:
        """Say where the answer is not the expected one; "" where it is, as far as both go."""
        return ", ".join(
            f"{key} {value:,} instead of {expected[key]:,}"
            for key, value in (self.answer or {}).items()
            if value != expected.get(key, value)
        )


def measure(
    contender: Contender,
    *arguments: Any,
    warm_up: Sequence[Any] | None = None,
    repeats: int = 1,
    enough_s: float = 10.0,
) -> Measured:
    """Run an action in a fresh process.

    Parameters
    ----------
    contender
        What to run.
    arguments
        Handed to the action; JSON values.
    warm_up
        Arguments of a first call that does not count.
    repeats
        How often it is run, unless `enough_s` seconds of CPU are spent before.
    """
    home = Path(sys.modules[contender.load.__module__].__file__ or "")
    request = {
        "directory": str(home.parent),
        "module": home.stem,
        "function": contender.load.__name__,
        "arguments": arguments,
        "warm_up": warm_up,
        "repeats": repeats,
        "enough_s": enough_s,
    }
    done = subprocess.run(
        [sys.executable, __file__, json.dumps(request)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["killed"])[-1]
        return Measured(contender.name, f"failed: {last[:100]}")
    reply = json.loads(done.stdout.splitlines()[-1])
    if "missing" in reply:
        return Measured(contender.name, f"missing: {reply['missing']}", is_missing=True)
    return Measured(
        f"{contender.name} {version_of(contender.package)}",
        cpu_s=tuple(reply["cpu_s"]),
        wall_s=tuple(reply["wall_s"]),
        peak=reply["peak"],
        answer=reply["answer"],
    )


def _run(request: dict[str, Any]) -> dict[str, Any]:
    """Do in the fresh process what `measure` asks for."""
    sys.path.insert(0, request["directory"])
    try:
        act, summarise = getattr(import_module(request["module"]), request["function"])()
    except ImportError as error:
        return {"missing": str(error)}
    if request["warm_up"] is not None:
        act(*request["warm_up"])
    cpu_s: list[float] = []
    wall_s: list[float] = []
    peak = 0
    answer: Answer = {}
    while len(cpu_s) < request["repeats"] and sum(cpu_s) < request["enough_s"]:
        gc.collect()
        before = _reset_peak()
        wall, cpu = time.perf_counter(), cpu_seconds()
        result = act(*request["arguments"])
        cpu_s.append(cpu_seconds() - cpu)
        wall_s.append(time.perf_counter() - wall)
        peak = peak or _peak() - before
        answer = answer or summarise(result)
        del result
    return {"cpu_s": cpu_s, "wall_s": wall_s, "peak": peak, "answer": answer}


def cpu_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _reset_peak() -> int:
    """Make what is resident now the peak, where the system can, and return the peak."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


# --- what is printed ---


def version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def print_machine(packages: Sequence[str]) -> None:
    """Print when, where and with what versions this was measured."""
    try:
        cpu = Path("/proc/cpuinfo").read_text().partition("model name")[2].partition("\n")[0]
        cpu = cpu.strip("\t :")
    except OSError:
        cpu = platform.processor()
    now = dt.datetime.now(dt.UTC)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{now:%Y-%m-%d %H:%M} UTC, {os.cpu_count()} cores of {cpu}, load {load}")
    print(f"{platform.platform()}, Python {platform.python_version()}")
    print(", ".join(f"{package} {version_of(package)}" for package in packages))


def print_table(
    title: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    is_markdown: bool = False,
) -> None:
    """Print rows under a header: the first and last column to the left, the others to the right."""
    if is_markdown:
        alignment = [":--", *["--:"] * (len(header) - 2), ":--"]
        print(f"\n**{title}**\n")
        for row in (header, alignment, *rows):
            print(f"| {' | '.join(row)} |")
        sys.stdout.flush()
        return
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    print(f"\n{title}\n")
    for row in (header, ["-" * width for width in widths], *rows):
        cells = [
            text.ljust(width) if place in (0, len(widths) - 1) else text.rjust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
    sys.stdout.flush()


def seconds(value: float) -> str:
    """Show a time with three digits."""
    number, unit = (value * 1e3, "ms") if value < 0.9995 else (value, "s")
    return f"{number:#.3g}".rstrip(".") + f" {unit}"


def megabytes(count: float) -> str:
    return f"{count / 1e6:,.1f} MB"


def verdict(*, is_met: bool, limit: str) -> str:
    return f"{limit}: {'met' if is_met else 'MISSED'}"


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser that shows a script's docstring as it is written."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


if __name__ == "__main__":
    print("\n" + json.dumps(_run(json.loads(sys.argv[1]))))
