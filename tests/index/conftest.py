"""Virtual groups over real bytes, built by hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numcodecs.registry import get_codec

from byteatlas.model import (
    ChunkManifest,
    Codec,
    Dimension,
    Encoding,
    ScanReport,
    Source,
    VirtualArray,
    VirtualGroup,
)


@dataclass
class SourceFile:
    """A file of chunks, which arrays are appended to."""

    path: Path
    content: bytearray = field(default_factory=lambda: bytearray(b"junk at the start"))
    expected: dict[str, np.ndarray] = field(default_factory=dict)

    def add(
        self,
        name: str,
        values: np.ndarray,
        chunk_shape: tuple[int, ...],
        *codecs: Codec,
        missing: frozenset[tuple[int, ...]] = frozenset(),
        inline: bool = False,
        **kwargs: Any,
    ) -> VirtualArray:
        """Append the chunks of an array, and return it.

        Chunks in `missing` are left out, and expected to read as the fill value.
        """
        values = np.asarray(values)
        grid = tuple(-(-n // c) for n, c in zip(values.shape, chunk_shape, strict=True))
        fill_value = kwargs.get("fill_value")
        fill = np.zeros((), values.dtype) if fill_value is None else fill_value
        expected = values.copy()
        index, offset, length, inlined = [], [], [], {}
        for flat, chunk in enumerate(product(*map(range, grid))):
            place = tuple(
                slice(i * c, (i + 1) * c) for i, c in zip(chunk, chunk_shape, strict=True)
            )
            if chunk in missing:
                expected[place] = fill
                continue
            block = np.full(chunk_shape, fill, values.dtype)
            part = values[place]
            block[tuple(slice(0, n) for n in part.shape)] = part
            data: Any = block if values.dtype.kind == "O" else block.tobytes()
            for codec in codecs:
                data = get_codec({"id": codec.name, **codec.config}).encode(data)
            data = data.tobytes() if isinstance(data, np.ndarray) else bytes(data)
            if inline:
                inlined[flat] = data
                continue
            index.append(flat)
            offset.append(len(self.content))
            length.append(len(data))
            self.content += data + b"gap"
        self.expected[name] = expected
        return VirtualArray(
            shape=values.shape,
            dtype=values.dtype,
            chunk_shape=chunk_shape,
            manifest=ChunkManifest.build(
                grid,
                np.array(index, np.uint64),
                np.array(offset, np.uint64),
                np.array(length, np.uint64),
                inline=inlined,
            ),
            encodings=(Encoding(codecs),),
            **{"dimensions": tuple(f"{name}_{axis}" for axis in range(values.ndim)), **kwargs},
        )

    def group(self, arrays: dict[str, VirtualArray], **kwargs: Any) -> VirtualGroup:
        """Write the file, and return the group of its arrays."""
        self.path.write_bytes(self.content)
        dimensions = {
            name: Dimension(size)
            for array in arrays.values()
            for name, size in zip(array.dimensions, array.shape, strict=True)
        }
        source = Source(f"file://{self.path}", size=len(self.content))
        return VirtualGroup(
            **{
                "dimensions": dimensions,
                "arrays": arrays,
                "sources": (source,),
                "report": ScanReport("by hand", "1"),
                **kwargs,
            }
        )


@pytest.fixture
def source_file(tmp_path: Path) -> SourceFile:
    return SourceFile(tmp_path / "source file.bin")


ZLIB = Codec("zlib", {"level": 1})


def shuffle(size: int) -> Codec:
    return Codec("shuffle", {"elementsize": size})


@pytest.fixture
def zoo(source_file: SourceFile) -> tuple[VirtualGroup, dict[str, np.ndarray]]:
    """One array of each kind, and the values that any reader must find in it."""
    rng = np.random.default_rng(5)
    add = source_file.add
    grid = rng.normal(size=(5, 7)).astype("<f4")
    text = np.array(["", "é", "longer text", "x"], object)
    arrays = {
        "plain": add("plain", grid, (2, 3), attrs={"units": "K", "level": np.int16(3)}),
        "zlib": add("zlib", grid.astype("<f8"), (3, 4), ZLIB),
        "shuffled": add(
            "shuffled", np.arange(35, dtype="<i8").reshape(5, 7), (2, 3), shuffle(8), ZLIB
        ),
        "checked": add(
            "checked",
            np.arange(35, dtype="<u2").reshape(5, 7),
            (2, 3),
            shuffle(2),
            ZLIB,
            Codec("fletcher32"),
        ),
        "zstd": add("zstd", grid, (5, 7), Codec("zstd", {"level": 3, "checksum": False})),
        "big_endian": add("big_endian", np.arange(12, dtype=">i2").reshape(3, 4), (2, 2)),
        "big_float": add("big_float", np.linspace(0, 1, 12).astype(">f8"), (5,), shuffle(8), ZLIB),
        "small": add("small", np.arange(-5, 6, dtype="i1"), (4,)),
        "bool": add("bool", np.array([True, False, True]), (2,)),
        "complex": add("complex", np.array([1 + 2j, -3j, np.nan], "<c8"), (2,)),
        "bytes": add("bytes", np.array([b"abc", b"", b"hello"], "S5"), (2,)),
        "record": add(
            "record", np.array([(1, 0.5), (-2, 4)], [("a", "<i2"), ("b", "<f8")]), (1,), ZLIB
        ),
        "time": add(
            "time",
            np.arange(10, dtype="<i4"),
            (4,),
            attrs={"units": "days since 2000-01-01", "calendar": "standard"},
        ),
        "text": add("text", text, (3,), Codec("vlen-utf8"), inline=True),
        "scalar": add("scalar", np.array(7, "<i4"), (), attrs={"grid_mapping_name": "crs"}),
        "gaps_zero": add("gaps_zero", np.arange(12, dtype="<i4"), (5,), missing=frozenset({(1,)})),
        "gaps_float": add("gaps_float", np.arange(9, dtype="<f4"), (4,), missing=frozenset({(2,)})),
        "gaps_fill": add(
            "gaps_fill",
            np.arange(12, dtype="<f4"),
            (5,),
            ZLIB,
            missing=frozenset({(0,)}),
            fill_value=np.float32(-999),
            attrs={"_FillValue": np.float32(-999)},
        ),
        "gaps_other": add(
            "gaps_other",
            np.arange(12, dtype="<i2"),
            (5,),
            shuffle(2),
            ZLIB,
            missing=frozenset({(1,), (2,)}),
            fill_value=np.int16(-1),
            attrs={"_FillValue": np.int16(-999)},
        ),
        "empty": add("empty", np.empty((0, 3), "<f4"), (1, 3)),
    }
    return source_file.group(arrays, attrs={"title": "zoo"}), source_file.expected
