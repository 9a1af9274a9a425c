"""Keys are found by arithmetic, listed lazily, and their bytes come in few requests."""

import asyncio
import itertools
import json
import pickle
import threading
import zlib
from dataclasses import replace

import fsspec
import numpy as np
import pytest

from byteatlas.codecs import encoding_prefix
from byteatlas.errors import ShortRead, SourceChanged, SourceMissing
from byteatlas.model import (
    WHOLE,
    ChunkManifest,
    Codec,
    Encoding,
    Source,
    VirtualArray,
    VirtualGroup,
)
from byteatlas.read.digests import digests_of
from byteatlas.store.contents import Contents, Slice

from .conftest import bytes_group


def array(grid, flats, *, inline=None):
    count = len(flats)
    manifest = ChunkManifest.build(
        grid,
        np.array(flats, "u8"),
        np.arange(count, dtype="u8") * 10,
        np.full(count, 10, "u8"),
        inline=inline,
    )
    shape = tuple(2 * size for size in grid)
    return VirtualArray(
        shape, np.dtype("u1"), (2,) * len(grid), manifest, dimensions=tuple("xyz"[: len(grid)])
    )


@pytest.fixture
def tree():
    return VirtualGroup(
        arrays={
            "dense": array((2, 3), range(6)),
            "sparse": array((10, 20), [3, 25, 199], inline={27: b"inline"}),
            "scalar": array((), [0]),
            "empty": array((4,), []),
        },
        groups={"c": VirtualGroup(arrays={"c": array((2,), [0, 1])})},
        sources=(Source("memory://somewhere"),),
    )


CHUNKS = {
    2: {
        *(f"dense/{y}.{x}" for y in range(2) for x in range(3)),
        *("sparse/0.3", "sparse/1.5", "sparse/9.19", "sparse/1.7", "scalar/0", "c/c/0", "c/c/1"),
    },
    3: {
        *(f"dense/c/{y}/{x}" for y in range(2) for x in range(3)),
        *("sparse/c/0/3", "sparse/c/1/5", "sparse/c/9/19", "sparse/c/1/7", "scalar/c"),
        *("c/c/c/0", "c/c/c/1"),
    },
}


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_exactly_the_listed_keys_exist(tree, zarr_format):
    contents = Contents(tree, zarr_format)
    keys = list(contents.keys())
    assert len(keys) == len(set(keys))
    assert set(keys) == set(contents.documents) | CHUNKS[zarr_format]
    assert all(key in contents for key in keys)


@pytest.mark.parametrize(
    ("zarr_format", "key"),
    [
        *((2, key) for key in ["dense/2.0", "dense/0.3", "dense/0", "dense/0.0.0", "dense/00.0"]),
        *((2, key) for key in ["dense/0.-1", "dense/+0.0", "dense/0. 0", "dense/0,0", "dense/"]),
        *(
            (2, key)
            for key in ["dense/\u0660.0", "dense/0.0/", "/dense/0.0", "dense", "nope/0", ""]
        ),
        *((2, key) for key in ["sparse/0.4", "scalar/1", "scalar/", "empty/0", "c/0", "dense/."]),
        (2, "dense/0." + "1" * 10_000),
        *(
            (3, key)
            for key in ["dense/c/2/0", "dense/c/0", "dense/c", "dense/0/0", "dense/c/0/0/0"]
        ),
        *((3, key) for key in ["scalar/c/0", "empty/c/0", "c/c/0", "c/c/c", "dense/c/0.0", "c"]),
    ],
)
def test_no_other_key_exists(tree, zarr_format, key):
    contents = Contents(tree, zarr_format)
    assert key not in contents
    assert asyncio.run(contents.size(key)) is None
    assert asyncio.run(contents.get(Slice(key))) is None


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_directories_list_what_the_keys_say(tree, zarr_format):
    contents = Contents(tree, zarr_format)
    keys = list(contents.keys())
    folders = {"", *(key[:at] for key in keys for at in range(len(key)) if key[at] == "/")}
    for folder in folders:
        lead = f"{folder}/" if folder else ""
        below = [key[len(lead) :].split("/") for key in keys if key.startswith(lead)]
        expected = {(parts[0], len(parts) > 1) for parts in below}
        assert set(contents.names(folder)) == expected
        assert contents.is_directory(folder)
    for other in ("nope", "dense/0.0", "dense/c/0/0", "dense/c/7", "sparse/c/2", "scalar/c"):
        assert list(contents.names(other)) == []
        assert not contents.is_directory(other)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    "prefix", ["", "d", "dense", "dense/", "dense/c/1", "sparse/1", "c/c", "x"]
)
def test_keys_are_listed_by_prefix(tree, zarr_format, prefix):
    contents = Contents(tree, zarr_format)
    expected = {key for key in contents.keys() if key.startswith(prefix)}
    assert set(contents.keys(prefix)) == expected


