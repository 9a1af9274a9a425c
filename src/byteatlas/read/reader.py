"""Read arrays of an index: each source is opened once, when it is first needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byteatlas.errors import ByteatlasError, LimitExceeded
from byteatlas.heap import heap_of
from byteatlas.limits import Limits
from byteatlas.model import Source, VirtualArray
from byteatlas.read.access import is_local, options_for
from byteatlas.read.pipeline import execute
from byteatlas.read.plan import LOCAL, REMOTE, plan_read
from byteatlas.read.selection import Selection
from byteatlas.read.sequences import as_sequences, is_of_sequences
from byteatlas.read.strings import read_heap_strings
from byteatlas.sources import ByteSource, Policy, open_source
from byteatlas.sources.credentials import prepared

__all__ = ["Reader"]


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
    ) -> None:
        self.policy = policy
        self.limits = Limits() if limits is None else limits
        self._policy = replace(policy or Policy(), max_rest=self.limits.chunk)
        self.sources = tuple(sources)
        self.storage_options = prepared(storage_options)
        self._costs = LOCAL if all(is_local(one.url) for one in self.sources) else REMOTE
        self._opened: dict[int, ByteSource] = {}
        self._guard = Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return Reader, (self.sources, self.storage_options, self.limits, self.policy)

    def source(self, position: int) -> ByteSource:
        """Return the source at a position of the table; opening it makes no request."""
        with self._guard:
            opened = self._opened.get(position)
            if opened is None:
                expected = self.sources[position]
                options = options_for(expected, self.storage_options)
                opened = self._opened[position] = open_source(
                    expected.url, storage_options=options, expected=expected, policy=self._policy
                )
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
            booleans, each for its own axis.
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
        try:
            heap = heap_of(array)
            if heap is not None:
                return read_heap_strings(
                    array, selection, self._costs, self.limits, self.source, heap, path
                )
            plan = plan_read(array, selection, self._costs, self.limits)
            is_open = plan.fetch_length < 0
            for position in np.unique(plan.fetch_source[is_open]).tolist():
                mine = is_open & (plan.fetch_source == position)
                self.check_rest(position, int(plan.fetch_offset[mine].min()))
            values = execute(plan, array, self.source, path)
            return as_sequences(array, values) if is_of_sequences(array) else values
        except MemoryError as error:
            raise LimitExceeded(
                "there is not enough memory for the selection", path=path
            ) from error
        except ByteatlasError as error:
            if error.url is None and array.manifest.offset.size:
                self._locate(error, array)
            raise error.at(path=path) from error.__cause__

    def _locate(self, error: ByteatlasError, array: VirtualArray) -> None:
        """Let an error that concerns all chunks of an array name the first that is in a source."""
        manifest = array.manifest
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
