"""What a dataset says of its reading: the cost before, and filled chunks after."""

import copy
import pickle
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import netCDF4
import numpy as np
import pytest
import xarray as xr

from byteatlas.errors import Malformed
from byteatlas.heap import Heap
from byteatlas.index.json_writer import write_json
from byteatlas.model import (
    WHOLE,
    ChunkManifest,
    Codec,
    Encoding,
    Source,
    VirtualArray,
    VirtualGroup,
)
from byteatlas.opening import open_dataset, open_index
from byteatlas.read.filled import FilledChunks
from byteatlas.read.reader import Reader
from byteatlas.scanning import scan
from byteatlas.store.dataset_cost import cost_together
from byteatlas.store.opened import Options, open_with

SELECTIONS = {
    "all": lambda data: data["temp"],
    "row": lambda data: data["temp"][3],
    "slices": lambda data: data["temp"][::-2, 5:9],
    "lists": lambda data: data["temp"].isel(time=[7, 0], x=[1, 40]),
    "points": lambda data: data["temp"].isel(
        time=xr.DataArray([1, 8], dims="p"), x=xr.DataArray([2, 45], dims="p")
    ),
    "many points": lambda data: data["temp"].isel(
        time=xr.DataArray([[1, 8], [1, 0]], dims=("p", "q")), x=xr.DataArray([45, 2], dims="p")
    ),
    "points of all times": lambda data: data["temp"].isel(
        x=xr.DataArray([[1, 8], [1, 49]], dims=("p", "q"))
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


@pytest.mark.parametrize("names", [["temp", "crs"], ["name", "sparse", "crs", "temp"], None])
def test_the_cost_of_a_dataset_is_what_loading_it_then_takes(index, server, names):
    with open_dataset(index) as ours:
        part = (ours if names is None else ours[names]).isel(x=slice(5, 30), drop=True)
        server.clear()
        cost = part.byteatlas.cost()
        assert server.log == []
        part.byteatlas.load()
        assert cost.requests == len(server.log)
        assert cost.bytes_fetched == server.bytes_sent
        assert part.byteatlas.cost().requests == 0


def test_the_places_of_strings_are_counted_by_themselves_as_they_are_read():
    heap = Heap(base=0, offset_size=8, length_size=8)

    def array(dtype, offset, encoding=()):
        columns = np.array([0], "u8"), np.array([offset], "u8"), np.array([100], "u8")
        manifest = ChunkManifest.build((1,), *columns)
        encodings = (Encoding((*encoding, Codec("zlib", {}))),)
        return VirtualArray((4,), dtype, (4,), manifest, encodings=encodings, dimensions=("x",))

    arrays = {
        "text": array(np.dtype(object), 100, heap.codecs()),
        "before": array(np.dtype("f4"), 0),
        "after": array(np.dtype("f4"), 200),
    }
    reader = Reader([Source("memory://heap.bin", 300)])
    wanted = [(one, ..., name) for name, one in arrays.items()]
    alone = {name: reader.cost(one) for name, one in arrays.items()}
    cost = cost_together(alone, [(reader, wanted)])
    # The places by themselves, and what lies on both sides of them in one request over them.
    assert (cost.requests, cost.bytes_fetched, cost.bytes_needed) == (2, 400, 300)
    assert cost.has_lookup
    assert "requests that look up its strings" in str(cost)


def test_the_cost_of_a_dataset_merges_requests_and_sums_all_else(index, server):
    with open_dataset(index) as ours:
        part = ours[["temp", "sparse", "crs"]]
        cost = part.byteatlas.cost()
        alone = {name: part[name].byteatlas.cost() for name in ("temp", "sparse", "crs")}
        assert dict(cost.variables) == alone  # time is in memory
        for what in ("chunks", "missing", "inlined", "decoded_bytes", "result_bytes"):
            assert getattr(cost, what) == sum(getattr(one, what) for one in alone.values())
        assert 0 < cost.requests < sum(one.requests for one in alone.values())
        (source,) = cost.sources
        assert source == (ours["temp"].encoding["source"], cost.requests, cost.bytes_fetched)
        assert "1 source" in str(cost)
        server.clear()
        part.load()
        assert len(server.log) == sum(one.requests for one in alone.values())


def test_the_cost_of_a_dataset_counts_each_index_by_itself(index, archive):
    with open_dataset(index) as ours, open_dataset(archive) as other:
        both = xr.Dataset({"a": ours["temp"].variable, "b": other["temp"].variable})
        cost = both.byteatlas.cost()
        assert len(cost.sources) == 2
        assert cost.requests == sum(one.requests for one in cost.variables.values())
    assert xr.Dataset({"a": ("x", [1])}).byteatlas.cost().requests == 0


def test_the_cost_of_a_dataset_of_dask_or_of_others_says_why_there_is_none(index, archive):
    with (
        open_dataset(index, chunks={}) as chunked,
        pytest.raises(ValueError, match="array of dask: open the dataset without chunks"),
    ):
        chunked.byteatlas.cost()
    with (
        xr.open_dataset(archive, engine="netcdf4") as other,
        pytest.raises(ValueError, match="not opened with engine='byteatlas'"),
    ):
        other.byteatlas.cost()


def test_the_cost_of_whole_sources_of_unknown_size_is_not_counted_in_bytes():
    def dataset(size):
        manifest = ChunkManifest.build(
            (1,), np.array([0], "u8"), np.array([4], "u8"), np.array([WHOLE], "u8")
        )
        encodings = (Encoding((Codec("zlib", {}),)),)
        array = VirtualArray(
            (4,), np.dtype("u1"), (4,), manifest, encodings=encodings, dimensions=("x",)
        )
        sources = (Source("memory://rest.bin", size),)
        return xr.open_dataset(
            VirtualGroup(arrays={"a": array}, sources=sources), engine="byteatlas"
        )

    known, unknown_size = dataset(10).byteatlas.cost(), dataset(None).byteatlas.cost()
    assert (known.requests, known.bytes_fetched, known.open_requests) == (1, 6, 0)
    assert (unknown_size.requests, unknown_size.bytes_fetched) == (1, 0)
    assert unknown_size.open_requests == 1


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


def test_an_array_is_loaded_together_with_its_coordinates(index, archive, batches):
    with (
        open_dataset(index) as ours,
        xr.open_dataset(archive, engine="netcdf4") as expected,
    ):
        del batches[:]
        mine = ours.set_coords(["crs", "sparse"])["temp"][2:5]
        assert mine.byteatlas.load() is mine
        assert [sorted(batch) for batch in batches] == [["/crs", "/sparse", "/temp"]]
        theirs = expected.set_coords(["crs", "sparse"])["temp"][2:5]
        xr.testing.assert_identical(mine, theirs.load())
        assert mine.variable._in_memory
    plain = xr.DataArray([1, 2])
    assert plain.byteatlas.load() is plain


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


def unknown(name="'a'", why="not opened with on_error='fill-and-report', or was computed since"):
    return pytest.raises(ValueError, match=f"nothing is known of filled chunks of {name}: .*{why}")


def test_without_being_told_to_fill_there_is_an_error_and_no_list(damaged):
    with xr.open_dataset(damaged, engine="byteatlas") as ours:
        with pytest.raises(Malformed):
            ours["a"].load()
        with unknown():
            _ = ours["a"].byteatlas.filled
        with unknown():
            _ = ours.byteatlas.filled


@pytest.mark.filterwarnings("ignore::byteatlas.read.filled.FilledChunks")
def test_what_is_not_of_this_engine_or_was_computed_has_no_list(damaged):
    mine = xr.Dataset({"a": ("x", [1, 2])})
    with unknown():
        _ = mine["a"].byteatlas.filled
    with unknown():
        _ = mine.byteatlas.filled
    with pytest.raises(ValueError, match="filled chunks of a dataset without variables"):
        _ = xr.Dataset().byteatlas.filled
    with filling(damaged) as ours:
        # The coordinate x has been opened with it, which says nothing of the values.
        computed = (ours[["a"]] * 2).assign_coords(x=ours["x"])
        assert "byteatlas" in computed["x"].encoding
        with unknown():
            _ = computed.byteatlas.filled
        with unknown("'c'"):
            _ = ours.assign(c=ours["b"] + 1).byteatlas.filled
        assert ours[["b"]].byteatlas.filled == ours[["x"]].byteatlas.filled == []


@pytest.mark.filterwarnings("ignore::byteatlas.read.filled.FilledChunks")
def test_what_is_put_together_of_several_openings_has_no_list(damaged):
    with filling(damaged) as ours, filling(damaged) as other:
        joined = xr.concat([ours, other.load()], "x", data_vars="all")
        for whole in (joined, joined["a"]):
            with unknown(why="ask each of them"):
                _ = whole.byteatlas.filled


def filling(target, **options):
    return xr.open_dataset(target, engine="byteatlas", on_error="fill-and-report", **options)


def places(filled):
    return [(one.path, one.chunk) for one in filled]


@pytest.mark.filterwarnings("ignore::byteatlas.read.filled.FilledChunks")
def test_a_chunk_that_is_read_twice_is_listed_once(damaged):
    with filling(damaged) as ours:
        ours["a"][12].load()
        ours["a"][13].load()
        same = ours.assign(again=ours["a"]).load()
        for one in (ours, ours["a"], same, same["again"]):
            assert places(one.byteatlas.filled) == [("/a", (1, 1))]


@pytest.mark.filterwarnings("ignore::byteatlas.read.filled.FilledChunks")
def test_each_opening_has_its_own_list(damaged):
    with filling(damaged) as ours, filling(damaged) as other:
        ours.load()
        assert other.byteatlas.filled == []
        other.load()
        both = ours[["a"]].assign(b=other["a"])
        assert places(both.byteatlas.filled) == [("/a", (1, 1))] * 2


READS = {
    "values": lambda data: data["a"].values,
    "load": lambda data: data.load(),
    "part": lambda data: data.isel(x=15).load(),
    "together": lambda data: data.byteatlas.load(),
    "array": lambda data: data["a"].byteatlas.load(),
    "threads": lambda data: data.chunk().compute(scheduler="threads"),
}


@pytest.mark.filterwarnings("ignore::byteatlas.read.filled.FilledChunks")
@pytest.mark.parametrize("read", READS.values(), ids=READS)
@pytest.mark.parametrize("has_index", [True, False], ids=["index", "group"])
def test_what_is_unpickled_lists_what_its_reads_fill(damaged, read, has_index):
    with filling(damaged if has_index else open_index(damaged)) as ours:
        pickled = pickle.dumps(ours)
        for twin in (pickle.loads(pickled), copy.deepcopy(ours)):
            read(twin)
            assert places(twin.byteatlas.filled) == [("/a", (1, 1))]
            assert places(twin["a"].byteatlas.filled) == [("/a", (1, 1))]
    del ours, twin
    later = pickle.loads(pickled)
    read(later)
    assert places(later.byteatlas.filled) == [("/a", (1, 1))]


@pytest.mark.filterwarnings("ignore::byteatlas.read.filled.FilledChunks")
@pytest.mark.parametrize("has_index", [True, False], ids=["index", "group"])
def test_another_process_lists_what_was_filled_before_and_there(damaged, has_index):
    code = """if True:
        import pickle, sys, warnings
        warnings.simplefilter("ignore")
        data = pickle.load(sys.stdin.buffer)
        before = [(one.path, one.chunk) for one in data.byteatlas.filled]
        data["a"][15].values
        print(before, [(one.path, one.chunk) for one in data.byteatlas.filled])
        """
    with filling(damaged if has_index else open_index(damaged)) as ours:
        unread = pickle.dumps(ours)
        _ = ours["a"][10].values
        for pickled, before in ((unread, []), (pickle.dumps(ours), [("/a", (1, 1))])):
            command = [sys.executable, "-c", code]
            done = subprocess.run(command, input=pickled, capture_output=True, check=True)
            assert done.stdout.decode().strip() == f"{before} {[('/a', (1, 1))]}"


@pytest.mark.filterwarnings("ignore::byteatlas.read.filled.FilledChunks")
def test_the_list_does_not_grow_with_every_copy(damaged):
    with filling(damaged) as ours:
        ours.load()
        log = ours["a"].encoding["byteatlas"].log
        assert copy.deepcopy(log) is pickle.loads(pickle.dumps(log)) is log
        assert len(log.chunks) == 1


def test_a_filled_dataset_is_copied_pickled_and_written(damaged, tmp_path):
    options = {"engine": "byteatlas", "on_error": "fill-and-report"}
    with xr.open_dataset(damaged, **options) as ours, warnings.catch_warnings():
        warnings.simplefilter("ignore", FilledChunks)
        for twin in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours)), ours.copy()):
            assert int(twin["a"].isnull().sum()) == 100
        ours.load().to_netcdf(tmp_path / "out.nc", engine="netcdf4")
    with xr.open_dataset(tmp_path / "out.nc", engine="netcdf4") as written:
        assert int(written["a"].isnull().sum()) == 100
