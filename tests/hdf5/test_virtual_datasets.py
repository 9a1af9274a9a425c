"""Virtual datasets: what h5py reads through them, we read from their sources' chunks, or refuse."""

import random
import struct
from functools import partial

import h5py
import numpy as np
import pytest
import zarr

import byteatlas
from byteatlas.errors import ByteatlasError
from byteatlas.others import MAX_DEPTH
from byteatlas.read import Reader
from byteatlas.testing.server import RangeServer
from byteatlas_scanners.hdf5.checksum import lookup3

SHAPE = (4, 6)
UNLIMITED = h5py.h5s.UNLIMITED

scan = partial(byteatlas.scan, engine="native")


def values(number, shape=SHAPE, dtype="<i4"):
    return (np.arange(np.prod(shape)) + 100 * number).reshape(shape).astype(dtype)


def write_source(folder, number, shape=SHAPE, *, name="data", dtype="<i4", **options):
    with h5py.File(folder / f"s{number}.h5", "a") as file:
        file.create_dataset(name, data=values(number, shape, dtype), **options)


def write_virtual(folder, layout, *, fillvalue=None, name="v", libver="latest", file="vds.h5"):
    with h5py.File(folder / file, "a", libver=libver) as root:
        root.create_virtual_dataset(name, layout, fillvalue=fillvalue)
    return folder / file


def stacked(folder, count=3, shape=SHAPE, extra=0, dtype="<i4", **options):
    """Write datasets that are stacked along a new first axis."""
    layout = h5py.VirtualLayout((count + extra, *shape), dtype)
    for number in range(count):
        write_source(folder, number, shape, dtype=dtype, **options)
        layout[number] = h5py.VirtualSource(f"s{number}.h5", "data", shape)
    return layout


def numbered(folder, placed, taken, name=b"s%b.h5", *, path=b"data", shape=None, limit=None):
    """Write a virtual dataset of one unlimited mapping."""
    shape = shape or (0, *SHAPE)
    limit = limit or (UNLIMITED, *shape[1:])
    with h5py.File(folder / "vds.h5", "a", libver="latest") as file:
        space = h5py.h5s.create_simple(shape, limit)
        space.select_hyperslab(*placed[:2], placed[2], placed[3])
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_virtual(space, name, path, taken)
        h5py.h5d.create(file.id, b"v", h5py.h5t.STD_I32LE, space, plist)
    return folder / "vds.h5"


@pytest.fixture
def equal(difference):
    """Return a function that scans a file and compares one array with h5py."""

    def compare(path, name="v", **options):
        group = scan(path, **options)
        assert group.report.skipped == ()
        with h5py.File(path) as file:
            ours = Reader(group.sources).read(group[name])
            assert difference(ours, file[name][...]) is None
        return group

    return compare


def reason(path, name="v", **options):
    """Return why a dataset is skipped."""
    group = scan(path, **options)
    assert name not in group.arrays
    return dict(group.report.skipped)[f"/{name}"]


# Layouts


@pytest.mark.parametrize("libver", ["latest", "v108"])
@pytest.mark.parametrize(
    "options",
    [{}, {"chunks": SHAPE}, {"chunks": (2, 3), "compression": "gzip", "shuffle": True}],
    ids=["contiguous", "one chunk", "deflate"],
)
def test_files_stacked_on_a_new_axis_are_virtual(tmp_path, equal, options, libver):
    group = equal(write_virtual(tmp_path, stacked(tmp_path, **options), libver=libver))
    array = group.arrays["v"]
    assert array.chunk_shape == (1, *options.get("chunks", SHAPE))
    assert array.manifest.missing_count == 0
    assert not array.manifest.inline
    assert [source.url.rpartition("/")[2] for source in group.sources] == [
        "vds.h5", "s0.h5", "s1.h5", "s2.h5"
    ]  # fmt: skip


def test_what_no_mapping_covers_is_the_fill_value(tmp_path, equal):
    layout = stacked(tmp_path, extra=2, chunks=(2, 3), compression="gzip")
    array = equal(write_virtual(tmp_path, layout, fillvalue=-5)).arrays["v"]
    assert array.manifest.missing_count == 2 * 4
    assert array.fill_value == -5


def test_chunks_of_sources_that_were_never_written_keep_their_own_fill_value(tmp_path, equal):
    layout = stacked(tmp_path, 1, extra=1, chunks=(2, 3), compression="gzip")
    with h5py.File(tmp_path / "s0.h5", "w") as file:
        one = file.create_dataset("data", SHAPE, "<i4", chunks=(2, 3), fillvalue=7)
        one[:2, :3] = 1
    group = equal(write_virtual(tmp_path, layout, fillvalue=-5))
    assert len(group.arrays["v"].manifest.inline) == 3
    assert group.arrays["v"].manifest.missing_count == 4
    same = equal(write_virtual(tmp_path, layout, fillvalue=7, file="same.h5"))
    assert same.arrays["v"].manifest.inline == {}


