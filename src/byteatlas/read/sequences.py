"""Variable-length sequences: items of bytes, read as arrays of numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from byteatlas.errors import Malformed
from byteatlas.index.attributes import dtype_from_json
from byteatlas.model import VirtualArray

__all__ = ["as_sequences", "is_of_sequences"]


def is_of_sequences(array: VirtualArray) -> bool:
    """Tell whether the elements of an array are sequences, by its note ``sequence``."""
    return array.dtype == object and "sequence" in array.notes


def as_sequences(array: VirtualArray, values: NDArray[Any]) -> NDArray[np.object_]:
    """Return the elements of an array as one-dimensional arrays, which are not writable.

    Raises
    ------
    Malformed
        The note is no data type, or an element is not whole values of it.
    """
    dtype = dtype_from_json(array.notes["sequence"])
    result = np.empty(values.size, object)
    try:
        for place, item in enumerate(values.reshape(-1).tolist()):
            # A missing element is an empty text, as of all arrays of variable length.
            result[place] = np.frombuffer(item or b"", dtype)
    except (TypeError, ValueError) as error:
        raise Malformed(f"a sequence of {dtype} that is none: {error}") from error
    return result.reshape(values.shape)
