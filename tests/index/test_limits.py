"""Each limit holds at its value, and refuses one more, with the argument that raises it."""

from __future__ import annotations

import gzip
import json
import pickle
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import zarr
from numcodecs.zstd import Zstd

import byteatlas
from byteatlas.errors import LimitExceeded, Unsupported
from byteatlas.index import json_document, read_json
from byteatlas.limits import Limits
from byteatlas.read import LOCAL, Reader, plan_read
from byteatlas.sealing import seal
from byteatlas.testing.server import RangeServer

CODEC = {"id": "shuffle", "elementsize": 1}


def document(shape: list[int], chunks: list[int], refs: dict[str, Any], **changes: Any) -> Any:
    zarray = {
        "chunks": chunks, "compressor": None, "dtype": "|u1", "fill_value": None, "filters": None,
        "order": "C", "shape": shape, "zarr_format": 2,
    }  # fmt: skip
    return {"version": 1, "refs": {"t/.zarray": json.dumps(zarray | changes), **refs}}


def padded(size: int) -> bytes:
    return b"{}".ljust(size)


def nested(depth: int) -> Any:
    """Return an attribute so that the text of ``.zattrs`` nests so deep."""
    value: Any = 0
    for level in range(depth - 1):
        value = [value] if level % 2 else {"a": value}
    return {".zattrs": json.dumps({"x": value})}


def with_keys(count: int) -> Any:
    chunks = {f"t/{i}": ["u://x", i, 1] for i in range(count - 1)}
    return document([count], [1], chunks)


def generated(count: int) -> Any:
    gen = [{"key": "t/{{i}}", "url": "u://x", "dimensions": {"i": {"stop": count}}}]
    return {**document([10**6], [1], {}), "gen": gen}


def with_url(length: int) -> Any:
    return document([1], [1], {"t/0": ["http://h/".ljust(length, "x"), 0, 1]})


def expanded(length: int) -> Any:
    url = ["http://h/{{a}}{{a}}".replace("{{a}}", "{{a}}", 2), 0, 1]
    half = (length - len("http://h/")) // 2
    odd = "x" * ((length - len("http://h/")) % 2)
    return {**document([1], [1], {"t/0": [url[0] + odd, 0, 1]}), "templates": {"a": "y" * half}}


def nested_templates(depth: int) -> Any:
    names = "abcdefgh"[:depth]
    templates = {name: "{{" + after + "}}" for name, after in pairwise(names)}
    templates[names[-1]] = "end"
    refs = {"t/0": ["http://h/{{a}}", 0, 1]}
    return {**document([1], [1], refs), "templates": templates}


def inlined(size: int) -> Any:
    return document([size], [size], {"t/0": "x" * size})


def inlined_base64(size: int) -> Any:
    import base64

    text = base64.b64encode(bytes(size)).decode()
    return document([size], [size], {"t/0": f"base64:{text}"})


def with_codecs(count: int) -> Any:
    return document([1], [1], {}, filters=[{"id": "shuffle", "elementsize": 1}] * count)


def attribute(size: int) -> Any:
    facts = {"format": 1, "groups": {"/": {"types": {"x": f"|S{size}"}}}}
    return {"version": 1, "refs": {".zattrs": '{"x":"a"}'}, "byteatlas": facts}


def text_attribute(size: int) -> Any:
    return {".zattrs": json.dumps({"x": "a" * size})}


OPENING: dict[str, tuple[str, int, Callable[[int], Any]]] = {
    "index": ("index", 1000, padded),
    "index in gzip": ("index", 1000, lambda size: gzip.compress(padded(size))),
    "index in zstd": ("index", 1000, lambda size: Zstd().encode(padded(size))),
    "depth": ("depth", 6, nested),
    "keys": ("keys", 50, with_keys),
    "generated": ("generated", 50, generated),
    "url": ("url", 100, with_url),
    "url of a template": ("url", 100, expanded),
    "template depth": ("template_depth", 3, nested_templates),
    "inline text": ("inline", 100, inlined),
    "inline base64": ("inline", 100, inlined_base64),
    "codecs": ("codecs", 3, with_codecs),
    "attribute": ("attribute", 100, attribute),
    "attribute of text": ("attribute", 100, text_attribute),
}