def test_files_concatenated_along_the_first_axis_are_virtual(tmp_path, equal):
    layout, at = h5py.VirtualLayout((11, 6), "<i4"), 0
    for number, rows in enumerate((4, 4, 3)):
        write_source(tmp_path, number, (rows, 6), chunks=(2, 6), compression="gzip")
        layout[at : at + rows] = h5py.VirtualSource(f"s{number}.h5", "data", (rows, 6))
        at += rows
    assert equal(write_virtual(tmp_path, layout)).arrays["v"].chunk_shape == (2, 6)


def test_contiguous_files_of_several_lengths_are_cut_into_rows(tmp_path, equal):
    layout, at = h5py.VirtualLayout((13, 6), "<i4"), 0
    for number, rows in enumerate((4, 6, 3)):
        write_source(tmp_path, number, (rows, 6))
        layout[at : at + rows] = h5py.VirtualSource(f"s{number}.h5", "data", (rows, 6))
        at += rows
    assert equal(write_virtual(tmp_path, layout)).arrays["v"].chunk_shape == (1, 6)


def test_contiguous_sources_are_cut_to_max_chunk_but_no_further(tmp_path, equal):
    layout = stacked(tmp_path, shape=(8, 6))
    group = equal(write_virtual(tmp_path, layout), max_chunk=2 * 24)
    assert group.arrays["v"].chunk_shape == (1, 2, 6)
    assert equal(tmp_path / "vds.h5").arrays["v"].chunk_shape == (1, 8, 6)


def test_a_partial_chunk_in_the_middle_is_refused_where_it_is_encoded(tmp_path, equal):
    layout = h5py.VirtualLayout((7, 6), "<i4")
    for number, (at, rows) in enumerate(((0, 3), (3, 4))):
        write_source(tmp_path, number, (rows, 6), chunks=(2, 6), compression="gzip")
        layout[at : at + rows] = h5py.VirtualSource(f"s{number}.h5", "data", (rows, 6))
    why = reason(write_virtual(tmp_path, layout))
    assert "'data' in 's0.h5': its positions 0 to 3 along axis 0 are shown from 0" in why


def test_frames_that_take_turns_are_virtual(tmp_path, equal):
    layout = h5py.VirtualLayout((12, 4, 6), "<i4")
    for number in range(3):
        write_source(tmp_path, number, (4, 4, 6), chunks=(1, 4, 6), compression="gzip")
        layout[number::3] = h5py.VirtualSource(f"s{number}.h5", "data", (4, 4, 6))
    assert equal(write_virtual(tmp_path, layout)).arrays["v"].manifest.virtual_count == 12


def test_one_index_of_a_source_is_virtual_where_chunks_allow_it(tmp_path, equal):
    write_source(tmp_path, 0, (5, 4, 6), name="chunked", chunks=(1, 4, 6), compression="gzip")
    write_source(tmp_path, 0, (5, 4, 6), name="contiguous")
    write_source(tmp_path, 0, (5, 4, 6), name="thick", chunks=(2, 4, 6), compression="gzip")
    for name in ("chunked", "contiguous", "thick"):
        layout = h5py.VirtualLayout(SHAPE, "<i4")
        layout[...] = h5py.VirtualSource("s0.h5", name, (5, 4, 6))[3]
        path = write_virtual(tmp_path, layout, name=name, file=f"{name}.h5")
        if name != "thick":
            equal(path, name)
    assert "has chunks of (2, 4, 6), where (1, 4, 6) are needed" in reason(path, "thick")


def test_tiles_of_a_mosaic_are_virtual(tmp_path, equal):
    layout = h5py.VirtualLayout((8, 12), "<i4")
    for number in range(4):
        write_source(tmp_path, number, chunks=(2, 3), compression="gzip")
        y, x = divmod(number, 2)
        source = h5py.VirtualSource(f"s{number}.h5", "data", SHAPE)
        layout[4 * y : 4 * y + 4, 6 * x : 6 * x + 6] = source
    equal(write_virtual(tmp_path, layout))


def test_mappings_that_overlap_are_refused(tmp_path):
    layout = stacked(tmp_path)
    layout[1] = h5py.VirtualSource("s2.h5", "data", SHAPE)
    assert "several parts are shown in the same place" in reason(write_virtual(tmp_path, layout))


def test_sources_of_other_types_are_refused(tmp_path):
    layout = stacked(tmp_path)
    (tmp_path / "s1.h5").unlink()
    write_source(tmp_path, 1, dtype="<i8")
    assert "has values of type int64, not int32" in reason(write_virtual(tmp_path, layout))


def test_sources_of_different_compression_are_read_by_byteatlas(tmp_path, equal):
    layout = stacked(tmp_path, chunks=SHAPE, compression="gzip", compression_opts=1)
    for number, more in ((0, {"shuffle": True}), (2, {"compression_opts": 9})):
        (tmp_path / f"s{number}.h5").unlink()
        write_source(tmp_path, number, chunks=SHAPE, compression="gzip", **more)
    array = equal(write_virtual(tmp_path, layout)).arrays["v"]
    # The most common one comes first; levels make no difference.
    assert [len(encoding.codecs) for encoding in array.encodings] == [1, 2]
    assert array.manifest.encoding.tolist() == [1, 0, 0]


