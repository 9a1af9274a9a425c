"""The table of sources that the references of an index point into."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from threading import Lock
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from byteatlas.errors import Malformed
from byteatlas.index.json_document import is_unicode
from byteatlas.index.reference_columns import ReferenceColumns
from byteatlas.index.templates import Templates
from byteatlas.limits import Limits
from byteatlas.model import WHOLE, Source
from byteatlas.sources.guard import guarded_sources

__all__ = ["GrowingSources", "SourceTable"]


class SourceTable:
    """The sources that are known so far.

    Parameters
    ----------
    sources
        Those that the index lists.
    index_url
        Where the index came from: relative URLs count from there.
    templates
        What the URLs of references may hold.
    limits
        How long they may be.
    is_closed
        There are no others than those that the index lists.

    Raises
    ------
    Malformed, LimitExceeded
        The URL of a source in the list is none, or too long.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        index_url: str | None,
        templates: Templates,
        limits: Limits,
        *,
        is_closed: bool = False,
    ) -> None:
        self._base = _directory(index_url or "")
        self._templates = templates
        self._limits = limits
        self._is_closed = is_closed
        self._position: dict[str, int] = {}
        self.sources: list[Source] = []
        for position, source in enumerate(sources):
            self._check(source.url)
            self._position.setdefault(source.url, position)
            self.sources.append(replace(source, url=self._resolve(source.url)))

    def positions(self, columns: ReferenceColumns) -> NDArray[np.uint32]:
        """Return the position of the source of each reference, adding sources that are new.

        Raises
        ------
        Malformed
            A URL is none or not known, or a reference goes beyond the end of its source.
        LimitExceeded
            A URL is too long.
        """
        new = {url: self._checked(url) for url in columns.urls if url not in self._position}
        added = [url for url in dict.fromkeys(new.values()) if url not in self._position]
        for source in self._admitted([Source(url) for url in added]):
            self._position[source.url] = len(self.sources)
            self.sources.append(source)
        for url, resolved in new.items():
            self._position[url] = self._position[resolved]
        if not columns.url.size:
            return np.empty(0, np.uint32)
        positions = [self._position[url] for url in columns.urls]
        sizes = [self.sources[position].size for position in positions]
        if any(size is not None for size in sizes):
            self._check_ends(columns, positions, sizes)
        return np.array(positions, np.uint32)[columns.url]

    def _check_ends(
        self, columns: ReferenceColumns, positions: Sequence[int], sizes: Sequence[int | None]
    ) -> None:
        size = np.array([2**64 - 1 if size is None else size for size in sizes], np.uint64)
        length = np.where(columns.length == np.uint64(WHOLE), np.uint64(0), columns.length)
        beyond = np.flatnonzero(columns.offset + length > size[columns.url])
        if beyond.size:
            row = beyond[0]
            raise Malformed(
                "a reference goes beyond the end of its source",
                url=self.sources[positions[columns.url[row]]].public_url,
                offset=int(columns.offset[row]),
                length=int(columns.length[row]),
            )

    def _admitted(self, sources: list[Source]) -> list[Source]:
        """Return sources that are new, as they go into the table."""
        return sources

    def _check(self, url: Any) -> None:
        if not isinstance(url, str) or not url:
            raise Malformed(f"{url!r:.80} is not the URL of a source")
        self._limits.check("url", len(url), f"a URL that begins {url[:80]!r}")
        if "\0" in url or not is_unicode(url):
            raise Malformed(f"the URL that begins {url[:80]!r} is not text")

    def _checked(self, url: Any) -> str:
        """Return a URL that is new as an absolute one."""
        self._check(url)
        if self._is_closed:
            raise Malformed(f"{url!r:.200} is not among the sources that the index lists")
        return self._resolve(self._templates.expand(url))

    def _resolve(self, url: str) -> str:
        if url.startswith(("/", "data:")) or "://" in url or "::" in url:
            return url
        return self._base + url


class GrowingSources(SourceTable, Sequence[Source]):
    """The sources of an index that does not list them: they join when references are read.

    Positions never change. Any thread may read and add; a copy in another process goes its own
    way, so what points into this table travels with it.

    Parameters
    ----------
    index_url
        Where the index came from: relative URLs count from there.
    allow
        Prefixes of URLs that the index may name, see `byteatlas.read.access`.
    limits
        How long URLs may be.
    """

    def __init__(self, index_url: str, allow: Sequence[str], limits: Limits) -> None:
        super().__init__((), index_url, Templates(None, limits), limits)
        self._index_url = index_url
        self._allow = allow
        self._lock = Lock()

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            state = {name: value for name, value in self.__dict__.items() if name != "_lock"}
            return {**state, "sources": list(self.sources), "_position": dict(self._position)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = Lock()

    def renew(self) -> None:
        """Undo what another thread had half done, in a child that has no such thread."""
        self._lock = Lock()
        count = len(self.sources)
        self._position = {url: at for url, at in self._position.items() if at < count}

    def __len__(self) -> int:
        return len(self.sources)

    @overload
    def __getitem__(self, position: int) -> Source: ...

    @overload
    def __getitem__(self, position: slice) -> list[Source]: ...

    def __getitem__(self, position: int | slice) -> Source | list[Source]:
        return self.sources[position]

    def __iter__(self) -> Iterator[Source]:
        return iter(self.sources)

    def positions(self, columns: ReferenceColumns) -> NDArray[np.uint32]:
        """Do as `SourceTable.positions`.

        Raises
        ------
        NotAllowed
            A reference is to a source that the index may not have; the message says what to
            allow.
        """
        with self._lock:
            return super().positions(columns)

    def _admitted(self, sources: list[Source]) -> list[Source]:
        return guarded_sources(sources, self._index_url, self._allow) if sources else []


def _directory(url: str) -> str:
    """Return an address up to its last slash, that of a query not counting."""
    path = url.partition("?")[0] if "://" in url else url
    return path[: path.rfind("/") + 1]
