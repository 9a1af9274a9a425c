import numpy as np
import pytest

from byteatlas.errors import (
    RangeIgnored,
    ShortRead,
    SourceChanged,
    SourceDenied,
    SourceError,
    SourceMissing,
)
from byteatlas.model import WHOLE, ByteRange, ByteRanges
from byteatlas.sources import Policy, open_source
from byteatlas.testing.server import Fault, RangeServer

DATA = bytes(np.random.default_rng(0).integers(0, 256, 100_000, dtype=np.uint8))
HASTY = Policy(tries=2, patience_s=0.5, idle_s=1)


@pytest.fixture
def server():
    # An anonymous bucket is a web server with ranges.
    content = {"bucket/a.nc": DATA, "bucket/empty": b"", "bucket/b c/d#e+f.nc": DATA}
    with RangeServer(content) as server:
        yield server


def open_s3(server, key="a.nc", policy=None):
    options = {"anon": True, "client_kwargs": {"endpoint_url": server.url("")[:-1]}}
    return open_source(f"s3://bucket/{key}", storage_options=options, policy=policy)


def test_the_head_shows_size_and_identity_with_one_request(server):
    source = open_s3(server)
    assert bytes(source.read_head(1000)) == DATA[:1000]
    assert source.facts.size == len(DATA)
    over_http = open_source(server.url("bucket/a.nc"))
    over_http.read_head(1)
    assert source.facts.etag == over_http.facts.etag
    assert source.facts.last_modified == over_http.facts.last_modified
    assert len(server.log) == 2


def test_batches_streams_and_single_ranges_give_the_bytes(server):
    source = open_s3(server)
    batch = [ByteRange(5, 10), ByteRanges(np.array([90_000, 7], np.uint64), 9)]
    one, many = source.read(batch)
    assert bytes(one) == DATA[5:15]
    assert [bytes(row) for row in many] == [DATA[90_000:90_009], DATA[7:16]]
    got = dict(source.stream(np.array([99_000, 1], np.uint64), np.array([WHOLE, 2], np.uint64)))
    assert (bytes(got[0]), bytes(got[1])) == (DATA[99_000:], DATA[1:3])
    assert source.stat() == source.facts


def test_a_short_object_has_a_short_head(server):
    assert bytes(open_s3(server).read_head(2**20)) == DATA
    assert bytes(open_s3(server, "empty").read_head(10)) == b""


def test_strange_keys_are_found(server):
    assert bytes(open_s3(server, "b c/d#e+f.nc").read_head(5)) == DATA[:5]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(status=404), SourceMissing),
        (Fault(status=403), SourceDenied),
        (Fault(status=401), SourceDenied),
        (Fault(ignore_range=True), RangeIgnored),
        (Fault(headers={"Content-Range": "bytes 0-9/100000"}), RangeIgnored),
        (Fault(status=503), SourceError),
        (Fault(cut=3), SourceError),
    ],
    ids=["404", "403", "401", "200", "wrong range", "503", "truncated"],
)
def test_faults_are_our_errors(server, fault, error):
    server.faults = [fault]
    with pytest.raises(error) as caught:
        open_s3(server, policy=HASTY).read([ByteRange(100, 10)])
    assert (caught.value.url, caught.value.offset) == ("s3://bucket/a.nc", 100)
    assert not isinstance(caught.value, FileNotFoundError)


def test_what_fails_once_is_recovered(server):
    server.faults = [Fault(status=503, times=1)]
    assert bytes(open_s3(server).read_head(10)) == DATA[:10]


def test_a_changed_object_is_an_error(server):
    source = open_s3(server)
    source.read_head(10)
    server.faults = [Fault(headers={"ETag": '"other"'})]
    with pytest.raises(SourceChanged):
        source.read([ByteRange(100, 10)])


def test_a_range_behind_the_end_is_short(server):
    for offset in (99_995, 200_000):
        with pytest.raises(ShortRead):
            open_s3(server).read([ByteRange(offset, 10)])


@pytest.mark.parametrize("url", ["s3://bucket", "s3://bucket/", "s3:///key"])
def test_a_url_without_an_object_is_refused(url):
    with pytest.raises(SourceError, match="does not name an object"):
        open_source(url)


def test_google_and_azure_urls_are_understood(server):
    # Both put the bucket into the path of an endpoint that is given.
    gcs = {"token": "anon", "endpoint_url": server.url("")[:-1]}
    source = open_source("gs://bucket/a.nc", storage_options=gcs)
    assert bytes(source.read_head(5)) == DATA[:5]
    azure = {"anon": True, "connection_string": f"BlobEndpoint={server.url('')[:-1]};AccountName=x"}
    for url in ("az://bucket/a.nc", "abfss://bucket@x.dfs.core.windows.net/a.nc"):
        assert bytes(open_source(url, storage_options=azure).read_head(5)) == DATA[:5]


def test_a_body_that_breaks_off_is_resumed_after_what_arrived():
    data = bytes(np.random.default_rng(0).integers(0, 256, 2**20, dtype=np.uint8))
    with RangeServer({"bucket/a.nc": data}, faults=[Fault(cut=600_000, times=1)]) as server:
        (got,) = open_s3(server).read([ByteRange(1000, 10**6)])
        assert bytes(got) == data[1000:1_001_000]
        first, second = (entry.range[0] for entry in server.log)
        assert first == 1000
        assert 601_000 - 2**18 <= second <= 601_000


def test_a_dead_bucket_costs_one_budget(server):
    server.faults = [Fault(status=503)]
    hasty = Policy(first_pause_s=0.01, concurrency=8)
    source = open_source(
        "s3://bucket/a.nc",
        storage_options={"anon": True, "client_kwargs": {"endpoint_url": server.url("")[:-1]}},
        policy=hasty,
        gap=0,
    )
    with pytest.raises(SourceError, match="503"):
        source.read([ByteRanges(np.arange(0, 90_000, 1000, dtype=np.uint64), 10)])
    assert len(server.log) <= 8 + 5


@pytest.mark.parametrize(
    "url", ["s3://host:80/a", "s3://a#b/k", "az://c@evil%2f.example/k", "s3://a?b/k", "s3://-/k"]
)
def test_a_bucket_that_could_spell_another_host_is_refused(url):
    with pytest.raises(SourceError, match="does not name an object"):
        open_source(url)
