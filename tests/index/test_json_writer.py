"""The text of an index is strict, without secrets, and the same on every machine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from byteatlas.errors import Inconsistent, Malformed, Unsupported
from byteatlas.index import expressible, read_json, to_json_bytes
from byteatlas.model import (
    WHOLE,
    ChunkManifest,
    Codec,
    Dimension,
    Encoding,
    ScanReport,
    Skipped,
    Source,
    VirtualArray,
    VirtualGroup,
)

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "index-format.md"


def array(count: int = 1, offset: int = 0, length: int = 4, **kwargs: Any) -> VirtualArray:
    rows = np.arange(count, dtype=np.uint64)
    columns = {name: kwargs.pop(name) for name in ("source", "inline") if name in kwargs}
    manifest = ChunkManifest.build(
        (count,),
        rows,
        np.full(count, offset, np.uint64),
        np.full(count, length, np.uint64),
        **columns,
    )
    return VirtualArray((count,), np.dtype("<i4"), (1,), manifest, dimensions=("x",), **kwargs)


def example() -> VirtualGroup:
    """Return the group whose index the documentation shows."""
    temp = VirtualArray(
        shape=(3, 20),
        dtype=np.dtype("<i2"),
        chunk_shape=(1, 10),
        manifest=ChunkManifest.build(
            (3, 2),
            np.array([0, 1, 2, 4], np.uint64),
            np.array([4096, 4180, 4301, 9000], np.uint64),
            np.array([84, 121, 90, 77], np.uint64),
            inline={3: b"x\x9c"},
        ),
        encodings=(Encoding((Codec("shuffle", {"elementsize": 2}), Codec("zlib", {"level": 4}))),),
        fill_value=np.int16(-1),
        dimensions=("time", "x"),
        attrs={"_FillValue": np.int16(-1), "units": "K", "scale_factor": np.float32(0.5)},
    )
    return VirtualGroup(
        attrs={"title": "An example"},
        dimensions={"time": Dimension(3, is_unlimited=True), "x": Dimension(20)},
        arrays={"temp": temp},
        sources=(
            Source("https://example.org/a.nc", 10000, '"5f-61"', "Sun, 01 Mar 2026 00:00:00 GMT"),
        ),
        report=ScanReport("hdf5", "0.1.0", (Skipped("/table", "it has a reference type"),)),
    )


def test_the_documentation_shows_an_index_as_it_is_written() -> None:
    blocks = re.findall(r"```json\n(.*?)```", DOCUMENTATION.read_text(), re.DOTALL)

    assert to_json_bytes(example()).decode() in blocks


def test_the_bytes_are_the_same_in_another_process() -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "from test_json_writer import example; from byteatlas.index import to_json_bytes;"
        "sys.stdout.buffer.write(to_json_bytes(example()))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", script, str(Path(__file__).parent)],
            capture_output=True,
            check=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }

    assert outputs == {to_json_bytes(example())}


def test_an_empty_group_is_an_index_too() -> None:
    text = to_json_bytes(VirtualGroup())

    assert json.loads(text)["refs"][".zgroup"] == '{"zarr_format":2}'
    assert to_json_bytes(read_json(text)) == text


def test_names_that_json_must_escape_come_back() -> None:
    names = ['quo"te', "back\\slash", "tab\t", "new\nline", "é", "\u2028", "\U0001f600", "-x", "]"]
    group = VirtualGroup(
        arrays={name: array(12) for name in names}, sources=(Source('u://"\\/\n\U0001f600'),)
    )

    text = to_json_bytes(group)
    refs = json.loads(text)["refs"]

    assert list(refs) == sorted(refs)
    assert {key.rpartition("/")[0] for key in refs} == {"", *names}
    assert list(read_json(text).arrays) == names
    assert read_json(text).sources == group.sources


def test_a_signed_query_is_not_written_unless_asked() -> None:
    url = "https://user:password@h/a.nc?X-Signature=secret"
    group = VirtualGroup(arrays={"t": array()}, sources=(Source(url),))

    assert b"secret" not in to_json_bytes(group)
    assert read_json(to_json_bytes(group)).sources == (Source("https://h/a.nc"),)
    kept = to_json_bytes(group, keep_query=True)
    assert read_json(kept).sources == (Source("https://h/a.nc?X-Signature=secret"),)
    assert json.loads(kept)["byteatlas"]["sources"][0]["query"] == "kept"
    assert b"password" not in kept


def test_sources_that_differ_in_their_query_only_are_refused_without_it() -> None:
    sources = (Source("https://h/get?id=1"), Source("https://h/get?id=2"))
    group = VirtualGroup(
        arrays={"t": array(2, source=np.array([0, 1], np.uint32))}, sources=sources
    )

    with pytest.raises(Inconsistent, match="keep_query"):
        to_json_bytes(group)
    assert read_json(to_json_bytes(group, keep_query=True)).sources == sources


def test_the_rest_of_a_source_gets_its_length() -> None:
    group = VirtualGroup(arrays={"t": array(2, 10, WHOLE)}, sources=(Source("u://x", size=100),))
    refs = json.loads(to_json_bytes(group))["refs"]

    assert refs["t/0"] == ["u://x", 10, 90]
    with pytest.raises(Unsupported, match="unknown size") as caught:
        to_json_bytes(replace(group, sources=(Source("u://x"),)))
    assert caught.value.path == "/t"
    whole = VirtualGroup(arrays={"t": array(2, 0, WHOLE)}, sources=(Source("u://x"),))
    assert json.loads(to_json_bytes(whole))["refs"]["t/1"] == ["u://x"]


@pytest.mark.parametrize(
    "group",
    [
        VirtualGroup(attrs={"a": "\ud800"}),
        VirtualGroup(arrays={"\ud800": array()}, sources=(Source("u://x"),)),
        VirtualGroup(arrays={"t": array()}, sources=(Source("u://\ud800"),)),
        VirtualGroup(report=ScanReport(skipped=(Skipped("/\ud800", ""),))),
    ],
    ids=["attribute", "name", "url", "skipped"],
)
def test_text_that_is_no_unicode_is_refused(group: VirtualGroup) -> None:
    with pytest.raises(Malformed, match="not Unicode"):
        to_json_bytes(group)


def test_many_missing_chunks_are_not_inlined(monkeypatch: pytest.MonkeyPatch) -> None:
    def written(count: int) -> dict[str, Any]:
        sparse = VirtualArray(
            (count,),
            np.dtype("<i4"),
            (1,),
            ChunkManifest.empty((count,)),
            dimensions=("x",),
            attrs={"_FillValue": np.int32(-9)},
        )
        group = VirtualGroup(arrays={"t": sparse})
        text = to_json_bytes(group)
        assert read_json(text).arrays["t"].manifest.missing_count == count
        refs: dict[str, Any] = json.loads(text)["refs"]
        return refs

    assert len(written(1000)) == 1005
    assert len(written(1001)) == 5
    assert "byteatlas.encodings" in written(1001)["t/.zarray"]
    monkeypatch.setattr(expressible, "MAX_FILLED_BYTES", 40)
    assert len(written(10)) == 15
    assert len(written(11)) == 5


def test_an_array_of_variable_length_text_fills_its_missing_chunks_too() -> None:
    text = VirtualArray(
        (4,),
        np.dtype(object),
        (2,),
        ChunkManifest.empty((2,)),
        encodings=(Encoding((Codec("vlen-utf8"),)),),
        fill_value="none",
        dimensions=("x",),
        attrs={"_FillValue": "other"},
    )
    written = to_json_bytes(VirtualGroup(arrays={"t": text}))

    assert json.loads(written)["refs"]["t/0"].startswith("base64:")
    assert read_json(written).arrays["t"].fill_value == "none"


def test_chunks_of_a_huge_sparse_grid_take_no_more_room_than_they_are() -> None:
    grid = (2**20, 2**20, 2**20)
    index = np.array([0, 12345, 2**59 + 7, 2**60 - 1], np.uint64)
    manifest = ChunkManifest.build(grid, index, index, np.ones(4, np.uint64))
    sparse = VirtualArray(grid, np.dtype("u1"), (1, 1, 1), manifest, dimensions=tuple("xyz"))
    group = VirtualGroup(arrays={"t": sparse}, sources=(Source("u://x"),))

    text = to_json_bytes(group)

    assert json.loads(text)["refs"]["t/1048575.1048575.1048575"] == ["u://x", 2**60 - 1, 1]
    np.testing.assert_array_equal(read_json(text).arrays["t"].manifest.index, index)


def test_notes_that_are_no_json_are_refused() -> None:
    group = VirtualGroup(arrays={"t": array(notes={"a": object()})}, sources=(Source("u://x"),))

    with pytest.raises(Malformed, match="not a JSON value"):
        to_json_bytes(group)
