"""The references of one array as lines of JSON, in the order of their keys.

Lines are built as numpy tables, some ten thousand at a time, one field beside the other; see
`byteatlas.index.chunk_keys`.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byteatlas.errors import Malformed
from byteatlas.index.chunk_keys import ChunkKeys, decimal_fields, label_order, without_padding
from byteatlas.model import WHOLE, ChunkManifest

__all__ = ["json_bytes", "reference_lines"]

_SLICE_BYTES = 4 * 2**20
"""A table of lines takes about so many bytes: it should stay within the processor's caches."""


def json_bytes(value: Any) -> bytes:
    """Return a JSON value as strict, compact JSON text in UTF-8, members in their order.

    Raises
    ------
    Malformed
        A string is no Unicode text (it has lone surrogates), or a number is not finite.
    """
    try:
        return json.dumps(
            value, ensure_ascii=False, allow_nan=False, separators=(",", ":")
        ).encode()
    except UnicodeEncodeError as error:
        raise Malformed(f"{error.object[:80]!r} is not Unicode text") from error
    except (TypeError, ValueError) as error:
        raise Malformed(f"not a JSON value: {error}") from error


def reference_lines(
    manifest: ChunkManifest, keys: ChunkKeys, urls: Sequence[bytes]
) -> Iterator[bytes]:
    r"""Yield the references of an array, each as ``,\n"key":["url",offset,length]``.

    Parameters
    ----------
    manifest
        The array's chunks. A length of `WHOLE` must go with offset 0.
    keys
        How its keys are spelled.
    urls
        The URL of each source, as the inside of a JSON string.
    """
    if not manifest.present_count:
        return
    opening = b',\n"' + json_bytes(keys.lead if manifest.grid_shape else keys.scalar)[1:-1]
    inlined = list(manifest.inline.items())
    width = len(opening) + max(map(len, urls), default=0) + 80
    step = max(256, _SLICE_BYTES // width)
    for labels, rows in _in_key_order(manifest, list(manifest.inline), step):
        start = 0
        for stop in [*np.flatnonzero(rows >= manifest.virtual_count).tolist(), rows.size]:
            if start < stop:
                part = slice(start, stop)
                fields: list[Any] = [opening]
                for position, label in enumerate(labels):
                    fields += [keys.separator.encode()] * (position > 0) + [label[part]]
                yield _lines(fields, manifest, rows[part], urls)
            if stop < rows.size:
                chunk = [label[stop].lstrip(b"\0") for label in labels]
                data = base64.b64encode(inlined[int(rows[stop]) - manifest.virtual_count][1])
                name = keys.separator.encode().join(chunk)
                yield opening + name + b'":"base64:' + data + b'"'
            start = stop + 1


def _in_key_order(
    manifest: ChunkManifest, inlined: list[int], step: int
) -> Iterator[tuple[list[NDArray[np.bytes_]], NDArray[np.intp]]]:
    """Yield slices of at most `step` chunks: the labels of each axis, and the row of each.

    Rows from the number of virtual chunks on count the inlined ones.
    """
    grid = manifest.grid_shape
    order = None
    if manifest.index is None:
        values = [np.arange(size, dtype=np.uint64) for size in grid]
        orders = [label_order(value) for value in values]
    else:
        flat = np.concatenate([manifest.index, np.array(inlined, np.uint64)])
        found = [np.unique(axis, return_inverse=True) for axis in _unravel(flat, grid)]
        values = [value for value, _ in found]
        orders = [label_order(value) for value in values]
        rank = np.zeros(flat.size, np.uint64)
        for (value, inverse), axis_order in zip(found, orders, strict=True):
            rank = rank * np.uint64(value.size) + np.argsort(axis_order)[inverse].astype(np.uint64)
        order = np.argsort(rank)
        rank = rank[order]
    shape = tuple(value.size for value in values)
    labels = [
        decimal_fields(value, int(value[-1]))[axis_order]
        for value, axis_order in zip(values, orders, strict=True)
    ]
    for start in range(0, manifest.present_count, step):
        stop = min(start + step, manifest.present_count)
        ranks = np.arange(start, stop, dtype=np.uint64) if order is None else rank[start:stop]
        places = _unravel(ranks, shape)
        if order is None:
            rows = np.zeros(stop - start, np.intp)
            for place, axis_order, size in zip(places, orders, shape, strict=True):
                rows = rows * size + axis_order[place]
        else:
            rows = order[start:stop]
        yield [label[place] for label, place in zip(labels, places, strict=True)], rows


def _unravel(flat: NDArray[np.uint64], shape: tuple[int, ...]) -> list[NDArray[np.uint64]]:
    """Return the indices along each axis, C order."""
    indices = []
    for axis in range(len(shape)):
        stride = np.uint64(math.prod(shape[axis + 1 :]))
        index = flat // stride
        flat = flat - index * stride
        indices.append(index)
    return indices


def _lines(
    fields: list[Any], manifest: ChunkManifest, rows: NDArray[np.intp], urls: Sequence[bytes]
) -> bytes:
    """Return the lines of virtual chunks, given the fields of their keys."""
    offset, length = manifest.offset[rows], manifest.length[rows]
    place: list[Any] = [b",", _decimal(offset), b",", _decimal(length)]
    whole = length == np.uint64(WHOLE)
    if whole.any():
        place = [np.where(whole, b"", field) for field in place]
    fields = [*fields, b'":["', _urls_of(manifest, rows, urls), b'"', *place, b"]"]
    columns = [np.asarray(field) for field in fields]
    table = np.empty(rows.size, [(f"f{i}", column.dtype) for i, column in enumerate(columns)])
    for position, column in enumerate(columns):
        table[f"f{position}"] = column
    return without_padding(table)


def _decimal(values: NDArray[np.uint64]) -> NDArray[np.bytes_]:
    return decimal_fields(values, int(values.max()))


def _urls_of(
    manifest: ChunkManifest, rows: NDArray[np.intp], urls: Sequence[bytes]
) -> NDArray[np.bytes_]:
    """Return the URL of each row: one for all where they share it, as neighbours mostly do."""
    if manifest.source is None:
        return np.array(urls[0])
    source = manifest.source[rows]
    if (source == source[0]).all():
        return np.array(urls[int(source[0])])
    used, inverse = np.unique(source, return_inverse=True)
    return np.array([urls[position] for position in used.tolist()])[inverse]
