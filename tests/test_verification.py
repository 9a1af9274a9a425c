"""Comparing an index with what the reference libraries say of its source."""

import sys
from dataclasses import replace

import h5py
import numpy as np
import pytest

from byteatlas.errors import SourceMissing, Unsupported
from byteatlas.model import (
    ChunkManifest,
    Codec,
    Encoding,
    ScanReport,
    Skipped,
    Source,
    VirtualArray,
    VirtualGroup,
)
from byteatlas.scanning import scan
from byteatlas.verification import (
    describe_difference,
    same_attribute,
    same_dtype,
    same_values,
    verify,
)

QUIET_NAN, OTHER_NAN = np.array([0x7FC00000, 0x7FC00001], "<u4").view("<f4")


def _sequences(*texts):
    """Return what h5py makes of variable-length sequences of characters."""
    found = np.empty(len(texts), object)
    found[:] = [np.frombuffer(text, "S1") for text in texts]
    return found


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ([QUIET_NAN, 1], np.array([QUIET_NAN, 1], "<f4").astype(">f4")),
        (np.array([True, False]), np.array([1, 0], "i1")),
        (np.array([1 + 2j], ">c16"), np.array([(1, 2)], [("r", "<f8"), ("i", "<f8")])),
        (np.array([b"ab", b""], "S4"), np.array(["ab", ""], object)),
        (np.array(["ü"], object), np.array(["ü".encode()], object)),
        (np.array([(1, 2.5)], ">i4,>f8"), np.array([(1, 2.5)], "<i4,<f8")),
        (np.zeros((2, 0), "i4"), np.zeros((2, 0), "i4")),
        (np.array(7, ">u2"), np.array(7, "<u2")),
    ],
)
def test_equal_values_are_equal_however_a_library_spells_them(ours, theirs):
    ours = np.asarray(ours, "f4") if isinstance(ours, list) else ours
    assert same_dtype(ours.dtype, theirs.dtype)
    assert same_values(ours, theirs)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (np.array([QUIET_NAN]), np.array([OTHER_NAN])),
        (np.array([0.0]), np.array([-0.0])),
        (np.array([1, 2]), np.array([1, 3])),
        (np.array([1, 2]), np.array([[1, 2]])),
        (np.array(["a"], object), np.array(["b"], object)),
        (np.array([(1, 2.5)], "i4,f8"), np.array([(1, 2.0)], "i4,f8")),
        (np.array([1 + 2j]), np.array([1 - 2j])),
    ],
)
def test_other_values_are_not(ours, theirs):
    assert not same_values(ours, theirs)


def test_the_gaps_between_the_fields_of_a_compound_are_not_values():
    kind = np.dtype({"names": ["a", "b"], "formats": ["u1", "<i4"], "offsets": [0, 4]})
    ours, theirs = np.zeros(3, kind), np.zeros(3, kind)
    theirs.view("u1").reshape(3, -1)[:, 1:4] = 0xFF
    assert same_values(ours, theirs)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("<i4", "<u4"),
        ("<i4", "<i8"),
        ("<f4", "<i4"),
        ("i1,f8", "i1,f4"),
        ("i1", "?"),
        ("S4", "S5"),
        ("(2,)i4", "(3,)i4"),
    ],
)
def test_other_types_are_not_the_same(ours, theirs):
    assert not same_dtype(np.dtype(ours), np.dtype(theirs))


@pytest.mark.parametrize(
    ("ours", "theirs", "is_same"),
    [
        ("K", np.bytes_(b"K"), True),
        ("K", "K\0", True),
        (["a", "b"], np.array([b"a", b"b"], object), True),
        (["ab", "c"], _sequences(b"ab", b"c"), True),
        (["ab", "c"], _sequences(b"ab", b"d"), False),
        (np.int16(3), np.array([3], ">i2"), True),
        (np.array([1.5, 2]), np.array([1.5, 2], ">f8"), True),
        ([], np.array([], object), True),
        ("", [], True),
        (np.int16(3), np.int32(3), False),
        (np.float32(0.1), np.float64(0.1), False),
        (np.float64("nan"), np.float64("nan"), True),
        ("3", np.int64(3), False),
        ("a", ["a", "b"], False),
        (np.array([], "f4"), np.array([], "f4"), True),
    ],
)
def test_attributes_are_compared_with_their_types(ours, theirs, is_same):
    assert same_attribute(ours, theirs) is is_same


def test_a_difference_names_the_first_element_in_the_whole_array():
    ours = np.arange(12).reshape(3, 4)
    theirs = ours.copy()
    theirs[1, 2] = theirs[2, 0] = 99
    said = describe_difference(ours, theirs, (slice(10, 13), slice(20, 24)))
    assert said.startswith("[11, 22] is ")
    assert said.endswith("2 of 12 differ")
    assert describe_difference(ours, ours) == ""


# With a source


