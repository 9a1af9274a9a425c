"""Read a document of kerchunk's reference specification, versions 0 and 1.

Any version is brought to one form first, a mapping of keys to references; then the Zarr metadata
is taken out of it, and what remains must be chunks of the arrays described there. References
become columns with C-level loops over the parsed JSON (`map`, `compress`, `fromiter`): no Python
statement runs per chunk.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import compress
from operator import methodcaller
from typing import Any

from byteatlas.errors import ByteatlasError, Malformed, Unsupported
from byteatlas.index import zarr_v2, zarr_v3
from byteatlas.index.attributes import attributes_from_json, dtype_to_json, scalar_to_json
from byteatlas.index.facts import Facts, facts_from_json
from byteatlas.index.json_columns import ReferenceLines
from byteatlas.index.nodes import FILES, Node, inline_bytes, read_nodes
from byteatlas.index.reference_columns import columns_of, find_virtual
from byteatlas.index.source_table import SourceTable
from byteatlas.index.templates import Templates
from byteatlas.index.zarr_v2 import ArrayDescription
from byteatlas.limits import Limits
from byteatlas.model import ChunkManifest, Dimension, VirtualArray, VirtualGroup

__all__ = ["read_document"]

# JSON values are Any throughout: their shape is data, checked where it is read.


def read_document(
    document: Mapping[str, Any],
    url: str | None,
    limits: Limits,
    lines: ReferenceLines | None = None,
) -> VirtualGroup:
    """Return the virtual group that a document holds.

    Parameters
    ----------
    document
        The parsed JSON.
    url
        Where it came from. Relative URLs in it count from there.
    limits
        How much it may hold.
    lines
        References that were taken out of the text before it was parsed.

    Raises
    ------
    Malformed
        It breaks the reference specification or that of Zarr.
    Unsupported
        It holds something that byte ranges cannot express, or a section that is not known.
    Inconsistent
        Chunks are gone that it was written with.
    LimitExceeded
        It holds more than it may.
    """
    refs, templates = _references(document, limits)
    limits.check("keys", len(refs) + (0 if lines is None else len(lines)), "the number of its keys")
    if not set(map(type, refs)) <= {str}:
        raise Malformed("a key of the index is not text")
    extra = document.get("byteatlas") if "version" in document else None
    facts = Facts() if extra is None else facts_from_json(extra)
    nodes = read_nodes(refs, limits)
    sources = SourceTable(facts.sources, url, templates, limits)
    arrays = _ArrayReader(refs, facts, sources, lines, limits).read_all(nodes)
    root = _tree(nodes, arrays, facts, limits)
    return replace(root, sources=tuple(sources.sources), report=facts.report)


def _references(document: Mapping[str, Any], limits: Limits) -> tuple[Mapping[str, Any], Templates]:
    """Return all references by key, and the templates that their URLs may hold."""
    version = document.get("version")
    if version is None:
        if isinstance(document.get("refs"), dict):
            raise Malformed("the index has 'refs' but no 'version'")
        return document, Templates(None, limits)
    if type(version) is not int or version != 1:
        raise Unsupported(f"reference version {version!r:.40} is not known, expected 1")
    unknown = sorted(set(document) - {"version", "templates", "gen", "refs", "byteatlas"})
    if unknown:
        raise Unsupported(f"the index has a section {unknown[0]!r:.80} that is not known")
    refs = document.get("refs", {})
    if not isinstance(refs, dict):
        raise Malformed(f"'refs' is {refs!r:.80}, expected an object")
    templates = Templates(document.get("templates"), limits)
    generated = templates.generate(document.get("gen") or [])
    twice = next(iter(generated.keys() & refs.keys()), None)
    if twice is not None:
        raise Malformed(f"{twice!r:.200} is in 'refs' and in 'gen'")
    # URLs in `refs` are expanded later, each distinct one once; those of 'gen' are already.
    return (refs | generated if generated else refs), templates


@dataclass(frozen=True, slots=True)
class _ArrayReader:
    """Reads the arrays of one index."""

    refs: Mapping[str, Any]
    facts: Facts
    sources: SourceTable
    lines: ReferenceLines | None
    limits: Limits

    def read_all(self, nodes: Mapping[str, Node]) -> dict[str, VirtualArray]:
        """Return every array by path; all keys must belong to one, or be metadata."""
        keys = sorted(self.refs)
        arrays: dict[str, VirtualArray] = {}
        written = [path for path in self.facts.arrays if path in nodes and nodes[path].is_array]
        others = sorted(path for path, node in nodes.items() if node.is_array)
        covered: list[tuple[int, int]] = []
        for path in dict.fromkeys([*written, *others]):
            start, stop = bisect_left(keys, path[1:] + "/"), bisect_left(keys, path[1:] + "0")
            covered.append((start, stop))
            try:
                arrays[path] = self.read(path, nodes[path], keys[start:stop])
            except ByteatlasError as error:
                raise error.at(path=path) from error.__cause__
        _check_covered(keys, covered)
        gone = [path for path in self.facts.arrays if path not in arrays]
        if gone:
            raise Malformed("the index has no metadata of the array", path=gone[0])
        return arrays

    def read(self, path: str, node: Node, keys: list[str]) -> VirtualArray:
        """Return one array, given the keys below its path."""
        if not path:
            raise Unsupported("the root is an array, expected a group")
        if ".zarray" in node.files:
            described = zarr_v2.array_from_metadata(
                path[1:], node.files[".zarray"], node.files.get(".zattrs", {})
            )
        else:
            described = zarr_v3.array_from_metadata(path[1:], node.files["zarr.json"])
        for encoding in described.array.encodings:
            self.limits.check("codecs", len(encoding.codecs), "its chain of codecs")
        manifest = self._manifest(path, described, _chunk_keys(keys, path[1:] + "/"))
        array = replace(described.array, manifest=manifest)
        if path in self.facts.arrays:
            return self.facts.restore_array(path, array, described.attrs, self.limits.attribute)
        return _foreign_array(
            path, array, described, is_v2=".zarray" in node.files, limit=self.limits.attribute
        )

    def _manifest(self, path: str, described: ArrayDescription, keys: list[str]) -> ChunkManifest:
        grid_shape = described.array.manifest.grid_shape
        index = described.keys.parse(keys, grid_shape)
        values = list(map(self.refs.__getitem__, keys))
        is_virtual = find_virtual(keys, values)
        filled = set(self.facts.filled(path))
        inline = {
            chunk: inline_bytes(value, key, self.limits)
            for chunk, value, key in zip(
                index[~is_virtual].tolist(),
                compress(values, ~is_virtual),
                compress(keys, ~is_virtual),
                strict=True,
            )
            if chunk not in filled
        }
        if self.lines is None:
            index = index[is_virtual]
            columns = columns_of(values if is_virtual.all() else list(compress(values, is_virtual)))
        else:
            index, columns = self.lines.columns(described.keys, grid_shape)
        source = self.sources.positions(columns)
        manifest = ChunkManifest.build(
            grid_shape,
            index,
            columns.offset,
            columns.length,
            source=source if source.any() else None,
            inline=inline,
        )
        encoding = self.facts.encoding(path)
        if encoding is not None:
            largest = len(described.array.encodings) - 1
            if encoding.size != index.size or int(encoding.max(initial=0)) > largest:
                raise Malformed("the encoding column does not fit the array")
            manifest = replace(manifest, encoding=encoding)
        digest = self.facts.digest(path)
        if digest is not None:
            if digest.size != index.size:
                raise Malformed("the digest column does not fit the array")
            manifest = replace(manifest, digest=digest)
        self.facts.check_present(path, manifest)
        return manifest


def _chunk_keys(keys: list[str], prefix: str) -> list[str]:
    """Return an array's keys without its metadata, which sorts before and after its chunks."""
    files = {prefix + name for name in FILES}
    start, stop = 0, len(keys)
    while start < stop and keys[start] in files:
        start += 1
    while start < stop and keys[stop - 1] in files:
        stop -= 1
    return keys[start:stop]


def _check_covered(keys: list[str], covered: list[tuple[int, int]]) -> None:
    """Refuse keys outside all arrays that are not the metadata of groups."""
    end = 0
    for start, stop in [*sorted(covered), (len(keys), len(keys))]:
        for key in keys[end:start]:
            if key.rpartition("/")[2] not in FILES:
                raise Malformed(f"{key!r:.200} is neither metadata nor a chunk of an array")
        end = stop


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


def _tree(
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
