"""Who reads, and how: byteatlas, its peers at their best settings, and those who do less.

Each function imports what it needs and returns a function that opens what a case names and returns
(read, summarise, setting): `read()` reads all selections of the case, `summarise` makes its answer
out of what came, and `setting` is shown where there was a choice.
"""

from __future__ import annotations

import itertools
import os
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from _contest import Case
from _measure import Answer, Contender
from numpy.typing import NDArray

Request = Mapping[str, Any]
Opened = tuple[Callable[[], Any], Callable[[Any], Answer], str]

REMOTE_CONCURRENCY = 128
"""Of zarr-python, whose default of 10 leaves a network idle. Locally more than 10 is no faster."""


def answer_of(values: Sequence[Any]) -> Answer:
    """Return a checksum of the values of arrays, whatever their byte order."""
    checksum = count = 0
    for value in values:
        array = np.ascontiguousarray(value)
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        checksum = zlib.crc32(array.reshape(-1).view(np.uint8), checksum)
        count += array.size
    return {"elements": count, "checksum": checksum}


def answer_of_bytes(parts: Sequence[Any]) -> Answer:
    """Return a checksum of chunks as they are stored."""
    checksum = 0
    for part in parts:
        checksum = zlib.crc32(part, checksum)
    return {"stored": sum(map(len, parts)), "stored checksum": checksum}


def index_of(selection: Sequence[Any]) -> tuple[Any, ...]:
    whole = (...,) if not selection else ()
    return (*whole, *(slice(*part) if isinstance(part, list) else part for part in selection))


def location(request: Request) -> str:
    return request.get("url") or request["path"]


def reading(array: Any, request: Request) -> Callable[[], list[Any]]:
    """Return what reads the selections of a case by indexing."""
    wanted = [index_of(selection) for selection in request["selections"]]
    return lambda: [array[index] for index in wanted]


def windows(steps: int, count: int = 100) -> list[list[Any]]:
    """Return windows of 64 x 64 anywhere in a field."""
    rng = np.random.default_rng(5)
    at = zip(rng.integers(0, steps, count), rng.integers(0, 448, (count, 2)), strict=True)
    return [[int(t), [int(y), int(y) + 64], [int(x), int(x) + 64]] for t, (y, x) in at]


# --- byteatlas ---


def load_byteatlas() -> Callable[[Request], Opened]:
    import byteatlas
    from byteatlas.read import Reader

    def opened(request: Request) -> Opened:
        group = byteatlas.scan(location(request))
        array, reader = group[request["variable"]], Reader(group.sources)
        wanted = [index_of(selection) for selection in request["selections"]]
        return lambda: [reader.read(array, index) for index in wanted], answer_of, ""

    return opened


def load_byteatlas_anew() -> Callable[[Request], Opened]:
    import byteatlas
    from byteatlas.read import Reader

    def opened(request: Request) -> Opened:
        group = byteatlas.scan(location(request))
        array = group[request["variable"]]
        wanted = [index_of(selection) for selection in request["selections"]]

        def read() -> list[Any]:
            reader = Reader(group.sources)
            try:
                return [reader.read(array, index) for index in wanted]
            finally:
                reader.close()

        return read, answer_of, ""

    return opened


def load_byteatlas_many() -> Callable[[Request], Opened]:
    import byteatlas
    from byteatlas.read import Reader

    if not hasattr(Reader, "read_many"):
        raise NotImplementedError("Reader.read_many")

    def opened(request: Request) -> Opened:
        group = byteatlas.scan(location(request))
        name = request["variable"]
        array, reader = group[name], Reader(group.sources)
        wanted = [(array, index_of(selection), name) for selection in request["selections"]]
        return lambda: reader.read_many(wanted), answer_of, ""

    return opened


def load_byteatlas_xarray() -> Callable[[Request], Opened]:
    import byteatlas

    def opened(request: Request) -> Opened:
        group = byteatlas.scan(location(request))
        dataset = byteatlas.open_dataset(group, cache=False)
        variable = dataset[request["variable"]].variable
        wanted = [index_of(selection) for selection in request["selections"]]
        return lambda: [variable[index].values for index in wanted], answer_of, ""

    return opened


# --- the libraries of the format ---


def load_h5py() -> Callable[[Request], Opened]:
    import h5py

    def opened(request: Request) -> Opened:
        wanted = [index_of(selection) for selection in request["selections"]]

        def read() -> list[Any]:  # opens the file anew: its chunk cache shall be empty
            with h5py.File(request["path"]) as file:
                dataset = file[request["variable"]]
                return [dataset[index] for index in wanted]

        return read, answer_of, ""

    return opened


