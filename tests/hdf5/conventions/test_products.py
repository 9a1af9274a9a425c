"""Names of dimensions in files of each convention's layout."""

import h5py
import numpy as np
import pytest

PHONY = "phony_dim_0"


# HDF5 dimension labels.


def test_labels_name_axes(check_named):
    def write(file):
        file["t"] = np.zeros((3, 4, 5))
        for axis, label in enumerate(("time", "", "x")):
            if label:
                file["t"].dims[axis].label = label
        file["x"] = np.arange(5)
        file["x"].dims[0].label = "x"
        file["other"] = np.zeros(4)

    check_named(
        write,
        {"/t": ("time", "phony_dim_0", "x"), "/x": ("x",), "/other": (PHONY,)},
        "HDF5 dimension labels",
    )


def test_scales_win_over_labels(make, check, axes_of):
    def write(file):
        file["lon"] = np.arange(4.0)
        file["lon"].make_scale()
        file["t"] = np.zeros((3, 4))
        file["t"].dims[1].attach_scale(file["lon"])
        file["t"].dims[0].label = "line"
        file["t"].dims[1].label = "sample"

    group = check(make(write))
    assert axes_of(group) == {"/lon": ("lon",), "/t": ("line", "lon")}


# GPM, ICESat-2.


def test_gpm_products_are_named_by_their_attribute(check_named):
    def write(file):
        file.attrs["FileHeader"] = "DOI=10.5067/GPM/DPR;\nAlgorithmID=2ADPR;\n"
        for name, shape, names in [
            ("FS/Latitude", (6, 4), "nscan,nrayFS"),
            ("FS/PRE/heightStormTop", (6, 4, 2), "nscan,nrayFS,nfreq"),
            ("FS/ScanTime/Year", (6,), "nscan"),
            ("FS/SLV/flag", (6, 4), "nscan, nrayFS"),
            ("FS/odd", (6, 4), "nscan"),
        ]:
            file[name] = np.arange(np.prod(shape)).reshape(shape)
            file[name].attrs["DimensionNames"] = np.bytes_(names)

    check_named(
        write,
        {
            "/FS/Latitude": ("nscan", "nrayFS"),
            "/FS/odd": ("phony_dim_0", "phony_dim_1"),
            "/FS/PRE/heightStormTop": ("nscan", "nrayFS", "nfreq"),
            "/FS/ScanTime/Year": ("nscan",),
            "/FS/SLV/flag": ("nscan", "nrayFS"),
        },
        "GPM",
    )


def test_icesat_2_products_are_named_by_their_scales(make, check, axes_of, noted):
    def write(file):
        for beam, count in (("gt1l", 5), ("gt1r", 7)):
            heights = file.create_group(f"{beam}/heights")
            heights["delta_time"] = np.arange(float(count))
            heights["delta_time"].make_scale("delta_time")
            heights["ds_surf_type"] = np.arange(5)
            heights["ds_surf_type"].make_scale("ds_surf_type")
            heights["signal_conf_ph"] = np.zeros((count, 5), "i1")
            heights["signal_conf_ph"].dims[0].attach_scale(heights["delta_time"])
            heights["signal_conf_ph"].dims[1].attach_scale(heights["ds_surf_type"])
            heights["h_ph"] = np.zeros(count)
            heights["h_ph"].dims[0].attach_scale(heights["delta_time"])
            heights["h_ph"].attrs["coordinates"] = "delta_time lat_ph lon_ph"

    group = check(make(write))
    for beam in ("gt1l", "gt1r"):
        axes = axes_of(group[f"{beam}/heights"])
        assert axes["/signal_conf_ph"] == ("delta_time", "ds_surf_type")
        assert axes["/h_ph"] == ("delta_time",)
    assert set(noted(group).values()) == {None}


# NeXus.


def nexus_data(file, path="entry/data", **attrs):
    group = file.create_group(path)
    group.attrs["NX_class"] = "NXdata"
    for name, value in attrs.items():
        if isinstance(value, list):
            group.attrs.create(name, value, dtype=h5py.string_dtype())
        else:
            group.attrs[name] = value
    return group


