"""The extra key of an index file: what the reference format has no word for.

Under the top-level key ``byteatlas``: which sources were scanned and how they looked, by what
scanner, what was left out, how many chunks each array has, and the exact types of attributes.
Nothing in it depends on when or where the index was written.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byteatlas.errors import Inconsistent, Malformed, Unsupported
from byteatlas.index.attributes import (
    attribute_to_json,
    attribute_type,
    attributes_from_json,
    dtype_from_json,
    dtype_to_json,
    scalar_from_json,
    scalar_to_json,
)
from byteatlas.index.opaque import is_opaque, restored_dtype
from byteatlas.model import (
    Attribute,
    ChunkManifest,
    Dimension,
    ScanReport,
    Skipped,
    Source,
    VirtualArray,
    VirtualGroup,
)

__all__ = ["FORMAT", "Facts", "facts_from_json", "facts_to_json", "source_urls"]

DIGEST = "blake2b-64"
"""The one kind of digest that chunks are sealed with."""

FORMAT = 1
"""Version of the extra key. A reader refuses a higher one."""

_ELSEWHERE = ("_FillValue", "_ARRAY_DIMENSIONS")
"""Attributes of arrays that Zarr metadata may hold under another name, or in another form."""

# JSON values are Any throughout: their shape is data, checked where it is read.


def source_urls(sources: Sequence[Source], *, keep_query: bool) -> list[str]:
    """Return the URL of each source as the index spells it, without secrets unless asked.

    Raises
    ------
    Inconsistent
        Two different sources would have the same URL.
    """
    urls = [source.public_url for source in sources]
    if keep_query:
        urls = [url + _query(source.url) for url, source in zip(urls, sources, strict=True)]
    first: dict[str, Source] = {}
    for url, source in zip(urls, sources, strict=True):
        if first.setdefault(url, source) != source:
            raise Inconsistent(
                "two sources differ only in their query strings",
                url=url,
                hint="keep the query strings in the index (keep_query), if they hold no secret",
            )
    return urls


def _query(url: str) -> str:
    is_http = url.partition("://")[0].lower() in ("http", "https")
    return "".join(url.partition("?")[1:]) if is_http else ""


def facts_to_json(
    group: VirtualGroup,
    *,
    keep_query: bool,
    filled: Mapping[str, list[int]],
    partitions: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the extra key of an index file.

    Parameters
    ----------
    group
        The root.
    keep_query
        Whether URLs keep their query strings.
    filled
        By array path: flat indices of chunks that are inlined for other readers' sake, but are
        missing in the source.
    partitions
        By array path: what to say of the partitions, which have the columns of encodings and
        digests; None where references are not kept in partitions.
    """
    report = group.report
    is_sealed = any(array.manifest.digest is not None for _, array in group.walk_arrays())
    urls = source_urls(group.sources, keep_query=keep_query)
    return {
        "format": FORMAT,
        "scanner": {"name": report.scanner, "version": report.version},
        **({"digest": DIGEST} if is_sealed or partitions else {}),
        "sources": [
            _source_to_json(source, url) for source, url in zip(group.sources, urls, strict=True)
        ],
        "groups": {path or "/": _group_to_json(part) for path, part in group.walk()},
        "arrays": {
            path: _array_to_json(array, filled.get(path, []), (partitions or {}).get(path))
            for path, array in group.walk_arrays()
        },
        "skipped": [{"path": path, "reason": reason} for path, reason in report.skipped],
    }


def _source_to_json(source: Source, url: str) -> dict[str, Any]:
    query = {"query": "kept"} if _query(url) else {}
    known = {
        "size": source.size,
        "etag": source.etag,
        "last_modified": source.last_modified,
    }
    return {"url": url, **query, **{k: v for k, v in known.items() if v is not None}}


def _group_to_json(group: VirtualGroup) -> dict[str, Any]:
    entry: dict[str, Any] = {}
    if group.dimensions:
        entry["dimensions"] = {
            name: {"size": size, **({"is_unlimited": True} if is_unlimited else {})}
            for name, (size, is_unlimited) in group.dimensions.items()
        }
    return entry | _types(group.attrs)


