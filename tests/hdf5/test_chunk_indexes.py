"""Chunk indexes of all kinds against h5py: where each chunk is, and what it decodes to."""

import contextlib
import ctypes
import io
import itertools
import math
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byteatlas.errors import ByteatlasError, Malformed
from byteatlas.steps import run
from byteatlas.testing.memory import MemoryReader
from byteatlas_scanners.hdf5 import blocks
from byteatlas_scanners.hdf5.chunks import (
    ChunkColumns,
    ChunkIndexKind,
    ChunkLayout,
    elements,
    fixed_array,
    read_chunk_index,
)
from byteatlas_scanners.hdf5.file import Hdf5File

SINGLE, IMPLICIT = ChunkIndexKind.SINGLE, ChunkIndexKind.IMPLICIT
FIXED, EXTENSIBLE = ChunkIndexKind.FIXED_ARRAY, ChunkIndexKind.EXTENSIBLE_ARRAY
BTREE_V1, BTREE_V2 = ChunkIndexKind.BTREE_V1, ChunkIndexKind.BTREE_V2

FILTERED = {"shuffle": True, "compression": "gzip"}
Write = Callable[[h5py.Dataset], None]

# The functions of libhdf5 that h5py has no name for, from the very library it uses.
LIBHDF5 = ctypes.CDLL(h5py.h5p.__file__)


def write_all(dataset: h5py.Dataset) -> None:
    dataset[...] = np.arange(dataset.size).reshape(dataset.shape) % 30_000 + 1


def write_some(dataset: h5py.Dataset) -> None:
    rng = np.random.default_rng(7)
    for part in list(dataset.iter_chunks()):
        if rng.random() < 0.3:
            dataset[part] = rng.integers(1, 30_000)


def write_none(dataset: h5py.Dataset) -> None:
    pass


class Growing(io.BytesIO):
    """A file in memory that, like one on disk, grows when it is truncated to more than it has."""

    def truncate(self, size: int | None = None) -> int:
        here = self.tell()
        missing = 0 if size is None else size - self.seek(0, io.SEEK_END)
        if missing > 0:
            self.write(bytes(missing))
        self.seek(here)
        return super().truncate(size)


def make(write: Write, *, libver: Any = "latest", userblock: int = 0, **options: Any) -> bytes:
    """Return an HDF5 file with one chunked dataset, "x"."""
    buffer = Growing()
    with h5py.File(buffer, "w", libver=libver, userblock_size=userblock) as file:
        write(file.create_dataset("x", dtype="<i2", **options))
    return buffer.getvalue()


def find_all(data: bytes, signature: bytes) -> Iterator[int]:
    position = data.find(signature)
    while position >= 0:
        yield position
        position = data.find(signature, position + 1)


def find_layout(data: bytes, dataset: h5py.Dataset, base: int = 0) -> ChunkLayout:
    """Find the index of a file's only dataset by its signature, without any parser of headers."""
    facts: dict[str, Any] = {
        "chunk_shape": dataset.chunks,
        "chunk_nbytes": math.prod(dataset.chunks) * dataset.dtype.itemsize,
        "is_filtered": dataset.id.get_create_plist().get_nfilters() > 0,
    }
    for signature, kind in ((b"FAHD", FIXED), (b"EAHD", EXTENSIBLE), (b"BTHD", BTREE_V2)):
        for address in find_all(data, signature):
            if kind is not BTREE_V2 or data[address + 5] in (10, 11):
                return ChunkLayout(kind=kind, address=address - base, **facts)
    roots = [
        (data[address + 5], address)
        for address in find_all(data, b"TREE")
        if data[address + 4] == 1 and data[address + 8 : address + 16] == b"\xff" * 8
    ]
    if roots:
        return ChunkLayout(kind=BTREE_V1, address=max(roots)[1] - base, **facts)
    if not dataset.id.get_num_chunks():
        return ChunkLayout(kind=BTREE_V1, address=None, **facts)
    first = dataset.id.get_chunk_info(0)
    address = first.byte_offset - base
    if dataset.chunks == dataset.shape:
        facts |= {"single_size": first.size, "single_mask": first.filter_mask}
        return ChunkLayout(kind=SINGLE, address=address, **facts)
    return ChunkLayout(kind=IMPLICIT, address=address, **facts)


