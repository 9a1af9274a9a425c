"""HDF5's metadata checksum."""

import h5py
import numpy as np
import pytest

from byteatlas.errors import Malformed
from byteatlas_scanners.hdf5.checksum import lookup3, lookup3_rows, verify, verify_rows


def by_the_book(data: bytes) -> int:
    """Bob Jenkins' hashlittle, word by word."""

    def rotate(word: int, by: int) -> int:
        return (word << by | word >> (32 - by)) & 0xFFFFFFFF

    state = [(0xDEADBEEF + len(data)) & 0xFFFFFFFF] * 3
    if not data:
        return state[2]
    words = np.frombuffer(data + bytes(-len(data) % 12), "<u4").tolist()
    for start in range(0, len(words), 3):
        state = [(s + w) & 0xFFFFFFFF for s, w in zip(state, words[start : start + 3], strict=True)]
        if start + 3 < len(words):
            for i, by in enumerate((4, 6, 8, 16, 19, 4)):
                x, y, z = i % 3, (i + 2) % 3, (i + 1) % 3
                state[x] = ((state[x] - state[y]) & 0xFFFFFFFF) ^ rotate(state[y], by)
                state[y] = (state[y] + state[z]) & 0xFFFFFFFF
    for i, by in enumerate((14, 11, 25, 16, 4, 14, 24)):
        x, y = (i + 2) % 3, (i + 1) % 3
        state[x] = ((state[x] ^ state[y]) - rotate(state[y], by)) & 0xFFFFFFFF
    return state[2]


def test_the_published_values_come_out() -> None:
    assert lookup3(b"") == 0xDEADBEEF
    assert lookup3(b"Four score and seven years ago") == 0x17770551
    assert by_the_book(b"Four score and seven years ago") == 0x17770551


@pytest.mark.parametrize("length", [*range(30), 255, 4096])
def test_any_length_gives_what_the_definition_gives(length: int) -> None:
    data = np.random.default_rng(length).integers(0, 256, length, np.uint8).tobytes()
    assert lookup3(data) == by_the_book(data)
    assert lookup3(memoryview(b"x" + data)[1:]) == by_the_book(data)


def test_rows_hash_as_each_does_alone() -> None:
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 256, (50, 61), np.uint8)
    lengths = rng.integers(1, 62, 50)
    expected = [by_the_book(row[:n].tobytes()) for row, n in zip(rows, lengths, strict=True)]
    assert lookup3_rows(rows, lengths).tolist() == expected
    assert lookup3_rows(rows, 61).tolist() == [by_the_book(row.tobytes()) for row in rows]


def test_a_superblock_written_by_the_library_verifies_and_a_changed_one_does_not() -> None:
    with h5py.File("x.h5", "w", driver="core", backing_store=False, libver="latest") as file:
        file.flush()
        superblock = bytearray(file.id.get_file_image()[:48])
    verify(superblock, "superblock", 0)
    superblock[20] ^= 1
    with pytest.raises(Malformed, match="superblock has checksum 0x") as caught:
        verify(superblock, "superblock", 7)
    assert caught.value.offset == 7
    assert caught.value.length == 48


def test_a_block_shorter_than_a_checksum_is_malformed() -> None:
    with pytest.raises(Malformed, match="too short"):
        verify(b"abc", "block", 0)


def test_the_first_wrong_row_is_named() -> None:
    rows = np.zeros((5, 20), np.uint8)
    lengths = np.array([16, 10, 8, 4, 1])
    for row, length in zip(rows, lengths, strict=True):
        row[:length] = 9
        row[length : length + 4].view("<u4")[0] = by_the_book(bytes(row[:length]))
    offsets = np.arange(5, dtype=np.uint64) * 100
    verify_rows(rows, lengths, "node", offsets)
    rows[2:4, 0] += 1
    with pytest.raises(Malformed, match="node has checksum") as caught:
        verify_rows(rows, lengths, "node", offsets)
    assert caught.value.offset == 200
    assert caught.value.length == 12
