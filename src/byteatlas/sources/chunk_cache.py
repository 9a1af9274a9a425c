"""Keep the bytes of chunks that were fetched: what a cache can do, and what it goes by.

What is kept is known by its source and its range. Its source is known by its URL without what
signs it, its size, and its ETag or Last-Modified: when the source changes, nothing that was kept
of it is found any more. A source that shows neither ETag nor Last-Modified is not kept at all,
in memory as little as on disk, because nobody could tell that it changed. Nor are local files:
the system keeps those itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from hashlib import blake2b
from typing import Protocol
from urllib.parse import parse_qsl

import numpy as np
from numpy.typing import NDArray

from byteatlas.model import Buffer, Source
from byteatlas.sources.identity import is_strong
from byteatlas.sources.urls import scheme_of

__all__ = ["ChunkCache", "source_key"]

_SECRET = re.compile(
    r"x-(?:amz|goog|oss)-.*|(?:aws|oss)?accesskeyid|googleaccessid|key-pair-id|signature|policy"
    r"|expires|(?:access_?)?token|api_?key",
    re.IGNORECASE,
)
"""Parameters by which S3, Google Cloud, Alibaba and CloudFront sign a URL, and plain secrets."""
_AZURE = re.compile(
    "s[verpti]|s[rk]t|sp?[rs]|sig|sip|sks|skv|ske|sdd|ses|scid|s[ka]oid|sktid|suoid", re.IGNORECASE
)
"""Parameters of a shared access signature, which has the one called ``sig``."""


class ChunkCache(Protocol):
    """Keeps ranges of sources. All methods may be called from any thread.

    None raises because of what happens to the cache: what cannot be kept is not, and what cannot
    be had back is missing.
    """

    def get_many(
        self, source: Source, offset: NDArray[np.int64], length: NDArray[np.int64]
    ) -> list[Buffer | None]:
        """Return the bytes of ranges, None for each that is not kept.

        Parameters
        ----------
        source
            As it was seen; it decides what is found, see `source_key`.
        offset, length
            First byte and number of bytes of each range, shape (ranges,). No length is negative.

        Returns
        -------
        list
            A read-only buffer of exactly its length for each range, or None. They may share
            memory, and stay valid.
        """

    def holds(
        self, source: Source, offset: NDArray[np.int64], length: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Tell which ranges are kept, shape (ranges,), without reading them.

        They may be gone when they are asked for.
        """

    def put_many(
        self,
        source: Source,
        offset: NDArray[np.int64],
        length: NDArray[np.int64],
        data: Sequence[Buffer],
    ) -> None:
        """Keep ranges; what was not used for longest goes when there is no more room.

        Parameters
        ----------
        source
            As it was seen when the bytes came.
        offset, length
            First byte and number of bytes of each range, shape (ranges,).
        data
            The bytes of each. They are copied, and may be used again afterwards.
        """

    def discard(self, source: Source) -> None:
        """Forget all that is kept of a source as it was seen."""


def source_key(source: Source) -> str | None:
    """Return the name under which ranges of a source are kept; None where nothing may be kept.

    It is a digest of the URL, the size, the ETag and Last-Modified, and can be shown to anybody:
    user info and the parameters that sign a URL are left out beforehand. A weak ETag promises
    equivalent content, not equal bytes, and does not count; nor does what a file system says of a
    file, which no server can confirm.

    >>> source_key(Source("https://example.org/a.nc", 10)) is None
    True
    >>> source_key(Source("https://example.org/a.nc", 10, '"1"'))
    'ef8b3ed2ccf2f3513c376346c533e2e2'
    """
    etag = source.etag if is_strong(source.etag) else None
    modified = source.last_modified
    if modified and modified.isdecimal():
        modified = None
    if not etag and not modified:
        return None
    facts = [source.public_url, _unsigned(source.url), source.size, etag, modified]
    return blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()


def _unsigned(url: str) -> list[tuple[str, str]]:
    """Return the parameters of a URL that may tell one source from another."""
    query = url.partition("?")[2] if scheme_of(url) in ("http", "https") else ""
    pairs = parse_qsl(query, keep_blank_values=True)
    is_shared = any(name == "sig" for name, _ in pairs)
    return [
        (name, value)
        for name, value in pairs
        if not (_SECRET.fullmatch(name) or (is_shared and _AZURE.fullmatch(name)))
    ]
