"""The keys of an index, and the bytes behind each: what the Zarr store and the filesystem serve.

A key is one of three things: a metadata document, a chunk that is inlined, or a chunk that is a
byte range of a source. Chunk keys are never listed in memory: a key is taken apart by arithmetic
and looked up in the manifest's columns.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import ujson
from numpy.typing import NDArray

from byteatlas.codecs import encoding_prefix
from byteatlas.errors import ByteatlasError
from byteatlas.heap import Heap, heap_of
from byteatlas.index import zarr_v2, zarr_v3
from byteatlas.index.chunk_keys import ChunkKeys
from byteatlas.index.zarr_metadata import zarr_metadata
from byteatlas.limits import Limits
from byteatlas.model import WHOLE, Buffer, ByteRange, ChunkManifest, VirtualArray, VirtualGroup
from byteatlas.read.digests import check_digests
from byteatlas.read.reader import Reader
from byteatlas.store.gathering import Gathering
from byteatlas.store.strings import (
    Pointing,
    as_served,
    look_up,
    missing_chunk,
    serves_missing,
)

__all__ = ["Answer", "Contents", "Slice"]

Answer: TypeAlias = Buffer | ByteatlasError | None
"""The bytes of a key, the error of its source, or None where the index lacks the key."""

_BLOCK = 2**16
"""Chunk keys are spelled so many at a time."""


class Slice(NamedTuple):
    """Some bytes of a key's value, as in Python: a negative start counts from the end."""

    key: str
    start: int = 0
    stop: int | None = None


class _Chunk(NamedTuple):
    """The value of a chunk key: a prefix, and then either bytes or a byte range of a source."""

    path: str
    prefix: bytes
    inline: bytes | None = None
    source: int = 0
    offset: int = 0
    length: int = 0
    encoding: int = 0
    flat: int = 0
    """Its flat index in the chunk grid."""
    points: tuple[VirtualArray, Heap] | None = None
    """Set where the bytes are heap IDs, and the value is the strings that they point to."""
    digest: int | None = None
    """Of its bytes in the source, which then are fetched whole; None: not sealed."""


class _Keyed(NamedTuple):
    """An array, and how its chunk keys are spelled."""

    array: VirtualArray
    keys: ChunkKeys
    is_prefixed: bool
    heap: Heap | None
    """Where its strings are, if its chunks only point to them."""
    serves_missing: bool
    """Chunks are served for those that are missing (`missing_chunk`)."""


