"""A reader opens each source once, lazily, checks what it meets, and takes few requests."""

import pickle
import threading
from dataclasses import replace

import h5py
import numpy as np
import pytest

from byteatlas.errors import SourceChanged, SourceDenied, SourceError, SourceMissing
from byteatlas.model import ChunkManifest, Codec, Encoding, Source, VirtualArray
from byteatlas.read import Reader
from byteatlas.scanning import scan
from byteatlas.testing.server import Fault, RangeServer


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("archive") / "archive.h5"
    random = np.random.default_rng(0)
    values = random.normal(size=(200, 512)).astype("f4")
    with h5py.File(path, "w") as file:
        file.create_dataset("packed", data=values, chunks=(2, 512), compression=1, shuffle=True)
        file.create_dataset("plain", data=values, chunks=(100, 512))
        file.create_dataset("whole", data=values)
    return path


@pytest.fixture
def server(archive):
    with RangeServer({"archive.h5": archive.read_bytes()}) as running:
        yield running


@pytest.fixture
def scanned(server):
    group = scan(server.url("archive.h5"))
    server.clear()
    return group


@pytest.mark.parametrize("name", ["packed", "plain", "whole"])
def test_a_whole_array_is_read_in_one_request(scanned, server, archive, name):
    with h5py.File(archive) as file:
        result = Reader(scanned.sources).read(scanned[name])
        np.testing.assert_array_equal(result, file[name][:])
        stored = file[name].id.get_storage_size()
    assert len(server.log) == 1
    assert stored <= server.bytes_sent <= 1.1 * stored


def test_rows_of_uncompressed_chunks_are_read_alone(scanned, server, archive):
    with h5py.File(archive) as file:
        for name in ("plain", "whole"):
            server.clear()
            result = Reader(scanned.sources).read(scanned[name], slice(98, 103))
            np.testing.assert_array_equal(result, file[name][98:103])
            assert len(server.log) == 1
            assert server.bytes_sent == result.nbytes


def test_a_few_compressed_chunks_are_read_alone(scanned, server):
    Reader(scanned.sources).read(scanned["packed"], (slice(10, 14), 3))
    assert len(server.log) == 1
    assert server.bytes_sent == int(scanned["packed"].manifest.length[5:7].sum())


def test_nothing_is_asked_before_something_is_read(scanned, server):
    reader = Reader(scanned.sources)
    assert reader.source(0) is reader.source(0)
    assert reader.read(scanned["packed"], slice(0, 0)).shape == (0, 512)
    assert server.log == []


def joined(count):
    """An array with one chunk in each of many sources."""
    manifest = ChunkManifest.build(
        (count,),
        np.arange(count, dtype="u8"),
        np.zeros(count, "u8"),
        np.full(count, 8, "u8"),
        source=np.arange(count, dtype="u4"),
    )
    return VirtualArray((count,), np.dtype("<i8"), (1,), manifest)


def test_many_sources_are_read_side_by_side():
    count = 40
    files = {f"{n}.bin": n.to_bytes(8, "little") for n in range(count)}
    with RangeServer(files, latency_s=0.05) as server:
        sources = [Source(server.url(name), 8) for name in files]
        result = Reader(sources).read(joined(count))
        arrivals = [entry.at_s for entry in server.log]
    assert result.tolist() == list(range(count))
    assert len(arrivals) == count
    # one after the other, neighbours would be at least a latency apart
    assert np.median(np.diff(sorted(arrivals))) < 0.05


def test_one_missing_source_among_many_ends_the_read():
    with RangeServer({f"{n}.bin": bytes(8) for n in range(9)}) as server:
        sources = [Source(server.url(f"{n}.bin"), 8) for n in range(10)]
        with pytest.raises(SourceMissing) as caught:
            Reader(sources).read(joined(10), path="/joined")
        assert caught.value.url == server.url("9.bin")
        assert caught.value.path == "/joined"


def test_a_read_that_is_short_of_data_in_one_source_never_fills():
    with RangeServer({"0.bin": bytes(8), "1.bin": bytes(7)}) as server:
        sources = [Source(server.url("0.bin")), Source(server.url("1.bin"))]
        with pytest.raises(SourceError):
            Reader(sources).read(joined(2))


def test_threads_share_a_reader(scanned, archive):
    reader = Reader(scanned.sources)
    with h5py.File(archive) as file:
        expected = file["packed"][:]
    wrong = []

    def read(row):
        if not np.array_equal(reader.read(scanned["packed"], row), expected[row]):
            wrong.append(row)

    threads = [threading.Thread(target=read, args=(row,)) for row in range(0, 200, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_pickled_reader_and_array_read_on(scanned, archive):
    reader = Reader(scanned.sources, {"headers": {"x-a": "b"}})
    reader.read(scanned["whole"], 0)
    copy, array = pickle.loads(pickle.dumps((reader, scanned["whole"])))
    assert copy.storage_options == reader.storage_options
    with h5py.File(archive) as file:
        np.testing.assert_array_equal(copy.read(array, 7), file["whole"][7])


def test_a_closed_reader_opens_its_sources_again(scanned):
    reader = Reader(scanned.sources)
    before = reader.read(scanned["whole"], 3)
    reader.close()
    np.testing.assert_array_equal(reader.read(scanned["whole"], 3), before)


def test_a_local_source_is_read_too(archive):
    group = scan(str(archive))
    with h5py.File(archive) as file:
        for name in ("packed", "plain", "whole"):
            result = Reader(group.sources).read(group[name], (slice(None, None, 7), 100))
            np.testing.assert_array_equal(result, file[name][::7, 100])


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault(status=404), SourceMissing),
        (Fault(status=403), SourceDenied),
        (Fault(headers={"ETag": '"other"'}), SourceChanged),
        (Fault(status=503, headers={"Retry-After": "0"}), SourceError),
        (Fault(after=1, status=404), SourceMissing),
    ],
    ids=["404", "403", "other etag", "503", "404 later"],
)
def test_a_fault_is_an_error_that_says_where(scanned, server, fault, kind):
    reader = Reader(scanned.sources)
    if fault.after:
        reader.read(scanned["packed"])
        fault = replace(fault, after=0)
    server.faults.append(fault)
    with pytest.raises(kind) as caught:
        reader.read(scanned["plain"], path="/plain")
    assert caught.value.url == server.url("archive.h5")
    assert caught.value.path == "/plain"
    assert caught.value.offset is not None


def test_a_fault_that_passes_leaves_the_right_values(scanned, server, archive):
    server.faults.append(Fault(status=503, times=1, headers={"Retry-After": "0"}))
    server.faults.append(Fault(cut=1000, times=1))
    with h5py.File(archive) as file:
        result = Reader(scanned.sources).read(scanned["packed"])
        np.testing.assert_array_equal(result, file["packed"][:])


def test_a_lying_chunk_is_caught_by_its_checksum(tmp_path):
    path = tmp_path / "checked.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("v", data=np.arange(100), chunks=(10,), fletcher32=True)
    with RangeServer({"checked.h5": path.read_bytes()}) as server:
        group = scan(server.url("checked.h5"))
        assert Encoding((Codec("fletcher32"),)) in group["v"].encodings
        server.faults.append(Fault(shift=-1))
        with pytest.raises(ValueError, match="checksum") as caught:
            Reader(group.sources).read(group["v"], path="/v")
        assert caught.value.path == "/v"
        assert caught.value.offset == int(group["v"].manifest.offset[0])
