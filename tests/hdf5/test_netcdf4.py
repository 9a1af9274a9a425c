"""netCDF-4 on top of HDF5: everything as netCDF4 shows it."""

import io

import h5netcdf
import h5py
import netCDF4
import numpy as np
import pytest

from byteatlas.model import Dimension


def test_attributes_have_the_types_that_netcdf4_gives(make_netcdf, check_netcdf):
    def write(dataset):
        dataset.createDimension("x", 2)
        for item in (dataset, dataset.createVariable("v", "f4", ("x",))):
            item.text = "text"
            item.empty = ""
            item.unicode = "\u00fc\u4e2d"
            item.spaces = "ab  "
            item.nulls = "ab\0\0"
            item.texts = ["a", "bb", ""]
            item.one_text = ["one"]
            item.setncattr_string("string", "text")
            item.setncattr_string("strings", ["p", "q\u00fc"])
            item.bytes = b"raw"
            item.chars = np.array([b"ab", b"c"])
            item.number = 5
            item.real = 5.5
            item.nothing = np.array([], "f4")
            item.nan = np.float32("nan")
            for kind in "bhiqBHIQfd":
                item.setncattr(f"scalar_{kind}", np.array(3, kind)[()])
                item.setncattr(f"one_{kind}", np.array([3], kind))
                item.setncattr(f"several_{kind}", np.array([3, 4], f">{kind}"))
            for number in range(60):
                item.setncattr(f"number_{number}", number)
        dataset.large = np.arange(20000.0)

    check_netcdf(make_netcdf(write))


def test_types_are_those_of_netcdf4(make_netcdf, check_netcdf):
    def write(dataset):
        dataset.createDimension("x", 3)
        for kind in ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"):
            for endian in ("big", "little") if kind[1] != "1" else ("native",):
                name, order = f"{kind}_{endian}", ">" if endian == "big" else "<"
                variable = dataset.createVariable(name, order + kind, ("x",), endian=endian)
                variable[:] = [1, 2, 3]
                dataset.createVariable(f"{name}_never", order + kind, ("x",), endian=endian)
        dataset.createVariable("chars", "S1", ("x",))[:] = [b"a", b"b", b"c"]
        dataset.createVariable("marked", "S1", ("x",), fill_value="q")[1] = b"c"
        cloud = dataset.createEnumType(np.uint8, "cloud", {"clear": 0, "cloudy": 1, "missing": 255})
        dataset.createVariable("clouds", cloud, ("x",), fill_value=255)[:2] = [0, 1]
        pair = dataset.createCompoundType(np.dtype("i2,f8,(2,)f4", align=True), "pair")
        dataset.createVariable("pairs", pair, ("x",))[:] = np.ones(3, pair.dtype)

    group = check_netcdf(make_netcdf(write))
    assert group["clouds"].notes == {"enum": {"clear": 0, "cloudy": 1, "missing": 255}}


def test_strings_are_read_where_they_were_written(make_netcdf, check_netcdf):
    def write(dataset):
        dataset.createDimension("x", 4)
        dataset.createDimension("t", None)
        dataset.createVariable("scalar", str, ())[...] = "one"
        dataset.createVariable("never", str, ("x",))
        dataset.createVariable("once", str, ("x",))[1] = "only"
        dataset.createVariable("filled", str, ("x",), fill_value="none")[2] = "set"
        table = dataset.createVariable("table", str, ("x", "t"))
        table[0, 0:3] = np.array(["a", "b", "\u00fc"], object)
        dataset.createVariable("deflated", str, ("x",), zlib=True)[:] = np.array([*"abcd"], object)

    check_netcdf(make_netcdf(write))


@pytest.mark.parametrize(
    "options",
    [
        {"zlib": True},
        {"zlib": True, "shuffle": False},
        {"zlib": True, "fletcher32": True},
        {"fletcher32": True},
        {"compression": "zstd"},
        {"compression": "bzip2"},
        {"compression": "blosc_lz4"},
        {"compression": "blosc_zstd"},
        {"contiguous": True},
        {"zlib": True, "least_significant_digit": 2},
        {"compression": "zlib", "significant_digits": 3},
    ],
    ids=str,
)
def test_filters_of_netcdf4_are_read(make_netcdf, check_netcdf, options):
    def write(dataset):
        dataset.createDimension("x", 30)
        dataset.createDimension("y", 20)
        values = np.arange(600).reshape(30, 20)
        dataset.createVariable("v", "f4", ("x", "y"), **options)[:] = values

    check_netcdf(make_netcdf(write))