def test_nexus_axes_name_the_signal_and_what_is_plotted_with_it(check_named):
    def write(file):
        file["entry/instrument/detector"] = np.arange(60).reshape(3, 4, 5)
        group = nexus_data(
            file, signal="counts", axes=["time", ".", "x"], time_indices=0, x_indices=2
        )
        group["counts"] = file["entry/instrument/detector"]
        group["counts_errors"] = np.zeros((3, 4, 5))
        group["time"] = np.arange(3.0)
        group["x"] = np.arange(6.0)  # the edges of bins
        group["other"] = np.arange(4)
        group["title"] = 1
        group.attrs["position_indices"] = [0, 2]
        group["position"] = np.zeros((3, 5))

    data = "/entry/data"
    check_named(
        write,
        {
            f"{data}/counts": ("time", "phony_dim_0", "x"),
            f"{data}/counts_errors": ("time", "phony_dim_0", "x"),
            f"{data}/time": ("time",),
            f"{data}/x": ("phony_dim_1",),
            f"{data}/other": ("phony_dim_0",),
            f"{data}/title": (),
            f"{data}/position": ("time", "x"),
            "/entry/instrument/detector": ("phony_dim_2", "phony_dim_3", "phony_dim_4"),
        },
        "NeXus",
    )


LEGACY = {
    "a list in the field": ({}, {"signal": 1, "axes": "y:x"}, {}),
    "a list in brackets": ({}, {"signal": 1, "axes": "[y,x]"}, {}),
    "numbers of the axes": ({}, {"signal": 1}, {"y": {"axis": 1}, "x": {"axis": 2, "primary": 1}}),
    "numbers as texts": ({}, {"signal": "1"}, {"y": {"axis": "1"}, "x": {"axis": "2"}}),
    "a list in the group": ({"signal": "data", "axes": ["y", "x"]}, {}, {}),
    "only indices": ({"signal": "data", "y_indices": 0, "x_indices": 1}, {}, {}),
    "more axes than dimensions": (
        {"signal": "data", "axes": ["y", "x", "t"], "y_indices": 0, "x_indices": 1, "t_indices": 1},
        {},
        {},
    ),
}


@pytest.mark.parametrize("style", LEGACY)
def test_nexus_axes_are_found_in_every_style(check_named, style):
    of_group, of_data, of_axes = LEGACY[style]

    def write(file):
        group = nexus_data(file, **of_group)
        group["data"] = np.arange(12).reshape(3, 4)
        group["data"].attrs.update(of_data)
        group["y"], group["x"] = np.arange(3), np.arange(4)
        for name, attrs in of_axes.items():
            group[name].attrs.update(attrs)

    expected = {"data": ("y", "x"), "y": ("y",), "x": ("x",)}
    check_named(write, {f"/entry/data/{name}": axes for name, axes in expected.items()}, "NeXus")


# openPMD, ODIM.


def test_openpmd_meshes_are_named_by_their_labels(check_named):
    def write(file):
        file.attrs["openPMD"] = "1.1.0"
        meshes = file.create_group("data/0/fields")
        meshes["rho"] = np.arange(24.0).reshape(2, 3, 4)
        for name in "xy":
            meshes[f"E/{name}"] = np.arange(24.0).reshape(2, 3, 4)
        for record, order in ((meshes["rho"], "C"), (meshes["E"], "F")):
            record.attrs["geometry"] = np.bytes_("cartesian")
            record.attrs["dataOrder"] = np.bytes_(order)
            labels = ["z", "r", "t"] if order == "C" else ["t", "r", "z"]
            record.attrs["axisLabels"] = np.array(labels, "S1")
        file["data/0/particles/e/position/x"] = np.arange(5)

    base = "/data/0/fields"
    check_named(
        write,
        {
            f"{base}/rho": ("z", "r", "t"),
            f"{base}/E/x": ("z", "r", "t"),
            f"{base}/E/y": ("z", "r", "t"),
            "/data/0/particles/e/position/x": (PHONY,),
        },
        "openPMD",
    )


