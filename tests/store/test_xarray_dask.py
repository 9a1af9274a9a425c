"""What leaves the process is small, opens again elsewhere, and is never silently something else."""

import asyncio
import copy
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import cloudpickle
import numpy as np
import pytest
import xarray as xr

from byteatlas.errors import SourceChanged, SourceMissing
from byteatlas.index.json_writer import write_json
from byteatlas.model import ChunkManifest, Source, VirtualArray, VirtualGroup
from byteatlas.opening import open_dataset, open_index
from byteatlas.read.reader import Reader
from byteatlas.scanning import scan
from byteatlas.store import opened
from byteatlas.store.lazy_array import LazyArray


def lazy_array(variable):
    data = variable._data
    while not isinstance(data, LazyArray):
        data = data.array
    return data


@pytest.fixture
def forgotten():
    """Return what makes this process forget, as another one, which indexes are open."""

    def forget():
        opened._LIVE.clear()
        opened._RECENT.clear()

    forget()
    yield forget
    forget()


def large_group(tmp_path, count=100_000, sources=1):
    data = tmp_path / "large.bin"
    data.write_bytes(bytes(range(256)) * 16)
    table = tuple(
        Source(str(data if not n else tmp_path / f"{n}.bin"), 4096) for n in range(sources)
    )
    manifest = ChunkManifest(
        (count, 1, 1),
        np.zeros(count, "u8"),
        np.full(count, 4096, "u8"),
        source=None if sources == 1 else np.arange(count, dtype="u4") % (sources // 2) * 2,
    )
    array = VirtualArray(
        (count, 32, 32), np.dtype("f4"), (1, 32, 32), manifest, dimensions=("t", "y", "x")
    )
    return VirtualGroup(arrays={"v": array, "w": array}, sources=table)


# Sizes


def test_the_graph_of_a_large_array_is_small_and_has_it_once(tmp_path):
    write_json(large_group(tmp_path), tmp_path / "large.json")
    with open_dataset(tmp_path / "large.json", chunks={}) as ours:
        graph = ours["v"].data.__dask_graph__()
        assert ours["v"].data.npartitions == 25
        assert len(cloudpickle.dumps(graph)) < 5_000
        largest = max(len(cloudpickle.dumps(task)) for task in dict(graph).values())
        assert largest < 1_500
        assert len(pickle.dumps(ours)) < 10_000
        row = ours["v"][99_999].compute(scheduler="synchronous")
        assert row.values.view("u1").reshape(-1)[:3].tolist() == [0, 1, 2]


def test_graphs_of_many_indexes_grow_by_little_each(tmp_path):
    write_json(large_group(tmp_path, 1000), tmp_path / "0.json")
    paths = [tmp_path / f"{number}.json" for number in range(20)]
    for path in paths[1:]:
        path.write_bytes(paths[0].read_bytes())
    options = {"combine": "nested", "concat_dim": "t", "engine": "byteatlas"}
    with xr.open_mfdataset(paths, **options) as ours:
        assert ours["v"].shape == (20_000, 32, 32)
        graph = cloudpickle.dumps(ours["v"].data.__dask_graph__())
        assert len(graph) < 20 * 2_500
        assert ours["v"][19_999, 0, 1].compute(scheduler="synchronous").notnull()


def test_an_array_of_a_group_is_pickled_alone_with_the_sources_that_it_uses(tmp_path):
    group = large_group(tmp_path, 1000, sources=10)
    with open_dataset(group) as ours:
        twin = pickle.loads(pickle.dumps(ours["v"].variable))
    array = lazy_array(twin)
    assert list(array.opened.group.arrays) == ["v"]
    assert [source.url for source in array.opened.reader.sources] == [
        group.sources[n].url for n in range(0, 10, 2)
    ]
    np.testing.assert_array_equal(array.array.manifest.source, np.arange(1000) % 5)
    assert twin[0].values.view("u1").reshape(-1)[:3].tolist() == [0, 1, 2]
    with pytest.raises(SourceMissing, match=r"2\.bin"):
        twin[1].values.sum()


# Other processes


@pytest.mark.parametrize("kind", ["index", "url", "gzip", "scanned", "group", "object"])
@pytest.mark.parametrize("chunks", [None, {}], ids=["numpy", "dask"])
def test_pickles_open_again(index, archive, server, scanned, tmp_path, forgotten, kind, chunks):
    import gzip
    import json

    server.content["archive.json"] = index.read_bytes()
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(index.read_bytes()))
    target = {
        "index": index,
        "url": server.url("archive.json"),
        "gzip": tmp_path / "a.json.gz",
        "scanned": server.url("archive.nc"),
        "group": scanned,
        "object": json.loads(index.read_bytes()),
    }[kind]
    with (
        open_dataset(target, chunks=chunks) as ours,
        open_dataset(target, "forecast", chunks=chunks) as inner,
    ):
        data = pickle.dumps((ours, inner))
    forgotten()
    twins = pickle.loads(data)
    for twin, group in zip(twins, (None, "forecast"), strict=True):
        with xr.open_dataset(archive, engine="netcdf4", group=group) as expected:
            xr.testing.assert_identical(twin.load(), expected.load())
    # One index is opened once for all arrays; what has no index is in the pickle.
    assert len(opened._RECENT) == (2 if kind in ("index", "url", "gzip") else 0)


