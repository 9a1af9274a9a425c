"""`byteatlas cat`: the bytes behind one key."""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Literal

import click

from byteatlas.cli.options import cache, no_key, opening, zarr_format
from byteatlas.cli.output import ExitCode, Output, shared
from byteatlas.errors import ByteatlasError
from byteatlas.opening import open_group
from byteatlas.sources.chunk_cache import ChunkCache
from byteatlas.store.contents import Contents, Slice

__all__ = ["command"]


@click.command("cat", short_help="Write the bytes behind one key to standard output.")
@click.argument("target", metavar="INDEX|SOURCE")
@click.argument("key")
@zarr_format
@opening
@cache
@shared
def command(
    *,
    target: str,
    key: str,
    zarr_format: Literal[2, 3],
    storage_options: dict[str, Any],
    allow: tuple[str, ...],
    cache: ChunkCache | None,
    output: Output,
) -> ExitCode:
    """Write the bytes behind KEY to standard output: metadata, or a chunk as it is stored.

    With --json only their number is printed.

    \b
    byteatlas cat sst.json sst/.zarray
    byteatlas cat sst.json sst/0.0.0 | zlib-flate -uncompress > chunk
    """  # noqa: D301  # \b: click keeps these lines apart
    group = open_group(target, storage_options=storage_options, allow=allow)
    contents = Contents(group, zarr_format, storage_options, cache=cache)
    (data,) = asyncio.run(contents.get_many([Slice(key.strip("/"))]))
    if data is None:
        raise no_key(group, key, zarr_format)
    if isinstance(data, ByteatlasError):
        raise data
    if output.as_json:
        output.result({"key": key, "size": len(data)}, str)
        return ExitCode.OK
    sys.stdout.buffer.write(bytes(data))
    sys.stdout.buffer.flush()
    return ExitCode.OK
