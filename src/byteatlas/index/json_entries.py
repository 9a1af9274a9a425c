"""Take references out of the JSON text of any index, straight into columns.

A general JSON parser makes half a gigabyte of lists of a million references, and the memory they
lay in stays scattered. So the members ``"key":["url",offset,length],`` are found with numpy, and
one placeholder for each run of them is left to the parser. Nothing here is lenient: a member that
is not exactly that, with plain ASCII strings and whole numbers, stays in the text. That those
taken out were members of the references is known when the placeholders turn up there.
"""

from __future__ import annotations

import secrets
from bisect import bisect_left
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from byteatlas.errors import Malformed
from byteatlas.index.chunk_keys import ChunkKeys
from byteatlas.index.reference_columns import ReferenceColumns

__all__ = ["ReferenceEntries", "Taken", "take_references"]

_STEP = 2**22
_MAX_RUNS = 10_000
_MAX_DIGITS = 18
_PADDING = b"\0" * 8
_WORD_MASK = np.array([(1 << 8 * count) - 1 for count in range(9)], np.uint64)
_QUOTE, _BACKSLASH, _SLASH, _ZERO = b'"'[0], b"\\"[0], b"/"[0], b"0"[0]

_KINDS = np.zeros(256, np.uint8)
"""What a byte of the text is: 1 a quote, 2 what keeps a string from being plain."""
_KINDS[:32] = 2
_KINDS[127:] = 2
_KINDS[_BACKSLASH] = 2
_KINDS[_QUOTE] = 1


class Taken(NamedTuple):
    """A text without most of its references, and these."""

    text: bytes
    placeholders: tuple[str, ...]
    """Keys that stand where references were taken out; their value is 0."""
    entries: ReferenceEntries


def take_references(text: bytes) -> Taken | None:
    """Take references out of the JSON text of an index; None where few can be.

    Parameters
    ----------
    text
        Need not be JSON: what is wrong with it is still there afterwards.
    """
    if b"\\/" in text:  # as ujson spells a slash
        if b"\\\\/" in text:
            return None
        text = text.replace(b"\\/", b"/")
    text += _PADDING
    data = np.frombuffer(text, np.uint8)
    quotes, odd = _special_places(data)
    if quotes.size % 2 or quotes.size < 6:
        return None
    start, stop = quotes[::2], quotes[1::2]
    plain = np.ones(start.size, np.bool_)
    inside = np.searchsorted(start, odd) - 1
    plain[inside[(inside >= 0) & (odd < stop[inside])]] = False
    found = _find(data, start, stop, plain)
    if found is None or found.key.size < 100:
        return None
    return _cut(text, data, start, stop, found)


class _Found(NamedTuple):
    key: NDArray[np.intp]
    """Which string is the key of each reference; the next is its URL."""
    offset: NDArray[np.uint64]
    length: NDArray[np.uint64]


