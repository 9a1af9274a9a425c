"""HDF5's filter n-bit (5), undone: elements without the bits that their type does not use.

The stored elements are one stream of bits, of each member the used bits only, the highest first.
The filter's parameters describe the type: a class, the size, and by class

- 1, a number: byte order (0 little-endian), used bits, and unused bits below them;
- 2, an array: the type of its items;
- 3, a compound: the number of members, and of each its offset and type;
- 4, anything else, stored as it is.

(HDF5 library, H5Znbit.c.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from byteatlas.codecs.bits import SLAB, take_bits
from byteatlas.codecs.interface import Bytes, Config
from byteatlas.errors import Malformed

__all__ = ["undo_nbit"]

_NUMBER, _ARRAY, _COMPOUND, _AS_IT_IS = 1, 2, 3, 4
_DEPTH = 16
_MAX_RUNS = 2**14


class _Run(NamedTuple):
    """Numbers of one kind that follow each other, both in the element and in its bits."""

    offset: int
    """First byte in the element."""
    times: int
    """How many numbers."""
    size: int
    """Bytes of each, at most 8."""
    is_big: bool
    width: int
    """Used bits of each."""
    shift: int
    """Unused bits below them."""


def undo_nbit(data: Bytes, config: Config, limit: int) -> Bytes:
    """Undo n-bit.

    `config` has ``count``, the elements of a chunk, and ``type``, the parameters from the class of
    the type on.
    """
    count, parameters = int(config["count"]), [int(value) for value in config["type"]]
    size = parameters[1]
    if count < 0 or size < 1 or count * size > limit:
        raise Malformed(f"n-bit of {count} elements of {size} bytes, expected {limit} bytes")
    runs = [
        part for run in _merged(_runs(_Parameters(parameters), 0, size, 0)) for part in _cut(run)
    ]
    width = sum(run.times * run.width for run in runs)
    if -(-count * width // 8) > len(data):
        raise Malformed(f"n-bit chunk has {len(data)} bytes for {count} elements of {width} bits")
    stream = bytes(data) + bytes(9)
    out = np.zeros((count, size), np.uint8)
    slab = max(SLAB // max((run.times for run in runs), default=1), 1)
    for start in range(0, count, slab):
        elements = out[start : start + slab]
        first = start * width
        for run in runs:
            numbers = _numbers(stream, first, width, len(elements), run) << np.uint64(run.shift)
            first += run.times * run.width
            spelled = numbers.astype(">u8" if run.is_big else "<u8").view(np.uint8)
            spelled = spelled.reshape(len(elements), run.times, 8)
            part = spelled[:, :, 8 - run.size :] if run.is_big else spelled[:, :, : run.size]
            stop = run.offset + run.times * run.size
            elements[:, run.offset : stop] = part.reshape(len(elements), -1)
    return out.reshape(-1).data


def _numbers(stream: bytes, first: int, stride: int, count: int, run: _Run) -> NDArray[np.uint64]:
    """Return the numbers of a run in some elements, shape (count, run.times)."""
    width, times = run.width, run.times
    if times * width == stride:
        return take_bits(stream, first, width, count * times, width).reshape(count, times)
    numbers = np.empty((count, times), np.uint64)
    if times <= count:  # as few steps as possible
        for place in range(times):
            numbers[:, place] = take_bits(stream, first + place * width, stride, count, width)
    else:
        for element in range(count):
            numbers[element] = take_bits(stream, first + element * stride, width, times, width)
    return numbers


class _Parameters:
    """The filter's parameters, taken one after the other."""

    def __init__(self, values: Sequence[int]) -> None:
        self._values = values
        self.position = 0

    def take(self) -> int:
        self.position += 1
        if self.position > len(self._values):
            raise Malformed(f"n-bit type goes on after {len(self._values)} parameters")
        return self._values[self.position - 1]

    def peek(self) -> tuple[int, int]:
        """Return the class and the size that come next, and leave them there."""
        self.position += 2
        if self.position > len(self._values):
            raise Malformed(f"n-bit type goes on after {len(self._values)} parameters")
        self.position -= 2
        return self._values[self.position], self._values[self.position + 1]


