"""Scanners: what one is, and how the one that fits some bytes is found."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from numbers import Integral
from typing import Literal, NamedTuple, TypeAlias, TypeVar

from byteatlas.errors import MissingDependency, NotRecognised
from byteatlas.model import VirtualGroup
from byteatlas.steps import Steps

__all__ = [
    "ENTRY_POINT_GROUP",
    "MAX_CHUNK",
    "MAX_INLINE",
    "Dialogue",
    "Found",
    "Other",
    "Pending",
    "ScanOptions",
    "Scanned",
    "Scanner",
    "Window",
    "asking",
    "find_scanner",
    "scanner_names",
]

ENTRY_POINT_GROUP = "byteatlas.scanners"
T = TypeVar("T")

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
    conventions: bool = True
    """Name dimensions that the format itself does not name after the conventions of products."""
    follow_links: bool = False
    """Show what links to other sources lead to, where the format has such links."""
    opens_others: bool = False
    """Whoever drives the scanner answers a `Pending`. Without it, values in other sources are
    skipped with that reason."""
    exactly: tuple[str, ...] = ()
    """Another source refers to these arrays: the result's root holds them alone, each under the
    path given here, as they are stored, without what conventions add (names, fill values)."""

    def __post_init__(self) -> None:
        for name, least in (("max_chunk", 1), ("max_inline", 0)):
            value = getattr(self, name)
            if not isinstance(value, Integral) or value < least:
                raise ValueError(f"{name} is {value!r}, expected a number of bytes from {least} up")

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


class Other(NamedTuple):
    """Another source whose bytes or arrays a scan needs."""

    name: str
    """As the source being scanned spells it: a path relative to its own directory, or absolute."""
    kind: Literal["arrays", "tree", "bytes"]
    """What is needed: arrays as they are stored (`ScanOptions.exactly`), parts of the tree that a
    scan of it shows, or only its place in the table of sources and its size."""
    paths: tuple[str, ...] = ()
    """The arrays, or the groups and arrays of the tree."""
    finds_moved: bool = False
    """An absolute name that does not exist stands for a file of its last part, beside the source
    that names it."""


class Found(NamedTuple):
    """What came of one `Other`."""

    group: VirtualGroup = VirtualGroup()
    """Of arrays and a tree, its scan. Manifests count sources as the asking scan does."""
    source: int = 0
    """Position in the table of sources of the asking scan."""
    size: int = 0
    """Bytes of the source."""
    reason: str | None = None
    """Why nothing was found."""
    is_missing: bool = False
    """Nothing was found because there is no such source."""


@dataclass(frozen=True, slots=True)
class Pending:
    """A scan that needs other sources before it can end."""

    others: tuple[Other, ...]
    go_on: Callable[[Sequence[Found]], Steps[VirtualGroup | Pending]]
    """Continue with one answer for each of the others, in their order."""


Scanned: TypeAlias = VirtualGroup | Pending
"""What a scanner returns."""

Dialogue: TypeAlias = Generator[Sequence[Other], Sequence[Found], T]
"""Asks for other sources, receives one answer for each, and returns a T."""


def asking(dialogue: Dialogue[VirtualGroup]) -> Scanned:
    """Turn a dialogue about other sources into what a scanner returns."""

    def go_on(found: Sequence[Found]) -> Steps[Scanned]:
        yield from ()  # other sources were read, nothing more of this one is
        return after(lambda: dialogue.send(found))

    def after(step: Callable[[], Sequence[Other]]) -> Scanned:
        try:
            return Pending(tuple(step()), go_on)
        except StopIteration as stop:
            result: VirtualGroup = stop.value
            return result

    return after(lambda: next(dialogue))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanner:
    """Turns the bytes of one format into a virtual group."""

    name: str
    """Short name of the format, as in the entry point."""
    matches: Callable[[memoryview], bool]
    """Tell from the first bytes, and only from them, whether this is the format."""
    scan: Callable[[Window, ScanOptions], Steps[Scanned]]
    """Parse a window. Offsets in the result count from the window's first byte, and its
    manifests name source 0; whoever drives the parser fills in the sources. What needs other
    sources is asked for with a `Pending`, if the options allow it."""
    engines: Mapping[str, str] = field(default_factory=dict)
    """Other libraries that read the format: name, and the module that a child process runs
    (`byteatlas.fallback.child.LibraryReader`). The first one is tried where `scan` refuses."""


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
        No scanner recognises the bytes, more than one does, or there is none of a name in `only`.
    MissingDependency
        None does, and some scanner could not be imported.
    """
    names = scanner_names()
    if unknown := set(only).difference(names):
        raise NotRecognised(f"there is no scanner {min(unknown)!r}; there is {', '.join(names)}")
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
    if not len(head):
        raise NotRecognised("it is empty", hint="check where it comes from")
    start = bytes(head[:16])
    if found:
        several = ", ".join(scanner.name for scanner in found)
        raise NotRecognised(
            f"the first bytes {start!r} are claimed by several scanners: {several}",
            offset=0,
            hint="name the one to use",
        )
    if broken:
        raise MissingDependency(
            f"no scanner recognises the first bytes {start!r}, and some could not be loaded: "
            + "; ".join(broken)
        )
    raise NotRecognised(
        f"no scanner recognises the first bytes {start!r}, expected one of: " + ", ".join(names),
        offset=0,
        hint="check that the URL is a data file and not a web page",
    )
