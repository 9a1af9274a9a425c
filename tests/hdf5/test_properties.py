"""Whatever h5py and netCDF4 write reads back the same."""

import h5py
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

SCALARS = [
    f"{order}{kind}" for kind in ("i2", "u4", "i8", "f2", "f4", "f8", "c8") for order in "<>"
]
SCALARS += ["i1", "u1", "?", "S1", "S5", "V3"]
NAMES = st.text("ab \u00e9\u4e2d", min_size=1, max_size=4)


@st.composite
def dtypes(draw, depth=0):
    kind = draw(st.integers(0, 5 if depth < 2 else 3))
    if kind <= 3:
        return np.dtype(draw(st.sampled_from(SCALARS)))
    if kind == 4:
        shape = tuple(draw(st.lists(st.integers(1, 3), min_size=1, max_size=2)))
        return np.dtype((draw(dtypes(depth + 1)).base, shape))
    names = draw(st.lists(st.sampled_from("abcde"), min_size=1, max_size=4, unique=True))
    members = [(name, draw(dtypes(depth + 1))) for name in names]
    return np.dtype(members, align=draw(st.booleans()))


@st.composite
def layouts(draw):
    """Draw a shape, and how it is stored."""
    shape = tuple(draw(st.lists(st.integers(0, 9), min_size=0, max_size=3)))
    if not shape or not all(shape) or draw(st.booleans()):
        return shape, {}
    options = {
        "chunks": tuple(draw(st.integers(1, n)) for n in shape),
        "maxshape": tuple(draw(st.sampled_from([n, n + 3, None])) for n in shape),
        "shuffle": draw(st.booleans()),
        "compression": draw(st.sampled_from([None, 1])),
        "fletcher32": draw(st.booleans()),
    }
    return shape, options


def random_values(rng, dtype, shape):
    """Return values of any type, in which booleans are 0 or 1."""
    if dtype.subdtype:
        base, inner = dtype.subdtype
        return random_values(rng, base, shape + inner)
    values = np.zeros(shape, dtype)
    if dtype.names:
        for name in dtype.names:
            values[name] = random_values(rng, dtype[name], shape)
    elif dtype.kind in "SV":
        raw = rng.integers(0, 256, (*shape, dtype.itemsize), np.uint8)
        values = np.ascontiguousarray(raw).view(dtype)[..., 0]
    else:
        values[...] = rng.integers(0, 2 if dtype.kind == "b" else 100, shape)
    return values


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_any_dataset_reads_as_h5py_reads_it(make, check, data):
    dtype, (shape, options) = data.draw(dtypes()), data.draw(layouts())
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    fill = (
        random_values(rng, dtype, ()) if data.draw(st.booleans()) and not dtype.subdtype else None
    )
    written = data.draw(st.sampled_from(["nothing", "a part", "all"]))
    size = [data.draw(st.integers(0, n + 2)) for n in shape]

    def write(file):
        dataset = file.create_dataset("x", shape, dtype, fillvalue=fill, **options)
        if written == "all":
            dataset[...] = random_values(rng, dtype, shape)
        elif written == "a part" and shape and all(shape):
            part = tuple(slice(0, int(rng.integers(1, n + 1))) for n in shape)
            inner = tuple(one.stop for one in part)
            dataset[part] = random_values(rng, dtype, inner)
        limits = options.get("maxshape")
        if limits and rng.random() < 0.5:
            dataset.resize(
                [n if m is None else min(n, m) for n, m in zip(size, limits, strict=True)]
            )

    libver = data.draw(st.sampled_from([None, "v108", "v112", "latest"]))
    max_chunk = data.draw(st.sampled_from([1, 50, 10**6]))
    check(make(write, libver=libver), max_chunk=max_chunk)


VALUES = st.one_of(
    st.integers(-(2**31), 2**31 - 1).map(np.int64),
    st.floats(allow_nan=False).map(np.float64),
    st.text("ab\u00e9\u4e2d ", max_size=20),
    st.lists(st.integers(0, 99), min_size=2, max_size=5).map(lambda one: np.array(one, ">i2")),
    st.lists(st.text("ab\u00e9", max_size=3), min_size=2, max_size=4),
)


@settings(max_examples=40, deadline=None)
@given(
    paths=st.lists(st.lists(NAMES, min_size=1, max_size=3), max_size=20),
    attributes=st.lists(st.dictionaries(NAMES, VALUES, max_size=12), min_size=3, max_size=3),
    libver=st.sampled_from([None, "latest"]),
    track_order=st.booleans(),
)
def test_any_tree_of_groups_and_attributes_is_read_whole(
    make, check, paths, attributes, libver, track_order
):
    written = {"": attributes[0]}

    def write(file):
        for number, parts in enumerate(paths):
            path = "/".join(["", *parts])
            parents = {"/".join(["", *parts[:count]]) for count in range(1, len(parts))}
            if path in file or any(isinstance(file.get(one), h5py.Dataset) for one in parents):
                continue
            file[path] = number
            written[path] = attributes[number % 3]
        for path, attrs in written.items():
            file[path or "/"].attrs.update(attrs)

    group = check(make(write, libver=libver, track_order=track_order))
    found = {"": group, **dict(group.walk_arrays())}
    assert found.keys() == written.keys()
    for path, expected in written.items():
        assert found[path].attrs.keys() == expected.keys()
        for name, value in expected.items():
            assert np.array_equal(found[path].attrs[name], value)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_netcdf_file_reads_as_netcdf4_reads_it(make_netcdf, check_netcdf, data):
    kinds = st.sampled_from(["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8", "S1"])
    sizes = {name: data.draw(st.integers(1, 5)) for name in "abc"}
    lengths = st.integers(0, 4)

    def write(dataset):
        groups = [dataset, dataset.createGroup("g"), dataset.createGroup("g/h")]
        dataset.createDimension("t", None)
        for name, size in sizes.items():
            groups[data.draw(st.integers(0, 2)) if name == "c" else 0].createDimension(name, size)
        for number in range(data.draw(st.integers(1, 6))):
            group = groups[2] if number % 2 else groups[data.draw(st.integers(0, 2))]
            known = ["a", "b", *(["c"] if "c" in group.dimensions else [])]
            dims = data.draw(st.lists(st.sampled_from(known), max_size=2, unique=True))
            if data.draw(st.booleans()):
                dims = ["t", *dims]
            name = dims[-1] if dims and data.draw(st.booleans()) else f"v{number}"
            if name in group.variables:
                continue
            kind = data.draw(kinds)
            options = {"zlib": data.draw(st.booleans()), "fletcher32": data.draw(st.booleans())}
            if data.draw(st.booleans()):
                options["fill_value"] = b"x" if kind == "S1" else 7
            variable = group.createVariable(name, kind, dims, **(options if dims else {}))
            variable.units = "K"
            if "t" in dims:
                records = data.draw(lengths)
                if records:
                    shape = (records, *variable.shape[1:])
                    variable[0:records] = np.full(shape, b"y" if kind == "S1" else 1, kind)
            elif data.draw(st.booleans()):
                variable[...] = np.full(variable.shape, b"y" if kind == "S1" else 1, kind)

    check_netcdf(make_netcdf(write))
