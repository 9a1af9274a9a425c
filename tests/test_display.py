"""Text and HTML of virtual groups and arrays."""

from html.parser import HTMLParser

import numpy as np
import pytest

from byteatlas import display
from byteatlas.model import (
    ChunkManifest,
    Codec,
    Dimension,
    Encoding,
    ScanReport,
    Skipped,
    Source,
    VirtualArray,
    VirtualGroup,
)

DEFLATED = (Encoding((Codec("shuffle", {"elementsize": 2}), Codec("zlib", {"level": 4}))),)


def array(shape, chunk_shape, dimensions, present, *, inline=0, **facts):
    grid = tuple(-(-n // c) for n, c in zip(shape, chunk_shape, strict=True))
    rows = np.arange(present, dtype=np.uint64)
    manifest = ChunkManifest.build(
        grid,
        rows,
        rows * 100,
        np.full(present, 100, np.uint64),
        inline={present + position: b"x" for position in range(inline)},
    )
    facts = {"dtype": np.dtype("<i2"), "encodings": DEFLATED} | facts
    return VirtualArray(
        shape=shape,
        chunk_shape=chunk_shape,
        dimensions=dimensions,
        manifest=manifest,
        **facts,
    )


@pytest.fixture
def group():
    return VirtualGroup(
        attrs={"title": "Sea & ice"},
        dimensions={"time": Dimension(24, is_unlimited=True), "lat": Dimension(36)},
        arrays={
            "tas": array((24, 36), (4, 18), ("time", "lat"), 9, attrs={"units": "K"}),
            "region": array(
                (4,), (4,), ("region",), 0, inline=1, dtype=np.dtype(object),
                encodings=(Encoding((Codec("vlen-utf8"),)),),
            ),
            "crs": array((), (), (), 1, dtype=np.dtype("<i4"), encodings=(Encoding(),)),
        },
        groups={"forcing": VirtualGroup(arrays={"co2": array((24,), (12,), ("time",), 2)})},
        sources=(Source("https://user:pw@host/a.nc?sig=secret", 187_060, '"abc"'),),
        report=ScanReport("hdf5", "0.1", (Skipped("/x", "external <file>"),), 1, 1, 187_060),
    )  # fmt: skip


def test_the_text_is_a_tree_with_chunks_codecs_counts_and_reasons(group):
    title, *tree = display.text(group).splitlines()
    assert title == (
        "byteatlas.VirtualGroup  https://host/a.nc · hdf5, 187 kB · 4 arrays, 12 virtual chunks, "
        "1 inlined · scanned in 1 round, 1 request, 187 kB"
    )
    assert tree == [
        "├─ dimensions: time 24 (unlimited), lat 36",
        "├─ tas     (time 24, lat 36)  int16   chunks 4x18  shuffle, zlib  9 virtual, 3 missing",
        "├─ region  (region 4)         string  chunks 4     vlen-utf8      1 inlined",
        "├─ crs                        int32                raw            1 virtual",
        "├─ attributes: title",
        "└─ forcing/",
        "   └─ co2  (time 24)  int16  chunks 12  shuffle, zlib  2 virtual",
        "skipped:",
        "   /x: external <file>",
    ]


def test_the_text_of_an_array_has_its_attributes_and_stored_size(group):
    assert display.text(group["tas"]).splitlines() == [
        "byteatlas.VirtualArray  (time 24, lat 36) int16, 1.7 kB",
        "   chunks      4x18; 9 virtual, 3 missing",
        "   encoding    shuffle, zlib",
        "   stored      900 B in the source, largest chunk 100 B",
        "   units: K",
    ]


def test_groups_and_arrays_show_themselves_so(group):
    for item in (group, group["tas"]):
        assert repr(item) == display.text(item)
        assert item._repr_html_() == display.html(item)


def test_neither_form_shows_user_info_or_query(group):
    for shown in (display.text(group), display.html(group)):
        assert "https://host/a.nc" in shown
        assert "secret" not in shown
        assert "pw" not in shown


class Tags(HTMLParser):
    """Checks that tags nest, and keeps text and tag names."""

    def __init__(self, html):
        super().__init__()
        self.open, self.names, self.texts = [], [], []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.names.append(tag)
        assert not {name for name, _ in attrs} & {"src", "href", "onclick"}

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_the_html_nests_loads_nothing_and_says_what_the_text_says(group):
    tags = Tags(display.html(group))
    text = " ".join(tags.texts)
    assert "script" not in tags.names
    assert tags.names.count("details") == 8
    for word in ("tas", "shuffle, zlib", "9 virtual, 3 missing", "Sea & ice", "external <file>"):
        assert word in text


def test_names_and_values_from_a_hostile_file_stay_text():
    evil = "<script>alert(1)</script>\x1b[2J\n"
    group = VirtualGroup(
        attrs={evil: evil},
        dimensions={evil: Dimension(3)},
        arrays={evil: array((3,), (3,), (evil,), 1, attrs={evil: evil}, notes={evil: evil})},
        groups={evil: VirtualGroup()},
        report=ScanReport(skipped=(Skipped(evil, evil),)),
    )
    assert "script" not in Tags(display.html(group)).names
    assert "script" not in Tags(display.html(group.arrays[evil])).names
    lines = display.text(group).splitlines()
    assert len(lines) == 7
    assert all(line.isprintable() for line in lines)


def test_a_thousand_arrays_are_cut_short():
    one = array((3,), (3,), ("x",), 1)
    group = VirtualGroup(arrays={f"v{i}": one for i in range(1000)})
    assert "… and 900 more arrays" in display.text(group)
    assert len(display.text(group).splitlines()) < 110
    assert "… and 900 more arrays" in display.html(group)


def test_long_attributes_are_cut_short():
    assert len(display.attribute("word " * 1000)) == display.MAX_TEXT
    assert len(display.attribute(np.arange(10**6))) <= display.MAX_TEXT


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (99_400, "99.4 kB"),
        (187_060, "187 kB"),
        (999_500, "1.0 MB"),
        (8 * 2**20, "8.4 MB"),
        (3 * 10**15, "3.0 PB"),
    ],
)
def test_sizes_are_said_in_words(count, words):
    assert display.size(count) == words


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("<i2", "int16"),
        (">f4", ">f4"),
        ("O", "string"),
        ("S8", "|S8"),
        ([("x", "<f8"), ("n", "<i4", (2, 3))], "{x: float64, n: int32[2x3]}"),
    ],
)
def test_types_are_named(kind, words):
    assert display.dtype(np.dtype(kind)) == words


def test_arrays_encoded_in_several_ways_show_all_of_them():
    assert display.codecs((Encoding(), *DEFLATED)) == "raw | shuffle, zlib"
