"""Arrays made by hand, and sources that log what they are asked."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numcodecs
import numpy as np
import pytest
from numpy.typing import NDArray

from byteatlas.model import WHOLE, Buffer, ChunkManifest, Codec, Encoding, VirtualArray
from byteatlas.testing import RangeServer

SHUFFLE_ZLIB = (Codec("shuffle", {"elementsize": 4}), Codec("zlib", {"level": 1}))


class FakeSource:
    """Bytes in memory; answers rows of a stream in the order that `order` gives."""

    def __init__(self, data: bytes, order: Callable[[int], list[int]] | None = None) -> None:
        self.url = "memory://fake"
        self.data = data
        self.requests: list[tuple[int, int]] = []
        self.closed_early = threading.Event()
        self._order = order or (lambda count: list(range(count))[::-1])

    def stream(
        self, offset: NDArray[np.uint64], length: NDArray[np.uint64]
    ) -> Iterator[tuple[int, Buffer]]:
        try:
            for row in self._order(len(offset)):
                start, count = int(offset[row]), int(length[row])
                count = len(self.data) - start if count == WHOLE else count
                self.requests.append((start, count))
                yield row, self.data[start : start + count]
        except GeneratorExit:
            self.closed_early.set()
            raise


class Made(NamedTuple):
    """A virtual array, what reading it must give, and its sources."""

    array: VirtualArray
    values: NDArray[Any]
    sources: list[FakeSource]


@pytest.fixture
def make_array() -> Callable[..., Made]:
    """Return a function that lays an array's chunks out in fake sources."""
    return build


def build(
    values: NDArray[Any],
    chunk_shape: tuple[int, ...],
    *,
    codecs: tuple[Codec, ...] = (),
    gap: int = 0,
    sources: int = 1,
    missing: tuple[int, ...] = (),
    inlined: tuple[int, ...] = (),
    fill_value: Any = None,
    seed: int = 0,
) -> Made:
    random = np.random.default_rng(seed)
    grid = tuple(-(-n // c) for n, c in zip(values.shape, chunk_shape, strict=True))
    data = [bytearray(b"header") for _ in range(sources)]
    rows: list[tuple[int, int, int, int]] = []
    inline: dict[int, bytes] = {}
    expected = values.copy()
    for flat in random.permutation(math.prod(grid)).tolist():
        chunk = np.unravel_index(flat, grid) if grid else ()
        region = tuple(
            slice(int(i) * n, int(i + 1) * n) for i, n in zip(chunk, chunk_shape, strict=True)
        )
        if flat in missing:
            expected[region] = np.zeros((), values.dtype) if fill_value is None else fill_value
            continue
        padded = np.full(chunk_shape, 99, values.dtype)
        part = values[region]
        padded[tuple(slice(0, n) for n in part.shape)] = part
        encoded = padded.tobytes()
        for codec in codecs:
            encoder = numcodecs.get_codec({"id": codec.name, **codec.config})
            encoded = bytes(encoder.encode(encoded))
        if flat in inlined:
            inline[flat] = encoded
            continue
        source = int(random.integers(sources))
        data[source] += bytes(gap)
        rows.append((flat, len(data[source]), len(encoded), source))
        data[source] += encoded
    index, offset, length, source_of = np.array(rows, np.uint64).reshape(-1, 4).T
    manifest = ChunkManifest.build(
        grid,
        index,
        offset,
        length,
        source=source_of.astype(np.uint32) if sources > 1 else None,
        inline=inline,
    )
    array = VirtualArray(
        values.shape,
        values.dtype,
        chunk_shape,
        manifest,
        encodings=(Encoding(codecs),),
        fill_value=fill_value,
    )
    return Made(array, expected, [FakeSource(bytes(one)) for one in data])


@pytest.fixture(params=["local", "http"])
def placed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[bytes], str]]:
    """Return a function that puts bytes somewhere, and gives their URL."""
    with RangeServer(tmp_path) as server:

        def place(data: bytes) -> str:
            (tmp_path / "data.bin").write_bytes(data)
            is_local = request.param == "local"
            return str(tmp_path / "data.bin") if is_local else server.url("data.bin")

        yield place
