"""A cache on disk survives crashes, damage, full disks and other processes, and leaks nothing."""

import errno
import fcntl
import os
import pickle
import re
import resource
import shutil
import subprocess
import sys
import warnings
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from byteatlas.model import Source
from byteatlas.sources import chunk_cache_disk, chunk_cache_source, chunk_cache_space
from byteatlas.sources.chunk_cache_disk import CacheWarning
from byteatlas.sources.chunk_cache_option import open_cache

SOURCE = Source("https://example.org/a.nc", 10**9, '"tag"')

WORKERS = """
import os, signal, sys, time
import numpy as np
from byteatlas.model import Source
from byteatlas.sources.chunk_cache_option import open_cache

def piece(at, size):
    return np.random.default_rng(at).bytes(size)

def run(folder, limit, seed, rounds):
    cache = open_cache(f"{folder}:{limit}")
    random = np.random.default_rng(seed)
    for _ in range(rounds):
        source = Source("https://example.org/a.nc", 10**9, f'"{random.integers(3)}"')
        offset = random.integers(50, size=8) * 10**6
        length = 1000 + offset // 10**6 * 100
        for at, size, data in zip(offset, length, cache.get_many(source, offset, length)):
            assert data is None or bytes(data) == piece(at, size), at
        cache.put_many(source, offset, length, [piece(at, n) for at, n in zip(offset, length)])

def start(*args):
    child = os.fork()
    if not child:
        try:
            run(*args)
        except BaseException:
            os._exit(1)
        os._exit(0)
    return child

def wait(child):
    return os.waitpid(child, 0)[1]

folder, limit = sys.argv[1], int(sys.argv[2])
if sys.argv[3] == "together":
    children = [start(folder, limit, seed, 100) for seed in range(4)]
    assert [wait(child) for child in children] == [0] * 4
else:
    random = np.random.default_rng(0)
    for seed in range(20):
        child = start(folder, limit, seed, 10**6)
        time.sleep(random.random() * 0.06)
        os.kill(child, signal.SIGKILL)
        assert wait(child) == signal.SIGKILL
    assert wait(start(folder, limit, 99, 40)) == 0
"""


def workers(folder, limit, how):
    """Start processes that get and put at random, and fail if they ever get wrong bytes."""
    return subprocess.Popen([sys.executable, "-c", WORKERS, str(folder), str(limit), how])


def taken(folder):
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += Path(parent, name).stat().st_size
            except FileNotFoundError:  # thrown out meanwhile
                continue
    return total


def columns(*ranges):
    offset, length = np.array(ranges, np.int64).reshape(-1, 2).T
    return offset, length


def put(cache, pieces, source=SOURCE):
    offset, length = columns(*((at, len(data)) for at, data in pieces.items()))
    cache.put_many(source, offset, length, list(pieces.values()))


def get(cache, *ranges, source=SOURCE):
    found = cache.get_many(source, *columns(*ranges))
    return [None if one is None else bytes(one) for one in found]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


@contextmanager
def all_warnings():
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        yield told


def said(warning):
    """Return what a cache says is the matter."""
    assert warning.category is CacheWarning
    found = re.fullmatch(
        r"the cache in .* (cannot .*); reading goes on without", str(warning.message)
    )
    return found[1]


def packs(folder):
    return sorted(folder.rglob("*.pack"))


@pytest.fixture
def _impatient(monkeypatch):
    """Look for what other processes have kept whenever something lacks."""
    monkeypatch.setattr(chunk_cache_source, "REFRESH_S", 0.0)


# Other processes


def test_the_bound_holds_while_several_processes_write(folder):
    most = 0
    with workers(folder, 400_000, "together") as running:
        while running.poll() is None:
            most = max(most, taken(folder))
    assert running.returncode == 0
    assert 100_000 < most <= 400_000


