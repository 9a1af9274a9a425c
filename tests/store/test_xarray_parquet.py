"""A Parquet index is opened like any other, and its partitions stay where they are until needed."""

import json
import pickle

import netCDF4
import numpy as np
import pytest
import xarray as xr

import byteatlas
from byteatlas.errors import SourceChanged
from byteatlas.index.partitions import Partitions
from byteatlas.store import opened
from byteatlas.store.xarray_engine import ByteatlasBackendEntrypoint

pytest.importorskip("pyarrow")


@pytest.fixture
def parquet(scanned, tmp_path):
    """Return the path of a Parquet index of the archive, two references in each partition."""
    path = tmp_path / "archive.parq"
    scanned.to_parquet(path, record_size=2)
    return path


@pytest.fixture
def loads(monkeypatch):
    """Return a list that grows by the number of partitions of each array that is looked into."""
    seen = []
    load = Partitions.load

    def recorded(self, array, numbers):
        seen.append(list(numbers))
        return load(self, array, numbers)

    monkeypatch.setattr(Partitions, "load", recorded)
    return seen


def test_a_parquet_index_is_identical_to_the_source(parquet, archive):
    for group in (None, "forecast"):
        with (
            xr.open_dataset(parquet, engine="byteatlas", group=group) as ours,
            xr.open_dataset(archive, engine="netcdf4", group=group) as expected,
        ):
            xr.testing.assert_identical(ours.load(), expected.load())


def test_a_parquet_index_is_recognised(parquet, tmp_path):
    engine = ByteatlasBackendEntrypoint()
    assert engine.guess_can_open(parquet)
    assert engine.guess_can_open(f"{parquet}/")
    with xr.open_dataset(parquet) as ours:
        assert "temp" in ours
    document = json.loads((parquet / ".zmetadata").read_text())
    del document["byteatlas"]
    (parquet / ".zmetadata").write_text(json.dumps(document))
    assert not engine.guess_can_open(parquet)  # another program's, which may be zarr's
    with xr.open_dataset(parquet, engine="byteatlas") as ours:
        assert "temp" in ours


def test_opening_loads_no_partition_of_a_data_variable(parquet, loads, archive):
    with xr.open_dataset(parquet, engine="byteatlas", chunks={}) as ours:
        opening = len(loads)
        row = ours["temp"][4, 3]
        assert len(loads) == opening
        assert ours["temp"].chunks == ((10,), (50,))
    with xr.open_dataset(parquet, engine="byteatlas") as ours:
        del loads[:]
        row = ours["temp"][4, 3].load()
        assert loads == [[1]]  # chunk 3 of 12 is in the second partition
    with xr.open_dataset(archive, engine="netcdf4") as expected:
        xr.testing.assert_identical(row, expected["temp"][4, 3].load())


def test_pickles_say_where_it_is(parquet, archive, scanned):
    with xr.open_dataset(parquet, engine="byteatlas", chunks={}) as ours:
        data = pickle.dumps(ours)
    group = byteatlas.open_index(parquet)
    with xr.open_dataset(group, engine="byteatlas") as ours:
        other = pickle.dumps(ours)
    opened._LIVE.clear()
    opened._RECENT.clear()
    with xr.open_dataset(archive, engine="netcdf4") as expected:
        xr.testing.assert_identical(pickle.loads(data).load(), expected.load())
        xr.testing.assert_identical(pickle.loads(other).load(), expected.load())
    opened._LIVE.clear()
    opened._RECENT.clear()
    scanned.to_parquet(parquet, record_size=3)
    with pytest.raises(SourceChanged):
        pickle.loads(data)


def test_a_parquet_index_over_http(parquet, server, archive):
    for path in parquet.rglob("*"):
        if path.is_file():
            server.content[f"a.parq/{path.relative_to(parquet)}"] = path.read_bytes()
    with (
        byteatlas.open_dataset(server.url("a.parq")) as ours,
        xr.open_dataset(archive, engine="netcdf4") as expected,
    ):
        twin = pickle.loads(pickle.dumps(ours))
        xr.testing.assert_identical(ours.load(), expected.load())
        xr.testing.assert_identical(twin.load(), expected.load())


def test_a_long_array_of_one_element_chunks_makes_one_task(tmp_path):
    path = tmp_path / "long.nc"
    with netCDF4.Dataset(path, "w") as data:
        data.createDimension("time", None)
        data.createVariable("v", "i4", ("time",), chunksizes=(1,))[:] = np.arange(500)
    byteatlas.scan(str(path)).to_parquet(tmp_path / "long.parq", record_size=100)
    with xr.open_dataset(tmp_path / "long.parq", engine="byteatlas", chunks={}) as ours:
        assert ours["v"].data.npartitions == 1
        np.testing.assert_array_equal(ours["v"].compute(), np.arange(500))
