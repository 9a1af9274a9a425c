"""What a dataset says of its reading: the cost before, and filled chunks after."""

import warnings
from concurrent.futures import ThreadPoolExecutor

import netCDF4
import numpy as np
import pytest
import xarray as xr

from byteatlas.errors import Malformed
from byteatlas.index.json_writer import write_json
from byteatlas.opening import open_dataset
from byteatlas.read.filled import FilledChunks
from byteatlas.read.reader import Reader
from byteatlas.scanning import scan
from byteatlas.store.opened import Options, open_with

SELECTIONS = {
    "all": lambda data: data["temp"],
    "row": lambda data: data["temp"][3],
    "slices": lambda data: data["temp"][::-2, 5:9],
    "lists": lambda data: data["temp"].isel(time=[7, 0], x=[1, 40]),
    "points": lambda data: data["temp"].isel(
        time=xr.DataArray([1, 8], dims="p"), x=xr.DataArray([2, 45], dims="p")
    ),
    "label": lambda data: data["temp"].sel(time="2000-01-04"),
    "transposed": lambda data: data["temp"].transpose()[:, 2],
    "twice": lambda data: data["temp"][2:9][1:3, 4:],
    "characters": lambda data: data["name"][3:7],
    "characters, one": lambda data: data["name"][-1],
    "scalar": lambda data: data["crs"],
    "missing": lambda data: data["sparse"][:2],
    "nothing": lambda data: data["temp"].isel(time=[]),
}


@pytest.mark.parametrize("select", SELECTIONS.values(), ids=SELECTIONS)
def test_the_cost_is_what_the_read_then_takes(index, server, select):
    with open_dataset(index, decode_times=True) as ours:
        part = select(ours)
        server.clear()
        cost = part.byteatlas.cost()
        assert server.log == []
        part.load()
        assert cost.requests == len(server.log)
        assert cost.bytes_fetched == server.bytes_sent


def test_the_cost_is_readable(index):
    with open_dataset(index) as ours:
        cost = ours["temp"][:4].byteatlas.cost()
    assert cost.chunks == 6
    assert [source.url for source in cost.sources] == [ours["temp"].encoding["source"]]
    assert "6 chunks of 1 source" in str(cost)


def test_what_has_no_cost_says_why(index, archive):
    with open_dataset(index) as ours, open_dataset(index, chunks={}) as chunked:
        ours["crs"].load()
        for array in (ours["crs"], ours["time"], ours["temp"] + 1, xr.DataArray([1], name="mine")):
            with pytest.raises(ValueError, match="in memory, or it was not opened"):
                array.byteatlas.cost()
        with pytest.raises(ValueError, match="array of dask: open the dataset without chunks"):
            chunked["temp"].byteatlas.cost()
    with (
        xr.open_dataset(archive, engine="netcdf4") as other,
        pytest.raises(ValueError, match="not opened with engine='byteatlas'"),
    ):
        other["temp"].byteatlas.cost()


# Loading at once


@pytest.fixture
def batches(monkeypatch):
    """Return a list that grows by the paths of each batch of reads."""
    seen = []
    read_many = Reader.read_many

    def recorded(self, several, *more, **named):
        seen.append([path for _, _, path in several])
        return read_many(self, several, *more, **named)

    monkeypatch.setattr(Reader, "read_many", recorded)
    return seen


def test_variables_are_loaded_together_and_are_what_xarray_loads(index, archive, batches):
    def part(data):
        return data.isel(time=[5, 2], x=slice(None, None, -2)).isel(x=slice(3, 20))

    with (
        open_dataset(index) as ours,
        xr.open_dataset(archive, engine="netcdf4") as expected,
    ):
        del batches[:]
        mine = part(ours)
        assert mine.byteatlas.load() is mine
        assert len(batches) == 1
        assert {"/temp", "/name", "/crs", "/sparse"} <= set(batches[0])
        xr.testing.assert_identical(mine, part(expected).load())
        assert all(variable._in_memory for variable in mine.variables.values())
        xr.testing.assert_identical(ours.load(), expected.load())


def test_of_many_bytes_a_batch_is_a_part(index, archive, monkeypatch):
    from byteatlas.store import accessor

    monkeypatch.setattr(accessor, "BATCH", 1000)
    with (
        open_dataset(index) as ours,
        open_dataset(index, group="forecast") as other,
        xr.open_dataset(archive, engine="netcdf4") as expected,
        xr.open_dataset(archive, engine="netcdf4", group="forecast") as expected_other,
    ):
        both = xr.merge([ours, other]).byteatlas.load()
        xr.testing.assert_identical(both, xr.merge([expected, expected_other]).load())


