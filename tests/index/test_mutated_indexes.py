"""Damaged indexes: our own errors, or what is right; and no chunk is lost without a word."""

from __future__ import annotations

import copy
import gzip
import json
import os
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import byteatlas
from byteatlas.errors import ByteatlasError, Inconsistent, SourceChanged
from byteatlas.index import read_json, to_json_bytes
from byteatlas.model import Codec, VirtualGroup
from byteatlas.read import Reader

COUNT = 1000 * int(os.environ.get("BYTEATLAS_TEST_SCALE", "1"))
"""Mutants of each kind, about."""

INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, *b'"[]{},:0159\\-.eE')


@pytest.fixture
def group(source_file: Any) -> VirtualGroup:
    """Three small arrays: some chunks missing, some compressed, some inlined."""
    values = np.arange(24, dtype="<i4").reshape(4, 6) + 1000
    add = source_file.add
    arrays = {
        "gaps": add("gaps", values, (1, 3), missing=frozenset({(1, 0), (2, 1), (3, 1)})),
        "packed": add(
            "packed", values, (2, 3), Codec("zlib", {"level": 1}),
            attrs={"units": "K", "scale_factor": np.float32(0.5), "_FillValue": np.int32(-9)},
        ),
        "text": add("text", np.array(["a", "", "é"], object), (2,), Codec("vlen-utf8"),
                    inline=True),
    }  # fmt: skip
    made: VirtualGroup = source_file.group(arrays, attrs={"title": "small"})
    return made


@pytest.fixture
def sealed(group: VirtualGroup) -> VirtualGroup:
    return byteatlas.seal(group)


def values_of(group: VirtualGroup) -> dict[str, list[Any]]:
    """Read all arrays through their index."""
    reader = Reader(group.sources)
    return {path: reader.read(array, path=path).tolist() for path, array in group.walk_arrays()}


# Cut, or something taken out


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_an_index_cut_at_any_byte_is_refused(group: VirtualGroup, zarr_format: Any) -> None:
    text = to_json_bytes(group, zarr_format=zarr_format)
    whole = len(text) - 1  # the last byte is a line feed

    for length in range(whole):
        with pytest.raises(ByteatlasError):
            read_json(text[:length])
    assert values_of(read_json(text[:whole])) == values_of(group)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_an_index_that_lost_a_key_never_reads_as_fill_values(
    group: VirtualGroup, zarr_format: Any
) -> None:
    document = json.loads(to_json_bytes(group, zarr_format=zarr_format))
    expected = values_of(group)
    refused = 0
    for lost in document["refs"]:
        refs = {key: value for key, value in document["refs"].items() if key != lost}
        try:
            found = values_of(read_json(document | {"refs": refs}))
        except ByteatlasError:
            refused += 1
            continue
        assert found == expected, f"read other values without {lost!r}"
    assert refused >= 5 + 4 + 2  # the chunks


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_an_index_that_lost_any_lines_never_reads_as_fill_values(
    group: VirtualGroup, zarr_format: Any
) -> None:
    lines = to_json_bytes(group, zarr_format=zarr_format).splitlines(keepends=True)
    expected = values_of(group)
    for start in range(len(lines)):
        for stop in range(start + 1, len(lines) + 1):
            text = b"".join(lines[:start] + lines[stop:])
            for repaired in (text, text.replace(b",\n}", b"\n}")):
                try:
                    found = read_json(repaired)
                except ByteatlasError:
                    continue
                assert values_of(found) == expected


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_chunk_that_moved_to_a_missing_one_is_refused(
    group: VirtualGroup, zarr_format: Any
) -> None:
    document = json.loads(to_json_bytes(group, zarr_format=zarr_format))
    lead = "gaps/" if zarr_format == 2 else "gaps/c/"
    separator = "." if zarr_format == 2 else "/"
    keys = {lead + f"{y}{separator}{x}" for y in range(4) for x in range(2)}
    there = keys & set(document["refs"])
    assert len(there) == 5

    for chunk in there:
        for hole in keys - there:
            refs = dict(document["refs"])
            refs[hole] = refs.pop(chunk)
            with pytest.raises(Inconsistent, match="other chunks than written") as caught:
                read_json(document | {"refs": refs})
            assert caught.value.path == "/gaps"


# Mutations


def mutate_bytes(text: bytes, draw: random.Random) -> bytes:
    """Change some bytes: a bit, a byte, a number, a part cut off or copied over another."""
    data = bytearray(text)
    for _ in range(draw.choice((1, 1, 1, 2, 5))):
        place = draw.randrange(len(data))
        kind = draw.random()
        if kind < 0.4:
            data[place] ^= 1 << draw.randrange(8)
        elif kind < 0.6:
            data[place] = draw.choice(INTERESTING)
        elif kind < 0.85:
            number = draw.choice((0, 2**31, 2**63 - 1, 2**63, -1, 10**20, place))
            data[place : place + draw.randrange(6)] = str(number).encode()
        elif kind < 0.93:
            del data[place : place + draw.randrange(1, 60)]
        else:
            start = draw.randrange(len(data))
            data[place : place + 40] = data[start : start + draw.randrange(1, 80)]
    return bytes(data)


