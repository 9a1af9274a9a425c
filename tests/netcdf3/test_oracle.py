"""What the scanner gives against netCDF4 and scipy, to the bit."""

import netCDF4
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.io import netcdf_file

from byteatlas.errors import ByteatlasError

FORMATS = {
    "NETCDF3_CLASSIC": ["i1", "S1", "i2", "i4", "f4", "f8"],
    "NETCDF3_64BIT_OFFSET": ["i1", "S1", "i2", "i4", "f4", "f8"],
    "NETCDF3_64BIT_DATA": ["i1", "S1", "i2", "i4", "f4", "f8", "u1", "u2", "u4", "i8", "u8"],
}


def bits(values):
    """Return values as native bytes, so that NaNs and signs of zero count."""
    values = np.asarray(values)
    return values.astype(values.dtype.newbyteorder("=")).tobytes()


def same_attributes(ours, theirs):
    names = list(dict.fromkeys(theirs.ncattrs()))
    assert list(ours) == names
    for name in names:
        value, expected = ours[name], theirs.getncattr(name)
        if isinstance(expected, bytes):
            assert isinstance(value, np.bytes_)
            assert bytes(value) == expected
        else:
            assert type(value) is type(expected), name
            assert np.asarray(value).dtype == np.asarray(expected).dtype
            assert np.shape(value) == np.shape(expected)
            assert isinstance(expected, str) or value.tobytes() == expected.tobytes()
            assert not isinstance(expected, str) or value == expected


def same_as_netcdf4(path, group, read):
    data = path.read_bytes()
    with netCDF4.Dataset(path) as dataset:
        dataset.set_auto_maskandscale(False)
        dataset.set_auto_chartostring(False)
        same_attributes(group.attrs, dataset)
        assert [(n, d.size, d.is_unlimited) for n, d in group.dimensions.items()] == [
            (n, len(d), d.isunlimited()) for n, d in dataset.dimensions.items()
        ]
        skipped = [entry.path.removeprefix("/") for entry in group.report.skipped]
        assert [*group.arrays, *skipped] == list(dataset.variables)
        for name, array in group.arrays.items():
            variable = dataset.variables[name]
            assert array.dimensions == variable.dimensions
            assert array.shape == variable.shape
            assert array.dtype.newbyteorder("=") == variable.dtype.newbyteorder("=")
            assert array.dtype.byteorder in ">|"
            same_attributes(array.attrs, variable)
            assert bits(read(data, array)) == bits(variable[...]), name


def same_as_scipy(path, group, read):
    data = path.read_bytes()
    with netcdf_file(path, mmap=False) as dataset:
        assert list(dataset.variables) == list(group.arrays)
        for name, array in group.arrays.items():
            variable = dataset.variables[name]
            assert array.dimensions == variable.dimensions
            assert array.shape == variable.shape
            assert array.dtype == variable.data.dtype
            assert read(data, array).tobytes() == variable.data.tobytes()


def values_of(rng, dtype, shape):
    raw = rng.integers(0, 256, (*shape, np.dtype(dtype).itemsize), np.uint8)
    return raw.view(dtype).reshape(shape)


def write_product(path, format_, rng, *, variables, sizes, records):
    """Write variables of given types and dimensions, with random bits as values."""
    with netCDF4.Dataset(path, "w", format=format_) as dataset:
        dataset.createDimension("time", None)
        for name, size in sizes.items():
            dataset.createDimension(name, size)
        dataset.title = "größer"
        dataset.setncattr("range", np.array([-1, 1], "i2"))
        for number, (dtype, dimensions) in enumerate(variables):
            variable = dataset.createVariable(f"v{number}", dtype, dimensions)
            variable.set_auto_maskandscale(False)
            variable.units = "K"
            variable.setncattr("valid_min", values_of(rng, "f4", (1,))[0])
            shape = tuple(sizes.get(dimension, records) for dimension in dimensions)
            if 0 not in shape:
                variable[...] = values_of(rng, dtype, shape)


