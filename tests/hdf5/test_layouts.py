"""Layouts and fill values, in every combination that the library writes."""

import itertools

import h5py
import numpy as np
import pytest
from h5py import h5d, h5p, h5s, h5t

from byteatlas.model import Encoding

LIBVER = pytest.mark.parametrize("libver", [None, "v108", "latest"])

LAYOUTS = {"compact": h5d.COMPACT, "contiguous": h5d.CONTIGUOUS, "chunked": h5d.CHUNKED}
FILL_TIMES = {
    "if set": h5d.FILL_TIME_IFSET,
    "always": h5d.FILL_TIME_ALLOC,
    "never": h5d.FILL_TIME_NEVER,
}
ALLOCATION_TIMES = {
    "default": h5d.ALLOC_TIME_DEFAULT,
    "early": h5d.ALLOC_TIME_EARLY,
    "late": h5d.ALLOC_TIME_LATE,
}
DTYPES = {
    "numbers": (np.dtype(">f4"), np.float32(2.5)),
    "strings": (np.dtype("S3"), b"ab"),
    "records": (np.dtype([("a", ">i2"), ("b", "<f8")]), (3, 4.5)),
    "texts": (h5py.string_dtype(), "filled"),
}


def create(file, name, dtype, layout, *, fill=None, fill_time=None, allocation=None, shape=(5, 4)):
    """Create a dataset with properties that h5py's own function does not offer."""
    plist = h5p.create(h5p.DATASET_CREATE)
    plist.set_layout(layout)
    if layout == h5d.CHUNKED:
        plist.set_chunk((2, 3))
    if fill is not None:
        plist.set_fill_value(np.array(fill, dtype))
    if fill_time is not None:
        plist.set_fill_time(fill_time)
    if allocation is not None:
        plist.set_alloc_time(allocation)
    kind = h5t.py_create(dtype, logical=True)
    return h5py.Dataset(h5d.create(file.id, name.encode(), kind, h5s.create_simple(shape), plist))


def values_of(dtype):
    if dtype.kind == "O":
        return np.array([f"text {n}" for n in range(20)], object).reshape(5, 4)
    if dtype.names:
        return np.array([(n, 2 * n) for n in range(20)], dtype).reshape(5, 4)
    return np.arange(20).astype(dtype).reshape(5, 4)


@LIBVER
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", DTYPES)
def test_every_layout_reads_as_written_or_filled(make, check, libver, layout, kind):
    dtype, fill = DTYPES[kind]
    values = values_of(dtype)

    def write(file):
        for has_fill, fill_time, allocation, written in itertools.product(
            (False, True), FILL_TIMES, ALLOCATION_TIMES, ("nothing", "a part", "all")
        ):
            if layout == "compact" and allocation == "late":
                continue  # compact data is always there
            if kind == "texts" and fill_time == "never":
                continue  # there is no such thing
            name = f"fill {has_fill} {fill_time}, allocated {allocation}, {written} written"
            dataset = create(
                file,
                name,
                dtype,
                LAYOUTS[layout],
                fill=fill if has_fill else None,
                fill_time=FILL_TIMES[fill_time],
                allocation=ALLOCATION_TIMES[allocation],
            )
            if written == "a part":
                dataset[1:2, :2] = values[1:2, :2]
            if written == "all":
                dataset[...] = values

    group = check(make(write, libver=libver))
    for name, array in group.arrays.items():
        if array.manifest.missing_count:
            assert array.fill_value is not None, name
        elif kind != "texts":
            assert array.fill_value is None, name


def test_a_fill_value_message_of_the_old_type_counts(make, check):
    data = make(lambda file: create(file, "x", np.dtype("<i4"), h5d.CHUNKED, fill=7))
    # Both types are written for the benefit of old readers: leave the old one alone.
    new = b"\x05\x00\x10\x00\x01\x00\x00\x00\x02"
    assert data.count(new) == 1
    data = data.replace(new, b"\x00" + new[1:])
    assert check(data)["x"].fill_value == 7


