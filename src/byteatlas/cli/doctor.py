"""`byteatlas doctor`: whether and how well a URL can be worked with, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from byteatlas.cli.options import storage
from byteatlas.cli.output import ExitCode, Output, shared
from byteatlas.diagnosis import Check, Diagnosis, diagnose
from byteatlas.display import plural, printable
from byteatlas.errors import without_query

if TYPE_CHECKING:
    from rich.console import Group

__all__ = ["command"]

STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}


@click.command("doctor", short_help="Say whether a URL can be read by ranges, and how well.")
@click.argument("url")
@storage
@shared
def command(*, url: str, storage_options: dict[str, Any], output: Output) -> ExitCode:
    """Say whether URL can be read by ranges, how fast and how safely, and what to do if not.

    About ten small requests, and one of 4 MiB at most: ranges, HEAD, ETag, conditions, redirects,
    authentication, compression, clock, CORS, latency, bandwidth, and the format by the first bytes.
    Exits with 0 when byteatlas can use it, with 1 when it cannot.
    """
    with output.progress(f"asking {without_query(url)}"):
        diagnosis = diagnose(url, storage_options=storage_options)
    output.result(facts(diagnosis), lambda: page(diagnosis))
    return ExitCode.OK if diagnosis.is_usable else ExitCode.FAILURE


def facts(diagnosis: Diagnosis) -> dict[str, Any]:
    """Return a diagnosis as JSON values."""
    return {
        "url": diagnosis.url,
        "is_usable": diagnosis.is_usable,
        "requests": diagnosis.requests,
        "checks": [check._asdict() for check in diagnosis.checks],
    }


def page(diagnosis: Diagnosis) -> Group:
    """Return one line per check, with what it means and what to do."""
    from rich.console import Group  # noqa: PLC0415  # slow to import
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    usable = "byteatlas can use it" if diagnosis.is_usable else "byteatlas cannot use it"
    title = f"{diagnosis.url}: {usable} ({plural(diagnosis.requests, 'request')})"
    lines = Table(box=None, pad_edge=False, show_header=False)
    for check in diagnosis.checks:
        verdict = Text(check.verdict, STYLES[check.verdict])
        lines.add_row(check.name, verdict, printable(sentence(check)))
    return Group(Text(printable(title), "bold"), lines)


def sentence(check: Check) -> str:
    """Return what was found, and what it means."""
    return f"{check.found}; {check.meaning}" if check.meaning else check.found
