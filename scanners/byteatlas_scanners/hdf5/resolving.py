"""Ask for the other files that a file refers to, and complete its datasets with them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from byteatlas.errors import Unsupported
from byteatlas.model import ChunkManifest, ScanReport, Skipped, VirtualArray, VirtualGroup
from byteatlas.scanners import Dialogue, Found, Other
from byteatlas_scanners.hdf5.dataset import uncut
from byteatlas_scanners.hdf5.external_files import ExternalFiles, external_array
from byteatlas_scanners.hdf5.failures import FAILURES, reason_of
from byteatlas_scanners.hdf5.objects import Object, Objects
from byteatlas_scanners.hdf5.paths import Outside, find, follow
from byteatlas_scanners.hdf5.virtual_dataset import Key, Lacking, virtual_array

__all__ = ["exact_group", "follow_links", "resolve"]

MAX_NESTED = 32
"""Virtual datasets of virtual datasets of the same file."""
NOT_THERE = "there is no such dataset"
NOT_AN_ARRAY = "it is no dataset"


_ANY = VirtualArray((), np.dtype("u1"), (), ChunkManifest.empty(()))
"""Stands for a dataset of the same file that is there, complete or not."""


@dataclass(slots=True)
class _Sources:
    """The source datasets and external files known so far."""

    objects: Objects
    arrays: dict[Key, VirtualArray | Lacking] = field(default_factory=dict)
    """Of other files."""
    files: dict[str, Found] = field(default_factory=dict)
    """External raw files."""
    reached: dict[int, Object] = field(default_factory=dict)
    """Datasets of this file whose values are elsewhere and are needed, by address."""
    _own: dict[str, Object | Outside | Lacking] = field(default_factory=dict)
    """What paths of this file lead to."""
    _whole: dict[int, VirtualArray] = field(default_factory=dict)
    _above: dict[int, None] = field(default_factory=dict)
    """Datasets that are being completed, each for the one before."""

    def at(self, key: Key) -> Object | VirtualArray | Lacking | None:
        """Return a source, or the dataset of this file that is one; None when it is not known."""
        found = self.own(key)
        if found is None or isinstance(found, Outside):
            return self.arrays.get(found or key)
        return found

    def own(self, key: Key) -> Object | Outside | Lacking | None:
        """Return what a path of this file leads to; None for keys of others."""
        file, path = key
        if file:
            return None
        if path not in self._own:
            self._own[path] = self._find(path)
        return self._own[path]

    def _find(self, path: str) -> Object | Outside | Lacking:
        found = find(self.objects, path)
        if found is None:
            return Lacking(f"its source {path!r}: {NOT_THERE}", is_missing=True)
        if isinstance(found, Outside):
            return found
        if found.dataset is None:
            return Lacking(f"its source {path!r}: {found.reason or NOT_AN_ARRAY}")
        if found.elsewhere is not None:
            self.reached.setdefault(found.address, found)
        return found

    def has(self, key: Key) -> VirtualArray | Lacking | None:
        """Do as `look`, but give something for each dataset of this file, complete or not."""
        found = self.at(key)
        return _ANY if isinstance(found, Object) else found

    def look(self, key: Key) -> VirtualArray | Lacking | None:
        """Return a source, completing it first if it is a dataset of this file."""
        found = self.at(key)
        if not isinstance(found, Object):
            return found
        if found.array is None and not found.reason:
            if found.address in self._above:
                return Lacking(f"its source {key[1]!r} refers back to it")
            self.complete(found)
        if found.array is None:
            return Lacking(f"its source {key[1]!r}: {found.reason}")
        if found.address not in self._whole:
            assert found.dataset is not None
            self._whole[found.address] = uncut(self.objects.file, found.dataset, found.array)
        return self._whole[found.address]

    def complete(self, item: Object) -> None:
        """Give a dataset its array, or the reason why it has none."""
        header, where = item.dataset, item.elsewhere
        assert header is not None
        if item.array is not None or item.reason:
            return
        self._above[item.address] = None
        try:
            if len(self._above) > MAX_NESTED:
                raise Unsupported(f"virtual datasets nested more than {MAX_NESTED} deep")
            most = self.objects.options.max_chunk
            if isinstance(where, ExternalFiles):
                found = [self.files[slot.name] for slot in where.slots]
                item.array = external_array(header, where, found, most)
            else:
                assert where is not None
                item.array = virtual_array(header, where, self.look, most)
                rank = len(header.dataspace.shape)
                item.dataspace = header.dataspace._replace(shape=item.array.shape[:rank])
        except FAILURES as error:
            item.reason = reason_of(error, item.offset)
        finally:
            del self._above[item.address]


def resolve(objects: Objects, paths: Sequence[str] | None = None) -> Dialogue[_Sources]:
    """Complete datasets whose values are elsewhere: each gets its array, or the reason.

    Parameters
    ----------
    paths
        What must be complete in the end; None means all that the scan shows.
    """
    sources = _Sources(objects)
    if paths is None:
        sources.reached |= {
            address: item
            for address, item in objects.by_address.items()
            if item.elsewhere is not None and objects.options.wants(item.path)
        }
    while True:
        keys = {key: None for path in paths or () if sources.at(key := ("", path)) is None}
        names: dict[str, None] = {}
        done = 0
        while done < len(sources.reached):  # it grows
            item = list(sources.reached.values())[done]
            done += 1
            _add_needs(sources, item, keys, names)
        others = [*_by_file(sources, keys), *(Other(name, "bytes") for name in names)]
        if not others:
            break
        answers = yield others
        for other, answer in zip(others, answers, strict=True):
            if other.kind == "bytes":
                sources.files[other.name] = answer
            for path in other.paths:
                sources.arrays[other.name, path] = _array_of(answer, other.name, path)
    for item in list(sources.reached.values()):
        sources.complete(item)
    return sources


def _add_needs(
    sources: _Sources, item: Object, keys: dict[Key, None], names: dict[str, None]
) -> None:
    """Add what is not known yet of where a dataset's values are."""
    if item.reason:
        return
    if isinstance(item.elsewhere, ExternalFiles):
        slots = item.elsewhere.slots
        names |= dict.fromkeys(slot.name for slot in slots if slot.name not in sources.files)
        return
    assert item.elsewhere is not None
    try:
        keys |= dict.fromkeys(item.elsewhere.unknown(sources.has))
    except FAILURES as error:
        item.reason = reason_of(error, item.offset)


