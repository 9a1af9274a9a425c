"""A source that is replaced, cut or deleted is an error, and never the wrong values."""

import os
import time

import numpy as np
import pytest

import byteatlas
from byteatlas.errors import ShortRead, SourceChanged, SourceMissing
from byteatlas.read.reader import Reader
from byteatlas.sealing import seal
from byteatlas.testing.server import Fault, RangeServer

from .conftest import DATA, HASTY, MADE_S, TRUTH

NAME = "bucket/a.h5"
OTHER = DATA[:3000] + bytes(byte ^ 1 for byte in DATA[3000:])
"""As long, with other values everywhere."""
CHANGES = {
    "newer": OTHER,
    "time kept": OTHER,
    "longer": DATA + bytes(10),
    "truncated": DATA[: len(DATA) // 3],
    "emptied": b"",
    "deleted": None,
}
IDENTITIES = {
    "etag": {},
    "last-modified": {"ETag": 'W/"weak"'},
    "neither": {"ETag": "", "Last-Modified": ""},
}


class Remote:
    """The file on a server, by http or as an object of a bucket."""

    def __init__(self, server, scheme, identity):
        self.server = server
        self.headers = IDENTITIES[identity]
        server.faults = [Fault(headers=self.headers)]
        self.url = server.url(NAME) if scheme == "http" else f"s3://{NAME}"
        endpoint = {"endpoint_url": server.url("")[:-1]}
        self.options = {} if scheme == "http" else {"anon": True, "client_kwargs": endpoint}

    def change(self, how):
        data = CHANGES[how]
        made = self.server._made
        self.server.content = {} if data is None else {NAME: data}
        if how == "time kept":  # HTTP's dates have seconds: a time that is kept is the same
            self.server._made, self.server._replaced = made - 1, 1
            self.server._look_up = with_other_etag(self.server._look_up)


def with_other_etag(look_up):
    def same_time_other_etag(path):
        size, modified, data = look_up(path)
        return size, modified + 0.5, data

    return same_time_other_etag


class Local:
    """The file on this machine."""

    options = None

    def __init__(self, path):
        self.path = path
        self.url = str(path)
        path.write_bytes(DATA)

    def change(self, how):
        before = self.path.stat()
        time.sleep(0.02)  # the clock of some file systems ticks every 10 ms
        if CHANGES[how] is None:
            return self.path.unlink()
        self.path.write_bytes(CHANGES[how])
        if how == "time kept":
            os.utime(self.path, ns=(before.st_atime_ns, before.st_mtime_ns))
        return None


@pytest.fixture
def place(scheme, identity, tmp_path):
    if scheme == "file":
        yield Local(tmp_path / "a.h5")
        return
    with RangeServer({NAME: DATA}, modified_s=MADE_S) as server:
        yield Remote(server, scheme, identity)


def expected_errors(how):
    if how == "deleted":
        return (SourceMissing,)
    return (SourceChanged, ShortRead) if how in ("truncated", "emptied") else (SourceChanged,)


PLACES = [("file", "etag"), ("s3", "etag"), ("s3", "last-modified")]
PLACES += [("http", identity) for identity in IDENTITIES]


@pytest.mark.parametrize("how", CHANGES)
@pytest.mark.parametrize(("scheme", "identity"), PLACES)
def test_a_changed_source_is_an_error_that_says_where(place, identity, how):
    group = byteatlas.scan(place.url, storage_options=place.options)
    sealed = seal(group, storage_options=place.options)
    place.change(how)
    # What cannot be told by the server is told by digests.
    is_seen = not (how == "newer" and identity == "neither")
    is_seen &= not (how == "time kept" and identity != "etag")
    for variable in ("raw", "zlib"):
        for one in [group, sealed] if is_seen else [sealed]:
            reader = Reader(one.sources, place.options, policy=HASTY)
            with pytest.raises(expected_errors(how)) as caught:
                reader.read(one[variable], path=variable)
            error = caught.value
            assert error.url == place.url
            assert f"{place.url}: {variable}: " in str(error)
            assert f"at byte {error.offset} (0x" in str(error)


def test_an_unchanged_file_is_read_as_before(tmp_path):
    place = Local(tmp_path / "a.h5")
    group = byteatlas.scan(place.url)
    place.path.touch(exist_ok=True)
    os.utime(place.path, ns=(0, int(group.sources[0].last_modified)))
    again = byteatlas.scan(place.url)
    for variable, truth in TRUTH.items():
        assert np.array_equal(Reader(again.sources).read(again[variable]), truth)
