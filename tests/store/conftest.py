"""A small netCDF-4 archive, local and behind a range server, and its index."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest

from byteatlas.index.json_writer import write_json
from byteatlas.model import ChunkManifest, Codec, Encoding, Source, VirtualArray, VirtualGroup
from byteatlas.scanning import scan
from byteatlas.testing.server import RangeServer


def write_archive(path: Path) -> None:
    random = np.random.default_rng(0)
    with netCDF4.Dataset(path, "w") as data:
        data.title = "an archive"
        data.numbers = np.array([1, 2, 3], "i2")
        data.createDimension("time", None)
        data.createDimension("x", 50)
        data.createDimension("letters", 4)
        time = data.createVariable("time", "f8", ("time",), chunksizes=(4,))
        time.units = "days since 2000-01-01"
        time[:] = np.arange(10)
        temp = data.createVariable(
            "temp",
            "i2",
            ("time", "x"),
            zlib=True,
            fletcher32=True,
            chunksizes=(3, 20),
            fill_value=-9,
        )
        temp.scale_factor = np.float32(0.5)
        temp.add_offset = 3.0
        temp.set_auto_maskandscale(False)
        values = random.integers(0, 100, (10, 50))
        values[2, 5] = -9
        temp[:] = values
        name = data.createVariable("name", "S1", ("x", "letters"))
        name[:] = np.full((50, 4), b"a")
        crs = data.createVariable("crs", "i4", ())
        crs[...] = 5
        crs.note = "a grid mapping"
        label = data.createVariable("label", str, ("x",))
        label[:] = np.array([f"é{i}" for i in range(50)], object)
        sparse = data.createVariable("sparse", "f4", ("time", "x"), chunksizes=(1, 50))
        sparse[7] = 1.5
        group = data.createGroup("forecast")
        group.createDimension("level", 2)
        wind = group.createVariable("wind", ">f4", ("level", "x"), endian="big")
        wind[:] = random.normal(size=(2, 50))
        inner = group.createGroup("inner")
        depth = inner.createVariable("depth", "u1", ("level",))
        depth[:] = [3, 4]


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of a netCDF-4 file that nobody changes."""
    path = tmp_path_factory.mktemp("archive") / "archive.nc"
    write_archive(path)
    return path


@pytest.fixture
def server(archive: Path) -> Iterator[RangeServer]:
    """Return a server of a copy of the archive, whose bytes and faults a test may change."""
    with RangeServer({"archive.nc": archive.read_bytes()}) as running:
        yield running


@pytest.fixture
def scanned(server: RangeServer) -> VirtualGroup:
    """Return the scanned archive; its source is behind the server, whose log is empty."""
    group = scan(server.url("archive.nc"))
    server.clear()
    return group


@pytest.fixture
def index(scanned: VirtualGroup, tmp_path: Path) -> Path:
    """Return the path of the archive's index."""
    path = tmp_path / "archive.json"
    write_json(scanned, path)
    return path


def bytes_group(chunks: list[bytes], *, codec_lists: Any = ((),), encoding: Any = None) -> Any:
    """Return a group of one array of bytes, and the bytes of its source."""
    length = np.array(list(map(len, chunks)), "u8")
    manifest = ChunkManifest.build(
        (len(chunks),),
        np.arange(len(chunks), dtype="u8"),
        np.cumsum(length) - length + np.uint64(4),
        length,
        encoding=None if encoding is None else np.array(encoding, "u1"),
    )
    encodings = tuple(Encoding(tuple(Codec(name, {}) for name in names)) for names in codec_lists)
    array = VirtualArray(
        (4 * len(chunks),), np.dtype("u1"), (4,), manifest, encodings=encodings, dimensions=("x",)
    )
    data = b"head" + b"".join(chunks)
    sources = (Source("memory://bytes.bin", len(data)),)
    return VirtualGroup(arrays={"a": array}, sources=sources), data
