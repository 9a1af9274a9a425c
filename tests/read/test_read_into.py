"""Values are decoded into memory that is handed over, straight where that can be."""

import h5py
import numpy as np
import pytest

from byteatlas.errors import ShortRead
from byteatlas.read import Reader
from byteatlas.scanning import scan


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("into") / "a.h5"
    values = np.arange(60 * 70, dtype="f4").reshape(60, 70)
    with h5py.File(path, "w") as file:
        packing = {"chunks": (16, 30), "shuffle": True, "compression": 1}
        file.create_dataset("packed", data=values, **packing)
        file.create_dataset("plain", data=values)
        file.create_dataset("sparse", (60, 70), "f4", chunks=(16, 30), fillvalue=7)
        file["sparse"][5, 5] = 1
        file["texts"] = ["ä", "b" * 50, ""]
    with h5py.File(path) as file:
        expected = {name: file[name][...] for name in ("packed", "plain", "sparse")}
    return scan(path), expected


@pytest.fixture
def reader(made):
    return Reader(made[0].sources)


SELECTIONS = {
    "all": ...,
    "slices": (slice(3, 50, 2), slice(10, 70)),
    "integer": (17,),
    "single": (3, 4),
    "backwards": (slice(None, None, -1), 5),
    "out of order": ([5, 2, 2], slice(0, 9)),
    "nothing": (slice(0, 0),),
}


LAYOUTS = {
    "contiguous": lambda shape: np.full(shape, -1, "f4"),
    "other byte order": lambda shape: np.full(shape, -1, ">f4"),
    "wider": lambda shape: np.full(shape, -1, "f8"),
    "columns first": lambda shape: np.full(shape, -1, "f4", order="F"),
    "strided": lambda shape: np.full((*shape, 3), -1, "f4")[..., 1],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("wanted", SELECTIONS)
@pytest.mark.parametrize("name", ["packed", "plain", "sparse"])
def test_values_are_those_of_a_read_without(made, reader, name, wanted, layout):
    group, expected = made
    values = expected[name][SELECTIONS[wanted]]
    out = LAYOUTS[layout](values.shape)
    (found,) = reader.read_many([(group[name], SELECTIONS[wanted], name)], out=[out])
    assert found is out
    np.testing.assert_array_equal(out, values)


@pytest.mark.parametrize("name", ["packed", "plain", "sparse"])
def test_no_other_memory_is_taken(made, reader, name, monkeypatch):
    group, expected = made
    out = np.empty((60, 70), "f4")

    def refuse(*_, **__):
        raise AssertionError("an array of the result's size is made")

    for function in ("empty", "full", "zeros"):
        real = getattr(np, function)
        monkeypatch.setattr(
            np,
            function,
            lambda shape, *given, real=real, **named: (
                refuse() if shape == (60, 70) else real(shape, *given, **named)
            ),
        )
    reader.read_many([(group[name], ..., name)], out=[out])
    monkeypatch.undo()
    np.testing.assert_array_equal(out, expected[name])


def test_several_are_read_into_their_own(made, reader):
    group, expected = made
    outs = [np.empty((60, 70), "f4"), np.empty(3, object), np.empty(60, "f8")]
    several = [
        (group["plain"], ..., ""),
        (group["texts"], ..., ""),
        (group["packed"], (slice(None), 3), ""),
    ]
    assert reader.read_many(several, out=outs) == outs
    np.testing.assert_array_equal(outs[0], expected["plain"])
    assert outs[1].tolist() == ["ä", "b" * 50, ""]
    np.testing.assert_array_equal(outs[2], expected["packed"][:, 3])


@pytest.mark.parametrize("shape", [(70, 60), (4200,), (60, 70, 1)])
def test_memory_of_another_shape_is_refused(made, reader, shape):
    with pytest.raises(ValueError, match="shape"):
        reader.read_many([(made[0]["plain"], ..., "")], out=[np.empty(shape, "f4")])


def test_memory_that_may_not_be_written_is_refused(made, reader):
    out = np.empty((60, 70), "f4")
    out.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        reader.read_many([(made[0]["plain"], ..., "")], out=[out])


def test_errors_are_those_of_a_read_without(made, tmp_path):
    path = tmp_path / "short.h5"
    with h5py.File(path, "w") as file:
        file["a"] = np.arange(1000)
    group = scan(path)
    path.write_bytes(path.read_bytes()[:5000])
    reader = Reader([type(group.sources[0])(group.sources[0].url)])
    with pytest.raises(ShortRead):
        reader.read_many([(group["a"], ..., "/a")], out=[np.empty(1000, int)])


@pytest.mark.parametrize("dtype", ["u1", "i2", "?", "M8[s]", "S2"])
def test_memory_of_another_kind_is_refused(made, reader, dtype):
    with pytest.raises(TypeError, match="Cannot cast"):
        reader.read_many([(made[0]["plain"], ..., "")], out=[np.empty((60, 70), dtype)])


@pytest.mark.parametrize("count", [0, 2])
def test_as_many_arrays_are_given_as_are_read(made, reader, count):
    outs = [np.empty((60, 70), "f4")] * count
    with pytest.raises(ValueError, match=f"{count} arrays are given for the values of 1"):
        reader.read_many([(made[0]["plain"], ..., "")], out=outs)
