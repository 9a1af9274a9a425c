"""Files with paged space: their metadata lies in pages of its own, which are read whole.

HDF5 File Format 3.0, IV.A.2.x ("The File Space Info Message"), strategy "page". One page holds
many structures, so that the rounds that follow find what they need at hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from byteatlas.model import ByteRange, as_view

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from byteatlas.model import Buffer, Request
    from byteatlas.steps import Steps
    from byteatlas_scanners.hdf5.file import Hdf5File

__all__ = ["LARGEST_PAGE", "LEAST_PAGE", "by_pages"]

T = TypeVar("T")

LEAST_PAGE, LARGEST_PAGE = 512, 2**24
"""Files of other pages are read like those without."""
LEAST = 2**16
"""Of small pages several are read as one: a round trip costs more than so many bytes."""
WORTH = 2**24
"""Of more bytes of pages at least an eighth must be asked for: values that are read to be inlined
may lie in a page each."""
KEPT = 2**26
"""Bytes of pages that are kept, and that are asked for at once."""


def by_pages(parser: Steps[T], file: Hdf5File) -> Steps[T]:
    """Run a parser on whole pages: it is given what it asks for out of those.

    What does not lie in one page, such as a large chunk, is asked for as it is. The parser goes
    on without a round while all it asks for is at hand.
    """
    pages = _Pages(file)
    try:
        asked = next(parser)
        while True:
            asked = parser.send((yield from _answer(pages, asked)))
    except StopIteration as stop:
        result: T = stop.value
        return result


def _answer(pages: _Pages, batch: Sequence[Request]) -> Steps[Sequence[Buffer]]:
    """Answer one batch out of pages; read those that are not at hand, in one round."""
    places = [pages.numbers_of(request) for request in batch]
    needed = {number for numbers in places if numbers is not None for number in numbers}
    missing = sorted(needed - pages.kept.keys())
    if len(needed) * pages.length > KEPT or not _is_worth(len(missing) * pages.length, batch):
        return (yield batch)
    as_they_are = [
        request for request, numbers in zip(batch, places, strict=True) if numbers is None
    ]
    replies: Sequence[Buffer] = ()
    if missing or as_they_are:
        replies = yield [*map(pages.range_of, missing), *as_they_are]
    pages.keep(dict(zip(missing, map(as_view, replies[: len(missing)]), strict=True)), needed)
    rest = iter(replies[len(missing) :])
    return [
        next(rest) if numbers is None else pages.cut(request, numbers)
        for request, numbers in zip(batch, places, strict=True)
    ]


def _is_worth(nbytes: int, batch: Sequence[Request]) -> bool:
    """Tell whether so many bytes of pages should be read for a batch."""
    asked = sum(
        request.length * (1 if isinstance(request, ByteRange) else request.offsets.size)
        for request in batch
    )
    return nbytes <= WORTH or nbytes <= 8 * asked


class _Pages:
    """The pages that were read. A page here is one or several of the file's."""

    def __init__(self, file: Hdf5File) -> None:
        self._base, self._size = file.base, file.size
        self.length = file.page_size * -(-LEAST // file.page_size)
        self.kept: dict[int, memoryview] = {}

    def range_of(self, number: int) -> ByteRange:
        """Return where a page is; the last may be cut short."""
        start = self._base + number * self.length
        return ByteRange(start, min(self.length, self._size - start))

    def numbers_of(self, request: Request) -> set[int] | None:
        """Return the pages that hold what a request asks for, or None if it spans two."""
        if not isinstance(request, ByteRange):
            if (self._within(request.offsets) + request.length > self.length).any():
                return None
            return set(np.unique(self._each(request.offsets)).tolist())
        number, within = divmod(request.offset - self._base, self.length)
        return None if number < 0 or within + request.length > self.length else {number}

    def keep(self, pages: dict[int, memoryview], needed: set[int]) -> None:
        """Keep pages; when they become too many, those that are not needed go."""
        if (len(self.kept) + len(pages)) * self.length > KEPT:
            self.kept = {number: self.kept[number] for number in needed & self.kept.keys()}
        self.kept.update(pages)

    def cut(self, request: Request, numbers: set[int]) -> Buffer:
        """Return what a request asks for out of pages that are kept."""
        if isinstance(request, ByteRange):
            (number,) = numbers
            start = request.offset - self.range_of(number).offset
            return self.kept[number][start : start + request.length]
        each, within = self._each(request.offsets), self._within(request.offsets)
        rows = np.empty((each.size, request.length), np.uint8)
        for number in numbers:
            here = np.flatnonzero(each == number)
            page = np.frombuffer(self.kept[number], np.uint8)
            rows[here] = page[within[here][:, None] + np.arange(request.length)]
        return rows

    def _each(self, offsets: NDArray[np.uint64]) -> NDArray[np.int64]:
        number: NDArray[np.int64] = (offsets.astype(np.int64) - self._base) // self.length
        return number

    def _within(self, offsets: NDArray[np.uint64]) -> NDArray[np.int64]:
        within: NDArray[np.int64] = (offsets.astype(np.int64) - self._base) % self.length
        return within
