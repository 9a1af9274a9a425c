"""The samples that are mutated: small files, made here, with one of every structure.

They hold little data, so that most mutations hit what describes it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from unittest.mock import patch

import h5py
import netCDF4
import numpy as np

from byteatlas.scanners import ScanOptions, Window
from byteatlas.steps import run
from byteatlas.testing.memory import MemoryReader
from byteatlas_scanners.hdf5 import (
    btree_v2,
    checksum,
    fractal_heap,
    object_header,
    scanner,
    shared,
    superblock,
)
from byteatlas_scanners.hdf5.chunks import elements, extensible_array, fixed_array

__all__ = ["SEEDS", "Checked", "Seed", "make_seed", "repaired", "unchecked"]

_LIBHDF5 = ctypes.CDLL(h5py.h5p.__file__)
_CHECKING = (
    superblock,
    object_header,
    fractal_heap,
    btree_v2,
    shared,
    elements,
    fixed_array,
    extensible_array,
)


class Checked(NamedTuple):
    """A structure that ends in a checksum, or has it inside."""

    start: int
    stop: int
    """The bytes that are hashed; a checksum among them counts as zeros."""
    place: int
    """Where the checksum is."""


@dataclass(frozen=True, slots=True)
class Seed:
    """One sample."""

    name: str
    data: bytes
    checked: tuple[Checked, ...] = ()
    """What to hash again after a change, so that it gets past the checksums."""

    @property
    def is_hdf5(self) -> bool:
        """Tell which library is the oracle."""
        return not self.data.startswith(b"CDF")


def make_seed(name: str) -> Seed:
    """Write one of the SEEDS."""
    data = SEEDS[name]()
    if data.startswith(b"CDF"):
        return Seed(name, data)
    checked = _checked(data)
    return Seed(name, repaired(_without_times(data, checked), checked), checked)


def _without_times(data: bytes, checked: tuple[Checked, ...]) -> bytes:
    """Clear the times in object headers, so that a sample is always the same."""
    whole = bytearray(data)
    for start, _, _ in checked:
        if whole[start : start + 4] == b"OHDR" and whole[start + 5] & 0x20:
            whole[start + 6 : start + 22] = bytes(16)
    return bytes(whole)


def repaired(data: bytes, checked: tuple[Checked, ...]) -> bytes:
    """Return a changed sample with its checksums made right, where the structures still are."""
    whole = bytearray(data)
    for start, stop, place in checked:
        if max(stop, place + 4) <= len(whole):
            body = whole[start:stop]
            if start <= place < stop:
                body[place - start : place - start + 4] = bytes(4)
            whole[place : place + 4] = checksum.lookup3(bytes(body)).to_bytes(4, "little")
    return bytes(whole)


@contextmanager
def unchecked(
    verify: Callable[..., None] = lambda *_: None, verify_rows: Callable[..., None] | None = None
) -> Iterator[None]:
    """Take every checksum of HDF5's metadata for right, or do something else with it."""
    with ExitStack() as stack:
        for module in _CHECKING:
            for name, other in (("verify", verify), ("verify_rows", verify_rows or verify)):
                if hasattr(module, name):
                    stack.enter_context(patch.object(module, name, other))
        yield


def _checked(data: bytes) -> tuple[Checked, ...]:
    """Find what has a checksum: a scan verifies all of it."""
    found: list[Checked] = []

    def verify(block: Any, _what: str, offset: int) -> None:
        stop = offset + len(block) - 4
        place = data.index(bytes(block[-4:]), offset)
        found.append(Checked(offset, stop, place))

    def verify_rows(rows: Any, lengths: Any, _what: str, offsets: Any) -> None:
        for length, offset in zip(
            np.broadcast_to(lengths, len(rows)).tolist(), offsets.tolist(), strict=True
        ):
            found.append(Checked(offset, offset + length, offset + length))

    with unchecked(verify, verify_rows):
        run(scanner.scan(Window(memoryview(data), len(data)), ScanOptions()), MemoryReader(data))
    return tuple(dict.fromkeys(found))


