"""Which places may be reached on the word of an index or a file, and not of the caller.

Whoever names a source decides what may be reached for it. The caller may name anything. What came
over the network may name

- its own origin (the same scheme, host and port; of an object store the same bucket),
- public addresses, over http and https at ports 80 and 443, and buckets of s3, gs and az,
- whatever the caller allows by a prefix.

A `Guard` travels with a `Source`. Its text is judged when the index is opened; every address that
a host's name resolves to is judged when a connection is made, and the connection goes to an
address that was judged. Each hop of a redirect is judged like the first.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from urllib.parse import unquote

from byteatlas.errors import NotAllowed, chain_links, without_query
from byteatlas.model import Source
from byteatlas.sources.places import LOCAL_SCHEMES, SAME_SCHEME, Place
from byteatlas.sources.urls import is_chained, scheme_of

__all__ = ["Guard", "as_tuple", "guard_for", "guarded_sources", "prefix_of"]

_NETWORK = frozenset({"http", "https", "s3", "gs", "az"})
_AT_IS_NO_USER = {"az", "abfs", "abfss", "wasb", "wasbs"}  # container@account


@dataclass(frozen=True, slots=True)
class Guard:
    """What may be reached for sources that something from the network names."""

    named_by: str
    """URL of the index or file that names them."""
    allow: tuple[str, ...] = ()
    """Prefixes of URLs that the caller allows."""
    own_addresses: frozenset[str] = frozenset()
    """Internal addresses that the caller's own request to `named_by` went to."""
    is_redirect: bool = False
    """It is a redirect of `named_by` that names them: what a public place may lead to."""

    def problem(self, url: str) -> str | None:
        """Say why a URL is not allowed, judged by its text; None when it is."""
        place = Place.of(url)
        if self.is_granted(place) or place.is_same_origin(Place.of(self.named_by)):
            return None
        if place.scheme not in _NETWORK or place.is_chained:
            return "is not of http, https, s3, gs or az"
        if place.is_internal:
            return "is at an address that is not public"
        has_port = self.is_redirect or place.has_web_port
        return None if has_port else f"is at port {place.port}, not 80 or 443"

    def is_granted(self, place: Place) -> bool:
        """Tell whether the caller allows a place by a prefix."""
        return any(place.is_within(Place.of(prefix)) for prefix in self.allow)

    def check(self, url: str) -> None:
        """Refuse a URL by its text.

        Raises
        ------
        NotAllowed
            The message says what to allow.
        """
        if problem := self.problem(url):
            raise self.refusal(url, f"it {problem}")

    def reach(self, url: str) -> frozenset[str] | None:
        """Return the internal addresses that a URL's host may have; None means any.

        Only for URLs that `check` lets pass.
        """
        place, own = Place.of(url), Place.of(self.named_by)
        if self.is_granted(place):
            return None
        if place.is_same_origin(own):
            return None if own.is_internal else self.own_addresses
        return frozenset()

    def refusal(self, url: str, problem: str) -> NotAllowed:
        """Return the error for a URL, with the argument that allows it."""
        names, namer = "names", without_query(self.named_by)
        hint = f"if you trust it, pass allow={[prefix_of(url)]}"
        if self.is_redirect:
            names, hint = "redirects to", "if you trust it, open it by its own URL"
        return NotAllowed(f"{namer} {names} it, and {problem}", url=without_query(url), hint=hint)


def prefix_of(url: str) -> str:
    """Return the folder of a URL, to be allowed."""
    return without_query(url).rpartition("/")[0] + "/"


def as_tuple(texts: Sequence[str]) -> tuple[str, ...]:
    """Return prefixes or patterns as a tuple; one string alone is one, and not its letters."""
    return (texts,) if isinstance(texts, str) else tuple(texts)


def guard_for(named_by: str | None, allow: Sequence[str] = ()) -> Guard | None:
    """Return the guard of sources that an index or a file names.

    Parameters
    ----------
    named_by
        URL of the index or file; None when the caller names the sources.
    allow
        Prefixes of URLs that the caller allows beside the index's own origin. A prefix ends at a
        segment: ``"https://host/data"`` allows ``"https://host/data/a.nc"``, not
        ``"https://host/database"``. A scheme alone, such as ``"file://"``, allows all under it.

    Returns
    -------
    None where any source may be named: by the caller, or by what the caller has locally.
    """
    if named_by is None or (not is_chained(named_by) and scheme_of(named_by) in LOCAL_SCHEMES):
        return None
    own: frozenset[str] = frozenset()
    place = Place.of(named_by)
    if place.scheme in ("http", "https") and not place.is_internal:
        from byteatlas.sources import addresses, loop  # noqa: PLC0415  # only for web servers

        own = loop.call(addresses.internal_addresses(place.host))
    return Guard(named_by, as_tuple(allow), own)


def guarded_sources(
    sources: Iterable[Source], named_by: str | None, allow: Sequence[str] = ()
) -> list[Source]:
    """Refuse sources that an index or a file may not name; return them with their guard.

    Parameters
    ----------
    sources
        What it names.
    named_by, allow
        As for `guard_for`.

    Raises
    ------
    NotAllowed
        It names something else. The message lists the prefixes to allow.
    """
    guard = guard_for(named_by, allow)
    refused: Counter[str] = Counter()
    result: list[Source] = []
    for source in sources:
        if reason := _malformed(source.url):
            url = without_query(source.url)
            raise NotAllowed(f"the index names a source whose URL {reason}", url=url)
        if guard is not None and guard.problem(source.url):
            refused[prefix_of(source.url)] += 1
        result.append(source if guard is None else replace(source, guard=guard))
    if refused:
        raise _not_allowed(refused, named_by)
    return result


def _not_allowed(refused: Counter[str], named_by: str | None) -> NotAllowed:
    listed = ", ".join(f"{prefix} ({count})" for prefix, count in refused.most_common(5))
    more = f" and {len(refused) - 5} more prefixes" if len(refused) > 5 else ""
    return NotAllowed(
        f"this index came over the network and names {refused.total()} sources that it may have"
        f" only by permission, under {listed}{more}",
        url=named_by and without_query(named_by),
        hint=f"if you trust it, pass allow={[prefix for prefix, _ in refused.most_common(5)]}",
    )


def _malformed(url: str) -> str | None:
    """Say what is wrong with a URL that nobody may name, None when nothing is."""
    from fsspec.registry import known_implementations  # noqa: PLC0415  # slow

    for link in chain_links(url) if is_chained(url) else [url]:
        scheme = scheme_of(link)
        if "://" not in link:
            continue  # a path, or in a chain the bare name of a protocol
        if scheme not in known_implementations and scheme not in SAME_SCHEME:
            return f"has the scheme {scheme!r}, which is not known"
        rest = link.partition("://")[2]
        if "@" in re.split("[/?]", rest)[0] and scheme not in _AT_IS_NO_USER:
            return "has user info"
        if ".." in re.split(r"[/\\?]", unquote(rest)):
            return "has a segment '..'"
    return None
