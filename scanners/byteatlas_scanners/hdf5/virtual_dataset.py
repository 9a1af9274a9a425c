"""Virtual datasets: lists of mappings from other datasets (HDF5 File Format 3.0, III.F).

A mapping shows a selection of a source dataset as a selection of the virtual one. Where the
virtual selection is unlimited, the extents follow from the sources: from how far one goes, or
with ``%b`` in a name, from how many there are, numbered from 0.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from byteatlas.errors import Malformed, Unsupported
from byteatlas.model import VirtualArray
from byteatlas_scanners.hdf5.checksum import verify
from byteatlas_scanners.hdf5.dataset import fill_value_of
from byteatlas_scanners.hdf5.selection import Regular, Selection, parse_selection
from byteatlas_scanners.mosaic import Part, Runs, put_together

if TYPE_CHECKING:
    from byteatlas.steps import Steps
    from byteatlas_scanners.hdf5.dataset import DatasetHeader
    from byteatlas_scanners.hdf5.file import Hdf5File
    from byteatlas_scanners.hdf5.global_heap import GlobalHeap
    from byteatlas_scanners.hdf5.layout import Virtual

__all__ = ["Key", "Lacking", "Look", "VirtualDataset", "read_mappings", "virtual_array"]

MAX_MAPPINGS = 2**16
MAX_RUNS = 2**22
"""Runs of positions along single axes, of all mappings."""
MAX_BLOCKS = 20_000
"""Sources that one name with %b stands for."""
FIRST_BLOCKS = 16
"""So many of them are looked for at first, then twice as many each time."""

# Flags of a mapping in lists of version 1, as libhdf5 2.0 writes them: names that an earlier
# mapping holds are given by its number, and that of the file itself is left out.
SAME_NAME, SAME_DATASET, SAME_FILE = 1, 2, 4

_SUBSTITUTE = re.compile("%[b%]")

Key: TypeAlias = tuple[str, str]
"""File and path of a source dataset; the file is "" for the one that the virtual dataset is in."""


class Lacking(NamedTuple):
    """A source dataset that cannot be had."""

    reason: str
    is_missing: bool = False
    """There is no such file, or no such dataset in it."""


Look: TypeAlias = Callable[[Key], VirtualArray | Lacking | None]
"""Gives a source dataset; None for one that was not asked for yet."""


class Mapping(NamedTuple):
    """A selection of a source dataset that is shown as a selection of the virtual one."""

    file: str
    dataset: str
    taken: Selection
    placed: Selection

    @property
    def is_numbered(self) -> bool:
        """Tell whether the names stand for a sequence of sources."""
        return "%b" in _SUBSTITUTE.findall(self.file) + _SUBSTITUTE.findall(self.dataset)

    @property
    def unlimited_axis(self) -> int | None:
        """The axis along which the virtual selection is unlimited."""
        return _unlimited(self.placed)

    def key(self, number: int = 0) -> Key:
        """Return which dataset is the source, or the one of a number."""

        def substitute(name: str) -> str:
            return _SUBSTITUTE.sub(lambda one: "%" if one[0] == "%%" else str(number), name)

        file = substitute(self.file)
        return "" if file == "." else file, substitute(self.dataset)


class VirtualDataset(NamedTuple):
    """The mappings of a virtual dataset."""

    mappings: tuple[Mapping, ...]

    def unknown(self, look: Look) -> Iterator[Key]:
        """Yield the sources that must be asked for next; none when all are known."""
        for mapping in self.mappings:
            if not mapping.is_numbered:
                if look(mapping.key()) is None:
                    yield mapping.key()
                continue
            known, wanted = _found(mapping, look), FIRST_BLOCKS
            if known is not None:
                continue
            while wanted < MAX_BLOCKS and look(mapping.key(wanted - 1)) is not None:
                wanted *= 2
            for number in range(wanted):
                if look(mapping.key(number)) is None:
                    yield mapping.key(number)


def _unlimited(selection: Selection) -> int | None:
    if not isinstance(selection, tuple):
        return None
    axes = [
        axis for axis, one in enumerate(selection) if isinstance(one, Regular) and one.is_unlimited
    ]
    if len(axes) > 1:
        raise Malformed("a selection that is unlimited along several axes")
    return axes[0] if axes else None


def _found(mapping: Mapping, look: Look) -> int | None:
    """Return how many sources of a numbered mapping there are; None while that is not known."""
    for number in range(MAX_BLOCKS):
        source = look(mapping.key(number))
        if source is None:
            return None
        if isinstance(source, Lacking):
            if not source.is_missing:
                raise Unsupported(source.reason)
            return number
    raise Unsupported(f"more than {MAX_BLOCKS} sources named {mapping.file!r}")


def read_mappings(file: Hdf5File, heap: GlobalHeap, layout: Virtual) -> Steps[VirtualDataset]:
    """Read the list of mappings of a virtual dataset: one round, or two.

    Raises
    ------
    Unsupported
        A selection is of a kind that is refused.
    Malformed
        The list is damaged.
    """
    if layout.address is None:
        return VirtualDataset(())
    yield from heap.load([layout.address])
    block = heap.value(layout.address, layout.number)
    offset = file.base + layout.address
    version = block[0]
    if version not in (0, 1):
        raise Unsupported(f"a list of mappings of version {version}", offset=offset)
    verify(block, "list of mappings", offset)
    count = file.length_at(block, 1)
    if count > MAX_MAPPINGS:
        raise Unsupported(f"{count} mappings, at most {MAX_MAPPINGS} are read")
    position = 1 + file.length_size
    mappings: list[Mapping] = []
    for _ in range(count):
        flags = block[position] if version else 0
        position += version
        name, dataset = ".", ""
        if flags & SAME_NAME:
            name = mappings[file.length_at(block, position)].file
            position += file.length_size
        elif not flags & SAME_FILE:
            name, position = _text(block, position)
        if flags & SAME_DATASET:
            dataset = mappings[file.length_at(block, position)].dataset
            position += file.length_size
        else:
            dataset, position = _text(block, position)
        taken, position = parse_selection(block, position)
        placed, position = parse_selection(block, position)
        mappings.append(Mapping(name, dataset, taken, placed))
    return VirtualDataset(tuple(mappings))


def _text(block: memoryview, position: int) -> tuple[str, int]:
    window = bytes(block[position : position + 4096])
    end = window.find(b"\0")
    if end < 0:
        raise Malformed("a name without end in a list of mappings")
    try:
        return window[:end].decode("utf-8"), position + end + 1
    except UnicodeDecodeError:
        raise Unsupported(f"a source named {window[:end]!r}, not in UTF-8") from None


def virtual_array(
    header: DatasetHeader, dataset: VirtualDataset, look: Look, max_chunk: int
) -> VirtualArray:
    """Return a virtual dataset as the chunks of its sources.

    Where a source is missing, libhdf5 reads the fill value. Here the dataset is refused, for it
    may as well be that the source was not copied along.

    Raises
    ------
    Unsupported
        A source cannot be had, or its chunks cannot be chunks of the whole.
    """
    datatype, stored = header.datatype, header.dataspace.shape
    if datatype.is_read_now and not datatype.heap:
        raise Unsupported("a virtual dataset of references, sequences or compounds with text")
    if datatype.is_in_heap and header.fill.value and any(header.fill.value):
        raise Unsupported("a virtual dataset of text with a fill value")
    blocks: list[_Block] = []
    for mapping in dataset.mappings:
        if mapping.taken is not None and mapping.placed is not None:
            blocks += _blocks(mapping, look, len(stored), len(datatype.shape))
    unlimited = {mapping.unlimited_axis for mapping in dataset.mappings}
    shape = _extents(blocks, stored, header.dataspace.max_shape, unlimited)
    parts, room = [], MAX_RUNS
    for block in blocks:
        taken = _runs(block.taken, block.array.shape, block.taken_count)
        placed = _runs(block.placed, shape + datatype.shape, block.placed_count)
        parts.append(Part(block.array, block.name, taken, placed))
        room -= sum(axis.start.size for axis in taken + placed)
        if room < 0:
            raise Unsupported(f"selections of more than {MAX_RUNS} blocks in all")
    if datatype.is_in_heap:
        return put_together(shape, np.dtype(object), "", parts, max_chunk=max_chunk)
    return put_together(
        shape + datatype.shape, datatype.dtype, fill_value_of(header), parts, max_chunk=max_chunk
    )


class _Block(NamedTuple):
    """A mapping of one source."""

    array: VirtualArray
    name: str
    taken: Selection
    taken_count: int | None
    """Number of positions along the axis where it is unlimited."""
    placed: Selection
    placed_count: int | None
    unlimited_axis: int | None
    reach: int
    """Extent of the virtual dataset along its unlimited axis."""


def _blocks(mapping: Mapping, look: Look, rank: int, inner: int) -> Iterator[_Block]:
    """Yield the mapping's sources, one or those of all numbers."""
    placed, taken = mapping.placed, mapping.taken
    axis = mapping.unlimited_axis
    if isinstance(placed, tuple) and len(placed) != rank:
        raise Malformed(f"a mapping of rank {len(placed)} in a dataset of rank {rank}")
    if axis is None:
        if mapping.is_numbered:
            raise Malformed("a name with %b in a mapping that is not unlimited")
        if _unlimited(taken) is not None:
            raise Malformed("an unlimited selection that is shown as a limited one")
        array, name = _source(mapping.key(), look)
        yield _Block(array, name, taken, None, placed, None, None, 0)
        return
    assert isinstance(placed, tuple)
    along = placed[axis]
    assert isinstance(along, Regular)
    unlimited = _unlimited(taken)
    if unlimited is not None and isinstance(taken, tuple):
        if mapping.is_numbered:
            raise Malformed("a name with %b for sources that are unlimited themselves")
        array, name = _source(mapping.key(), look)
        source_axis = taken[unlimited]
        assert isinstance(source_axis, Regular)
        if len(array.shape) != len(taken) + inner:
            raise Unsupported(f"{name} has {len(array.shape)} axes, not those of its mapping")
        count = source_axis.positions_below(array.shape[unlimited])
        if any(0 < count < (one.block or 0) != one.stride for one in (source_axis, along)):
            raise Unsupported(f"{name} ends within the first block of its mapping")
        reach = along.extent_of(count)
        yield _Block(array, name, taken, count, placed, count, axis, reach)
        return
    if not mapping.is_numbered or along.block is None:
        raise Unsupported("an unlimited mapping of a source that is limited")
    for number in range(_found(mapping, look) or 0):
        array, name = _source(mapping.key(number), look)
        start = along.start + number * along.stride
        one = Regular(start, along.stride, 1, along.block)
        here = (*placed[:axis], one, *placed[axis + 1 :])
        yield _Block(array, name, taken, None, here, None, axis, start + along.block)


