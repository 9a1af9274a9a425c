"""Through byteatlas' codec pipeline, zarr reads what it reads through its own, with less effort."""

import asyncio
import pickle
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import h5py
import numpy as np
import pytest
import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.core.codec_pipeline import BatchedCodecPipeline

from byteatlas.errors import ByteatlasError, Malformed, SourceError, SourceMissing
from byteatlas.index.parquet_writer import write_parquet
from byteatlas.model import ChunkManifest, Source, VirtualArray, VirtualGroup
from byteatlas.opening import open_store
from byteatlas.read import FilledChunks
from byteatlas.scanning import scan
from byteatlas.store import zarr_batch
from byteatlas.store.zarr_pipeline import IndexCodecPipeline
from byteatlas.store.zarr_store import IndexStore
from byteatlas.testing.server import Fault

from .conftest import bytes_group

SWITCH = {"codec_pipeline.path": "byteatlas.store.zarr_pipeline.IndexCodecPipeline"}
SAMPLES = Path(__file__).parents[2] / "sample_data"


def opened(store, path, **options):
    """Return an array twice: read by zarr's own pipeline, and by ours."""
    own = zarr.open_array(store, path=path.lstrip("/"), mode="r", **options)
    with zarr.config.set(SWITCH):
        ours = zarr.open_array(store, path=path.lstrip("/"), mode="r", **options)
    assert type(own.async_array.codec_pipeline) is BatchedCodecPipeline
    assert type(ours.async_array.codec_pipeline) is IndexCodecPipeline
    return own, ours


@pytest.fixture(autouse=True)
def _nothing_is_tiny(monkeypatch):
    """Let ours read what would take it longer, too."""
    monkeypatch.setattr(zarr_batch, "is_tiny", lambda batch, contents: False)


def outcome(read):
    """Return what a read gives in a form that is equal only where all bits are."""
    try:
        values = read()
    except Exception as error:
        if isinstance(error, ByteatlasError):
            return type(error), str(error)
        return type(error)
    kind = type(values), getattr(values, "dtype", None), getattr(values, "shape", None)
    if not isinstance(values, np.ndarray | np.generic):
        return *kind, values
    if values.dtype.kind in "OT":
        listed = np.asarray(values).reshape(-1).tolist()
        return *kind, [one.tolist() if isinstance(one, np.ndarray) else one for one in listed]
    return *kind, np.asarray(values).tobytes()


