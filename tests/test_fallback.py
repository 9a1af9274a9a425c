"""What our own reader refuses is read by h5py, in a child process that can do no harm."""

import contextlib
import io
import os
import re
import struct
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

import byteatlas
from byteatlas import fallback
from byteatlas.errors import Malformed, SourceChanged, Unsupported
from byteatlas.fallback import building, engines, process
from byteatlas.model import ScanReport, Skipped, VirtualGroup
from byteatlas.read import Reader
from byteatlas.scanners import ScanOptions
from byteatlas.sources import Trace, open_source
from byteatlas.sources.cache import CachedReader
from byteatlas.testing import Fault, RangeServer

RNG = np.random.default_rng(1)
FIELD = RNG.integers(0, 99, (40, 30)).astype(">i4")
PAIRS = np.array([(1, 2.5), (3, 4.5)], [("a", "i2"), ("b", "f8")])


def compact():
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_layout(h5py.h5d.COMPACT)
    return plist


def write(path):
    with h5py.File(path, "w") as file:
        file.attrs["title"] = "made"
        time = file.create_dataset("time", data=np.arange(40.0))
        time.make_scale("time")
        options = {"chunks": (7, 8), "compression": "gzip", "shuffle": True}
        field = file.create_dataset("field", data=FIELD, **options)
        field.attrs.update({"units": "K", "range": [1.5, 2.5], "one": np.int16(3)})
        field.dims[0].attach_scale(time)
        file.create_dataset("plain", data=FIELD)
        file.create_dataset("swizzled", data=FIELD, chunks=(7, 8), maxshape=(40, None))
        sparse = file.create_dataset("sparse", (40, 30), "f4", chunks=(7, 8), fillvalue=7)
        sparse[8:15] = 1
        file.create_dataset("compact", (50,), "i8", dcpl=compact())[...] = RNG.integers(0, 9, 50)
        inner = file.create_group("inner")
        inner.create_dataset("texts", data=["one", "zwölf", ""])
        inner.create_dataset("pairs", data=PAIRS)
        inner.create_dataset("truths", data=np.array([True, False]))
        inner.create_dataset("arrays", (3,), "(2,)i2")[...] = np.ones((3, 2))
        inner.create_dataset("nothing", data=h5py.Empty("f4"))
    return path


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write(tmp_path_factory.mktemp("fallback") / "made.h5")


@pytest.fixture
def refusing(path):
    """Scan with a reader of our own that refuses some arrays; return the group."""

    def scan(*paths, url=path, engine="auto", reason="filter 9 has no codec here", **options):
        source = open_source(str(url), trace=Trace(keep_log=True))
        reader = CachedReader(source)
        reader.read_head(512)
        native = byteatlas.scan(url, engine="native", exclude=paths)
        kept = [one for one in native.report.skipped if one.path not in paths]
        skipped = (*kept, *(Skipped(one, reason) for one in paths))
        group = replace(native, report=ScanReport(skipped=skipped))
        return fallback.scan_with(engine, reader, ScanOptions(**options), lambda: group)

    return scan


def same(group, path, name):
    array = group[name]
    with h5py.File(path) as file:
        theirs = file[name][...]
        if array.dtype == object:
            theirs = file[name].asstr()[...]
    reader = Reader(group.sources)
    ours = reader.read(array, ...)
    reader.close()
    assert ours.shape == theirs.shape
    assert array.dtype == object or ours.dtype == theirs.dtype
    assert ours.tobytes() == theirs.tobytes() or (ours == theirs).all()
    return array


ALL = (
    "field", "plain", "swizzled", "sparse", "compact", "time",
    "inner/texts", "inner/pairs", "inner/truths", "inner/arrays",
)  # fmt: skip


def test_refused_arrays_are_read_by_h5py_and_say_so(path, refusing):
    group = refusing(*(f"/{name}" for name in ALL))
    kinds = {name: same(group, path, name).manifest.virtual_count > 0 for name in ALL}
    inlined = {name for name, is_virtual in kinds.items() if not is_virtual}
    assert inlined == {"compact", "inner/texts"}
    note = f"h5py {h5py.__version__} (filter 9 has no codec here)"
    assert {array.notes["read_by"] for _, array in group.walk_arrays()} == {note}
    assert [skipped.path for skipped in group.report.skipped] == ["/inner/nothing"]


