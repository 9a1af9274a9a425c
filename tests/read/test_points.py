"""Points whose positions along several axes go together: what numpy takes, and no more is read."""

from dataclasses import replace

import h5py
import numcodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byteatlas.errors import LimitExceeded, Malformed
from byteatlas.limits import Limits
from byteatlas.model import ChunkManifest, Codec, Encoding, VirtualArray
from byteatlas.read import Job, Pointwise, Reader, execute, plan_read
from byteatlas.read.costs import LOCAL, REMOTE
from byteatlas.scanning import scan
from byteatlas.sealing import seal
from byteatlas.testing import RangeServer

from .conftest import SHUFFLE_ZLIB, build

CODECS = {
    "raw": (),
    "shuffled": SHUFFLE_ZLIB,
    "deflated": (Codec("zlib", {"level": 1}),),
    "in blocks": (Codec("blosc", {"cname": "lz4", "blocksize": 64}),),
}


def taken(values, indices):
    """Return what numpy takes: the axes of the arrays first, then those of the slices."""
    indices = (*indices, *[slice(None)] * (values.ndim - len(indices)))
    along = [axis for axis, index in enumerate(indices) if not isinstance(index, slice)]
    behind = [axis for axis in range(values.ndim) if axis not in along]
    arrays = np.broadcast_arrays(*[np.asarray(indices[axis]) for axis in along])
    first = np.asarray(values.transpose(along + behind)[tuple(arrays)], values.dtype)
    whole = [slice(None)] * arrays[0].ndim
    return np.asarray(first[(*whole, *[indices[axis] for axis in behind])], values.dtype)


