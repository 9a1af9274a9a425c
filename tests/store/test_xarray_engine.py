"""xarray sees through an index what it sees in the source itself."""

import gzip
import pickle
import threading

import h5netcdf
import netCDF4
import numpy as np
import pytest
import xarray as xr

from byteatlas.errors import NotRecognised, SourceChanged, SourceDenied, SourceError, SourceMissing
from byteatlas.index.json_writer import to_json_bytes, write_json
from byteatlas.model import VirtualGroup
from byteatlas.opening import open_dataset, open_datatree
from byteatlas.scanning import scan
from byteatlas.store.xarray_engine import ByteatlasBackendEntrypoint
from byteatlas.testing.server import Fault

GROUPS = [None, "/", "forecast", "/forecast/inner/"]
POINTS = xr.DataArray([1, 2], dims="point")
SQUARE = xr.DataArray([[1, 2, 0], [2, 2, 5]], dims=("a", "b"))
DECODING = {
    "all": {},
    "nothing": {"decode_cf": False},
    "no times": {"decode_times": False},
    "no masks": {"mask_and_scale": False},
    "no characters": {"concat_characters": False},
    "all coordinates": {"decode_coords": "all"},
    "without temp": {"drop_variables": ["temp"]},
}


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("engine", ["netcdf4", "h5netcdf"])
def test_every_group_is_identical_to_the_source(index, archive, group, engine):
    with (
        xr.open_dataset(index, engine="byteatlas", group=group) as ours,
        xr.open_dataset(archive, engine=engine, group=group) as expected,
    ):
        xr.testing.assert_identical(ours.load(), expected.load())


@pytest.mark.parametrize("options", DECODING.values(), ids=DECODING)
def test_every_way_of_decoding_is_identical(index, archive, options):
    with (
        xr.open_dataset(index, engine="byteatlas", **options) as ours,
        xr.open_dataset(archive, engine="netcdf4", **options) as expected,
    ):
        xr.testing.assert_identical(ours.load(), expected.load())
        for name, variable in expected.variables.items():
            assert ours[name].dtype == variable.dtype
            for key, value in variable.attrs.items():
                assert type(ours[name].attrs[key]) is type(value)


def test_encodings_are_kept_as_the_netcdf4_engine_keeps_them(index, archive, server):
    kept = ("dtype", "original_shape", "zlib", "shuffle", "fletcher32", "_FillValue", "units")
    with (
        xr.open_dataset(index, engine="byteatlas") as ours,
        xr.open_dataset(archive, engine="netcdf4") as expected,
    ):
        for name, variable in expected.variables.items():
            for key in (*kept, "scale_factor", "add_offset", "calendar", "char_dim_name"):
                assert ours[name].encoding.get(key) == variable.encoding.get(key), (name, key)
            if variable.encoding.get("chunksizes"):
                for key in ("chunksizes", "preferred_chunks"):
                    assert ours[name].encoding[key] == variable.encoding[key]
        assert ours["temp"].encoding["complevel"] == expected["temp"].encoding["complevel"]
        assert ours["temp"].encoding["source"] == server.url("archive.nc")
        assert ours.encoding["unlimited_dims"] == expected.encoding["unlimited_dims"] == {"time"}


def test_a_dataset_is_written_to_netcdf_as_it_was(index, archive, tmp_path):
    with xr.open_dataset(index, engine="byteatlas") as ours:
        ours.to_netcdf(tmp_path / "copy.nc", engine="netcdf4")
    with netCDF4.Dataset(archive) as old, netCDF4.Dataset(tmp_path / "copy.nc") as new:
        assert new["temp"].chunking() == old["temp"].chunking()
        assert new["temp"].filters() == old["temp"].filters()
        assert new["temp"].dtype == old["temp"].dtype
        assert new.dimensions["time"].isunlimited()
        for variable in (old["temp"], new["temp"]):
            variable.set_auto_maskandscale(False)
        np.testing.assert_array_equal(new["temp"][:], old["temp"][:])


