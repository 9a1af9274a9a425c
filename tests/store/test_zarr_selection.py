"""A selection that zarr took apart is put together again, or is not taken for one."""

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from byteatlas.store.zarr_selection import box_of


class Recording:
    """In place of a codec pipeline: keeps what zarr asks of it."""

    async def read(self, batch, out, drop_axes=()):
        self.batch, self.shape, self.drop_axes = list(batch), out.shape, drop_axes
        return tuple({"status": "present"} for _ in self.batch)


class Parts:
    """What zarr makes of a selection of an array."""

    def __init__(self, shape, chunks, read):
        array = zarr.create_array({}, name="a", shape=shape, chunks=chunks, dtype="u1")
        recording = Recording()
        object.__setattr__(array.async_array, "codec_pipeline", recording)
        read(array)
        self.grid = tuple(-(-n // c) for n, c in zip(shape, chunks, strict=True))
        self.chunks = chunks
        keys = [entry[0].path.removeprefix("a/c") for entry in recording.batch]
        chunks = [tuple(map(int, key.split("/")[1:])) for key in keys]
        self.flat = np.array([np.ravel_multi_index(c, self.grid) if c else 0 for c in chunks])
        self.wanted = [entry[2] for entry in recording.batch]
        self.places = [entry[3] for entry in recording.batch]
        self.shape = recording.shape

    def box(self):
        return box_of(
            self.flat,
            self.wanted,
            self.places,
            grid=self.grid,
            chunk_shape=self.chunks,
            out_shape=self.shape,
        )


@st.composite
def cases(draw):
    shape = tuple(draw(st.lists(st.integers(1, 12), min_size=0, max_size=3)))
    chunks = tuple(draw(st.integers(1, 5)) for _ in shape)
    selection = []
    for size in shape:
        if draw(st.booleans()):
            selection.append(draw(st.integers(-size, size - 1)))
        else:
            start = draw(st.integers(0, size - 1))
            stop = draw(st.integers(start + 1, size))
            selection.append(slice(start, stop, draw(st.integers(1, 7))))
    return shape, chunks, tuple(selection)


@settings(max_examples=150, deadline=None)
@given(cases())
def test_what_zarr_took_apart_is_put_together_again(case):
    shape, chunks, selection = case
    values = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    box = Parts(shape, chunks, lambda array: array[selection]).box()
    assert box is not None
    np.testing.assert_array_equal(values[box], values[selection])


@pytest.fixture
def parts():
    """A selection of 2 by 3 chunks."""
    return Parts((8, 12), (4, 5), lambda array: array[1:8:2, 2:12])


def test_the_parts_are_those_of_a_box(parts):
    assert len(parts.wanted) == 6
    assert parts.box() == (slice(1, 8, 2), slice(2, 12, 1))


def other(entry, axis, index):
    return tuple(index if at == axis else one for at, one in enumerate(entry))


BREAKS = {
    "another chunk": lambda parts: parts.flat.__setitem__(1, 5),
    "a chunk too few": lambda parts: [parts.wanted.pop(), parts.places.pop()],
    "another order": lambda parts: parts.flat.__setitem__(slice(None), parts.flat[::-1].copy()),
    "another start": lambda parts: parts.wanted.__setitem__(
        4, other(parts.wanted[4], 1, slice(1, 5, 1))
    ),
    "another step in one chunk": lambda parts: parts.wanted.__setitem__(
        0, other(parts.wanted[0], 0, slice(1, 4, 1))
    ),
    "another place": lambda parts: parts.places.__setitem__(
        3, other(parts.places[3], 0, slice(1, 3))
    ),
    "an array": lambda parts: parts.wanted.__setitem__(
        2, other(parts.wanted[2], 1, np.array([0, 1]))
    ),
    "an axis too few": lambda parts: parts.wanted.__setitem__(5, parts.wanted[5][:1]),
    "a larger result": lambda parts: setattr(parts, "shape", (4, 11)),
    "a result of more axes": lambda parts: setattr(parts, "shape", (4, 10, 1)),
    "shorter chunks": lambda parts: setattr(parts, "chunks", (3, 5)),
}


@pytest.mark.parametrize("name", BREAKS)
def test_what_is_not_exactly_a_box_is_none(parts, name):
    BREAKS[name](parts)
    assert parts.box() is None


def test_slices_that_leave_out_a_chunk_are_none():
    whole = Parts((8,), (4,), lambda array: array[:])
    whole.wanted[1], whole.places[1] = (slice(1, 4, 1),), (slice(4, 7),)
    whole.shape = (7,)
    assert whole.box() is None


def test_parts_that_go_to_each_others_places_are_none():
    whole = Parts((8,), (4,), lambda array: array[:])
    whole.places.reverse()
    assert whole.box() is None


ARRAYS = {
    "orthogonal": lambda array: array.oindex[[0, 5], :],
    "out of order": lambda array: array.oindex[:, [3, 1]],
    "with an integer": lambda array: array.oindex[[1], 2],
    "mask": lambda array: array.get_mask_selection(np.ones((8, 12), bool)),
    "coordinates": lambda array: array.vindex[[0, 5], [1, 11]],
}


@pytest.mark.parametrize("name", ARRAYS)
def test_selections_by_arrays_are_none(name):
    assert Parts((8, 12), (4, 5), ARRAYS[name]).box() is None
