"""Read arrays of an index: each source is opened once, when it is first needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any

from numpy.typing import NDArray

from byteatlas.model import Source, VirtualArray
from byteatlas.read.access import is_local, options_for
from byteatlas.read.pipeline import execute
from byteatlas.read.plan import LOCAL, REMOTE, plan_read
from byteatlas.read.selection import Selection
from byteatlas.sources import ByteSource, open_source

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

    Examples
    --------
    >>> reader = Reader(group.sources)                            # doctest: +SKIP
    >>> reader.read(group["forecast/temp"], (0, slice(10, 20)))   # doctest: +SKIP
    """

    def __init__(
        self, sources: Sequence[Source], storage_options: Mapping[str, Any] | None = None
    ) -> None:
        self.sources = tuple(sources)
        self.storage_options = dict(storage_options or {})
        self._costs = LOCAL if all(is_local(one.url) for one in self.sources) else REMOTE
        self._opened: dict[int, ByteSource] = {}
        self._guard = Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return Reader, (self.sources, self.storage_options)

    def source(self, position: int) -> ByteSource:
        """Return the source at a position of the table; opening it makes no request."""
        with self._guard:
            opened = self._opened.get(position)
            if opened is None:
                expected = self.sources[position]
                options = options_for(expected.url, self.storage_options)
                opened = self._opened[position] = open_source(
                    expected.url, storage_options=options, expected=expected
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
            strings. Of chunks without codecs, only what lies between the first and the last
            element wanted is fetched.

        Raises
        ------
        IndexError
            The selection does not fit the array.
        SourceError
            The bytes of a source could not be had, or are no longer those that were indexed.
        Malformed, Unsupported
            A chunk cannot be decoded.
        """
        plan = plan_read(array, selection, self._costs)
        return execute(plan, array, self.source, path)

    def close(self) -> None:
        """Close the sources that were opened; a later read opens them again."""
        with self._guard:
            for opened in self._opened.values():
                opened.close()
            self._opened.clear()