@pytest.fixture
def source(tmp_path):
    """A file of one contiguous variable, 6 by 5, and the group that describes it."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("t", data=np.arange(30, dtype="<f4").reshape(6, 5))
        data.attrs["units"] = "K"
        file.attrs["title"] = "made up"
        offset = data.id.get_offset()
    manifest = ChunkManifest.build(
        (3, 1),
        np.arange(3, dtype=np.uint64),
        offset + 40 * np.arange(3, dtype=np.uint64),
        np.full(3, 40, np.uint64),
    )
    array = VirtualArray(
        (6, 5), np.dtype("<f4"), (2, 5), manifest, dimensions=("y", "x"), attrs={"units": "K"}
    )
    return path, VirtualGroup(
        attrs={"title": "made up"},
        arrays={"t": array},
        sources=(Source(str(path), path.stat().st_size),),
    )


def changed(group, **facts):
    array = group.arrays["t"]
    fields = {name: getattr(array, name) for name in array.__slots__} | facts
    return VirtualGroup(
        attrs=group.attrs, arrays={"t": VirtualArray(**fields)}, sources=group.sources
    )


@pytest.mark.parametrize("sample", [None, 1, 2, 10])
def test_a_true_index_is_equal_in_any_sample(source, sample):
    report = verify(source[1], sample=sample)
    assert report.is_equal
    (checked,) = report.checked
    assert checked.path == "/t"
    assert checked.size == 30
    assert checked.elements == (30 if sample in (None, 10) else 10 * sample)


def test_a_file_url_is_compared_like_its_path(source):
    path, group = source
    url = VirtualGroup(attrs=group.attrs, arrays=group.arrays, sources=(Source(path.as_uri()),))
    assert verify(url).is_equal


def test_an_array_whose_decoder_is_not_installed_is_not_compared(source, monkeypatch):
    path, group = source
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    parameters = {"options_mask": 133, "pixels_per_block": 8, "bits_per_pixel": 32}
    szip = Encoding((Codec("imagecodecs_szip", {**parameters, "pixels_per_scanline": 64}),))
    coded = changed(group, encodings=(szip,)).arrays["t"]
    both = replace(group, arrays={"t": group.arrays["t"], "coded": coded})
    with h5py.File(path, "a") as file:
        file["coded"] = file["t"]
    report = verify(replace(both, sources=(Source(str(path)),)))
    assert [checked.path for checked in report.checked] == ["/t"]
    ((skipped, reason),) = report.skipped
    assert skipped == "/coded"
    assert "pip install 'byteatlas[hdf5]'" in reason


def test_a_chunk_at_the_wrong_place_is_found(source):
    manifest = source[1].arrays["t"].manifest
    wrong = ChunkManifest.build(
        (3, 1), np.arange(3, dtype=np.uint64), manifest.offset[[0, 1, 1]], manifest.length
    )
    report = verify(changed(source[1], manifest=wrong), sample=None)
    assert not report.is_equal
    (difference,) = report.differences
    assert difference.path == "/t"
    assert difference.what == "values"
    assert difference.detail.startswith("[4, 0] is ")
    assert "10 of 30 differ" in difference.detail


@pytest.mark.parametrize(
    ("facts", "what"),
    [
        ({"attrs": {}}, "attribute units"),
        ({"attrs": {"units": "K", "more": "x"}}, "attribute more"),
        ({"attrs": {"units": "degC"}}, "attribute units"),
        ({"dtype": np.dtype("<i4")}, "dtype"),
    ],
)
def test_wrong_metadata_is_found(source, facts, what):
    report = verify(changed(source[1], **facts))
    assert what in [difference.what for difference in report.differences]
    assert not report.checked[0].is_equal


def test_a_variable_of_which_the_index_says_nothing_is_absent(source):
    bare = VirtualGroup(attrs=source[1].attrs, sources=source[1].sources)
    report = verify(bare)
    assert report.absent == ("/t",)
    assert report.is_equal  # nothing that was compared differs
    said = replace(bare, report=ScanReport(skipped=(Skipped("/t", "made up"),)))
    assert verify(said).absent == ()


def test_a_variable_that_the_source_does_not_have_is_a_difference(source):
    arrays = source[1].arrays | {"more": source[1].arrays["t"]}
    (difference,) = verify(replace(source[1], arrays=arrays)).differences
    assert difference[:2] == ("/more", "missing")


def test_what_the_library_cannot_read_is_skipped(source):
    path, group = source
    with h5py.File(path, "r+") as file:
        file["empty"] = h5py.Empty("f4")
    arrays = group.arrays | {"empty": group.arrays["t"]}
    report = verify(replace(group, arrays=arrays, sources=(Source(str(path)),)))
    assert [skipped.path for skipped in report.skipped] == ["/empty"]
    assert report.skipped[0].reason.startswith("not compared: ")


def test_a_source_that_changed_is_stale_and_not_compared(source):
    path, group = source
    with path.open("ab") as file:
        file.write(b"more")
    report = verify(group)
    assert not report.is_equal
    assert len(report.stale) == 1
    assert not report.checked


def test_a_source_that_is_gone_is_an_error(source):
    path, group = source
    path.unlink()
    with pytest.raises(SourceMissing):
        verify(group)


def test_an_index_of_several_sources_is_refused(source):
    several = VirtualGroup(arrays=source[1].arrays, sources=source[1].sources * 2)
    with pytest.raises(Unsupported, match="2 sources"):
        verify(several)


def test_a_group_that_the_library_cannot_list_is_not_compared(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["field"] = file["group/field"] = np.arange(3)
    data = bytearray(path.read_bytes())
    free = data.rindex(b"HEAP") + 16  # where the free list of the group's heap of names begins
    data[free : free + 8] = (2**40).to_bytes(8, "little")
    path.write_bytes(data)
    report = verify(scan(path, engine="native"))
    assert [checked.path for checked in report.checked] == ["/field"]
    assert report.differences == ()
    ((skipped, reason),) = report.skipped
    assert skipped == "/group/field"
    assert reason.startswith("not compared: of /group, h5py cannot read it: ")


def test_a_group_that_the_source_does_not_have_is_not_passed_over(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["there/x"] = [1, 2]
    group = scan(path)
    more = replace(group, groups={**group.groups, "ghost": VirtualGroup(attrs={"a": "b"})})
    more.to_json(tmp_path / "a.json")
    report = verify(tmp_path / "a.json")
    assert [(path, "not compared" in reason) for path, reason in report.skipped] == [
        ("/ghost", True)
    ]
