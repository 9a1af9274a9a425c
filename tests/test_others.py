"""Scanners that ask for other sources: what any format can do with `Pending`."""

import numpy as np
import pytest

from byteatlas import others
from byteatlas.model import ChunkManifest, ScanReport, Skipped, VirtualArray, VirtualGroup
from byteatlas.others import Scan
from byteatlas.scanners import Other, Scanner, ScanOptions, asking
from byteatlas.sources import Trace, open_source
from byteatlas.sources.cache import CachedReader
from byteatlas.testing.server import RangeServer


def array_of(manifest):
    shape = (manifest.cells,)
    return VirtualArray(shape, np.dtype("u1"), (1,), manifest, dimensions=("x",))


def one_byte(source):
    """Return an array of the first byte of a source."""
    zero = np.zeros(1, np.uint64)
    column = np.array([source], np.uint32)
    return array_of(ChunkManifest.build((1,), zero, zero, zero + np.uint64(1), source=column))


def scan_list(window, _options):
    """Scan a format whose sources are lists of names: "?" asks for more, "*" for bytes."""

    def dialogue():
        arrays, skipped = {}, []
        for line in bytes(window.head).decode().splitlines()[1:]:
            kind = "bytes" if line[0] == "*" else "arrays"
            wanted = [Other(name, kind, ("/x",)) for name in line[1:].split()]
            for other, found in zip(wanted, (yield wanted), strict=True):
                if found.reason:
                    skipped.append(Skipped(other.name, found.reason))
                elif kind == "bytes":
                    arrays[other.name] = one_byte(found.source)
                else:
                    arrays |= {
                        f"{other.name}-{name}": array for name, array in found.group.arrays.items()
                    }
        return VirtualGroup(arrays=arrays, report=ScanReport(skipped=tuple(skipped)))

    yield from ()
    return asking(dialogue())


LISTS = Scanner(name="lists", matches=lambda head: head[:4] == b"LIST", scan=scan_list)


@pytest.fixture
def scan(monkeypatch, tmp_path):
    monkeypatch.setattr(others, "find_scanner", lambda *_args, **_options: LISTS)

    def run(lists, url=None, **options):
        for name, lines in lists.items():
            (tmp_path / name).write_text("\n".join(["LIST", *lines]))
        trace = Trace()
        source = open_source(url or str(tmp_path / next(iter(lists))), trace=trace)
        return Scan(**options).scan(CachedReader(source), ScanOptions())

    return run


def names(group):
    return [source.url.rpartition("/")[2] for source in group.sources]


def test_sources_are_counted_in_one_table_through_all_levels(scan):
    group = scan({"a": ["?b c", "*d"], "b": ["*d e"], "c": ["?b"], "d": [], "e": []})
    assert names(group) == ["a", "d", "e"]
    found = {name: int(array.manifest.source[0]) for name, array in group.arrays.items()}
    assert found == {"b-d": 1, "b-e": 2, "c-b-d": 1, "c-b-e": 2, "d": 1}


def test_a_scan_that_needs_nothing_has_one_source(scan):
    group = scan({"a": ["?b"], "b": []})
    assert names(group) == ["a"]


def test_circles_and_depths_are_reasons(scan):
    group = scan({"a": ["?b"], "b": ["?a b"]})
    assert names(group) == ["a"]
    chain = {f"n{number}": [f"?n{number + 1}"] for number in range(others.MAX_DEPTH + 3)}
    assert names(scan(chain)) == ["n0"]


def test_many_sources_that_name_many_sources_come_to_an_end(scan, monkeypatch):
    monkeypatch.setattr(others, "MAX_OTHERS", 50)
    opened = []
    real = others.open_source
    monkeypatch.setattr(others, "open_source", lambda *a, **k: opened.append(a) or real(*a, **k))
    wide = {
        f"l{level}": ["?" + " ".join([f"l{level + 1}"] * 10)] for level in range(others.MAX_DEPTH)
    }
    scan(wide)
    assert len(opened) == 50


def test_sources_of_one_level_are_asked_together(scan, tmp_path):
    with RangeServer(tmp_path) as server:
        lists = {"a": ["?" + " ".join(f"b{n}" for n in range(20))]}
        lists |= {f"b{number}": [f"*c{number}"] for number in range(20)}
        lists |= {f"c{number}": [] for number in range(20)}
        group = scan(lists, server.url("a"))
    assert group.report.rounds == 3
    assert len(group.sources) == 21
