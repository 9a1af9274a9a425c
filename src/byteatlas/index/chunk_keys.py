"""Chunk keys, many at a time: numbers to decimal text and back, in the order keys sort in.

Text is built and taken apart in numpy columns. A number becomes a fixed-width field, padded with
NULs on the left; once a whole table of fields stands side by side, one `bytes.translate` drops
the NULs. JSON text and keys never hold a NUL of their own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byteatlas.errors import Malformed

__all__ = ["ChunkKeys", "decimal_fields", "label_order", "without_padding"]


def _decimal_table(*, strip: bool) -> NDArray[np.uint32]:
    """Return the digits of 0..9999 as 4 bytes each, with or without their leading zeros."""
    numbers = np.arange(10_000)
    digits = numbers[:, None] // (1000, 100, 10, 1) % 10 + ord("0")
    if strip:
        digits[numbers[:, None] < (1000, 100, 10, 1)] = 0
    return digits.astype(np.uint8).view(np.uint32)[:, 0]


_FOUR_DIGITS = np.concatenate([_decimal_table(strip=True), _decimal_table(strip=False)])
_SINGLE_ZERO = np.frombuffer(b"\0\0\x000", np.uint32)[0]


def decimal_fields(values: NDArray[np.uint64], largest: int) -> NDArray[np.bytes_]:
    """Return numbers as decimal text of one width, padded with NULs on the left.

    Parameters
    ----------
    values
        Numbers, shape (n,).
    largest
        A number that none of them exceeds; it sets the width.
    """
    groups = -(-len(str(largest)) // 4)
    fields = np.empty((values.size, groups), np.uint32)
    rest = values.astype(np.uint64)
    for group in range(groups - 1, 0, -1):
        higher = rest // 10_000
        fields[:, group] = _FOUR_DIGITS[rest - higher * 10_000 + (higher > 0) * np.uint64(10_000)]
        rest = higher
    fields[:, 0] = _FOUR_DIGITS[rest]
    fields[values == 0, -1] = _SINGLE_ZERO
    return fields.view(f"S{4 * groups}")[:, 0]


def label_order(values: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Return the order in which ascending numbers sort as decimal text: 0, 1, 10, 2."""
    if not values.size or values[-1] < 10:
        return np.arange(values.size)
    powers = 10 ** np.arange(1, 20, dtype=np.uint64)
    digits = np.searchsorted(powers, values, side="right")  # one less than their number
    widened = values * np.concatenate([[np.uint64(1)], powers])[digits[-1] - digits]
    return np.argsort(widened, kind="stable")  # of 1 and 10, the smaller comes first


def without_padding(table: NDArray[Any]) -> bytes:
    """Return the bytes of a table of NUL-padded fields, row after row, without the NULs."""
    return table.tobytes().translate(None, b"\0")


@dataclass(frozen=True, slots=True)
class ChunkKeys:
    """How the keys of one array's chunks are spelled."""

    lead: str
    """What stands before the first number, such as ``temp/`` or ``temp/c/``."""
    separator: str
    """What stands between two numbers: ``.`` or ``/``."""
    scalar: str
    """The one key of an array without axes, such as ``temp/0`` or ``temp/c``."""

    def key(self, chunk: Sequence[int]) -> str:
        """Return the key of one chunk index."""
        return self.lead + self.separator.join(map(str, chunk)) if chunk else self.scalar

    def parse(self, keys: Sequence[str], grid_shape: tuple[int, ...]) -> NDArray[np.uint64]:
        """Return the flat chunk index (C order) of each key, shape (n,).

        Raises
        ------
        Malformed
            A key is not that of a chunk in the grid.
        """
        if not keys:
            return np.empty(0, np.uint64)
        if not grid_shape:
            if list(keys) != [self.scalar]:
                wrong = next(key for key in keys if key != self.scalar)
                raise Malformed(f"{wrong!r:.200} is not the key of a chunk")
            return np.zeros(1, np.uint64)
        chunks = self._numbers("\n".join(keys), len(keys), len(grid_shape))
        if chunks is None or not (chunks < np.array(grid_shape, np.uint64)).all():
            raise self._stranger(keys, grid_shape)
        strides = [math.prod(grid_shape[axis + 1 :]) for axis in range(len(grid_shape))]
        flat: NDArray[np.uint64] = chunks @ np.array(strides, np.uint64)
        return flat

    def _numbers(self, text: str, count: int, axes: int) -> NDArray[np.uint64] | None:
        """Return the numbers in lines of keys, shape (count, axes); None unless all are keys.

        They are read leniently, spelled again, and compared with the text: so nothing but their
        one spelling passes.
        """
        numbers = text.replace("\n" + self.lead, self.separator)[len(self.lead) :]
        if (
            numbers.strip("0123456789" + self.separator)
            or numbers.count(self.separator) != count * axes - 1
        ):
            return None
        try:
            flat = np.fromstring(numbers, np.uint64, sep=self.separator)
        except (ValueError, DeprecationWarning):  # a warning where warnings are errors
            return None
        if flat.size != count * axes:
            return None
        chunks = flat.reshape(count, axes)
        lead = np.frombuffer(b"\n" + self.lead.encode(), f"S{len(self.lead.encode()) + 1}")
        spelled = self._spell(chunks, lead)
        return chunks if spelled[1:] == text.encode() else None

    def _spell(self, chunks: NDArray[np.uint64], lead: NDArray[np.bytes_]) -> bytes:
        columns: list[NDArray[Any]] = [lead]
        for axis in range(chunks.shape[1]):
            if axis:
                columns.append(np.array([self.separator], "S1"))
            columns.append(decimal_fields(chunks[:, axis], int(chunks[:, axis].max())))
        table = np.empty(len(chunks), [(f"f{i}", c.dtype) for i, c in enumerate(columns)])
        for position, column in enumerate(columns):
            table[f"f{position}"] = column
        return without_padding(table)

    def _stranger(self, keys: Sequence[str], grid_shape: tuple[int, ...]) -> Malformed:
        number = "(0|[1-9][0-9]{0,18})"
        pattern = re.compile(
            re.escape(self.lead) + re.escape(self.separator).join([number] * len(grid_shape))
        )
        for key in keys:  # slow, but only on the way to an error
            found = pattern.fullmatch(key)
            if not found:
                return Malformed(f"{key!r:.200} is not the key of a chunk")
            if any(int(n) >= size for n, size in zip(found.groups(), grid_shape, strict=True)):
                return Malformed(f"chunk {key!r} lies outside the grid {grid_shape}")
        return Malformed(f"the keys under {self.lead!r} are not those of chunks")
