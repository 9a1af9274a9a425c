import io
import zipfile

import fsspec
import numpy as np
import pytest

from byteatlas.errors import (
    MissingDependency,
    ShortRead,
    SourceChanged,
    SourceError,
    SourceMissing,
    Unsupported,
)
from byteatlas.model import WHOLE, ByteRange, ByteRanges
from byteatlas.sources import Policy, Trace, open_source
from byteatlas.sources.foreign import FsspecTransport
from byteatlas.sources.remote import RemoteSource
from byteatlas.testing.server import RangeServer

DATA = bytes(np.random.default_rng(0).integers(0, 256, 100_000, dtype=np.uint8))


@pytest.fixture
def memory():
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/dir/a.nc", DATA)
    yield fs
    fs.rm("/dir", recursive=True)


def check(source):
    assert bytes(source.read_head(1000)) == DATA[:1000]
    assert source.facts.size == len(DATA)
    batch = [ByteRange(5, 10), ByteRanges(np.array([90_000, 7], np.uint64), 9), ByteRange(3, 0)]
    one, many, nothing = source.read(batch)
    assert bytes(one) == DATA[5:15]
    assert [bytes(row) for row in many] == [DATA[90_000:90_009], DATA[7:16]]
    assert bytes(nothing) == b""
    got = dict(source.stream(np.array([99_000, 1], np.uint64), np.array([WHOLE, 2], np.uint64)))
    assert (bytes(got[0]), bytes(got[1])) == (DATA[99_000:], DATA[1:3])
    assert source.stat().size == len(DATA)
    with pytest.raises(ShortRead):
        source.read([ByteRange(99_999, 2)])


def test_any_protocol_of_fsspec_is_read(memory):
    check(open_source("memory://dir/a.nc"))


def test_the_head_is_shorter_where_the_file_is(memory):
    assert bytes(open_source("memory://dir/a.nc").read_head(2**20)) == DATA


def test_a_member_of_an_archive_on_a_web_server_is_read():
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("in/a.nc", DATA)
    with RangeServer({"b.zip": archive.getvalue()}) as server:
        check(open_source(f"zip://in/a.nc::{server.url('b.zip')}"))
        with pytest.raises(SourceMissing):
            open_source(f"zip://in/b.nc::{server.url('b.zip')}").read_head(5)
        url = f"zip://in/a.nc::{server.url('none.zip')}?sig=secret"
        with pytest.raises(SourceError) as caught:
            open_source(url).read_head(5)
        assert "secret" not in str(caught.value)


def test_an_asynchronous_filesystem_is_asked_on_its_own_loop():
    with RangeServer({"a.nc": DATA}) as server:
        url = server.url("a.nc")
        transport = FsspecTransport(url, {})
        check(RemoteSource(url, transport, policy=Policy(), expected=None, trace=Trace()))
        fsspec.filesystem("http").clear_instance_cache()


def test_a_missing_file_is_our_error(memory):
    with pytest.raises(SourceMissing) as caught:
        open_source("memory://dir/none.nc").read([ByteRange(7, 5)])
    assert caught.value.url == "memory://dir/none.nc"
    assert not isinstance(caught.value, FileNotFoundError)


def test_a_directory_is_refused(memory):
    with pytest.raises(SourceError, match="directory"):
        open_source("memory://dir").read_head(5)


def test_a_changed_file_is_an_error(memory):
    source = open_source("memory://dir/a.nc")
    source.read_head(5)
    memory.pipe_file("/dir/a.nc", DATA[:-1])
    with pytest.raises(SourceChanged):
        open_source("memory://dir/a.nc", expected=source.facts).read_head(5)


def test_an_unknown_protocol_is_our_error():
    with pytest.raises((Unsupported, MissingDependency)):
        open_source("nosuch://x/y").read_head(5)