def chunks_by_library(dataset: h5py.Dataset) -> dict[int, tuple[int, int, int]]:
    """Return flat index to (offset, size, filter mask), as h5py iterates."""
    grid = [-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True)]
    found = {}

    def add(info: Any) -> None:
        place = tuple(o // c for o, c in zip(info.chunk_offset, dataset.chunks, strict=True))
        flat = int(np.ravel_multi_index(place, grid))
        found[flat] = (info.byte_offset, info.size, info.filter_mask)

    dataset.id.chunk_iter(add)
    return found


def as_dict(columns: ChunkColumns) -> dict[int, tuple[int, int, int]]:
    mask = np.zeros(columns.index.size, np.uint32) if columns.mask is None else columns.mask
    rows = zip(columns.address, columns.size, mask, strict=True)
    found = {
        int(index): (int(address), int(size), int(bits))
        for index, (address, size, bits) in zip(columns.index, rows, strict=True)
    }
    assert len(found) == columns.index.size
    return found


def decode(data: bytes, mask: int, dataset: h5py.Dataset) -> np.ndarray:
    """Undo the filters of `FILTERED`, as far as the mask does not say they were skipped."""
    if dataset.compression and not mask & 2:
        data = zlib.decompress(data)
    if dataset.shuffle and not mask & 1:
        data = np.frombuffer(data, np.uint8).reshape(dataset.dtype.itemsize, -1).T.tobytes()
    return np.frombuffer(data, dataset.dtype).reshape(dataset.chunks)


def assemble(data: bytes, columns: ChunkColumns, dataset: h5py.Dataset) -> np.ndarray:
    """Build the whole array out of the chunks; what has no chunk is zero, the fill value."""
    grid = [-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True)]
    whole = np.zeros([n * c for n, c in zip(grid, dataset.chunks, strict=True)], dataset.dtype)
    for flat, (offset, size, mask) in as_dict(columns).items():
        place = np.unravel_index(flat, grid)
        corner = tuple(slice(p * c, p * c + c) for p, c in zip(place, dataset.chunks, strict=True))
        whole[corner] = decode(data[offset : offset + size], mask, dataset)
    return whole[tuple(slice(n) for n in dataset.shape)]


def read(
    data: bytes, *, base: int = 0, offset_size: int = 8, istore_k: int = 32, **changes: Any
) -> tuple[ChunkColumns, ChunkLayout, MemoryReader]:
    """Read the chunk index of the only dataset and compare it with h5py."""
    file = Hdf5File(size=len(data), base=base, offset_size=offset_size, istore_k=istore_k)
    reader = MemoryReader(data)
    with h5py.File(io.BytesIO(data)) as opened:
        dataset = opened["x"]
        layout = find_layout(data, dataset, base)
        if changes:
            layout = ChunkLayout(
                **{name: getattr(layout, name) for name in layout.__slots__} | changes
            )
        columns = run(read_chunk_index(file, layout, dataset.shape, dataset.maxshape), reader)
        if dataset.size < 50_000:
            assert np.array_equal(assemble(data, columns, dataset), dataset[...])
        unlimited_first = all(n is not None for n in dataset.maxshape[1:])
        if not changes and (layout.kind is not EXTENSIBLE or unlimited_first):
            assert as_dict(columns) == chunks_by_library(dataset)
    return columns, layout, reader