def test_dimensions_are_found_with_and_without_variables(make_netcdf, check_netcdf):
    def write(dataset):
        for name, size in {"x": 3, "y": 4, "t": None, "unused": 7, "single": 1}.items():
            dataset.createDimension(name, size)
        dataset.createVariable("x", "f8", ("x",))[:] = 1
        dataset.createVariable("t", "f8", ("t",))[:] = np.arange(2)
        dataset.createVariable("v", "i2", ("t", "x", "y"))[:] = np.arange(24).reshape(2, 3, 4)
        dataset.createVariable("square", "i2", ("y", "y"))[:] = 1
        dataset.createVariable("scalar", "i4", ())[...] = 1

    group = check_netcdf(make_netcdf(write))
    assert group.dimensions["t"] == Dimension(2, is_unlimited=True)
    assert group["v"].dimensions == ("t", "x", "y")
    assert "y" not in group.arrays


def test_a_variable_named_like_a_dimension_but_not_along_it_is_no_coordinate(
    make_netcdf, check_netcdf
):
    def write(dataset):
        for name, size in {"x": 3, "y": 4}.items():
            dataset.createDimension(name, size)
        dataset.createVariable("y", "i4", ("x",))[:] = 5
        dataset.createVariable("x", "i4", ("y", "x"))[:] = 6

    data = make_netcdf(write)
    with h5py.File(io.BytesIO(data)) as file:
        assert "_nc4_non_coord_y" in file
    assert check_netcdf(data)["y"].dimensions == ("x",)


def test_coordinates_of_several_dimensions_are_named_by_all_of_them(make_netcdf, check_netcdf):
    def write(dataset):
        dataset.createDimension("time", None)
        dataset.createDimension("n", 3)
        dataset.createVariable("time", "i4", ("time", "n"))[0:2] = np.arange(6).reshape(2, 3)
        dataset.createVariable("v", "f4", ("time", "n"))[0:3] = 1
        group = dataset.createGroup("g")
        group.createDimension("m", 2)
        group.createVariable("m", "f4", ("m", "time", "n"))[:, 0:3] = 1

    group = check_netcdf(make_netcdf(write))
    assert group["time"].dimensions == ("time", "n")
    assert group["g/m"].dimensions == ("m", "time", "n")


def test_dimensions_are_inherited_through_groups_and_may_be_hidden(make_netcdf, check_netcdf):
    def write(dataset):
        for name, size in {"t": None, "x": 3, "y": 4}.items():
            dataset.createDimension(name, size)
        inner = dataset.createGroup("a/b/c")
        dataset["a"].createDimension("x", 2)
        dataset["a"].createVariable("x", "f4", ("x",))[:] = 1
        inner.createVariable("v", "f4", ("t", "x", "y"))[0:4] = 1
        inner.createVariable("t", "f4", ("t",))
        dataset.createVariable("w", "f4", ("t", "x"))

    group = check_netcdf(make_netcdf(write))
    assert group["a/b/c/v"].shape == (4, 2, 4)
    assert group["w"].shape == (4, 3)


@pytest.mark.parametrize("chunk", [1, 2, 3, 1024])
def test_variables_with_fewer_records_than_their_dimension_are_filled(
    make_netcdf, check_netcdf, chunk
):
    def write(dataset):
        dataset.createDimension("t", None)
        dataset.createDimension("x", 3)
        options = {"chunksizes": (chunk, 2)}
        for kind in ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8", "S1"):
            one = b"a" if kind == "S1" else 1
            dataset.createVariable(f"few_{kind}", kind, ("t", "x"), **options)[0:2] = one
            dataset.createVariable(f"never_{kind}", kind, ("t", "x"), **options)
            mark = b"z" if kind == "S1" else 7
            marked = dataset.createVariable(
                f"marked_{kind}", kind, ("t", "x"), fill_value=mark, zlib=True, **options
            )
            marked[0:3] = one
        dataset.createVariable("full", "f4", ("t", "x"))[0:5] = 2
        dataset.createVariable("text", str, ("t",), chunksizes=(chunk,))[0] = "one"
        text = dataset.createVariable("marked", str, ("t",), fill_value="none", chunksizes=(chunk,))
        text[0:2] = np.array(["one", "two"], object)
        dataset.createVariable("never", str, ("t",))

    group = check_netcdf(make_netcdf(write))
    assert all(array.shape[0] == 5 for array in group.arrays.values())


