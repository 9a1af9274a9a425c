"""A group as conventions see it: attributes, and the shapes of what is in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from byteatlas.model import Attribute

__all__ = ["Fields", "GroupView", "Member", "Names", "first_axis", "integers", "text", "texts"]

Names: TypeAlias = "tuple[str | None, ...]"
"""A name for each axis; None for those that the convention does not name."""

Fields: TypeAlias = "Mapping[str, tuple[tuple[str, int | None], ...]]"
"""Paths of datasets to the names and sizes of their axes, as a table in the file lists them; the
size is None where the table does not say, or lets it grow."""


EXACT = 2.0**53
"""Integers below it are exact as floats."""


class Member(NamedTuple):
    """A dataset in a group."""

    shape: tuple[int, ...]
    attrs: Mapping[str, Attribute]


@dataclass(frozen=True, slots=True)
class GroupView:
    """One group of the file."""

    path: str
    """Such as "/a/b"; "" for the root."""
    attrs: Mapping[str, Attribute]
    members: Mapping[str, Member]
    """The datasets in it, by name."""
    parent: GroupView | None
    attrs_of: Callable[[str], Mapping[str, Attribute] | None]
    """Returns the attributes of a group in it, by name; None where there is none."""
    fields: Fields
    """What the file's structural metadata lists, if it has any."""

    @property
    def name(self) -> str:
        """Name of the group; "" for the root."""
        return self.path.rpartition("/")[2]

    def labelled(self, attribute: str) -> list[tuple[str, Member]]:
        """Return the datasets that have an attribute, with their names."""
        return [item for item in self.members.items() if attribute in item[1].attrs]


def first_axis(name: str, member: Member) -> Names:
    """Name the first axis of a dataset alone."""
    return (name, *([None] * (len(member.shape) - 1)))


def text(value: object) -> str:
    """Return an attribute that is one text, or "" for anything else."""
    return value if isinstance(value, str) else ""


def texts(value: object) -> list[str]:
    """Return an attribute that is one text or several; none for anything else."""
    if isinstance(value, str):
        return [value]
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def integers(value: object) -> list[int]:
    """Return an attribute of one integer or several; none for anything else."""
    found = np.ravel(value) if isinstance(value, np.generic | np.ndarray) else np.empty(0)
    if found.dtype.kind == "f" and ((np.abs(found) < EXACT) & (found == np.rint(found))).all():
        found = found.astype(np.int64)
    return [int(one) for one in found.tolist()] if found.dtype.kind in "iu" else []