def test_compact_sources_and_texts_are_inlined(tmp_path, equal):
    layout = h5py.VirtualLayout((3, 3), h5py.string_dtype())
    for number in range(2):
        with h5py.File(tmp_path / f"s{number}.h5", "w") as file:
            texts = [f"{number} {place}" for place in range(3)]
            file.create_dataset("data", data=texts, dtype=h5py.string_dtype())
        layout[number] = h5py.VirtualSource(f"s{number}.h5", "data", (3,))
    equal(write_virtual(tmp_path, layout))


def test_sources_in_the_same_file_cost_nothing(tmp_path, equal):
    path = tmp_path / "vds.h5"
    with h5py.File(path, "w", libver="latest") as file:
        layout = h5py.VirtualLayout((3, *SHAPE), "<i4")
        for number in range(3):
            file[f"raw/d{number}"] = values(number)
            layout[number] = h5py.VirtualSource(".", f"/raw/d{number}", SHAPE)
        file.create_virtual_dataset("v", layout)
        again = h5py.VirtualLayout((2, 3, *SHAPE), "<i4")
        again[0] = h5py.VirtualSource(".", "v", (3, *SHAPE))
        file.create_virtual_dataset("of virtual", again, fillvalue=3)
    group = equal(path)
    assert len(group.sources) == 1
    assert group.report.requests == 1
    equal(path, "of virtual")


def test_contiguous_sources_in_the_same_file_are_cut_as_a_whole(tmp_path, equal):
    with h5py.File(tmp_path / "vds.h5", "w") as file:
        layout = h5py.VirtualLayout((100, 6), "<i4")
        for name, rows in (("a", slice(0, 60)), ("b", slice(60, 100))):
            shape = (rows.stop - rows.start, 6)
            file[name] = values(rows.start, shape)
            layout[rows] = h5py.VirtualSource(".", name, shape)
        file.create_virtual_dataset("v", layout)
    group = equal(tmp_path / "vds.h5", max_chunk=24 * 50)
    assert group.arrays["a"].chunk_shape == (30, 6)
    assert group.arrays["v"].chunk_shape == (20, 6)


def test_sources_are_found_through_links(tmp_path, equal):
    write_source(tmp_path, 0)
    with h5py.File(tmp_path / "vds.h5", "w") as file:
        file["frames"] = h5py.ExternalLink("s0.h5", "/")
        file["soft"] = h5py.SoftLink("/frames/data")
        layout = h5py.VirtualLayout((2, *SHAPE), "<i4")
        layout[0] = h5py.VirtualSource(".", "frames/data", SHAPE)
        layout[1] = h5py.VirtualSource(".", "soft", SHAPE)
        file.create_virtual_dataset("v", layout)
    group = scan(tmp_path / "vds.h5")
    with h5py.File(tmp_path / "vds.h5") as file:
        assert (Reader(group.sources).read(group["v"]) == file["v"][...]).all()
    assert {path for path, _ in group.report.skipped} == {"/frames", "/soft"}


def test_virtual_datasets_of_virtual_datasets_are_followed(tmp_path, equal):
    write_virtual(tmp_path, stacked(tmp_path), file="inner.h5", name="data")
    layout = h5py.VirtualLayout((2, 3, *SHAPE), "<i4")
    layout[0] = h5py.VirtualSource("inner.h5", "data", (3, *SHAPE))
    group = equal(write_virtual(tmp_path, layout, fillvalue=1))
    # The file between them holds no values.
    assert len(group.sources) == 4


def test_random_mappings_are_equal_or_refused(tmp_path, difference):
    """Blocks of any sizes at any distances, over chunks of any sizes."""
    rng, outcomes = random.Random(5), {"equal": 0, "refused": 0}

    def some(count, room):
        step = rng.choice([n for n in (1, 2, 3) if 1 + (count - 1) * n <= room])
        first = rng.randrange(room - (count - 1) * step)
        return slice(first, first + (count - 1) * step + 1, step)

    for number in range(120):
        shape = tuple(rng.choice((1, 4, 6)) for _ in range(rng.choice((1, 2))))
        large = tuple(n + rng.randrange(4) for n in shape)
        chunks = rng.choice((None, tuple(min(rng.choice((1, 2, n)), n) for n in large)))
        packed = {"compression": "gzip"} if chunks and rng.random() < 0.7 else {}
        name = f"s{number}.h5"
        with h5py.File(tmp_path / name, "w") as file:
            file.create_dataset("data", data=values(number, large), chunks=chunks, **packed)
        layout = h5py.VirtualLayout(large, "<i4")
        source = h5py.VirtualSource(name, "data", large)
        taken = tuple(map(some, shape, large))
        placed = taken if rng.random() < 0.4 else tuple(map(some, shape, large))
        layout[placed] = source[taken]
        libver = rng.choice(("latest", "v108"))
        path = write_virtual(tmp_path, layout, fillvalue=-1, file=f"v{number}.h5", libver=libver)
        group = scan(path, max_chunk=rng.choice((8, 64, 2**20)))
        if "v" not in group.arrays:
            outcomes["refused"] += 1
            continue
        outcomes["equal"] += 1
        with h5py.File(path) as file:
            ours = Reader(group.sources).read(group["v"])
            assert difference(ours, file["v"][...]) is None, (taken, placed, chunks)
    assert min(outcomes.values()) > 10, outcomes


