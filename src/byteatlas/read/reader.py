"""Read arrays of an index: each source is opened once, when it is first needed."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import compress, islice
from threading import Lock
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from byteatlas.errors import ByteatlasError, LimitExceeded
from byteatlas.heap import heap_of
from byteatlas.index.lazy_manifest import LazyManifest, check_table
from byteatlas.index.source_table import GrowingSources
from byteatlas.limits import Limits
from byteatlas.model import Source, VirtualArray
from byteatlas.read.access import is_local, options_for
from byteatlas.read.cost import Cost, cost_of
from byteatlas.read.costs import LOCAL, Costs, costs_over
from byteatlas.read.filled import FilledChunk, FilledChunks, OnError, in_order
from byteatlas.read.pipeline import Job, execute
from byteatlas.read.plan import ReadPlan, plan_read
from byteatlas.read.selection import Selection
from byteatlas.read.sequences import as_sequences, is_of_sequences
from byteatlas.read.strings import Pointing, heap_job, look_up
from byteatlas.sources import ByteSource, Policy, open_source
from byteatlas.sources.cached_source import CachedSource
from byteatlas.sources.chunk_cache_option import CacheOption, open_cache
from byteatlas.sources.credentials import Options, prepared
from byteatlas.sources.streaming import lines_of

__all__ = ["Reader"]

MOST_LOOKED_AT = 64
"""So many sources at most are asked what is known of the ways to them."""


class Reader:
    """Reads the arrays of one table of sources; of any thread, and picklable.

    Every answer of a source is checked against what the table says of it.

    Parameters
    ----------
    sources
        The table that manifests point into.
    storage_options
        How to reach the sources, in the words of fsspec; those of one protocol alone may stand
        under its name. (Any: each protocol's own.)
    limits
        How much one read may take.
    policy
        Concurrency, retries and timeouts.
    on_error
        What to do with a chunk that does not decode, or not to what it should be: "raise", or
        "fill-and-report": its values become the attribute ``_FillValue``, or NaN, or the fill
        value; `filled` lists it, and a warning (`FilledChunks`) says so. A source that is
        missing, denied or changed is an error in any case.
    cache
        Where to keep bytes of chunks that were fetched: ``"memory:256MiB"``,
        ``"/a/folder:20GiB"``, or a cache that `byteatlas.open_cache` opened, to share it.

    Attributes
    ----------
    filled : list of `FilledChunk`, of all reads so far.

    Examples
    --------
    >>> reader = Reader(group.sources)                            # doctest: +SKIP
    >>> reader.read(group["forecast/temp"], (0, slice(10, 20)))   # doctest: +SKIP
    """

    def __init__(
        self,
        sources: Sequence[Source],
        storage_options: Mapping[str, Any] | None = None,
        limits: Limits | None = None,
        policy: Policy | None = None,
        on_error: OnError = "raise",
        cache: CacheOption = None,
    ) -> None:
        if on_error not in get_args(OnError):
            raise ValueError(f"on_error is {on_error!r}, expected one of {get_args(OnError)}")
        self.on_error: OnError = on_error
        self.filled: list[FilledChunk] = []
        self.policy = policy
        self.limits = Limits() if limits is None else limits
        self._policy = replace(policy or Policy(), max_rest=self.limits.chunk)
        is_growing = isinstance(sources, GrowingSources)
        self.sources: Sequence[Source] = sources if is_growing else tuple(sources)
        self.storage_options = prepared(storage_options)
        is_here = all(is_local(one.url) for one in self.sources) and not is_growing
        self._is_here = is_here
        self.cache = open_cache(cache)
        self._opened: dict[int, ByteSource] = {}
        self._guard = Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        options = self.storage_options, self.limits, self.policy, self.on_error, self.cache
        return Reader, (self.sources, *options)

    @property
    def costs(self) -> Costs:
        """What requests and bytes cost, as far as the sources opened so far have shown it."""
        if self._is_here:
            return LOCAL
        with self._guard:
            opened = list(islice(self._opened.values(), MOST_LOOKED_AT))
        opened = opened or self._first_remote()
        return costs_over(lines_of(opened), self._policy.concurrency)

    def _first_remote(self) -> list[ByteSource]:
        """Open a source, which makes no request: others may have shown the way to its host."""
        for position, one in enumerate(islice(self.sources, MOST_LOOKED_AT)):
            if not is_local(one.url):
                with suppress(ByteatlasError):  # if it is needed, reading will tell
                    return [self.source(position)]
        return []

    def source(self, position: int) -> ByteSource:
        """Return the source at a position of the table; opening it makes no request."""
        with self._guard:
            opened = self._opened.get(position)
            if opened is None:
                expected = self.sources[position]
                options = options_for(expected, self.storage_options)
                opened = open_source(
                    expected.url, storage_options=options, expected=expected, policy=self._policy
                )
                if self.cache is not None and not _names_more(options):
                    opened = CachedSource(opened, self.cache, expected)
                self._opened[position] = opened
            return opened

    def read(
        self, array: VirtualArray, selection: Selection = ..., *, path: str = ""
    ) -> NDArray[Any]:
        """Read a selection of an array.

        Parameters
        ----------
        array
            An array whose manifest points into this reader's table of sources.
        selection
            Integers, slices of any step, an ellipsis, and one-dimensional arrays of integers or
            booleans, each for its own axis; or `Pointwise` arrays of integers, which go together.
        path
            Of the array, for error messages.

        Returns
        -------
        ndarray
            Of the array's dtype, byte order included; objects of type str for variable-length
            strings, arrays for variable-length sequences. Of chunks without codecs, only what lies
            between the first and the last element wanted is fetched.

        Raises
        ------
        IndexError
            The selection does not fit the array.
        SourceError
            The bytes of a source could not be had, or are no longer those that were indexed.
        Malformed, Unsupported
            A chunk cannot be decoded.
        LimitExceeded
            The read takes more than the limits allow, or than there is memory.
        """
        return self.read_many([(array, selection, path)])[0]

    def read_many(
        self,
        several: Sequence[tuple[VirtualArray, Selection, str]],
        out: Sequence[NDArray[Any]] | None = None,
    ) -> list[NDArray[Any]]:
        """Read selections of several arrays at once: their requests are merged and sent together.

        Parameters
        ----------
        several
            For each: the array, the selection, and the array's path for error messages; as for
            `read`.
        out
            For each, an array to put the values into, shaped as the selection asks, and of a data
            type that they can be cast to. Values are decoded straight into one that is contiguous
            (C order) and has the array's own dtype.

        Returns
        -------
        list of ndarray
            In the order asked for; those of `out`, where it is given. Strings that chunks only
            point to take a round or two more, of each source for all arrays together.

        Raises
        ------
        ByteatlasError, IndexError
            As `read`. Where one array cannot be read, none is returned.
        ValueError, TypeError
            An array in `out` has another shape, or a data type of another kind.
        """
        if out is not None and len(out) != len(several):
            raise ValueError(f"{len(out)} arrays are given for the values of {len(several)}")
        filled: list[FilledChunk] | None = None if self.on_error == "raise" else []
        jobs: list[Job] = []
        costs = self.costs
        for number, (array, selection, path) in enumerate(several):
            with self._errors_of(array, path):
                heap = heap_of(array)
                if heap is not None:
                    job = heap_job(array, selection, costs, self.limits, heap, path)
                else:
                    plan = plan_read(array, selection, costs, self.limits)
                    into = None if out is None else _memory_for(plan, array, out[number])
                    job = Job(plan, array, path, into)
                jobs.append(job)
                self._check_open_ends(job.plan)
        if not jobs:
            return []
        with self._errors_of(several[0][0], several[0][2]):
            values = execute(jobs, self.source, costs, filled)
            values = self._finished([array for array, _, _ in several], jobs, values)
        if filled:
            filled = in_order(filled)
            self.filled += filled
            warnings.warn(FilledChunks(filled), stacklevel=3)
        if out is None:
            return values
        for place, value in zip(out, values, strict=True):
            if not np.may_share_memory(place, value):
                _check_shape(place, value.shape)
                np.copyto(place, value, casting=_casting(value.dtype, place.dtype))
        return list(out)

    def _finished(
        self, arrays: Sequence[VirtualArray], jobs: Sequence[Job], values: Sequence[NDArray[Any]]
    ) -> list[NDArray[Any]]:
        """Return values as users have them: strings that were pointed to, and sequences."""
        finished = list(values)
        pointing: dict[int, Pointing] = {}
        for number, (array, job, value) in enumerate(zip(arrays, jobs, values, strict=True)):
            heap = heap_of(array)
            if heap is not None:
                pointing[number] = Pointing(array, heap, job, value)
            elif is_of_sequences(array):
                with self._errors_of(array, job.path):
                    finished[number] = as_sequences(array, value)
        if pointing:
            found = look_up(list(pointing.values()), self.source)
            for number, strings in zip(pointing, found, strict=True):
                finished[number] = strings
        return finished

    def cost(self, array: VirtualArray, selection: Selection = ..., *, path: str = "") -> Cost:
        """Count the requests, bytes and sources that `read` would take, without reading.

        Parameters
        ----------
        array, selection, path
            As for `read`.

        Raises
        ------
        IndexError, LimitExceeded
            As `read`; but a result of any size is counted.
        """
        with self._errors_of(array, path):
            return cost_of(array, selection, self.costs, self.limits, self.sources)

    @contextmanager
    def _errors_of(self, array: VirtualArray, path: str) -> Iterator[None]:
        """Name an array, and where it is, in errors that do not."""
        try:
            check_table(array.manifest, self.sources)
            yield
        except MemoryError as error:
            raise LimitExceeded(
                "there is not enough memory for the selection", path=path
            ) from error
        except ByteatlasError as error:
            if error.path is None and error.url is None:
                self._locate(error, array)
            raise error.at(path=path) from error.__cause__

    def _check_open_ends(self, plan: ReadPlan) -> None:
        is_open = plan.length < 0
        if is_open.any():
            source = np.zeros(plan.offset.size, np.int64) if plan.source is None else plan.source
            for position in np.unique(source[is_open]).tolist():
                mine = is_open & (source == position)
                self.check_rest(position, int(plan.offset[mine].min()))

    def _locate(self, error: ByteatlasError, array: VirtualArray) -> None:
        """Let an error that concerns all chunks of an array name the first that is in a source."""
        manifest = array.manifest
        if isinstance(manifest, LazyManifest) or not manifest.virtual_count:
            return  # of the one, columns are not read for an error's sake
        position = 0 if manifest.source is None else int(manifest.source[0])
        error.at(url=self.sources[position].url, offset=int(manifest.offset[0]))

    def check_rest(self, position: int, offset: int) -> None:
        """Refuse to read all bytes of a source from an offset, where they are known to be too many.

        (Where they are not known, the source itself refuses when it learns their number.)
        """
        source = self.source(position)
        size = source.facts.size
        if size is None and is_local(source.url):
            size = source.stat().size
        if size is not None:
            self.limits.check("chunk", size - offset, "a chunk")

    def close(self) -> None:
        """Close the sources that were opened; a later read opens them again."""
        with self._guard:
            for opened in self._opened.values():
                opened.close()
            self._opened.clear()


def _names_more(options: Options) -> bool:
    """Tell whether options say what is asked for beside the URL, by which a cache goes."""
    return isinstance(options, Mapping) and bool(options.get("params"))


def _memory_for(plan: ReadPlan, array: VirtualArray, out: NDArray[Any]) -> NDArray[Any] | None:
    """Return the memory of an array for the result of a plan, None where it cannot be used."""
    arrange = plan.arrange
    is_as_read = not arrange.takes and all(step in (0, slice(None)) for step in arrange.steps)
    if not is_as_read or array.dtype == object or out.dtype != array.dtype:
        return None
    kept = [step != 0 for step in arrange.steps]
    _check_shape(out, tuple(compress(plan.shape, kept)))
    if not (out.flags.c_contiguous and out.flags.writeable and out.flags.aligned):
        return None
    return out.reshape(plan.shape)


def _casting(found: np.dtype[Any], wanted: np.dtype[Any]) -> Literal["unsafe", "safe", "same_kind"]:
    """Return how values may be cast: texts to any type of texts, the others to their own kind."""
    if found.kind == "O" and wanted.kind in "OT":
        return "unsafe"  # by name only: numpy has no safe way from objects
    return "safe" if wanted.kind in "SU" else "same_kind"  # else texts would be cut off


def _check_shape(out: NDArray[Any], shape: tuple[int, ...]) -> None:
    if out.shape != shape:
        raise ValueError(f"out has the shape {out.shape}, the values have {shape}")