@pytest.mark.parametrize("max_chunk", [8 * 2**20, 64])
@pytest.mark.parametrize("format_", FORMATS)
def test_every_type_and_shape_is_read_as_by_netcdf4(tmp_path, scan, read, format_, max_chunk):
    dimensions = [(), ("x",), ("y", "x"), ("time",), ("time", "x"), ("time", "y", "x")]
    variables = [(dtype, dims) for dtype in FORMATS[format_] for dims in dimensions]
    path = tmp_path / "product.nc"
    rng = np.random.default_rng(1)
    write_product(path, format_, rng, variables=variables, sizes={"y": 7, "x": 5}, records=3)
    group = scan(path.read_bytes(), max_chunk=max_chunk)
    assert group.report.skipped == ()
    same_as_netcdf4(path, group, read)
    if format_ != "NETCDF3_64BIT_DATA":
        same_as_scipy(path, group, read)


@pytest.mark.parametrize("dtype", ["i1", "S1", "i2", "i4", "f8"])
@pytest.mark.parametrize("version", [1, 2])
def test_a_single_record_variable_written_by_scipy_is_read(tmp_path, scan, read, version, dtype):
    path = tmp_path / "single.nc"
    with netcdf_file(path, "w", version=version) as dataset:
        dataset.createDimension("t", None)
        dataset.createDimension("x", 3)
        variable = dataset.createVariable("v", np.dtype(dtype), ("t", "x"))
        variable[:5] = values_of(np.random.default_rng(2), dtype, (5, 3))
    same_as_netcdf4(path, scan(path.read_bytes()), read)
    same_as_scipy(path, scan(path.read_bytes(), max_chunk=7), read)


@pytest.mark.parametrize("format_", FORMATS)
def test_a_single_record_variable_written_by_netcdf4_is_read(tmp_path, scan, read, format_):
    for dtype in FORMATS[format_]:
        path = tmp_path / f"{dtype}.nc"
        write_product(
            path,
            format_,
            np.random.default_rng(3),
            variables=[(dtype, ("x",)), (dtype, ("time", "x"))],
            sizes={"x": 3},
            records=5,
        )
        same_as_netcdf4(path, scan(path.read_bytes(), max_chunk=13), read)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    format_=st.sampled_from(list(FORMATS)),
    variables=st.lists(
        st.tuples(
            st.integers(0, 10),
            st.booleans(),
            st.lists(st.sampled_from("xyz"), max_size=3),
        ),
        max_size=5,
    ),
    sizes=st.tuples(*[st.integers(1, 9)] * 3),
    records=st.integers(0, 4),
    max_chunk=st.integers(1, 300),
    head=st.integers(4, 2000),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_set_of_variables_is_read_as_by_netcdf4(
    tmp_path, scan, read, format_, variables, sizes, records, max_chunk, head, seed
):
    types = FORMATS[format_]
    path = tmp_path / "any.nc"
    write_product(
        path,
        format_,
        np.random.default_rng(seed),
        variables=[
            (types[code % len(types)], ("time",) * has_record + tuple(dims))
            for code, has_record, dims in variables
        ],
        sizes=dict(zip("xyz", sizes, strict=True)),
        records=records,
    )
    group = scan(path.read_bytes(), max_chunk=max_chunk, head=head)
    assert group.report.skipped == ()
    same_as_netcdf4(path, group, read)


def test_netcdf4_invents_zeros_where_a_source_is_cut_off_and_the_scanner_skips(
    tmp_path, scan, read, classic
):
    w = classic()
    path = tmp_path / "cut.nc"
    data = w.file(
        dims=[w.dim(b"x", 4)],
        variables=lambda end: [w.var(b"v", [0], 4, end)],
        data=b"\0\0\0\5\0\0\0\6",
    )
    path.write_bytes(data)
    with netCDF4.Dataset(path) as dataset:
        assert dataset["v"][...].tolist() == [5, 6, 0, 0]
    group = scan(data)
    assert group.arrays == {}
    assert [entry.path for entry in group.report.skipped] == ["/v"]


def test_the_files_of_other_projects_are_read_as_by_netcdf4(corpus, scan, read):
    paths = sorted((corpus / "netcdf3").rglob("*.nc"))
    assert len(paths) >= 20
    for path in paths:
        try:
            netCDF4.Dataset(path).close()
        except OSError:
            with pytest.raises(ByteatlasError):
                scan(path.read_bytes())
            continue
        for options in ({}, {"max_chunk": 5000, "head": 512}):
            group = scan(path.read_bytes(), **options)
            assert group.report.skipped == (), path
            same_as_netcdf4(path, group, read)
