"""Global heap collections (HDF5 File Format 3.0, III.E): values of variable length."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, TypeAlias

from byteatlas.errors import Malformed
from byteatlas.model import as_view

if TYPE_CHECKING:
    from collections.abc import Iterable

    from byteatlas.steps import Steps
    from byteatlas_scanners.hdf5.file import Hdf5File

__all__ = ["GlobalHeap", "HeapId", "parse_heap_ids"]

FIRST_READ = 4096
"""The least size of a collection."""
TOGETHER = 8192
"""Collections whose beginnings are asked for at once: so many take 32 MiB."""

_object = struct.Struct("<HHI").unpack_from  # index, references, reserved


HeapId: TypeAlias = tuple[int, int, int]
"""An element of variable length: its number of items (bytes, for strings), the address of the
collection it is in (0 or undefined where there is none), and its index there."""

_HEAP_IDS = {2: struct.Struct("<IHI"), 4: struct.Struct("<III"), 8: struct.Struct("<IQI")}


def parse_heap_ids(file: Hdf5File, data: memoryview | bytes) -> list[HeapId]:
    """Parse stored elements of variable length (IV.A.2.d, variable-length)."""
    record = _HEAP_IDS[file.offset_size]
    if len(data) % record.size:
        raise Malformed(f"{len(data)} bytes of heap IDs of {record.size} bytes each")
    return list(record.iter_unpack(data))


class GlobalHeap:
    """The collections read so far; a scan's parsers share one, so that each is read once."""

    def __init__(self, file: Hdf5File) -> None:
        self._file = file
        self._collections: dict[int, dict[int, memoryview]] = {}

    def load(self, addresses: Iterable[int]) -> Steps[None]:
        """Read the collections at some addresses that are not at hand yet: one or two rounds.

        Of very many, `TOGETHER` are read in such a step.
        """
        nowhere = (0, self._file.undefined)
        wanted = [
            address
            for address in dict.fromkeys(addresses)
            if address not in self._collections and address not in nowhere
        ]
        for start in range(0, len(wanted), TOGETHER):
            yield from self._load(wanted[start : start + TOGETHER])

    def _load(self, wanted: list[int]) -> Steps[None]:
        file = self._file
        first = [file.guess(address, FIRST_READ, 16, "global heap") for address in wanted]
        longer: list[tuple[int, int]] = []
        for address, data in zip(wanted, (yield first), strict=True):
            if address in self._collections:  # another parser asked for it in the same round
                continue
            block = as_view(data)
            if bytes(block[:4]) != b"GCOL" or block[4] != 1:
                raise Malformed(
                    f"global heap: expected b'GCOL' version 1, found {bytes(block[:5])!r}",
                    offset=file.base + address,
                )
            size = file.length_at(block, 8)
            if size > len(block):
                longer.append((address, size))
            else:
                self._collections[address] = self._parse(block[:size], address)
        if not longer:
            return
        total = sum(size for _, size in longer)
        if total > file.size:
            raise Malformed(
                f"global heap: collections of {total} bytes, in {file.size}",
                offset=file.base + longer[0][0],
            )
        replies = yield [file.span(address, size, "global heap") for address, size in longer]
        for (address, _), data in zip(longer, replies, strict=True):
            if address in self._collections:
                continue
            self._collections[address] = self._parse(as_view(data), address)

    def _parse(self, block: memoryview, address: int) -> dict[int, memoryview]:
        file = self._file
        file.spend(len(block), file.base + address)
        header = 8 + -(-file.length_size // 8) * 8  # padded, like what follows it
        objects: dict[int, memoryview] = {}
        position, end = header, len(block)
        while position + header <= end:
            index, _references, _ = _object(block, position)
            size = file.length_at(block, position + 8)
            if index == 0:  # the free space, always last
                break
            position += header
            if position + size > end:
                raise Malformed(
                    f"global heap: object {index} is longer than its collection",
                    offset=file.base + address + position,
                )
            objects[index] = block[position : position + size]
            position += -(-size // 8) * 8
        return objects

    def value(self, address: int, index: int) -> memoryview:
        """Return an object of a collection that was loaded."""
        try:
            return self._collections[address][index]
        except KeyError:
            raise Malformed(
                f"global heap: no object {index}", offset=self._file.base + address
            ) from None

    def values(self, ids: Iterable[HeapId], item_size: int = 1) -> list[memoryview]:
        """Return the bytes of each element, empty ones included."""
        nowhere = (0, self._file.undefined)
        result = []
        for count, address, index in ids:
            if count == 0 or address in nowhere:
                result.append(memoryview(b""))
                continue
            value = self.value(address, index)
            self._file.spend(count * item_size, self._file.base + address)
            if count * item_size > len(value):
                raise Malformed(
                    f"global heap: object {index} has {len(value)} bytes, {count * item_size} are "
                    "referred to",
                    offset=self._file.base + address,
                )
            result.append(value[: count * item_size])
        return result