def test_a_hundred_million_chunks_are_listed_lazily():
    grid = (10**4, 10**4)
    offset = np.broadcast_to(np.uint64(0), 10**8)
    manifest = ChunkManifest(grid, offset, offset)
    huge = VirtualArray(grid, np.dtype("u1"), (1, 1), manifest, dimensions=("y", "x"))
    contents = Contents(VirtualGroup(arrays={"a": huge}, sources=(Source("memory://a", 1),)))
    assert list(itertools.islice(contents.keys("a/0."), 2)) == ["a/0.0", "a/0.1"]
    assert "a/9999.9999" in contents


def test_metadata_is_json_and_consolidated(tree):
    contents = Contents(tree)
    consolidated = json.loads(contents.documents[".zmetadata"])["metadata"]
    assert consolidated == {
        key: json.loads(text) for key, text in contents.documents.items() if key != ".zmetadata"
    }


@pytest.fixture
def in_memory():
    """Return a function that puts the bytes of a source into fsspec's memory filesystem."""
    filesystem = fsspec.filesystem("memory")
    yield lambda data: filesystem.pipe("/bytes.bin", data)
    filesystem.store.clear()


def values(contents, *wanted):
    return [
        value if value is None else bytes(value)
        for value in asyncio.run(contents.get_many([Slice(*one) for one in wanted]))
    ]


SLICES = [(0, None), (0, 2), (1, 3), (2, None), (-1, None), (-30, None), (3, 99), (9, 12), (30, 40)]


def test_parts_of_a_chunk_are_sliced_as_bytes_are(in_memory):
    group, data = bytes_group([b"abcd", b"efgh"])
    in_memory(data)
    contents = Contents(group)
    for start, stop in SLICES:
        assert values(contents, ("a/1", start, stop)) == [b"efgh"[start:stop]]
    assert asyncio.run(contents.size("a/1")) == 4


def test_chunks_of_several_encodings_carry_their_prefix(in_memory):
    deflated = zlib.compress(b"efgh")
    group, data = bytes_group([b"abcd", deflated], codec_lists=[[], ["zlib"]], encoding=[0, 1])
    in_memory(data)
    contents = Contents(group)
    whole = [encoding_prefix(0) + b"abcd", encoding_prefix(1) + deflated]
    assert values(contents, ("a/0",), ("a/1",)) == whole
    for start, stop in [*SLICES, (18, 23), (20, None), (19, 20), (-5, None)]:
        assert values(contents, ("a/1", start, stop)) == [whole[1][start:stop]]
    assert asyncio.run(contents.size("a/1")) == len(whole[1])


def test_an_inlined_chunk_needs_no_source():
    manifest = ChunkManifest.empty((2,), {1: b"abcd"})
    array = VirtualArray((8,), np.dtype("u1"), (4,), manifest, dimensions=("x",))
    prefixed = VirtualArray(
        (8,), np.dtype("u1"), (4,), manifest, (Encoding(), Encoding((Codec("zlib"),))),
        dimensions=("x",),
    )  # fmt: skip
    contents = Contents(VirtualGroup(arrays={"a": array, "b": prefixed}))
    assert values(contents, ("a/0",), ("a/1",), ("a/1", 1, 3)) == [None, b"abcd", b"bc"]
    assert values(contents, ("b/1",)) == [encoding_prefix(0) + b"abcd"]
    assert asyncio.run(contents.size("b/1")) == 24


