"""Run the benchmarks, one after the other, and say at the end how each one ended.

A peer that is not installed, or fails, is named in its table and stops nothing. Exits with 1 where
an answer differs or ours is missing, never because of the time.

With --into, what a script printed replaces what a page has between its two marks, which are
`<!-- begin read_local -->` and `<!-- end read_local -->` for read_local.py.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from _measure import argument_parser, print_table, seconds

HERE = Path(__file__).parent


BOTH = ("--quick", "--markdown")


class Script(NamedTuple):
    """A benchmark, and what it is told when all of them run."""

    name: str
    flags: tuple[str, ...] = ()
    """Those of ours that it knows."""
    arguments: tuple[str, ...] = ()


SCRIPTS = (
    Script("read_local", BOTH),
    Script("read_http", BOTH),
    Script("read_profile", BOTH),
    Script("zarr_store", BOTH),
    Script("parquet_index", BOTH),
    Script("json_index", ("--markdown",), ("--repeats", "1")),
    Script("codecs", ("--quick",)),
    Script("chunk_cache"),
    # Of the scans less than these scripts can: README.md says how to run all of it.
    Script("headers", arguments=("--enough-s", "1")),
    Script("chunk_scan", arguments=("--peers", "byteatlas", "h5py", "--kinds", "btree-v1")),
    Script("netcdf3_records"),
    Script("remote_scan", arguments=("--caps", "0")),
)


class Ended(NamedTuple):
    """How a benchmark ended."""

    script: Script
    code: int | None
    """None: there is no such script."""
    seconds: float
    said: str = ""

    @property
    def row(self) -> tuple[str, str, str]:
        if self.code is None:
            return (self.script.name, "", "missing")
        remark = "" if self.code == 0 else f"exit status {self.code}: see there"
        return (self.script.name, seconds(self.seconds), remark)


def run(script: Script, flags: list[str]) -> Ended:
    """Run one script with those of the flags that it knows."""
    path = HERE / f"{script.name}.py"
    if not path.exists():
        return Ended(script, None, 0)
    told = [*script.arguments, *(flag for flag in flags if flag in script.flags)]
    print(f"\n==== {' '.join([path.name, *told])}\n", flush=True)
    began = time.monotonic()
    lines = []
    with subprocess.Popen(
        [sys.executable, "-u", str(path), *told], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    return Ended(script, process.returncode, time.monotonic() - began, "".join(lines))


def put_into(page: Path, ended: Ended) -> None:
    """Replace what a page says of a script, if it ended well."""
    before, begin, rest = page.read_text().partition(f"<!-- begin {ended.script.name} -->\n")
    _, end, after = rest.partition(f"<!-- end {ended.script.name} -->")
    if ended.code == 0 and end:
        page.write_text(before + begin + _for_page(ended.said) + end + after)


def _for_page(said: str) -> str:
    """Return tables as they are, and what is no table as code."""
    parts: list[str] = []
    for block in re.split(r"\n\s*\n", said.strip("\n")):
        is_plain = not block.startswith(("|", "**")) and "\n| " not in block
        lines = [line.rstrip() for line in block.splitlines() if not line.startswith("writing ")]
        if lines:
            parts.append("\n".join(f"    {line}" if is_plain else line for line in lines))
    return "\n" + "\n\n".join(parts) + "\n\n"


def main() -> int:
    parser = argument_parser(__doc__)
    names = [script.name for script in SCRIPTS]
    parser.add_argument("scripts", nargs="*", default=[], help=f"of {', '.join(names)}")
    parser.add_argument("--quick", action="store_true", help="small sizes, where a script can")
    parser.add_argument("--markdown", action="store_true", help="tables for a page")
    parser.add_argument("--into", type=Path, help="the page that gets them")
    given = parser.parse_args()
    unknown = set(given.scripts) - set(names)
    if unknown:
        parser.error(f"no such script: {', '.join(sorted(unknown))}")
    is_markdown = given.markdown or given.into is not None
    flags = [*(["--quick"] if given.quick else []), *(["--markdown"] if is_markdown else [])]
    ended = []
    for script in SCRIPTS:
        if not given.scripts or script.name in given.scripts:
            ended.append(run(script, flags))
            if given.into is not None:
                put_into(given.into, ended[-1])
    print_table("All", ("", "time", ""), [one.row for one in ended])
    return 1 if any(one.code for one in ended) else 0


if __name__ == "__main__":
    sys.exit(main())
