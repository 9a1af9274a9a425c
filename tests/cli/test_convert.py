"""`byteatlas convert`, and `byteatlas scan` into a Parquet index."""

import json

import numpy as np
import pytest
import xarray as xr

from byteatlas.cli.output import ExitCode
from byteatlas.errors import Unsupported
from byteatlas.index.lazy_manifest import LazyManifest
from byteatlas.opening import open_dataset, open_index


@pytest.fixture
def parquet(byteatlas, source):
    """The index of `source`, in Parquet."""
    byteatlas("scan", source, "-o", "ocean.parq", "--record-size", "4")
    return source.with_name("ocean.parq")


def test_a_scan_writes_a_parquet_index(byteatlas, byteatlas_json, parquet, source):
    assert json.loads((parquet / ".zmetadata").read_text())["record_size"] == 4
    group = open_index(parquet)
    assert all(isinstance(array.manifest, LazyManifest) for _, array in group.walk_arrays())
    with open_dataset(parquet) as ours, xr.open_dataset(source, engine="scipy") as theirs:
        xr.testing.assert_identical(ours.load(), theirs.load())
    facts = byteatlas_json("scan", source, "-o", "ocean.parq")  # over the first
    assert facts["index_size"] == sum(f.stat().st_size for f in parquet.rglob("*") if f.is_file())
    assert (
        "Zarr version 2"
        in byteatlas(
            "scan", source, "-o", "x.parquet", "--zarr-format", "3", code=ExitCode.FAILURE
        ).stderr
    )


def test_there_and_back_gives_the_same_file(byteatlas, index):
    said = byteatlas("convert", index, "there.parquet", "--record-size", "5").stdout
    byteatlas("convert", "there.parquet", "back.json")

    assert said.startswith("there.parquet: ")
    assert "7 arrays, 43 virtual chunks" in said
    assert index.with_name("back.json").read_bytes() == index.read_bytes()


def test_a_version_3_index_goes_through_parquet(byteatlas, source):
    byteatlas("scan", source, "-o", "three.json", "--zarr-format", "3")
    byteatlas("convert", "three.json", "there.parq")
    byteatlas("convert", "there.parq", "back.json", "--zarr-format", "3")

    here = source.parent
    assert (here / "back.json").read_bytes() == (here / "three.json").read_bytes()


def test_facts_are_given_as_json(byteatlas_json, index):
    facts = byteatlas_json("convert", index, "there.parq")

    assert facts["arrays"] == 7
    assert facts["chunks"]["virtual"] == 43
    assert facts["sources"] == 1
    assert facts["index_size"] > 1000


def test_queries_are_kept(byteatlas, index):
    url = "https://example.org/ocean.nc?sig=secret"
    document = json.loads(index.read_text())
    text = index.read_text().replace(document["byteatlas"]["sources"][0]["url"], url)
    index.write_text(text)

    byteatlas("convert", index, "there.parq")
    said = byteatlas("convert", "there.parq", "back.json").stdout

    assert open_index(index.with_name("back.json")).sources[0].url == url
    assert "secret" not in said


def test_json_can_go_to_standard_output(byteatlas, index, parquet):
    assert byteatlas("convert", parquet, "-").stdout_bytes == index.read_bytes()
    assert not index.with_name("-").exists()
    assert "standard output" in byteatlas("convert", parquet, "-", "--json", code=1).stderr


@pytest.mark.parametrize("name", ["x.parq", "x.parquet", "x.PARQUET", "x.Parq", "x.pq", "x.d/"])
def test_a_name_tells_that_parquet_is_wanted(byteatlas, index, name):
    byteatlas("convert", index, name)
    place = index.with_name(name.rstrip("/"))
    assert (place / ".zmetadata").is_file()
    assert open_index(name).sources == open_index(index).sources
    byteatlas("scan", index.with_name("ocean.nc"), "-o", name)


def test_a_web_server_is_no_place_for_an_index(byteatlas, index):
    for name in ("x.json", "x.parq"):
        said = byteatlas("convert", index, f"https://localhost/{name}", code=1).stderr
        assert said == (
            f"error: https://localhost/{name}: a web server takes no files;"
            " write to a local path or to a bucket\n"
        )
    for write in (open_index(index).to_json, open_index(index).to_parquet):
        with pytest.raises(Unsupported, match="a web server takes no files"):
            write("HTTP://localhost/x")


@pytest.mark.parametrize("name", ["data.parq", "data.json"])
def test_what_is_no_index_is_left_alone(byteatlas, index, name):
    place = index.with_name(name)
    if name.endswith("json"):
        place.write_text("precious")
    else:
        place.mkdir()
        (place / "precious").write_text("precious")

    result = byteatlas("convert", index, name, code=ExitCode.FAILURE)
    assert "is not an index; choose another name for OUTPUT" in result.stderr
    assert [f.read_text() for f in (place, place / "precious") if f.is_file()] == ["precious"]


def test_the_other_commands_take_a_parquet_index(byteatlas, byteatlas_json, parquet, index):
    for name in ("info", "ls"):
        assert (
            byteatlas(name, parquet).stdout.replace("ocean.parq", "ocean.json")
            == byteatlas(name, index).stdout
        )
    for place in ((), ("2", "0", "-1", "3")):
        where = byteatlas_json("where", parquet, "/temp", *place)
        assert where == byteatlas_json("where", index, "/temp", *place)
    assert byteatlas("verify", parquet).stdout == byteatlas("verify", index).stdout
    key = "temp/1.0.0.0"
    assert byteatlas("cat", parquet, key).stdout_bytes == byteatlas("cat", index, key).stdout_bytes


def test_a_partition_that_is_gone_is_named(byteatlas, parquet):
    (parquet / "temp" / "refs.0.parq").unlink()

    result = byteatlas("convert", parquet, "back.json", code=ExitCode.FAILURE)

    assert "/temp" in result.stderr
    assert "temp/refs.0.parq" in result.stderr
    assert not parquet.with_name("back.json").exists()


def test_values_are_the_same_whatever_the_record_size(byteatlas, index):
    expected = None
    for size in (1, 7, 100_000):
        byteatlas("convert", index, "a.parq", "--record-size", size)
        with open_dataset(index.with_name("a.parq"), decode_times=False) as dataset:
            found = np.asarray(dataset["temp"].values)
        expected = found if expected is None else expected
        np.testing.assert_array_equal(found, expected)