def open_ended(size):
    manifest = ChunkManifest.build(
        (1,), np.zeros(1, "u8"), np.array([4], "u8"), np.array([WHOLE], "u8")
    )
    array = VirtualArray((4,), np.dtype("u1"), (4,), manifest, dimensions=("x",))
    return VirtualGroup(arrays={"a": array}, sources=(Source("memory://bytes.bin", size),))


@pytest.mark.parametrize("size", [None, 8], ids=["size unknown", "size known"])
def test_an_open_ended_chunk_reaches_to_the_end_of_its_source(in_memory, size):
    in_memory(b"headabcd")
    contents = Contents(open_ended(size))
    assert values(contents, ("a/0",)) == [b"abcd"]
    assert asyncio.run(Contents(open_ended(size)).size("a/0")) == 4
    for start, stop in SLICES:
        part = values(Contents(open_ended(size)), ("a/0", start, stop))
        assert part == [b"abcd"[start:stop]]


def test_the_error_of_one_source_leaves_the_others_their_bytes(in_memory):
    in_memory(b"headabcd")
    manifest = ChunkManifest.build(
        (2,),
        np.arange(2, dtype="u8"),
        np.array([4, 4], "u8"),
        np.array([4, 4], "u8"),
        source=np.array([0, 1], "u4"),
    )
    array = VirtualArray((8,), np.dtype("u1"), (4,), manifest, dimensions=("x",))
    sources = (Source("memory://bytes.bin"), Source("memory://gone.bin"))
    contents = Contents(VirtualGroup(arrays={"a": array}, sources=sources))
    wanted = [Slice("a/0"), Slice("a/1"), Slice("a/2")]
    good, bad, none = asyncio.run(contents.get_many(wanted))
    assert bytes(good) == b"abcd"
    assert isinstance(bad, SourceMissing)
    assert bad.path == "/a"
    assert none is None


def test_a_chunk_behind_the_end_of_its_source_leaves_the_others_theirs(in_memory):
    group, data = bytes_group([b"abcd", b"efgh"])
    in_memory(data)
    beyond = replace(
        group.arrays["a"].manifest, offset=np.array([100, 4], "u8"), digest=None, index=None
    )
    arrays = {"a": group.arrays["a"], "b": replace(group.arrays["a"], manifest=beyond)}
    contents = Contents(replace(group, arrays=arrays))
    wanted = [Slice("a/0"), Slice("b/0"), Slice("b/1"), Slice("a/1")]
    first, error, *others = asyncio.run(contents.get_many(wanted))
    assert [bytes(one) for one in (first, *others)] == [b"abcd", b"abcd", b"efgh"]
    assert isinstance(error, ShortRead)
    assert (error.path, error.offset) == ("/b", 100)


def test_an_error_names_the_array_that_it_is_about(in_memory):
    group, data = bytes_group([b"abcd", b"efgh"])
    in_memory(data)
    sources = (Source("memory://bytes.bin"),)  # whose size is not known
    beyond = replace(group.arrays["a"].manifest, offset=np.array([100, 4], "u8"))
    arrays = {"a": group.arrays["a"], "b": replace(group.arrays["a"], manifest=beyond)}
    contents = Contents(replace(group, arrays=arrays, sources=sources))
    _, error = asyncio.run(contents.get_many([Slice("a/0"), Slice("b/0")]))
    assert isinstance(error, ShortRead)
    assert error.path == "/b"


def test_contents_are_equal_when_their_index_is(tree):
    contents = Contents(tree)
    assert contents == pickle.loads(pickle.dumps(contents))
    assert contents != Contents(tree, 3)
    assert contents != "contents"
    moved = VirtualGroup(tree.attrs, tree.dimensions, tree.arrays, tree.groups, (Source("x"),))
    assert contents != Contents(moved)
    other = array((2, 3), range(6), inline={})
    other.manifest.offset[3] += 1
    changed = VirtualGroup(arrays={**tree.arrays, "dense": other}, groups=tree.groups)
    assert Contents(changed) != Contents(VirtualGroup(arrays=tree.arrays, groups=tree.groups))


