"""Files with paged space, which are read by whole pages."""

import struct

import numpy as np
import pytest

import byteatlas
from byteatlas.model import ByteRange, ByteRanges
from byteatlas.scanners import Window
from byteatlas.steps import run
from byteatlas.testing.memory import MemoryReader
from byteatlas.testing.server import RangeServer
from byteatlas_scanners.hdf5.file import Hdf5File
from byteatlas_scanners.hdf5.pages import by_pages
from byteatlas_scanners.hdf5.superblock import read_superblock


def scattered(file):
    datasets = [
        file.create_dataset(f"x{number}", (2000, 600), "u1", chunks=(1, 600), maxshape=(None, 600))
        for number in range(5)
    ]
    for row in range(2000):
        for dataset in datasets:
            dataset.id.write_direct_chunk((row, 0), bytes(600))
    file["strings"] = ["a", "bb"] * 50


@pytest.mark.parametrize("page", [2**12, 2**16, 2**20])
@pytest.mark.parametrize("libver", [None, "v108", "latest"])
def test_paged_files_are_read_by_page(make, difference, scan, page, libver):
    data = make(scattered, libver=libver, fs_strategy="page", fs_page_size=page)
    reader = MemoryReader(data)
    group = scan(data, reader=reader)
    whole = scan(data)
    arrays = dict(whole.walk_arrays())
    for path, array in group.walk_arrays():
        one, other = array.manifest, arrays.pop(path).manifest
        assert np.array_equal(one.offset, other.offset)
        assert one.inline == other.inline
    assert not arrays
    granule = max(page, 2**16)
    # The superblock, its extension, and then no page twice.
    assert reader.bytes_read <= len(data) + 2 * granule
    assert reader.requests <= len(data) // granule + 8
    if page == 2**20:
        assert reader.rounds <= 6


def asked_for(rng, size):
    """Return a batch of requests of all sorts."""
    batch = []
    for _ in range(int(rng.integers(1, 5))):
        length = int(rng.integers(1, 90_000 if rng.random() < 0.3 else 900))
        offsets = rng.integers(0, size - length, int(rng.integers(1, 6))).astype(np.uint64)
        one = rng.random() < 0.5
        batch.append(ByteRange(int(offsets[0]), length) if one else ByteRanges(offsets, length))
    return batch


@pytest.mark.parametrize("base", [0, 512])
def test_what_comes_from_pages_is_what_was_asked_for(base):
    rng = np.random.default_rng(3)
    data = rng.integers(0, 256, 2**20 + 777, np.uint8).tobytes()
    file = Hdf5File(size=len(data), base=base, page_size=4096)
    batches = [asked_for(rng, len(data)) for _ in range(60)]

    def parser():
        answers = []
        for batch in batches:
            answers.append((yield batch))
        return answers

    reader = MemoryReader(data)
    for batch, answers in zip(batches, run(by_pages(parser(), file), reader), strict=True):
        for ours, theirs in zip(answers, MemoryReader(data).read(batch), strict=True):
            assert np.array_equal(np.asarray(ours), np.asarray(theirs))
    assert reader.rounds < len(batches)


def test_pages_are_not_read_for_a_few_bytes_in_each_of_many():
    data = bytes(2**25)
    file = Hdf5File(size=len(data), page_size=2**20)
    offsets = np.arange(0, len(data), 2**20, dtype=np.uint64)

    def parser():
        yield [ByteRange(2**20 + 5, 7)]
        return (yield [ByteRanges(offsets, 100)])

    reader = MemoryReader(data)
    run(by_pages(parser(), file), reader)
    assert reader.bytes_read == 2**20 + 100 * offsets.size


def test_pages_take_fewer_rounds_than_their_structures(make):
    rounds = {}
    for strategy in ("page", "aggregate"):
        data = make(scattered, fs_strategy=strategy, fs_page_size=2**20)
        with RangeServer({"a.h5": data}) as server:
            report = byteatlas.scan(server.url("a.h5")).report
        assert report.skipped == ()
        rounds[strategy] = report.rounds
    assert rounds["page"] < rounds["aggregate"]


@pytest.mark.parametrize("size", [0, 1, 511, 2**25, 2**63])
def test_pages_of_impossible_sizes_are_not_read_as_such(make, scan, size):
    data = make(scattered, fs_strategy="page", fs_page_size=4096)
    data = data.replace(struct.pack("<Q", 4096), struct.pack("<Q", size), 1)
    file, _ = run(read_superblock(Window(memoryview(data), len(data))), MemoryReader(data))
    assert file.page_size == size
    group = scan(data, reader=MemoryReader(data))
    assert group.report.skipped == ()
    assert len(group.arrays) == 6