SHAPES = {
    "rank 1, one chunk": ((7,), (7,), (7,)),
    "rank 1": ((100,), (100,), (3,)),
    "rank 1, room to grow": ((100,), (130,), (3,)),
    "rank 1, unlimited": ((3000,), (None,), (2,)),
    "rank 2, pages": ((70, 50), (70, 50), (1, 1)),
    "rank 3, unlimited": ((20, 30, 7), (None, 30, 7), (3, 4, 2)),
    "rank 3, unlimited, room to grow": ((20, 30, 7), (None, 33, 9), (3, 4, 2)),
    "rank 3, unlimited in the middle": ((20, 30, 7), (20, None, 7), (3, 4, 2)),
    "rank 3, unlimited at the end": ((20, 30, 7), (25, 30, None), (3, 4, 2)),
    "rank 3, room to grow": ((20, 30, 7), (25, 50, 8), (3, 4, 2)),
    "rank 3, unlimited twice": ((20, 30, 7), (None, None, 7), (3, 4, 2)),
    "rank 4, unlimited everywhere": ((5, 5, 5, 5), (None,) * 4, (1, 1, 1, 2)),
    "rank 5, unlimited in the middle": ((3, 4, 5, 6, 7), (3, 4, None, 9, 7), (1, 2, 2, 2, 3)),
}


def kind_of(libver: Any, max_shape: tuple[int | None, ...], chunks: tuple[int, ...]) -> Any:
    if libver != "latest":
        return BTREE_V1
    unlimited = max_shape.count(None)
    if unlimited:
        return EXTENSIBLE if unlimited == 1 else BTREE_V2
    return SINGLE if max_shape == chunks else FIXED


@pytest.mark.parametrize("write", [write_all, write_some], ids=["whole", "parts"])
@pytest.mark.parametrize("filters", [{}, FILTERED], ids=["plain", "filtered"])
@pytest.mark.parametrize("libver", ["earliest", ("earliest", "v110"), "latest"], ids=str)
@pytest.mark.parametrize(("shape", "max_shape", "chunks"), SHAPES.values(), ids=SHAPES)
def test_every_chunk_is_where_h5py_finds_it(
    shape: tuple[int, ...],
    max_shape: tuple[int | None, ...],
    chunks: tuple[int, ...],
    libver: Any,
    filters: dict[str, Any],
    write: Write,
) -> None:
    data = make(write, libver=libver, shape=shape, maxshape=max_shape, chunks=chunks, **filters)
    columns, layout, _ = read(data)
    if columns.index.size:
        assert layout.kind is kind_of(libver, max_shape, chunks)
    assert columns.mask is None


@pytest.mark.parametrize("max_shape", [(9, 9), (None, 9), (None, None)], ids=str)
@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_a_dataset_that_was_never_written_has_no_chunks(
    libver: str, max_shape: tuple[int | None, ...]
) -> None:
    data = make(write_none, libver=libver, shape=(9, 9), maxshape=max_shape, chunks=(2, 2))
    columns, layout, reader = read(data)
    assert columns.index.size == 0
    if layout.address is None:
        assert reader.rounds == 0


def test_a_dataset_of_no_extent_has_no_chunks_and_needs_no_round() -> None:
    def grow_and_shrink(dataset: h5py.Dataset) -> None:
        dataset[...] = 1
        dataset.resize((0, 5))

    data = make(grow_and_shrink, shape=(5, 5), maxshape=(None, 5), chunks=(1, 1))
    columns, _, reader = read(data)
    assert columns.index.size == 0
    assert reader.rounds == 0


@pytest.mark.parametrize("filters", [{}, FILTERED], ids=["plain", "filtered"])
@pytest.mark.parametrize("max_shape", [(40, 40), (None, 40), (40, None), (None, None)], ids=str)
@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_resizing_down_and_up_again_leaves_only_the_chunks_still_there(
    libver: str, max_shape: tuple[int | None, ...], filters: dict[str, Any]
) -> None:
    def resize(dataset: h5py.Dataset) -> None:
        write_all(dataset)
        dataset.resize((11, 7))
        dataset.resize((26, 33))
        dataset[12:20, 8:11] = 5
        dataset.resize((23, 30))

    data = make(resize, libver=libver, shape=(20, 30), maxshape=max_shape, chunks=(3, 2), **filters)
    read(data)


