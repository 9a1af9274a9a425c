"""Options that several commands have, and the types of their values."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, Literal

import click

from byteatlas.model import VirtualArray, VirtualGroup
from byteatlas.sources.chunk_cache import ChunkCache
from byteatlas.sources.chunk_cache_option import open_cache, parse_size

__all__ = ["byte_count", "cache", "find_array", "no_key", "opening", "storage", "zarr_format"]

_NAMED = 8
"""So many variables are named where none looks like the one that was asked for."""


def byte_count(ctx: click.Context, param: click.Parameter, value: str) -> int:
    """Return the number of bytes that words such as 8MiB, 500kB or 65536 mean (a callback)."""
    count = parse_size(value)
    if not count:
        raise click.BadParameter(f"{value!r} is not a size, such as 8MiB or 65536", ctx, param)
    return count


def storage(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command ``--storage-option`` and ``--anon``, and hand it `storage_options`."""

    @click.option(
        "--storage-option",
        "pairs",
        metavar="KEY=VALUE",
        multiple=True,
        help="For reaching the data, in fsspec's words; the value may be JSON, and a dot in the "
        "key goes one level down: headers.Authorization='Bearer ...'. May be repeated.",
    )
    @click.option("--anon", is_flag=True, help="Reach a public bucket without credentials.")
    @functools.wraps(function)
    def command(*, pairs: tuple[str, ...], anon: bool, **options: Any) -> Any:
        storage_options = parse_pairs(pairs)
        if anon:
            storage_options["anon"] = True
        return function(storage_options=storage_options, **options)

    return command


def parse_pairs(pairs: tuple[str, ...]) -> dict[str, Any]:
    """Return ``KEY=VALUE`` pairs as a nested mapping."""
    result: dict[str, Any] = {}
    for pair in pairs:
        dotted, equals, text = pair.partition("=")
        if not equals or not dotted:
            raise click.UsageError(f"--storage-option {pair!r} is not KEY=VALUE")
        *path, last = dotted.split(".")
        level = result
        for name in path:
            level = level.setdefault(name, {})
            if not isinstance(level, dict):
                raise click.UsageError(f"--storage-option {dotted!r}: {name!r} has a value already")
        try:
            level[last] = json.loads(text)
        except ValueError:
            level[last] = text
    return result


def opening(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command what opening an index takes: `storage_options` and `allow`."""
    allow = click.option(
        "--allow",
        multiple=True,
        metavar="PREFIX",
        help="Let an index that came over the network name sources whose URL begins so.",
    )
    return allow(storage(function))


def cache(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command ``--cache``, and hand it the `cache` that is meant."""
    option = click.option(
        "--cache",
        metavar="FOLDER:SIZE",
        callback=_cache,
        help="Keep bytes that are fetched in a folder, such as /tmp/chunks:1GiB or "
        "./chunks:1GiB, and find them there the next time.",
    )
    return option(function)


def _cache(ctx: click.Context, param: click.Parameter, value: str | None) -> ChunkCache | None:
    try:
        return open_cache(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from error


def zarr_format(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command ``--zarr-format``."""
    option = click.option(
        "--zarr-format",
        type=click.Choice(["2", "3"]),
        default="2",
        callback=lambda _ctx, _param, value: int(value),
        show_default=True,
        help="Version of the Zarr metadata.",
    )
    return option(function)


def no_key(group: VirtualGroup, key: str, zarr_format: Literal[2, 3]) -> click.ClickException:
    """Return the error for a key that there is not, or only in the other version of Zarr."""
    from byteatlas.store.contents import Contents  # noqa: PLC0415  # not for every command

    other: Literal[2, 3] = 3 if zarr_format == 2 else 2
    place = key.strip("/")
    contents = Contents(group, other)
    hint = f"; --zarr-format {other} has it" if place in contents else ""
    return click.ClickException(f"the index has no key {key!r}{hint}")


def find_array(group: VirtualGroup, path: str) -> VirtualArray:
    """Return the array at a path.

    Raises
    ------
    click.ClickException
        There is none; the message says why it was skipped, or names those that look like it.
    """
    try:
        found = group[path]
    except KeyError:
        found = None
    if isinstance(found, VirtualArray):
        return found
    reasons = {skipped.path.strip("/"): skipped.reason for skipped in group.report.skipped}
    if reason := reasons.get(path.strip("/")):
        raise click.ClickException(f"{path!r} was skipped: {reason}")
    names = [name for name, _ in group.walk_arrays()]
    near = get_close_matches(f"/{path.strip('/')}", names, 3) or names[:_NAMED]
    more = f" and {len(names) - len(near):,} more" if len(names) > len(near) else ""
    raise click.ClickException(f"no variable {path!r}; there is {', '.join(near) or 'none'}{more}")