def _runs(parameters: _Parameters, offset: int, room: int, depth: int) -> Iterator[_Run]:
    """Yield the numbers of the type that comes next, at a place with some bytes of room."""
    kind, size = parameters.take(), parameters.take()
    if depth > _DEPTH or not 1 <= size <= room:
        raise Malformed(f"n-bit type of {size} bytes in {room}, {depth} levels deep")
    if kind == _NUMBER:
        order, width, shift = parameters.take(), parameters.take(), parameters.take()
        if order not in (0, 1) or not 1 <= width <= 8 * size - shift:
            raise Malformed(f"n-bit number of {width} bits from bit {shift} on in {size} bytes")
        yield from _pieces(offset, size, is_big=bool(order), width=width, shift=shift)
    elif kind == _ARRAY:
        yield from _items(parameters, offset, size, depth)
    elif kind == _COMPOUND:
        yield from _members(parameters, offset, size, depth)
    elif kind == _AS_IT_IS:
        yield _Run(offset, size, 1, is_big=False, width=8, shift=0)
    else:
        raise Malformed(f"n-bit type of class {kind}")


def _members(parameters: _Parameters, offset: int, size: int, depth: int) -> Iterator[_Run]:
    """Yield the numbers of a compound of some bytes."""
    used = 0
    for _ in range(parameters.take()):
        at = parameters.take()
        kind, member = parameters.peek()
        used += member
        if used > size:
            raise Malformed(f"n-bit compound of {size} bytes has members of {used}")
        if kind in (_NUMBER, _ARRAY, _COMPOUND, _AS_IT_IS):
            yield from _runs(parameters, offset + at, size - at, depth + 1)
        else:
            parameters.take()  # as the library: nothing is stored for it


def _items(parameters: _Parameters, offset: int, size: int, depth: int) -> Iterator[_Run]:
    """Yield the numbers of an array of some bytes."""
    begin = parameters.position
    kind, step = parameters.peek()
    if kind == _AS_IT_IS:
        parameters.position += 2
        yield _Run(offset, size, 1, is_big=False, width=8, shift=0)
        return
    items = _merged(_runs(parameters, 0, size, depth + 1))
    if kind in (_ARRAY, _COMPOUND):
        # As the library does, in both directions: it does not skip the type of such items, and
        # takes it for the next member of the compound around the array.
        parameters.position = begin + 1
    if len(items) == 1 and items[0].times * items[0].size == step:
        yield items[0]._replace(offset=offset, times=size // step * items[0].times)
        return
    for at in range(offset, offset + size // step * step, step):
        yield from (run._replace(offset=at + run.offset) for run in items)


def _pieces(offset: int, size: int, *, is_big: bool, width: int, shift: int) -> Iterator[_Run]:
    """Yield a number, one of more than eight bytes in bytes."""
    if size <= 8:
        yield _Run(offset, 1, size, is_big, width, shift)
        return
    for byte in range((shift + width - 1) // 8, shift // 8 - 1, -1):
        low, high = max(shift - 8 * byte, 0), min(shift + width - 8 * byte, 8)
        place = size - 1 - byte if is_big else byte
        yield _Run(offset + place, 1, 1, is_big, high - low, low)


def _cut(run: _Run) -> Iterator[_Run]:
    """Yield runs of no more numbers than are best taken at once."""
    for start in range(0, run.times, SLAB):
        times = min(SLAB, run.times - start)
        yield run._replace(offset=run.offset + start * run.size, times=times)


def _merged(runs: Iterator[_Run] | Sequence[_Run]) -> list[_Run]:
    """Join what follows each other and is alike; there may not be too many others."""
    found: list[_Run] = []
    for run in runs:
        last = found[-1] if found else None
        if last and last[2:] == run[2:] and last.offset + last.times * last.size == run.offset:
            found[-1] = last._replace(times=last.times + run.times)
        else:
            found.append(run)
        if len(found) > _MAX_RUNS:
            raise Malformed(f"n-bit type of more than {_MAX_RUNS} different parts")
    return found
