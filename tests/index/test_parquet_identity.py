"""A Parquet index that is replaced, removed or damaged while it is open, and what is no index."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import byteatlas
from byteatlas.errors import (
    ByteatlasError,
    Inconsistent,
    NotRecognised,
    SourceChanged,
    SourceMissing,
)
from byteatlas.index.reference_columns import ReferenceColumns
from byteatlas.index.source_table import GrowingSources
from byteatlas.limits import Limits
from byteatlas.model import ChunkManifest, Source, VirtualArray, VirtualGroup
from byteatlas.testing.server import Fault, RangeServer

CELLS, SIZE = 50, 20


def build(folder: Path, first: int) -> VirtualGroup:
    """Return a group of 50 chunks whose first lies `first` bytes into its source."""
    source = folder / "source.bin"
    source.write_bytes(np.arange(2 * CELLS, dtype="<i4").tobytes())
    index = np.arange(CELLS, dtype=np.uint64)
    offset = index * 4 + np.uint64(first)
    manifest = ChunkManifest.build((CELLS,), index, offset, np.full(CELLS, 4, np.uint64))
    array = VirtualArray((CELLS,), np.dtype("<i4"), (1,), manifest, dimensions=("x",))
    return VirtualGroup(arrays={"a": array}, sources=(Source(f"file://{source}", size=8 * CELLS),))


def as_theirs(path: Path) -> Path:
    """Take what only byteatlas writes out of an index."""
    document = json.loads((path / ".zmetadata").read_text())
    del document["byteatlas"]
    (path / ".zmetadata").write_text(json.dumps(document))
    return path


def replace_index(path: Path, other: Path) -> None:
    """Put one index in the place of another, as a writer does."""
    path.rename(path.with_suffix(".old"))
    other.rename(path)


@pytest.fixture(params=["ours", "theirs"])
def index(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return an index of three partitions, beside another one of other offsets."""
    for name, first in (("index.parq", 0), ("other.parq", 8)):
        build(tmp_path, first).to_parquet(tmp_path / name, record_size=SIZE)
        if request.param == "theirs":
            as_theirs(tmp_path / name)
    return tmp_path / "index.parq"


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    build(tmp_path, 0).to_parquet(tmp_path / "theirs.parq", record_size=SIZE)
    return as_theirs(tmp_path / "theirs.parq")


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    build(tmp_path, 0).to_parquet(tmp_path / "ours.parq", record_size=SIZE)
    return tmp_path / "ours.parq"


READS: dict[str, Callable[[Path], Callable[[], Any]]] = {}


def reads(function: Callable[[Path], Callable[[], Any]]) -> Callable[[Path], Callable[[], Any]]:
    READS[function.__name__] = function
    return function


@reads
def manifest(path: Path) -> Callable[[], Any]:
    group = byteatlas.open_index(path)
    return lambda: group["a"].manifest.locate(np.array([25]))


@reads
def columns(path: Path) -> Callable[[], Any]:
    group = byteatlas.open_index(path)
    return lambda: group["a"].manifest.offset


@reads
def pickled_manifest(path: Path) -> Callable[[], Any]:
    copied = pickle.loads(pickle.dumps(byteatlas.open_index(path)["a"].manifest))
    return lambda: copied.locate(np.array([25]))


@reads
def dataset(path: Path) -> Callable[[], Any]:
    opened = byteatlas.open_dataset(path)
    return lambda: opened["a"].values


@reads
def store(path: Path) -> Callable[[], Any]:
    opened = zarr.open_group(byteatlas.open_store(path), mode="r")
    return lambda: opened["a"][25]


@pytest.mark.parametrize("way", READS)
def test_an_index_that_was_removed_is_no_fill_values(index: Path, way: str) -> None:
    read = READS[way](index)
    shutil.rmtree(index)

    with pytest.raises(SourceMissing, match="index is gone since it was opened") as caught:
        read()
    assert caught.value.url == str(index)
    assert caught.value.hint == "open it again where it is now"


