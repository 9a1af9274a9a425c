"""Our codecs under Zarr version 3, as zarr finds them by name."""

import h5py
import numpy as np
import pytest
import zarr
from zarr.storage import FsspecStore

import byteatlas

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def uneven(tmp_path):
    """A file whose chunks skip their filters too often to be kept inline."""
    path = tmp_path / "uneven.h5"
    expected = np.arange(2400, dtype="<i4").reshape(1200, 2)
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset(
            "x", (2400, 2), chunks=(1, 2), dtype="<i4", compression="gzip", shuffle=True
        )
        for row, values in enumerate(expected):
            dataset[row] = values
            dataset.id.write_direct_chunk((row + 1200, 0), values.tobytes(), filter_mask=3)
    return path, np.concatenate([expected, expected])


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_our_store_gives_zarr_chunks_of_several_encodings(uneven, tmp_path, zarr_format):
    path, expected = uneven
    group = byteatlas.scan(str(path))
    assert len(group.arrays["x"].encodings) == 2
    group.to_json(tmp_path / "index.json", zarr_format=zarr_format)
    store = byteatlas.open_store(tmp_path / "index.json", zarr_format=zarr_format)
    np.testing.assert_array_equal(zarr.open_group(store, mode="r")["x"][...], expected)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_store_that_does_not_know_encodings_fails_loudly(uneven, tmp_path, zarr_format):
    path, _ = uneven
    index = tmp_path / "index.json"
    byteatlas.scan(str(path)).to_json(index, zarr_format=zarr_format)
    filesystem = fsspec.filesystem(
        "reference",
        fo=str(index),
        asynchronous=True,
        remote_protocol="file",
        remote_options={"asynchronous": True},
    )
    array = zarr.open_group(FsspecStore(filesystem, read_only=True, path=""), mode="r")["x"]
    with pytest.raises(byteatlas.Malformed, match="no encoding prefix"):
        array[0]


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_records_are_rearranged_under_both_formats(tmp_path, zarr_format):
    kind = h5py.h5t.C_S1.copy()
    kind.set_size(64)
    kind.set_strpad(h5py.h5t.STR_NULLTERM)
    raw = np.full((30_000, 64), ord("x"), np.uint8)
    raw[:, 3] = 0
    path = tmp_path / "text.h5"
    with h5py.File(path, "w") as file:
        space = h5py.h5s.create_simple((30_000,))
        dataset = h5py.h5d.create(file.id, b"x", kind, space)
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, raw, mtype=kind)
    group = byteatlas.scan(str(path))
    assert [codec.name for codec in group.arrays["x"].encodings[0].codecs] == ["byteatlas.convert"]
    store = byteatlas.open_store(group, zarr_format=zarr_format)
    values = zarr.open_group(store, mode="r")["x"][...]
    assert values.dtype == "S64"
    assert set(values.tolist()) == {b"xxx"}
