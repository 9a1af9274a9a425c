"""`byteatlas info`, `ls`, `cat` and `where`."""

import json

import h5py
import numpy as np
import pytest

from byteatlas.model import ChunkManifest, VirtualArray, VirtualGroup
from byteatlas.scanning import scan
from byteatlas.testing import RangeServer

from .conftest import SAMPLES

# info


def test_info_says_of_sequences_what_they_are_made_of(byteatlas, tmp_path):
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file.create_dataset("s", (2,), h5py.vlen_dtype("<i2"))[0] = [1, 2]
    assert "    short(*) s(phony_dim_0) ;" in byteatlas("info", tmp_path / "s.h5").stdout


def test_info_says_what_ncdump_says_and_where_the_chunks_are(byteatlas, source):
    lines = byteatlas("info", source).stdout.splitlines()
    assert lines[0].startswith("netcdf ocean.nc {  // ")
    for line in (
        "    time = UNLIMITED ;  // (10 currently)",
        "    float temp(time, level, y, x) ;",
        '        temp:units = "degree_C" ;',
        "        temp:missing_value = -1e+30f ;",
        "        // chunks 5; big-endian; raw; 1 virtual; 20 B in the source",
        "        ssh:_FillValue = -32767s ;",
        '        :title = "Ocean model output" ;',
    ):
        assert line in lines
    assert lines[-1] == "}"


def test_info_of_an_index_is_that_of_its_source(byteatlas_json, source, index):
    assert byteatlas_json("info", index) == byteatlas_json("info", source)


def test_info_has_everything_as_json(byteatlas_json, source):
    facts = byteatlas_json("info", source)
    assert facts["sources"][0]["url"] == str(source)
    assert facts["dimensions"]["time"] == {"size": 10, "is_unlimited": True}
    assert facts["arrays"]["ssh"] == {
        "shape": [10, 20, 25],
        "dtype": ">i2",
        "dimensions": ["time", "y", "x"],
        "chunk_shape": [1, 20, 25],
        "encodings": [[]],
        "fill_value": facts["arrays"]["ssh"]["fill_value"],
        "notes": {},
        "chunks": {"virtual": 10, "inlined": 0, "missing": 0},
        "attrs": {"_FillValue": -32767, "units": "m", "scale_factor": pytest.approx(0.001)},
    }


@pytest.mark.parametrize("name", ["climate_grid.nc", "satellite_swath.h5", "radar_latest.h5"])
def test_info_nests_groups_and_shows_every_variable(byteatlas, name):
    said = byteatlas("info", SAMPLES / name).stdout
    assert said.count("{") == said.count("}")
    for path, array in scan(str(SAMPLES / name)).walk_arrays():
        axes = f"({', '.join(array.dimensions)})" if array.shape else ""
        assert f" {path.rpartition('/')[2]}{axes} ;\n" in said


# ls and cat


def test_ls_lists_one_level(byteatlas, index):
    names = byteatlas("ls", index).stdout.split()
    assert names[:3] == [".zattrs", ".zgroup", ".zmetadata"]
    assert "temp/" in names
    chunks = byteatlas("ls", index, "temp").stdout.split()
    assert chunks == [".zarray", ".zattrs", *(f"{i}.0.0.0" for i in range(10))]


def test_ls_lists_all_keys_and_cat_gives_the_bytes_of_each(byteatlas, byteatlas_json, index):
    entries = byteatlas_json("ls", index, "--recursive")
    refs = json.loads(index.read_bytes())["refs"]
    assert sorted(entry["key"] for entry in entries) == sorted(refs)
    for entry in entries:
        assert len(byteatlas("cat", index, entry["key"]).stdout_bytes) == entry["size"]


def test_ls_tells_sizes(byteatlas, byteatlas_json, index):
    assert "10,000  0.0.0.0" in byteatlas("ls", index, "temp", "--long").stdout
    assert byteatlas_json("ls", index, "temp/3.0.0.0") == [
        {"key": "temp/3.0.0.0", "type": "key", "size": 10_000}
    ]


def test_ls_speaks_zarr_3_when_asked(byteatlas, index):
    names = byteatlas("ls", index, "temp", "--zarr-format", "3").stdout.split()
    assert names == ["c/", "zarr.json"]


def test_cat_writes_a_chunk_as_the_source_stores_it(byteatlas, byteatlas_json, source, index):
    (chunk,) = byteatlas_json("where", index, "temp", 3, 0, 0, 0)["chunks"]
    stored = source.read_bytes()[chunk["offset"] : chunk["offset"] + chunk["length"]]
    assert byteatlas("cat", index, "temp/3.0.0.0").stdout_bytes == stored
    assert byteatlas("cat", index, ".zgroup").stdout_bytes == b'{"zarr_format":2}'


@pytest.mark.parametrize("command", ["ls", "cat"])
def test_an_unknown_key_is_an_error(byteatlas, index, command):
    assert "the index has no key 'nonsense'" in byteatlas(command, index, "nonsense", code=1).stderr