def test_records_that_were_never_filled_are_refused_where_a_chunk_would_show_them(
    make_netcdf, check_netcdf
):
    def write(dataset):
        dataset.createDimension("t", None)
        for chunk in (1, 2, 3):
            variable = dataset.createVariable(
                f"by_{chunk}", "f4", ("t",), chunksizes=(chunk,), fill_value=False
            )
            variable[0:2] = 1
        dataset.createVariable("full", "f4", ("t",))[0:5] = 2

    check_netcdf(
        make_netcdf(write),
        {"/by_3": "its last chunk is not filled, and its unlimited dimension is longer"},
    )


def test_the_size_of_a_dimension_follows_from_variables_that_are_not_shown_too(
    make_netcdf, scan, check_netcdf
):
    def write(dataset):
        dataset.createDimension("t", None)
        dataset.createVariable("short", "f4", ("t",))[0:2] = 1
        dataset.createVariable("long", "f4", ("t",))[0:5] = 2
        sequence = dataset.createVLType(np.int32, "sequence")
        longest = dataset.createVariable("longest", sequence, ("t",))
        for number in range(7):
            longest[number] = np.arange(number, dtype="i4")

    data = make_netcdf(write)
    check_netcdf(data)
    check_netcdf(data, {"/longest": "at most 50 bytes of their heap IDs"}, max_inline=50)
    assert scan(data, include=("short",))["short"].shape == (7,)
    assert scan(data, exclude=("lo*",))["short"].shape == (7,)


def test_several_unlimited_dimensions_may_all_be_longer(make_netcdf, scan, read):
    def write(dataset):
        for name in ("t", "u"):
            dataset.createDimension(name, None)
            size = {"t": 3, "u": 5}[name]
            dataset.createVariable(name, "i4", (name,))[:] = np.arange(size)
        dataset.createVariable("v", "i4", ("t", "u"), chunksizes=(2, 2))[0:2, 0:3] = 1
        dataset.createVariable("w", "i4", ("u", "t"), chunksizes=(2, 1))[0:1, 0:1] = 1

    # netCDF4 itself lays out the fill values of such variables wrongly.
    data = make_netcdf(write)
    group = scan(data)
    for name, shape, (rows, columns) in (("v", (3, 5), (2, 3)), ("w", (5, 3), (1, 1))):
        expected = np.full(shape, -2147483647)
        expected[:rows, :columns] = 1
        np.testing.assert_array_equal(read(data, group[name]), expected)


def test_the_classic_model_is_read(make_netcdf, check_netcdf):
    def write(dataset):
        dataset.createDimension("t", None)
        dataset.createDimension("x", 3)
        dataset.title = "classic"
        dataset.createVariable("v", "f4", ("t", "x"))[:] = np.ones((2, 3))

    group = check_netcdf(make_netcdf(write, kind="NETCDF4_CLASSIC"))
    assert group.attrs == {"title": "classic"}


def test_renamed_variables_and_dimensions_keep_their_axes(make_netcdf, check_netcdf):
    def write(dataset):
        dataset.createDimension("a", 2)
        dataset.createDimension("b", 3)
        dataset.createVariable("a", "f4", ("a",))[:] = 1
        dataset.createVariable("v", "f4", ("a", "b"))[:] = 1
        dataset.renameVariable("a", "other")
        dataset.renameDimension("b", "c")

    check_netcdf(make_netcdf(write))


def test_order_is_that_of_creation(tmp_path, scan):
    names = list("zyxwvutsrqponm")
    path = tmp_path / "order.nc"  # in memory, netCDF does not track it
    with netCDF4.Dataset(path, "w") as dataset:
        for name in names:
            dataset.createDimension(name, 1)
            dataset.createVariable(name, "f4", (name,))[:] = 1
            dataset.createGroup(name * 2)

    group = scan(path.read_bytes())
    assert list(group.arrays) == list(group.dimensions) == names
    assert list(group.groups) == [name * 2 for name in names]


def test_of_several_scales_on_an_axis_the_last_names_it(make, check, check_netcdf):
    def write(file):
        file["v"] = np.zeros((3, 4))
        for name, axis in {"x": 0, "other": 0, "y": 1}.items():
            file[name] = np.arange(file["v"].shape[axis])
            file[name].make_scale()
            file["v"].dims[axis].attach_scale(file[name])

    data = make(write, track_order=True)
    check_netcdf(data)
    assert check(data)["v"].dimensions == ("other", "y")


