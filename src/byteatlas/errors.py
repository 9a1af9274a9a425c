"""Everything byteatlas raises, in one tree.

    ByteatlasError
    |- NotRecognised          no scanner knows these bytes, or two claim them
    |- Malformed              the bytes break their format's specification
    |- Unsupported            valid, but byte ranges (or this version) cannot express it
    |  `- LimitExceeded       larger than the caller's limits allow
    |- MissingDependency      an optional package is needed; the message says which
    |- NotAllowed             an index asks for a source the caller did not allow
    |- Inconsistent           parts that should agree do not
    |  `- Conflict            another writer was faster
    `- SourceError            the bytes could not be had
       |- SourceMissing       404, 410, no such file
       |- SourceDenied        401, 403, no permission
       |- SourceChanged       not the bytes that were indexed
       |- RangeIgnored        the server answers a range request with something else
       `- ShortRead           fewer bytes than were promised

No source error is a ``FileNotFoundError`` or a ``KeyError``: array libraries take those for
"this chunk was never written" and would fill it in.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Self

__all__ = [
    "ByteatlasError",
    "Conflict",
    "Inconsistent",
    "LimitExceeded",
    "Malformed",
    "MissingDependency",
    "NotAllowed",
    "NotRecognised",
    "RangeIgnored",
    "ShortRead",
    "SourceChanged",
    "SourceDenied",
    "SourceError",
    "SourceMissing",
    "Unsupported",
]


_BETWEEN_LINKS = re.compile(r"::(?![^\[\]/]*\])")


class ByteatlasError(Exception):
    """Base of all errors: says where, at which byte, what was wrong and what to do next.

    Low-level code raises with the offset only; whoever knows the URL or the array adds them
    once, with `at`.

    Attributes
    ----------
    problem : what was expected and what was found.
    url : the source, without its query string; None when not known.
    path : the array, attribute or member inside the source, such as ``/temp``.
    chunk : the chunk index inside the array, such as ``(4, 0)``; None when it is no chunk's error.
    offset : first byte concerned, from the start of the source.
    length : number of bytes concerned.
    hint : what to do next.
    """

    def __init__(
        self,
        problem: str,
        *,
        url: str | None = None,
        path: str | None = None,
        chunk: tuple[int, ...] | None = None,
        offset: int | None = None,
        length: int | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.url = None if url is None else without_query(url)
        self.path = path
        self.chunk = chunk
        self.offset = offset
        self.length = length
        self.hint = hint

    def at(
        self,
        *,
        url: str | None = None,
        path: str | None = None,
        chunk: tuple[int, ...] | None = None,
        offset: int | None = None,
    ) -> Self:
        """Fill in the location where it is still unknown, and return the error itself."""
        if self.url is None and url is not None:
            self.url = without_query(url)
        if self.path is None:
            self.path = path
        if self.chunk is None:
            self.chunk = chunk
        if self.offset is None:
            self.offset = offset
        return self

    def __str__(self) -> str:
        where = [part for part in (self.url, self.path) if part]
        if self.chunk is not None:
            where.append(f"chunk {self.chunk}")
        text = ": ".join([*where, self.problem])
        if self.offset is not None:
            text += f" at byte {self.offset} (0x{self.offset:x})"
            if self.length is not None:
                text += f", length {self.length}"
        return f"{text}; {self.hint}" if self.hint else text

    def __reduce__(self) -> tuple[object, ...]:
        # By name: a builtin base may keep one elsewhere than in __dict__ (ImportError its path).
        names = ("url", "path", "chunk", "offset", "length", "hint")
        facts = {name: getattr(self, name) for name in names}
        return partial(type(self), self.problem, **facts), ()


def without_query(url: str) -> str:
    """Return a URL, chained or not, without user info and query string, where secrets travel.

    >>> without_query("https://user:secret@example.org/a.nc?sig=secret")
    'https://example.org/a.nc'
    >>> without_query("zip://a.nc::https://example.org/b.zip?sig=secret")
    'zip://a.nc::https://example.org/b.zip'
    """
    links = chain_links(url)
    if len(links) > 1 and "://" in url:
        return "::".join(map(without_query, links))
    scheme, separator, rest = url.partition("://")
    if not separator or scheme in ("file", "local"):
        return url
    rest = rest.partition("?")[0] if scheme.lower() in ("http", "https") else rest
    authority, slash, path = rest.partition("/")
    return scheme + separator + authority.rpartition("@")[2] + slash + path


def chain_links(url: str) -> list[str]:
    """Split a chained URL at each "::", but not within a URL of a web server, which ends a chain.

    >>> chain_links("zip://a.nc::https://[::1]/b.zip?sig=x::y")
    ['zip://a.nc', 'https://[::1]/b.zip?sig=x::y']
    """
    links: list[str] = []
    for link in _BETWEEN_LINKS.split(url):
        is_of_web = links and links[-1].lower().startswith(("http://", "https://"))
        if is_of_web and "://" not in link:
            links[-1] += f"::{link}"
        else:
            links.append(link)
    return links


class NotRecognised(ByteatlasError, ValueError):
    """No scanner recognises the bytes, or more than one does."""


class Malformed(ByteatlasError, ValueError):
    """The bytes break their format's specification."""


class Unsupported(ByteatlasError, NotImplementedError):
    """The bytes are valid, but no exact byte ranges can express them."""


class LimitExceeded(Unsupported):
    """It is larger, deeper or longer than the limits allow; the message names the limit."""


class MissingDependency(ByteatlasError, ImportError):
    """An optional package is missing; the message carries the line that installs it."""


class NotAllowed(ByteatlasError, PermissionError):
    """An index names a source outside what its reader allows."""


class Inconsistent(ByteatlasError, ValueError):
    """Parts that should agree do not."""


class Conflict(Inconsistent):
    """An index was replaced by another writer meanwhile, and is left as it is."""


class SourceError(ByteatlasError, OSError):
    """The bytes of a source could not be had."""


class SourceMissing(SourceError):
    """The source is not there."""


class SourceDenied(SourceError):
    """The source may not be read with these credentials."""


class SourceChanged(SourceError):
    """The source is no longer what was indexed.

    Attributes
    ----------
    recorded, seen : the `Source` that was recorded and the one that was seen, where both are known.
    is_of_chunk : a chunk differs from its digest; that says nothing of the rest of the source.
    """

    recorded: object = None
    seen: object = None
    is_of_chunk: bool = False


class RangeIgnored(SourceError):
    """The server answered a range request with something else."""


class ShortRead(SourceError):
    """The source gave fewer bytes than it promised."""