def test_what_our_own_reader_reads_is_left_as_it_is(path, refusing):
    group = refusing("/plain")
    assert [name for name, array in group.arrays.items() if "read_by" in array.notes] == ["plain"]


def test_attributes_and_dimensions_come_along(refusing):
    field = refusing("/field")["field"]
    assert field.dimensions[0] == "time"
    assert field.attrs["units"] == "K"
    assert field.attrs["one"] == 3
    assert field.attrs["one"].dtype == np.int16
    assert field.attrs["range"].tolist() == [1.5, 2.5]


def test_the_index_and_the_display_keep_what_was_read_by_h5py(path, refusing, tmp_path):
    group = refusing("/field")
    group.to_json(tmp_path / "i.json")
    again = byteatlas.open_index(tmp_path / "i.json")
    assert again["field"].notes == group["field"].notes
    assert "read by another library:\n   /field: h5py" in repr(again)
    assert "read by another library" in again._repr_html_()
    assert "read_by" not in repr(again["plain"])


def test_h5py_can_be_asked_for_alone(path):
    group = byteatlas.scan(path, engine="h5py")
    for name in ALL:
        assert "asked for" in same(group, path, name).notes["read_by"]
    ours = byteatlas.scan(path, engine="native")
    assert {name for name, _ in group.walk_arrays()} == {name for name, _ in ours.walk_arrays()}
    assert group.attrs == ours.attrs
    assert group["field"].attrs.keys() == ours["field"].attrs.keys()
    assert group["field"].dimensions[0] == "time"
    assert group["field"].manifest.offset.tolist() == ours["field"].manifest.offset.tolist()
    assert group.report.scanner == "hdf5"
    assert group.sources[0].size == path.stat().st_size


def test_a_filter_without_a_codec_is_undone_by_the_library(tmp_path):
    hdf5plugin = pytest.importorskip("hdf5plugin")
    with h5py.File(tmp_path / "sperr.h5", "w") as file:
        field = np.linspace(0, 1, 64 * 64).reshape(64, 64)
        file.create_dataset("field", data=field, chunks=(32, 32), compression=hdf5plugin.Sperr())
        file["other"] = field
    group = byteatlas.scan(tmp_path / "sperr.h5")
    assert "filter 32028" in same(group, tmp_path / "sperr.h5", "field").notes["read_by"]
    assert not group["other"].notes
    assert not group.report.skipped


def test_a_damaged_chunk_index_gives_what_the_library_reads(path, tmp_path):
    data = path.read_bytes()
    key = struct.pack("<QQQ", 7, 16, 0)
    assert data.count(key) >= 1
    damaged = tmp_path / "damaged.h5"
    damaged.write_bytes(data.replace(key, struct.pack("<QQQ", 7, 16, 57088), 1))
    native = byteatlas.scan(damaged, engine="native")
    ((name, reason),) = [one for one in native.report.skipped if one.path != "/inner/nothing"]
    group = byteatlas.scan(damaged)
    array = same(group, damaged, name)
    assert reason in array.notes["read_by"]
    assert array.manifest.virtual_count == 0  # the places that the library tells are others


def test_a_chunk_that_is_too_short_is_not_filled_up_with_memory(path, tmp_path):
    data = path.read_bytes()
    key = struct.pack("<IIQQQ", 224, 0, 7, 0, 0)
    assert data.count(key) == 2  # of "sparse" and "swizzled"
    damaged = tmp_path / "damaged.h5"
    damaged.write_bytes(data.replace(key, struct.pack("<IIQQQ", 100, 0, 7, 0, 0)))
    with h5py.File(damaged) as file:
        assert file["sparse"][7:14, :8].shape == (7, 8)  # 100 bytes, and whatever was in memory
    group = byteatlas.scan(damaged)
    reasons = dict(group.report.skipped)
    for name in ("sparse", "swizzled"):
        assert name not in group.arrays
        assert "h5py: chunk decodes to 100 bytes" in reasons[f"/{name}"]


def test_what_is_not_wanted_is_not_read(path):
    assert set(byteatlas.scan(path, engine="h5py", include=["/fie*"]).arrays) == {"field"}


def test_an_unknown_engine_is_refused_with_those_there_are(path):
    with pytest.raises(Unsupported, match="no engine for hdf5; there is auto, native, h5py"):
        byteatlas.scan(path, engine="netcdf-java")


