"""From the objects of a file to the tree of groups and arrays that a scan returns."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from byteatlas.errors import Malformed
from byteatlas.model import Dimension, ScanReport, Skipped, VirtualArray, VirtualGroup
from byteatlas.scanners import asking
from byteatlas.steps import chase
from byteatlas_scanners.hdf5.axes import fill_names, read_fields
from byteatlas_scanners.hdf5.cache_image import read_cache_image, with_image
from byteatlas_scanners.hdf5.conventions import GroupView, Member, names_of
from byteatlas_scanners.hdf5.dataset import fill_value_of
from byteatlas_scanners.hdf5.failures import FAILURES, reason_of
from byteatlas_scanners.hdf5.linked import (
    linked,
    linked_dataset,
    linked_group,
    skipped_below,
)
from byteatlas_scanners.hdf5.netcdf4 import (
    GroupDimensions,
    default_fill_value,
    extend,
    is_dimension_only,
    is_scale,
    variable_name,
)
from byteatlas_scanners.hdf5.object_header import parse_structure
from byteatlas_scanners.hdf5.objects import MAX_DEPTH, Object, Objects
from byteatlas_scanners.hdf5.pages import LARGEST_PAGE, LEAST_PAGE, by_pages
from byteatlas_scanners.hdf5.paths import Outside, follow
from byteatlas_scanners.hdf5.references import resolve_references
from byteatlas_scanners.hdf5.resolving import exact_group, follow_links, resolve
from byteatlas_scanners.hdf5.superblock import find_signature, read_superblock

if TYPE_CHECKING:
    from byteatlas.scanners import Dialogue, Found, Scanned, ScanOptions, Window
    from byteatlas.steps import Steps
    from byteatlas_scanners.hdf5.axes import NamesOfAxes
    from byteatlas_scanners.hdf5.conventions import Fields, NamedAxes
    from byteatlas_scanners.hdf5.links import Link

__all__ = ["RESERVED", "scan"]

MAX_REPEATED = 50_000
"""Members of groups that are shown again because several links lead to them."""
RESERVED = frozenset(["", ".", "..", ".zarray", ".zattrs", ".zgroup", ".zmetadata", "zarr.json"])
"""Names that mean something else in a Zarr store."""
NOTE = "dimensions_from"
"""Key of an array's notes: the convention that names its axes."""


def scan(window: Window, options: ScanOptions) -> Steps[Scanned]:
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
    start = find_signature(window.head) or 0
    file, root = yield from parse_structure(read_superblock(window), "superblock", start)
    image = None
    if file.cache_image:
        image = yield from read_cache_image(file, *file.cache_image)
        file = replace(file, head=image.put_into(0, file.head))
    objects = Objects(file, options)
    walk = chase([objects.at_once(objects.visit(root, ""))])
    if LEAST_PAGE <= file.page_size <= LARGEST_PAGE and len(file.head) < file.size:
        walk = by_pages(walk, file)
    yield from with_image(walk, image) if image else walk
    resolve_references(objects)
    top = objects.by_address[root]
    if not top.is_group:
        raise top.failure or Malformed(
            "the root group's header is none of a group", offset=top.offset
        )
    fields: Fields = {}
    if options.conventions:
        fields = yield from read_fields(objects)
    return asking(_completed(objects, options, fields, top))


def _completed(
    objects: Objects, options: ScanOptions, fields: Fields, top: Object
) -> Dialogue[VirtualGroup]:
    """Complete what refers to other files, and assemble the tree."""
    if options.exactly:
        sources = yield from resolve(objects, options.exactly)
        return exact_group(sources, options.exactly)
    yield from resolve(objects)
    links: dict[Outside, Found] = {}
    if options.follow_links and options.opens_others:
        links = yield from follow_links(objects)
    tree = _Tree(objects, options, fields, links)
    group = tree.group("", top, None, frozenset())
    tree.grow_dimensions(group)
    result = tree.build(group)
    return replace(result, report=ScanReport(scanner="hdf5", skipped=tuple(tree.skipped)))


@dataclass(slots=True)
class _Variable:
    name: str
    item: Object
    shape: tuple[int, ...]
    convention: str = ""
    """What names axes that scales do not, if anything does."""
    dimensions: tuple[str, ...] = ()


@dataclass(slots=True)
class _Group:
    path: str
    item: Object
    dimensions: GroupDimensions
    view: GroupView
    extents: list[tuple[NamesOfAxes, tuple[int, ...]]] = field(default_factory=list)
    """Names and sizes of the axes of all its datasets."""
    variables: list[_Variable] = field(default_factory=list)
    groups: dict[str, _Group] = field(default_factory=dict)


