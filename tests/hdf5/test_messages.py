"""Header messages by hand: the versions that today's library no longer writes among them."""

import struct

import numpy as np
import pytest

from byteatlas.convert import Move
from byteatlas.errors import Malformed, Unsupported
from byteatlas_scanners.hdf5.chunks import ChunkIndexKind
from byteatlas_scanners.hdf5.dataspace import Dataspace, parse_dataspace
from byteatlas_scanners.hdf5.datatype import parse_datatype
from byteatlas_scanners.hdf5.file import Hdf5File
from byteatlas_scanners.hdf5.fill_value import FillValue, parse_fill_value, parse_old_fill_value
from byteatlas_scanners.hdf5.filters import Filter, parse_filter_pipeline
from byteatlas_scanners.hdf5.layout import Compact, Contiguous, Virtual, parse_layout
from byteatlas_scanners.hdf5.links import Link, parse_link

FILE = Hdf5File(size=10**6)
UNDEFINED = b"\xff" * 8


def view(*parts):
    return memoryview(b"".join(parts))


def u4(*values):
    return struct.pack(f"<{len(values)}I", *values)


def u8(*values):
    return struct.pack(f"<{len(values)}Q", *values)


# Dataspaces.


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (view(b"\1\0\0\0", u4(0)), Dataspace((), ())),
        (view(b"\1\2\0\0", u4(0), u8(3, 4)), Dataspace((3, 4), (3, 4))),
        (view(b"\1\2\1\0", u4(0), u8(3, 4), u8(9), UNDEFINED), Dataspace((3, 4), (9, None))),
        (view(b"\2\0\0\0"), Dataspace((), ())),
        (view(b"\2\1\1\1", u8(0), UNDEFINED), Dataspace((0,), (None,))),
        (view(b"\2\0\0\2"), Dataspace((), (), is_null=True)),
    ],
    ids=["scalar 1", "simple 1", "limits 1", "scalar 2", "limits 2", "null"],
)
def test_dataspaces(body, expected):
    assert parse_dataspace(FILE, body) == expected


@pytest.mark.parametrize(
    ("body", "kind", "problem"),
    [
        (view(b"\3\0\0\0"), Unsupported, "version 3"),
        (view(b"\2\x21\0\1", u8(*range(33))), Malformed, "rank 33, at most 32"),
        (view(b"\2\2\0\1", u8(2**32, 2**32)), Malformed, "more elements than can be addressed"),
        (view(b"\2\1\1\1", u8(5, 4)), Malformed, "larger than its limit"),
    ],
)
def test_dataspaces_that_cannot_be(body, kind, problem):
    with pytest.raises(kind, match=problem):
        parse_dataspace(FILE, body)


# Fill values.


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (view(b"\1\1\0\1", u4(2), b"ab"), FillValue(b"ab")),
        (view(b"\1\1\0\0", u4(0)), FillValue(None)),
        (view(b"\2\1\2\1", u4(2), b"ab"), FillValue(b"ab")),
        (view(b"\2\1\1\1", u4(2), b"ab"), FillValue(b"ab", is_written=False)),
        (view(b"\2\1\2\0"), FillValue(None)),
        (view(b"\3\x20", u4(2), b"ab"), FillValue(b"ab")),
        (view(b"\3\x24", u4(2), b"ab"), FillValue(b"ab", is_written=False)),
        (view(b"\3\x0a"), FillValue(None)),
        (view(b"\3\x10"), FillValue(None)),
    ],
)
def test_fill_values(body, expected):
    assert parse_fill_value(body) == expected


def test_the_old_fill_value_is_a_value_alone():
    assert parse_old_fill_value(view(u4(3), b"abc")) == FillValue(b"abc")
    assert parse_old_fill_value(view(u4(0))) == FillValue(None)
    with pytest.raises(Malformed, match="100 bytes"):
        parse_old_fill_value(view(u4(100), b"abc"))


# Layouts.


def layout(*parts, is_filtered=False):
    return parse_layout(FILE, view(*parts), is_filtered=is_filtered)


@pytest.mark.parametrize("version", [1, 2])
def test_layouts_of_the_first_versions(version):
    def head(rank, kind):
        return bytes([version, rank, kind]) + bytes(5)

    assert layout(head(2, 0), u4(3, 4), u4(5), b"12345") == Compact(b"12345")
    assert layout(head(2, 1), u8(800), u4(3, 4)) == Contiguous(800, None)
    assert layout(head(2, 1), UNDEFINED, u4(3, 4)) == Contiguous(None, None)
    chunked = layout(head(3, 2), u8(800), u4(3, 4, 8))
    assert chunked.kind is ChunkIndexKind.BTREE_V1
    assert (chunked.address, chunked.chunk_shape, chunked.chunk_nbytes) == (800, (3, 4), 96)


