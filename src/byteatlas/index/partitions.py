"""The partitions of a Parquet index: fetched when they are needed, once, and kept while they fit.

Decoded partitions are numpy columns, some 13 bytes per reference.
"""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from threading import Lock
from typing import Any, NamedTuple, TypeAlias
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from byteatlas.errors import ByteatlasError, Inconsistent, Malformed, SourceMissing
from byteatlas.index.parquet_identity import OTHER_BYTES, check_index, explained
from byteatlas.index.parquet_layout import (
    PartitionTable,
    bytes_digest,
    member_url,
    partition_name,
)
from byteatlas.index.parquet_partition import (
    Rows,
    decode_partition,
    lengths_of,
    require_pyarrow,
)
from byteatlas.index.reference_columns import ReferenceColumns
from byteatlas.index.source_table import GrowingSources, SourceTable
from byteatlas.limits import Limits
from byteatlas.model import WHOLE, Buffer, ByteRange, Source
from byteatlas.sources import Policy, loop, open_source
from byteatlas.sources.credentials import Options, options_for
from byteatlas.sources.urls import is_chained, scheme_of

__all__ = ["INLINED", "VIRTUAL", "Partition", "PartitionedArray", "Partitions"]

VIRTUAL, INLINED = 1, 2
_HELD = 128 * 2**20
"""Bytes of decoded partitions that are kept."""
_ABSENT = 200
"""Bytes that remembering an absent one takes."""
_TOGETHER = 64
"""Partitions that are fetched in one round."""


class Partition(NamedTuple):
    """The references of one partition, as a manifest has them."""

    kind: NDArray[np.uint8] | None
    """0 for a missing chunk, `VIRTUAL` or `INLINED`, shape (rows,); None: all are virtual."""
    offset: NDArray[np.uint64]
    """First byte of each virtual chunk, shape (rows,)."""
    length: NDArray[np.unsignedinteger[Any]]
    """Number of bytes; `WHOLE` only where the type is uint64, shape (rows,)."""
    source: NDArray[np.unsignedinteger[Any]] | None
    """Position in the table of sources, shape (rows,); None means all 0."""
    encoding: NDArray[np.uint8] | None
    """Position in the array's table of encodings, shape (rows,)."""
    digest: NDArray[np.uint64] | None
    """Digest of each chunk, shape (rows,)."""
    inline: Mapping[int, bytes]
    """Row to the bytes of an inlined chunk."""

    @property
    def nbytes(self) -> int:
        """Bytes of memory, all but exactly."""
        columns = (self.kind, self.offset, self.length, self.source, self.encoding, self.digest)
        inlined = sum(map(len, self.inline.values())) + 200 * len(self.inline)
        return inlined + sum(column.nbytes for column in columns if column is not None)


@dataclass(frozen=True, slots=True, eq=False)
class PartitionedArray:
    """What finding the chunks of one array takes."""

    path: str
    cells: int
    """Number of chunks in the grid."""
    encodings: int
    """Length of the array's table of encodings."""
    table: PartitionTable | None
    """What the index knows of the partitions; None where another program wrote it."""
    filled: tuple[int, ...] = ()
    """Flat indices of chunks that are inlined, but missing in the source."""


_Key: TypeAlias = tuple[str, int]
_Pending: TypeAlias = "Future[Partition | None]"


