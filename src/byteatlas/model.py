"""What a scan yields: byte ranges, sources, codecs, chunk manifests, arrays and groups.

A small closed set of frozen types. Scanners build them, index files store them, readers and
stores serve them. Everything known per chunk is a numpy column, never an object per chunk.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from byteatlas.errors import Inconsistent, Malformed, without_query

if TYPE_CHECKING:
    from byteatlas.read import Cost, Selection
    from byteatlas.sources.guard import Guard

__all__ = [
    "WHOLE",
    "Attribute",
    "Buffer",
    "ByteRange",
    "ByteRanges",
    "ChunkManifest",
    "Codec",
    "Dimension",
    "Encoding",
    "Located",
    "Request",
    "ScanReport",
    "Skipped",
    "Source",
    "VirtualArray",
    "VirtualGroup",
    "as_view",
]

WHOLE = 2**64 - 1
"""In a manifest's length column: from the offset to the end of the source."""

Buffer: TypeAlias = bytes | bytearray | memoryview | NDArray[np.uint8]
"""Bytes handed to a parser. One-dimensional for a ByteRange; for ByteRanges an array of shape
(count, length), C order, that the parser owns."""

Attribute: TypeAlias = str | np.generic | NDArray[Any] | list[str]
"""An attribute's value, typed as netCDF4 gives it: str, numpy scalar, 1-D array or list of str."""


def as_view(buffer: Buffer) -> memoryview:
    """Return one-dimensional bytes as a memoryview, without a copy."""
    return memoryview(buffer)  # type: ignore[arg-type]  # arrays are buffers too


class ByteRange(NamedTuple):
    """The half-open range of bytes [offset, offset + length)."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True, eq=False)
class ByteRanges:
    """Many byte ranges of one length, answered by one array of shape (count, length)."""

    offsets: NDArray[np.uint64]
    """First byte of each range, shape (count,)."""
    length: int
    """Length of every range, in bytes."""


Request: TypeAlias = ByteRange | ByteRanges


@dataclass(frozen=True, slots=True)
class Source:
    """An object holding bytes, and how it looked to the scan's own requests."""

    url: str
    """Where it is. May carry a signed query in memory; `public_url` does not."""
    size: int | None = None
    """Its length in bytes; None when an index does not say."""
    etag: str | None = None
    """The ETag header as received, quotes and a weak mark included; for a local file what its
    file system knows it by (`byteatlas.sources.identity`)."""
    last_modified: str | None = None
    """The Last-Modified header as received, or for a local file its mtime in nanoseconds."""
    guard: Guard | None = field(default=None, compare=False, repr=False)
    """What may be reached for it, where the network names it; kept in memory only."""

    @property
    def public_url(self) -> str:
        """The URL without user info and without its query string."""
        return without_query(self.url)


