"""`byteatlas cost`: what a read would take, and how a selection is written."""

import numpy as np
import pytest

from byteatlas.cli.selecting import parse_selection
from byteatlas.model import ChunkManifest, Codec, Encoding, VirtualArray, VirtualGroup
from byteatlas.opening import open_index
from byteatlas.read import Reader
from byteatlas.testing import RangeServer

from .conftest import SAMPLES


@pytest.fixture
def climate(byteatlas):
    byteatlas("scan", SAMPLES / "climate_grid.nc", "-o", "climate.json")
    return "climate.json"


def test_cost_says_what_a_read_takes(byteatlas, climate):
    said = byteatlas("cost", climate, "tas", "time=0").stdout
    assert said.splitlines() == [
        "requests  1",
        "fetched   12,845 bytes (12.8 kB)",
        "needed    12,845 bytes (12.8 kB)",
        "chunks    4 virtual, 0 inlined, 0 missing",
        "decoded   20,736 bytes (20.7 kB)",
        "result    int16 36x72, 5,184 bytes (5.2 kB)",
        "sources   1",
        f"          {SAMPLES / 'climate_grid.nc'}  1 request, 12,845 bytes (12.8 kB)",
    ]


def test_cost_has_everything_as_json(byteatlas_json, climate):
    assert byteatlas_json("cost", climate, "/tas", "0", "10:30", "5:65") == {
        "variable": "/tas",
        "shape": [20, 60],
        "is_empty": False,
        "result_bytes": 2400,
        "requests": 1,
        "bytes_fetched": 12845,
        "bytes_needed": 12845,
        "open_requests": 0,
        "chunks": {"virtual": 4, "inlined": 0, "missing": 0},
        "decoded_bytes": 20736,
        "sources": [
            {
                "url": str(SAMPLES / "climate_grid.nc"),
                "requests": 1,
                "bytes_fetched": 12845,
            }
        ],
        "has_lookup": False,
    }


def test_a_selection_of_nothing_is_said_to_be_empty(byteatlas, byteatlas_json, climate):
    said = byteatlas("cost", climate, "tas", "lat=-5:5").stdout
    assert said.splitlines()[-1] == (
        "empty     24x0x72 selects no values: nothing would be read"
        " (a selection counts positions, not coordinates)"
    )
    facts = byteatlas_json("cost", climate, "tas", "lat=-5:5")
    assert (facts["is_empty"], facts["shape"], facts["requests"]) == (True, [24, 0, 72], 0)


def test_cost_of_a_file_is_that_of_its_index(byteatlas_json, climate):
    assert byteatlas_json("cost", SAMPLES / "climate_grid.nc") == byteatlas_json("cost", climate)


def test_cost_through_parquet_is_that_through_json(byteatlas, byteatlas_json, climate):
    byteatlas("convert", climate, "climate.parq")
    assert byteatlas_json("cost", "climate.parq") == byteatlas_json("cost", climate)
    one = "tas", "time=3:9", "lon=[0,71]"
    assert byteatlas_json("cost", "climate.parq", *one) == byteatlas_json("cost", climate, *one)


def test_cost_without_a_variable_lists_all_of_them(byteatlas, byteatlas_json, climate):
    lines = byteatlas("cost", climate).stdout.splitlines()
    columns = "variable requests fetched chunks inlined missing result sources"
    assert lines[0].split() == columns.split()
    rows = byteatlas_json("cost", climate)["variables"]
    group = open_index(climate)
    assert [row["variable"] for row in rows] == [path for path, _ in group.walk_arrays()]
    assert [line.split()[0] for line in lines[1:-1]] == [row["variable"] for row in rows]
    total = sum(row["requests"] for row in rows)
    assert lines[-1].split()[:5] == ["one", "after", "the", "other", f"{total}"]


def test_cost_reads_nothing_but_the_index(byteatlas_json, tmp_path, climate):
    data = (SAMPLES / "climate_grid.nc").read_bytes()
    with RangeServer({"climate.nc": data}) as server:
        text = (tmp_path / climate).read_text()
        local = str(SAMPLES / "climate_grid.nc")
        (tmp_path / climate).write_text(text.replace(local, server.url("climate.nc")))
        facts = byteatlas_json("cost", climate, "tas")
        assert server.log == []
        group = open_index(tmp_path / climate)
        Reader(group.sources).read(group["tas"])
        assert (facts["requests"], facts["bytes_fetched"]) == (len(server.log), server.bytes_sent)


def test_cost_names_variables_that_cannot_be_counted(byteatlas, byteatlas_json, tmp_path):
    huge = VirtualArray(
        (10, 10),
        np.dtype("f4"),
        (2**20, 2**20),
        ChunkManifest.empty((1, 1)),
        encodings=(Encoding((Codec("zlib"),)),),
    )
    group = VirtualGroup(arrays={"huge": huge, "fine": array(2)})
    group.to_json(tmp_path / "huge.json")
    refused, fine = byteatlas_json("cost", "huge.json", code=3)["variables"]
    assert refused["variable"] == "/huge"
    assert "a decoded chunk takes 4398046511104, the limit is" in refused["error"]
    assert (fine["variable"], fine["requests"]) == ("/fine", 0)
    assert "/huge: a decoded chunk takes" in byteatlas("cost", "huge.json", code=3).stdout
    result = byteatlas("cost", "huge.json", "huge", code=1)
    assert "a decoded chunk takes" in result.stderr


