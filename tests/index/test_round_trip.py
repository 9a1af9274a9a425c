"""A group that is written and read again is the same group, types and order included."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from byteatlas.errors import Inconsistent
from byteatlas.index import json_reader, read_json, to_json_bytes
from byteatlas.limits import Limits
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


def same(found: Any, expected: Any) -> bool:
    """Compare two values with their types, NaN being equal to itself."""
    if isinstance(expected, np.ndarray | np.generic):
        return (
            type(found) is type(expected)
            and found.dtype == expected.dtype
            and found.shape == expected.shape
            and found.tobytes() == expected.tobytes()
        )
    return type(found) is type(expected) and found == expected


def assert_same_mapping(found: Any, expected: Any) -> None:
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert same(found[name], value), (name, found[name], value)


def assert_same_group(found: VirtualGroup, expected: VirtualGroup) -> None:
    assert {f.name for f in fields(VirtualGroup)} == {
        "attrs", "dimensions", "arrays", "groups", "sources", "report",
    }  # fmt: skip
    assert_same_mapping(found.attrs, expected.attrs)
    assert list(found.dimensions.items()) == list(expected.dimensions.items())
    assert found.sources == expected.sources
    assert found.report == expected.report
    assert list(found.arrays) == list(expected.arrays)
    for name, array in expected.arrays.items():
        assert_same_array(found.arrays[name], array)
    assert list(found.groups) == list(expected.groups)
    for name, group in expected.groups.items():
        assert_same_group(found.groups[name], group)


def assert_same_array(found: VirtualArray, expected: VirtualArray) -> None:
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    assert found.chunk_shape == expected.chunk_shape
    assert found.encodings == expected.encodings
    assert found.dimensions == expected.dimensions
    assert found.notes == expected.notes
    assert same(found.fill_value, expected.fill_value)
    assert_same_mapping(found.attrs, expected.attrs)
    assert found.manifest.grid_shape == expected.manifest.grid_shape
    for column in ("index", "offset", "length", "source", "encoding"):
        ours, theirs = getattr(found.manifest, column), getattr(expected.manifest, column)
        assert (ours is None) == (theirs is None), column
        if ours is not None:
            np.testing.assert_array_equal(ours, theirs, strict=True)
    assert found.manifest.inline == expected.manifest.inline


text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
names = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0/"), min_size=1, max_size=6
).filter(lambda name: name not in (".", "..", "zarr.json") and not name.startswith(".z"))
numeric = st.sampled_from(
    [
        "i1",
        "u1",
        "<i2",
        ">i4",
        "<i8",
        ">u8",
        "<f4",
        ">f8",
        "<f2",
        "<c8",
        ">c16",
        "?",
        "S3",
        "<U2",
        "V4",
    ]
)


@st.composite
def scalars(draw: Any, dtype: np.dtype[Any]) -> Any:
    if dtype.kind == "V":
        return np.frombuffer(draw(st.binary(min_size=4, max_size=4)), dtype)[0]
    if dtype.kind == "U":
        return np.array(draw(text)[:2], dtype)[()]
    value = draw(nps.from_dtype(dtype.newbyteorder("="), allow_subnormal=False))
    scalar = np.array(value, dtype)[()]
    if dtype.kind in "fc" and np.isnan(scalar):  # JSON has one NaN
        scalar = np.array(complex("nan") if dtype.kind == "c" else math.nan, dtype)[()]
    return scalar


@st.composite
def attributes(draw: Any) -> Any:
    kind = draw(st.sampled_from(["text", "texts", "scalar", "array"]))
    if kind == "text":
        return draw(text)
    if kind == "texts":
        return draw(st.lists(text, max_size=3))
    dtype = np.dtype(draw(numeric))
    if kind == "scalar":
        value = draw(scalars(dtype))
        return str(value) if dtype.kind == "U" else value
    values = draw(st.lists(scalars(dtype), min_size=draw(st.integers(0, 1)), max_size=3))
    return np.array(values, dtype)


@st.composite
def manifests(draw: Any, grid: tuple[int, ...], sources: int, encodings: int) -> ChunkManifest:
    cells = math.prod(grid)
    state = draw(st.lists(st.sampled_from("vvvim"), min_size=cells, max_size=cells))
    index = np.array([i for i, s in enumerate(state) if s == "v"], np.uint64)
    numbers = st.integers(0, 2**62 - 1)
    offset = draw(st.lists(numbers, min_size=index.size, max_size=index.size))
    length = draw(st.lists(numbers, min_size=index.size, max_size=index.size))
    source = np.array(
        draw(st.lists(st.integers(0, sources - 1), min_size=index.size, max_size=index.size)),
        np.uint32,
    )
    encoding = np.array(
        draw(st.lists(st.integers(0, encodings - 1), min_size=index.size, max_size=index.size)),
        np.uint8,
    )
    for row in draw(st.sets(st.integers(0, max(0, index.size - 1)), max_size=2)):
        if row < index.size:
            offset[row], length[row] = 0, WHOLE
    return ChunkManifest.build(
        grid,
        index,
        np.array(offset, np.uint64),
        np.array(length, np.uint64),
        source=source if source.any() else None,
        encoding=encoding,
        inline={i: draw(st.binary(max_size=9)) for i, s in enumerate(state) if s == "i"},
    )


CHAINS = [
    Encoding(),
    Encoding((Codec("zlib", {"level": 4}),)),
    Encoding((Codec("shuffle", {"elementsize": 4}), Codec("zlib", {"level": 1}))),
    Encoding((Codec("shuffle", {"elementsize": 2}), Codec("fletcher32"))),
    Encoding((Codec("zstd", {"level": 3}),)),
    Encoding((Codec("gzip", {"level": 3}), Codec("bz2", {"level": 2}))),
]


@st.composite
def arrays(draw: Any, sources: int) -> VirtualArray:
    dtype = np.dtype(draw(numeric))
    shape = tuple(draw(st.lists(st.integers(0, 12), max_size=3)))
    chunk_shape = tuple(draw(st.integers(1, 12)) for _ in shape)
    grid = tuple(-(-n // c) for n, c in zip(shape, chunk_shape, strict=True))
    encodings = tuple(draw(st.permutations(CHAINS))[: draw(st.integers(1, 2))])
    attrs = draw(st.dictionaries(names, attributes(), max_size=3))
    attrs.pop("_ARRAY_DIMENSIONS", None)
    if draw(st.booleans()):
        own = draw(scalars(dtype))
        attrs["_FillValue"] = str(own) if dtype.kind == "U" else own
    return VirtualArray(
        shape=shape,
        dtype=dtype,
        chunk_shape=chunk_shape,
        manifest=draw(manifests(grid, sources, len(encodings))),
        encodings=encodings,
        fill_value=draw(st.none() | scalars(dtype)),
        dimensions=tuple(draw(names) for _ in shape),
        attrs=attrs,
        notes=draw(st.sampled_from([{}, {"enum": {"red": 1, "blue": -2}}])),
    )


@st.composite
def groups(draw: Any, sources: int, depth: int = 0) -> VirtualGroup:
    members = draw(st.lists(names, max_size=3, unique=True))
    split = draw(st.integers(0, len(members)))
    children = members[split:] if depth < 2 else []
    dimensions = st.builds(Dimension, st.integers(0, 2**40), st.booleans())
    return VirtualGroup(
        attrs=draw(st.dictionaries(names, attributes(), max_size=3)),
        dimensions=draw(st.dictionaries(names, dimensions, max_size=2)),
        arrays={name: draw(arrays(sources)) for name in members[:split]},
        groups={name: draw(groups(sources, depth + 1)) for name in children},
    )


@st.composite
def roots(draw: Any) -> VirtualGroup:
    sources = tuple(
        Source(f"https://example.org/{name}", *rest)
        for name, *rest in draw(
            st.lists(
                st.tuples(
                    names.filter(lambda name: "?" not in name),
                    st.none() | st.just(2**63 - 1),
                    st.none() | text,
                    st.none() | text,
                ),
                min_size=1,
                max_size=3,
                unique_by=lambda source: source[0],
            )
        )
    )
    report = ScanReport(
        draw(text), draw(text), tuple(draw(st.lists(st.builds(Skipped, text, text), max_size=2)))
    )
    return replace(draw(groups(len(sources))), sources=sources, report=report)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(roots(), st.sampled_from([2, 3]))
def test_any_group_comes_back_equal(group: VirtualGroup, zarr_format: Any) -> None:
    text = to_json_bytes(group, zarr_format=zarr_format)

    assert_same_group(read_json(text), group)
    assert to_json_bytes(read_json(text), zarr_format=zarr_format) == text


@settings(deadline=None, derandomize=True, max_examples=40)
@given(roots(), st.sampled_from([2, 3]))
def test_reading_in_columns_gives_the_same_group(group: VirtualGroup, zarr_format: Any) -> None:
    text = to_json_bytes(group, zarr_format=zarr_format)
    references = [line for line in text.split(b"\n") if line.rstrip(b",").endswith(b"]")]

    found = json_reader._read_own(text, None, Limits())

    if any(b'\\"' in line for line in references):
        assert found is None  # it counts on four quotes a line
    else:
        assert found is not None
        assert_same_group(found, group)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(roots(), st.sampled_from([2, 3]))
def test_the_text_is_strict_json_sorted_by_key(group: VirtualGroup, zarr_format: Any) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    text = to_json_bytes(group, zarr_format=zarr_format).decode()
    document = json.loads(text, parse_constant=refuse)
    refs = document["refs"]

    assert list(document) == ["byteatlas", "refs", "version"]
    assert list(refs) == list(json.loads(json.dumps(refs, sort_keys=True)))
    assert text.count("\n") == len(refs) + 4
    for key, value in refs.items():
        if key.endswith((".zarray", ".zattrs", ".zgroup", ".zmetadata", "zarr.json")):
            json.loads(value, parse_constant=refuse)


def big_group(*, sources: int = 3) -> VirtualGroup:
    grid = (11, 101, 30)
    cells = math.prod(grid)
    rng = np.random.default_rng(3)
    present = np.flatnonzero(rng.random(cells) < 0.7).astype(np.uint64)
    sparse = ChunkManifest.build(
        grid,
        present,
        rng.integers(0, 10**12, present.size).astype(np.uint64),
        rng.integers(0, 10**6, present.size).astype(np.uint64),
        source=rng.integers(0, sources, present.size).astype(np.uint32),
    )
    dense = ChunkManifest.build(
        grid,
        np.arange(cells, dtype=np.uint64),
        np.arange(cells, dtype=np.uint64) * np.uint64(100),
        np.full(cells, 100, np.uint64),
        source=(np.arange(cells) // 10_000).astype(np.uint32) % sources,
    )
    return VirtualGroup(
        arrays={
            name: VirtualArray(grid, np.dtype("u1"), (1, 1, 1), manifest, dimensions=tuple("xyz"))
            for name, manifest in (("sparse", sparse), ("dense", dense))
        },
        sources=tuple(Source(f"https://example.org/{n}.nc", size=10**13) for n in range(sources)),
        report=ScanReport("hdf5", "1"),
    )


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_large_index_is_read_in_columns_and_as_a_document_alike(zarr_format: Any) -> None:
    group = big_group()
    text = to_json_bytes(group, zarr_format=zarr_format)

    assert len(text) > json_reader._WORTH_SPLITTING
    assert_same_group(json_reader._read_own(text, None, Limits()), group)
    assert_same_group(read_json(text), group)
    assert_same_group(read_json(json.loads(text)), group)


def test_references_equal_those_of_a_plain_loop() -> None:
    group = big_group()
    refs = json.loads(to_json_bytes(group))["refs"]

    expected = {}
    for name, array in group.arrays.items():
        manifest = array.manifest
        flat = np.arange(manifest.cells) if manifest.index is None else manifest.index
        for row, chunk in enumerate(zip(*np.unravel_index(flat, manifest.grid_shape), strict=True)):
            url = group.sources[manifest.source[row]].url
            key = f"{name}/{'.'.join(map(str, chunk))}"
            expected[key] = [url, int(manifest.offset[row]), int(manifest.length[row])]
    assert {key: value for key, value in refs.items() if isinstance(value, list)} == expected


def test_a_large_index_that_was_edited_is_still_read_or_refused() -> None:
    text = to_json_bytes(big_group())
    edited = text.replace(b',100],\n"dense/0.0.1":', b',101],\n"dense/0.0.1":')
    spaced = text.replace(b"[", b"[ ")
    lost = b"\n".join(line for line in text.split(b"\n") if not line.startswith(b'"dense/5.5.5"'))

    assert read_json(edited).arrays["dense"].manifest.length[0] == 101
    assert_same_group(read_json(spaced), big_group())
    with pytest.raises(Inconsistent, match="the index holds 33329 chunks"):
        read_json(lost)
