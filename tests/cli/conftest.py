"""Running the command line inside the test's own process."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from byteatlas.cli import main

SAMPLES = Path(__file__).resolve().parents[2] / "sample_data"


@pytest.fixture
def byteatlas(tmp_path, monkeypatch):
    """Run `byteatlas ...` in an empty directory, and give exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*args, code=0):
        result = CliRunner().invoke(main, [str(arg) for arg in args])
        assert result.exit_code == code, result.output
        return result

    return run


@pytest.fixture
def byteatlas_json(byteatlas):
    """Run `byteatlas ... --json`, and give what it printed."""

    def run(*args, code=0):
        return json.loads(byteatlas(*args, "--json", code=code).stdout)

    return run


@pytest.fixture
def source(tmp_path):
    """A netCDF-3 file of its own in the working directory."""
    return Path(shutil.copy(SAMPLES / "ocean_classic.nc", tmp_path / "ocean.nc"))


@pytest.fixture
def index(byteatlas, source):
    """The index of `source`."""
    byteatlas("scan", source, "-o", "ocean.json")
    return source.with_name("ocean.json")
