"""openPMD: particle and mesh data of simulations."""

from __future__ import annotations

from byteatlas_scanners.hdf5.conventions.view import GroupView, Names, text, texts

__all__ = ["openpmd"]


def openpmd(group: GroupView) -> dict[str, Names]:
    """Name the axes of meshes (openPMD standard 1.1.0, "Mesh Based Records": axisLabels).

    A record of one component is a dataset with the attribute; of several, a group of datasets.
    """
    found: dict[str, Names] = {}
    if "axisLabels" in group.attrs:
        records = [(name, member, group.attrs) for name, member in group.members.items()]
    else:
        labelled = group.labelled("axisLabels")
        records = [(name, member, member.attrs) for name, member in labelled]
    for name, member, attrs in records:
        labels = texts(attrs["axisLabels"])
        if len(labels) == 1 and len(labels[0]) == len(member.shape):
            labels = list(labels[0])  # some writers give "zyx" as one text
        if "geometry" not in attrs:
            continue
        is_reversed = text(attrs.get("dataOrder")) == "F"
        found[name] = tuple(label or None for label in (labels[::-1] if is_reversed else labels))
    return found
