"""ODIM: weather radar data of EUMETNET OPERA.

OPERA Data Information Model for HDF5 2.3, section 4.3: the group ``where``, of the data's own
group or of one around it, gives the extents of the arrays named ``data``: rays and bins of polar
data, rows and columns of Cartesian images, levels of profiles.
"""

from __future__ import annotations

import re

from byteatlas_scanners.hdf5.conventions.view import GroupView, Names, integers, text

__all__ = ["odim"]

EXTENTS = (
    (("nrays", "nbins"), ("nrays", "nbins")),
    (("ysize", "xsize"), ("y", "x")),
    (("levels",), ("levels",)),
)
"""Attributes of ``where`` with the extents of the axes, slowest first, and the axes' names."""


def odim(group: GroupView) -> dict[str, Names]:
    """Name the axes of ``data`` whose extents are those that ``where`` gives."""
    if "data" not in group.members or not re.fullmatch("(data|quality|dataset)[0-9]*", group.name):
        return {}
    root = group
    while root.parent is not None:
        root = root.parent
    if not text(root.attrs.get("Conventions")).startswith("ODIM_H5"):
        return {}
    shape = group.members["data"].shape
    here: GroupView | None = group
    while here is not None:
        where = here.attrs_of("where") or {}
        for attributes, names in EXTENTS:
            if tuple(integers(where.get(name)) for name in attributes) == tuple(
                [extent] for extent in shape
            ):
                return {"data": names}
        here = here.parent
    return {}
