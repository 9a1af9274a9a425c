"""A Parquet index that is damaged, incomplete or hostile: our errors, and never fill values."""

from __future__ import annotations

import base64
import json
import pickle
import shutil
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr

import byteatlas
from byteatlas.errors import (
    ByteatlasError,
    Inconsistent,
    LimitExceeded,
    Malformed,
    MissingDependency,
    NotAllowed,
    NotRecognised,
    SourceDenied,
    SourceMissing,
    Unsupported,
)
from byteatlas.index.partitions import Partitions
from byteatlas.limits import Limits
from byteatlas.model import ChunkManifest, Source, VirtualArray, VirtualGroup
from byteatlas.read.reader import Reader
from byteatlas.testing.server import Fault, RangeServer

CELLS, SIZE = 50, 20


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.bin"
    path.write_bytes(np.arange(1, CELLS + 1, dtype="<i4").tobytes())
    return path


@pytest.fixture
def group(source: Path) -> VirtualGroup:
    index = np.arange(CELLS, dtype=np.uint64)
    manifest = ChunkManifest.build((CELLS,), index, index * 4, np.full(CELLS, 4, np.uint64))
    array = VirtualArray((CELLS,), np.dtype("<i4"), (1,), manifest, dimensions=("x",))
    return VirtualGroup(arrays={"a": array}, sources=(Source(f"file://{source}", size=4 * CELLS),))


@pytest.fixture
def ours(group: VirtualGroup, tmp_path: Path) -> Path:
    """Return an index of three partitions that byteatlas wrote."""
    group.to_parquet(tmp_path / "ours.parq", record_size=SIZE)
    return tmp_path / "ours.parq"


@pytest.fixture
def theirs(ours: Path, tmp_path: Path) -> Path:
    """Return the same without what only byteatlas writes."""
    path = tmp_path / "theirs.parq"
    shutil.copytree(ours, path)
    document = json.loads((path / ".zmetadata").read_text())
    del document["byteatlas"]
    (path / ".zmetadata").write_text(json.dumps(document))
    return path


def read(path: Path, selection: Any = ..., **options: Any) -> np.ndarray:
    group = byteatlas.open_index(path, **options)
    return Reader(group.sources).read(group["a"], selection, path="/a")


def edit(path: Path, change: Any) -> None:
    document = json.loads((path / ".zmetadata").read_text())
    change(document)
    (path / ".zmetadata").write_text(json.dumps(document))


def partition(path: Path, number: int) -> Path:
    return path / "a" / f"refs.{number}.parq"


def assert_names(error: ByteatlasError, path: Path) -> None:
    assert error.url == str(path)
    assert error.path == "/a"


def test_both_read_right_before_anything_is_wrong(ours: Path, theirs: Path) -> None:
    for path in (ours, theirs):
        np.testing.assert_array_equal(read(path), np.arange(1, CELLS + 1))


def test_a_partition_that_is_gone_is_an_error(ours: Path) -> None:
    partition(ours, 1).unlink()

    with pytest.raises(SourceMissing) as caught:
        read(ours)
    assert_names(caught.value, partition(ours, 1))
    np.testing.assert_array_equal(read(ours, slice(0, 20)), np.arange(1, 21))  # needs another
    group = byteatlas.open_index(ours)
    with pytest.raises(SourceMissing):
        group["a"].manifest.offset  # noqa: B018


def test_a_partition_of_another_array_is_an_error(ours: Path) -> None:
    shutil.copy(partition(ours, 0), partition(ours, 1))

    with pytest.raises(Inconsistent, match="other bytes than were written") as caught:
        read(ours, 25)
    assert_names(caught.value, partition(ours, 1))


@pytest.mark.parametrize("place", [4, 60, -30])
def test_one_changed_byte_is_an_error(ours: Path, place: int) -> None:
    data = bytearray(partition(ours, 0).read_bytes())
    data[place] ^= 1
    partition(ours, 0).write_bytes(data)

    with pytest.raises(Inconsistent, match="other bytes than were written"):
        read(ours, 3)


def test_a_partition_that_was_cut_is_an_error(ours: Path, theirs: Path) -> None:
    for path, kind in ((ours, Inconsistent), (theirs, Malformed)):
        data = partition(path, 0).read_bytes()
        partition(path, 0).write_bytes(data[:-40])
        with pytest.raises(kind) as caught:
            read(path, 3)
        assert_names(caught.value, partition(path, 0))


