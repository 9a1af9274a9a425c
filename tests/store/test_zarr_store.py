"""The store serves zarr-python what the source holds, and only what the index lacks is missing."""

import asyncio
import pickle
import zlib

import fsspec
import h5py
import netCDF4
import numpy as np
import pytest
import xarray as xr
import zarr
from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import Buffer, cpu, default_buffer_prototype
from zarr.testing.store import StoreTests

from byteatlas.errors import (
    RangeIgnored,
    ShortRead,
    SourceChanged,
    SourceDenied,
    SourceError,
    SourceMissing,
)
from byteatlas.model import Source, VirtualGroup
from byteatlas.opening import open_store
from byteatlas.store.zarr_store import IndexStore
from byteatlas.testing.server import Fault

from .conftest import bytes_group

PROTOTYPE = default_buffer_prototype()


@pytest.fixture
def store(scanned):
    return IndexStore(scanned)


async def collect(names):
    return [name async for name in names]


class TestConformance(StoreTests[IndexStore, cpu.Buffer]):
    """zarr-python's own tests of a store, as far as they concern one that cannot be written.

    They put values under keys of their choice. `set` does so behind the store's back, as if its
    index had documents under those keys.
    """

    store_cls = IndexStore
    buffer_cls = cpu.Buffer

    async def set(self, store: IndexStore, key: str, value: Buffer) -> None:
        store.contents.documents[key] = value.to_bytes()
        store.contents.__dict__.pop("_children", None)

    async def get(self, store: IndexStore, key: str) -> Buffer:
        return self.buffer_cls.from_bytes(store.contents.documents[key])

    @pytest.fixture
    def store_kwargs(self):
        return {"group": VirtualGroup()}

    @pytest.fixture
    async def store(self, open_kwargs):
        opened = await self.store_cls.open(**open_kwargs)
        opened.contents.documents.clear()
        return opened

    def test_store_repr(self, store):
        assert repr(store) == "IndexStore(0 arrays of )"

    def test_store_supports_writes(self, store):
        assert not store.supports_writes
        assert not store.supports_deletes

    def test_store_supports_listing(self, store):
        assert store.supports_listing

    def test_store_eq(self, store, store_kwargs):
        assert store == store
        assert self.store_cls(**store_kwargs) == self.store_cls(**store_kwargs)

    def test_store_read_only(self, store):
        assert store.read_only
        with pytest.raises(AttributeError):
            store.read_only = False

    async def test_store_open_read_only(self, open_kwargs):
        store = await self.store_cls.open(**open_kwargs, read_only=True)
        assert store._is_open
        assert store.read_only
        with pytest.raises(ValueError, match="read-only"):
            await self.store_cls.open(**open_kwargs, read_only=False)

    async def test_serializable_store(self, store, open_kwargs):
        store = await self.store_cls.open(**open_kwargs)
        copy = pickle.loads(pickle.dumps(store))
        assert copy == store
        assert copy.read_only == store.read_only

    async def test_getsize_prefix(self, store):
        for key in ("c/0/0", "c/0/1", "c/1/0", "c/1/1"):
            await self.set(store, key, self.buffer_cls.from_bytes(b"\1\2\3\4"))
        assert await store.getsize_prefix("c") == 16

    async def test_exists(self, store):
        assert not await store.exists("foo")
        await self.set(store, "foo/zarr.json", self.buffer_cls.from_bytes(b"bar"))
        assert await store.exists("foo/zarr.json")

    async def test_is_empty(self, store):
        assert await store.is_empty("")
        await self.set(store, "foo/bar", self.buffer_cls.from_bytes(b"\1"))
        assert not await store.is_empty("")
        assert await store.is_empty("fo")
        assert not await store.is_empty("foo/")
        assert await store.is_empty("spam/")

    async def test_list(self, store):
        await self._fill(store, ["foo/zarr.json", *(f"foo/c/{n}" for n in range(10))])
        assert sorted(await collect(store.list())) == sorted(store.contents.documents)

    async def test_list_prefix(self, store):
        keys = ["zarr.json", "a/zarr.json", "a/b/zarr.json", "a/b/c/zarr.json"]
        await self._fill(store, keys)
        for prefix in ("", "a/", "a/b/", "a/b/c/"):
            expected = [key for key in keys if key.startswith(prefix)]
            assert await collect(store.list_prefix(prefix)) == expected

    async def test_list_empty_path(self, store):
        await self._fill(store, ["foo/bar/zarr.json", "foo/bar/c/1", "foo/baz/c/0"])
        assert len(await collect(store.list())) == 3
        assert len(await collect(store.list_prefix(""))) == 3
        assert len(await collect(store.list_prefix("foo/bar/"))) == 2

    async def test_list_dir(self, store):
        assert await collect(store.list_dir("")) == []
        assert await collect(store.list_dir("foo")) == []
        await self._fill(store, ["foo/zarr.json", "foo/c/1", "foo/d/e/f"])
        for prefix in ("foo", "foo/"):
            assert sorted(await collect(store.list_dir(prefix))) == ["c", "d", "zarr.json"]
        assert await collect(store.list_dir("")) == ["foo"]

    async def _fill(self, store, keys):
        for key in keys:
            await self.set(store, key, self.buffer_cls.from_bytes(b"\1"))

    # What only a store that can be written can be asked.
    test_set = test_set_not_open = test_set_many = test_set_if_not_exists = None
    test_set_invalid_buffer = test_delete = test_delete_dir = test_delete_nonexistent_key_ok = None
    test_clear = test_store_open_mode = None