def places_in(value: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of everything inside a JSON value."""
    pairs: Any = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    found = [above] if above else []
    for key, item in list(pairs):
        found += places_in(item, (*above, key))
    return found


def odd_values(draw: random.Random, now: Any) -> Any:
    """Return something that may stand where a value stands now."""
    odd = [None, True, 0, -1, 1, 1.5, 2**31, 2**63, -(2**63), 10**30, "", "a", "base64:AAAA",
           "../x", "\0", [], [[]], {}, {"a": []}, "x" * 10_000]  # fmt: skip
    if isinstance(now, int) and not isinstance(now, bool):
        odd += [now + 1, now - 1, now * 2, str(now), float(now)] * 2
    if isinstance(now, str):
        odd += [now[:-1], now + "A", now[::-1], now.upper()] * 2
    if isinstance(now, list):
        odd += [now[:-1], now * 2, now[::-1]] * 2
    return draw.choice(odd)


def mutate_structure(document: Any, draw: random.Random, *, within: str | None = None) -> Any:
    """Change, remove or move something in a document, metadata included."""
    whole = copy.deepcopy(document)
    for key, value in whole["refs"].items():  # metadata is text; open it, and close it again
        if isinstance(value, str) and value.startswith("{"):
            whole["refs"][key] = json.loads(value)
    top = whole if within is None else whole[within]
    for _ in range(draw.choice((1, 1, 2))):
        *above, last = draw.choice(places_in(top))
        here = top
        for step in above:
            here = here[step]
        kind = draw.random()
        if kind < 0.6:
            here[last] = odd_values(draw, here[last])
        elif kind < 0.8:
            del here[last]
        elif isinstance(here, dict):
            here[draw.choice([*here, "new", "0.0", "gaps/1.0"])] = here.pop(last)
        else:
            here.insert(0, here[last])
    for key, value in whole["refs"].items() if isinstance(whole.get("refs"), dict) else ():
        if isinstance(value, dict):
            whole["refs"][key] = json.dumps(value)
    return whole


def check_mutant(text: bytes, tally: Counter[str]) -> None:
    """Read an index and all its arrays: only our errors, or an index that holds together."""
    group, refusal = or_error(lambda: read_json(text, url="/archive/index.json"))
    if group is None:
        tally["refused"] += 1
        assert "/archive/index.json" in refusal or "source file.bin" in refusal
        return
    again, _ = or_error(lambda: to_json_bytes(group))
    if again is not None:
        assert to_json_bytes(read_json(again)) == again
    reader = Reader(group.sources)
    for path, array in group.walk_arrays():
        values, refusal = or_error(lambda path=path, array=array: reader.read(array, path=path))
        tally["chunk refused" if values is None else "read"] += 1
        assert path in refusal if values is None else values.shape == array.shape


def or_error(act: Callable[[], Any]) -> tuple[Any, str]:
    """Return a result, or None and the text of an error of ours; all others pass."""
    try:
        return act(), ""
    except ByteatlasError as error:
        return None, str(error)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_an_index_of_changed_bytes_is_refused_or_holds_together(
    group: VirtualGroup, zarr_format: Any
) -> None:
    text = to_json_bytes(group, zarr_format=zarr_format)
    draw = random.Random(f"bytes {zarr_format}")
    tally: Counter[str] = Counter()

    for _ in range(COUNT // 4):
        check_mutant(mutate_bytes(text, draw), tally)

    assert tally["refused"] > COUNT // 16
    assert tally["read"] > COUNT // 16


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_an_index_of_another_structure_is_refused_or_holds_together(
    group: VirtualGroup, zarr_format: Any
) -> None:
    document = json.loads(to_json_bytes(group, zarr_format=zarr_format))
    draw = random.Random(f"structure {zarr_format}")
    tally: Counter[str] = Counter()

    for _ in range(COUNT // 4):
        mutant = json.dumps(mutate_structure(document, draw)).encode()
        check_mutant(mutant, tally)

    assert tally["refused"] > COUNT // 16
    assert tally["read"] > COUNT // 32


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_sealed_index_whose_references_changed_never_reads_as_other_values(
    sealed: VirtualGroup, zarr_format: Any
) -> None:
    document = json.loads(to_json_bytes(sealed, zarr_format=zarr_format))
    expected = values_of(sealed)
    chunks = {k: v for k, v in document["refs"].items() if isinstance(v, list)}
    draw = random.Random(f"sealed {zarr_format}")
    tally: Counter[str] = Counter()

    for _ in range(COUNT // 4):
        mutant = mutate_structure({"refs": chunks}, draw, within="refs")["refs"]
        refs = {k: v for k, v in document["refs"].items() if k not in chunks} | mutant
        try:
            group = read_json(document | {"refs": refs})
            found = values_of(group)
        except ByteatlasError as error:
            tally[type(error).__name__] += 1
            continue
        assert found == expected
        tally["right"] += 1

    assert tally[SourceChanged.__name__] > COUNT // 100


def test_without_a_seal_a_changed_offset_reads_as_other_values(group: VirtualGroup) -> None:
    document = json.loads(to_json_bytes(group))
    document["refs"]["gaps/0.0"][1] += 1

    assert values_of(read_json(document)) != values_of(group)


@pytest.mark.parametrize("pack", ["text", "gzip"])
def test_a_random_text_is_refused(pack: str) -> None:
    draw = random.Random(9)
    for size in range(200):
        data = b"{" + draw.randbytes(size)
        with pytest.raises(ByteatlasError):
            read_json(gzip.compress(data) if pack == "gzip" else data)
