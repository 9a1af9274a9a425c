"""What the tests of conventions share."""

import h5py
import numpy as np
import pytest

import byteatlas


def _axes_of(group):
    return {path: array.dimensions for path, array in group.walk_arrays()}


def _noted(group):
    """Return which convention named each array's axes."""
    return {path: array.notes.get("dimensions_from") for path, array in group.walk_arrays()}


@pytest.fixture(scope="session")
def axes_of():
    return _axes_of


@pytest.fixture(scope="session")
def noted():
    return _noted


@pytest.fixture
def check_named(tmp_path, check, make):
    """Compare names, and values with h5py, in the scan, in an index, and through xarray."""

    def check_named(write, expected, convention, **options):
        data = make(write, **options)
        group = check(data)
        assert _axes_of(group) == expected
        names = {
            path: convention if any(not name.startswith("phony") for name in axes) else None
            for path, axes in expected.items()
        }
        assert _noted(group) == names
        path = tmp_path / "file.h5"
        path.write_bytes(data)
        byteatlas.scan(path).to_json(tmp_path / "index.json")
        again = byteatlas.open_index(tmp_path / "index.json")
        assert _axes_of(again) == expected
        assert _noted(again) == names
        plain = check(data, conventions=False)
        for axes in _axes_of(plain).values():
            assert all(name.startswith("phony_dim_") for name in axes)
        with byteatlas.open_datatree(str(path)) as tree, h5py.File(path) as file:
            for name, axes in expected.items():
                variable = tree[name].variable
                assert variable.dims == axes, name
                theirs = file[name][...]
                if theirs.dtype.names is None and theirs.dtype.kind in "iuf":
                    assert np.array_equal(variable.values, theirs), name
        return group

    return check_named
