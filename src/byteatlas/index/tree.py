"""From the metadata in an index to its groups and arrays, whatever its references are kept in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from operator import methodcaller

from byteatlas.errors import Malformed, Unsupported
from byteatlas.index import zarr_v2, zarr_v3
from byteatlas.index.attributes import attributes_from_json, dtype_to_json, scalar_to_json
from byteatlas.index.facts import Facts
from byteatlas.index.nodes import Node
from byteatlas.index.zarr_v2 import ArrayDescription
from byteatlas.limits import Limits
from byteatlas.model import ChunkManifest, Dimension, VirtualArray, VirtualGroup

__all__ = ["array_paths", "built_array", "described_array", "tree_of"]


def array_paths(nodes: Mapping[str, Node], facts: Facts) -> list[str]:
    """Return the paths of all arrays: first those written by byteatlas, in the source's order.

    Raises
    ------
    Malformed
        The extra key tells of an array that has no metadata.
    """
    gone = next((p for p in facts.arrays if p not in nodes or not nodes[p].is_array), None)
    if gone is not None:
        raise Malformed("the index has no metadata of the array", path=gone)
    others = sorted(path for path, node in nodes.items() if node.is_array)
    return list(dict.fromkeys([*facts.arrays, *others]))


def described_array(path: str, node: Node, limits: Limits) -> ArrayDescription:
    """Return what the metadata of an array says.

    Raises
    ------
    Malformed, Unsupported
        It breaks Zarr's specification, or holds what is not supported.
    LimitExceeded
        It has more codecs than it may.
    """
    if not path:
        raise Unsupported("the root is an array, expected a group")
    if ".zarray" in node.files:
        described = zarr_v2.array_from_metadata(
            path[1:], node.files[".zarray"], node.files.get(".zattrs", {})
        )
    else:
        described = zarr_v3.array_from_metadata(path[1:], node.files["zarr.json"])
    for encoding in described.array.encodings:
        limits.check("codecs", len(encoding.codecs), "its chain of codecs")
    return described


def built_array(
    path: str,
    node: Node,
    described: ArrayDescription,
    manifest: ChunkManifest,
    facts: Facts,
    limits: Limits,
) -> VirtualArray:
    """Return an array with its chunks, and with attributes and fill value as they were."""
    array = replace(described.array, manifest=manifest)
    if path in facts.arrays:
        return facts.restore_array(path, array, described.attrs, limits.attribute)
    return _foreign_array(
        path, array, described, is_v2=".zarray" in node.files, limit=limits.attribute
    )


def _foreign_array(
    path: str, array: VirtualArray, described: ArrayDescription, *, is_v2: bool, limit: int
) -> VirtualArray:
    """Return an array of an index that carries no facts, read as xarray reads it."""
    attrs = dict(described.attrs)
    if is_v2 and array.fill_value is not None:
        attrs["_FillValue"] = scalar_to_json(array.fill_value)
    types = {"_FillValue": dtype_to_json(array.dtype)} if array.dtype.kind != "O" else {}
    try:
        typed = attributes_from_json(attrs, types, limit)
    except Malformed:  # an attribute of that name that is no value of the array
        typed = attributes_from_json(attrs, {}, limit)
    name = path.rpartition("/")[2]
    names = tuple(f"{name}_dim_{axis}" for axis in range(len(array.shape)))
    return replace(array, attrs=typed, dimensions=array.dimensions or names)


def tree_of(
    nodes: Mapping[str, Node], arrays: Mapping[str, VirtualArray], facts: Facts, limits: Limits
) -> VirtualGroup:
    """Return the root of the groups and arrays, members in the order they were written in."""
    paths: dict[str, None] = dict.fromkeys(
        "" if path == "/" else path for path in facts.groups if path == "/" or path in nodes
    )
    paths |= dict.fromkeys(sorted(path for path, node in nodes.items() if not node.is_array))
    for path in [*paths, *arrays]:  # groups that only their members tell of
        parent = path
        while parent:
            parent = parent.rpartition("/")[0]
            paths.setdefault(parent)
    members: dict[str, dict[str, VirtualArray]] = {path: {} for path in paths}
    for path, array in arrays.items():
        parent, _, name = path.rpartition("/")
        members[parent][name] = array
    children: dict[str, dict[str, VirtualGroup]] = {path: {} for path in paths}
    group = VirtualGroup()
    for path in sorted(paths, key=methodcaller("count", "/"), reverse=True):
        node = nodes.get(path, Node({}))
        group = _group(path, node, members[path], children[path], facts, limits)
        parent, _, name = path.rpartition("/")
        if path:
            children[parent][name] = group
    return group


def _group(
    path: str,
    node: Node,
    arrays: dict[str, VirtualArray],
    groups: dict[str, VirtualGroup],
    facts: Facts,
    limits: Limits,
) -> VirtualGroup:
    version = node.files.get(".zgroup", {"zarr_format": 2}).get("zarr_format")
    if version != 2:
        raise Unsupported(f"zarr_format is {version!r:.40}, expected 2", path=path)
    attrs = node.files.get(".zattrs", node.files.get("zarr.json", {}).get("attributes", {}))
    if not isinstance(attrs, dict):
        raise Malformed(f"attributes are {attrs!r:.80}, expected an object", path=path)
    group = facts.restore_group(path, attrs, limits.attribute)
    if (path or "/") not in facts.groups:
        dimensions: dict[str, Dimension] = {}
        for array in arrays.values():
            for name, size in zip(array.dimensions, array.shape, strict=False):  # or no names
                dimensions.setdefault(name, Dimension(size))
        group = replace(group, dimensions=dimensions)
    return replace(group, arrays=arrays, groups=groups)