# Extents that follow from the sources


@pytest.mark.parametrize("stored", [0, 3, 5])
def test_numbered_files_count_up_to_the_last_there_is(tmp_path, equal, stored):
    for number in range(5):
        write_source(tmp_path, number, chunks=SHAPE, compression="gzip")
    placed = ((0, 0, 0), (UNLIMITED, 1, 1), (1, 1, 1), (1, *SHAPE))
    path = numbered(tmp_path, placed, h5py.h5s.create_simple(SHAPE), shape=(stored, *SHAPE))
    group = equal(path)
    assert group.arrays["v"].shape == (5, *SHAPE)
    assert group.dimensions["phony_dim_0"].size == 5


def test_many_numbered_files_are_looked_for_in_few_rounds(tmp_path):
    for number in range(40):
        write_source(tmp_path, number, (2,))
    placed = ((0, 0), (UNLIMITED, 1), (1, 1), (1, 2))
    numbered(tmp_path, placed, h5py.h5s.create_simple((2,)), shape=(0, 2))
    with RangeServer(tmp_path) as server:
        group = scan(server.url("vds.h5"))
        assert group.arrays["v"].shape == (40, 2)
        # The file, then 16, 16 and 32 names more, of which 40 exist.
        assert group.report.rounds == 4
        assert len(server.log) == 1 + 64


def test_numbered_datasets_of_one_file_are_virtual(tmp_path, equal):
    for number in range(20):
        write_source(tmp_path, 0, name=f"d{number}")
    placed = ((0, 0, 0), (UNLIMITED, 1, 1), (1, 1, 1), (1, *SHAPE))
    taken = h5py.h5s.create_simple(SHAPE)
    path = numbered(tmp_path, placed, taken, b"s0.h5", path=b"d%b")
    assert equal(path).arrays["v"].shape == (20, *SHAPE)


@pytest.mark.parametrize("broken", [b"not HDF5", b"\x89HDF\r\n\x1a\n" + bytes(100)])
def test_a_numbered_file_that_cannot_be_read_is_not_the_end(tmp_path, broken):
    for number in range(3):
        write_source(tmp_path, number)
    (tmp_path / "s1.h5").write_bytes(broken)
    placed = ((0, 0, 0), (UNLIMITED, 1, 1), (1, 1, 1), (1, *SHAPE))
    path = numbered(tmp_path, placed, h5py.h5s.create_simple(SHAPE))
    assert "'data' in 's1.h5'" in reason(path)


def test_numbered_files_with_gaps_between_their_blocks_are_virtual(tmp_path, equal):
    for number in range(3):
        write_source(tmp_path, number, (2, 6))
    placed = ((1, 0), (UNLIMITED, 1), (3, 1), (2, 6))
    path = numbered(tmp_path, placed, h5py.h5s.create_simple((2, 6)), shape=(0, 6))
    assert equal(path).arrays["v"].shape == (9, 6)


def test_a_dataset_that_has_become_shorter_is_refused(tmp_path):
    for number in (0, 2):
        write_source(tmp_path, number)
    placed = ((0, 0, 0), (UNLIMITED, 1, 1), (1, 1, 1), (1, *SHAPE))
    path = numbered(tmp_path, placed, h5py.h5s.create_simple(SHAPE), shape=(3, *SHAPE))
    with h5py.File(path) as file:
        assert file["v"].shape[0] == 1  # libhdf5 stops at the first file that is missing
    assert "reach up to 1 along axis 0, and it was written with 3" in reason(path)


@pytest.mark.parametrize("rows", [0, 1, 4, 7])
def test_a_source_that_grows_makes_its_virtual_dataset_grow(tmp_path, equal, rows):
    write_source(tmp_path, 0, (rows, 6), chunks=(1, 6), maxshape=(None, 6), compression="gzip")
    taken = h5py.h5s.create_simple((4, 6), (UNLIMITED, 6))
    taken.select_hyperslab((0, 0), (UNLIMITED, 1), (1, 1), (1, 6))
    placed = ((0, 0), (UNLIMITED, 1), (2, 1), (1, 6))
    path = numbered(tmp_path, placed, taken, b"s0.h5", shape=(0, 6))
    assert equal(path).arrays["v"].shape == (max(2 * rows - 1, 0), 6)


def test_a_dataset_without_any_of_its_numbered_files_is_empty_or_refused(tmp_path, equal):
    placed = ((0, 0, 0), (UNLIMITED, 1, 1), (1, 1, 1), (1, *SHAPE))
    path = numbered(tmp_path, placed, h5py.h5s.create_simple(SHAPE))
    assert equal(path).arrays["v"].shape == (0, *SHAPE)
    path.unlink()
    path = numbered(tmp_path, placed, h5py.h5s.create_simple(SHAPE), shape=(3, *SHAPE))
    assert "reach up to 0" in reason(path)


