"""References as columns, out of lists as a JSON parser makes them.

The loops run in C (`map`, `compress`, `fromiter`): no Python statement runs per reference.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import compress
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from byteatlas.errors import Malformed
from byteatlas.model import WHOLE

__all__ = ["ReferenceColumns", "columns_of", "find_virtual", "joined"]


class ReferenceColumns(NamedTuple):
    """References as columns."""

    urls: Sequence[Any]
    """The distinct URLs (Any: not yet checked to be text)."""
    url: NDArray[np.intp]
    """Position in `urls`, shape (n,)."""
    offset: NDArray[np.uint64]
    """First byte, shape (n,)."""
    length: NDArray[np.uint64]
    """Number of bytes, shape (n,); `WHOLE` where the reference is to a whole source."""


_IS_VIRTUAL: dict[type, bool] = {list: True, tuple: True, str: False, dict: False, bytes: False}


def find_virtual(keys: list[str], values: list[Any]) -> NDArray[np.bool_]:
    """Tell of each value whether it is a reference, and not an inline chunk."""
    try:
        kinds = map(_IS_VIRTUAL.__getitem__, map(type, values))
        return np.fromiter(kinds, np.bool_, len(values))
    except KeyError as error:
        wrong = next(k for k, v in zip(keys, values, strict=True) if type(v) not in _IS_VIRTUAL)
        raise Malformed(f"{wrong!r:.200} is no reference") from error


def columns_of(references: Sequence[Sequence[Any]]) -> ReferenceColumns:
    """Return references ``[url]`` and ``[url, offset, length]`` as columns."""
    count = len(references)
    parts = np.fromiter(map(len, references), np.intp, count)
    if not np.isin(parts, (1, 3)).all():
        wrong = next(ref for ref in references if len(ref) not in (1, 3))
        raise Malformed(f"{wrong!r:.80} is no reference: expected [url] or [url, offset, length]")
    urls = list(map(itemgetter(0), references))
    try:
        position = {url: place for place, url in enumerate(dict.fromkeys(urls))}
    except TypeError as error:
        raise Malformed("a reference has a URL that is not text") from error
    offset, length = np.zeros(count, np.uint64), np.full(count, WHOLE, np.uint64)
    is_part = parts == 3
    ranged = references if is_part.all() else list(compress(references, is_part))
    offset[is_part] = _numbers(map(itemgetter(1), ranged), len(ranged))
    length[is_part] = _numbers(map(itemgetter(2), ranged), len(ranged))
    url = np.fromiter(map(position.__getitem__, urls), np.intp, count)
    return ReferenceColumns(list(position), url, offset, length)


def joined(one: ReferenceColumns, other: ReferenceColumns) -> ReferenceColumns:
    """Return references, and others after them, as columns."""
    if not one.url.size:
        return other
    return ReferenceColumns(
        [*one.urls, *other.urls],
        np.concatenate([one.url, other.url + len(one.urls)]),
        np.concatenate([one.offset, other.offset]),
        np.concatenate([one.length, other.length]),
    )


def _numbers(values: Iterable[Any], count: int) -> NDArray[np.uint64]:
    """Return offsets or lengths, which must be whole numbers from 0 to 2**63 - 1."""
    numbers = list(values)
    is_whole = set(map(type, numbers)) <= {int}
    if not is_whole or (numbers and not (min(numbers) >= 0 and max(numbers) < 2**63)):
        wrong = next(n for n in numbers if type(n) is not int or not 0 <= n < 2**63)
        raise Malformed(f"offset or length is {wrong!r:.80}, expected a whole number from 0")
    return np.fromiter(numbers, np.uint64, count)
