"""Scanning a source from end to end: what is asked of it, and what is said about it."""

import io
from pathlib import Path

import h5py
import numpy as np
import pytest

import byteatlas
from byteatlas.errors import Malformed, NotRecognised, SourceMissing, Unsupported
from byteatlas.read import Reader
from byteatlas.scanning import HEAD, SMALL
from byteatlas.sources import Trace
from byteatlas.testing.server import RangeServer
from byteatlas.version import __version__

VALUES = np.arange(60, dtype="<i4").reshape(6, 10)


def hdf5(before=0):
    """Return the bytes of a small HDF5 file, with so many bytes of data before the rest."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver="latest") as file:
        if before:
            file["before"] = np.zeros(before, "u1")
        file.create_dataset("x", data=VALUES, chunks=(2, 10))
        file.create_dataset("group/y", data=VALUES)
        file.create_dataset("text", data=["a" * 100])
    return buffer.getvalue()


@pytest.fixture
def server():
    with RangeServer({"a b.h5": hdf5(), "page.html": b"<html>not here</html>"}) as running:
        yield running


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "a.h5"
    path.write_bytes(hdf5())
    return path


def test_a_path_is_scanned_whatever_it_is_spelled_as(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    for url in (str(path), path, path.as_uri(), Path(path.name)):
        group = byteatlas.scan(url)
        assert set(dict(group.walk_arrays())) == {"/x", "/group/y", "/text"}
        np.testing.assert_array_equal(Reader(group.sources).read(group["x"]), VALUES)


def test_a_url_is_scanned_and_its_source_described(server):
    group = byteatlas.scan(server.url("a b.h5"))
    (source,) = group.sources
    assert source.url == server.url("a b.h5")
    assert source.size == len(server.content["a b.h5"])
    assert source.etag
    assert source.last_modified
    np.testing.assert_array_equal(Reader(group.sources).read(group["group/y"]), VALUES)


def test_the_report_says_how_it_went(server):
    trace = Trace()
    report = byteatlas.scan(server.url("a b.h5"), trace=trace).report
    assert (report.scanner, report.version, report.skipped) == ("hdf5", __version__, ())
    assert report.rounds == trace.rounds == 1
    assert report.requests == trace.requests == len(server.log) == 1
    assert report.bytes_read == trace.bytes_read == server.bytes_sent


@pytest.mark.parametrize(
    ("before", "lengths"),
    [(0, []), (HEAD, [HEAD]), (SMALL - 20_000, [HEAD]), (SMALL, [HEAD, ...])],
    ids=["tiny", "above the head", "small", "large"],
)
def test_small_sources_are_read_whole_and_large_ones_in_part(before, lengths):
    data = hdf5(before)
    with RangeServer({"a.h5": data}) as server:
        report = byteatlas.scan(server.url("a.h5")).report
    asked = [entry.range[1] for entry in server.log]
    if ... in lengths:
        assert asked[0] == HEAD
        assert report.bytes_read < len(data) / 2
    else:
        assert asked == [*lengths, len(data) - sum(lengths)]


def test_options_reach_the_scanner(path):
    group = byteatlas.scan(path, max_chunk=80, include=["*y", "text"], exclude=["t*"])
    assert set(dict(group.walk_arrays())) == {"/group/y"}
    assert group["group/y"].chunk_shape == (2, 10)
    assert byteatlas.scan(path)["text"].manifest.inline
    assert not byteatlas.scan(path, max_inline=50)["text"].manifest.inline


def test_one_pattern_or_prefix_needs_no_list(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    np.arange(3, dtype="<i4").tofile(tmp_path / "out" / "raw.bin")
    with h5py.File(tmp_path / "in" / "a.h5", "w") as file:
        file["field"] = file["other"] = np.arange(3)
        file.create_dataset("raw", (3,), "<i4", external=[("../out/raw.bin", 0, 12)])
    path = tmp_path / "in" / "a.h5"
    assert list(byteatlas.scan(path, include="field").arrays) == ["field"]
    assert list(byteatlas.scan(path, exclude="f*", allow="/elsewhere/").arrays) == ["other"]
    allowed = byteatlas.scan(path, allow=f"{tmp_path}/out/")
    assert list(allowed.arrays) == ["field", "other", "raw"]
    assert byteatlas.verify(allowed, allow=str(tmp_path)).is_equal


def test_a_scanner_can_be_named(path):
    assert byteatlas.scan(path, scanner="hdf5").report.scanner == "hdf5"
    with pytest.raises(NotRecognised):
        byteatlas.scan(path, scanner="netcdf3")


def test_a_source_that_is_no_data_says_so(server):
    with pytest.raises(NotRecognised, match=r"page\.html.*<html>") as caught:
        byteatlas.scan(server.url("page.html") + "?token=secret")
    assert "secret" not in str(caught.value)


def test_a_source_that_is_not_there_is_missing(server, tmp_path):
    for url in (server.url("no.h5"), str(tmp_path / "no.h5")):
        with pytest.raises(SourceMissing) as caught:
            byteatlas.scan(url)
        assert caught.value.url == url


def test_an_error_of_a_scanner_names_the_source_and_the_byte(path):
    data = bytearray(path.read_bytes())
    data[8] = 77
    path.write_bytes(data)
    with pytest.raises(Unsupported, match="superblock version 77") as caught:
        byteatlas.scan(path)
    assert caught.value.url.endswith("a.h5")
    assert caught.value.offset == 0
    path.write_bytes(data[:20])
    with pytest.raises(Malformed) as caught:
        byteatlas.scan(path)
    assert caught.value.url.endswith("a.h5")


def test_a_scan_leaves_no_file_open(path):
    # An open file would raise a ResourceWarning, which is an error here.
    for _ in range(3):
        byteatlas.scan(path)
        with pytest.raises(NotRecognised):
            byteatlas.scan(path, scanner="netcdf3")


def test_a_netcdf3_file_is_scanned_too(tmp_path):
    from scipy.io import netcdf_file

    path = tmp_path / "a.nc"
    with netcdf_file(path, "w") as file:
        file.createDimension("x", 3)
        file.createVariable("v", "f4", ("x",))[:] = [1, 2, 3]
    group = byteatlas.scan(path)
    assert group.report.scanner == "netcdf3"
    assert Reader(group.sources).read(group["v"]).tolist() == [1, 2, 3]


@pytest.mark.parametrize("options", [{"max_chunk": 0}, {"max_chunk": "8MiB"}, {"max_inline": -1}])
def test_sizes_that_are_none_are_refused_by_name(options, tmp_path):
    with pytest.raises(ValueError, match=f"{next(iter(options))} is .*expected a number of bytes"):
        byteatlas.scan(tmp_path / "a.nc", **options)