def test_a_cache_is_in_order_after_its_writers_were_killed_at_any_moment(folder):
    with workers(folder, 400_000, "killed") as running:
        assert running.wait() == 0
    assert taken(folder) <= 400_000
    cache = open_cache(f"{folder}:400kB")
    put(cache, {5: b"still works"})
    assert get(cache, (5, 11)) == [b"still works"]


@pytest.mark.usefixtures("_impatient")
def test_what_one_keeps_another_finds_later_too(folder):
    one, other = open_cache(f"{folder}:1MiB"), open_cache(f"{folder}:1MiB")
    for at in range(5):
        put(one, {at * 100: b"a%d" % at})
        assert get(other, (at * 100, 2)) == [b"a%d" % at]
        put(other, {at * 100 + 50: b"b%d" % at})
        assert get(one, (at * 100 + 50, 2)) == [b"b%d" % at]
    assert len(packs(folder)) == 2


def test_several_that_keep_the_same_get_the_same(folder):
    caches = [open_cache(f"{folder}:1MiB") for _ in range(3)]
    for cache in caches:
        assert cache.holds(SOURCE, *columns((0, 4))).tolist() == [False]
    for cache in caches:
        put(cache, {0: b"same"})
    assert [get(cache, (0, 4)) for cache in [*caches, open_cache(f"{folder}:1MiB")]] == [
        [b"same"]
    ] * 4


def test_what_another_process_threw_out_is_missing_and_can_be_kept_again(folder):
    cache = open_cache(f"{folder}:1MiB")
    put(cache, {0: b"data"})
    shutil.rmtree(folder / chunk_cache_space.FOLDER)
    assert cache.holds(SOURCE, *columns((0, 4))).tolist() == [True]
    assert get(cache, (0, 4)) == [None]
    assert cache.holds(SOURCE, *columns((0, 4))).tolist() == [False]
    put(cache, {0: b"data"})
    assert get(cache, (0, 4)) == [b"data"]


def test_a_forked_child_writes_into_a_pack_of_its_own(folder):
    code = """if True:
        import os, sys
        import numpy as np
        from byteatlas.model import Source
        from byteatlas.sources.chunk_cache_option import open_cache
        cache = open_cache(sys.argv[1] + ":1MiB")
        source = Source("https://example.org/a.nc", 10**9, '"tag"')
        def put(at, data):
            cache.put_many(source, np.array([at]), np.array([len(data)]), [data])
        put(0, b"parent")
        child = os.fork()
        put(100 if child else 200, b"after")
        if child:
            assert os.waitpid(child, 0)[1] == 0
        os._exit(0)
    """
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True)
    assert len(packs(folder)) == 2
    cache = open_cache(f"{folder}:1MiB")
    assert get(cache, (0, 6), (100, 5), (200, 5)) == [b"parent", b"after", b"after"]


def test_who_waits_too_long_for_others_keeps_nothing_and_goes_on(folder, monkeypatch):
    monkeypatch.setattr(chunk_cache_space, "_PATIENCE_S", 0.01)
    cache = open_cache(f"{folder}:1MiB")
    put(cache, {0: b"before"})
    with (folder / chunk_cache_space.FOLDER / "taken").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # as a process that was stopped would hold it
        put(cache, {100: b"meanwhile"})
        assert get(cache, (0, 6), (100, 9)) == [b"before", None]
    put(cache, {200: b"afterwards"})
    assert get(cache, (200, 10)) == [b"afterwards"]


def test_a_pickled_cache_finds_the_same_folder(folder):
    cache = open_cache(f"{folder}:1MiB")
    put(cache, {0: b"data"})
    again = pickle.loads(pickle.dumps(cache))
    assert repr(again) == repr(cache)
    assert get(again, (0, 4)) == [b"data"]


def test_packs_that_are_large_enough_are_left_alone(folder):
    cache = open_cache(f"{folder}:1600kB")  # packs of 100 kB
    for at in range(10):
        put(cache, {at * 10**6: bytes(30_000)})
    sizes = [path.stat().st_size for path in packs(folder)]
    assert len(sizes) == 3
    assert max(sizes) < 130_000