def test_each_index_has_its_own_batch_and_each_selection_its_own_values(index, archive, batches):
    with (
        open_dataset(index) as ours,
        open_dataset(archive) as other,
        xr.open_dataset(archive, engine="netcdf4") as expected,
    ):
        del batches[:]
        parts = {
            "a": ours["temp"][2].drop_vars("time"),
            "b": ours["temp"][3].drop_vars("time"),
            "c": other["temp"][4].drop_vars("time"),
        }
        loaded = xr.Dataset(parts).byteatlas.load()
        assert sorted(map(len, batches)) == [1, 2]
        for name, row in {"a": 2, "b": 3, "c": 4}.items():
            np.testing.assert_array_equal(loaded[name], expected["temp"][row])


def test_a_dataset_of_dask_and_of_others_loads_too(index, archive):
    with (
        open_dataset(index, chunks={}) as ours,
        xr.open_dataset(archive, engine="netcdf4") as expected,
    ):
        xr.testing.assert_identical(ours.byteatlas.load(), expected.load())
    mine = xr.Dataset({"a": ("x", [1, 2])})
    assert mine.byteatlas.load() is mine


def test_values_are_handed_over_for_their_selection_once_and_to_one_thread(scanned):
    opened = open_with(scanned, Options())
    rows, row = (slice(0, 2), slice(0, 50)), (1, np.array([3, 4]))
    with (
        ThreadPoolExecutor(1) as pool,
        opened.handing_over([("/temp", rows, 1), ("/temp", row, 2)]),
    ):
        assert pool.submit(opened.handed, "/temp", rows).result() is None
        assert opened.handed("/name", rows) is None
        assert opened.handed("/temp", (slice(0, 3), slice(0, 50))) is None
        assert opened.handed("/temp", (1, np.array([3, 5]))) is None
        assert opened.handed("/temp", (1, np.array([3, 4]))) == 2
        assert opened.handed("/temp", row) is None
    assert opened.handed("/temp", rows) is None


# Filled chunks


@pytest.fixture
def damaged(tmp_path):
    """Return the path of a file with one chunk of nine that does not inflate."""
    path = tmp_path / "damaged.nc"
    with netCDF4.Dataset(path, "w") as data:
        data.createDimension("x", 30)
        data.createDimension("y", 30)
        for name in "ab":
            data.createVariable(name, "f4", ("x", "y"), zlib=True, chunksizes=(10, 10))[:] = 7
        data.createVariable("x", "i4", ("x",))[:] = range(30)
    group = scan(str(path))
    body = bytearray(path.read_bytes())
    at, length = group["a"].manifest.offset[4], group["a"].manifest.length[4]
    body[int(at) : int(at + length)] = b"\xff" * int(length)
    path.write_bytes(body)
    write_json(scan(str(path)), tmp_path / "damaged.json")
    return tmp_path / "damaged.json"


@pytest.mark.parametrize("chunks", [None, {}], ids=["numpy", "dask"])
def test_filled_chunks_are_listed_also_after_loading(damaged, chunks):
    options = {"engine": "byteatlas", "on_error": "fill-and-report", "chunks": chunks}
    with xr.open_dataset(damaged, **options) as ours:
        assert ours["a"].byteatlas.filled == []
        with pytest.warns(FilledChunks):
            values = ours["a"].values
        ours.load() if chunks is None else None
        (filled,) = ours["a"].byteatlas.filled
        assert filled.chunk == (1, 1)
        assert filled.path == "/a"
        assert ours["a"][3:].byteatlas.filled == ours.byteatlas.filled == [filled]
        assert ours["b"].byteatlas.filled == []
        expected = np.full((30, 30), 7, "f4")
        expected[10:20, 10:20] = np.nan
        np.testing.assert_array_equal(values, expected)


def test_without_being_told_to_fill_there_is_an_error_and_no_list(damaged):
    with xr.open_dataset(damaged, engine="byteatlas") as ours:
        with pytest.raises(Malformed):
            ours["a"].load()
        with pytest.raises(ValueError, match="was not opened with on_error='fill-and-report'"):
            _ = ours["a"].byteatlas.filled
        assert ours.byteatlas.filled == []


def test_a_filled_dataset_is_copied_pickled_and_written(damaged, tmp_path):
    import copy
    import pickle

    options = {"engine": "byteatlas", "on_error": "fill-and-report"}
    with xr.open_dataset(damaged, **options) as ours, warnings.catch_warnings():
        warnings.simplefilter("ignore", FilledChunks)
        for twin in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours)), ours.copy()):
            assert int(twin["a"].isnull().sum()) == 100
        ours.load().to_netcdf(tmp_path / "out.nc", engine="netcdf4")
    with xr.open_dataset(tmp_path / "out.nc", engine="netcdf4") as written:
        assert int(written["a"].isnull().sum()) == 100