def test_a_source_that_ends_within_the_first_block_is_refused_as_libhdf5_does(tmp_path):
    write_source(tmp_path, 0, (2, 6))
    taken = h5py.h5s.create_simple((2, 6), (UNLIMITED, 6))
    taken.select_hyperslab((0, 0), (UNLIMITED, 1), (4, 1), (3, 6))
    placed = ((0, 0), (UNLIMITED, 1), (3, 1), (3, 6))
    path = numbered(tmp_path, placed, taken, b"s0.h5", shape=(0, 6))
    with h5py.File(path) as file, pytest.raises(OSError, match="different number of elements"):
        file["v"][...]
    assert "ends within the first block" in reason(path)


def test_random_unlimited_mappings_are_equal_or_refused(tmp_path, difference):
    rng, outcomes = random.Random(8), {"equal": 0, "refused": 0}
    for number in range(150):
        folder = tmp_path / str(number)
        folder.mkdir()
        block, start = rng.choice((1, 1, 2, 3)), rng.choice((0, 0, 1))
        placed = ((start, 0), (UNLIMITED, 1), (block + rng.choice((0, 0, 1, 2)), 1), (block, 4))
        stored = (rng.choice((0, 0, 1, 3)), 4)
        packed = {"chunks": (rng.choice((1, 1, 2)), 4), "compression": rng.choice((None, "gzip"))}
        if rng.random() < 0.5:
            rows = rng.randrange(8)
            write_source(folder, 0, (rows, 4), maxshape=(None, 4), **packed)
            taken = h5py.h5s.create_simple((rows, 4), (UNLIMITED, 4))
            size = rng.choice((1, block))
            first = rng.choice((0, 0, 1)), 0
            taken.select_hyperslab(
                first, (UNLIMITED, 1), (size + rng.choice((0, 0, 1)), 1), (size, 4)
            )
            path = numbered(folder, placed, taken, b"s0.h5", shape=stored)
        else:
            for source in range(rng.randrange(5)):
                options = packed if block > 1 and rng.random() < 0.5 else {}
                write_source(folder, source, (block, 4), **options)
            path = numbered(folder, placed, h5py.h5s.create_simple((block, 4)), shape=stored)
        group = scan(path)
        if "v" not in group.arrays:
            outcomes["refused"] += 1
            continue
        outcomes["equal"] += 1
        with h5py.File(path) as file:
            ours = Reader(group.sources).read(group["v"])
            assert difference(ours, file["v"][...]) is None
    assert min(outcomes.values()) > 10, outcomes


# Sources that cannot be had


def test_a_missing_source_is_a_reason_and_never_the_fill_value(tmp_path):
    path = write_virtual(tmp_path, stacked(tmp_path), fillvalue=9)
    (tmp_path / "s1.h5").unlink()
    assert "'data' in 's1.h5'" in reason(path)
    assert "s1.h5" in reason(path, engine="auto")
    with h5py.File(path) as file:
        assert (file["v"][1] == 9).all()


def test_a_source_without_the_dataset_is_a_reason(tmp_path):
    path = write_virtual(tmp_path, stacked(tmp_path))
    with h5py.File(tmp_path / "s1.h5", "w") as file:
        file["other"] = 1
    assert "'data' in 's1.h5': there is no such dataset" in reason(path)


def test_a_source_that_is_refused_gives_its_own_reason(tmp_path):
    path = write_virtual(tmp_path, stacked(tmp_path))
    (tmp_path / "s1.h5").write_bytes(b"no HDF5 file")
    assert "s1.h5: no scanner recognises" in reason(path)


def test_a_source_that_became_smaller_is_refused(tmp_path):
    path = write_virtual(tmp_path, stacked(tmp_path))
    (tmp_path / "s1.h5").unlink()
    write_source(tmp_path, 1, (3, 6))
    assert "'data' in 's1.h5'" in reason(path)


@pytest.mark.parametrize("engine", ["native", "auto"])
def test_sources_outside_the_directory_need_permission(tmp_path, equal, engine):
    inside = tmp_path / "inside"
    inside.mkdir()
    write_source(tmp_path, 0)
    (inside / "link.h5").symlink_to(tmp_path / "s0.h5")
    for name in ("../s0.h5", str(tmp_path / "s0.h5"), "link.h5", "../inside/../s0.h5"):
        layout = h5py.VirtualLayout((2, *SHAPE), "<i4")
        layout[0] = h5py.VirtualSource(name, "data", SHAPE)
        (inside / "vds.h5").unlink(missing_ok=True)
        path = write_virtual(inside, layout)
        why = reason(path, engine=engine)
        assert f"pass allow=['{tmp_path}/'] (--allow {tmp_path}/)" in why
        equal(path, allow=[f"{tmp_path}/"], engine=engine)
        assert reason(path, engine=engine, allow=[f"{tmp_path}/insid", "/tmp/nowhere"])


