"""Damage a sample: the same damage for the same name, on every machine."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

from fuzz.seeds import Seed, repaired

__all__ = ["Mutant", "mutate"]


class Mutant(NamedTuple):
    """A damaged sample."""

    name: str
    seed: str
    data: bytes
    edits: tuple[str, ...] = ()
    """What was done, for people."""


def mutate(seed: Seed, number: int) -> Mutant:
    """Return one of a sample's mutants.

    Most have one edit, some up to four. Every other one of a sample with checksums has them
    repaired, as whoever forges a file does; without that, hardly anything else is reached.
    """
    name = f"{seed.name}/{number}"
    rng = random.Random(name)  # noqa: S311  # no secrets here
    data, edits = bytearray(seed.data), []
    for _ in range(rng.choices((1, 2, 3, 4), (70, 15, 10, 5))[0]):
        (edit,) = rng.choices(list(_EDITS), list(_EDITS.values()))
        edits.append(edit(data, rng))
    whole = bytes(data)
    if seed.checked and number % 2:
        whole, edits = repaired(whole, seed.checked), [*edits, "checksums repaired"]
    return Mutant(name, seed.name, whole, tuple(edits))


def _place(data: bytearray, rng: random.Random) -> int:
    """Choose a byte: of three tries the first that is not zero, since much of a file is padding."""
    tries = [rng.randrange(len(data)) for _ in range(3)]
    return next((place for place in tries if data[place]), tries[0])


def _flip_bit(data: bytearray, rng: random.Random) -> str:
    place, bit = _place(data, rng), rng.randrange(8)
    data[place] ^= 1 << bit
    return f"bit {bit} of byte {place} flipped"


def _set_byte(data: bytearray, rng: random.Random) -> str:
    place, value = _place(data, rng), rng.choice((0, 1, 0x7F, 0x80, 0xFF))
    data[place] = value
    return f"byte {place} set to {value}"


def _set_integer(data: bytearray, rng: random.Random) -> str:
    place, width, size = _place(data, rng), rng.choice((2, 4, 8)), len(data)
    value = rng.choice((0, 2**31, 2**63 - 1, -1, size - 1, size, size + 1, place))
    order = "big" if data.startswith(b"CDF") else "little"
    raw = (value % 2 ** (8 * width)).to_bytes(width, order)
    data[place : place + width] = raw[: size - place]
    return f"{width} bytes at {place} set to {value}"


def _truncate(data: bytearray, rng: random.Random) -> str:
    size = rng.randrange(1, len(data)) if len(data) > 1 else 1
    del data[size:]
    return f"cut off at {size}"


def _splice(data: bytearray, rng: random.Random) -> str:
    """Copy a piece to another place: over what is there, or between."""
    length = min(rng.choice((4, 8, 16, 64, 256)), len(data))
    start, place = rng.randrange(len(data) - length + 1), rng.randrange(len(data))
    stop = place + (length if rng.random() < 0.75 else 0)
    data[place:stop] = data[start : start + length]
    return f"{length} bytes of {start} put {'over' if stop > place else 'in at'} {place}"


_EDITS: dict[Callable[[bytearray, random.Random], str], int] = {
    _flip_bit: 40,
    _set_byte: 20,
    _set_integer: 25,
    _truncate: 8,
    _splice: 7,
}
"""Shares in percent."""