@dataclass(frozen=True, slots=True)
class Codec:
    """One step of an encoding, named and configured as numcodecs does."""

    name: str
    """numcodecs id, such as ``zlib``, ``shuffle``, ``fletcher32``, ``vlen-utf8``."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """JSON values only. Holds what decoding needs (Any: its shape is the codec's own)."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a chunk's bytes came about: the codecs in the order of encoding."""

    codecs: tuple[Codec, ...] = ()


class Located(NamedTuple):
    """Where some chunks are: columns over those asked for that are virtual, or inlined."""

    virtual: NDArray[np.int64]
    """Positions among the chunks asked for of those that are virtual, ascending, shape (rows,)."""
    offset: NDArray[np.uint64]
    """First byte of each virtual chunk in its source, shape (rows,)."""
    length: NDArray[np.uint64]
    """Number of bytes; `WHOLE` means up to the end of the source, shape (rows,)."""
    source: NDArray[np.uint32] | None
    """Position in the table of sources, shape (rows,); None means all 0."""
    encoding: NDArray[np.uint8] | None
    """Position in the array's table of encodings, shape (rows,); None means all 0."""
    digest: NDArray[np.uint64] | None
    """Digest of each chunk's bytes, shape (rows,); None where they are not sealed."""
    inlined: NDArray[np.int64]
    """Positions among the chunks asked for of those that are inlined, shape (inlined,)."""
    data: list[bytes]
    """The encoded bytes of each inlined chunk."""


@dataclass(frozen=True, slots=True, eq=False)
class ChunkManifest:
    """Where the chunks of one array are: columns over its chunk grid.

    A chunk is *virtual* (a row of the columns), *inlined* (its encoded bytes are in `inline`) or
    *missing* (neither: it reads as the array's fill value, because its source says so).
    """

    grid_shape: tuple[int, ...]
    """Number of chunks along each axis; () for a scalar, which has one chunk."""
    offset: NDArray[np.uint64]
    """First byte in the source, shape (rows,)."""
    length: NDArray[np.uint64]
    """Number of bytes, shape (rows,); `WHOLE` means up to the end of the source."""
    index: NDArray[np.uint64] | None = None
    """Flat chunk index (C order) of each row, ascending without repeats, shape (rows,).
    None when row i is chunk i and no chunk is missing."""
    source: NDArray[np.uint32] | None = None
    """Position in the group's table of sources, shape (rows,); None means all 0."""
    encoding: NDArray[np.uint8] | None = None
    """Position in the array's table of encodings, shape (rows,); None means all 0."""
    inline: Mapping[int, bytes] = field(default_factory=dict)
    """Flat chunk index to chunk bytes, encoded by the array's first encoding."""
    digest: NDArray[np.uint64] | None = None
    """Digest of each row's bytes as they are stored (`byteatlas.read.digests`), shape (rows,);
    None where the chunks are not sealed."""

    @classmethod
    def build(
        cls,
        grid_shape: tuple[int, ...],
        index: NDArray[np.uint64],
        offset: NDArray[np.uint64],
        length: NDArray[np.uint64],
        *,
        source: NDArray[np.uint32] | None = None,
        encoding: NDArray[np.uint8] | None = None,
        inline: Mapping[int, bytes] | None = None,
    ) -> ChunkManifest:
        """Sort rows by chunk index and drop the index where no chunk is missing.

        Raises
        ------
        Malformed
            Two rows have the same chunk index, or one lies outside the grid.
        """
        cells = math.prod(grid_shape)
        if index.size:
            ascending = index[1:] > index[:-1]
            if not ascending.all():
                order = np.argsort(index, kind="stable")
                index, offset, length = index[order], offset[order], length[order]
                source = None if source is None else source[order]
                encoding = None if encoding is None else encoding[order]
                same = np.flatnonzero(index[1:] == index[:-1])
                if same.size:
                    raise Malformed(f"chunk {int(index[same[0]])} is stored twice")
            if int(index[-1]) >= cells:
                raise Malformed(f"chunk {int(index[-1])} lies outside the grid {grid_shape}")
        dense = index.size == cells
        return cls(
            grid_shape=grid_shape,
            index=None if dense else index,
            offset=offset,
            length=length,
            source=source,
            encoding=None if encoding is None or not encoding.any() else encoding,
            inline=dict(inline or {}),
        )

    @classmethod
    def empty(
        cls, grid_shape: tuple[int, ...], inline: Mapping[int, bytes] | None = None
    ) -> ChunkManifest:
        """Return a manifest without a single virtual chunk."""
        nothing = np.empty(0, np.uint64)
        return cls.build(grid_shape, nothing, nothing, nothing, inline=inline)

    @property
    def cells(self) -> int:
        """Number of chunks in the grid, present or not."""
        return math.prod(self.grid_shape)

    @property
    def virtual_count(self) -> int:
        """Number of virtual chunks."""
        return int(self.offset.size)

    @property
    def present_count(self) -> int:
        """Number of chunks that are virtual or inlined."""
        return int(self.offset.size) + len(self.inline)

    @property
    def missing_count(self) -> int:
        """Number of chunks that read as the fill value."""
        return self.cells - self.present_count

    @property
    def is_sealed(self) -> bool:
        """Whether each chunk has a digest."""
        return self.digest is not None

    def locate(self, flat: NDArray[np.int64]) -> Located:
        """Find chunks by their flat indices: what is neither virtual nor inlined is missing.

        Parameters
        ----------
        flat
            Flat chunk indices (C order) inside the grid, in any order, shape (n,).
        """
        row = self.rows(flat)
        virtual = np.flatnonzero(row >= 0)
        inlined, data = virtual[:0], list[bytes]()
        if virtual.size != row.size:
            row = row[virtual]
            if self.inline:
                left = np.setdiff1d(np.arange(flat.size), virtual, assume_unique=True)
                kept = np.fromiter(self.inline, np.int64, len(self.inline))
                inlined = left[np.isin(flat[left], kept)]
                data = list(map(self.inline.__getitem__, flat[inlined].tolist()))
        return Located(
            virtual,
            self.offset[row],
            self.length[row],
            None if self.source is None else self.source[row],
            None if self.encoding is None else self.encoding[row],
            None if self.digest is None else self.digest[row],
            inlined,
            data,
        )

    def rows(self, flat: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the row of each flat chunk index, or -1 where the chunk is not virtual."""
        if self.index is None:
            return flat
        if not self.index.size:
            return np.full(flat.shape, -1, np.int64)
        wanted = flat.astype(np.uint64)
        row = np.minimum(np.searchsorted(self.index, wanted), self.index.size - 1)
        return np.where(self.index[row] == wanted, row, -1)


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class VirtualArray:
    """One array: its meaning, how its chunks are encoded, and where they are."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    """Type of the decoded values, byte order included; object for variable-length strings."""
    chunk_shape: tuple[int, ...]
    """Shape of every chunk, edge chunks included (they are padded)."""
    manifest: ChunkManifest
    encodings: tuple[Encoding, ...] = (Encoding(),)
    """The manifest's encoding column points here; where there is one, all chunks agree."""
    fill_value: Any = None
    """Value of missing chunks, a numpy scalar of `dtype` (str for object); None when the source
    defines none. Not CF's ``_FillValue``, which is an attribute. (Any: follows dtype.)"""
    dimensions: tuple[str, ...] = ()
    """A name for each axis."""
    attrs: Mapping[str, Attribute] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
    """What Zarr has no word for, as JSON values: ``enum`` (name to value) and the like."""

    def __post_init__(self) -> None:
        grid = tuple(-(-n // c) for n, c in zip(self.shape, self.chunk_shape, strict=True))
        if grid != self.manifest.grid_shape:
            raise Inconsistent(f"chunk grid {self.manifest.grid_shape}, but the shapes give {grid}")

    def __repr__(self) -> str:
        return _displayed(self, "text")

    def _repr_html_(self) -> str:
        return _displayed(self, "html")

    @property
    def nbytes(self) -> int:
        """Size of the decoded values, in bytes (8 per variable-length string)."""
        return math.prod(self.shape) * self.dtype.itemsize


def _displayed(item: VirtualArray | VirtualGroup, kind: Literal["text", "html"]) -> str:
    from byteatlas import display  # noqa: PLC0415  # it is made of these types

    return display.text(item) if kind == "text" else display.html(item)


class Dimension(NamedTuple):
    """A named axis of a group."""

    size: int
    is_unlimited: bool = False


class Skipped(NamedTuple):
    """A variable, attribute or group that the index does not hold, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class ScanReport:
    """How a scan went: by what, what it left out, and what it cost."""

    scanner: str = ""
    version: str = ""
    skipped: tuple[Skipped, ...] = ()
    rounds: int = 0
    """Dependent round trips."""
    requests: int = 0
    bytes_read: int = 0


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class VirtualGroup:
    """A group of arrays and groups; the root is what a scan returns and an index holds."""

    attrs: Mapping[str, Attribute] = field(default_factory=dict)
    dimensions: Mapping[str, Dimension] = field(default_factory=dict)
    """Dimensions defined in this group, with or without a coordinate variable."""
    arrays: Mapping[str, VirtualArray] = field(default_factory=dict)
    groups: Mapping[str, VirtualGroup] = field(default_factory=dict)
    sources: Sequence[Source] = ()
    """The table that manifests point into; the same for all groups of one tree. A tuple, but of
    another program's Parquet index: there sources join it as references are read."""
    report: ScanReport = field(default_factory=ScanReport)

    def __getitem__(self, path: str) -> VirtualGroup | VirtualArray:
        """Return the array or group at a path such as ``"forecast/temp"``."""
        here: VirtualGroup = self
        parts = [part for part in path.split("/") if part]
        for position, part in enumerate(parts):
            if part in here.arrays and position == len(parts) - 1:
                return here.arrays[part]
            if part not in here.groups:
                raise KeyError(path)
            here = here.groups[part]
        return replace(here, sources=self.sources, report=self.report)

    def to_json(
        self,
        path: str | PathLike[str],
        *,
        zarr_format: Literal[2, 3] = 2,
        keep_query: bool = False,
        storage_options: Mapping[str, Any] | None = None,
        if_unchanged: str | None = None,
    ) -> None:
        """Write the group as an index file; see `byteatlas.index.write_json`."""
        from byteatlas.index import write_json  # noqa: PLC0415  # to the right

        write_json(
            self,
            path,
            zarr_format=zarr_format,
            keep_query=keep_query,
            storage_options=storage_options,
            if_unchanged=if_unchanged,
        )

    def cost(self, path: str, selection: Selection = ...) -> Cost:
        """Count what reading an array, or a selection of it, would take; nothing is read.

        Parameters
        ----------
        path
            Of the array, such as ``"forecast/temp"``.
        selection
            As for `byteatlas.read.Reader.read`: integers, slices, an ellipsis, and
            one-dimensional arrays, each for its own axis.

        Raises
        ------
        KeyError
            There is no such array.
        IndexError
            The selection does not fit the array.
        LimitExceeded
            It takes more than a read may by default.

        Examples
        --------
        >>> print(group.cost("sst", (0, slice(10, 20))))          # doctest: +SKIP
        1 request; 31.1 kB fetched; 1 chunk of 1 source; 64.8 kB decoded
        """
        from byteatlas.read import Reader  # noqa: PLC0415  # to the right

        array = self[path]
        if not isinstance(array, VirtualArray):
            raise KeyError(path)
        return Reader(self.sources).cost(array, selection, path=path)

    def to_parquet(
        self,
        path: str | PathLike[str],
        *,
        record_size: int | None = None,
        keep_query: bool = False,
        storage_options: Mapping[str, Any] | None = None,
        if_unchanged: str | None = None,
    ) -> None:
        """Write the group as a Parquet index; see `byteatlas.index.write_parquet`."""
        from byteatlas.index import write_parquet  # noqa: PLC0415  # as in to_json

        write_parquet(
            self,
            path,
            record_size=record_size,
            keep_query=keep_query,
            storage_options=storage_options,
            if_unchanged=if_unchanged,
        )

    def __repr__(self) -> str:
        return _displayed(self, "text")

    def _repr_html_(self) -> str:
        return _displayed(self, "html")

    def walk(self, path: str = "") -> Iterator[tuple[str, VirtualGroup]]:
        """Yield each group with its path ("" for the root, else "/a/b"), parents first."""
        waiting = [(path, self)]
        while waiting:
            here, group = waiting.pop()
            yield here, group
            waiting += [(f"{here}/{name}", child) for name, child in group.groups.items()][::-1]

    def walk_arrays(self) -> Iterator[tuple[str, VirtualArray]]:
        """Yield each array of the tree with its path, such as "/a/temp"."""
        for path, group in self.walk():
            for name, array in group.arrays.items():
                yield f"{path}/{name}", array
