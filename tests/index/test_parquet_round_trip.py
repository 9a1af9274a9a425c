"""A group that is written as a Parquet index and opened again is the same group."""

from __future__ import annotations

import json
import pickle
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.index.test_round_trip import assert_same_group, roots

import byteatlas
from byteatlas.errors import Unsupported
from byteatlas.index import read_json, to_json_bytes, write_parquet
from byteatlas.index.lazy_manifest import LazyManifest, loaded
from byteatlas.model import WHOLE, ChunkManifest, Source, VirtualArray, VirtualGroup

Zoo = tuple[VirtualGroup, dict[str, np.ndarray]]


def names_of(group: VirtualGroup) -> set[str]:
    return {part for path, _ in (*group.walk(), *group.walk_arrays()) for part in path.split("/")}


def is_writable(group: VirtualGroup) -> bool:
    names = names_of(group)
    return not any(name.startswith(".z") or "\\" in name for name in names) and all(
        len(name.encode()) < 200 for name in names
    )


@settings(deadline=None, derandomize=True, max_examples=30)
@given(roots().filter(is_writable), st.integers(1, 40))
def test_any_group_comes_back_equal(group: VirtualGroup, record_size: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        group.to_parquet(f"{folder}/a.parq", record_size=record_size)
        found = byteatlas.open_index(f"{folder}/a.parq", limits=byteatlas.Limits(url=2**20))

        for path, array in group.walk_arrays():
            lazy = found[path].manifest
            assert isinstance(lazy, LazyManifest)
            assert lazy.virtual_count == array.manifest.virtual_count
            assert lazy.missing_count == array.manifest.missing_count
            assert_same_places(lazy, array.manifest)
        assert_same_group(found, group)
        assert to_json_bytes(found) == to_json_bytes(group)


def assert_same_places(found: ChunkManifest, expected: ChunkManifest) -> None:
    if not expected.cells:
        return
    flat = np.random.default_rng(3).integers(0, expected.cells, 2 * expected.cells + 1)
    for ours, theirs in zip(found.locate(flat), expected.locate(flat), strict=True):
        if isinstance(theirs, list):
            assert ours == theirs
        else:
            zeros = np.zeros(expected.locate(flat).virtual.size)
            np.testing.assert_array_equal(
                zeros if ours is None else ours, zeros if theirs is None else theirs
            )


@pytest.mark.parametrize("record_size", [1, 2, 5, 100_000])
def test_from_json_to_parquet_and_back_nothing_is_lost(
    zoo: Zoo, tmp_path: Path, record_size: int
) -> None:
    text = to_json_bytes(zoo[0])

    read_json(text).to_parquet(tmp_path / "a.parq", record_size=record_size)
    byteatlas.open_index(tmp_path / "a.parq").to_json(tmp_path / "b.json")

    assert (tmp_path / "b.json").read_bytes() == text


def test_a_sealed_group_stays_sealed(zoo: Zoo, tmp_path: Path) -> None:
    sealed = byteatlas.seal(zoo[0])

    sealed.to_parquet(tmp_path / "a.parq", record_size=3)
    found = byteatlas.open_index(tmp_path / "a.parq")

    assert found["plain"].manifest.is_sealed
    assert to_json_bytes(found) == to_json_bytes(sealed)
    reader = byteatlas.read.Reader(found.sources)
    np.testing.assert_array_equal(reader.read(found["plain"]), zoo[1]["plain"])


def test_a_changed_chunk_of_a_sealed_group_is_noticed(zoo: Zoo, tmp_path: Path) -> None:
    byteatlas.seal(zoo[0]).to_parquet(tmp_path / "a.parq", record_size=3)
    source = Path(zoo[0].sources[0].url.removeprefix("file://"))
    data = bytearray(source.read_bytes())
    data[int(zoo[0]["plain"].manifest.offset[0]) + 1] ^= 1
    source.write_bytes(data)
    found = byteatlas.open_index(tmp_path / "a.parq")

    with pytest.raises(byteatlas.errors.SourceChanged, match="sealed"):
        byteatlas.read.Reader(found.sources).read(found["plain"], path="/plain")


def test_the_same_group_gives_the_same_bytes(zoo: Zoo, tmp_path: Path) -> None:
    for name in ("a.parq", "b.parq"):
        zoo[0].to_parquet(tmp_path / name, record_size=4)

    files = [
        {file.relative_to(root): file.read_bytes() for file in root.rglob("*") if file.is_file()}
        for root in (tmp_path / "a.parq", tmp_path / "b.parq")
    ]
    assert files[0] == files[1]
    assert len(files[0]) > 20


def with_chunks(offset: list[int], length: list[int], **more: Any) -> VirtualGroup:
    manifest = ChunkManifest.build(
        (len(offset),),
        np.arange(len(offset), dtype=np.uint64),
        np.array(offset, np.uint64),
        np.array(length, np.uint64),
        **more,
    )
    array = VirtualArray((len(offset),), np.dtype("u1"), (1,), manifest, dimensions=("x",))
    return VirtualGroup(arrays={"a": array}, sources=(Source("https://example.org/a", size=99),))


def test_an_empty_range_at_the_start_is_no_whole_source(tmp_path: Path) -> None:
    with_chunks([0, 0, 5], [0, WHOLE, 0]).to_parquet(tmp_path / "a.parq")

    found = byteatlas.open_index(tmp_path / "a.parq")["a"].manifest

    assert found.offset.tolist() == [0, 0, 5]
    assert found.length.tolist() == [0, WHOLE, 0]


def test_the_rest_of_a_source_becomes_a_range(tmp_path: Path) -> None:
    with_chunks([9], [WHOLE]).to_parquet(tmp_path / "a.parq")

    assert byteatlas.open_index(tmp_path / "a.parq")["a"].manifest.length.tolist() == [90]


def test_what_no_reader_could_find_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=r"beyond 2\*\*63"):
        with_chunks([2**63], [1]).to_parquet(tmp_path / "a.parq")
    named = replace(with_chunks([1], [1]), arrays={".zoo": with_chunks([1], [1])["a"]})
    with pytest.raises(Unsupported, match=r"begin with '\.z'"):
        named.to_parquet(tmp_path / "a.parq")
    inner = replace(with_chunks([1], [1]), groups={".zoo": VirtualGroup()})
    with pytest.raises(Unsupported, match=r"begin with '\.z'"):
        inner.to_parquet(tmp_path / "a.parq")
    with pytest.raises(ValueError, match="record_size"):
        write_parquet(with_chunks([1], [1]), tmp_path / "a.parq", record_size=0)
    assert list(tmp_path.iterdir()) == []


