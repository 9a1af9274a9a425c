import asyncio
import os
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from byteatlas.errors import ShortRead, SourceChanged, SourceDenied, SourceError, SourceMissing
from byteatlas.model import WHOLE, ByteRange, ByteRanges
from byteatlas.sources import open_source

DATA = bytes(np.random.default_rng(0).integers(0, 256, 10_000, dtype=np.uint8))


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "a file #1 %41.nc"
    path.write_bytes(DATA)
    return path


def rows(*offsets, length):
    return ByteRanges(np.array(offsets, np.uint64), length)


def test_the_head_shows_size_and_time(path):
    source = open_source(str(path))
    assert source.facts.size is None
    assert bytes(source.read_head(100)) == DATA[:100]
    assert source.facts.size == len(DATA)
    assert source.facts.last_modified == str(path.stat().st_mtime_ns)


def test_the_head_is_shorter_where_the_file_is(path):
    assert bytes(open_source(str(path)).read_head(10**9)) == DATA


def test_an_empty_file_has_an_empty_head(tmp_path):
    (tmp_path / "empty").touch()
    source = open_source(str(tmp_path / "empty"))
    assert bytes(source.read_head(100)) == b""
    assert source.facts.size == 0


@pytest.mark.parametrize("form", ["{}", "file://{}", "local://{}", "file://localhost{}"])
def test_a_file_is_named_by_its_path_or_by_a_url(path, form):
    assert bytes(open_source(form.format(path)).read_head(9)) == DATA[:9]


def test_percent_escapes_of_a_file_url_are_decoded(path):
    url = f"file://{path}".replace(" ", "%20").replace("#", "%23").replace("%41", "%2541")
    assert bytes(open_source(url).read_head(9)) == DATA[:9]


def test_rows_are_read_with_one_call_for_each_run(path):
    source = open_source(str(path))
    (got,) = source.read([rows(0, 10, 20, 500, 5, 15, length=10)])
    expected = [DATA[o : o + 10] for o in (0, 10, 20, 500, 5, 15)]
    assert [bytes(row) for row in got] == expected
    assert source.trace.requests == 3
    got[:] = 0  # the caller owns the rows


def test_rows_of_no_length_cost_nothing(path):
    source = open_source(str(path))
    got = source.read([rows(1, 2, length=0), rows(length=5)])
    assert [buffer.shape for buffer in got] == [(2, 0), (0, 5)]
    assert source.trace.requests == 0


requests = st.one_of(
    st.tuples(st.integers(0, 9000), st.integers(0, 1000)).map(lambda pair: ByteRange(*pair)),
    st.tuples(st.lists(st.integers(0, 9000), max_size=6), st.integers(0, 1000)).map(
        lambda pair: rows(*pair[0], length=pair[1])
    ),
)


@given(st.lists(requests, max_size=8))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_batch_equals_slices_of_the_file(path, batch):
    for request, got in zip(batch, open_source(str(path)).read(batch), strict=True):
        if isinstance(request, ByteRange):
            assert bytes(got) == DATA[request.offset :][: request.length]
        else:
            expected = [DATA[o : o + request.length] for o in request.offsets.tolist()]
            assert [bytes(row) for row in got] == expected


def test_the_asynchronous_reads_give_the_same(path):
    source = open_source(str(path))

    async def read():
        return await source.aread([ByteRange(5, 7)]), await source.aread_range(9990, WHOLE)

    (first,), last = asyncio.run(read())
    assert bytes(first) == DATA[5:12]
    assert bytes(last) == DATA[9990:]


def test_a_stream_yields_each_row(path):
    source = open_source(str(path))
    offset = np.array([10, 0, 9000], np.uint64)
    length = np.array([20, 0, WHOLE], np.uint64)
    got = {row: bytes(data) for row, data in source.stream(offset, length)}
    assert got == {0: DATA[10:30], 1: b"", 2: DATA[9000:]}


@pytest.mark.parametrize(
    "request_", [ByteRange(9_999, 2), ByteRange(2**63, 1), rows(5, 9_999, length=2)]
)
def test_a_range_outside_the_file_is_refused(path, request_):
    source = open_source(str(path))
    with pytest.raises(ShortRead, match="outside the source of 10000 bytes") as caught:
        source.read([request_])
    assert caught.value.url == str(path)
    assert source.trace.requests == 0


def test_a_missing_file_is_our_error(tmp_path):
    for call in (lambda s: s.read_head(5), lambda s: s.stat(), lambda s: s.read([ByteRange(0, 1)])):
        with pytest.raises(SourceMissing) as caught:
            call(open_source(f"{tmp_path}/none.nc"))
        assert not isinstance(caught.value, FileNotFoundError | KeyError)


