"""`cache=` wherever an index is opened: the same values, and no request for what is kept."""

import pickle

import fsspec
import h5py
import numpy as np
import pytest
import xarray as xr
import zarr

import byteatlas
from byteatlas.testing.server import RangeServer


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("archive") / "archive.h5"
    with h5py.File(path, "w") as file:
        values = np.random.default_rng(0).normal(size=(60, 256)).astype("f4")
        packed = file.create_dataset("packed", data=values, chunks=(4, 256), compression=1)
        packed.dims[0].label, packed.dims[1].label = "y", "x"
    return path


@pytest.fixture
def server(archive):
    with RangeServer({"archive.h5": archive.read_bytes()}) as running:
        yield running


@pytest.fixture
def index(server, tmp_path):
    path = tmp_path / "index.json"
    byteatlas.scan(server.url("archive.h5")).to_json(path)
    server.clear()
    return path


@pytest.fixture
def values(archive):
    with h5py.File(archive) as file:
        return file["packed"][:]


def by_dataset(index, cache):
    with byteatlas.open_dataset(index, cache=cache) as dataset:
        return dataset["packed"].values


def by_datatree(index, cache):
    with byteatlas.open_datatree(index, cache=cache) as tree:
        return tree["packed"].values


def by_engine(index, cache):
    with xr.open_dataset(index, engine="byteatlas", chunk_cache=cache, chunks={}) as dataset:
        return dataset["packed"].values


def by_store(index, cache):
    return zarr.open_group(byteatlas.open_store(index, cache=cache), mode="r")["packed"][:]


def by_filesystem(index, cache):
    store = fsspec.filesystem("byteatlas", fo=str(index), cache=cache, asynchronous=True)
    return zarr.open_group(zarr.storage.FsspecStore(store, path=""), mode="r")["packed"][:]


def by_reader(index, cache):
    group = byteatlas.open_index(index)
    return byteatlas.Reader(group.sources, cache=cache).read(group["packed"])


WAYS = [by_dataset, by_datatree, by_engine, by_store, by_filesystem, by_reader]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("place", ["memory", "disk"])
def test_opened_again_it_makes_no_request(index, server, values, tmp_path, way, place):
    folder = "memory" if place == "memory" else tmp_path / "cache"
    cache = byteatlas.open_cache(f"{folder}:10MiB") if place == "memory" else f"{folder}:10MiB"
    np.testing.assert_array_equal(way(index, cache), values)
    assert len(server.log) > 0
    server.clear()
    np.testing.assert_array_equal(way(index, cache), values)
    assert server.log == []


def test_what_one_way_fetched_another_finds(index, server, values):
    cache = byteatlas.open_cache("memory:10MiB")
    for way in WAYS:
        np.testing.assert_array_equal(way(index, cache), values)
    requests = len(server.log)
    server.clear()
    WAYS[0](index, byteatlas.open_cache("memory:10MiB"))
    assert requests == len(server.log)


def test_an_open_dataset_keeps_its_own_cache(index, server, values):
    with byteatlas.open_dataset(index, cache="memory:10MiB") as dataset:
        assert np.array_equal(dataset["packed"][:20].values, values[:20])
        server.clear()
        assert np.array_equal(dataset["packed"][4:12].values, values[4:12])
        again = pickle.loads(pickle.dumps(dataset))
        assert np.array_equal(again["packed"][8:16].values, values[8:16])
    assert server.log == []


def test_the_option_of_xarray_itself_is_still_there(index, values):
    with byteatlas.open_dataset(index, cache=False) as dataset:
        assert np.array_equal(dataset["packed"].values, values)


def test_a_pickled_store_has_a_cache_like_its_own(index, server, values):
    store = byteatlas.open_store(index, cache="memory:10MiB")
    assert np.array_equal(zarr.open_group(store, mode="r")["packed"][:], values)
    server.clear()
    again = pickle.loads(pickle.dumps(store))
    assert np.array_equal(zarr.open_group(again, mode="r")["packed"][:], values)
    assert server.log == []


def test_what_was_kept_and_is_not_as_sealed_is_an_error_once(index, server, values):
    sealed = byteatlas.seal(byteatlas.open_index(index))
    manifest = sealed["packed"].manifest
    offset, length = manifest.offset.astype(int), manifest.length.astype(int)
    cache = byteatlas.open_cache("memory:10MiB")
    cache.put_many(sealed.sources[0], offset, length, [bytes(n) for n in length.tolist()])
    store = byteatlas.open_store(sealed, cache=cache)
    with pytest.raises(byteatlas.SourceChanged):
        zarr.open_group(store, mode="r")["packed"][:]
    assert np.array_equal(zarr.open_group(store, mode="r")["packed"][:], values)


@pytest.mark.parametrize("way", [by_dataset, by_store, by_filesystem, by_reader])
def test_an_option_that_means_nothing_is_refused(index, way):
    with pytest.raises(ValueError, match="write cache='memory:256MiB' or cache='/a/folder:20GiB'"):
        way(index, "256MiB")