# Writers.


def _hdf5(
    write: Callable[[h5py.File], object],
    *,
    oldest: int = h5py.h5f.LIBVER_EARLIEST,
    create: Callable[[int], object] = lambda _: None,
) -> bytes:
    fcpl = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    create(fcpl.id)
    fapl = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    fapl.set_fapl_core(block_size=512, backing_store=False)
    fapl.set_libver_bounds(oldest, h5py.h5f.LIBVER_LATEST)
    with h5py.File(h5py.h5f.create(b"seed.h5", h5py.h5f.ACC_TRUNC, fcpl, fapl)) as file:
        write(file)
        file.flush()
        return bytes(file.id.get_file_image())


def _netcdf(write: Callable[[netCDF4.Dataset], object], kind: Any) -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder, "seed.nc")
        with netCDF4.Dataset(path, "w", format=kind) as dataset:
            write(dataset)
        return path.read_bytes()


def _set(name: str, plist: int, *values: int) -> None:
    """Call a function of libhdf5 that sets properties and that h5py has no name for."""
    assert getattr(_LIBHDF5, name)(ctypes.c_int64(plist), *map(ctypes.c_uint, values)) >= 0


_VALUES = np.arange(60, dtype="<i4").reshape(6, 10)


def _old(file: h5py.File) -> None:
    """Write what files of the first format are made of."""
    file.attrs["text"] = "of variable length"
    file.attrs["numbers"] = np.arange(5)
    file["group/contiguous"] = _VALUES.astype(">f4")
    chunked = file.create_dataset(
        "chunked", data=_VALUES, chunks=(2, 4), compression=1, shuffle=True, fletcher32=True
    )
    chunked.attrs["units"] = np.bytes_(b"K")
    file.create_dataset("plain", (20, 7), "<i2", chunks=(3, 5), fillvalue=-9)[3:10] = 1
    file.create_dataset("texts", data=["a", "bb", "ccc"])
    file.create_dataset("records", data=np.ones(3, [("a", ">i2"), ("b", "S3"), ("c", "<f8")]))
    file.create_dataset("empty", (2**40, 3), "<f8", fillvalue=np.nan)
    file["soft"] = h5py.SoftLink("/group/contiguous")
    file["alias"] = file["group"]
    file["group/up"] = file["/"]


def _tree_of_chunks(file: h5py.File) -> None:
    """Write version 1 B-trees of two levels, of chunks and of a group."""
    small = file.create_dataset("many", (40,), "<u2", chunks=(1,))
    small[:] = np.arange(40)
    for number in range(20):
        file.create_dataset(f"group/a{number:02}", data=np.uint8(number))


def _small_nodes(fcpl: int) -> None:
    _set("H5Pset_istore_k", fcpl, 2)
    _set("H5Pset_sym_k", fcpl, 2, 1)


def _arrays(file: h5py.File) -> None:
    """Write the chunk indexes of the latest format, but for the B-tree."""
    limits = {"fixed": (6, 10), "extensible": (None, 10), "wide": (6, None)}
    for name, most in limits.items():
        file.create_dataset(name, data=_VALUES, chunks=(1, 2), maxshape=most)
    file.create_dataset(
        "filtered", data=_VALUES, chunks=(4, 4), maxshape=(12, 12), compression=1, fletcher32=True
    )
    file.create_dataset("one", data=_VALUES, chunks=(6, 10), compression=1)
    file.create_dataset("growing", (300,), "<i2", chunks=(1,), maxshape=(None,))[::7] = 5
    dcpl = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    dcpl.set_layout(h5py.h5d.CHUNKED)
    dcpl.set_chunk((4, 4))
    dcpl.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    space = h5py.h5s.create_simple((6, 10))
    implicit = h5py.h5d.create(file.id, b"implicit", h5py.h5t.STD_I32LE, space, dcpl)
    implicit.write(h5py.h5s.ALL, h5py.h5s.ALL, _VALUES)
    dcpl.set_layout(h5py.h5d.COMPACT)
    compact = h5py.h5d.create(file.id, b"compact", h5py.h5t.STD_I32LE, space, dcpl)
    compact.write(h5py.h5s.ALL, h5py.h5s.ALL, _VALUES)


