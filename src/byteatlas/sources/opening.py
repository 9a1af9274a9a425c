"""From a URL to a byte source."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from byteatlas.errors import Unsupported
from byteatlas.model import Source
from byteatlas.sources.byte_source import ByteSource
from byteatlas.sources.credentials import Options, options_for
from byteatlas.sources.fetch import Transport
from byteatlas.sources.guard import Guard
from byteatlas.sources.local import LocalSource
from byteatlas.sources.remote import Policy, RemoteSource
from byteatlas.sources.trace import Trace
from byteatlas.sources.urls import is_chained, scheme_of

__all__ = ["open_source"]

# Importing a client takes a tenth of a second: each comes with the first URL that needs it.


def open_source(
    url: str,
    *,
    storage_options: Options | Callable[[], Mapping[str, Any]] | None = None,
    expected: Source | None = None,
    trace: Trace | None = None,
    gap: int | None = None,
    policy: Policy | None = None,
) -> ByteSource:
    """Return the source of bytes that a URL names. No request is made yet.

    Parameters
    ----------
    url
        A path, or a URL: ``file``, ``http``, ``https``, ``s3``, ``gs``, ``az`` (and their other
        names), or anything that fsspec knows, chained URLs included.
    storage_options
        As fsspec's filesystem for this protocol takes them; under prefixes of URLs, those that
        concern this one; or a function that returns them, and is called once more when the
        server refuses what it gave. (Any: each protocol's own.)
    expected
        How the source looked to a scan; every answer is compared with it.
    trace
        Counts what is read; a new one by default.
    gap
        Ranges at most so many bytes apart are fetched in one request; in place of `policy`'s.
    policy
        Concurrency, retries and timeouts.

    Raises
    ------
    Unsupported
        A storage option or a protocol is not known.
    """
    trace = Trace() if trace is None else trace
    policy = Policy() if policy is None else policy
    if gap is not None:
        policy = replace(policy, gap=gap)
    if not is_chained(url) and scheme_of(url) in ("", "file", "local"):
        _refuse_options(url, storage_options)
        return LocalSource(url, expected=expected, trace=trace)
    guard = expected.guard if expected else None
    transport = _transport(url, options_for(url, storage_options), policy, guard)
    return RemoteSource(url, transport, policy=policy, expected=expected, trace=trace)


def _refuse_options(url: str, storage_options: object) -> None:
    given = storage_options if isinstance(storage_options, Mapping) else {}
    unknown = {name for name in given if "://" not in name} - {"auto_mkdir"}
    if unknown:
        raise Unsupported(
            f"storage options {sorted(unknown)} have no meaning for a local file", url=url
        )


def _transport(
    url: str, storage_options: Options, policy: Policy, guard: Guard | None
) -> Transport:
    scheme = scheme_of(url)
    if not is_chained(url):
        if scheme in ("http", "https"):
            from byteatlas.sources.http import HttpTransport  # noqa: PLC0415  # heavy

            return HttpTransport(url, storage_options, policy, guard)
        from byteatlas.sources.object_store import (  # noqa: PLC0415  # heavy
            SCHEMES,
            ObjectStoreTransport,
        )

        if scheme in SCHEMES:
            return ObjectStoreTransport(url, storage_options, policy)
    from byteatlas.sources.foreign import FsspecTransport  # noqa: PLC0415  # heavy

    return FsspecTransport(url, storage_options)
