"""Dask's chunks are the file's, merged where those are small, and cut where nothing is lost."""

import copy
import pickle
import warnings

import netCDF4
import numpy as np
import pytest
import xarray as xr

from byteatlas.model import ChunkManifest, Codec, Encoding, Source, VirtualArray, VirtualGroup
from byteatlas.store.dask_chunks import FITTING, SLAB, dask_chunks

DEFLATE = (Encoding((Codec("zlib", {"level": 4}),)),)
MIB = 2**20


def array(shape, chunks, dtype="f4", encodings=DEFLATE, names="txyz", digest=None):
    grid = tuple(-(-n // c) for n, c in zip(shape, chunks, strict=True))
    count = int(np.prod(grid))
    manifest = ChunkManifest(
        grid, np.arange(count, dtype="u8"), np.full(count, 4, "u8"), digest=digest
    )
    return VirtualArray(
        shape,
        np.dtype(dtype),
        chunks,
        manifest,
        encodings=encodings,
        dimensions=tuple(names[: len(shape)]),
    )


def made(one):
    """Return the lengths that xarray makes when it is told nothing."""
    (chunks,) = dask_chunks({"v": one}).values()
    return tuple(chunks.get(name, n) for name, n in zip(one.dimensions, one.shape, strict=True))


@pytest.mark.parametrize(
    ("one", "lengths"),
    [
        (array((100, 1000, 3000), (1, 1000, 3000)), (1, 1000, 3000)),  # 12 MB: as it is
        (array((1000, 1000), (1000, 1)), (1000, 1000)),  # all of it is small
        (array((1_000_000,), (1,)), (1_000_000,)),
        (array((10_000_000,), (1,)), (FITTING // 4,)),
        (array((5000, 256, 256), (1, 256, 256)), (64, 256, 256)),
        (array((5000, 1024, 1024), (1, 64, 64)), (4, 1024, 1024)),  # the last dimensions first
        (array((500, 4096, 4096), (1, 64, 64)), (1, 1024, 4096)),
        (array((70, 1000), (64, 1000), "f8"), (70, 1000)),
        (array((10**6,), (1,), object), (FITTING // 64,)),  # a string is taken for 64 bytes
        (array((0, 5), (1, 5)), (1, 5)),
        (array((), ()), ()),
    ],
    ids=lambda value: str(getattr(value, "shape", value)),
)
def test_small_chunks_are_merged_along_the_last_dimension_first(one, lengths):
    assert made(one) == lengths
    for length, chunk, size in zip(lengths, one.chunk_shape, one.shape, strict=True):
        assert length % chunk == 0 or length == size


def test_uncompressed_chunks_are_cut_into_slabs_and_compressed_ones_are_not():
    shape = (2000, 500, 500)
    plain = (Encoding(),)
    assert made(array(shape, shape)) == shape
    assert made(array(shape, shape, encodings=plain)) == (67, 500, 500)
    assert made(array((2, 6000, 6000), (2, 6000, 6000), encodings=plain)) == (1, 2796, 6000)
    assert made(array((40, 500, 500), (40, 500, 500), encodings=plain)) == (40, 500, 500)
    sealed = array(shape, shape, encodings=plain, digest=np.zeros(1, "u8"))
    assert made(sealed) == shape  # a sealed chunk is fetched whole


def test_variables_that_share_a_chunked_dimension_agree_along_it():
    chunks = dask_chunks(
        {
            "bounds": array((800, 2), (1, 2), "f8", names="tn"),
            "temp": array((800, 256, 256), (1, 256, 256)),
            "wide": array((800, 256, 256), (1, 256, 256), "f8"),
            "t": array((800,), (1,), "f8", names="t"),
            "other": array((800, 256, 256), (2, 256, 256)),
        }
    )
    along = {name: one.get("t", 800) for name, one in chunks.items()}
    assert along == {"bounds": 32, "temp": 32, "wide": 32, "t": 32, "other": 64}


def test_a_crowd_of_tiny_chunks_does_not_follow():
    chunks = dask_chunks(
        {
            "temp": array((5000, 2000, 2000), (1, 2000, 2000)),
            "number": array((5000,), (1,), "f8"),
        }
    )
    assert chunks["temp"].get("t", 5000) == 1
    assert chunks["number"].get("t", 5000) == 5000


def test_the_encoding_says_what_the_file_has():
    chunks = dask_chunks({"v": array((5000, 256, 256), (1, 256, 256))})["v"]
    assert chunks == {"t": 1, "x": 256, "y": 256}
    assert chunks["t"] == chunks.get("t") == 1
    for twin in (pickle.loads(pickle.dumps(chunks)), copy.deepcopy(chunks), copy.copy(chunks)):
        assert twin == chunks
        assert twin.get("t", 5000) == 64
    slabs = dask_chunks({"v": array((2000, 500, 500), (2000, 500, 500), encodings=(Encoding(),))})
    assert "t" not in slabs["v"]  # nothing is separated by cutting it


# In xarray


def in_xarray(one, chunks):
    group = VirtualGroup(arrays={"v": one}, sources=(Source("file:///nowhere.nc", 10**9),))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with xr.open_dataset(group, engine="byteatlas", chunks=chunks) as dataset:
            return dataset["v"].chunks, [str(one.message) for one in seen]


TALL = array((5000, 256, 256), (2, 256, 256))


def test_no_chunks_given_makes_the_merged_ones():
    (time, x, y), warned = in_xarray(TALL, {})
    assert (set(time[:-1]), x, y) == ({64}, (256,), (256,))
    assert warned == []


@pytest.mark.parametrize("chunks", ["auto", {"t": "auto"}, {"t": 10}, {"t": 64}, {"x": 256}])
def test_multiples_of_the_files_chunks_are_made_without_a_warning(chunks):
    (time, _, _), warned = in_xarray(TALL, chunks)
    assert all(length % 2 == 0 for length in time)
    assert warned == []


def test_chunks_that_separate_the_files_are_warned_of():
    _, warned = in_xarray(TALL, {"t": 5})
    assert any("separate the stored chunks" in text for text in warned)


def test_slabs_may_be_cut_anywhere():
    huge = array((2000, 500, 500), (2000, 500, 500), encodings=(Encoding(),))
    for chunks in ({}, {"t": 7}, "auto"):
        (time, _, _), warned = in_xarray(huge, chunks)
        assert warned == []
        assert len(time) > 1
    assert in_xarray(huge, {})[0][0][0] * 500 * 500 * 4 <= SLAB + 500 * 500 * 4


def test_a_million_elements_in_chunks_of_one_are_one_task_and_right(tmp_path):
    path = tmp_path / "ones.nc"
    with netCDF4.Dataset(path, "w") as data:
        data.createDimension("time", None)
        data.createDimension("x", 3)
        data.createVariable("v", "f4", ("time", "x"), chunksizes=(1, 3))[:] = np.arange(
            600, dtype="f4"
        ).reshape(200, 3)
    with (
        xr.open_dataset(path, engine="byteatlas", chunks={}) as ours,
        xr.open_dataset(path, engine="netcdf4") as expected,
    ):
        assert ours["v"].data.npartitions == 1
        assert ours["v"].encoding["chunksizes"] == (1, 3)
        xr.testing.assert_identical(ours.compute(), expected.compute())
