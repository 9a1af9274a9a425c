"""From what a child process says to arrays and groups. It is trusted as little as a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from typing import Any

import numpy as np

from byteatlas.display import NOTE
from byteatlas.errors import ByteatlasError, Malformed
from byteatlas.fallback.process import Answer
from byteatlas.index.attributes import attribute_from_json, dtype_from_json, scalar_from_json
from byteatlas.model import (
    ChunkManifest,
    Codec,
    Dimension,
    Encoding,
    Skipped,
    VirtualArray,
    VirtualGroup,
)
from byteatlas.scanners import ScanOptions

__all__ = ["completed"]

_NOT_AS_PROMISED = (
    ByteatlasError,
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)
"""What comes of an item that is not what it should be."""
_NO_NAMES = ("", ".", "..", ".zarray", ".zattrs", ".zgroup", ".zmetadata", "zarr.json")
MAX_DEPTH = 256


@dataclass(slots=True)
class _Found:
    """What a child said, sorted by where it belongs."""

    arrays: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By path of the group, by name: the array and the names of its axes."""
    attrs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By path of the group."""
    groups: dict[str, set[str]] = field(default_factory=dict)
    """By path of the group: names of the groups in it."""
    reasons: dict[str, str] = field(default_factory=dict)
    """Why something was not read."""

    def add(self, path: str, facts: dict[str, Any], blobs: list[memoryview], note: str) -> None:
        """Add one item.

        Raises
        ------
        ByteatlasError, LookupError, TypeError, ValueError, AttributeError
            It is not what it should be.
        """
        parts = path.split("/")[1:]
        if len(parts) > MAX_DEPTH or any(part in _NO_NAMES for part in parts):
            raise Malformed(f"{path!r:.80} cannot be a path in a Zarr store")
        name = parts.pop() if "array" in facts else None
        here = ""
        for part in parts:
            self.groups.setdefault(here, set()).add(part)
            here += f"/{part}"
        about = facts["array"] if name else facts
        if name:
            array, names = _array(about, blobs)
            array = replace(array, notes={**array.notes, NOTE: note})
            self.arrays.setdefault(here, {})[name] = (array, names)
        else:
            self.attrs[here] = _attrs(facts["group"])
        for attribute, why in about.get("lost", {}).items():
            self.reasons[f"{path}@{attribute}"] = str(why)


def completed(
    group: VirtualGroup,
    answer: Answer,
    options: ScanOptions,
    wanted: Mapping[str, str],
    name: str,
) -> VirtualGroup:
    """Add what a child found to a group."""
    try:
        title = f"{name} {version(name)}"
    except PackageNotFoundError:
        title = name
    found = _Found()
    seen = {path for path, _ in group.walk_arrays()}
    for facts, blobs in answer.items:
        path = str(facts.get("path"))
        if "reason" in facts:
            found.reasons[path] = str(facts["reason"])
        elif path not in seen and ("group" in facts or options.wants(path)):
            seen.add(path)
            reason = next((wanted[up] for up in _upwards(path) if up in wanted), "")
            try:
                found.add(path, facts, blobs, f"{title} ({reason})")
            except _NOT_AS_PROMISED as error:
                found.reasons[path] = str(error)
    if answer.problem:
        rest = wanted.keys() - seen - found.reasons.keys()
        rest |= {""} & wanted.keys()  # of a whole source it is not known what lacks
        found.reasons |= dict.fromkeys(sorted(rest), answer.problem)
    failed = {path: f"{name}: {why}" for path, why in found.reasons.items()}
    done = seen - failed.keys()
    skipped = [
        Skipped(path, f"{reason}; {failed.pop(path)}" if path in failed else reason)
        for path, reason in group.report.skipped
        if path not in done
    ]
    skipped += [Skipped(path or "/", why) for path, why in failed.items()]
    tree = _placed(group, "", found)
    return replace(tree, report=replace(group.report, skipped=tuple(skipped)))


def _upwards(path: str) -> Iterable[str]:
    """Yield a path and those of the groups above it."""
    while path:
        yield path
        path = path.rpartition("/")[0]
    yield from ("", "/")


def _placed(group: VirtualGroup, here: str, found: _Found) -> VirtualGroup:
    """Return a group with what was found in it and below it."""
    arrays, dimensions = dict(group.arrays), dict(group.dimensions)
    mine = found.arrays.get(here, {})
    for array, names in mine.values():
        for size, given in zip(array.shape, names, strict=True):
            if given:
                dimensions.setdefault(given, Dimension(size))
    for name, (array, names) in mine.items():
        arrays[name] = replace(array, dimensions=_axes(dimensions, array.shape, names))
    below = dict(group.groups)
    for name in sorted(found.groups.get(here, ())):
        below.setdefault(name, VirtualGroup())
    return replace(
        group,
        attrs=found.attrs.get(here, group.attrs),
        arrays=arrays,
        dimensions=dimensions,
        groups={
            name: _placed(child, f"{here}/{name}", found)
            for name, child in below.items()
            if name not in arrays
        },
    )


def _axes(
    dimensions: dict[str, Dimension], shape: tuple[int, ...], names: list[str | None]
) -> tuple[str, ...]:
    """Name the axes of an array, adding to the group's dimensions what it lacks."""
    axes: list[str] = []
    for size, given in zip(shape, names, strict=True):
        name = given
        if not name or dimensions.get(name, Dimension(size)).size != size or name in axes:
            same = (other for other, one in dimensions.items() if one.size == size)
            name = next((other for other in same if other not in axes), None)
        if not name:
            free = (f"phony_dim_{number}" for number in count(len(dimensions)))
            name = next(other for other in free if other not in dimensions)
        dimensions.setdefault(name, Dimension(size))
        axes.append(name)
    return tuple(axes)


def _attrs(facts: Any) -> dict[str, Any]:
    return {str(name): attribute_from_json(*pair) for name, pair in dict(facts).items()}


def _array(facts: Any, blobs: list[memoryview]) -> tuple[VirtualArray, list[str | None]]:
    """Return the array that a child describes, without trusting it."""
    dtype = dtype_from_json(facts["dtype"])
    shape, chunks = (tuple(map(int, facts[key])) for key in ("shape", "chunks"))
    if len(chunks) != len(shape) or any(n < 0 for n in shape) or any(n < 1 for n in chunks):
        raise Malformed(f"shape {shape} in chunks of {chunks}")
    grid = tuple(-(-n // c) for n, c in zip(shape, chunks, strict=True))
    if "columns" in facts:
        index, offset, length = (np.frombuffer(bytes(blob), np.uint64) for blob in blobs)
        manifest = ChunkManifest.build(grid, index, offset, length)
    else:
        data = bytes(blobs[0])
        manifest = ChunkManifest.empty(grid, {0: data} if 0 not in shape else {})
    fill = facts.get("fill")
    array = VirtualArray(
        shape=shape,
        dtype=dtype,
        chunk_shape=chunks,
        manifest=manifest,
        encodings=(Encoding(tuple(Codec(str(n), dict(c)) for n, c in facts["codecs"])),),
        fill_value=None
        if fill is None or not manifest.missing_count
        else scalar_from_json(fill, dtype),
        attrs=_attrs(facts.get("attrs", {})),
        notes={"enum": facts["enum"]} if facts.get("enum") else {},
    )
    names = [None if name is None else str(name) for name in facts["names"]]
    if len(names) != len(shape):
        raise Malformed(f"{len(names)} names of {len(shape)} axes")
    return array, names
