"""Thousands of damaged samples: what is read equals what h5py and netCDF4 read, or is refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz.mutations import mutate
from fuzz.seeds import SEEDS, make_seed, repaired

ROOT = Path(__file__).parents[2]
COUNT = 3000

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="measures memory as Linux tells it")


def campaign(*options):
    """Run a campaign in a process of its own, since it forks; return its figures."""
    ran = subprocess.run(
        [sys.executable, "-m", "fuzz", "--json", *options],
        cwd=ROOT,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stdout, ran.stderr
    return json.loads(ran.stdout)


def check(figures):
    findings = [f"{one['kind']}: {one['name']}: {one['details']}" for one in figures["findings"]]
    assert findings == [], "\n".join(findings)
    unlocated = {name: one["unlocated"] for name, one in figures["samples"].items()}
    assert not any(unlocated.values()), unlocated


def test_three_thousand_damaged_files_are_read_as_others_read_them_or_refused(tmp_path):
    figures = campaign("--mutations", str(COUNT), "--corpus", str(tmp_path))
    check(figures)
    assert figures["samples"].keys() == SEEDS.keys()
    for one in figures["samples"].values():
        assert sum(one["counts"].values()) == -(-COUNT // len(SEEDS))
        assert {"agree", "skip", "error"} <= one["counts"].keys()
        assert one["errors"] > 50


@pytest.mark.corpus
def test_files_of_known_vulnerabilities_are_read_as_others_read_them_or_refused(corpus):
    figures = campaign("--mutations", "0", "--corpus", str(corpus / "hdf5-cve"))
    check(figures)
    assert sum(figures["samples"]["known files"]["counts"].values()) > 60


@pytest.mark.parametrize("name", SEEDS)
def test_the_same_name_means_the_same_mutant(name):
    seed = make_seed(name)
    assert make_seed(name) == seed
    assert len(seed.data) < 24_000
    mutants = [mutate(seed, number) for number in range(40)]
    assert mutants == [mutate(seed, number) for number in range(40)]
    assert len({mutant.data for mutant in mutants}) > 30


def test_checksums_are_repaired_where_they_were_right_before():
    seed = make_seed("hdf5-dense")
    kinds = {seed.data[one.start : one.start + 4] for one in seed.checked}
    assert {b"\x89HDF", b"OHDR", b"FRHP", b"FHDB", b"BTHD", b"BTLF"} <= kinds
    for one in seed.checked:
        damaged = bytearray(seed.data)
        damaged[one.place] ^= 1
        assert repaired(bytes(damaged), seed.checked) == seed.data
