"""`byteatlas where`: from an element to the bytes that hold it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from byteatlas.cli.options import find_array, opening
from byteatlas.cli.output import ExitCode, Output, shared
from byteatlas.model import WHOLE, VirtualArray, VirtualGroup
from byteatlas.opening import open_group

__all__ = ["command"]


@click.command(
    "where",
    short_help="Tell where the bytes of a variable are.",
    context_settings={"ignore_unknown_options": True},  # so that -1 is a number
)
@click.argument("target", metavar="INDEX|SOURCE")
@click.argument("variable")
@click.argument("indices", nargs=-1, type=int)
@opening
@shared
def command(
    *,
    target: str,
    variable: str,
    indices: tuple[int, ...],
    storage_options: dict[str, Any],
    allow: tuple[str, ...],
    output: Output,
) -> ExitCode:
    """Tell where the bytes of VARIABLE are: URL, offset, length, codecs.

    With INDICES (one number per dimension, negative ones count from the end), of the chunk that
    holds this element; without, of every chunk that is not missing.

    \b
    byteatlas where sst.json /sst 0 -1 200
    """  # noqa: D301  # \b: click keeps these lines apart
    group = open_group(target, storage_options=storage_options, allow=allow)
    array = find_array(group, variable)
    if indices or not array.shape:
        rows = [locate(group, array, indices)]
    else:
        rows = list(locate_all(group, array))
    facts = {"variable": variable, "chunk_shape": list(array.chunk_shape), "chunks": rows}
    output.result(facts, lambda: "\n".join(map(_line, rows)))
    return ExitCode.OK


def locate(group: VirtualGroup, array: VirtualArray, indices: tuple[int, ...]) -> dict[str, Any]:
    """Return where the chunk is that holds one element."""
    if len(indices) != len(array.shape):
        raise click.UsageError(f"{len(array.shape)} indices expected, {len(indices)} given")
    element = []
    for axis, (index, length) in enumerate(zip(indices, array.shape, strict=True)):
        if not -length <= index < length:
            raise click.UsageError(f"index {index} is outside axis {axis} of {length} elements")
        element.append(index % length)
    chunk = [i // size for i, size in zip(element, array.chunk_shape, strict=True)]
    within = [i % size for i, size in zip(element, array.chunk_shape, strict=True)]
    manifest = array.manifest
    flat = int(np.ravel_multi_index(chunk, manifest.grid_shape)) if chunk else 0
    row = int(manifest.rows(np.array([flat]))[0])
    if row >= 0:
        (facts,) = _virtual(group, array, slice(row, row + 1))
    elif flat in manifest.inline:
        facts = _inlined(array, flat)
    else:
        facts = {"kind": "missing", "fill_value": str(array.fill_value)}
    return {"chunk": chunk, "within": within, **facts}


def locate_all(group: VirtualGroup, array: VirtualArray) -> Iterator[dict[str, Any]]:
    """Yield where each chunk is, virtual ones first."""
    manifest = array.manifest
    flat = np.arange(manifest.virtual_count) if manifest.index is None else manifest.index
    virtual = _virtual(group, array, slice(None))
    for chunk, facts in zip(_chunk_indices(array, flat), virtual, strict=True):
        yield {"chunk": chunk, **facts}
    inline = sorted(manifest.inline)
    for chunk, index in zip(_chunk_indices(array, np.array(inline)), inline, strict=True):
        yield {"chunk": chunk, **_inlined(array, index)}


def _chunk_indices(array: VirtualArray, flat: NDArray[Any]) -> list[list[int]]:
    if not array.shape:
        return [[]] * flat.size
    indices = np.unravel_index(flat.astype(np.intp), array.manifest.grid_shape)
    rows: list[list[int]] = np.stack(indices, axis=1).tolist()
    return rows


def _virtual(group: VirtualGroup, array: VirtualArray, rows: slice) -> Iterator[dict[str, Any]]:
    """Yield where the chunks of some rows of the manifest are."""
    manifest = array.manifest
    offset, length = manifest.offset[rows].tolist(), manifest.length[rows].tolist()
    source = [0] * len(offset) if manifest.source is None else manifest.source[rows].tolist()
    encoding = [0] * len(offset) if manifest.encoding is None else manifest.encoding[rows].tolist()
    urls = [source.public_url for source in group.sources]
    codecs = [_codecs(array, position) for position in range(len(array.encodings))]
    for at, count, origin, by in zip(offset, length, source, encoding, strict=True):
        if count == WHOLE:
            size = group.sources[origin].size
            count = None if size is None else size - at  # noqa: PLW2901  # that is what it means
        yield {
            "kind": "virtual",
            "url": urls[origin],
            "offset": at,
            "length": count,
            "codecs": codecs[by],
        }


def _inlined(array: VirtualArray, index: int) -> dict[str, Any]:
    length = len(array.manifest.inline[index])
    return {"kind": "inlined", "length": length, "codecs": _codecs(array, 0)}


def _codecs(array: VirtualArray, position: int) -> list[dict[str, Any]]:
    return [{"id": codec.name, **codec.config} for codec in array.encodings[position].codecs]


def _line(row: dict[str, Any]) -> str:
    chunk = ".".join(map(str, row["chunk"])) or "scalar"
    codecs = ", ".join(codec["id"] for codec in row.get("codecs", ())) or "raw"
    within = f"  element {row['within']}" if row.get("within") else ""
    if row["kind"] == "missing":
        return f"{chunk}  missing: every element is {row['fill_value']}"
    place = f"{row['url']}  offset {row['offset']}" if row["kind"] == "virtual" else "inlined"
    return f"{chunk}  {place}  length {row['length']}  {codecs}{within}"
