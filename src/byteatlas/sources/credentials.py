"""Which storage options concern a URL, and options that are renewed when they expire.

Credentials belong to prefixes of URLs. The caller gives them; nothing else can::

    {"headers": {...}}                      of the source, or of an index's own origin
    {"s3": {"anon": True}}                  of one protocol, as fsspec has it for chained URLs
    {"https://host/private/": {...}}        of what is below a prefix
    {"https://host/private/": function}     the same, from a function that is called again, once,
                                            when the server refuses what it gave (401, 403)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any, TypeAlias

from byteatlas.errors import SourceDenied
from byteatlas.model import Source
from byteatlas.sources.places import LOCAL_SCHEMES, SAME_SCHEME, Place
from byteatlas.sources.urls import is_chained, scheme_of

__all__ = ["Options", "Renewable", "options_for", "prepared"]

Options: TypeAlias = "Mapping[str, Any] | Renewable"  # Any: each protocol's own

_SECRET_HTTP = frozenset({"headers", "cookies", "auth", "params", "client_kwargs"})
"""Options of a web server that may hold secrets."""


class Renewable:
    """Storage options from a function of the caller's, kept until a server refuses them.

    All sources below a prefix share one of these. Its methods may be called from any thread.
    """

    def __init__(self, function: Callable[[], Mapping[str, Any]]) -> None:
        self._function = function
        self._value: Mapping[str, Any] | None = None
        self._has_worked = True
        self._guard = Lock()

    def __repr__(self) -> str:
        return f"Renewable({getattr(self._function, '__qualname__', 'function')})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Renewable, (self._function,)

    def current(self) -> Mapping[str, Any]:
        """Return the options, calling the function when it was not called yet."""
        with self._guard:
            if self._value is None:
                self._value = self._call()
            return self._value

    def renewed(self, refused: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Return other options than the refused ones; None when there are none.

        The function is called only if nobody else has renewed them meanwhile, and if the refused
        ones have worked before: what was refused from the beginning is not asked for again.
        """
        with self._guard:
            if self._value is not refused:
                return self._value
            if not self._has_worked:
                return None
            self._has_worked = False
            self._value = self._call()
            return self._value

    def worked(self, value: Mapping[str, Any]) -> None:
        """Note that a server accepted these options."""
        if value is self._value:
            self._has_worked = True

    def _call(self) -> Mapping[str, Any]:
        try:
            return dict(self._function())
        except Exception as error:  # the caller's own function may fail in any way
            raise SourceDenied(
                f"the function that gives the credentials failed: {type(error).__name__}"
            ) from error


def prepared(storage_options: Options | Callable[[], Any] | None) -> Options:
    """Return storage options with each function made `Renewable`, so that sources share it."""
    if storage_options is None:
        return {}
    if isinstance(storage_options, Mapping):
        return {
            name: Renewable(value) if callable(value) and _is_part(name) else value
            for name, value in storage_options.items()
        }
    return storage_options if isinstance(storage_options, Renewable) else Renewable(storage_options)


def options_for(
    source: Source | str, storage_options: Options | Callable[[], Any] | None
) -> Options:
    """Return the storage options that concern one source.

    Of all that concern it, those of the longest prefix count, then those of its protocol, then
    those that stand beside them. Of web servers, headers and the like that are not under a prefix
    with a host are for sources that the caller or a local index names, and for the own origin of
    an index that came over the network: such an index could send them anywhere.

    Parameters
    ----------
    source
        A source, or the URL of one that the caller names.
    storage_options
        As `prepared` returns them, or a mapping as the caller gave it.
    """
    source = Source(source) if isinstance(source, str) else source
    given = prepared(storage_options)
    if is_chained(source.url):
        if isinstance(given, Renewable):
            return given
        return {name: value for name, value in given.items() if "://" not in name}
    scheme = scheme_of(source.url)
    if scheme in LOCAL_SCHEMES:
        return {}
    if isinstance(given, Renewable):
        return {} if _is_elsewhere(source) else given
    place = Place.of(source.url)
    beside: dict[str, Any] = {}
    longest = 0
    part: Options = {}
    for name, value in given.items():
        if not isinstance(value, Mapping | Renewable) or not _is_part(name):
            beside[name] = value
        elif "://" in name:
            if place.is_within(Place.of(name)) and len(name) > longest:
                longest, part = len(name), value
        elif _family(name) == _family(scheme) and not longest:
            part = value  # "https" and "http" are one protocol: the last one counts
    if isinstance(part, Renewable):
        return part if longest or not _is_elsewhere(source) else _without_secrets(beside)
    if _is_elsewhere(source):
        beside = _without_secrets(beside)
        part = part if longest else _without_secrets(part)
    return {**beside, **part}


def _without_secrets(options: Mapping[str, Any]) -> dict[str, Any]:
    nested = options.get("client_kwargs") or {}
    kept = {name: value for name, value in options.items() if name not in _SECRET_HTTP}
    rest = {name: value for name, value in nested.items() if name not in _SECRET_HTTP}
    return kept | ({"client_kwargs": rest} if rest else {})


def _is_elsewhere(source: Source) -> bool:
    """Tell whether a web server is named by the network, and is not where the name came from."""
    if source.guard is None or _family(scheme_of(source.url)) != "http":
        return False
    return not Place.of(source.url).is_same_origin(Place.of(source.guard.named_by))


def _is_part(name: str) -> bool:
    """Tell whether a key is a prefix or a protocol, and not the name of an option."""
    from fsspec.registry import known_implementations  # noqa: PLC0415  # slow

    return "://" in name or name in known_implementations


def _family(scheme: str) -> str:
    return "http" if scheme == "https" else SAME_SCHEME.get(scheme, scheme)
