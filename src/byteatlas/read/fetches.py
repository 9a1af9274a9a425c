"""Which bytes to fetch for some read plans: parts that lie close together are one request.

The plans may be of one array or of several; their parts are merged together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from byteatlas.read.costs import Costs, merge_parts
from byteatlas.read.plan import ReadPlan, by_place

__all__ = ["FetchPlan", "alone", "in_result", "part_columns", "plan_fetches"]


@dataclass(frozen=True, slots=True, eq=False)
class FetchPlan:
    """Which bytes to fetch for some read plans: one request for each row, ordered by place."""

    source: NDArray[np.int64]
    """Position in the table of sources, shape (fetches,)."""
    offset: NDArray[np.int64]
    """First byte of each fetch, shape (fetches,)."""
    length: NDArray[np.int64]
    """Number of bytes of each fetch, -1 for all that follow, shape (fetches,)."""
    bounds: NDArray[np.int64]
    """Fetch i holds the parts from bounds[i] up to bounds[i + 1]; shape (fetches + 1,)."""
    plan: NDArray[np.int64] | None
    """Which read plan each part is of, shape (parts,); None where there is but one."""
    part: NDArray[np.int64] | None
    """Row of each part in its read plan, shape (parts,); None where that is its position."""


def plan_fetches(
    plans: Sequence[ReadPlan], costs: Costs, wanted: Sequence[NDArray[np.bool_]] | None = None
) -> FetchPlan:
    """Merge the parts of read plans into fetches.

    Parameters
    ----------
    plans
        Of any arrays that share a table of sources.
    costs
        By which parts are merged.
    wanted
        Of each plan, which parts to fetch, shape (parts,); all by default.
    """
    plan: NDArray[np.int64] | None = None
    part: NDArray[np.int64] | None = None
    if len(plans) == 1 and wanted is None:
        source, offset, length = plans[0].source, plans[0].offset, plans[0].length
    else:
        rows = [
            np.arange(one.offset.size) if wanted is None else np.flatnonzero(wanted[number])
            for number, one in enumerate(plans)
        ]
        pairs = list(zip(plans, rows, strict=True))
        offset = _joined([one.offset[mine] for one, mine in pairs])
        length = _joined([one.length[mine] for one, mine in pairs])
        source = _joined(
            [
                np.zeros(mine.size, np.int64) if one.source is None else one.source[mine]
                for one, mine in pairs
            ]
        )
        plan = np.repeat(np.arange(len(plans)), [mine.size for mine in rows])
        part = _joined(rows)
        order = by_place(source, offset)
        if order is not None:
            source, offset, length = source[order], offset[order], length[order]
            plan, part = plan[order], part[order]
    if all(one.position is not None and (one.position >= 0).all() for one in plans):
        costs = replace(costs, max_request=max(costs.max_request, costs.max_direct))
    bounds, fetch_length = merge_parts(source, offset, length, costs)
    first = bounds[:-1]
    return FetchPlan(
        source=np.zeros(first.size, np.int64) if source is None else source[first],
        offset=offset[first],
        length=fetch_length,
        bounds=bounds,
        plan=plan,
        part=part,
    )


def alone(fetches: FetchPlan, parts: slice, plans: Sequence[ReadPlan]) -> FetchPlan:
    """Return the fetches of some parts of a fetch plan, each by itself.

    Parameters
    ----------
    fetches
        Made for `plans`.
    parts
        Neighbours among its parts, all of one fetch.
    plans
        The read plans.
    """
    rows = np.arange(parts.start, parts.stop)
    plan = np.zeros(rows.size, np.int64) if fetches.plan is None else fetches.plan[parts]
    part = rows if fetches.part is None else fetches.part[parts]
    pairs = list(zip(plan.tolist(), part.tolist(), strict=True))
    source = fetches.source[np.searchsorted(fetches.bounds, parts.start, "right") - 1]
    return FetchPlan(
        source=np.full(rows.size, source),
        offset=np.array([plans[number].offset[row] for number, row in pairs]),
        length=np.array([plans[number].length[row] for number, row in pairs]),
        bounds=np.arange(rows.size + 1),
        plan=plan,
        part=part,
    )


def part_columns(
    plans: Sequence[ReadPlan], fetches: FetchPlan
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return offset and length of each part, in the order of its fetches; shape (parts,)."""
    if fetches.plan is None or fetches.part is None:
        return plans[0].offset, plans[0].length
    offset, length = np.empty_like(fetches.part), np.empty_like(fetches.part)
    for number, plan in enumerate(plans):
        mine = fetches.plan == number
        offset[mine] = plan.offset[fetches.part[mine]]
        length[mine] = plan.length[fetches.part[mine]]
    return offset, length


def in_result(plans: Sequence[ReadPlan], fetches: FetchPlan) -> NDArray[np.int64] | None:
    """Return where in a result the bytes of each fetch belong as they are, -1 where nowhere.

    They do where all its parts do, one behind the other, and are of one array. None: none does.
    Shape (fetches,).
    """
    columns = [plan.position for plan in plans]
    if all(column is None for column in columns) or not fetches.offset.size:
        return None
    offset, length = part_columns(plans, fetches)
    position = columns[0]
    if fetches.plan is not None and fetches.part is not None:
        position = np.full(fetches.part.size, -1, np.int64)
        for number, column in enumerate(columns):
            if column is not None:
                mine = fetches.plan == number
                position[mine] = column[fetches.part[mine]]
    assert position is not None
    first = fetches.bounds[:-1]
    shift = position - offset
    is_direct = (
        (np.minimum.reduceat(position, first) >= 0)
        & (np.minimum.reduceat(shift, first) == np.maximum.reduceat(shift, first))
        & (np.add.reduceat(length, first) == fetches.length)
    )
    if fetches.plan is not None:
        plan = fetches.plan
        is_direct &= np.minimum.reduceat(plan, first) == np.maximum.reduceat(plan, first)
    return np.where(is_direct, position[first], -1) if is_direct.any() else None


def _joined(columns: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate(columns) if columns else np.empty(0, np.int64)
