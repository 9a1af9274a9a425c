"""The script that compares byteatlas with its peers: it finds what differs, and says so."""

import runpy
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

pytest.importorskip("hdf5plugin")

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "comparison.py"


@pytest.fixture(scope="module")
def difference():
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        return runpy.run_path(str(SCRIPT))["difference"]
    finally:
        sys.path.remove(str(SCRIPT.parent))


NAN = np.array([0x7FC00001], "u4").view("f4")


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (np.arange(3, dtype=">i4"), np.arange(3, dtype="<i4")),
        (NAN, NAN.copy()),
        (np.array([1, 0], "i1"), np.array([True, False])),
        (np.array(["a", "b"], object), np.array([b"a", b"b"], object)),
        (np.array([b"a"], "S1"), np.array([b"a"], "S4")),
        (np.array([1 + 2j], "c8"), np.array([(1, 2)], [("r", "f4"), ("i", "f4")])),
        (np.array([b"ab"], "S2"), np.array([b"ab"], "V2")),
    ],
)
def test_what_is_only_spelled_differently_is_equal(difference, ours, theirs):
    assert difference(ours, theirs) == ""


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (np.arange(3), np.arange(4)),
        (np.arange(3), np.arange(3.0)),
        (np.arange(3, dtype="i4"), np.arange(3, dtype="i8")),
        (np.array([0.0]), np.array([-0.0])),
        (NAN, np.array([np.nan], "f4")),
        (np.array([(1, 2)], "i4,i4"), np.array([(1, 3)], "i4,i4")),
        (np.array([(1, 2)], "i4,i4"), np.array([b"12345678"], "V8")),
        (np.array([""], object), np.array([b"a"], object)),
        (np.array([b"a"], "S4"), np.array([b"b"], "S4")),
    ],
)
def test_what_differs_in_shape_type_or_a_bit_is_wrong(difference, ours, theirs):
    assert difference(ours, theirs) != ""


def test_a_page_is_made_of_a_corpus(tmp_path):
    (tmp_path / "hdf5").mkdir()
    with h5py.File(tmp_path / "hdf5" / "a.h5", "w") as file:
        file["values"] = np.arange(9.0)
        file["texts"] = ["a", "b"]
        file["nothing"] = h5py.Empty("f4")
    (tmp_path / "hdf5" / "b.h5").write_bytes(b"no HDF5")
    (tmp_path / "MANIFEST.tsv").write_text("path\tfilters\nhdf5/a.h5\tnone,odd\n")
    options = ["--corpus", str(tmp_path), "--cache", str(tmp_path / "cache")]
    command = [sys.executable, str(SCRIPT), *options, "--only", "byteatlas"]
    for _ in range(2):  # the second time from the cache alone
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "| byteatlas | 1 of 1 | 0 | 1 | 1 | 0 | 0 | 0 | 0 |" in done.stdout
        assert "| filter: odd | 1 | 1 v, 1 i |" in done.stdout
        assert "1 files that h5py cannot open" in done.stdout
        assert "| 1 | has no shape |" in done.stdout
    assert "files" not in done.stderr
