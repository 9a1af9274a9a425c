"""`byteatlas scan`."""

import json
import shutil

import fsspec
import h5py
import numpy as np
import pytest
from click.exceptions import UsageError

from byteatlas.cli.options import parse_pairs
from byteatlas.cli.scan import default_index
from byteatlas.opening import open_index
from byteatlas.scanning import scan
from byteatlas.testing import RangeServer


def same_index(path, expected):
    return json.loads(path.read_bytes())["refs"] == json.loads(expected.read_bytes())["refs"]


def test_the_index_is_named_after_the_source(byteatlas, source):
    result = byteatlas("scan", source)
    index = source.with_name("ocean.nc.json")
    assert list(open_index(index).arrays) == list(scan(str(source)).arrays)
    assert result.stdout.startswith("ocean.nc.json: ")
    assert "7 arrays, 43 virtual chunks" in result.stdout
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("data/sst.nc", "sst.nc.json"),
        ("https://host/a%20b.nc?sig=x/y", "a b.nc.json"),
        ("s3://bucket/key/sst.nc", "sst.nc.json"),
        ("what?.nc", "what?.nc.json"),
        ("folder/", "folder.json"),
    ],
)
def test_an_index_has_the_last_part_of_the_sources_name(source, name):
    assert default_index(source) == name


def test_a_source_without_a_name_needs_an_output():
    with pytest.raises(UsageError, match="-o"):
        default_index("..")


def test_the_index_goes_where_it_is_told(byteatlas, source, tmp_path):
    assert byteatlas("scan", source, "-o", "here.json", "--quiet").output == ""
    assert open_index(tmp_path / "here.json").sources[0].url == str(source)


def test_a_relative_source_is_found_from_elsewhere(byteatlas, source, monkeypatch, tmp_path):
    byteatlas("scan", source.name, "-o", "i.json")
    monkeypatch.chdir("/")
    byteatlas("verify", tmp_path / "i.json")


def test_the_index_can_go_to_standard_output(byteatlas, source, index):
    result = byteatlas("scan", source, "-o", "-")
    assert result.stdout_bytes == index.read_bytes()
    assert byteatlas("scan", source, "-o", "-", "--json", code=1).stdout == ""


def test_an_earlier_index_is_replaced(byteatlas, source, index):
    before = index.read_bytes()
    byteatlas("scan", source, "-o", index, "--include", "time")
    assert len(index.read_bytes()) < len(before)


def test_nothing_but_an_index_is_replaced(byteatlas, source):
    before = source.read_bytes()
    said = byteatlas("scan", source, "-o", source, code=1).stderr
    assert "exists and is not an index" in said
    assert source.read_bytes() == before
    byteatlas("scan", source, "-o", source.parent, code=1)


@pytest.mark.parametrize("text", ["", "{}", '{"version": 1}', '{\n "refs": {', '{".zgroup": "{'])
def test_an_index_of_another_program_is_replaced_too(byteatlas, source, text):
    source.with_name("other.json").write_text(text)
    byteatlas("scan", source, "-o", "other.json")


def test_a_json_file_of_another_kind_is_not_replaced(byteatlas, source):
    other = source.with_name("package.json")
    other.write_text('{"name": "mine", "version": "1.0"}')
    assert "is not an index" in byteatlas("scan", source, "-o", other, code=1).stderr
    assert other.read_text().startswith('{"name"')


@pytest.fixture
def namesake(source):
    """Another file of the same name, in another folder."""
    place = source.parent / "other" / source.name
    place.parent.mkdir()
    return shutil.copy(source, place)


def test_the_index_of_a_namesake_is_not_replaced_unasked(byteatlas, source, namesake, tmp_path):
    byteatlas("scan", source)
    before = (tmp_path / "ocean.nc.json").read_bytes()
    said = byteatlas("scan", namesake, code=1).stderr
    assert said == (
        f"error: ocean.nc.json is an index of {source}; say with -o where the index of"
        f" {namesake} goes\n"
    )
    assert (tmp_path / "ocean.nc.json").read_bytes() == before
    byteatlas("scan", namesake, "-o", "ocean.nc.json")
    assert open_index(tmp_path / "ocean.nc.json").sources[0].url == str(namesake)


@pytest.mark.parametrize("spelling", ["{}", "file://{}", "other/../ocean.nc", "./ocean.nc"])
def test_the_index_of_the_same_source_is_replaced(byteatlas, source, namesake, spelling):
    for _ in range(2):
        byteatlas("scan", spelling.format(source))
    byteatlas("scan", source)


def test_an_index_of_unknown_sources_is_not_replaced_unasked(byteatlas, source, tmp_path):
    place = tmp_path / "ocean.nc.json"
    place.write_text('{"version": 1, "refs": {}}')
    assert "is an index of unknown sources; say with -o" in byteatlas("scan", source, code=1).stderr
    place.write_text("")
    byteatlas("scan", source)


def test_a_web_server_is_no_place_for_an_index(byteatlas, source):
    with RangeServer(source.parent) as server:
        for name in ("new.json", "new.parq"):
            said = byteatlas("scan", source, "-o", server.url(name), code=1).stderr
            assert said.startswith(f"error: {server.url(name)}: a web server takes no files; write")
        assert server.log == []


def test_an_index_may_go_to_any_other_filesystem(byteatlas, byteatlas_json, source, index):
    said = byteatlas("scan", source, "-o", "memory://scanned.json").stdout
    assert said.startswith("memory://scanned.json: ")
    facts = byteatlas_json("scan", source, "-o", "memory://scanned.json")
    assert facts["index_size"] is None
    assert fsspec.filesystem("memory").cat_file("/scanned.json") == index.read_bytes()
    byteatlas("scan", source, "-o", f"file://{source.parent}/ocean.json")
    byteatlas("scan", source, "-o", f"file://{source}", code=1)