def _types(attrs: Mapping[str, Attribute]) -> dict[str, Any]:
    types = {name: attribute_type(value) for name, value in attrs.items()}
    if not any(name in attrs for name in _ELSEWHERE):
        types = {name: kind for name, kind in types.items() if kind is not None}
    return {"types": types} if types else {}


def _array_to_json(
    array: VirtualArray, filled: list[int], partitions: Any = None
) -> dict[str, Any]:
    manifest = array.manifest
    present = manifest.present_count - len(filled)
    entry: dict[str, Any] = {"present": present}
    if present < manifest.cells and partitions is None:
        entry["chunks"] = _chunks_digest(manifest, filled)
    entry |= _types(array.attrs)
    elsewhere = {
        name: attribute_to_json(array.attrs[name]) for name in _ELSEWHERE if name in array.attrs
    }
    if elsewhere:
        entry["attributes"] = elsewhere
    if is_opaque(array.dtype):
        entry["dtype"] = dtype_to_json(array.dtype)
    if array.fill_value is not None:
        entry["fill_value"] = scalar_to_json(array.fill_value)
    if partitions is not None:
        entry["partitions"] = partitions
    if manifest.encoding is not None and partitions is None:
        entry["encoding"] = base64.b64encode(manifest.encoding.tobytes()).decode("ascii")
    if manifest.digest is not None and partitions is None:
        column = manifest.digest.astype("<u8").tobytes()
        entry["digest"] = base64.b64encode(column).decode("ascii")
    if filled:
        entry["filled"] = filled
    if array.notes:
        entry["notes"] = dict(array.notes)
    return entry


def _chunks_digest(manifest: ChunkManifest, filled: Sequence[int] = ()) -> str:
    """Return a digest of which chunks there are: BLAKE2b of 8 bytes over their flat indices."""
    inlined = np.array(sorted(manifest.inline.keys() - set(filled)), "<u8")
    index = np.arange(manifest.virtual_count) if manifest.index is None else manifest.index
    present = np.sort(np.concatenate([index.astype("<u8"), inlined]))
    return blake2b(present.tobytes(), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True)
class Facts:
    """The extra key, as read."""

    sources: tuple[Source, ...] = ()
    report: ScanReport = field(default_factory=ScanReport)
    groups: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    arrays: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    is_sealed: bool = False

    def restore_group(self, path: str, attrs: Mapping[str, Any], limit: int) -> VirtualGroup:
        """Return a group without members, from its path and its attributes as JSON values.

        No attribute may take more than `limit` bytes.
        """
        entry = self.groups.get(path or "/", {})
        dimensions = {
            name: Dimension(
                _whole(_object(value, "dimension").get("size"), "size"),
                value.get("is_unlimited") is True,
            )
            for name, value in _object(entry.get("dimensions", {}), "dimensions").items()
        }
        types = _object(entry.get("types", {}), "types")
        return VirtualGroup(attrs=attributes_from_json(attrs, types, limit), dimensions=dimensions)

    def restore_array(
        self, path: str, array: VirtualArray, attrs: dict[str, Any], limit: int
    ) -> VirtualArray:
        """Return an array of this path with its attributes, fill value and notes as they were.

        No attribute may take more than `limit` bytes.
        """
        entry = self.arrays[path]
        types = _object(entry.get("types", {}), "types")
        elsewhere = _object(entry.get("attributes", {}), "attributes")
        attrs = {**attrs, **elsewhere}
        if elsewhere:  # then the types name every attribute, in the source's order
            attrs = {name: attrs.pop(name) for name in types if name in attrs} | attrs
        fill_value = entry.get("fill_value")
        if "dtype" in entry:
            real = dtype_from_json(entry["dtype"])
            array = replace(array, dtype=restored_dtype(array.dtype, real, path), fill_value=None)
        return replace(
            array,
            attrs=attributes_from_json(attrs, types, limit),
            fill_value=None if fill_value is None else scalar_from_json(fill_value, array.dtype),
            notes=_object(entry.get("notes", {}), "notes"),
        )

    def filled(self, path: str) -> list[int]:
        """Return the flat indices of chunks that are inlined, but missing in the source."""
        filled = self.arrays.get(path, {}).get("filled", [])
        return [_whole(chunk, "filled") for chunk in _list(filled, "filled")]

    def encoding(self, path: str) -> NDArray[np.uint8] | None:
        """Return the encoding column of an array, by virtual chunk in order; None when all 0."""
        entry = self.arrays.get(path, {})
        return _column(entry["encoding"], "encoding", path) if "encoding" in entry else None

    def digest(self, path: str) -> NDArray[np.uint64] | None:
        """Return the digest column of an array, by virtual chunk in order; None: not sealed."""
        entry = self.arrays.get(path, {})
        if "digest" not in entry:
            return None
        if not self.is_sealed:
            raise Malformed("the index does not say which digest its chunks have", path=path)
        data = _column(entry["digest"], "digest", path)
        if data.size % 8:
            raise Malformed("the digest column is not of 8 bytes per chunk", path=path)
        return data.view("<u8").astype(np.uint64)

    def check_present(self, path: str, manifest: ChunkManifest) -> None:
        """Refuse an array that has not the chunks it was written with."""
        entry = self.arrays.get(path)
        if entry is None:
            return
        count, present = manifest.present_count, entry.get("present")
        hint = "the index was cut short or edited; scan the source again"
        if type(present) is not int or present != count:
            problem = f"the index holds {count} chunks, but was written with {present!r:.40}"
            raise Inconsistent(problem, path=path, hint=hint)
        if "chunks" in entry and entry["chunks"] != _chunks_digest(manifest):
            raise Inconsistent("the index holds other chunks than written", path=path, hint=hint)