def _trees(file: h5py.File) -> None:
    """Write version 2 B-trees of chunks."""
    for name, options in {"plain": {}, "deflated": {"compression": 1, "shuffle": True}}.items():
        some = file.create_dataset(
            name, data=_VALUES, chunks=(2, 2), maxshape=(None, None), **options
        )
        some.resize((9, 10))
    file.create_dataset("masked", (4, 4), "<i2", chunks=(2, 4), maxshape=(None, None), shuffle=True)
    file["masked"].id.write_direct_chunk((0, 0), bytes(range(16)), filter_mask=1)


def _dense(file: h5py.File) -> None:
    """Write links and attributes in fractal heaps."""
    group = file.create_group("group", track_order=True)
    for number in range(12):
        group.create_dataset(f"number {number}", data=np.int16(number))
        file.attrs[f"attribute {number}"] = np.arange(number)
    group.attrs["text"] = "outside " * 4
    file["group/soft"] = h5py.SoftLink("number 3")
    file["group/elsewhere"] = h5py.ExternalLink("other.h5", "/x")


def _shared_messages(fcpl: int) -> None:
    _set("H5Pset_shared_mesg_nindexes", fcpl, 1)
    _set("H5Pset_shared_mesg_index", fcpl, 0, 0x182A, 10)


def _shared(file: h5py.File) -> None:
    """Write messages that are kept in the heap of shared ones."""
    for number in range(4):
        one = file.create_dataset(f"d{number}", data=_VALUES, chunks=(6, 10), compression=1)
        one.attrs["note"] = "the same for all of them"
        one.attrs["numbers"] = np.arange(6)


def _types(file: h5py.File) -> None:
    """Write one of each class of datatypes."""
    file["kind"] = np.dtype([("a", "<i2"), ("b", ">f4", (2,))])
    file.create_dataset("committed", data=np.zeros(4, file["kind"]), dtype=file["kind"])
    file.create_dataset("enum", data=[0, 1, 1], dtype=h5py.enum_dtype({"A": 0, "B": 1}, "i2"))
    file.create_dataset("bool", data=[True, False, True])
    file.create_dataset("array", (3,), np.dtype(("<f4", (2, 3))))[...] = np.ones((3, 2, 3))
    file.create_dataset("half", data=np.arange(5, dtype="<f2"))
    file.create_dataset("complex", data=np.arange(4, dtype="<c16"))
    file.create_dataset("opaque", data=np.array([b"ab", b"cd"], "V2"))
    file.create_dataset("fixed", data=np.array([b"ab", b"cdef"], "S5"))
    file.create_dataset("reference", data=file["half"].ref)
    file.create_dataset("scalar text", data="one")
    rows = file.create_dataset("sequences", (2,), h5py.vlen_dtype("<i4"))
    rows[0] = [1, 2, 3]
    record = np.dtype([("n", "<i4"), ("s", h5py.string_dtype()), ("t", "S2")])
    file.create_dataset("texts", data=np.array([(1, "x", b"y"), (2, "zz", b"w")], record))
    file.create_dataset("null", dtype="f4", shape=None)


def _filters(file: h5py.File) -> None:
    """Write chunks through the filters that are not in other samples."""
    options: dict[str, dict[str, Any]] = {
        "lzf": {"compression": "lzf"},
        "szip": {"compression": "szip"},
        "scaled": {"scaleoffset": 0},
    }
    for name, how in options.items():
        if name != "szip" or h5py.h5z.filter_avail(h5py.h5z.FILTER_SZIP):
            file.create_dataset(name, data=_VALUES % 17, chunks=(3, 10), **how)
    file.create_dataset("decimals", data=_VALUES / 8, chunks=(3, 10), scaleoffset=2)
    kind = h5py.h5t.STD_I32LE.copy()
    kind.set_precision(11)
    dcpl = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    dcpl.set_chunk((3, 10))
    dcpl.set_filter(h5py.h5z.FILTER_NBIT, h5py.h5z.FLAG_OPTIONAL, ())
    space = h5py.h5s.create_simple((6, 10))
    packed = h5py.h5d.create(file.id, b"nbit", kind, space, dcpl)
    packed.write(h5py.h5s.ALL, h5py.h5s.ALL, _VALUES)