@st.composite
def cases(draw):
    """Draw an array that lies in chunks of any kind, and points of it."""
    rank = draw(st.integers(1, 3))
    shape = tuple(draw(st.integers(1, 13)) for _ in range(rank))
    chunk = tuple(draw(st.integers(1, size)) for size in shape)
    count = int(np.prod([-(-n // c) for n, c in zip(shape, chunk, strict=True)]))
    some = st.sets(st.integers(0, count - 1), max_size=3)
    missing = draw(some)
    made = build(
        np.arange(np.prod(shape), dtype="<f4").reshape(shape),
        chunk,
        codecs=draw(st.sampled_from(list(CODECS.values()))),
        gap=draw(st.sampled_from([0, 3, 5000])),
        sources=draw(st.integers(1, 3)),
        missing=tuple(missing),
        inlined=tuple(draw(some) - missing),
        fill_value=draw(st.sampled_from([None, np.float32(7)])),
    )
    along = draw(st.sets(st.integers(0, rank - 1), min_size=1))
    together = draw(st.sampled_from([(), (1,), (6,), (2, 3), (0,), (40,)]))
    seed = np.random.default_rng(draw(st.integers(0, 2**32)))
    indices = []
    for axis, size in enumerate(shape):
        if axis in along:
            own = tuple(draw(st.sampled_from([n, 1])) if n > 1 else n for n in together)
            indices.append(seed.integers(-size, size, size=own))
        else:
            indices.append(draw(st.slices(size)))
    return made, tuple(indices)


def read(made, indices, costs=REMOTE):
    job = Job(plan_read(made.array, Pointwise(indices), costs), made.array, "/v")
    return execute([job], made.sources.__getitem__, costs)[0]


@settings(max_examples=400, deadline=None)
@given(cases(), st.sampled_from([LOCAL, REMOTE, replace(LOCAL, request_s=0)]))
def test_points_are_those_that_numpy_takes(case, costs):
    made, indices = case
    found, expected = read(made, indices, costs), taken(made.values, indices)
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_texts_are_read_by_points():
    values = np.array([[f"{row}.{column}" for column in range(6)] for row in range(9)], object)
    made = build(np.zeros((9, 6), "<i4"), (9, 6))
    data = numcodecs.VLenUTF8().encode(values.reshape(-1))
    made.sources[0].data = bytes(data)
    manifest = replace(
        made.array.manifest,
        offset=np.zeros(1, np.uint64),
        length=np.array([len(data)], np.uint64),
    )
    array = replace(
        made.array,
        dtype=np.dtype(object),
        manifest=manifest,
        encodings=(Encoding((Codec("vlen-utf8"),)),),
    )
    indices = np.array([3, -1, 3]), np.array([5, 0, 5])
    assert read(made._replace(array=array), indices).tolist() == ["3.5", "8.0", "3.5"]


@pytest.mark.parametrize(
    ("indices", "reason"),
    [
        ((slice(None), slice(3)), "needs integers along one axis"),
        ((np.zeros(3, int), np.zeros(4, int)), "go together, but"),
        ((np.array([0.5]),), "indexed by float64"),
        ((np.array([True] * 9),), "indexed by bool"),
        ((np.array([9]),), "index 9 is out of range for axis 0 of size 9"),
        ((np.array([2**64 - 1], "u8"),), f"index {2**64 - 1} is out of range for axis 0"),
        ((0, np.array([-8])), "index -8 is out of range for axis 1 of size 7"),
        ((0, 0, 0), "3 indices for an array of 2 axes"),
    ],
)
def test_what_selects_no_points_is_refused(indices, reason):
    made = build(np.zeros((9, 7), "<f4"), (2, 3))
    with pytest.raises(IndexError, match=reason):
        read(made, indices)


def test_points_that_take_too_much_are_refused_before_they_are_counted():
    made = build(np.zeros((100, 100), "<f4"), (1, 1))
    many = np.zeros((10**6, 1), int), np.zeros((1, 10**6), int)
    with pytest.raises(LimitExceeded, match="the result of the selection"):
        plan_read(made.array, Pointwise(many), REMOTE, Limits())
    every = np.arange(100)[:, np.newaxis], np.arange(100)
    crossed = tuple(np.broadcast_arrays(*every))
    for one in (every, crossed):
        with pytest.raises(LimitExceeded, match="the number of chunks"):
            plan_read(made.array, Pointwise(one), REMOTE, Limits(cells=9_999))


@pytest.mark.parametrize("step", [1, 3, -2])
def test_an_index_with_a_dimension_of_its_own_is_planned_as_a_slice(step):
    made = build(np.arange(60 * 9 * 7, dtype="<f4").reshape(60, 9, 7), (5, 4, 7))
    places = np.array([8, 0, 3]), np.array([1, 1, 6])
    times = np.arange(60)[::step, np.newaxis]
    plan = plan_read(made.array, Pointwise((times, *places)), LOCAL)
    assert plan.axes[0].size == 3
    assert plan.axes[1].positions is None
    expected = made.values[times, places[0], places[1]]
    np.testing.assert_array_equal(read(made, (times, *places)), expected)


def test_points_of_an_array_larger_than_any_address():
    manifest = ChunkManifest.empty((2**40, 2**40))
    array = VirtualArray(
        (2**40, 2**40), np.dtype("<f4"), (1, 1), manifest, fill_value=np.float32(3)
    )
    points = Pointwise((np.array([2**40 - 1, 0]), np.array([5, 2**40 - 1])))
    assert execute([Job(plan_read(array, points, LOCAL), array, "/v")], None, LOCAL)[
        0
    ].tolist() == [3, 3]


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("archive") / "archive.h5"
    values = np.random.default_rng(0).integers(0, 1000, size=(40, 300, 400)).astype("i4")
    with h5py.File(path, "w") as file:
        file["whole"] = values
        file.create_dataset("packed", data=values, chunks=(1, 50, 50), compression=1, shuffle=True)
        file["texts"] = np.array([f"{n} " * 50 for n in range(5000)], object)
    return path, values


STATIONS = np.array([10, 290, 150, 10, -1]), np.array([399, 0, 200, 398, -1])


@pytest.mark.parametrize("name", ["whole", "packed"])
@pytest.mark.parametrize("is_sealed", [False, True])
def test_stations_are_read_over_http_as_their_cost_says(archive, name, is_sealed):
    path, values = archive
    with RangeServer(path.parent) as server:
        group = scan(server.url("archive.h5"))
        if is_sealed:
            group = seal(group)
        reader = Reader(group.sources)
        for indices in ((slice(None, None, 3), *STATIONS), (np.arange(5), *STATIONS)):
            cost = reader.cost(group[name], Pointwise(indices))
            server.clear()
            found = reader.read(group[name], Pointwise(indices))
            np.testing.assert_array_equal(found, taken(values, indices))
            assert cost.shape == found.shape
            assert len(server.log) == cost.requests
            assert server.bytes_sent == cost.bytes_fetched
            if name == "whole" and not is_sealed:
                assert cost.bytes_needed < 100_000
            if name == "packed":
                rows = 14 if isinstance(indices[0], slice) else 1
                assert cost.chunks == rows * (4 if rows > 1 else 5)


def test_few_points_of_a_large_array_fetch_little(archive):
    path, values = archive
    group = scan(path)
    reader = Reader(group.sources)
    points = Pointwise(tuple(np.array([0, n - 1]) for n in values.shape))
    cost = reader.cost(group["whole"], points)
    assert (cost.requests, cost.bytes_fetched) == (2, 8)
    assert reader.read(group["whole"], points).tolist() == [values[0, 0, 0], values[-1, -1, -1]]


def test_many_points_of_a_small_array_take_few_pieces(archive):
    path, values = archive
    group = scan(path)
    random = np.random.default_rng(1)
    indices = tuple(random.integers(0, n, 100_000) for n in values.shape)
    plan = plan_read(group["whole"], Pointwise(indices), REMOTE)
    assert plan.offset.size <= values.nbytes / REMOTE.gap * 2
    found = Reader(group.sources).read(group["whole"], Pointwise(indices))
    np.testing.assert_array_equal(found, values[indices])


def test_texts_in_the_heap_are_looked_up_for_their_points_alone(archive):
    path, _ = archive
    with RangeServer(path.parent) as server:
        group = scan(server.url("archive.h5"), max_inline=100)
        server.clear()
        indices = (np.array([[4999, 0], [7, 7]]),)
        found = Reader(group.sources).read(group["texts"], Pointwise(indices))
        assert found.tolist() == [["4999 " * 50, "0 " * 50], ["7 " * 50] * 2]
        assert server.bytes_sent < 200_000  # of 1.3 MB


def test_a_chunk_of_points_that_does_not_decode_is_named_or_filled(archive, tmp_path):
    path, values = archive
    group = scan(path)
    manifest = group["packed"].manifest
    bad = 5 * 48 + 2 * 8 + 3
    row = int(manifest.offset[bad])
    data = bytearray(path.read_bytes())
    data[row + 10 : row + 20] = bytes(10)
    (tmp_path / "bad.h5").write_bytes(data)
    group = scan(tmp_path / "bad.h5")
    points = Pointwise((np.array([5, 5, 5]), np.array([100, 100, 0]), np.array([150, 199, 0])))
    with pytest.raises(Malformed) as caught:
        Reader(group.sources).read(group["packed"], points, path="/packed")
    assert (caught.value.chunk, caught.value.offset) == ((5, 2, 3), row)
    reader = Reader(group.sources, on_error="fill-and-report")
    with pytest.warns(UserWarning, match="filled"):
        found = reader.read(group["packed"], points, path="/packed")
    assert found.tolist() == [0, 0, values[5, 0, 0]]
    assert [one.chunk for one in reader.filled] == [(5, 2, 3)]
