"""HDF5 as h5py reads it, for what our own reader refuses; runs in `byteatlas.fallback.child`.

An array is virtual where its chunks are byte ranges, its stored type is a numpy type bit for bit,
its filters have codecs, and all chunks decode to what h5py reads. All others are read, and their
values kept, up to a limit.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from byteatlas.external_links import leads_to_another_file
from byteatlas_scanners.hdf5.by_h5py_arrays import read_array
from byteatlas_scanners.hdf5.by_h5py_attributes import FAILURES, read_attributes, words_of
from byteatlas_scanners.hdf5.netcdf4 import DIMENSION_ONLY, variable_name
from byteatlas_scanners.hdf5.tree import RESERVED

if TYPE_CHECKING:
    from byteatlas.fallback.child import Job, Send

with suppress(ImportError):
    import hdf5plugin  # noqa: F401  # registers its filters

__all__ = ["read"]

MAX_DEPTH = 64


def read(source: io.RawIOBase | io.BytesIO, job: Job, send: Send) -> None:
    """Send each array that the job names, or the whole tree where it names none.

    Items are ``{"path", "array": facts}`` with blobs, ``{"path", "group": facts}`` or
    ``{"path", "reason"}``.
    """
    with h5py.File(source, "r") as file:
        found = _walk(file) if job["paths"] is None else _named(file, job["paths"])
        for path, item, reason in found:
            if reason:
                send({"path": path, "reason": reason})
            elif isinstance(item, h5py.Group):
                attrs, lost = read_attributes(item)
                send({"path": path, "group": attrs, "lost": lost})
            elif isinstance(item, h5py.Dataset):
                try:
                    facts, blobs = read_array(item, job, source)
                except FAILURES as error:
                    send({"path": path, "reason": words_of(error)})
                else:
                    send({"path": path, "array": facts}, *blobs)


def _warm_up() -> None:
    """Read a bit of everything.

    h5py and numpy import parts of theirs when they are first used, and that is too late once no
    file may be opened.
    """
    data = io.BytesIO()
    with h5py.File(data, "w") as file:
        file.create_dataset("axis", data=np.arange(2.0)).make_scale("axis")
        file.create_dataset("field", data=np.zeros(2), chunks=(1,), compression="gzip")
        file["field"].dims[0].attach_scale(file["axis"])
        file["field"].attrs.update({"text": "x", "texts": ["x", "y"], "number": 1})
        file["texts"] = ["x"]
        file["pairs"] = np.zeros(1, [("a", "i2"), ("b", "f8")])
        file["nothing"] = h5py.Empty("f4")
    job: Job = {"paths": None, "size": data.tell(), "max_inline": 99, "max_chunk": 99}
    read(data, job, lambda *_: None)


def _named(file: h5py.File, paths: list[str]) -> Iterator[tuple[str, Any, str]]:
    for path in paths:
        try:
            if leads_to_another_file(file, path):
                continue
            item = file[path]
        except FAILURES as error:
            yield path, None, words_of(error)
        else:
            if isinstance(item, h5py.Group):
                yield from _walk_group(path, item, [])
            else:
                yield path, item, ""


def _walk(file: h5py.File) -> Iterator[tuple[str, Any, str]]:
    return _walk_group("", file["/"], [])


def _walk_group(path: str, group: h5py.Group, above: list[Any]) -> Iterator[tuple[str, Any, str]]:
    """Yield a group and all below it that hard and soft links lead to, parents first."""
    if len(above) > MAX_DEPTH or group in above:
        yield path, None, "a link back to a group that it is in, or groups nested too deep"
        return
    yield path, group, ""
    try:
        names = list(group)
    except FAILURES as error:
        yield path, None, words_of(error)
        return
    for name in names:
        below = f"{path}/{variable_name(name)}"
        try:
            kind = group.id.links.get_info(name.encode("utf-8", "surrogateescape")).type
            if name in RESERVED or kind not in (h5py.h5l.TYPE_HARD, h5py.h5l.TYPE_SOFT):
                yield below, None, "a link that is not followed, or no name for a Zarr store"
                continue
            if kind == h5py.h5l.TYPE_SOFT and leads_to_another_file(
                group.file, f"{group.name}/{name}"
            ):
                yield below, None, "a soft link through an external link, which is not followed"
                continue
            item = group[name]
        except FAILURES as error:
            yield below, None, words_of(error)
            continue
        if isinstance(item, h5py.Group):
            yield from _walk_group(below, item, [*above, group])
        elif isinstance(item, h5py.Dataset) and not _is_only_a_dimension(item):
            yield below, item, ""


def _is_only_a_dimension(dataset: h5py.Dataset) -> bool:
    try:
        name = dataset.attrs.get("NAME", b"")
    except FAILURES:
        return False
    return isinstance(name, bytes) and name.startswith(DIMENSION_ONLY.encode())


_warm_up()
