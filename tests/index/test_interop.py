"""Other readers find in our index files what we put there, and we in theirs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import h5py
import numpy as np
import pytest
import xarray as xr
import zarr

from byteatlas.index import read_json, to_json_bytes, write_json
from byteatlas.model import ChunkManifest, Codec, Encoding, VirtualArray, VirtualGroup

pytestmark = [
    pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

Zoo = tuple[VirtualGroup, dict[str, np.ndarray]]

NAMES = [
    *("plain", "zlib", "shuffled", "checked", "zstd", "big_endian", "big_float", "small", "bool"),
    *(
        "complex",
        "bytes",
        "record",
        "time",
        "text",
        "scalar",
        "gaps_zero",
        "gaps_float",
        "gaps_fill",
    ),
    *("gaps_other", "empty"),
]


def assert_equal(found: Any, expected: np.ndarray) -> None:
    """Compare to the bit, but for the byte order that decoding leaves."""
    found = np.asarray(found)
    if expected.dtype.kind == "O":
        assert found.tolist() == expected.tolist()
    else:
        assert found.shape == expected.shape
        assert found.astype(expected.dtype).tobytes() == expected.tobytes()


def reference_store(path: Path) -> zarr.storage.FsspecStore:
    filesystem = fsspec.filesystem(
        "reference",
        fo=json.loads(path.read_text()),
        asynchronous=True,
        remote_protocol="file",
        remote_options={"asynchronous": True},
    )
    return zarr.storage.FsspecStore(filesystem, read_only=True)


@pytest.fixture
def index(zoo: Zoo, tmp_path: Path, zarr_format: Any) -> Path:
    path = tmp_path / "index.json"
    write_json(zoo[0], path, zarr_format=zarr_format)
    return path


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_zarr_reads_the_same_values_through_fsspec(index: Path, zoo: Zoo, zarr_format: Any) -> None:
    group = zarr.open_group(reference_store(index), mode="r", zarr_format=zarr_format)

    assert sorted(group) == sorted(NAMES)
    for name, expected in zoo[1].items():
        array = group[name]
        assert_equal(array[...], expected)
        if zarr_format == 2 and expected.dtype.kind != "O":
            assert array.dtype == expected.dtype


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_xarray_reads_the_same_values_and_attributes(index: Path, zoo: Zoo) -> None:
    options = {"consolidated": True, "storage_options": {"fo": str(index)}}
    with xr.open_dataset(
        "reference://", engine="zarr", backend_kwargs=options, mask_and_scale=False
    ) as dataset:
        assert list(dataset.variables) == NAMES
        for name, expected in zoo[1].items():
            if name == "time":
                assert dataset[name].values[3] == np.datetime64("2000-01-04", "ns")
            else:
                assert_equal(dataset[name].values, expected)
            assert dataset[name].dims == zoo[0].arrays[name].dimensions
        assert dataset.attrs == {"title": "zoo"}
        assert dataset["plain"].attrs == {"units": "K", "level": 3}
        assert dataset["gaps_fill"].attrs == {"_FillValue": -999.0}
        assert dataset["gaps_other"].attrs == {"_FillValue": -999}
        assert all("_FillValue" not in dataset[name].attrs for name in NAMES[:-3])


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_xarray_masks_the_attribute_and_not_the_missing_chunks(index: Path) -> None:
    options = {"consolidated": True, "storage_options": {"fo": str(index)}}
    with xr.open_dataset("reference://", engine="zarr", backend_kwargs=options) as dataset:
        assert np.isnan(dataset["gaps_fill"].values[:5]).all()
        assert (dataset["gaps_other"].values[5:] == -1).all()
        assert dataset["gaps_zero"].values.dtype == np.int32
        assert (dataset["gaps_float"].values[8:] == 0).all()


@pytest.mark.parametrize("zarr_format", [2])
def test_the_kerchunk_engine_reads_the_same_values(index: Path, zoo: Zoo) -> None:
    with xr.open_dataset(
        str(index), engine="kerchunk", mask_and_scale=False, decode_times=False
    ) as dataset:
        assert set(dataset.variables) == set(NAMES)
        for name, expected in zoo[1].items():
            assert_equal(dataset[name].values, expected)


# What VirtualiZarr's parser refuses with an error: from 2.8 on, and before.
_REFUSED = {2: {"text"}, 3: set()}
_REFUSED_BEFORE_2_8 = {
    2: {"text", "record", "zlib", "zstd", "gaps_fill", "gaps_other", "scalar"},
    3: set(NAMES),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_virtualizarr_reads_the_same_values_or_refuses(
    zoo: Zoo, tmp_path: Path, name: str, zarr_format: Any, request: pytest.FixtureRequest
) -> None:
    virtualizarr = pytest.importorskip("virtualizarr")
    is_old = tuple(map(int, virtualizarr.__version__.split(".")[:2])) < (2, 8)
    if zarr_format == 2 and name == "gaps_float":
        reason = "VirtualiZarr takes a fill_value of null for NaN, xarray one of 0 for a mask"
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
    path = tmp_path / "one.json"
    write_json(replace(zoo[0], arrays={name: zoo[0].arrays[name]}), path, zarr_format=zarr_format)

    if name in (_REFUSED_BEFORE_2_8 if is_old else _REFUSED)[zarr_format]:
        with pytest.raises((TypeError, ValueError, AttributeError, NotImplementedError)):
            read_with_virtualizarr(path, name)
    else:
        assert_equal(read_with_virtualizarr(path, name), zoo[1][name])


def read_with_virtualizarr(path: Path, name: str) -> np.ndarray:
    from obspec_utils.registry import ObjectStoreRegistry
    from obstore.store import LocalStore
    from virtualizarr.parsers import KerchunkJSONParser

    store = KerchunkJSONParser()(f"file://{path}", ObjectStoreRegistry({"file://": LocalStore()}))
    with xr.open_dataset(
        store,
        engine="zarr",
        consolidated=False,
        zarr_format=3,
        mask_and_scale=False,
        decode_times=False,
    ) as dataset:
        return dataset[name].values


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_xarray_finds_nested_groups(zoo: Zoo, tmp_path: Path, zarr_format: Any) -> None:
    inner = replace(zoo[0], sources=(), attrs={"level": np.int8(2)})
    root = replace(
        zoo[0], arrays={}, groups={"a": VirtualGroup(groups={"b": inner})}, dimensions={}
    )
    path = tmp_path / "nested.json"
    write_json(root, path, zarr_format=zarr_format)

    options = {"consolidated": True, "storage_options": {"fo": str(path)}}
    with xr.open_dataset(
        "reference://", engine="zarr", group="a/b", backend_kwargs=options, mask_and_scale=False
    ) as dataset:
        assert dataset.attrs == {"level": 2}
        assert_equal(dataset["shuffled"].values, zoo[1]["shuffled"])


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_reader_without_us_fails_loudly_on_several_encodings(
    tmp_path: Path, zarr_format: Any, source_file: Any
) -> None:
    plain = source_file.add("mixed", np.arange(6, dtype="<i4"), (3,), Codec("zlib"))
    manifest = replace(plain.manifest, encoding=np.array([0, 1], np.uint8))
    encodings = (*plain.encodings, Encoding())
    group = source_file.group({"mixed": replace(plain, manifest=manifest, encodings=encodings)})
    path = tmp_path / "mixed.json"
    write_json(group, path, zarr_format=zarr_format)

    with pytest.raises(Exception, match=r"byteatlas\.encodings|prefix"):
        zarr.open_group(reference_store(path), mode="r", zarr_format=zarr_format)["mixed"][...]


def test_a_reader_without_us_fails_loudly_where_fill_values_conflict(
    tmp_path: Path, source_file: Any
) -> None:
    array = VirtualArray(
        shape=(20_000,),
        dtype=np.dtype("i2"),
        chunk_shape=(10,),
        manifest=ChunkManifest.empty((2000,)),
        fill_value=np.int16(-1),
        dimensions=("x",),
        attrs={"_FillValue": np.int16(-999)},
    )
    path = tmp_path / "index.json"
    some = source_file.add("some", np.arange(10, dtype="i2"), (10,))
    index = np.zeros(1, np.uint64)
    manifest = replace(some.manifest, grid_shape=(2000,), index=index)
    write_json(source_file.group({"x": replace(array, manifest=manifest)}), path)

    with pytest.raises(Exception, match=r"byteatlas\.encodings|prefix"):
        zarr.open_group(reference_store(path), mode="r", zarr_format=2)["x"][:10]
    assert read_json(path.read_bytes()).arrays["x"].fill_value == -1


@pytest.fixture
def hdf5(tmp_path: Path) -> Path:
    path = tmp_path / "source.h5"
    with h5py.File(path, "w") as file:
        file.attrs["title"] = "from h5py"
        shuffled = file.create_dataset(
            "temp", data=np.arange(200, dtype="<i4").reshape(10, 20), chunks=(3, 4), shuffle=True,
            compression="gzip",
        )  # fmt: skip
        shuffled.attrs["units"] = "K"
        file.create_dataset("flat", data=np.linspace(0, 1, 50))
        file.create_dataset("deep/er/small", data=np.arange(4, dtype="i2"), chunks=(2,))
    return path


def chunk_bytes(group: VirtualGroup, path: str) -> dict[int, bytes]:
    """Return the bytes that a manifest points at, by flat chunk index."""
    manifest = group[path].manifest
    rows = np.arange(manifest.virtual_count) if manifest.index is None else manifest.index
    found = dict(manifest.inline)
    for row, flat in enumerate(rows.tolist()):
        source = group.sources[0 if manifest.source is None else int(manifest.source[row])]
        start, length = int(manifest.offset[row]), int(manifest.length[row])
        found[flat] = Path(source.url.removeprefix("file://")).read_bytes()[start : start + length]
    return found


def test_an_index_by_kerchunk_gives_the_same_bytes(hdf5: Path) -> None:
    from kerchunk.hdf import SingleHdf5ToZarr

    refs = SingleHdf5ToZarr(str(hdf5), inline_threshold=0).translate()
    group = read_json(json.dumps(refs).encode())

    assert {path for path, _ in group.walk_arrays()} == {"/temp", "/flat", "/deep/er/small"}
    assert group.attrs == {"title": "from h5py"}
    assert group.arrays["temp"].attrs["units"] == "K"
    assert group.arrays["temp"].encodings[0].codecs[-1].name == "zlib"
    filesystem = fsspec.filesystem("reference", fo=refs, remote_protocol="file")
    for path, array in group.walk_arrays():
        for flat, data in chunk_bytes(group, path).items():
            chunk = np.unravel_index(flat, array.manifest.grid_shape)
            assert filesystem.cat_file(f"{path[1:]}/{'.'.join(map(str, chunk))}") == data
        assert array.manifest.missing_count == 0


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_an_index_by_virtualizarr_gives_the_same_bytes(hdf5: Path, zarr_format: int) -> None:
    virtualizarr = pytest.importorskip("virtualizarr")
    from obspec_utils.registry import ObjectStoreRegistry
    from obstore.store import LocalStore
    from virtualizarr.parsers import HDFParser

    if zarr_format == 3 and virtualizarr.__version__ < "2.8":
        pytest.skip("VirtualiZarr writes Zarr version 3 from 2.8 on")
    registry = ObjectStoreRegistry({"file://": LocalStore()})
    dataset = virtualizarr.open_virtual_dataset(
        f"file://{hdf5}", registry, HDFParser(drop_variables=["flat"]), loadable_variables=[]
    )
    kwargs = {"zarr_format": 3} if zarr_format == 3 else {}
    group = read_json(dataset.vz.to_kerchunk(format="dict", **kwargs))

    with h5py.File(hdf5) as file:
        for name, array in group.arrays.items():
            assert array.dtype == file[name].dtype
            assert array.shape == file[name].shape
        found = chunk_bytes(group, "temp")
        chunks = [file["temp"].id.get_chunk_info(row) for row in range(len(found))]
    data = hdf5.read_bytes()
    grid = group.arrays["temp"].manifest.grid_shape
    for info in chunks:
        flat = np.ravel_multi_index(np.array(info.chunk_offset) // (3, 4), grid)
        assert found[flat] == data[info.byte_offset : info.byte_offset + info.size]


def test_what_we_read_from_kerchunk_we_write_for_it(hdf5: Path, tmp_path: Path) -> None:
    from kerchunk.hdf import SingleHdf5ToZarr

    refs = SingleHdf5ToZarr(str(hdf5), inline_threshold=0).translate()
    ours = json.loads(to_json_bytes(read_json(refs)))["refs"]

    chunks = {key: value for key, value in refs["refs"].items() if isinstance(value, list)}
    assert {key: value for key, value in ours.items() if isinstance(value, list)} == chunks
