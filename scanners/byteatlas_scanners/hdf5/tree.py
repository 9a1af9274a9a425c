"""From the objects of a file to the tree of groups and arrays that a scan returns."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

from byteatlas.errors import Malformed
from byteatlas.model import Dimension, ScanReport, Skipped, VirtualArray, VirtualGroup
from byteatlas.steps import chase
from byteatlas_scanners.hdf5.dataset import fill_value_of
from byteatlas_scanners.hdf5.netcdf4 import (
    GroupDimensions,
    default_fill_value,
    extend,
    is_dimension_only,
    is_scale,
    variable_name,
)
from byteatlas_scanners.hdf5.objects import FAILURES, Object, Objects, reason_of
from byteatlas_scanners.hdf5.superblock import read_superblock

if TYPE_CHECKING:
    from byteatlas.scanners import ScanOptions, Window
    from byteatlas.steps import Steps
    from byteatlas_scanners.hdf5.links import Link

__all__ = ["scan"]

MAX_DEPTH = 256
MAX_REPEATED = 50_000
"""Members of groups that are shown again because several links lead to them."""
MAX_SOFT_LINKS = 32
RESERVED = frozenset(["", ".", "..", ".zarray", ".zattrs", ".zgroup", ".zmetadata", "zarr.json"])
"""Names that mean something else in a Zarr store."""


def scan(window: Window, options: ScanOptions) -> Steps[VirtualGroup]:
    """Scan an HDF5 or netCDF-4 file.

    Rounds: one for each step of the longest chain of structures from the superblock to a chunk,
    whatever the number of objects; for most files those of the deepest chunk index.

    Raises
    ------
    Malformed
        The superblock or the root group cannot be read.
    Unsupported
        The file is of a kind that this scanner refuses as a whole.
    """
    try:
        file, root = yield from read_superblock(window)
    except (struct.error, IndexError, OverflowError) as error:
        raise Malformed(f"superblock: damaged ({error})", offset=0) from error
    objects = Objects(file, options)
    yield from chase([objects.at_once(objects.visit(root, ""))])
    top = objects.by_address[root]
    if not top.is_group:
        raise Malformed(top.reason or "the root group's header is none of a group")
    tree = _Tree(objects, options)
    group = tree.group("", top, None, frozenset())
    tree.grow_dimensions(group)
    result = tree.build(group)
    return replace(result, report=ScanReport(scanner="hdf5", skipped=tuple(tree.skipped)))


_Names: TypeAlias = "tuple[str | None, ...]"
"""A name for each axis; None for those that no scale names."""


@dataclass(slots=True)
class _Variable:
    name: str
    item: Object
    shape: tuple[int, ...]
    dimensions: tuple[str, ...] = ()


@dataclass(slots=True)
class _Group:
    path: str
    item: Object
    dimensions: GroupDimensions
    extents: list[tuple[_Names, tuple[int, ...]]] = field(default_factory=list)
    """Names and sizes of the axes of all its datasets."""
    variables: list[_Variable] = field(default_factory=list)
    groups: dict[str, _Group] = field(default_factory=dict)


class _Tree:
    """Assembles groups; what is left out is listed in `skipped`."""

    def __init__(self, objects: Objects, options: ScanOptions) -> None:
        self.objects = objects
        self.options = options
        self.skipped: list[Skipped] = []
        self._shown: set[int] = set()
        self._repeated = 0
        self._next_phony = 0

    def skip(self, path: str, reason: str) -> None:
        self.skipped.append(Skipped(path or "/", reason))

    def group(
        self, path: str, item: Object, parent: GroupDimensions | None, above: frozenset[int]
    ) -> _Group:
        """Collect a group's members and dimensions, and those of the groups in it."""
        here = _Group(path, item, GroupDimensions(parent))
        if item.reason:
            self.skip(path, item.reason)
        above |= {item.address}
        members = self._members_of(path, item)
        for name, member in members:
            if is_scale(member):
                here.dimensions.add_scale(variable_name(name), member)
        self._name_axes(here, members)
        for name, member in members:
            if not member.is_group:
                continue
            below = f"{path}/{name}"
            if member.address in above:
                self.skip(below, "a link back to a group that it is in")
            elif len(above) >= MAX_DEPTH:
                self.skip(below, f"groups nested more than {MAX_DEPTH} deep")
            elif self._is_repeated_too_often(member):
                self.skip(below, "one more link to a group; too much would be shown repeatedly")
            else:
                here.groups[name] = self.group(below, member, here.dimensions, above)
        return here

    def _is_repeated_too_often(self, group: Object) -> bool:
        if group.address in self._shown:
            self._repeated += 1 + len(group.links)
        self._shown.add(group.address)
        return self._repeated > MAX_REPEATED

    def _members_of(self, path: str, item: Object) -> list[tuple[str, Object]]:
        members = []
        # As the library lists them: by creation where that is tracked, else by name.
        for link in sorted(item.links.values(), key=lambda link: (link.order, link.name)):
            target = f"{path}/{link.name}"
            if link.name in RESERVED or "/" in link.name or "\0" in link.name:
                self.skip(target, f"{link.name!r} cannot be a name in a Zarr store")
                continue
            found = self._follow(item, link)
            if found is None:
                what = link.elsewhere or f"a soft link to {link.target!r}"
                why = "which is not followed" if link.elsewhere else "which leads nowhere"
                self.skip(target, f"{what}, {why}")
            else:
                members.append((link.name, found))
        return members

    def _follow(self, group: Object, link: Link) -> Object | None:
        """Return the object a link leads to, through soft links too; None where there is none."""
        here, step, path, hops = group, link, list[str](), 0
        while True:
            if step.address is not None:
                found = self.objects.by_address.get(step.address)
                if found is None:
                    return None
                here = found
            elif step.target is None or hops == MAX_SOFT_LINKS:
                return None
            else:
                hops += 1
                if step.target.startswith("/"):
                    here = self.objects.root
                path += [part for part in step.target.split("/")[::-1] if part not in ("", ".")]
            if not path:
                return here
            name = path.pop()
            if name not in here.links:
                return None
            step = here.links[name]

    def _name_axes(self, here: _Group, members: list[tuple[str, Object]]) -> None:
        """Name the axes of a group's datasets: by their scales, and by phony names."""
        nameless: list[tuple[int, ...]] = []
        arrays: list[tuple[int, ...]] = []
        waiting: list[tuple[_Variable, _Names]] = []
        taken = {name for name, item in members if not is_dimension_only(item)}
        for name, item in members:
            path = f"{here.path}/{name}"
            if item.is_group:
                continue
            is_wanted = not is_dimension_only(item) and self.options.wants(path)
            if item.array is None and item.reason and is_wanted:
                self.skip(path, item.reason)
            if item.dataspace is None:
                continue
            # Names and sizes follow from all datasets, those too that are not shown.
            shape = item.array.shape if item.array else item.dataspace.shape
            names = _scale_names(item, shape, here.dimensions)
            here.extents.append((names, shape))
            if not all(names[: len(item.dataspace.shape)]):
                nameless.append(item.dataspace.shape)
            if item.array is None or not is_wanted:
                continue
            plain = variable_name(name)
            variable = _Variable(name if plain in taken else plain, item, shape)
            here.variables.append(variable)
            waiting.append((variable, names))
            if not all(names):
                arrays.append(shape)  # with the axes of an array datatype, named last
        for shapes in (nameless, arrays):
            self._next_phony = here.dimensions.add_phony(shapes, self._next_phony)
        for variable, names in waiting:
            sizes = [n for n, name in zip(variable.shape, names, strict=True) if not name]
            phony = iter(here.dimensions.phony_names(sizes, {name for name in names if name}))
            variable.dimensions = tuple(name or next(phony) for name in names)

    def grow_dimensions(self, group: _Group) -> None:
        """Give unlimited dimensions the largest extent that any variable has along them."""
        for names, shape in group.extents:
            for name, size in zip(names, shape, strict=True):
                found = group.dimensions.find(name or "")
                if name and found and found[1].is_unlimited and size > found[1].size:
                    found[0].own[name] = Dimension(size, is_unlimited=True)
        for child in group.groups.values():
            self.grow_dimensions(child)

    def build(self, group: _Group) -> VirtualGroup:
        """Make the group, its arrays and the groups in it."""
        self.skipped += _notes(group.path, group.item)
        arrays: dict[str, VirtualArray] = {}
        for variable in group.variables:
            path = f"{group.path}/{variable.name}"
            self.skipped += _notes(path, variable.item)
            try:
                arrays[variable.name] = _array(variable, group.dimensions)
            except FAILURES as error:
                self.skip(path, reason_of(error))
        return VirtualGroup(
            attrs=group.item.attrs,
            dimensions=group.dimensions.own,
            arrays=arrays,
            groups={name: self.build(child) for name, child in group.groups.items()},
        )