def test_variables_can_be_chosen(byteatlas, source, tmp_path):
    byteatlas("scan", source, "--include", "/t*", "--exclude", "time", "-o", "i.json")
    assert list(open_index(tmp_path / "i.json").arrays) == ["temp"]


def test_contiguous_variables_are_split(byteatlas, source, tmp_path):
    byteatlas("scan", source, "--max-chunk", "2kB", "-o", "i.json")
    array = open_index(tmp_path / "i.json").arrays["temp"]
    assert np.prod(array.chunk_shape) * 4 <= 2000


def test_zarr_format_3_is_written_when_asked_for(byteatlas, source, tmp_path):
    byteatlas("scan", source, "--zarr-format", "3", "-o", "i.json")
    refs = json.loads((tmp_path / "i.json").read_bytes())["refs"]
    assert "zarr.json" in refs
    assert ".zgroup" not in refs


def test_json_says_what_was_found_and_what_it_cost(byteatlas_json, source):
    facts = byteatlas_json("scan", source)
    assert facts["index"] == "ocean.nc.json"
    assert facts["scanner"] == "netcdf3"
    assert facts["sources"] == [{"url": str(source), "size": source.stat().st_size}]
    assert facts["arrays"] == 7
    assert facts["chunks"] == {"virtual": 43, "inlined": 0, "missing": 0}
    assert facts["skipped"] == []
    assert facts["bytes_read"] >= facts["sources"][0]["size"]
    assert facts["index_size"] == source.with_name("ocean.nc.json").stat().st_size


def test_a_skipped_variable_is_said_and_exits_with_3(byteatlas, byteatlas_json, tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["good"] = np.arange(3)
        file["bad"] = h5py.Empty("f4")
    result = byteatlas("scan", "a.h5", code=3)
    assert result.stderr.startswith("skipped /bad: ")
    (skipped,) = byteatlas_json("scan", "a.h5", code=3)["skipped"]
    assert skipped["path"] == "/bad"


def test_links_that_were_not_followed_are_said_to_be_followed_with_an_option(byteatlas, tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["field"] = np.arange(3)
    with h5py.File(tmp_path / "linked.h5", "w") as file:
        file["link"] = h5py.ExternalLink("other.h5", "/field")
    assert "--follow-links" in byteatlas("scan", tmp_path / "linked.h5", code=3).stderr
    assert byteatlas("scan", tmp_path / "linked.h5", "--follow-links").stderr == ""
    (tmp_path / "other.h5").unlink()
    said = byteatlas("scan", tmp_path / "linked.h5", "--follow-links", code=3).stderr
    assert "an external link" in said
    assert "--follow-links" not in said


def test_an_index_that_is_sealed_says_so(byteatlas, source, index):
    assert " · sealed" not in byteatlas("info", index).stdout
    assert " · sealed · " in byteatlas("scan", source, "--seal", "-o", "s.json").stdout
    assert byteatlas("info", "s.json").stdout.splitlines()[0].endswith(" · sealed")


def test_patterns_that_no_variable_matches_are_said(byteatlas, source):
    said = byteatlas("scan", source, "--include", "/nothing*").stderr
    assert said == "no variable is left by --include and --exclude\n"


def test_a_trace_lists_each_request(byteatlas, byteatlas_json, source):
    with RangeServer(source.parent) as server:
        said = byteatlas("scan", server.url(source.name), "--trace").stderr.splitlines()
        assert len(said) == len(server.log) + 1
        assert server.url(source.name) in said[0]
        assert "206" in said[0]
        assert said[-1].startswith("1 round, 1 request, 112 kB")
        (entry,) = byteatlas_json("scan", server.url(source.name), "--trace")["trace"]
        assert entry["offset"] == 0
        assert entry["length"] == source.stat().st_size


def test_a_signed_query_is_kept_only_when_asked_for(byteatlas, source, tmp_path):
    with RangeServer(source.parent) as server:
        url = server.url(source.name) + "?signature=secret"
        result = byteatlas("scan", url, "--trace", "-o", "i.json")
        assert b"secret" not in (tmp_path / "i.json").read_bytes()
        assert "secret" not in result.output
        byteatlas("scan", url, "--keep-query", "-o", "i.json")
        assert b"secret" in (tmp_path / "i.json").read_bytes()


def test_storage_options_reach_the_server(byteatlas, source):
    with RangeServer(source.parent) as server:
        header = "headers.X-Token=abc"
        byteatlas("scan", server.url(source.name), "--storage-option", header)
        assert server.log[0].headers["x-token"] == "abc"


def test_storage_options_are_json_or_text_and_may_be_nested():
    pairs = ("key=a=b", "n=3", 'x.y={"z": 1}', "x.w=true", "s=no json")
    assert parse_pairs(pairs) == {
        "key": "a=b",
        "n": 3,
        "x": {"y": {"z": 1}, "w": True},
        "s": "no json",
    }
    for wrong in (("a=1", "a.b=2"), ("=1",), ("a",)):
        with pytest.raises(UsageError):
            parse_pairs(wrong)


@pytest.mark.parametrize(
    ("words", "count"),
    [("8MiB", 2**23), ("500kB", 500_000), ("65536", 65536), ("1.5 M", 1_500_000), ("2gib", 2**31)],
)
def test_sizes_are_read_as_people_write_them(words, count):
    from byteatlas.cli.options import byte_count

    assert byte_count(None, None, words) == count
