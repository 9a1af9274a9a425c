"""Other readers find in our Parquet indexes what we put there, and we in theirs."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
import xarray as xr
import zarr
from click.testing import CliRunner
from fsspec.implementations.reference import LazyReferenceMapper
from tests.index.test_interop import (
    NAMES,
    Zoo,
    assert_equal,
    chunk_bytes,
)

import byteatlas
from byteatlas.cli import main
from byteatlas.index import to_json_bytes
from byteatlas.index.parquet_partition import Rows, encode_partition
from byteatlas.model import ChunkManifest, Codec, Encoding, VirtualArray, VirtualGroup

pytestmark = [
    pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*fastparquet.*"),
]


@pytest.fixture(params=[2, 100_000], ids=["many partitions", "one partition"])
def index(zoo: Zoo, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    path = tmp_path / "index.parq"
    zoo[0].to_parquet(path, record_size=request.param)
    return path


def reference_store(path: Path) -> zarr.storage.FsspecStore:
    filesystem = fsspec.filesystem(
        "reference",
        fo=str(path),
        asynchronous=True,
        remote_protocol="file",
        remote_options={"asynchronous": True},
    )
    return zarr.storage.FsspecStore(filesystem, read_only=True)


# Ours, read by others


def test_zarr_reads_the_same_values_through_fsspec(index: Path, zoo: Zoo) -> None:
    group = zarr.open_group(reference_store(index), mode="r", zarr_format=2)

    assert sorted(group) == sorted(NAMES)
    for name, expected in zoo[1].items():
        assert_equal(group[name][...], expected)
        if expected.dtype.kind != "O":
            assert group[name].dtype == expected.dtype


def test_the_kerchunk_engine_reads_the_same_values(zoo: Zoo, tmp_path: Path) -> None:
    zoo[0].to_parquet(tmp_path / "index.parquet", record_size=3)
    with xr.open_dataset(
        str(tmp_path / "index.parquet"), engine="kerchunk", mask_and_scale=False, decode_times=False
    ) as dataset:
        assert set(dataset.variables) == set(NAMES)
        for name, expected in zoo[1].items():
            assert_equal(dataset[name].values, expected)


# What VirtualiZarr's parser refuses with an error: from 2.8 on, and before.
_REFUSED = {"text"}
_REFUSED_BEFORE_2_8 = {"text", "record", "zlib", "zstd", "gaps_fill", "gaps_other", "scalar"}


@pytest.mark.parametrize("name", NAMES)
def test_virtualizarr_reads_the_same_values_or_refuses(
    zoo: Zoo, tmp_path: Path, name: str, request: pytest.FixtureRequest
) -> None:
    virtualizarr = pytest.importorskip("virtualizarr")
    is_old = tuple(map(int, virtualizarr.__version__.split(".")[:2])) < (2, 8)
    if name == "gaps_float":
        reason = "VirtualiZarr takes a fill_value of null for NaN, xarray one of 0 for a mask"
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
    path = tmp_path / "one.parq"
    replace(zoo[0], arrays={name: zoo[0].arrays[name]}).to_parquet(path, record_size=3)

    if name in (_REFUSED_BEFORE_2_8 if is_old else _REFUSED):
        with pytest.raises((TypeError, ValueError, AttributeError, NotImplementedError)):
            read_with_virtualizarr(path, name)
    else:
        assert_equal(read_with_virtualizarr(path, name), zoo[1][name])


def read_with_virtualizarr(path: Path, name: str) -> np.ndarray:
    from obspec_utils.registry import ObjectStoreRegistry
    from obstore.store import LocalStore
    from virtualizarr.parsers import KerchunkParquetParser

    store = KerchunkParquetParser()(str(path), ObjectStoreRegistry({"file://": LocalStore()}))
    with xr.open_dataset(
        store,
        engine="zarr",
        consolidated=False,
        zarr_format=3,
        mask_and_scale=False,
        decode_times=False,
    ) as dataset:
        return dataset[name].values


def test_nested_groups_are_found(zoo: Zoo, tmp_path: Path) -> None:
    inner = replace(zoo[0], sources=(), attrs={"level": np.int8(2)})
    root = replace(
        zoo[0], arrays={}, groups={"a": VirtualGroup(groups={"b": inner})}, dimensions={}
    )
    root.to_parquet(tmp_path / "nested.parq", record_size=3)

    group = zarr.open_group(reference_store(tmp_path / "nested.parq"), mode="r", zarr_format=2)
    assert group["a/b"].attrs["level"] == 2
    assert_equal(group["a/b/shuffled"][...], zoo[1]["shuffled"])
    assert_equal(group["a/b/gaps_fill"][...], zoo[1]["gaps_fill"])


def test_a_reader_without_us_fails_loudly_on_several_encodings(
    tmp_path: Path, source_file: Any
) -> None:
    plain = source_file.add("mixed", np.arange(6, dtype="<i4"), (3,), Codec("zlib"))
    manifest = replace(plain.manifest, encoding=np.array([0, 1], np.uint8))
    encodings = (*plain.encodings, Encoding())
    group = source_file.group({"mixed": replace(plain, manifest=manifest, encodings=encodings)})
    group.to_parquet(tmp_path / "mixed.parq")

    assert pq.read_schema(tmp_path / "mixed.parq/mixed/refs.0.parq").names[4:] == ["encoding"]
    store = reference_store(tmp_path / "mixed.parq")
    with pytest.raises(Exception, match=r"byteatlas\.encodings|prefix"):
        zarr.open_group(store, mode="r", zarr_format=2)["mixed"][...]
    found = byteatlas.open_index(tmp_path / "mixed.parq")
    assert found["mixed"].manifest.encoding.tolist() == [0, 1]


def test_further_columns_do_not_disturb_other_readers(zoo: Zoo, tmp_path: Path) -> None:
    byteatlas.seal(zoo[0]).to_parquet(tmp_path / "sealed.parquet", record_size=3)

    group = zarr.open_group(reference_store(tmp_path / "sealed.parquet"), mode="r", zarr_format=2)
    for name, expected in zoo[1].items():
        assert_equal(group[name][...], expected)
    pytest.importorskip("virtualizarr")
    one = replace(zoo[0], arrays={"plain": zoo[0].arrays["plain"]})
    byteatlas.seal(one).to_parquet(tmp_path / "one.parq", record_size=3)
    assert_equal(read_with_virtualizarr(tmp_path / "one.parq", "plain"), zoo[1]["plain"])


@pytest.mark.parametrize("engine", ["fastparquet", "pyarrow"])
def test_fsspec_finds_the_same_references(tmp_path: Path, engine: Any) -> None:
    rng = np.random.default_rng(4)
    length = rng.integers(1, 2**30, 5000).astype(np.uint64)
    length[2000:4000] = rng.integers(1, 5000, 2000)
    offset = np.cumsum(length)
    offset[3000:] -= offset[3000]
    source = (np.arange(5000) >= 3000).astype(np.uint32)
    urls = ("https://example.org/a.nc", "https://example.org/b.nc")
    manifest = ChunkManifest.build(
        (5000,), np.arange(5000, dtype=np.uint64), offset, length, source=source
    )
    array = VirtualArray((5000,), np.dtype("u1"), (1,), manifest, dimensions=("x",))
    group = VirtualGroup(arrays={"a": array}, sources=tuple(map(byteatlas.Source, urls)))
    group.to_parquet(tmp_path / "a.parq", record_size=1500)

    mapper = LazyReferenceMapper(str(tmp_path / "a.parq"), fsspec.filesystem("file"), engine=engine)
    for row in range(0, 5000, 7):
        expected = [urls[source[row]], int(offset[row]), int(length[row])]
        found = mapper[f"a/{row}"]
        assert found == expected
        assert isinstance(found[1], np.integer)  # and no float, which would lose digits


@pytest.mark.parametrize("width", range(64))
def test_fastparquet_reads_numbers_of_any_width(width: int) -> None:
    import pandas as pd

    rng = np.random.default_rng(width)
    deltas = rng.integers(-(2 ** max(width - 1, 0)), 2 ** max(width - 1, 0), 700, dtype=np.int64)
    offset = np.cumsum(deltas // 1000 if width > 53 else deltas)
    offset -= offset.min()
    size = np.abs(deltas)
    rows = Rows(["u"], np.zeros(700, np.int32), offset, size, {})

    frame = pd.read_parquet(io.BytesIO(encode_partition(rows)), engine="fastparquet")

    np.testing.assert_array_equal(frame["offset"].to_numpy(), offset, strict=True)
    np.testing.assert_array_equal(frame["size"].to_numpy(), size, strict=True)


# Theirs, read by us


@pytest.fixture
def hdf5(tmp_path: Path) -> Path:
    path = tmp_path / "source.h5"
    with h5py.File(path, "w") as file:
        file.attrs["title"] = "from h5py"
        file.create_dataset(
            "temp", data=np.arange(200, dtype="<i4").reshape(10, 20), chunks=(3, 4), shuffle=True,
            compression="gzip",
        ).attrs["units"] = "K"  # fmt: skip
        sparse = file.create_dataset("sparse", (40,), "f4", chunks=(3,), fillvalue=0)
        sparse[7:9] = 2
        sparse[39] = 1
        file.create_dataset("flat", data=np.linspace(0, 1, 50))
        file.create_dataset("scalar", data=np.int16(7))
    return path


def written_by_kerchunk(hdf5: Path, record_size: int, inline: int) -> tuple[Path, dict[str, Any]]:
    """Let kerchunk write references to a file (its scanner may hang, so they are ours)."""
    from kerchunk.df import refs_to_dataframe

    refs = json.loads(to_json_bytes(byteatlas.scan(str(hdf5))))["refs"]
    for key, value in refs.items():
        if isinstance(value, list):
            path, offset, length = str(hdf5), *value[1:]
            data = hdf5.read_bytes()[offset : offset + length]
            is_inlined = length < inline
            encoded = "base64:" + base64.b64encode(data).decode()
            refs[key] = encoded if is_inlined else [path, offset, length]
    path = hdf5.with_name("kerchunk.parq")
    refs_to_dataframe({"version": 1, "refs": dict(refs)}, str(path), record_size=record_size)
    return path, refs


@pytest.mark.parametrize("record_size", [1, 4, 100])
@pytest.mark.parametrize("inline", [0, 20, 500])
def test_an_index_by_kerchunk_gives_the_same_values(
    hdf5: Path, record_size: int, inline: int
) -> None:
    path, refs = written_by_kerchunk(hdf5, record_size, inline)

    group = byteatlas.open_index(path)
    assert list(group.sources) == []
    assert group.attrs == {"title": "from h5py"}
    reader = byteatlas.read.Reader(group.sources)
    with h5py.File(hdf5) as file:
        for name in ("temp", "sparse", "flat", "scalar"):
            assert_equal(reader.read(group[name]), file[name][()])
    assert all(source.url == str(hdf5) for source in group.sources)
    keys = {key for key in refs if key.startswith("sparse/") and ".z" not in key}
    assert group["sparse"].manifest.present_count == len(keys)


def test_an_index_by_kerchunk_opens_with_xarray_and_as_a_store(hdf5: Path) -> None:
    path, _ = written_by_kerchunk(hdf5, 4, 0)

    with byteatlas.open_dataset(path) as dataset, h5py.File(hdf5) as file:
        assert_equal(dataset["temp"].values, file["temp"][()])
    group = zarr.open_group(byteatlas.open_store(path), mode="r")
    with h5py.File(hdf5) as file:
        assert_equal(group["temp"][...], file["temp"][()])
        assert_equal(group["sparse"][...], file["sparse"][()])


def test_an_index_by_kerchunk_converts_to_json(hdf5: Path, tmp_path: Path) -> None:
    path, refs = written_by_kerchunk(hdf5, 4, 0)

    byteatlas.open_index(path).to_json(tmp_path / "ours.json")

    ours = json.loads((tmp_path / "ours.json").read_text())["refs"]
    chunks = {key: value for key, value in refs.items() if isinstance(value, list)}
    assert {key: value for key, value in ours.items() if isinstance(value, list)} == chunks


def test_an_index_by_virtualizarr_gives_the_same_bytes(hdf5: Path, tmp_path: Path) -> None:
    virtualizarr = pytest.importorskip("virtualizarr")
    from obspec_utils.registry import ObjectStoreRegistry
    from obstore.store import LocalStore
    from virtualizarr.parsers import HDFParser

    registry = ObjectStoreRegistry({"file://": LocalStore()})
    parser = HDFParser(drop_variables=["flat", "scalar", "sparse"])
    dataset = virtualizarr.open_virtual_dataset(
        f"file://{hdf5}", registry, parser, loadable_variables=[]
    )
    dataset.vz.to_kerchunk(str(tmp_path / "vz.parq"), format="parquet", record_size=5)

    group = byteatlas.open_index(tmp_path / "vz.parq")
    found = chunk_bytes(group, "temp")
    with h5py.File(hdf5) as file:
        chunks = [file["temp"].id.get_chunk_info(row) for row in range(len(found))]
    for info in chunks:
        flat = np.ravel_multi_index(np.array(info.chunk_offset) // (3, 4), (4, 5))
        start = info.byte_offset
        assert found[flat] == hdf5.read_bytes()[start : start + info.size]


def test_a_partition_that_is_not_there_holds_no_chunk(hdf5: Path) -> None:
    # fsspec writes none where no chunk is; so in another program's index this is no error.
    path, _ = written_by_kerchunk(hdf5, 4, 0)
    (path / "temp" / "refs.1.parq").unlink()

    group = byteatlas.open_index(path)
    with h5py.File(hdf5) as file:
        expected = file["temp"][()].reshape(-1)
    found = byteatlas.read.Reader(group.sources).read(group["temp"]).reshape(-1)
    assert group["temp"].manifest.missing_count == 4
    assert set(found[found != expected].tolist()) == {0}


def test_partitions_may_be_longer_and_lack_the_bytes(tmp_path: Path) -> None:
    import pyarrow as pa

    (tmp_path / "a.parq/x").mkdir(parents=True)
    zarray = {"chunks": [2], "compressor": None, "dtype": "<i2", "fill_value": 7, "filters": None}
    zarray |= {"order": "C", "shape": [6], "zarr_format": 2}
    metadata = {"metadata": {".zgroup": {"zarr_format": 2}, "x/.zarray": zarray}, "record_size": 5}
    (tmp_path / "a.parq/.zmetadata").write_text(json.dumps(metadata))
    (tmp_path / "data").write_bytes(np.arange(6, dtype="<i2").tobytes())
    columns = {
        "path": ["data", None, "data", None, None],
        "offset": pa.array([4, 0, 0, None, None], pa.int32()),
        "size": pa.array([4, 0, 4, None, None], pa.uint16()),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parq/x/refs.0.parq", row_group_size=2)

    group = byteatlas.open_index(tmp_path / "a.parq")

    assert byteatlas.read.Reader(group.sources).read(group["x"]).tolist() == [2, 3, 7, 7, 0, 1]
    assert [source.url for source in group.sources] == [f"{tmp_path}/data"]


def test_what_lists_sources_finds_those_of_another_programs_index(hdf5: Path) -> None:
    path, _ = written_by_kerchunk(hdf5, 4, 0)

    assert byteatlas.verify(path).is_equal
    said = CliRunner().invoke(main, ["info", str(path), "--json"])
    assert json.loads(said.stdout)["sources"][0]["url"] == str(hdf5)
    sealed = byteatlas.seal(byteatlas.open_index(path))
    assert [source.url for source in sealed.sources] == [str(hdf5)]
    assert sealed["temp"].manifest.digest.size == 20
