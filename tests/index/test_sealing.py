"""A sealed index knows a digest of every chunk, and whoever reads through it compares them."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import h5py
import numpy as np
import pytest
import zarr
from click.testing import CliRunner

import byteatlas
from byteatlas import sealing
from byteatlas.cli import main
from byteatlas.errors import (
    LimitExceeded,
    Malformed,
    ShortRead,
    SourceChanged,
    Unsupported,
)
from byteatlas.index import read_json, to_json_bytes
from byteatlas.limits import Limits
from byteatlas.model import VirtualArray, VirtualGroup
from byteatlas.read import LOCAL, Reader, plan_read
from byteatlas.sources import Trace
from byteatlas.store.zarr_store import IndexStore
from byteatlas.testing.server import Fault, RangeServer

VALUES = np.arange(40 * 60, dtype="<i4").reshape(40, 60)
LAYOUTS: dict[str, dict[str, Any]] = {
    "contiguous": {},
    "raw": {"chunks": (10, 20)},
    "zlib": {"chunks": (10, 20), "compression": "gzip"},
    "shuffled": {"chunks": (10, 20), "compression": "gzip", "shuffle": True},
    "checked": {"chunks": (10, 20), "fletcher32": True},
}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "archive.h5"
    with h5py.File(path, "w") as file:
        for name, layout in LAYOUTS.items():
            file.create_dataset(name, data=VALUES, **layout)
        sparse = file.create_dataset("sparse", (100, 10), "<f8", chunks=(10, 10), fillvalue=7)
        sparse[15] = 1
    return path


@pytest.fixture
def server(archive: Path) -> Iterator[RangeServer]:
    with RangeServer(archive.parent) as running:
        yield running


def sealed_index(group: VirtualGroup, zarr_format: Any = 2) -> VirtualGroup:
    """Seal a group, write it, and read it back."""
    text = to_json_bytes(byteatlas.seal(group), zarr_format=zarr_format)
    again = read_json(text)
    assert to_json_bytes(again, zarr_format=zarr_format) == text
    return again


def digest(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_every_virtual_chunk_has_the_digest_of_its_stored_bytes(
    archive: Path, zarr_format: Any
) -> None:
    data = archive.read_bytes()

    group = sealed_index(byteatlas.scan(archive), zarr_format)

    for _, array in group.walk_arrays():
        manifest = array.manifest
        assert manifest.digest is not None
        assert manifest.digest.tolist() == [
            digest(data[offset : offset + length])
            for offset, length in zip(
                manifest.offset.tolist(), manifest.length.tolist(), strict=True
            )
        ]


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_sealed_index_of_any_kind_of_array_reads_the_same(
    zoo: tuple[VirtualGroup, dict[str, np.ndarray]], zarr_format: Any
) -> None:
    group, expected = zoo

    found = sealed_index(group, zarr_format)

    reader = Reader(found.sources)
    for name, values in expected.items():
        read = reader.read(found.arrays[name])
        assert read.tolist() == values.tolist() or read.tobytes() == values.tobytes(), name


def test_parts_of_sealed_chunks_are_right_whatever_is_selected(archive: Path) -> None:
    group = sealed_index(byteatlas.scan(archive))
    reader = Reader(group.sources)

    for name in LAYOUTS:
        for selection in (
            (3, 4), (slice(5, 6), slice(7, 50)), (slice(None, None, 7), slice(50, 3, -3)),
            (np.array([39, 0, 20]), slice(None)), (slice(0, 0), slice(None)),
        ):  # fmt: skip
            found = reader.read(group.arrays[name], selection)
            np.testing.assert_array_equal(found, VALUES[selection])


def test_a_part_of_a_sealed_uncompressed_chunk_is_fetched_with_all_of_it(
    server: RangeServer,
) -> None:
    group = byteatlas.scan(server.url("archive.h5"))
    sealed = sealed_index(group)

    sent = {}
    for kind, one in (("plain", group), ("sealed", sealed)):
        server.clear()
        assert Reader(one.sources).read(one.arrays["raw"], (11, 21)) == VALUES[11, 21]
        sent[kind] = server.bytes_sent

    assert sent == {"plain": 4, "sealed": 800}


def test_a_large_sealed_chunk_is_checked_once_a_read(tmp_path: Path) -> None:
    values = np.arange(40 * 20_000, dtype="<i4").reshape(40, 20_000)
    with h5py.File(tmp_path / "large.h5", "w") as file:
        file.create_dataset("x", data=values, chunks=values.shape)
    group = byteatlas.seal(byteatlas.scan(tmp_path / "large.h5"))
    array, selection = group.arrays["x"], (slice(3, 30), slice(5, 7))

    plan = plan_read(array, selection, LOCAL)

    assert plan.length.tolist() == [values.nbytes]
    np.testing.assert_array_equal(Reader(group.sources).read(array, selection), values[selection])


# What the digests find

Read = Callable[[VirtualGroup, str], Any]


def read_values(group: VirtualGroup, name: str) -> Any:
    return Reader(group.sources).read(group.arrays[name], path=f"/{name}")


def read_corner(group: VirtualGroup, name: str) -> Any:
    return Reader(group.sources).read(group.arrays[name], (0, 0), path=f"/{name}")


def read_by_zarr(group: VirtualGroup, name: str) -> Any:
    return zarr.open_group(IndexStore(group), mode="r")[name][:]


def read_by_filesystem(group: VirtualGroup, name: str) -> Any:
    files = fsspec.filesystem("byteatlas", fo=group)
    part = files.cat_file(f"{name}/0.0", 0, 2)
    assert len(part) == 2
    return part


READS = {
    "values": read_values,
    "corner": read_corner,
    "zarr": read_by_zarr,
    "filesystem": read_by_filesystem,
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize(
    "fault", [{"flip": 99}, {"shift": 8}, {"body": None}], ids=["bit flip", "shifted", "zeros"]
)
def test_other_bytes_under_right_headers_are_found_by_every_way_to_read(
    server: RangeServer, fault: dict[str, Any], name: str, read: Read
) -> None:
    group = sealed_index(byteatlas.scan(server.url("archive.h5"), include=(f"/{name}",)))
    array = group.arrays[name]
    read(group, name)  # without a fault it is right

    if "body" in fault:
        first, length = int(array.manifest.offset[0]), int(array.manifest.length[0])
        path = Path(str(server.content)) / "archive.h5"
        overwrite(path, first, bytes(length))
    else:
        server.faults.append(Fault(**fault))
    with pytest.raises(SourceChanged, match="was sealed with") as caught:
        read(group, name)

    assert caught.value.url == server.url("archive.h5")
    assert caught.value.path == f"/{name}"
    assert caught.value.offset in array.manifest.offset.tolist()
    assert caught.value.length in array.manifest.length.tolist()


def overwrite(path: Path, offset: int, data: bytes) -> None:
    """Change bytes of a file as no identity shows: size and time stay."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_without_a_seal_a_bit_flip_in_an_uncompressed_chunk_is_not_found(
    server: RangeServer,
) -> None:
    group = byteatlas.scan(server.url("archive.h5"))
    server.faults.append(Fault(flip=99))

    assert (read_values(group, "raw") != VALUES).any()


