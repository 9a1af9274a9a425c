"""Messages kept elsewhere: committed datatypes and the shared message heaps.

HDF5 File Format 3.0, IV.A.2 ("Shared Message" encoding) and III.F (shared object header messages).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np

from byteatlas.errors import Malformed, Unsupported
from byteatlas.model import as_view
from byteatlas.steps import together
from byteatlas_scanners.hdf5.checksum import verify
from byteatlas_scanners.hdf5.fractal_heap import open_heap, read_objects
from byteatlas_scanners.hdf5.object_header import read_header

if TYPE_CHECKING:
    from collections.abc import Iterable

    from byteatlas.steps import Steps
    from byteatlas_scanners.hdf5.file import Hdf5File
    from byteatlas_scanners.hdf5.fractal_heap import FractalHeap

__all__ = ["POINTER_INTO_HEAP", "SharedMessages"]

OLD_FILL_VALUE, FILL_VALUE = 4, 5  # both kinds of messages share one index
IN_HEAP = 1
POINTER_INTO_HEAP = bytes([3, IN_HEAP])
"""Version and type of a pointer whose other 8 bytes are an ID of the shared message heap."""


class SharedMessages:
    """Shared messages read so far; the parsers of one scan have one in common."""

    def __init__(self, file: Hdf5File) -> None:
        self._file = file
        self._bodies: dict[tuple[int, bytes], memoryview] = {}
        self._heaps: dict[int, FractalHeap] = {}

    def load(self, wanted: Iterable[tuple[int, bytes]]) -> Steps[None]:
        """Read shared messages, each given as its type and the bytes that point to it."""
        missing = [key for key in dict.fromkeys(wanted) if key not in self._bodies]
        if missing:
            bodies = yield from together(self._read(kind, pointer) for kind, pointer in missing)
            self._bodies.update(zip(missing, bodies, strict=True))

    def body(self, kind: int, pointer: bytes) -> memoryview:
        """Return the body of a shared message that was loaded."""
        if (kind, pointer) not in self._bodies:
            raise Malformed(f"shared message: the one of type {kind:#x} could not be read")
        return self._bodies[kind, pointer]

    def _read(self, kind: int, pointer: bytes) -> Steps[memoryview]:
        file = self._file
        version = pointer[0]
        if version == 3 and pointer[1] == IN_HEAP:
            return (yield from self._read_from_heap(kind, pointer[2:10]))
        if version not in (1, 2, 3):
            raise Unsupported(f"shared message version {version}")
        address = file.offset_at(pointer, 8 if version == 1 else 2)
        header = yield from read_header(file, address)
        for message in header:
            if message.type == kind and not message.is_shared:
                return message.body
        raise Malformed(
            f"shared message: no message of type {kind:#x} where it points",
            offset=file.base + address,
        )

    def _read_from_heap(self, kind: int, identifier: bytes) -> Steps[memoryview]:
        if kind not in self._heaps:
            address = yield from self._find_heap(kind)
            self._heaps[kind] = yield from open_heap(self._file, address)
        ids = np.frombuffer(identifier, np.uint8).reshape(1, -1)
        (body,) = yield from read_objects(self._file, self._heaps[kind], ids)
        return body

    def _find_heap(self, kind: int) -> Steps[int]:
        """Find the heap for a type of message in the master table (III.F, "SMTB")."""
        file = self._file
        if file.shared_table is None:
            raise Malformed("shared message: the file has no table of them")
        address, count = file.shared_table
        step = 14 + 2 * file.offset_size
        where = file.span(address, 4 + count * step + 4, "shared message table")
        (reply,) = yield [where]
        table = as_view(reply)
        if bytes(table[:4]) != b"SMTB":
            raise Malformed(
                f"shared message table: expected b'SMTB', found {bytes(table[:4])!r}",
                offset=where.offset,
            )
        verify(table, "shared message table", where.offset)
        for position in range(4, 4 + count * step, step):
            (kinds,) = struct.unpack_from("<H", table, position + 2)
            if kinds >> (FILL_VALUE if kind == OLD_FILL_VALUE else kind) & 1:
                return file.offset_at(table, position + 14 + file.offset_size)
        raise Malformed(f"shared message table: no index for messages of type {kind:#x}")
