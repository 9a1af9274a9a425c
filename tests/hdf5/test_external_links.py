"""External links: reported, and followed when the caller asks for it."""

from functools import partial

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

import byteatlas
from byteatlas.cli import main
from byteatlas.read import Reader
from byteatlas.testing.server import RangeServer

scan = partial(byteatlas.scan, engine="native")


def frames(number, count=2):
    return np.arange(12 * count, dtype="<u2").reshape(count, 3, 4) + np.uint16(100 * number)


@pytest.fixture
def master(tmp_path):
    """A file that links to data files, as detectors write them."""
    for number in range(3):
        with h5py.File(tmp_path / f"data_{number:06}.h5", "w") as file:
            group = file.create_group("entry/data")
            group.attrs["NX_class"] = "NXdata"
            options = {"chunks": (1, 3, 4), "compression": "gzip"}
            group.create_dataset("data", data=frames(number), **options).attrs["first"] = number
    with h5py.File(tmp_path / "master.h5", "w") as file:
        group = file.create_group("entry/data")
        layout = h5py.VirtualLayout((6, 3, 4), "<u2")
        for number in range(3):
            name = f"data_{number:06}.h5"
            group[name[:-3]] = h5py.ExternalLink(name, "/entry/data/data")
            part = h5py.VirtualSource(name, "entry/data/data", (2, 3, 4))
            layout[2 * number : 2 * number + 2] = part
        group.create_virtual_dataset("data", layout)
        file["entry/count"] = np.arange(3)
        file["group"] = h5py.ExternalLink("data_000001.h5", "/entry")
        file["whole"] = h5py.ExternalLink("data_000002.h5", "/")
        file["through"] = h5py.SoftLink("/group/data/data")
    return tmp_path / "master.h5"


def assert_equal(group, path, names):
    reader = Reader(group.sources)
    with h5py.File(path) as file:
        for name in names:
            array = group[name]
            assert (reader.read(array) == file[name][...]).all(), name
            assert dict(array.attrs) == dict(file[name].attrs)


def test_links_are_reported_and_not_followed_unless_asked(master):
    group = scan(master)
    assert dict(group.report.skipped) == {
        **{
            f"/entry/data/data_{number:06}": (
                f"an external link to 'data_{number:06}.h5:/entry/data/data', which is not followed"
            )
            for number in range(3)
        },
        "/group": "an external link to 'data_000001.h5:/entry', which is not followed",
        "/whole": "an external link to 'data_000002.h5:/', which is not followed",
        "/through": "a soft link to '/group/data/data', through an external link, "
        "which is not followed",
    }
    assert_equal(group, master, ["/entry/data/data", "/entry/count"])


LINKED = [
    *(f"/entry/data/data_{number:06}" for number in range(3)),
    "/entry/data/data",
    "/group/data/data",
    "/whole/entry/data/data",
    "/through",
]


def test_links_that_are_followed_show_what_they_lead_to(master, tmp_path):
    group = scan(master, follow_links=True)
    assert group.report.skipped == ()
    assert len(group.sources) == 4
    assert_equal(group, master, LINKED)
    assert group["group/data"].attrs["NX_class"] == "NXdata"
    group.to_json(tmp_path / "index.json")
    assert_equal(byteatlas.open_index(tmp_path / "index.json"), master, LINKED)
    report = byteatlas.verify(tmp_path / "index.json", sample=None)
    assert report.is_equal
    assert {one.path for one in report.checked} == {*LINKED, "/entry/count"}
    assert report.skipped == ()
    tree = byteatlas.open_datatree(tmp_path / "index.json")
    assert (tree["whole/entry/data/data"].values == frames(2)).all()


def test_remote_links_are_followed_together(master, tmp_path):
    with RangeServer(tmp_path) as server:
        group = scan(server.url("master.h5"), follow_links=True)
        assert group.report.rounds == 3  # the file, the sources of its datasets, its links
        assert_equal(group, master, LINKED)
        report = byteatlas.verify(group)
        assert report.is_equal
        groups = {"/group", "/group/data", "/whole", "/whole/entry", "/whole/entry/data"}
        assert {path for path, _ in report.skipped} == {*LINKED, *groups}


def test_what_is_wanted_of_linked_files_is_chosen_by_paths_here(master):
    group = scan(master, follow_links=True, include=["/group/*"])
    assert [path for path, _ in group.walk_arrays()] == ["/group/data/data"]
    assert len(group.sources) == 2
    group = scan(master, follow_links=True, exclude=["/whole/*", "*/data_*", "/entry/data/data"])
    names = ["/through", "/entry/count", "/group/data/data"]
    assert [path for path, _ in group.walk_arrays()] == names


