"""What the tests of the HDF5 scanner share: writers, a driver, a plain reader and two oracles."""

import ctypes
import io
import math
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import h5py
import netCDF4
import numpy as np
import pytest
from numcodecs.vlen import VLenBytes, VLenUTF8

from byteatlas.codecs import decode
from byteatlas.model import VirtualArray, VirtualGroup
from byteatlas.scanners import ScanOptions, Window
from byteatlas.steps import run
from byteatlas.testing.memory import MemoryReader
from byteatlas_scanners.hdf5 import scanner

# The functions of libhdf5 that h5py has no name for, from the very library it uses.
LIBHDF5 = ctypes.CDLL(h5py.h5p.__file__)
BOUNDS = {"latest": h5py.h5f.LIBVER_LATEST, "v108": h5py.h5f.LIBVER_V18}


# Writers.


def _make(
    write: Callable[[h5py.File], object],
    *,
    create: Callable[[h5py.h5p.PropFCID], object] | None = None,
    libver: str | None = None,
    **options: Any,
) -> bytes:
    """Return the bytes of a file that h5py makes; `create` sets properties of the whole file."""
    if create is None:
        file = h5py.File(
            "made.h5", "w", driver="core", backing_store=False, libver=libver, **options
        )
    else:
        fcpl = h5py.h5p.create(h5py.h5p.FILE_CREATE)
        create(fcpl)
        fapl = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
        fapl.set_fapl_core(backing_store=False)
        if libver:
            fapl.set_libver_bounds(BOUNDS[libver], h5py.h5f.LIBVER_LATEST)
        file = h5py.File(h5py.h5f.create(b"made.h5", h5py.h5f.ACC_TRUNC, fcpl, fapl))
    with file:
        write(file)
        file.flush()
        return file.id.get_file_image()


def _make_netcdf(write: Callable[[netCDF4.Dataset], object], *, kind: str = "NETCDF4") -> bytes:
    """Return the bytes of a file that netCDF4 makes."""
    dataset = netCDF4.Dataset("made.nc", "w", memory=1024, format=kind)
    write(dataset)
    return bytes(dataset.close())


def _set_property(name: str, plist: h5py.h5p.PropID, *values: int) -> None:
    """Call one of libhdf5's functions that set properties, such as ``H5Pset_istore_k``."""
    assert getattr(LIBHDF5, name)(ctypes.c_int64(plist.id), *map(ctypes.c_uint, values)) >= 0


def _write_raw(
    file: h5py.File, name: str, kind: h5py.h5t.TypeID, data: bytes, shape: tuple[int, ...]
) -> None:
    """Write a dataset's bytes as they are, of any type."""
    dataset = h5py.h5d.create(file.id, name.encode(), kind, h5py.h5s.create_simple(shape))
    values = np.frombuffer(data, f"V{kind.get_size()}").reshape(shape)
    dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, values, mtype=kind)


# The driver and a plain reader.


def _scan(
    data: bytes, *, head: int | None = None, reader: MemoryReader | None = None, **options: Any
) -> VirtualGroup:
    if head is None:  # a reader that counts is given all to read but the superblock
        head = len(data) if reader is None else 512
    window = Window(memoryview(data)[:head], len(data))
    return run(scanner.scan(window, ScanOptions(**options)), reader or MemoryReader(data))


def _read(data: bytes, array: VirtualArray) -> np.ndarray:
    """Put an array together chunk by chunk, each from its byte range alone."""
    manifest, dtype = array.manifest, array.dtype
    out = np.zeros(array.shape, dtype)
    if manifest.missing_count:
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
        if "sequence" in array.notes:
            assert [codec.name for codec in codecs.codecs] == ["vlen-bytes"]
            chunk = np.empty(math.prod(array.chunk_shape), object)
            for number, item in enumerate(VLenBytes().decode(raw)):
                chunk[number] = np.frombuffer(item, array.notes["sequence"])
        elif dtype.hasobject:
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


# Comparison.


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
        pairs = list(zip(ours.reshape(-1).tolist(), theirs.reshape(-1).tolist(), strict=True))
        if any(isinstance(item, np.ndarray) for pair in pairs for item in pair):
            return next((why for one, other in pairs if (why := _difference(one, other))), None)
        one, other = _texts(ours), _texts(theirs)
        return None if one == other else f"texts {one[:5]}, not {other[:5]}"
    if ours.dtype.newbyteorder("<") != theirs.dtype.newbyteorder("<"):
        return f"type {ours.dtype}, not {theirs.dtype}"
    if _little_endian(ours) != _little_endian(theirs):
        return f"values {ours.ravel()[:5]}, not {theirs.ravel()[:5]}"
    return None


