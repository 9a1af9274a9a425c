"""References that are taken out of a text before it is parsed are those that a parser finds."""

from __future__ import annotations

import gc
import json
import random
import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import ujson
from tests.index.test_round_trip import assert_same_group

from byteatlas.errors import ByteatlasError
from byteatlas.index import json_reader, to_json_bytes
from byteatlas.index.json_document import parse_document
from byteatlas.index.json_entries import take_references
from byteatlas.index.json_references import read_document
from byteatlas.limits import Limits
from byteatlas.model import VirtualGroup


def zarray(shape: list[int], **more: Any) -> str:
    fixed = {"compressor": None, "dtype": "<i2", "fill_value": 0, "filters": None, "order": "C"}
    chunks = [2] * len(shape)
    return json.dumps(fixed | {"chunks": chunks, "shape": shape, "zarr_format": 2} | more)


def index(*, skip: int = 10**9) -> dict[str, Any]:
    """Return an index of several arrays, every `skip`-th chunk missing."""
    refs: dict[str, Any] = {
        ".zgroup": '{"zarr_format":2}',
        "a/.zarray": zarray([20, 24]),
        "a/.zattrs": '{"note":"quotes \\" and \\\\ and \\u00e9 [1,2],"}',
        "deep/er/b/.zarray": zarray([300]),
        "deep/er/b/.zattrs": '{"_ARRAY_DIMENSIONS":["x"]}',
        "s/.zarray": zarray([]),
        "slashed/.zarray": zarray([8, 6], dimension_separator="/"),
    }
    for i in range(120):
        if i % skip != skip - 1:
            refs[f"a/{i // 12}.{i % 12}"] = [f"https://example.org/{i // 50}.nc", i * 100, 90 + i]
    for i in range(150):
        refs[f"deep/er/b/{i}"] = [f"s3://bucket/{i % 3}", i, 10**17 + i]
    refs["s/0"] = ["s3://bucket/0", 5, 2]
    for i in range(12):
        refs[f"slashed/{i // 3}/{i % 3}"] = ["s3://bucket/long name.nc", i * 7, 8]
    refs["a/9.11"] = "base64:AAAA"
    refs["a/9.10"] = ["https://example.org/whole.nc"]
    return refs


SPELLINGS = {
    "as json": json.dumps,
    "compact": lambda document: json.dumps(document, separators=(",", ":")),
    "as ujson": ujson.dumps,
    "a line each": lambda document: json.dumps(document, separators=(",", ":")).replace(
        '],"', '],\n"'
    ),
}


def by_parser(text: bytes) -> VirtualGroup:
    return read_document(parse_document(text, Limits()), None, Limits())


def by_url(group: VirtualGroup) -> VirtualGroup:
    """Return a group whose table of sources is sorted: its order is that of discovery."""
    order = sorted(range(len(group.sources)), key=lambda place: group.sources[place].url)
    rank = np.argsort(order).astype(np.uint32)

    def sorted_by_url(part: VirtualGroup) -> VirtualGroup:
        arrays = {}
        for name, array in part.arrays.items():
            manifest = array.manifest
            used = np.zeros(manifest.offset.size, np.uint32)
            source = rank[used if manifest.source is None else manifest.source]
            arrays[name] = replace(array, manifest=replace(manifest, source=source))
        groups = {name: sorted_by_url(child) for name, child in part.groups.items()}
        return replace(part, arrays=arrays, groups=groups)

    return replace(sorted_by_url(group), sources=tuple(group.sources[place] for place in order))


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("skip", [10**9, 5])
@pytest.mark.parametrize("version", [0, 1])
def test_an_index_of_any_spelling_is_read_alike(spelling: str, skip: int, version: int) -> None:
    refs = index(skip=skip)
    document = {"version": 1, "refs": refs} if version else refs
    text = SPELLINGS[spelling](document).encode()

    found = json_reader._read_taken(text, None, Limits())

    assert found is not None
    assert_same_group(by_url(found), by_url(by_parser(text)))
    taken = take_references(text)
    assert taken is not None
    assert len(taken.entries) > 200