@pytest.mark.parametrize(
    ("links", "expected"),
    [
        ({"a": "hard"}, "x"),
        ({"z": "hard"}, "z"),
        ({"z": "soft"}, "z"),
        ({"y": "hard", "z": "soft"}, "z"),
        ({"y": "soft", "z": "hard", "a": "hard"}, "z"),
    ],
    ids=str,
)
def test_of_several_links_to_a_scale_the_last_names_its_dimension(
    make_netcdf, check_netcdf, links, expected
):
    def write(dataset):
        dataset.createDimension("x", 3)
        for name in ("x", "v"):
            dataset.createVariable(name, "f4", ("x",))[:] = [1, 2, 3]

    buffer = io.BytesIO(make_netcdf(write))
    with h5py.File(buffer, "r+") as file:
        for name, kind in links.items():
            file[name] = h5py.SoftLink("/x") if kind == "soft" else file["x"]
    group = check_netcdf(buffer.getvalue())
    assert set(group.dimensions) == {expected}
    assert {array.dimensions for array in group.arrays.values()} == {(expected,)}


def test_scales_elsewhere_or_of_another_size_do_not_name_an_axis(make, check):
    def write(file):
        file["v"] = np.zeros((3, 4))
        file["group/x"] = np.arange(3)
        file["y"] = np.arange(5)
        for axis, name in enumerate(("group/x", "y")):
            file[name].make_scale()
            file["v"].dims[axis].attach_scale(file[name])

    group = check(make(write))
    assert group["v"].dimensions == ("phony_dim_0", "phony_dim_1")
    assert group["group/x"].dimensions == ("x",)


def test_a_prefix_that_is_not_needed_is_kept(make, check):
    def write(file):
        file["x"] = np.arange(3)
        file["_nc4_non_coord_x"] = np.arange(4)
        file.create_group("z")
        file["_nc4_non_coord_z"] = 1

    assert list(check(make(write)).arrays) == ["_nc4_non_coord_x", "_nc4_non_coord_z", "x"]


def phony_writers():
    """Files of ordinary HDF5, each trying the names of axes that nothing names."""

    def shapes(*sizes):
        def write(file):
            for number, shape in enumerate(sizes):
                file[f"v{number:02d}"] = np.zeros(shape)

        return write

    def groups(file):
        file["a"] = np.zeros((2, 3))
        file["g/b"] = np.zeros((3, 2))
        file["g/h/c"] = np.zeros((2, 2))
        file["z"] = np.zeros((4, 5))

    def many(file):
        for number in range(30):
            file[f"v{37 * number % 100:02d}"] = np.zeros((number % 4 + 1, number % 3 + 1))

    def arrays(file):
        file.create_dataset("a", (3,), np.dtype(("i4", (2, 3))))
        file["b"] = np.zeros((2, 4))

    def unreadable(file):
        file["a"] = np.zeros((7, 2))
        file.create_dataset("b", (5, 7), h5py.vlen_dtype("i4"))
        file["c"] = np.zeros((5, 5))

    return {
        "one": shapes((3,)),
        "same sizes": shapes((3,), (3,), (4,)),
        "square": shapes((3, 3), (3,), (3, 3, 3)),
        "scalars": shapes((), (2,), ()),
        "empty": shapes((0, 2), (0, 0)),
        "groups": groups,
        "many": many,
        "arrays": arrays,
        "unreadable": unreadable,
    }


@pytest.mark.parametrize("libver", [None, "latest"])
@pytest.mark.parametrize("name", phony_writers())
def test_axes_without_a_name_are_named_as_by_h5netcdf(make, scan, libver, name):
    data = make(phony_writers()[name], libver=libver)
    arrays = dict(scan(data).walk_arrays())
    compared = 0

    def compare(path, group):
        nonlocal compared
        for key, variable in group.variables.items():
            if f"{path}/{key}" in arrays:
                ours = arrays[f"{path}/{key}"].dimensions
                assert ours[: len(variable.dimensions)] == tuple(variable.dimensions)
                compared += 1
        for key, child in group.groups.items():
            compare(f"{path}/{key}", child)

    with h5netcdf.File(io.BytesIO(data), "r", phony_dims="access") as file:
        compare("", file)
    assert compared == len(arrays)


def test_axes_that_scales_leave_out_are_named_after_those_that_they_name(make, scan):
    def write(file):
        file["v"] = np.zeros((3, 4, 3))
        file["x"] = np.arange(3)
        file["x"].make_scale()
        file["v"].dims[0].attach_scale(file["x"])
        file["w"] = np.zeros((3, 5))

    group = scan(make(write))
    assert group["v"].dimensions == ("x", "phony_dim_1", "phony_dim_0")
    assert group["w"].dimensions == ("x", "phony_dim_2")


def test_axes_of_array_datatypes_get_names_after_all_others(make, scan):
    group = scan(make(phony_writers()["arrays"]))
    assert len(set(group["a"].dimensions)) == 3
    assert group["b"].dimensions == ("phony_dim_1", "phony_dim_2")
