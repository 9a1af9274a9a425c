"""Whatever goes wrong while an index is written, there is the old one or the new one."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from byteatlas.errors import Conflict, Unsupported
from byteatlas.index import atomic, read_json, revision, write_json
from byteatlas.index.atomic import write_whole
from byteatlas.model import VirtualGroup

SCALE = int(os.environ.get("BYTEATLAS_TEST_SCALE", "1"))
"""The random suites run so many times as long."""

OLD = b"old" * 1000
NEW = [b"new" * 400 for _ in range(3)]


def run_python(script: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# Killed writers

KILLER = """
import os, random, signal, sys, time
from pathlib import Path
from byteatlas.index.atomic import write_whole

target, kind, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
old, new = b"old" * 1000, [b"new" * 20_000] * 40
draw = random.Random(7)
begin = time.perf_counter()
for _ in range(3):
    write_whole(target, new)
usual = (time.perf_counter() - begin) / 3
for _ in range(count):
    target.unlink(missing_ok=True)
    if kind == "overwrite":
        target.write_bytes(old)
    ready, begun = os.pipe()
    writer = os.fork()
    if not writer:
        os.write(begun, b".")
        write_whole(target, new)
        signal.pause()
    os.read(ready, 1)
    time.sleep(draw.random() * 1.3 * usual)
    os.kill(writer, signal.SIGKILL)
    os.waitpid(writer, 0)
    os.close(ready), os.close(begun)
    content = target.read_bytes() if target.exists() else None
    found = {None: "none", old: "old", b"".join(new): "new"}.get(content, "broken")
    left = [name for name in os.listdir(target.parent) if name.startswith(".index.json.")]
    write_whole(target, [b"healed"])
    healed = [name for name in os.listdir(target.parent) if name.startswith(".index.json.")]
    assert target.read_bytes() == b"healed" and not healed, healed
    print(found, len(left))
"""


@pytest.mark.parametrize("kind", ["create", "overwrite"])
def test_a_writer_killed_at_any_moment_leaves_the_old_index_or_the_new(
    tmp_path: Path, kind: str
) -> None:
    count = 50 * SCALE

    lines = run_python(KILLER, str(tmp_path / "index.json"), kind, str(count)).splitlines()

    outcomes = [line.split()[0] for line in lines]
    before = "none" if kind == "create" else "old"
    assert len(outcomes) == count
    assert set(outcomes) == {before, "new"}
    assert any(line.endswith(" 1") for line in lines), "none was killed with a file half written"


KILLED_AT = """
import os, signal, sys
from pathlib import Path
from byteatlas.index import atomic

target, old, new = Path(sys.argv[1]), b"old" * 1000, [b"new" * 400] * 3

class Dying:
    calls = 0
    def __init__(self, at, when):
        self.at, self.when = at, when
    def __getattr__(self, name):
        real = getattr(os, name)
        if name not in ("open", "write", "fsync", "rename", "unlink", "close", "scandir", "fstat"):
            return real
        def call(*arguments):
            self.calls += 1
            if self.calls == self.at and self.when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            result = real(*arguments)
            if self.calls == self.at and self.when == "after":
                os.kill(os.getpid(), signal.SIGKILL)
            return result
        return call

for kind in ("create", "overwrite"):
    for when in ("before", "after"):
        for at in range(1, 100):
            target.unlink(missing_ok=True)
            if kind == "overwrite":
                target.write_bytes(old)
            writer = os.fork()
            if not writer:
                atomic.os = Dying(at, when)
                atomic.write_whole(target, new)
                os._exit(0)
            _, status = os.waitpid(writer, 0)
            if os.WIFEXITED(status):
                break
            content = target.read_bytes() if target.exists() else None
            found = {None: "none", old: "old", b"".join(new): "new"}.get(content, "broken")
            atomic.write_whole(target, [b"healed"])
            assert os.listdir(target.parent) == [target.name]
            print(kind, found)