def _special_places(data: NDArray[np.uint8]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return where quotes are that bound strings, and bytes that are not plain text."""
    quotes, odd = [], []
    for begin in range(0, data.size, _STEP):
        kinds = _KINDS[data[begin : begin + _STEP]]
        some = np.flatnonzero(kinds)
        kinds = kinds[some]
        quotes.append(some[kinds == 1] + begin)
        odd.append(some[kinds == 2] + begin)
    places = np.concatenate(quotes)
    others = np.concatenate(odd)
    escapes = others[data[others] == _BACKSLASH]
    if escapes.size:
        # Of a run of backslashes every second one is itself escaped.
        run = np.cumsum(np.concatenate([[True], np.diff(escapes) != 1])) - 1
        first = escapes[np.searchsorted(run, np.arange(run[-1] + 1))]
        last = escapes[np.searchsorted(run, np.arange(run[-1] + 1), "right") - 1]
        escaped = last[(last - first) % 2 == 0] + 1
        places = places[~np.isin(places, escaped)]
    return places, others


def _find(
    data: NDArray[np.uint8],
    start: NDArray[np.intp],
    stop: NDArray[np.intp],
    plain: NDArray[np.bool_],
) -> _Found | None:
    """Find members that are references, with the spacing that the first of them has."""
    for opening, comma, after in ((b":[", b",", b""), (b": [", b", ", b" "), (b":[", b",", b"\n")):
        gap = start[1:-1] - stop[:-2] - 1
        key = np.flatnonzero((gap == len(opening)) & plain[:-2] & plain[1:-1])
        key = key[_has(data, stop[key] + 1, opening)]
        closing = start[key + 2] - len(after) - 2
        key = key[_has(data, closing, b"]," + after)]
        closing = start[key + 2] - len(after) - 2
        length, begin, right = _number_before(data, closing)
        right &= _has(data, begin - len(comma), comma)
        offset, begin, also = _number_before(data, begin - len(comma))
        right &= also & (begin - len(comma) == stop[key + 1] + 1)
        right &= _has(data, begin - len(comma), comma)
        if right.any():
            return _Found(key[right], offset[right], length[right])
    return None


def _has(data: NDArray[np.uint8], place: NDArray[np.intp], text: bytes) -> NDArray[np.bool_]:
    """Tell where a text stands at places."""
    found = np.ones(place.size, np.bool_)
    for position, byte in enumerate(text):
        found &= data[place + position] == byte
    return found


def _number_before(
    data: NDArray[np.uint8], end: NDArray[np.intp]
) -> tuple[NDArray[np.uint64], NDArray[np.intp], NDArray[np.bool_]]:
    """Return the whole numbers that end at places, where they begin, and whether they are such."""
    value = np.zeros(end.size, np.uint64)
    begin = end.copy()
    going = np.ones(end.size, np.bool_)
    for power in range(_MAX_DIGITS):
        digit = data[begin - 1] - np.uint8(_ZERO)
        going &= digit < 10
        if not going.any():
            break
        value += np.where(going, digit, np.uint8(0)).astype(np.uint64) * np.uint64(10**power)
        begin -= going
    else:
        going = data[begin - 1] - np.uint8(_ZERO) >= 10  # a longer one is left to the parser
        return value, begin, (begin < end) & going & _leads(data, begin, end)
    return value, begin, (begin < end) & _leads(data, begin, end)


def _leads(
    data: NDArray[np.uint8], begin: NDArray[np.intp], end: NDArray[np.intp]
) -> NDArray[np.bool_]:
    """Tell which numbers have no zero in front."""
    is_right: NDArray[np.bool_] = (data[begin] != _ZERO) | (end - begin == 1)
    return is_right


def _cut(
    text: bytes,
    data: NDArray[np.uint8],
    start: NDArray[np.intp],
    stop: NDArray[np.intp],
    found: _Found,
) -> Taken | None:
    """Put a placeholder into the text for each run of references."""
    first = np.flatnonzero(np.concatenate([[True], np.diff(found.key) != 2]))
    if first.size > _MAX_RUNS:
        return None
    last = np.concatenate([first[1:], [found.key.size]]) - 1
    begins = start[found.key[first]].tolist()
    ends = start[found.key[last] + 2].tolist()
    token = secrets.token_hex(16)
    placeholders = tuple(f"{token}{number}" for number in range(len(begins)))
    pieces, done = [], 0
    for name, begin, end in zip(placeholders, begins, ends, strict=True):
        pieces += [text[done:begin], f'"{name}":0,'.encode()]
        done = end
    pieces.append(text[done : -len(_PADDING)])
    key = (start[found.key] + 1, stop[found.key])
    url = (start[found.key + 1] + 1, stop[found.key + 1])
    entries = ReferenceEntries(data, key, url, found.offset, found.length)
    return Taken(b"".join(pieces), placeholders, entries)


_Spans = tuple[NDArray[np.intp], NDArray[np.intp]]


class ReferenceEntries:
    """References that were taken out of a text, in its order.

    Parameters
    ----------
    data
        The text.
    key, url
        Where the keys and URLs begin and end, each of shape (n,).
    offset, length
        The numbers, each of shape (n,).
    """

    def __init__(
        self,
        data: NDArray[np.uint8],
        key: _Spans,
        url: _Spans,
        offset: NDArray[np.uint64],
        length: NDArray[np.uint64],
    ) -> None:
        self._data = data
        self._start, self._stop = key
        self._urls, self._url = _distinct(data, *url)
        self._offset, self._length = offset, length
        self._directories, self._directory = _distinct(data, self._start, self._last_slash())
        self._order = np.argsort(self._directory, kind="stable")
        self._bounds = np.searchsorted(
            self._directory[self._order], np.arange(len(self._directories) + 1)
        )
        self._sorted = sorted(range(len(self._directories)), key=self._directories.__getitem__)
        self._names = [self._directories[number] for number in self._sorted]
        self._left = len(self)

    def __len__(self) -> int:
        return int(self._start.size)

    def check_all_taken(self) -> None:
        """Refuse references that no array asked for.

        Raises
        ------
        Malformed
            There are some.
        """
        if self._left:
            raise Malformed("a reference is neither metadata nor a chunk of an array")

    def columns(
        self, keys: ChunkKeys, grid_shape: tuple[int, ...]
    ) -> tuple[NDArray[np.uint64], ReferenceColumns]:
        """Return the flat chunk indices (C order) and the references of one array.

        Raises
        ------
        Malformed
            A key is not that of a chunk in the grid.
        """
        rows = self._rows(keys.lead if grid_shape else keys.scalar.rpartition("/")[0] + "/")
        self._left -= rows.size
        index = np.zeros(rows.size, np.uint64)
        end = self._stop[rows]
        right = np.ones(rows.size, np.bool_)
        stride = 1
        for axis, size in enumerate(reversed(grid_shape)):
            label, begin, is_number = _number_before(self._data, end)
            right &= is_number & (label < size)
            index += np.where(right, label, np.uint64(0)) * np.uint64(stride)
            stride *= size
            end = begin
            if axis + 1 < len(grid_shape):
                end = begin - 1
                right &= self._data[end] == ord(keys.separator)
        lead = keys.lead if grid_shape else keys.scalar
        right &= end - self._start[rows] == len(lead)
        if not grid_shape and rows.size:
            right &= _has(self._data, self._start[rows], lead.encode())
        if not right.all():
            raise Malformed("a key is not that of a chunk in the grid")
        return index, ReferenceColumns(
            self._urls, self._url[rows], self._offset[rows], self._length[rows]
        )

    def _rows(self, lead: str) -> NDArray[np.intp]:
        """Return the rows of keys that begin so, and end in numbers."""
        exact = bisect_left(self._names, lead[:-1])
        chosen = list(
            range(bisect_left(self._names, lead), bisect_left(self._names, lead[:-1] + "0"))
        )
        if exact < len(self._names) and self._names[exact] == lead[:-1]:
            chosen.append(exact)
        parts = [
            self._order[slice(*self._bounds[self._sorted[place] : self._sorted[place] + 2])]
            for place in chosen
        ]
        rows: NDArray[np.intp] = np.concatenate([np.empty(0, np.intp), *parts])
        return rows

    def _last_slash(self) -> NDArray[np.intp]:
        """Return where the last slash of each key is; its beginning where there is none."""
        places = [
            np.flatnonzero(self._data[begin : begin + _STEP] == _SLASH) + begin
            for begin in range(0, self._data.size, _STEP)
        ]
        slashes = np.concatenate([[-1], *places])
        last: NDArray[np.intp] = slashes[np.searchsorted(slashes, self._stop) - 1]
        return np.maximum(last, self._start)


def _distinct(
    data: NDArray[np.uint8], start: NDArray[np.intp], stop: NDArray[np.intp]
) -> tuple[list[str], NDArray[np.intp]]:
    """Return the distinct ASCII texts, and which of them each is; neighbours are mostly equal."""
    size = stop - start
    is_same = size[1:] == size[:-1]
    words = np.ndarray((data.size - 7,), "<u8", data, strides=(1,))
    for position in range(0, int(size.max(initial=0)), 8):
        word = words[np.minimum(start + position, words.size - 1)]
        word = word & _WORD_MASK[np.clip(size - position, 0, 8)]
        is_same &= word[1:] == word[:-1]
    first = np.flatnonzero(np.concatenate([[True], ~is_same]))
    known: dict[bytes, int] = {}
    text = data.data
    numbers = [
        known.setdefault(bytes(text[begin:end]), len(known))
        for begin, end in zip(start[first].tolist(), stop[first].tolist(), strict=True)
    ]
    counts = np.diff(first, append=start.size)
    which: NDArray[Any] = np.repeat(np.array(numbers, np.intp), counts)
    return [one.decode("ascii") for one in known], which
