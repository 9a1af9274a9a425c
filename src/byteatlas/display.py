"""How virtual groups and arrays look, as text and as HTML.

Both show the same facts: a tree of groups and arrays with dimensions, type, chunks, codecs and
how many chunks are virtual, inlined or missing; the sources; and what was skipped, with reasons.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from itertools import islice
from typing import Any

import numpy as np

from byteatlas.model import (
    Attribute,
    ChunkManifest,
    Dimension,
    Encoding,
    VirtualArray,
    VirtualGroup,
)

__all__ = [
    "attribute",
    "chunk_kinds",
    "codecs",
    "counts",
    "dimensions",
    "dtype",
    "html",
    "plural",
    "printable",
    "read_by",
    "shape",
    "size",
    "stored",
    "summary",
    "text",
]

NOTE = "read_by"
"""Key of an array's notes: which other library read it, and why ours did not."""
MAX_ENTRIES = 100
"""Arrays, groups, attributes, sources or skipped variables shown in one place."""
MAX_TEXT = 120
"""Characters of an attribute shown."""


def text(item: VirtualGroup | VirtualArray) -> str:
    """Return a group as a tree, or an array as a short table."""
    if isinstance(item, VirtualArray):
        lines = list(_array_lines(item))
    else:
        lines = [f"byteatlas.VirtualGroup  {summary(item)}", *_tree(item), *_notes(item)]
    return "\n".join(map(printable, lines))


def html(item: VirtualGroup | VirtualArray) -> str:
    """Return the same as self-contained HTML, with nothing to load and every text escaped."""
    body = _array_html(item) if isinstance(item, VirtualArray) else _root_html(item)
    return f'<div class="byteatlas">{_STYLE}{body}</div>'


# One fact each


def read_by(group: VirtualGroup) -> dict[str, str]:
    """Return by path which library read an array that our own reader refused, and why it did."""
    notes = ((path, array.notes.get(NOTE)) for path, array in group.walk_arrays())
    return {path: str(note) for path, note in notes if note}


def size(count: float) -> str:
    """Return a number of bytes in words, such as ``"187 kB"``."""
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if count < 999.5 or unit == "PB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if count >= 99.5 or unit == "B" else f"{count:.1f} {unit}"


def shape(sizes: Iterable[int]) -> str:
    """Return a shape such as ``"4x18x36"``, or ``"scalar"``."""
    return "x".join(map(str, sizes)) or "scalar"


def dtype(kind: np.dtype[Any]) -> str:
    """Return the name of a type: ``int16``, ``>f4`` (big-endian), ``string``, ``{x: float64}``."""
    if kind.names and kind.fields:
        return (
            "{" + ", ".join(f"{name}: {dtype(kind.fields[name][0])}" for name in kind.names) + "}"
        )
    if kind.subdtype:
        return f"{dtype(kind.subdtype[0])}[{shape(kind.subdtype[1])}]"
    return "string" if kind.hasobject else str(kind)


def codecs(encodings: tuple[Encoding, ...]) -> str:
    """Return how chunks are encoded, such as ``"shuffle, zlib"``; ``"raw"`` when not at all."""
    chains = [", ".join(codec.name for codec in one.codecs) or "raw" for one in encodings]
    return " | ".join(chains)


def chunk_kinds(*manifests: ChunkManifest) -> dict[str, int]:
    """Return how many chunks are virtual, inlined and missing."""
    return {
        "virtual": sum(manifest.virtual_count for manifest in manifests),
        "inlined": sum(len(manifest.inline) for manifest in manifests),
        "missing": sum(manifest.missing_count for manifest in manifests),
    }


def counts(manifest: ChunkManifest) -> str:
    """Return how many chunks there are of each kind in words, leaving out the zeros."""
    kinds = chunk_kinds(manifest).items()
    return ", ".join(f"{count:,} {kind}" for kind, count in kinds if count) or "no chunks"


