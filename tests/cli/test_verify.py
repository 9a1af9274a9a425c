"""`byteatlas verify`."""

import json
import os

import pytest

from byteatlas.testing import RangeServer

from .conftest import SAMPLES

DATA = sorted(path.name for path in SAMPLES.iterdir() if path.suffix in (".nc", ".h5"))


@pytest.mark.parametrize("name", DATA)
def test_every_sample_is_equal_in_every_value(byteatlas, byteatlas_json, name):
    byteatlas("scan", SAMPLES / name, "-o", "i.json")
    report = byteatlas_json("verify", "i.json", "--all")
    assert report["is_equal"] is True
    assert report["differences"] == report["skipped"] == report["absent"] == report["stale"] == []
    assert all(checked["elements"] == checked["size"] for checked in report["checked"])


@pytest.mark.parametrize("name", DATA)
def test_every_sample_is_equal_over_http_in_a_sample_of_chunks(byteatlas, byteatlas_json, name):
    with RangeServer(SAMPLES) as server:
        byteatlas("scan", server.url(name), "-o", "i.json")
        report = byteatlas_json("verify", "i.json", "--sample", 3)
    assert report["differences"] == []
    assert report["is_equal"] is True


def test_the_table_names_each_variable_and_the_library(byteatlas, index):
    said = byteatlas("verify", index).stdout
    assert "/temp" in said
    assert "7 of 7 variables equal to netCDF4" in said


def test_a_wrong_offset_is_found_and_exits_with_2(byteatlas, byteatlas_json, index):
    document = json.loads(index.read_bytes())
    document["refs"]["temp/3.0.0.0"][1] += 4
    index.write_text(json.dumps(document))
    (difference,) = byteatlas_json("verify", index, "--all", code=2)["differences"]
    assert difference["path"] == "/temp"
    assert difference["detail"].startswith("[3, 0, 0, 0] is ")
    assert "DIFFERENT" in byteatlas("verify", index, "--all", code=2).stdout


def test_a_changed_source_exits_with_4(byteatlas, byteatlas_json, source, index):
    status = source.stat()
    os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))
    (stale,) = byteatlas_json("verify", index, code=4)["stale"]
    assert stale["url"] == str(source)
    result = byteatlas("verify", index, code=4)
    assert result.stderr.startswith(f"stale: {source}")


def test_skipped_variables_exit_with_3(byteatlas, byteatlas_json, index):
    document = json.loads(index.read_bytes())
    document["byteatlas"]["skipped"] = [{"path": "/x", "reason": "made up"}]
    index.write_text(json.dumps(document))
    assert byteatlas_json("verify", index, code=3)["skipped"][0]["path"] == "/x"


def test_excluded_variables_exit_with_3(byteatlas, byteatlas_json, source):
    byteatlas("scan", source, "--exclude", "/temp", "-o", "i.json")
    assert byteatlas_json("verify", "i.json", code=3)["absent"] == ["/temp"]
    assert "not in the index: /temp" in byteatlas("verify", "i.json", code=3).stdout


def test_a_source_that_is_gone_exits_with_1(byteatlas, source, index):
    source.unlink()
    byteatlas("verify", index, code=1)
