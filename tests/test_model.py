"""The model: what its types check, compute and hide."""

import numpy as np
import pytest

from byteatlas.errors import Inconsistent, Malformed
from byteatlas.model import (
    ByteRange,
    ChunkManifest,
    Dimension,
    Encoding,
    ScanReport,
    Source,
    VirtualArray,
    VirtualGroup,
    as_view,
)


def u8(*values):
    return np.array(values, np.uint64)


def array(shape=(4,), chunk_shape=(2,), dtype="<i4"):
    grid = tuple(-(-n // c) for n, c in zip(shape, chunk_shape, strict=True))
    return VirtualArray(shape, np.dtype(dtype), chunk_shape, ChunkManifest.empty(grid))


# Manifests.


def test_rows_are_sorted_by_chunk_index_and_all_columns_with_them():
    manifest = ChunkManifest.build(
        (5,),
        u8(3, 0, 2),
        u8(30, 0, 20),
        u8(3, 1, 2),
        source=np.array([1, 0, 2], np.uint32),
        encoding=np.array([0, 1, 0], np.uint8),
    )
    assert manifest.index.tolist() == [0, 2, 3]
    assert manifest.offset.tolist() == [0, 20, 30]
    assert manifest.length.tolist() == [1, 2, 3]
    assert manifest.source.tolist() == [0, 2, 1]
    assert manifest.encoding.tolist() == [1, 0, 0]


def test_the_index_is_dropped_where_no_chunk_is_missing():
    dense = ChunkManifest.build((2, 2), u8(3, 1, 0, 2), u8(3, 1, 0, 2), u8(9, 9, 9, 9))
    assert dense.index is None
    assert dense.offset.tolist() == [0, 1, 2, 3]
    assert ChunkManifest.build((2,), u8(1), u8(0), u8(9)).index.tolist() == [1]


def test_a_column_of_encodings_that_are_all_the_first_is_dropped():
    def build(encoding):
        column = np.array(encoding, np.uint8)
        return ChunkManifest.build((2,), u8(0, 1), u8(0, 1), u8(1, 1), encoding=column)

    assert build([0, 0]).encoding is None
    assert build([0, 1]).encoding.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("index", "problem"),
    [((1, 1), "chunk 1 is stored twice"), ((0, 4), r"chunk 4 lies outside the grid \(2, 2\)")],
)
def test_chunks_that_cannot_be_are_malformed(index, problem):
    with pytest.raises(Malformed, match=problem):
        ChunkManifest.build((2, 2), u8(*index), u8(0, 0), u8(1, 1))


def test_chunks_are_virtual_inlined_or_missing():
    manifest = ChunkManifest.build((2, 3), u8(1, 4), u8(10, 40), u8(1, 4), inline={2: b"ab"})
    assert manifest.cells == 6
    assert manifest.virtual_count == 2
    assert manifest.present_count == 3
    assert manifest.missing_count == 3
    assert manifest.rows(np.arange(6)).tolist() == [-1, 0, -1, -1, 1, -1]


def test_rows_of_a_full_manifest_are_the_chunks_themselves():
    manifest = ChunkManifest.build((3,), u8(0, 1, 2), u8(0, 1, 2), u8(1, 1, 1))
    assert manifest.rows(np.array([2, 0])).tolist() == [2, 0]


@pytest.mark.parametrize("grid", [(), (0,), (3,), (2, 0)])
def test_an_empty_manifest_has_no_row_for_any_chunk(grid):
    manifest = ChunkManifest.empty(grid)
    flat = np.arange(manifest.cells)
    assert (manifest.rows(flat) == -1).all()
    assert manifest.missing_count == manifest.cells


# Arrays.


@pytest.mark.parametrize(
    ("shape", "chunk_shape", "grid"),
    [((), (), ()), ((5,), (2,), (3,)), ((5, 0), (2, 3), (3, 0)), ((4, 4), (4, 3), (1, 2))],
)
def test_the_chunk_grid_follows_from_the_shapes(shape, chunk_shape, grid):
    made = VirtualArray(shape, np.dtype("i2"), chunk_shape, ChunkManifest.empty(grid))
    assert made.encodings == (Encoding(),)
    assert made.nbytes == np.prod(shape, dtype=int) * 2


def test_a_manifest_of_another_grid_is_refused():
    with pytest.raises(Inconsistent, match=r"chunk grid \(2,\), but the shapes give \(3,\)"):
        VirtualArray((5,), np.dtype("i2"), (2,), ChunkManifest.empty((2,)))


def test_everything_in_the_model_is_frozen():
    for item, name in [
        (array(), "shape"),
        (VirtualGroup(), "attrs"),
        (ChunkManifest.empty((1,)), "offset"),
        (Source("a.nc"), "url"),
        (Encoding(), "codecs"),
        (ScanReport(), "rounds"),
    ]:
        with pytest.raises(AttributeError):
            setattr(item, name, None)


# Groups.


@pytest.fixture
def tree():
    return VirtualGroup(
        arrays={"x": array()},
        groups={
            "b": VirtualGroup(arrays={"y": array()}),
            "a": VirtualGroup(groups={"c": VirtualGroup(arrays={"z": array(), "x": array()})}),
        },
        sources=(Source("data.nc", 100),),
        report=ScanReport(scanner="hdf5"),
    )


def test_paths_lead_to_groups_and_arrays(tree):
    assert tree["x"] is tree.arrays["x"]
    assert tree["/a/c/z"] is tree.groups["a"].groups["c"].arrays["z"]
    assert tree["a//c/"].arrays.keys() == {"z", "x"}
    assert tree[""].arrays is tree["/"].arrays is tree.arrays


@pytest.mark.parametrize("path", ["no", "x/y", "a/no/z", "a/c/z/w"])
def test_a_path_that_leads_nowhere_is_a_key_error(tree, path):
    with pytest.raises(KeyError, match=path):
        tree[path]


def test_a_group_of_the_tree_keeps_its_sources_and_report(tree):
    assert tree["a/c"].sources == tree.sources
    assert tree["a/c"].report.scanner == "hdf5"


def test_walking_meets_parents_first_and_keeps_the_order(tree):
    assert [path for path, _ in tree.walk()] == ["", "/b", "/a", "/a/c"]
    assert [path for path, _ in tree.walk_arrays()] == ["/x", "/b/y", "/a/c/z", "/a/c/x"]


def test_a_tree_of_any_depth_is_walked():
    group = VirtualGroup()
    for _ in range(5000):
        group = VirtualGroup(groups={"g": group})
    assert sum(1 for _ in group.walk()) == 5001


# Small things.


def test_a_source_shows_its_url_without_secrets():
    source = Source("https://me:word@host/a.nc?signature=s")
    assert source.public_url == "https://host/a.nc"
    assert source.url.endswith("signature=s")


def test_ranges_and_dimensions_are_named_tuples():
    assert ByteRange(3, 4) == (3, 4)
    assert Dimension(5) == (5, False)


@pytest.mark.parametrize("buffer", [b"abc", memoryview(b"abc"), np.frombuffer(b"abc", np.uint8)])
def test_any_buffer_can_be_viewed(buffer):
    view = as_view(buffer)
    assert bytes(view) == b"abc"
    assert view.ndim == 1


def test_groups_and_arrays_are_equal_to_themselves_alone() -> None:
    """Their parts are numpy arrays, whose comparison has no truth value."""
    attrs = {"valid_range": np.array([1, 2])}
    manifest = ChunkManifest.empty((1,))
    one, other = (VirtualArray((2,), np.dtype("i4"), (2,), manifest, attrs=attrs) for _ in range(2))
    assert one != other
    assert VirtualGroup(arrays={"a": one}) != VirtualGroup(arrays={"a": one})
    assert len({one, other}) == 2
