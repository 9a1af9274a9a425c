"""The dataspace message (HDF5 File Format 3.0, IV.A.2.b)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from byteatlas.errors import Malformed, Unsupported

if TYPE_CHECKING:
    from byteatlas_scanners.hdf5.file import Hdf5File

__all__ = ["Dataspace", "parse_dataspace"]

MAX_RANK = 32
MAX_ELEMENTS = 2**63


class Dataspace(NamedTuple):
    """The extents of a dataset or attribute."""

    shape: tuple[int, ...]
    max_shape: tuple[int | None, ...]
    """Largest extents; None where unlimited."""
    is_null: bool = False
    """Without any element, not even a scalar's one."""

    @property
    def elements(self) -> int:
        """Number of elements."""
        return 0 if self.is_null else math.prod(self.shape)


def parse_dataspace(file: Hdf5File, body: memoryview) -> Dataspace:
    """Parse a dataspace message of version 1 or 2."""
    version, rank, flags = body[0], body[1], body[2]
    if version == 1:
        position, kind = 8, 1
    elif version == 2:
        position, kind = 4, body[3]
    else:
        raise Unsupported(f"dataspace message version {version}")
    if kind == 2:
        return Dataspace((), (), is_null=True)
    if rank > MAX_RANK:
        raise Malformed(f"dataspace: rank {rank}, at most {MAX_RANK} is allowed")
    width = file.length_size
    shape = tuple(file.length_at(body, position + width * axis) for axis in range(rank))
    limit: tuple[int | None, ...] = shape
    if flags & 1:
        position += width * rank
        unlimited = 2 ** (8 * width) - 1
        limits = (file.length_at(body, position + width * axis) for axis in range(rank))
        limit = tuple(None if size == unlimited else size for size in limits)
    if math.prod(shape) >= MAX_ELEMENTS:
        raise Malformed(f"dataspace: {shape} has more elements than can be addressed")
    if any(most is not None and most < size for size, most in zip(shape, limit, strict=True)):
        raise Malformed(f"dataspace: shape {shape} is larger than its limit {limit}")
    return Dataspace(shape, limit)