def facts_from_json(value: Any) -> Facts:
    """Return the extra key as read from JSON.

    Raises
    ------
    Malformed
        A part has not the shape it should have.
    Unsupported
        It was written by a later version.
    """
    whole = _object(value, "byteatlas")
    if _whole(whole.get("format"), "format") != FORMAT:
        raise Unsupported(
            f"the index has format {whole['format']}, this version reads {FORMAT}",
            hint="install a newer byteatlas",
        )
    scanner = _object(whole.get("scanner", {}), "scanner")
    sources = [_source_from_json(item) for item in _list(whole.get("sources", []), "sources")]
    skipped = [
        Skipped(_text(_object(item, "skipped").get("path")), _text(item.get("reason")))
        for item in _list(whole.get("skipped", []), "skipped")
    ]
    report = ScanReport(
        scanner=_text(scanner.get("name", "")),
        version=_text(scanner.get("version", "")),
        skipped=tuple(skipped),
    )
    tables = {
        name: {
            path: _object(item, name) for path, item in _object(whole.get(name, {}), name).items()
        }
        for name in ("groups", "arrays")
    }
    digest = whole.get("digest")
    if digest not in (None, DIGEST):
        raise Unsupported(
            f"the chunks are sealed with {digest!r:.40}, this version knows {DIGEST!r}",
            hint="install a newer byteatlas",
        )
    return Facts(tuple(sources), report, tables["groups"], tables["arrays"], digest is not None)


def _column(text: Any, what: str, path: str) -> NDArray[np.uint8]:
    try:
        return np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
    except (TypeError, ValueError, binascii.Error) as error:
        raise Malformed(f"the {what} column is not base64", path=path) from error


def _source_from_json(value: Any) -> Source:
    entry = _object(value, "source")
    return Source(
        url=_text(entry.get("url")),
        size=None if "size" not in entry else _whole(entry["size"], "size"),
        etag=None if "etag" not in entry else _text(entry["etag"]),
        last_modified=None if "last_modified" not in entry else _text(entry["last_modified"]),
    )


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Malformed(f"{what!r} is {value!r:.80}, expected an object")
    return value


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise Malformed(f"{what!r} is {value!r:.80}, expected a list")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise Malformed(f"{value!r:.80} should be text")
    return value


def _whole(value: Any, what: str) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise Malformed(f"{what!r} is {value!r:.80}, expected a whole number")
    return value
