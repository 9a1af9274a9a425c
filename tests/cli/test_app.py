"""The command as a whole: help, exit codes, errors, completion."""

import json
import os
import subprocess
import sys
from importlib import import_module

import click
import pytest

from byteatlas.cli.app import COMMANDS, main
from byteatlas.version import __version__


def test_without_arguments_it_explains_itself(byteatlas):
    said = byteatlas().stdout
    assert said == byteatlas("--help").stdout
    assert all(name in said and summary in said for name, summary in COMMANDS.items())


def test_the_version_is_the_packages(byteatlas):
    assert byteatlas("--version").stdout == f"byteatlas {__version__}\n"


def test_it_runs_as_a_module():
    command = [sys.executable, "-m", "byteatlas", "--version"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said == f"byteatlas {__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_lines_of_an_example_stay_apart(name, byteatlas):
    said = byteatlas(name, "--help").stdout
    assert "\\b" not in said
    assert said.count("  byteatlas ") == said.count("\n  byteatlas ")


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_the_summary_that_the_help_shows(name):
    command = import_module(f"byteatlas.cli.{name}").command
    assert command.name == name
    assert command.get_short_help_str(limit=200) == COMMANDS[name]


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_the_options_that_all_have(name, byteatlas):
    said = byteatlas(name, "-h").stdout
    assert all(option in said for option in ("--json", "--quiet", "--debug"))
    assert ("--storage-option" in said) == (name != "cache")


def test_the_help_imports_nothing_heavy():
    code = (
        "import sys; from byteatlas.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(*sys.modules, sep='\\n')"
    )
    modules = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    heavy = {"aiohttp", "fsspec", "h5py", "netCDF4", "obstore", "rich", "xarray", "zarr"}
    assert "click" in modules
    assert not heavy & set(modules)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nonsense"], "error: No such command 'nonsense' (see 'byteatlas --help')"),
        (["scan"], "error: Missing argument 'SOURCE' (see 'byteatlas scan --help')"),
        (["scan", "a", "--nonsense"], "error: No such option '--nonsense'"),
        (["scan", "a", "--max-chunk", "0"], "error: Invalid value for '--max-chunk'"),
        (["scan", "a", "--storage-option", "x"], "--storage-option 'x' is not KEY=VALUE"),
        (["scan", "missing.nc"], "no such file"),
        (["info", "missing.nc"], "no such file"),
        (["verify", "missing.json"], "no such file"),
    ],
)
def test_every_error_is_one_line_on_stderr_and_exits_with_1(byteatlas, args, message):
    result = byteatlas(*args, code=1)
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_debug_shows_the_traceback(byteatlas):
    result = byteatlas("scan", "missing.nc", "--debug", code=1)
    assert "Traceback (most recent call last)" in result.stderr
    assert "SourceMissing" in result.stderr


def test_json_holds_the_facts_of_an_error(byteatlas, tmp_path):
    path = tmp_path / "page.html"
    path.write_text("<html>")
    result = byteatlas("scan", path, "--json", code=1)
    error = json.loads(result.stdout)["error"]
    assert error["type"] == "NotRecognised"
    assert error["url"] == str(path)
    assert error["message"] in result.stderr


def test_an_unexpected_error_asks_for_a_report(byteatlas, monkeypatch):
    def broken(*args, **options):
        raise RuntimeError("one\ntwo")

    monkeypatch.setattr("byteatlas.cli.scan.scan", broken)
    result = byteatlas("scan", "a.nc", code=1)
    assert result.stderr.startswith("error: unexpected RuntimeError: one two (a bug:")


def test_an_interrupt_is_said_in_one_line(byteatlas, monkeypatch):
    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("byteatlas.cli.scan.scan", interrupted)
    assert byteatlas("scan", "a.nc", code=1).stderr.strip() == "error: interrupted"


def test_a_reader_that_closes_the_pipe_gets_no_traceback(index):
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [sys.executable, "-m", "byteatlas.cli", "ls", "-r", str(index)]
    result = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, check=False)
    os.close(write_end)
    assert result.returncode == 1
    assert result.stderr == b""


def test_the_shell_can_complete_commands_and_options():
    def complete(words, cword):
        environment = {
            "_BYTEATLAS_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(cword),
        }
        code = "from byteatlas.cli import main; main(prog_name='byteatlas')"
        return subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        ).stdout.split()

    assert complete("byteatlas ve", 1) == ["plain,verify"]
    assert "plain,--max-chunk" in complete("byteatlas scan --max", 2)


def test_commands_are_a_group_of_click():
    assert isinstance(main, click.Group)
    assert main.list_commands(click.Context(main)) == list(COMMANDS)
