import struct

import numpy as np
import pytest

from byteatlas.errors import Malformed
from byteatlas.model import Dimension
from byteatlas.scanners import ScanOptions, Window
from byteatlas.steps import run
from byteatlas.testing.memory import MemoryReader
from byteatlas_scanners.netcdf3 import scanner


def interleaved(w, numrecs=3, records=3, tail=b""):
    """Two record variables, one of 3 bytes and 1 of padding, the other of one int."""
    data = b"".join(bytes([r, r, r, 255]) + struct.pack(">i", 100 * r) for r in range(records))
    return w.file(
        dims=[w.dim(b"t", 0), w.dim(b"x", 3)],
        variables=lambda end: [w.var(b"a", [0, 1], 1, end), w.var(b"b", [0], 4, end + 4)],
        numrecs=numrecs,
        data=data + tail,
    )


def single(w, numrecs=4, tail=b""):
    """One record variable of 3 bytes, so without padding between its records."""
    return w.file(
        dims=[w.dim(b"t", 0), w.dim(b"x", 3)],
        variables=lambda end: [w.var(b"a", [0, 1], 1, end, vsize=4)],
        numrecs=numrecs,
        data=bytes(range(12)) + tail,
    )


@pytest.mark.parametrize("version", [1, 2, 5])
def test_records_are_interleaved_and_padded(scan, read, classic, version):
    data = interleaved(classic(version))
    group = scan(data)
    assert group.dimensions == {"t": Dimension(3, is_unlimited=True), "x": Dimension(3)}
    a, b = group.arrays["a"], group.arrays["b"]
    assert (a.shape, a.chunk_shape, a.dimensions) == ((3, 3), (1, 3), ("t", "x"))
    assert (b.shape, b.chunk_shape, b.dimensions) == ((3,), (1,), ("t",))
    begin = len(data) - 24
    assert a.manifest.offset.tolist() == [begin, begin + 8, begin + 16]
    assert a.manifest.length.tolist() == [3, 3, 3]
    assert b.manifest.offset.tolist() == [begin + 4, begin + 12, begin + 20]
    assert read(data, a).tolist() == [[0, 0, 0], [1, 1, 1], [2, 2, 2]]
    assert read(data, b).tolist() == [0, 100, 200]


def test_a_single_record_variable_has_no_padding_and_lies_in_one_piece(scan, read, classic):
    data = single(classic())
    a = scan(data).arrays["a"]
    assert (a.shape, a.chunk_shape) == ((4, 3), (4, 3))
    assert read(data, a).reshape(-1).tolist() == list(range(12))


def test_records_in_one_piece_are_grouped_up_to_the_largest_chunk(scan, read, classic):
    data = single(classic())
    a = scan(data, max_chunk=6).arrays["a"]
    assert a.chunk_shape == (2, 3)
    assert read(data, a).reshape(-1).tolist() == list(range(12))


def test_large_records_are_split(scan, read, classic):
    w = classic()
    values = np.arange(3 * 2 * 8, dtype=">i4").reshape(3, 2, 8)
    data = w.file(
        dims=[w.dim(b"t", 0), w.dim(b"y", 2), w.dim(b"x", 8)],
        variables=lambda end: [w.var(b"a", [0, 1, 2], 4, end), w.var(b"b", [0], 4, end + 64)],
        numrecs=3,
        data=b"".join(record.tobytes() + b"////" for record in values),
    )
    a = scan(data, max_chunk=20).arrays["a"]
    assert a.chunk_shape == (1, 1, 4)
    assert a.manifest.grid_shape == (3, 2, 2)
    assert read(data, a).tolist() == values.tolist()


def test_a_fixed_variable_is_split_by_rows(scan, read, classic):
    w = classic()
    values = np.arange(6 * 10, dtype=">i2").reshape(6, 10)
    data = w.file(
        dims=[w.dim(b"y", 6), w.dim(b"x", 10)],
        variables=lambda end: [w.var(b"v", [0, 1], 3, end)],
        data=values.tobytes(),
    )
    v = scan(data, max_chunk=65).arrays["v"]
    assert v.chunk_shape == (3, 10)
    assert v.manifest.length.tolist() == [60, 60]
    assert read(data, v).tolist() == values.tolist()


@pytest.mark.parametrize("version", [1, 2, 5])
def test_a_streaming_record_count_follows_from_the_size_of_the_source(scan, read, classic, version):
    w = classic(version)
    data = interleaved(w, numrecs=-1)
    assert read(data, scan(data).arrays["b"]).tolist() == [0, 100, 200]
    assert scan(interleaved(w, numrecs=-1, tail=b"\3\3\3")).dimensions["t"].size == 3
    assert scan(interleaved(w, numrecs=-1)[:-1]).dimensions["t"].size == 2
    assert scan(interleaved(w, numrecs=-1, records=0)).dimensions["t"].size == 0
    assert scan(single(w, numrecs=-1, tail=b"12")).dimensions["t"].size == 4
    assert scan(w.file(numrecs=-1, dims=[w.dim(b"t", 0)])).dimensions["t"].size == 0


def test_a_streaming_count_does_not_need_the_padding_of_the_last_record(scan, read, classic):
    w = classic()
    data = w.file(
        dims=[w.dim(b"t", 0)],
        variables=lambda end: [w.var(b"b", [0], 4, end), w.var(b"a", [0], 1, end + 4)],
        numrecs=-1,
        data=struct.pack(">ib3xib", 10, 1, 20, 2),
    )
    assert read(data, scan(data).arrays["a"]).tolist() == [1, 2]


