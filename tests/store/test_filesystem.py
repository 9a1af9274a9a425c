"""The filesystem shows keys as files; only what the index lacks is a file that is not found."""

import asyncio
import errno
import io
import pickle

import fsspec
import h5py
import numpy as np
import pytest
import xarray as xr
import zarr
from zarr.storage import FsspecStore

from byteatlas.errors import SourceChanged, SourceDenied, SourceError, SourceMissing
from byteatlas.store.filesystem import ByteatlasFileSystem
from byteatlas.testing.server import Fault


@pytest.fixture
def fs(index):
    return fsspec.filesystem("byteatlas", fo=str(index))


def test_it_is_known_to_fsspec(fs):
    assert isinstance(fs, ByteatlasFileSystem)
    assert fs.async_impl
    assert fsspec.get_filesystem_class("byteatlas") is ByteatlasFileSystem


def test_an_index_is_needed():
    with pytest.raises(ValueError, match="needs an index"):
        fsspec.filesystem("byteatlas")


ROOT = {"crs", "forecast", "label", "name", "sparse", "temp", "time"}


@pytest.mark.parametrize("lead", ["", "/", "byteatlas://"])
def test_directories_are_listed_with_and_without_a_leading_slash(fs, lead):
    slash = "/" if lead == "/" else ""
    root = fs.ls(lead, detail=False)
    assert set(root) == {*ROOT, ".zattrs", ".zgroup", ".zmetadata"}
    assert set(fs.ls(f"{lead}forecast", detail=False)) == {
        f"{slash}forecast/{name}" for name in (".zattrs", ".zgroup", "inner", "wind")
    }
    assert set(fs.ls(f"{lead}forecast/inner/depth/", detail=False)) == {
        f"{slash}forecast/inner/depth/{name}" for name in (".zarray", ".zattrs", "0")
    }
    assert fs.ls(f"{lead}crs/0", detail=False) == [f"{slash}crs/0"]


def test_entries_say_their_kind_and_size(fs, server):
    server.clear()
    assert fs.info("forecast") == {"name": "forecast", "size": 0, "type": "directory"}
    assert fs.info("/sparse/7.0") == {"name": "/sparse/7.0", "size": 200, "type": "file"}
    assert fs.isdir("forecast")
    assert not fs.isdir("crs/0")
    assert fs.isfile("crs/0")
    assert not fs.isfile("forecast")
    assert fs.exists("temp")
    assert not fs.exists("temp/9.9")
    assert not fs.exists("nope")
    assert fs.size("sparse/7.0") == 200
    assert fs.du("sparse") > 200
    by_name = {entry["name"]: entry for entry in fs.ls("sparse")}
    assert by_name["sparse/7.0"]["size"] == 200
    assert server.log == []


@pytest.mark.parametrize("method", ["ls", "info", "cat", "cat_file", "open", "size"])
@pytest.mark.parametrize("path", ["nope", "sparse/6.0", "/temp/9.9", "temp/0.0/x"])
def test_what_the_index_lacks_is_not_found(fs, method, path):
    with pytest.raises(FileNotFoundError):
        getattr(fs, method)(path)


def test_all_keys_are_found(fs):
    found = fs.find("")
    assert len(found) == len(set(found)) == sum(1 for _ in fs.contents.keys())
    assert "forecast/inner/depth/0" in found
    assert fs.find("forecast/inner") == [
        f"forecast/inner/{name}"
        for name in (".zattrs", ".zgroup", "depth/.zarray", "depth/.zattrs", "depth/0")
    ]
    assert fs.glob("temp/1.*") == ["temp/1.0", "temp/1.1", "temp/1.2"]
    assert sorted(path for path, _, _ in fs.walk("forecast")) == [
        "forecast",
        "forecast/inner",
        "forecast/inner/depth",
        "forecast/wind",
    ]