def test_a_whole_file_that_is_refused_is_read_by_h5py(path):
    def native():
        raise Malformed("superblock: odd")

    reader = CachedReader(open_source(str(path)))
    group = fallback.scan_with("auto", reader, ScanOptions(), native)
    assert "superblock: odd" in same(group, path, "field").notes["read_by"]


def test_a_file_that_neither_reads_is_refused_with_both_reasons(tmp_path):
    damaged = tmp_path / "damaged.h5"
    damaged.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(2000))
    with pytest.raises(Unsupported, match=r"superblock.*h5py: OSError"):
        byteatlas.scan(damaged)


def test_a_format_without_other_engines_is_refused_with_its_own_reason_alone(tmp_path):
    damaged = tmp_path / "damaged.nc"
    damaged.write_bytes(b"CDF\x01" + bytes(4) + b"\xff" * 24)
    reasons = []
    for engine in ("native", "auto"):
        with pytest.raises(Malformed) as caught:
            byteatlas.scan(damaged, engine=engine)
        reasons.append(str(caught.value))
    assert reasons[0] == reasons[1]


def test_an_array_that_neither_reads_is_skipped_with_both_reasons(refusing):
    group = refusing("/compact", max_inline=100)
    reasons = dict(group.report.skipped)
    assert "filter 9 has no codec here; h5py: 400 bytes of values" in reasons["/compact"]


@pytest.mark.parametrize(
    "reason",
    [
        "it is excluded as /field",
        "a link back to a group that it is in",
        "a null dataspace: it has no elements, not even a shape",
        "a virtual dataset, whose values are in other datasets",
        "its values are in external files",
        "an external link to 'other.h5:/x', which is not followed",
        "4000 elements; raise max_inline",
        "70000 bytes of variable-length strings, at most 50 are kept in an index",
        "its source '/x' in 'other.h5': no such file",
        "object header message 0x99, which only those may read who know it",
        "object references, which mean nothing outside the file",
    ],
)
def test_what_is_refused_on_purpose_is_not_tried(refusing, reason, monkeypatch):
    monkeypatch.setattr(engines, "ask", lambda *_: pytest.fail("it was tried"))
    assert dict(refusing("/field", reason=reason).report.skipped)["/field"] == reason


def test_a_special_driver_is_not_tried(path, monkeypatch):
    monkeypatch.setattr(engines, "ask", lambda *_: pytest.fail("it was tried"))

    def native():
        raise Unsupported("the file is written by a special driver (driver information block)")

    with pytest.raises(Unsupported, match="special driver"):
        fallback.scan_with("auto", CachedReader(open_source(str(path))), ScanOptions(), native)