def stored(manifest: ChunkManifest) -> str:
    """Return what the virtual chunks take in their sources, or "" when that is not known."""
    known = manifest.length[manifest.length < np.uint64(2**63)]
    if not known.size:
        return ""
    largest = f", largest chunk {size(int(known.max()))}" if known.size > 1 else ""
    return f"{size(int(known.sum()))} in the source{largest}"


def dimensions(array: VirtualArray) -> str:
    """Return the named axes, such as ``"(time 24, lat 36)"``."""
    names = array.dimensions or ("",) * len(array.shape)
    axes = zip(names, array.shape, strict=True)
    return "(" + ", ".join(f"{name} {length}".strip() for name, length in axes) + ")"


def attribute(value: Attribute) -> str:
    """Return an attribute's value on one line, shortened where it is long."""
    if isinstance(value, np.ndarray):
        more = ", …" if value.size > MAX_ENTRIES else ""
        value = "[" + ", ".join(str(v) for v in value.ravel()[:MAX_ENTRIES].tolist()) + more + "]"
    elif isinstance(value, list):
        value = "[" + ", ".join(map(repr, value[:MAX_ENTRIES])) + "]"
    line = " ".join(str(value).split())
    return line if len(line) <= MAX_TEXT else line[: MAX_TEXT - 1] + "…"


