"""The `byteatlas` command: a group whose commands are imported when they are needed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

import click

from byteatlas.cli.output import ExitCode

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "scan": "Scan SOURCE and write its index.",
    "info": "Show what a source or an index holds, as ncdump -h does.",
    "ls": "List the keys of an index.",
    "cat": "Write the bytes behind one key to standard output.",
    "where": "Tell where the bytes of a variable are.",
    "cost": "Tell what a read would take, without reading.",
    "convert": "Write an index as JSON or as Parquet.",
    "verify": "Compare an index with what it was made of.",
    "doctor": "Say whether a URL can be read by ranges, and how well.",
    "cache": "Tell what a cache on disk holds, or empty it.",
}
"""Name to summary: enough for `byteatlas --help` without importing anything."""


class App(click.Group):
    """A group that imports commands lazily, and prints every error as one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order in which they are explained."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"byteatlas.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,  # noqa: FBT001, FBT002  # click's signature
        **extra: Any,  # click's own settings
    ) -> NoReturn:
        """Run, and exit with one of the codes of `ExitCode`."""
        del standalone_mode
        try:
            code = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        except click.ClickException as error:
            context = getattr(error, "ctx", None)
            more = f" (see '{context.command_path} --help')" if context else ""
            click.echo(f"error: {error.format_message().rstrip('.')}{more}", err=True)
            code = ExitCode.FAILURE
        except click.Abort:
            click.echo("error: interrupted", err=True)
            code = ExitCode.FAILURE
        sys.exit(code)


@click.group(
    name="byteatlas",
    cls=App,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="byteatlas", message="%(prog)s %(version)s")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Legacy scientific files as virtual Zarr stores, read where they lie.

    SOURCE is a path or URL of a netCDF or HDF5 file: https://, s3://, gs://, az://, file, or any
    protocol fsspec knows. INDEX is what `byteatlas scan` wrote, or any kerchunk JSON or Parquet.

    Exit codes: 0 all well, 1 usage or failure, 2 data differ, 3 partly done (variables were
    skipped), 4 the source changed since it was indexed.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