def test_a_partition_that_is_no_parquet_file_is_an_error(theirs: Path) -> None:
    for content in (b"", b"PAR1", b"nonsense" * 100, b"PAR1" + bytes(90) + b"PAR1"):
        partition(theirs, 0).write_bytes(content)
        with pytest.raises(Malformed, match="cannot be read as Parquet") as caught:
            read(theirs, 3)
        assert_names(caught.value, partition(theirs, 0))


def table(**changes: Any) -> dict[str, Any]:
    columns = {
        "path": pa.array(["source.bin"] * SIZE),
        "offset": pa.array(np.arange(SIZE) * 4),
        "size": pa.array(np.full(SIZE, 4)),
        "raw": pa.nulls(SIZE, pa.binary()),
    }
    columns |= changes
    return {name: column for name, column in columns.items() if column is not None}


WRONG = {
    "no path": ({"path": None}, "has the columns"),
    "no offset": ({"offset": None}, "has the columns"),
    "no size": ({"size": None}, "has the columns"),
    "path is a number": ({"path": pa.array(np.arange(SIZE))}, "'path' is of type int64"),
    "offset is a float": ({"offset": pa.array(np.zeros(SIZE))}, "'offset' is of type double"),
    "size is text": ({"size": pa.array(["4"] * SIZE)}, "'size' is of type string"),
    "raw is a number": ({"raw": pa.array(np.arange(SIZE))}, "'raw' is of type int64"),
    "offset is negative": ({"offset": pa.array(np.arange(SIZE) - 1)}, "-1 in row 0"),
    "size is negative": ({"size": pa.array(3 - np.arange(SIZE))}, "-1 in row 4"),
    "offset is huge": (
        {"offset": pa.array(np.full(SIZE, 2**63, np.uint64))},
        "9223372036854775808 in row 0",
    ),
    "offset is null": (
        {"offset": pa.array([None] * SIZE, pa.int64())},
        "'offset' has a null where there is a path",
    ),
    "path is not text": ({"path": pa.array([b"\xff"] * SIZE)}, "cannot be read as Parquet"),
    "path is empty": ({"path": pa.array([""] * SIZE)}, "'' is not the URL of a source"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_columns_are_errors(theirs: Path, case: str) -> None:
    changes, problem = WRONG[case]
    pq.write_table(pa.table(table(**changes)), partition(theirs, 0))

    with pytest.raises(Malformed, match=problem) as caught:
        read(theirs, 3)
    assert_names(caught.value, partition(theirs, 0))


def test_a_partition_with_too_few_rows_is_an_error(theirs: Path) -> None:
    short = pa.table(table()).slice(0, SIZE - 1)
    pq.write_table(short, partition(theirs, 0))

    with pytest.raises(Malformed, match="has 19 rows, 20 chunks need one each") as caught:
        read(theirs, 3)
    assert_names(caught.value, partition(theirs, 0))
    pq.write_table(pa.table(table()).slice(0, 10), partition(theirs, 2))  # the last is shorter
    assert read(theirs, 49) == 10


def test_a_column_that_is_there_twice_is_an_error(theirs: Path) -> None:
    columns = table()
    twice = pa.Table.from_arrays([*columns.values(), columns["size"]], [*columns, "size"])
    pq.write_table(twice, partition(theirs, 0))

    with pytest.raises(Malformed, match="twice"):
        read(theirs, 3)


def rewrite(group: VirtualGroup, path: Path, **changes: Any) -> None:
    """Write an index of ours whose partitions and digests agree, but are wrong."""
    from dataclasses import replace

    manifest = replace(group["a"].manifest, **changes)
    array = replace(group["a"], manifest=manifest)
    replace(group, arrays={"a": array}).to_parquet(path, record_size=SIZE)


def test_an_offset_beyond_the_end_of_the_source_is_an_error(
    group: VirtualGroup, tmp_path: Path
) -> None:
    offset = group["a"].manifest.offset.copy()
    offset[30] = 197
    rewrite(group, tmp_path / "b.parq", offset=offset)

    with pytest.raises(Malformed, match=r"beyond the end.*refs\.1\.parq") as caught:
        read(tmp_path / "b.parq", 25)
    assert caught.value.path == "/a"
    assert caught.value.offset == 197
    assert read(tmp_path / "b.parq", 3) == 4


def test_an_offset_beyond_the_end_of_an_unknown_source_is_an_error(theirs: Path) -> None:
    offset = pa.array(np.arange(SIZE) * 4 + 4 * CELLS)
    pq.write_table(pa.table(table(offset=offset)), partition(theirs, 0))

    with pytest.raises(byteatlas.errors.ShortRead):
        read(theirs, 3)


def test_a_source_that_the_index_does_not_list_is_an_error(ours: Path) -> None:
    edit(ours, lambda document: document["byteatlas"]["sources"].clear())

    with pytest.raises(Malformed, match="not among the sources that the index lists"):
        read(ours, 3)


def test_an_encoding_that_there_is_not_is_an_error(group: VirtualGroup, tmp_path: Path) -> None:
    rewrite(group, tmp_path / "b.parq", encoding=np.full(CELLS, 3, np.uint8))

    with pytest.raises(Malformed, match="encoding column does not fit"):
        read(tmp_path / "b.parq", 3)


def test_counts_that_are_not_right_are_errors(ours: Path) -> None:
    def lie(document: Any) -> None:
        document["byteatlas"]["arrays"]["/a"]["present"] = 49

    edit(ours, lie)

    with pytest.raises(Inconsistent, match="holds 50 virtual and 0 inlined chunks"):
        byteatlas.open_index(ours)["a"].manifest.offset  # noqa: B018


BROKEN = {
    "record_size is text": (lambda d: d.update(record_size="9"), Malformed, "record_size"),
    "record_size is 0": (lambda d: d.update(record_size=0), Malformed, "record_size"),
    "record_size is true": (lambda d: d.update(record_size=True), Malformed, "record_size"),
    "no record_size": (lambda d: d.pop("record_size"), NotRecognised, "a Zarr store, not an index"),
    "no metadata": (lambda d: d.pop("metadata"), Malformed, "no object 'metadata'"),
    "metadata of version 3": (
        lambda d: d["metadata"].update({"a/zarr.json": {}}),
        Unsupported,
        "version 3",
    ),
    "a chunk in the metadata": (lambda d: d["metadata"].update({"a/0": {}}), Malformed, "'a/0'"),
    "an array gone": (lambda d: d["metadata"].pop("a/.zarray"), Malformed, "no metadata"),
    "a path that leads out": (
        lambda d: d["metadata"].update({"../b/.zarray": d["metadata"]["a/.zarray"]}),
        Malformed,
        "cannot be a directory",
    ),
    "a path with an empty part": (
        lambda d: d["metadata"].update({"b//c/.zarray": d["metadata"]["a/.zarray"]}),
        Malformed,
        "cannot be a directory",
    ),
    "no partitions": (
        lambda d: d["byteatlas"]["arrays"]["/a"].pop("partitions"),
        Malformed,
        "table of partitions",
    ),
    "partitions beyond the grid": (
        lambda d: d["byteatlas"]["arrays"]["/a"]["partitions"].update(
            number="AAAAAAAAAAABAAAAAAAAAAkAAAAAAAAA"
        ),
        Malformed,
        "do not fit the grid",
    ),
    "a table that is no base64": (
        lambda d: d["byteatlas"]["arrays"]["/a"]["partitions"].update(size="%%%"),
        Malformed,
        "no column 'size'",
    ),
    "an unknown column": (
        lambda d: d["byteatlas"]["arrays"]["/a"]["partitions"].update(columns=["more"]),
        Malformed,
        "are not known",
    ),
    "a later format": (lambda d: d["byteatlas"].update(format=2), Unsupported, "format 2"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_metadata_is_an_error(ours: Path, case: str) -> None:
    change, kind, problem = BROKEN[case]
    edit(ours, change)

    with pytest.raises(kind, match=problem) as caught:
        byteatlas.open_index(ours)
    assert caught.value.url == str(ours)


def test_a_directory_without_metadata_is_no_index(tmp_path: Path) -> None:
    with pytest.raises(NotRecognised, match=r"no \.zmetadata"):
        byteatlas.open_index(tmp_path)
    (tmp_path / ".zmetadata").write_text("not JSON")
    with pytest.raises(Malformed):
        byteatlas.open_index(tmp_path)


def test_what_takes_too_much_is_refused(theirs: Path, group: VirtualGroup, tmp_path: Path) -> None:
    with pytest.raises(LimitExceeded, match="partition"):
        read(theirs, limits=Limits(keys=SIZE - 1))
    with pytest.raises(LimitExceeded, match="keys"):
        byteatlas.open_index(theirs, limits=Limits(keys=SIZE))["a"].manifest.offset  # noqa: B018
    raw = pa.array([b"1234"] * SIZE)
    pq.write_table(pa.table(table(raw=raw)), partition(theirs, 0))
    with pytest.raises(LimitExceeded, match="inlined"):
        read(theirs, limits=Limits(inline=3))
    with pytest.raises(LimitExceeded, match="URL"):
        read(theirs, 45, limits=Limits(url=5))


@pytest.mark.parametrize("is_served", [False, True])
def test_a_file_that_is_too_large_is_refused(
    ours: Path, theirs: Path, served: Any, is_served: bool
) -> None:
    sizes = base64.b64encode(np.array([20_000] * 3, "<u8").tobytes()).decode()
    edit(ours, lambda d: d["byteatlas"]["arrays"]["/a"]["partitions"].update(size=sizes))
    for path in (ours, theirs):
        partition(path, 0).write_bytes(bytes(20_000))
        for name in (".zmetadata", "a/refs.0.parq"):
            served.content[f"{path.name}/{name}"] = (path / name).read_bytes()
        target = served.url(path.name) if is_served else path
        group = byteatlas.open_index(target, limits=Limits(index=10_000), allow=["file://"])

        with pytest.raises(LimitExceeded, match="limit is 10000") as caught:
            group["a"].manifest.locate(np.array([3]))
        assert caught.value.path == "/a"


def test_text_that_expands_without_measure_is_refused(theirs: Path) -> None:
    raw = pa.array([bytes(2**21)] * SIZE)
    pq.write_table(
        pa.table(table(raw=raw)), partition(theirs, 0), compression="zstd", use_dictionary=False
    )

    assert partition(theirs, 0).stat().st_size < 50_000
    with pytest.raises(LimitExceeded, match="content of a partition"):
        read(theirs, 3)


# Over the network


@pytest.fixture
def served(ours: Path, theirs: Path, source: Path) -> Any:
    files = {"source.bin": source.read_bytes()}
    for root in (ours, theirs):
        for file in root.rglob("*"):
            if file.is_file():
                files[f"{root.name}/{file.relative_to(root)}"] = file.read_bytes()
    with RangeServer(files) as server:
        yield server


def test_opening_asks_for_the_metadata_alone_and_a_chunk_for_its_partition(served: Any) -> None:
    group = byteatlas.open_index(f"{served.url('ours.parq')}", allow=["file://"])
    assert {entry.path for entry in served.log} == {"/ours.parq/.zmetadata"}
    served.log.clear()

    found = group["a"].manifest.locate(np.array([25, 21]))

    assert found.offset.tolist() == [100, 84]
    assert [entry.path for entry in served.log] == ["/ours.parq/a/refs.1.parq"]
    group["a"].manifest.locate(np.array([39]))
    assert len(served.log) == 1


def test_several_partitions_are_fetched_in_one_round(served: Any) -> None:
    group = byteatlas.open_index(served.url("ours.parq/"), allow=["file://"])
    served.log.clear()

    assert group["a"].manifest.locate(np.arange(CELLS)).offset.size == CELLS

    assert len(served.log) == 3


def test_sources_are_judged_when_they_appear(served: Any) -> None:
    url = served.url("theirs.parq")
    group = byteatlas.open_index(url)

    with pytest.raises(NotAllowed, match="by permission") as caught:
        group["a"].manifest.locate(np.array([3]))
    assert caught.value.path == "/a"
    with pytest.raises(NotAllowed):  # and again
        group["a"].manifest.locate(np.array([3]))
    assert list(group.sources) == []
    with pytest.raises(NotAllowed):
        byteatlas.open_index(served.url("ours.parq"))
    allowed = byteatlas.open_index(url, allow=["file://"])
    assert allowed["a"].manifest.locate(np.array([3])).offset.tolist() == [12]
    assert allowed.sources[0].guard is not None


def test_a_partition_that_is_denied_is_no_absent_one(served: Any) -> None:
    group = byteatlas.open_index(served.url("theirs.parq"), allow=["file://"])
    served.faults.append(Fault(status=403, path="theirs.parq/a/refs.0.parq"))
    with pytest.raises(SourceDenied) as caught:
        group["a"].manifest.locate(np.array([3]))
    assert caught.value.path == "/a"
    del served.content["theirs.parq/a/refs.1.parq"]
    assert group["a"].manifest.locate(np.array([25])).virtual.size == 0  # as its layout says


def test_an_array_of_another_process_does_not_point_into_our_table(theirs: Path) -> None:
    group = byteatlas.open_index(theirs)
    other = pickle.loads(pickle.dumps(group["a"]))

    with pytest.raises(Inconsistent, match="sources of another index"):
        Reader(group.sources).read(other)
    copied, reader = pickle.loads(pickle.dumps((group["a"], Reader(group.sources))))
    assert reader.read(copied, 3) == 4


@pytest.mark.parametrize("name", ["ours", "theirs"])
def test_opening_reads_no_partition(
    name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = request.getfixturevalue(name)
    read: list[Any] = []
    fetch = Partitions._fetch
    monkeypatch.setattr(
        Partitions, "_fetch", lambda self, *args: read.append(args[1]) or fetch(self, *args)
    )

    dataset = byteatlas.open_dataset(path)
    lazy = byteatlas.open_dataset(path, chunks={})
    stores = [byteatlas.open_store(path, zarr_format=version) for version in (2, 3)]
    filesystem = fsspec.filesystem("byteatlas", fo=str(path))
    assert read == []

    assert dataset["a"].values[25] == 26
    assert lazy["a"][:3].values.tolist() == [1, 2, 3]
    for store in stores:
        assert zarr.open_group(store, mode="r")["a"][45] == 46
    assert np.frombuffer(filesystem.cat_file("a/7"), "<i4") == 8
    assert [sorted(numbers) for numbers in read][:1] == [[0, 1, 2]]


def test_a_process_of_its_own_reads_the_same(ours: Path, theirs: Path) -> None:
    for path in (ours, theirs):
        dataset = byteatlas.open_dataset(path, chunks={"x": 10})
        copied = pickle.loads(pickle.dumps(dataset))
        assert copied["a"].values.tolist() == list(range(1, CELLS + 1))


def test_many_threads_load_a_partition_once(ours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = byteatlas.open_index(ours)
    reader, read = Reader(group.sources), []
    fetch = Partitions._fetch
    monkeypatch.setattr(
        Partitions, "_fetch", lambda self, *args: read.extend(args[1]) or fetch(self, *args)
    )

    with ThreadPoolExecutor(64) as pool:
        found = list(pool.map(lambda i: int(reader.read(group["a"], i % CELLS)), range(400)))

    assert found == [i % CELLS + 1 for i in range(400)]
    assert sorted(read) == [0, 1, 2]


def test_who_waits_for_an_interrupted_load_loads_it(
    ours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = byteatlas.open_index(ours)
    fetch, waiting, calls = Partitions._fetch, threading.Event(), []

    def interrupted(self: Any, *args: Any) -> Any:
        calls.append(args[1])
        if len(calls) == 1:
            waiting.wait(5)
            raise KeyboardInterrupt
        return fetch(self, *args)

    monkeypatch.setattr(Partitions, "_fetch", interrupted)
    locate = group["a"].manifest.locate
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(locate, np.array([1]))
        while not calls:
            time.sleep(0.001)
        second = pool.submit(locate, np.array([2]))
        time.sleep(0.05)
        waiting.set()
        with pytest.raises(KeyboardInterrupt):
            first.result(5)
        assert second.result(5).offset.tolist() == [8]


def test_decoded_partitions_are_kept_while_they_fit(
    ours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = byteatlas.open_index(ours)
    loader = group["a"].manifest._partitions
    (part,) = loader.load(group["a"].manifest._array, [0])
    assert part is not None
    monkeypatch.setattr("byteatlas.index.partitions._HELD", 2 * part.nbytes)

    for number in (1, 2, 0, 1, 1):
        loader.load(group["a"].manifest._array, [number])

    assert list(loader._held) == [("/a", 0), ("/a", 1)]
    assert loader._held_bytes == 2 * part.nbytes
    assert loader._pending == {}


def test_without_pyarrow_the_error_says_what_to_install(
    ours: Path, group: VirtualGroup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = byteatlas.open_index(ours)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)

    for act in (
        lambda: opened["a"].manifest.locate(np.array([1])),
        lambda: group.to_parquet(tmp_path / "b.parq"),
    ):
        with pytest.raises(MissingDependency, match=r"pip install 'byteatlas\[parquet\]'"):
            act()
    assert not (tmp_path / "b.parq").exists()


def test_names_of_any_spelling_are_found_over_the_network(
    group: VirtualGroup, tmp_path: Path, source: Path
) -> None:
    names = ["a b", "50%", "100%25", "x#y", "what?", "é", "a::b", "{c}"]
    root = VirtualGroup(
        groups={name: VirtualGroup(arrays={name: group["a"]}) for name in names},
        sources=group.sources,
    )
    root.to_parquet(tmp_path / "many.parq")
    files = {
        f"many.parq/{file.relative_to(tmp_path / 'many.parq')}": file.read_bytes()
        for file in (tmp_path / "many.parq").rglob("*")
        if file.is_file()
    }
    with RangeServer(files) as server:
        for place in (tmp_path / "many.parq", server.url("many.parq")):
            found = byteatlas.open_index(place, allow=["file://"])
            for name in names:
                assert found[f"{name}/{name}"].manifest.locate(np.array([3])).offset.tolist() == [
                    12
                ]
