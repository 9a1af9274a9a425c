"""Drive a scanner, and answer what it asks of other sources: open them, scan them, once each.

A source may hold values in other sources, which may do so in turn. Which of them may be had is
`byteatlas.sources.beside`'s to say; how many, how deep and how often is bounded here.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from glob import escape
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from byteatlas.errors import ByteatlasError, SourceMissing
from byteatlas.garbage import paused_gc
from byteatlas.model import Source, VirtualArray, VirtualGroup, as_view
from byteatlas.scanners import Found, Other, Pending, ScanOptions, Window, find_scanner
from byteatlas.sources import Trace, open_source
from byteatlas.sources.beside import url_beside
from byteatlas.sources.cache import CachedReader
from byteatlas.sources.credentials import Options, options_for
from byteatlas.sources.guard import Guard, guard_for
from byteatlas.sources.places import LOCAL_SCHEMES, Place
from byteatlas.sources.urls import is_chained, scheme_of
from byteatlas.steps import run
from byteatlas.version import __version__

__all__ = ["HEAD", "MAX_DEPTH", "MAX_OTHERS", "SMALL", "Scan"]

HEAD = 2**19
"""Bytes of the first request: enough to recognise a format and for most files' headers."""
SMALL = 2**22
"""A source of at most so many bytes is read whole, which saves all further rounds."""
MAX_OTHERS = 20_000
"""So many other sources are opened for one scan, asked for in vain or not."""
MAX_DEPTH = 8
"""Sources may refer to sources that refer to sources so many times."""
AT_ONCE = 32
"""Remote sources that are scanned at the same time."""


@dataclass(slots=True)
class Scan:
    """One scan, with all the sources it opens."""

    storage_options: Options | None = None
    """How to reach the sources, as `byteatlas.sources.credentials.prepared` returns it."""
    allow: Sequence[str] = ()
    """Prefixes of URLs that sources may name outside their own directories."""
    _opened: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def scan(
        self,
        reader: CachedReader,
        options: ScanOptions,
        *,
        scanner: str | None = None,
        above: tuple[str, ...] = (),
    ) -> VirtualGroup:
        """Scan a source that is open.

        Parameters
        ----------
        above
            The sources that led here.

        Raises
        ------
        ByteatlasError
            The source cannot be read or is refused as a whole.
        """
        options = replace(options, opens_others=True)
        trace = reader.trace
        above = (*above, reader.url)
        sources = [reader.facts]
        try:
            head = as_view(reader.read_head(HEAD))
            size = reader.facts.size
            assert size is not None  # the first answer says it
            if len(head) < size <= SMALL:
                head = as_view(reader.read_head(size))
            found = find_scanner(head, only=(scanner,) if scanner else ())
            with paused_gc():
                result = run(found.scan(Window(head, size), options), reader)
            while isinstance(result, Pending):
                answers = self._answer(result.others, options, trace, above, sources)
                with paused_gc():
                    result = run(result.go_on(answers), reader)
        except ByteatlasError as error:
            raise error.at(url=reader.url) from error.__cause__
        sources[0] = reader.facts
        report = replace(
            result.report,
            scanner=found.name,
            version=__version__,
            rounds=trace.rounds,
            requests=trace.requests,
            bytes_read=trace.bytes_read,
        )
        result, kept = _without_unused(result, sources)
        return replace(result, sources=kept, report=report)

    def _answer(
        self,
        others: Sequence[Other],
        options: ScanOptions,
        trace: Trace,
        above: tuple[str, ...],
        sources: list[Source],
    ) -> list[Found]:
        """Open what is asked for, all at once, and add to the table of sources."""
        traces = [Trace(keep_log=trace.keep_log) for _ in others]
        is_remote = not is_chained(above[-1]) and scheme_of(above[-1]) not in LOCAL_SCHEMES
        guard = guard_for(above[-1], self.allow) if is_remote else None
        with ThreadPoolExecutor(AT_ONCE if is_remote else 1) as pool:
            opened = list(
                pool.map(self._open, others, repeat(options), traces, repeat(above), repeat(guard))
            )
        _add_up(trace, traces)
        positions = {source.url: place for place, source in enumerate(sources)}
        answers = []
        for group, answer in opened:
            if group is None:
                answers.append(answer)
                continue
            for source in group.sources:
                if source.url not in positions:
                    positions[source.url] = len(sources)
                    sources.append(source)
            places = np.array([positions[source.url] for source in group.sources], np.uint32)
            answers.append(answer._replace(group=_renumbered(group, places), source=int(places[0])))
        return answers

    def _open(
        self,
        other: Other,
        options: ScanOptions,
        trace: Trace,
        above: tuple[str, ...],
        guard: Guard | None,
    ) -> tuple[VirtualGroup | None, Found]:
        try:
            url = url_beside(
                above[-1], other.name, is_allowed=self._is_allowed, finds_moved=other.finds_moved
            )
            refusal = self._refusal(url, above)
            if refusal:
                return None, Found(reason=f"{other.name!r} {refusal}")
            seen = Source(url, guard=guard)
            known = options_for(seen, self.storage_options)
            source = open_source(url, storage_options=known, expected=seen, trace=trace)
            try:
                if other.kind == "bytes":
                    facts = source.stat()
                    size = facts.size or 0
                    return VirtualGroup(sources=(replace(facts, url=url, guard=guard),)), Found(
                        size=size
                    )
                return self.scan(
                    CachedReader(source), _options(other, options), above=above
                ), Found(size=source.facts.size or 0)
            finally:
                source.close()
        except SourceMissing as error:
            return None, Found(reason=str(error), is_missing=True)
        except ByteatlasError as error:
            return None, Found(reason=str(error))

    def _is_allowed(self, url: str) -> bool:
        return any(Place.of(url).is_within(Place.of(prefix)) for prefix in self.allow)

    def _refusal(self, url: str, above: tuple[str, ...]) -> str | None:
        if url in above:
            return "refers back to a source that it is referred to from"
        if len(above) > MAX_DEPTH:
            return f"is one of sources that refer to each other more than {MAX_DEPTH} deep"
        with self._lock:
            self._opened += 1
            if self._opened > MAX_OTHERS:
                return f"is one of more than {MAX_OTHERS} other sources"
        return None


