"""What the network names is judged by its text, by every address behind it, and on each hop."""

import pickle
import socket

import pytest

import byteatlas
from byteatlas.errors import NotAllowed
from byteatlas.model import ByteRange, Source
from byteatlas.sources import addresses, loop, open_source, places
from byteatlas.sources.guard import Guard, guard_for, guarded_sources
from byteatlas.testing.server import Fault, RangeServer

DATA = bytes(range(256)) * 40
INDEX = "https://data.example.org/indexes/a.json"


@pytest.fixture
def server():
    with RangeServer({"a.nc": DATA}) as server:
        yield server


@pytest.fixture
def names(monkeypatch):
    """Names that resolve as this dictionary says; others do not."""
    hosts = {}

    def look_up(host, port, *arguments, **options):
        if host not in hosts:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (one, port, 0, 0))
            if ":" in one
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port))
            for one in hosts[host]
        ]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    yield hosts
    loop.call(forget())


async def forget():
    addresses._seen_internal().clear()
    for key, pool in loop._thread().shared.items():
        if key[0] == "pool":
            pool.forget_addresses()


def named(url, named_by=INDEX, allow=()):
    """Open a source that an index names."""
    (source,) = guarded_sources([Source(url)], named_by, allow)
    return open_source(source.url, expected=source)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.255.0.1", "0.0.0.0", "0.1.2.3", "10.1.2.3", "172.16.0.1",
        "172.31.255.255", "192.168.1.1", "169.254.169.254", "100.64.0.1", "100.127.255.255",
        "224.0.0.1", "239.1.1.1", "255.255.255.255", "240.0.0.1", "192.0.0.8", "198.18.0.1",
        "::", "::1", "::127.0.0.1", "fe80::1", "fe80::1%eth0", "fd00::1", "fc00::1", "fec0::1",
        "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1",
        "64:ff9b:1::1", "2002:7f00:1::", "2002:a00:1::1", "2001:db8::1", "2001::1",
        "::ffff:0:127.0.0.1",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public_are_known(address):
    assert places.is_internal_address(address)


@pytest.mark.parametrize(
    "address",
    [
        "93.184.216.34", "8.8.8.8", "172.32.0.1", "100.128.0.1", "11.0.0.1", "2606:2800:220:1::1",
        "2a00:1450::1", "64:ff9b::5db8:d822", "::ffff:93.184.216.34", "2002:5db8:d822::1",
    ],
)  # fmt: skip
def test_public_addresses_are_known(address):
    assert not places.is_internal_address(address)


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "fd00::1", "64:ff9b::7f00:1"]
)
def test_a_name_is_judged_by_each_address_it_resolves_to(server, names, address):
    names["innocent.example.org"] = ["93.184.216.34", address]
    source = named("http://innocent.example.org/a.nc")
    with pytest.raises(NotAllowed, match=f"has the address {address}, which is not") as caught:
        source.read([ByteRange(7, 5)])
    error = caught.value
    assert error.url == "http://innocent.example.org/a.nc"
    assert error.offset == 7
    assert "pass allow=['http://innocent.example.org/']" in str(error)
    assert server.log == []


def test_a_name_that_the_caller_allows_may_resolve_to_anything(server, names):
    names["inside.example.org"] = ["127.0.0.1"]
    url = f"http://inside.example.org:{server.port}/a.nc"
    with pytest.raises(NotAllowed, match="only by permission") as caught:
        named(url)
    allow = [f"http://inside.example.org:{server.port}/"]
    assert f"pass allow={allow}" in str(caught.value)
    assert bytes(named(url, allow=allow).read_head(5)) == DATA[:5]


def test_a_port_other_than_the_web_s_needs_permission():
    with pytest.raises(NotAllowed):
        named("http://example.org:6379/a.nc")
    with pytest.raises(NotAllowed, match="is at port 22"):
        Guard(INDEX).check("https://example.org:22/a.nc")


@pytest.mark.parametrize("location", ["http://127.0.0.1/a.nc", "http://[::1]/a.nc", "{}"])
def test_each_hop_of_a_redirect_is_judged(server, names, location):
    names["data.example.org"] = ["127.0.0.1"]
    first = f"http://data.example.org:{server.port}/a.nc"
    with RangeServer({"a.nc": DATA}) as other:
        target = location.format(other.url("a.nc"))
        server.faults = [Fault(status=302, headers={"Location": target + "?sig=secret"})]
        source = named(first, allow=[f"http://data.example.org:{server.port}/"])
        with pytest.raises(NotAllowed, match="pass allow=") as caught:
            source.read_head(5)
        assert caught.value.url == target
        assert "secret" not in str(caught.value)
        assert other.log == []
        allow = [f"http://data.example.org:{server.port}/", target.rpartition("/")[0] + "/"]
        if location == "{}":
            assert bytes(named(first, allow=allow).read_head(5)) == DATA[:5]


@pytest.fixture
def loopback_is_public(monkeypatch):
    judge = places.is_internal_address
    for module in (places, addresses):
        monkeypatch.setattr(
            module, "is_internal_address", lambda text: text != "127.0.0.1" and judge(text)
        )


