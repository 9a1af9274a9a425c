"""Progress on a terminal, silence elsewhere."""

import os
import pty
import subprocess
import sys

from byteatlas.testing import RangeServer


def run_on_a_terminal(*args, cwd):
    """Run `byteatlas ...` with stderr on a terminal; give exit code, stdout, and what it showed."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "byteatlas.cli", *args],
        stdout=subprocess.PIPE,
        stderr=theirs,
        cwd=cwd,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # the terminal is closed
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    stdout = process.stdout.read()
    process.stdout.close()
    return process.wait(), stdout, shown.decode()


def test_a_scan_shows_what_it_reads(source):
    with RangeServer(source.parent, latency_s=0.3) as server:
        url = server.url(source.name)
        code, stdout, shown = run_on_a_terminal("scan", url, cwd=source.parent)
        assert code == 0
        assert f"scanning {url}" in shown
        assert "requests" in shown
        assert stdout.startswith(b"ocean.nc.json: ")


def test_a_verification_shows_where_it_is(index):
    code, stdout, shown = run_on_a_terminal("verify", str(index), "--json", cwd=index.parent)
    assert code == 0
    assert "comparing" in shown
    assert stdout.startswith(b"{")


def test_quiet_is_quiet(index):
    code, stdout, shown = run_on_a_terminal("verify", str(index), "--quiet", cwd=index.parent)
    assert (code, stdout, shown) == (0, b"", "")


def test_without_a_terminal_nothing_is_shown(byteatlas, index):
    assert byteatlas("verify", index).stderr == ""