def _source(key: Key, look: Look) -> tuple[VirtualArray, str]:
    source = look(key)
    assert source is not None  # all were asked for
    if isinstance(source, Lacking):
        raise Unsupported(source.reason)
    return source, f"its source {key[1]!r}" + (f" in {key[0]!r}" if key[0] else "")


def _extents(
    blocks: list[_Block],
    stored: tuple[int, ...],
    limit: tuple[int | None, ...],
    unlimited: set[int | None],
) -> tuple[int, ...]:
    """Return the extents that follow from the sources: up to the last one there is.

    Raises
    ------
    Unsupported
        They are less than when the dataset was written: some source must be missing.
    """
    shape = list(stored)
    for axis, most in enumerate(limit):
        if axis not in unlimited:
            continue
        reaches = [block.reach for block in blocks if block.unlimited_axis == axis]
        fixed = [
            _runs(block.placed, stored, block.placed_count)[axis].stop
            for block in blocks
            if block.unlimited_axis != axis and isinstance(block.placed, tuple)
        ]
        shape[axis] = max(reaches + fixed, default=0)
        if shape[axis] < stored[axis]:
            raise Unsupported(
                f"its sources reach up to {shape[axis]} along axis {axis}, and it was written "
                f"with {stored[axis]}: some may be missing"
            )
        if most is not None and shape[axis] > most:
            raise Unsupported(f"its sources reach beyond its limit of {most} along axis {axis}")
    return tuple(shape)


def _runs(selection: Selection, shape: tuple[int, ...], count: int | None) -> tuple[Runs, ...]:
    """Return a selection as runs along each axis; axes of an array datatype are whole."""
    assert selection is not None
    given: tuple[Runs, ...] = ()
    if isinstance(selection, tuple):
        given = tuple(
            one if isinstance(one, Runs) else one.runs(count if one.is_unlimited else None)
            for one in selection
        )
    rest = tuple(Runs.of(0, n) for n in shape[len(given) :])
    return given + rest