def test_the_child_opens_no_other_file(tmp_path, refusing):
    (tmp_path / "secret.bin").write_bytes(b"secret.." * 10)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["secret"] = np.arange(8)
    with h5py.File(tmp_path / "made.h5", "w") as file:
        outside = [(str(tmp_path / "secret.bin"), 0, 80)]
        file.create_dataset("external", (10,), "S8", external=outside)
        layout = h5py.VirtualLayout((8,), "i8")
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "secret", (8,))
        file.create_virtual_dataset("virtual", layout)
        file["linked"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/secret")
        file["own"] = np.arange(3)
    names = ("/external", "/virtual", "/linked")
    group = refusing(*names, url=tmp_path / "made.h5")
    assert list(group.arrays) == ["own"]
    whole = byteatlas.scan(tmp_path / "made.h5", engine="h5py")
    assert list(whole.arrays) == ["own"]
    assert {skipped.path for skipped in whole.report.skipped} == set(names)


# The transport


def test_the_child_reads_through_our_own_transport(path, refusing):
    with RangeServer(path.parent) as server:
        url = server.url(path.name)
        trace = Trace()
        group = byteatlas.scan(url, engine="h5py", trace=trace)
        same(group, path, "field")
    asked = [entry for entry in server.log if entry.method == "GET"]
    assert {entry.headers["user-agent"][:9] for entry in asked} == {"byteatlas"}
    assert trace.requests == 1  # the whole of a small file
    assert group.report.requests == trace.requests
    assert group.sources[0].etag


def test_of_a_large_file_blocks_are_read_and_counted(tmp_path):
    with h5py.File(tmp_path / "large.h5", "w", libver="latest") as file:
        file.create_dataset("big", data=np.zeros(2**20), chunks=(2**14,))
        file.create_dataset("small", data=np.arange(5))
    with RangeServer(tmp_path) as server:
        group = byteatlas.scan(server.url("large.h5"), engine="h5py")
    assert group.report.requests == sum(entry.method == "GET" for entry in server.log)
    assert group.report.bytes_read < 1.2 * group.sources[0].size  # it is compared as well
    assert group["big"].manifest.virtual_count == 64


def test_a_source_that_fails_meanwhile_is_a_reason(tmp_path):
    with h5py.File(tmp_path / "large.h5", "w", libver="latest") as file:
        file.create_dataset("big", data=np.zeros(2**20), chunks=(2**14,))
    gone = Fault(status=404, after=1)
    with RangeServer(tmp_path, faults=[gone]) as server:
        group = byteatlas.scan(server.url("large.h5"), engine="h5py")
    assert not group.arrays
    ((path, reason),) = group.report.skipped
    assert path == "/"
    assert "404" in reason


def test_a_source_that_changes_meanwhile_is_an_error(tmp_path):
    with h5py.File(tmp_path / "large.h5", "w", libver="latest") as file:
        file.create_dataset("big", data=np.zeros(2**20), chunks=(2**14,))
    new = Fault(headers={"ETag": '"new"'}, after=1)
    with RangeServer(tmp_path, faults=[new]) as server, pytest.raises(SourceChanged):
        byteatlas.scan(server.url("large.h5"), engine="h5py")


# A child that misbehaves


@pytest.fixture
def misbehaving(tmp_path, monkeypatch, path):
    """Run a child with this body, and return what came of it."""

    def run(body, wall_s=None):
        (tmp_path / "misbehaving.py").write_text(
            "def read(source, job, send):\n" + textwrap.indent(textwrap.dedent(body), "    ")
        )
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        if wall_s:
            monkeypatch.setattr(process, "WALL_S", wall_s)
        reader = CachedReader(open_source(str(path)))
        reader.read_head(512)
        return process.ask("it", "misbehaving", reader, ScanOptions(), ["/field"])

    return run


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("import os; os.kill(os.getpid(), 11)", "it was ended by signal 11"),
        ("import os; os._exit(3)", "it exited with 3"),
        ("bytearray(2**33)", "MemoryError"),
        ("open('/etc/hostname')", "Too many open files"),
        ("import socket; socket.socket()", "Too many open files"),
        ("source.seek(0); source._size = 10**9; source.read(10**9)", "were asked for"),
        ("raise RuntimeError('no' * 5000)", "RuntimeError: nono"),
        ("send({}, bytes(2**28))", "it found more than"),
        ("raise ModuleNotFoundError('misspelled')", "ModuleNotFoundError"),
        ("send(5)", "what it found is 5, expected an object"),
        ("source._link.sendall(b'd' + bytes([3, *bytes(7)]) + b'abc')", "cannot be understood"),
        ("source._link.sendall(b'd' + bytes([8, *bytes(7), 4, 0, 0, 0]) + b'none')", "Expecting"),
    ],
)
def test_whatever_a_child_does_becomes_a_reason(misbehaving, body, problem):
    answer = misbehaving(body)
    assert problem in answer.problem
    assert len(answer.problem) < 600


def test_a_child_that_hangs_is_ended(misbehaving):
    assert misbehaving("while True: pass", wall_s=1.5).problem == "it was ended after 1.5 s"


def test_the_time_that_a_child_waits_for_bytes_is_not_counted(misbehaving, monkeypatch):
    late = [0.0]
    block = process._block

    def slowly(*arguments):
        late[0] += 100
        return block(*arguments)

    monkeypatch.setattr(process, "_block", slowly)
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + late[0])
    monkeypatch.setattr(process, "time", clock)
    body = "import time; source.read(9); time.sleep(0.2); source.read(9); time.sleep(0.2)"
    assert misbehaving(body).problem == ""


