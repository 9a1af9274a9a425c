"""An index that is open for xarray, and how another process opens it again.

What dask sends to its workers, and what is pickled, does not hold the index: it says where the
index is and how it looked. A process opens each once and keeps the last few. An index that looks
otherwise by then is an error.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any, TypeAlias
from uuid import uuid4
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from byteatlas.errors import ByteatlasError, SourceChanged
from byteatlas.limits import Limits
from byteatlas.model import Source, VirtualArray, VirtualGroup
from byteatlas.opening import Target, open_target
from byteatlas.read.filled import OnError
from byteatlas.read.reader import Reader
from byteatlas.read.selection import Pointwise, Selection
from byteatlas.sources.chunk_cache_option import CacheOption
from byteatlas.sources.credentials import prepared
from byteatlas.store.filled_log import log_of
from byteatlas.store.first_reads import FirstReads
from byteatlas.store.gathering import Gathering

__all__ = ["OpenIndex", "Options", "Origin", "open_with", "reopened"]

Wanted: TypeAlias = tuple[VirtualArray, Any, str]
"""An array, a selection and a path, as `Reader.read_many` takes them."""

KEPT = 16
"""Indexes that a process keeps open for arrays that come from another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How an index is opened and read."""

    storage_options: Any = None
    """As `byteatlas.open_dataset` takes them. (Any: each protocol's own.)"""
    allow: Sequence[str] = ()
    limits: Limits | None = None
    on_error: OnError = "raise"
    cache: CacheOption = None

    def reader(self, sources: Sequence[Source]) -> Reader:
        """Return a reader of a table of sources."""
        return Reader(
            sources,
            self.storage_options,
            self.limits,
            on_error=self.on_error,
            cache=self.cache,
        )


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an index is, how it looked, and how to open it again."""

    index: Source
    options: Options
    token: str = field(default_factory=lambda: uuid4().hex)
    """Stands for this opening in every process."""


class OpenIndex:
    """The tree of an index, its reader, and what is read of it together."""

    def __init__(
        self,
        group: VirtualGroup,
        options: Options,
        origin: Origin | None,
        token: str | None = None,
    ) -> None:
        self.group = group
        self.options = options
        self.origin = origin
        self.reader = options.reader(group.sources)
        if origin is not None:
            token = origin.token
        self.log = log_of(token or uuid4().hex)
        """What its reads fill, in this process."""
        self.reader.filled = self.log.chunks
        self.first = FirstReads([], self.reader)
        self.is_decoding = False
        """While xarray decodes what is opened, before anybody else can see it."""
        self.gathering = Gathering(self._read_together)
        """Reads together what is asked for together in an event loop."""
        self._handed = threading.local()

    def array(self, path: str) -> VirtualArray:
        """Return the array at a path that is known to be there."""
        found = self.group[path]
        assert isinstance(found, VirtualArray)
        return found

    @contextmanager
    def handing_over(self, values: Iterable[tuple[str, Selection, NDArray[Any]]]) -> Iterator[None]:
        """Let the reads of this thread find values that were read before, each once."""
        self._handed.values = list(values)
        try:
            yield
        finally:
            self._handed.values = []

    def handed(self, path: str, key: Selection) -> NDArray[Any] | None:
        """Return what was handed over for a selection of an array."""
        values: list[tuple[str, Selection, NDArray[Any]]] = getattr(self._handed, "values", [])
        for place, (of, selection, value) in enumerate(values):
            if of == path and _is_same(key, selection):
                del values[place]
                return value
        return None

    async def _read_together(self, wanted: list[Wanted]) -> Sequence[NDArray[Any] | Exception]:
        return await asyncio.to_thread(_read_many, self.reader, wanted)


def _is_same(one: Selection, other: Selection) -> bool:
    if isinstance(one, Pointwise) and isinstance(other, Pointwise):
        one, other = one.indices, other.indices
    return (
        isinstance(one, tuple)
        and isinstance(other, tuple)
        and len(one) == len(other)
        and all(
            isinstance(a, slice) == isinstance(b, slice) and np.array_equal(a, b)
            for a, b in zip(one, other, strict=True)
        )
    )


def _read_many(reader: Reader, wanted: list[Wanted]) -> Sequence[NDArray[Any] | Exception]:
    """Read several arrays, each by itself where that fails: then only the faulty ones fail."""
    try:
        return reader.read_many(wanted)
    except (ByteatlasError, IndexError):
        return [_read_one(reader, *one) for one in wanted]


def _read_one(
    reader: Reader, array: VirtualArray, selection: Any, path: str
) -> NDArray[Any] | Exception:
    try:
        return reader.read(array, selection, path=path)
    except (ByteatlasError, IndexError) as error:
        return error


def open_with(target: Target, options: Options) -> OpenIndex:
    """Open an index, or scan a legacy file.

    Raises
    ------
    ByteatlasError
        As `byteatlas.opening.open_group`.
    """
    # Functions among the storage options are called once for the index and all its sources.
    given: Any = None if options.storage_options is None else prepared(options.storage_options)
    options = replace(options, storage_options=given)
    group, index = open_target(
        target, storage_options=given, allow=options.allow, limits=options.limits
    )
    origin = None if index is None or not _is_recognisable(index) else Origin(index, options)
    opened = OpenIndex(group, options, origin)
    if origin is not None:
        with _GUARD:
            _LIVE[origin.token] = opened
    return opened


def _is_recognisable(index: Source) -> bool:
    """Tell whether another version of an index could be told from this one."""
    is_strong = index.etag is not None and not index.etag.startswith("W/")
    return is_strong or index.last_modified is not None


_GUARD = Lock()
_LIVE: WeakValueDictionary[str, OpenIndex] = WeakValueDictionary()
"""Every index that is open in this process, by the token of its origin."""
_RECENT: deque[OpenIndex] = deque(maxlen=KEPT)
"""Keeps those open that were opened again."""
_TURNS: dict[str, Lock] = {}


def reopened(origin: Origin) -> OpenIndex:
    """Return the opened index of an origin, opening it when this process has not done so yet.

    Raises
    ------
    SourceChanged
        The index is not the one that was opened first.
    """
    with _GUARD:
        opened = _LIVE.get(origin.token)
        if opened is not None:
            return opened
        turn = _TURNS.setdefault(origin.token, Lock())
    with turn:
        with _GUARD:
            opened = _LIVE.get(origin.token)
        try:
            opened = opened or _open_again(origin)
        finally:
            with _GUARD:
                _TURNS.pop(origin.token, None)
        with _GUARD:
            _LIVE[origin.token] = opened
            if opened not in _RECENT:
                _RECENT.append(opened)
    return opened


def _open_again(origin: Origin) -> OpenIndex:
    options = origin.options
    try:
        group = open_target(
            origin.index.url,
            storage_options=options.storage_options,
            allow=options.allow,
            limits=options.limits,
            expected=origin.index,
        ).group
    except SourceChanged as error:
        error.hint = "the dataset was opened through another index: open it again"
        raise
    return OpenIndex(group, options, origin)