def _wrong_references(paths: np.ndarray, dataset: h5py.Dataset) -> list[str]:
    """Return the paths that lead to something else than a dataset's references do."""
    theirs = np.asarray(dataset[...], object)
    assert paths.shape == theirs.shape
    return [
        path
        for path, reference in zip(paths.reshape(-1), theirs.reshape(-1), strict=True)
        if (path == "") == bool(reference)
        or (reference and dataset.file[path] != dataset.file[reference])
    ]


def _texts(values: np.ndarray) -> list[str]:
    return [
        item.decode("utf-8") if isinstance(item, bytes) else item
        for item in values.reshape(-1).tolist()
    ]


def _little_endian(values: np.ndarray) -> bytes:
    return values.astype(values.dtype.newbyteorder("<")).tobytes()


def _attribute_differences(ours: Mapping[str, Any], theirs: netCDF4.Dataset) -> list[str]:
    """Compare attributes with those of a group or variable of netCDF4, types included."""
    problems = [f"{name}: missing or surplus" for name in ours.keys() ^ set(theirs.ncattrs())]
    for name in ours.keys() & set(theirs.ncattrs()):
        one, other = ours[name], theirs.getncattr(name)
        if isinstance(other, str | bytes | list):
            is_same = isinstance(one, type(other)) and one == other
        elif np.asarray(other).dtype.names:
            is_same = isinstance(one, np.void | np.ndarray) and _difference(one, other) is None
        else:
            is_same = np.shape(one) == np.shape(other) and one.dtype == np.asarray(other).dtype
            is_same = is_same and one.tobytes() == np.asarray(other).tobytes()
        if not is_same:
            problems.append(f"{name}: {one!r}, not {other!r}")
    return problems


# Oracles.


def _datasets(file: h5py.File) -> Iterator[tuple[str, h5py.Dataset]]:
    """Yield each dataset by each of its paths; groups within themselves are not entered."""

    def walk(
        path: str, group: h5py.Group, above: list[h5py.Group]
    ) -> Iterator[tuple[str, h5py.Dataset]]:
        for name in group:
            kind = group.id.links.get_info(name.encode("utf-8", "surrogateescape")).type
            if kind not in (h5py.h5l.TYPE_HARD, h5py.h5l.TYPE_SOFT):
                continue
            try:
                item = group[name]
            except (KeyError, OSError, RuntimeError):  # a dangling link, a damaged object
                continue
            if isinstance(item, h5py.Dataset):
                yield f"{path}/{name}", item
            elif isinstance(item, h5py.Group) and item not in above:
                yield from walk(f"{path}/{name}", item, [*above, item])

    yield from walk("", file, [file["/"]])


def _check(data: bytes, skipped: Mapping[str, str] | None = None, **options: Any) -> VirtualGroup:
    """Scan a file and compare every array with h5py; return the group.

    `skipped` gives for each path that must be left out a part of the reason.
    """
    group = _scan(data, **options)
    arrays, reasons, wanted = dict(group.walk_arrays()), dict(group.report.skipped), skipped or {}
    assert reasons.keys() == wanted.keys(), reasons
    for path, why in wanted.items():
        assert why in reasons[path]
    # Fill values of strings are only read from files that can be written.
    with h5py.File(io.BytesIO(data), "r+") as file:
        for path, dataset in _datasets(file):
            if path in wanted:
                assert path not in arrays
                continue
            array = arrays.pop(path)
            if "reference" in array.notes:
                assert not _wrong_references(_read(data, array), dataset), path
                continue
            why = _difference(_read(data, array), dataset[...])
            assert why is None, f"{path}: {why}"
            dtype = dataset.dtype
            while dtype.subdtype:
                dtype = dtype.base
            is_same = array.dtype in (dtype, dtype.newbyteorder("<"))
            assert is_same or array.dtype.kind in "OV", path
    assert not arrays
    return group