@pytest.mark.parametrize(("name", "limit", "make"), OPENING.values(), ids=OPENING)
def test_an_index_may_reach_each_limit_and_not_exceed_it(
    name: str, limit: int, make: Callable[[int], Any]
) -> None:
    limits = Limits(**{name: limit})
    for size in (limit - 1, limit):
        read_json(make(size), limits=limits)

    with pytest.raises(LimitExceeded, match=f"{limit}") as caught:
        read_json(make(limit + 1), limits=limits)

    assert isinstance(caught.value, Unsupported)
    assert f"Limits({name}=" in str(caught.value)
    read_json(make(limit + 1), limits=Limits(**{name: limit + 1}))


@pytest.mark.parametrize(
    ("name", "limit", "make"),
    [
        ("depth", 16, nested),
        ("url", 8 * 2**10, with_url),
        ("url", 8 * 2**10, expanded),
        ("template_depth", 2, nested_templates),
        ("inline", 16 * 2**20, inlined),
        ("codecs", 8, with_codecs),
        ("attribute", 64 * 2**20, text_attribute),
    ],
)
def test_the_limits_hold_at_their_defaults(
    name: str, limit: int, make: Callable[[int], Any]
) -> None:
    assert getattr(Limits(), name) == limit
    for size in (limit - 1, limit):
        read_json(make(size))
    with pytest.raises(LimitExceeded, match=f"{limit}"):
        read_json(make(limit + 1))


def test_the_limits_of_large_things_are_these() -> None:
    limits = Limits()

    assert limits.index == 2 * 2**30
    assert limits.generated == 10**7
    assert limits.chunk == 2**30


