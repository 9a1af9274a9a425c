"""Strings that stay in the heap: through every way of reading, each equal to what h5py reads."""

from __future__ import annotations

import asyncio
import pickle
from dataclasses import replace

import fsspec
import h5py
import numcodecs
import numpy as np
import pytest
import xarray as xr
import zarr

import byteatlas
from byteatlas.errors import LimitExceeded, Malformed, SourceChanged, Unsupported
from byteatlas.index.json_reader import read_json
from byteatlas.index.json_writer import to_json_bytes
from byteatlas.limits import Limits
from byteatlas.read import Reader
from byteatlas.store.contents import Contents, Slice
from byteatlas.store.zarr_store import IndexStore
from byteatlas.testing.server import RangeServer

TEXT = h5py.string_dtype()
ASCII = h5py.string_dtype("ascii")
FEW = 64
"""So many bytes of strings are kept in the index here."""


def some_texts(count, longest=50):
    lengths = np.random.default_rng(5).integers(0, longest, count).tolist()
    return np.array([f"{n}\u00e9"[: n % 9] + "ab" * (n // 2) for n in lengths], object)


def write(path, **options):
    """Write strings of every layout; return what h5py reads of each dataset."""
    texts = some_texts(6000)
    long = texts.copy()
    long[17], long[4000] = "long " * 3000, "\u4e2d" * 50_000
    with h5py.File(path, "w", **options) as file:
        file["line"] = long
        file.create_dataset("chunked", data=texts.reshape(60, 100), chunks=(16, 33))
        file.create_dataset(
            "deflated", data=texts.reshape(60, 100), chunks=(16, 33), compression=1, shuffle=True
        )
        file.create_dataset("ascii", data=["abc" * n for n in range(9)], dtype=ASCII)
        file.create_dataset("part", (90, 40), TEXT, chunks=(20, 20), fillvalue="none")
        file["part"][25:45, 3:9] = "some"
        file.create_dataset("never", (70, 3), TEXT, chunks=(20, 3))
        file.create_dataset("grown", (5, 7), TEXT, chunks=(4, 4), maxshape=(None, 7))
        file["grown"].resize((11, 7))
        file["grown"][9] = "last"
    with h5py.File(path, "r+") as file:  # fill values of strings need a file to be written to
        return {name: dataset.asstr()[...] for name, dataset in file.items()}


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    path = tmp_path_factory.mktemp("strings") / "strings.h5"
    return path, write(path)


@pytest.fixture(scope="module")
def group(expected):
    return byteatlas.scan(expected[0], max_inline=FEW)


def is_equal(ours, theirs):
    return ours.dtype == object and ours.shape == theirs.shape and bool((ours == theirs).all())


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_strings_in_the_heap_are_those_that_h5py_reads(tmp_path, libver):
    path = tmp_path / "strings.h5"
    theirs = write(path, libver=libver)
    group = byteatlas.scan(path, max_inline=FEW)
    assert group.report.skipped == ()
    reader = Reader(group.sources)
    for name, values in theirs.items():
        codecs = [codec.name for codec in group[name].encodings[0].codecs]
        assert codecs[:2] == ["vlen-utf8", "byteatlas.heap"], name
        assert is_equal(reader.read(group[name]), values), name


@pytest.mark.parametrize(
    "selection",
    [3, slice(5, 50, 7), (slice(None), 4), (-1, -1), (slice(40, 2, -3), [7, 3, 3]), slice(0, 0)],
    ids=str,
)
def test_any_selection_of_strings_is_read(expected, group, selection):
    reader = Reader(group.sources)
    for name in ("chunked", "deflated", "part"):
        whole = expected[1][name]
        found = whole[selection]
        if isinstance(selection, tuple) and isinstance(selection[1], list):
            found = whole[selection[0]][:, selection[1]]
        ours = reader.read(group[name], selection)
        assert ours.shape == np.shape(found)
        assert np.all(ours == found)


def test_an_index_keeps_where_the_strings_are(expected, group):
    again = read_json(to_json_bytes(group))
    reader = pickle.loads(pickle.dumps(Reader(again.sources)))
    for name, values in expected[1].items():
        assert again[name].encodings == group[name].encodings
        assert again[name].manifest.virtual_count == group[name].manifest.virtual_count
        assert is_equal(reader.read(again[name]), values)


def test_xarray_reads_the_strings(expected, group):
    options = {"engine": "byteatlas", "drop_variables": "line"}  # its texts would be padded
    with xr.open_dataset(group, **options) as dataset:
        copy = pickle.loads(pickle.dumps(dataset))
        for name in expected[1].keys() - {"line"}:
            assert np.all(dataset[name].values == expected[1][name])
        assert np.all(copy["chunked"][10:20].values == expected[1]["chunked"][10:20])


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_zarr_reads_the_strings_through_the_store(expected, group, zarr_format):
    store = IndexStore(group, zarr_format=zarr_format)
    arrays = zarr.open_group(pickle.loads(pickle.dumps(store)), mode="r", zarr_format=zarr_format)
    for name, values in expected[1].items():
        assert np.all(np.asarray(arrays[name][...], object) == values), name
    filters = store.contents.documents["line/.zarray" if zarr_format == 2 else "line/zarr.json"]
    assert b"vlen-utf8" in filters
    assert b"byteatlas" not in filters


def test_fsspec_serves_chunks_that_hold_their_strings(expected, group):
    files = fsspec.filesystem("byteatlas", fo=group)
    values = expected[1]["chunked"]
    whole = files.cat("chunked/0.1")
    decoded = numcodecs.VLenUTF8().decode(whole).reshape(16, 33)
    assert (decoded == values[:16, 33:66]).all()
    assert files.info("chunked/0.1")["size"] == len(whole)
    assert files.cat_file("chunked/0.1", 10, 40) == whole[10:40]
    with files.open("chunked/0.1") as opened:
        assert opened.read() == whole
    edge = numcodecs.VLenUTF8().decode(files.cat("chunked/3.3")).reshape(16, 33)
    assert (edge[:12, :1] == values[48:, 99:]).all()
    assert (edge[12:] == "").all()
    assert (edge[:, 1:] == "").all()
    dataset = xr.open_dataset("byteatlas://", engine="zarr", storage_options={"fo": group})
    assert np.all(dataset["deflated"].values == expected[1]["deflated"])


def test_other_readers_of_the_index_are_refused_and_read_no_addresses_as_text(expected, tmp_path):
    group = byteatlas.scan(expected[0], max_inline=FEW)
    path = tmp_path / "strings.json"
    group.to_json(path)
    files = fsspec.filesystem("reference", fo=str(path))
    arrays = zarr.open_group(files.get_mapper(""), mode="r", zarr_format=2)
    with pytest.raises(Unsupported, match=r"only points to its strings.*byteatlas\.open_dataset"):
        arrays["line"][...]


def test_strings_take_two_rounds_more_whatever_their_number(expected):
    path, theirs = expected
    with RangeServer({"strings.h5": path.read_bytes()}) as server:
        group = byteatlas.scan(server.url("strings.h5"), max_inline=FEW)
        server.clear()
        reader = Reader(group.sources)
        source = reader.source(0)
        assert is_equal(reader.read(group["line"]), theirs["line"])
        # The chunks, the beginnings of collections, and the rest of the long ones.
        assert source.trace.rounds == 3
        assert len(server.log) <= 8
        server.clear()
        assert reader.read(group["line"], 3000) == theirs["line"][3000]
        assert [logged.range[1] for logged in server.log[:2]] == [16, 4096]
        assert len(server.log) <= 3
        assert server.bytes_sent <= 16 + 2**16  # libhdf5 makes no larger collections of many
        server.clear()
        store = zarr.open_group(IndexStore(group), mode="r")
        server.clear()
        assert np.all(np.asarray(store["chunked"][:, 40:50], object) == theirs["chunked"][:, 40:50])
        assert len(server.log) <= 8


def test_the_strings_of_many_arrays_take_as_many_rounds_as_those_of_one(expected):
    path, theirs = expected
    with RangeServer({"strings.h5": path.read_bytes()}) as server:
        group = byteatlas.scan(server.url("strings.h5"), max_inline=FEW)
        reader = Reader(group.sources)
        found = reader.read_many([(group[name], ..., f"/{name}") for name in theirs])
        for values, expected_values in zip(found, theirs.values(), strict=True):
            assert is_equal(values, expected_values)
        assert reader.source(0).trace.rounds == 3


def test_a_source_that_changed_is_an_error_and_no_text(expected):
    path, _ = expected
    with RangeServer({"strings.h5": path.read_bytes()}) as server:
        group = byteatlas.scan(server.url("strings.h5"), max_inline=FEW)
        server.content = {"strings.h5": path.read_bytes()[:-1] + b"!"}
        with pytest.raises(SourceChanged):
            Reader(group.sources).read(group["line"])


def test_a_damaged_collection_costs_only_the_chunks_that_need_it(expected, tmp_path):
    data = bytearray(expected[0].read_bytes())
    group = byteatlas.scan(expected[0], max_inline=FEW)
    files = fsspec.filesystem("byteatlas", fo=group)
    ids = Reader(group.sources)
    row = int(group["chunked"].manifest.offset[0])
    address = int.from_bytes(data[row + 4 : row + 12], "little")
    data[address : address + 4] = b"gcol"
    (tmp_path / "damaged.h5").write_bytes(data)
    damaged = byteatlas.scan(tmp_path / "damaged.h5", max_inline=FEW)
    files = fsspec.filesystem("byteatlas", fo=damaged)
    found = files.cat_ranges(["chunked/0.0", "chunked/3.3"], [None] * 2, [None] * 2)
    assert isinstance(found[0], Malformed)
    assert found[0].offset == address
    assert found[0].path == "/chunked"
    assert isinstance(found[1], bytes)
    with pytest.raises(Malformed, match="expected b'GCOL'") as caught:
        Reader(damaged.sources).read(damaged["chunked"], path="/chunked")
    assert (caught.value.offset, caught.value.path) == (address, "/chunked")
    both = [(damaged[name], ..., f"/{name}") for name in ("line", "chunked")]
    with pytest.raises(Malformed) as caught:
        Reader(damaged.sources).read_many(both)
    assert (caught.value.offset, caught.value.path) == (address, "/chunked")
    assert caught.value.url.endswith("damaged.h5")
    ids.close()


def test_a_damaged_chunk_of_addresses_is_an_error_that_names_its_place(expected, tmp_path):
    data = bytearray(expected[0].read_bytes())
    manifest = byteatlas.scan(expected[0], max_inline=FEW)["deflated"].manifest
    first = int(manifest.offset[0])
    data[first + 20 : first + 30] = bytes(10)
    (tmp_path / "damaged.h5").write_bytes(data)
    group = byteatlas.scan(tmp_path / "damaged.h5", max_inline=FEW)
    files = fsspec.filesystem("byteatlas", fo=group)
    found = files.cat_ranges(["deflated/0.0", "deflated/1.1"], [None] * 2, [None] * 2)
    assert isinstance(found[0], Malformed)
    assert (found[0].path, found[0].offset) == ("/deflated", first)
    assert found[0].url.endswith("damaged.h5")
    assert isinstance(found[1], bytes)


def test_strings_are_looked_up_as_soon_as_they_are_more_than_fit_into_an_index(tmp_path):
    path = tmp_path / "limit.h5"
    with h5py.File(path, "w") as file:
        file["x"] = np.array(["a" * 100, "b" * 100], object)
    inline = byteatlas.scan(path, max_inline=200)["x"]
    pointing = byteatlas.scan(path, max_inline=199)["x"]
    assert inline.manifest.inline
    assert pointing.manifest.virtual_count == 1


@pytest.mark.parametrize("count", [1009, 1200])
def test_a_line_of_strings_is_cut_into_chunks(tmp_path, count):
    path = tmp_path / "line.h5"
    texts = some_texts(count)
    with h5py.File(path, "w") as file:
        file["x"] = texts
        file["after"] = np.full(1000, 2**63, "u8")
    group = byteatlas.scan(path, max_inline=FEW, max_chunk=2000)
    assert 8 <= group["x"].manifest.virtual_count < 80
    assert is_equal(Reader(group.sources).read(group["x"]), texts)
    store = zarr.open_group(IndexStore(group), mode="r")
    assert np.all(np.asarray(store["x"][...], object) == texts)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_fill_value_beside_the_attribute_of_that_name_is_served_as_chunks(tmp_path, zarr_format):
    path = tmp_path / "fill.h5"
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("x", (100,), TEXT, chunks=(10,), fillvalue="none")
        dataset[3] = "abc"
        dataset.attrs["_FillValue"] = "zzz"
    expected = ["none"] * 3 + ["abc"] + ["none"] * 96
    group = byteatlas.scan(path, max_inline=FEW)
    assert group["x"].manifest.missing_count == 9
    assert Reader(group.sources).read(group["x"]).tolist() == expected
    store = IndexStore(group, zarr_format=zarr_format)
    arrays = zarr.open_group(store, mode="r", zarr_format=zarr_format)
    assert np.asarray(arrays["x"][...], object).tolist() == expected
    again = read_json(to_json_bytes(group, zarr_format=zarr_format))
    assert Reader(again.sources).read(again["x"]).tolist() == expected


def test_chunks_served_for_missing_ones_are_made_one_by_one_and_within_the_limit(tmp_path):
    path = tmp_path / "huge.h5"
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("x", (100,), TEXT, chunks=(10,), fillvalue="none")
        dataset[3] = "abc"
        dataset.attrs["_FillValue"] = "zzz"
    group = byteatlas.scan(path, max_inline=FEW)
    served = Contents(group, limits=Limits(chunk=4 + 10 * 8))
    assert asyncio.run(served.size("x/5")) == 4 + 10 * 8
    array = group["x"]
    huge = replace(array, shape=(10**13,), chunk_shape=(10**12,))
    contents = Contents(replace(group, arrays={"x": huge}))
    document, chunk = asyncio.run(contents.get_many([Slice("x/.zarray"), Slice("x/5")]))
    assert isinstance(chunk, LimitExceeded)
    assert b"chunks" in document


def test_a_scalar_string_is_a_text(tmp_path):
    path = tmp_path / "scalar.h5"
    with h5py.File(path, "w") as file:
        file["x"] = "text" * 50
    for limit in (FEW, 1000):
        group = byteatlas.scan(path, max_inline=limit)
        value = Reader(group.sources).read(group["x"])
        assert value.shape == ()
        assert type(value.item()) is str
        assert value.item() == "text" * 50
        store = zarr.open_group(IndexStore(group), mode="r")
        assert store["x"][()] == "text" * 50


def test_compact_strings_are_looked_up_too(tmp_path):
    path = tmp_path / "compact.h5"
    with h5py.File(path, "w") as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_layout(h5py.h5d.COMPACT)
        kind = h5py.h5t.py_create(TEXT, logical=True)
        space = h5py.h5s.create_simple((3,))
        dataset = h5py.Dataset(h5py.h5d.create(file.id, b"x", kind, space, plist))
        dataset[...] = ["one", "", "three" * 99]
    group = byteatlas.scan(path, max_inline=FEW)
    assert group["x"].manifest.virtual_count == 0
    assert Reader(group.sources).read(group["x"]).tolist() == ["one", "", "three" * 99]
    store = zarr.open_group(IndexStore(group), mode="r")
    assert np.asarray(store["x"][...], object).tolist() == ["one", "", "three" * 99]
