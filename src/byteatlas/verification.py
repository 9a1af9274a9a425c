"""Does an index say what its source says? Values, types, dimensions and attributes, to the bit.

The index is read by byteatlas, the source by netCDF4 or h5py (`byteatlas.reference`); nothing
but the comparison is shared.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from byteatlas.errors import MissingDependency, SourceChanged, Unsupported
from byteatlas.index.lazy_manifest import with_all_sources
from byteatlas.model import Skipped, Source, VirtualArray, VirtualGroup
from byteatlas.opening import Target, open_index
from byteatlas.read import Reader
from byteatlas.reference import Reference, ReferenceArray, open_reference
from byteatlas.sources import open_source
from byteatlas.sources.credentials import options_for
from byteatlas.sources.identity import check_identity

__all__ = [
    "Checked",
    "Difference",
    "VerifyReport",
    "find_changed",
    "same_attribute",
    "same_values",
    "verify",
]

SLAB = 64 * 2**20
"""Values are compared in slabs of about so many bytes."""


class Difference(NamedTuple):
    """Something that the index says otherwise than its source."""

    path: str
    """The array or group, such as "/group/temp"."""
    what: str
    """values, shape, dtype, dimensions, missing, or "attribute NAME"."""
    detail: str


class Checked(NamedTuple):
    """An array that was compared."""

    path: str
    elements: int
    """How many of its elements were compared."""
    size: int
    """How many it has."""
    is_equal: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """The outcome of `verify`."""

    library: str
    """The reference library and its version; empty when the source has changed."""
    checked: tuple[Checked, ...] = ()
    differences: tuple[Difference, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    """What the index says it does not hold, and what the reference library cannot read."""
    absent: tuple[str, ...] = ()
    """Arrays of the source that the index does not speak of, such as those a scan excluded."""
    stale: tuple[SourceChanged, ...] = ()
    """Sources that are no longer what was indexed; nothing is compared then."""

    @property
    def is_equal(self) -> bool:
        """Whether no source has changed and nothing that was compared differs."""
        return not self.differences and not self.stale


def verify(
    index: Target,
    *,
    sample: int | None = 10,
    seed: int = 0,
    storage_options: Mapping[str, Any] | None = None,
    allow: Sequence[str] = (),
    progress: Callable[[str], None] | None = None,
) -> VerifyReport:
    """Compare an index with its source as netCDF4 or h5py reads it.

    Parameters
    ----------
    index
        An index of one file, as for `open_index`; or what `scan` returned. Where other files
        hold values of a local file, the library finds them itself; else they are not compared.
    sample
        Number of chunks compared of each array, always with its first and last; None compares
        every value.
    seed
        Chooses other chunks.
    storage_options
        For reaching the index and its source, in fsspec's words.
    allow
        As for `open_index`.
    progress
        Called with the path of each array before it is compared.

    Returns
    -------
    VerifyReport
        Nothing is compared when the source has changed since it was indexed.

    Raises
    ------
    Unsupported
        The index has no source, or several that no scan of one file has found.
    SourceError
        The source cannot be read.
    """
    group = with_all_sources(open_index(index, storage_options=storage_options, allow=allow))
    stale = find_changed(group.sources, storage_options=storage_options)
    if stale:
        return VerifyReport(library="", stale=stale, skipped=group.report.skipped)
    # A scan puts the file first, and behind it those that hold values of it.
    if len(group.sources) != 1 and not (group.sources and group.report.scanner):
        raise Unsupported(
            f"the index has {len(group.sources)} sources, and only one can be compared"
        )
    reader = Reader(group.sources, storage_options)
    try:
        with open_reference(group.sources[0].url, storage_options=storage_options) as reference:
            return _compare(group, reader, reference, sample, seed, progress)
    finally:
        reader.close()


def _compare(
    group: VirtualGroup,
    reader: Reader,
    reference: Reference,
    sample: int | None,
    seed: int,
    progress: Callable[[str], None] | None,
) -> VerifyReport:
    checked: list[Checked] = []
    differences: list[Difference] = []
    skipped = list(group.report.skipped)
    left_out = {path for path, _ in skipped}
    for path, member in group.walk():
        theirs = reference.attributes(path)
        if theirs is None:
            reason = f"not compared: {reference.library} shows no such group"
            skipped.append(Skipped(path or "/", reason))
        else:
            differences += _compare_attributes(path, member.attrs, theirs, left_out)

    unseen = set(reference.paths()) - left_out
    for path, array in group.walk_arrays():
        if progress:
            progress(path)
        place = reference.resolve(path)
        if place is None:
            differences.append(Difference(path, "missing", "it is not in the source"))
            continue
        unseen.discard(place)
        found: list[Difference] = []
        try:
            other = reference.array(place)
            found += _compare_metadata(path, array, other, left_out)
            elements = 0
            for region in _regions(array, sample, zlib.crc32(path.encode(), seed)):
                values = other.read(region) if array.shape == other.shape else np.empty(0)
                ours = reader.read(array, region, path=path)
                elements += ours.size
                detail = describe_difference(ours, values, region)
                if detail:
                    found.append(Difference(path, "values", detail))
                    break
        except (MissingDependency, Unsupported) as error:
            skipped.append(Skipped(path, f"not compared: {error}"))
        else:
            checked.append(Checked(path, elements, math.prod(array.shape), not found))
        differences += found
    return VerifyReport(
        library=reference.library,
        checked=tuple(checked),
        differences=tuple(differences),
        skipped=tuple(skipped),
        absent=tuple(sorted(unseen)),
    )


def find_changed(
    sources: Sequence[Source], *, storage_options: Mapping[str, Any] | None = None
) -> tuple[SourceChanged, ...]:
    """Look at each source, one HEAD request or so, and return what changed since the scan.

    Raises
    ------
    SourceError
        One is gone or denied.
    """
    changed = []
    for source in sources:
        options = options_for(source, storage_options)
        opened = open_source(source.url, storage_options=options, expected=source)
        try:
            check_identity(source, opened.stat())
        except SourceChanged as error:
            changed.append(error.at(url=source.url))
        finally:
            opened.close()
    return tuple(changed)


# Which parts


def _regions(array: VirtualArray, sample: int | None, seed: int) -> Iterator[tuple[slice, ...]]:
    """Yield the parts of an array to compare: some chunks, or slabs that cover it."""
    cells = array.manifest.cells
    if sample is not None and sample < cells:
        chosen = np.random.default_rng(seed).integers(0, cells, sample)
        chosen[[0, -1]] = 0, cells - 1
        for index in np.unique(chosen):
            yield _chunk_region(array, np.unravel_index(index, array.manifest.grid_shape))
    elif math.prod(array.shape):
        yield from _slabs(array)


def _chunk_region(array: VirtualArray, index: tuple[np.intp, ...]) -> tuple[slice, ...]:
    return tuple(
        slice(int(i) * chunk, min((int(i) + 1) * chunk, length))
        for i, chunk, length in zip(index, array.chunk_shape, array.shape, strict=True)
    )


def _slabs(array: VirtualArray) -> Iterator[tuple[slice, ...]]:
    """Cut along the first axis, where chunks end, into parts of about `SLAB` bytes."""
    if not array.shape:
        yield ()
        return
    row = max(1, array.nbytes // array.shape[0])
    chunk = array.chunk_shape[0]
    step = max(1, SLAB // (row * chunk)) * chunk
    rest = (slice(None),) * (len(array.shape) - 1)
    for start in range(0, array.shape[0], step):
        yield slice(start, min(start + step, array.shape[0])), *rest


# Metadata


def _compare_metadata(
    path: str, array: VirtualArray, theirs: ReferenceArray, left_out: set[str]
) -> Iterator[Difference]:
    if array.shape != theirs.shape:
        yield Difference(path, "shape", f"{array.shape} in the index, {theirs.shape} in the source")
    if not same_dtype(array.dtype, theirs.dtype):
        yield Difference(path, "dtype", f"{array.dtype} in the index, {theirs.dtype} in the source")
    for axis, (name, names) in enumerate(zip(array.dimensions, theirs.dimensions, strict=False)):
        if names and name not in names:
            other = " or ".join(map(repr, sorted(names)))
            detail = f"axis {axis} is {name!r} in the index, {other} in the source"
            yield Difference(path, "dimensions", detail)
    yield from _compare_attributes(path, array.attrs, theirs.attrs, left_out)


def _compare_attributes(
    path: str, ours: Mapping[str, Any], theirs: Mapping[str, Any], left_out: set[str]
) -> Iterator[Difference]:
    for name in {**ours, **theirs}:
        what = f"attribute {name}"
        if isinstance(theirs.get(name), Unsupported) or f"{path}@{name}" in left_out:
            continue
        if name not in ours:
            yield Difference(path or "/", what, f"missing; it is {theirs[name]!r} in the source")
        elif name not in theirs:
            yield Difference(path or "/", what, f"{ours[name]!r} in the index, none in the source")
        elif not same_attribute(ours[name], theirs[name]):
            detail = f"{ours[name]!r} in the index, {theirs[name]!r} in the source"
            yield Difference(path or "/", what, detail)


# Pure comparisons


def same_attribute(ours: Any, theirs: Any) -> bool:
    """Tell whether two attribute values are the same in type and value.

    Text is text whether it was stored as bytes or as a string, an array of one number is that
    number, and empty text is no text: the libraries do not agree on any of these.
    """
    ours, theirs = _plain_attribute(ours), _plain_attribute(theirs)
    if isinstance(ours, list) or isinstance(theirs, list):
        return isinstance(ours, list) and isinstance(theirs, list) and ours == theirs
    return same_dtype(ours.dtype, theirs.dtype) and same_values(ours, theirs)


def _plain_attribute(value: Any) -> list[str] | NDArray[Any]:
    array = np.asarray(value, object if isinstance(value, list) else None)
    if array.dtype.kind not in "OSU":
        return array.ravel()
    texts = [_plain_text(item) for item in array.ravel().tolist()]
    return [] if texts == [""] else texts


def _plain_text(item: Any) -> str:
    if isinstance(item, np.ndarray) and item.dtype == "S1":
        item = item.tobytes()  # a sequence of characters, as MATLAB spells the names of fields
    if isinstance(item, bytes):
        item = item.decode("utf-8", "replace")  # as netCDF4 does
    return str(item).rstrip("\0")


def same_dtype(ours: np.dtype[Any], theirs: np.dtype[Any]) -> bool:
    """Tell whether two types are the same but for byte order and how libraries spell them.

    netCDF4 reads HDF5's booleans as integers of one byte, complex numbers as pairs, and
    fixed-length strings as strings.
    """
    if ours.fields and theirs.fields:
        return ours.names == theirs.names and all(
            same_dtype(ours.fields[name][0], theirs.fields[name][0]) for name in ours.fields
        )
    if ours.subdtype and theirs.subdtype:
        (mine, shape), (other, other_shape) = ours.subdtype, theirs.subdtype
        return shape == other_shape and same_dtype(mine, other)
    if ours.kind in "SO" and theirs.kind == "O":
        return True
    if ours.kind == "b":
        return theirs.itemsize == 1 and theirs.kind in "bui"
    if ours.kind == "c" and theirs.fields:
        return ours.itemsize == theirs.itemsize and len(theirs.fields) == 2
    return ours.newbyteorder("=") == theirs.newbyteorder("=")


def same_values(ours: NDArray[Any], theirs: NDArray[Any]) -> bool:
    """Tell whether two arrays of `same_dtype` hold the same values to the bit, NaNs included."""
    return ours.shape == theirs.shape and bool(_equal(ours, theirs).all())


def describe_difference(
    ours: NDArray[Any], theirs: NDArray[Any], region: tuple[slice, ...] = ()
) -> str:
    """Return where two arrays differ first, by how many elements, or "" when nowhere.

    Parameters
    ----------
    ours, theirs
        Values of one region.
    region
        Where in the array they begin.
    """
    if ours.shape != theirs.shape:
        return f"shape {ours.shape} in the index, {theirs.shape} in the source"
    equal = _equal(ours, theirs)
    if equal.all():
        return ""
    first = np.unravel_index(int(np.argmin(equal)), ours.shape)
    starts = [part.start or 0 for part in region] or [0] * ours.ndim
    place = ", ".join(str(int(i) + start) for i, start in zip(first, starts, strict=True))
    return (
        f"[{place}] is {ours[first]!r} in the index, {theirs[first]!r} in the source; "
        f"{int(equal.size - equal.sum()):,} of {equal.size:,} differ"
    )


def _equal(ours: NDArray[Any], theirs: NDArray[Any]) -> NDArray[np.bool_]:
    """Compare element by element; the shapes are equal."""
    if ours.dtype.fields and theirs.dtype.fields:  # by field: the bytes between them say nothing
        equal = np.ones(ours.shape, bool)
        for name in ours.dtype.fields:
            field = _equal(ours[name], theirs[name])
            equal &= field.reshape(*ours.shape, -1).all(axis=-1)
        return equal
    if ours.dtype.kind in "SO" and theirs.dtype.kind in "SO":
        pairs = zip(ours.ravel().tolist(), theirs.ravel().tolist(), strict=True)
        return np.array([_same_item(*pair) for pair in pairs], bool).reshape(ours.shape)
    mine, other = _little_endian_bytes(ours), _little_endian_bytes(theirs)
    if mine.shape != other.shape:
        return np.zeros(ours.shape, bool)
    same: NDArray[np.bool_] = (mine == other).all(axis=-1).reshape(ours.shape)
    return same


def _same_item(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, np.ndarray) and isinstance(theirs, np.ndarray):
        return same_dtype(ours.dtype, theirs.dtype) and same_values(ours, theirs)
    if isinstance(ours, bytes) and isinstance(theirs, bytes):
        return ours.rstrip(b"\0") == theirs.rstrip(b"\0")
    return _plain_text(ours) == _plain_text(theirs)


def _little_endian_bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the bytes of each element, shape (elements, itemsize)."""
    little = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<"))).reshape(-1)
    return little.view(np.uint8).reshape(values.size, values.dtype.itemsize)
