"""What a source of bytes can do, wherever the bytes are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from byteatlas.model import Buffer, Request, Source
from byteatlas.sources.plan import Span
from byteatlas.sources.trace import Trace

__all__ = ["ByteSource"]


class ByteSource(Protocol):
    """Bytes that are read by ranges. All methods may be called from any thread.

    Every error is a `SourceError` that names the URL, and the offset where there is one. Each
    answer is compared with what was seen of the source before: SourceChanged.
    """

    url: str
    trace: Trace

    @property
    def facts(self) -> Source:
        """The source as its own answers showed it so far; its size is None before the first."""

    def read_head(self, length: int) -> memoryview:
        """Return the first bytes, fewer where the source is shorter, with one request.

        The size of the source is known from then on.
        """

    def read(self, batch: Sequence[Request]) -> list[Buffer]:
        """Return one buffer per request, all read in one round.

        A ByteRange is answered by a read-only buffer of exactly its length, ByteRanges by an
        array of shape (count, length) that the caller owns. Ranges may overlap, be empty and
        come in any order; one that reaches outside the source is a ShortRead, without any
        request where the size is known.
        """

    async def aread(self, batch: Sequence[Request]) -> list[Buffer]:
        """Do as `read`, in any event loop."""

    def read_spans(self, batch: Sequence[Request]) -> tuple[list[Buffer], list[Span]]:
        """Do as `read`, and return also all that was fetched for it, gaps included."""

    async def aread_spans(self, batch: Sequence[Request]) -> tuple[list[Buffer], list[Span]]:
        """Do as `read_spans`, in any event loop."""

    def stream(
        self, offset: NDArray[np.uint64], length: NDArray[np.uint64]
    ) -> Iterator[tuple[int, Buffer]]:
        """Yield (row, bytes) as they arrive, with one request per row and bounded memory.

        A length of `WHOLE` means to the end of the source.
        """

    async def aread_range(self, offset: int, length: int) -> Buffer:
        """Return one range, in any event loop; a length of `WHOLE` means to the end."""

    def stat(self) -> Source:
        """Ask how the source looks now, comparing it with nothing."""

    def close(self) -> None:
        """Release what this source alone holds."""