# Selections in words


def array(*shape, dimensions=("time", "lat", "lon")):
    manifest = ChunkManifest.empty(shape)
    ones = (1,) * len(shape)
    return VirtualArray(shape, np.dtype("f4"), ones, manifest, dimensions=dimensions[: len(shape)])


VALUES = np.arange(24 * 36 * 72).reshape(24, 36, 72)


@pytest.mark.parametrize(
    ("words", "selection"),
    [
        ([], ()),
        ([""], ()),
        (["0"], 0),
        (["-1"], -1),
        (["+3"], 3),
        (["0, :, 10:20"], np.s_[0, :, 10:20]),
        (["0,", ":,", "10:20"], np.s_[0, :, 10:20]),
        (["0", ":", "10:20"], np.s_[0, :, 10:20]),
        (["0,:,10:20"], np.s_[0, :, 10:20]),
        (["...", "5"], np.s_[..., 5]),
        (["..., ::-2"], np.s_[..., ::-2]),
        (["-5:"], np.s_[-5:]),
        ([":-5:3"], np.s_[:-5:3]),
        (["10:1:-3"], np.s_[10:1:-3]),
        ([" 1 : 5 "], np.s_[1:5]),
        (["[1,5,3]"], np.s_[[1, 5, 3]]),
        (["[1,", "5,", "3],", "0"], np.s_[[1, 5, 3], 0]),
        (["[ 1 , -1 ], :"], np.s_[[1, -1], :]),
        (["[]"], np.s_[[]]),
        (["[7]"], np.s_[[7]]),
        (["time=0"], np.s_[0]),
        (["lat=10:20"], np.s_[:, 10:20]),
        (["time=0,lat=10:20"], np.s_[0, 10:20]),
        (["lon=[3,5], time=-1"], np.s_[-1, :, [3, 5]]),
        (["lon=[3,5]", "time = -1"], np.s_[-1, :, [3, 5]]),
    ],
    ids=str,
)
def test_words_select_what_numpy_selects(words, selection):
    found = parse_selection(words, array(24, 36, 72), "tas")
    expected = selection if isinstance(selection, tuple) else (selection,)
    at = tuple(np.array(one, int) if isinstance(one, list) else one for one in expected)
    found = tuple(np.array(one, int) if isinstance(one, list) else one for one in found)
    np.testing.assert_array_equal(VALUES[found], VALUES[at])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["x"], "'x' selects nothing: expected a position, a range such as 10:20"),
        (["1.5"], "'1.5' selects nothing"),
        (["1,,2"], "'' selects nothing"),
        ([","], "'' selects nothing"),
        (["1-3"], "'1-3' selects nothing"),
        (["1:2:3:4"], "'1:2:3:4' selects nothing"),
        (["1" * 30], "selects nothing"),
        (["time=2020-01-01"], "'2020-01-01' selects nothing"),
        (["time="], "'' selects nothing"),
        (["::0"], "the step of a range cannot be 0"),
        (["[1,2"], "a list is opened or closed without the other"),
        (["time=[1,2"], "a list is opened or closed without the other"),
        (["[1,[2]]"], "a list is opened or closed without the other"),
        (["[1.5]"], "'[1.5]' selects nothing"),
        (["tim=0"], "tas has no dimension 'tim'; there is time, lat, lon"),
        (["time=0,time=1"], "'time' is selected twice"),
        (["0,lat=3"], "select all axes by name (time=0), or all by their order, not both"),
        (["0,0,0,0"], "tas has the axes (time 24, lat 36, lon 72): 4 indices for an array of 3"),
        (["...,..."], "an index can only have a single ellipsis"),
        (["24"], "index 24 is out of range for axis 0 of size 24"),
        (["lon=-73"], "index -73 is out of range for axis 2 of size 72"),
        (["[0,24]"], "index 24 is out of range for axis 0 of size 24"),
    ],
    ids=str,
)
def test_wrong_words_are_refused_with_what_would_do(byteatlas, climate, words, said):
    result = byteatlas("cost", climate, "tas", *words, code=1)
    assert result.stderr.startswith("error: ")
    assert said in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("dimensions", "said"),
    [
        ((), "has no dimension 'x'; there is none that has a name"),
        (("x", "x"), "has 'x' 2 times; select by order"),
    ],
)
def test_names_that_do_not_tell_axes_apart_are_refused(dimensions, said):
    with pytest.raises(Exception, match=said):
        parse_selection(["x=0"], array(3, 4, dimensions=dimensions), "v")


def test_an_unknown_variable_is_named_with_those_like_it(byteatlas, climate):
    assert "no variable 'tass'; there is /tas" in byteatlas("cost", climate, "tass", code=1).stderr