@pytest.mark.parametrize("way", READS)
def test_an_index_that_was_replaced_is_an_error(index: Path, way: str) -> None:
    read = READS[way](index)
    replace_index(index, index.with_name("other.parq"))

    with pytest.raises(SourceChanged, match="index was replaced since it was opened") as caught:
        read()
    assert caught.value.url == str(index)
    assert caught.value.hint == "open it again"
    assert isinstance(caught.value.recorded, Source)
    assert READS[way](index)() is not None  # opened again


def test_what_was_read_before_stays_readable(theirs: Path) -> None:
    located = byteatlas.open_index(theirs)["a"].manifest.locate
    assert located(np.array([25])).offset.tolist() == [100]
    shutil.rmtree(theirs)

    assert located(np.array([26])).offset.tolist() == [104]
    with pytest.raises(SourceMissing):
        located(np.array([3]))


def served_files(path: Path) -> dict[str, bytes]:
    found = (file for file in path.rglob("*") if file.is_file())
    return {f"{path.name}/{file.relative_to(path)}": file.read_bytes() for file in found}


def test_a_round_of_partitions_of_another_program_costs_one_request_more(theirs: Path) -> None:
    with RangeServer(served_files(theirs)) as server:
        locate = byteatlas.open_index(server.url(theirs.name), allow=["file://"])["a"].manifest
        server.log.clear()
        assert locate.locate(np.arange(CELLS)).offset.size == CELLS
        assert [entry.method for entry in server.log] == ["GET", "GET", "GET", "HEAD"]
        assert server.log[-1].path == "/theirs.parq/.zmetadata"
        locate.locate(np.arange(CELLS))
        assert len(server.log) == 4


def test_an_index_on_a_server_that_changes_is_an_error(index: Path) -> None:
    other = {
        name.replace("other", "index"): data
        for name, data in served_files(index.with_name("other.parq")).items()
    }
    with RangeServer(served_files(index)) as server:
        groups = [
            byteatlas.open_index(server.url("index.parq"), allow=["file://"]) for _ in range(2)
        ]
        server.content.clear()
        with pytest.raises(SourceMissing, match="index is gone"):
            groups[0]["a"].manifest.locate(np.array([25]))
        other["index.parq/.zmetadata"] += b" "
        server.content.update(other)
        with pytest.raises(SourceChanged, match="index was replaced"):
            groups[1]["a"].manifest.locate(np.array([25]))


def test_an_index_that_cannot_be_looked_at_is_an_error(theirs: Path) -> None:
    with RangeServer(served_files(theirs)) as server:
        group = byteatlas.open_index(server.url(theirs.name), allow=["file://"])
        server.faults.append(Fault(status=403, path="theirs.parq/.zmetadata"))
        with pytest.raises(ByteatlasError, match="403"):
            group["a"].manifest.locate(np.array([25]))


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda data: data[:-40],
    "longer": lambda data: data + b"x",
    "one bit": lambda data: data[:60] + bytes([data[60] ^ 1]) + data[61:],
}


@pytest.mark.parametrize("is_served", [False, True])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_partition_of_ours_is_told_from_a_changed_source(
    ours: Path, damage: str, is_served: bool
) -> None:
    file = ours / "a/refs.1.parq"
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    with RangeServer(served_files(ours)) as server:
        place = server.url("ours.parq") if is_served else str(ours)
        group = byteatlas.open_index(place, allow=["file://"])
        with pytest.raises(Inconsistent, match="other bytes than were written") as caught:
            group["a"].manifest.locate(np.array([25]))
        assert caught.value.url == f"{place}/a/refs.1.parq"
        assert caught.value.path == "/a"
        assert "write the index again" in str(caught.value)
        assert "source changed" not in str(caught.value)
        assert "scan it again" not in str(caught.value)


def test_a_partition_of_ours_that_alone_is_gone_is_named(ours: Path) -> None:
    (ours / "a/refs.1.parq").unlink()
    group = byteatlas.open_index(ours)
    with pytest.raises(SourceMissing, match="index lists this partition") as caught:
        group["a"].manifest.locate(np.array([25]))
    assert caught.value.url == str(ours / "a/refs.1.parq")
    assert "write the index again" in str(caught.value)


