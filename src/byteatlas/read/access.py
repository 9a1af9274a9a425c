"""Which sources an index may have: it says which it wants, its reader decides.

An index that came over the network may name

- sources of its own origin (the same scheme, host and port; of an object store the same bucket),
- sources at public addresses, over http and https at ports 80 and 443, and in s3, gs and az,
- whatever its reader allows by a prefix.

So it reaches neither local files nor addresses inside the reader's network. An index that the
reader has locally, or hands over as an object, may name what it likes. From neither are accepted
URLs with ``..``, with user info, or of a scheme that nothing here can read.

A URL is judged by its text here; what its host resolves to, and where redirects lead, is judged
when it is read: `byteatlas.sources.guard`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from byteatlas.model import Source
from byteatlas.sources.credentials import options_for
from byteatlas.sources.guard import guarded_sources
from byteatlas.sources.places import LOCAL_SCHEMES
from byteatlas.sources.urls import is_chained, scheme_of

__all__ = ["check_sources", "is_local", "options_for"]


def is_local(url: str) -> bool:
    """Tell whether a URL names something on this machine, without a network between."""
    return not is_chained(url) and scheme_of(url) in LOCAL_SCHEMES


def check_sources(
    sources: Iterable[Source], index_url: str | None, allow: Sequence[str]
) -> list[Source]:
    """Refuse sources that an index may not have; return them, guarded where they must be.

    Parameters
    ----------
    sources
        What the index names.
    index_url
        Where the index came from; None when the caller made it.
    allow
        Prefixes of URLs that the caller allows beside the index's own origin. A prefix ends at a
        segment: ``"https://host/data"`` allows ``"https://host/data/a.nc"``, not
        ``"https://host/database"``. A scheme alone, such as ``"file://"``, allows all under it.

    Raises
    ------
    NotAllowed
        The index names something else. The message lists the prefixes to allow.
    """
    return guarded_sources(sources, index_url, allow)
