"""`byteatlas cache`: what a cache on disk holds."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from byteatlas import display
from byteatlas.cli.output import ExitCode, Output, shared
from byteatlas.sources.chunk_cache_folder import CacheUse, empty_cache, is_cache, use_of_cache
from byteatlas.sources.chunk_cache_option import parse_size

__all__ = ["command"]


@click.command("cache", short_help="Tell what a cache on disk holds, or empty it.")
@click.argument("folder")
@click.option("--clear", is_flag=True, help="Remove all that is kept there.")
@shared
def command(*, folder: str, clear: bool, output: Output) -> ExitCode:
    """Tell what the cache in FOLDER holds, or with --clear empty it.

    FOLDER is what was given as cache="FOLDER:20GiB"; the size may follow here too, and does not
    matter. Only what byteatlas put there is removed; what reads through the cache meanwhile goes
    on.

    \b
    byteatlas cache ~/.cache/byteatlas
    byteatlas cache ~/.cache/byteatlas --clear
    """  # noqa: D301  # \b: click keeps these lines apart
    place = _place(folder)
    if not is_cache(place):
        raise click.ClickException(f"there is no cache in {str(place)!r}")
    use = use_of_cache(place)
    if clear:
        empty_cache(place)
    facts = use._asdict() | {"folder": str(place), "cleared": clear}
    output.result(facts, lambda: _lines(use, is_cleared=clear))
    return ExitCode.OK


def _place(text: str) -> Path:
    """Return the folder that is meant, whether or not its size follows."""
    folder, colon, size = text.rpartition(":")
    has_size = colon and folder and parse_size(size) is not None
    return Path(folder if has_size and not Path(text).exists() else text).expanduser()


def _lines(use: CacheUse, *, is_cleared: bool) -> str:
    held = (
        f"{display.plural(use.chunks, 'chunk')} of {display.plural(use.sources, 'source')},"
        f" {display.size(use.size)}"
    )
    if is_cleared:
        return f"removed {held}"
    if use.oldest_ns is None or use.newest_ns is None:
        return "empty"
    return f"{held}, last used between {_time(use.oldest_ns)} and {_time(use.newest_ns)}"


def _time(nanoseconds: int) -> str:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
