"""What byteatlas makes of a file: the scan, its index, and the values read through it."""

from __future__ import annotations

import math
import re
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import byteatlas
from byteatlas.errors import ByteatlasError
from byteatlas.model import VirtualGroup
from byteatlas.read import Reader

__all__ = ["Reading", "corner", "examine"]

_NO_ERROR = re.compile(
    r"^a link back |^a soft link to |^an external link to |^one more link |^groups nested more |"
    r" cannot be a name in a Zarr store"
)
"""What the report says of links and names: they are read, but not followed or not shown."""
LARGEST = 2**18
"""Of an array of more elements, only a corner is read."""


@dataclass(slots=True)
class Reading:
    """What came of one file."""

    values: dict[str, Any] = field(default_factory=dict)
    """By the path of the array (Any: numpy arrays of any type)."""
    attrs: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """By the path of the group or array."""
    refused: dict[str, str] = field(default_factory=dict)
    """What the report lists as skipped, and arrays whose values cannot be read; with the reason."""
    error: str | None = None
    """What ended the scan."""
    errors: int = 0
    located: int = 0
    """How many of the errors name the file, the array where there is one, and a byte."""
    unlocated: list[str] = field(default_factory=list)
    """The others."""
    largest_chunk: int = 0
    """Bytes of the largest chunk that an array read from declares."""


def corner(shape: tuple[int, ...]) -> tuple[slice, ...]:
    """Return the selection that is read of an array: all of it unless it is large."""
    if math.prod(shape) <= LARGEST:
        return tuple(slice(0, n) for n in shape)
    side = max(1, int(LARGEST ** (1 / len(shape))))
    return tuple(slice(0, min(n, side)) for n in shape)


def examine(path: Path, known: Container[str] = (), *, with_index: bool = True) -> Reading:
    """Scan a file, write and read its index, and read every array. Only our errors are caught.

    What is skipped at one of the `known` paths is taken for no error.
    """
    reading = Reading()
    try:
        group = byteatlas.scan(path, engine="native")
    except ByteatlasError as error:
        reading.error = str(error)
        _count_error(reading, error, path, None)
        return reading
    for name, reason in group.report.skipped:
        reading.refused[name] = reason
        if name not in known and not _NO_ERROR.search(reason):
            _count(reading, reason, is_located=bool(re.search(r" at byte \d+", reason)))
    if with_index:
        _check_index(group, reading, path)
    _read(group, reading, path)
    return reading


def _check_index(group: VirtualGroup, reading: Reading, path: Path) -> None:
    index = path.with_name(path.name + ".json")
    try:
        group.to_json(index)
        byteatlas.open_index(index)
    except ByteatlasError as error:
        reading.refused["/"] = f"the index: {error}"
        _count_error(reading, error, path, None)
    finally:
        index.unlink(missing_ok=True)


def _read(group: VirtualGroup, reading: Reading, path: Path) -> None:
    reader = Reader(group.sources)
    for name, here in group.walk():
        reading.attrs[name or "/"] = here.attrs
    for name, array in group.walk_arrays():
        reading.attrs[name] = array.attrs
        nbytes = math.prod(array.chunk_shape) * array.dtype.itemsize
        if array.manifest.present_count:
            reading.largest_chunk = max(reading.largest_chunk, nbytes)
        try:
            reading.values[name] = reader.read(array, corner(array.shape), path=name)
        except ByteatlasError as error:
            reading.refused[name] = str(error)
            _count_error(reading, error, path, name)
    reader.close()


def _count_error(reading: Reading, error: ByteatlasError, path: Path, name: str | None) -> None:
    _count(
        reading,
        str(error),
        is_located=str(error.url).endswith(path.name)
        and (name is None or error.path == name)
        and error.offset is not None
        and f"at byte {error.offset}" in str(error),
    )


def _count(reading: Reading, text: str, *, is_located: bool) -> None:
    reading.errors += 1
    reading.located += is_located
    if not is_located:
        reading.unlocated.append(text)
