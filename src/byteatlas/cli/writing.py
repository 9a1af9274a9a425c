"""Where commands write an index to: a JSON file or, by its name, a Parquet directory."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import click

from byteatlas import display
from byteatlas.index import write_json, write_parquet
from byteatlas.index.directories import is_directory_index
from byteatlas.index.parquet_layout import RECORD_SIZE
from byteatlas.model import VirtualGroup

__all__ = [
    "is_parquet",
    "record_size",
    "refuse_other_files",
    "refuse_version_3",
    "said",
    "size_of",
    "write_index",
]

_INDEX = re.compile(
    rb"""\s*\{\s*(?:\}|"(?:byteatlas|refs|version|templates|gen|[^"]*\.z\w+|[^"]*zarr\.json)")"""
)
"""How an index begins, of byteatlas or any other that writes kerchunk JSON."""

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
    return path.partition("?")[0].rstrip("/").endswith((".parq", ".parquet"))


def write_index(
    group: VirtualGroup,
    path: str,
    *,
    zarr_format: Literal[2, 3],
    record_size: int,
    keep_query: bool,
    storage_options: Mapping[str, Any] | None = None,
) -> None:
    """Write an index as what its name says.

    Raises
    ------
    click.UsageError
        A Parquet index is to have metadata of Zarr version 3.
    """
    if not is_parquet(path):
        write_json(
            group,
            path,
            zarr_format=zarr_format,
            keep_query=keep_query,
            storage_options=storage_options,
        )
        return
    refuse_version_3(path, zarr_format)
    write_parquet(
        group,
        path,
        record_size=record_size,
        keep_query=keep_query,
        storage_options=storage_options,
    )


def refuse_version_3(path: str, zarr_format: Literal[2, 3]) -> None:
    """Refuse metadata of Zarr version 3 in a Parquet index.

    Raises
    ------
    click.UsageError
        It is wanted.
    """
    if is_parquet(path) and zarr_format != 2:
        raise click.UsageError("a Parquet index has metadata of Zarr version 2")


def refuse_other_files(path: Path) -> None:
    """Let nothing be overwritten but an earlier index of the same kind.

    Raises
    ------
    click.ClickException
        The path exists and is something else, such as the source itself.
    """
    if not path.exists():
        return
    if is_parquet(str(path)):
        if path.is_dir() and (is_directory_index(path) or not any(path.iterdir())):
            return
    elif path.is_file():
        with path.open("rb") as file:
            head = file.read(512)
        if not head or _INDEX.match(head):
            return
    raise click.ClickException(f"{path} exists and is not an index; choose another name with -o")


def size_of(path: Path) -> int:
    """Return the bytes of an index, in all its files."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size


def said(group: VirtualGroup, path: str) -> str:
    """Return what a command says of an index that it wrote."""
    place = Path(path)
    written = f"{display.size(size_of(place))} · " if place.exists() else ""
    return f"{path}: {written}{display.summary(group)}"
