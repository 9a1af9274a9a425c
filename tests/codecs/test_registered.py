"""Codecs of HDF5's filters in other readers: by name, with no more than the index says."""

import asyncio

import fsspec
import h5py
import numcodecs
import numpy as np
import pytest
import zarr
from zarr.storage import FsspecStore

import byteatlas
from byteatlas.codecs import registered
from byteatlas.errors import Malformed, Unsupported

hdf5plugin = pytest.importorskip("hdf5plugin")
hdf5plugin.register()

VALUES = (np.arange(60 * 50) // 99).reshape(60, 50).astype("<f4")
WRITTEN = {
    "byteatlas.lzf": {"compression": "lzf"},
    "byteatlas.bitshuffle": hdf5plugin.Bitshuffle(),
    "byteatlas.blosc2": hdf5plugin.Blosc2(),
    "byteatlas.scaleoffset": {"scaleoffset": 1},
    "byteatlas.zfp": hdf5plugin.Zfp(reversible=True),
    "imagecodecs_blosc": hdf5plugin.Blosc(cname="snappy"),
    "imagecodecs_lz4h5": hdf5plugin.LZ4(),
    "imagecodecs_szip": {"compression": "szip"},
}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("filters") / "filters.h5"
    with h5py.File(path, "w") as file:
        for name, options in WRITTEN.items():
            file.create_dataset(name, data=VALUES, chunks=(25, 20), **options)
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((25, 20))
        plist.set_filter(h5py.h5z.FILTER_NBIT)
        # A compound, because HDF5 has nothing to do for numbers that use all their bits.
        kind = h5py.h5t.create(h5py.h5t.COMPOUND, 8)
        member = h5py.h5t.STD_U16LE.copy()
        member.set_precision(9)
        kind.insert(b"x", 2, member)
        space = h5py.h5s.create_simple(VALUES.shape)
        dataset = h5py.h5d.create(file.id, b"byteatlas.nbit", kind, space, plist)
        raw = np.zeros(VALUES.shape, np.dtype({"names": ["x"], "formats": ["<u2"], "offsets": [2]}))
        raw["x"] = VALUES
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, raw)
    return path


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_zarr_reads_them_through_the_reference_filesystem(path, tmp_path, zarr_format):
    index = tmp_path / "index.json"
    group = byteatlas.scan(str(path))
    for name in WRITTEN:
        assert [codec.name for codec in group[name].encodings[0].codecs] == [name]
    group.to_json(index, zarr_format=zarr_format)
    filesystem = fsspec.filesystem(
        "reference",
        fo=str(index),
        asynchronous=True,
        remote_protocol="file",
        remote_options={"asynchronous": True},
    )
    foreign = zarr.open_group(FsspecStore(filesystem, read_only=True, path=""), mode="r")
    with h5py.File(path) as file:
        for name in WRITTEN:
            np.testing.assert_array_equal(foreign[name][...], file[name][...])
    np.testing.assert_array_equal(byteatlas.open_dataset(index)["byteatlas.lzf"], VALUES)


def test_the_foreign_names_are_of_codecs_that_decode_alike(path):
    import imagecodecs.numcodecs

    foreign = {
        "imagecodecs_blosc": imagecodecs.numcodecs.Blosc,
        "imagecodecs_lz4h5": imagecodecs.numcodecs.Lz4h5,
        "imagecodecs_szip": imagecodecs.numcodecs.Szip,
    }
    group = byteatlas.scan(str(path))
    assert foreign.keys() == {name for name in WRITTEN if name.startswith("imagecodecs")}
    with h5py.File(path) as file:
        for name, codec in foreign.items():
            (ours,) = group[name].encodings[0].codecs
            _, raw = file[name].id.read_direct_chunk((0, 0))
            assert bytes(codec(**ours.config).decode(raw)) == VALUES[:25, :20].tobytes()


@pytest.mark.parametrize("name", [*WRITTEN, "byteatlas.nbit"])
def test_they_are_found_by_name_and_only_decode(path, name):
    with h5py.File(path) as file:
        _, raw = file[name].id.read_direct_chunk((0, 0))
    array = byteatlas.scan(str(path))[name]
    if name == "byteatlas.nbit":  # the records are rearranged on top, or were when scanning
        config = {"count": 500, "type": [3, 8, 1, 2, 1, 2, 0, 9, 0]}
        expected = np.zeros((25, 20, 4), "<u2")
        expected[:, :, 1] = VALUES[:25, :20]
    else:
        (codec,) = array.encodings[0].codecs
        config, expected = codec.config, VALUES[:25, :20]
    found = numcodecs.get_codec({"id": name, **config})
    assert type(found).__module__ == registered.__name__
    assert found.get_config() == {"id": name, **config}
    assert bytes(found.decode(raw)) == expected.tobytes()
    out = np.empty_like(expected)
    assert found.decode(raw, out=out) is out
    assert out.tobytes() == expected.tobytes()
    with pytest.raises(Unsupported, match="only decodes"):
        found.encode(raw)
    with pytest.raises(Malformed):
        found.decode(raw[:1])


@pytest.mark.parametrize("name", [*WRITTEN, "byteatlas.nbit"])
def test_they_are_codecs_of_zarr_version_3_by_name(name):
    from zarr.registry import get_codec_class

    spelled = name if "." in name else f"numcodecs.{name}"
    kind = get_codec_class(spelled)
    codec = kind.from_dict({"name": spelled, "configuration": {"x": 1}})
    assert codec.to_dict() == {"name": spelled, "configuration": {"x": 1}}
    with pytest.raises(NotImplementedError, match="only decodes"):
        asyncio.run(codec._encode_single(None, None))
