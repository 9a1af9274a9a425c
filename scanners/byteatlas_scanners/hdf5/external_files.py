"""The external data files message: raw values in other files (HDF5 File Format 3.0, IV.A.2.h)."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from byteatlas.convert import Convert
from byteatlas.errors import Malformed, Unsupported
from byteatlas.model import ChunkManifest, Codec, Encoding, VirtualArray
from byteatlas.scanners import Other
from byteatlas_scanners.hdf5.dataset import DatasetHeader, fill_value_of
from byteatlas_scanners.hdf5.symbol_table import read_local_heap
from byteatlas_scanners.splitting import contiguous_manifest, split_rows

if TYPE_CHECKING:
    from byteatlas.scanners import Found
    from byteatlas.steps import Steps
    from byteatlas_scanners.hdf5.file import Hdf5File

__all__ = ["ExternalFiles", "Slot", "external_array", "read_external_files"]

MAX_PIECES = 2**17
"""The values are cut into pieces up to this number..."""
LEAST_PIECE = 2**16
"""...unless the pieces are at least this large, in bytes."""


class Slot(NamedTuple):
    """A part of an external file."""

    name: str
    offset: int
    size: int | None
    """Bytes; None for all that follow."""


class ExternalFiles(NamedTuple):
    """The values of a dataset, one part after the other."""

    slots: tuple[Slot, ...]

    def others(self) -> list[Other]:
        """Return the files, in the order of the parts."""
        return [Other(slot.name, "bytes") for slot in self.slots]


def read_external_files(file: Hdf5File, header: DatasetHeader) -> Steps[ExternalFiles]:
    """Read which files hold a dataset's values.

    Raises
    ------
    Malformed
        The files do not hold as many bytes as the dataset has.
    """
    body = memoryview(header.external_files or b"")
    if body[0] != 1:
        raise Unsupported(f"external data files message version {body[0]}")
    (count,) = struct.unpack_from("<H", body, 6)
    position = 8 + file.offset_size
    heap = yield from read_local_heap(file, file.offset_at(body, 8))
    slots: list[Slot] = []
    nbytes, room = header.dataspace.elements * header.datatype.size, 0
    unlimited = 2 ** (8 * file.length_size) - 1
    for _ in range(count):
        name, offset, size = (
            file.length_at(body, position + file.length_size * number) for number in range(3)
        )
        position += 3 * file.length_size
        if room < nbytes and size:
            slots.append(Slot(_name(heap, name), offset, None if size == unlimited else size))
            room = nbytes if size == unlimited else room + size
    if room < nbytes:
        raise Malformed(f"external files of {room} bytes in all, {nbytes} are needed")
    return ExternalFiles(tuple(slots))


def _name(heap: bytes, start: int) -> str:
    end = heap.find(b"\0", start)
    if end < 0:
        raise Malformed(f"external files: no name at {start} of a heap of {len(heap)} bytes")
    try:
        return heap[start:end].decode("utf-8")
    except UnicodeDecodeError:
        raise Unsupported(f"an external file named {heap[start:end]!r}, not in UTF-8") from None


def external_array(
    header: DatasetHeader, files: ExternalFiles, found: Sequence[Found], max_chunk: int
) -> VirtualArray:
    """Return a dataset whose values are in other files.

    libhdf5 reads zeros where a file is too short. Here such a dataset is refused, for so look
    files that were not copied to their end.

    Parameters
    ----------
    found : what became of `ExternalFiles.others`.

    Raises
    ------
    Unsupported
        A file may not be opened, is missing or too short, or ends within an element.
    """
    datatype, shape = header.datatype, header.shape
    if datatype.is_read_now:
        raise Unsupported("values of variable length in external files")
    item = datatype.size // math.prod(datatype.shape)
    nbytes = header.dataspace.elements * datatype.size
    begins = _begins(files, found, nbytes)
    if not nbytes:
        chunk_shape = tuple(max(n, 1) for n in shape)
    elif len(begins) == 1:
        room = found[0].size - files.slots[0].offset - nbytes
        chunk_shape = split_rows(shape, item, max_chunk, room_after=room)
    else:
        chunk_shape = _pieces(shape, item, begins, max_chunk)
    manifest = contiguous_manifest(shape, chunk_shape, item, 0)
    if manifest.offset.size:
        manifest = _placed(manifest, files, found, begins)
    encoding = Encoding()
    if datatype.moves is not None:
        config = Convert.config(item, datatype.dtype.itemsize, datatype.moves)
        encoding = Encoding((Codec("byteatlas.convert", config),))
    return VirtualArray(
        shape=shape,
        dtype=datatype.dtype,
        chunk_shape=chunk_shape,
        manifest=manifest,
        encodings=(encoding,),
        fill_value=fill_value_of(header) if manifest.missing_count else None,
        notes={"enum": datatype.enum} if datatype.enum else {},
    )


def _begins(files: ExternalFiles, found: Sequence[Found], nbytes: int) -> list[int]:
    """Return at which byte of the dataset each part begins, and check that it is there."""
    begins, begin = [], 0
    for slot, answer in zip(files.slots, found, strict=True):
        if answer.reason:
            raise Unsupported(f"its values are in an external file: {answer.reason}")
        size = nbytes - begin if slot.size is None else min(slot.size, nbytes - begin)
        if slot.offset + size > answer.size:
            raise Unsupported(
                f"its values are in the external file {slot.name!r}, which is too short: it has "
                f"{answer.size} bytes, {slot.offset + size} are needed"
            )
        begins.append(begin)
        begin += size
    return begins


def _pieces(
    shape: tuple[int, ...], item: int, begins: Sequence[int], max_chunk: int
) -> tuple[int, ...]:
    """Return the largest chunk shape whose chunks each lie in one part."""
    unit = math.gcd(*begins)
    for axis, size in enumerate(shape):
        row = item * math.prod(shape[axis + 1 :])
        if unit % row or (row > max_chunk and axis + 1 < len(shape)):
            continue
        most = math.gcd(size, unit // row)
        divisors = np.arange(1, min(max(max_chunk // row, 1), most, 2**20) + 1)
        rows = int(divisors[most % divisors == 0][-1])
        count = math.prod(shape) * item // (rows * row)
        if count > MAX_PIECES and rows * row < LEAST_PIECE:
            raise Unsupported(
                f"its external files cut it into {count} pieces of {rows * row} bytes"
            )
        return (1,) * axis + (rows,) + shape[axis + 1 :]
    raise Unsupported("one of its external files ends within an element")


def _placed(
    manifest: ChunkManifest, files: ExternalFiles, found: Sequence[Found], begins: Sequence[int]
) -> ChunkManifest:
    """Turn offsets in the dataset into offsets in its files."""
    starts = np.array(begins, np.uint64)
    part = np.searchsorted(starts, manifest.offset, side="right") - 1
    offsets = np.array([slot.offset for slot in files.slots], np.uint64)
    sources = np.array([answer.source for answer in found], np.uint32)
    return replace(
        manifest,
        offset=offsets[part] + manifest.offset - starts[part],
        source=sources[part],
    )