FORK = """
import os, signal, sys, threading, time
import numpy as np
import byteatlas
from byteatlas.index.partitions import Partitions

manifest = byteatlas.open_index(sys.argv[1])["a"].manifest
parent, entered, leave = os.getpid(), threading.Event(), threading.Event()
fetch = Partitions._fetch

def slow(self, *args):
    if os.getpid() == parent:
        entered.set()
        leave.wait(60)
    return fetch(self, *args)

Partitions._fetch = slow
thread = threading.Thread(target=lambda: getattr(manifest, sys.argv[2]))
if sys.argv[2] == "locate":
    thread = threading.Thread(target=manifest.locate, args=(np.array([1]),))
thread.start()
entered.wait(60)
child = os.fork()
if child == 0:
    signal.alarm(10)  # ends a child that hangs
    found = manifest.locate(np.array([2])).offset.tolist()
    os._exit(0 if found == [8] and manifest.offset.size == 50 else 3)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
leave.set()
thread.join()
sys.exit(0 if status == 0 else f"the child ended with {status}")
"""


@pytest.mark.parametrize("loading", ["locate", "offset"])
def test_a_child_does_not_wait_for_what_its_parent_loads(index: Path, loading: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK, str(index), loading],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_child_adds_sources_in_the_midst_of_its_parents_adding() -> None:
    sources = GrowingSources("file:///index.parq", (), Limits())
    sources._lock.acquire()  # a thread that the child does not have
    sources._position["file:///a.nc"] = 0  # and had not come further
    one = np.zeros(1, np.intp), np.zeros(1, np.uint64), np.ones(1, np.uint64)

    sources.renew()
    assert not sources._lock.locked()

    assert sources.positions(ReferenceColumns(["file:///b.nc"], *one)).tolist() == [0]
    assert sources.positions(ReferenceColumns(["file:///a.nc"], *one)).tolist() == [1]
    assert [source.url for source in sources] == ["file:///b.nc", "file:///a.nc"]


@pytest.mark.parametrize("open_it", [byteatlas.open_index, byteatlas.open_dataset])
def test_a_folder_of_files_is_no_index(tmp_path: Path, open_it: Any) -> None:
    (tmp_path / "a.nc").write_bytes(b"CDF\x01")
    with pytest.raises(NotRecognised, match=r"not an index: it has no \.zmetadata") as caught:
        open_it(tmp_path)
    assert caught.value.url == str(tmp_path)
    assert caught.value.hint == "scan the files in it"


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("is_consolidated", [False, True])
@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_a_zarr_store_is_called_one(
    tmp_path: Path, zarr_format: Any, is_consolidated: bool
) -> None:
    root = zarr.open_group(tmp_path / "x.zarr", mode="w", zarr_format=zarr_format)
    root.create_array("a", shape=(3,), dtype="i4")
    if is_consolidated:
        zarr.consolidate_metadata(tmp_path / "x.zarr", zarr_format=zarr_format)
    with pytest.raises(NotRecognised, match="Zarr store, not an index of references") as caught:
        byteatlas.open_index(tmp_path / "x.zarr")
    assert "xarray.open_zarr" in str(caught.value)


def test_a_page_of_a_server_is_no_index_and_nothing_is_missing() -> None:
    files = {"x.parquet/": b"<html>a list</html>", "y.parq": b"PAR1 a file of another kind"}
    with RangeServer(files) as server:
        for name in ("x.parquet/", "y.parq"):
            with pytest.raises(NotRecognised, match=r"not an index: it has no \.zmetadata"):
                byteatlas.open_index(server.url(name))
        with pytest.raises(SourceMissing, match="nothing is there"):
            byteatlas.open_index(server.url("z.parq"))


@pytest.mark.parametrize("name", ["x.parquet", "X.PARQUET", "x.Parq", "x.pq", "x", "x.json"])
def test_an_index_is_recognised_by_what_it_is(ours: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(ours, tmp_path / name)
    assert "a" in byteatlas.open_index(tmp_path / name).arrays
    with RangeServer(served_files(tmp_path / name)) as server:
        group = byteatlas.open_index(server.url(name), allow=["file://"])
        assert group["a"].manifest.locate(np.array([3])).offset.tolist() == [12]
        is_named = name.lower().endswith(("parq", "parquet", "pq"))
        assert (server.log[0].path == f"/{name}/.zmetadata") is is_named