def test_enumerations_keep_their_meaning(tmp_path):
    path = tmp_path / "enum.nc"
    with netCDF4.Dataset(path, "w") as data:
        data.createDimension("x", 3)
        kind = data.createEnumType("u1", "cloud_t", {"clear": 0, "cloudy": 1})
        data.createVariable("sky", kind, ("x",))[:] = [0, 1, 0]
    with (
        open_dataset(path) as ours,
        xr.open_dataset(path, engine="netcdf4") as expected,
    ):
        xr.testing.assert_identical(ours.load(), expected.load())
        metadata = ours["sky"].encoding["dtype"].metadata
        assert metadata["enum"] == expected["sky"].encoding["dtype"].metadata["enum"]


def test_trees_are_identical(index, archive):
    with (
        xr.open_datatree(index, engine="byteatlas") as ours,
        xr.open_datatree(archive, engine="netcdf4") as expected,
    ):
        xr.testing.assert_identical(ours.load(), expected.load())
    with (
        xr.open_datatree(index, engine="byteatlas", group="forecast") as ours,
        xr.open_datatree(archive, engine="netcdf4", group="forecast") as expected,
    ):
        xr.testing.assert_identical(ours.load(), expected.load())
    assert list(xr.open_groups(index, engine="byteatlas")) == ["/", "/forecast", "/forecast/inner"]


@pytest.mark.parametrize("group", ["nope", "temp", "forecast/nope", "forecast/wind"])
def test_a_group_that_is_not_there_is_an_error(index, group):
    with pytest.raises(OSError, match=f"group not found: {group}"):
        xr.open_dataset(index, engine="byteatlas", group=group)


def test_a_group_that_is_not_there_is_told_with_those_there_are(index, scanned, tmp_path):
    there = "its groups are /forecast, /forecast/inner"
    for open_one in (xr.open_dataset, xr.open_datatree):
        with pytest.raises(OSError) as caught:
            open_one(index, engine="byteatlas", group="nope")
        assert str(caught.value) == f"{index}: group not found: nope; {there}"
    with pytest.raises(OSError) as caught:
        xr.open_dataset(str(index), engine="byteatlas", group="forecast/wind")
    told = f"{index}: group not found: forecast/wind, which is a variable; {there}"
    assert str(caught.value) == told
    with pytest.raises(OSError) as caught:
        xr.open_dataset(scanned, engine="byteatlas", group="nope")
    assert str(caught.value) == f"group not found: nope; {there}"


def test_of_groups_that_are_not_there_few_others_are_named():
    many = VirtualGroup(groups={f"g{number}": VirtualGroup() for number in range(21)})
    for group, end in (
        (many, "/g18, /g19, ..."),
        (VirtualGroup(), "it has no groups"),
        (VirtualGroup(groups={"a\x1b[2J": VirtualGroup()}), "its groups are /a�[2J"),
    ):
        with pytest.raises(OSError, match="group not found: nope; ") as caught:
            xr.open_dataset(group, engine="byteatlas", group="nope")
        assert str(caught.value).endswith(end)


def test_every_kind_of_target_opens(index, archive, scanned, server, tmp_path):
    packed = tmp_path / "packed.json.gz"
    packed.write_bytes(gzip.compress(index.read_bytes()))
    server.content["packed.json"] = index.read_bytes()
    targets = [index, str(index), packed, archive, str(archive), scanned]
    targets += [server.url("packed.json"), server.url("archive.nc")]
    with xr.open_dataset(archive, engine="netcdf4") as expected:
        for target in targets:
            with open_dataset(target) as ours, xr.open_dataset(target, engine="byteatlas") as same:
                xr.testing.assert_identical(ours.load(), expected.load())
                xr.testing.assert_identical(same.load(), expected)
            with open_dataset(target, "forecast") as inner:
                assert "wind" in inner
            with open_datatree(target) as tree:
                assert set(tree.groups) == {"/", "/forecast", "/forecast/inner"}