def test_a_file_without_records_has_empty_record_variables(scan, read, classic):
    group = scan(interleaved(classic(), numrecs=0, records=0))
    a = group.arrays["a"]
    assert (a.shape, a.chunk_shape, a.manifest.virtual_count) == ((0, 3), (1, 3), 0)
    assert group.dimensions["t"] == Dimension(0, is_unlimited=True)
    assert group.report.skipped == ()


def test_variables_that_the_source_cuts_off_are_skipped_and_the_others_kept(scan, read, classic):
    data = interleaved(classic())[:-4]
    group = scan(data)
    assert read(data, group.arrays["a"]).tolist() == [[0, 0, 0], [1, 1, 1], [2, 2, 2]]
    assert [skipped.path for skipped in group.report.skipped] == ["/b"]
    assert f"the source ends at byte {len(data)}" in group.report.skipped[0].reason


def test_the_vsize_field_is_not_believed(scan, read, classic):
    w = classic()
    data = w.file(
        dims=[w.dim(b"x", 2)],
        variables=lambda end: [w.var(b"v", [0], 4, end, vsize=2**32 - 1)],
        data=struct.pack(">ii", 1, 2),
    )
    assert read(data, scan(data).arrays["v"]).tolist() == [1, 2]


def test_variables_and_offsets_beyond_4_gib_are_placed(classic):
    w = classic(2)
    rows, row = 2**31 // 1000, 4000
    head = w.file(
        dims=[w.dim(b"t", 0), w.dim(b"y", rows), w.dim(b"x", 1000)],
        variables=lambda end: [
            w.var(b"a", [1, 2], 4, end, vsize=2**32 - 1),
            w.var(b"b", [0, 1, 2], 4, end + rows * row, vsize=2**32 - 1),
            w.var(b"c", [0], 6, end + 2 * rows * row),
        ],
        numrecs=2,
    )
    size = len(head) + 3 * rows * row + 2 * 8
    window = Window(memoryview(head), size)
    group = run(scanner.scan(window, ScanOptions()), MemoryReader(head))
    a, b, c = (group.arrays[name].manifest for name in "abc")
    assert int(a.offset[0]) == len(head)
    assert int(a.offset[-1] + a.length[-1]) == int(b.offset[0]) == len(head) + rows * row
    assert int(c.offset[1] + c.length[1]) == size
    assert int(c.offset[1] - c.offset[0]) == rows * row + 8
    assert (a.length == a.length[0]).all()
    assert int(a.length[0]) <= ScanOptions().max_chunk


def test_a_variable_may_use_a_dimension_twice(scan, read, classic):
    w = classic()
    data = w.file(
        dims=[w.dim(b"x", 2)],
        variables=lambda end: [w.var(b"v", [0, 0], 1, end)],
        data=bytes([1, 2, 3, 4]),
    )
    v = scan(data).arrays["v"]
    assert v.dimensions == ("x", "x")
    assert read(data, v).tolist() == [[1, 2], [3, 4]]


def test_variables_may_lie_in_another_order_and_with_gaps(scan, read, classic):
    w = classic()
    data = w.file(
        variables=lambda end: [w.var(b"a", [], 4, end + 8), w.var(b"b", [], 4, end)],
        data=struct.pack(">iii", 1, 2, 3),
    )
    arrays = scan(data).arrays
    assert (read(data, arrays["a"]).tolist(), read(data, arrays["b"]).tolist()) == (3, 1)


@pytest.mark.parametrize(
    ("dimids", "offsets"),
    [
        pytest.param([[], []], [0, 3], id="fixed variables"),
        pytest.param([[0], [0]], [0, 3], id="slabs of a record"),
        pytest.param([[0], [0]], [0, 9], id="a slab and the next record"),
        pytest.param([[0], []], [0, 4], id="the records and a fixed variable"),
        pytest.param([[], []], [-1, 4], id="the header"),
    ],
)
def test_overlapping_data_is_refused(scan, classic, dimids, offsets):
    w = classic()
    data = w.file(
        dims=[w.dim(b"t", 0)],
        variables=lambda end: [
            w.var(name, ids, 4, end + offset)
            for name, ids, offset in zip([b"a", b"b"], dimids, offsets, strict=True)
        ],
        numrecs=2,
        data=bytes(40),
    )
    with pytest.raises(Malformed, match="begins inside"):
        scan(data)


def test_a_variable_of_too_many_dimensions_is_skipped(scan, classic):
    w = classic()
    data = w.file(
        dims=[w.dim(b"x", 1)],
        variables=lambda end: [
            w.var(b"v", [0] * 33, 4, end),
            w.var(b"w", [0] * 32, 4, end + 4),
        ],
        data=bytes(8),
    )
    group = scan(data)
    assert list(group.arrays) == ["w"]
    assert "33 dimensions" in group.report.skipped[0].reason


def test_only_wanted_variables_are_returned(scan, classic):
    data = interleaved(classic())
    assert list(scan(data, include=("b",)).arrays) == ["b"]
    group = scan(data, exclude=("/b",))
    assert list(group.arrays) == ["a"]
    assert group.report.skipped == ()
