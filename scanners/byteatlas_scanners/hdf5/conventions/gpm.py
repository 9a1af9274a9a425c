"""GPM: products of the Global Precipitation Measurement mission."""

from __future__ import annotations

from byteatlas_scanners.hdf5.conventions.view import GroupView, Names, text

__all__ = ["gpm"]


def gpm(group: GroupView) -> dict[str, Names]:
    """Name axes as the products of GPM do (Precipitation Processing System: DimensionNames)."""
    found: dict[str, Names] = {}
    for name, member in group.labelled("DimensionNames"):
        listed = text(member.attrs["DimensionNames"]).split(",")
        found[name] = tuple(one.strip() or None for one in listed)
    return found