class Partitions:
    """Loads the partitions of one index; of any thread, and picklable.

    Parameters
    ----------
    root
        URL of the index.
    record_size
        References in one partition.
    sources
        The table that references point into.
    storage_options
        How to reach the index. (Any: each protocol's own.)
    limits
        How much a partition may hold.
    origin
        `.zmetadata` as it was seen when the index was opened; None where nobody saw it.
    """

    def __init__(
        self,
        root: str,
        record_size: int,
        sources: SourceTable,
        storage_options: Options,
        limits: Limits,
        origin: Source | None = None,
    ) -> None:
        self.root = root
        self.record_size = record_size
        self.sources = sources
        self.limits = limits
        self._storage_options = storage_options
        self._origin = origin
        self._lock = Lock()
        self._turns: dict[str, Lock] = {}
        self._pending: dict[_Key, _Pending] = {}
        self._held: OrderedDict[_Key, tuple[Partition | None, int]] = OrderedDict()
        self._held_bytes = 0
        _ALIVE.add(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return Partitions, (
            self.root,
            self.record_size,
            self.sources,
            self._storage_options,
            self.limits,
            self._origin,
        )

    def renew(self) -> None:
        """Forget what other threads are about, in a child that has none of them."""
        self._lock = Lock()
        self._turns, self._pending = {}, {}
        self._held_bytes = sum(size for _, size in self._held.values())
        if isinstance(self.sources, GrowingSources):
            self.sources.renew()

    def turn_of(self, path: str) -> Lock:
        """Return the lock under which all of an array's partitions are loaded, by one thread."""
        return self._turns.setdefault(path, Lock())

    def load(self, array: PartitionedArray, numbers: Sequence[int]) -> list[Partition | None]:
        """Return partitions of an array; None for one that holds no chunk.

        Those that are not held are fetched in one round, however many threads ask for them.

        Raises
        ------
        SourceError
            A partition that the index has cannot be read, or the index is gone, or another.
        Inconsistent
            It is not the one that was written.
        Malformed
            It is no such partition; the error names it and the array.
        NotAllowed
            It names a source that the index may not have.
        """
        found: dict[int, Partition | None] = {}
        left = list(numbers)
        while left:
            mine, others = self._claim(array, left, found)
            if mine:
                found |= self._load_claimed(array, mine)
            left = []
            for number, pending in others.items():
                try:
                    found[number] = pending.result()
                except CancelledError:  # whoever fetched it was interrupted
                    left.append(number)
        return [found[number] for number in numbers]

    def _claim(
        self, array: PartitionedArray, numbers: Sequence[int], found: dict[int, Partition | None]
    ) -> tuple[dict[int, _Pending], dict[int, _Pending]]:
        """Put what is held into `found`; return what the caller must load, and what others do."""
        mine: dict[int, _Pending] = {}
        others: dict[int, _Pending] = {}
        with self._lock:
            for number in numbers:
                key = (array.path, number)
                if key in self._held:
                    self._held.move_to_end(key)
                    found[number] = self._held[key][0]
                elif key in self._pending:
                    others[number] = self._pending[key]
                else:
                    mine[number] = self._pending[key] = Future()
        return mine, others

    def _load_claimed(
        self, array: PartitionedArray, claimed: dict[int, _Pending]
    ) -> dict[int, Partition | None]:
        loaded: dict[int, Partition | None] = {}
        numbers = list(claimed)
        try:
            for start in range(0, len(numbers), _TOGETHER):
                together = numbers[start : start + _TOGETHER]
                for number, data in zip(together, self._fetch(array, together), strict=True):
                    partition = None if data is None else self._decode(array, number, data)
                    loaded[number] = partition
                    self._hold((array.path, number), partition)
                    claimed[number].set_result(partition)
        except ByteatlasError as error:
            for number in numbers[len(loaded) :]:
                claimed[number].set_exception(error)
            raise
        finally:
            with self._lock:
                for number in numbers:
                    del self._pending[array.path, number]
            for number in numbers[len(loaded) :]:
                claimed[number].cancel()  # does nothing to what is done
        return loaded

    def _hold(self, key: _Key, partition: Partition | None) -> None:
        size = _ABSENT if partition is None else partition.nbytes
        with self._lock:
            self._held[key] = (partition, size)
            self._held_bytes += size
            while self._held_bytes > _HELD and len(self._held) > 1:
                _, (_, gone) = self._held.popitem(last=False)
                self._held_bytes -= gone

    def _url(self, array: PartitionedArray, number: int) -> str:
        return member_url(self.root, partition_name(array.path, number))

    def _fetch(self, array: PartitionedArray, numbers: Sequence[int]) -> list[Buffer | None]:
        """Fetch partitions in one round; None for one that the index does not have."""
        require_pyarrow()
        wanted: dict[int, int | None] = {}
        for number in numbers:
            if array.table is None:
                wanted[number] = None
            elif known := array.table.find(number):
                wanted[number] = known[0]
                self._check_size(known[0], array, number)
        urls = [self._url(array, number) for number in wanted]
        answers = self._read(urls, list(wanted.values()))
        if array.table is None and wanted:  # after: what was read was the opened index's till then
            check_index(self.root, self._origin, self._storage_options)
        found: dict[int, Buffer | None] = {}
        for number, url, answer in zip(wanted, urls, answers, strict=True):
            if isinstance(answer, SourceMissing) and array.table is None:
                found[number] = None
            elif isinstance(answer, ByteatlasError):
                raise self._told(array, answer.at(url=url, path=array.path))
            elif isinstance(answer, BaseException):
                raise answer
            else:
                found[number] = answer
        return [found.get(number) for number in numbers]

    def _told(self, array: PartitionedArray, error: ByteatlasError) -> ByteatlasError:
        if array.table is None:
            return error
        return explained(error, self.root, self._origin, self._storage_options)

    def _check_size(self, size: int, array: PartitionedArray, number: int) -> None:
        try:
            self.limits.check("index", size, "a partition")
        except ByteatlasError as error:
            raise error.at(url=self._url(array, number), path=array.path) from None

    def _read(
        self, urls: Sequence[str], sizes: Sequence[int | None]
    ) -> Sequence[Buffer | BaseException]:
        policy = Policy(max_rest=self.limits.index)
        opened = [
            open_source(
                url,
                storage_options=options_for(url, self._storage_options),
                expected=None if size is None else Source(url, size=size),
                policy=policy,
            )
            for url, size in zip(urls, sizes, strict=True)
        ]

        def read_here(position: int) -> Buffer | ByteatlasError:
            source, size = opened[position], sizes[position]
            try:
                if size is not None:
                    return source.read([ByteRange(0, size)])[0]
                head = source.read_head(self.limits.index)
                self.limits.check("index", source.facts.size or 0, "a partition")
            except ByteatlasError as error:
                return error
            return head

        async def read_there() -> list[Buffer | BaseException]:
            return await asyncio.gather(
                *(
                    source.aread_range(0, WHOLE if size is None else size)
                    for source, size in zip(opened, sizes, strict=True)
                ),
                return_exceptions=True,
            )

        try:
            if is_chained(self.root) or scheme_of(self.root) not in ("", "file", "local"):
                return loop.call(read_there()) if opened else []
            return [read_here(position) for position in range(len(opened))]
        finally:
            for source in opened:
                source.close()

    def _decode(self, array: PartitionedArray, number: int, data: Buffer) -> Partition:
        url = self._url(array, number)
        try:
            known = array.table and array.table.find(number)
            if known and bytes_digest(data) != known[1]:
                other = Inconsistent(OTHER_BYTES, url=url, path=array.path)
                raise self._told(array, other)
            first = number * self.record_size
            count = min(self.record_size, array.cells - first)
            extra = array.table.columns if array.table else ()
            rows = decode_partition(data, count, extra, self.limits)
            if array.filled:
                _drop(rows, [flat - first for flat in array.filled])
            return self._partition(array, rows)
        except ByteatlasError as error:
            if isinstance(error, Malformed) and error.url is not None:
                # Of a reference: it names the source; say which partition has it.
                error.problem = f"{error.problem} (in {partition_name(array.path, number)})"
            raise error.at(url=url, path=array.path) from error.__cause__

    def _partition(self, array: PartitionedArray, rows: Rows) -> Partition:
        length = lengths_of(rows)
        is_virtual = rows.url >= 0
        inline = {}
        for row, data in rows.raw.items():
            if data or not is_virtual[row] or rows.offset[row] or rows.size[row]:
                inline[row] = data
                is_virtual[row] = False
        some = slice(None) if is_virtual.all() else np.flatnonzero(is_virtual)
        offset = rows.offset.astype(np.uint64)
        used = self.sources.positions(
            ReferenceColumns(rows.urls, rows.url[some].astype(np.intp), offset[some], length[some])
        )
        if rows.encoding is not None and rows.encoding[some].max(initial=0) >= array.encodings:
            raise Malformed("the encoding column does not fit the array")
        source = None
        if used.any():
            source = np.zeros(offset.size, np.min_scalar_type(int(used.max())))
            source[some] = used
        kind = None
        if not is_virtual.all():
            kind = is_virtual.astype(np.uint8)
            kind[list(inline)] = INLINED
        is_short = not length.size or int(length.max()) < 2**32
        return Partition(
            kind,
            offset,
            length.astype(np.uint32) if is_short else length,
            source,
            rows.encoding,
            rows.digest,
            inline,
        )


_ALIVE: WeakSet[Partitions] = WeakSet()


def _after_fork() -> None:
    for partitions in list(_ALIVE):
        partitions.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _drop(rows: Rows, filled: Sequence[int]) -> None:
    """Take out chunks that are inlined for other readers' sake."""
    for row in filled:
        rows.raw.pop(row, None)