def test_sources_below_the_directory_need_none(tmp_path, equal):
    (tmp_path / "raw").mkdir()
    write_source(tmp_path / "raw", 0)
    for name in ("raw/s0.h5", "./raw/../raw/s0.h5", str(tmp_path / "raw" / "s0.h5")):
        layout = h5py.VirtualLayout((1, *SHAPE), "<i4")
        layout[0] = h5py.VirtualSource(name, "data", SHAPE)
        (tmp_path / "vds.h5").unlink(missing_ok=True)
        equal(write_virtual(tmp_path, layout))


def test_files_that_were_moved_together_are_found_by_their_last_part(tmp_path, equal):
    layout = h5py.VirtualLayout((1, *SHAPE), "<i4")
    layout[0] = h5py.VirtualSource("/nowhere/else/s0.h5", "data", SHAPE)
    write_source(tmp_path, 0)
    equal(write_virtual(tmp_path, layout))


def test_environment_variables_of_libhdf5_change_nothing(tmp_path, monkeypatch, equal):
    path = write_virtual(tmp_path, stacked(tmp_path))
    monkeypatch.setenv("HDF5_VDS_PREFIX", "/nowhere")
    monkeypatch.chdir("/")
    group = scan(path)
    assert Reader(group.sources).read(group["v"])[2].tolist() == values(2).tolist()


# Remote


@pytest.fixture
def served(tmp_path):
    write_virtual(tmp_path, stacked(tmp_path, 12, chunks=(2, 3), compression="gzip"))
    with RangeServer(tmp_path) as server:
        yield server


def test_remote_sources_are_scanned_together(served, tmp_path):
    group = scan(served.url("vds.h5"))
    assert group.report.rounds == 2
    assert group.report.requests == len(served.log) == 13
    assert [source.url for source in group.sources] == [
        served.url(name) for name in ["vds.h5", *(f"s{number}.h5" for number in range(12))]
    ]
    assert all(source.etag for source in group.sources)
    with h5py.File(tmp_path / "vds.h5") as file:
        assert (Reader(group.sources).read(group["v"]) == file["v"][...]).all()


def test_remote_names_stay_below_the_directory_of_their_source(tmp_path):
    inside = tmp_path / "a b"
    inside.mkdir()
    write_source(tmp_path, 0)
    with RangeServer(tmp_path) as server:
        for name in ("../s0.h5", "/etc/../s0.h5", "http://127.0.0.1:1/s0.h5", "../../s0.h5"):
            layout = h5py.VirtualLayout((1, *SHAPE), "<i4")
            layout[0] = h5py.VirtualSource(name, "data", SHAPE)
            (inside / "vds.h5").unlink(missing_ok=True)
            write_virtual(inside, layout)
            server.log.clear()
            why = reason(server.url("a b/vds.h5"))
            asked = {entry.path for entry in server.log}
            assert asked <= {"/a%20b/vds.h5", "/a%20b/s0.h5"}, name
            if name == "../s0.h5":
                prefix = server.url("")
                assert f"pass allow=['{prefix}']" in why
                group = scan(server.url("a b/vds.h5"), allow=[prefix])
                assert group.arrays["v"].shape == (1, *SHAPE)


def test_strange_remote_names_are_one_file_each(tmp_path):
    names = ["50%.h5", "a?b=c.h5", "a#b.h5", "ü.h5"]
    layout = h5py.VirtualLayout((len(names), *SHAPE), "<i4")
    for number, name in enumerate(names):
        write_source(tmp_path, number)
        (tmp_path / f"s{number}.h5").rename(tmp_path / name)
        layout[number] = h5py.VirtualSource(name.replace("%", "%%"), "data", SHAPE)
    path = write_virtual(tmp_path, layout)
    with RangeServer(tmp_path) as server:
        group = scan(server.url("vds.h5") + "?token=1")
        with h5py.File(path) as file:
            assert (Reader(group.sources).read(group["v"]) == file["v"][...]).all()
        assert all(entry.path.endswith("?token=1") for entry in server.log)


def test_headers_go_to_the_sources_too(served):
    scan(served.url("vds.h5"), storage_options={"headers": {"X-Key": "1"}})
    assert len(served.log) == 13
    assert all(entry.headers.get("x-key") == "1" for entry in served.log)


# What else is done with an index of several sources


@pytest.fixture
def several(tmp_path):
    return write_virtual(tmp_path, stacked(tmp_path, extra=1, dtype=">f4"), fillvalue=-1)


def test_an_index_of_several_sources_is_read_back_and_verified(several, tmp_path, difference):
    group = scan(several)
    for zarr_format in (2, 3):
        index = tmp_path / f"index{zarr_format}.json"
        group.to_json(index, zarr_format=zarr_format)
        again = byteatlas.open_index(index)
        assert again.sources == group.sources
        report = byteatlas.verify(index, sample=None)
        assert report.is_equal
        assert [one.path for one in report.checked] == ["/v"]
        assert report.skipped == ()
    assert "4 sources" in repr(group)


def test_verifying_tells_of_a_source_that_changed(several, tmp_path):
    group = scan(several)
    (tmp_path / "s1.h5").unlink()
    write_source(tmp_path, 1, (7, 6))
    assert not byteatlas.verify(group).is_equal