@LIBVER
def test_data_in_the_header_is_kept_in_the_index(make, check, libver):
    def write(file):
        create(file, "x", np.dtype("<i4"), h5d.COMPACT)[...] = np.arange(20).reshape(5, 4)
        create(file, "large", np.dtype("u1"), h5d.COMPACT, shape=(60, 1000))[...] = 7

    manifest = check(make(write, libver=libver))["x"].manifest
    assert manifest.virtual_count == 0
    assert manifest.inline == {0: np.arange(20, dtype="<i4").tobytes()}


@pytest.mark.parametrize("max_chunk", [1, 7, 64, 100, 1000, 4096, 10**5])
def test_contiguous_data_is_split_into_pieces_of_bounded_size(make, check, max_chunk):
    shapes = [
        (400, 30),
        (1009, 3),
        (10, 7, 5, 3),
        (5003,),
        (2, 2, 2),
        (1,),
        (),
        (0, 5),
        (1, 5000),
    ]

    def write(file):
        for number, shape in enumerate(shapes):
            size = int(np.prod(shape))
            file[f"x{number}"] = np.arange(size, dtype=">i4").reshape(shape)
        file["strings"] = np.array([b"abc"] * 1000, "S7")
        file["records"] = np.ones(1000, [("a", ">i4"), ("b", "i1")])
        array = np.dtype((">i2", (5, 3)))
        file.create_dataset("arrays", (101,), array)[...] = np.arange(101 * 15).reshape(101, 5, 3)
        file.create_dataset("never", (100, 100), "f8")
        file["end"] = np.arange(9_001, dtype="u1")

    data = make(write)
    group = check(data, max_chunk=max_chunk)
    for number in (0, 1, 2, 3):
        array = group[f"x{number}"]
        largest = int(array.manifest.length.max())
        whole = array.nbytes
        # Where an axis has no divisor of use and padding no room, one piece must do.
        assert largest <= max(max_chunk, 4) or largest == whole
        assert int((array.manifest.offset + array.manifest.length).max()) <= len(data)
    assert group["never"].manifest.present_count == 0


def test_large_data_is_split_unless_told_otherwise(make, scan):
    data = make(lambda file: file.create_dataset("x", data=np.zeros((48, 2**18), "u2")))
    array = scan(data)["x"]
    assert array.chunk_shape == (16, 2**18)
    assert array.manifest.length.tolist() == [8 * 2**20] * 3
    assert scan(data, max_chunk=2**30)["x"].manifest.virtual_count == 1


INDEXES = {
    "single": ((6, 8), None, (6, 8), {}),
    "single filtered": ((6, 8), None, (6, 8), {"compression": 1}),
    "implicit": ((7, 9), None, (3, 4), {"early": True}),
    "fixed array": ((70, 9), None, (3, 4), {}),
    "fixed array of pages": ((6000,), None, (2,), {}),
    "fixed array filtered": ((70, 9), (80, 9), (3, 4), {"compression": 1}),
    "extensible array": ((300, 9), (None, 9), (3, 4), {}),
    "extensible array, last axis": ((9, 300), (9, None), (3, 4), {"compression": 1}),
    "B-tree 2": ((70, 90), (None, None), (3, 4), {}),
    "B-tree 2 filtered": ((70, 90), (None, 100), (3, 4), {"compression": 1, "shuffle": True}),
    "three axes": ((7, 8, 9), (None, 8, None), (3, 3, 3), {"compression": 1}),
}


