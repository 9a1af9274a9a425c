"""`byteatlas info`: what a source or an index holds, in the words of `ncdump -h`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import click
import numpy as np

from byteatlas import display
from byteatlas.cli.options import opening
from byteatlas.cli.output import ExitCode, Output, shared
from byteatlas.index.attributes import attribute_to_json, attributes_to_json, scalar_to_json
from byteatlas.index.lazy_manifest import with_all_sources
from byteatlas.model import Attribute, VirtualArray, VirtualGroup
from byteatlas.opening import open_group

__all__ = ["command"]


@click.command("info", short_help="Show what a source or an index holds, as ncdump -h does.")
@click.argument("target", metavar="SOURCE|INDEX")
@opening
@shared
def command(
    *, target: str, storage_options: dict[str, Any], allow: tuple[str, ...], output: Output
) -> ExitCode:
    """Show what SOURCE or INDEX holds: dimensions, variables, attributes, as ncdump -h does.

    Each variable also has its chunks: their shape, their codecs, and how many are virtual (byte
    ranges of the source), inlined (kept in the index) or missing (never written).
    """
    group = with_all_sources(open_group(target, storage_options=storage_options, allow=allow))
    output.result(describe(group), lambda: "\n".join(cdl(group, target)))
    return ExitCode.OK


# JSON


def describe(group: VirtualGroup) -> dict[str, Any]:
    """Return everything about a tree but its manifests, as JSON values."""
    report = group.report
    return {
        "sources": [
            {
                "url": source.public_url,
                "size": source.size,
                "etag": source.etag,
                "last_modified": source.last_modified,
            }
            for source in group.sources
        ],
        "scanner": report.scanner,
        "skipped": [skipped._asdict() for skipped in report.skipped],
        **_describe_group(group),
    }


def _describe_group(group: VirtualGroup) -> dict[str, Any]:
    return {
        "dimensions": {
            name: {"size": dimension.size, "is_unlimited": dimension.is_unlimited}
            for name, dimension in group.dimensions.items()
        },
        "arrays": {name: _describe_array(array) for name, array in group.arrays.items()},
        "attrs": attributes_to_json(group.attrs),
        "groups": {name: _describe_group(child) for name, child in group.groups.items()},
    }


def _describe_array(array: VirtualArray) -> dict[str, Any]:
    fill_value = array.fill_value
    if isinstance(fill_value, np.generic):
        fill_value = scalar_to_json(fill_value)
    return {
        "shape": list(array.shape),
        "dtype": display.dtype(array.dtype),
        "dimensions": list(array.dimensions),
        "chunk_shape": list(array.chunk_shape),
        "encodings": [
            [{"id": codec.name, **codec.config} for codec in encoding.codecs]
            for encoding in array.encodings
        ],
        "fill_value": fill_value,
        "notes": dict(array.notes),
        "chunks": display.chunk_kinds(array.manifest),
        "attrs": attributes_to_json(array.attrs),
    }


# CDL, the language of ncdump


def cdl(group: VirtualGroup, target: str) -> Iterator[str]:
    """Yield the lines that `ncdump -h` would print, and comments on the chunks."""
    name = target.partition("?")[0].rstrip("/").rpartition("/")[2]
    yield f"netcdf {name} {{  // {display.summary(group)}"
    yield from _cdl_group(group)
    for path, reason in group.report.skipped:
        yield f"// skipped {path}: {reason}"
    yield "}"


def _cdl_group(group: VirtualGroup, indent: str = "") -> Iterator[str]:
    if group.dimensions:
        yield f"{indent}dimensions:"
    for name, dimension in group.dimensions.items():
        if dimension.is_unlimited:
            yield f"{indent}    {name} = UNLIMITED ;  // ({dimension.size} currently)"
        else:
            yield f"{indent}    {name} = {dimension.size} ;"
    if group.arrays:
        yield f"{indent}variables:"
    for name, array in group.arrays.items():
        yield from (f"{indent}    {line}" for line in _cdl_array(name, array))
    if group.attrs:
        yield f"{indent}// {'group' if indent else 'global'} attributes:"
        yield from (f"{indent}        {line}" for line in _cdl_attributes("", group.attrs))
    for name, child in group.groups.items():
        yield f"{indent}group: {name} {{"
        yield from _cdl_group(child, indent + "  ")
        yield f"{indent}}}  // group {name}"


def _cdl_array(name: str, array: VirtualArray) -> Iterator[str]:
    axes = f"({', '.join(array.dimensions)})" if array.shape else ""
    items = array.notes.get("sequence")
    kind = f"{_cdl_type(np.dtype(items))}(*)" if isinstance(items, str) else _cdl_type(array.dtype)
    yield f"{kind} {name}{axes} ;"
    facts = [
        f"chunks {display.shape(array.chunk_shape)}" if array.shape else "",
        "big-endian" if array.dtype.str[0] == ">" else "",
        display.codecs(array.encodings),
        display.counts(array.manifest),
        display.stored(array.manifest),
    ]
    yield f"    // {'; '.join(filter(None, facts))}"
    for note, value in array.notes.items():
        yield f"    // {note}: {display.attribute(str(value))}"
    yield from (f"    {line}" for line in _cdl_attributes(name, array.attrs))


def _cdl_attributes(owner: str, attrs: Mapping[str, Attribute]) -> Iterator[str]:
    for name, value in attrs.items():
        yield f"{owner}:{name} = {_cdl_value(value)} ;"


_CDL_TYPES = {
    "i1": ("byte", "b"),
    "u1": ("ubyte", "UB"),
    "i2": ("short", "s"),
    "u2": ("ushort", "US"),
    "i4": ("int", ""),
    "u4": ("uint", "U"),
    "i8": ("int64", "LL"),
    "u8": ("uint64", "ULL"),
    "f4": ("float", "f"),
    "f8": ("double", ""),
    "S1": ("char", ""),
    "O": ("string", ""),
}
"""dtype to type name and suffix of constants (netCDF User's Guide, CDL Data Types)."""


def _cdl_type(kind: np.dtype[Any]) -> str:
    return _CDL_TYPES.get(kind.str[1:], (display.dtype(kind), ""))[0]


def _cdl_value(value: Attribute) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return ", ".join(json.dumps(item, ensure_ascii=False) for item in value)
    suffix = _CDL_TYPES.get(value.dtype.str[1:], ("", ""))[1]
    return ", ".join(_cdl_number(item, suffix) for item in np.ravel(value))


def _cdl_number(item: Any, suffix: str) -> str:
    if item.dtype.kind == "f":
        return f"{item!s}{suffix}"
    return f"{item!s}{suffix}" if item.dtype.kind in "iu" else str(attribute_to_json(item))
