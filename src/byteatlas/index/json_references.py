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
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from byteatlas.errors import ByteatlasError, Malformed, Unsupported
from byteatlas.index.chunk_keys import ChunkKeys
from byteatlas.index.facts import Facts, facts_from_json
from byteatlas.index.nodes import FILES, Node, inline_bytes, read_nodes
from byteatlas.index.reference_columns import ReferenceColumns, columns_of, find_virtual, joined
from byteatlas.index.source_table import SourceTable
from byteatlas.index.templates import Templates
from byteatlas.index.tree import array_paths, built_array, described_array, tree_of
from byteatlas.index.zarr_v2 import ArrayDescription
from byteatlas.limits import Limits
from byteatlas.model import ChunkManifest, VirtualArray, VirtualGroup

__all__ = ["read_document"]

# JSON values are Any throughout: their shape is data, checked where it is read.


class TakenReferences(Protocol):
    """References that were taken out of the text before it was parsed."""

    def __len__(self) -> int: ...

    def columns(
        self, keys: ChunkKeys, grid_shape: tuple[int, ...]
    ) -> tuple[NDArray[np.uint64], ReferenceColumns]:
        """Return the flat chunk indices (C order) and the references of one array."""


def read_document(
    document: Mapping[str, Any],
    url: str | None,
    limits: Limits,
    lines: TakenReferences | None = None,
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
    root = tree_of(nodes, arrays, facts, limits)
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
    lines: TakenReferences | None
    limits: Limits

    def read_all(self, nodes: Mapping[str, Node]) -> dict[str, VirtualArray]:
        """Return every array by path; all keys must belong to one, or be metadata."""
        keys = sorted(self.refs)
        arrays: dict[str, VirtualArray] = {}
        covered: list[tuple[int, int]] = []
        for path in array_paths(nodes, self.facts):
            start, stop = bisect_left(keys, path[1:] + "/"), bisect_left(keys, path[1:] + "0")
            covered.append((start, stop))
            try:
                arrays[path] = self.read(path, nodes[path], keys[start:stop])
            except ByteatlasError as error:
                raise error.at(path=path) from error.__cause__
        _check_covered(keys, covered)
        return arrays

    def read(self, path: str, node: Node, keys: list[str]) -> VirtualArray:
        """Return one array, given the keys below its path."""
        described = described_array(path, node, self.limits)
        manifest = self._manifest(path, described, _chunk_keys(keys, path[1:] + "/"))
        return built_array(path, node, described, manifest, self.facts, self.limits)

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
        index = index[is_virtual]
        columns = columns_of(values if is_virtual.all() else list(compress(values, is_virtual)))
        if self.lines is not None:
            more, others = self.lines.columns(described.keys, grid_shape)
            index, columns = np.concatenate([index, more]), joined(columns, others)
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