def load_netcdf4() -> Callable[[Request], Opened]:
    import netCDF4

    def opened(request: Request) -> Opened:
        wanted = [index_of(selection) for selection in request["selections"]]

        def read() -> list[Any]:
            with netCDF4.Dataset(request["path"]) as dataset:
                dataset.set_auto_maskandscale(False)
                variable = dataset[request["variable"]]
                return [variable[index] for index in wanted]

        return read, answer_of, ""

    return opened


def load_pyfive() -> Callable[[Request], Opened]:
    import pyfive

    def opened(request: Request) -> Opened:
        dataset = pyfive.File(request["path"])[request["variable"]]
        read = reading(dataset, request)
        # of contiguous data it returns a map of the file, where nothing is read yet
        return lambda: [np.array(value) for value in read()], answer_of, ""

    return opened


FSSPEC_CACHES = (
    {"cache_type": "readahead", "block_size": 2**20},
    {"cache_type": "blockcache", "block_size": 2**20},
    {"cache_type": "blockcache", "block_size": 2**23},
    {"cache_type": "background", "block_size": 2**22},
    {"cache_type": "all"},
)


def load_h5py_fsspec() -> Callable[[Request], Opened]:
    import fsspec
    import h5py

    def opened(request: Request) -> Opened:
        wanted = [index_of(selection) for selection in request["selections"]]
        filesystem = fsspec.filesystem("http")

        def reader(options: Mapping[str, Any]) -> Callable[[], list[Any]]:
            def read() -> list[Any]:
                with filesystem.open(request["url"], **options) as data, h5py.File(data) as file:
                    dataset = file[request["variable"]]
                    return [dataset[index] for index in wanted]

            return read

        read, options = fastest(reader, FSSPEC_CACHES, times=1)
        size = f" of {options['block_size'] >> 20} MiB" if "block_size" in options else ""
        return read, answer_of, f"cache {options['cache_type']}{size}"

    return opened


def fastest(make: Callable[[Any], Callable[[], Any]], options: Sequence[Any], times: int) -> Any:
    """Return the fastest of several readers, and the option that it was made with."""
    tried = []
    for number, option in enumerate(options):
        read = make(option)
        for _ in range(times):
            began = time.perf_counter()
            read()
            tried.append((time.perf_counter() - began, number, read, option))
    return min(tried)[2:]


# --- virtual stores ---


def load_kerchunk() -> Callable[[Request], Opened]:
    import fsspec.implementations.reference
    import zarr
    from kerchunk.hdf import SingleHdf5ToZarr

    def opened(request: Request) -> Opened:
        with open(request["path"], "rb") as file:  # noqa: PTH123  # what it wants is such a file
            scanner = SingleHdf5ToZarr(file, location(request), inline_threshold=0)
            references = scanner.translate()
        filesystem = fsspec.implementations.reference.ReferenceFileSystem(
            references,
            asynchronous=True,
            remote_protocol="http" if request.get("url") else "file",
            remote_options={"asynchronous": True},
        )
        store = zarr.storage.FsspecStore(filesystem, read_only=True, path="")
        return _zarr_reader(store, request, 2)

    return opened


def load_virtualizarr() -> Callable[[Request], Opened]:
    manifest_store = _virtualizarr()

    def opened(request: Request) -> Opened:
        return _zarr_reader(manifest_store(request), request, 3)

    return opened


def load_icechunk() -> Callable[[Request], Opened]:
    import icechunk

    manifest_store = _virtualizarr()

    def opened(request: Request) -> Opened:
        url = request.get("url", f"file://{request['path']}")
        if "url" in request and icechunk.__version__.startswith("1."):
            url = request["url_without_port"]  # it drops the port of a virtual reference
        if url is None:
            raise NotImplementedError("port 80, where it expects all HTTP")
        prefix = url.rpartition("/")[0] + "/"
        local = icechunk.local_filesystem_store(prefix.removeprefix("file://"))
        remote = icechunk.http_store({"allow_http": "true"})
        config = icechunk.RepositoryConfig.default()
        container = icechunk.VirtualChunkContainer(prefix, remote if "url" in request else local)
        config.set_virtual_chunk_container(container)
        repository = icechunk.Repository.create(
            icechunk.in_memory_storage(), config, authorize_virtual_chunk_access={prefix: None}
        )
        session = repository.writable_session("main")
        dataset = manifest_store(request, url).to_virtual_dataset()
        dataset.vz.to_icechunk(session.store)
        session.commit("references")
        return _zarr_reader(repository.readonly_session("main").store, request, 3)

    return opened


