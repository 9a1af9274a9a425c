"""What a read would take is what it then takes: requests, bytes, sources and chunks."""

import sys

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import basic_indices

from byteatlas.errors import LimitExceeded
from byteatlas.limits import Limits
from byteatlas.model import WHOLE, ChunkManifest, Codec, Encoding, Source, VirtualArray
from byteatlas.read import Job, Reader, execute, plan_read
from byteatlas.read.cost import cost_of
from byteatlas.read.costs import LOCAL, REMOTE
from byteatlas.scanning import scan
from byteatlas.testing import RangeServer

from .conftest import build


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """A file with one array of each layout, and gaps between their chunks."""
    path = tmp_path_factory.mktemp("archive") / "archive.h5"
    random = np.random.default_rng(0)
    values = random.normal(size=(60, 40, 50)).astype("f4")
    text = [f"name {number}" * 3000 for number in range(20)]
    with h5py.File(path, "w") as file:
        packed = file.create_dataset("packed", (60, 40, 50), "f4", chunks=(7, 9, 50), compression=1)
        sparse = file.create_dataset("sparse", (60, 40, 50), "f4", chunks=(10, 10, 10))
        pad = file.create_dataset("pad", (60, 300_000), "u1", chunks=(1, 300_000))
        for row in range(60):
            packed[row] = values[row]
            sparse[row, : 10 * (row % 4)] = values[row, : 10 * (row % 4)]
            file.flush()
            pad[row] = row
            file.flush()
        file["plain"] = values
        file["scalar"] = 1.5
        file.create_dataset("text", data=text, chunks=(3,))
    return path


@pytest.fixture(scope="module")
def server(archive):
    with RangeServer(archive.parent) as running:
        yield running


@pytest.fixture(scope="module")
def remote(server):
    return scan(server.url("archive.h5"), max_inline=100_000)


@pytest.fixture(scope="module")
def local(archive):
    return scan(str(archive))


SELECTIONS = {
    "all": ...,
    "first": 0,
    "last": -1,
    "series": (slice(None), 0, 0),
    "steps": (slice(10, 50, 13), slice(None, None, -1), 3),
    "nothing": (slice(0, 0),),
    "lists": ([3, 3, 59, 1], slice(5), [0, 49]),
    "mask": (np.arange(60) % 20 == 0,),
    "window": (slice(None), slice(35, 40), slice(0, 50, 49)),
}
NAMES = ["packed", "sparse", "plain"]


@pytest.mark.parametrize("selection", SELECTIONS.values(), ids=SELECTIONS)
@pytest.mark.parametrize("name", NAMES)
def test_a_read_over_http_takes_what_was_said_before(remote, server, name, selection):
    reader = Reader(remote.sources)
    server.clear()
    cost = reader.cost(remote[name], selection)
    assert server.log == []
    result = reader.read(remote[name], selection)
    assert (cost.requests, cost.bytes_fetched) == (len(server.log), server.bytes_sent)
    assert (cost.shape, cost.result_bytes) == (result.shape, result.nbytes)
    assert cost.bytes_needed <= cost.bytes_fetched
    trace = reader.source(0).trace
    assert (cost.requests, cost.bytes_fetched) == (trace.requests, trace.bytes_read)
    assert sum(source.requests for source in cost.sources) == cost.requests
    assert [one.url for one in cost.sources] == [server.url("archive.h5")] * bool(cost.requests)


@pytest.mark.parametrize("selection", SELECTIONS.values(), ids=SELECTIONS)
@pytest.mark.parametrize("name", NAMES)
def test_a_local_read_takes_what_was_said_before(local, name, selection):
    reader = Reader(local.sources)
    cost = reader.cost(local[name], selection)
    reader.read(local[name], selection)
    trace = reader.source(0).trace
    assert (cost.requests, cost.bytes_fetched) == (trace.requests, trace.bytes_read)


