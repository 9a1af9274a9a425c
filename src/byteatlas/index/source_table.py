"""The table of sources that the references of an index point into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byteatlas.errors import Malformed
from byteatlas.index.json_document import is_unicode
from byteatlas.index.reference_columns import ReferenceColumns
from byteatlas.index.templates import Templates
from byteatlas.limits import Limits
from byteatlas.model import WHOLE, Source

__all__ = ["SourceTable"]


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
    ) -> None:
        self._base = _directory(index_url or "")
        self._templates = templates
        self._limits = limits
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
            A URL is none, or a reference goes beyond the end of its source.
        LimitExceeded
            A URL is too long.
        """
        for url in columns.urls:
            if url not in self._position:
                self._position[url] = self._add(url)
        if not columns.url.size:
            return np.empty(0, np.uint32)
        positions = [self._position[url] for url in columns.urls]
        sizes = [self.sources[position].size for position in positions]
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
        return np.array(positions, np.uint32)[columns.url]

    def _check(self, url: Any) -> None:
        if not isinstance(url, str) or not url:
            raise Malformed(f"{url!r:.80} is not the URL of a source")
        self._limits.check("url", len(url), f"a URL that begins {url[:80]!r}")
        if "\0" in url or not is_unicode(url):
            raise Malformed(f"the URL that begins {url[:80]!r} is not text")

    def _add(self, url: Any) -> int:
        self._check(url)
        resolved = self._resolve(self._templates.expand(url))
        if resolved not in self._position:
            self.sources.append(Source(resolved))
            self._position[resolved] = len(self.sources) - 1
        return self._position[resolved]

    def _resolve(self, url: str) -> str:
        if url.startswith(("/", "data:")) or "://" in url or "::" in url:
            return url
        return self._base + url


def _directory(url: str) -> str:
    """Return an address up to its last slash, that of a query not counting."""
    path = url.partition("?")[0] if "://" in url else url
    return path[: path.rfind("/") + 1]
