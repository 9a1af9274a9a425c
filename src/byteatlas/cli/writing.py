"""Where commands write an index to: a JSON file or, by its name, a Parquet directory."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import click

from byteatlas import display
from byteatlas.errors import without_query
from byteatlas.index import to_json_bytes, write_json, write_parquet
from byteatlas.index.atomic import refuse_web
from byteatlas.index.directories import is_directory_index
from byteatlas.index.parquet_layout import RECORD_SIZE
from byteatlas.model import VirtualGroup
from byteatlas.sources.local import local_path
from byteatlas.sources.urls import absolute_url, scheme_of

__all__ = [
    "STANDARD_OUTPUT",
    "check_place",
    "is_parquet",
    "record_size",
    "refuse_other_source",
    "said",
    "size_of",
    "write_index",
]

_INDEX = re.compile(
    rb"""\s*\{\s*(?:\}|"(?:byteatlas|refs|version|templates|gen|[^"]*\.z\w+|[^"]*zarr\.json)")"""
)
"""How an index begins, of byteatlas or any other that writes kerchunk JSON."""
_FIRST_SOURCE = re.compile(rb'"sources"\s*:\s*\[\s*\{\s*"url"\s*:\s*("(?:[^"\\]|\\.)*")')
"""What an index says first of its first source, which is the one that was scanned."""
_HEAD = 2**16
STANDARD_OUTPUT = "-"

record_size = click.option(
    "--record-size",
    type=click.IntRange(1, 2**31 - 1),
    default=RECORD_SIZE,
    show_default=True,
    metavar="COUNT",
    help="References in one file of a Parquet index.",
)
"""Gives a command ``--record-size``."""


def is_parquet(path: str) -> bool:
    """Tell whether an index of this name is a Parquet directory."""
    return path.endswith("/") or path.lower().endswith((".parq", ".parquet", ".pq"))


def write_index(
    group: VirtualGroup,
    path: str,
    *,
    zarr_format: Literal[2, 3],
    record_size: int,
    keep_query: bool,
    storage_options: Mapping[str, Any] | None = None,
) -> None:
    """Write an index as what its name says, `check_place` having let it pass."""
    if path == STANDARD_OUTPUT:
        document = to_json_bytes(group, zarr_format=zarr_format, keep_query=keep_query)
        sys.stdout.buffer.write(document)
        sys.stdout.buffer.flush()
        return
    if not is_parquet(path):
        write_json(
            group,
            path,
            zarr_format=zarr_format,
            keep_query=keep_query,
            storage_options=storage_options,
        )
        return
    write_parquet(
        group,
        path,
        record_size=record_size,
        keep_query=keep_query,
        storage_options=storage_options,
    )


def check_place(path: str, zarr_format: Literal[2, 3], *, as_json: bool, hint: str) -> None:
    """Refuse, before anything is read, a place that an index cannot or may not be written to.

    Parameters
    ----------
    path
        Path or URL of the index, or `STANDARD_OUTPUT`.
    zarr_format
        Version of its metadata.
    as_json
        Whether standard output is needed for something else.
    hint
        What to do where something else has that name.

    Raises
    ------
    click.UsageError
        The options do not go together.
    click.ClickException
        The path exists and is no index, such as the source itself.
    Unsupported
        It is on a web server.
    """
    if path == STANDARD_OUTPUT:
        if as_json:
            raise click.UsageError("with --json, the index cannot go to standard output too")
        return
    if is_parquet(path) and zarr_format != 2:
        raise click.UsageError("a Parquet index has metadata of Zarr version 2")
    refuse_web(path)
    if _is_local(path):
        _refuse_other_files(Path(local_path(path)), path, hint)


def _is_local(path: str) -> bool:
    return scheme_of(path) in ("", "file", "local")


def _refuse_other_files(path: Path, name: str, hint: str) -> None:
    """Let nothing be overwritten but an earlier index of the same kind."""
    if not path.exists():
        return
    if is_parquet(name):
        if path.is_dir() and (is_directory_index(path) or not any(path.iterdir())):
            return
    elif path.is_file():
        with path.open("rb") as file:
            head = file.read(512)
        if not head or _INDEX.match(head):
            return
    raise click.ClickException(f"{path} exists and is not an index; {hint}")


def refuse_other_source(path: Path, source: str) -> None:
    """Let nothing be overwritten but the index of the same source, as its first bytes tell.

    Raises
    ------
    click.ClickException
        The path exists and is the index of another source, or does not say of which.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head:
        return
    found = _FIRST_SOURCE.search(head)
    url = json.loads(found[1]) if found else None
    if url is not None and _identity(url) == _identity(absolute_url(source)):
        return
    what = "is an index of " + ("unknown sources" if url is None else without_query(url))
    raise click.ClickException(
        f"{path} {what}; say with -o where the index of {without_query(source)} goes"
    )


def _identity(url: str) -> str:
    return str(Path(local_path(url)).resolve()) if _is_local(url) else without_query(url)


def size_of(name: str) -> int | None:
    """Return the bytes of an index, in all its files; None where it is not of this machine."""
    if not _is_local(name):
        return None
    path = Path(local_path(name))
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size


def said(group: VirtualGroup, path: str) -> str:
    """Return what a command says of an index that it wrote."""
    size = size_of(path)
    written = "" if size is None else f"{display.size(size)} · "
    return f"{path}: {written}{display.summary(group)}"
