"""`byteatlas cost`: what a read would take, without reading."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from byteatlas import display
from byteatlas.cli.options import find_array, opening
from byteatlas.cli.output import ExitCode, Output, shared
from byteatlas.cli.selecting import parse_selection
from byteatlas.errors import ByteatlasError
from byteatlas.model import VirtualArray, VirtualGroup
from byteatlas.opening import open_group
from byteatlas.read import Reader
from byteatlas.read.cost import Cost

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["command"]

_AXES_ARE = "nothing would be read (a selection counts positions, not coordinates)"


@click.command(
    "cost",
    short_help="Tell what a read would take, without reading.",
    context_settings={"ignore_unknown_options": True},  # so that -1 is a number
)
@click.argument("target", metavar="INDEX|SOURCE")
@click.argument("variable", required=False)
@click.argument("selection", nargs=-1)
@opening
@shared
def command(
    *,
    target: str,
    variable: str | None,
    selection: tuple[str, ...],
    storage_options: dict[str, Any],
    allow: tuple[str, ...],
    output: Output,
) -> ExitCode:
    """Tell what reading VARIABLE would take: requests, bytes and sources. Nothing is read.

    SELECTION is of positions, as numpy takes them: for each axis one, a range, or a list, in
    order or by the names of dimensions; all of VARIABLE by default. Without VARIABLE, of each
    variable as a whole. (A SOURCE is scanned first, which does read.) What a cache holds already
    is counted as if it were not there.

    \b
    byteatlas cost sst.json
    byteatlas cost sst.json sst
    byteatlas cost sst.json sst 0, :, 10:20
    byteatlas cost sst.json sst time=-1 lat=10:20 'lon=[3,5,8]'
    """  # noqa: D301  # \b: click keeps these lines apart
    group = open_group(target, storage_options=storage_options, allow=allow)
    reader = Reader(group.sources)
    if variable is None:
        return _all(group, reader, output)
    array = find_array(group, variable)
    cost = reader.cost(array, parse_selection(selection, array, variable), path=variable)
    output.result({"variable": variable, **facts(cost)}, lambda: _one(array, cost))
    return ExitCode.OK


def facts(cost: Cost) -> dict[str, Any]:
    """Return a cost as JSON values."""
    return {
        "shape": list(cost.shape),
        "is_empty": not all(cost.shape),
        "result_bytes": cost.result_bytes,
        "requests": cost.requests,
        "bytes_fetched": cost.bytes_fetched,
        "bytes_needed": cost.bytes_needed,
        "open_requests": cost.open_requests,
        "chunks": {"virtual": cost.chunks, "inlined": cost.inlined, "missing": cost.missing},
        "decoded_bytes": cost.decoded_bytes,
        "sources": [source._asdict() for source in cost.sources],
        "has_lookup": cost.has_lookup,
    }


def _one(array: VirtualArray, cost: Cost) -> str:
    return "\n".join(f"{name:<10}{value}" for name, value in _rows(array, cost))


def _rows(array: VirtualArray, cost: Cost) -> Iterator[tuple[str, str]]:
    kinds = (f"{cost.inlined:,} inlined", f"{cost.missing:,} missing")
    yield "requests", f"{cost.requests:,}"
    yield "fetched", _bytes(cost.bytes_fetched)
    yield "needed", _bytes(cost.bytes_needed)
    yield "chunks", ", ".join((f"{cost.chunks:,} virtual", *kinds))
    yield "decoded", _bytes(cost.decoded_bytes)
    kind = f"{display.dtype(array.dtype)} {display.shape(cost.shape)}"
    yield "result", f"{kind}, {_bytes(cost.result_bytes)}"
    yield "sources", f"{len(cost.sources):,}"
    for source in islice(cost.sources, display.MAX_ENTRIES):
        requests = display.plural(source.requests, "request")
        yield "", f"{source.url}  {requests}, {_bytes(source.bytes_fetched)}"
    if len(cost.sources) > display.MAX_ENTRIES:
        yield "", f"… and {len(cost.sources) - display.MAX_ENTRIES:,} more"
    for note in cost.notes:
        yield "besides", note
    if not all(cost.shape):
        yield "empty", f"{display.shape(cost.shape)} selects no values: {_AXES_ARE}"


def _bytes(count: int) -> str:
    return f"{count:,} bytes" if count < 1000 else f"{count:,} bytes ({display.size(count)})"


def _all(group: VirtualGroup, reader: Reader, output: Output) -> ExitCode:
    costs: dict[str, Cost | ByteatlasError] = {}
    for path, array in group.walk_arrays():
        try:
            costs[path] = reader.cost(array, path=path)
        except ByteatlasError as error:
            costs[path] = error
    rows = [
        {"variable": path, **(facts(one) if isinstance(one, Cost) else {"error": str(one)})}
        for path, one in costs.items()
    ]
    output.result({"variables": rows}, lambda: _table(costs))
    refused = any(isinstance(one, ByteatlasError) for one in costs.values())
    return ExitCode.PARTLY if refused else ExitCode.OK


def _table(costs: dict[str, Cost | ByteatlasError]) -> RenderableType:
    from rich.console import Group  # noqa: PLC0415  # not needed for JSON
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("variable")
    for name in ("requests", "fetched", "chunks", "inlined", "missing", "result", "sources"):
        table.add_column(name, justify="right")
    notes = []
    counted = [cost for cost in costs.values() if isinstance(cost, Cost)]
    for path, cost in costs.items():
        shown = display.printable(path)
        if isinstance(cost, ByteatlasError):
            table.add_row(Text(shown))
            notes.append(Text(display.printable(f"{path}: {cost}"), "red"))
            continue
        table.add_row(
            Text(shown),
            f"{cost.requests:,}",
            display.size(cost.bytes_fetched),
            f"{cost.chunks:,}",
            f"{cost.inlined:,}",
            f"{cost.missing:,}",
            display.size(cost.result_bytes),
            f"{len(cost.sources):,}",
        )
        notes += [Text(display.printable(f"{path}: {note}")) for note in cost.notes]
    if len(counted) > 1:
        sources = {source.url for cost in counted for source in cost.sources}
        table.add_section()
        table.add_row(
            Text("one after the other", "bold"),
            f"{sum(cost.requests for cost in counted):,}",
            display.size(sum(cost.bytes_fetched for cost in counted)),
            f"{sum(cost.chunks for cost in counted):,}",
            f"{sum(cost.inlined for cost in counted):,}",
            f"{sum(cost.missing for cost in counted):,}",
            display.size(sum(cost.result_bytes for cost in counted)),
            f"{len(sources):,}",
        )
    return Group(table, *notes)