def _notes(path: str, item: Object) -> list[Skipped]:
    """Return the attributes of an object that were left out, under the path it has here."""
    return [Skipped(path + note.path[len(item.path) :], note.reason) for note in item.skipped]


def _scale_names(item: Object, shape: tuple[int, ...], dimensions: GroupDimensions) -> _Names:
    """Name the axes that scales name."""
    rank = len(shape)
    if is_scale(item):
        numbers = item.bookkeeping.get("_Netcdf4Coordinates", ())
        names = [dimensions.numbered_name(number) for number in numbers]
        if len(names) != rank or not all(names):
            names = [dimensions.scale_name(item.address), *([None] * (rank - 1))][:rank]
    else:
        scales = item.bookkeeping.get("DIMENSION_LIST", ())
        # Of several scales on one axis the last names it, as in netCDF-C.
        names = [dimensions.scale_name(axis[-1]) if axis else None for axis in scales]
        names = [*names, *([None] * rank)][:rank]
    for axis, (name, size) in enumerate(zip(names, shape, strict=True)):
        found = dimensions.find(name) if name else None
        if found is None or not (found[1].size == size or found[1].is_unlimited):
            names[axis] = None
    return tuple(names)


def _array(variable: _Variable, dimensions: GroupDimensions) -> VirtualArray:
    item = variable.item
    array = item.array
    assert array is not None
    shape = tuple(
        found[1].size if (found := dimensions.find(name)) and found[1].is_unlimited else size
        for name, size in zip(variable.dimensions, variable.shape, strict=True)
    )
    if shape != array.shape:
        assert item.dataset is not None
        is_filled, fill_value = item.dataset.fill.is_written, array.fill_value
        if not is_filled:
            fill_value = default_fill_value(array.dtype)
        elif fill_value is None:
            fill_value = fill_value_of(item.dataset)
        array = extend(array, shape, fill_value, fills_chunks=is_filled)
    return replace(array, dimensions=variable.dimensions, attrs=item.attrs)