@pytest.mark.parametrize("command", ["ls", "cat"])
def test_a_key_of_the_other_zarr_format_is_an_error_that_says_so(byteatlas, index, command):
    said = byteatlas(command, index, "temp/zarr.json", code=1).stderr
    assert said == "error: the index has no key 'temp/zarr.json'; --zarr-format 3 has it\n"


def test_a_source_that_is_gone_is_an_error_of_cat(byteatlas, source, index):
    source.unlink()
    assert str(source) in byteatlas("cat", index, "temp/0.0.0.0", code=1).stderr


# where


def test_where_finds_the_bytes_of_an_element(byteatlas_json, source, index):
    facts = byteatlas_json("where", index, "/temp", 3, 1, -1, 4)
    (chunk,) = facts["chunks"]
    assert chunk["chunk"] == [3, 0, 0, 0]
    assert chunk["within"] == [0, 1, 19, 4]
    assert chunk["url"] == str(source)
    assert chunk["codecs"] == []
    values = np.frombuffer(source.read_bytes(), ">f4", 2500, chunk["offset"]).reshape(5, 20, 25)
    import netCDF4

    with netCDF4.Dataset(source) as root:
        assert values[1, 19, 4] == root["temp"][3, 1, -1, 4]


def test_where_lists_all_chunks(byteatlas, byteatlas_json, index):
    rows = byteatlas_json("where", index, "temp")["chunks"]
    assert [row["chunk"][0] for row in rows] == list(range(10))
    assert all(row["kind"] == "virtual" for row in rows)
    lines = byteatlas("where", index, "temp").stdout.splitlines()
    assert len(lines) == 10
    assert lines[2].startswith("2.0.0.0  ")
    assert f"offset {rows[2]['offset']}  length 10000  raw" in lines[2]


def test_where_tells_inlined_and_missing_chunks(byteatlas, byteatlas_json):
    radar = SAMPLES / "radar_latest.h5"
    (row,) = byteatlas_json("where", radar, "lightning", 47, 39)["chunks"]
    assert (row["kind"], row["fill_value"]) == ("missing", "-1")
    assert "missing: every element is -1" in byteatlas("where", radar, "lightning", 47, 39).stdout
    rows = byteatlas_json("where", radar, "lightning")["chunks"]
    assert len(rows) == 15
    (row,) = byteatlas_json("where", SAMPLES / "climate_grid.nc", "region_name")["chunks"]
    assert row["kind"] == "inlined"


def test_where_says_why_a_variable_was_skipped(byteatlas, tmp_path):
    with h5py.File(tmp_path / "n.h5", "w") as file:
        file["nothing"] = h5py.Empty("f4")
    said = byteatlas("where", tmp_path / "n.h5", "nothing", code=1).stderr
    assert "error: 'nothing' was skipped: a null dataspace" in said


def test_where_takes_scalars(byteatlas_json):
    (row,) = byteatlas_json("where", SAMPLES / "climate_grid.nc", "height")["chunks"]
    assert row["chunk"] == []


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["tmp"], "no variable 'tmp'; there is /temp"),
        (["temp", "1"], "4 indices expected, 1 given"),
        (["temp", "10", "0", "0", "0"], "index 10 is outside axis 0 of 10 elements"),
        (["temp", "-11", "0", "0", "0"], "index -11 is outside"),
        (["temp", "x"], "'x' is not a valid integer"),
    ],
)
def test_where_says_what_is_wrong(byteatlas, index, args, message):
    assert message in byteatlas("where", index, *args, code=1).stderr


# an index that came over the network


def test_an_index_from_the_network_needs_leave_for_loopback_sources(byteatlas, source, index):
    with RangeServer(source.parent) as server:
        byteatlas("scan", server.url(source.name), "-o", "remote.json")
        moved = index.with_name("moved.json")
        moved.write_bytes(index.read_bytes())  # names a local file
        said = byteatlas("info", server.url("moved.json"), code=1).stderr
        assert "--allow PREFIX" in said
        byteatlas("info", server.url("moved.json"), "--allow", source.parent.as_uri())


def test_what_reads_a_source_that_changed_exits_with_4(byteatlas, byteatlas_json, source, index):
    byteatlas("cat", index, "temp/0.0.0.0")
    with source.open("ab") as file:
        file.write(b"more")
    assert "the source changed" in byteatlas("cat", index, "temp/0.0.0.0", code=4).stderr
    said = byteatlas_json("cat", index, "temp/0.0.0.0", code=4)
    assert said["error"]["type"] == "SourceChanged"
    byteatlas("verify", index, code=4)
    byteatlas("cat", index, ".zgroup")


def test_what_is_not_named_of_many_variables_is_counted(byteatlas):
    group = VirtualGroup(
        arrays={
            f"v{n:02}": VirtualArray((), np.dtype("f4"), (), ChunkManifest.empty(()))
            for n in range(20)
        }
    )
    group.to_json("many.json")
    said = byteatlas("where", "many.json", "nope", code=1).stderr
    assert said.endswith("; there is /v00, /v01, /v02, /v03, /v04, /v05, /v06, /v07 and 12 more\n")
    said = byteatlas("where", "many.json", "v071", code=1).stderr
    assert "; there is /v07, " in said
    assert said.endswith(" and 17 more\n")