def test_layouts_of_version_3():
    assert layout(b"\3\0\2\0ab") == Compact(b"ab")
    assert layout(b"\3\1", u8(800, 24)) == Contiguous(800, 24)
    chunked = layout(b"\3\2\2", UNDEFINED, u4(7, 4), is_filtered=True)
    assert (chunked.address, chunked.chunk_shape, chunked.is_filtered) == (None, (7,), True)


@pytest.mark.parametrize("version", [4, 5])
def test_layouts_of_the_latest_versions(version):
    def head(kind, flags=0):
        return bytes([version, 2, flags, 3, 2]) + struct.pack("<3H", 3, 4, 8) + bytes([kind])

    for kind, parameters in {2: b"", 3: b"\x0a", 4: bytes(5), 5: bytes(6)}.items():
        found = layout(head(kind), parameters, u8(800))
        assert found.kind is ChunkIndexKind(kind)
        assert (found.address, found.chunk_shape, found.chunk_nbytes) == (800, (3, 4), 96)
        assert not found.has_plain_edges
    single = layout(head(1, flags=2), u8(55), u4(3), u8(800), is_filtered=True)
    assert (single.single_size, single.single_mask, single.address) == (55, 3, 800)
    assert layout(head(3, flags=1), b"\x0a", u8(800)).has_plain_edges
    assert layout(bytes([version, 3]), u8(800), u4(1)) == Virtual(800, 1)


@pytest.mark.parametrize(
    ("parts", "kind", "problem"),
    [
        ([b"\x06\1"], Unsupported, "version 6"),
        ([b"\3\7"], Unsupported, "class 7"),
        ([b"\1\1\7", bytes(30)], Unsupported, "class 7"),
        ([b"\4\2\0\2\1\3\4\x63", bytes(30)], Unsupported, "index type 99"),
        ([b"\4\2\0\2\0\1", u8(800)], Malformed, "a chunk of"),
        ([b"\3\2\1", u8(800), u4(4)], Malformed, "a chunk of"),
        ([b"\3\2\2", u8(800), u4(0, 4)], Malformed, "a chunk of"),
    ],
)
def test_layouts_that_cannot_be(parts, kind, problem):
    with pytest.raises(kind, match=problem):
        layout(*parts)


# Filter pipelines.


def test_filter_pipelines_of_both_versions():
    expected = (
        Filter(2, True, "shuffle", (4,)),
        Filter(32015, False, "my zstd", (3, 9)),
        Filter(3, False, "", ()),
    )
    version_1 = view(
        b"\1\3" + bytes(6),
        struct.pack("<4H", 2, 8, 1, 1) + b"shuffle\0" + u4(4, 0),
        struct.pack("<4H", 32015, 8, 0, 2) + b"my zstd\0" + u4(3, 9),
        struct.pack("<4H", 3, 0, 0, 0),
    )
    assert parse_filter_pipeline(version_1) == expected
    version_2 = view(
        b"\2\3",
        struct.pack("<3H", 2, 1, 1) + u4(4),
        struct.pack("<4H", 32015, 8, 0, 2) + b"my zstd\0" + u4(3, 9),
        struct.pack("<3H", 3, 0, 0),
    )
    assert parse_filter_pipeline(version_2) == (expected[0]._replace(name=""), *expected[1:])
    with pytest.raises(Unsupported, match="version 7"):
        parse_filter_pipeline(view(b"\7\1"))


# Links.


def test_links_of_every_kind():
    assert parse_link(FILE, view(b"\1\0\1x", u8(800))) == Link("x", address=800)
    named = view(b"\1\x1c\0", struct.pack("<q", 7), b"\1", b"\2\xc3\xa9", u8(800))
    assert parse_link(FILE, named) == Link("\u00e9", address=800, order=7)
    soft = view(b"\1\x09\1", struct.pack("<H", 3), b"abc", struct.pack("<H", 4), b"/x/y")
    assert parse_link(FILE, soft) == Link("abc", target="/x/y")
    external = view(b"\1\x08\x40\1x", struct.pack("<H", 10), b"\0other\0/y\0")
    assert parse_link(FILE, external).elsewhere == "an external link to 'other:/y'"
    custom = view(b"\1\x08\xbb\1x", struct.pack("<H", 2), b"??")
    assert parse_link(FILE, custom).elsewhere == "a link of user-defined type 187"
    with pytest.raises(Unsupported, match="version 2"):
        parse_link(FILE, view(b"\2\0\1x", u8(800)))
    with pytest.raises(Malformed, match="ends inside the name"):
        parse_link(FILE, view(b"\1\0\x7fx", u8(800)))


# Datatypes.


