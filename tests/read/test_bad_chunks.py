"""A chunk that cannot be read is an error that says where: URL, array, chunk index, byte offset."""

import pickle
import tracemalloc
from dataclasses import replace

import fsspec
import numpy as np
import pytest
import xarray as xr
import zarr

import byteatlas
from byteatlas.errors import ByteatlasError, Malformed, ShortRead, SourceChanged
from byteatlas.model import Source
from byteatlas.read import Reader

from .bad_chunks import (
    BLOSC,
    DAMAGES,
    INDEX,
    LAYOUTS,
    SHUFFLED,
    VALUES,
    ZLIB,
    coded,
    make,
    sealed,
    spoiled,
)


@pytest.fixture
def made(request, tmp_path):
    """The damage that the test names, in a local file."""
    damage = DAMAGES[request.param]
    made = make(tmp_path / "data.bin", damage.codecs, damage.spoil)
    (tmp_path / "data.bin").write_bytes(made.data)
    return made


def read_whole(group):
    return Reader(group.sources).read(group["v"], path="/v")


def read_part(group):
    return Reader(group.sources).read(group["v"], (slice(8, 20, 3), slice(15, 18)), path="/v")


def read_lists(group):
    return Reader(group.sources).read(group["v"], ([19, 0], [13, 12, 29]), path="/v")


def read_together(group):
    whole = (group["v"], ..., "/v")
    return Reader(group.sources).read_many([(group["v"], 0, "/v"), whole])[1]


def read_by_xarray(group):
    return byteatlas.open_dataset(group)["v"].values


def read_by_dask(group):
    return byteatlas.open_dataset(group, chunks={})["v"].values


def read_again_after_pickling(group):
    dataset = byteatlas.open_dataset(group)
    return pickle.loads(pickle.dumps(dataset))["v"].values


def read_by_our_zarr_pipeline(group):
    with zarr.config.set({"codec_pipeline.path": PIPELINE}):
        return zarr.open_group(byteatlas.open_store(group), mode="r")["v"][:]


WAYS = [
    read_whole,
    read_part,
    read_lists,
    read_together,
    read_by_xarray,
    read_by_dask,
    read_again_after_pickling,
    read_by_our_zarr_pipeline,
]
PIPELINE = "byteatlas.store.zarr_pipeline.IndexCodecPipeline"


def check(error, made, url, kind=ByteatlasError, said=""):
    """Every fact is there, as an attribute and in the message."""
    assert isinstance(error, kind)
    assert (error.url, error.path, error.chunk) == (url, "/v", INDEX)
    if said == "expected":  # of a raw chunk it is what is wanted, and what of that is there
        assert made.offset <= error.offset < made.offset + 400
        assert error.length <= made.length
    else:
        assert (error.offset, error.length) == (made.offset, made.length)
    text = str(error)
    for fact in (url, ": /v: chunk (1, 1): ", f"at byte {error.offset} (0x", said):
        assert fact in text


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("made", DAMAGES, indirect=True)
def test_a_damaged_chunk_is_named(made, way, request, tmp_path):
    damage = DAMAGES[request.node.callspec.params["made"]]
    with pytest.raises(ByteatlasError) as caught:
        way(made.group)
    check(caught.value, made, str(tmp_path / "data.bin"), damage.kind, damage.said)


@pytest.mark.parametrize("codecs", [(), ZLIB, SHUFFLED, coded("blosc", **BLOSC)], ids=str)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_without_damage_there_is_no_error(codecs, way, tmp_path):
    made = make(tmp_path / "data.bin", codecs)
    (tmp_path / "data.bin").write_bytes(made.data)
    whole = {read_part: VALUES[8:20:3, 15:18], read_lists: VALUES[np.ix_([19, 0], [13, 12, 29])]}
    np.testing.assert_array_equal(way(made.group), whole.get(way, VALUES))


