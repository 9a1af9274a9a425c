"""How many round trips, requests and bytes a scan takes, counted by a server on loopback."""

import numpy as np
import pytest

import byteatlas
from byteatlas.scanning import HEAD, SMALL
from byteatlas.testing.memory import MemoryReader
from byteatlas.testing.server import RangeServer

LIBVER = pytest.mark.parametrize("libver", [None, "v108", "latest"])


@pytest.fixture
def scan_over_http():
    """Scan bytes from a server; return the report, once it is what the server has logged."""

    def scan(data, **options):
        with RangeServer({"a.h5": data}) as server:
            group = byteatlas.scan(server.url("a.h5"), **options)
            assert group.report.skipped == ()
            assert group.report.requests == len(server.log)
            assert group.report.bytes_read == server.bytes_sent
            return group.report

    return scan


def members(count, *, size=4, before=0):
    def write(file):
        file["first"] = np.zeros(before, "u1")
        for number in range(count):
            file.create_dataset(f"{number:05d}", data=np.arange(float(size)), chunks=(size // 2,))

    return write


@pytest.mark.parametrize(
    ("size", "rounds"),
    [(100, 1), (HEAD - 60_000, 1), (HEAD, 2), (SMALL - 60_000, 2)],
)
def test_a_small_file_costs_one_request_and_one_more_for_what_the_first_left(
    make, scan_over_http, size, rounds
):
    data = make(members(20, before=size))
    report = scan_over_http(data)
    assert report.rounds == report.requests == rounds
    assert report.bytes_read == len(data)


@LIBVER
def test_two_thousand_members_of_a_small_file_cost_no_more_than_two(make, scan_over_http, libver):
    def write(count):
        def write(file):
            file["first"] = np.zeros(HEAD, "u1")
            for number in range(count):
                file[f"{number:05d}"] = number

        return write

    few, many = (scan_over_http(make(write(count), libver=libver)) for count in (2, 2000))
    assert many.rounds == few.rounds == 2
    assert many.requests == few.requests == 2


@LIBVER
def test_rounds_follow_the_depth_of_a_large_file_and_not_its_members(make, scan, libver):
    rounds = {}
    for count in (20, 200, 2000):
        reader = MemoryReader(make(members(count), libver=libver))
        scan(reader.data, reader=reader)
        rounds[count] = reader.rounds
    # Ten times as many names make their tree at most one level deeper.
    assert rounds[200] <= rounds[20] + 1
    assert rounds[2000] <= rounds[20] + 2


@LIBVER
def test_a_large_file_of_two_thousand_chunked_members_takes_few_rounds(
    make, scan_over_http, libver
):
    data = make(members(2000, size=400), libver=libver)
    assert len(data) > SMALL
    assert scan_over_http(data).rounds <= 7


def scattered(variables, chunks, size):
    """Interleave the chunks of some variables, so that their indexes lie all over the file."""

    def write(file):
        datasets = [
            file.create_dataset(
                f"v{number}", (chunks, size), "u1", chunks=(1, size), maxshape=(None, size)
            )
            for number in range(variables)
        ]
        blank = bytes(size)
        for row in range(chunks):
            for dataset in datasets:
                dataset.id.write_direct_chunk((row, 0), blank)

    return write


@pytest.mark.parametrize("libver", [None, "v108", "latest"])
def test_metadata_scattered_through_a_file_takes_few_rounds(make, scan_over_http, libver):
    data = make(scattered(variables=10, chunks=3000, size=600), libver=libver)
    assert len(data) > 4 * SMALL
    report = scan_over_http(data)
    assert report.rounds <= 7
    assert report.bytes_read < len(data) / 4


def test_more_variables_take_no_more_rounds(make, scan):
    rounds = []
    for variables in (1, 20):
        reader = MemoryReader(make(scattered(variables, chunks=300, size=10), libver="v108"))
        scan(reader.data, reader=reader)
        rounds.append(reader.rounds)
    few, many = rounds
    assert many <= few + 2  # twenty names are kept in a heap, one in the header


def test_pages_of_metadata_are_read_in_few_requests(make, scan_over_http):
    data = make(
        scattered(variables=10, chunks=3000, size=600),
        libver="v108",
        fs_strategy="page",
        fs_page_size=2**18,
    )
    report = scan_over_http(data)
    assert report.rounds <= 6
    assert report.requests <= 12


def test_variables_that_are_not_wanted_cost_nothing_but_their_headers(make, scan):
    data = make(scattered(variables=10, chunks=3000, size=10), libver="v108")
    counts = []
    for options in ({}, {"include": ("v3",)}):
        reader = MemoryReader(data)
        scan(data, reader=reader, **options)
        counts.append(reader.bytes_read)
    assert counts[1] < counts[0] / 4


def test_strings_of_variable_length_cost_two_rounds_however_many(make, scan):
    rounds = []
    for count in (1, 5000):
        data = make(lambda file, n=count: file.create_dataset("x", data=["text" * 50] * n))
        reader = MemoryReader(data)
        array = scan(data, reader=reader)["x"]
        assert array.shape == (count,)
        rounds.append(reader.rounds)
    assert rounds[1] <= rounds[0] + 1
