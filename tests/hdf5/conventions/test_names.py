"""What names of conventions must not do, whatever they are."""

import numpy as np
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import byteatlas
from byteatlas_scanners.hdf5.conventions import GroupView, Member, names_of
from byteatlas_scanners.hdf5.conventions.view import integers

PHONY = "phony_dim_0"


def labelled(file, path, shape, *labels):
    file[path] = np.arange(np.prod(shape)).reshape(shape)
    for axis, label in enumerate(labels):
        file[path].dims[axis].label = label


def check_tree(tmp_path, data):
    path = tmp_path / "file.h5"
    path.write_bytes(data)
    with byteatlas.open_datatree(str(path)) as tree:
        tree.load()
        return tree


def test_a_name_of_two_sizes_in_one_group_names_nothing(make, check, tmp_path, axes_of):
    def write(file):
        labelled(file, "a", (3, 4), "x", "y")
        labelled(file, "b", (5, 4), "x", "y")

    data = make(write)
    assert axes_of(check(data)) == {"/a": (PHONY, "y"), "/b": ("phony_dim_1", "y")}
    check_tree(tmp_path, data)


def test_a_name_of_another_size_in_a_group_around_names_nothing(make, check, tmp_path, axes_of):
    def write(file):
        labelled(file, "a", (3,), "x")
        labelled(file, "g/b", (3, 4), "x", "y")
        labelled(file, "g/h/c", (5, 4), "x", "y")
        labelled(file, "k/d", (4,), "y")

    data = make(write)
    group = check(data)
    assert axes_of(group) == {
        "/a": ("x",),
        "/g/b": ("x", "y"),
        "/g/h/c": ("phony_dim_0", "y"),
        "/k/d": ("y",),
    }
    assert set(group["g"].dimensions) == {"y"}
    check_tree(tmp_path, data)


def test_a_name_on_two_axes_of_a_dataset_names_neither(make, check, tmp_path, axes_of):
    data = make(lambda file: labelled(file, "a", (3, 3, 2), "x", "x", "y"))
    assert axes_of(check(data)) == {"/a": (PHONY, "phony_dim_1", "y")}
    check_tree(tmp_path, data)


def test_a_name_of_a_dataset_without_axes_names_nothing(make, check, tmp_path, axes_of):
    def write(file):
        labelled(file, "a", (3,), "x")
        file["x"] = 1.0

    data = make(write)
    assert axes_of(check(data)) == {"/a": (PHONY,), "/x": ()}
    check_tree(tmp_path, data)


def test_names_that_no_store_could_hold_name_nothing(make, check, tmp_path, axes_of):
    data = make(lambda file: labelled(file, "a", (3, 4), "x/y", "phony_dim_7"))
    assert axes_of(check(data)) == {"/a": (PHONY, "phony_dim_1")}
    check_tree(tmp_path, data)


def test_a_made_up_name_is_not_that_of_a_convention(make, check, axes_of):
    def write(file):
        labelled(file, "a", (3,), "x")
        file["b"] = np.arange(3)  # of the same size, but nobody says it is the same axis

    assert axes_of(check(make(write))) == {"/a": ("x",), "/b": (PHONY,)}


def test_no_name_makes_a_dataset_grow_along_an_unlimited_dimension(make, scan):
    def write(file):
        file.create_dataset("t", data=np.arange(3.0), maxshape=(None,), chunks=(2,))
        file["t"].make_scale("t")
        file.create_dataset("long", data=np.arange(5.0), maxshape=(None,), chunks=(2,))
        file["long"].dims[0].attach_scale(file["t"])
        labelled(file, "a", (3,), "t")
        labelled(file, "b", (5,), "t")

    group = scan(make(write))
    assert group["t"].dimensions == group["long"].dimensions == ("t",)
    for name, size in (("a", 3), ("b", 5)):
        assert group[name].dimensions != ("t",)
        assert group[name].shape == (size,)


def test_names_reach_a_dataset(tmp_path, make, axes_of):
    path = tmp_path / "a.h5"
    path.write_bytes(make(lambda file: labelled(file, "a", (3, 4), "y", "x")))
    with byteatlas.open_dataset(str(path)) as dataset:
        assert isinstance(dataset, xr.Dataset)
        assert dataset["a"].dims == ("y", "x")
        assert (dataset["a"].values == np.arange(12).reshape(3, 4)).all()
    plain = byteatlas.scan(path, conventions=False)
    assert axes_of(plain) == {"/a": (PHONY, "phony_dim_1")}


ATTRIBUTES = [
    "DIMENSION_LABELS",
    "DimensionNames",
    "axisLabels",
    "geometry",
    "dataOrder",
    "signal",
    "axes",
    "axis",
    "primary",
    "x_indices",
    "data_indices",
    "nrays",
    "nbins",
    "xsize",
    "ysize",
    "levels",
    "colnames",
    "LOOM_SPEC_VERSION",
]
KINDS = {
    "NX_class": ["NXdata", "NXdetector"],
    "pandas_type": ["frame", "series", "frame_table"],
    "encoding-type": ["anndata", "raw"],
    "neurodata_type": ["Units"],
    "Conventions": ["ODIM_H5/V2_2"],
}
NAMES = ["x", "data", "X", "id", "timestamps", "axis1", "block0_values", "block0_items", "table"]
GROUPS = ["data1", "layers", "obs", "obsm", "row_attrs", "where", "Data Fields"]
TEXTS = st.text("xy,:[]./\0\u00e9 0", max_size=6) | st.sampled_from(["x", "x,data", "data:x", "1"])
VALUES = st.one_of(
    TEXTS,
    st.lists(TEXTS, max_size=4),
    st.integers(-2, 4).map(np.int64),
    st.floats(width=32).map(np.float32),
    st.lists(st.integers(-2, 4), max_size=4).map(np.array),
    st.just(np.bytes_(b"x")),
    st.just(np.array(["x"], "S1")),
)
SHAPES = st.lists(st.sampled_from([0, 1, 3, 3, 4]), max_size=4).map(tuple)


@st.composite
def attributes(draw):
    found = draw(st.dictionaries(st.sampled_from(ATTRIBUTES), VALUES, max_size=6))
    for name in draw(st.lists(st.sampled_from(sorted(KINDS)), max_size=2)):
        found[name] = draw(st.sampled_from(KINDS[name]))
    return found


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_whatever_attributes_say_names_are_possible_and_mean_one_size(data):
    view, path = None, ""
    for name in ["", *data.draw(st.lists(st.sampled_from(GROUPS), max_size=3))]:
        path = f"{path}/{name}" if name else ""
        members = data.draw(
            st.dictionaries(st.sampled_from(NAMES), st.builds(Member, SHAPES, attributes()))
        )
        fields = {f"{path}/{one}": (("x", 3), ("y", None)) for one in members}
        where = data.draw(st.none() | attributes())
        view = GroupView(
            path, data.draw(attributes()), members, view, lambda _, found=where: found, fields
        )
    sizes = {}
    for name, (names, convention) in names_of(view).items():
        shape = view.members[name].shape
        assert convention
        assert len(names) == len(shape)
        known = [one for one in names if one]
        assert known
        assert len(set(known)) == len(known)
        for one, size in zip(names, shape, strict=True):
            assert one is None or sizes.setdefault(one, size) == size


def test_attributes_that_count_may_be_floats_of_whole_numbers():
    assert integers(np.float64(6.0)) == [6]
    assert integers(np.array([0, 2], "u1")) == [0, 2]
    for value in (np.float32(6.5), np.float64(1e300), np.float64("nan"), "6", np.bytes_(b"6")):
        assert integers(value) == []