def test_room_that_is_made_of_the_last_pack_is_used_at_once(folder):
    cache = open_cache(f"{folder}:100kB")
    put(cache, {0: bytes(7000)})
    put(cache, {10_000: bytes(85_000)})
    assert get(cache, (0, 7000), (10_000, 85_000)) == [None, bytes(85_000)]
    assert len(packs(folder)) == 1


# Damage


SMALL = {0: b"first chunk", 1000: b"second one", 2000: b"third"}
WANTED = [(at, len(data)) for at, data in SMALL.items()]


def right_or_missing(folder):
    """Read the small cache anew; tell how many chunks are still there, all of them right."""
    found = get(open_cache(f"{folder}:1MiB"), *WANTED)
    right = list(SMALL.values())
    assert all(one in (None, other) for one, other in zip(found, right, strict=True))
    return sum(one is not None for one in found)


@pytest.fixture
def small(folder):
    """Keep some chunks in two batches, and return the pack that holds them."""
    cache = open_cache(f"{folder}:1MiB")
    put(cache, {at: SMALL[at] for at in (0, 1000)})
    put(cache, {2000: SMALL[2000]})
    (pack,) = packs(folder)
    assert right_or_missing(folder) == 3
    return pack


def test_a_changed_byte_anywhere_is_never_served(folder, small):
    data = small.read_bytes()
    for at in range(len(data)):
        small.parent.mkdir(exist_ok=True)
        small.write_bytes(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :])
        assert right_or_missing(folder) < 3
        assert not small.exists()


def test_a_pack_that_ends_anywhere_is_served_up_to_there(folder, small):
    data = small.read_bytes()
    counts = []
    for end in range(len(data)):
        small.parent.mkdir(exist_ok=True)
        small.write_bytes(data[:end])
        counts.append(right_or_missing(folder))
    assert sorted(set(counts)) == [0, 2]  # a batch that lacks something takes its pack along
    assert counts.index(2) > len(data) // 2


@pytest.mark.parametrize("content", [b"", bytes(5000), b"\xff" * 5000, b"bacache1" + b"\xff" * 500])
def test_anything_else_in_place_of_a_pack_is_no_pack(folder, small, content):
    small.write_bytes(content)
    assert right_or_missing(folder) == 0


def test_a_pack_that_is_damaged_after_it_was_looked_at_is_noticed(folder, small):
    cache = open_cache(f"{folder}:1MiB")
    assert None not in get(cache, *WANTED)
    data = small.read_bytes()
    small.write_bytes(data.replace(b"second", b"SECOND"))
    assert get(cache, *WANTED) == [b"first chunk", None, b"third"]
    assert not small.exists()
    assert get(cache, *WANTED) == [None] * 3


def test_a_pack_that_became_shorter_is_noticed(folder, small):
    cache = open_cache(f"{folder}:1MiB")
    assert None not in get(cache, *WANTED)
    os.truncate(small, small.stat().st_size - 1)
    assert get(cache, *WANTED) == [b"first chunk", b"second one", None]


def test_a_pack_in_the_folder_of_another_source_is_not_served(folder, small):
    other = replace(SOURCE, etag='"other"')
    cache = open_cache(f"{folder}:1MiB")
    put(cache, {0: b"others"}, other)
    (theirs,) = set(packs(folder)) - {small}
    shutil.copy(small, theirs.with_name("0" * 16 + ".pack"))
    assert get(open_cache(f"{folder}:1MiB"), *WANTED, source=other) == [None] * 3