def _virtual(file: h5py.File) -> None:
    """Write a dataset that is made of others in the same file."""
    layout = h5py.VirtualLayout((4, 10), "<i4")
    for number in range(3):
        name = f"part{number}"
        file.create_dataset(name, data=_VALUES[number], chunks=(5,), compression=1)
        layout[number] = h5py.VirtualSource(".", name, (10,))
    file.create_virtual_dataset("whole", layout, fillvalue=-1)


def _netcdf4(root: netCDF4.Dataset) -> None:
    root.title = "small"
    root.createDimension("t", None)
    root.createDimension("x", 3)
    root.createVariable("x", "f4", ("x",))[:] = 1
    time = root.createVariable("t", "f4", ("t",), chunksizes=(4,))
    time[0:5] = np.arange(5)
    time.units = "days since 2000-01-01"
    group = root.createGroup("g")
    values = group.createVariable("v", "i2", ("t", "x"), zlib=True, fill_value=-1)
    values[0:3] = np.arange(9).reshape(3, 3)
    values.scale_factor = np.float32(0.5)
    group.createVariable("s", str, ("x",))[0] = "text"


def _netcdf3(root: netCDF4.Dataset) -> None:
    root.title = "small"
    root.createDimension("t", None)
    root.createDimension("x", 3)
    root.createDimension("n", 5)
    root.createVariable("x", "f8", ("x",))[:] = [1, 2, 3]
    root.createVariable("name", "S1", ("x", "n"))[:] = np.full((3, 5), b"a")
    for name, kind in {"a": "i2", "b": "f4", "c": "i1"}.items():
        one = root.createVariable(name, kind, ("t", "x"), fill_value=-1)
        one[0:4] = np.arange(12).reshape(4, 3)
        one.units = "K"
        one.valid_range = np.array([0, 100], kind)
    root.createVariable("scalar", "i4", ())[...] = 7


SEEDS: dict[str, Callable[[], bytes]] = {
    "hdf5-old": lambda: _hdf5(_old),
    "hdf5-btree1": lambda: _hdf5(_tree_of_chunks, create=_small_nodes),
    "hdf5-arrays": lambda: _hdf5(_arrays, oldest=h5py.h5f.LIBVER_LATEST),
    "hdf5-btree2": lambda: _hdf5(_trees, oldest=h5py.h5f.LIBVER_LATEST),
    "hdf5-dense": lambda: _hdf5(_dense, oldest=h5py.h5f.LIBVER_LATEST),
    "hdf5-shared": lambda: _hdf5(_shared, oldest=h5py.h5f.LIBVER_V18, create=_shared_messages),
    "hdf5-types": lambda: _hdf5(_types, oldest=h5py.h5f.LIBVER_V18),
    "hdf5-filters": lambda: _hdf5(_filters, oldest=h5py.h5f.LIBVER_LATEST),
    "hdf5-virtual": lambda: _hdf5(_virtual, oldest=h5py.h5f.LIBVER_LATEST),
    "netcdf4": lambda: _netcdf(_netcdf4, "NETCDF4"),
    "netcdf3-classic": lambda: _netcdf(_netcdf3, "NETCDF3_CLASSIC"),
    "netcdf3-64bit": lambda: _netcdf(_netcdf3, "NETCDF3_64BIT_OFFSET"),
    "netcdf3-cdf5": lambda: _netcdf(_netcdf3, "NETCDF3_64BIT_DATA"),
}
