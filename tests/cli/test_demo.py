"""The demo that `make demo` runs."""

import shutil
import sys

import numpy as np
import pytest

from byteatlas.cli import demo
from byteatlas.model import ChunkManifest
from byteatlas.opening import open_index

from .conftest import SAMPLES


@pytest.fixture
def run_demo(tmp_path, monkeypatch, capsys):
    """Run the demo in an empty directory, and give exit code and output."""
    monkeypatch.chdir(tmp_path)

    def run(directory):
        monkeypatch.setattr(sys, "argv", ["demo", str(directory)])
        with pytest.raises(SystemExit) as stopped:
            demo.main()
        return stopped.value.code, capsys.readouterr().out

    return run


def test_every_sample_is_equal_to_netcdf4(run_demo, tmp_path):
    code, said = run_demo(SAMPLES)
    assert code == 0
    assert f"7 files, {said.count('  equal')} variables: all equal to netCDF4, to the bit" in said
    written = {path.name for path in (tmp_path / demo.INDEXES).iterdir()}
    assert "climate_grid.nc.json" in written
    assert len(written) == 7
    assert "tas" in open_index(tmp_path / demo.INDEXES / "climate_grid.nc.json").arrays


def test_a_single_wrong_chunk_ends_it_with_1(run_demo, monkeypatch, tmp_path):
    true_scan = demo.scan

    def wrong_scan(url):
        group = true_scan(url)
        if "ocean" in url:
            array = group.arrays["temp"]
            offset = array.manifest.offset.copy()
            offset[3] += np.uint64(4)
            moved = ChunkManifest(array.manifest.grid_shape, offset, array.manifest.length)
            object.__setattr__(array, "manifest", moved)
        return group

    monkeypatch.setattr(demo, "scan", wrong_scan)
    shutil.copytree(SAMPLES, tmp_path / "data", ignore=shutil.ignore_patterns("[!o]*"))
    code, said = run_demo(tmp_path / "data")
    assert code == 1
    assert "[3, 0, 0, 0] is " in said
    assert "2 differ, 0 skipped" in said


def test_it_wants_a_directory(run_demo, tmp_path):
    code, _ = run_demo(tmp_path / "missing")
    assert "usage" in code