def selections(shape):
    yield ...
    if shape:
        yield tuple(slice(size // 3, None) for size in shape)
        yield tuple(size // 2 for size in shape if size)
        yield (slice(None, None, 3), *(max(size - 1, 0) for size in shape[1:]))


def assert_alike(store, zarr_format, most=10**8):
    """Compare what both read of all arrays; return how many reads that were."""
    count = 0
    for path, array in store.contents.group.walk_arrays():
        if array.nbytes > most:
            continue
        try:
            own, ours = opened(store, path, zarr_format=zarr_format)
        except (ValueError, TypeError):
            continue  # zarr has no such data type
        for selection in selections(array.shape):
            expected = outcome(lambda: own[selection])  # noqa: B023  # called at once
            assert outcome(lambda: ours[selection]) == expected, (path, selection)  # noqa: B023
            count += 1
    return count


FILES = [path.name for path in sorted(SAMPLES.iterdir()) if path.suffix in (".nc", ".h5")]


@pytest.mark.parametrize(
    ("name", "zarr_format"),
    [
        *((name, 2) for name in FILES),
        *((name, 3) for name in FILES if name != "mooring_series.nc"),  # whose chunks are many
    ],
)
def test_all_sample_data_is_read_alike(name, zarr_format):
    store = open_store(SAMPLES / name, zarr_format=zarr_format)
    with warnings.catch_warnings(action="ignore"):  # zarr has opinions on some data types
        assert assert_alike(store, zarr_format) > 10


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_an_archive_of_many_kinds_is_read_alike(scanned, zarr_format):
    store = IndexStore(scanned, zarr_format=zarr_format)
    with warnings.catch_warnings(action="ignore"):
        assert assert_alike(store, zarr_format) > 20


@pytest.mark.corpus
def test_files_of_other_projects_are_read_alike(corpus):
    files = [path for path in sorted((corpus / "hdf5").rglob("*")) if path.is_file()]
    count = 0
    for path in [one for one in files if one.stat().st_size < 10**5][::10]:
        try:
            group = scan(str(path))
        except ByteatlasError:
            continue
        with warnings.catch_warnings(action="ignore"):
            count += assert_alike(open_store(group), 2, most=10**6)
    assert count > 100


@pytest.mark.parametrize("name", ["climate_grid.nc", "satellite_swath.h5"])
def test_an_index_whose_references_are_read_when_needed_is_read_alike(tmp_path, name):
    group = scan(SAMPLES / name)
    write_parquet(group, tmp_path / "a.parquet", record_size=10)
    store = open_store(tmp_path / "a.parquet")
    with warnings.catch_warnings(action="ignore"):
        assert assert_alike(store, 2) > 10
    assert set(store.contents.keys()) == set(open_store(group).contents.keys())
    assert pickle.loads(pickle.dumps(store)) == store


def one_array(shape, dtype, chunk_shape, data, **options):
    """Return a store of one array, and put the bytes of its source where they are looked for."""
    fsspec.filesystem("memory").pipe("/bytes.bin", data)
    array = VirtualArray(shape, np.dtype(dtype), chunk_shape, dimensions=("x",), **options)
    sources = (Source("memory://bytes.bin", len(data)),)
    return IndexStore(VirtualGroup(arrays={"a": array}, sources=sources))


@pytest.mark.parametrize("fill", [None, -7], ids=["no fill value", "a fill value"])
def test_missing_and_inlined_chunks_are_read_alike(fill):
    manifest = ChunkManifest.build(
        (4,),
        np.array([1], "u8"),
        np.array([2], "u8"),
        np.array([8], "u8"),
        inline={3: np.arange(2, dtype="i4").tobytes()},
    )
    data = b"xx" + np.array([5, 6], "i4").tobytes()
    value = None if fill is None else np.int32(fill)
    store = one_array((7,), "i4", (2,), data, manifest=manifest, fill_value=value)
    assert assert_alike(store, 2)
    _, ours = opened(store, "a")
    missing = 0 if fill is None else fill
    assert ours[:].tolist() == [missing, missing, 5, 6, missing, missing, 0]


def test_missing_chunks_read_as_zarr_fills_them():
    manifest = ChunkManifest.build(
        (3,), np.array([1], "u8"), np.array([0], "u8"), np.array([16], "u8")
    )
    data = np.array([5, 6], "<M8[s]").tobytes()
    store = one_array((6,), "<M8[s]", (2,), data, manifest=manifest)
    assert assert_alike(store, 2)  # zarr's default of times is NaT, and no 0
    assert np.isnat(opened(store, "a")[1][:]).sum() == 4


def test_a_missing_chunk_that_may_not_be_filled_is_an_error_alike():
    manifest = ChunkManifest.build(
        (2,), np.array([1], "u8"), np.array([0], "u8"), np.array([4], "u8")
    )
    store = one_array((8,), "u1", (4,), b"abcd", manifest=manifest)
    if "read_missing_chunks" not in zarr.config.get("array"):
        pytest.skip("this version of zarr has no such setting")
    with zarr.config.set({"array.read_missing_chunks": False}):
        own, ours = opened(store, "a")
        assert ours[4:].tobytes() == own[4:].tobytes() == b"abcd"
        for array in (own, ours):
            with pytest.raises(zarr.errors.ChunkNotFoundError, match="0"):
                array[:]


def test_arrays_of_several_encodings_are_read_alike():
    chunks = [b"abcd", zlib.compress(b"efgh"), b"ijkl"]
    group, data = bytes_group(chunks, codec_lists=[["zlib"], []], encoding=[1, 0, 1])
    fsspec.filesystem("memory").pipe("/bytes.bin", data)
    store = IndexStore(group)
    assert assert_alike(store, 2)
    assert opened(store, "a")[1][:].tobytes() == b"abcdefghijkl"


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_strings_that_are_looked_up_are_read_alike(tmp_path, zarr_format):
    text = h5py.string_dtype()
    with h5py.File(tmp_path / "a.h5", "w") as file:
        texts = ["é" * (number % 5) + str(number) for number in range(3000)]
        file.create_dataset("a", data=texts, chunks=(700,), dtype=text)
        file.create_dataset("b", (50,), text, chunks=(20,), fillvalue="none")
        file["b"][30] = "x"
    store = open_store(scan(tmp_path / "a.h5", max_inline=16), zarr_format=zarr_format)
    assert any(keyed.heap is not None for keyed in store.contents._arrays.values())
    with warnings.catch_warnings(action="ignore"):
        assert assert_alike(store, zarr_format) == 8


def test_a_buffer_in_fortran_order_is_filled_alike(scanned):
    with zarr.config.set({"array.order": "F"}):
        own, ours = opened(IndexStore(scanned, zarr_format=3), "sparse")
    assert ours[...].flags.f_contiguous
    assert own[...].flags.f_contiguous
    np.testing.assert_array_equal(ours[...], own[...])


def test_a_buffer_that_is_handed_over_is_filled(scanned):
    _, ours = opened(IndexStore(scanned), "temp")
    memory = np.zeros((20, 50), "i2")
    out = default_buffer_prototype().nd_buffer.from_ndarray_like(memory[::2])
    ours.get_basic_selection(..., out=out)
    np.testing.assert_array_equal(memory[::2], ours[...])
    assert not memory[1::2].any()


FANCY = {
    "orthogonal": lambda array: array.oindex[[7, 2, 2], 10:45:3],
    "an integer and a list": lambda array: array.oindex[3, [0, 49]],
    "a mask along an axis": lambda array: array.oindex[np.arange(10) % 3 == 0, :],
    "coordinates": lambda array: array.vindex[[0, 9, 4], [1, 2, 49]],
    "a mask": lambda array: array.get_mask_selection(np.arange(500).reshape(10, 50) % 7 == 0),
    "blocks": lambda array: array.blocks[1, 1:],
    "slices": lambda array: array[2:9:3, ::7],
    "integers": lambda array: array[3, 4],
}


@pytest.mark.parametrize("kind", FANCY)
def test_every_kind_of_selection_is_read_alike_and_with_one_request(scanned, server, kind):
    own, ours = opened(IndexStore(scanned), "temp")
    expected = FANCY[kind](own)
    server.clear()
    np.testing.assert_array_equal(FANCY[kind](ours), expected)
    assert len(server.log) == 1


def test_a_whole_array_is_one_request_whatever_the_concurrency(scanned, server):
    _, ours = opened(IndexStore(scanned), "temp")
    with zarr.config.set({"async.concurrency": 1}):
        ours[...]
    assert len(server.log) == 1


def test_zarr_itself_decodes_nothing(scanned, monkeypatch):
    async def decode(*_):
        raise AssertionError("a chunk is decoded by zarr")

    own, ours = opened(IndexStore(scanned), "temp")
    monkeypatch.setattr(BatchedCodecPipeline, "decode_batch", decode)
    monkeypatch.setattr(BatchedCodecPipeline, "decode", decode)
    assert ours[...].shape == (10, 50)
    with pytest.raises(AssertionError):
        own[...]


def test_of_uncompressed_chunks_only_the_rows_wanted_are_fetched(tmp_path, server):
    values = np.arange(400 * 1000, dtype="i4").reshape(400, 1000)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a"] = values
    server.content = {"a.h5": (tmp_path / "a.h5").read_bytes()}
    _, ours = opened(open_store(scan(server.url("a.h5"))), "a")
    server.clear()
    np.testing.assert_array_equal(ours[7], values[7])
    assert server.bytes_sent == 4000


def test_reads_at_the_same_time_are_one_request(scanned, server):
    store = IndexStore(scanned)
    with zarr.config.set(SWITCH):
        root = zarr.open_group(store, mode="r")
        arrays = [root[name].async_array for name in ("temp", "time", "sparse")]

    async def together():
        return await asyncio.gather(*(array.getitem(...) for array in arrays))

    server.clear()
    values = asyncio.run(together())
    assert [one.shape for one in values] == [(10, 50), (10,), (10, 50)]
    assert len(server.log) == 1


def test_the_error_of_one_read_is_not_that_of_others(scanned, server):
    damaged = dict(scanned.arrays)
    offset = damaged["time"].manifest.offset
    manifest = ChunkManifest((3,), offset + np.uint64(10**9), damaged["time"].manifest.length)
    damaged["time"] = VirtualArray((10,), np.dtype("f8"), (4,), manifest, dimensions=("time",))
    store = IndexStore(VirtualGroup(arrays=damaged, sources=scanned.sources))
    with zarr.config.set(SWITCH):
        root = zarr.open_group(store, mode="r")
        temp, time = (root[name].async_array for name in ("temp", "time"))

    async def together():
        return await asyncio.gather(temp.getitem(...), time.getitem(...), return_exceptions=True)

    values, error = asyncio.run(together())
    assert values.shape == (10, 50)
    assert isinstance(error, SourceError)
    assert error.path == "/time"


def test_arrays_of_other_stores_are_read_and_written_as_ever():
    values = np.arange(100).reshape(10, 10)
    with zarr.config.set(SWITCH):
        array = zarr.create_array({}, data=values, chunks=(3, 4))
        assert type(array.async_array.codec_pipeline) is IndexCodecPipeline
        array[2:4] = 7
        assert array[2:4].tolist() == [[7] * 10] * 2
        np.testing.assert_array_equal(array[4:], values[4:])


def test_writing_is_refused(scanned):
    _, ours = opened(IndexStore(scanned), "temp")
    with pytest.raises(ValueError, match="read-only"):
        ours[0] = 1


@pytest.mark.parametrize("selection", ["...", "oindex"])
def test_a_source_that_is_gone_is_an_error(scanned, server, selection):
    _, ours = opened(IndexStore(scanned), "temp")
    server.faults.append(Fault(status=404))
    with pytest.raises(SourceMissing) as caught:
        ours[...] if selection == "..." else ours.oindex[[0, 5], :]
    assert caught.value.path == "/temp"
    assert caught.value.url == server.url("archive.nc")


def damaged(scanned, server):
    """Return a group whose source has one wrong byte in the first chunk of ``temp``."""
    offset = int(scanned["temp"].manifest.offset[0])
    data = bytearray(server.content["archive.nc"])
    data[offset + 20] ^= 0xFF
    server.content = {"archive.nc": bytes(data)}
    sources = (Source(scanned.sources[0].url, len(data)),)
    return VirtualGroup(arrays=scanned.arrays, sources=sources), offset


def test_a_damaged_chunk_is_an_error_that_says_where(scanned, server):
    group, offset = damaged(scanned, server)
    _, ours = opened(IndexStore(group), "temp")
    with pytest.raises(Malformed) as caught:
        ours[...]
    assert (caught.value.path, caught.value.offset) == ("/temp", offset)
    assert caught.value.url == server.url("archive.nc")


def test_damaged_chunks_are_filled_where_that_is_asked_for(scanned, server, archive):
    group, _ = damaged(scanned, server)
    store = pickle.loads(pickle.dumps(IndexStore(group, on_error="fill-and-report")))
    own, ours = opened(store, "temp")
    with pytest.warns(FilledChunks):
        values = ours[...]
    with h5py.File(archive) as file:
        expected = file["temp"][...]
    expected[:3, :20] = -9
    np.testing.assert_array_equal(values, expected)
    assert [(one.path, one.chunk) for one in store.contents.reader.filled] == [("/temp", (0, 0))]
    with pytest.raises((RuntimeError, ValueError, zlib.error)):
        own[...]  # zarr decodes by itself


def test_a_pickled_array_reads_on(scanned):
    own, ours = opened(IndexStore(scanned), "temp")
    with zarr.config.set(SWITCH):
        copy = pickle.loads(pickle.dumps(ours))
        assert type(copy.async_array.codec_pipeline) is IndexCodecPipeline
        np.testing.assert_array_equal(copy[...], own[...])


@pytest.mark.parametrize("count", [1, 5])
def test_small_reads_are_left_to_zarr_where_that_takes_less_time(scanned, monkeypatch, count):
    monkeypatch.undo()
    _, ours = opened(IndexStore(scanned), "temp")
    calls = []
    monkeypatch.setattr(zarr_batch, "wanted", lambda *given: calls.append(given))
    assert ours[: 2 * count, :5].shape == (2 * count, 5)
    assert len(calls) == (count > 1)


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_name_alone_switches_it_on():
    line = f"zarr.config.set({SWITCH}); a = zarr.create_array({{}}, shape=1, dtype='u1')"
    shown = "print(type(a.async_array.codec_pipeline).__name__)"
    assert run(f"import zarr; {line}; {shown}") == "IndexCodecPipeline"


def test_who_does_not_switch_it_on_imports_little():
    code = "import zarr, sys; zarr.create_array({}, shape=1, dtype='u1'); print([*sys.modules])"
    loaded = {name for name in eval(run(code)) if name.startswith("byteatlas")}
    assert "byteatlas.store.zarr_pipeline" in loaded
    assert not loaded & {"byteatlas.read", "byteatlas.index", "byteatlas.store.zarr_store"}


def test_many_threads_read_one_array(scanned):
    own, ours = opened(IndexStore(scanned), "temp")
    expected = own[...]

    def read(number):
        part = slice(number % 9, None), slice(number % 40, number % 40 + 10)
        return np.array_equal(ours[part], expected[part])

    with ThreadPoolExecutor(32) as threads:
        assert all(threads.map(read, range(200)))