@pytest.mark.parametrize("max_shape", [(20, 30), (20, 45), (26, 30), (26, 45)], ids=str)
def test_chunks_allocated_early_without_filters_need_no_index(
    max_shape: tuple[int, ...],
) -> None:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((3, 4))
    plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    buffer = Growing()
    with h5py.File(buffer, "w", libver="latest") as file:
        space = h5py.h5s.create_simple((20, 30), max_shape)
        write_all(h5py.Dataset(h5py.h5d.create(file.id, b"x", h5py.h5t.STD_I16LE, space, plist)))
    columns, layout, reader = read(buffer.getvalue())
    assert layout.kind is IMPLICIT
    assert columns.index.size == 7 * 8
    assert reader.rounds == 0


@pytest.mark.parametrize("max_shape", [(8, 8), (10, 10), (None, 8), (None, None)], ids=str)
@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_filter_masks_come_with_the_chunks_that_have_one(
    libver: str, max_shape: tuple[int | None, ...]
) -> None:
    def write(dataset: h5py.Dataset) -> None:
        write_all(dataset)
        plain = np.full((2, 2), 77, "<i2").tobytes()
        dataset.id.write_direct_chunk((2, 4), plain, filter_mask=3)
        dataset.id.write_direct_chunk((6, 6), zlib.compress(plain), filter_mask=1)

    data = make(write, libver=libver, shape=(8, 8), maxshape=max_shape, chunks=(2, 2), **FILTERED)
    columns, _, _ = read(data)
    assert columns.mask is not None
    assert columns.mask[np.argsort(columns.index)].nonzero()[0].tolist() == [6, 15]


def test_a_single_chunk_has_its_mask_in_the_layout_message() -> None:
    def write(dataset: h5py.Dataset) -> None:
        dataset.id.write_direct_chunk((0,), np.arange(4, dtype="<i2").tobytes(), filter_mask=3)

    columns, layout, _ = read(make(write, shape=(4,), chunks=(4,), **FILTERED))
    assert layout.kind is SINGLE
    assert columns.mask is not None
    assert columns.mask.tolist() == [3]


@pytest.mark.parametrize("max_shape", [(10, 10), (None, 10), (10, None), (None, None)], ids=str)
def test_edge_chunks_that_skip_all_filters_get_a_mask_of_all_ones(
    max_shape: tuple[int | None, ...],
) -> None:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((4, 4))
    plist.set_shuffle()
    plist.set_deflate(4)
    dont_filter_partial_chunks = 2
    set_chunk_opts = LIBHDF5.H5Pset_chunk_opts
    set_chunk_opts.argtypes = [ctypes.c_int64, ctypes.c_uint]
    assert set_chunk_opts(plist.id, dont_filter_partial_chunks) == 0
    unlimited = tuple(h5py.h5s.UNLIMITED if n is None else n for n in max_shape)
    buffer = Growing()
    with h5py.File(buffer, "w", libver="latest") as file:
        space = h5py.h5s.create_simple((10, 8), unlimited)
        dataset = h5py.Dataset(h5py.h5d.create(file.id, b"x", h5py.h5t.STD_I16LE, space, plist))
        write_all(dataset)
        if max_shape != (10, None):
            dataset.resize((9, 7))
    columns, _, _ = read(buffer.getvalue(), has_plain_edges=True)
    assert columns.mask is not None
    odd = np.sort(columns.index[columns.mask == 0xFFFFFFFF]).tolist()
    assert odd == ([4, 5] if max_shape == (10, None) else [1, 3, 4, 5])


