"""An index is written whole or not at all."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from byteatlas.index import to_json_bytes, write_json
from byteatlas.index.atomic import write_whole
from byteatlas.model import VirtualGroup

OLD = b"old" * 1000


def run_python(script: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    return done.stdout


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "index.json"
    target.write_bytes(OLD)
    script = """
import resource, signal, sys
from byteatlas.index.atomic import write_whole
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    write_whole(sys.argv[1], [b"x" * 10_000] * 50)
except OSError as error:
    print(error.errno)
"""
    # A limit gives EFBIG where a full disk gives ENOSPC.
    assert run_python(script, str(target)) == f"{errno.EFBIG}\n"
    assert target.read_bytes() == OLD
    assert list(tmp_path.iterdir()) == [target]


def test_an_error_halfway_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "index.json"
    target.write_bytes(OLD)

    def pieces() -> Iterator[bytes]:
        yield b"new"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(target, pieces())
    assert target.read_bytes() == OLD
    assert list(tmp_path.iterdir()) == [target]


def test_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "real.json").write_bytes(OLD)
    (tmp_path / "link.json").symlink_to("real.json")

    write_whole(tmp_path / "link.json", [b"new"])

    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "real.json").read_bytes() == b"new"


def test_the_mode_of_a_new_file_follows_the_umask(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")

    write_whole(tmp_path / "index.json", [b"new"])

    assert (tmp_path / "index.json").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("kind", ["path", "text", "file url", "memory url"])
def test_an_index_is_written_to_paths_and_urls(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a b#c.json"
    target = {
        "path": path,
        "text": str(path),
        "file url": f"file://{path}",
        "memory url": "memory://folder/a b#c.json",
    }[kind]

    write_json(VirtualGroup(), target)

    data = fsspec.filesystem("memory").cat("/folder/a b#c.json") if "memory" in kind else None
    assert (data or path.read_bytes()) == to_json_bytes(VirtualGroup())


def test_a_folder_that_is_not_there_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing"):
        write_json(VirtualGroup(), tmp_path / "missing" / "index.json")