def plural(count: int, noun: str) -> str:
    """Return a count with its noun, such as ``"2 rounds"``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def printable(line: str) -> str:
    """Return a line in which nothing can break the line or command a terminal."""
    return line if line.isprintable() else "".join(c if c.isprintable() else "�" for c in line)


def summary(group: VirtualGroup) -> str:
    """Return one line on a whole tree: source, format, arrays, chunks, and what the scan cost."""
    manifests = [array.manifest for _, array in group.walk_arrays()]
    kinds = chunk_kinds(*manifests)
    facts = [
        group.report.scanner,
        f"{plural(len(manifests), 'array')}, {plural(kinds['virtual'], 'virtual chunk')}"
        + (f", {kinds['inlined']:,} inlined" if kinds["inlined"] else ""),
    ]
    if len(group.sources) == 1:
        (source,) = group.sources
        facts.insert(0, source.public_url)
        facts[1] += f", {size(source.size)}" if source.size is not None else ""
    elif group.sources:
        facts.insert(0, plural(len(group.sources), "source"))
    if any(manifest.digest is not None for manifest in manifests):
        facts.append("sealed")
    if group.report.requests:
        facts.append(
            f"scanned in {plural(group.report.rounds, 'round')}, "
            f"{plural(group.report.requests, 'request')}, {size(group.report.bytes_read)}"
        )
    return " · ".join(fact.lstrip(", ") for fact in facts if fact)


def _dimension(name: str, dimension: Dimension) -> str:
    return f"{name} {dimension.size}{' (unlimited)' if dimension.is_unlimited else ''}"


def _some(items: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    return islice(items.items(), MAX_ENTRIES)


def _more(total: int) -> str:
    return f"… and {total - MAX_ENTRIES:,} more" if total > MAX_ENTRIES else ""


# Text


def _tree(group: VirtualGroup, indent: str = "") -> Iterator[str]:
    """Yield the lines below a group. Depth follows the groups, which scanners keep bounded."""
    entries: list[tuple[str, VirtualGroup | None]] = []
    if group.dimensions:
        names = ", ".join(_dimension(name, d) for name, d in _some(group.dimensions))
        entries.append((f"dimensions: {names}", None))
    entries += [(row, None) for row in _rows(dict(_some(group.arrays)))]
    if left := _more(len(group.arrays)):
        entries.append((f"{left} arrays", None))
    if group.attrs:
        names = ", ".join(name for name, _ in _some(group.attrs))
        entries.append((f"attributes: {names}", None))
    entries += [(f"{name}/", child) for name, child in _some(group.groups)]
    if left := _more(len(group.groups)):
        entries.append((f"{left} groups", None))
    for position, (line, child) in enumerate(entries):
        is_last = position == len(entries) - 1
        yield f"{indent}{'└─ ' if is_last else '├─ '}{line}"
        if child is not None:
            yield from _tree(child, indent + ("   " if is_last else "│  "))


def _rows(arrays: Mapping[str, VirtualArray]) -> list[str]:
    """Return one line per array, in columns."""
    table = [(name, *_cells(array)) for name, array in arrays.items()]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]


def _cells(array: VirtualArray) -> tuple[str, str, str, str, str]:
    chunks = f"chunks {shape(array.chunk_shape)}" if array.shape else ""
    names = dimensions(array) if array.shape else ""
    return (
        names,
        dtype(array.dtype),
        chunks,
        codecs(array.encodings),
        counts(array.manifest),
    )


def _notes(group: VirtualGroup) -> Iterator[str]:
    if len(group.sources) > 1:
        yield "sources:"
        for source in group.sources[:MAX_ENTRIES]:
            yield f"   {source.public_url}" + (f"  {size(source.size)}" if source.size else "")
        if left := _more(len(group.sources)):
            yield f"   {left}"
    if others := read_by(group):
        yield "read by another library:"
        for path, note in _some(others):
            yield f"   {path}: {note}"
        if left := _more(len(others)):
            yield f"   {left}"
    if group.report.skipped:
        yield "skipped:"
        for path, reason in group.report.skipped[:MAX_ENTRIES]:
            yield f"   {path}: {reason}"
        if left := _more(len(group.report.skipped)):
            yield f"   {left}"


def _array_lines(array: VirtualArray) -> Iterator[str]:
    yield f"byteatlas.VirtualArray  {dimensions(array)} {dtype(array.dtype)}, {size(array.nbytes)}"
    for name, value in _array_facts(array):
        yield f"   {name:<12}{value}"
    for name, value in _some(array.attrs):
        yield f"   {name}: {attribute(value)}"
    if left := _more(len(array.attrs)):
        yield f"   {left} attributes"


def _array_facts(array: VirtualArray) -> Iterator[tuple[str, str]]:
    yield "chunks", f"{shape(array.chunk_shape)}; {counts(array.manifest)}"
    yield "encoding", codecs(array.encodings)
    if array.fill_value is not None:
        yield "fill value", f"{array.fill_value!s}"
    if lengths := stored(array.manifest):
        yield "stored", lengths
    for name, note in array.notes.items():
        yield name, attribute(str(note))


# HTML


def _root_html(group: VirtualGroup) -> str:
    skipped = ""
    if group.report.skipped:
        rows = "".join(
            f"<tr><td>{escape(path)}</td><td>{escape(reason)}</td></tr>"
            for path, reason in group.report.skipped[:MAX_ENTRIES]
        )
        skipped = _details(
            f"<b>skipped</b> {len(group.report.skipped):,}",
            f"<table>{rows}</table>{_more(len(group.report.skipped))}",
            is_open=True,
            kind="skipped",
        )
    if others := read_by(group):
        rows = "".join(
            f"<tr><td>{escape(path)}</td><td>{escape(note)}</td></tr>"
            for path, note in _some(others)
        )
        skipped += _details(
            f"<b>read by another library</b> {len(others):,}",
            f"<table>{rows}</table>{_more(len(others))}",
        )
    rows = "".join(
        f"<tr><td>{escape(source.public_url)}</td>"
        f"<td>{'' if source.size is None else size(source.size)}</td>"
        f"<td>{escape(source.etag or source.last_modified or '')}</td></tr>"
        for source in group.sources[:MAX_ENTRIES]
    )
    sources = _details(
        f"<b>{plural(len(group.sources), 'source')}</b>",
        f"<table>{rows}</table>{_more(len(group.sources))}",
    )
    title = f"<header><b>byteatlas.VirtualGroup</b> {escape(summary(group))}</header>"
    return title + _group_html(group) + skipped + (sources if group.sources else "")


def _group_html(group: VirtualGroup) -> str:
    parts = []
    if group.dimensions:
        names = ", ".join(_dimension(name, d) for name, d in _some(group.dimensions))
        parts.append(f"<p><b>dimensions</b> {escape(names)}</p>")
    parts += [
        _details(_array_title(name, array), _array_facts_html(array))
        for name, array in _some(group.arrays)
    ]
    if left := _more(len(group.arrays)):
        parts.append(f"<p>{left} arrays</p>")
    if group.attrs:
        parts.append(_details(f"<b>attributes</b> {len(group.attrs)}", _attributes(group.attrs)))
    parts += [
        _details(f"<b>{escape(name)}/</b>", _group_html(child), is_open=True)
        for name, child in _some(group.groups)
    ]
    if left := _more(len(group.groups)):
        parts.append(f"<p>{left} groups</p>")
    return "".join(parts)


def _array_html(array: VirtualArray) -> str:
    title = f"{dimensions(array)} {dtype(array.dtype)}, {size(array.nbytes)}"
    return (
        f"<header><b>byteatlas.VirtualArray</b> {escape(title)}</header>{_array_facts_html(array)}"
    )


def _array_title(name: str, array: VirtualArray) -> str:
    cells = [f"<b>{escape(name)}</b>", *map(escape, _cells(array))]
    return "".join(f"<span>{cell}</span>" for cell in cells) + _bar(array.manifest)


def _bar(manifest: ChunkManifest) -> str:
    """Return a small bar: which parts of the chunks are virtual, inlined, missing."""
    if not manifest.cells:
        return ""
    filled = "".join(
        f'<i class="{kind}" style="width:{math.ceil(100 * count / manifest.cells)}%"></i>'
        for kind, count in chunk_kinds(manifest).items()
        if count and kind != "missing"
    )
    return f'<span class="bar" title="{counts(manifest)}">{filled}</span>'


def _array_facts_html(array: VirtualArray) -> str:
    rows = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>"
        for name, value in _array_facts(array)
    )
    return f"<table>{rows}</table>{_attributes(array.attrs) if array.attrs else ''}"


def _attributes(attrs: Mapping[str, Attribute]) -> str:
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(attribute(value))}</td></tr>"
        for name, value in _some(attrs)
    )
    return f"<table>{rows}</table>{_more(len(attrs))}"


def _details(title: str, body: str, *, is_open: bool = False, kind: str = "") -> str:
    opened = " open" if is_open else ""
    named = f' class="{kind}"' if kind else ""
    return f"<details{named}{opened}><summary>{title}</summary><div>{body}</div></details>"


_STYLE = """<style>
.byteatlas{font:13px/1.5 system-ui,sans-serif;color:inherit;max-width:72em;
 --line:color-mix(in srgb,currentColor 18%,transparent);
 --soft:color-mix(in srgb,currentColor 65%,transparent)}
