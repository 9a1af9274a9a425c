"""The reference libraries' view of a source."""

import sys
from pathlib import Path

import h5py
import netCDF4
import numpy as np
import pytest

from byteatlas.errors import SourceError, Unsupported
from byteatlas.reference import open_reference
from byteatlas.testing import RangeServer
from byteatlas.verification import same_dtype

SAMPLES = Path(__file__).resolve().parents[1] / "sample_data"


@pytest.mark.parametrize(
    ("name", "library"),
    [
        ("climate_grid.nc", "netCDF4"),
        ("ocean_cdf5.nc", "netCDF4"),
        ("radar_latest.h5", "h5py"),
    ],
)
def test_each_format_is_read_by_its_own_library(name, library):
    with open_reference(str(SAMPLES / name)) as reference:
        assert reference.library.split()[0] == library


@pytest.mark.parametrize(
    ("name", "library"), [("climate_grid.nc", "h5py"), ("ocean_cdf5.nc", "netCDF4")]
)
def test_a_remote_source_says_the_same_as_a_local_one(name, library):
    with RangeServer(SAMPLES) as server:
        local, remote = str(SAMPLES / name), server.url(name)
        with open_reference(local) as one, open_reference(remote) as other:
            assert other.library.split()[0] == library
            assert sorted(one.paths()) == sorted(other.paths())
            for path in one.paths():
                mine, its = one.array(path), other.array(path)
                assert mine.shape == its.shape
                assert same_dtype(mine.dtype, its.dtype)
                assert sorted(mine.attrs) == sorted(its.attrs)
                # to h5py, a scale has no name for its own axis
                pairs = zip(mine.dimensions, its.dimensions, strict=True)
                assert all(names in (expected, set()) for expected, names in pairs)


@pytest.mark.parametrize("is_there", [True, False])
def test_a_decompressor_that_h5py_lacks_is_said_to_be_in_a_package(monkeypatch, tmp_path, is_there):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        unknown = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        unknown.set_chunk((4,))
        unknown.set_filter(1)
        space = h5py.h5s.create_simple((4,))
        coded = h5py.h5d.create(file.id, b"coded", h5py.h5t.STD_I32LE, space, unknown)
        coded.write_direct_chunk((0,), bytes(16))
    data = (tmp_path / "a.h5").read_bytes()
    start = data.index(b"deflate\0") - 8  # of a filter of the pipeline: its number comes first
    (tmp_path / "a.h5").write_bytes(data[:start] + b"\xfe\x7f" + data[start + 2 :])
    with open_reference(str(tmp_path / "a.h5")) as reference:
        if is_there:
            monkeypatch.setitem(sys.modules, "hdf5plugin", None)
        else:
            monkeypatch.delitem(sys.modules, "hdf5plugin", raising=False)
        with pytest.raises(Unsupported, match="cannot read it") as caught:
            reference.array("/coded").read((slice(None),))
    assert ("pip install hdf5plugin" in str(caught.value)) is not is_there


def test_values_are_as_they_are_stored():
    with open_reference(str(SAMPLES / "climate_grid.nc")) as reference:
        tas = reference.array("/tas").read((slice(0, 1), slice(None), slice(None)))
        assert tas.dtype == np.int16
        assert tas.min() == -32768
        assert reference.array("/height").read(()) == 2.0
        assert reference.attributes("/forcing")["comment"].startswith("Dimensions")
        assert reference.attributes("/nonsense") is None


@pytest.fixture
def linked(tmp_path):
    path = tmp_path / "linked.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("group/data", data=np.arange(6).reshape(2, 3))
        file["hard"] = data
        file["soft"] = h5py.SoftLink("/group/data")
        file["dangling"] = h5py.SoftLink("/nowhere")
        file["elsewhere"] = h5py.ExternalLink("other.h5", "/x")
        file["group/loop"] = file["group"]
        file["empty"] = h5py.Empty("f4")
        file["_nc4_non_coord_x"] = np.arange(3)
        rows = file.create_dataset("rows", (4,), np.dtype(("<i4", (3, 2))))
        rows[...] = np.arange(24).reshape(4, 3, 2)
        rows.attrs["nothing"] = h5py.Empty("f8")
        file["scale"] = np.arange(3)
        file["same_scale"] = file["scale"]
        file["scale"].make_scale("scale")
        data.dims[1].attach_scale(file["scale"])
    return path


def test_an_object_has_one_path_and_is_found_by_all_its_names(linked):
    with open_reference(str(linked)) as reference:
        (place,) = {reference.resolve(path) for path in ("/group/data", "/hard", "/soft")}
        assert place in ("/group/data", "/hard")
        assert reference.paths().count(place) == 1
        assert reference.resolve("/group/loop/data") == place
        assert reference.resolve("/dangling") is None
        assert reference.resolve("/elsewhere") is None
        assert reference.resolve("/group") is None
        assert sorted({*reference.paths(), place}) == sorted(
            {place, "/empty", "/x", "/rows", reference.resolve("/scale")}
        )


def test_an_axis_has_all_the_names_of_its_scale(linked):
    with open_reference(str(linked)) as reference:
        dimensions = reference.array(reference.resolve("/hard")).dimensions
        assert dimensions == (frozenset(), {"scale", "same_scale"})


def test_an_array_type_adds_its_axes(linked):
    with open_reference(str(linked)) as reference:
        rows = reference.array("/rows")
        assert rows.shape == (4, 3, 2)
        assert rows.dtype == np.dtype("<i4")
        part = rows.read((slice(1, 3), slice(0, 2), slice(1, 2)))
        assert np.array_equal(part, np.arange(24).reshape(4, 3, 2)[1:3, 0:2, 1:2])
        assert rows.attrs["nothing"].size == 0


def test_what_a_library_cannot_read_is_unsupported(linked):
    with open_reference(str(linked)) as reference, pytest.raises(Unsupported, match="no values"):
        reference.array("/empty")


def test_a_damaged_chunk_is_unsupported_when_it_is_read(tmp_path):
    path = tmp_path / "damaged.nc"
    with netCDF4.Dataset(path, "w") as root:
        root.createDimension("x", 1000)
        root.createVariable("v", "i4", ("x",), zlib=True, fletcher32=True)[:] = np.arange(1000)
    with h5py.File(path) as file:
        place = file["v"].id.get_chunk_info(0)
    with path.open("r+b") as file:
        file.seek(place.byte_offset + place.size // 2)
        file.write(b"\xff\x00\xff\x00")
    with open_reference(str(path)) as reference, pytest.raises(Unsupported, match="cannot read"):
        reference.array("/v").read((slice(None),))


@pytest.mark.parametrize(
    "data", [b"", b"nothing known", b"\x89HDF\r\n\x1a\n" + bytes(100), b"CDF\x01"]
)
def test_what_is_no_source_is_an_error_that_names_it(tmp_path, data):
    path = tmp_path / "x.bin"
    path.write_bytes(data)
    with pytest.raises(SourceError) as raised, open_reference(str(path)):
        pass
    assert raised.value.url == str(path)


def test_a_missing_source_is_an_error(tmp_path):
    with pytest.raises(SourceError), open_reference(str(tmp_path / "missing.nc")):
        pass
