"""NeXus: the axes of a plottable group, NXdata.

NeXus manual, "Associating plottable data" and NXdata: the group's attributes ``signal``,
``auxiliary_signals``, ``axes`` and ``AXISNAME_indices``; before 2014 the attributes ``signal`` and
``axes`` of the field itself, or ``axis`` and ``primary`` of the fields of axes.
"""

from __future__ import annotations

import re

from byteatlas_scanners.hdf5.conventions.view import GroupView, Member, Names, integers, text, texts

__all__ = ["nexus"]


def nexus(group: GroupView) -> dict[str, Names]:
    """Name the axes of the signal, and of all that the group plots with it."""
    if text(group.attrs.get("NX_class")) not in ("NXdata", "NXdetector", "NXmonitor"):
        return {}
    signal = _signal_of(group)
    if signal is None:
        return {}
    shape = group.members[signal].shape
    axes = _axes_of(group, signal)
    names = tuple(_fitting(group, name, extent) for name, extent in zip(axes, shape, strict=True))
    result = {}
    for name, member in group.members.items():
        indices = integers(group.attrs.get(f"{name}_indices"))
        if name == signal or member.shape == shape:
            result[name] = names
        elif name in names and member.shape == (shape[names.index(name)],):
            result[name] = (name,)
        elif len(indices) == len(member.shape) and all(0 <= one < len(shape) for one in indices):
            result[name] = tuple(
                names[one] if shape[one] == extent else None
                for one, extent in zip(indices, member.shape, strict=True)
            )
    return result


def _signal_of(group: GroupView) -> str | None:
    """Return the name of the default signal."""
    name = text(group.attrs.get("signal"))
    if not name:
        marked = (
            name
            for name, member in group.members.items()
            if str(member.attrs.get("signal", "")).strip() == "1"
        )
        name = next(marked, "data" if "data" in group.members else "")
    return name if name in group.members and group.members[name].shape else None


def _axes_of(group: GroupView, signal: str) -> list[str | None]:
    """Return the name of the axis along each dimension of the signal."""
    member = group.members[signal]
    rank = len(member.shape)
    found: list[str | None] = [None] * rank
    for listed in (_listed(group.attrs.get("axes")), _listed(member.attrs.get("axes"))):
        if len(listed) == rank and not any(found):
            found = [None if name == "." else name for name in listed]
    _fill_in(found, [(name, _indices(group, name)) for name in _candidates(group)])
    numbered = [(name, _number(one)) for name, one in group.members.items() if one is not member]
    _fill_in(found, numbered)
    return found


def _listed(value: object) -> list[str]:
    """Split a list of axes: several texts, or one with colons or commas, perhaps in brackets."""
    found = texts(value)
    if len(found) == 1:
        found = re.split("[:,]", found[0].strip().strip("[]"))
    return [name.strip() for name in found]


def _candidates(group: GroupView) -> list[str]:
    """Return the names that may stand for a dimension, those of the group's list first."""
    names = [*_listed(group.attrs.get("axes")), *group.members]
    return [name for name in dict.fromkeys(names) if f"{name}_indices" in group.attrs]


def _indices(group: GroupView, name: str) -> int | None:
    """Return the only dimension that an axis is for."""
    found = integers(group.attrs.get(f"{name}_indices"))
    return found[0] if len(found) == 1 else None


def _number(member: Member) -> int | None:
    """Return the dimension of an axis that is marked by its own attributes, counted from 1."""
    number = str(member.attrs.get("axis", "")).strip()
    primary = str(member.attrs.get("primary", "1")).strip()
    if len(member.shape) != 1 or primary != "1" or not re.fullmatch("[1-9][0-9]?", number):
        return None
    return int(number) - 1


def _fill_in(found: list[str | None], places: list[tuple[str, int | None]]) -> None:
    for name, place in places:
        if place is not None and 0 <= place < len(found) and found[place] is None:
            found[place] = name


def _fitting(group: GroupView, name: str | None, extent: int) -> str | None:
    """Return a name if its field fits: one value per element, or one more, the edges of bins."""
    if name is None or name not in group.members:
        return name
    return name if group.members[name].shape in ((extent,), (extent + 1,)) else None