def test_many_neighbouring_chunks_are_one_request(scanned, server):
    contents = Contents(scanned)
    keys = [key for key in contents.keys("temp/") if key in contents and "/." not in key]
    found = asyncio.run(contents.get_many(list(map(Slice, keys))))
    assert all(found)
    assert len(keys) == 12
    assert len(server.log) == 1


STRANGE = {
    2: ["dense/2.0", "dense/0.0.0", "dense/00.1", "dense/0.0\ndense/0.1", "sparse/0.4", "empty/0"],
    3: ["dense/c/2/0", "dense/c/0", "dense/c/00/1", "dense/c/0/0/0", "sparse/c/0/4", "empty/c/0"],
}


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_keys_of_all_kinds_are_answered_together_as_one_by_one(tree, zarr_format):
    fsspec.filesystem("memory").pipe("/somewhere", bytes(range(250)))
    contents = Contents(tree, zarr_format)
    keys = [*contents.documents, *CHUNKS[zarr_format], *STRANGE[zarr_format], "", "no/such.0"]
    keys += [key for key in keys if "dense" in key]  # some twice
    wanted = [Slice(key, *part) for key in keys for part in ((), (2, 5), (-3, None), (8, 20))]
    together = asyncio.run(contents.get_many(wanted))
    alone = [asyncio.run(contents.get_many([one]))[0] for one in wanted]
    as_bytes = [None if value is None else bytes(value) for value in together]
    assert as_bytes == [None if value is None else bytes(value) for value in alone]
    assert sum(value is None for value in as_bytes) == 4 * (6 + 2 + 4)
    sizes = asyncio.run(contents.sizes(keys))
    whole = asyncio.run(contents.get_many(list(map(Slice, keys))))
    assert sizes == [None if value is None else len(value) for value in whole]


class Watched(ChunkManifest):
    """A manifest that looks up chunks in its own way, as one does that reads them first."""

    def locate(self, flat):
        self.inline.setdefault(-1, []).append((threading.get_ident(), flat.size))
        return super().locate(flat)


@pytest.mark.parametrize("ask", ["get_many", "sizes", "has", "find"])
def test_a_manifest_that_may_read_is_asked_once_and_not_in_the_event_loop(ask):
    offset = np.zeros(30, "u8")
    manifest = Watched((30,), offset, offset)
    lazy = VirtualArray((30,), np.dtype("u1"), (1,), manifest, dimensions=("x",))
    contents = Contents(VirtualGroup(arrays={"a": lazy}, sources=(Source("memory://a", 9),)))
    fsspec.filesystem("memory").pipe("/a", bytes(9))
    keys = [f"a/{number}" for number in range(30)]
    given = {"get_many": list(map(Slice, keys)), "has": keys[0]}.get(ask, keys)
    assert asyncio.run(getattr(contents, ask)(given))
    ((thread, count),) = manifest.inline[-1]
    assert count == (1 if ask == "has" else 30)
    assert thread != threading.get_ident()


def test_a_chunk_that_is_sealed_is_checked_among_others_that_are_not(in_memory):
    group, data = bytes_group([b"abcd", b"efgh"])
    sealed = group.arrays["a"].manifest
    digest = digests_of([b"abcd", b"other"])
    arrays = {
        "a": group.arrays["a"],
        "b": replace(group.arrays["a"], manifest=replace(sealed, digest=digest)),
    }
    in_memory(data)
    contents = Contents(replace(group, arrays=arrays))
    good = [("b/0",), ("a/0", 1, 3), ("b/0", 1, 3), ("a/1",)]
    assert values(contents, *good) == [b"abcd", b"bc", b"bc", b"efgh"]
    bad = ["b/1", "a/1", "b/0"]
    error, *others = asyncio.run(contents.get_many([Slice(key, 0, 2) for key in bad]))
    assert isinstance(error, SourceChanged)
    assert (error.path, error.offset) == ("/b", 8)
    assert [bytes(one) for one in others] == [b"ef", b"ab"]


def test_single_requests_made_together_are_one_request(scanned, server):
    contents = Contents(scanned)

    async def ask():
        keys = [f"temp/{row}.{column}" for row in range(4) for column in range(3)]
        return await asyncio.gather(*(contents.get(Slice(key)) for key in keys))

    assert all(asyncio.run(ask()))
    assert len(server.log) == 1