def test_what_is_neither_is_not_recognised(tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("hello")
    with pytest.raises(NotRecognised):
        open_dataset(other)


def test_xarray_chooses_this_engine_for_our_indexes_only(index, archive, scanned, tmp_path):
    engine = ByteatlasBackendEntrypoint()
    kerchunk = tmp_path / "kerchunk.json"
    kerchunk.write_text('{"version": 1, "refs": {}}')
    assert engine.guess_can_open(index)
    assert engine.guess_can_open(str(index))
    assert engine.guess_can_open(scanned)
    assert engine.guess_can_open({"byteatlas": {}, "version": 1, "refs": {}})
    for other in (archive, kerchunk, tmp_path, "nope.json", "http://h/a.nc", {}, b"CDF\1", 7):
        assert not engine.guess_can_open(other)
    with xr.open_dataset(index) as ours:
        assert "temp" in ours


# Reading


def test_opening_fetches_no_value_but_coordinates(index, server):
    server.clear()
    with open_dataset(index, decode_times=False) as ours:
        assert [entry.range[1] for entry in server.log] == [80]  # time, which xarray indexes by
        server.clear()
        ours["temp"][0, 0].load()
        assert len(server.log) == 1


@pytest.mark.parametrize(
    "select",
    [
        lambda data: data["temp"][3],
        lambda data: data["temp"][::-2, 5:9],
        lambda data: data["temp"].isel(time=[7, 0, 0], x=[1, 40]),
        lambda data: data["temp"].isel(time=POINTS, x=POINTS + 2),
        lambda data: data["temp"].isel(x=POINTS[::-1] - 20, time=POINTS),
        lambda data: data["temp"].isel(time=SQUARE, x=SQUARE.T + 40),
        lambda data: data["temp"].isel(time=SQUARE)[:, ::-1, 3:9],
        lambda data: data["temp"][:, ::-2].isel(time=POINTS, x=POINTS)[::-1],
        lambda data: data["temp"].transpose().isel(time=SQUARE, x=SQUARE[0]),
        lambda data: data["name"].isel(x=SQUARE),
        lambda data: data["label"].isel(x=SQUARE),
        lambda data: data["temp"].isel(time=POINTS[:0], x=POINTS[:0]),
        lambda data: data["temp"].sel(time="2000-01-04"),
        lambda data: data["temp"].sel(time=slice("2000-01-02", "2000-01-05")),
        lambda data: data["label"][::9],
        lambda data: data["name"][3],
        lambda data: data["crs"],
        lambda data: data["temp"].isel(time=[]),
    ],
)
@pytest.mark.parametrize("chunks", [None, {}], ids=["numpy", "dask"])
def test_selections_are_identical(index, archive, select, chunks):
    with (
        open_dataset(index, chunks=chunks) as ours,
        xr.open_dataset(archive, engine="netcdf4", chunks=chunks) as expected,
    ):
        xr.testing.assert_identical(select(ours).load(), select(expected).load())


def test_points_read_their_chunks_and_no_others(index, server):
    places = xr.DataArray([0, 49, 25], dims="station")
    with open_dataset(index) as ours:
        part = ours["temp"].isel(time=places // 6, x=places)
        server.clear()
        cost = part.byteatlas.cost()
        assert (cost.chunks, cost.shape) == (3, (3,))  # not the nine of their product
        part.load()
        assert server.bytes_sent == cost.bytes_fetched


@pytest.mark.parametrize("scheduler", ["threads", "synchronous"])
def test_dask_reads_and_computes(index, archive, scheduler):
    with (
        open_dataset(index, chunks={}) as ours,
        xr.open_dataset(archive, engine="netcdf4") as expected,
    ):
        assert ours["temp"].chunks == ((10,), (50,))  # chunks of 120 bytes are merged
        rows = ours["temp"].chunk(time=3)
        assert rows.chunks == ((3, 3, 3, 1), (50,))
        mean = ours["temp"].mean("x").compute(scheduler=scheduler)
        xr.testing.assert_allclose(mean, expected["temp"].mean("x"))
        xr.testing.assert_identical(rows.compute(scheduler=scheduler), expected["temp"].compute())


def test_lazy_datasets_are_picklable(index, archive):
    with (
        open_dataset(index) as ours,
        open_dataset(index, chunks={}) as chunked,
        xr.open_dataset(archive, engine="netcdf4") as expected,
    ):
        for dataset in (ours, chunked):
            xr.testing.assert_identical(pickle.loads(pickle.dumps(dataset)).load(), expected.load())


def test_many_threads_read_one_dataset(index, archive):
    with (
        open_dataset(index) as ours,
        xr.open_dataset(archive, engine="netcdf4") as expected,
    ):
        values = expected["temp"].values
        wrong = []

        def read(row):
            if not np.array_equal(ours["temp"][row % 10].values, values[row % 10], equal_nan=True):
                wrong.append(row)

        threads = [threading.Thread(target=read, args=(row,)) for row in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []


def test_a_closed_dataset_leaves_others_of_the_same_index_open(index):
    tree = open_datatree(index)
    tree["forecast"].close()
    assert tree["temp"].load().size == 500


# Faults


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault(status=404), SourceMissing),
        (Fault(status=403), SourceDenied),
        (Fault(status=503, headers={"Retry-After": "0"}), SourceError),
        (Fault(headers={"ETag": '"other"'}), SourceChanged),
        (Fault(body=b"x"), SourceError),
    ],
    ids=["404", "403", "503", "other etag", "short"],
)
@pytest.mark.parametrize("chunks", [None, {}], ids=["numpy", "dask"])
def test_a_fault_of_the_source_is_an_error_never_a_value(index, server, fault, kind, chunks):
    with open_dataset(index, chunks=chunks) as ours:
        server.faults.append(fault)
        with pytest.raises(kind) as caught:
            ours["temp"].load()
    assert caught.value.url == server.url("archive.nc")
    assert caught.value.path == "/temp"
    assert caught.value.offset is not None