class Contents:
    """Everything an index serves under Zarr keys.

    Only a key that the index lacks has no value. A source that is missing, changed or denied is
    an error of its own, from every method that needs its bytes.

    Parameters
    ----------
    group
        The root.
    zarr_format
        Version of Zarr whose keys and metadata are served.
    storage_options
        How to reach the sources, in the words of fsspec.
    limits
        How large a chunk may be.
    """

    def __init__(
        self,
        group: VirtualGroup,
        zarr_format: Literal[2, 3] = 2,
        storage_options: Mapping[str, Any] | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.group = group
        self.zarr_format: Literal[2, 3] = zarr_format
        self.reader = Reader(group.sources, storage_options, limits)
        self.documents: dict[str, bytes] = {
            key: ujson.dumps(value, escape_forward_slashes=False, ensure_ascii=False).encode()
            for key, value in zarr_metadata(as_served(group), zarr_format).items()
        }
        version = zarr_v2 if zarr_format == 2 else zarr_v3
        self._arrays: dict[str, _Keyed] = {}
        for path, array in group.walk_arrays():
            keys, heap = version.chunk_keys(path.lstrip("/")), heap_of(array)
            several = zarr_v2.is_prefixed(array) if zarr_format == 2 else len(array.encodings) > 1
            self._arrays[path.lstrip("/")] = _Keyed(
                array, keys, several and heap is None, heap, serves_missing(array)
            )
        self._gathering = Gathering(self.get_many)

    def __reduce__(self) -> tuple[Any, ...]:
        options = self.reader.storage_options, self.reader.limits
        return Contents, (self.group, self.zarr_format, *options)

    def __eq__(self, other: object) -> bool:
        if self is other or not isinstance(other, Contents):
            return self is other
        pairs = zip(self.group.walk_arrays(), other.group.walk_arrays(), strict=False)
        return (
            self.documents == other.documents
            and self.group.sources == other.group.sources
            and all(_is_same(mine.manifest, theirs.manifest) for (_, mine), (_, theirs) in pairs)
        )

    __hash__ = None  # type: ignore[assignment]  # compared by value, and large

    # Lookup

    def __contains__(self, key: str) -> bool:
        return key in self.documents or self._chunk(key) is not None

    async def size(self, key: str) -> int | None:
        """Return the number of bytes under a key, None where the index lacks it.

        No source is asked, unless the index says neither its size nor where a chunk ends, or the
        chunk's strings have to be looked up.
        """
        document = self.documents.get(key)
        if document is not None:
            return len(document)
        chunk = self._chunk(key)
        return None if chunk is None else await self._size(chunk)

    async def _size(self, chunk: _Chunk) -> int:
        if chunk.points is not None:
            (value,) = await self._look_up(chunk.source, [chunk])
            if isinstance(value, ByteatlasError):
                raise value
            return len(value)
        if chunk.inline is not None:
            return len(chunk.prefix) + len(chunk.inline)
        if chunk.length != WHOLE:
            return len(chunk.prefix) + chunk.length
        source = self.reader.source(chunk.source)
        size = source.facts.size
        if size is None:
            size = (await asyncio.to_thread(source.stat)).size
        return len(chunk.prefix) + max((size or 0) - chunk.offset, 0)

    def _owner(self, key: str) -> _Keyed | None:
        """Return the array that a key would be a chunk of."""
        if self.zarr_format == 2:
            return self._arrays.get(key.rpartition("/")[0])
        return self._arrays.get(f"{key}/".rpartition("/c/")[0])

    def _chunk(self, key: str) -> _Chunk | None:
        keyed = self._owner(key)
        if keyed is None:
            return None
        array, keys, is_prefixed, heap, is_full = keyed
        points = None if heap is None else (array, heap)
        manifest = array.manifest
        flat = _flat_index(key, keys, manifest.grid_shape)
        if flat is None:
            return None
        path = "/" + keys.scalar.rpartition("/")[0]
        row = int(manifest.rows(np.array([flat]))[0])
        by = 0 if row < 0 or manifest.encoding is None else int(manifest.encoding[row])
        prefix = encoding_prefix(by) if is_prefixed else b""
        if row < 0:
            data = manifest.inline.get(flat)
            if data is None:
                if not is_full:
                    return None
                return _Chunk(path, prefix, missing_chunk(array, self.reader.limits))
            return _Chunk(path, prefix, data, flat=flat, points=points)
        source = 0 if manifest.source is None else int(manifest.source[row])
        offset, length = int(manifest.offset[row]), int(manifest.length[row])
        digest = None if manifest.digest is None else int(manifest.digest[row])
        return _Chunk(path, prefix, None, source, offset, length, by, flat, points, digest)

    # Listing

    @cached_property
    def _children(self) -> dict[str, dict[str, bool]]:
        """Directory to the names in it, and whether each is a directory; chunks aside."""
        children: dict[str, dict[str, bool]] = {"": {}}
        for key in self.documents:
            parent, _, name = key.rpartition("/")
            children.setdefault(parent, {})[name] = False
            while parent:
                parent, _, name = parent.rpartition("/")
                children.setdefault(parent, {})[name] = True
        return children

    def names(self, directory: str) -> Iterator[tuple[str, bool]]:
        """Yield the names in a directory, and whether each is a directory itself."""
        yield from self._children.get(directory, {}).items()
        if self.zarr_format == 2:
            if directory in self._arrays:
                array, keys, *_ = self._arrays[directory]
                lead = len(keys.lead)
                yield from ((key[lead:], False) for key in _chunk_keys(array.manifest, keys))
        elif directory in self._arrays:
            manifest = self._arrays[directory].array.manifest
            if manifest.present_count:
                yield "c", bool(manifest.grid_shape)
        elif keyed := self._owner(directory):
            yield from _numbers_below(directory, keyed.keys, keyed.array.manifest)

    def is_directory(self, path: str) -> bool:
        """Tell whether any key lies below a path."""
        return path in self._children or next(self.names(path), None) is not None

    def keys(self, prefix: str = "") -> Iterator[str]:
        """Yield the keys that begin with a prefix: metadata first, then chunks, lazily."""
        yield from (key for key in list(self.documents) if key.startswith(prefix))
        for array, keys, *_ in self._arrays.values():
            if keys.scalar.startswith(prefix) or prefix.startswith(keys.lead[: len(prefix)]):
                chunks = _chunk_keys(array.manifest, keys)
                yield from (key for key in chunks if key.startswith(prefix))

    # Bytes

    async def get(self, wanted: Slice) -> Buffer | None:
        """Return bytes of one key, None where the index lacks the key.

        What is asked at the same time in one event loop is answered as one batch, so that an
        array library that asks for chunks one by one still sends few requests.

        Raises
        ------
        SourceError
            The bytes of a source could not be had.
        """
        return await self._gathering.ask(wanted)

    async def get_many(self, wanted: Sequence[Slice]) -> list[Answer]:
        """Return bytes of many keys: neighbouring ranges of a source become one request.

        Returns
        -------
        list
            For each, in order: the bytes, None where the index lacks the key, or the error of
            its source.
        """
        answers: list[Answer] = [None] * len(wanted)
        fetches: dict[int, list[_Fetch]] = {}
        pointing: dict[int, list[_Fetch]] = {}
        for position, (key, start, stop) in enumerate(wanted):
            document = self.documents.get(key)
            try:
                chunk = None if document is not None else self._chunk(key)
            except ByteatlasError as error:
                answers[position] = error
                continue
            if chunk is None:
                answers[position] = None if document is None else document[start:stop]
            elif chunk.points is not None:
                pointing.setdefault(chunk.source, []).append(_Fetch(position, chunk, start, stop))
            elif chunk.inline is not None:
                answers[position] = (chunk.prefix + chunk.inline)[start:stop]
            else:
                fetches.setdefault(chunk.source, []).append(_Fetch(position, chunk, start, stop))

        async def fetch_from(source: int, several: list[_Fetch]) -> None:
            values: Sequence[Answer]
            try:
                values = await self._fetch(source, several)
            except ByteatlasError as error:
                values = [error.at(path=several[0].chunk.path)] * len(several)
            for one, value in zip(several, values, strict=True):
                answers[one.position] = value

        async def fetch_strings(source: int, several: list[_Fetch]) -> None:
            values = await self._look_up(source, [one.chunk for one in several])
            for (position, _, start, stop), value in zip(several, values, strict=True):
                answers[position] = value[start:stop] if isinstance(value, bytes) else value

        await asyncio.gather(
            *(fetch_from(*item) for item in fetches.items()),
            *(fetch_strings(*item) for item in pointing.items()),
        )
        return answers

    async def _look_up(
        self, source: int, chunks: Sequence[_Chunk]
    ) -> Sequence[bytes | ByteatlasError]:
        """Return the strings that chunks of one source point to, encoded, or the error of each."""
        virtual = [
            _Fetch(0, one._replace(points=None), 0, None) for one in chunks if one.inline is None
        ]
        try:
            bodies = iter(await self._fetch(source, virtual))
        except ByteatlasError as error:
            return [error.at(path=chunks[0].path)] * len(chunks)
        pointing = []
        for chunk in chunks:
            assert chunk.points is not None
            offset = chunk.offset if chunk.inline is None else None
            data = next(bodies) if chunk.inline is None else chunk.inline
            array, heap = chunk.points
            pointing.append(
                Pointing(array, heap, data, chunk.encoding, chunk.path, chunk.flat, offset)
            )
        return await look_up(pointing, self.reader.source(source))

    async def _fetch(self, source: int, several: Sequence[_Fetch]) -> Sequence[Buffer]:
        """Fetch parts of chunks that lie in one source, in one round."""
        opened = self.reader.source(source)
        if len(several) == 1 and several[0].is_whole and several[0].chunk.length == WHOLE:
            chunk = several[0].chunk  # its size need not be known
            await asyncio.to_thread(self.reader.check_rest, source, chunk.offset)
            rest = await opened.aread_range(chunk.offset, WHOLE)
            _check_sealed(several, [rest], opened.url)
            return [chunk.prefix + bytes(rest) if chunk.prefix else rest]
        parts = [one.part(await self._size(one.chunk)) for one in several]
        self.reader.limits.check(
            "chunk", max((span.length for _, span, _ in parts), default=0), "a chunk"
        )
        bodies = await opened.aread([span for _, span, _ in parts])
        _check_sealed(several, bodies, opened.url)
        return [
            head + bytes(body[wanted]) if head else body[wanted]
            for (head, _, wanted), body in zip(parts, bodies, strict=True)
        ]


class _Fetch(NamedTuple):
    """A part of a chunk that is to be fetched."""

    position: int
    chunk: _Chunk
    start: int
    stop: int | None

    @property
    def is_whole(self) -> bool:
        return self.start == 0 and self.stop is None

    def part(self, size: int) -> tuple[bytes, ByteRange, slice]:
        """Return what is wanted of the prefix, what to fetch, and what is wanted of that.

        A chunk that is sealed is fetched whole.
        """
        prefix = self.chunk.prefix
        span = range(size)[self.start : self.stop]
        head = prefix[span.start : span.stop]
        skipped = max(span.start - len(prefix), 0)
        count = len(span) - len(head)
        if self.chunk.digest is None:
            return head, ByteRange(self.chunk.offset + skipped, count), slice(None)
        whole = ByteRange(self.chunk.offset, size - len(prefix))
        return head, whole, slice(skipped, skipped + count)


def _check_sealed(several: Sequence[_Fetch], bodies: Sequence[Buffer], url: str) -> None:
    """Compare the chunks among what was fetched that have a digest with it."""
    sealed = [
        (one.chunk, body)
        for one, body in zip(several, bodies, strict=True)
        if one.chunk.digest is not None
    ]
    if sealed:
        chunks = [chunk for chunk, _ in sealed]
        expected = np.array([chunk.digest for chunk in chunks], np.uint64)
        try:
            check_digests([body for _, body in sealed], expected, [one.offset for one in chunks])
        except ByteatlasError as error:
            raise error.at(url=url) from None


def _flat_index(key: str, keys: ChunkKeys, grid: tuple[int, ...]) -> int | None:
    """Return the flat index of the chunk that a key names, None when it names none."""
    if not grid:
        return 0 if key == keys.scalar else None
    numbers = _numbers(key.removeprefix(keys.lead).split(keys.separator), grid)
    if numbers is None or len(numbers) != len(grid) or not key.startswith(keys.lead):
        return None
    flat = 0
    for number, size in zip(numbers, grid, strict=True):
        flat = flat * size + number
    return flat


def _numbers(parts: Sequence[str], grid: tuple[int, ...]) -> list[int] | None:
    """Return coordinates in a grid from text, None unless they are spelled as in a key."""
    if len(parts) > len(grid):
        return None
    for part, size in zip(parts, grid, strict=False):
        # more digits than the size has cannot be in the grid, and may be very many
        if not (part.isascii() and part.isdigit() and len(part) <= len(str(size))):
            return None
        if (part[0] == "0" and part != "0") or int(part) >= size:
            return None
    return list(map(int, parts))


def _chunk_keys(manifest: ChunkManifest, keys: ChunkKeys) -> Iterator[str]:
    """Spell the keys of all chunks that a manifest has, a block at a time."""
    if not manifest.grid_shape:
        yield from [keys.scalar] * manifest.present_count
        return
    inline = np.fromiter(manifest.inline, np.uint64, len(manifest.inline))
    for column in (manifest.index, inline):
        count = manifest.virtual_count if column is None else column.size
        for start in range(0, count, _BLOCK):
            stop = min(start + _BLOCK, count)
            flat = np.arange(start, stop) if column is None else column[start:stop].astype(np.int64)
            chunks = np.transpose(np.unravel_index(flat, manifest.grid_shape))
            yield from map(keys.key, chunks.tolist())


def _numbers_below(
    directory: str, keys: ChunkKeys, manifest: ChunkManifest
) -> Iterator[tuple[str, bool]]:
    """Yield the next numbers of keys that begin with those in a directory such as ``a/c/0``."""
    grid = manifest.grid_shape
    parts = f"{directory}/".removeprefix(keys.lead).split("/")[:-1]
    numbers = _numbers(parts, grid)
    if numbers is None or len(numbers) == len(grid):
        return
    depth = len(numbers)
    stride = math.prod(grid[depth + 1 :])
    low = 0
    for number, size in zip(numbers, grid, strict=False):
        low = low * size + number
    low *= grid[depth] * stride
    here = _present(manifest, low, low + grid[depth] * stride)
    for number in np.unique((here - low) // stride).tolist():
        yield str(number), depth + 1 < len(grid)


def _present(manifest: ChunkManifest, low: int, high: int) -> NDArray[np.int64]:
    """Return the flat indices of chunks, virtual or inlined, from `low` up to `high`."""
    if manifest.index is None:
        return np.arange(low, high)
    first, last = np.searchsorted(manifest.index, np.array([low, high], np.uint64))
    inlined = [flat for flat in manifest.inline if low <= flat < high]
    return np.append(manifest.index[first:last].astype(np.int64), np.array(inlined, np.int64))


def _is_same(one: ChunkManifest, other: ChunkManifest) -> bool:
    if one.inline != other.inline:
        return False
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("offset", "length", "index", "source", "encoding", "digest")
    )