def _options(other: Other, options: ScanOptions) -> ScanOptions:
    """Return how another source is scanned for what is wanted of it."""
    if other.kind == "arrays":
        # Data in one piece stays whole: whoever asked cuts it as needed.
        return replace(options, max_chunk=2**62, include=(), exclude=(), exactly=other.paths)
    goals = [escape(path.rstrip("/")) for path in other.paths]
    include = tuple(one for goal in goals for one in (goal or "/*", f"{goal}/*"))
    return replace(options, include=include, exclude=(), exactly=())


def _add_up(trace: Trace, parts: Sequence[Trace]) -> None:
    """Count what several scans cost that did not wait for each other."""
    trace.add(
        rounds=max((part.rounds for part in parts), default=0),
        requests=sum(part.requests for part in parts),
        bytes_read=sum(part.bytes_read for part in parts),
    )
    trace.retries += sum(part.retries for part in parts)
    trace.log += [entry for part in parts for entry in part.log]
    trace.peak_in_flight = max([trace.peak_in_flight, *(part.peak_in_flight for part in parts)])


def _without_unused(
    group: VirtualGroup, sources: Sequence[Source]
) -> tuple[VirtualGroup, tuple[Source, ...]]:
    """Leave out sources that no array has chunks of; the first one stays."""
    if len(sources) == 1:
        return group, tuple(sources)
    is_used = np.zeros(len(sources), np.bool_)
    is_used[0] = True
    for _, array in group.walk_arrays():
        if array.manifest.source is not None:
            is_used[array.manifest.source] = True
    places = (np.cumsum(is_used) - 1).astype(np.uint32)
    kept = tuple(one for one, used in zip(sources, is_used.tolist(), strict=True) if used)
    return _renumbered(group, places) if len(kept) > 1 else _of_one(group), kept


def _of_one(group: VirtualGroup) -> VirtualGroup:
    """Let all chunks be of the first source."""
    arrays = {
        name: replace(array, manifest=replace(array.manifest, source=None))
        for name, array in group.arrays.items()
    }
    return replace(
        group,
        arrays=arrays,
        groups={name: _of_one(child) for name, child in group.groups.items()},
    )


def _renumbered(group: VirtualGroup, places: NDArray[np.uint32]) -> VirtualGroup:
    """Let manifests count sources by another table."""
    arrays = {name: _moved(array, places) for name, array in group.arrays.items()}
    groups = {name: _renumbered(child, places) for name, child in group.groups.items()}
    return replace(group, arrays=arrays, groups=groups)


def _moved(array: VirtualArray, places: NDArray[np.uint32]) -> VirtualArray:
    manifest = array.manifest
    column = manifest.source
    rows = np.zeros(manifest.offset.size, np.uint32) if column is None else column
    return replace(array, manifest=replace(manifest, source=places[rows]))