@pytest.mark.parametrize("name", INDEXES)
@pytest.mark.parametrize(
    ("libver", "written"),
    [("latest", "all"), ("latest", "some"), ("latest", "none"), ("v108", "some"), (None, "some")],
)
def test_chunks_of_every_index_are_read_in_place(make, check, libver, name, written):
    shape, limits, chunks, options = INDEXES[name]
    early = options.get("early")
    values = np.random.default_rng(5).integers(1, 99, shape, "<i4")

    def write(file):
        plist = h5p.create(h5p.DATASET_CREATE)
        plist.set_chunk(chunks)
        plist.set_fill_value(np.array(-1, "<i4"))
        if early:
            plist.set_alloc_time(h5d.ALLOC_TIME_EARLY)
        if options.get("shuffle"):
            plist.set_shuffle()
        if options.get("compression"):
            plist.set_deflate(1)
        most = tuple(h5s.UNLIMITED if n is None else n for n in limits) if limits else shape
        space = h5s.create_simple(shape, most)
        dataset = h5py.Dataset(h5d.create(file.id, b"x", h5t.STD_I32LE, space, plist))
        regions = list(dataset.iter_chunks())
        for region in {"all": regions, "some": regions[1::3], "none": []}[written]:
            dataset[region] = values[region]

    array = check(make(write, libver=libver))["x"]
    regions = array.manifest.cells
    expected = {"all": regions, "some": -(-(regions - 1) // 3), "none": 0}[written]
    if not early:
        assert array.manifest.virtual_count == expected
    assert array.manifest.missing_count == 0 or array.fill_value == -1


@LIBVER
def test_datasets_that_were_resized_read_as_they_are_now(make, check, libver):
    def write(file):
        values = np.arange(63).reshape(7, 9) + 1
        for name, limits in {"one": (None, 20), "other": (20, None), "both": (None, None)}.items():
            for options in ({}, {"compression": 1}):
                for sizes in ([(3, 4)], [(3, 4), (15, 19)], [(0, 0), (6, 6)], [(16, 3), (2, 15)]):
                    dataset = file.create_dataset(
                        f"{name} {options} {sizes}",
                        data=values,
                        chunks=(4, 3),
                        maxshape=limits,
                        fillvalue=-9,
                        **options,
                    )
                    for size in sizes:
                        dataset.resize(size)

    check(make(write, libver=libver))


@LIBVER
def test_empty_datasets_are_read(make, check, libver):
    def write(file):
        file["contiguous"] = np.zeros((0, 3))
        file.create_dataset("chunked", (0, 3), "f4", chunks=(2, 3), maxshape=(None, 3))
        file.create_dataset("grown", (3, 0), "f4", chunks=(2, 3), maxshape=(None, None))
        file["strings"] = np.zeros(0, "S3")
        file["records"] = np.zeros(0, [("a", ">i4")])

    group = check(make(write, libver=libver))
    assert all(array.manifest.present_count == 0 for array in group.arrays.values())


def test_edge_chunks_that_were_not_filtered_are_decoded_as_they_are(make, check, set_property):
    values = np.arange(70).reshape(7, 10).astype("<i2")

    def write(file):
        plist = h5p.create(h5p.DATASET_CREATE)
        plist.set_chunk((3, 4))
        plist.set_deflate(1)
        set_property("H5Pset_chunk_opts", plist, 2)  # H5D_CHUNK_DONT_FILTER_PARTIAL_CHUNKS
        for name, limits in {"fixed": (7, 10), "grows": (h5s.UNLIMITED, 10)}.items():
            space = h5s.create_simple((7, 10), limits)
            h5py.Dataset(h5d.create(file.id, name.encode(), h5t.STD_I16LE, space, plist))[...] = (
                values
            )

    group = check(make(write, libver="latest"))
    for array in group.arrays.values():  # the 4 whole chunks are fewer than those at the edges
        assert array.encodings == (Encoding(),)
        assert array.manifest.virtual_count == 5
        assert sorted(array.manifest.inline) == [0, 1, 3, 4]


@LIBVER
def test_values_that_are_elsewhere_are_refused(make, check, libver):
    def write(file):
        layout = h5py.VirtualLayout((4, 3), "i4")
        layout[0] = h5py.VirtualSource("other.h5", "x", (3,))
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("external", (4, 3), "i4", external=[("raw.bin", 0, 48)])
        file["null"] = h5py.Empty("f4")
        file["good"] = [1, 2]

    check(
        make(write, libver=libver),
        {
            "/virtual": "a virtual dataset, whose values are in other datasets",
            "/external": "its values are in external files",
            "/null": "a null dataspace",
        },
    )


def test_patterns_choose_what_is_scanned(make, scan):
    def write(file):
        for path in ("a/temperature", "a/pressure", "b/temperature", "wind"):
            file[path] = np.arange(3)

    data = make(write)
    for options, expected in [
        ({"include": ("*/temperature",)}, {"/a/temperature", "/b/temperature"}),
        ({"include": ("/a/*",), "exclude": ("*pressure",)}, {"/a/temperature"}),
        ({"exclude": ("a/*", "b/*")}, {"/wind"}),
    ]:
        group = scan(data, **options)
        assert set(dict(group.walk_arrays())) == expected
        assert group.report.skipped == ()
