"""Scanners: what one is, and how the one that fits some bytes is found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from byteatlas.errors import MissingDependency, NotRecognised
from byteatlas.model import VirtualGroup
from byteatlas.steps import Steps

__all__ = [
    "ENTRY_POINT_GROUP",
    "MAX_CHUNK",
    "MAX_INLINE",
    "ScanOptions",
    "Scanner",
    "Window",
    "find_scanner",
    "scanner_names",
]

ENTRY_POINT_GROUP = "byteatlas.scanners"
MAX_CHUNK = 8 * 2**20
MAX_INLINE = 16 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanOptions:
    """What the caller wants of a scan."""

    max_chunk: int = MAX_CHUNK
    """Contiguous data is split into chunks of at most so many bytes."""
    max_inline: int = MAX_INLINE
    """Values that only fit inline (strings and the like) are refused above so many bytes."""
    include: tuple[str, ...] = ()
    """Glob patterns of array paths ("/group/temp"); empty means all."""
    exclude: tuple[str, ...] = ()
    """Glob patterns of array paths to leave out; these win."""

    def wants(self, path: str) -> bool:
        """Tell whether the array at a path such as "/group/temp" is wanted."""

        def hit(pattern: str) -> bool:
            return fnmatchcase(path, pattern) or fnmatchcase(path.lstrip("/"), pattern)

        return (not self.include or any(map(hit, self.include))) and not any(map(hit, self.exclude))


@dataclass(frozen=True, slots=True)
class Window:
    """The bytes a scanner may address: it counts from the window's first byte."""

    head: memoryview
    """The first bytes: all of a small source, at least some hundred KiB of a large one."""
    size: int
    """Number of bytes in the window."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanner:
    """Turns the bytes of one format into a virtual group."""

    name: str
    """Short name of the format, as in the entry point."""
    matches: Callable[[memoryview], bool]
    """Tell from the first bytes, and only from them, whether this is the format."""
    scan: Callable[[Window, ScanOptions], Steps[VirtualGroup]]
    """Parse a window. Offsets in the result count from the window's first byte, and its
    manifests name source 0; whoever drives the parser fills in the sources."""


@cache  # entry points cannot change while the interpreter runs, and reading them takes a while
def _entry_points() -> tuple[EntryPoint, ...]:
    return tuple(sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda point: point.name))


def scanner_names() -> list[str]:
    """Return the names of the installed scanners, importing none of them."""
    return [point.name for point in _entry_points()]


@cache
def _load(point: EntryPoint) -> Scanner:
    scanner = point.load()
    if not isinstance(scanner, Scanner):
        raise TypeError(f"entry point {point.value!r} is a {type(scanner).__name__}, not a Scanner")
    return scanner


def find_scanner(head: memoryview, *, only: Sequence[str] = ()) -> Scanner:
    """Return the one scanner that recognises the first bytes of a source.

    A scanner that cannot be imported is reported by name only when no other fits.

    Raises
    ------
    NotRecognised
        No scanner recognises the bytes, or more than one does.
    MissingDependency
        None does, and some scanner could not be imported.
    """
    found: list[Scanner] = []
    broken: list[str] = []
    for point in _entry_points():
        if only and point.name not in only:
            continue
        try:
            scanner = _load(point)
        except Exception as error:  # noqa: BLE001  # a plugin may fail in any way; it is reported
            broken.append(f"{point.name} ({type(error).__name__}: {error})")
            continue
        if scanner.matches(head):
            found.append(scanner)
    if len(found) == 1:
        return found[0]
    start = bytes(head[:16])
    if found:
        names = ", ".join(scanner.name for scanner in found)
        raise NotRecognised(
            f"the first bytes {start!r} are claimed by several scanners: {names}",
            hint="name the one to use",
        )
    if broken:
        raise MissingDependency(
            f"no scanner recognises the first bytes {start!r}, and some could not be loaded: "
            + "; ".join(broken)
        )
    raise NotRecognised(
        f"no scanner recognises the first bytes {start!r}, expected one of: "
        + ", ".join(scanner_names()),
        hint="check that the URL is a data file and not a web page",
    )