"""


def test_a_writer_killed_before_and_after_each_system_call_leaves_one_of_both(
    tmp_path: Path,
) -> None:
    lines = run_python(KILLED_AT, str(tmp_path / "index.json")).splitlines()

    assert len(lines) >= 4 * 10
    assert set(lines) == {"create none", "create new", "overwrite old", "overwrite new"}


# Failing system calls

CALLS = ("open", "write", "fsync", "rename", "unlink", "close", "fstat", "scandir")


class FaultyOs:
    """The module os, of which the k-th call fails, once or for ever."""

    def __init__(self, k: int, fault: str, *, for_ever: bool) -> None:
        self.k, self.fault, self.for_ever = k, fault, for_ever
        self.calls = 0
        self.struck: list[str] = []

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        return self.wrapped(name, real) if name in CALLS else real

    def wrapped(self, name: str, real: Any) -> Any:
        def call(*arguments: Any) -> Any:
            if self.fault == "short write" and name != "write":
                return real(*arguments)
            self.calls += 1
            if not (self.calls == self.k or (self.for_ever and self.calls > self.k)):
                return real(*arguments)
            self.struck.append(name)
            if self.fault == "short write":
                return real(arguments[0], arguments[1][: max(1, len(arguments[1]) // 2)])
            if name == "close":
                real(*arguments)  # the descriptor is gone nevertheless
            code = getattr(errno, self.fault)
            raise OSError(code, os.strerror(code))

        return call


@pytest.mark.parametrize("for_ever", [False, True], ids=["once", "for ever"])
@pytest.mark.parametrize("fault", ["EIO", "ENOSPC", "EINTR", "short write"])
@pytest.mark.parametrize("kind", ["create", "overwrite"])
def test_whichever_system_call_fails_there_is_the_old_index_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, fault: str, *, for_ever: bool
) -> None:
    target = tmp_path / "index.json"
    before = None if kind == "create" else OLD
    struck: list[str] = []
    for k in range(1, 100):
        target.unlink(missing_ok=True)
        if before is not None:
            target.write_bytes(before)
        faulty = FaultyOs(k, fault, for_ever=for_ever)
        failure = None
        with monkeypatch.context() as patch:
            patch.setattr(atomic, "os", faulty)
            try:
                write_whole(target, NEW)
            except OSError as error:
                failure = error
        content = target.read_bytes() if target.exists() else None
        assert content in (before, b"".join(NEW))
        if failure is None:
            assert content == b"".join(NEW)
        else:
            assert failure.filename == str(target)
            assert str(target) in str(failure)
        if "unlink" not in faulty.struck:
            assert set(tmp_path.iterdir()) <= {target}
        write_whole(target, [b"healed"])
        assert list(tmp_path.iterdir()) == [target]
        assert target.read_bytes() == b"healed"
        if not faulty.struck:
            break
        struck += faulty.struck
    else:
        pytest.fail("every run met a fault")
    expected = {"write"} if fault == "short write" else {"open", "write", "fsync", "rename"}
    assert expected <= set(struck)


def test_the_bytes_are_on_the_disk_before_the_name_and_the_name_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    class Listening(FaultyOs):
        def wrapped(self, name: str, real: Any) -> Any:
            def call(*arguments: Any) -> Any:
                is_folder = name == "fsync" and Path(f"/proc/self/fd/{arguments[0]}").is_dir()
                calls.append("fsync folder" if is_folder else name)
                return real(*arguments)

            return call

    monkeypatch.setattr(atomic, "os", Listening(0, "", for_ever=False))
    write_whole(tmp_path / "index.json", NEW)

    kept = [call for call in calls if call in ("write", "fsync", "rename", "fsync folder")]
    assert kept == ["write"] * len(NEW) + ["fsync", "rename", "fsync folder"]


def test_a_leftover_of_a_killed_writer_is_removed_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "index.json"
    leftover = tmp_path / ".index.json.0123456789abcdef.tmp"
    others = [tmp_path / ".index.json.notes.tmp", tmp_path / ".x.json.0123456789abcdef.tmp"]
    for path in (leftover, *others):
        path.write_bytes(b"{")

    write_whole(target, NEW)

    assert set(tmp_path.iterdir()) == {target, *others}


def test_the_error_of_a_full_disk_names_the_index(tmp_path: Path) -> None:
    target = tmp_path / "index.json"
    target.write_bytes(OLD)
    script = """
