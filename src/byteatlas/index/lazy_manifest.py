"""A manifest that finds chunks in the partitions of a Parquet index, when it is asked for them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byteatlas.errors import Inconsistent
from byteatlas.index.partitions import INLINED, VIRTUAL, Partition, PartitionedArray, Partitions
from byteatlas.index.source_table import GrowingSources
from byteatlas.model import ChunkManifest, Located, Source, VirtualGroup

__all__ = ["LazyManifest", "check_table", "lazy_manifest", "loaded", "with_all_sources"]

_TOGETHER = 16


class LazyManifest(ChunkManifest):
    """A manifest whose columns are in a Parquet index; of any thread, and picklable.

    `locate` loads the partitions that it needs. Every column, taken whole, loads all of them,
    once. The counts are known without that where byteatlas wrote the index. With other fields, as
    `dataclasses.replace` makes it, it becomes a `ChunkManifest` that has everything in memory.
    """

    __slots__ = ("_array", "_partitions", "_whole")

    _array: PartitionedArray
    _partitions: Partitions
    _whole: ChunkManifest | None

    def __new__(cls, *columns: Any, **named: Any) -> ChunkManifest:  # type: ignore[misc]  # replace
        """Return a manifest of columns, which is no lazy one."""
        return ChunkManifest(*columns, **named) if columns or named else object.__new__(cls)

    def __reduce__(self) -> tuple[Any, ...]:
        return lazy_manifest, (self.grid_shape, self._array, self._partitions)

    @property
    def offset(self) -> NDArray[np.uint64]:
        """First byte in the source, shape (rows,)."""
        return self.whole().offset

    @property
    def length(self) -> NDArray[np.uint64]:
        """Number of bytes, shape (rows,)."""
        return self.whole().length

    @property
    def index(self) -> NDArray[np.uint64] | None:
        """Flat chunk index of each row, shape (rows,); None when row i is chunk i."""
        return self.whole().index

    @property
    def source(self) -> NDArray[np.uint32] | None:
        """Position in the table of sources, shape (rows,); None means all 0."""
        return self.whole().source

    @property
    def encoding(self) -> NDArray[np.uint8] | None:
        """Position in the table of encodings, shape (rows,); None means all 0."""
        table = self._array.table
        if table is None or "encoding" not in table.columns:
            return None
        return self.whole().encoding

    @property
    def digest(self) -> NDArray[np.uint64] | None:
        """Digest of each row's bytes, shape (rows,); None where they are not sealed."""
        return self.whole().digest if self.is_sealed else None

    @property
    def inline(self) -> Mapping[int, bytes]:
        """Flat chunk index to the bytes of an inlined chunk."""
        table = self._array.table
        return {} if table is not None and not table.inlined else self.whole().inline

    @property
    def is_sealed(self) -> bool:
        """Whether each chunk has a digest."""
        return self._array.table is not None and "digest" in self._array.table.columns

    @property
    def virtual_count(self) -> int:
        """Number of virtual chunks."""
        table = self._array.table
        return self.whole().virtual_count if table is None else table.present - table.inlined

    @property
    def present_count(self) -> int:
        """Number of chunks that are virtual or inlined."""
        table = self._array.table
        return self.whole().present_count if table is None else table.present

    def locate(self, flat: NDArray[np.int64]) -> Located:
        """Find chunks by their flat indices, loading the partitions that hold them.

        Raises
        ------
        SourceError, Malformed, Inconsistent, NotAllowed
            A partition cannot be had, or is not what it should be; the error names it.
        """
        number, row = np.divmod(flat, self._partitions.record_size)
        if not number.size:
            return _gathered(flat, [], [])
        if int(number.min()) == int(number.max()):
            numbers, places = number[:1], [np.arange(flat.size)]
        else:
            order = np.argsort(number, kind="stable")
            numbers, first = np.unique(number[order], return_index=True)
            places = np.split(order, first[1:])
        parts = self._partitions.load(self._array, numbers.tolist())
        return _gathered(row, parts, places)

    def points_into(self, sources: Sequence[Source]) -> bool:
        """Tell whether a table is the one that sources join as partitions are loaded."""
        table = self._partitions.sources
        return not isinstance(table, GrowingSources) or table is sources

    def whole(self) -> ChunkManifest:
        """Return the manifest with all its columns in memory.

        Raises
        ------
        SourceError, Malformed, Inconsistent, NotAllowed
            As for `locate`, of any partition.
        LimitExceeded
            Another program's index has more chunks than its keys may be.
        """
        with self._partitions.turn_of(self._array.path):
            if self._whole is None:
                whole = self._load_whole()
                object.__setattr__(self, "_whole", whole)
                return whole
            return self._whole

    def _load_whole(self) -> ChunkManifest:
        table, size = self._array.table, self._partitions.record_size
        if table is None:
            self._partitions.limits.check("keys", self._array.cells, "the number of its chunks")
            numbers = range(-(-self._array.cells // size))
        else:
            numbers = table.number.tolist()
        columns: list[Located] = []
        indices: list[NDArray[np.int64]] = []
        inline: dict[int, bytes] = {}
        for start in range(0, len(numbers), _TOGETHER):
            together = numbers[start : start + _TOGETHER]
            parts = self._partitions.load(self._array, together)
            for number, part in zip(together, parts, strict=True):
                if part is None:
                    continue
                found = _gathered(
                    np.arange(part.offset.size), [part], [np.arange(part.offset.size)]
                )
                columns.append(found)
                indices.append(found.virtual + number * size)
                inline |= {number * size + row: data for row, data in part.inline.items()}
        whole = self._joined(columns, indices, inline)
        known = None if table is None else (table.present - table.inlined, table.inlined)
        if known not in (None, (whole.virtual_count, len(inline))):
            raise Inconsistent(
                f"the index holds {whole.virtual_count} virtual and {len(inline)} inlined chunks,"
                " but was written with others",
                url=self._partitions.root,
                path=self._array.path,
            )
        return whole

    def _joined(
        self,
        columns: list[Located],
        indices: list[NDArray[np.int64]],
        inline: Mapping[int, bytes],
    ) -> ChunkManifest:
        def joined(name: str) -> Any:  # each column its own type
            given = [getattr(part, name) for part in columns]
            if all(column is None for column in given):
                return None
            zeros = (np.zeros(part.virtual.size, np.uint32) for part in columns)
            pairs = zip(given, zeros, strict=True)
            return np.concatenate([zero if column is None else column for column, zero in pairs])

        nothing = np.empty(0, np.uint64)
        index = np.concatenate([nothing, *indices]).astype(np.uint64)
        has_encoding = self._array.table is not None and "encoding" in self._array.table.columns
        return ChunkManifest(
            grid_shape=self.grid_shape,
            offset=joined("offset") if columns else nothing,
            length=joined("length") if columns else nothing,
            index=None if index.size == self._array.cells else index,
            source=joined("source"),
            encoding=(joined("encoding") if columns else nothing.astype(np.uint8))
            if has_encoding
            else None,
            inline=inline,
            digest=(joined("digest") if columns else nothing) if self.is_sealed else None,
        )


def lazy_manifest(
    grid_shape: tuple[int, ...], array: PartitionedArray, partitions: Partitions
) -> LazyManifest:
    """Return the manifest of an array in a Parquet index; nothing is read."""
    assert math.prod(grid_shape) == array.cells
    manifest = object.__new__(LazyManifest)
    fields = {"grid_shape": grid_shape, "_array": array, "_partitions": partitions}
    for name, value in {**fields, "_whole": None}.items():
        object.__setattr__(manifest, name, value)
    return manifest


def check_table(manifest: ChunkManifest, sources: Sequence[Source]) -> None:
    """Refuse a manifest that adds its sources to another table than this.

    Raises
    ------
    Inconsistent
        It does: it is of another index, or came from another process than the table.
    """
    if isinstance(manifest, LazyManifest) and not manifest.points_into(sources):
        raise Inconsistent("the array points into the sources of another index")


def loaded(group: VirtualGroup) -> VirtualGroup:
    """Return a group that has all its references in memory, and knows all its sources."""

    def whole(part: VirtualGroup) -> VirtualGroup:
        arrays = {
            name: replace(array, manifest=array.manifest.whole())
            if isinstance(array.manifest, LazyManifest)
            else array
            for name, array in part.arrays.items()
        }
        groups = {name: whole(child) for name, child in part.groups.items()}
        return replace(part, arrays=arrays, groups=groups)

    return replace(whole(group), sources=tuple(group.sources))


def with_all_sources(group: VirtualGroup) -> VirtualGroup:
    """Return a group that knows all its sources, having read all references if it must for that."""
    return loaded(group) if isinstance(group.sources, GrowingSources) else group


def _gathered(
    row: NDArray[np.int64], parts: list[Partition | None], places: list[NDArray[np.intp]]
) -> Located:
    """Look rows up in partitions; `places` are the positions in `row` that each partition has."""
    kind = np.zeros(row.size, np.uint8)
    inline: dict[int, bytes] = {}
    some = [(part, place) for part, place in zip(parts, places, strict=True) if part is not None]
    for part, place in some:
        kind[place] = VIRTUAL if part.kind is None else part.kind[row[place]]
        if part.inline:
            mine = place[kind[place] == INLINED]
            kept = map(part.inline.__getitem__, row[mine].tolist())
            inline |= dict(zip(mine.tolist(), kept, strict=True))
    virtual = np.flatnonzero(kind == VIRTUAL)
    is_virtual = None if virtual.size == row.size else kind == VIRTUAL

    def column(name: str, dtype: Any) -> Any:  # each column its own type
        given = [getattr(part, name) for part, _ in some]
        if all(one is None for one in given):
            return None
        found = np.zeros(row.size, dtype)
        for one, (_, place) in zip(given, some, strict=True):
            if one is not None:
                found[place] = one[row[place]]
        return found if is_virtual is None else found[is_virtual]

    nothing = np.empty(0, np.uint64)
    return Located(
        virtual,
        column("offset", np.uint64) if some else nothing,
        column("length", np.uint64) if some else nothing,
        column("source", np.uint32),
        column("encoding", np.uint8),
        column("digest", np.uint64),
        np.array(sorted(inline), np.int64),
        [inline[position] for position in sorted(inline)],
    )