def test_values_and_parts_of_them_are_read(fs, archive):
    with h5py.File(archive) as file:
        expected = file["sparse"][7].tobytes()
    assert fs.cat("sparse/7.0") == expected
    assert fs.cat_file("/sparse/7.0", start=4, end=12) == expected[4:12]
    assert fs.cat_file("sparse/7.0", start=-8) == expected[-8:]
    assert fs.cat_file("sparse/7.0", end=-8) == expected[:-8]
    assert fs.head("sparse/7.0", 5) == expected[:5]
    assert fs.tail("sparse/7.0", 5) == expected[-5:]
    assert fs.cat("sparse/7*") == {"sparse/7.0": expected}
    assert fs.read_block("sparse/7.0", 10, 5) == expected[10:15]


def test_many_values_are_few_requests(fs, server):
    paths = [f"temp/{row}.{column}" for row in range(4) for column in range(3)]
    server.clear()
    found = fs.cat(paths)
    assert list(found) == paths
    assert len(server.log) == 1
    server.clear()
    assert fs.cat_ranges(paths, 0, 4) == [found[path][:4] for path in paths]
    assert len(server.log) == 1
    server.clear()
    assert len(fs.cat("temp", recursive=True)) == 14
    assert len(server.log) == 1


def test_values_asked_for_one_by_one_at_the_same_time_are_one_request(index, server):
    keys = [f"temp/{row}.{column}" for row in range(4) for column in range(3)]

    async def ask():
        fs = fsspec.filesystem("byteatlas", fo=str(index), asynchronous=True)
        return await asyncio.gather(*map(fs._cat_file, keys))

    assert all(asyncio.run(ask()))
    assert len(server.log) == 1


def test_missing_keys_among_many_are_told_apart(fs):
    found = fs.cat_ranges(["sparse/6.0", "sparse/7.0"], [0, 0], [4, 4])
    assert isinstance(found[0], FileNotFoundError)
    assert found[1] == b"\0\0\xc0\x3f"
    with pytest.raises(FileNotFoundError):
        fs.cat_ranges(["sparse/6.0", "sparse/7.0"], 0, 4, on_error="raise")
    assert list(fs.cat(["sparse/6.0", "sparse/7.0"], on_error="omit")) == ["sparse/7.0"]
    mapper = fs.get_mapper("sparse")
    assert set(mapper.getitems(["6.0", "7.0"], on_error="omit")) == {"7.0"}
    assert "7.0" in mapper
    assert "6.0" not in mapper


def test_a_value_opens_as_a_file(fs):
    whole = fs.cat("temp/0.0")
    with fs.open("byteatlas://temp/0.0") as file:
        assert file.read(5) == whole[:5]
        file.seek(-3, io.SEEK_END)
        assert file.read() == whole[-3:]
    with fsspec.open("byteatlas://temp/0.0", fo=fs.contents.group) as file:
        assert file.read() == whole


def test_values_are_copied_to_local_files(fs, tmp_path):
    fs.get("forecast", str(tmp_path / "out"), recursive=True)
    depth = tmp_path / "out" / "inner" / "depth" / "0"
    assert depth.read_bytes() == fs.cat("forecast/inner/depth/0") == b"\3\4"


@pytest.mark.parametrize(
    "write",
    [
        lambda fs: fs.pipe("a", b"x"),
        lambda fs: fs.pipe_file("a", b"x"),
        lambda fs: fs.rm("crs/0"),
        lambda fs: fs.rm_file("crs/0"),
        lambda fs: fs.cp_file("crs/0", "b"),
        lambda fs: fs.mkdir("a"),
        lambda fs: fs.makedirs("a/b"),
        lambda fs: fs.open("a", "wb"),
    ],
)
def test_writing_is_refused(fs, write):
    with pytest.raises(OSError, match="read-only") as caught:
        write(fs)
    assert caught.value.errno == errno.EROFS