def test_a_child_has_none_of_our_secrets(misbehaving, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    (item,) = misbehaving("import os; send({'names': sorted(os.environ)})").items
    assert "AWS_SECRET_ACCESS_KEY" not in item[0]["names"]


def test_what_came_before_a_crash_is_kept(misbehaving):
    answer = misbehaving("send({'path': '/x'}, b'12'); import os; os.kill(os.getpid(), 6)")
    assert [(facts, [bytes(blob) for blob in blobs]) for facts, blobs in answer.items] == [
        ({"path": "/x"}, [b"12"])
    ]
    assert answer.problem == "it was ended by signal 6"


GOOD = {
    "dtype": "<i4", "shape": [4], "chunks": [2], "codecs": [], "fill": None, "names": [None],
    "columns": 2,
}  # fmt: skip


@pytest.mark.parametrize("path", ["/a/../b", "/a//b", "/a/.zarray", "/", "/x" * 300, "relative/.."])
def test_a_child_cannot_name_what_no_store_can_have(path):
    answer = process.Answer([({"path": path, "array": GOOD}, [memoryview(bytes(16))] * 3)])
    done = building.completed(VirtualGroup(), answer, ScanOptions(), {"": "why"}, "it")
    assert not list(done.walk_arrays())
    assert "cannot be a path" in done.report.skipped[0].reason


@pytest.mark.parametrize("item", [{}, {"path": "/a", "array": 5}, {"path": "/a", "group": 5}])
def test_items_that_are_none_are_reasons(item):
    answer = process.Answer([(item, [])])
    done = building.completed(VirtualGroup(), answer, ScanOptions(), {"": "why"}, "it")
    assert len(done.report.skipped) == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"dtype": "|O9"}, "not a data type"),
        ({"shape": [-4]}, "shape"),
        ({"chunks": [0]}, "chunks"),
        ({"chunks": [4]}, "outside the grid"),
        ({"names": []}, "0 names of 1 axes"),
        ({"codecs": 5}, "not iterable"),
        ({"codecs": None}, "not iterable"),
        ({"attrs": {"a": [1, "what"]}}, "not a data type"),
    ],
)
def test_what_a_child_says_is_not_trusted(change, reason):
    columns = [np.array(column, np.uint64).tobytes() for column in ([0, 1], [0, 8], [8, 8])]
    blobs = [memoryview(column) for column in columns]
    answer = process.Answer([({"path": "/a", "array": GOOD}, blobs)])
    done = building.completed(VirtualGroup(), answer, ScanOptions(), {"/a": "why"}, "it")
    assert done["a"].manifest.virtual_count == 2
    answer = process.Answer([({"path": "/a", "array": GOOD | change}, blobs)])
    done = building.completed(VirtualGroup(), answer, ScanOptions(), {"/a": "why"}, "it")
    assert not done.arrays
    assert reason in dict(done.report.skipped)["/a"]


def test_a_crash_skips_what_was_not_read_yet_and_nothing_else(path, refusing, monkeypatch):
    def half(*_arguments):
        answer = ask(*_arguments)
        return replace(answer, items=answer.items[:1], problem="h5py was ended by signal 11")

    ask = engines.ask
    monkeypatch.setattr(engines, "ask", half)
    group = refusing("/field", "/plain")
    assert "field" in group.arrays
    assert "plain" not in group.arrays
    reason = "filter 9 has no codec here; h5py: h5py was ended by signal 11"
    assert dict(group.report.skipped)["/plain"] == reason
    same(group, path, "sparse")


def children():
    """Return the processes whose parent is this one, those that nobody has waited for included."""
    found = set()
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):  # it has just ended
            if re.search(rf"^PPid:\t{os.getpid()}$", status.read_text(), re.MULTILINE):
                found.add(status.parent.name)
    return found


def test_no_child_is_left_and_no_socket(path, refusing):
    before = children(), {one.name for one in Path("/proc/self/fd").iterdir()}
    refusing("/field")
    assert children() <= before[0]
    assert {one.name for one in Path("/proc/self/fd").iterdir()} <= before[1]


def test_the_library_says_what_a_numpy_type_cannot(tmp_path):
    data = io.BytesIO()
    with h5py.File(data, "w") as file:
        file.create_dataset("long", data=np.zeros(3, np.longdouble))
        file.create_dataset("ragged", (2,), h5py.vlen_dtype("i4"))
    (tmp_path / "odd.h5").write_bytes(data.getvalue())
    group = byteatlas.scan(tmp_path / "odd.h5", engine="h5py")
    assert not group.arrays
    assert all("Zarr has no form" in reason for _, reason in group.report.skipped)
