"""What the tests of the netCDF-3 scanner share: a writer of bytes, a driver and a plain reader."""

import struct
from collections.abc import Callable

import numpy as np
import pytest

from byteatlas.model import VirtualArray, VirtualGroup
from byteatlas.scanners import ScanOptions, Window
from byteatlas.steps import run
from byteatlas.testing.memory import MemoryReader
from byteatlas_scanners.netcdf3 import scanner

DIMENSION, VARIABLE, ATTRIBUTE = 10, 11, 12


class Classic:
    """Writes classic files field by field, as the specification's grammar says."""

    def __init__(self, version: int = 1) -> None:
        self.version = version

    def count(self, value: int) -> bytes:
        """A NON_NEG: 8 bytes in CDF-5, else 4; negative values wrap around."""
        width = 8 if self.version == 5 else 4
        return (value % 2 ** (8 * width)).to_bytes(width, "big")

    def name(self, name: bytes) -> bytes:
        return self.count(len(name)) + self.pad(name)

    def pad(self, raw: bytes) -> bytes:
        return raw + bytes(-len(raw) % 4)

    def items(self, tag: int, items: list[bytes]) -> bytes:
        return struct.pack(">I", tag if items else 0) + self.count(len(items)) + b"".join(items)

    def dim(self, name: bytes, length: int) -> bytes:
        return self.name(name) + self.count(length)

    def att(self, name: bytes, nc_type: int, nelems: int, raw: bytes) -> bytes:
        return self.name(name) + struct.pack(">I", nc_type) + self.count(nelems) + self.pad(raw)

    def text(self, name: bytes, raw: bytes) -> bytes:
        return self.att(name, 2, len(raw), raw)

    def var(
        self,
        name: bytes,
        dimids: list[int],
        nc_type: int,
        begin: int,
        atts: list[bytes] = [],
        vsize: int = 0,
    ) -> bytes:
        """A variable whose begin counts from the end of the header, until `file` places it."""
        return b"".join(
            [
                self.name(name),
                self.count(len(dimids)),
                *map(self.count, dimids),
                self.items(ATTRIBUTE, atts),
                struct.pack(">I", nc_type),
                self.count(vsize),
                begin.to_bytes(4 if self.version == 1 else 8, "big", signed=True),
            ]
        )

    def file(
        self,
        dims: list[bytes] = [],
        atts: list[bytes] = [],
        variables: Callable[[int], list[bytes]] = lambda _: [],
        data: bytes = b"",
        numrecs: int = 0,
    ) -> bytes:
        """A whole file; `variables` is given the length of the header."""

        def header(length: int) -> bytes:
            return b"".join(
                [
                    b"CDF",
                    bytes([self.version]),
                    self.count(numrecs),
                    self.items(DIMENSION, dims),
                    self.items(ATTRIBUTE, atts),
                    self.items(VARIABLE, variables(length)),
                ]
            )

        return header(len(header(0))) + data


@pytest.fixture
def classic() -> type[Classic]:
    return Classic


def _scan(
    data: bytes, *, head: int | None = None, reader: MemoryReader | None = None, **options: object
) -> VirtualGroup:
    window = Window(memoryview(data)[: len(data) if head is None else head], len(data))
    return run(scanner.scan(window, ScanOptions(**options)), reader or MemoryReader(data))


def _read(data: bytes, array: VirtualArray) -> np.ndarray:
    """Put an array together chunk by chunk, each from its byte range alone."""
    manifest, chunk_shape = array.manifest, array.chunk_shape
    assert manifest.index is None
    assert not manifest.inline
    out = np.empty(
        [n * c for n, c in zip(manifest.grid_shape, chunk_shape, strict=True)], array.dtype
    )
    for row, cell in enumerate(np.ndindex(manifest.grid_shape)):
        offset, length = int(manifest.offset[row]), int(manifest.length[row])
        assert offset + length <= len(data)
        chunk = np.frombuffer(data[offset : offset + length], array.dtype).reshape(chunk_shape)
        out[tuple(slice(i * c, (i + 1) * c) for i, c in zip(cell, chunk_shape, strict=True))] = (
            chunk
        )
    return out[(*map(slice, array.shape), ...)]


@pytest.fixture
def scan() -> Callable[..., VirtualGroup]:
    return _scan


@pytest.fixture
def read() -> Callable[[bytes, VirtualArray], np.ndarray]:
    return _read