def integer(order="<", size=4, version=1):
    return u4(version << 4 | (order == ">") << 8 | 8 << 8, size) + struct.pack("<HH", 0, 8 * size)


def padded(name):
    return name + b"\0" * (8 - len(name) % 8)


def test_compounds_of_every_version():
    expected = np.dtype([("a", "<i4"), ("bc", "<i4", (2, 3))])
    # Version 1 gives each member up to four dimensions; later ones use array datatypes.
    version_1 = view(
        u4(1 << 4 | 6 | 2 << 8, 28),
        padded(b"a") + u4(0) + bytes(28) + integer(),
        padded(b"bc") + u4(4) + b"\2\0\0\0" + u4(0, 0) + u4(2, 3, 0, 0) + integer(),
    )
    array_2 = u4(2 << 4 | 10, 24) + b"\2\0\0\0" + u4(2, 3, 0, 1) + integer(version=2)
    version_2 = view(
        u4(2 << 4 | 6 | 2 << 8, 28),
        padded(b"a") + u4(0) + integer(version=2),
        padded(b"bc") + u4(4) + array_2,
    )
    array_3 = u4(3 << 4 | 10, 24) + b"\2" + u4(2, 3) + integer(version=3)
    version_3 = view(
        u4(3 << 4 | 6 | 2 << 8, 28),
        b"a\0" + b"\0" + integer(version=3),
        b"bc\0" + b"\4" + array_3,
    )
    for body in (version_1, version_2, version_3):
        found = parse_datatype(FILE, body)
        assert found.dtype == expected
        assert found.moves is None
        assert found.length == len(body)


def test_offsets_of_members_take_as_many_bytes_as_the_size_of_the_compound():
    for size, width in ((255, 1), (256, 2), (65535, 2), (65536, 3)):
        last = (size - 4).to_bytes(width, "little")
        body = view(u4(3 << 4 | 6 | 1 << 8, size), b"a\0", last, integer(">", version=3))
        assert parse_datatype(FILE, body).moves == (Move("swap", size - 4, 0, 4, 4),)


def test_enumerations_of_every_version():
    values = struct.pack("<2i", 5, -1)
    old = view(u4(1 << 4 | 8 | 2 << 8, 4), integer(), padded(b"FIVE"), padded(b"NONE"), values)
    new = view(u4(3 << 4 | 8 | 2 << 8, 4), integer(version=3), b"FIVE\0NONE\0", values)
    for body in (old, new):
        found = parse_datatype(FILE, body)
        assert found.enum == {"FIVE": 5, "NONE": -1}
        assert found.dtype == np.dtype("<i4")
        assert found.length == len(body)


def test_what_follows_a_member_without_array_form_is_parsed_at_its_place():
    wide = u4(3 << 4, 16) + struct.pack("<HH", 0, 128)
    enumeration = u4(3 << 4 | 8 | 2 << 8, 16) + wide + b"NO\0YES\0" + bytes(31) + b"\1"
    body = view(
        u4(3 << 4 | 6 | 2 << 8, 20),
        b"a\0\0" + enumeration,
        b"b\0\x10" + integer(version=3),
    )
    found = parse_datatype(FILE, body)
    assert found.length == len(body)
    assert found.refusal == (
        "a compound whose member 'a' holds an enumeration of integers of 128 bits, numpy has at "
        "most 64"
    )


def nested(depth):
    body = integer()
    for _ in range(depth):
        body = u4(2 << 4 | 10, 4) + b"\1\0\0\0" + u4(1, 0) + body
    return memoryview(body)


@pytest.mark.parametrize(
    ("body", "kind", "problem"),
    [
        (view(u4(6 << 4, 4)), Unsupported, "version 6"),
        (view(u4(1 << 4 | 12, 4)), Unsupported, "class 12"),
        (view(u4(1 << 4, 0)), Malformed, "an element of 0 bytes"),
        (view(u4(1 << 4, 2**32 - 1)), Malformed, "an element of 4294967295 bytes"),
        (nested(17), Malformed, "nested more than 16 deep"),
        (view(u4(2 << 4 | 10, 5), b"\1\0\0\0", u4(1, 0), integer()), Malformed, "an array"),
        (view(u4(3 << 4 | 6 | 1 << 8, 3), b"a\0\0", integer()), Malformed, "beyond its 3 bytes"),
        (view(u4(1 << 4 | 8 | 2 << 8, 4), integer(), padded(b"a") * 2), Malformed, "fewer values"),
        (view(u4(1 << 4 | 9 | 1 << 8, 12), integer()), Malformed, "a heap reference of 12 bytes"),
    ],
)
def test_datatypes_that_cannot_be(body, kind, problem):
    with pytest.raises(kind, match=problem):
        parse_datatype(FILE, body)
    assert parse_datatype(FILE, nested(16)).shape == (1,) * 16
