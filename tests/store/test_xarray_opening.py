"""What opening a dataset reads: coordinates and times of all groups in one batch, nothing else."""

import netCDF4
import numpy as np
import pytest
import xarray as xr

from byteatlas.errors import Malformed, SourceChanged
from byteatlas.index.json_writer import write_json
from byteatlas.read.reader import Reader
from byteatlas.scanning import scan
from byteatlas.store import first_reads
from byteatlas.testing.server import Fault, RangeServer


def write_many(path):
    """Write 20 coordinates and 5 times over two groups, with much between them."""
    random = np.random.default_rng(1)
    with netCDF4.Dataset(path, "w") as data:
        for group in (data, data.createGroup("inner")):
            group.createDimension("time", 40)
            group.createDimension("nv", 2)
            for number in range(9):
                name = f"x{number}"
                group.createDimension(name, 30 + number)
                group.createVariable(name, "f4", (name,), zlib=True)[:] = np.arange(30 + number)
                big = group.createVariable(f"v{number}", "f4", ("time", name))
                big.coordinates = "height"
                big[:] = random.normal(size=(40, 30 + number))
            time = group.createVariable("time", "f8", ("time",))
            time.units = "days since 2000-01-01"
            time.bounds = "time_bounds"
            time[:] = np.arange(40)
            group.createVariable("time_bounds", "f8", ("time", "nv"))[:] = np.arange(80.0).reshape(
                40, 2
            )
            reference = group.createVariable("reference", "i4", ())
            reference.units = "hours since 1999-01-01"
            reference[...] = 12
            valid = group.createVariable("valid", "f8", ("time", "x0"), chunksizes=(1, 30))
            valid.units = "days since 2000-01-01"
            valid[:] = np.arange(1200).reshape(40, 30)
            group.createVariable("height", "f4", ())[...] = 2.0


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    path = tmp_path_factory.mktemp("many") / "many.nc"
    write_many(path)
    return path


@pytest.fixture
def served(many, tmp_path):
    """Return a server of the file, its log empty, and the path of the index."""
    with RangeServer({"many.nc": many.read_bytes()}) as server:
        write_json(scan(server.url("many.nc")), tmp_path / "many.json")
        server.clear()
        yield server, tmp_path / "many.json"


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


def open_without_indexes(index, **options):
    try:
        return xr.open_dataset(index, engine="byteatlas", create_default_indexes=False, **options)
    except TypeError:
        pytest.skip("this xarray always makes indexes")


def test_all_that_opening_looks_at_is_one_batch_of_few_requests(served, many, batches):
    server, index = served
    with xr.open_dataset(index, engine="byteatlas") as ours:
        assert len(batches) == 1
        assert sorted(set(batches[0])) == sorted(
            ["/time", "/time_bounds", "/reference", "/valid", "/height"]
            + [f"/x{number}" for number in range(9)]
        )
        assert len(server.log) < len(batches[0])
        with xr.open_dataset(many, engine="netcdf4") as expected:
            xr.testing.assert_identical(ours.load(), expected.load())


def test_the_groups_of_a_tree_are_opened_with_one_batch(served, many, batches):
    server, index = served
    with xr.open_datatree(index, engine="byteatlas") as ours:
        assert len(batches) == 1
        assert {"/x3", "/inner/x3", "/inner/time_bounds"} <= set(batches[0])
        assert len(server.log) < len(batches[0])
        with xr.open_datatree(many, engine="netcdf4") as expected:
            xr.testing.assert_identical(ours.load(), expected.load())


def test_without_indexes_and_times_opening_asks_for_nothing(served, batches):
    server, index = served
    dataset = open_without_indexes(index, decode_times=False)
    assert server.log == []
    assert batches == []
    with dataset:
        assert dataset["x3"].values[-1] == 32  # the first that is needed brings the others along
        assert dataset["x4"].values[-1] == 33
        assert len(batches) == 1


def test_dropped_variables_are_not_read(served, batches):
    _, index = served
    with xr.open_dataset(index, engine="byteatlas", drop_variables=["x1", "valid"]):
        assert not {"/x1", "/valid"} & set(batches[0])


def test_of_large_times_only_the_first_and_the_last_element_are_read(tmp_path, batches):
    path = tmp_path / "large.nc"
    with netCDF4.Dataset(path, "w") as data:
        data.createDimension("y", 100)
        data.createDimension("x", 200)
        valid = data.createVariable("valid", "f8", ("y", "x"), chunksizes=(10, 20))
        valid.units = "days since 2000-01-01"
        valid[:] = np.arange(20000).reshape(100, 200)
    with RangeServer({"large.nc": path.read_bytes()}) as server:
        write_json(scan(server.url("large.nc")), tmp_path / "large.json")
        server.clear()
        with xr.open_dataset(tmp_path / "large.json", engine="byteatlas") as ours:
            assert batches == [["/valid", "/valid"]]
            assert server.bytes_sent <= 2 * 8
            with xr.open_dataset(path, engine="netcdf4") as expected:
                xr.testing.assert_identical(ours.load(), expected.load())


def test_a_coordinate_above_the_bound_is_not_kept(served, batches, monkeypatch):
    _, index = served
    monkeypatch.setattr(first_reads, "INDEX", 32 * 4)
    with xr.open_dataset(index, engine="byteatlas", decode_times=False):
        assert "/x2" in batches[0]
        assert "/x3" not in batches[0]
        assert ["/x3"] in batches