@pytest.mark.parametrize("max_shape", [(8, 8), (None, 8), (8, None), (None, None)], ids=str)
@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_addresses_count_from_the_base_address_behind_a_user_block(
    libver: str, max_shape: tuple[int | None, ...]
) -> None:
    shape = {"shape": (8, 8), "maxshape": max_shape, "chunks": (1, 1)}
    read(make(write_all, libver=libver, userblock=1024, **shape), base=1024)


@pytest.mark.parametrize("filters", [{}, FILTERED], ids=["plain", "filtered"])
@pytest.mark.parametrize("max_shape", [(70, 50), (None, 50), (70, None), (None, None)], ids=str)
@pytest.mark.parametrize("low", [h5py.h5f.LIBVER_EARLIEST, h5py.h5f.LIBVER_LATEST])
@pytest.mark.parametrize("istore_k", [2, 100])
def test_other_widths_of_addresses_and_other_node_sizes_are_read(
    tmp_path: Path,
    istore_k: int,
    low: int,
    max_shape: tuple[int | None, ...],
    filters: dict[str, Any],
) -> None:
    create = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    create.set_sizes(4, 8)
    set_istore_k = LIBHDF5.H5Pset_istore_k
    set_istore_k.argtypes = [ctypes.c_int64, ctypes.c_uint]
    assert set_istore_k(create.id, istore_k) == 0
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_libver_bounds(low, h5py.h5f.LIBVER_LATEST)
    path = tmp_path / "x.h5"
    file_id = h5py.h5f.create(bytes(path), h5py.h5f.ACC_TRUNC, create, access)
    with h5py.File(file_id) as file:
        options = {"maxshape": max_shape, "chunks": (1, 1), "dtype": "<i2", **filters}
        write_all(file.create_dataset("x", shape=(70, 50), **options))
    file_id.close()
    read(path.read_bytes(), offset_size=4, istore_k=istore_k)


def sparse(numbers: list[int]) -> Write:
    def write(dataset: h5py.Dataset) -> None:
        for number in numbers:
            dataset[number] = number % 30_000 + 1

    return write


