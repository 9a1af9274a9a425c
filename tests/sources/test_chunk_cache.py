"""What both caches promise: right bytes, a bound, an order of use, and no mistaken source."""

import gc
import pickle
import subprocess
import sys
import threading
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from byteatlas.model import Source
from byteatlas.sources.chunk_cache import source_key
from byteatlas.sources.chunk_cache_memory import MemoryCache
from byteatlas.sources.chunk_cache_option import open_cache

SOURCE = Source("https://example.org/a.nc", 10**9, '"tag"', "Mon, 23 Nov 2026 00:00:00 GMT")


def columns(*ranges):
    offset, length = np.array(ranges, np.int64).reshape(-1, 2).T
    return offset, length


def put(cache, source, pieces):
    offset, length = columns(*((at, len(data)) for at, data in pieces.items()))
    cache.put_many(source, offset, length, list(pieces.values()))


def get(cache, source, *ranges):
    found = cache.get_many(source, *columns(*ranges))
    return [None if one is None else bytes(one) for one in found]


def noise(seed, size):
    return np.random.default_rng(seed).bytes(size)


@pytest.fixture(params=["memory", "disk"])
def make_cache(request, tmp_path):
    """Open a cache of so many bytes."""

    def make(limit):
        place = "memory" if request.param == "memory" else tmp_path / "cache"
        return open_cache(f"{place}:{limit}")

    return make


def test_what_was_kept_comes_back_and_nothing_else(make_cache):
    cache = make_cache("1MiB")
    pieces = {at * 1000: noise(at, 10 + at) for at in range(50)}
    put(cache, SOURCE, pieces)
    ranges = [(at, len(data)) for at, data in pieces.items()]
    assert get(cache, SOURCE, *ranges[::-1]) == list(pieces.values())[::-1]
    assert get(cache, SOURCE, (1, 5), (0, 11), (999, 3), (10**8, 5)) == [
        pieces[0][1:6], None, None, None,
    ]  # fmt: skip
    assert cache.holds(SOURCE, *columns(*ranges[:3], (7, 100))).tolist() == [True] * 3 + [False]


def test_a_range_within_a_kept_one_is_found(make_cache):
    cache = make_cache("1MiB")
    whole = noise(0, 5000)
    put(cache, SOURCE, {100: whole, 100 + 6000: b"other"})
    put(cache, SOURCE, {200: b"an older and shorter one may hide it"})
    assert get(cache, SOURCE, (100, 5000), (100, 1), (5099, 1), (150, 50), (150, 50)) == [
        whole, whole[:1], whole[-1:], whole[50:100], whole[50:100],
    ]  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"url": "https://example.org/b.nc"},
        {"size": 10**9 + 1},
        {"etag": '"other"'},
        {"last_modified": "Mon, 23 Nov 2026 00:00:01 GMT"},
        {"url": "https://example.org/a.nc?file=2"},
    ],
    ids=lambda change: next(iter(change.values())),
)
def test_another_source_or_another_state_of_it_finds_nothing(make_cache, change):
    cache = make_cache("1MiB")
    put(cache, SOURCE, {0: b"mine"})
    other = replace(SOURCE, **change)
    assert get(cache, other, (0, 4)) == [None]
    put(cache, other, {0: b"hers"})
    assert get(cache, SOURCE, (0, 4)) == [b"mine"]
    cache.discard(other)
    assert get(cache, other, (0, 4)) == [None]
    assert get(cache, SOURCE, (0, 4)) == [b"mine"]


@pytest.mark.parametrize(
    "source",
    [
        Source("https://example.org/a.nc"),
        Source("https://example.org/a.nc", 10),
        Source("https://example.org/a.nc", 10, 'W/"weak"'),
        Source("/data/a.nc", 10, "stat:1-2-3", "1700000000000000000"),
    ],
    ids=["nothing known", "size alone", "weak ETag", "local file"],
)
def test_a_source_that_nothing_identifies_is_not_kept(make_cache, source):
    cache = make_cache("1MiB")
    put(cache, source, {0: b"what now?"})
    assert source_key(source) is None
    assert get(cache, source, (0, 9)) == [None]


SIGNED = [
    "https://user:word@example.org/a.nc",
    "https://example.org/a.nc?X-Amz-Signature=secret&X-Amz-Date=1&X-Amz-Expires=2",
    "https://example.org/a.nc?sv=1&sp=r&sig=secret&se=2",
    "https://example.org/a.nc?Expires=1&Signature=secret&Key-Pair-Id=K",
    "https://example.org/a.nc?token=secret",
]


