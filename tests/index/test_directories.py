"""A Parquet index is written whole or not at all."""

from __future__ import annotations

import errno
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

import byteatlas
from byteatlas.errors import Conflict, Unsupported
from byteatlas.index import directories, revision
from byteatlas.index.directories import write_directory
from byteatlas.model import ChunkManifest, Source, VirtualArray, VirtualGroup

META = (".zmetadata", b'{"metadata":{},"record_size":5}')
OLD = [("a/refs.0.parq", b"old"), ("b/refs.7.parq", b"old too"), META]
NEW = [("a/refs.0.parq", b"new"), ("c/d/refs.0.parq", b"new too"), META]


def content(root: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()
    }


@pytest.fixture
def target(tmp_path: Path) -> Path:
    write_directory(tmp_path / "index.parq", OLD)
    return tmp_path / "index.parq"


@pytest.mark.parametrize("way", ["in one step", "in two steps"])
def test_an_index_takes_the_place_of_another(
    target: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "in two steps":
        monkeypatch.setattr(directories, "_exchange", lambda one, other: False)
    assert content(target) == dict(OLD)

    write_directory(target, NEW)

    assert content(target) == dict(NEW)
    assert list(target.parent.iterdir()) == [target]


def test_an_error_halfway_leaves_the_old_index_and_nothing_else(target: Path) -> None:
    def files() -> Iterator[tuple[str, bytes]]:
        yield NEW[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_directory(target, files())
    assert content(target) == dict(OLD)
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("failing", [1, 2])
def test_a_rename_that_fails_is_undone(
    target: Path, failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directories, "_exchange", lambda one, other: False)
    rename, calls = Path.rename, []

    def counted(self: Path, other: Path) -> Path:
        calls.append(self)
        if len(calls) == failing + 1:  # after the attempt to replace an empty directory
            raise OSError(errno.EIO, "broken")
        return rename(self, other)

    monkeypatch.setattr(Path, "rename", counted)
    with pytest.raises(OSError, match="broken") as caught:
        write_directory(target, NEW)
    assert caught.value.filename == str(target)
    assert content(target) == dict(OLD)
    assert list(target.parent.iterdir()) == [target]


def test_a_full_disk_leaves_the_old_index(target: Path) -> None:
    script = """
import resource, signal, sys
from byteatlas.index.directories import write_directory
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    write_directory(sys.argv[1], [("a/refs.0.parq", b"x" * 500_000)])
except OSError as error:
    print(error.errno)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(target)], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{errno.EFBIG}\n"
    assert content(target) == dict(OLD)
    assert list(target.parent.iterdir()) == [target]


def test_what_a_killed_writer_left_is_removed_by_the_next(target: Path) -> None:
    script = """
import os, sys
from byteatlas.index.directories import write_directory
def files():
    yield "a/refs.0.parq", b"new"
    os._exit(9)
write_directory(sys.argv[1], files())
"""
    subprocess.run([sys.executable, "-c", script, str(target)], check=False)
    assert len(list(target.parent.iterdir())) == 2
    assert content(target) == dict(OLD)

    write_directory(target, NEW)
    assert content(target) == dict(NEW)
    assert list(target.parent.iterdir()) == [target]


def test_another_writers_files_are_left_alone(target: Path) -> None:
    def files() -> Iterator[tuple[str, bytes]]:
        write_directory(target, OLD)  # another writer, meanwhile
        yield from NEW

    write_directory(target, files())
    assert content(target) == dict(NEW)


def test_what_is_no_index_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "zarr").mkdir()
    (tmp_path / "zarr/.zmetadata").write_text('{"metadata": {}}')
    (tmp_path / "file").write_text("precious")
    for name in ("zarr", "file"):
        with pytest.raises(FileExistsError) as caught:
            write_directory(tmp_path / name, NEW)
        assert caught.value.filename == str(tmp_path / name)
    assert content(tmp_path) == {"zarr/.zmetadata": b'{"metadata": {}}', "file": b"precious"}
    (tmp_path / "empty").mkdir()
    write_directory(tmp_path / "empty", NEW)
    assert content(tmp_path / "empty") == dict(NEW)


def test_a_symbolic_link_is_followed(target: Path) -> None:
    link = target.with_name("link.parq")
    link.symlink_to(target)

    write_directory(link, NEW)
    assert link.is_symlink()
    assert content(target) == dict(NEW)


def one_chunk(offset: int) -> VirtualGroup:
    column = np.array([offset], np.uint64)
    manifest = ChunkManifest.build((1,), np.zeros(1, np.uint64), column, column)
    array = VirtualArray((1,), np.dtype("u1"), (1,), manifest, dimensions=("x",))
    return VirtualGroup(arrays={"a": array}, sources=(Source("https://example.org/a"),))


def test_an_index_is_replaced_on_condition(tmp_path: Path) -> None:
    path = tmp_path / "index.parq"
    one_chunk(1).to_parquet(path, if_unchanged="")
    seen = revision(path)

    one_chunk(2).to_parquet(path, if_unchanged=seen)
    with pytest.raises(Conflict):
        one_chunk(3).to_parquet(path, if_unchanged=seen)
    assert byteatlas.open_index(path)["a"].manifest.offset.tolist() == [2]
    with pytest.raises(Unsupported, match="only local indexes"):
        one_chunk(1).to_parquet("memory://x.parq", if_unchanged="")


# On a server


@pytest.fixture
def there() -> Iterator[tuple[Any, str]]:
    filesystem = fsspec.filesystem("memory")
    root = f"/{uuid.uuid4().hex}"
    yield filesystem, f"{root}/index.parq"
    if filesystem.exists(root):
        filesystem.rm(root, recursive=True)


def found_there(filesystem: Any, root: str) -> dict[str, bytes]:
    parent = root.rpartition("/")[0]
    return {
        name.removeprefix(parent + "/"): filesystem.cat_file(name)
        for name in filesystem.find(parent)
    }


def below(files: list[tuple[str, bytes]]) -> dict[str, bytes]:
    return {f"index.parq/{name}": data for name, data in files}


def test_an_index_is_written_to_a_server_and_replaced_there(there: tuple[Any, str]) -> None:
    filesystem, root = there
    for files in (OLD, NEW):
        write_directory(f"memory:/{root}", files)
        assert found_there(filesystem, root) == below(files)


@pytest.mark.parametrize("failing", [0, 1])
def test_an_upload_that_fails_leaves_what_was_there(
    there: tuple[Any, str], failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    filesystem, root = there
    put, calls = type(filesystem).put, []

    def counted(self: Any, *arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        if len(calls) == failing + 1:
            raise OSError(errno.EIO, "broken")
        return put(self, *arguments, **options)

    for before in ([], OLD):
        calls.clear()
        monkeypatch.setattr(type(filesystem), "put", put)
        if before:
            write_directory(f"memory:/{root}", before)
        monkeypatch.setattr(type(filesystem), "put", counted)
        with pytest.raises(OSError, match="broken"):
            write_directory(f"memory:/{root}", NEW)
        assert found_there(filesystem, root) == below(before) if before else True


def test_a_file_that_arrives_cut_is_noticed(
    there: tuple[Any, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    filesystem, root = there
    write_directory(f"memory:/{root}", OLD)
    monkeypatch.setattr(type(filesystem), "size", lambda *_: 1)

    with pytest.raises(byteatlas.errors.SourceError, match="1 bytes arrived"):
        write_directory(f"memory:/{root}", NEW)
    assert found_there(filesystem, root) == below(OLD)


def test_nothing_is_touched_where_the_content_cannot_be_made(there: tuple[Any, str]) -> None:
    filesystem, root = there
    write_directory(f"memory:/{root}", OLD)

    def files() -> Iterator[tuple[str, bytes]]:
        yield NEW[0]
        raise Unsupported("no")

    with pytest.raises(Unsupported):
        write_directory(f"memory:/{root}", files())
    assert found_there(filesystem, root) == below(OLD)


def test_what_is_no_index_there_is_not_replaced(there: tuple[Any, str]) -> None:
    filesystem, root = there
    filesystem.pipe_file(f"{root}/data", b"precious")

    with pytest.raises(FileExistsError, match="no index"):
        write_directory(f"memory:/{root}", NEW)
    assert found_there(filesystem, root) == {"index.parq/data": b"precious"}


def test_an_index_on_a_server_is_opened_again(there: tuple[Any, str]) -> None:
    url = f"memory:/{there[1]}"
    one_chunk(7).to_parquet(url)

    group = byteatlas.open_index(url, allow=["https://example.org/"])
    assert group["a"].manifest.locate(np.array([0])).offset.tolist() == [7]