def test_a_grid_without_chunks_has_no_partitions(tmp_path: Path) -> None:
    array = VirtualArray(
        (10**12,), np.dtype("f4"), (10,), ChunkManifest.empty((10**11,)), dimensions=("x",)
    )
    one = np.array([10**11 - 1], np.uint64)
    with_one = replace(array, manifest=ChunkManifest.build((10**11,), one, one, one))
    sources = (Source("https://example.org/a"),)
    VirtualGroup(arrays={"a": array, "b": with_one}, sources=sources).to_parquet(tmp_path / "a")

    assert [file.name for file in (tmp_path / "a").rglob("*.parq")] == ["refs.999999.parq"]
    group = byteatlas.open_index(tmp_path / "a")
    assert group["a"].manifest.present_count == 0
    assert group["a"].manifest.locate(np.array([0, 10**11 - 1])).virtual.size == 0
    assert group["b"].manifest.locate(np.array([0, 10**11 - 1])).offset.tolist() == [10**11 - 1]
    assert group["b"].manifest.index.tolist() == [10**11 - 1]


def test_a_manifest_can_be_pickled_and_replaced(zoo: Zoo, tmp_path: Path) -> None:
    zoo[0].to_parquet(tmp_path / "a.parq", record_size=3)
    group = byteatlas.open_index(tmp_path / "a.parq")

    copied = pickle.loads(pickle.dumps(group))
    assert_same_group(copied, loaded(group))
    assert isinstance(copied["plain"].manifest, LazyManifest)
    lazy = group["plain"].manifest
    kept = replace(lazy, inline={})
    assert type(kept) is ChunkManifest
    np.testing.assert_array_equal(kept.offset, lazy.offset)


def test_the_metadata_says_how_it_was_written(zoo: Zoo, tmp_path: Path) -> None:
    zoo[0].to_parquet(tmp_path / "a.parq", record_size=7)

    text = (tmp_path / "a.parq" / ".zmetadata").read_text()
    document = json.loads(text)

    assert text.startswith('{"byteatlas":')
    assert document["record_size"] == 7
    assert document["zarr_consolidated_format"] == 1
    assert all(isinstance(value, dict) for value in document["metadata"].values())
    assert document["byteatlas"]["arrays"]["/plain"]["partitions"].keys() == {"size", "digest"}