@pytest.mark.parametrize("url", SIGNED)
def test_what_signs_a_url_does_not_tell_sources_apart(make_cache, url):
    cache = make_cache("1MiB")
    put(cache, replace(SOURCE, url=url), {0: b"same"})
    assert get(cache, SOURCE, (0, 4)) == [b"same"]


def test_parameters_that_may_choose_the_data_do():
    def key(query):
        return source_key(replace(SOURCE, url=f"https://example.org/get{query}"))

    assert len({key(""), key("?id=1"), key("?id=2"), key("?sp=2"), key("?id=1&sp=2")}) == 5
    assert key("?id=1&sig=a&sp=2") == key("?id=1&sig=b&sp=3")


def test_what_was_used_last_stays(make_cache, tmp_path):
    cache = make_cache("1MiB")
    for at in range(8):
        put(cache, SOURCE, {at * 2**17: noise(at, 100_000)})
        make_older(tmp_path)
    assert get(cache, SOURCE, (0, 100_000)) == [noise(0, 100_000)]  # is used again
    for at in range(8, 12):
        put(cache, SOURCE, {at * 2**17: noise(at, 100_000)})
    found = cache.get_many(SOURCE, *columns(*((at * 2**17, 100_000) for at in range(12))))
    kept = [at for at, data in enumerate(found) if data is not None]
    assert kept[0] == 0
    assert kept[1] >= 3
    assert kept[-4:] == [8, 9, 10, 11]


def make_older(folder):
    """Let all that lies in a cache on disk seem to have been used an hour earlier than it was."""
    import os

    for path in folder.rglob("*.pack"):
        earlier = path.stat().st_mtime_ns - 3600 * 10**9
        os.utime(path, ns=(earlier, earlier))


def taken(cache, folder):
    if isinstance(cache, MemoryCache):
        return cache.used
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("size", [10, 3000, 200_000])
def test_the_bound_holds_all_the_time(make_cache, tmp_path, size):
    cache = make_cache("300kB")
    for batch in range(8):
        put(cache, SOURCE, {(batch * 40 + at) * 2**20: noise(at, size) for at in range(40)})
        assert taken(cache, tmp_path) <= 300_000
    last = cache.get_many(SOURCE, *columns((7 * 40 * 2**20 + 39 * 2**20, size)))
    assert last[0] is not None


def test_what_is_larger_than_the_cache_is_not_kept(make_cache, tmp_path):
    cache = make_cache("100kB")
    put(cache, SOURCE, {0: b"small"})
    put(cache, SOURCE, {10: bytes(100_000), 2**20: b"beside"})
    assert get(cache, SOURCE, (0, 5), (10, 100_000), (2**20, 6)) == [b"small", None, b"beside"]


def test_the_same_range_is_kept_once(make_cache, tmp_path):
    cache = make_cache("1MiB")
    put(cache, SOURCE, {0: bytes(1000)})
    before = taken(cache, tmp_path)
    for _ in range(5):
        put(cache, SOURCE, {0: bytes(1000)})
    assert taken(cache, tmp_path) == before


def test_what_is_kept_is_a_copy_that_nobody_can_change(make_cache):
    cache = make_cache("1MiB")
    data = bytearray(b"first")
    put(cache, SOURCE, {0: data, 100: np.frombuffer(b"array", np.uint8)})
    data[:] = b"other"
    assert get(cache, SOURCE, (0, 5), (100, 5)) == [b"first", b"array"]
    (found,) = cache.get_many(SOURCE, *columns((0, 5)))
    assert memoryview(found).readonly


def test_nothing_is_asked_for_and_nothing_is_put(make_cache):
    cache = make_cache("1MiB")
    put(cache, SOURCE, {})
    assert get(cache, SOURCE) == []
    cache.discard(SOURCE)


def test_many_threads_get_right_bytes_while_others_are_thrown_out(make_cache, tmp_path):
    cache = make_cache("500kB")
    pieces = {at * 10**5: noise(at, 5000) for at in range(200)}
    wrong = []

    def work(seed):
        random = np.random.default_rng(seed)
        for _ in range(40):
            some = {at: pieces[at] for at in (random.integers(200, size=20) * 10**5).tolist()}
            found = get(cache, SOURCE, *((at, 5000) for at in some))
            wrong.extend(
                at for at, data in zip(some, found, strict=True) if data not in (None, some[at])
            )
            put(cache, SOURCE, some)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert taken(cache, tmp_path) <= 500_000


# Memory alone