.byteatlas header{border-bottom:1px solid var(--line);padding:.2em 0 .4em;margin-bottom:.3em;
 overflow-wrap:anywhere}
.byteatlas p{margin:.2em 0 .2em 1em}
.byteatlas summary{cursor:pointer;padding:.1em .2em;border-radius:4px}
.byteatlas summary:hover{background:var(--line)}
.byteatlas summary span{margin-right:1em;color:var(--soft);white-space:nowrap}
.byteatlas summary span:first-child{color:inherit;display:inline-block;min-width:9em}
.byteatlas details>div{margin:.1em 0 .3em .55em;padding-left:1em;border-left:1px solid var(--line)}
.byteatlas table{border-collapse:collapse;margin:.2em 0;font-size:12px;background:none}
.byteatlas td,.byteatlas th{text-align:left;vertical-align:top;padding:.1em 1.2em .1em 0;
 font-weight:normal;border:0;background:none;overflow-wrap:anywhere}
.byteatlas th,.byteatlas td:first-child{color:var(--soft);white-space:nowrap}
.byteatlas .bar{display:inline-flex;width:5em;height:.55em;border:1px solid var(--line);
 border-radius:3px;overflow:hidden;margin:0}
.byteatlas .virtual{background:#2a9d8f}.byteatlas .inlined{background:#e9a23b}
.byteatlas .skipped>summary b{color:#d1495b}
</style>"""
