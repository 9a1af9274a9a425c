"""References to objects become the paths of these, once all objects of a file are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from byteatlas.errors import Unsupported
from byteatlas_scanners.hdf5.failures import FAILURES, reason_of
from byteatlas_scanners.hdf5.objects import Object, Objects
from byteatlas_scanners.hdf5.values import encode_strings

__all__ = ["resolve_references"]


def resolve_references(objects: Objects) -> None:
    """Make paths of the references in attributes and datasets; none refers to an empty path."""
    for item in objects.by_address.values():
        for name, addresses in item.references.items():
            try:
                paths = _paths_of(objects, addresses)
                item.attrs[name] = paths[0] if len(paths) == 1 else paths
            except FAILURES as error:
                del item.attrs[name]
                item.leave_out(name, error)
        dataset = item.dataset
        if item.array is not None and dataset is not None and dataset.datatype.is_reference:
            _resolve_values(objects, item)


def _resolve_values(objects: Objects, item: Object) -> None:
    """Make the text of paths of a dataset's references."""
    array = item.array
    assert array is not None
    raw = np.frombuffer(array.manifest.inline.get(0, b""), f"<u{objects.file.offset_size}")
    try:
        data = encode_strings([path.encode() for path in _paths_of(objects, raw.tolist())])
    except FAILURES as error:
        item.array, item.reason = None, reason_of(error, item.offset)
        return
    inline = {0: data} if array.manifest.inline else {}
    item.array = replace(array, manifest=replace(array.manifest, inline=inline))


def _paths_of(objects: Objects, addresses: list[int]) -> list[str]:
    path_of = {address: _path_of(objects, address) for address in set(addresses)}
    paths = [path_of[address] for address in addresses]
    most = objects.options.max_inline
    if sum(map(len, paths)) > most:
        raise Unsupported(
            f"references whose paths take more than {most} bytes", hint="raise max_inline"
        )
    return paths


def _path_of(objects: Objects, address: int) -> str:
    if address in (0, objects.file.undefined):
        return ""
    found = objects.by_address.get(address)
    if found is None:
        where = objects.file.base + address
        raise Unsupported("a reference to an object that no link leads to", offset=where)
    return found.path or "/"