def test_writing_is_refused(store):
    value = PROTOTYPE.buffer.from_bytes(b"x")
    for refused in (store.set("a", value), store.delete("a"), store.delete_dir("a")):
        with pytest.raises(ValueError, match="read-only"):
            asyncio.run(refused)
    with pytest.raises(NotImplementedError, match="read-only"):
        store.with_read_only(False)
    assert store.with_read_only(True) == store
    with pytest.raises(ValueError, match="read-only"):
        zarr.open_group(store, mode="a")


def test_zarr_reads_what_h5py_reads(store, archive):
    root = zarr.open_group(store, mode="r")
    with h5py.File(archive) as file:
        for path in ("time", "temp", "crs", "forecast/wind", "forecast/inner/depth"):
            array = root[path]
            assert array.dtype == file[path].dtype
            np.testing.assert_array_equal(array[...], file[path][...])
        assert root["label"][...].tolist() == file["label"].asstr()[...].tolist()
        np.testing.assert_array_equal(root["temp"][2:9:3, ::7], file["temp"][2:9:3, ::7])
    assert dict(root.attrs) == {"title": "an archive", "numbers": [1, 2, 3]}
    assert sorted(root.array_keys()) == ["crs", "label", "name", "sparse", "temp", "time"]
    assert sorted(root["forecast"].group_keys()) == ["inner"]


@pytest.mark.parametrize("consolidated", [True, False])
def test_xarray_reads_through_zarr_what_netcdf4_reads(store, archive, consolidated):
    with (
        xr.open_zarr(store, consolidated=consolidated) as through_zarr,
        xr.open_dataset(archive, engine="netcdf4") as expected,
    ):
        # xarray masks Zarr's fill value, which for netCDF's default no source asks for
        never_written = expected["sparse"] == netCDF4.default_fillvals["f4"]
        expected["sparse"] = expected["sparse"].where(~never_written)
        xr.testing.assert_equal(through_zarr.load(), expected.load())


def test_consolidated_metadata_is_read_without_a_request(store, server):
    options = {"decode_cf": False, "drop_variables": ["time"]}  # which xarray makes an index of
    dataset = xr.open_zarr(store, consolidated=True, chunks=None, **options)
    assert "temp" in dataset
    assert server.log == []


