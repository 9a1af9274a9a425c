"""A source in memory, for driving parsers in tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from byteatlas.errors import ShortRead
from byteatlas.model import Buffer, ByteRange, Request

__all__ = ["MemoryReader"]


class MemoryReader:
    """Answers batches of requests out of a bytes object, and counts what is asked for.

    Attributes
    ----------
    data : the bytes of the source.
    rounds : number of batches answered.
    requests : number of byte ranges answered.
    bytes_read : number of bytes handed out.

    Examples
    --------
    >>> reader = MemoryReader(b"0123456789")
    >>> [bytes(buffer) for buffer in reader.read([ByteRange(2, 3)])]
    [b'234']
    >>> reader.rounds, reader.requests, reader.bytes_read
    (1, 1, 3)
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.rounds = 0
        self.requests = 0
        self.bytes_read = 0

    def read(self, batch: Sequence[Request]) -> list[Buffer]:
        """Return one buffer per request, each of exactly the length asked for.

        Raises
        ------
        ShortRead
            A range reaches past the end.
        """
        self.rounds += 1
        return [self._answer(request) for request in batch]

    async def aread(self, batch: Sequence[Request]) -> list[Buffer]:
        """Do as `read`."""
        return self.read(batch)

    def _answer(self, request: Request) -> Buffer:
        if isinstance(request, ByteRange):
            offset, length = request
            self._count(1, offset, length)
            return memoryview(self.data)[offset : offset + length]
        self._count(request.offsets.size, int(request.offsets.max(initial=0)), request.length)
        within = np.arange(request.length, dtype=np.uint64)
        answer: NDArray[np.uint8] = np.frombuffer(self.data, np.uint8)[
            request.offsets[:, np.newaxis] + within
        ]
        return answer

    def _count(self, ranges: int, last: int, length: int) -> None:
        if last < 0 or length < 0 or last + length > len(self.data):
            raise ShortRead(f"the source ends at byte {len(self.data)}", offset=last, length=length)
        self.requests += ranges
        self.bytes_read += ranges * length