@pytest.mark.parametrize("filters", [{}, FILTERED], ids=["plain", "filtered"])
@pytest.mark.parametrize(
    ("count", "numbers"),
    [
        (1024, [0, 1023]),
        (1025, [1024]),
        (2048, [0, 1024, 2047]),
        (10_000, [3, 1023, 2048, 9_999]),
        (9 * 1024, [8 * 1024]),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else "",
)
def test_pages_of_a_fixed_array_that_were_never_written_hold_no_chunks(
    count: int, numbers: list[int], filters: dict[str, Any]
) -> None:
    data = make(sparse(numbers), shape=(count,), chunks=(1,), **filters)
    columns, layout, reader = read(data)
    assert layout.kind is FIXED
    assert sorted(columns.index.tolist()) == numbers
    assert reader.rounds == 2


@pytest.mark.parametrize("filters", [{}, FILTERED], ids=["plain", "filtered"])
@pytest.mark.parametrize(
    ("numbers", "rounds"),
    [
        ([0, 3], 2),  # elements of the index block
        ([4, 19, 20, 51, 52, 83, 84, 147], 3),  # all data blocks that it names: 16, 32, 32, 64
        ([243, 244, 1000], 4),  # the first super blocks
        ([131_059, 131_060, 131_061], 4),  # the first paged data blocks, of 2 pages
        ([132_100, 133_200, 200_000, 262_131, 262_132, 300_000], 4),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, list) else "",
)
def test_every_sort_of_block_of_an_extensible_array_is_found(
    numbers: list[int], rounds: int, filters: dict[str, Any]
) -> None:
    options = {"shape": (numbers[-1] + 1,), "maxshape": (None,), "chunks": (1,)}
    columns, layout, reader = read(make(sparse(numbers), **options, **filters))
    assert layout.kind is EXTENSIBLE
    assert sorted(columns.index.tolist()) == numbers
    assert reader.rounds == rounds


@pytest.mark.parametrize(
    ("libver", "max_shape", "rounds"),
    [("earliest", (64, 80), 3), ("latest", (64, 80), 2), ("latest", (None, None), 3)],
    ids=["version 1 B-tree", "fixed array", "version 2 B-tree"],
)
def test_rounds_follow_the_depth_of_the_index(
    libver: str, max_shape: tuple[int | None, ...], rounds: int
) -> None:
    def fill(dataset: h5py.Dataset) -> None:
        for place in itertools.product(range(64), range(80)):
            dataset.id.write_direct_chunk(place, b"ab")

    data = make(fill, libver=libver, shape=(64, 80), maxshape=max_shape, chunks=(1, 1))
    columns, _, reader = read(data)
    assert columns.index.size == 64 * 80
    assert reader.rounds == rounds


@pytest.mark.parametrize("filters", [{}, FILTERED], ids=["plain", "filtered"])
@pytest.mark.parametrize("max_shape", [(70, 50), (None, 50), (70, None), (None, None)], ids=str)
@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_levels_larger_than_a_batch_are_read_piece_by_piece(
    monkeypatch: pytest.MonkeyPatch,
    libver: str,
    max_shape: tuple[int | None, ...],
    filters: dict[str, Any],
) -> None:
    options = {"shape": (70, 50), "maxshape": max_shape, "chunks": (1, 1)}
    data = make(write_some, libver=libver, **options, **filters)
    _, _, at_once = read(data)
    for module in (blocks, elements, fixed_array):
        monkeypatch.setattr(module, "BATCH", 6000)
    _, _, in_pieces = read(data)
    assert in_pieces.rounds > at_once.rounds
    assert in_pieces.requests <= at_once.requests


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_any_dataset_reads_as_h5py_reads_it(draw: st.DataObject) -> None:
    rank = draw.draw(st.integers(1, 4), "rank")
    axes = st.lists(st.integers(1, 9), min_size=rank, max_size=rank)
    shape = draw.draw(axes, "shape")
    chunks = [min(c, n) for c, n in zip(draw.draw(axes, "chunks"), shape, strict=True)]
    room = st.lists(st.sampled_from([None, 0, 5]), min_size=rank, max_size=rank)
    max_shape = [
        None if more is None else n + more
        for n, more in zip(shape, draw.draw(room, "room"), strict=True)
    ]
    new_shape = [
        draw.draw(st.integers(0, n + 9 if most is None else most), "new extent")
        for n, most in zip(shape, max_shape, strict=True)
    ]
    parts = draw.draw(st.sets(st.integers(0, 200), max_size=40), "written")

    def write(dataset: h5py.Dataset) -> None:
        for number, part in enumerate(list(dataset.iter_chunks())):
            if number in parts:
                dataset[part] = number + 1
        dataset.resize(new_shape)

    options = {"shape": shape, "maxshape": max_shape, "chunks": tuple(chunks)}
    filters = draw.draw(st.sampled_from([{}, FILTERED]), "filters")
    libver = draw.draw(st.sampled_from(["earliest", "latest"]), "libver")
    read(make(write, libver=libver, **options, **filters))


# Damaged and hostile files


def scan(data: bytes, layout: ChunkLayout, shape: Any, max_shape: Any) -> MemoryReader:
    reader = MemoryReader(data)
    with contextlib.suppress(ByteatlasError):
        run(read_chunk_index(Hdf5File(size=len(data)), layout, shape, max_shape), reader)
    return reader


HOSTILE = {
    "version 1 B-tree": ("earliest", (20, 20), (20, 20)),
    "fixed array": ("latest", (20, 20), (20, 20)),
    "fixed array in pages": ("latest", (50, 50), (50, 50)),
    "extensible array": ("latest", (20, 20), (None, 20)),
    "version 2 B-tree": ("latest", (20, 20), (None, None)),
}


@pytest.mark.parametrize(("libver", "shape", "max_shape"), HOSTILE.values(), ids=HOSTILE)
def test_damage_ends_in_our_own_errors_within_bounds(
    libver: str, shape: tuple[int, ...], max_shape: tuple[int | None, ...]
) -> None:
    options = {"shape": shape, "maxshape": max_shape, "chunks": (1, 1)}
    whole = make(write_all, libver=libver, **options, **FILTERED)
    _, layout, _ = read(whole)
    assert layout.address is not None
    rng = np.random.default_rng(1)
    for attempt in range(300):
        data = bytearray(whole)
        # Half of the damage is to the first structure, which says how to read the others.
        start = layout.address if attempt % 2 else 0
        stop = layout.address + 64 if attempt % 2 else len(data)
        for position in rng.integers(start, stop, 1 + attempt % 3):
            data[position] ^= int(rng.integers(1, 256))
        if attempt % 5 == 0:
            data = data[: int(rng.integers(layout.address, len(data)))]
        reader = scan(bytes(data), layout, shape, max_shape)
        assert reader.bytes_read <= 8 * len(whole)


@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize("max_shape", [(20, 20), (None, 20), (None, None)], ids=str)
def test_a_file_cut_off_inside_its_index_is_malformed(
    libver: str, max_shape: tuple[int | None, ...]
) -> None:
    options = {"shape": (20, 20), "maxshape": max_shape, "chunks": (1, 1)}
    whole = make(write_all, libver=libver, **options)
    _, layout, _ = read(whole)
    assert layout.address is not None
    data = whole[: layout.address + 40]
    steps = read_chunk_index(Hdf5File(size=len(data)), layout, (20, 20), max_shape)
    with pytest.raises(Malformed):
        run(steps, MemoryReader(data))


@pytest.mark.parametrize("signature", [b"FAHD", b"FADB"])
def test_every_changed_byte_of_a_checked_block_is_noticed(signature: bytes) -> None:
    whole = make(write_all, shape=(20, 20), chunks=(1, 1))
    _, layout, _ = read(whole)
    start = whole.index(signature)
    length = {b"FAHD": 28, b"FADB": 14 + 400 * 8 + 4}[signature]
    for position in range(start, start + length, 7):
        data = bytearray(whole)
        data[position] ^= 0x10
        steps = read_chunk_index(Hdf5File(size=len(data)), layout, (20, 20), (20, 20))
        with pytest.raises(Malformed):
            run(steps, MemoryReader(bytes(data)))


@pytest.mark.parametrize(
    ("kind", "shape", "max_shape", "chunks"),
    [
        (SINGLE, (20,), (20,), (10,)),
        (IMPLICIT, (20, 20), (20, None), (10, 10)),
        (IMPLICIT, (2000,), (2000,), (10,)),
        (EXTENSIBLE, (20, 20), (20, 20), (10, 10)),
        (EXTENSIBLE, (20, 20), (None, None), (10, 10)),
        (FIXED, (20,), (10,), (10,)),
        (FIXED, (20,), (20,), (0,)),
        (FIXED, (20,), (20, 20), (10,)),
        (BTREE_V2, (2**62, 2**62), (None, None), (1, 1)),
    ],
    ids=[
        "two single chunks",
        "implicit index of an unlimited axis",
        "more implicit chunks than bytes",
        "extensible array without an unlimited axis",
        "extensible array of two unlimited axes",
        "more than the maximum",
        "empty chunks",
        "ranks differ",
        "more chunks than can be counted",
    ],
)
def test_an_index_that_cannot_be_the_datasets_is_malformed(
    kind: ChunkIndexKind,
    shape: tuple[int, ...],
    max_shape: tuple[int | None, ...],
    chunks: tuple[int, ...],
) -> None:
    layout = ChunkLayout(
        kind=kind, address=0, chunk_shape=chunks, chunk_nbytes=100, is_filtered=False
    )
    with pytest.raises(Malformed):
        run(read_chunk_index(Hdf5File(size=500), layout, shape, max_shape), MemoryReader(b""))