def test_strings_are_read_with_the_rest_where_they_are_few(tmp_path, batches, monkeypatch):
    path = tmp_path / "strings.nc"
    names = np.array([f"station {n}" for n in range(40)], object)
    with netCDF4.Dataset(path, "w") as data:
        data.createDimension("station", 40)
        data.createVariable("station", str, ("station",))[:] = names
        data.createVariable("country", str, ("station",))[:] = names
        data.createVariable("one", str, ())[...] = "alone"
    with (
        xr.open_dataset(path, engine="byteatlas") as ours,
        xr.open_dataset(path, engine="netcdf4") as expected,
    ):
        assert len(batches) == 1
        assert {"/station", "/country", "/one"} == set(batches[0])
        for name in expected.variables:
            assert ours[name].dtype == expected[name].dtype
        xr.testing.assert_identical(ours.load(), expected.load())
    del batches[:]
    monkeypatch.setattr(first_reads, "SHORT", 30)
    with xr.open_dataset(path, engine="byteatlas") as ours:
        assert set(batches[0]) == {"/station", "/one"}
        assert len(batches) == 1  # xarray looked at the first country, and saw none
        assert ours["country"].dtype == object
        np.testing.assert_array_equal(ours["country"].values, names)
    with xr.open_dataset(path, engine="byteatlas", chunks={}) as ours:
        np.testing.assert_array_equal(ours["country"].values, names)


def test_one_bad_coordinate_does_not_spoil_the_others(served, many, batches):
    """The batch is given up, and each is read by itself: the error is of the one that is bad."""
    server, index = served
    body = bytearray(many.read_bytes())
    place = scan(str(many))["x5"].manifest.offset[0]
    body[int(place) + 2] ^= 0xFF
    server.content = {"many.nc": bytes(body)}
    write_json(scan(server.url("many.nc")), index)
    with pytest.raises(Malformed) as caught:
        xr.open_dataset(index, engine="byteatlas")
    assert caught.value.path == "/x5"
    with xr.open_dataset(index, engine="byteatlas", drop_variables="x5") as ours:
        assert ours["x6"].size == 36
    with open_without_indexes(index) as ours:  # nobody has asked for it
        assert ours["time"].dtype.kind == "M"
        with pytest.raises(Malformed):
            ours["x5"].load()
    with xr.open_dataset(index, engine="byteatlas", group="inner") as ours:
        assert ours["x5"].size == 35


def test_a_source_that_changed_is_an_error_at_opening(served):
    server, index = served
    server.faults.append(Fault(headers={"ETag": '"other"'}))
    with pytest.raises(SourceChanged):
        xr.open_dataset(index, engine="byteatlas")


def test_what_was_handed_out_can_be_changed_without_changing_the_next(served):
    _, index = served
    with xr.open_dataset(index, engine="byteatlas", decode_times=False) as ours:
        ours["height"].values[...] = 7
        with xr.open_dataset(index, engine="byteatlas", decode_times=False) as again:
            assert again["height"] == 2
    with xr.open_dataset(index, engine="byteatlas", cache=False) as ours:
        ours["height"].values[...] = 7
        assert ours["height"] == 2


@pytest.mark.parametrize(
    "key", [slice(3, 30, 4), slice(None, None, -3), -2, 0, [5, 1, 1], slice(4, 4), []], ids=str
)
def test_a_part_of_what_is_kept_is_what_numpy_gives(served, batches, key):
    _, index = served
    options = {"engine": "byteatlas", "decode_times": False, "cache": False}
    with xr.open_dataset(index, **options) as ours:
        count = len(batches)
        variable = ours["time_bounds"].isel(time=key)
        np.testing.assert_array_equal(variable.values, np.arange(80.0).reshape(40, 2)[key])
        assert len(batches) == count + 1  # a bound is no time where times are not decoded
    with xr.open_dataset(index, engine="byteatlas", cache=False) as ours:
        count = len(batches)
        np.testing.assert_array_equal(
            ours["time_bounds"].isel(time=key).values.astype("M8[D]").astype(float) - 10957,
            np.arange(80.0).reshape(40, 2)[key],
        )
        assert len(batches) == count


def test_boxes_answer_what_lies_in_them_alone(many):
    group = scan(str(many))
    box = first_reads.FirstRead(group["time_bounds"], "/time_bounds", (10, 0), (5, 2))
    reads = first_reads.FirstReads([[box]], Reader(group.sources))
    whole = np.arange(80.0).reshape(40, 2)
    for key in (
        (slice(10, 15), 1),
        (-30, -1),
        (np.array([14, 10, -27]), slice(None, None, -1)),
        (slice(14, 9, -2), np.array([0])),
    ):
        np.testing.assert_array_equal(reads.answer("/time_bounds", key), whole[key])
    for key in ((slice(9, 12), 0), (15, 0), (-31, 0), (np.array([10, 15]), slice(None))):
        assert reads.answer("/time_bounds", key) is None
    assert reads.answer("/time", (10,)) is None


def test_strings_bring_nothing_along_where_there_may_be_nothing(tmp_path, batches):
    path = tmp_path / "strings.nc"
    with netCDF4.Dataset(path, "w") as data:
        data.createDimension("x", 3)
        data.createVariable("x", "f4", ("x",))[:] = np.arange(3)
        data.createVariable("name", str, ("x",))[:] = np.array(list("abc"), object)
    with xr.open_dataset(path, engine="byteatlas", decode_times=False):
        assert batches == [["/name"], ["/x"]]
    del batches[:]
    with xr.open_dataset(path, engine="byteatlas"):
        assert [sorted(batch) for batch in batches] == [["/name", "/x"]]