def test_a_pickle_of_an_index_that_changed_is_an_error(index, scanned, forgotten):
    with open_dataset(index) as ours:
        data = pickle.dumps(ours["temp"])
    forgotten()
    write_json(scanned, index, zarr_format=3)
    with pytest.raises(SourceChanged, match="open it again") as caught:
        pickle.loads(data)
    assert caught.value.url == str(index)
    index.unlink()
    with pytest.raises(SourceMissing):
        pickle.loads(data)


def test_a_pickle_of_an_index_on_a_server_that_changed_is_an_error(index, server, forgotten):
    server.content["archive.json"] = index.read_bytes()
    with open_dataset(server.url("archive.json")) as ours:
        data = pickle.dumps(ours["temp"])
    forgotten()
    server.content = dict(server.content)  # other modification time, other ETag
    with pytest.raises(SourceChanged):
        pickle.loads(data)


def test_an_index_that_cannot_be_recognised_is_in_the_pickle(index, server, archive, forgotten):
    from byteatlas.testing.server import Fault

    server.content["archive.json"] = index.read_bytes()
    server.faults.append(Fault(path="*.json", headers={"ETag": "", "Last-Modified": ""}))
    with open_dataset(server.url("archive.json")) as ours:
        data = pickle.dumps(ours)
    del server.content["archive.json"]
    forgotten()
    with xr.open_dataset(archive, engine="netcdf4") as expected:
        xr.testing.assert_identical(pickle.loads(data).load(), expected.load())


def test_of_indexes_that_were_opened_again_few_are_kept(index, forgotten, monkeypatch):
    monkeypatch.setattr(opened, "_RECENT", type(opened._RECENT)(maxlen=2))
    pickles = []
    for _ in range(4):
        with open_dataset(index) as ours:
            pickles.append(pickle.dumps(ours["temp"].variable))
    del ours
    forgotten()
    for data in pickles:
        assert pickle.loads(data).shape == (10, 50)
    assert len(opened._RECENT) == 2
    assert opened._TURNS == {}


def test_a_worker_process_opens_an_index_once(index, archive, forgotten):
    with open_dataset(index, chunks={"time": 3}) as ours:
        data = pickle.dumps(list(dict(ours["temp"].data.__dask_graph__()).values()))
        twin = pickle.dumps([ours["temp"][n] for n in range(5)])
    code = (
        "import pickle, sys\n"
        "import byteatlas.store.opened as opened\n"
        "count, old = [], opened.open_target\n"
        "opened.open_target = lambda *a, **k: (count.append(1), old(*a, **k))[1]\n"
        "first, second = pickle.load(sys.stdin.buffer), pickle.load(sys.stdin.buffer)\n"
        "print(len(count), float(sum(one.sum() for one in second)))\n"
    )
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        input=data + twin,
        capture_output=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr.decode()
    count, total = result.stdout.decode().split()
    with xr.open_dataset(archive, engine="netcdf4") as expected:
        assert float(total) == float(sum(expected["temp"][n].sum() for n in range(5)))
    assert count == "1"