def test_a_local_source_that_changed_is_an_error(tmp_path, archive):
    copy = tmp_path / "copy.nc"
    copy.write_bytes(archive.read_bytes())
    write_json(scan(str(copy)), tmp_path / "copy.json")
    with open_dataset(tmp_path / "copy.json") as ours:
        copy.write_bytes(archive.read_bytes() + b"x")
        with pytest.raises(SourceChanged):
            ours["temp"].load()
        copy.unlink()
        with pytest.raises(SourceMissing):
            ours["temp"].load()


def test_big_endian_and_unwritten_netcdf3_values_are_identical(tmp_path):
    path = tmp_path / "classic.nc"
    with netCDF4.Dataset(path, "w", format="NETCDF3_CLASSIC") as data:
        data.createDimension("time", None)
        data.createDimension("x", 3)
        data.createVariable("time", "i4", ("time",))[:] = np.arange(5)
        data["time"].units = "hours since 2001-01-01"
        data.createVariable("v", "f4", ("time", "x"))[:4] = np.arange(12).reshape(4, 3)
        data.createVariable("w", "i2", ("x",), fill_value=-1)[:] = [1, -1, 3]
    with (
        open_dataset(path) as ours,
        xr.open_dataset(path, engine="netcdf4") as expected,
    ):
        xr.testing.assert_identical(ours.load(), expected.load())
        assert ours["v"].dtype.isnative


def test_characters_with_a_fill_value_are_identical(tmp_path):
    path = tmp_path / "characters.nc"
    with netCDF4.Dataset(path, "w") as data:
        data.createDimension("x", 2)
        data.createDimension("letters", 3)
        data.createVariable("code", "S1", ("x", "letters"), fill_value=b"-")[0] = list("abc")
    with open_dataset(path) as ours, xr.open_dataset(path, engine="netcdf4") as expected:
        xr.testing.assert_identical(ours.load(), expected.load())
        assert ours["code"].encoding["_FillValue"] == expected["code"].encoding["_FillValue"]


def test_a_plain_hdf5_file_is_opened_like_h5netcdf(tmp_path):
    path = tmp_path / "plain.h5"
    with h5netcdf.File(path, "w") as file:
        file.dimensions = {"x": 4}
        file.create_variable("v", ("x",), "f8", data=np.arange(4.0))
        file.create_variable("flag", ("x",), "i1", data=np.array([0, 1, 0, 1], "i1"))
    with open_dataset(path) as ours, xr.open_dataset(path, engine="h5netcdf") as expected:
        xr.testing.assert_identical(ours.load(), expected.load())


def test_an_index_handed_over_as_an_object_opens(scanned, archive):
    import json

    document = json.loads(to_json_bytes(scanned))
    with (
        open_dataset(document) as ours,
        xr.open_dataset(archive, engine="netcdf4") as expected,
    ):
        xr.testing.assert_identical(ours.load(), expected.load())