def _by_file(sources: _Sources, keys: Iterable[Key]) -> list[Other]:
    """Return what to ask of other files, each file once."""
    paths: dict[str, dict[str, None]] = {}
    for key in keys:
        found = sources.own(key)
        file, path = found if isinstance(found, Outside) else key
        paths.setdefault(file, {})[path] = None
    return [Other(file, "arrays", tuple(some), finds_moved=True) for file, some in paths.items()]


def _array_of(answer: Found, file: str, path: str) -> VirtualArray | Lacking:
    if answer.reason:
        return Lacking(f"its source {path!r} in {file!r}: {answer.reason}", answer.is_missing)
    if path in answer.group.arrays:
        return answer.group.arrays[path]
    reason = dict(answer.group.report.skipped).get(path, NOT_THERE)
    return Lacking(f"its source {path!r} in {file!r}: {reason}", reason == NOT_THERE)


def exact_group(sources: _Sources, paths: Sequence[str]) -> VirtualGroup:
    """Return datasets for another file that refers to them (`ScanOptions.exactly`)."""
    arrays: dict[str, VirtualArray] = {}
    skipped: list[Skipped] = []
    for path in paths:
        found = sources.look(("", path))
        assert found is not None  # all were resolved
        if isinstance(found, Lacking):
            skipped.append(Skipped(path, NOT_THERE if found.is_missing else found.reason))
        else:
            arrays[path] = found
    return VirtualGroup(arrays=arrays, report=ScanReport(skipped=tuple(skipped)))


def follow_links(objects: Objects) -> Dialogue[dict[Outside, Found]]:
    """Ask for all that external links of shown groups lead to, each file once."""
    goals = {
        found
        for item in objects.by_address.values()
        for link in item.links.values()
        if link.address is None and isinstance(found := follow(objects, item, link), Outside)
    }
    files: dict[str, list[str]] = {}
    for goal in sorted(goals):
        files.setdefault(goal.file, []).append(goal.path)
    others = [Other(file, "tree", tuple(paths), finds_moved=True) for file, paths in files.items()]
    answers: Sequence[Found] = ()
    if others:
        answers = yield others
    return {
        Outside(other.name, path): answer
        for other, answer in zip(others, answers, strict=True)
        for path in other.paths
    }
