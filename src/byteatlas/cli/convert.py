"""`byteatlas convert`: an index from JSON to Parquet, or from Parquet to JSON."""

from __future__ import annotations

from typing import Any, Literal

import click

from byteatlas import display
from byteatlas.cli.options import opening, zarr_format
from byteatlas.cli.output import ExitCode, Output, shared
from byteatlas.cli.writing import (
    STANDARD_OUTPUT,
    check_place,
    record_size,
    said,
    size_of,
    write_index,
)
from byteatlas.errors import without_query
from byteatlas.index.lazy_manifest import loaded
from byteatlas.opening import open_index

__all__ = ["command"]


@click.command("convert", short_help="Write an index as JSON or as Parquet.")
@click.argument("index")
@click.argument("output_index", metavar="OUTPUT")
@zarr_format
@record_size
@opening
@shared
def command(
    *,
    index: str,
    output_index: str,
    zarr_format: Literal[2, 3],
    record_size: int,
    storage_options: dict[str, Any],
    allow: tuple[str, ...],
    output: Output,
) -> ExitCode:
    """Write INDEX again as OUTPUT: as Parquet or as JSON, or with - as JSON to standard output.

    It becomes Parquet where its name ends in .parq, .parquet, .pq (in any case) or a slash.
    An existing index is replaced; any other existing file is left alone.

    Nothing is lost either way, query strings of URLs included. A Parquet index has metadata of
    Zarr version 2; what a JSON index says in version 3, it says in that.
    """
    is_local = "://" not in output_index
    hint = "choose another name for OUTPUT"
    check_place(output_index, zarr_format, as_json=output.as_json, hint=hint)
    with output.progress(f"reading {without_query(index)}") as say:
        group = loaded(open_index(index, storage_options=storage_options, allow=allow))
        say(f"writing {without_query(output_index)}")
        write_index(
            group,
            output_index,
            zarr_format=zarr_format,
            record_size=record_size,
            keep_query=True,
            storage_options=None if is_local else storage_options,
        )
    if output_index == STANDARD_OUTPUT:
        return ExitCode.OK
    manifests = [array.manifest for _, array in group.walk_arrays()]
    facts = {
        "index": without_query(output_index),
        "index_size": size_of(output_index),
        "arrays": len(manifests),
        "chunks": display.chunk_kinds(*manifests),
        "sources": len(group.sources),
    }
    output.result(facts, lambda: said(group, without_query(output_index)))
    return ExitCode.OK
