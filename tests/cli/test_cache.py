"""`byteatlas cat --cache` keeps what it fetched, and `byteatlas cache` shows and empties it."""

import os
import warnings
from pathlib import Path

import pytest

import byteatlas as package
from byteatlas.testing.server import RangeServer


@pytest.fixture
def server(source):
    with RangeServer({"a.nc": source.read_bytes()}) as running:
        yield running


@pytest.fixture
def filled(byteatlas, server, tmp_path):
    """Keep a chunk in ./cache, and return the command that did."""
    group = package.scan(server.url("a.nc"))
    group.to_json(tmp_path / "a.json")
    name = next(name for name, array in group.walk_arrays() if array.manifest.virtual_count)
    key = name.lstrip("/") + "/" + ".".join("0" for _ in group[name].shape)
    server.clear()
    command = ("cat", "a.json", key, "--cache", "./cache:1MiB")
    byteatlas(*command)
    assert len(server.log) == 1
    return command


def test_what_cat_fetched_it_finds_again(byteatlas, server, filled):
    once = byteatlas(*filled).stdout_bytes
    assert len(server.log) == 1
    assert once == byteatlas(*filled[:3]).stdout_bytes
    assert len(server.log) == 2


def test_a_cache_tells_what_it_holds(byteatlas, byteatlas_json, filled):
    use = byteatlas_json("cache", "cache")
    assert (use["sources"], use["chunks"], use["cleared"]) == (1, 1, False)
    assert use["oldest_ns"] == use["newest_ns"]
    text = byteatlas("cache", "cache").stdout
    assert text.startswith("1 chunk of 1 source, 8.")
    assert "last used between" in text


def test_a_cache_is_emptied_and_then_filled_again(byteatlas, byteatlas_json, server, filled):
    (mine := Path("cache", "mine")).write_text("mine")
    assert byteatlas("cache", "cache", "--clear").stdout.startswith("removed 1 chunk of 1 source")
    assert byteatlas("cache", "cache").stdout == "empty\n"
    assert mine.read_text() == "mine"
    byteatlas(*filled)
    assert len(server.log) == 2
    assert byteatlas_json("cache", "cache")["chunks"] == 1


def test_where_there_is_no_cache_nothing_is_shown_and_nothing_removed(byteatlas, tmp_path):
    (tmp_path / "other").mkdir()
    for folder in ("other", "nowhere"):
        result = byteatlas("cache", folder, "--clear", code=1)
        assert f"there is no cache in '{folder}'" in result.stderr
    assert list((tmp_path / "other").iterdir()) == []


def test_a_cache_that_cannot_be_emptied_is_an_error(byteatlas, filled, monkeypatch):
    def denied(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "unlink", denied)
    assert ".pack may not be removed" in byteatlas("cache", "cache", "--clear", code=1).stderr


def test_an_option_that_means_nothing_says_what_to_write(byteatlas, filled):
    result = byteatlas(*filled[:3], "--cache", "cache", code=1)
    assert "cache='cache' has no size; write" in result.stderr


def test_a_size_may_follow_the_folder_here_too(byteatlas_json, filled):
    assert byteatlas_json("cache", "./cache:1MiB") == byteatlas_json("cache", "cache")


def test_a_lone_word_is_no_folder(byteatlas, filled):
    result = byteatlas(*filled[:3], "--cache", "mem:1MiB", code=1)
    assert "'mem' is not 'memory'" in result.stderr
    assert not Path("mem").exists()


def test_a_cache_that_cannot_be_used_is_one_plain_line(byteatlas, filled):
    Path("file").write_text("no folder")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        result = byteatlas(*filled[:3], "--cache", "file/cache:1MiB")
        assert byteatlas(*filled[:3], "--cache", "file/cache:1MiB", "--quiet").stderr == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("warning: the cache in ")
    assert line.endswith("cannot be written: Not a directory; reading goes on without")
    assert result.stdout_bytes == byteatlas(*filled[:3]).stdout_bytes