class _Tree:
    """Assembles groups; what is left out is listed in `skipped`."""

    def __init__(
        self,
        objects: Objects,
        options: ScanOptions,
        fields: Fields,
        links: dict[Outside, Found],
    ) -> None:
        self.objects = objects
        self.options = options
        self.fields = fields
        self.links = links
        self._linked: dict[str, dict[str, VirtualGroup]] = {}
        self._linked_datasets = 0
        self.skipped: list[Skipped] = []
        self._shown: set[int] = set()
        self._repeated = 0
        self._next_phony = 0

    def skip(self, path: str, reason: str) -> None:
        self.skipped.append(Skipped(path or "/", reason))

    def group(
        self, path: str, item: Object, parent: _Group | None, above: frozenset[int]
    ) -> _Group:
        """Collect a group's members and dimensions, and those of the groups in it."""
        if item.reason:
            self.skip(path, item.reason)
        above |= {item.address}
        members = self._members_of(path, item)
        dimensions = GroupDimensions(parent.dimensions if parent else None)
        here = _Group(path, item, dimensions, self._view(path, item, parent, members))
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
                here.groups[name] = self.group(below, member, here, above)
        return here

    def _view(
        self, path: str, item: Object, parent: _Group | None, members: list[tuple[str, Object]]
    ) -> GroupView:
        groups = {name: member for name, member in members if member.is_group}
        return GroupView(
            path=path,
            attrs=item.attrs,
            members={
                name: Member(member.dataspace.shape, member.attrs)
                for name, member in members
                if member.dataspace and not member.dataspace.is_null
            },
            parent=parent.view if parent else None,
            attrs_of=lambda name: groups[name].attrs if name in groups else None,
            fields=self.fields,
        )

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
            found = follow(self.objects, item, link)
            if isinstance(found, Outside):
                found = self._outside(path, link, found)
            elif found is None:
                what = link.elsewhere or f"a soft link to {link.target!r}"
                if link.address is not None:
                    what = f"a link to byte {self.objects.file.base + link.address}"
                why = "which is not followed" if link.elsewhere else "which leads nowhere"
                self.skip(target, f"{what}, {why}")
            if found is not None:
                members.append((link.name, found))
        return members

    def _outside(self, path: str, link: Link, goal: Outside) -> Object | None:
        """Return a dataset of another file; a group is kept until all is named."""
        target = f"{path}/{link.name}"
        what = link.elsewhere or f"a soft link to {link.target!r}, through an external link"
        answer = self.links.get(goal)
        if answer is None:
            self.skip(target, f"{what}, which is not followed")
            return None
        found = linked(answer, goal)
        if isinstance(found, str):
            self.skip(target, f"{what}, {found}")
            return None
        self.skipped += skipped_below(answer, goal, target)
        if isinstance(found, VirtualGroup):
            self._linked.setdefault(path, {})[link.name] = found
            return None
        self._linked_datasets += 1
        return linked_dataset(target, self._linked_datasets, found)

    def _name_axes(self, here: _Group, members: list[tuple[str, Object]]) -> None:
        """Name the axes of a group's datasets: by their scales, and by phony names."""
        nameless: list[tuple[int, ...]] = []
        arrays: list[tuple[int, ...]] = []
        waiting: list[tuple[_Variable, NamesOfAxes]] = []
        taken = {name for name, item in members if not is_dimension_only(item)}
        found: dict[str, NamedAxes] | None = None
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
            rank = len(item.dataspace.shape)
            names = by_scales = _scale_names(item, shape, here.dimensions)
            if self.options.conventions and not all(names[:rank]):
                found = names_of(here.view) if found is None else found
                names = fill_names(names, shape, found.get(name), here.dimensions)
            here.extents.append((names, shape))
            if not all(names[:rank]):
                nameless.append(_sizes_to_name(names[:rank], by_scales, shape))
            if item.array is None or not is_wanted:
                continue
            plain = variable_name(name)
            variable = _Variable(name if plain in taken else plain, item, shape)
            if names != by_scales and found:
                variable.convention = found[name].convention
            here.variables.append(variable)
            waiting.append((variable, names))
            if not all(names):  # with the axes of an array datatype, named last
                arrays.append(_sizes_to_name(names, by_scales, shape))
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
                self.skip(path, reason_of(error, variable.item.offset))
        return VirtualGroup(
            attrs=group.item.attrs,
            dimensions=group.dimensions.own,
            arrays=arrays,
            groups={
                **{name: self.build(child) for name, child in group.groups.items()},
                **self._groups_of_others(group.path),
            },
        )

    def _groups_of_others(self, path: str) -> dict[str, VirtualGroup]:
        """Return the groups of other files that links in a group lead to."""
        found = {}
        for name, group in self._linked.get(path, {}).items():
            found[name], count = linked_group(
                group, f"{path}/{name}", self._next_phony, self.options.wants
            )
            self._next_phony += count
        return found


def _notes(path: str, item: Object) -> list[Skipped]:
    """Return the attributes of an object that were left out, under the path it has here."""
    return [Skipped(path + note.path[len(item.path) :], note.reason) for note in item.skipped]


def _sizes_to_name(
    names: NamesOfAxes, by_scales: NamesOfAxes, shape: tuple[int, ...]
) -> tuple[int, ...]:
    """Return the sizes of axes that have no name, or that of a scale, which may be used again."""
    axes = zip(names, by_scales, shape, strict=False)
    return tuple(size for name, scale, size in axes if scale or not name)


def _scale_names(item: Object, shape: tuple[int, ...], dimensions: GroupDimensions) -> NamesOfAxes:
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
    notes = {**array.notes, NOTE: variable.convention} if variable.convention else array.notes
    return replace(array, dimensions=variable.dimensions, attrs=item.attrs, notes=notes)
