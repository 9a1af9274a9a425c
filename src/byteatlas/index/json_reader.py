"""Read an index file in JSON: in columns where it is large, else as a document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from byteatlas.errors import ByteatlasError
from byteatlas.garbage import give_back_memory, paused_gc
from byteatlas.index.json_columns import split_lines
from byteatlas.index.json_document import check_depth, decompress, parse_document
from byteatlas.index.json_entries import take_references
from byteatlas.index.json_references import read_document
from byteatlas.index.json_writer import json_pieces
from byteatlas.index.zarr_metadata import ZarrFormat
from byteatlas.limits import Limits
from byteatlas.model import VirtualGroup

__all__ = ["read_json"]

_WORTH_SPLITTING = 2**20
"""Smaller texts are parsed as quickly as they are split into lines, in bytes."""


def read_json(
    data: bytes | Mapping[str, Any], *, url: str | None = None, limits: Limits | None = None
) -> VirtualGroup:
    """Return the virtual group that an index file holds.

    Parameters
    ----------
    data
        The file's bytes, plain or compressed with gzip or zstd; or the parsed document.
    url
        Where it came from. Relative URLs in it count from there.
    limits
        How large and deep it may be.

    Raises
    ------
    Malformed
        It breaks the reference specification or that of Zarr.
    LimitExceeded
        It is larger or deeper than it may be.
    Unsupported
        It holds something that byte ranges cannot express, or a section that is not known.
    Inconsistent
        Chunks are gone that it was written with.
    """
    limits = Limits() if limits is None else limits
    try:
        with paused_gc():
            if isinstance(data, Mapping):
                check_depth(dict(data), limits)
                return read_document(data, url, limits)
            text = decompress(data, limits)
            if len(text) < _WORTH_SPLITTING:
                return read_document(parse_document(text, limits), url, limits)
            try:
                found = _read_own(text, url, limits) or _read_taken(text, url, limits)
                return found or read_document(parse_document(text, limits), url, limits)
            finally:
                give_back_memory()
    except ByteatlasError as error:
        raise error.at(url=url) from error.__cause__


def _read_own(text: bytes, url: str | None, limits: Limits) -> VirtualGroup | None:
    """Return the group in an index that byteatlas wrote; None when the text is any other.

    Whether it is, is proved by writing the group again: the bytes must be the same.
    """
    split = split_lines(text)
    if split is None:
        return None
    rest, lines = split
    try:
        document = parse_document(rest, limits)
        group = read_document(document, url, limits, lines)
        zarr_format: ZarrFormat = 3 if "zarr.json" in document.get("refs", {}) else 2
        position = 0
        for piece in json_pieces(group, zarr_format=zarr_format, keep_query=True):
            if not text.startswith(piece, position):
                return None
            position += len(piece)
    except ByteatlasError:
        return None  # what is wrong with it, the general reader will say
    return group if position == len(text) else None


def _read_taken(text: bytes, url: str | None, limits: Limits) -> VirtualGroup | None:
    """Return the group in an index by anybody, most of its references taken out of the text.

    None where few can be taken out, or something is wrong: the general reader says what.
    """
    taken = take_references(text)
    if taken is None:
        return None
    try:
        document = parse_document(taken.text, limits)
        refs = document.get("refs") if "version" in document else document
        if not isinstance(refs, dict) or any(refs.pop(p, None) != 0 for p in taken.placeholders):
            return None
        group = read_document(document, url, limits, taken.entries)
        taken.entries.check_all_taken()
    except ByteatlasError:
        return None
    return group
