"""What external links lead to, as members of the group that the links are in."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from byteatlas.model import Dimension, Skipped, VirtualArray, VirtualGroup
from byteatlas_scanners.hdf5.dataspace import Dataspace
from byteatlas_scanners.hdf5.objects import Object

if TYPE_CHECKING:
    from collections.abc import Iterator

    from byteatlas.scanners import Found
    from byteatlas_scanners.hdf5.paths import Outside

__all__ = ["linked", "linked_dataset", "linked_group", "skipped_below"]

_PHONY = re.compile(r"phony_dim_(\d+)")


def linked(answer: Found, goal: Outside) -> VirtualGroup | VirtualArray | str:
    """Return what a link leads to, or the reason why it cannot be shown."""
    if answer.reason:
        return answer.reason
    try:
        found = answer.group[goal.path]
    except KeyError:
        skipped = dict(answer.group.report.skipped)
        return skipped.get(goal.path, "which leads nowhere in that file")
    if isinstance(found, VirtualGroup) and not goal.path.strip("/"):
        return found
    if isinstance(found, VirtualArray):
        return found
    return replace(found, dimensions=_with_inherited(answer.group, found))


def _with_inherited(root: VirtualGroup, group: VirtualGroup) -> dict[str, Dimension]:
    """Return a group's dimensions, and those that it uses of the groups above it."""
    known = {name for _, one in group.walk() for name in one.dimensions}
    unlimited = {name for _, one in root.walk() for name, dim in one.dimensions.items() if dim[1]}
    found = dict(group.dimensions)
    for _, array in group.walk_arrays():
        for name, size in zip(array.dimensions, array.shape, strict=True):
            if name not in known:
                found[name] = Dimension(size, name in unlimited)
    return found


def linked_dataset(path: str, number: int, array: VirtualArray) -> Object:
    """Return a dataset of another file as an object of this one.

    Its axes are nameless: the names that they have there may mean something else here.
    """
    return Object(
        -2 - number,  # no address in this file
        path,
        attrs=dict(array.attrs),
        dataspace=Dataspace(array.shape, array.shape),
        array=array,
    )


def linked_group(
    group: VirtualGroup, path: str, next_phony: int, wants: Callable[[str], bool]
) -> tuple[VirtualGroup, int]:
    """Return a group of another file as one of this, and how many phony dimensions it has.

    Parameters
    ----------
    path : where it is shown.
    next_phony : number of its first phony dimension.
    wants : tells which arrays are shown, by their paths here.
    """
    numbers = [
        int(found[1])
        for name in _names(group)
        if (found := _PHONY.fullmatch(name)) and len(found[1]) < 10
    ]
    place = {f"phony_dim_{old}": new for new, old in enumerate(sorted(set(numbers)), next_phony)}
    names = {old: f"phony_dim_{new}" for old, new in place.items()}
    return _shown(group, path, names, wants), len(names)


def _names(group: VirtualGroup) -> Iterator[str]:
    for _, one in group.walk():
        yield from one.dimensions
        for array in one.arrays.values():
            yield from array.dimensions


def _shown(
    group: VirtualGroup, path: str, names: dict[str, str], wants: Callable[[str], bool]
) -> VirtualGroup:
    return VirtualGroup(
        attrs=group.attrs,
        dimensions={names.get(name, name): one for name, one in group.dimensions.items()},
        arrays={
            name: replace(
                array, dimensions=tuple(names.get(axis, axis) for axis in array.dimensions)
            )
            for name, array in group.arrays.items()
            if wants(f"{path}/{name}")
        },
        groups={
            name: _shown(child, f"{path}/{name}", names, wants)
            for name, child in group.groups.items()
        },
    )


def skipped_below(answer: Found, goal: Outside, path: str) -> list[Skipped]:
    """Return what another file's scan left out of what a link leads to, by its path here."""
    top = "/" + goal.path.strip("/") if goal.path.strip("/") else ""
    return [
        Skipped(path + one.path[len(top) :], one.reason)
        for one in answer.group.report.skipped
        if one.path.startswith((f"{top}/", f"{top}@"))
    ]