def _virtualizarr() -> Callable[..., Any]:
    from obspec_utils.registry import ObjectStoreRegistry
    from obstore.store import HTTPStore, LocalStore
    from virtualizarr.manifests import ManifestArray, ManifestGroup, ManifestStore
    from virtualizarr.parsers import HDFParser

    def manifest_store(request: Request, url: str = "") -> Any:
        registry = ObjectStoreRegistry({"file://": LocalStore()})
        store = HDFParser()(url=f"file://{request['path']}", registry=registry)
        url = url or request.get("url", "")
        if not url:
            return store
        host = url.rpartition("/")[0]
        remote = HTTPStore.from_url(host, client_options={"allow_http": True})
        group = store._group  # nothing public leads there  # noqa: SLF001
        arrays = {
            name: ManifestArray(array.metadata, array.manifest.rename_paths(url))
            for name, array in group.arrays.items()
        }
        renamed = ManifestGroup(arrays=arrays, attributes=group.metadata.attributes)
        return ManifestStore(renamed, registry=ObjectStoreRegistry({host: remote}))

    return manifest_store


def _zarr_reader(store: Any, request: Request, zarr_format: int) -> Opened:
    import zarr

    setting = ""
    if request.get("url"):
        zarr.config.set({"async.concurrency": REMOTE_CONCURRENCY})
        setting = f"{REMOTE_CONCURRENCY} at once"
    name = request["variable"]
    array = zarr.open_array(store, path=name, zarr_format=zarr_format, mode="r")
    return reading(array, request), answer_of, setting


# --- those who do less: limits ---


def chunks_of(request: Request) -> tuple[Any, list[Any]]:
    """Return the dataset's shape, chunk shape and dtype, and where each of its chunks is."""
    import h5py

    with h5py.File(request["path"]) as file:
        dataset = file[request["variable"]]
        chunks: list[Any] = []
        if dataset.chunks:
            dataset.id.chunk_iter(chunks.append)
        else:
            size = dataset.id.get_storage_size()
            chunks.append(h5py.h5d.StoreInfo((0,), 0, dataset.id.get_offset(), size))
        return (dataset.shape, dataset.chunks, dataset.dtype), chunks


def inflater(request: Request) -> tuple[Callable[[], NDArray[Any]], Callable[..., None], list[Any]]:
    """Return what cannot be left out of a read, and no more: libdeflate, one store of each byte.

    The first function gives a fresh array, the second puts a stored chunk into one; the list has
    offset, length and box of each chunk, by place.
    """
    import deflate

    (shape, chunk, dtype), chunks = chunks_of(request)
    size = int(np.prod(chunk)) * dtype.itemsize
    work = sorted(
        (
            part.byte_offset,
            part.size,
            tuple(slice(at, at + n) for at, n in zip(part.chunk_offset, chunk, strict=True)),
        )
        for part in chunks
    )

    def put(data: Any, box: tuple[slice, ...], out: NDArray[Any]) -> None:
        flat = deflate.zlib_decompress(data, size)
        planes = np.frombuffer(flat, np.uint8).reshape(dtype.itemsize, *chunk)
        place = out.view(np.uint8).reshape(*shape, dtype.itemsize)[box]
        for number, plane in enumerate(planes):
            place[..., number] = plane

    return lambda: np.empty(shape, dtype), put, work