def test_several_remote_sources_are_not_compared_with_fill_values(several, tmp_path):
    with RangeServer(tmp_path) as server:
        report = byteatlas.verify(scan(server.url("vds.h5")))
    assert report.is_equal
    assert report.checked == ()
    ((path, why),) = report.skipped
    assert path == "/v"
    assert "h5py cannot reach" in why


def test_other_readers_and_xarray_see_the_same_values(several, tmp_path):
    group = scan(several)
    with h5py.File(several) as file:
        expected = file["v"][...]
    index = tmp_path / "index.json"
    group.to_json(index)
    ours = byteatlas.open_dataset(index)["v"]
    assert (ours.values == expected).all()
    store = byteatlas.open_store(index)
    assert (zarr.open_group(store, mode="r")["v"][...] == expected).all()
    options = {"fo": str(index), "remote_protocol": "file", "asynchronous": True}
    theirs = zarr.open_group("reference://", mode="r", storage_options=options, zarr_format=2)
    assert (theirs["v"][...] == expected).all()


# Hostile files


def mapping_block(entries, version=0):
    """Return a list of mappings as it is stored."""
    block = bytes([version]) + struct.pack("<Q", len(entries)) + b"".join(entries)
    return block + struct.pack("<I", lookup3(block))


def entry(name=b".", path=b"v", taken=None, placed=None):
    everything = struct.pack("<II8x", 3, 1)
    return name + b"\0" + path + b"\0" + (taken or everything) + (placed or everything)


def regular(*axes):
    """Return a hyperslab of (start, stride, count, block) along each axis."""
    head = struct.pack("<IIBII", 2, 2, 1, 0, len(axes))
    return head + b"".join(struct.pack("<4Q", *axis) for axis in axes)


def blocks(count, *numbers, rank=1):
    head = struct.pack("<IIIIII", 2, 1, 0, 0, rank, count)
    return head + struct.pack(f"<{len(numbers)}I", *numbers)


