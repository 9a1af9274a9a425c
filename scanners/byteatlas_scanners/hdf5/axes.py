"""Names of axes that no dimension scale names: what conventions say, as far as it is consistent."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from numcodecs.vlen import VLenUTF8

from byteatlas.model import Dimension, Skipped
from byteatlas_scanners.hdf5.conventions import is_struct_metadata, parse_struct_metadata
from byteatlas_scanners.hdf5.failures import FAILURES, reason_of
from byteatlas_scanners.hdf5.objects import Object, Objects
from byteatlas_scanners.hdf5.values import read_chunks

if TYPE_CHECKING:
    from byteatlas.model import VirtualArray
    from byteatlas.steps import Steps
    from byteatlas_scanners.hdf5.conventions import Fields, NamedAxes
    from byteatlas_scanners.hdf5.netcdf4 import GroupDimensions

__all__ = ["NamesOfAxes", "fill_names", "read_fields"]

NamesOfAxes: TypeAlias = "tuple[str | None, ...]"
"""A name for each axis; None for those that nothing names."""

MAX_METADATA = 2**22
"""Bytes of structural metadata; more than that names nothing."""


def fill_names(
    names: NamesOfAxes,
    shape: tuple[int, ...],
    axes: NamedAxes | None,
    dimensions: GroupDimensions,
) -> NamesOfAxes:
    """Name the axes that have no name yet, and add their dimensions to those of the group.

    A name that means something else here, in a group around this one, or on another axis, is not
    taken; nor is that of a dimension without limit, along which the dataset might have to grow.
    """
    if axes is None:
        return names
    filled = list(names)
    for axis, name in enumerate(axes.names):
        if not name or filled[axis] or name in filled:
            continue
        found = dimensions.find(name)
        if found is None:
            dimensions.own[name] = Dimension(shape[axis])
            dimensions.by_convention.add(name)
        elif found[1] != Dimension(shape[axis]):
            continue
        filled[axis] = name
    return tuple(filled)


def read_fields(objects: Objects) -> Steps[Fields]:
    """Read what the file's structural metadata lists (HDF-EOS5), in one round at most.

    What cannot be read names nothing, and is reported with its dataset.
    """
    link = objects.root.links.get("HDFEOS INFORMATION")
    group = objects.by_address.get(-1 if link is None or link.address is None else link.address)
    if group is None:
        return {}
    parts: list[tuple[int, Object, VirtualArray]] = []
    for name, member in group.links.items():
        item = objects.by_address.get(-1 if member.address is None else member.address)
        if is_struct_metadata(f"/HDFEOS INFORMATION/{name}") and item and item.array:
            parts.append((int(name.rpartition(".")[2]), item, item.array))
    texts: list[str] = []
    room = MAX_METADATA
    for _, item, array in sorted(parts, key=lambda part: part[0]):
        room -= max(array.nbytes, sum(map(len, array.manifest.inline.values())))
        if room < 0 or array.shape not in ((), (1,)):
            return {}
        try:
            texts.append((yield from _read_text(array)))
        except FAILURES as error:
            item.skipped.append(Skipped(f"{item.path}@DimList", reason_of(error, item.offset)))
            return {}
    return parse_struct_metadata("".join(texts))


def _read_text(array: VirtualArray) -> Steps[str]:
    """Read an array that is one text, of fixed or variable length."""
    if array.dtype.hasobject:
        (data,) = array.manifest.inline.values() or [b""]
        return str(VLenUTF8().decode(data)[0]) if data else ""
    if array.dtype.kind != "S":
        return ""
    chunks = yield from read_chunks(array.manifest, array.encodings, array.nbytes)
    data = chunks.get(0, b"")
    return data.partition(b"\0")[0].decode("utf-8", "replace")