def test_odim_arrays_are_named_by_the_extents_of_where(check_named):
    def write(file):
        file.attrs["Conventions"] = np.bytes_("ODIM_H5/V2_2")
        for number, (rays, bins) in enumerate([(6, 9), (6, 5)], 1):
            sweep = file.create_group(f"dataset{number}")
            where = sweep.create_group("where")
            where.attrs.update({"nrays": rays, "nbins": bins, "elangle": 0.5})
            sweep["data1/data"] = np.zeros((rays, bins), "u1")
            sweep["data1/quality1/data"] = np.zeros((rays, bins), "u1")
        file.create_group("where").attrs.update({"xsize": 4, "ysize": 3})
        file["dataset3/data1/data"] = np.zeros((3, 4), "u1")
        file["dataset4/data1/data"] = np.zeros((3, 5), "u1")
        file["dataset3/data1/legend"] = np.zeros(4, "u1")

    polar = ("nrays", "nbins")
    check_named(
        write,
        {
            "/dataset1/data1/data": polar,
            "/dataset1/data1/quality1/data": polar,
            "/dataset2/data1/data": polar,
            "/dataset2/data1/quality1/data": polar,
            "/dataset3/data1/data": ("y", "x"),
            "/dataset3/data1/legend": ("phony_dim_0",),
            "/dataset4/data1/data": ("phony_dim_1", "phony_dim_2"),
        },
        "ODIM",
    )


# Tables.


def test_pandas_objects_are_named_by_their_labels(check_named):
    def write(file):
        file.attrs["CLASS"] = np.bytes_("GROUP")
        file.attrs["PYTABLES_FORMAT_VERSION"] = np.bytes_("2.1")
        frame = file.create_group("frame")
        frame.attrs.update({"pandas_type": np.bytes_("frame"), "ndim": 2, "nblocks": 2})
        frame["axis0"] = np.array([b"a", b"b", b"c"])
        frame["axis1"] = np.arange(4)
        frame["block0_items"] = np.array([b"a", b"b"])
        frame["block0_values"] = np.arange(8.0).reshape(4, 2)
        frame["block1_items"] = np.array([b"c"])
        frame["block1_values"] = np.arange(4).reshape(4, 1)
        series = file.create_group("series")
        series.attrs["pandas_type"] = np.bytes_("series")
        series["index"], series["values"] = np.arange(5), np.arange(5.0)
        table = file.create_group("table")
        table.attrs["pandas_type"] = np.bytes_("frame_table")
        table["table"] = np.zeros(6, [("index", "i8"), ("values_block_0", "f8", (2,))])
        file["plain"] = np.zeros((2, 3))  # PyTables itself names no axes
        file["plain"].attrs.update({"CLASS": np.bytes_("CARRAY"), "TITLE": np.bytes_("")})

    check_named(
        write,
        {
            "/plain": ("phony_dim_0", "phony_dim_1"),
            "/frame/axis0": ("axis0",),
            "/frame/axis1": ("axis1",),
            "/frame/block0_items": ("block0_items",),
            "/frame/block0_values": ("axis1", "block0_items"),
            "/frame/block1_items": ("block1_items",),
            "/frame/block1_values": ("axis1", "block1_items"),
            "/series/index": ("index",),
            "/series/values": ("index",),
            "/table/table": ("index",),
        },
        "pandas",
    )


