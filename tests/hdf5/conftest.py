"""What the tests of the HDF5 scanner share: writers, a driver, a plain reader and the oracle."""

import io
import math
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  # registers its filters with libhdf5
import numpy as np
import pytest
from byteatlas_scanners.hdf5 import scanner
from numcodecs.vlen import VLenUTF8

from byteatlas.codecs import decode
from byteatlas.model import VirtualArray, VirtualGroup
from byteatlas.scanners import ScanOptions, Window
from byteatlas.steps import run
from byteatlas.testing.memory import MemoryReader

Write = Callable[[h5py.File], object]


def _make(write: Write, *, fcpl: h5py.h5p.PropFCID | None = None, **options: Any) -> bytes:
    """Return the bytes of a file that h5py makes."""
    if fcpl is None:
        file = h5py.File("made.h5", "w", driver="core", backing_store=False, **options)
    else:
        fapl = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
        fapl.set_fapl_core(backing_store=False)
        if options.get("libver") == "latest":
            fapl.set_libver_bounds(h5py.h5f.LIBVER_LATEST, h5py.h5f.LIBVER_LATEST)
        file = h5py.File(h5py.h5f.create(b"made.h5", h5py.h5f.ACC_TRUNC, fcpl, fapl))
    with file:
        write(file)
        file.flush()
        return file.id.get_file_image()


def _scan(
    data: bytes, *, head: int | None = None, reader: MemoryReader | None = None, **options: Any
) -> VirtualGroup:
    window = Window(memoryview(data)[: len(data) if head is None else head], len(data))
    return run(scanner.scan(window, ScanOptions(**options)), reader or MemoryReader(data))


def _read(data: bytes, array: VirtualArray) -> np.ndarray:
    """Put an array together chunk by chunk, each from its byte range alone."""
    manifest, dtype = array.manifest, array.dtype
    out = np.zeros(array.shape, dtype)
    if array.fill_value is not None:
        out[...] = array.fill_value
    cells = np.arange(manifest.offset.size) if manifest.index is None else manifest.index
    encoding = np.zeros(cells.size, int) if manifest.encoding is None else manifest.encoding
    chunks = [
        (int(cell), data[int(start) : int(start + length)], array.encodings[int(kind)])
        for cell, start, length, kind in zip(
            cells, manifest.offset, manifest.length, encoding, strict=True
        )
    ]
    chunks += [(cell, raw, array.encodings[0]) for cell, raw in manifest.inline.items()]
    size = math.prod(array.chunk_shape) * dtype.itemsize
    for cell, raw, codecs in chunks:
        if dtype.hasobject:
            assert [codec.name for codec in codecs.codecs] == ["vlen-utf8"]
            chunk = VLenUTF8().decode(raw)
        else:
            chunk = np.frombuffer(bytes(decode(raw, codecs, size=size)), dtype)
        place = np.unravel_index(cell, manifest.grid_shape) if manifest.grid_shape else ()
        start = [int(i) * c for i, c in zip(place, array.chunk_shape, strict=True)]
        room = [n - s for n, s in zip(array.shape, start, strict=True)]
        inside = tuple(slice(0, n) for n in map(min, room, array.chunk_shape))
        target = tuple(slice(s, s + part.stop) for s, part in zip(start, inside, strict=True))
        out[target] = chunk.reshape(array.chunk_shape)[inside]
    return out


def _difference(ours: Any, theirs: Any) -> str | None:
    """Say how values differ: in shape, in type but for the byte order, or in any bit."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    if ours.shape != theirs.shape:
        return f"shape {ours.shape}, not {theirs.shape}"
    if ours.dtype.names or theirs.dtype.names:
        if ours.dtype.names != theirs.dtype.names:
            return f"members {ours.dtype.names}, not {theirs.dtype.names}"
        wrong = ((name, _difference(ours[name], theirs[name])) for name in ours.dtype.names)
        return next((f"{name}: {why}" for name, why in wrong if why), None)
    if ours.dtype.hasobject or theirs.dtype.hasobject:
        one, other = _texts(ours), _texts(theirs)
        return None if one == other else f"texts {one[:5]}, not {other[:5]}"
    if ours.dtype.newbyteorder("<") != theirs.dtype.newbyteorder("<"):
        return f"type {ours.dtype}, not {theirs.dtype}"
    if _little_endian(ours) != _little_endian(theirs):
        return f"values {ours.ravel()[:5]}, not {theirs.ravel()[:5]}"
    return None


def _texts(values: np.ndarray) -> list[str]:
    return [
        item.decode("utf-8") if isinstance(item, bytes) else item
        for item in values.reshape(-1).tolist()
    ]


def _little_endian(values: np.ndarray) -> bytes:
    return values.astype(values.dtype.newbyteorder("<")).tobytes()


def _datasets(file: h5py.File) -> Iterator[tuple[str, h5py.Dataset]]:
    """Yield each dataset by each of its paths; groups within themselves are not entered."""

    def walk(
        path: str, group: h5py.Group, above: list[h5py.Group]
    ) -> Iterator[tuple[str, h5py.Dataset]]:
        for name in group:
            if group.get(name, getclass=True, getlink=True) is h5py.ExternalLink:
                continue
            item = group.get(name)
            if isinstance(item, h5py.Dataset):
                yield f"{path}/{name}", item
            elif isinstance(item, h5py.Group) and item not in above:
                yield from walk(f"{path}/{name}", item, [*above, item])

    yield from walk("", file, [file["/"]])


def _check(
    data: bytes, skipped: Mapping[str, str] | None = None, **options: Any
) -> VirtualGroup:
    """Scan a file and compare every array with h5py.

    `skipped` says for each path that may be left out a part of the reason that must be given.
    """
    group = _scan(data, **options)
    arrays, reasons = dict(group.walk_arrays()), dict(group.report.skipped)
    wanted = dict(skipped or {})
    assert reasons.keys() == wanted.keys(), reasons
    for path, why in wanted.items():
        assert why in reasons[path]
    with h5py.File(io.BytesIO(data), "r+") as file:  # fills of strings are written to be read
        for path, dataset in _datasets(file):
            if path in wanted:
                assert path not in arrays
                continue
            array = arrays.pop(path)
            why = _difference(_read(data, array), dataset[...])
            assert why is None, f"{path}: {why}"
    assert not arrays
    return group


@contextmanager
def _within(seconds: int) -> Iterator[None]:
    """End what hangs, instead of the whole run."""

    def give_up(_number: int, _frame: object) -> None:
        raise TimeoutError(f"still busy after {seconds} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session")
def make() -> Callable[..., bytes]:
    return _make


@pytest.fixture(scope="session")
def scan() -> Callable[..., VirtualGroup]:
    return _scan


@pytest.fixture(scope="session")
def read() -> Callable[[bytes, VirtualArray], np.ndarray]:
    return _read


@pytest.fixture(scope="session")
def difference() -> Callable[[Any, Any], str | None]:
    return _difference


@pytest.fixture(scope="session")
def check() -> Callable[..., VirtualGroup]:
    return _check


@pytest.fixture(scope="session")
def within() -> Callable[[int], Any]:
    return _within
