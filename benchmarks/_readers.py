"""Whoever can read the arrays of an HDF5 file: byteatlas, kerchunk, VirtualiZarr and pyfive.

Each is used as its documentation says, with the settings that serve it best: kerchunk and byteatlas
may keep values in their index up to the same limit, kerchunk's and VirtualiZarr's references are
read with zarr, and hdf5plugin is there for whoever uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np

Region = tuple[slice, ...]

MAX_INLINE = 2**24
"""Bytes of one array that may be kept in an index."""


class Found(NamedTuple):
    """One array as a reader gives it."""

    shape: tuple[int, ...]
    kind: str
    """How its values are kept: virtual or inlined."""
    read: Callable[[Region], Any]


@dataclass(frozen=True, slots=True)
class Opened:
    """A file as a reader sees it."""

    find: Callable[[str], Found]
    """Return the array at a path; KeyError where there is none."""
    skipped: Mapping[str, str] = field(default_factory=dict)
    """What it says that it leaves out, with its reason."""
    fallback: Mapping[str, str] = field(default_factory=dict)
    """What another library was needed for, and why."""


class Reader(NamedTuple):
    """A project that is compared."""

    name: str
    packages: tuple[str, ...]
    """Distributions whose versions are printed; the first is its own."""
    settings: str
    load: Callable[[], Callable[[str], Opened]]
    """Import everything; return what opens a file by its path."""

    @property
    def versions(self) -> str:
        return ", ".join(f"{package} {version(package)}" for package in self.packages)


def load_byteatlas() -> Callable[[str], Opened]:
    import byteatlas
    import byteatlas.display
    import byteatlas.fallback
    import byteatlas.read.reader
    import byteatlas_scanners.hdf5

    assert byteatlas_scanners.hdf5

    def opened(path: str) -> Opened:
        group = byteatlas.scan(path, max_inline=MAX_INLINE)
        arrays = dict(group.walk_arrays())
        reader = byteatlas.read.reader.Reader(group.sources)

        def find(path: str) -> Found:
            here = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            head, _, name = here.rpartition("/")
            # netCDF-4 marks a variable that is named like a dimension but does not lie on it.
            plain = f"{head}/{name.removeprefix('_nc4_non_coord_')}"
            array = arrays[here] if here in arrays else arrays[plain]
            is_inlined = bool(array.manifest.inline) and not array.manifest.virtual_count
            kind = "inlined" if is_inlined else "virtual"
            return Found(array.shape, kind, lambda region: reader.read(array, region or ...))

        fallback = byteatlas.display.read_by(group)
        return Opened(find, skipped=dict(group.report.skipped), fallback=fallback)

    return opened


def load_kerchunk() -> Callable[[str], Opened]:
    import fsspec.implementations.reference
    import zarr
    from kerchunk.hdf import SingleHdf5ToZarr

    def opened(path: str) -> Opened:
        scanner = SingleHdf5ToZarr(path, unsupported_inline_threshold=MAX_INLINE)
        references = scanner.translate()
        filesystem = fsspec.implementations.reference.ReferenceFileSystem(
            references,
            asynchronous=True,
            remote_protocol="file",
            remote_options={"asynchronous": True},
        )
        store = zarr.storage.FsspecStore(filesystem, read_only=True, path="")
        kinds: dict[str, set[str]] = {}
        for key, entry in references["refs"].items():
            array, _, name = key.rpartition("/")
            if not name.startswith(".z"):
                kinds.setdefault(array, set()).add("v" if isinstance(entry, list) else "i")

        def find(path: str) -> Found:
            key = path.strip("/")
            if f"{key}/.zarray" not in references["refs"]:
                raise KeyError(path)
            array = zarr.open_array(store, path=key, zarr_format=2, mode="r")
            kind = "inlined" if kinds.get(key) == {"i"} else "virtual"
            return Found(array.shape, kind, lambda region: array[region or ...])

        return Opened(find)

    return opened


def load_virtualizarr() -> Callable[[str], Opened]:
    import zarr
    from obspec_utils.registry import ObjectStoreRegistry
    from obstore.store import LocalStore
    from virtualizarr.parsers import HDFParser

    def opened(path: str) -> Opened:
        registry = ObjectStoreRegistry({"file://": LocalStore()})
        store = HDFParser()(url=f"file://{path}", registry=registry)
        manifests = store._group  # nothing public leads there  # noqa: SLF001

        def find(path: str) -> Found:
            group = manifests
            *parents, name = path.strip("/").split("/")
            for parent in parents:
                group = group.groups[parent]
            found = group.arrays[name]
            array = zarr.open_array(store, path=path.strip("/"), zarr_format=3, mode="r")
            is_inlined = bool(getattr(found.manifest, "_inlined", None))
            kind = "inlined" if is_inlined else "virtual"
            return Found(found.shape, kind, lambda region: array[region or ...])

        return Opened(find)

    return opened


def load_pyfive() -> Callable[[str], Opened]:
    import pyfive
    from pyfive.core import Reference

    def plain(file: Any, dataset: Any, values: Any) -> Any:
        """Name the targets of references, which come as objects of the library or as addresses."""
        values = np.asarray(values)
        is_address = (dataset.dtype.metadata or {}).get("h5py_class") == "REFERENCE"
        if values.dtype != object and not is_address:
            return values
        out = np.empty(values.shape, object)
        for place, item in np.ndenumerate(values):
            if is_address and not isinstance(item, Reference):
                item = Reference(int.from_bytes(bytes(item), "little"))  # noqa: PLW2901
            is_reference = isinstance(item, Reference)
            out[place] = (file[item].name if item else "") if is_reference else item
        return out

    def opened(path: str) -> Opened:
        file = pyfive.File(path)

        def find(path: str) -> Found:
            dataset = file[path]
            return Found(
                dataset.shape,
                "virtual",
                lambda region: plain(file, dataset, dataset[region or ...]),
            )

        return Opened(find)

    return opened


READERS = (
    Reader("byteatlas", ("byteatlas", "numpy", "h5py", "hdf5plugin"), "defaults", load_byteatlas),
    Reader(
        "kerchunk",
        ("kerchunk", "fsspec", "zarr", "numcodecs", "h5py", "hdf5plugin"),
        f"unsupported_inline_threshold={MAX_INLINE}, read with zarr",
        load_kerchunk,
    ),
    Reader(
        "virtualizarr",
        ("virtualizarr", "obspec-utils", "zarr", "numcodecs", "h5py", "hdf5plugin"),
        "HDFParser(), the root and all groups, read with zarr",
        load_virtualizarr,
    ),
    Reader("pyfive", ("pyfive",), "defaults; it reads, and makes no index", load_pyfive),
)
