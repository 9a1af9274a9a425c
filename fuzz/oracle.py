"""What h5py and netCDF4 make of the same bytes, compared with what byteatlas made of them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import netCDF4
import numpy as np

from fuzz.subject import Reading, corner

__all__ = ["Verdict", "judge"]

MOST_OBJECTS = 5000
UNREADABLE = (OSError, KeyError, RuntimeError, TypeError, ValueError, MemoryError, AttributeError)
"""What h5py and netCDF4 raise on bytes they cannot read."""
ONLY_A_DIMENSION = b"This is a netCDF dimension but not a netCDF variable"
BOOKKEEPING = frozenset(
    {
        "CLASS",
        "NAME",
        "DIMENSION_LIST",
        "REFERENCE_LIST",
        "_Netcdf4Coordinates",
        "_Netcdf4Dimid",
        "_NCProperties",
        "_nc3_strict",
    }
)


class Verdict(NamedTuple):
    """How two readings of the same bytes compare."""

    kind: str
    """agree, error, skip, lenient, wrong or dropped."""
    details: tuple[str, ...] = ()


class _Findings:
    def __init__(self) -> None:
        self.wrong: list[str] = []
        self.dropped: list[str] = []
        self.lenient: list[str] = []


def judge(reading: Reading, path: Path, pristine: frozenset[str], *, is_hdf5: bool) -> Verdict:
    """Compare a reading with the oracle's.

    Parameters
    ----------
    pristine
        Paths that are skipped in the undamaged sample too.

    Returns
    -------
    ``wrong``: a value differs. ``dropped``: the oracle has a variable that is neither read nor
    reported as skipped. ``lenient``: byteatlas reads what the oracle does not, and agrees in all
    else. ``error``: the scan ended in an error. ``skip``: something is reported as skipped, all
    else agrees. ``agree``: all agrees.
    """
    if reading.error is not None:
        return Verdict("error", (reading.error,))
    for name, why in list(reading.refused.items()):  # a library ends names at a null byte
        reading.refused.setdefault(name.partition("\0")[0], why)
    findings = _Findings()
    (_judge_hdf5 if is_hdf5 else _judge_netcdf3)(reading, path, findings)
    for kind in ("wrong", "dropped", "lenient"):
        if found := getattr(findings, kind):
            return Verdict(kind, tuple(found))
    if reading.refused.keys() - pristine:
        return Verdict("skip", tuple(f"{key}: {why}" for key, why in reading.refused.items()))
    return Verdict("agree")


def _judge_hdf5(reading: Reading, path: Path, findings: _Findings) -> None:
    try:
        file = _open(path)
    except UNREADABLE as error:
        findings.lenient += [f"/: h5py cannot open the file: {error}"]
        return
    seen: set[str] = set()
    blind: list[str] = []
    """Where the oracle sees less than there may be."""
    try:
        for name, item in _walk(file, blind):
            here = _shown(name)
            seen.add(here)
            _compare_attributes(reading, here or "/", item, findings)
            if isinstance(item, h5py.Dataset):
                _compare_dataset(reading, here, item, findings)
    finally:
        with suppress(RuntimeError):  # what is damaged may not close
            file.close()
    for here in reading.values.keys() - seen:
        plain = here.rpartition("/")
        if f"{plain[0]}/_nc4_non_coord_{plain[2]}" in seen:
            continue
        known = any(here == at or here.startswith(at.rstrip("/") + "/") for at in blind)
        (findings.lenient if known else findings.wrong).append(f"{here}: h5py has no such dataset")


def _open(path: Path) -> h5py.File:
    """Open a file; one that is cut off, which h5py refuses as a whole, with zeros at its end."""
    try:
        return h5py.File(path)
    except OSError as error:
        cut = re.search(r"base_addr = (\d+), stored_eof = (\d+)", str(error))
        size = int(cut[1]) + int(cut[2]) if cut else 0
        if not path.stat().st_size < size < 2**26:
            raise
    os.truncate(path, size)
    return h5py.File(path)


def _name(name: str | bytes) -> str:
    """Return a name as h5py takes it; it gives those that are not UTF-8 as bytes."""
    return name if isinstance(name, str) else name.decode("utf-8", "surrogateescape")


def _shown(path: str) -> str:
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _walk(file: h5py.File, blind: list[str]) -> Iterator[tuple[str, Any]]:
    """Yield all groups and datasets; groups within themselves are not entered."""
    left = MOST_OBJECTS
    try:
        waiting: list[tuple[str, Any, tuple[Any, ...]]] = [("", file["/"], ())]
    except UNREADABLE:
        blind.append("/")
        return
    while waiting:
        path, group, above = waiting.pop()
        yield path, group
        try:
            names = [_name(name) for name in group]
        except UNREADABLE:
            blind.append(_shown(path))
            continue
        for name in names:
            here = f"{path}/{name}"
            try:
                kind = group.id.links.get_info(name.encode("utf-8", "surrogateescape")).type
                if kind not in (h5py.h5l.TYPE_HARD, h5py.h5l.TYPE_SOFT):
                    continue
                item = group[name]
            except UNREADABLE:
                blind.append(_shown(here))
                continue
            left -= 1
            if left < 0:
                blind.append("/")
                return
            if isinstance(item, h5py.Dataset):
                yield here, item
            elif isinstance(item, h5py.Group) and item not in (*above, group):
                waiting.append((here, item, (*above, group)))


def _is_refused(refused: Mapping[str, str], path: str) -> bool:
    while path:
        if path in refused:
            return True
        path = path.rpartition("/")[0]
    return "/" in refused


def _compare_dataset(reading: Reading, path: str, dataset: Any, findings: _Findings) -> None:
    head, _, name = path.rpartition("/")
    plain = f"{head}/{name.removeprefix('_nc4_non_coord_')}"
    here = path if path in reading.values or path in reading.refused else plain
    if here not in reading.values:
        if not _is_refused(reading.refused, here) and not _is_only_a_dimension(dataset):
            findings.dropped.append(f"{path}: neither read nor skipped")
        return
    ours = reading.values[here]
    try:
        if dataset.shape is None:
            findings.wrong.append(f"{path}: has no elements")
            return
        theirs = dataset[corner(dataset.shape)]
        if h5py.check_ref_dtype(dataset.dtype) is h5py.Reference:
            theirs = _targets(dataset, theirs)
    except UNREADABLE as error:
        findings.lenient.append(f"{path}: h5py cannot read it: {error}")
        return
    if dataset.dtype.kind == "S":  # a single one comes shortened
        theirs = np.asarray(theirs, dataset.dtype)
    inside = tuple(slice(0, n) for n in np.shape(theirs))
    if why := difference(ours[(*inside, ...)], theirs):
        findings.wrong.append(f"{path}: {why}")


def _targets(dataset: Any, references: Any) -> Any:
    """Return the paths of what references refer to, an array of their shape."""
    file = dataset.file.id
    names = [_name(h5py.h5r.get_name(one, file) or b"") for one in np.ravel(references)]
    return np.array(names, object).reshape(np.shape(references))


def _is_only_a_dimension(dataset: Any) -> bool:
    try:
        name = dataset.attrs.get("NAME", b"")
    except UNREADABLE:
        return False
    return isinstance(name, bytes) and name.startswith(ONLY_A_DIMENSION)


def _compare_attributes(reading: Reading, path: str, item: Any, findings: _Findings) -> None:
    """Compare the attributes that are at hand; of a variable that is not shown there are none."""
    ours = reading.attrs.get(path)
    if ours is None:
        return
    try:
        names = {_name(name) for name in item.attrs}
    except UNREADABLE:
        return
    for name in names - BOOKKEEPING:
        key = _shown(name)
        if key not in ours:
            prefix = "" if path == "/" else path
            if not any(_is_refused(reading.refused, f"{prefix}@{one}") for one in (key, "*", "?")):
                findings.dropped.append(f"{path}@{key}: neither read nor skipped")
            continue
        try:
            theirs = item.attrs[name]
        except UNREADABLE as error:
            findings.lenient.append(f"{path}@{key}: h5py cannot read it: {error}")
            continue
        if why := _attribute_difference(ours[key], theirs):
            findings.wrong.append(f"{path}@{key}: {why}")


def _attribute_difference(ours: Any, theirs: Any) -> str | None:
    if isinstance(theirs, h5py.Empty):
        return None if np.size(ours) == 0 else f"{ours!r}, not empty"
    one, other = np.asarray(ours).ravel(), np.asarray(theirs).ravel()
    if other.dtype.kind in "OSU":
        texts = [[_bare(item) for item in values.tolist()] for values in (one, other)]
        if not any(texts[0]) and not any(texts[1]):
            return None
        return None if texts[0] == texts[1] else f"{texts[0]}, not {texts[1]}"
    if other.dtype.kind == "b":
        other = other.astype(one.dtype)
    return difference(one, other)


def _bare(item: Any) -> str:
    """Return a text up to its first NUL, padding blanks left out."""
    if isinstance(item, bytes):
        item = item.partition(b"\0")[0].decode("utf-8", "replace")
    text = str(item).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return text.partition("\0")[0].rstrip(" ")


def _judge_netcdf3(reading: Reading, path: Path, findings: _Findings) -> None:
    try:
        dataset = netCDF4.Dataset(path)
    except UNREADABLE as error:
        findings.lenient += [f"/: netCDF4 cannot open the file: {error}"]
        return
    with dataset:
        dataset.set_auto_maskandscale(False)
        dataset.set_auto_chartostring(False)
        dataset.set_always_mask(False)
        _compare_netcdf_attributes(reading, "/", dataset, findings)
        for name, variable in dataset.variables.items():
            here = f"/{name}"
            if here not in reading.values:
                if not _is_refused(reading.refused, here):
                    findings.dropped.append(f"{here}: neither read nor skipped")
                continue
            _compare_netcdf_attributes(reading, here, variable, findings)
            try:
                theirs = variable[corner(variable.shape)]
            except (*UNREADABLE, IndexError) as error:
                findings.lenient.append(f"{here}: netCDF4 cannot read it: {error}")
                continue
            if why := difference(reading.values[here], theirs):
                findings.wrong.append(f"{here}: {why}")
        for here in reading.values.keys() - {f"/{name}" for name in dataset.variables}:
            findings.wrong.append(f"{here}: netCDF4 has no such variable")


def _compare_netcdf_attributes(reading: Reading, path: str, item: Any, findings: _Findings) -> None:
    ours = reading.attrs.get(path, {})
    try:
        names = item.ncattrs()
    except UNREADABLE:
        return
    for name in names:
        if name not in ours:
            findings.dropped.append(f"{path}@{name}: not read")
            continue
        try:
            theirs = item.getncattr(name)
        except UNREADABLE:
            continue
        if why := _attribute_difference(ours[name], theirs):
            findings.wrong.append(f"{path}@{name}: {why}")


def difference(ours: Any, theirs: Any) -> str | None:
    """Say how values differ: in shape, in type but for the byte order, or in any bit."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    if ours.shape != theirs.shape:
        return f"shape {ours.shape}, not {theirs.shape}"
    if ours.dtype.names or theirs.dtype.names:
        if ours.dtype.names != theirs.dtype.names:
            return f"members {ours.dtype.names}, not {theirs.dtype.names}"
        wrong = ((name, difference(ours[name], theirs[name])) for name in ours.dtype.names)
        return next((f"{name}: {why}" for name, why in wrong if why), None)
    if ours.dtype.hasobject or theirs.dtype.hasobject:
        one, other = ([_item(item) for item in values.ravel()] for values in (ours, theirs))
        return None if one == other else f"items {one[:5]}, not {other[:5]}"
    if ours.dtype.newbyteorder("<") != theirs.dtype.newbyteorder("<"):
        return f"type {ours.dtype}, not {theirs.dtype}"
    little = [values.astype(values.dtype.newbyteorder("<")).tobytes() for values in (ours, theirs)]
    if little[0] == little[1]:
        return None
    first = next(at for at, (a, b) in enumerate(zip(*little, strict=True)) if a != b)
    start = first // ours.dtype.itemsize
    return f"values {ours.ravel()[start:][:5]} from {start} on, not {theirs.ravel()[start:][:5]}"


def _item(item: Any) -> bytes:
    """Return a text or a sequence as bytes."""
    if isinstance(item, np.ndarray):
        return item.astype(item.dtype.newbyteorder("<")).tobytes()
    raw = item if isinstance(item, bytes) else str(item).encode("utf-8", "surrogateescape")
    return raw.partition(b"\0")[0]