def test_anndata_arrays_are_named_by_observations_and_variables(check_named):
    def write(file):
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        file["X"] = np.arange(12.0).reshape(4, 3)
        file["layers/raw"] = np.arange(12.0).reshape(4, 3)
        file["obs/_index"] = np.arange(4)
        file["obs/kind/codes"] = np.zeros(4, "i1")
        file["obs/kind/categories"] = np.arange(2)
        file["var/score"] = np.arange(3.0)
        file["obsm/pca"] = np.zeros((4, 2))
        file["obsp/distances"] = np.zeros((4, 4))
        file["raw/X"] = np.zeros((4, 6))
        file["raw"].attrs["encoding-type"] = "raw"
        file["uns/colors"] = np.arange(2)

    group = check_named(
        write,
        {
            "/X": ("obs", "var"),
            "/layers/raw": ("obs", "var"),
            "/obs/_index": ("obs",),
            "/obs/kind/codes": ("obs",),
            "/obs/kind/categories": ("phony_dim_0",),
            "/var/score": ("var",),
            "/obsm/pca": ("obs", "phony_dim_1"),
            "/obsp/distances": ("phony_dim_2", "phony_dim_3"),
            "/raw/X": ("obs", "phony_dim_4"),  # its variables are others
            "/uns/colors": ("phony_dim_5",),
        },
        "AnnData",
    )
    assert group.dimensions.keys() == {"obs", "var"}
    assert "obs" not in group["layers"].dimensions  # those of the root


def test_loom_arrays_are_named_by_rows_and_columns(check_named):
    def write(file):
        file.attrs["LOOM_SPEC_VERSION"] = "2.0.1"
        file["matrix"] = np.arange(12.0).reshape(4, 3)
        file["layers/spliced"] = np.arange(12.0).reshape(4, 3)
        file["row_attrs/Gene"] = np.arange(4)
        file["col_attrs/Cell"] = np.arange(3)
        file["col_attrs/tsne"] = np.zeros((3, 2))
        file["row_graphs/knn/a"] = np.arange(9)

    check_named(
        write,
        {
            "/matrix": ("row", "col"),
            "/layers/spliced": ("row", "col"),
            "/row_attrs/Gene": ("row",),
            "/col_attrs/Cell": ("col",),
            "/col_attrs/tsne": ("col", "phony_dim_0"),
            "/row_graphs/knn/a": ("phony_dim_1",),
        },
        "loom",
    )


def test_nwb_tables_and_series_are_named(check_named):
    def write(file):
        units = file.create_group("units")
        units.attrs["neurodata_type"] = "Units"
        units.attrs.create("colnames", ["quality", "spike_times"], dtype=h5py.string_dtype())
        units["id"] = np.arange(4)
        units["quality"] = np.arange(4.0)
        units["spike_times"] = np.arange(20.0)
        units["spike_times_index"] = np.array([3, 8, 15, 20], "u1")
        series = file.create_group("acquisition/voltage")
        series.attrs["neurodata_type"] = "ElectricalSeries"
        series["data"], series["timestamps"] = np.zeros((7, 2)), np.arange(7.0)

    check_named(
        write,
        {
            "/acquisition/voltage/data": ("num_times", "phony_dim_0"),
            "/acquisition/voltage/timestamps": ("num_times",),
            "/units/id": ("num_rows",),
            "/units/quality": ("num_rows",),
            "/units/spike_times": ("phony_dim_1",),
            "/units/spike_times_index": ("num_rows",),
        },
        "NWB",
    )


def test_matlab_files_have_no_names_and_keep_the_order_of_their_axes(make, check, axes_of):
    def write(file):
        file["a"] = np.arange(6.0).reshape(2, 3)  # 3 x 2 in MATLAB
        file["a"].attrs["MATLAB_class"] = np.bytes_("double")
        file["empty"] = np.array([0, 3], "u8")
        file["empty"].attrs.update({"MATLAB_class": np.bytes_("double"), "MATLAB_empty": 1})
        file["text"] = np.array([[104], [105]], "u2")
        file["text"].attrs["MATLAB_class"] = np.bytes_("char")

    group = check(make(write))
    assert axes_of(group)["/a"] == ("phony_dim_0", "phony_dim_1")
    assert group["a"].shape == (2, 3)
    assert group["empty"].shape == (2,)
    assert group["text"].attrs["MATLAB_class"] == "char"
