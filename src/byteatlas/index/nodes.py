"""The Zarr metadata in an index: of which groups and arrays it has, by path."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from itertools import compress
from operator import methodcaller
from typing import Any, NamedTuple

from byteatlas.errors import Malformed, Unsupported
from byteatlas.index.json_document import is_unicode, parse_document
from byteatlas.limits import Limits

__all__ = ["FILES", "Node", "inline_bytes", "read_nodes"]

FILES = (".zarray", ".zattrs", ".zgroup", ".zmetadata", "zarr.json")
"""Last parts of the keys of metadata."""

_BASE64 = b"base64:"

MAX_DEPTH = 256
"""Groups nest no deeper."""

# JSON values are Any throughout: their shape is data, checked where it is read.


class Node(NamedTuple):
    """The metadata files of one group or array."""

    files: dict[str, dict[str, Any]]

    @property
    def is_array(self) -> bool:
        """Whether it is an array."""
        return (
            ".zarray" in self.files or self.files.get("zarr.json", {}).get("node_type") == "array"
        )


def read_nodes(refs: Mapping[str, Any], limits: Limits) -> dict[str, Node]:
    """Return the metadata in the references: path ("" for the root, else "/a/b") to its files."""
    nodes: dict[str, Node] = {}
    for key in compress(refs, map(methodcaller("endswith", FILES), refs)):
        parent, _, name = f"/{key}".rpartition("/")
        if name in FILES:
            _check_path(parent)
            nodes.setdefault(parent, Node({})).files[name] = _metadata_object(
                refs[key], key, limits
            )
    root = nodes.setdefault("", Node({})).files
    for key, value in _consolidated(root).items():
        parent, _, name = f"/{key}".rpartition("/")
        if name not in FILES or not isinstance(value, dict):
            raise Malformed(f"consolidated metadata of {key!r:.80} is not known")
        _check_path(parent)
        own = nodes.setdefault(parent, Node({})).files.setdefault(name, value)
        if name in (".zarray", "zarr.json") and not _agrees(own, value):
            raise Malformed("consolidated metadata differs from the array's own", path=parent)
    return nodes


def _check_path(path: str) -> None:
    if path.count("/") > MAX_DEPTH:
        raise Malformed(f"groups nest deeper than {MAX_DEPTH}")
    if not is_unicode(path):
        raise Malformed(f"the path {path!r:.200} is not Unicode text")


def _agrees(own: dict[str, Any], consolidated: dict[str, Any]) -> bool:
    def meaning(node: dict[str, Any]) -> str:
        kept = {k: v for k, v in node.items() if k not in ("attributes", "consolidated_metadata")}
        return json.dumps(kept, sort_keys=True)  # as text, since NaN is not equal to itself

    return meaning(own) == meaning(consolidated)


def _consolidated(root: dict[str, dict[str, Any]]) -> dict[str, Any]:
    if ".zmetadata" in root:
        found = root[".zmetadata"].get("metadata")
        if not isinstance(found, dict):
            raise Malformed("'.zmetadata' has no object 'metadata'")
        return found
    inline = root.get("zarr.json", {}).get("consolidated_metadata")
    if inline is None:
        return {}
    if not isinstance(inline, dict) or not isinstance(inline.get("metadata"), dict):
        raise Malformed("'consolidated_metadata' has no object 'metadata'")
    return {f"{path}/zarr.json": node for path, node in inline["metadata"].items()}


def _metadata_object(value: Any, key: str, limits: Limits) -> dict[str, Any]:
    """Return the JSON object at a metadata key: as an object, as text or as base64."""
    if isinstance(value, list | tuple):
        raise Unsupported(f"{key!r} is a reference to a source, not metadata")
    if isinstance(value, dict):
        return dict(value)
    return parse_document(_bytes_of(value, key), limits)


def inline_bytes(value: Any, key: str, limits: Limits) -> bytes:
    """Return the bytes of an inline chunk: text, base64 text or a JSON object.

    Raises
    ------
    Malformed
        It is none of these, or the base64 is wrong.
    LimitExceeded
        It has more bytes than an inlined chunk may have.
    """
    if isinstance(value, str | bytes):
        most = len(value) * 3 // 4 if value[:7] in ("base64:", _BASE64) else len(value)
        limits.check("inline", most - 8, f"the inlined chunk {key!r:.200}")  # before it is decoded
    data = json.dumps(value).encode() if isinstance(value, dict) else _bytes_of(value, key)
    limits.check("inline", len(data), f"the inlined chunk {key!r:.200}")
    return data


def _bytes_of(value: Any, key: str) -> bytes:
    if not isinstance(value, str | bytes):
        raise Malformed(f"{key!r:.200} is {value!r:.80}, not a reference")
    try:
        data = value.encode() if isinstance(value, str) else value
        return base64.b64decode(data[7:], validate=True) if data.startswith(_BASE64) else data
    except (binascii.Error, ValueError) as error:
        raise Malformed(f"the text at {key!r:.200} is not what it should be: {error}") from error