def test_zarr_version_3_metadata_is_served_as_well(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a"] = np.arange(6, dtype=">i4").reshape(2, 3)
        file["g/b"] = 1.5
    store = open_store(tmp_path / "a.h5", zarr_format=3)
    root = zarr.open_group(store, mode="r", zarr_format=3)
    np.testing.assert_array_equal(root["a"][:], np.arange(6).reshape(2, 3))
    assert root["g/b"][()] == 1.5
    assert asyncio.run(collect(store.list_dir("a/c"))) == ["0"]


@pytest.mark.parametrize(
    ("byte_range", "part"),
    [
        (None, slice(None)),
        (RangeByteRequest(1, 4), slice(1, 4)),
        (RangeByteRequest(2, 10**9), slice(2, None)),
        (RangeByteRequest(10**6, 10**9), slice(0, 0)),
        (OffsetByteRequest(5), slice(5, None)),
        (SuffixByteRequest(3), slice(-3, None)),
        (SuffixByteRequest(10**9), slice(None)),
        (SuffixByteRequest(0), slice(0, 0)),
    ],
)
@pytest.mark.parametrize("key", ["sparse/7.0", "label/0", ".zmetadata"])
def test_parts_of_values_are_read_alone(store, server, key, byte_range, part):
    whole = asyncio.run(store.get(key, PROTOTYPE)).to_bytes()
    server.clear()
    value = asyncio.run(store.get(key, PROTOTYPE, byte_range))
    assert value.to_bytes() == whole[part]
    (together,) = asyncio.run(store.get_partial_values(PROTOTYPE, [(key, byte_range)]))
    assert together.to_bytes() == whole[part]
    assert server.bytes_sent == (2 * len(whole[part]) if key == "sparse/7.0" else 0)


def test_many_partial_values_are_one_request(store, server):
    keys = [f"temp/{row}.{column}" for row in range(4) for column in range(3)]
    wanted = [(key, RangeByteRequest(0, 4)) for key in [*keys, "temp/9.9"]]
    *found, none = asyncio.run(store.get_partial_values(PROTOTYPE, wanted))
    assert all(len(value) == 4 for value in found)
    assert none is None
    assert len(server.log) == 1


def test_many_ranges_of_a_value_are_one_request(store, server):
    whole = asyncio.run(store.get("sparse/7.0", PROTOTYPE)).to_bytes()
    server.clear()
    ranges = [RangeByteRequest(4 * n, 4 * n + 2) for n in range(9)]
    ranges += [SuffixByteRequest(3), OffsetByteRequest(190), None]

    async def parts(key):
        found = store.get_ranges(key, ranges, prototype=PROTOTYPE)
        return {position: part async for batch in found for position, part in batch}

    found = asyncio.run(parts("sparse/7.0"))
    expected = [whole[4 * n : 4 * n + 2] for n in range(9)] + [whole[-3:], whole[190:], whole]
    assert [found[position].to_bytes() for position in range(12)] == expected
    assert len(server.log) == 1
    with pytest.raises(BaseExceptionGroup) as caught:
        asyncio.run(parts("sparse/6.0"))
    assert caught.group_contains(FileNotFoundError)
    server.faults.append(Fault(status=404))
    with pytest.raises(BaseExceptionGroup) as caught:
        asyncio.run(parts("sparse/7.0"))
    assert caught.group_contains(SourceMissing)


@pytest.mark.parametrize(("concurrency", "requests"), [(1, 64), (64, 1)])
def test_chunks_that_zarr_asks_for_together_are_one_request(
    tmp_path, server, concurrency, requests
):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("a", data=np.arange(640, dtype="i4"), chunks=(10,))
    server.content = {"a.h5": (tmp_path / "a.h5").read_bytes()}
    array = zarr.open_group(open_store(server.url("a.h5")), mode="r")["a"]
    server.clear()
    with zarr.config.set({"async.concurrency": concurrency}):
        np.testing.assert_array_equal(array[:], np.arange(640))
    assert len(server.log) == requests


def test_an_array_read_by_zarr_takes_few_requests(store, server):
    with zarr.config.set({"async.concurrency": 64}):
        zarr.open_group(store, mode="r")["temp"][...]
    assert len(server.log) == 1


def test_sizes_need_no_request(store, server):
    assert asyncio.run(store.getsize("sparse/7.0")) == 200
    assert asyncio.run(store.getsize_prefix("sparse/")) > 200
    assert asyncio.run(store.exists("sparse/7.0"))
    assert not asyncio.run(store.exists("sparse/6.0"))
    with pytest.raises(FileNotFoundError):
        asyncio.run(store.getsize("sparse/6.0"))
    assert server.log == []


def test_arrays_of_several_encodings_are_read_by_zarr():
    chunks = [b"abcd", zlib.compress(b"efgh"), b"ijkl"]
    group, data = bytes_group(chunks, codec_lists=[["zlib"], []], encoding=[1, 0, 1])
    fsspec.filesystem("memory").pipe("/bytes.bin", data)
    root = zarr.open_group(IndexStore(group), mode="r")
    assert root["a"][:].tobytes() == b"abcdefghijkl"


# Faults: our errors from every method, never a missing chunk.

FAULTS = {
    "404": (Fault(status=404), SourceMissing),
    "410": (Fault(status=410), SourceMissing),
    "403": (Fault(status=403), SourceDenied),
    "401": (Fault(status=401), SourceDenied),
    "416": (Fault(status=416), SourceError),
    "500": (Fault(status=500, headers={"Retry-After": "0"}), SourceError),
    "503": (Fault(status=503, headers={"Retry-After": "0"}), SourceError),
    "range ignored": (Fault(status=200, body=b"<html>"), (RangeIgnored, SourceChanged)),
    "other etag": (Fault(headers={"ETag": '"other"'}), SourceChanged),
    "other range": (Fault(shift=1, headers={"Content-Range": "bytes 9-9/99"}), SourceError),
    "short body": (Fault(body=b"x"), (ShortRead, SourceError)),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("method", ["get", "get_partial_values", "_get_many", "zarr"])
def test_a_fault_of_the_source_is_an_error_from_every_method(store, server, fault, method):
    what, kind = FAULTS[fault]
    server.faults.append(what)
    reads = {
        "get": lambda: asyncio.run(store.get("temp/0.0", PROTOTYPE)),
        "get_partial_values": lambda: asyncio.run(
            store.get_partial_values(PROTOTYPE, [("temp/9.9", None), ("temp/0.0", None)])
        ),
        "_get_many": lambda: asyncio.run(collect(store._get_many([("temp/0.0", PROTOTYPE, None)]))),
        "zarr": lambda: zarr.open_group(store, mode="r")["temp"][...],
    }
    with pytest.raises(kind) as caught:
        reads[method]()
    error = caught.value
    assert not isinstance(error, FileNotFoundError | KeyError)
    assert error.url == server.url("archive.nc")
    assert error.path == "/temp"
    assert error.offset is not None


def test_a_source_that_was_replaced_is_an_error(store, server):
    server.content = {"archive.nc": server.content["archive.nc"][:-1] + b"x"}
    with pytest.raises(SourceChanged):
        asyncio.run(store.get("temp/0.0", PROTOTYPE))


def test_a_fault_that_passes_is_waited_for(store, server, archive):
    server.faults.append(Fault(status=503, times=2, headers={"Retry-After": "0"}))
    server.faults.append(Fault(reset=10, times=1))
    with h5py.File(archive) as file:
        temp = zarr.open_group(store, mode="r")["temp"][...]
        np.testing.assert_array_equal(temp, file["temp"][...])


def test_a_damaged_chunk_is_an_error_through_zarr(scanned, server):
    offset = int(scanned["temp"].manifest.offset[0])
    data = bytearray(server.content["archive.nc"])
    data[offset + 20] ^= 0xFF
    server.content = {"archive.nc": bytes(data)}
    unaware = VirtualGroup(
        arrays=scanned.arrays, sources=(Source(scanned.sources[0].url, len(data)),)
    )
    with pytest.raises((zlib.error, RuntimeError, ValueError)):
        zarr.open_group(IndexStore(unaware), mode="r")["temp"][...]


def test_a_pickled_store_reads_on(store, archive):
    copy = pickle.loads(pickle.dumps(store))
    with h5py.File(archive) as file:
        values = zarr.open_group(copy, mode="r")["temp"][...]
        np.testing.assert_array_equal(values, file["temp"][...])
