"""Credentials belong to prefixes, can be renewed once, and are never seen again."""

import json
import logging
import pickle
import threading
import traceback

import h5py
import numpy as np
import pytest

import byteatlas
from byteatlas.errors import ByteatlasError, SourceDenied, SourceError
from byteatlas.model import ByteRange, ByteRanges, Source
from byteatlas.read.reader import Reader
from byteatlas.sources import Policy, Trace, loop, open_source
from byteatlas.sources.credentials import Renewable, options_for, prepared
from byteatlas.sources.guard import Guard
from byteatlas.testing.server import Fault, RangeServer

DATA = bytes(np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8))
SECRET = "s3cr3t-t0ken"  # looked for wherever it must not be
HASTY = Policy(first_pause_s=0.01, patience_s=0.5, idle_s=0.3)


@pytest.fixture
def server():
    with RangeServer({"a.nc": DATA, "bucket/a.nc": DATA}) as server:
        yield server


def of(url, options, *, index=None):
    return options_for(Source(url, guard=index and Guard(index)), prepared(options))


# --- whose they are ---


def test_the_longest_prefix_counts():
    options = {
        "timeout": 5,
        "https": {"timeout": 6},
        "https://h/": {"headers": {"a": "1"}},
        "https://h/deep/er/": {"headers": {"a": "2"}},
        "https://h/deep/": {"headers": {"a": "3"}},
    }
    assert of("https://h/x.nc", options) == {"timeout": 5, "headers": {"a": "1"}}
    assert of("https://h/deep/er/x.nc", options) == {"timeout": 5, "headers": {"a": "2"}}
    assert of("https://h/deep/x.nc", options) == {"timeout": 5, "headers": {"a": "3"}}
    assert of("https://h/deeper/x.nc", options) == {"timeout": 5, "headers": {"a": "1"}}
    assert of("https://other/x.nc", options) == {"timeout": 6}
    assert of("http://h/x.nc", options) == {"timeout": 6}
    assert of("https://h:444/x.nc", options) == {"timeout": 6}
    assert of("s3://h/x.nc", options) == {"timeout": 5}
    assert of("/data/x.nc", options) == {}


def test_an_index_from_the_network_sends_credentials_nowhere_but_home():
    options = {"headers": {"a": SECRET}, "params": {"k": SECRET}, "timeout": 5, "proxy": "p"}
    options |= {"client_kwargs": {"headers": {"a": SECRET}, "trust_env": True}}
    index = "https://home/a.json"
    assert of("https://home/x.nc", options, index=index) == options
    assert of("https://away/x.nc", options) == options
    away = {"timeout": 5, "proxy": "p", "client_kwargs": {"trust_env": True}}
    for url in ("https://away/x.nc", "http://home/x.nc", "https://home:444/x.nc"):
        assert of(url, options, index=index) == away
        assert of(url, {"https": options}, index=index) == away
        assert of(url, {"https": lambda: options}, index=index) == {}
    own = {"headers": {"a": "for away"}}
    assert of("https://away/x.nc", options | {"https://away/": own}, index=index) == away | own
    bucket = {"s3": {"key": "k", "secret": SECRET}}
    assert of("s3://any/x.nc", bucket, index=index) == bucket["s3"]


def test_sources_below_a_prefix_share_what_a_function_gives():
    calls = []
    options = prepared({"https://h/": lambda: calls.append(1) or {"headers": {"a": "1"}}})
    one, two = (options_for(f"https://h/{name}.nc", options) for name in "ab")
    assert one is two
    assert one.current() is two.current()
    assert calls == [1]
    assert "headers" not in repr(one)


def test_credentials_of_a_prefix_reach_their_source_alone(server):
    with RangeServer({"a.nc": DATA}) as other:
        options = {server.url(""): {"headers": {"Authorization": SECRET}}}
        for one in (server, other):
            open_source(one.url("a.nc"), storage_options=options).read_head(5)
        assert server.log[0].headers["authorization"] == SECRET
        assert "authorization" not in other.log[0].headers


