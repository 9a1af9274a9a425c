"""What xarray looks at when it opens a dataset, read in one batch when the first of it is needed.

xarray 2024.10 to 2026.9, one after the other and each in a read of its own:

- reads whole: coordinates that become indexes, and all variables of strings (for their length);
- of times ("days since ..."), and of the bounds of times, the first and the last element;
- of any other array of objects the first element.

Data variables of numbers it leaves alone. What is read here is bounded, and given away when it has
been read as a whole, tiny things aside.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from byteatlas.errors import ByteatlasError
from byteatlas.model import VirtualArray, VirtualGroup
from byteatlas.read.reader import Reader

__all__ = ["SHORT", "FirstRead", "FirstReads", "first_reads", "is_short"]

INDEX = 8 * 2**20
"""Bytes of a coordinate that becomes an index, above which it is read by itself."""
BESIDE = 2**16
"""Bytes of a time or of another coordinate, up to which all of it is read with the rest."""
SHORT = 2**14
"""Elements of an array of strings, up to which all of them are read for their length."""
TINY = 2**12
"""Bytes of a box that is kept even when it has been read as a whole."""
BATCH = 32 * 2**20
"""Bytes of a batch; what goes beyond is read when it is needed."""


class FirstRead(NamedTuple):
    """A box of an array, which xarray will look into."""

    array: VirtualArray
    path: str
    start: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def selection(self) -> tuple[slice, ...]:
        """The box, as a selection of the array."""
        sides = zip(self.start, self.shape, strict=True)
        return tuple(slice(first, first + length) for first, length in sides)

    @property
    def nbytes(self) -> int:
        """Bytes of the box when decoded."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.array.dtype.itemsize


class FirstReads:
    """Boxes that are read together, and answer the reads that fall into them; thread-safe.

    Parameters
    ----------
    batches
        Boxes of each batch: it is read when the first of its boxes is needed.
    reader
        Reads them.
    """

    def __init__(self, batches: Iterable[Sequence[FirstRead]], reader: Reader) -> None:
        self._reader = reader
        self._guards: list[Lock] = []
        self._waiting: list[Sequence[FirstRead]] = []
        self._boxes: dict[str, list[tuple[int, FirstRead]]] = {}
        self._kept: dict[tuple[str, tuple[int, ...]], NDArray[Any]] = {}
        for number, batch in enumerate(batches):
            self._guards.append(Lock())
            self._waiting.append(batch)
            for box in batch:
                self._boxes.setdefault(box.path, []).append((number, box))

    def holds(self, path: str) -> bool:
        """Tell whether something of an array is read with others."""
        return path in self._boxes

    def answer(self, path: str, key: tuple[Any, ...]) -> NDArray[Any] | None:
        """Return what was read of an array, reading it with its batch; None where it is outside.

        Parameters
        ----------
        path
            Of the array.
        key
            For each axis an integer, a slice or an array of integers, as xarray resolves them.
        """
        for number, box in self._boxes.get(path, ()):
            inside = _inside(key, box)
            if inside is None:
                continue
            is_whole = box.shape == box.array.shape == tuple(index.size for index in inside)
            values = self._read(number, box, is_last=is_whole and box.nbytes > TINY)
            return None if values is None else _taken(values, inside)
        return None

    def _read(self, number: int, box: FirstRead, *, is_last: bool) -> NDArray[Any] | None:
        with self._guards[number]:
            batch, self._waiting[number] = self._waiting[number], ()
            if batch:
                wanted: list[Any] = [(one.array, one.selection, one.path) for one in batch]
                try:
                    values = self._reader.read_many(wanted)
                except ByteatlasError:
                    # Perhaps of an array that nobody asks for: each is read by itself, when it is.
                    self._boxes = {}
                    return None
                self._kept |= {
                    (one.path, one.start): value for one, value in zip(batch, values, strict=True)
                }
            return (self._kept.pop if is_last else self._kept.get)((box.path, box.start), None)


