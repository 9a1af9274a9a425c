"""What does it cost to write, to open and to read a Parquet index of millions of references?

  written   1,000,000 references      at most 0.5 s of CPU and 3 bytes a reference
  opened    5,000,000, with xarray    at most 0.3 s above the import of xarray, under 100 MB
  first     a chunk of these          at most 0.2 s and 2 partitions
  read      all 1,000,000             at most 0.5 s of CPU

The sizes of chunks are drawn from those of real ones: 64 KiB of a float32 field, shuffled and
deflated, whose noise differs by a factor of two from chunk to chunk. Two columns that hold such
sizes cannot take less than twice their entropy, which is printed. Each contender works in a
fresh process; every answer is compared with the references that were made up, and every index is
read by fsspec too. Exits with 1 when an answer is wrong, whatever the time.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from _measure import (
    Action,
    Answer,
    Contender,
    Measured,
    argument_parser,
    measure,
    megabytes,
    print_machine,
    print_table,
    seconds,
    verdict,
)

COUNT, SOURCES = 1_000_000, 100
OPENED = 5_000_000
CHUNK = 16_384
URLS = [f"https://data.example.org/archive/sst_{day:05}_v02r01.nc" for day in range(SOURCES)]
PACKAGES = ("byteatlas", "numpy", "pyarrow", "xarray", "kerchunk", "virtualizarr", "fsspec", "zarr")
HEADER = ("", "CPU", "wall", "ratio", "memory", "")


def real_sizes(count: int = 200) -> np.ndarray:
    """Return the sizes of some chunks of 64 KiB, shuffled and deflated."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[0:128, 0:128]
    sizes = []
    for _ in range(count):
        a, b, c, d = rng.uniform(0, 2 * np.pi, 4)
        field = 285 + 10 * np.sin(x / 70 + a) * np.cos(y / 50 + b)
        field += 3 * np.sin(x / 9 + c) * np.sin(y / 11 + d)
        field += rng.normal(0, rng.uniform(0.2, 0.4), field.shape)
        planes = np.round(field, 2).astype("<f4").reshape(-1).view(np.uint8).reshape(-1, 4).T
        sizes.append(len(zlib.compress(np.ascontiguousarray(planes), 4)))
    return np.array(sizes)


