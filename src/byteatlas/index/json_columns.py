"""Read the lines of references that byteatlas writes straight into columns.

A general JSON parser makes half a gigabyte of lists of a million references. Where a file has
one reference per line, as ours have, numpy takes the numbers from the text instead. It does so
leniently, and whoever calls it writes the result again and compares it with the file: no other
text than our own passes.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from byteatlas.errors import Malformed
from byteatlas.index.chunk_keys import ChunkKeys
from byteatlas.index.reference_columns import ReferenceColumns
from byteatlas.model import WHOLE

__all__ = ["ReferenceLines", "split_lines"]

_LONGEST_URL = 1024
_STEP = 4 * 2**20
_PADDING = b"\0" * 8
_WORD_MASK = np.array([(1 << 8 * count) - 1 for count in range(9)], np.uint64)
_HASH_FACTOR = np.uint64(0x9E3779B97F4A7C15)


def split_lines(text: bytes) -> tuple[bytes, ReferenceLines] | None:
    """Take the lines ``"key":["url",offset,length]`` out of an index.

    Returns
    -------
    tuple or None
        The JSON text that remains, and the lines; None where the text is not laid out so.
    """
    data = np.frombuffer(text, np.uint8)
    ends = _places(data, "\n")
    if ends.size < 2 or ends[0] < 2:
        return None
    closing = ends - 1 - (data[ends - 1] == ord(","))
    is_reference = data[closing] == ord("]")
    # Lines of one kind stand together; cut the text where the kind changes.
    change = np.flatnonzero(is_reference[1:] != is_reference[:-1])
    cuts = [0, *(ends[change] + 1).tolist(), len(text)]
    view = memoryview(text)
    pieces = [view[start:stop] for start, stop in pairwise(cuts)]
    first = int(is_reference[0])
    lines, rest = pieces[1 - first :: 2], pieces[first::2]
    body = b"".join([*lines, _PADDING])
    quotes = _places(np.frombuffer(body, np.uint8), '"')
    if quotes.size != 4 * np.count_nonzero(is_reference):
        return None
    return (
        b"".join(rest).replace(b",\n},", b"\n},"),
        ReferenceLines(body, quotes.reshape(-1, 4)),
    )


def _places(data: NDArray[np.uint8], character: str) -> NDArray[np.intp]:
    """Return where a character stands, looking at some megabytes at a time."""
    found = [
        np.flatnonzero(data[start : start + _STEP] == ord(character)) + start
        for start in range(0, data.size, _STEP)
    ]
    return np.concatenate(found) if found else np.empty(0, np.intp)


class ReferenceLines:
    """Lines of references, sorted by key.

    Parameters
    ----------
    body
        The lines, and 8 bytes more.
    quotes
        Where the four quotes of each line are, shape (n, 4).
    """

    def __init__(self, body: bytes, quotes: NDArray[np.intp]) -> None:
        self._text = body
        self._data = np.frombuffer(body, np.uint8)
        self._quotes = quotes
        ends = _places(self._data, "\n")
        self._closing = ends - 1 - (self._data[ends - 1] == ord(","))

    def __len__(self) -> int:
        return len(self._quotes)

    def columns(
        self, keys: ChunkKeys, grid_shape: tuple[int, ...]
    ) -> tuple[NDArray[np.uint64], ReferenceColumns]:
        """Return the flat chunk indices (C order) and the references of one array.

        Raises
        ------
        Malformed
            A line is not one that byteatlas writes.
        """
        lines = range(len(self._quotes))
        first = keys.lead if grid_shape else keys.scalar
        after = first[:-1] + chr(ord(first[-1]) + 1)
        mine = slice(
            bisect_left(lines, first, key=self._key), bisect_left(lines, after, key=self._key)
        )
        closing, quotes = self._closing[mine], self._quotes[mine]
        length, before = self._numbers_before(closing)
        offset, _ = self._numbers_before(before)
        whole = closing == quotes[:, 3] + 1
        offset[whole], length[whole] = 0, WHOLE
        urls, url = self._urls(quotes[:, 2] + 1, quotes[:, 3])
        index = np.zeros(closing.size, np.uint64)
        before, stride = quotes[:, 1], 1
        for size in reversed(grid_shape):
            label, before = self._numbers_before(before)
            index += label * np.uint64(stride)
            stride *= size
        return index, ReferenceColumns(urls, url, offset, length)

    def _key(self, line: int) -> str:
        start, stop = self._quotes[line, :2].tolist()
        return self._string(start, stop)

    def _string(self, start: int, stop: int) -> str:
        """Return the JSON string between two quotes."""
        try:
            return str(json.loads(self._text[start : stop + 1]))
        except ValueError as error:
            raise Malformed("a line of references has other quotes") from error

    def _numbers_before(self, end: NDArray[np.intp]) -> tuple[NDArray[np.uint64], NDArray[np.intp]]:
        """Return the decimal number that ends at each place, and where the byte before it is."""
        value = np.zeros(end.size, np.uint64)
        place = end - 1
        is_digit = np.ones(end.size, np.bool_)
        for power in range(20):
            digit = self._data[place] - np.uint8(ord("0"))
            is_digit &= digit < 10
            if not is_digit.any():
                return value, place
            value += np.where(is_digit, digit, np.uint8(0)).astype(np.uint64) * np.uint64(10**power)
            place -= is_digit
        raise Malformed("a number has more than 19 digits")

    def _urls(
        self, start: NDArray[np.intp], stop: NDArray[np.intp]
    ) -> tuple[list[str], NDArray[np.intp]]:
        """Return the distinct URLs, and which of them each line has."""
        if not start.size:
            return [], np.empty(0, np.intp)
        size = stop - start
        longest = int(size.max())
        if longest > _LONGEST_URL:
            raise Malformed("a URL is too long to be compared this way")
        words = np.ndarray((self._data.size - 7,), "<u8", self._data, strides=(1,))
        digest = size.astype(np.uint64)
        for position in range(0, longest, 8):
            place = np.minimum(start + position, words.size - 1)
            mask = _WORD_MASK[np.clip(size - position, 0, 8)]
            digest = (digest ^ (words[place] & mask)) * _HASH_FACTOR
        runs = np.flatnonzero(np.concatenate([[True], digest[1:] != digest[:-1]]))
        _, first, inverse = np.unique(digest[runs], return_index=True, return_inverse=True)
        urls = [
            self._string(int(start[line]) - 1, int(stop[line])) for line in runs[first].tolist()
        ]
        return urls, np.repeat(inverse, np.diff(runs, append=start.size))
