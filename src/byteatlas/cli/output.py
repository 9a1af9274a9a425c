"""What commands share: exit codes, output as text or JSON, progress, errors on one line."""

from __future__ import annotations

import functools
import json
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import click

from byteatlas.display import printable, size
from byteatlas.errors import ByteatlasError, NotAllowed, SourceChanged

if TYPE_CHECKING:
    from rich.console import Console

    from byteatlas.sources.trace import Trace

__all__ = ["ExitCode", "Output", "shared"]


class ExitCode(IntEnum):
    """How a command ended."""

    OK = 0
    FAILURE = 1
    """Wrong usage, or it could not be done."""
    DIFFERENT = 2
    """The data differ."""
    PARTLY = 3
    """Done, but some variables were skipped."""
    STALE = 4
    """A source is no longer what was indexed."""


@dataclass(frozen=True, slots=True)
class Output:
    """Where a command's words go: results to standard output, everything else to stderr."""

    as_json: bool = False
    quiet: bool = False
    debug: bool = False

    def result(self, facts: Any, lines: Callable[[], Any]) -> None:
        """Print the result: the facts as JSON, or what `lines` returns (text or a rich object)."""
        if self.as_json:
            click.echo(json.dumps(facts, ensure_ascii=False, allow_nan=False))
        elif not self.quiet:
            shown = lines()
            if isinstance(shown, str):
                click.echo("\n".join(map(printable, shown.split("\n"))))
            else:
                console().print(shown)

    def note(self, line: str) -> None:
        """Say something beside the result, on stderr."""
        if not self.quiet:
            click.echo(printable(line), err=True)

    @contextmanager
    def progress(self, doing: str, trace: Trace | None = None) -> Iterator[Callable[[str], None]]:
        """Show what is being done, and what it has read; only on a terminal.

        Yields a function that changes what is said.
        """
        if self.quiet or not sys.stderr.isatty():
            yield lambda _doing: None
            return
        from rich.progress import Progress, SpinnerColumn, TextColumn  # noqa: PLC0415  # slow
        from rich.text import Text  # noqa: PLC0415

        class Cost(TextColumn):
            def render(self, task: Any) -> Text:  # rich's own task
                del task
                cost = f"{trace.requests:,} requests, {size(trace.bytes_read)}" if trace else ""
                return Text(cost, "cyan")

        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), Cost(""))
        with Progress(*columns, console=console(stderr=True), transient=True) as progress:
            task = progress.add_task(printable(doing), total=None)
            yield lambda doing: progress.update(task, description=printable(doing))

    def failure(self, error: Exception) -> ExitCode:
        """Print an error on one line, and its traceback when debugging."""
        if self.debug:
            traceback.print_exception(error)
        message = str(error)
        if not isinstance(error, (ByteatlasError, OSError, click.ClickException)):
            kind = type(error).__name__
            message = f"unexpected {kind}: {error} (a bug: please report what --debug prints)"
        if isinstance(error, NotAllowed):
            message += " (here: --allow PREFIX)"
        message = printable(" ".join(message.split()))
        if self.as_json:
            facts = {name: getattr(error, name, None) for name in _ERROR_FACTS}
            facts = {"type": type(error).__name__, "message": message} | facts
            click.echo(json.dumps({"error": facts}))
        click.echo(f"error: {message}", err=True)
        return ExitCode.STALE if isinstance(error, SourceChanged) else ExitCode.FAILURE

    @contextmanager
    def warning_lines(self) -> Iterator[None]:
        """Say every warning on one line, without the place in the code that gave it."""

        def show(message: Warning | str, *where: object, **more: object) -> None:
            del where, more
            self.note(f"warning: {' '.join(str(message).split())}")

        with warnings.catch_warnings():
            warnings.showwarning = show
            yield


_ERROR_FACTS = ("url", "path", "chunk", "offset", "length", "hint")


def console(*, stderr: bool = False) -> Console:
    """Return a console that never cuts lines when its output goes to a file or a pipe."""
    from rich.console import Console  # noqa: PLC0415  # slow to import, and seldom needed

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else 10_000
    return Console(stderr=stderr, width=width, highlight=False, markup=False, emoji=False)


def shared(function: Callable[..., ExitCode]) -> Callable[..., ExitCode]:
    """Give a command the options that all of them have, and turn its errors into one line."""

    @click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
    @click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
    @click.option("--debug", is_flag=True, help="Show the traceback of an error.")
    @functools.wraps(function)
    def command(*, as_json: bool, quiet: bool, debug: bool, **options: Any) -> ExitCode:
        output = Output(as_json, quiet, debug)
        try:
            with output.warning_lines():
                return function(output=output, **options)
        except (click.UsageError, BrokenPipeError):
            raise
        except Exception as error:  # noqa: BLE001  # the last resort: whatever it is, it is shown
            return output.failure(error)

    return command