def _netcdf_differences(data: bytes, group: VirtualGroup) -> list[str]:
    """Compare everything in a group with netCDF4: values, types, names and attributes."""
    problems: list[str] = []
    skipped = dict(group.report.skipped)

    def attributes(path: str, ours: Mapping[str, Any], theirs: netCDF4.Dataset) -> list[str]:
        found = (f"{path}@{why}" for why in _attribute_differences(ours, theirs))
        return [why for why in found if why.partition(": ")[0] not in skipped]

    def compare(path: str, ours: VirtualGroup, theirs: netCDF4.Dataset) -> None:
        problems.extend(attributes(path, ours.attrs, theirs))
        sizes = {name: (one.size, one.isunlimited()) for name, one in theirs.dimensions.items()}
        if {name: tuple(one) for name, one in ours.dimensions.items()} != sizes:
            problems.append(f"{path}: dimensions {ours.dimensions}, not {sizes}")
        for name, variable in theirs.variables.items():
            here = f"{path}/{name}"
            if here not in skipped:
                array = ours.arrays[name]
                problems.extend(attributes(here, array.attrs, variable))
                if array.dimensions != variable.dimensions:
                    problems.append(f"{here}: {array.dimensions}, not {variable.dimensions}")
                if why := _difference(_read(data, array), variable[...]):
                    problems.append(f"{here}: {why}")
        problems.extend(f"{path}/{name}: surplus" for name in ours.arrays.keys() - theirs.variables)
        problems.extend(f"{path}/{name}: group" for name in ours.groups.keys() ^ theirs.groups)
        for name, child in ours.groups.items():
            compare(f"{path}/{name}", child, theirs.groups[name])

    with netCDF4.Dataset("in memory", memory=data) as dataset:
        dataset.set_auto_maskandscale(False)
        dataset.set_auto_chartostring(False)
        dataset.set_always_mask(False)
        compare("", group, dataset)
    return problems


def _check_netcdf(
    data: bytes, skipped: Mapping[str, str] | None = None, **options: Any
) -> VirtualGroup:
    """Scan a file and compare everything with netCDF4; return the group."""
    group = _scan(data, **options)
    reasons, wanted = dict(group.report.skipped), skipped or {}
    assert reasons.keys() == wanted.keys(), reasons
    for path, why in wanted.items():
        assert why in reasons[path]
    assert _netcdf_differences(data, group) == []
    return group


def _check_whole(
    data: bytes, skipped: Mapping[str, str] | None = None, **options: Any
) -> VirtualGroup:
    """Do as `check`, and compare all attributes with h5py too."""
    group = _check(data, skipped, **options)
    found = {"/": group.attrs}
    for path, one in group.walk():
        found[path or "/"] = one.attrs
        found |= {f"{path}/{name}": array.attrs for name, array in one.arrays.items()}
    with h5py.File(io.BytesIO(data)) as file:
        for path, ours in found.items():
            theirs = dict(file[path].attrs)
            assert ours.keys() == theirs.keys(), path
            wrong = [name for name in ours if not _is_same(ours[name], theirs[name])]
            assert wrong == [], path
    return group


def _is_same(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, str | list):
        return bool(np.ravel(theirs).tolist() == np.ravel(ours).tolist())
    return _difference(np.ravel(ours), np.ravel(theirs)) is None


def _create_group(file: h5py.File, name: str, *properties: tuple[Any, ...]) -> h5py.Group:
    """Create a group with properties, each a function of libhdf5 and its values."""
    plist = h5py.h5p.create(h5py.h5p.GROUP_CREATE)
    for function, *values in properties:
        _set_property(function, plist, *values)
    return h5py.Group(h5py.h5g.create(file.id, name.encode(), gcpl=plist))


@contextmanager
def _within(seconds: int) -> Iterator[None]:
    """End what hangs, instead of waiting for it for ever."""

    def give_up(_number: int, _frame: object) -> None:
        raise TimeoutError(f"still busy after {seconds} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


# All of them as fixtures, which last, because property tests use them too.


def _offer(function: Callable[..., Any]) -> Any:
    return pytest.fixture(scope="session", name=function.__name__[1:])(lambda: function)


make = _offer(_make)
make_netcdf = _offer(_make_netcdf)
set_property = _offer(_set_property)
write_raw = _offer(_write_raw)
scan = _offer(_scan)
read = _offer(_read)
difference = _offer(_difference)
wrong_references = _offer(_wrong_references)
datasets = _offer(_datasets)
check = _offer(_check)
check_whole = _offer(_check_whole)
create_group = _offer(_create_group)
check_netcdf = _offer(_check_netcdf)
netcdf_differences = _offer(_netcdf_differences)
within = _offer(_within)
