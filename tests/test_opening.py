"""An index opens from anywhere, a legacy file in its place too; it gets only what it may have."""

import gzip
import json
import subprocess
import sys

import fsspec
import h5py
import numcodecs
import numpy as np
import pytest
import zarr

from byteatlas.errors import Malformed, NotAllowed, NotRecognised, SourceMissing
from byteatlas.index.json_writer import to_json_bytes
from byteatlas.model import VirtualGroup
from byteatlas.opening import is_index, open_dataset, open_group, open_index, open_store
from byteatlas.read import Reader
from byteatlas.scanning import scan
from byteatlas.store.filesystem import ByteatlasFileSystem
from byteatlas.testing.server import RangeServer

VALUES = np.arange(12.0).reshape(3, 4)


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "archive.h5"
    with h5py.File(path, "w") as file:
        file["a"] = VALUES
    return path


@pytest.fixture
def document(archive):
    """An index of the local archive, as the bytes of a file."""
    return to_json_bytes(scan(str(archive)))


def first_value(group):
    return Reader(group.sources).read(group["a"], (0, 1))


def test_a_local_index_is_opened_by_path(document, tmp_path, monkeypatch):
    path = tmp_path / "index.json"
    path.write_bytes(document)
    monkeypatch.chdir(tmp_path)
    for name in (path, str(path), "index.json", path.as_uri()):
        assert first_value(open_index(name)) == 1


@pytest.mark.parametrize(
    "pack",
    [gzip.compress, lambda data: bytes(numcodecs.Zstd().encode(data)), lambda data: b" \n" + data],
    ids=["gzip", "zstd", "white space"],
)
def test_a_packed_index_is_opened(document, tmp_path, pack):
    path = tmp_path / "index.json.packed"
    path.write_bytes(pack(document))
    assert first_value(open_index(path)) == 1
    assert first_value(open_group(path)) == 1


def test_an_index_is_opened_as_an_object_or_a_group(document):
    group = open_index(json.loads(document))
    assert first_value(group) == 1
    assert open_index(group) is group


def test_an_index_is_opened_through_fsspec(document):
    fsspec.filesystem("memory").pipe("/indexes/a.json", document)
    assert first_value(open_index("memory://indexes/a.json")) == 1


def test_a_relative_source_is_sought_beside_its_index(archive, document, tmp_path, monkeypatch):
    relative = document.replace(f"{archive}".encode(), b"archive.h5")
    assert relative != document
    path = tmp_path / "index.json"
    path.write_bytes(relative)
    group = open_index(path)
    monkeypatch.chdir("/")
    assert first_value(group) == 1


def test_what_is_no_index_is_not_recognised(archive, tmp_path):
    with pytest.raises(NotRecognised, match=r"not those of an index.*open_dataset"):
        open_index(archive)
    with pytest.raises(SourceMissing):
        open_index(tmp_path / "nope.json")
    (tmp_path / "broken.json").write_text('{"version": 1')
    with pytest.raises(Malformed, match=r"broken\.json"):
        open_index(tmp_path / "broken.json")


@pytest.mark.parametrize(
    ("head", "answer"),
    [
        (b'{"version": 1}', True),
        (b'\n\t {"a"', True),
        (gzip.compress(b'{"version": 1}'), True),
        (gzip.compress(b'{"version": 1}' * 10_000)[:600], True),
        (bytes(numcodecs.Zstd().encode(b'{"version": 1}')), True),
        (gzip.compress(b"CDF\1"), False),
        (b"\x1f\x8b", False),
        (b"\x1f\x8b\x08\xff" + bytes(10), False),
        (b"CDF\1", False),
        (b"\x89HDF\r\n\x1a\n", False),
        (b"[1]", False),
        (b"", False),
    ],
)
def test_the_first_bytes_tell_an_index(head, answer):
    assert is_index(memoryview(head)) is answer