import resource, signal, sys
from byteatlas.index.atomic import write_whole
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
for limit in (0, 1, 99_999, 499_999):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        write_whole(sys.argv[1], [b"x" * 10_000] * 50)
    except OSError as error:
        print(error.filename)
"""
    assert run_python(script, str(target)).splitlines() == [str(target)] * 4
    assert target.read_bytes() == OLD
    assert list(tmp_path.iterdir()) == [target]


# Several writers

WRITERS = """
import os, sys
from pathlib import Path
from byteatlas.index.atomic import write_whole

target, writers, rounds = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
write_whole(target, [b"0" * 50_000])
alive = set()
for writer in range(1, writers + 1):
    child = os.fork()
    if not child:
        for _ in range(rounds):
            write_whole(target, [str(writer).encode() * 5_000] * 10)
        os._exit(0)
    alive.add(child)
reads = 0
while alive:
    content = target.read_bytes()
    assert len(content) == 50_000 and len(set(content)) == 1, "not one index whole"
    reads += 1
    for child in list(alive):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert status == 0, status
            alive.discard(child)
assert os.listdir(target.parent) == [target.name]
print(reads)
"""


@pytest.mark.parametrize("writers", [2, 4, 8])
def test_readers_see_a_whole_index_while_several_write_it(tmp_path: Path, writers: int) -> None:
    rounds = str(20 * SCALE)

    assert int(run_python(WRITERS, str(tmp_path / "index.json"), str(writers), rounds)) > writers


COUNTERS = """
import os, sys
from pathlib import Path
from byteatlas.errors import Conflict
from byteatlas.index.atomic import revision, write_whole

target, writers, rounds = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
children, conflicts = [], 0
for _ in range(writers):
    child = os.fork()
    if not child:
        for _ in range(rounds):
            while True:
                seen = revision(target)
                count = int(target.read_bytes()) if seen else 0
                try:
                    write_whole(target, [str(count + 1).encode()], if_unchanged=seen)
                except Conflict:
                    continue
                break
        os._exit(0)
    children.append(child)
assert all(os.waitpid(child, 0)[1] == 0 for child in children)
assert os.listdir(target.parent) == [target.name]
print(target.read_text())
"""


@pytest.mark.parametrize("writers", [2, 4, 8])
def test_no_update_is_lost_among_writers_that_compare_and_swap(
    tmp_path: Path, writers: int
) -> None:
    rounds = 10 * SCALE

    total = run_python(COUNTERS, str(tmp_path / "index.json"), str(writers), str(rounds))

    assert int(total) == writers * rounds


def test_an_index_that_was_replaced_meanwhile_is_a_conflict_and_stays(tmp_path: Path) -> None:
    target = tmp_path / "index.json"
    group = VirtualGroup(attrs={"of": "this writer"})
    assert revision(target) == ""
    group.to_json(target, if_unchanged="")
    seen = revision(target)
    write_json(VirtualGroup(attrs={"of": "another"}), target)

    with pytest.raises(Conflict, match="another writer replaced it") as caught:
        group.to_json(target, if_unchanged=seen)

    assert caught.value.url == str(target)
    assert read_json(target.read_bytes()).attrs == {"of": "another"}
    assert list(tmp_path.iterdir()) == [target]
    with pytest.raises(Conflict):
        group.to_json(target, if_unchanged="")
    group.to_json(target, if_unchanged=revision(target))
    assert read_json(target.read_bytes()).attrs == {"of": "this writer"}


def test_a_remote_index_is_not_replaced_on_condition() -> None:
    with pytest.raises(Unsupported, match="only local files"):
        write_json(VirtualGroup(), "memory://index.json", if_unchanged="")