def load_bare_inflate() -> Callable[[Request], Opened]:
    from concurrent.futures import ThreadPoolExecutor

    import deflate

    assert deflate

    def opened(request: Request) -> Opened:
        fresh, put, work = inflater(request)
        file = os.open(request["path"], os.O_RDONLY)
        per_turn = max(1, min(8, len(work) // 8))
        batches = [work[at : at + per_turn] for at in range(0, len(work), per_turn)]
        threads = len(os.sched_getaffinity(0))
        pool = ThreadPoolExecutor(threads)

        def read() -> list[Any]:
            out = fresh()
            left = iter(batches)

            def inflate() -> None:
                for batch in left:
                    for offset, length, box in batch:
                        put(os.pread(file, length, offset), box, out)

            for done in [pool.submit(inflate) for _ in range(threads)]:
                done.result()
            return [out]

        return read, answer_of, counted(threads, "thread")

    return opened


PIECES = (2**18, 2**20, 2**22, 2**23)


def load_preadv() -> Callable[[Request], Opened]:
    """Read the bytes of all chunks into a fresh array, in the order that they have in the file."""
    from concurrent.futures import ThreadPoolExecutor

    def opened(request: Request) -> Opened:
        (shape, chunk, dtype), chunks = chunks_of(request)
        file = os.open(request["path"], os.O_RDONLY)
        start = min(part.byte_offset for part in chunks)
        size = int(np.prod(shape)) * dtype.itemsize
        pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))

        def reader(option: tuple[int, int]) -> Callable[[], list[Any]]:
            piece, threads = option

            def read() -> list[Any]:
                out = np.empty(shape, dtype)
                raw = memoryview(out.reshape(-1).view(np.uint8))
                left = iter(range(0, size, piece))

                def fill() -> None:
                    for at in left:
                        os.preadv(file, [raw[at : at + piece]], start + at)

                for done in [pool.submit(fill) for _ in range(threads)]:
                    done.result()
                return [out]

            return read

        options = [(piece, threads) for piece in PIECES for threads in (1, 2)]
        read, (piece, threads) = fastest(reader, options, times=3)

        def summarise(values: list[Any]) -> Answer:
            return {"elements": values[0].size} if chunk else answer_of(values)

        setting = f"{piece >> 10} KiB at a time, {counted(threads, 'thread')}"
        return read, summarise, setting

    return opened


def counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def chunks_wanted(request: Request) -> list[NDArray[np.int64]]:
    """Return for each selection the offset and length of the chunks it touches, by place."""
    (shape, chunk, _), chunks = chunks_of(request)
    place = np.array([(part.byte_offset, part.size) for part in chunks], np.int64)
    if chunk is None:
        return [place for _ in request["selections"]]
    first = np.array([part.chunk_offset for part in chunks])
    wanted = []
    for selection in request["selections"]:
        ends = [part if isinstance(part, list) else (part, part + 1) for part in selection]
        box = np.array(ends or [(0, size) for size in shape])
        is_touched = ((first < box[:, 1]) & (first + chunk > box[:, 0])).all(axis=1)
        mine = place[is_touched]
        wanted.append(mine[np.argsort(mine[:, 0])])
    return wanted


def merged(parts: NDArray[np.int64], gap: int, piece: int) -> list[tuple[int, int]]:
    """Return start and stop of what is fetched: gaps up to `gap` too, `piece` bytes at most."""
    spans: list[tuple[int, int]] = []
    for start, size in parts.tolist():
        if spans and start - spans[-1][1] <= gap and start + size - spans[-1][0] <= piece:
            spans[-1] = spans[-1][0], start + size
        else:
            spans.append((start, start + size))
    return spans


class Fetching(NamedTuple):
    """How obstore is asked for chunks."""

    gap: int
    """Unwanted bytes between two chunks that are fetched along."""
    piece: int
    """Bytes of one request."""
    at_once: int
    """Requests in flight."""

    def __str__(self) -> str:
        return f"gaps of {self.gap >> 10} KiB, {self.piece >> 20} MiB, {self.at_once} at once"


FETCHINGS = (
    *(Fetching(2**16, 2**20, at_once) for at_once in (8, 32)),
    *(Fetching(2**16, 2**22, at_once) for at_once in (4, 16)),
    Fetching(2**16, 2**26, 4),
    Fetching(0, 2**20, 128),
)


def load_obstore() -> Callable[[Request], Opened]:
    """Fetch the chunks that are wanted with obstore, and leave them encoded."""
    import asyncio

    import obstore
    from obstore.store import HTTPStore

    def opened(request: Request) -> Opened:
        base, _, name = request["url"].rpartition("/")
        store = HTTPStore.from_url(base, client_options={"allow_http": True})
        wanted = chunks_wanted(request)
        loop = asyncio.new_event_loop()  # asyncio.run would take the time to show what it returns

        async def fetch(spans: list[tuple[int, int]], at_once: int) -> list[Any]:
            free = asyncio.Semaphore(at_once)

            async def fetch_one(start: int, stop: int) -> Any:
                async with free:
                    return await obstore.get_range_async(store, name, start=start, end=stop)

            return await asyncio.gather(*(fetch_one(*span) for span in spans))

        def reader(how: Fetching) -> Callable[[], list[Any]]:
            spans = [merged(parts, how.gap, how.piece) for parts in wanted]

            async def fetch_all() -> list[Any]:
                return [(one, await fetch(one, how.at_once)) for one in spans]

            return lambda: loop.run_until_complete(fetch_all())

        read, how = fastest(reader, FETCHINGS[: 1 if len(wanted) > 1 else None], times=2)

        def summarise(fetched: list[Any]) -> Answer:
            stored = itertools.starmap(cut, zip(wanted, fetched, strict=True))
            return answer_of_bytes([chunk for chunks in stored for chunk in chunks])

        return read, summarise, str(how)

    return opened