def test_params_are_added_to_the_url_and_to_no_redirect(server):
    with RangeServer({"a.nc": DATA}) as other:
        server.faults = [Fault(path="old", status=302, headers={"Location": other.url("a.nc")})]
        for name, options in (("a.nc?x=1", {"params": {"sig": "a/b="}}), ("old", {"params": "?y"})):
            url = server.url("") + name
            open_source(url, storage_options=options).read_head(5)
        assert [e.path for e in server.log] == ["/a.nc?x=1&sig=a%2Fb%3D", "/old?y"]
        assert [e.path for e in other.log] == ["/a.nc"]


# --- how they are renewed ---


def tokens(*values):
    """Return a function that gives one token after the other, and the list of its calls."""
    calls = []

    def function():
        calls.append(threading.current_thread().name)
        return {"headers": {"Authorization": values[min(len(calls), len(values)) - 1]}}

    return function, calls


def accept(server, token, status=403):
    """Make the server refuse all tokens but one."""

    class Refusal(Fault):
        def strikes(self, method, path, headers=None):
            return headers.get("authorization") != token

    server.faults = [Refusal(status=status)]


@pytest.mark.parametrize("status", [401, 403])
def test_what_is_refused_is_renewed_once(server, status):
    function, calls = tokens("old", "new")
    source = open_source(server.url("a.nc"), storage_options={server.url(""): function})
    accept(server, "old", status)
    source.read_head(10)
    accept(server, "new", status)
    (got,) = source.read([ByteRange(100, 10)])
    assert bytes(got) == DATA[100:110]
    assert [entry.status for entry in server.log] == [206, status, 206]
    assert len(calls) == 2
    assert all("byteatlas-io" not in name for name in calls)  # which may not be blocked


def test_many_requests_that_are_refused_at_once_renew_once(server):
    function, calls = tokens("old", "new")
    source = open_source(server.url("a.nc"), storage_options={server.url(""): function}, gap=0)
    accept(server, "old")
    source.read_head(10)
    accept(server, "new")
    offsets = np.arange(0, 200_000, 5000, dtype=np.uint64)
    (rows,) = source.read([ByteRanges(offsets, 7)])
    assert [bytes(row) for row in rows] == [DATA[o : o + 7] for o in offsets.tolist()]
    assert len(calls) == 2
    assert len(server.log) <= 1 + 2 * offsets.size


def test_what_stays_refused_is_denied_and_not_asked_for_again(server):
    function, calls = tokens("old", "new", "newer")
    accept(server, "none")
    options = prepared({server.url(""): function})
    for _ in range(3):
        with pytest.raises(SourceDenied, match="403") as caught:
            open_source(server.url("a.nc"), storage_options=options).read([ByteRange(5, 5)])
        assert (caught.value.offset, caught.value.length) == (5, 5)
    assert len(calls) == 2
    assert len(server.log) <= 4


def test_credentials_that_cannot_be_had_are_denied(server):
    def function():
        raise RuntimeError(SECRET)

    source = open_source(server.url("a.nc"), storage_options=function)
    with pytest.raises(SourceDenied, match="RuntimeError") as caught:
        source.read_head(5)
    assert SECRET not in str(caught.value)


def test_credentials_of_a_bucket_are_renewed(server):
    given = []

    def function():
        given.append(f"key{len(given)}")
        endpoint = {"endpoint_url": server.url("")[:-1]}
        return {"key": given[-1], "secret": SECRET, "client_kwargs": endpoint}

    class Refusal(Fault):
        def strikes(self, method, path, headers=None):
            return "Credential=key1/" not in headers["authorization"]

    source = open_source("s3://bucket/a.nc", storage_options={"s3://bucket/": function})
    server.faults = [Refusal(status=403, body=SECRET.encode())]
    assert bytes(source.read_head(5)) == DATA[:5]
    assert given == ["key0", "key1"]
    server.faults = [Fault(status=403, body=SECRET.encode())]
    with pytest.raises(SourceDenied) as caught:
        source.read([ByteRange(5, 5)])
    assert SECRET not in str(caught.value)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_a_reader_takes_functions_along_when_it_is_pickled(server):
    reader = Reader([Source(server.url("a.nc"))], {server.url(""): module_level})
    again = pickle.loads(pickle.dumps(reader))
    again.source(0).read_head(5)
    assert server.log[0].headers["authorization"] == "module level"