def test_dask_reads_in_processes(index, archive):
    with (
        open_dataset(index, chunks={"time": 6}) as ours,
        xr.open_dataset(archive, engine="netcdf4") as expected,
    ):
        got = ours["temp"].compute(scheduler="processes", num_workers=2)
        xr.testing.assert_identical(got, expected["temp"].compute())


# Threads


@pytest.mark.parametrize("remote", [False, True], ids=["file", "server"])
def test_64_threads_read_one_dataset_at_once(index, archive, tmp_path, remote):
    if not remote:
        write_json(scan(str(archive)), index)
    start = Barrier(64)
    with (
        open_dataset(index, cache=False) as ours,
        xr.open_dataset(archive, engine="netcdf4") as expected,
    ):
        expected.load()

        def read(number):
            start.wait()
            name = ("temp", "time", "name", "label", "sparse")[number % 5]
            row = number % expected[name].shape[0]
            return np.array_equal(
                ours[name][row].values, expected[name][row].values, equal_nan=name == "temp"
            ) or (name == "sparse" and np.array_equal(ours[name][row], expected[name][row]))

        with ThreadPoolExecutor(64) as pool:
            assert all(pool.map(read, range(64)))


def test_64_threads_that_unpickle_at_once_open_the_index_once(index, forgotten, monkeypatch):
    with open_dataset(index) as ours:
        data = pickle.dumps(ours["temp"].variable)
    del ours
    forgotten()
    count = []
    open_target = opened.open_target
    monkeypatch.setattr(
        opened, "open_target", lambda *a, **k: (count.append(1), open_target(*a, **k))[1]
    )
    start = Barrier(64)

    def load(_):
        start.wait()
        return pickle.loads(data)

    with ThreadPoolExecutor(64) as pool:
        arrays = [lazy_array(one) for one in pool.map(load, range(64))]
    assert len(count) == 1
    assert len({id(one.opened) for one in arrays}) == 1


# Copies


def test_copies_share_what_is_open(index):
    with open_dataset(index) as ours:
        array = lazy_array(ours["temp"].variable)
        for twin in (copy.copy(ours), copy.deepcopy(ours), ours.copy(deep=True)):
            assert lazy_array(twin["temp"].variable) is array
        twin["temp"].load()
        assert not ours["temp"].variable._in_memory


def test_a_dataset_that_was_closed_reads_again(index, archive):
    ours = open_dataset(index)
    ours.close()
    with xr.open_dataset(archive, engine="netcdf4") as expected:
        xr.testing.assert_identical(ours.load(), expected.load())


# At once


def test_load_async_reads_all_variables_in_one_batch(index, archive, server, monkeypatch):
    if not hasattr(xr.Dataset, "load_async"):
        pytest.skip("this xarray does not load asynchronously")
    batches = []
    read_many = Reader.read_many
    monkeypatch.setattr(
        Reader,
        "read_many",
        lambda self, several, *more: (batches.append(len(several)), read_many(self, several))[1],
    )
    with (
        open_dataset(index) as ours,
        xr.open_dataset(archive, engine="netcdf4") as expected,
    ):
        del batches[:]
        part = ours.isel(time=[5, 2], x=slice(None, None, -2)).drop_vars("name")  # xarray cannot
        asyncio.run(part.load_async())
        wanted = expected.isel(time=[5, 2], x=slice(None, None, -2)).drop_vars("name")
        xr.testing.assert_identical(part, wanted.load())
    assert batches == [3]  # temp, crs and sparse; label came with the opening


def test_an_error_of_load_async_is_of_the_variable_that_is_bad(index, server, archive):
    if not hasattr(xr.Dataset, "load_async"):
        pytest.skip("this xarray does not load asynchronously")
    group = open_index(index)
    body = bytearray(archive.read_bytes())
    body[int(group["temp"].manifest.offset[0]) + 2] ^= 0xFF
    server.content = {"archive.nc": bytes(body)}
    write_json(scan(server.url("archive.nc")), index)

    async def load(dataset):
        variables = [dataset[name].load_async() for name in ("temp", "crs", "sparse")]
        return await asyncio.gather(*variables, return_exceptions=True)

    with open_dataset(index) as ours:
        temp, crs, sparse = asyncio.run(load(ours))
    assert temp.path == "/temp"
    assert crs == 5
    assert sparse[7, 3] == 1.5