def test_it_works_in_an_event_loop(index):
    async def use():
        fs = fsspec.filesystem("byteatlas", fo=str(index), asynchronous=True)
        names = await fs._ls("forecast", detail=False)
        values = await asyncio.gather(*(fs._cat_file(f"temp/0.{n}") for n in range(3)))
        return names, values

    names, values = asyncio.run(use())
    assert "forecast/wind" in names
    assert all(values)


def test_a_pickled_filesystem_reads_on(fs):
    copy = pickle.loads(pickle.dumps(fs))
    assert copy.cat("crs/0") == fs.cat("crs/0")


@pytest.mark.parametrize("path", ["", "/"])
def test_zarr_reads_through_it(index, archive, path):
    fs = fsspec.filesystem("byteatlas", fo=str(index), asynchronous=True)
    root = zarr.open_group(FsspecStore(fs, path=path, read_only=True), mode="r")
    with h5py.File(archive) as file:
        np.testing.assert_array_equal(root["temp"][...], file["temp"][...])
        wind = root["forecast/wind"]
        np.testing.assert_array_equal(wind[...], file["forecast/wind"][...])
    assert sorted(root["forecast"].group_keys()) == ["inner"]
    assert sorted(root["forecast/inner"].array_keys()) == ["depth"]


def test_xarray_reads_through_it_by_url(index, archive):
    options = {"fo": str(index)}
    with (
        xr.open_dataset("byteatlas://", engine="zarr", storage_options=options) as root,
        xr.open_dataset(archive, engine="netcdf4") as expected,
    ):
        dropped = root.drop_vars("sparse").load()
        xr.testing.assert_equal(dropped, expected.drop_vars("sparse").load())
    with (
        xr.open_dataset(
            "byteatlas://forecast", engine="zarr", storage_options=options, consolidated=False
        ) as group,
        xr.open_dataset(archive, engine="netcdf4", group="forecast") as expected,
    ):
        xr.testing.assert_equal(group.load(), expected.load())


def test_a_legacy_file_is_scanned(archive):
    fs = fsspec.filesystem("byteatlas", fo=archive)
    assert fs.cat("crs/0") == b"\5\0\0\0"


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault(status=404), SourceMissing),
        (Fault(status=403), SourceDenied),
        (Fault(status=503, headers={"Retry-After": "0"}), SourceError),
        (Fault(headers={"ETag": '"other"'}), SourceChanged),
    ],
    ids=["404", "403", "503", "other etag"],
)
@pytest.mark.parametrize(
    "read",
    [
        lambda fs: fs.cat("temp/0.0"),
        lambda fs: fs.cat(["temp/0.0", "temp/9.9"]),
        lambda fs: fs.cat_file("temp/0.0", 0, 4),
        lambda fs: fs.cat_ranges(["temp/0.0"], 0, 4, on_error="raise"),
        lambda fs: fs.open("temp/0.0").read(),
        lambda fs: fs.get_mapper("temp")["0.0"],
        lambda fs: fs.get_mapper("temp").getitems(["0.0"], on_error="omit"),
    ],
    ids=["cat", "cat many", "cat_file", "cat_ranges", "open", "mapper", "mapper many"],
)
def test_a_fault_of_the_source_is_an_error_from_every_method(fs, server, fault, kind, read):
    server.faults.append(fault)
    with pytest.raises(kind) as caught:
        read(fs)
    assert not isinstance(caught.value, FileNotFoundError | KeyError)
    assert caught.value.url == server.url("archive.nc")
    assert caught.value.path == "/temp"


def test_zarr_does_not_take_a_missing_source_for_missing_chunks(index, server):
    fs = fsspec.filesystem("byteatlas", fo=str(index), asynchronous=True)
    root = zarr.open_group(FsspecStore(fs, path="", read_only=True), mode="r")
    for status in (404, 403, 416):
        server.faults[:] = [Fault(status=status)]
        with pytest.raises(SourceError):
            root["temp"][...]
