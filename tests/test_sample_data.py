"""The sample files are what the script says they are."""

import hashlib
import runpy
from pathlib import Path

import netCDF4
import numpy as np
import pytest

HERE = Path(__file__).resolve().parents[1] / "sample_data"
SAMPLES = runpy.run_path(str(HERE / "make_samples.py"))["SAMPLES"]


def test_every_sample_has_its_checksum_and_nothing_else_has_one():
    listed = dict(line.split()[::-1] for line in (HERE / "SHA256SUMS").read_text().splitlines())
    assert set(listed) == set(SAMPLES)
    for name, checksum in listed.items():
        assert hashlib.sha256((HERE / name).read_bytes()).hexdigest() == checksum, name


def test_every_sample_is_explained_and_small():
    readme = (HERE / "README.md").read_text()
    data = [path for path in HERE.iterdir() if path.suffix in (".nc", ".h5")]
    assert sorted(path.name for path in data) == sorted(SAMPLES)
    assert all(f"`{path.name}`" in readme for path in data)
    assert all(path.stat().st_size < 400_000 for path in data)


@pytest.mark.parametrize("name", SAMPLES)
def test_the_script_writes_the_same_values_again(name, tmp_path):
    SAMPLES[name](tmp_path / name)
    with netCDF4.Dataset(HERE / name) as kept, netCDF4.Dataset(tmp_path / name) as made:
        assert facts(kept) == facts(made)


def facts(group):
    """Everything in a group, values as bytes."""
    group.set_auto_maskandscale(False)
    group.set_auto_chartostring(False)
    variables = {
        name: (variable.dimensions, str(variable.dtype), attributes(variable), raw(variable[...]))
        for name, variable in group.variables.items()
    }
    groups = {name: facts(child) for name, child in group.groups.items()}
    sizes = {name: len(dimension) for name, dimension in group.dimensions.items()}
    return variables, groups, sizes, attributes(group)


def attributes(item):
    return {name: repr(item.getncattr(name)) for name in item.ncattrs()}


def raw(values):
    values = np.asarray(values)
    return values.tolist() if values.dtype == object else values.tobytes()
