"""`byteatlas scan`: from a source to its index."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

import click

from byteatlas import display
from byteatlas.cli.options import byte_count, storage, zarr_format
from byteatlas.cli.output import ExitCode, Output, shared
from byteatlas.cli.writing import (
    STANDARD_OUTPUT,
    check_place,
    record_size,
    refuse_other_source,
    said,
    size_of,
    write_index,
)
from byteatlas.errors import without_query
from byteatlas.fallback import AUTO
from byteatlas.model import VirtualGroup
from byteatlas.scanning import scan
from byteatlas.sealing import seal
from byteatlas.sources import Trace

__all__ = ["command"]


@click.command("scan", short_help="Scan SOURCE and write its index.")
@click.argument("source")
@click.option(
    "-o",
    "--output",
    "index",
    metavar="INDEX",
    help="Where to write the index: a path or URL, or - for standard output. One that ends in "
    ".parq, .parquet, .pq or a slash becomes a directory of Parquet files. Without it: the name of "
    "SOURCE and .json, in this directory.",
)
@zarr_format
@record_size
@click.option(
    "--max-chunk",
    callback=byte_count,
    default="8MiB",
    show_default=True,
    metavar="SIZE",
    help="Split contiguous variables into chunks of at most so many bytes.",
)
@click.option("--include", multiple=True, metavar="GLOB", help="Only these variables: '/group/t*'.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="Not these variables; wins.")
@click.option(
    "--no-conventions",
    "conventions",
    is_flag=True,
    flag_value=False,
    default=True,
    help="Do not name dimensions after the conventions of products, such as HDF-EOS5 and NeXus.",
)
@click.option(
    "--follow-links", is_flag=True, help="Show what links to other files lead to, as if in SOURCE."
)
@click.option(
    "--allow",
    multiple=True,
    metavar="PREFIX",
    help="Let SOURCE name files outside its own directory whose URL or path begins so: those that "
    "hold its values, or that its links lead to. May be repeated.",
)
@click.option("--scanner", metavar="NAME", help="Take SOURCE for this format.")
@click.option(
    "--engine",
    default=AUTO,
    show_default=True,
    metavar="NAME",
    help="native: read SOURCE with our own reader alone; h5py: with that library alone; auto: with "
    "that library what our own reader refuses.",
)
@click.option(
    "--seal", "is_sealed", is_flag=True, help="Read every chunk once, and keep a digest of each."
)
@click.option("--keep-query", is_flag=True, help="Keep the URL's query, secrets and all, in INDEX.")
@click.option("--trace", "is_traced", is_flag=True, help="List each request on stderr.")
@storage
@shared
def command(
    *,
    source: str,
    index: str | None,
    zarr_format: Literal[2, 3],
    record_size: int,
    max_chunk: int,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    conventions: bool,
    follow_links: bool,
    allow: tuple[str, ...],
    scanner: str | None,
    engine: str,
    is_sealed: bool,
    keep_query: bool,
    is_traced: bool,
    storage_options: dict[str, Any],
    output: Output,
) -> ExitCode:
    """Scan SOURCE and write its index: where the bytes of each chunk are.

    An existing index is replaced, without -o only one of the same SOURCE; any other existing file
    is left alone. Exits with 3 when variables had to be skipped: the index is complete but for
    them, and says why.
    """
    path = index if index is not None else default_index(source)
    hint = "choose another name with -o"
    check_place(path, zarr_format, as_json=output.as_json, hint=hint)
    if index is None:
        refuse_other_source(Path(path), source)
    trace = Trace(keep_log=is_traced)
    try:
        with output.progress(f"scanning {without_query(source)}", trace) as say:
            group = scan(
                source,
                storage_options=storage_options,
                scanner=scanner,
                max_chunk=max_chunk,
                include=include,
                exclude=exclude,
                conventions=conventions,
                follow_links=follow_links,
                allow=allow,
                engine=engine,
                trace=trace,
            )
            if is_sealed:
                say(f"sealing {without_query(source)}")
                group = seal(group, storage_options=storage_options, trace=trace)
    finally:
        if is_traced:
            for line in trace_lines(trace):
                click.echo(line, err=True)
    write_index(
        group, path, zarr_format=zarr_format, record_size=record_size, keep_query=keep_query
    )
    if path != STANDARD_OUTPUT:
        output.result(_facts(group, path, trace), lambda: said(group, path))
    for name, note in display.read_by(group).items():
        output.note(f"{name}: read by {note}")
    for skipped in group.report.skipped:
        output.note(f"skipped {skipped.path}: {skipped.reason}")
    if not follow_links and any("external link" in why for _, why in group.report.skipped):
        output.note("links to other files are followed with --follow-links")
    if (include or exclude) and not any(group.walk_arrays()):
        output.note("no variable is left by --include and --exclude")
    return ExitCode.PARTLY if group.report.skipped else ExitCode.OK


def default_index(source: str) -> str:
    """Return the name of the index of a source: its own last part and ``.json``."""
    name = unquote(source.partition("?")[0] if "://" in source else source)
    last = name.rstrip("/").rpartition("/")[2]
    if not last or last in (".", ".."):
        raise click.UsageError(f"{source!r} has no name; say with -o where the index goes")
    return f"{last}.json"


def trace_lines(trace: Trace) -> Iterator[str]:
    """Yield one line per request, and a sum."""
    for entry in trace.log:
        status = "" if entry.status is None else f"  {entry.status}"
        tries = f"  {entry.tries} tries" if entry.tries > 1 else ""
        yield display.printable(
            f"{entry.offset:>14,} +{entry.length:<12,} {entry.seconds * 1000:7.1f} ms"
            f"{status}{tries}  {entry.url}"
        )
    yield str(trace)


def _facts(group: VirtualGroup, path: str, trace: Trace) -> dict[str, Any]:
    manifests = [array.manifest for _, array in group.walk_arrays()]
    facts: dict[str, Any] = {
        "index": path,
        "index_size": size_of(path),
        "scanner": group.report.scanner,
        "sources": [{"url": s.public_url, "size": s.size} for s in group.sources],
        "arrays": len(manifests),
        "chunks": display.chunk_kinds(*manifests),
        "read_by": display.read_by(group),
        "skipped": [skipped._asdict() for skipped in group.report.skipped],
        "rounds": group.report.rounds,
        "requests": group.report.requests,
        "bytes_read": group.report.bytes_read,
    }
    if trace.keep_log:
        facts["trace"] = [entry._asdict() for entry in trace.log]
    return facts