def made_up(count: int = COUNT) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the source, offset and length of each chunk."""
    known = np.sort(real_sizes())
    drawn = np.random.default_rng(7).uniform(0, 1, count)
    length = np.interp(drawn, np.linspace(0, 1, known.size), known).astype(np.uint64)
    source = (np.arange(count) * SOURCES // count).astype(np.uint32)
    end = np.cumsum(length)
    first = np.searchsorted(source, np.arange(SOURCES))
    return source, end - length - (end - length)[first][source] + np.uint64(6144), length


def entropy(sizes: np.ndarray) -> float:
    """Return the bytes that two columns with such sizes take at least, per row."""
    _, counts = np.unique(sizes, return_counts=True)
    share = counts / counts.sum()
    return float(-2 * (share * np.log2(share)).sum() / 8)


def answer(source: Any, offset: Any, length: Any) -> Answer:
    return {
        "references": len(source),
        "sources": zlib.crc32(np.asarray(source, "<u4").tobytes()),
        "offsets": zlib.crc32(np.asarray(offset, "<u8").tobytes()),
        "lengths": zlib.crc32(np.asarray(length, "<u8").tobytes()),
    }


def group_of(columns: tuple[np.ndarray, ...], urls: list[str], *, is_raw: bool = False) -> Any:
    from byteatlas import ChunkManifest, Codec, Source, VirtualArray, VirtualGroup
    from byteatlas.model import Encoding

    source, offset, length = columns
    count = source.size
    chain = () if is_raw else (Codec("shuffle", {"elementsize": 4}), Codec("zlib", {"level": 4}))
    array = VirtualArray(
        shape=(count // 100, 10 * 64, 10 * 64),
        dtype=np.dtype("<f4"),
        chunk_shape=(1, 64, 64),
        manifest=ChunkManifest.build(
            (count // 100, 10, 10), np.arange(count, dtype=np.uint64), offset, length, source=source
        ),
        encodings=(Encoding(chain),),
        dimensions=("time", "y", "x"),
    )
    return VirtualGroup(arrays={"sst": array}, sources=tuple(map(Source, urls)))


def answer_of_index(path: str) -> Answer:
    """Read an index as fsspec does, every thousandth reference, and all of them with ours."""
    import fsspec
    from fsspec.implementations.reference import LazyReferenceMapper

    import byteatlas

    group = byteatlas.open_index(path)
    manifest = group["sst"].manifest
    source, offset, length = manifest.source, manifest.offset, manifest.length
    source = np.array([URLS.index(one.url) for one in group.sources])[source]
    mapper = LazyReferenceMapper(path, fsspec.filesystem("file"))
    for row in range(0, COUNT, 1000):
        key = "sst/" + ".".join(map(str, np.unravel_index(row, manifest.grid_shape)))
        expected = [URLS[source[row]], int(offset[row]), int(length[row])]
        if list(mapper[key]) != expected:
            raise ValueError(f"fsspec finds {mapper[key]} at {key}, not {expected}")
    return answer(source, offset, length)


# --- who writes ---


def write_with_byteatlas() -> Action:
    import byteatlas.index  # noqa: F401  # before the clock starts, as for the others

    group = group_of(made_up(), URLS)

    def act(path: str) -> str:
        group.to_parquet(path)
        return path

    return act, answer_of_index


def write_with_kerchunk() -> Action:
    from kerchunk.df import refs_to_dataframe

    source, offset, length = made_up()
    refs: dict[str, Any] = {".zgroup": '{"zarr_format":2}'}
    refs["sst/.zarray"] = (
        '{"chunks":[1,64,64],"compressor":null,"dtype":"<f4","fill_value":null,"filters":null,'
        f'"order":"C","shape":[{COUNT // 100},640,640],"zarr_format":2}}'
    )
    for flat, chunk in enumerate(np.ndindex(COUNT // 100, 10, 10)):
        place = [URLS[source[flat]], int(offset[flat]), int(length[flat])]
        refs["sst/" + ".".join(map(str, chunk))] = place

    def act(path: str) -> str:
        shutil.rmtree(path, ignore_errors=True)
        refs_to_dataframe(refs, path)
        return path

    return act, answer_of_index


def write_with_virtualizarr() -> Action:
    import xarray as xr
    from virtualizarr.manifests import ChunkManifest, ManifestArray
    from virtualizarr.manifests.utils import create_v3_array_metadata

    source, offset, length = made_up()
    grid = (COUNT // 100, 10, 10)
    manifest = ChunkManifest.from_arrays(
        paths=np.array(URLS, dtype=np.dtypes.StringDType())[source].reshape(grid),
        offsets=offset.reshape(grid),
        lengths=length.reshape(grid),
    )
    metadata = create_v3_array_metadata(
        shape=(grid[0], 640, 640),
        chunk_shape=(1, 64, 64),
        data_type=np.dtype("<f4"),
        codecs=[],
        fill_value=0.0,
        dimension_names=["time", "y", "x"],
    )
    array = ManifestArray(metadata=metadata, chunkmanifest=manifest)
    dataset = xr.Dataset({"sst": (("time", "y", "x"), array)})

    def act(path: str) -> str:
        shutil.rmtree(path, ignore_errors=True)
        dataset.vz.to_kerchunk(path, format="parquet", record_size=100_000)
        return path

    return act, answer_of_index


# --- who opens ---


def make_opened(folder: str) -> str:
    """Write an index of 5,000,000 uncompressed chunks of one sparse file."""
    rng = np.random.default_rng(5)
    file = Path(folder, "source.bin")
    offset = np.cumsum(rng.integers(CHUNK, CHUNK + 3000, OPENED)).astype(np.uint64)
    with file.open("wb") as opened:
        opened.truncate(int(offset[-1]) + CHUNK)
        opened.seek(int(offset[OPENED // 2]))
        opened.write(np.full(CHUNK // 4, 7, "<f4").tobytes())
    length = np.full(OPENED, CHUNK, np.uint64)
    columns = np.zeros(OPENED, np.uint32), offset, length
    path = f"{folder}/opened.parquet"
    group_of(columns, [f"file://{file}"], is_raw=True).to_parquet(path)
    return path


def dataset_answer(dataset: Any) -> Answer:
    return {"chunks": dataset["sst"].shape[0] * 100}


def chunk_answer(values: Any) -> Answer:
    return {"sum": int(values.sum())}


def open_with_byteatlas() -> Action:
    import xarray as xr

    return lambda path: xr.open_dataset(path, engine="byteatlas"), dataset_answer


def open_with_fsspec() -> Action:
    import xarray as xr

    def act(path: str) -> Any:
        options = {"fo": path, "remote_protocol": "file"}
        backend = {"consolidated": True, "storage_options": options}
        return xr.open_dataset("reference://", engine="zarr", backend_kwargs=backend)

    return act, dataset_answer


def open_with_kerchunk() -> Action:
    import xarray as xr

    return lambda path: xr.open_dataset(path, engine="kerchunk"), dataset_answer


def first_of(opener: Any) -> Action:
    import xarray  # noqa: F401

    opened, _ = opener()
    datasets: dict[str, Any] = {}

    def act(path: str, is_read: bool = True) -> Any:  # noqa: FBT001, FBT002  # from the command line
        if path not in datasets:
            datasets[path] = opened(path)
        where = {"time": OPENED // 200, "y": slice(0, 64), "x": slice(0, 64)}
        return datasets[path]["sst"].isel(where).values if is_read else None

    return act, chunk_answer


def first_with_byteatlas() -> Action:
    from byteatlas.index.partitions import Partitions

    act, _ = first_of(open_with_byteatlas)
    decode, decoded = Partitions._decode, []  # noqa: SLF001  # counted where all pass

    def counted(self: Any, *arguments: Any) -> Any:
        decoded.append(arguments)
        return decode(self, *arguments)

    Partitions._decode = counted  # type: ignore[method-assign]  # noqa: SLF001
    return act, lambda values: chunk_answer(values) | {"partitions": len(decoded)}


def first_with_fsspec() -> Action:
    return first_of(open_with_fsspec)


# --- who reads all ---


def read_with_byteatlas() -> Action:
    import pyarrow.parquet  # noqa: F401  # before the clock starts

    import byteatlas
    from byteatlas.index.lazy_manifest import loaded

    def summarise(group: Any) -> Answer:
        manifest = group["sst"].manifest
        return answer(manifest.source, manifest.offset, manifest.length)

    return lambda path: loaded(byteatlas.open_index(path)), summarise


def read_with_fsspec() -> Action:
    import fsspec
    from fsspec.implementations.reference import LazyReferenceMapper

    def act(path: str) -> Any:
        mapper = LazyReferenceMapper(path, fsspec.filesystem("file"))
        keys = (f"sst/{t}.{y}.{x}" for t, y, x in np.ndindex(COUNT // 100, 10, 10))
        return [mapper[key] for key in keys]

    def summarise(references: Any) -> Answer:
        position = {url: place for place, url in enumerate(URLS)}
        urls, offsets, lengths = zip(*references, strict=True)
        return answer([position[url] for url in urls], offsets, lengths)

    return act, summarise


def read_with_virtualizarr() -> Action:
    from obspec_utils.registry import ObjectStoreRegistry
    from obstore.store import LocalStore
    from virtualizarr.parsers import KerchunkParquetParser

    registry = ObjectStoreRegistry({"file://": LocalStore()})

    def summarise(store: Any) -> Answer:
        manifest = store._group.arrays["sst"].manifest  # noqa: SLF001  # no public way
        position = {url: place for place, url in enumerate(URLS)}
        source = [position[url] for url in manifest._paths.ravel().tolist()]  # noqa: SLF001
        return answer(source, manifest._offsets, manifest._lengths)  # noqa: SLF001

    return lambda path: KerchunkParquetParser()(path, registry), summarise


WRITERS = (
    Contender("byteatlas", "byteatlas", write_with_byteatlas),
    Contender("kerchunk", "kerchunk", write_with_kerchunk),
    Contender("VirtualiZarr", "virtualizarr", write_with_virtualizarr),
)
OPENERS = (
    Contender("byteatlas", "byteatlas", open_with_byteatlas),
    Contender("fsspec + zarr", "fsspec", open_with_fsspec),
    Contender("kerchunk engine", "kerchunk", open_with_kerchunk),
)
FIRST = (
    Contender("byteatlas", "byteatlas", first_with_byteatlas),
    Contender("fsspec + zarr", "fsspec", first_with_fsspec),
)
READERS = (
    Contender("byteatlas", "byteatlas", read_with_byteatlas),
    Contender("fsspec", "fsspec", read_with_fsspec),
    Contender("VirtualiZarr", "virtualizarr", read_with_virtualizarr),
)


def row_of(
    result: Measured, ours: Measured, right: Answer, limit_s: float, limit_bytes: int | None = None
) -> tuple[str, ...]:
    if result.problem:
        return (result.name, "", "", "", "", result.problem)
    difference = result.differs_from(right)
    remark = f"WRONG: {difference}" if difference else ""
    if result is ours and not difference:
        is_met = result.median_cpu_s <= limit_s
        limit = f"<= {seconds(limit_s)}"
        if limit_bytes is not None:
            is_met &= result.peak <= limit_bytes
            limit += f", {megabytes(limit_bytes)}"
        remark = verdict(is_met=is_met, limit=limit)
    ratio = "" if ours.problem else f"{result.median_cpu_s / max(ours.median_cpu_s, 1e-4):.1f}"
    return (
        result.name,
        seconds(result.median_cpu_s),
        seconds(result.least_wall_s),
        ratio,
        megabytes(result.peak),
        remark,
    )


def size_of(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def main() -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="at most, of each")
    parser.add_argument("--enough-s", type=float, default=10, help="CPU seconds that end repeats")
    parser.add_argument("--quick", action="store_true", help="without the peers: they take minutes")
    parser.add_argument("--markdown", action="store_true", help="print tables for a page")
    given = parser.parse_args()
    print_machine(PACKAGES)
    columns = made_up()
    right = answer(*columns)
    is_right = True
    limits = {"repeats": given.repeats, "enough_s": given.enough_s}
    peers = slice(1) if given.quick else slice(None)

    def show(
        title: str, results: list[Measured], expected: Answer, limit_s: float, most: int | None
    ) -> bool:
        rows = [row_of(one, results[0], expected, limit_s, most) for one in results]
        print_table(title, HEADER, rows, is_markdown=given.markdown)
        wrong = any(one.differs_from(expected) for one in results)
        return not results[0].problem and not wrong

    with tempfile.TemporaryDirectory() as folder:
        results, notes = [], []
        for contender in WRITERS[peers]:
            path = Path(folder, f"{contender.package}.parquet")
            results.append(measure(contender, str(path), **limits))
            if path.exists():
                notes.append(f"{contender.name} {size_of(path) / COUNT:.2f}")
        least = entropy(columns[2])
        title = f"written: {COUNT:,} references; bytes each: {', '.join(notes)}; least {least:.2f}"
        is_right &= show(title, results, right, 0.5, None)

        index = str(Path(folder, "byteatlas.parquet"))
        results = [measure(contender, index, **limits) for contender in READERS[peers]]
        is_right &= show(f"read: all {COUNT:,} references", results, right, 0.5, None)

        opened = make_opened(folder)
        once = {**limits, "repeats": 1}  # a second time in one process would be none
        results = [measure(contender, opened, **once) for contender in OPENERS[peers]]
        title = f"opened with xarray: {OPENED:,} references"
        is_right &= show(title, results, {"chunks": OPENED}, 0.3, 100 * 10**6)
        opening = [opened, False]
        results = [
            measure(contender, opened, warm_up=opening, **once) for contender in FIRST[peers]
        ]
        chunk = {"sum": 7 * CHUNK // 4, "partitions": 1}
        is_right &= show("the first chunk, read after that", results, chunk, 0.2, None)
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