def test_version_3_is_read_alike() -> None:
    node = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [40, 60],
        "data_type": "int16",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2, 3]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
        "attributes": {},
    }
    group = {"zarr_format": 3, "node_type": "group", "attributes": {}}
    refs: dict[str, Any] = {"zarr.json": json.dumps(group), "x/zarr.json": json.dumps(node)}
    for i in range(400):
        refs[f"x/c/{i // 20}/{i % 20}"] = ["s3://bucket/a", i, 12]
    text = json.dumps({"version": 1, "refs": refs}).encode()

    found = json_reader._read_taken(text, None, Limits())

    assert found is not None
    assert_same_group(by_url(found), by_url(by_parser(text)))
    assert found["x"].manifest.virtual_count == 400


TEXTS = [
    SPELLINGS[spelling]({"version": 1, "refs": index(skip=7)}).encode()
    for spelling in ("as json", "as ujson")
]
PIECES = [
    b'"', b"\\", b"]", b"[", b",", b" ", b"0", b"-", b".", b"/", b"{", b"}", b":", b"\n", b"\x00",
    b"\xc3\xa9", b"\xff", b"1e3", b'"a/0.0":["u",1,2],', b'"x":0,', b"00", b"99999999999999999999",
    b"\\u0041", b"null", b'"t":{"k":["u",1,2],"l":3},',
]  # fmt: skip


@pytest.mark.parametrize("seed", range(16))
def test_of_a_changed_text_nothing_is_read_that_the_parser_does_not_read(seed: int) -> None:
    chance = random.Random(seed)
    read = 0
    for _ in range(20):
        text = chance.choice(TEXTS)
        for _ in range(chance.choice([1, 1, 2])):
            place = chance.randrange(len(text))
            kind = chance.randrange(3)
            if kind == 0:
                text = text[:place] + chance.choice(PIECES) + text[place:]
            elif kind == 1:
                text = text[:place] + text[place + chance.choice([1, 1, 20]) :]
            else:
                other = chance.randrange(len(text))
                text = text[:place] + text[other : other + 40] + text[place:]
        found = json_reader._read_taken(text, None, Limits())
        try:
            expected = by_parser(text)
        except ByteatlasError:
            assert found is None, text
            continue
        if found is not None:
            assert_same_group(by_url(found), by_url(expected))
            read += 1
    assert seed % 16 or read  # some changes do no harm, and are read


def test_large_texts_are_read_so(monkeypatch: pytest.MonkeyPatch) -> None:
    refs = {".zgroup": '{"zarr_format":2}', "b/.zarray": zarray([60_000])}
    refs |= {f"b/{i}": ["https://example.org/a.nc", i, 100] for i in range(30_000)}  # type: ignore[misc]
    text = json.dumps({"version": 1, "refs": refs}).encode()
    assert len(text) > 2**20
    seen = []
    read = json_reader.read_document
    monkeypatch.setattr(
        json_reader, "read_document", lambda *args: seen.append(args[3]) or read(*args)
    )

    group = json_reader.read_json(text)

    assert [len(entries) for entries in seen] == [29_999]  # the last has no comma
    np.testing.assert_array_equal(group["b"].manifest.offset, np.arange(30_000))
    assert group["b"].manifest.index is None


@pytest.mark.parametrize("spelling", ["as json", "as ujson", "ours"])
def test_a_reference_holds_at_most_thirty_bytes(spelling: str) -> None:
    count = 50_000
    refs = {".zgroup": '{"zarr_format":2}', "b/.zarray": zarray([4 * count])}
    url = "https://example.org/{}.nc"
    refs |= {f"b/{2 * i}": [url.format(i // 500), i, 100] for i in range(count)}  # type: ignore[misc]
    document = {"version": 1, "refs": refs}
    if spelling == "ours":
        text = to_json_bytes(json_reader.read_json(document))
    else:
        text = SPELLINGS[spelling](document).encode()
    del refs, document
    json_reader.read_json(text)  # imports and the like
    gc.collect()
    tracemalloc.start()

    group = json_reader.read_json(text)

    gc.collect()
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert group["b"].manifest.virtual_count == count
    assert group["b"].manifest.index is not None
    assert held < 30 * count + 100_000
    assert peak < 500 * count
    sources = {id(source.url) for source in group.sources}
    assert len(sources) == len(group.sources) == count // 500
