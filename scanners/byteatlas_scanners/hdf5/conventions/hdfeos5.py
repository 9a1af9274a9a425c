"""HDF-EOS5: the dimensions that StructMetadata lists for the fields of grids, swaths and so on.

HDF-EOS5 Data Model, File Format and Library (ESE-RFC-008), section 5: the datasets
``/HDFEOS INFORMATION/StructMetadata.0``, ``.1`` and so on hold one text in the Object Description
Language. Each field of a grid, swath or zonal average has a ``DimList`` of names, in C order, that
its structure defines under ``Dimension`` (a grid also by ``XDim`` and ``YDim``). Of a point's
levels it lists the fields of records, and names no dimensions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from byteatlas_scanners.hdf5.conventions.view import Fields, GroupView, Names

__all__ = ["hdf_eos5", "is_struct_metadata", "parse_struct_metadata"]

METADATA = re.compile(r"/HDFEOS INFORMATION/StructMetadata\.[0-9]{1,4}")
MAX_DEPTH = 16
"""Of groups and objects in one another; the format has four."""
MAX_RANK = 32

# Groups of the text, where the fields of their structures are, and the key of their names.
STRUCTURES = {
    "GridStructure": ("GRIDS", "GridName"),
    "SwathStructure": ("SWATHS", "SwathName"),
    "ZaStructure": ("ZAS", "ZaName"),
}
# Groups of a structure that list fields, where those are, and the key of their names.
FIELD_GROUPS = {
    "DataField": ("Data Fields", "DataFieldName"),
    "GeoField": ("Geolocation Fields", "GeoFieldName"),
    "ProfileField": ("Profile Fields", "ProfileFieldName"),
}


def is_struct_metadata(path: str) -> bool:
    """Tell whether the dataset at a path is a part of the structural metadata."""
    return METADATA.fullmatch(path) is not None


def hdf_eos5(group: GroupView) -> dict[str, Names]:
    """Name the axes of fields as the structural metadata lists them."""
    found: dict[str, Names] = {}
    for name, member in group.members.items() if group.fields else ():
        axes = group.fields.get(f"{group.path}/{name}", ())
        if len(axes) == len(member.shape):
            found[name] = tuple(
                axis if size in (None, extent) else None
                for (axis, size), extent in zip(axes, member.shape, strict=True)
            )
    return found


@dataclass(slots=True)
class _Structure:
    """A grid, swath or zonal average while its lines are read."""

    folder: str
    name_key: str
    name: str = ""
    sizes: dict[str, int | None] = field(default_factory=dict)
    fields: list[tuple[str, str, list[str]]] = field(default_factory=list)
    """Folder, name and dimensions of each."""


def parse_struct_metadata(text: str) -> Fields:
    """Return the paths of all fields with the names and sizes of their dimensions.

    Whatever does not follow the language is passed over: it names nothing. Time and memory are
    those of the text.
    """
    result: dict[str, tuple[tuple[str, int | None], ...]] = {}
    stack: list[str] = []
    structure: _Structure | None = None
    facts: dict[str, str] = {}
    """Assignments of the innermost object."""
    for key, value in _assignments(text):
        if key in ("GROUP", "OBJECT"):
            if len(stack) == MAX_DEPTH:
                return result
            if len(stack) == 1 and stack[0] in STRUCTURES:
                structure = _Structure(*STRUCTURES[stack[0]])
            stack.append(value)
            facts = {}
        elif key in ("END_GROUP", "END_OBJECT"):
            if structure and key == "END_OBJECT" and len(stack) == 4:
                _finish_object(structure, stack[2], facts)
            if stack:
                stack.pop()
            if structure and len(stack) == 1:
                result.update(_paths_of(structure))
                structure = None
            facts = {}
        elif structure and len(stack) == 2:  # the structure's own lines
            _finish_line(structure, key, value)
        else:
            facts[key] = value
    return result


def _assignments(text: str) -> Iterator[tuple[str, str]]:
    """Yield keys and values line by line; a list in brackets may go on over several lines."""
    waiting: list[str] = []
    for line in map(str.strip, text.split("\n")):
        if waiting:
            if "=" not in line:
                waiting.append(line)
                if ")" in line:
                    key, _, value = "".join(waiting).partition("=")
                    yield key.strip(), value.strip()
                    waiting = []
                continue
            waiting = []  # the list was never closed
        key, equals, value = (part.strip() for part in line.partition("="))
        if value.startswith("(") and ")" not in value:
            waiting = [line]
        elif equals:
            yield key, value


def _finish_line(structure: _Structure, key: str, value: str) -> None:
    if key == structure.name_key:
        structure.name = value.strip('"')
    elif key in ("XDim", "YDim"):
        structure.sizes[key] = _size(value)


def _finish_object(structure: _Structure, group: str, facts: dict[str, str]) -> None:
    if group == "Dimension":
        name = facts.get("DimensionName", "").strip('"')
        structure.sizes[name] = _size(facts.get("Size", ""))
    elif group in FIELD_GROUPS:
        folder, key = FIELD_GROUPS[group]
        dimensions = re.findall(r'"([^"]*)"', facts.get("DimList", ""))
        name = facts.get(key, "").strip('"')
        if name and 0 < len(dimensions) <= MAX_RANK:
            structure.fields.append((folder, name, dimensions))


def _size(value: str) -> int | None:
    """Return a size, or None for one that is not fixed (0 or -1) or is no number."""
    return int(value) if re.fullmatch(r"[1-9][0-9]{0,18}", value) else None


def _paths_of(structure: _Structure) -> Iterator[tuple[str, tuple[tuple[str, int | None], ...]]]:
    for folder, name, dimensions in structure.fields:
        path = f"/HDFEOS/{structure.folder}/{structure.name}/{folder}/{name}"
        yield path, tuple((axis, structure.sizes.get(axis)) for axis in dimensions)
