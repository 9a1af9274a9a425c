"""Read strings that chunks only point to: their heap IDs first, then what these point to."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from byteatlas.errors import ByteatlasError, Unsupported
from byteatlas.heap import Heap, heap_ids, read_strings
from byteatlas.limits import Limits
from byteatlas.model import VirtualArray
from byteatlas.read.costs import Costs
from byteatlas.read.filled import FilledChunk
from byteatlas.read.pipeline import Job, execute
from byteatlas.read.plan import ReadPlan, plan_read
from byteatlas.read.selection import Selection
from byteatlas.sources import ByteSource
from byteatlas.steps import run

__all__ = ["read_heap_strings"]

NOWHERE = -1


def read_heap_strings(
    array: VirtualArray,
    selection: Selection,
    costs: Costs,
    limits: Limits,
    source: Callable[[int], ByteSource],
    heap: Heap,
    path: str = "",
    filled: list[FilledChunk] | None = None,
) -> NDArray[np.object_]:
    """Read a selection of an array of strings: a round for its chunks, one or two for their heap.

    Only collections that hold a selected string are read, and of equal heap IDs one string is
    made.

    Parameters
    ----------
    array
        Its encodings begin with ``vlen-utf8`` and `byteatlas.heap`.
    selection
        What is wanted.
    costs
        By which fetches of chunks are merged.
    limits
        How much one read may take.
    source
        Gives the byte source at a position in the table of sources.
    heap
        As `byteatlas.heap.heap_of` gives it of the array.
    path
        Of the array, for error messages.
    filled
        Where chunks are noted that cannot be read, and are filled then; None: they are errors.

    Returns
    -------
    ndarray
        Objects of type str, shaped as the selection asks.

    Raises
    ------
    IndexError
        The selection does not fit the array.
    SourceError
        The bytes of a source could not be had.
    Malformed, Unsupported
        A chunk cannot be decoded, a heap ID points to nothing, or a string is not UTF-8.
    """
    ids = heap_ids(array, heap)
    plan = plan_read(ids, selection, costs, limits)
    (found,) = execute([Job(plan, ids, path)], source, costs, filled)
    rows = np.ascontiguousarray(found).reshape(-1).view(np.uint8).reshape(-1, heap.id_size)
    fill = "" if array.fill_value is None else array.fill_value
    texts = np.full(len(rows), fill, object)
    try:
        owner = _sources(plan, found.size)
        for position in np.unique(owner[owner != NOWHERE]).tolist():
            opened, mine = source(position), np.flatnonzero(owner == position)
            try:
                texts[mine] = run(read_strings(rows[mine], heap, opened.facts.size), opened)
            except ByteatlasError as error:
                raise error.at(url=opened.url) from error.__cause__
    except ByteatlasError as error:
        raise error.at(path=path) from error.__cause__
    return texts.reshape(found.shape)


def _sources(plan: ReadPlan, count: int) -> NDArray[np.int64]:
    """Return the source of each element, in the order of the selection; NOWHERE if missing."""
    if not plan.has_missing and plan.source is None:
        return np.zeros(count, np.int64)
    if plan.inlined.size and plan.source is not None:
        raise Unsupported("inlined heap IDs in an array of several sources")
    by_cell = np.full(math.prod(plan.touched), NOWHERE, np.int64)
    by_cell[plan.inlined] = 0
    by_cell[plan.cell] = 0 if plan.source is None else plan.source
    owner = by_cell.reshape(plan.touched)
    for number, axis in enumerate(plan.axes):
        owner = np.repeat(owner, np.diff(axis.bounds), number)
    return plan.arrange(owner).reshape(-1)