def test_memory_takes_no_more_than_it_says_for_tiny_pieces_either():
    cache = open_cache("memory:1MiB")
    pieces = [noise(at, 20) for at in range(10_000)]
    offset, length = columns(*((at * 100, 20) for at in range(10_000)))
    cache.put_many(SOURCE, offset[:10], length[:10], pieces[:10])  # what is made once
    gc.collect()
    tracemalloc.start()
    for at in range(10, 10_000, 37):
        several = slice(at, at + 37)
        data = [memoryview(piece) for piece in pieces[several]]
        cache.put_many(SOURCE, offset[several], length[several], data)
    data = None
    gc.collect()
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert used <= 2**20
    assert cache.used <= 2**20


def test_memory_forgets_sources_of_which_nothing_is_left():
    cache = open_cache("memory:100kB")
    for number in range(500):
        put(cache, replace(SOURCE, etag=f'"{number}"'), {0: bytes(5000)})
    assert len(cache._ranges) < 50


def test_two_caches_in_memory_share_nothing():
    one, other = open_cache("memory:1MiB"), open_cache("memory:1MiB")
    put(one, SOURCE, {0: b"mine"})
    assert get(other, SOURCE, (0, 4)) == [None]
    assert open_cache(one) is one


def test_a_memory_cache_is_itself_again_in_its_process_and_empty_in_another():
    cache = open_cache("memory:1MiB")
    put(cache, SOURCE, {0: b"mine"})
    pickled = pickle.dumps(cache)
    assert pickle.loads(pickled) is cache
    code = (
        "import pickle, sys; data = sys.stdin.buffer.read();"
        "one = pickle.loads(data); assert pickle.loads(data) is one;"
        "print(one.limit, one.used)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], check=False, input=pickled, capture_output=True
    )
    assert result.stdout.split() == [b"1048576", b"0"], result.stderr


# The option


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("memory:256MiB", "MemoryCache(268435456)"),
        ("MEMORY:1.5 GB", "MemoryCache(1500000000)"),
        ("/a/b:20GiB", "DiskCache('/a/b', 21474836480)"),
        ("/a b/c:d:500000", "DiskCache('/a b/c:d', 500000)"),
        ("/a/b:2tib", "DiskCache('/a/b', 2199023255552)"),
        ("/a/b:500 kB", "DiskCache('/a/b', 500000)"),
        ("file:///a/b:1MiB", "DiskCache('/a/b', 1048576)"),
        ("/memory:100000B", "DiskCache('/memory', 100000)"),
    ],
)
def test_an_option_says_where_and_how_much(text, expected):
    assert repr(open_cache(text)) == expected


def test_a_path_may_be_relative_to_the_home_or_the_working_directory(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert open_cache("./here:1MiB").folder == tmp_path / "here"
    assert open_cache("in/here:1MiB").folder == tmp_path / "in" / "here"
    assert open_cache(Path("./here:1MiB")).folder == tmp_path / "here"
    assert str(open_cache("~/there:1MiB").folder) == "/home/somebody/there"
    assert open_cache("C:\\cache:1MiB").folder == tmp_path / "C:\\cache"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        ("", "cache='' names no cache"),
        ("memory", "cache='memory' has no size"),
        ("/a/b", "cache='/a/b' has no size"),
        ("C:\\cache", "has no size"),
        ("/a:b/c", "cache='/a:b/c' has no size"),
        ("memory:", "cache='memory:' has no size"),
        ("memory:lots", "the size 'lots', which is none"),
        ("/a/b:20 gigs", "the size '20 gigs', which is none"),
        ("/a/b:-1", "the size '-1', which is none"),
        ("256MiB", "says how much, but not where"),
        (":256MiB", "says how much, but not where"),
        ("memory:0", "has room for 0 bytes"),
        ("/a/b:20", "has room for 20 bytes"),
        ("s3://bucket/cache:1GiB", "is no folder on a local disk"),
        ("mem:1GiB", "'mem' is not 'memory', and a folder of that name is './mem:1GiB'"),
        ("redis:1GiB", "names no kind of cache: 'redis'"),
        ("disk:/a/b:1GiB", "a folder of that name is './disk:/a/b:1GiB'"),
        ("~nobody-of-this-name/a:1GiB", "home"),
        (256 * 2**20, "cache=268435456 is no cache"),
        (True, "cache=True is no cache"),
    ],
)
def test_an_option_that_means_nothing_says_what_to_write(option, problem):
    with pytest.raises(ValueError, match="cache=") as caught:
        open_cache(option)
    assert problem in str(caught.value)
    assert "write cache='memory:256MiB' or cache='/a/folder:20GiB'" in str(caught.value)