def test_links_that_lead_nowhere_say_so(tmp_path):
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["x"] = 1
        file["bad"] = h5py.SoftLink("/nothing")
    (tmp_path / "c.h5").write_bytes(b"not HDF5")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["missing"] = h5py.ExternalLink("no.h5", "/x")
        file["inside"] = h5py.ExternalLink("b.h5", "/y")
        file["other"] = h5py.ExternalLink("c.h5", "/y")
        file["whole"] = h5py.ExternalLink("b.h5", "/")
    group = scan(tmp_path / "a.h5", follow_links=True)
    found = dict(group.report.skipped)
    assert found.keys() == {"/missing", "/inside", "/other", "/whole/bad"}
    assert "no.h5" in found["/missing"]
    assert "leads nowhere in that file" in found["/inside"]
    assert "no scanner recognises" in found["/other"]
    assert "leads nowhere" in found["/whole/bad"]
    assert set(group.groups["whole"].arrays) == {"x"}


def test_links_out_of_the_directory_need_permission(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["x"] = np.arange(5)
    for name in ("../b.h5", str(tmp_path / "b.h5")):
        with h5py.File(inside / "a.h5", "w") as file:
            file["link"] = h5py.ExternalLink(name, "/x")
        group = scan(inside / "a.h5", follow_links=True)
        assert group.arrays == {}
        assert f"--allow {tmp_path}/" in dict(group.report.skipped)["/link"]
        group = scan(inside / "a.h5", follow_links=True, allow=[str(tmp_path)])
        assert Reader(group.sources).read(group["link"]).tolist() == [0, 1, 2, 3, 4]


def test_links_back_and_forth_come_to_an_end(tmp_path, within):
    for one, other in ("ab", "ba"):
        with h5py.File(tmp_path / f"{one}.h5", "w") as file:
            file["x"] = np.arange(3)
            file["other"] = h5py.ExternalLink(f"{other}.h5", "/")
            file["self"] = h5py.ExternalLink(f"{one}.h5", "/x")
    with within(10):
        group = scan(tmp_path / "a.h5", follow_links=True)
    assert {path for path, _ in group.walk_arrays()} == {"/x", "/other/x"}
    assert all("refers back to a source" in why for _, why in group.report.skipped)
    assert {path for path, _ in group.report.skipped} == {"/self", "/other/other", "/other/self"}


def test_dimensions_of_linked_files_keep_apart(tmp_path):
    netcdf = pytest.importorskip("netCDF4")
    with netcdf.Dataset(tmp_path / "b.nc", "w") as file:
        file.createDimension("t", None)
        file.createDimension("y", 4)
        file.createVariable("v", "f4", ("t", "y"))[:] = np.ones((3, 4))
        group = file.createGroup("g")
        group.createVariable("w", "f4", ("y",))[:] = 2
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["mine"] = np.zeros((5, 6))
        file["g"] = h5py.ExternalLink("b.nc", "/g")
        file["root"] = h5py.ExternalLink("b.nc", "/")
        file["v"] = h5py.ExternalLink("b.nc", "/v")
    group = scan(tmp_path / "a.h5", follow_links=True)
    assert group.groups["g"].dimensions["y"].size == 4
    assert group.groups["root"].dimensions["t"] == (3, True)
    assert group["root/v"].dimensions == ("t", "y")
    assert group["root/g/w"].dimensions == group["g/w"].dimensions == ("y",)
    assert group["v"].dimensions == ("phony_dim_2", "phony_dim_3")
    tree = byteatlas.open_datatree(group)
    assert tree["root/v"].dims == ("t", "y")


def test_h5py_as_the_engine_does_not_take_this_file_for_the_other(tmp_path):
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["x"] = np.arange(5)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.zeros(3)
        file["other"] = h5py.ExternalLink("b.h5", "/")
        file["soft"] = h5py.SoftLink("/other/x")
    for engine in ("h5py", "auto"):
        group = byteatlas.scan(tmp_path / "a.h5", engine=engine)
        assert set(group.arrays) == {"x"}
        assert dict(group.report.skipped).keys() == {"/other", "/soft"}


def test_the_command_line_follows_links_too(master, tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    with h5py.File(inside / "a.h5", "w") as file:
        file["link"] = h5py.ExternalLink("../master.h5", "/entry/count")
    index = str(tmp_path / "index.json")
    arguments = ["scan", str(inside / "a.h5"), "-o", index, "--follow-links"]
    runner = CliRunner()
    refused = runner.invoke(main, arguments)
    assert refused.exit_code == 3
    assert f"--allow {tmp_path}/" in refused.stderr
    assert runner.invoke(main, [*arguments, "--allow", f"{tmp_path}/"]).exit_code == 0
    assert byteatlas.open_dataset(index)["link"].values.tolist() == [0, 1, 2]