def forged(folder, block):
    """Write a virtual dataset whose list of mappings is replaced by another one."""
    path = folder / "vds.h5"
    with h5py.File(path, "w", libver="latest") as file:
        file["x"] = np.arange(8)
        layout = h5py.VirtualLayout((8,), "<i8")
        count = max(len(block) // 60, 1)
        for number in range(count):
            layout[number % 8] = h5py.VirtualSource(".", f"source {number:050}", (8,))[number % 8]
        file.create_virtual_dataset("v", layout)
    data = bytearray(path.read_bytes())
    collection = data.index(b"GCOL")
    size = int.from_bytes(data[collection + 24 : collection + 32], "little")
    assert len(block) <= size
    data[collection + 32 : collection + 32 + len(block)] = block
    data[collection + 24 : collection + 32] = len(block).to_bytes(8, "little")
    rest = collection + 32 + -(-len(block) // 8) * 8
    data[rest : rest + 16] = bytes(16)  # the free space
    path.write_bytes(data)
    return path


U8 = 2**64 - 1


@pytest.mark.parametrize(
    ("taken", "placed", "why"),
    [
        (None, None, "refers back to it"),
        (regular((0, 1, 2**62, 1)), regular((0, 1, 2**62, 1)), "beyond it"),
        (regular((0, 2**40, 2**22, 1)), regular((0, 2**40, 2**22, 1)), "selection of 4194304"),
        (regular((2**63, 1, 1, 1)), None, "a selection up to"),
        (regular((0, 1, 8, 2)), None, "blocks of 2 every 1"),
        (regular((0, 0, 2, 1)), None, "every 0"),
        (regular((0, 1, 8, 1), (0, 1, 1, 1)), None, "reaches beyond"),
        (None, regular((0, 1, 8, 1), (0, 1, 1, 1)), "a mapping of rank 2"),
        (regular((0, 1, U8, 1)), None, "shown as a limited one"),
        (None, regular((0, 1, U8, 1)), "a source that is limited"),
        (blocks(2, 5, 6, 0, 1), None, "[4] elements are shown as"),
        (blocks(1, 5, 2), None, "end before they begin"),
        (blocks(2**31, 1, 2), None, "beyond the end of its block"),
        (blocks(2, 0, 3, 2, 6), None, "irregular"),
        (struct.pack("<IIIIII", 1, 1, 0, 8, 1, 1) + bytes(4), None, "single points"),
        (struct.pack("<II", 77, 1), None, "type 77"),
        (struct.pack("<IIBBI", 2, 3, 1, 77, 1), None, "77 bytes"),
        (struct.pack("<IIBBI", 2, 3, 1, 8, 10**6), None, "rank 1000000"),
    ],
)
def test_selections_that_lie_are_refused(tmp_path, within, taken, placed, why):
    path = b"v" if taken is placed is None else b"x"
    with within(5):
        found = reason(forged(tmp_path, mapping_block([entry(b".", path, taken, placed)])))
    assert why in found


@pytest.mark.parametrize(
    ("block", "why"),
    [
        (b"\0" + struct.pack("<Q", 10**6) + bytes(4), "checksum"),
        (mapping_block([entry()] * 2)[:-4] + bytes(4), "checksum"),
        (mapping_block([], 2), "a list of mappings of version 2"),
        (mapping_block([b"\1" + struct.pack("<Q", 7) + entry()[2:]], 1), "list index"),
        (mapping_block([b"\xff\xfe\0" + entry()[2:]]), "not in UTF-8"),
        (mapping_block([b"x" * 50]), "a name without end"),
    ],
    ids=["count", "checksum", "version", "shared name", "not UTF-8", "endless"],
)
def test_lists_that_lie_are_refused(tmp_path, within, block, why):
    with within(5):
        assert why in reason(forged(tmp_path, block))


def test_a_million_mappings_are_refused(tmp_path, within):
    block = bytes(1) + struct.pack("<Q", 10**6) + bytes(40)
    block += struct.pack("<I", lookup3(block))
    with within(5):
        assert "1000000 mappings, at most 65536 are read" in reason(forged(tmp_path, block))


def test_circles_of_files_come_to_an_end(tmp_path, within):
    for number, name in enumerate(("b.h5", "c.h5", "a.h5")):
        layout = h5py.VirtualLayout(SHAPE, "<i4")
        layout[...] = h5py.VirtualSource(name, "v", SHAPE)
        write_virtual(tmp_path, layout, file=f"{'abc'[number]}.h5")
    layout = h5py.VirtualLayout(SHAPE, "<i4")
    layout[...] = h5py.VirtualSource("self.h5", "v", SHAPE)
    write_virtual(tmp_path, layout, file="self.h5")
    with within(10):
        assert "'a.h5' refers back to a source" in reason(tmp_path / "a.h5")
        assert "'self.h5' refers back to a source" in reason(tmp_path / "self.h5")


def test_chains_of_files_are_followed_to_a_depth(tmp_path, within):
    write_source(tmp_path, 0)
    for number in range(MAX_DEPTH + 2):
        layout = h5py.VirtualLayout(SHAPE, "<i4")
        below = (f"v{number - 1}.h5", "v") if number else ("s0.h5", "data")
        layout[...] = h5py.VirtualSource(*below, SHAPE)
        write_virtual(tmp_path, layout, file=f"v{number}.h5")
    with within(20):
        group = scan(tmp_path / f"v{MAX_DEPTH - 1}.h5")
        assert Reader(group.sources).read(group["v"]).tolist() == values(0).tolist()
        assert f"more than {MAX_DEPTH} deep" in reason(tmp_path / f"v{MAX_DEPTH}.h5")


def test_long_chains_in_one_file_are_followed_to_a_depth(tmp_path, within):
    with h5py.File(tmp_path / "vds.h5", "w") as file:
        file["v"] = values(0)
        for number in range(100):
            layout = h5py.VirtualLayout(SHAPE, "<i4")
            layout[...] = h5py.VirtualSource(".", f"v{number - 1}" if number else "v", SHAPE)
            file.create_virtual_dataset(f"v{number}", layout)
    with within(10):
        group = scan(tmp_path / "vds.h5")
    assert Reader(group.sources).read(group["v20"]).tolist() == values(0).tolist()
    assert "nested more than 32 deep" in dict(group.report.skipped)["/v99"]


def test_a_dataset_of_enormous_extents_costs_what_was_written(tmp_path, within):
    huge = (2**40, 2**20)
    with h5py.File(tmp_path / "s0.h5", "w") as file:
        one = file.create_dataset("data", huge, "<i4", chunks=(1, 2**10), compression="gzip")
        one[5, :10] = 3
        one[6, 5000:5010] = one[2**39, 9] = 4
    layout = h5py.VirtualLayout((2, *huge), "<i4")
    layout[1] = h5py.VirtualSource("s0.h5", "data", huge)
    path = write_virtual(tmp_path, layout)
    with within(5):
        group = scan(path)
        assert group.arrays["v"].manifest.virtual_count == 3
        assert Reader(group.sources).read(group["v"], (1, 5, slice(0, 12))).sum() == 30
    layout = h5py.VirtualLayout(huge[1:], "<i4")
    layout[...] = h5py.VirtualSource("s0.h5", "data", huge)[5]
    path = write_virtual(tmp_path, layout, file="row.h5")
    with within(5):
        group = scan(path)
        assert group.arrays["v"].manifest.virtual_count == 1
        assert Reader(group.sources).read(group["v"], slice(0, 12)).sum() == 30


def test_any_damage_to_a_list_gives_our_error_or_the_right_values(tmp_path, within, difference):
    path = write_virtual(tmp_path, stacked(tmp_path))
    data, rng = path.read_bytes(), random.Random(3)
    start = data.index(b"GCOL")
    for _ in range(150):
        damaged = bytearray(data)
        damaged[rng.randrange(start, start + 300)] = rng.randrange(256)
        path.write_bytes(damaged)
        with within(5):
            try:
                group = scan(path)
            except ByteatlasError:
                continue
        if "v" in group.arrays:
            found = Reader(group.sources).read(group["v"])
            assert difference(found, np.stack([values(number) for number in range(3)])) is None