@pytest.mark.parametrize("path", ["", "a\0b", "~nobody-of-this-name/x", "/dev/null/x"])
def test_impossible_names_are_our_error(path):
    with pytest.raises(SourceError):
        open_source(path).read_head(5)


def test_directories_and_pipes_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(SourceError, match="not a regular file"):
            open_source(str(path)).read_head(5)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_denied(path):
    path.chmod(0)
    with pytest.raises(SourceDenied):
        open_source(str(path)).read_head(5)


@pytest.mark.parametrize("change", ["time", "size", "replaced"])
def test_a_file_that_changes_between_reads_is_an_error(path, change):
    source = open_source(str(path))
    source.read_head(10)
    if change == "time":
        os.utime(path, ns=(1, 1))
    elif change == "size":
        path.write_bytes(DATA + b"x")
    else:
        (path.parent / "new").write_bytes(DATA[::-1])
        os.utime(path.parent / "new", ns=(5, 5))
        (path.parent / "new").rename(path)
    with pytest.raises(SourceChanged) as caught:
        source.read([ByteRange(0, 5)])
    assert caught.value.url == str(path)


def test_an_expected_identity_is_checked_with_the_first_read(path):
    source = open_source(str(path))
    source.read_head(1)
    seen = source.facts
    open_source(str(path), expected=seen).read([ByteRange(0, 5)])
    path.write_bytes(DATA[:-1])
    with pytest.raises(SourceChanged):
        open_source(str(path), expected=seen).read([ByteRange(0, 5)])
    assert open_source(str(path), expected=seen).stat().size == len(DATA) - 1


# --- the same file? ---


def replaced(path, data, how):
    """Put other bytes in place of a file's, with its size and modification time."""
    before = path.stat()
    time.sleep(0.02)  # the clock of some file systems ticks every 10 ms
    if how == "renamed over":
        other = path.with_suffix(".new")
        other.write_bytes(data)
        os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
        other.rename(path)
    else:
        with path.open("r+b") as file:
            file.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


@pytest.mark.parametrize("how", ["renamed over", "written over"])
def test_a_file_that_is_replaced_with_its_size_and_time_kept_is_an_error(tmp_path, how):
    path = tmp_path / "a.nc"
    path.write_bytes(b"old bytes")
    source = open_source(str(path))
    source.read_head(5)
    recorded = source.facts
    replaced(path, b"new bytes", how)
    for again in (source, open_source(str(path), expected=recorded)):
        with pytest.raises(SourceChanged, match="replaced or changed all the same") as caught:
            again.read([ByteRange(2, 3)])
        assert (caught.value.url, caught.value.offset) == (str(path), 2)
        assert caught.value.recorded.size == caught.value.seen.size == 9


def test_a_copy_on_another_file_system_is_judged_by_size_and_time(tmp_path):
    path = tmp_path / "a.nc"
    path.write_bytes(b"old bytes")
    source = open_source(str(path))
    source.read_head(5)
    place, _, rest = source.facts.etag.partition("-")
    assert place.startswith("stat:")
    elsewhere = replace(source.facts, etag=f"{place}0-1{rest}")
    open_source(str(path), expected=elsewhere).read([ByteRange(2, 3)])
    later = replace(elsewhere, last_modified="17")
    with pytest.raises(SourceChanged, match="modified at"):
        open_source(str(path), expected=later).read([ByteRange(2, 3)])


def test_an_index_that_knows_only_size_and_time_is_still_read(tmp_path):
    path = tmp_path / "a.nc"
    path.write_bytes(b"old bytes")
    source = open_source(str(path))
    source.read_head(5)
    known = replace(source.facts, etag=None)
    open_source(str(path), expected=known).read([ByteRange(2, 3)])


@pytest.mark.parametrize("fault", ["deleted", "truncated", "emptied"])
def test_errors_of_a_local_file_say_where(tmp_path, fault):
    path = tmp_path / "a.nc"
    path.write_bytes(b"old bytes")
    source = open_source(str(path))
    source.read_head(5)
    if fault == "deleted":
        path.unlink()
    else:
        path.write_bytes(b"old" if fault == "truncated" else b"")
    with pytest.raises(SourceMissing if fault == "deleted" else SourceChanged) as caught:
        source.read([ByteRange(4, 2)])
    assert f"{path}: " in str(caught.value)
    assert "at byte 4 (0x4)" in str(caught.value)
