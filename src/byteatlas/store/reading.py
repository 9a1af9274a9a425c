"""Read selections of arrays for event loops: what is asked at the same time is one read."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

from numpy.typing import NDArray

from byteatlas.errors import ByteatlasError
from byteatlas.model import VirtualArray
from byteatlas.read.reader import Reader
from byteatlas.read.selection import Selection
from byteatlas.store.gathering import Gathering

__all__ = ["Reading", "Wanted"]


class Wanted(NamedTuple):
    """A selection of an array, and where its values go."""

    array: VirtualArray
    selection: Selection
    path: str
    """Of the array, for error messages."""
    out: NDArray[Any]
    """Shaped as the selection asks; of a data type that values of the array's can be put into."""


class Reading:
    """Reads selections by a reader, in threads, so that no event loop waits.

    Parameters
    ----------
    reader
        Of the sources that the arrays point into.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._gathering = Gathering(self._answer)

    async def read(self, wanted: Wanted) -> None:
        """Read a selection into its place.

        Raises
        ------
        ByteatlasError
            As `Reader.read`.
        """
        await self._gathering.ask(wanted)

    async def _answer(self, several: Sequence[Wanted]) -> list[ByteatlasError | None]:
        try:
            await asyncio.to_thread(self._read_all, several)
        except ByteatlasError as error:
            if len(several) == 1:
                return [error]
            # the error of one is not that of the others
            return [answer for one in several for answer in await self._answer([one])]
        return [None] * len(several)

    def _read_all(self, several: Sequence[Wanted]) -> None:
        self._reader.read_many(
            [(one.array, one.selection, one.path) for one in several],
            out=[one.out for one in several],
        )
