"""Read strings that chunks only point to: their heap IDs first, then what these point to."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from byteatlas.errors import ByteatlasError, Unsupported
from byteatlas.heap import MAX_TOGETHER, Heap, heap_ids, read_strings
from byteatlas.limits import Limits
from byteatlas.model import VirtualArray
from byteatlas.read.costs import Costs
from byteatlas.read.pipeline import Job
from byteatlas.read.plan import plan_read
from byteatlas.read.selection import Selection
from byteatlas.sources import ByteSource
from byteatlas.steps import Steps, run, together

__all__ = ["Pointing", "heap_job", "look_up"]

NOWHERE = -1


class Pointing(NamedTuple):
    """Heap IDs that were read, and of what."""

    array: VirtualArray
    """The array of strings."""
    heap: Heap
    """As `byteatlas.heap.heap_of` gives it of the array."""
    job: Job
    """By which the IDs were read."""
    ids: NDArray[Any]
    """Shaped as the selection asks."""


def heap_job(
    array: VirtualArray,
    selection: Selection,
    costs: Costs,
    limits: Limits,
    heap: Heap,
    path: str = "",
) -> Job:
    """Plan the reading of the heap IDs of strings.

    Parameters
    ----------
    array
        Its encodings begin with ``vlen-utf8`` and `byteatlas.heap`.
    selection
        What is wanted.
    costs, limits
        As for `byteatlas.read.plan_read`.
    heap
        As `byteatlas.heap.heap_of` gives it of the array.
    path
        Of the array, for error messages.
    """
    ids = heap_ids(array, heap)
    return Job(plan_read(ids, selection, costs, limits), ids, path)


def look_up(
    several: Sequence[Pointing], source: Callable[[int], ByteSource]
) -> list[NDArray[np.object_]]:
    """Return the strings of some arrays: for each source one round, or two, for all of them.

    Only collections that hold a selected string are read, and of equal heap IDs one string is
    made.

    Parameters
    ----------
    several
        What was read of each array.
    source
        Gives the byte source at a position in the table of sources.

    Returns
    -------
    list of ndarray
        For each array objects of type str, shaped as its selection asks.

    Raises
    ------
    SourceError
        The bytes of a source could not be had.
    Malformed, Unsupported
        A heap ID points to nothing, or a string is not UTF-8.
    """
    held = MAX_TOGETHER // max(len(several), 1)
    owners = [_sources(one.job, one.ids.size) for one in several]
    texts = [np.full(one.ids.size, one.array.fill_value or "", object) for one in several]
    positions = np.unique(np.concatenate(owners))
    for position in positions[positions != NOWHERE].tolist():
        opened = source(position)
        mine = [np.flatnonzero(owner == position) for owner in owners]
        parsers = [
            _strings(one, rows, opened.facts.size, held)
            for one, rows in zip(several, mine, strict=True)
        ]
        try:
            found = run(together(parsers), opened)
        except ByteatlasError as error:
            first = next(one for one, rows in zip(several, mine, strict=True) if rows.size)
            raise error.at(url=opened.url, path=first.job.path) from error.__cause__
        for values, rows, strings in zip(texts, mine, found, strict=True):
            values[rows] = strings
    return [values.reshape(one.ids.shape) for values, one in zip(texts, several, strict=True)]


def _strings(
    one: Pointing, wanted: NDArray[np.int64], size: int | None, held: int
) -> Steps[NDArray[np.object_]]:
    """Look up the strings of one array in one source; its errors name the array."""
    rows = np.ascontiguousarray(one.ids).reshape(-1).view(np.uint8).reshape(-1, one.heap.id_size)
    try:
        return (yield from read_strings(rows[wanted], one.heap, size, held))
    except ByteatlasError as error:
        raise error.at(path=one.job.path) from error.__cause__


def _sources(job: Job, count: int) -> NDArray[np.int64]:
    """Return the source of each element, in the order of the selection; NOWHERE if missing."""
    plan = job.plan
    if not plan.has_missing and plan.source is None:
        return np.zeros(count, np.int64)
    if plan.inlined.size and plan.source is not None:
        raise Unsupported("inlined heap IDs in an array of several sources", path=job.path)
    by_cell = np.full(math.prod(plan.touched), NOWHERE, np.int64)
    by_cell[plan.inlined] = 0
    by_cell[plan.cell] = 0 if plan.source is None else plan.source
    owner = by_cell.reshape(plan.touched)
    for number, axis in enumerate(plan.axes):
        owner = np.repeat(owner, np.diff(axis.bounds), number)
    return plan.arrange(owner).reshape(-1)
