"""HDF5 dimension labels: names of axes beside, or instead of, dimension scales."""

from __future__ import annotations

from byteatlas_scanners.hdf5.conventions.view import GroupView, Names, texts

__all__ = ["dimension_labels"]


def dimension_labels(group: GroupView) -> dict[str, Names]:
    """Name axes by their labels (HDF5 Dimension Scale Specification, 3.1: DIMENSION_LABELS)."""
    found: dict[str, Names] = {}
    for name, member in group.labelled("DIMENSION_LABELS"):
        found[name] = tuple(label or None for label in texts(member.attrs["DIMENSION_LABELS"]))
    return found
