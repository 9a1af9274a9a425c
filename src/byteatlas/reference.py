"""What the reference libraries, netCDF4 and h5py, say of a source: the other side of `verify`."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import fsspec
import numpy as np
from numpy.typing import NDArray

from byteatlas.errors import SourceError, Unsupported, without_query
from byteatlas.external_links import leads_to_another_file

__all__ = ["Reference", "ReferenceArray", "open_reference"]


@dataclass(frozen=True, slots=True)
class ReferenceArray:
    """One array, as a reference library shows it."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    dimensions: tuple[frozenset[str], ...]
    """The names that each axis may have; none where the source names it not."""
    attrs: Mapping[str, Any]
    """Values are the library's own; an `Unsupported` for those that it cannot read."""
    read: Callable[[tuple[slice, ...]], NDArray[Any]]
    """Return the stored values of a region: nothing masked, scaled or decoded."""


class Reference(Protocol):
    """A source that a reference library has opened."""

    library: str
    """Name and version."""

    def paths(self) -> list[str]:
        """Return one path of each array, such as "/group/temp"."""

    def resolve(self, path: str) -> str | None:
        """Return which of `paths` leads to the array at this one, None when nothing is there."""

    def array(self, path: str) -> ReferenceArray:
        """Return one of `paths`.

        Raises
        ------
        Unsupported
            The library cannot read it. Reading its values can also raise this.
        """

    def attributes(self, path: str) -> Mapping[str, Any] | None:
        """Return the attributes of a group ("" is the root), None when there is none."""


