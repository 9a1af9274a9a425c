"""What mutants found once: each case is read as the libraries read it, or refused."""

import struct
from pathlib import Path

import h5py
import numpy as np
import pytest
from fuzz.oracle import judge
from fuzz.seeds import make_seed, repaired
from fuzz.subject import examine

from byteatlas.codecs import unshuffle


@pytest.fixture
def outcome(tmp_path):
    """Judge bytes: the kind of outcome, and what was refused."""

    def judged(data, *, is_hdf5=True):
        path = Path(tmp_path, "case")
        path.write_bytes(data)
        reading = examine(path)
        verdict = judge(reading, path, frozenset(), is_hdf5=is_hdf5)
        return verdict.kind, reading.refused, verdict.details

    return judged


def changed(name, start, raw):
    """Return a sample with some bytes overwritten, and its checksums repaired."""
    seed = make_seed(name)
    data = bytearray(seed.data)
    data[start : start + len(raw)] = raw
    return repaired(bytes(data), seed.checked)


def test_chunks_that_the_keys_of_a_version_1_tree_hide_are_not_shown(outcome):
    data = make_seed("hdf5-btree1").data
    inner = data.index(b"TREE\x01\x01")
    second_key = inner + 24 + 32 + 8  # size, mask, two offsets and a child each
    assert struct.unpack_from("<QQ", data, second_key)[1] == 0
    for offset in (0, 1, 39, 60, 2**40):
        raw = struct.pack("<Q", offset)
        kind, refused, details = outcome(changed("hdf5-btree1", second_key, raw))
        assert (kind, list(refused)) == ("skip", ["/many"]), details
        assert "not in order" in refused["/many"]


def test_chunks_that_the_keys_of_a_version_2_tree_hide_are_not_shown(outcome):
    data = make_seed("hdf5-btree2").data
    leaf = data.index(b"BTLF\0\x0a")
    first, second = leaf + 6, leaf + 6 + 24  # an address and two coordinates each
    swapped = data[second : second + 24] + data[first : first + 24]
    kind, refused, details = outcome(changed("hdf5-btree2", first, swapped))
    assert (kind, list(refused)) == ("skip", ["/plain"]), details
    assert "not in order" in refused["/plain"]


def test_chunks_that_share_their_bytes_are_read_as_h5py_reads_them(outcome):
    data = make_seed("hdf5-btree1").data
    leaf = data.index(b"TREE\x01\x00")
    first_child = leaf + 24 + 24
    address = data[first_child : first_child + 8]
    raw = bytearray(data)
    for entry in range(4):
        place = first_child + 32 * entry
        raw[place : place + 8] = address
    kind, refused, details = outcome(bytes(raw))
    assert (kind, refused) == ("agree", {}), details


@pytest.mark.parametrize("item", [3, 2**16, 2**20 + 1, 2**31 - 1, 2**32 - 1])
def test_a_shuffle_of_large_items_takes_no_longer(item):
    data = bytes(range(256)) * 512
    count = len(data) // item
    expected = np.frombuffer(data, np.uint8).copy()
    shuffled = expected[: count * item]
    expected[: count * item] = shuffled.reshape(item, count).T.ravel() if count else shuffled
    assert bytes(unshuffle(data, item)) == expected.tobytes()


def test_a_file_that_is_cut_off_gives_what_is_still_there(outcome):
    data = make_seed("hdf5-old").data
    kinds = {outcome(data[:size])[0] for size in range(300, len(data), 487)}
    assert kinds <= {"error", "skip", "agree"}
    assert "skip" in kinds


@pytest.mark.parametrize("base", [0, 1, 512, 1024, 2**40])
@pytest.mark.parametrize("front", [0, 512, 1024])
def test_a_base_address_that_is_not_where_the_file_starts_misleads_nobody(
    outcome, tmp_path, front, base
):
    path = tmp_path / "user block.h5"
    with h5py.File(path, "w", userblock_size=512) as file:
        file["x"] = np.arange(20)
        file.create_dataset("y", data=np.arange(20), chunks=(5,), compression=1)
    data = bytearray(front) + path.read_bytes()[512:]
    data[front + 24 : front + 32] = struct.pack("<Q", base)
    kind, _, details = outcome(bytes(data))
    assert kind in ("agree", "error", "lenient"), details


def test_elements_that_an_extensible_array_never_set_are_not_shown(outcome):
    data = make_seed("hdf5-arrays").data
    heads = [at for at in range(len(data)) if data[at : at + 4] == b"EAHD"]
    limits = [struct.unpack_from("<Q", data, at + 12 + 32)[0] for at in heads]
    head = heads[limits.index(30)]  # of 6 rows of 5 chunks
    kind, refused, details = outcome(changed("hdf5-arrays", head + 12 + 32, b"\x07"))
    assert (kind, refused) == ("agree", {}), details


def test_the_name_of_an_attribute_ends_where_its_size_says(outcome):
    data = make_seed("hdf5-old").data
    kind, refused, details = outcome(changed("hdf5-old", data.index(b"units\0") + 5, b"\x80"))
    assert (kind, refused.keys()) == ("skip", {"/alias/up", "/group/up"}), details


@pytest.mark.parametrize("place", [9, 10])
def test_a_superblock_of_unknown_widths_is_refused_with_its_place(outcome, place):
    kind, _, (problem,) = outcome(changed("hdf5-dense", place, b"\x48"))
    assert kind == "error"
    assert "addresses or lengths of 72 bytes at byte 0 (0x0)" in problem


def test_links_of_one_name_are_not_followed(outcome):
    data = make_seed("hdf5-btree1").data
    names = data.index(b"a00\0\0\0\0\0a01\0")
    kind, refused, details = outcome(changed("hdf5-btree1", names, b"a01"))
    assert (kind, list(refused)) == ("skip", ["/group"]), details
    assert "'a01'" in refused["/group"]


def test_a_fill_value_of_scale_offset_is_one_only_where_the_filter_says_one(outcome):
    seed = make_seed("hdf5-filters")
    # The parameters of the filter of `decimals`: method, digits, count, class, size, sign, order.
    start = seed.data.index(struct.pack("<8I", 0, 2, 30, 1, 8, 0, 0, 1)) + 4 * 7
    kind, refused, details = outcome(changed("hdf5-filters", start, b"\x21"))
    assert (kind, refused) == ("agree", {}), details


def test_a_fixed_array_without_an_element_for_each_chunk_is_malformed(outcome):
    seed = make_seed("hdf5-arrays")
    extents = struct.pack("<4Q", 6, 10, 6, 10)  # and their maxima
    grown = seed.data.replace(extents, struct.pack("<4Q", 6, 10, 6, 42))
    kind, refused, details = outcome(repaired(grown, seed.checked))
    assert kind == "skip", details
    assert "fixed array of 30 elements for 126 chunks" in refused["/fixed"]