def test_every_flipped_bit_of_a_local_source_is_found(archive: Path) -> None:
    group = sealed_index(byteatlas.scan(archive))
    data = archive.read_bytes()
    found = 0
    for name, array in group.arrays.items():
        manifest = array.manifest
        for row in range(0, manifest.virtual_count, 3):
            offset, length = int(manifest.offset[row]), int(manifest.length[row])
            for place in (0, length // 3, length - 1):
                overwrite(archive, offset + place, bytes([data[offset + place] ^ 1]))
                with pytest.raises(SourceChanged) as caught:
                    read_values(replace(group, sources=forgotten(group)), name)
                assert (caught.value.offset, caught.value.length) == (offset, length)
                overwrite(archive, offset + place, data[offset + place : offset + place + 1])
                found += 1
    assert found == 54


def forgotten(group: VirtualGroup) -> Any:
    """Return the sources as an index would have them that says nothing but their size."""
    return tuple(replace(one, etag=None, last_modified=None) for one in group.sources)


# Sealing itself


def test_sealing_reads_each_byte_once_in_few_requests(server: RangeServer) -> None:
    group = byteatlas.scan(server.url("archive.h5"))
    server.clear()
    trace = Trace()

    byteatlas.seal(group, trace=trace)

    stored = sum(int(array.manifest.length.sum()) for _, array in group.walk_arrays())
    assert len(server.log) == trace.requests <= 3
    assert stored <= server.bytes_sent == trace.bytes_read <= 1.5 * stored


def test_a_large_chunk_is_sealed_piece_by_piece(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = byteatlas.scan(archive)
    expected = byteatlas.seal(group)
    monkeypatch.setattr(sealing, "_LARGE", 300)
    trace = Trace()

    found = byteatlas.seal(group, trace=trace)

    for path, array in expected.walk_arrays():
        other = found[path]
        assert isinstance(other, VirtualArray)
        np.testing.assert_array_equal(array.manifest.digest, other.manifest.digest)
    assert trace.requests > 100


def test_a_chunk_beyond_the_limit_is_not_sealed(archive: Path) -> None:
    group = byteatlas.scan(archive)

    byteatlas.seal(group, limits=Limits(chunk=9600))
    with pytest.raises(LimitExceeded, match="the limit is 9599"):
        byteatlas.seal(group, limits=Limits(chunk=9599))


def test_a_source_that_changed_or_is_gone_is_not_sealed(archive: Path) -> None:
    group = byteatlas.scan(archive)
    with archive.open("ab") as file:
        file.write(b"more")

    with pytest.raises(SourceChanged):
        byteatlas.seal(group)
    archive.unlink()
    with pytest.raises(byteatlas.SourceMissing):
        byteatlas.seal(group)


def test_whole_sources_and_several_of_them_are_sealed(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_bytes(name.encode() * 8)
    zarray = {
        "chunks": [1], "compressor": None, "dtype": "|S8", "fill_value": None, "filters": None,
        "order": "C", "shape": [3], "zarr_format": 2,
    }  # fmt: skip
    chunks = {"t/0": [f"{tmp_path}/a"], "t/1": [f"{tmp_path}/b"], "t/2": [f"{tmp_path}/a", 0, 8]}
    group = read_json({"version": 1, "refs": {"t/.zarray": json.dumps(zarray), **chunks}})

    sealed = sealed_index(group)

    manifest = sealed.arrays["t"].manifest
    assert manifest.digest is not None
    assert manifest.digest.tolist() == [digest(b"a" * 8), digest(b"b" * 8), digest(b"a" * 8)]
    assert read_values(sealed, "t").tolist() == [b"a" * 8, b"b" * 8, b"a" * 8]
    assert read_by_zarr(sealed, "t").tolist() == [b"a" * 8, b"b" * 8, b"a" * 8]
    (tmp_path / "b").write_bytes(b"bbbbbbbc")
    for read in (read_values, read_by_zarr):
        with pytest.raises(SourceChanged) as caught:
            read(sealed, "t")
        assert caught.value.url == f"{tmp_path}/b"
    (tmp_path / "b").write_bytes(b"")
    with pytest.raises((SourceChanged, ShortRead)):
        read_values(sealed, "t")


def test_a_scan_and_the_command_line_can_seal(archive: Path, tmp_path: Path) -> None:
    expected = to_json_bytes(byteatlas.seal(byteatlas.scan(archive)))
    assert to_json_bytes(byteatlas.scan(archive, seal=True)) == expected

    index = tmp_path / "index.json"
    done = CliRunner().invoke(main, ["scan", str(archive), "-o", str(index), "--seal"])

    assert done.exit_code == 0, done.output
    assert index.read_bytes() == expected


def test_an_array_without_virtual_chunks_is_sealed_as_it_is() -> None:
    group = byteatlas.seal(VirtualGroup())

    assert to_json_bytes(read_json(to_json_bytes(group))) == to_json_bytes(VirtualGroup())
    assert group.arrays == {}


# The column in the index


def edited(archive: Path, edit: Callable[[dict[str, Any]], None]) -> bytes:
    document = json.loads(to_json_bytes(byteatlas.scan(archive, seal=True)))
    edit(document["byteatlas"])
    return json.dumps(document).encode()


def shorten(facts: dict[str, Any]) -> None:
    column = base64.b64decode(facts["arrays"]["/raw"]["digest"])
    facts["arrays"]["/raw"]["digest"] = base64.b64encode(column[:-8]).decode()


@pytest.mark.parametrize(
    ("edit", "error", "message"),
    [
        (lambda facts: facts.pop("digest"), Malformed, "does not say which digest"),
        (lambda facts: facts.update(digest="md5"), Unsupported, "'md5'"),
        (lambda facts: facts.update(digest=5), Unsupported, "sealed with 5"),
        (shorten, Malformed, "does not fit"),
        (lambda f: f["arrays"]["/raw"].update(digest="AAAA"), Malformed, "8 bytes per chunk"),
        (lambda f: f["arrays"]["/raw"].update(digest="?"), Malformed, "not base64"),
        (lambda f: f["arrays"]["/raw"].update(digest=[1]), Malformed, "not base64"),
    ],
)
def test_a_column_of_digests_that_is_wrong_is_refused(
    archive: Path, edit: Any, error: type[Exception], message: str
) -> None:
    text = edited(archive, edit)
    with pytest.raises(error, match=message):
        read_json(text)


def test_a_digest_that_was_edited_refuses_its_chunk_and_no_other(archive: Path) -> None:
    def edit(facts: dict[str, Any]) -> None:
        column = bytearray(base64.b64decode(facts["arrays"]["/raw"]["digest"]))
        column[8] ^= 1
        facts["arrays"]["/raw"]["digest"] = base64.b64encode(column).decode()

    group = read_json(edited(archive, edit))
    reader = Reader(group.sources)

    np.testing.assert_array_equal(reader.read(group.arrays["raw"], (0, 0)), VALUES[0, 0])
    with pytest.raises(SourceChanged):
        reader.read(group.arrays["raw"], (0, 20))