@contextmanager
def open_reference(
    url: str,
    *,
    library: Literal["netCDF4", "h5py"] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Iterator[Reference]:
    """Open a source with a reference library.

    Parameters
    ----------
    url
        A path, or a URL of any protocol that fsspec knows. A remote netCDF-3 source is fetched
        whole.
    library
        Which one. By default netCDF4; h5py where the source is HDF5 but not netCDF-4, or remote.
    storage_options
        For reaching the source, in fsspec's words.

    Raises
    ------
    SourceError
        It cannot be opened.
    """
    is_local = "://" not in url or url.startswith(("file://", "local://"))
    path = Path(url.partition("://")[2] or url) if is_local else None
    try:
        if path and library == "netCDF4":
            with _open_netcdf4(path) as reference:
                yield reference
            return
        with fsspec.open(str(path or url), "rb", **dict(storage_options or {})) as handle:
            if handle.read(3) == b"CDF":
                handle.seek(0)
                with _open_netcdf4(path, None if path else handle.read()) as reference:
                    yield reference
                return
            with _open_h5py(path or handle) as (reference, is_netcdf4):
                if library == "h5py" or path is None or not is_netcdf4:
                    yield reference
                    return
        with _open_netcdf4(path) as reference:
            yield reference
    except (OSError, RuntimeError) as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(
            f"the reference library cannot open it: {error}", url=without_query(url)
        ) from error


# netCDF4


class _NetCDF4Reference:
    def __init__(self, root: Any, library: str) -> None:
        self.library = library
        self._groups = {"": root}
        waiting = [("", root)]
        while waiting:
            here, group = waiting.pop()
            found = [(f"{here}/{name}", child) for name, child in group.groups.items()]
            self._groups.update(found)
            waiting += found
        self._variables = {
            f"{here}/{name}": variable
            for here, group in self._groups.items()
            for name, variable in group.variables.items()
        }

    def paths(self) -> list[str]:
        return list(self._variables)

    def resolve(self, path: str) -> str | None:
        return path if path in self._variables else None

    def array(self, path: str) -> ReferenceArray:
        variable = self._variables[path]
        kind = variable.dtype

        def read(region: tuple[slice, ...]) -> NDArray[Any]:
            with _unsupported("netCDF4"):
                return np.asarray(variable[region or ...])

        return ReferenceArray(
            shape=variable.shape,
            dtype=np.dtype(object) if kind is str or kind is object else np.dtype(kind),
            dimensions=tuple(
                frozenset() if name.startswith("phony_dim_") else frozenset({name})
                for name in variable.dimensions
            ),
            attrs=_netcdf4_attributes(variable),
            read=read,
        )

    def attributes(self, path: str) -> Mapping[str, Any] | None:
        return _netcdf4_attributes(self._groups[path]) if path in self._groups else None


def _netcdf4_attributes(item: Any) -> dict[str, Any]:
    return _each(item.ncattrs(), item.getncattr, "netCDF4")


@contextmanager
def _open_netcdf4(path: Path | None, data: bytes | None = None) -> Iterator[Reference]:
    import netCDF4  # noqa: PLC0415  # slow to import

    with netCDF4.Dataset(path or "in memory", memory=data) as root:
        root.set_auto_maskandscale(False)
        root.set_auto_chartostring(False)
        root.set_always_mask(False)
        yield _NetCDF4Reference(root, f"netCDF4 {netCDF4.__version__}")


# h5py


_BOOKKEEPING = frozenset(
    {
        "CLASS",
        "DIMENSION_LIST",
        "NAME",
        "REFERENCE_LIST",
        "_NCProperties",
        "_Netcdf4Coordinates",
        "_Netcdf4Dimid",
        "_nc3_strict",
    }
)
"""Attributes that netCDF4 keeps for itself."""
_ONLY_A_DIMENSION = b"This is a netCDF dimension but not a netCDF variable"
_CANNOT_READ = (KeyError, OSError, RuntimeError, TypeError, ValueError)
"""What the libraries raise for what they do not support, or find damaged."""
_NO_FILTER = re.compile(
    r"can't (?:open directory|find plugin)|filter '.*' is not registered|undefined filter"
)
"""What they say where they lack a decompressor, some of it while they look for a plugin."""


class _H5pyReference:
    def __init__(self, root: Any, library: str, *, finds_others: bool) -> None:
        import h5py  # noqa: PLC0415  # slow to import

        self.library = library
        self._root = root
        self._finds_others = finds_others
        self._path_of: dict[Any, str] = {_identity(root): ""}
        self._names_of: dict[Any, set[str]] = {}
        self._datasets: dict[str, Any] = {}
        self._unreadable: dict[str, str] = {}
        self._external: dict[str, ReferenceArray] = {}
        waiting = [("", root)]
        while waiting:
            here, group = waiting.pop()
            try:
                names = list(group)
            except _CANNOT_READ as error:
                if not here:
                    raise
                self._unreadable[here] = f"h5py cannot list it: {error}"
                continue
            for name in names:
                try:
                    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                        continue
                    item = group[name]
                    identity = _identity(item)
                except _CANNOT_READ as error:
                    self._unreadable[f"{here}/{name}"] = f"h5py cannot read it: {error}"
                    continue
                plain = name.removeprefix("_nc4_non_coord_")
                self._names_of.setdefault(identity, set()).add(plain)
                if identity in self._path_of:
                    continue
                path = self._path_of[identity] = f"{here}/{plain}"
                if isinstance(item, h5py.Group):
                    waiting.append((path, item))
                elif isinstance(item, h5py.Dataset) and not _is_only_a_dimension(item):
                    self._datasets[path] = item

    def paths(self) -> list[str]:
        return list(self._datasets)

    def resolve(self, path: str) -> str | None:
        if path in self._datasets or path in self._external or path in self._unreadable:
            return path
        for group, reason in self._unreadable.items():
            if path.startswith(f"{group}/"):
                self._unreadable[path] = f"of {group}, {reason}"
                return path
        is_linked = _is_linked(self._root, path)
        if is_linked and not self._finds_others:
            self._unreadable[path] = "h5py cannot follow links to other files from here"
            return path
        try:  # by another of its names
            item = self._root[path]
            found = self._path_of.get(_identity(item))
        except _CANNOT_READ:
            return None
        if is_linked and hasattr(item, "dtype"):
            self._datasets[path] = item
            return path
        return found if found in self._datasets or found in self._external else None

    def array(self, path: str) -> ReferenceArray:
        if path in self._unreadable:
            raise Unsupported(self._unreadable[path])
        if path in self._external:
            return self._external[path]
        dataset = self._datasets[path]
        with _unsupported("h5py"):
            is_external = bool(dataset.external)
            if (dataset.is_virtual or is_external) and not self._finds_others:
                raise Unsupported("its values are in other files: h5py cannot reach them from here")
            kind, shape = dataset.dtype, dataset.shape or ()
            dimensions = tuple(map(self._names, dataset.dims))
        if dataset.shape is None:
            raise Unsupported("it has no values")
        axes = len(shape)
        while kind.subdtype:  # h5py appends the shape of an array type to that of the array
            kind, inner = kind.subdtype
            shape += inner
            dimensions += (frozenset(),) * len(inner)

        attrs = _h5py_attributes(dataset)
        if is_external:
            del dataset  # while it is open, it cannot be opened in another way
            dataset = _open_external(self._root, self._datasets.pop(path).name)

        def read(region: tuple[slice, ...]) -> NDArray[Any]:
            with _unsupported("h5py"):
                values = _with_paths(np.asarray(dataset[region[:axes]]), self._root)
            rest: NDArray[Any] = values[(slice(None),) * axes + region[axes:] + (...,)]
            return rest

        made = ReferenceArray(shape, kind, dimensions, attrs, read)
        if is_external:
            self._external[path] = made
        return made

    def _names(self, axis: Any) -> frozenset[str]:
        scales = [scale for scale in axis.values() if scale.shape is not None]
        return frozenset().union(*(self._names_of.get(_identity(scale), ()) for scale in scales))

    def attributes(self, path: str) -> Mapping[str, Any] | None:
        # From an open file, h5py takes every other file for that one.
        if not self._finds_others and _is_linked(self._root, path):
            return None
        with suppress(*_CANNOT_READ):
            return _h5py_attributes(self._root[path or "/"])
        return None


def _with_paths(value: Any, root: Any) -> Any:
    """Return object references as the paths of what they lead to, and all else as it is."""
    import h5py  # noqa: PLC0415  # slow to import

    def path(reference: Any) -> str:
        name = h5py.h5r.get_name(reference, root.id) if reference else b""
        if name is None:
            raise ValueError("a reference to an object without a path")
        return str(name.decode())

    if type(value) is h5py.Reference:
        return path(value)
    if not isinstance(value, np.ndarray) or value.dtype != object:
        return value
    if not all(type(item) is h5py.Reference for item in value.reshape(-1).tolist()):
        return value
    paths = np.empty(value.size, object)
    paths[:] = list(map(path, value.reshape(-1).tolist()))
    return paths.reshape(value.shape)


def _identity(item: Any) -> Any:
    import h5py  # noqa: PLC0415  # slow to import

    info = h5py.h5o.get_info(item.id)
    return info.fileno, info.addr


def _open_external(root: Any, name: str) -> Any:
    """Open a dataset whose values are in external files so that names count from its own file."""
    import h5py  # noqa: PLC0415  # slow to import

    access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
    access.set_efile_prefix(b"${ORIGIN}")  # else from the working directory
    return h5py.Dataset(h5py.h5d.open(root.id, name.encode(), access))


def _is_linked(root: Any, path: str) -> bool:
    with suppress(*_CANNOT_READ):  # such a path cannot be read either
        return leads_to_another_file(root, path)
    return False


def _is_only_a_dimension(dataset: Any) -> bool:
    with suppress(*_CANNOT_READ):
        return bytes(dataset.attrs["NAME"]).startswith(_ONLY_A_DIMENSION)
    return False


def _h5py_attributes(item: Any) -> dict[str, Any]:
    import h5py  # noqa: PLC0415  # slow to import

    def value(name: str) -> Any:
        found = item.attrs[name]
        if isinstance(found, h5py.Empty):
            return np.empty(0, found.dtype)
        return _with_paths(found, item.file)

    return _each([name for name in item.attrs if name not in _BOOKKEEPING], value, "h5py")


@contextmanager
def _open_h5py(source: Any) -> Iterator[tuple[Reference, bool]]:
    """Open a path or an open file with h5py; tell whether the netCDF library has written it.

    From a path, h5py finds the other files that hold values of it; from an open file it does not,
    and reads fill values.
    """
    import h5py  # noqa: PLC0415  # slow to import

    with suppress(ImportError):
        import hdf5plugin  # noqa: F401, PLC0415  # registers more decompressors, where installed

    finds_others = isinstance(source, Path)
    with h5py.File(source, "r") as file:
        reference = _H5pyReference(file, f"h5py {h5py.__version__}", finds_others=finds_others)
        yield reference, "_NCProperties" in file.attrs


def _each(names: list[str], read: Callable[[str], Any], library: str) -> dict[str, Any]:
    found = {}
    for name in names:
        try:
            with _unsupported(library):
                found[name] = read(name)
        except Unsupported as error:
            found[name] = error
    return found


@contextmanager
def _unsupported(library: str) -> Iterator[None]:
    try:
        yield
    except _CANNOT_READ as error:
        why = f"{library} cannot read it: {error}"
        if _NO_FILTER.search(str(error)) and "hdf5plugin" not in sys.modules:
            why += "; it lacks a decompressor, and pip install hdf5plugin brings more of them"
        raise Unsupported(why) from error