def load_obstore_inflate() -> Callable[[Request], Opened]:
    """Fetch with obstore, and let threads inflate what has arrived."""
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    import obstore
    from obstore.store import HTTPStore

    def opened(request: Request) -> Opened:
        fresh, put, work = inflater(request)
        base, _, name = request["url"].rpartition("/")
        store = HTTPStore.from_url(base, client_options={"allow_http": True})
        pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
        loop = asyncio.new_event_loop()
        starts = [offset for offset, _, _ in work]
        parts = np.array([(offset, length) for offset, length, _ in work])

        def reader(how: Fetching) -> Callable[[], list[Any]]:
            spans = merged(parts, how.gap, how.piece)
            bounds = np.searchsorted(starts, [start for start, _ in spans]).tolist()
            groups = [work[a:b] for a, b in itertools.pairwise([*bounds, len(work)])]

            def inflate(data: Any, group: list[Any], out: NDArray[Any]) -> None:
                view = memoryview(data)
                origin = group[0][0]
                for offset, length, box in group:
                    put(view[offset - origin :][:length], box, out)

            async def fetch_all() -> list[Any]:
                out = fresh()
                free = asyncio.Semaphore(how.at_once)

                async def fetch_one(span: tuple[int, int], group: list[Any]) -> None:
                    async with free:
                        data = await obstore.get_range_async(
                            store, name, start=span[0], end=span[1]
                        )
                    await loop.run_in_executor(pool, inflate, data, group, out)

                await asyncio.gather(*map(fetch_one, spans, groups))
                return [out]

            return lambda: loop.run_until_complete(fetch_all())

        read, how = fastest(reader, FETCHINGS[:4], times=2)
        return read, answer_of, str(how)

    return opened


def cut(parts: NDArray[np.int64], fetched: tuple[list[tuple[int, int]], list[Any]]) -> list[Any]:
    """Return the chunks out of what was fetched for them."""
    spans, buffers = fetched
    at = np.searchsorted([start for start, _ in spans], parts[:, 0], "right") - 1
    return [
        memoryview(buffers[span])[start - spans[span][0] :][:size]
        for span, (start, size) in zip(at.tolist(), parts.tolist(), strict=True)
    ]


def stored_answer(request: Request) -> Answer:
    """Return what `load_obstore` has to answer, from the local file."""
    with open(request["path"], "rb") as file:  # noqa: PTH123
        parts = [part for parts in chunks_wanted(request) for part in parts.tolist()]
        return answer_of_bytes([os.pread(file.fileno(), size, start) for start, size in parts])


def read_with_h5py(case: Case) -> Answer:
    """Return the right answer of a case."""
    read, summarise, _ = load_h5py()(case.request())
    return summarise(read())


BYTEATLAS = Contender("byteatlas", "byteatlas", load_byteatlas)
BYTEATLAS_ANEW = Contender("byteatlas, opened anew", "byteatlas", load_byteatlas_anew)
BYTEATLAS_MANY = Contender("byteatlas, read_many", "byteatlas", load_byteatlas_many)
BYTEATLAS_XARRAY = Contender("byteatlas, xarray", "byteatlas", load_byteatlas_xarray)
H5PY = Contender("h5py", "h5py", load_h5py)
H5PY_FSSPEC = Contender("h5py + fsspec", "h5py", load_h5py_fsspec)
NETCDF4 = Contender("netCDF4", "netCDF4", load_netcdf4)
PYFIVE = Contender("pyfive", "pyfive", load_pyfive)
KERCHUNK = Contender("kerchunk", "kerchunk", load_kerchunk)
VIRTUALIZARR = Contender("VirtualiZarr", "virtualizarr", load_virtualizarr)
ICECHUNK = Contender("Icechunk", "icechunk", load_icechunk)
BARE_INFLATE = Contender("bare libdeflate", "deflate", load_bare_inflate)
PREADV = Contender("preadv", "numpy", load_preadv)
OBSTORE = Contender("obstore alone", "obstore", load_obstore)
OBSTORE_INFLATE = Contender("obstore + bare libdeflate", "obstore", load_obstore_inflate)
