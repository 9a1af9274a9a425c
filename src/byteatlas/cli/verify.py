"""`byteatlas verify`: an index against what it was made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from byteatlas.cli.options import opening
from byteatlas.cli.output import ExitCode, Output, shared
from byteatlas.display import printable
from byteatlas.errors import without_query
from byteatlas.verification import VerifyReport, verify

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["command"]


@click.command("verify", short_help="Compare an index with what it was made of.")
@click.argument("index")
@click.option(
    "--sample",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    metavar="N",
    help="Compare N chunks of each variable, always with its first and last.",
)
@click.option("--all", "compares_all", is_flag=True, help="Compare every value.")
@click.option("--seed", type=int, default=0, show_default=True, help="Choose other chunks.")
@opening
@shared
def command(
    *,
    index: str,
    sample: int,
    compares_all: bool,
    seed: int,
    storage_options: dict[str, Any],
    allow: tuple[str, ...],
    output: Output,
) -> ExitCode:
    """Compare INDEX with its source as netCDF4 or h5py reads it: values, types, attributes.

    First asks whether the source is still the one that was indexed. Exits with 4 when it is not,
    with 2 when something differs, with 3 when all that was compared is equal, but some variables
    were skipped, or are not in the index.
    """
    with output.progress(f"comparing {without_query(index)}") as say:
        report = verify(
            index,
            sample=None if compares_all else sample,
            seed=seed,
            storage_options=storage_options,
            allow=allow,
            progress=lambda path: say(f"comparing {path}"),
        )
    output.result(_facts(report), lambda: _table(report))
    for error in report.stale:
        output.note(f"stale: {error}")
    if report.stale:
        return ExitCode.STALE
    if report.differences:
        return ExitCode.DIFFERENT
    return ExitCode.PARTLY if report.skipped or report.absent else ExitCode.OK


def _facts(report: VerifyReport) -> dict[str, Any]:
    return {
        "is_equal": report.is_equal,
        "library": report.library,
        "checked": [checked._asdict() for checked in report.checked],
        "differences": [difference._asdict() for difference in report.differences],
        "skipped": [skipped._asdict() for skipped in report.skipped],
        "absent": list(report.absent),
        "stale": [
            {"url": error.url, "problem": error.problem, "hint": error.hint}
            for error in report.stale
        ],
    }


def _table(report: VerifyReport) -> RenderableType:
    from rich.console import Group  # noqa: PLC0415  # not needed for JSON
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("variable")
    table.add_column("compared", justify="right")
    table.add_column("")
    for checked in report.checked:
        part = "all" if checked.elements == checked.size else f"{checked.elements:,}"
        verdict = Text("equal", "green") if checked.is_equal else Text("DIFFERENT", "bold red")
        table.add_row(Text(printable(checked.path)), f"{part} of {checked.size:,}", verdict)
    lines = [
        *(Text(printable(f"{d.path}: {d.what}: {d.detail}"), "red") for d in report.differences),
        *(
            Text(printable(f"skipped {path}: {reason}"), "yellow")
            for path, reason in report.skipped
        ),
        *(Text(printable(f"not in the index: {path}"), "yellow") for path in report.absent),
    ]
    if not report.stale:
        equal = sum(checked.is_equal for checked in report.checked)
        lines.append(
            Text(f"{equal} of {len(report.checked)} variables equal to {report.library}", "bold")
        )
    return Group(table, *lines)
