"""What reading several arrays together would take: their requests are merged as the read does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from byteatlas.heap import heap_ids, heap_of
from byteatlas.model import VirtualArray
from byteatlas.read.cost import UNLIMITED, Cost, SourceCost
from byteatlas.read.fetches import FetchPlan, plan_fetches
from byteatlas.read.plan import plan_read
from byteatlas.read.reader import Reader

__all__ = ["DatasetCost", "cost_together"]

Wanted: TypeAlias = tuple[VirtualArray, Any, str]
"""An array, a selection and a path, as `Reader.read_many` takes them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetCost(Cost):
    """What loading a dataset at once would take; `shape` is ``()``.

    Requests and bytes fetched are those of the variables read together: neighbouring chunks of
    several variables share a request. So they can be other numbers than the sums over
    `variables`. Everything else is the sum.
    """

    variables: Mapping[str, Cost]
    """By name: what each variable would take if it were loaded alone."""


def cost_together(
    costs: Mapping[str, Cost], batches: Sequence[tuple[Reader, Sequence[Wanted]]]
) -> DatasetCost:
    """Count what reading batches of arrays, one `Reader.read_many` each, would take.

    Parameters
    ----------
    costs
        Of each array by itself.
    batches
        The same arrays with their readers.
    """
    requests: Counter[tuple[int, int]] = Counter()
    fetched: Counter[tuple[int, int]] = Counter()
    urls: dict[tuple[int, int], str] = {}
    open_requests = 0
    for reader, wanted in batches:
        for fetches in _rounds(reader, wanted):
            asked, first, counts = np.unique(fetches.source, return_index=True, return_counts=True)
            lengths = np.maximum(fetches.length, 0)  # -1 is for all that follow: added below
            sums = np.add.reduceat(lengths, first) if first.size else lengths
            columns = asked.tolist(), counts.tolist(), sums.tolist()
            for position, count, total in zip(*columns, strict=True):
                key = id(reader), position
                urls[key] = reader.sources[position].public_url
                requests[key] += count
                fetched[key] += total
            for row in np.flatnonzero(fetches.length < 0).tolist():
                position = int(fetches.source[row])
                size = reader.sources[position].size
                if size is None:
                    open_requests += 1
                else:
                    fetched[id(reader), position] += max(size - int(fetches.offset[row]), 0)
    every = list(costs.values())
    return DatasetCost(
        shape=(),
        result_bytes=sum(one.result_bytes for one in every),
        requests=requests.total(),
        bytes_fetched=fetched.total(),
        bytes_needed=sum(one.bytes_needed for one in every),
        open_requests=open_requests,
        chunks=sum(one.chunks for one in every),
        inlined=sum(one.inlined for one in every),
        missing=sum(one.missing for one in every),
        decoded_bytes=sum(one.decoded_bytes for one in every),
        sources=tuple(SourceCost(urls[key], requests[key], fetched[key]) for key in sorted(urls)),
        has_lookup=any(one.has_lookup for one in every),
        variables=dict(costs),
    )


def _rounds(reader: Reader, wanted: Sequence[Wanted]) -> Iterator[FetchPlan]:
    """Yield what is fetched at once: one plan for all, and one for each array of a heap."""
    limits = replace(reader.limits, result=UNLIMITED)
    plans = []
    for array, selection, _ in wanted:
        heap = heap_of(array)
        stored = array if heap is None else heap_ids(array, heap)
        plan = plan_read(stored, selection, reader.costs, limits)
        if heap is None:
            plans.append(plan)
        else:
            yield plan_fetches([plan], reader.costs)
    if plans:
        yield plan_fetches(plans, reader.costs)