def test_folders_and_links_in_place_of_packs_do_no_harm(folder, small):
    small.with_name("1" * 16 + ".pack").mkdir()
    small.with_name("2" * 16 + ".pack").symlink_to("/nowhere")
    (folder / chunk_cache_space.FOLDER / ("0" * 32)).write_text("no folder")
    assert right_or_missing(folder) == 3
    cache = open_cache(f"{folder}:70kB")
    put(cache, {10**6: bytes(60_000)})  # throws the others out
    assert get(cache, (10**6, 60_000)) == [bytes(60_000)]


@pytest.mark.parametrize("content", [b"", b"123", bytes(12), b"\xff" * 12])
def test_how_much_is_taken_is_counted_again_where_that_is_damaged(folder, small, content):
    cache = open_cache(f"{folder}:100kB")
    put(cache, {10**6: bytes(50_000)})
    (folder / chunk_cache_space.FOLDER / "taken").write_bytes(content)
    for at in range(2, 12):
        put(cache, {at * 10**6: bytes(30_000)})
        assert taken(folder) <= 100_000
    assert get(cache, (11 * 10**6, 30_000)) == [bytes(30_000)]


# Disks that are full, and folders that may not be used


FULL = {0: bytes(50_000), 10**6: bytes(60_000), 2 * 10**6: bytes(90_000)}


def test_a_file_that_may_not_grow_is_told_once_and_what_fits_is_kept(folder):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    cache = open_cache(f"{folder}:1600kB")
    put(cache, {5: b"small"})
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with all_warnings() as told:
            put(cache, FULL)
            cache._rests_until = 0.0
            put(cache, FULL)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [said(one) for one in told] == ["cannot be written: File too large"]
    assert get(cache, (5, 5), (0, 50_000)) == [b"small", None]
    cache._rests_until = 0.0
    put(cache, FULL)
    assert get(cache, (0, 50_000)) == [bytes(50_000)]


@pytest.fixture
def tiny_disk(tmp_path):
    """Mount a file system of 200 kB, where that is allowed."""
    place = tmp_path / "tiny"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=200k", "none", str(place)]
    if os.geteuid() or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_told_once_and_leaves_what_was_kept(tiny_disk):
    cache = open_cache(f"{tiny_disk}/cache:20MiB")
    put(cache, {5: bytes(100_000)})
    with all_warnings() as told:
        for at in range(1, 5):
            put(cache, {at * 10**6: bytes(60_000)})
            cache._rests_until = 0.0
    assert [said(one) for one in told] == ["cannot be written: No space left on device"]
    again = open_cache(f"{tiny_disk}/cache:20MiB")
    assert get(again, (5, 100_000), (4 * 10**6, 60_000)) == [bytes(100_000), None]


@pytest.mark.parametrize("calls", [0, 1, 2])
def test_a_disk_that_is_full_in_the_middle_of_a_batch_leaves_no_half_of_it(
    folder, monkeypatch, calls
):
    cache = open_cache(f"{folder}:1MiB")
    put(cache, {5: b"small"})
    before = taken(folder)
    write, left = os.pwritev, [calls]

    def pwritev(*args):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(*args)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwritev", pwritev)
        if calls < 2:
            with pytest.warns(CacheWarning, match="No space left"):
                put(cache, FULL)
        else:
            put(cache, {0: bytes(50_000)})
    assert (taken(folder) == before) == (calls < 2)
    expected = [b"small", None if calls < 2 else bytes(50_000)]
    assert get(cache, (5, 5), (0, 50_000)) == expected
    assert get(open_cache(f"{folder}:1MiB"), (5, 5), (0, 50_000)) == expected


def test_a_folder_that_cannot_be_made_is_told_once_and_tried_again_after_a_while(tmp_path):
    (tmp_path / "file").write_text("no folder")
    cache = open_cache(tmp_path / "file" / "cache:1MiB")
    with all_warnings() as told:
        put(cache, {0: b"data"})
        put(cache, {0: b"data"})
    assert [said(one) for one in told] == ["cannot be written: Not a directory"]
    assert get(cache, (0, 4)) == [None]
    (tmp_path / "file").unlink()
    put(cache, {0: b"data"})
    assert get(cache, (0, 4)) == [None]  # it rests for a minute
    cache._rests_until = 0.0
    put(cache, {0: b"data"})
    assert get(cache, (0, 4)) == [b"data"]


