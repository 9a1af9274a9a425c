"""Broken and hostile bytes: only our own errors come out, soon and within little memory."""

import struct
import tracemalloc

import numpy as np
import pytest

from byteatlas.errors import ByteatlasError, Malformed
from byteatlas.model import VirtualGroup


def small(w):
    """Return a file with one of everything."""
    return w.file(
        dims=[w.dim(b"t", 0), w.dim(b"x", 3)],
        atts=[w.text(b"title", b"small"), w.att(b"range", 5, 2, bytes(8))],
        variables=lambda end: [
            w.var(b"fixed", [1], 6, end, [w.text(b"units", b"K")]),
            w.var(b"a", [0, 1], 3, end + 24),
            w.var(b"b", [0], 1, end + 32),
        ],
        numrecs=2,
        data=bytes(range(48)),
    )


def survives(scan, read, data, **options):
    """Scan bytes: either our error, or arrays whose every chunk lies within the source."""
    try:
        group = scan(data, **options)
    except ByteatlasError:
        return
    assert isinstance(group, VirtualGroup)
    for array in group.arrays.values():
        assert read(data, array).shape == array.shape


@pytest.mark.parametrize("version", [1, 2, 5])
def test_a_file_cut_off_anywhere_gives_our_error_or_correct_values(scan, read, classic, version):
    data = small(classic(version))
    whole = scan(data)
    for size in range(len(data)):
        try:
            group = scan(data[:size])
        except Malformed:
            assert size < len(data) - 48
            continue
        for name, array in group.arrays.items():
            expected = read(data, whole.arrays[name])
            assert read(data[:size], array).tobytes() == expected.tobytes()
        assert len(group.arrays) + len(group.report.skipped) == 3


@pytest.mark.parametrize("value", [0x00, 0x01, 0x7F, 0x80, 0xFF])
@pytest.mark.parametrize("version", [1, 2, 5])
def test_a_file_with_any_byte_overwritten_gives_our_error_or_a_group(
    scan, read, classic, version, value
):
    data = bytearray(small(classic(version)))
    for position in range(len(data) - 48):
        before, data[position] = data[position], value
        survives(scan, read, bytes(data), max_chunk=16)
        data[position] = before


@pytest.mark.parametrize("version", [1, 2, 5])
def test_a_file_with_any_field_overwritten_gives_our_error_or_a_group(scan, read, classic, version):
    data = small(classic(version))
    for width in (4, 8):
        for value in (-1, 0, 1, 2 ** (8 * width - 1) - 1, -(2 ** (8 * width - 1))):
            field = value.to_bytes(width, "big", signed=True)
            for start in range(0, len(data) - 48 - width, 4):
                survives(scan, read, data[:start] + field + data[start + width :], max_chunk=16)


def test_random_bytes_behind_the_magic_give_our_error_or_a_group(scan, read):
    rng = np.random.default_rng(4)
    for version in (1, 2, 5):
        for _ in range(300):
            # Small numbers get further than random ones.
            fields = rng.choice([0, 1, 2, 3, 4, 10, 11, 12, 2**32 - 1], 60).astype(">u4")
            survives(scan, read, b"CDF" + bytes([version]) + fields.tobytes())


@pytest.mark.parametrize("version", [1, 2, 5])
def test_counts_and_lengths_without_bytes_behind_them_cost_no_memory(scan, classic, version):
    w = classic(version)
    huge = 2**31 - 4
    files = [
        w.file(dims=[w.dim(b"x", 1)])[:-20] + struct.pack(">I", 11) + w.count(huge),
        w.file(atts=[w.att(b"a", 6, huge, b"")]),
        w.file(
            dims=[w.dim(b"t", 0), w.dim(b"x", huge)],
            variables=lambda end: [
                w.var(b"v", [1] * 1000, 6, end),
                w.var(b"w", [0, 1, 1], 6, end + 8),
            ],
            numrecs=huge,
            data=bytes(100),
        ),
        w.file(
            dims=[w.dim(b"t", 0), w.dim(b"x", huge)],
            variables=lambda end: [w.var(b"v", [0, 1, 1, 1], 6, end), w.var(b"w", [0], 1, end)],
        ),
    ]
    tracemalloc.start()
    try:
        for data in files:
            try:
                group = scan(data, max_chunk=1)
            except ByteatlasError:
                continue
            assert sum(array.manifest.virtual_count for array in group.arrays.values()) == 0
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
