"""Pack files: where a cache on disk keeps chunks, many in one file.

A pack belongs to one source and is written by one process, batch after batch; nobody changes
what is in it. All numbers are little-endian:

    batch    header, columns, data
    header   8 bytes "bacache1", u4 count, u4 CRC-32 of the columns, u8 bytes of data
    columns  u8 offset[count], u8 length[count], u4 CRC-32 of data[count]
    data     the chunks, end to end

A header is written last, so a batch that has one is complete; one that was not finished reads as
zeros and is passed over. The CRC of the columns begins with the name of the source: a pack that
strayed into another source's folder is not read. The CRC of a chunk is compared whenever it is
read. (CRC-32 finds damage, which is all that can happen to a folder that only its user can
write into; it takes a fifth of the time that a cryptographic digest takes.)
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from struct import Struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from byteatlas.model import Buffer

__all__ = ["PLACE", "Batch", "batch_size", "read_batches", "read_chunks", "write_batch"]

PLACE = np.dtype([("pack", "i4"), ("crc", "u4"), ("position", "i8")])
"""Where a chunk is kept: the number of its pack, the CRC-32 of its bytes, its first byte there."""

_MAGIC = b"bacache1"
_HEADER = Struct("<8sIIQ")
_ROW = 20
_RUN = 2**18
"""Neighbours in a pack are read together up to so many bytes."""
_VECTOR = 512
"""Buffers that one system call takes; POSIX grants 16 and Linux 1024."""


class Batch(NamedTuple):
    """Chunks that were written together, in columns of shape (chunks,)."""

    offset: NDArray[np.int64]
    """First byte of each in its source."""
    length: NDArray[np.int64]
    place: NDArray[np.void]
    """Of type `PLACE`."""


def batch_size(length: NDArray[np.int64]) -> int:
    """Return the bytes that a batch of chunks takes in a pack."""
    return _HEADER.size + _ROW * length.size + int(length.sum())


def write_batch(
    handle: int,
    start: int,
    key: str,
    offset: NDArray[np.int64],
    length: NDArray[np.int64],
    data: Sequence[Buffer],
) -> Batch:
    """Write chunks into a pack from a position on, where it has room for them.

    Raises
    ------
    OSError
        They could not be written; nobody will take what was for a batch.
    """
    crc = np.array(
        [
            zlib.crc32(memoryview(chunk))  # type: ignore[arg-type]  # numpy arrays too
            for chunk in data
        ],
        "<u4",
    )
    columns = offset.astype("<u8").tobytes() + length.astype("<u8").tobytes() + crc.tobytes()
    first = start + _HEADER.size
    _write(handle, [columns, *data], first)
    check = zlib.crc32(columns, zlib.crc32(key.encode()))
    _write(handle, [_HEADER.pack(_MAGIC, offset.size, check, int(length.sum()))], start)
    return _batch(offset, length, crc, first + len(columns))


def _batch(
    offset: NDArray[np.int64], length: NDArray[np.int64], crc: NDArray[np.uint32], first: int
) -> Batch:
    place = np.zeros(offset.size, PLACE)
    place["crc"] = crc
    place["position"] = first + np.cumsum(length) - length
    return Batch(offset, length, place)


def _write(handle: int, buffers: Sequence[Buffer], position: int) -> None:
    """Write buffers end to end."""
    for at in range(0, len(buffers), _VECTOR):
        views = [memoryview(one).cast("B") for one in buffers[at : at + _VECTOR]]  # type: ignore[arg-type]  # numpy arrays too
        left = sum(map(len, views))
        while left:
            done = os.pwritev(handle, views, position)
            position += done
            left -= done
            while left and done >= len(views[0]):
                done -= len(views.pop(0))
            if left:
                views[0] = views[0][done:]


def read_batches(handle: int, start: int, size: int, key: str) -> tuple[list[Batch], int, bool]:
    """Return the batches of a pack from a position on.

    Returns
    -------
    tuple
        The batches; where the next one will begin; whether all is well. What is not yet written,
        or never will be, is well; anything but a batch is damage.
    """
    batches: list[Batch] = []
    while start + _HEADER.size <= size:
        header = _read(handle, _HEADER.size, start)
        if len(header) < _HEADER.size or header == bytes(_HEADER.size):
            break
        magic, count, check, total = _HEADER.unpack(header)
        first = start + _HEADER.size + _ROW * count
        if magic != _MAGIC or first + total > size:
            return batches, start, False
        columns = _read(handle, _ROW * count, start + _HEADER.size)
        if zlib.crc32(columns, zlib.crc32(key.encode())) != check:
            return batches, start, False
        both = np.frombuffer(columns, "<u8", 2 * count).astype(np.int64)
        crc = np.frombuffer(columns, "<u4", count, 16 * count)
        if both.min(initial=0) < 0 or int(both[count:].sum()) != total:
            return batches, start, False
        batches.append(_batch(both[:count], both[count:], crc, first))
        start = first + total
    return batches, start, True


def read_chunks(
    handle: int, position: NDArray[np.int64], length: NDArray[np.int64], crc: NDArray[np.uint32]
) -> Iterator[memoryview | None]:
    """Yield chunks of a pack one by one, None for each that is damaged.

    Parameters
    ----------
    position
        First byte of each in the pack, ascending, shape (chunks,).
    length, crc
        Number of bytes of each, and their CRC-32.
    """
    end = position + length
    begins = np.ones(position.size, bool)
    begins[1:] = position[1:] != end[:-1]
    run = position[np.flatnonzero(begins)][np.cumsum(begins) - 1]
    begins[1:] |= np.diff((position - run) // _RUN) > 0
    bounds = [*np.flatnonzero(begins).tolist(), position.size]
    cuts, ends, checks = position.tolist(), end.tolist(), crc.tolist()
    for low, high in pairwise(bounds):
        origin = cuts[low]
        view = memoryview(_read(handle, ends[high - 1] - origin, origin))
        for cut, stop, check in zip(cuts[low:high], ends[low:high], checks[low:high], strict=True):
            chunk = view[cut - origin : stop - origin]
            is_well = len(chunk) == stop - cut and zlib.crc32(chunk) == check
            yield chunk if is_well else None


def _read(handle: int, length: int, position: int) -> bytes:
    """Return bytes of a file, fewer where it ends before."""
    data = os.pread(handle, length, position)
    while len(data) < length:  # one call gives 2 GiB at most
        more = os.pread(handle, length - len(data), position + len(data))
        if not more:
            break
        data += more
    return data