def test_a_folder_that_can_only_be_read_is_read(folder, small, monkeypatch):
    really_open = os.open

    def read_only_open(path, flags, *args, **options):
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return really_open(path, flags, *args, **options)

    def utime(*args, **options):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "open", read_only_open)
    monkeypatch.setattr(os, "utime", utime)
    cache = open_cache(f"{folder}:1MiB")
    assert get(cache, *WANTED) == list(SMALL.values())
    with pytest.warns(CacheWarning, match="cannot be written: Read-only file system"):
        put(cache, {5000: b"more"})
    assert get(cache, *WANTED) == list(SMALL.values())


def test_a_pack_that_may_not_be_read_is_told_once_and_missing(folder, small, monkeypatch):
    cache = open_cache(f"{folder}:1MiB")
    assert None not in get(cache, *WANTED)
    really_open = os.open

    def denied(path, *args, **options):
        if str(path).endswith(".pack"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return really_open(path, *args, **options)

    monkeypatch.setattr(os, "open", denied)
    with all_warnings() as told:
        assert get(cache, *WANTED) == [None] * 3
        assert get(cache, *WANTED) == [None] * 3
    assert [said(one) for one in told] == ["cannot be read: Permission denied"]


class _Unseen:
    """An entry of a folder whose file cannot be looked at."""

    def __init__(self, entry):
        self.name, self.path = entry.name, entry.path

    def stat(self, **_options):
        raise PermissionError(errno.EACCES, "Permission denied", self.path)


@contextmanager
def _entries_unseen(folder):
    with really_scandir(folder) as found:
        yield [_Unseen(entry) if entry.name.endswith(".pack") else entry for entry in found]


really_scandir = os.scandir


def _denied(*_args, **_options):
    raise PermissionError(errno.EACCES, "Permission denied")


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("scandir", _denied),
        ("scandir", _entries_unseen),
        ("open", _denied),
        ("preadv", _denied),
        ("pread", _denied),
        ("unlink", _denied),
        ("stat", _denied),
    ],
)
def test_nothing_that_a_folder_does_stops_a_read(folder, small, monkeypatch, name, call):
    knowing, new = open_cache(f"{folder}:1MiB"), open_cache(f"{folder}:1MiB")
    assert None not in get(knowing, *WANTED)
    monkeypatch.setattr(os, name, call)
    right = list(SMALL.values())
    for cache in (knowing, new):
        with all_warnings() as told:
            for _ in range(2):
                cache._rests_until = 0.0
                found = get(cache, *WANTED, (9000, 3))
                assert all(one in (None, other) for one, other in zip(found, right, strict=False))
                cache.holds(SOURCE, *columns(*WANTED, (9000, 3)))
                put(cache, {7000: b"more"})
            cache.discard(SOURCE)
        assert len(told) <= 1
        assert all(said(one).endswith(": Permission denied") for one in told)


