"""The conventions that are known, and the one that names the axes of each dataset."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from byteatlas_scanners.hdf5.conventions.anndata import anndata
from byteatlas_scanners.hdf5.conventions.gpm import gpm
from byteatlas_scanners.hdf5.conventions.hdfeos5 import hdf_eos5
from byteatlas_scanners.hdf5.conventions.labels import dimension_labels
from byteatlas_scanners.hdf5.conventions.loom import loom
from byteatlas_scanners.hdf5.conventions.nexus import nexus
from byteatlas_scanners.hdf5.conventions.nwb import nwb
from byteatlas_scanners.hdf5.conventions.odim import odim
from byteatlas_scanners.hdf5.conventions.openpmd import openpmd
from byteatlas_scanners.hdf5.conventions.pandas_store import pandas_store
from byteatlas_scanners.hdf5.conventions.view import GroupView, Names

__all__ = ["CONVENTIONS", "NamedAxes", "names_of"]

CONVENTIONS: dict[str, Callable[[GroupView], dict[str, Names]]] = {
    "HDF5 dimension labels": dimension_labels,
    "HDF-EOS5": hdf_eos5,
    "GPM": gpm,
    "NeXus": nexus,
    "openPMD": openpmd,
    "ODIM": odim,
    "pandas": pandas_store,
    "AnnData": anndata,
    "loom": loom,
    "NWB": nwb,
}
"""Each gives names to axes of a group's datasets; of several the first is heard."""


UNUSABLE = re.compile("[/\\0]|^phony_dim_")


class NamedAxes(NamedTuple):
    """Names of one dataset's axes."""

    names: Names
    convention: str
    """What names them, a key of `CONVENTIONS`."""


def names_of(group: GroupView) -> dict[str, NamedAxes]:
    """Ask all conventions for the names of axes of a group's datasets.

    What could not be a dimension's name is left out: one that stands for two sizes in the group,
    one that a dataset has on two axes, that of a dataset without axes (no array library takes
    both), names with a slash or a null byte, and those that are made up for axes without a name.
    """
    found: dict[str, NamedAxes] = {}
    for convention, name_axes in CONVENTIONS.items():
        for name, names in name_axes(group).items():
            member = group.members.get(name)
            if member is None or len(names) != len(member.shape):
                continue  # another number of axes than the convention has in mind
            if any(names) and name not in found:
                found[name] = NamedAxes(names, convention)
    bad = {name for name, member in group.members.items() if not member.shape}
    sizes: dict[str, int] = {}
    for name, axes in found.items():
        for axis, size in zip(axes.names, group.members[name].shape, strict=True):
            if axis and sizes.setdefault(axis, size) != size:
                bad.add(axis)
    return {
        name: axes._replace(names=_possible(axes.names, bad))
        for name, axes in found.items()
        if any(_possible(axes.names, bad))
    }


def _possible(names: Names, bad: set[str]) -> Names:
    return tuple(
        name
        if name and name not in bad and names.count(name) == 1 and not UNUSABLE.search(name)
        else None
        for name in names
    )