@pytest.mark.parametrize("target", ["http://10.0.0.1/a.nc", "http://inner.example.org/a.nc"])
def test_a_public_place_leads_nobody_inside(server, names, loopback_is_public, target):
    names |= {"outer.example.org": ["127.0.0.1"], "inner.example.org": ["10.0.0.1"]}
    server.faults = [Fault(status=302, headers={"Location": target})]
    source = open_source(f"http://outer.example.org:{server.port}/a.nc")
    with pytest.raises(NotAllowed, match="redirects to it") as caught:
        source.read_head(5)
    assert caught.value.url == target
    assert "open it by its own URL" in str(caught.value)


def test_inside_a_redirect_may_lead_anywhere(server, names):
    names |= {"one.example.org": ["127.0.0.1"], "two.example.org": ["127.0.0.1"]}
    target = f"http://two.example.org:{server.port}/a.nc"
    server.faults = [Fault(path="old.nc", status=302, headers={"Location": target})]
    source = open_source(f"http://one.example.org:{server.port}/old.nc")
    assert bytes(source.read_head(5)) == DATA[:5]


def test_an_index_may_name_the_address_that_it_came_from_and_no_other(server, names):
    names["intranet.example.org"] = ["127.0.0.1"]
    base = f"http://intranet.example.org:{server.port}"
    server.content = {"a.nc": DATA, "index.json": b"{}"}
    server.faults = [Fault(headers={"Connection": "close"})]
    open_source(f"{base}/index.json").read_head(2)  # the caller asks for the index
    assert bytes(named(f"{base}/a.nc", f"{base}/index.json").read_head(5)) == DATA[:5]
    guard = guard_for(f"{base}/index.json")
    assert guard.own_addresses == {"127.0.0.1"}

    names["intranet.example.org"] = ["10.0.0.9"]  # the name is bound anew
    loop.call(clear_dns())
    with pytest.raises(NotAllowed, match=r"10\.0\.0\.9"):
        named(f"{base}/a.nc", f"{base}/index.json").read_head(5)


async def clear_dns():
    for key, pool in loop._thread().shared.items():
        if key[0] == "pool":
            pool.forget_addresses()


def test_a_public_index_s_own_name_may_not_become_internal(names):
    names["data.example.org"] = ["127.0.0.1"]
    with pytest.raises(NotAllowed, match=r"127\.0\.0\.1"):
        named("https://data.example.org/a.nc").read_head(5)


def test_what_the_caller_names_is_not_guarded():
    assert guard_for(None) is None
    assert guard_for("/archive/a.json") is None
    assert guard_for("file:///archive/a.json") is None
    assert guard_for("zip://a.json::/archive/a.zip") is not None
    assert guard_for("s3://bucket/a.json").named_by == "s3://bucket/a.json"


def test_a_guard_stays_with_a_source_through_pickling_and_is_never_written(server, tmp_path):
    server.content = {"a.nc": DATA, "a.json": b'{"x/.zarray":"{}","x/0":["' + b'a.nc",0,5]}'}
    (source,) = guarded_sources([Source(server.url("a.nc"))], server.url("a.json"), ())
    assert pickle.loads(pickle.dumps(source)).guard == source.guard
    assert source == Source(server.url("a.nc"))
    assert "guard" not in repr(source)


def test_the_sources_of_an_index_from_the_network_are_guarded(server, tmp_path):
    import h5py
    import numpy as np

    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.arange(2000.0)
    data = (tmp_path / "a.h5").read_bytes()
    server.content = {"a.h5": data}
    byteatlas.scan(server.url("a.h5")).to_json(tmp_path / "a.json")
    server.content = {"a.h5": data, "a.json": (tmp_path / "a.json").read_bytes()}
    near, far = (byteatlas.open_index(t) for t in (tmp_path / "a.json", server.url("a.json")))
    assert near.sources[0].guard is None
    assert far.sources[0].guard == Guard(server.url("a.json"))


def test_a_dataset_reaches_nothing_inside_on_the_word_of_an_index(server, tmp_path, names):
    import h5py
    import numpy as np

    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.arange(4000.0)
    data = (tmp_path / "a.h5").read_bytes()
    server.content = {"a.h5": data}
    byteatlas.scan(server.url("a.h5")).to_json(tmp_path / "a.json")
    text = (tmp_path / "a.json").read_text()
    own, evil = f"http://127.0.0.1:{server.port}/", "http://evil.example.org/"
    server._content = {"a.h5": data, "a.json": text.replace(own, evil).encode()}
    names["evil.example.org"] = ["127.0.0.1"]
    dataset = byteatlas.open_dataset(server.url("a.json"))
    server.clear()
    with pytest.raises(NotAllowed, match=r"has the address 127\.0\.0\.1") as caught:
        dataset.x.load()
    assert caught.value.path == "/x"
    assert f"pass allow=['{evil}']" in str(caught.value)
    assert server.log == []