def test_a_small_index_is_one_request_and_its_sources_none(archive, tmp_path):
    with RangeServer(tmp_path) as server:
        index = to_json_bytes(scan(server.url("archive.h5")))
        (tmp_path / "index.json").write_bytes(index)
        server.clear()
        group = open_index(server.url("index.json"))
        assert [entry.path for entry in server.log] == ["/index.json"]
        assert first_value(group) == 1
        assert [entry.path for entry in server.log] == ["/index.json", "/archive.h5"]


def test_a_large_index_is_two_requests(archive, tmp_path):
    with RangeServer(tmp_path) as server:
        index = json.loads(to_json_bytes(scan(server.url("archive.h5"))))
        index["refs"][".zattrs"] = json.dumps({"history": "x" * 10**6})
        index["refs"].pop(".zmetadata")
        (tmp_path / "index.json").write_text(json.dumps(index))
        server.clear()
        assert len(open_index(server.url("index.json")).attrs["history"]) == 10**6
        assert len(server.log) == 2


def test_the_group_of_a_legacy_file_is_its_scan(archive):
    group = open_group(archive)
    assert isinstance(group, VirtualGroup)
    assert group.report.scanner == "hdf5"
    assert first_value(group) == 1


# What an index may have


@pytest.fixture
def served(document, tmp_path):
    """A server on loopback, whose index names a local file."""
    with RangeServer({"index.json": document}) as server:
        yield server


OPENERS = {
    "open_index": open_index,
    "open_group": open_group,
    "open_store": open_store,
    "open_dataset": open_dataset,
    "filesystem": ByteatlasFileSystem,
}


@pytest.mark.parametrize("opener", OPENERS.values(), ids=OPENERS)
def test_an_index_from_the_network_may_not_name_local_files(served, archive, opener):
    folder = f"{archive.parent}/"
    with pytest.raises(NotAllowed) as caught:
        opener(served.url("index.json"))
    assert caught.value.url == served.url("index.json")
    assert f"pass allow=['{folder}']" in str(caught.value)
    opener(served.url("index.json"), allow=[folder])


def test_an_index_may_not_name_another_port_of_loopback(archive, tmp_path):
    with RangeServer(tmp_path) as data, RangeServer({}) as indexes:
        document = to_json_bytes(scan(data.url("archive.h5")))
        indexes.content["index.json"] = document
        data.clear()
        with pytest.raises(NotAllowed, match="only by permission"):
            open_store(indexes.url("index.json"))
        assert data.log == []
        store = open_store(indexes.url("index.json"), allow=[data.url("")])
        np.testing.assert_array_equal(zarr.open_group(store, mode="r")["a"][:], VALUES)


@pytest.mark.parametrize(
    "source",
    ["https://user:pw@example.org/a.h5", "https://example.org/../a.h5", "gopher://h/a.h5"],
)
def test_refused_forms_are_refused_in_objects_too(source):
    index = {
        "version": 1,
        "refs": {
            ".zgroup": '{"zarr_format": 2}',
            "a/.zarray": json.dumps({
                "zarr_format": 2, "shape": [1], "chunks": [1], "dtype": "|u1", "order": "C",
                "compressor": None, "filters": None, "fill_value": None,
            }),
            "a/0": [source, 0, 1],
        },
    }  # fmt: skip
    with pytest.raises(NotAllowed) as caught:
        open_index(index)
    assert "pw" not in str(caught.value)


def test_options_reach_the_index_and_its_sources(archive, tmp_path):
    with RangeServer(tmp_path) as server:
        (tmp_path / "index.json").write_bytes(to_json_bytes(scan(server.url("archive.h5"))))
        server.clear()
        options = {"headers": {"X-Key": "k"}}
        with open_dataset(server.url("index.json"), storage_options=options) as data:
            np.testing.assert_array_equal(data["a"], VALUES)
        with open_dataset(tmp_path / "index.json", storage_options=options) as data:
            np.testing.assert_array_equal(data["a"], VALUES)
        assert len(server.log) == 3
        assert all(entry.headers["x-key"] == "k" for entry in server.log)


def test_importing_imports_neither_zarr_nor_xarray():
    code = "import byteatlas.opening, sys; print({'zarr', 'xarray'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