@pytest.mark.parametrize("name", [name for name in DAMAGES if "bomb" in name])
def test_a_bomb_takes_no_memory(name, tmp_path):
    damage = DAMAGES[name]
    made = make(tmp_path / "data.bin", damage.codecs, damage.spoil)
    (tmp_path / "data.bin").write_bytes(made.data)
    sound = make(tmp_path / "sound.bin", damage.codecs)
    (tmp_path / "sound.bin").write_bytes(sound.data)
    read_whole(sound.group)  # what is imported or kept, once and for all
    tracemalloc.start()
    try:
        with pytest.raises(Malformed):
            read_whole(made.group)
        # lzma's dictionary alone takes 8 MiB
        assert tracemalloc.get_traced_memory()[1] < (9 if "lzma" in name else 1) * 2**20
    finally:
        tracemalloc.stop()


# A file that ends too early


@pytest.mark.parametrize("gap", [0, 200_000], ids=["merged", "apart"])
@pytest.mark.parametrize("codecs", LAYOUTS.values(), ids=LAYOUTS)
def test_in_a_truncated_file_a_chunk_that_is_cut_is_named(placed, codecs, gap):
    made = make("", codecs, gap=gap)
    url = placed(made.data[: made.offset + 10])
    group = replace(made.group, sources=(Source(url),))
    for way in (read_whole, read_by_xarray, read_by_dask):
        with pytest.raises(ShortRead) as caught:
            way(group)
        error, manifest = caught.value, made.group["v"].manifest
        assert (error.url, error.path) == (url, "/v")
        assert error.chunk in ((1, 1), (1, 2))  # they are fetched in any order
        row = error.chunk[0] * 3 + error.chunk[1]
        assert (error.offset, error.length) == (manifest.offset[row], manifest.length[row])


@pytest.mark.parametrize("codecs", LAYOUTS.values(), ids=LAYOUTS)
def test_a_file_that_is_shorter_than_recorded_is_another_one(placed, codecs):
    made = make("", codecs)
    url = placed(made.data[: made.offset + 10])
    group = replace(made.group, sources=(Source(url, size=len(made.data)),))
    with pytest.raises(SourceChanged) as caught:
        read_whole(group)
    assert (caught.value.url, caught.value.path) == (url, "/v")


@pytest.mark.parametrize("codecs", LAYOUTS.values(), ids=LAYOUTS)
def test_a_chunk_unlike_its_digest_is_named(placed, codecs):
    made = make("", codecs)
    url = placed(spoiled(made))
    group = replace(sealed(made), sources=(Source(url),))
    for way in WAYS:
        with pytest.raises(SourceChanged, match="digest") as caught:
            way(group)
        check(caught.value, made, url)


# Bytes as they are stored, by key: what other libraries decode


def key_errors(group):
    """Read the key of the bad chunk in every way that there is; return the errors."""
    store = byteatlas.open_store(group)
    filesystem = fsspec.filesystem("byteatlas", fo=group, skip_instance_cache=True)
    readers = [
        lambda: zarr.open_group(store, mode="r")["v"][:],
        lambda: xr.open_zarr(store, consolidated=False)["v"].values,
        lambda: filesystem.cat_file("v/1.1"),
        lambda: filesystem.cat(["v/0.0", "v/1.1"]),
    ]
    for read in readers:
        with pytest.raises(ByteatlasError) as caught:
            read()
        yield caught.value


@pytest.mark.parametrize("fault", ["truncated", "other bytes"])
def test_the_store_and_the_filesystem_name_what_they_cannot_serve(placed, fault):
    made = make("", ZLIB, gap=200_000)
    at = made.group["v"].manifest.offset[4:].tolist() if fault == "truncated" else [made.offset]
    if fault == "truncated":  # the chunk behind it is cut too
        url = placed(made.data[: made.offset + 10])
        group = replace(made.group, sources=(Source(url),))
    else:
        url = placed(spoiled(made))
        group = replace(sealed(made), sources=(Source(url),))
    for error in key_errors(group):
        assert isinstance(error, ShortRead if fault == "truncated" else SourceChanged)
        assert (error.url, error.path) == (url, "/v")
        assert error.offset in at
        assert error.chunk in [(1, 1), (1, 2)][: len(at)]