def _inside(key: tuple[Any, ...], box: FirstRead) -> list[Any] | None:
    """Return a key counted from the start of a box; None where it reaches outside of it."""
    inside: list[Any] = []
    for index, start, length, size in zip(key, box.start, box.shape, box.array.shape, strict=True):
        if isinstance(index, slice):
            taken = range(size)[index]
            first, last = (min(taken), max(taken)) if taken else (start, start)
            moved: Any = np.arange(taken.start - start, taken.stop - start, taken.step)
        else:
            moved = np.asarray(index, np.int64)
            moved = np.where(moved < 0, moved + size, moved) - start
            first, last = (moved.min() + start, moved.max() + start) if moved.size else (start,) * 2
        if first < start or last >= start + length:
            return None
        inside.append(moved)
    return inside


def _taken(values: NDArray[Any], inside: list[Any]) -> NDArray[Any]:
    """Return a copy of what an orthogonal index takes."""
    values = values.copy()
    for axis, index in enumerate(inside):
        values = np.take(values, np.atleast_1d(index), axis)
    return values.reshape([index.size for index in inside if index.ndim])


def first_reads(
    groups: Iterable[tuple[str, VirtualGroup]],
    dropped: frozenset[str],
    decoders: Mapping[str, Any],
) -> list[list[FirstRead]]:
    """Return what opening some groups reads, in batches of what is needed together.

    Parameters
    ----------
    groups
        Paths ("" for the root) and groups.
    dropped
        Names of variables that xarray will not look at.
    decoders
        What xarray decodes, in the words of its `open_dataset`.
    """
    opening: list[FirstRead] = []
    strings: list[FirstRead] = []
    objects: list[FirstRead] = []
    has_times = bool(decoders.get("decode_times", True))
    for path, group in groups:
        arrays = {name: one for name, one in group.arrays.items() if name not in dropped}
        times = _times(arrays) if has_times else frozenset()
        named = _coordinates(group) if decoders.get("decode_coords", True) else frozenset()
        for name, array in arrays.items():
            here = f"{path}/{name}"
            is_index = array.dimensions == (name,)
            if 0 in array.shape:
                continue
            if is_index and array.nbytes <= INDEX:
                opening.append(_whole(array, here))
            elif array.dtype == object and is_short(array):
                strings.append(_whole(array, here))
            elif array.dtype == object:
                objects.append(_first(array, here))
            elif name in times and array.nbytes > BESIDE:
                opening += [_first(array, here), _last(array, here)]
            elif name in times or (name in named and array.nbytes <= BESIDE):
                opening.append(_whole(array, here))
    # Without times it may be that nothing is looked at but strings.
    batches = [opening + strings, objects] if has_times else [opening, strings, objects]
    return [list(_bounded(batch)) for batch in batches]


def is_short(array: VirtualArray) -> bool:
    """Tell whether an array of strings is so short that xarray may look at all of them."""
    return int(np.prod(array.shape, dtype=np.int64)) <= SHORT


def _times(arrays: Mapping[str, VirtualArray]) -> frozenset[str]:
    """Return the names of times (CF Conventions 1.11, 4.4) and of their bounds (7.1)."""
    found = [name for name, array in arrays.items() if "since" in _text(array, "units")]
    bounds = {_text(arrays[name], "bounds") for name in found}
    return frozenset([*found, *bounds])


def _coordinates(group: VirtualGroup) -> frozenset[str]:
    """Return what the attributes "coordinates" name (CF Conventions 1.11, 5)."""
    texts = [_text(array, "coordinates") for array in group.arrays.values()]
    texts.append(str(group.attrs.get("coordinates", "")))
    return frozenset(name for text in texts for name in text.split())


def _text(array: VirtualArray, name: str) -> str:
    value = array.attrs.get(name)
    return value if isinstance(value, str) else ""


def _whole(array: VirtualArray, path: str) -> FirstRead:
    return FirstRead(array, path, (0,) * len(array.shape), array.shape)


def _first(array: VirtualArray, path: str) -> FirstRead:
    return FirstRead(array, path, (0,) * len(array.shape), (1,) * len(array.shape))


def _last(array: VirtualArray, path: str) -> FirstRead:
    return FirstRead(array, path, tuple(n - 1 for n in array.shape), (1,) * len(array.shape))


def _bounded(boxes: list[FirstRead]) -> Iterator[FirstRead]:
    left = BATCH
    for box in sorted(boxes, key=lambda box: box.nbytes):
        left -= box.nbytes
        if left < 0:
            return
        yield box