def module_level():
    return {"headers": {"Authorization": "module level"}}


# --- where they must not be seen ---


def make_h5(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.arange(4000.0), chunks=(500,), compression=1)
    return path.read_bytes()


@pytest.mark.parametrize(
    "fault",
    [
        None,
        Fault(status=403), Fault(status=404), Fault(status=503), Fault(cut=0), Fault(reset=-1),
        Fault(headers={"Content-Range": "bytes 1-1/1"}), Fault(headers={"ETag": '"other"'}),
        Fault(headers={"Content-Length": "many"}), Fault(status=302), Fault(status=416),
        Fault(status=302, headers={"Location": f"http://u:{SECRET}@127.0.0.1:1/?sig={SECRET}"}),
        Fault(status=302, headers={"Location": f"ftp://u:{SECRET}@h/?sig={SECRET}"}),
        Fault(status=302, headers={"Location": f"http://[::1]:1/?sig={SECRET}"}),
        Fault(status=302, headers={"Location": f"http://no such host/?sig={SECRET}"}),
    ],
    ids=lambda fault: "healthy" if fault is None else f"{fault.status} {fault.headers}"[:50],
)  # fmt: skip
def test_no_secret_is_seen_anywhere(server, tmp_path, capfd, caplog, fault):
    caplog.set_level(logging.DEBUG)
    server.content = {"a.h5": make_h5(tmp_path / "a.h5")}
    base = server.url("").replace("http://", f"http://user:{SECRET}@")
    url = f"{base}a.h5?sig={SECRET}"
    options = {
        "headers": {"Authorization": SECRET}, "cookies": {"c": SECRET}, "params": {"k": SECRET},
        "client_kwargs": {"auth": ("me", SECRET)},
    }  # fmt: skip
    shared = prepared({server.url(""): lambda: options})
    trace = Trace(keep_log=True)
    group = byteatlas.scan(url, storage_options=options, trace=trace)
    sent = server.log[0]
    assert SECRET in sent.path
    assert SECRET in sent.headers["cookie"]
    group.to_json(tmp_path / "a.json")
    seen = [(tmp_path / "a.json").read_text(), trace.log, trace, group.report, shared]
    reader = Reader(group.sources, options)
    seen += [reader, reader.source(0), reader.source(0).facts.public_url, group._repr_html_()]
    server.faults = [] if fault is None else [fault]
    kinds = set()
    for given in (options, {server.url(""): lambda: options}):
        source = open_source(
            url, storage_options=given, trace=trace, policy=HASTY, expected=group.sources[0]
        )
        seen += [source, source.facts.public_url]
        try:
            source.read([ByteRange(700, 10)])
            source.stat()
        except ByteatlasError as error:
            seen += [str(error), error.args, error.url, error.hint]
            seen.append("".join(traceback.format_exception(error)))
            kinds.add(isinstance(error, SourceError) and bool(error.url))
    assert kinds == (set() if fault is None else {True})
    seen += [*capfd.readouterr(), caplog.text, list(loop._thread().shared)]
    assert SECRET not in "\n".join(map(str, seen))
    assert SECRET not in "\n".join(map(repr, seen))


def test_a_new_value_while_another_was_refused_is_used():
    renewable = Renewable(tokens("a", "b", "c")[0])
    first = renewable.current()
    second = renewable.renewed(first)
    assert renewable.renewed(first) is second
    assert renewable.renewed(second) is None
    renewable.worked(second)
    assert json.dumps(renewable.renewed(second)) == '{"headers": {"Authorization": "c"}}'


def test_a_dataset_of_an_index_from_the_network_renews_what_its_sources_refuse(tmp_path):
    data = make_h5(tmp_path / "a.h5")
    function, calls = tokens("old", "new")
    with RangeServer({"a.h5": data}) as server:
        byteatlas.scan(server.url("a.h5")).to_json(tmp_path / "a.json")
        server._content = {"a.h5": data, "a.json": (tmp_path / "a.json").read_bytes()}
        options = {server.url(""): function}
        dataset = byteatlas.open_dataset(server.url("a.json"), storage_options=options)
        accept(server, "new")
        assert (dataset.x.values == np.arange(4000.0)).all()
    assert len(calls) == 2  # the index and its source share them
