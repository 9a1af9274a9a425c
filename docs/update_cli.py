"""Put what the commands say of themselves into cli.md: `python docs/update_cli.py`."""

from __future__ import annotations

import re
from pathlib import Path

from click.testing import CliRunner

from byteatlas.cli import main

PAGE = Path(__file__).with_name("cli.md")
_BLOCK = re.compile(r"^```console\n\$ byteatlas (\S+) --help\n.*?^```$", re.MULTILINE | re.DOTALL)


def updated(text: str) -> str:
    """Return the page with every ``$ byteatlas NAME --help`` block as the command says it now."""

    def block(found: re.Match[str]) -> str:
        said = CliRunner().invoke(main, [found[1], "--help"], terminal_width=90).stdout
        return f"```console\n$ byteatlas {found[1]} --help\n{said}```"

    return _BLOCK.sub(block, text)


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text()))
