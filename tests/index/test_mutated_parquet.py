"""Whatever stands in a Parquet index: our own errors, in little time, or a group."""

from __future__ import annotations

import copy
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import byteatlas
from byteatlas.errors import ByteatlasError, Malformed
from byteatlas.index.parquet_partition import Rows, decode_partition, encode_partition, lengths_of
from byteatlas.limits import Limits
from byteatlas.model import ChunkManifest, Codec, Encoding, Source, VirtualArray, VirtualGroup

VALUES = [
    None, 0, -1, 1, 2, 2**31, 2**63, 2**64, 10**30, 1.5, "", "x", "../a", "NaN", "AAAAAAAAAAA=",
    "AAAAAAAAAAA" * 9, [], {}, [1], [[]], {"a": 1}, True, False,
]  # fmt: skip
KEYS = ["more", "a/.zattrs", "g/zarr.json", "/a/.zarray", "byteatlas", "g/b/.zarray"]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mutated")
    (folder / "source.bin").write_bytes(bytes(200))
    every = np.arange(50, dtype=np.uint64)
    length = np.full(50, 4, np.uint64)
    some = ChunkManifest.build(
        (50,),
        every[:40],
        every[:40] * 4,
        length[:40],
        inline={45: b"abcd"},
        encoding=(every[:40] % 2).astype(np.uint8),
    )
    encodings = (Encoding(), Encoding((Codec("zlib", {"level": 1}),)))
    dtype = np.dtype("<i4")
    a = VirtualArray((50,), dtype, (1,), some, encodings, dimensions=("x",), attrs={"u": "K"})
    full = ChunkManifest.build((50,), every, every * 4, length)
    b = VirtualArray((50,), dtype, (1,), full, dimensions=("x",), attrs={"n": np.int16(3)})
    group = VirtualGroup(
        arrays={"a": a},
        groups={"g": VirtualGroup(arrays={"b": b})},
        sources=(Source(f"file://{folder}/source.bin", size=200),),
    )
    group.to_parquet(folder / "index.parq", record_size=20)
    return folder / "index.parq"


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    if isinstance(value, dict | list):
        members = value.items() if isinstance(value, dict) else enumerate(value)
        for key, member in members:
            yield from places(member, (*path, key))


def mutated(document: Any, chance: random.Random) -> Any:
    document = copy.deepcopy(document)
    for _ in range(chance.choice([1, 1, 2])):
        *way, last = chance.choice(list(places(document)))
        here = document
        for key in way:
            here = here[key]
        kind = chance.randrange(4)
        if kind == 0 and isinstance(here, dict):
            here[chance.choice(KEYS)] = chance.choice(VALUES)
        elif kind == 1:
            del here[last]
        else:
            here[last] = chance.choice(VALUES)
    return document


@pytest.mark.parametrize("seed", range(8))
def test_changed_metadata_gives_our_errors_only(index: Path, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    path = tmp_path / "index.parq"
    shutil.copytree(index, path)
    document = json.loads((index / ".zmetadata").read_text())
    refused = 0
    for _ in range(60):
        (path / ".zmetadata").write_text(json.dumps(mutated(document, chance)))
        try:
            group = byteatlas.open_index(path)
            for _, array in group.walk_arrays():
                array.manifest.locate(np.arange(min(array.manifest.cells, 50)))
                array.manifest.whole()
        except ByteatlasError:
            refused += 1
    assert refused > 0


@pytest.mark.parametrize("seed", range(4))
def test_a_changed_partition_gives_our_errors_only(seed: int) -> None:
    chance, rng = random.Random(seed), np.random.default_rng(seed)
    rows = Rows(
        ["https://example.org/a", "s3://bucket/b"],
        rng.integers(-1, 2, 60).astype(np.int32),
        np.cumsum(rng.integers(1, 9999, 60)),
        rng.integers(1, 5000, 60),
        {3: b"abc", 4: b"z" * 50},
        rng.integers(0, 3, 60).astype(np.uint8),
        rng.integers(0, 2**62, 60).astype(np.uint64),
    )
    whole = encode_partition(rows)
    refused = 0
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(chance.choice([1, 1, 3])):
            place = chance.randrange(len(data))
            kind = chance.randrange(4)
            if kind == 0:
                data[place] = chance.randrange(256)
            elif kind == 1:
                data[place] ^= 1 << chance.randrange(8)
            elif kind == 2:
                del data[place : place + chance.choice([1, 3, 9])]
            else:
                data[place:place] = chance.randbytes(chance.choice([1, 4]))
        try:
            lengths_of(decode_partition(bytes(data), 60, ("encoding", "digest"), Limits()))
        except Malformed:
            refused += 1
    assert refused > 50
