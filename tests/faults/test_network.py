"""Whatever a server does, reading gives the right values or our error; never others."""

import json
from collections import Counter

import numpy as np
import pytest

import byteatlas
from byteatlas.errors import ByteatlasError, SourceChanged, SourceError
from byteatlas.read.reader import Reader
from byteatlas.scanners import ScanOptions
from byteatlas.scanning import scan_source
from byteatlas.sealing import seal
from byteatlas.sources import open_source
from byteatlas.sources.cache import CachedReader
from byteatlas.testing.server import RangeServer

from .conftest import (
    CASES,
    CHUNKS,
    DATA,
    HASTY,
    MADE_S,
    NAME,
    RIGHT,
    SECRET,
    TRANSIENT,
    TRUTH,
    VARIABLES,
)

OPTIONS = {"headers": {"Authorization": f"Bearer {SECRET}"}}
CELLS = [(fault, variable, "plain") for fault in CASES for variable in VARIABLES]
CELLS += [
    (fault, variable, "sealed") for fault in ("lying_range", "bitflip") for variable in VARIABLES
]


@pytest.fixture(scope="module")
def indexes(tmp_path_factory):
    """Index the file once on a healthy server: plain and sealed. The port is filled in later."""
    folder, texts = tmp_path_factory.mktemp("indexes"), {}
    with RangeServer({NAME: DATA}, modified_s=MADE_S) as server:
        group = byteatlas.scan(server.url(NAME), storage_options=OPTIONS)
        assert group.report.skipped == ()
        for kind, made in (("plain", group), ("sealed", seal(group, storage_options=OPTIONS))):
            made.to_json(folder / kind)
            text = (folder / kind).read_text()
            texts[kind] = text.replace(f"127.0.0.1:{server.port}", "127.0.0.1:PORT")
    return texts


@pytest.fixture
def open_index(server, indexes):
    def open_index(kind):
        return byteatlas.open_index(json.loads(indexes[kind].replace("PORT", str(server.port))))

    return open_index


def outcome(read):
    """Return "right" or "wrong" of what is read, or the error."""
    try:
        values, truth = read()
    except ByteatlasError as error:
        return error
    return RIGHT if values.dtype == truth.dtype and np.array_equal(values, truth) else "wrong"


def check_error(error, url):
    """Every error names the source, by text and by attribute, and the first byte."""
    assert isinstance(error, ByteatlasError)
    text = str(error)
    assert url in text
    assert error.url == url
    assert f"at byte {error.offset} (0x" in text
    assert error.length is not None
    assert SECRET not in text


@pytest.mark.parametrize(("fault", "variable", "kind"), CELLS)
def test_a_faulty_server_gives_right_values_or_an_error(
    server, break_server, open_index, fault, variable, kind
):
    group = open_index(kind)
    case = CASES[fault]
    other = break_server(fault)
    reader = Reader(group.sources, OPTIONS, policy=case.policy)
    found = outcome(lambda: (reader.read(group[variable], path=variable), TRUTH[variable]))
    if variable in case.undetectable and kind == "plain":
        assert found == "wrong"  # which is why an index can be sealed
    elif case.outcome == RIGHT:
        assert found == RIGHT
    else:
        check_error(found, server.url(NAME))
        assert found.path == variable
        if not case.undetectable:
            assert isinstance(found, SourceError)  # the codec is never the one to notice
        if variable in case.undetectable:
            assert isinstance(found, SourceChanged)

    manifest = group[variable].manifest
    asked = int(manifest.length.sum())
    assert sum(entry.bytes_sent for entry in server.log) <= 1.1 * asked + 2**16
    begun = Counter(entry.headers["range"].partition("-")[2] for entry in server.log)
    assert len(begun) <= CHUNKS  # the last byte of a range stays, however often it is resumed
    assert max(begun.values()) <= case.most_tries
    if fault == "503_forever":
        assert len(server.log) <= CHUNKS + HASTY.tries - 1  # one budget, not one for each chunk
    for entry in other.log:
        assert "authorization" not in entry.headers
    assert (len(other.log) > 0) == case.to_other_host
    etag = group.sources[0].etag
    assert all(entry.headers["if-match"] == etag for entry in [*server.log, *other.log])


@pytest.mark.parametrize("fault", CASES)
def test_a_scan_of_a_faulty_server_is_right_or_an_error(server, break_server, fault):
    url = server.url(NAME)
    break_server(fault, ranges=1)
    source = open_source(url, storage_options=OPTIONS, policy=CASES[fault].policy)
    group, error = scanned(source)
    if error is not None:
        assert fault not in TRANSIENT
        assert url in str(error)
        assert SECRET not in str(error)
        if isinstance(error, SourceError):
            check_error(error, url)
        return
    assert CASES[fault].outcome == RIGHT or fault in ("bitflip", "slow_drip")
    server.faults, server.bandwidth = [], None
    skipped = {entry.path.strip("/") for entry in group.report.skipped}
    reader = Reader(group.sources, OPTIONS, policy=HASTY)
    for variable in VARIABLES.keys() - skipped:
        assert np.array_equal(reader.read(group[variable]), TRUTH[variable])
    if fault in TRANSIENT:
        assert not skipped


def scanned(source):
    """Return what a scan gives, or its error."""
    try:
        return scan_source(CachedReader(source), ScanOptions()), None
    except ByteatlasError as error:
        return None, error