@pytest.mark.parametrize("pack", [gzip.compress, Zstd().encode], ids=["gzip", "zstd"])
def test_a_small_compressed_index_does_not_become_a_large_one(
    pack: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_document, "_FREE", 1000)
    packed = pack(padded(100_000))
    ratio = -(-100_000 // len(packed))

    read_json(packed, limits=Limits(expansion=ratio))
    with pytest.raises(LimitExceeded, match=r"Limits\(expansion="):
        read_json(packed, limits=Limits(expansion=ratio - 1))
    read_json(pack(padded(1000)), limits=Limits(expansion=0))


# Reading


@pytest.fixture
def source(tmp_path: Path) -> str:
    (tmp_path / "source.bin").write_bytes(bytes(range(100)))
    return str(tmp_path / "source.bin")


def in_chunks(source: str, chunk: int, **changes: Any) -> Any:
    """Return an index of an array of ten chunks of so many bytes."""
    refs = {f"t/{i}": [source, i * chunk, chunk] for i in range(10)}
    return document([10 * chunk], [chunk], refs, **changes)


def read(index: Any, limits: Limits, selection: Any = ...) -> np.ndarray:
    group = byteatlas.open_index(index, limits=limits)
    return Reader(group.sources, limits=limits).read(group.arrays["t"], selection, path="/t")


def test_a_read_touches_so_many_chunks_and_not_more(source: str) -> None:
    index = in_chunks(source, 4)
    for count in (4, 5):
        assert read(index, Limits(cells=5), slice(0, 4 * count)).size == 4 * count

    with pytest.raises(LimitExceeded, match=r"takes 6, the limit is 5.*cells=6") as caught:
        read(index, Limits(cells=5), slice(0, 21))

    assert caught.value.path == "/t"
    assert read(index, Limits(cells=5), np.array([0, 39])).tolist() == [0, 39]


def test_a_result_takes_so_many_bytes_and_not_more(source: str) -> None:
    index = in_chunks(source, 4)
    for size in (19, 20):
        assert read(index, Limits(result=20), slice(0, size)).size == size

    with pytest.raises(LimitExceeded, match=r"takes 21, the limit is 20.*result=21"):
        read(index, Limits(result=20), slice(0, 21))


@pytest.mark.parametrize("kind", ["encoded", "sealed"])
def test_a_chunk_takes_so_many_bytes_and_not_more(source: str, kind: str) -> None:
    def index(chunk: int) -> Any:
        if kind == "encoded":
            return in_chunks(source, chunk, filters=[{"id": "shuffle", "elementsize": 2}])
        return seal(byteatlas.open_index(in_chunks(source, chunk)))

    for size in (7, 8):
        assert read(index(size), Limits(chunk=8), 0) == 0

    with pytest.raises(LimitExceeded, match=r"takes 9, the limit is 8.*chunk=9"):
        read(index(9), Limits(chunk=8), 0)
    assert read(in_chunks(source, 9), Limits(chunk=8), 0) == 0  # of which one byte is read


def test_a_store_fetches_so_many_bytes_of_a_chunk_and_not_more(source: str) -> None:
    for open_array in (by_zarr, by_filesystem):
        for size in (7, 8):
            assert open_array(in_chunks(source, size), Limits(chunk=8)) == 0
        with pytest.raises(LimitExceeded, match=r"takes 9, the limit is 8"):
            open_array(in_chunks(source, 9), Limits(chunk=8))


def test_a_whole_source_is_no_larger_than_a_chunk_may_be(tmp_path: Path) -> None:
    for size in (8, 9):
        (tmp_path / f"source{size}").write_bytes(bytes(size))
    with RangeServer(tmp_path) as server:
        for place in (f"{tmp_path}/", server.url("")):
            for way in (by_zarr, by_filesystem, lambda i, limits: read(i, limits, 0)):
                index = document([8], [8], {"t/0": [f"{place}source8"]}, filters=[CODEC])
                assert way(index, Limits(chunk=8)) == 0
                server.clear()
                index = document([8], [8], {"t/0": [f"{place}source9"]}, filters=[CODEC])
                with pytest.raises(LimitExceeded, match=r"the limit is 8.*chunk=9"):
                    way(index, Limits(chunk=8))


def by_zarr(index: Any, limits: Limits) -> Any:
    return zarr.open_group(byteatlas.open_store(index, limits=limits), mode="r")["t"][0]


def by_filesystem(index: Any, limits: Limits) -> Any:
    return fsspec.filesystem("byteatlas", fo=index, limits=limits).cat_file("t/0")[0]


def test_what_is_beyond_the_memory_of_the_machine_is_refused_before_it_is_taken() -> None:
    huge = document([2**50], [2**50], {})

    with pytest.raises(LimitExceeded, match="the result of the selection"):
        read(huge, Limits())
    with pytest.raises(LimitExceeded, match="the number of chunks"):
        read(huge, Limits(result=2**62))
    with pytest.raises(LimitExceeded, match="not enough memory"):
        read(huge, Limits(result=2**62, cells=2**32), slice(2**46))
    assert read(huge, Limits(), slice(2**49, 2**49 + 3)).tolist() == [0, 0, 0]


def test_a_grid_of_very_many_chunks_costs_nothing_until_it_is_read() -> None:
    group = byteatlas.open_index(document([2**40, 2**20], [1, 1], {}))
    array = group.arrays["t"]

    assert array.manifest.missing_count == 2**60
    with pytest.raises(LimitExceeded, match="the number of chunks"):
        plan_read(array, ..., LOCAL, Limits(result=2**62))
    with pytest.raises(LimitExceeded):
        Reader(()).read(array)
    assert Reader(()).read(array, (2**39, slice(0, 3))).tolist() == [0, 0, 0]


def test_limits_reach_every_way_to_open_an_index(tmp_path: Path, source: str) -> None:
    path = tmp_path / "index.json"
    path.write_text(json.dumps(in_chunks(source, 4)))
    small = Limits(index=100)

    for way in (byteatlas.open_index, byteatlas.open_store, byteatlas.open_dataset,
                byteatlas.open_datatree):  # fmt: skip
        way(path)
        with pytest.raises(LimitExceeded, match=str(path)):
            way(path, limits=small)
    with pytest.raises(LimitExceeded, match=str(path)):
        fsspec.filesystem("byteatlas", fo=str(path), limits=small)
    dataset = byteatlas.open_dataset(path, limits=Limits(cells=2))
    assert dataset["t"][:8].to_numpy().size == 8
    with pytest.raises(LimitExceeded):
        dataset["t"].load()


def test_limits_are_numbers_and_travel() -> None:
    limits = Limits(url=5)

    assert pickle.loads(pickle.dumps(limits)) == limits
    assert pickle.loads(pickle.dumps(Reader((), limits=limits))).limits == limits
    for wrong in (-1, 1.5, None, True, "5"):
        with pytest.raises(ValueError, match="the limit 'url' is"):
            Limits(url=wrong)  # type: ignore[arg-type]
