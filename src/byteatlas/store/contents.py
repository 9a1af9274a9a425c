"""The keys of an index, and the bytes behind each: what the Zarr store and the filesystem serve.

A key is one of three things: a metadata document, a chunk that is inlined, or a chunk that is a
byte range of a source. Chunk keys are never listed in memory: those that are asked for together
are taken apart by arithmetic, and looked up in the manifests' columns array by array.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import ujson

from byteatlas.codecs import encoding_prefix
from byteatlas.errors import ByteatlasError
from byteatlas.heap import heap_of
from byteatlas.index import zarr_v2, zarr_v3
from byteatlas.index.zarr_metadata import zarr_metadata
from byteatlas.limits import Limits
from byteatlas.model import Buffer, VirtualGroup
from byteatlas.read.filled import OnError
from byteatlas.read.reader import Reader
from byteatlas.sources.chunk_cache_option import CacheOption
from byteatlas.store.fetching import (
    PREFIX,
    Part,
    Ranges,
    apart,
    fetch,
    resolved_lengths,
    row_of,
)
from byteatlas.store.gathering import Gathering, together
from byteatlas.store.keys import chunk_keys, numbers_below
from byteatlas.store.lookup import Found, Keyed, find, is_same, may_read, named, pointing_chunks
from byteatlas.store.reading import Reading
from byteatlas.store.strings import as_served, look_up, missing_chunk, serves_missing

__all__ = ["Answer", "Contents", "Slice"]

Answer: TypeAlias = Buffer | ByteatlasError | None
"""The bytes of a key, the error of its source, or None where the index lacks the key."""

_FAR = 2**62
"""No value is so long."""


class Slice(NamedTuple):
    """Some bytes of a key's value, as in Python: a negative start counts from the end."""

    key: str
    start: int = 0
    stop: int | None = None


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
    on_error
        What `reading` does with chunks that cannot be read, see `Reader`.
    cache
        Where to keep bytes that were fetched, see `Reader`.
    """

    def __init__(
        self,
        group: VirtualGroup,
        zarr_format: Literal[2, 3] = 2,
        storage_options: Mapping[str, Any] | None = None,
        limits: Limits | None = None,
        on_error: OnError = "raise",
        cache: CacheOption = None,
    ) -> None:
        self.group = group
        self.zarr_format: Literal[2, 3] = zarr_format
        self.reader = Reader(group.sources, storage_options, limits, on_error=on_error, cache=cache)
        self.documents: dict[str, bytes] = {
            key: ujson.dumps(value, escape_forward_slashes=False, ensure_ascii=False).encode()
            for key, value in zarr_metadata(as_served(group), zarr_format).items()
        }
        version = zarr_v2 if zarr_format == 2 else zarr_v3
        self._arrays: dict[str, Keyed] = {}
        for path, array in group.walk_arrays():
            keys, heap = version.chunk_keys(path.lstrip("/")), heap_of(array)
            several = zarr_v2.is_prefixed(array) if zarr_format == 2 else len(array.encodings) > 1
            self._arrays[path.lstrip("/")] = Keyed(
                path, array, keys, several and heap is None, heap, serves_missing(array)
            )
        self.reading = Reading(self.reader)
        self._gathering = Gathering(self.get_many)

    def __reduce__(self) -> tuple[Any, ...]:
        reader = self.reader
        options = reader.storage_options, reader.limits, reader.on_error, reader.cache
        return Contents, (self.group, self.zarr_format, *options)

    def __eq__(self, other: object) -> bool:
        if self is other or not isinstance(other, Contents):
            return self is other
        pairs = zip(self.group.walk_arrays(), other.group.walk_arrays(), strict=False)
        return (
            self.documents == other.documents
            and all(is_same(mine.manifest, theirs.manifest) for (_, mine), (_, theirs) in pairs)
            and list(self.group.sources) == list(other.group.sources)  # which manifests may add to
        )

    __hash__ = None  # type: ignore[assignment]  # compared by value, and large

    # Lookup

    def home(self, key: str) -> str:
        """Return the path, without a slash in front, of the array that a key may be a chunk of."""
        if self.zarr_format == 2:
            return key.rpartition("/")[0]
        return f"{key}/".rpartition("/c/")[0]

    async def find(self, keys: Sequence[str]) -> Found | None:
        """Find the chunks that keys name; None unless all are keys of one array."""
        found = await self._found(self.home(keys[0]), keys, range(len(keys)))
        return found if found is not None and found.flat.size == len(keys) else None

    def __contains__(self, key: str) -> bool:
        if key in self.documents:
            return True
        keyed = self._arrays.get(self.home(key))
        return keyed is not None and find(keyed, [key], [0]).has_all

    async def has(self, key: str) -> bool:
        """Tell whether the index has a key; no source is asked."""
        if key in self.documents:
            return True
        found = await self._found(self.home(key), [key], [0])
        return found is not None and found.has_all

    async def size(self, key: str) -> int | None:
        """Return the number of bytes under a key, as `sizes` does."""
        (size,) = await self.sizes([key])
        return size

    async def sizes(self, keys: Sequence[str]) -> list[int | None]:
        """Return the number of bytes under each key, None where the index lacks it.

        No source is asked, unless the index says neither its size nor where a chunk ends, or the
        chunks' strings have to be looked up.

        Raises
        ------
        SourceError
            A source that has to be asked could not be.
        """
        sizes: list[int | None] = [None] * len(keys)
        asked: dict[str, list[int]] = {}
        for place, key in enumerate(keys):
            document = self.documents.get(key)
            if document is None:
                asked.setdefault(self.home(key), []).append(place)
            else:
                sizes[place] = len(document)
        for home, places in asked.items():
            found = await self._found(home, [keys[place] for place in places], places)
            if found is not None and found.keyed.heap is None:
                await self._add_sizes(found, sizes)
            elif found is not None:
                values = await self.get_many([Slice(keys[place]) for place in places])
                for place, value in zip(places, values, strict=True):
                    if isinstance(value, ByteatlasError):
                        raise value
                    sizes[place] = None if value is None else len(value)
        return sizes

    async def _add_sizes(self, found: Found, sizes: list[int | None]) -> None:
        lead = PREFIX * found.keyed.is_prefixed
        for position, data in zip(found.located.inlined.tolist(), found.located.data, strict=True):
            sizes[int(found.place[position])] = lead + len(data)
        ranges = found.ranges
        for source in np.unique(ranges.source).tolist():
            mine = ranges.take(np.flatnonzero(ranges.source == source))
            lengths = lead + await resolved_lengths(self.reader, source, mine)
            for place, length in zip(mine.place.tolist(), lengths.tolist(), strict=True):
                sizes[place] = length

    async def _found(self, home: str, keys: Sequence[str], places: Sequence[int]) -> Found | None:
        """Find chunks, in a thread where a manifest may have to be read first."""
        keyed = self._arrays.get(home)
        if keyed is None:
            return None
        if may_read(keyed.array.manifest):
            return await asyncio.to_thread(find, keyed, keys, places)
        return find(keyed, keys, places)

    # Listing

    async def load(self, path: str, *, is_deep: bool) -> None:
        """Have read what listing a path needs of manifests, without holding up the event loop."""
        for home, keyed in self._arrays.items():
            is_needed = f"{path}/".startswith(f"{home}/") or (is_deep and home.startswith(path))
            if is_needed and may_read(keyed.array.manifest):
                await asyncio.to_thread(getattr, keyed.array.manifest, "offset")

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
        keyed = self._arrays.get(directory)
        if self.zarr_format == 2:
            if keyed is not None:
                lead = len(keyed.keys.lead)
                chunks = chunk_keys(keyed.array.manifest, keyed.keys)
                yield from ((key[lead:], False) for key in chunks)
        elif keyed is not None:
            manifest = keyed.array.manifest
            if manifest.present_count:
                yield "c", bool(manifest.grid_shape)
        elif owner := self._arrays.get(self.home(directory)):
            yield from numbers_below(directory, owner.keys, owner.array.manifest)

    def is_directory(self, path: str) -> bool:
        """Tell whether any key lies below a path."""
        return path in self._children or next(self.names(path), None) is not None

    def keys(self, prefix: str = "") -> Iterator[str]:
        """Yield the keys that begin with a prefix: metadata first, then chunks, lazily."""
        yield from (key for key in list(self.documents) if key.startswith(prefix))
        for _, array, keys, *_ in self._arrays.values():
            if keys.scalar.startswith(prefix) or prefix.startswith(keys.lead[: len(prefix)]):
                chunks = chunk_keys(array.manifest, keys)
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
        document = self.documents.get(wanted.key)
        if document is not None:
            return document[wanted.start : wanted.stop]
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
        asked: dict[str, list[int]] = {}
        is_whole = True
        for place, (key, start, stop) in enumerate(wanted):
            document = self.documents.get(key)
            if document is None:
                asked.setdefault(self.home(key), []).append(place)
                is_whole = is_whole and start == 0 and stop is None
            else:
                answers[place] = document[start:stop]
        part = None if is_whole else _part(wanted)

        async def found(home: str, places: list[int]) -> Found | None:
            try:
                return await self._found(home, [wanted[place].key for place in places], places)
            except ByteatlasError as error:
                for place in places:
                    answers[place] = error.at(path=f"/{home}")
                return None

        every = await together([found(*item) for item in asked.items()])
        plain = [one for one in every if one is not None and one.keyed.heap is None]
        pointing = [one for one in every if one is not None and one.keyed.heap is not None]
        for one in plain:
            _answer_inlined(one, wanted, answers)
        for one in pointing:
            self._answer_missing(one, wanted, answers)
        works = list(self._fetches(plain, part, answers))
        await together(works + [self._look_up(one, wanted, answers) for one in pointing])
        return answers

    def _answer_missing(self, found: Found, wanted: Sequence[Slice], answers: list[Answer]) -> None:
        """Answer for missing chunks, where they have a value."""
        if not found.keyed.serves_missing:
            return
        for position in found.missing:
            place = int(found.place[position])
            try:
                value = missing_chunk(found.keyed.array, self.reader.limits)
                answers[place] = value[wanted[place].start : wanted[place].stop]
            except ByteatlasError as error:
                answers[place] = error.at(path=found.keyed.path)

    def _fetches(
        self, several: Sequence[Found], part: Part | None, answers: list[Answer]
    ) -> Iterator[Coroutine[Any, Any, None]]:
        """Yield what fetches the virtual chunks of some arrays, source by source."""
        some = [one for one in several if one.located.virtual.size]
        if not some:
            return
        columns = [one.ranges for one in some]
        names = [
            (one.keyed, flat) for one in some for flat in one.flat[one.located.virtual].tolist()
        ]
        ranges = columns[0]
        if len(columns) > 1:
            ranges = Ranges(*map(np.concatenate, zip(*columns, strict=True)))
        first = int(ranges.source[0])
        if (ranges.source == first).all():
            yield self._fetch_from(first, ranges, part, names, answers)
            return
        for source in np.unique(ranges.source).tolist():
            mine = np.flatnonzero(ranges.source == source)
            some_names = [names[row] for row in mine.tolist()]
            yield self._fetch_from(source, ranges.take(mine), part, some_names, answers)

    async def _fetch_from(
        self,
        source: int,
        ranges: Ranges,
        part: Part | None,
        names: Sequence[tuple[Keyed, int]],
        answers: list[Answer],
    ) -> None:
        """Answer with ranges of one source; those behind its end do not harm the others."""
        values: Sequence[Answer]
        mine = None if part is None else Part(part.start[ranges.place], part.stop[ranges.place])
        try:
            values = await fetch(self.reader, source, ranges, mine)
        except ByteatlasError as error:
            groups = apart(ranges, self.reader.source(source).facts.size)
            if len(groups) > 1:
                for rows in groups:
                    mine_of = [names[row] for row in rows.tolist()]
                    await self._fetch_from(source, ranges.take(rows), part, mine_of, answers)
                return
            values = [named(error, *names[row_of(error, ranges)])] * len(names)
        for place, value, name in zip(ranges.place.tolist(), values, names, strict=True):
            if isinstance(value, ByteatlasError):
                named(value, *name)
            answers[place] = value

    async def _look_up(self, found: Found, wanted: Sequence[Slice], answers: list[Answer]) -> None:
        """Answer with the strings that chunks point to, encoded."""
        fetched: list[Answer] = [None] * len(wanted)
        await asyncio.gather(*self._fetches([found], None, fetched))
        for place in found.place.tolist():
            if isinstance(fetched[place], ByteatlasError):
                answers[place] = fetched[place]
        for source, (places, chunks) in pointing_chunks(found, fetched).items():
            values = await look_up(chunks, self.reader.source(source))
            for place, value in zip(places, values, strict=True):
                sliced = slice(wanted[place].start, wanted[place].stop)
                answers[place] = value[sliced] if isinstance(value, bytes) else value


def _answer_inlined(found: Found, wanted: Sequence[Slice], answers: list[Answer]) -> None:
    prefix = encoding_prefix(0) if found.keyed.is_prefixed else b""
    for position, data in zip(found.located.inlined.tolist(), found.located.data, strict=True):
        place = int(found.place[position])
        answers[place] = (prefix + data)[wanted[place].start : wanted[place].stop]


def _part(wanted: Sequence[Slice]) -> Part:
    ends = [(one.start, _FAR if one.stop is None else one.stop) for one in wanted]
    columns = np.array([[min(max(end, -_FAR), _FAR) for end in pair] for pair in ends], np.int64)
    return Part(columns[:, 0], columns[:, 1])
