"""What looks for harm finds it: wrong and missing values, crashes, hangs, errors not ours."""

import os
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
from fuzz.campaign import _Job, _outcome, minimised
from fuzz.children import run_in_children
from fuzz.mutations import Mutant
from fuzz.oracle import judge
from fuzz.seeds import make_seed
from fuzz.subject import examine

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs forked children"),
    # Nothing but the work itself runs in the children.
    pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),
]


@pytest.fixture(params=["hdf5-types", "netcdf3-classic"])
def sample(request, tmp_path):
    """Return how an undamaged sample is read, where it is, and how to judge a reading of it."""
    seed = make_seed(request.param)
    path = tmp_path / "sample"
    path.write_bytes(seed.data)
    reading = examine(path)
    known = frozenset(reading.refused)
    return reading, lambda one: judge(one, path, known, is_hdf5=seed.is_hdf5).kind


def test_an_undamaged_sample_agrees(sample):
    reading, kind_of = sample
    assert kind_of(reading) == "agree"


def spoiled(values):
    """Return values of which the last is another."""
    changed = np.array(values)
    if changed.dtype == object:
        last = changed.ravel()[-1]
        changed.ravel()[-1] = last[:-1] if len(last) else "x"
    else:
        changed.reshape(-1).view(np.uint8)[-1] ^= 1
    return changed


def test_a_wrong_value_is_found(sample):
    reading, kind_of = sample
    for name, values in reading.values.items():
        values_of = reading.values | {name: spoiled(values)}
        assert kind_of(replace(reading, values=values_of)) == "wrong", name


def test_a_wrong_attribute_is_found(tmp_path):
    seed = make_seed("netcdf4")
    path = tmp_path / "sample"
    path.write_bytes(seed.data)
    reading = examine(path)
    assert judge(reading, path, frozenset(), is_hdf5=True).kind == "agree"
    for attrs in ({"title": "other"}, {}):
        verdict = judge(
            replace(reading, attrs=reading.attrs | {"/": attrs}), path, frozenset(), is_hdf5=True
        )
        assert verdict.kind == ("wrong" if attrs else "dropped")


def test_a_variable_that_is_neither_read_nor_reported_is_found(sample):
    reading, kind_of = sample
    for name in reading.values:
        rest = {other: values for other, values in reading.values.items() if other != name}
        assert kind_of(replace(reading, values=rest)) == "dropped"
        refused = reading.refused | {name: "why"}
        assert kind_of(replace(reading, values=rest, refused=refused)) == "skip"


def test_a_variable_that_is_not_there_is_found(sample):
    reading, kind_of = sample
    values = reading.values | {"/surplus": np.zeros(3)}
    assert kind_of(replace(reading, values=values)) == "wrong"


def test_each_way_to_end_is_told_apart_and_the_others_go_on():
    def work(job, begin):
        begin("scan", 0.2)
        match job:
            case "raise":
                raise ZeroDivisionError
            case "crash":
                os.kill(os.getpid(), signal.SIGTERM)
            case "loop":
                while True:
                    pass
            case "exit":
                os._exit(3)
        time.sleep(0)
        return {"job": job}

    jobs = ["good", "raise", "crash", "good", "loop", "exit", "good"]
    reports = list(run_in_children(jobs, work, per_child=4))
    assert [report.number for report in reports] == list(range(7))
    ends = [report.result or report.death.rpartition("\n")[0] or report.death for report in reports]
    assert ends[0] == ends[3] == ends[6] == {"job": "good"}
    assert "ZeroDivisionError" in reports[1].death
    assert [reports[at].death for at in (2, 4, 5)] == ["SIGTERM", "hang", "exit 3"]
    assert {report.phase for report in reports if report.death} == {"scan"}


def test_a_finding_is_boiled_down_to_what_shows_it(tmp_path):
    seed = make_seed("hdf5-old")
    data = bytearray(seed.data)
    assert data[:4] == b"\x89HDF"
    data[3] ^= 1
    for place in range(100, 140):
        data[place] ^= 0x55
    mutant = Mutant("one", seed.name, bytes(data))
    (report,) = run_in_children([mutant], _Job(tmp_path, is_hdf5=True).run)
    kind = _outcome(report, mutant, 2**26).kind
    smaller = minimised(seed, mutant, kind)
    assert kind == "error"
    assert sum(a != b for a, b in zip(smaller.data, seed.data, strict=True)) == 1
