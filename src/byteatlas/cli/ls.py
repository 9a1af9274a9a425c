"""`byteatlas ls`: the keys that a Zarr reader of an index would find."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import click

from byteatlas.cli.options import no_key, opening, zarr_format
from byteatlas.cli.output import ExitCode, Output, shared
from byteatlas.opening import open_group
from byteatlas.store.contents import Contents

__all__ = ["command"]


@click.command("ls", short_help="List the keys of an index.")
@click.argument("target", metavar="INDEX|SOURCE")
@click.argument("path", default="")
@click.option("-r", "--recursive", is_flag=True, help="List all keys that begin with PATH.")
@click.option("-l", "--long", "is_long", is_flag=True, help="With the number of bytes.")
@zarr_format
@opening
@shared
def command(
    *,
    target: str,
    path: str,
    recursive: bool,
    is_long: bool,
    zarr_format: Literal[2, 3],
    storage_options: dict[str, Any],
    allow: tuple[str, ...],
    output: Output,
) -> ExitCode:
    """List the keys of INDEX below PATH: groups, arrays, metadata, chunks that are not missing.

    These are the keys that Zarr readers ask for; `byteatlas cat` writes the bytes behind one.
    """
    group = open_group(target, storage_options=storage_options, allow=allow)
    contents = Contents(group, zarr_format, storage_options)
    path = path.strip("/")
    if recursive:
        names = [(key, False) for key in contents.keys(path)]
        lead = ""
    else:
        names = list(contents.names(path))
        lead = f"{path}/" if path and names else ""
    if not names and path in contents:
        names = [(path, False)]
    if not names:
        raise no_key(group, path, zarr_format)
    names.sort()
    sizes = asyncio.run(_sizes(contents, lead, names)) if is_long or output.as_json else []
    facts = [
        {"key": lead + name, "type": "directory" if is_directory else "key", "size": size}
        for (name, is_directory), size in zip(names, sizes, strict=False)
    ]
    lines = [name + ("/" if is_directory else "") for name, is_directory in names]
    if sizes:
        lines = [
            f"{'' if size is None else format(size, ','):>14}  {line}"
            for line, size in zip(lines, sizes, strict=True)
        ]
    output.result(facts, lambda: "\n".join(lines))
    return ExitCode.OK


async def _sizes(contents: Contents, lead: str, names: list[tuple[str, bool]]) -> list[int | None]:
    return [None if is_dir else await contents.size(lead + name) for name, is_dir in names]