def kinds_by_hand(made, selection):
    """Which chunks a selection touches, element by element: virtual, inlined and missing ones."""
    array = made.array
    places = np.indices(array.shape)[(slice(None), *selection)].reshape(len(array.shape), -1)
    chunks = places // np.array(array.chunk_shape)[:, np.newaxis]
    touched = np.unique(np.ravel_multi_index(chunks, array.manifest.grid_shape))
    is_virtual = array.manifest.rows(touched) >= 0
    is_inlined = np.isin(touched, list(array.manifest.inline))
    return touched[is_virtual], touched[is_inlined], touched[~is_virtual & ~is_inlined]


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_of_any_layout_and_selection_everything_is_counted(data):
    shape = tuple(data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=3), "shape"))
    chunk_shape = tuple(data.draw(st.integers(1, 14), "chunk") for _ in shape)
    cells = int(np.prod([-(-n // c) for n, c in zip(shape, chunk_shape, strict=True)]))
    some = st.lists(st.integers(0, cells - 1), max_size=cells).map(tuple)
    codecs = data.draw(st.sampled_from([(), (Codec("zlib"),)]), "codecs")
    made = build(
        np.arange(int(np.prod(shape)), dtype="<f4").reshape(shape),
        chunk_shape,
        codecs=codecs,
        gap=data.draw(st.sampled_from([0, 7, 20_000]), "gap"),
        sources=data.draw(st.integers(1, 3), "sources"),
        missing=data.draw(some, "missing"),
        inlined=data.draw(some, "inlined"),
    )
    array = made.array
    selection = data.draw(basic_indices(shape, allow_ellipsis=False).map(as_tuple), "selection")
    costs = data.draw(st.sampled_from([LOCAL, REMOTE]), "costs")
    sources = [Source(f"memory://{n}", len(one.data)) for n, one in enumerate(made.sources)]
    cost = cost_of(array, selection, costs, Limits(), sources)

    execute([Job(plan_read(array, selection, costs), array)], made.sources.__getitem__, costs)
    requests = [request for one in made.sources for request in one.requests]
    assert cost.requests == len(requests)
    assert cost.bytes_fetched == sum(length for _, length in requests)
    assert [(one.url, one.requests, one.bytes_fetched) for one in cost.sources] == [
        (f"memory://{n}", len(one.requests), sum(length for _, length in one.requests))
        for n, one in enumerate(made.sources)
        if one.requests
    ]
    virtual, inlined, missing = kinds_by_hand(made, selection)
    assert (cost.chunks, cost.inlined, cost.missing) == (virtual.size, inlined.size, missing.size)
    whole = 4 * int(np.prod(chunk_shape))
    if codecs:
        assert cost.bytes_needed == array.manifest.length[array.manifest.rows(virtual)].sum()
        assert cost.decoded_bytes == whole * (cost.chunks + cost.inlined)
    else:
        assert cost.bytes_needed + whole * cost.inlined == cost.decoded_bytes
        assert cost.bytes_needed <= min(cost.bytes_fetched, whole * cost.chunks)


def as_tuple(index):
    return index if isinstance(index, tuple) else (index,)


def hand_made(offset, length, source=None, codecs=()):
    """An array of chunks of 8 bytes, wherever they are."""
    count = len(offset)
    manifest = ChunkManifest.build(
        (count,),
        np.arange(count, dtype="u8"),
        np.array(offset, "u8"),
        np.array(length, "u8"),
        source=None if source is None else np.array(source, "u4"),
    )
    dtype = np.dtype("<i8")
    return VirtualArray((count,), dtype, (1,), manifest, encodings=(Encoding(codecs),))


def test_a_chunk_of_which_rows_are_read_apart_is_one_chunk():
    made = build(np.zeros((40, 60_000), "u1"), (20, 60_000))
    cost = cost_of(made.array, (slice(None), slice(10)), LOCAL, Limits(), [Source("a")])
    assert (cost.requests, cost.chunks, cost.bytes_needed) == (40, 2, 400)


def test_bytes_that_several_chunks_share_are_needed_once():
    array = hand_made([0, 0, 4, 100, 100], [8] * 5, codecs=(Codec("zlib"),))
    cost = cost_of(array, ..., LOCAL, Limits(), [Source("a", 1000)])
    assert (cost.requests, cost.bytes_fetched, cost.bytes_needed) == (1, 108, 20)


@pytest.mark.parametrize("size", [None, 500])
def test_a_request_to_the_end_of_a_source_is_counted_as_far_as_it_is_known(size):
    array = hand_made([0, 100], [8, WHOLE], codecs=(Codec("zlib"),))
    cost = cost_of(array, ..., REMOTE, Limits(), [Source("a", size)])
    assert cost.requests == 2
    assert cost.bytes_fetched == cost.bytes_needed == 8 + (0 if size is None else 400)
    assert cost.open_requests == (1 if size is None else 0)
    assert ("unknown size" in str(cost)) is (size is None)


def test_each_source_is_listed_without_its_secrets():
    array = hand_made([0, 0, 50_000_000], [8] * 3, source=[2, 0, 2])
    sources = [Source("https://a/x?sig=secret"), Source("b"), Source("https://u:p@c/z")]
    cost = cost_of(array, ..., REMOTE, Limits(), sources)
    assert [tuple(one) for one in cost.sources] == [("https://a/x", 1, 8), ("https://c/z", 2, 16)]
    assert str(cost) == "3 requests; 24 B fetched; 3 chunks of 2 sources; 24 B decoded"


def test_strings_elsewhere_are_named_as_what_cannot_be_counted(remote, server):
    reader = Reader(remote.sources)
    cost = reader.cost(remote["text"], slice(4, 8))
    assert cost.has_lookup
    assert str(cost).endswith(
        "and then the requests that look up its strings, which depend on them"
    )
    server.clear()
    assert reader.read(remote["text"], slice(4, 8))[0].startswith("name 4name 4")
    assert len(server.log) > cost.requests
    assert sum(entry.bytes_sent for entry in server.log[: cost.requests]) == cost.bytes_fetched
    assert not reader.cost(remote["packed"]).has_lookup


def test_a_group_counts_by_path(remote, server):
    server.clear()
    cost = remote.cost("/packed", (0, slice(9)))
    assert cost == Reader(remote.sources).cost(remote["packed"], (0, slice(9)))
    assert (cost.shape, cost.chunks) == ((9, 50), 1)
    assert remote.cost("scalar").requests == 1
    with pytest.raises(KeyError):
        remote.cost("/")
    with pytest.raises(KeyError):
        remote.cost("nothing")
    assert server.log == []


def test_what_a_read_would_refuse_is_refused(local):
    with pytest.raises(IndexError, match="index 60 is out of range for axis 0"):
        local.cost("packed", 60)
    with pytest.raises(LimitExceeded, match=r"archive.h5: /packed: .* the limit is 10"):
        Reader(local.sources, limits=Limits(cells=10)).cost(local["packed"], path="/packed")


def test_a_result_larger_than_memory_is_counted():
    chunk = 2**28
    offset = np.arange(2**16, dtype="u8") * np.uint64(chunk)
    manifest = ChunkManifest((2**16, 1), offset, np.full(2**16, chunk // 2, "u8"))
    encodings = (Encoding((Codec("zlib"),)),)
    shape = (2**16, chunk)
    array = VirtualArray(shape, np.dtype("u1"), (1, chunk), manifest, encodings=encodings)
    selection = (np.arange(2**16)[::-1], slice(None))
    cost = cost_of(array, selection, REMOTE, Limits(), [Source("a")])
    assert (cost.shape, cost.result_bytes, cost.chunks) == (shape, 2**44, 2**16)
    assert cost.bytes_fetched == 2**43


def test_a_large_plan_takes_no_object_for_each_chunk():
    count = 10**6
    offset = np.arange(count, dtype="u8") * 1000
    manifest = ChunkManifest((count,), offset, np.full(count, 8, "u8"))
    array = VirtualArray((count,), np.dtype("<i8"), (1,), manifest)
    calls = 0

    def count_calls(*_):
        nonlocal calls
        calls += 1

    sys.setprofile(count_calls)
    try:
        cost = cost_of(array, ..., REMOTE, Limits(), [Source("a")])
    finally:
        sys.setprofile(None)
    assert cost.chunks == count
    assert calls < 2000
