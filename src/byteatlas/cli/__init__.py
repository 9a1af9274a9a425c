"""The command line: `byteatlas scan`, `info`, `ls`, `cat`, `where`, `verify`."""

from byteatlas.cli.app import main

__all__ = ["main"]