def test_a_folder_that_cannot_be_listed_is_told_once_and_read_as_empty(folder, small, monkeypatch):
    monkeypatch.setattr(os, "scandir", _denied)
    cache = open_cache(f"{folder}:1MiB")
    with all_warnings() as told:
        assert cache.holds(SOURCE, *columns(*WANTED)).tolist() == [False] * 3
        cache.discard(SOURCE)
        assert get(cache, *WANTED) == [None] * 3
    assert [said(one) for one in told] == ["cannot be read: Permission denied"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs the right to give a folder away")
def test_a_folder_of_another_user_is_not_trusted(folder, small):
    os.chown(folder / chunk_cache_space.FOLDER, 65534, -1)
    with all_warnings() as told:
        assert get(open_cache(f"{folder}:1MiB"), *WANTED) == [None] * 3
    assert [said(one) for one in told] == ["cannot be trusted: it is another user's"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs the right to become another user")
def test_another_user_reads_on_without_the_cache(folder, small):
    folder.chmod(0o755)
    code = """if True:
        import os, sys, warnings
        from pathlib import Path
        import numpy as np
        from byteatlas.model import Source
        from byteatlas.sources.chunk_cache_disk import DiskCache
        source = Source("https://example.org/a.nc", 10**9, '"tag"')
        os.chdir(sys.argv[1])  # the folders above it may be closed to others
        os.seteuid(65534)
        cache = DiskCache(Path(), 2**20)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            at, length = np.array([0]), np.array([11])
            assert cache.get_many(source, at, length) == [None]
            cache.put_many(source, at, length, [b"first chunk"])
            cache.discard(source)
        print(*(one.message for one in told), sep="\\n")
    """
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], check=True, capture_output=True, text=True
    )
    assert done.stdout.count("\n") == 1
    assert "cannot be read: Permission denied; reading goes on without" in done.stdout
    assert right_or_missing(folder) == 3


@pytest.mark.parametrize("mode", [0o777, 0o770])
def test_a_folder_that_others_can_write_into_is_not_trusted(folder, small, mode):
    (folder / chunk_cache_space.FOLDER).chmod(mode)
    cache = open_cache(f"{folder}:1MiB")
    with pytest.warns(CacheWarning, match="cannot be trusted: other users can write into it"):
        assert get(cache, *WANTED) == [None] * 3
    put(cache, {5000: b"more"})
    assert get(cache, (5000, 4)) == [None]


# What others can learn from it


def test_files_are_for_their_user_alone_whatever_the_mask_says(folder):
    mask = os.umask(0)
    try:
        put(open_cache(f"{folder}:1MiB"), {0: b"data"})
    finally:
        os.umask(mask)
    inside = folder / chunk_cache_space.FOLDER
    found = {path.relative_to(inside): path for path in [inside, *inside.rglob("*")]}
    modes = {str(name): path.stat().st_mode & 0o777 for name, path in found.items()}
    assert modes.pop("CACHEDIR.TAG") == 0o600
    assert len(modes) == 4
    assert all(
        mode == (0o700 if found[Path(name)].is_dir() else 0o600) for name, mode in modes.items()
    )


def test_neither_names_nor_files_tell_where_the_bytes_came_from(folder):
    url = "https://user:secretword@private.example.org/hidden/a.nc?X-Amz-Signature=secretsign"
    source = Source(url, 10**9, '"private-tag"', "Mon, 23 Nov 2026 00:00:00 GMT")
    put(open_cache(f"{folder}:1MiB"), {0: b"data"}, source)
    everything = b"".join(
        str(path).encode() + (path.read_bytes() if path.is_file() else b"")
        for path in folder.rglob("*")
    )
    for word in (b"secret", b"private", b"hidden", b"user", b"example", b"Nov 2026"):
        assert word not in everything


def test_nothing_is_made_before_something_is_kept(folder):
    cache = open_cache(f"{folder}:1MiB")
    assert get(cache, (0, 4)) == [None]
    put(cache, {0: b"data"}, replace(SOURCE, etag=None))
    assert not folder.exists()


def test_what_else_is_in_the_folder_stays(folder, small):
    mine = [folder / "mine", folder / chunk_cache_space.FOLDER / "mine", small.with_name("a.pack")]
    for path in mine:
        path.write_text("mine")
    cache = open_cache(f"{folder}:70kB")
    for at in range(1, 9):
        put(cache, {at * 10**6: bytes(20_000)})
    cache.discard(SOURCE)
    assert [path.read_text() for path in mine] == ["mine"] * 3
    assert not small.exists()


def test_a_minute_is_how_long_a_folder_is_left_alone():
    assert chunk_cache_disk.PAUSE_S == 60
