"""What does it cost to write and to load a JSON index of 1,000,000 references?

One array of 100 x 100 x 100 chunks in 100 sources. Each contender writes the index it would, or
loads the one that byteatlas wrote, in a fresh process:

  written   at most 1 s of CPU      kerchunk: its dictionary and `consolidate`, without a scan
  loaded    at most 2.5 s           fsspec: the reference filesystem; ujson: the parser alone
  foreign   at most 2.5 s           the same as others spell it: by ujson, as kerchunk does, and
                                    with every second chunk of a larger grid missing

Every index that was written, and every one that was loaded, is compared with the references that
were made up. Exits with 1 when one differs, whatever the time.
"""

from __future__ import annotations

import json
import sys
import tempfile
import zlib
from collections.abc import Sequence
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

GRID = (100, 100, 100)
COUNT = 1_000_000
SOURCES = 100
URLS = [f"https://data.example.org/archive/sst_{day:05}_v02r01.nc" for day in range(SOURCES)]
PACKAGES = ("byteatlas", "numpy", "kerchunk", "virtualizarr", "fsspec", "ujson")
HEADER = ("", "CPU", "ratio", "memory", "")


def made_up() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the source, offset and length of each chunk."""
    source = (np.arange(COUNT) * SOURCES // COUNT).astype(np.uint32)
    length = np.random.default_rng(7).integers(1_000, 90_000, COUNT).astype(np.uint64)
    return source, np.cumsum(length) % np.uint64(2**33), length


def answer(urls: Sequence[str], offset: Any, length: Any) -> Answer:
    """Return checksums of references in the order of chunks."""
    return {
        "references": len(urls),
        "urls": zlib.crc32("\n".join(urls).encode()),
        "offsets": zlib.crc32(np.asarray(offset, "<u8").tobytes()),
        "lengths": zlib.crc32(np.asarray(length, "<u8").tobytes()),
    }


def answer_of_references(refs: dict[str, Any]) -> Answer:
    found = [refs[f"sst/{t}.{y}.{x}"] for t, y, x in np.ndindex(GRID)]
    return answer(*zip(*found, strict=True))


def answer_of_file(path: str) -> Answer:
    return answer_of_references(json.loads(Path(path).read_bytes())["refs"])


def expected() -> Answer:
    source, offset, length = made_up()
    return answer([URLS[place] for place in source], offset, length)


# --- who writes ---


def write_with_byteatlas() -> Action:
    from byteatlas import ChunkManifest, Codec, Source, VirtualArray, VirtualGroup
    from byteatlas.index import write_json
    from byteatlas.model import Encoding

    source, offset, length = made_up()
    array = VirtualArray(
        shape=tuple(16 * size for size in GRID),
        dtype=np.dtype("<f4"),
        chunk_shape=(16, 16, 16),
        manifest=ChunkManifest.build(
            GRID, np.arange(COUNT, dtype=np.uint64), offset, length, source=source
        ),
        encodings=(Encoding((Codec("shuffle", {"elementsize": 4}), Codec("zlib", {"level": 4}))),),
        dimensions=("time", "y", "x"),
    )
    group = VirtualGroup(arrays={"sst": array}, sources=tuple(map(Source, URLS)))

    def act(path: str) -> str:
        write_json(group, path)
        return path

    return act, answer_of_file


def write_with_kerchunk() -> Action:
    import ujson
    from kerchunk.utils import consolidate

    source, offset, length = made_up()

    def act(path: str) -> str:
        refs: dict[str, Any] = {".zgroup": '{"zarr_format":2}'}
        for flat, chunk in enumerate(np.ndindex(GRID)):  # as for each chunk that h5py reports
            key = "sst/" + ".".join(map(str, chunk))
            refs[key] = [URLS[source[flat]], int(offset[flat]), int(length[flat])]
        Path(path).write_text(ujson.dumps(consolidate(refs)))
        return path

    return act, answer_of_file


def write_with_virtualizarr() -> Action:
    import xarray as xr
    from virtualizarr.manifests import ChunkManifest, ManifestArray
    from virtualizarr.manifests.utils import create_v3_array_metadata

    source, offset, length = made_up()
    manifest = ChunkManifest.from_arrays(
        paths=np.array(URLS, dtype=np.dtypes.StringDType())[source].reshape(GRID),
        offsets=offset.reshape(GRID),
        lengths=length.reshape(GRID),
    )
    metadata = create_v3_array_metadata(
        shape=tuple(16 * size for size in GRID),
        chunk_shape=(16, 16, 16),
        data_type=np.dtype("<f4"),
        codecs=[],
        fill_value=0.0,
        dimension_names=["time", "y", "x"],
    )
    array = ManifestArray(metadata=metadata, chunkmanifest=manifest)
    dataset = xr.Dataset({"sst": (("time", "y", "x"), array)})

    def act(path: str) -> str:
        dataset.vz.to_kerchunk(path, format="json")
        return path

    return act, answer_of_file


# --- who loads ---


def load_with_byteatlas() -> Action:
    from byteatlas.index import read_json

    def summarise(group: Any) -> Answer:
        manifest = group.arrays["sst"].manifest
        urls = [group.sources[place].url for place in manifest.source.tolist()]
        return answer(urls, manifest.offset, manifest.length)

    return lambda path: read_json(Path(path).read_bytes()), summarise


def load_with_ujson() -> Action:
    import ujson

    def summarise(document: Any) -> Answer:
        return answer_of_references(document["refs"])

    return lambda path: ujson.loads(Path(path).read_bytes()), summarise


def load_with_fsspec() -> Action:
    import fsspec
    import fsspec.implementations.reference

    def act(path: str) -> Any:
        return fsspec.filesystem("reference", fo=path, remote_protocol="http")

    return act, lambda filesystem: answer_of_references(filesystem.references)


def load_with_virtualizarr() -> Action:
    from obspec_utils.registry import ObjectStoreRegistry
    from obstore.store import LocalStore
    from virtualizarr.parsers import KerchunkJSONParser

    registry = ObjectStoreRegistry({"file://": LocalStore()})

    def summarise(store: Any) -> Answer:
        manifest = store._group.arrays["sst"].manifest  # noqa: SLF001  # no public way
        paths, offsets = manifest._paths, manifest._offsets  # noqa: SLF001
        return answer(paths.ravel().tolist(), offsets, manifest._lengths)  # noqa: SLF001

    return lambda path: KerchunkJSONParser()(f"file://{path}", registry), summarise


WRITERS = (
    Contender("byteatlas", "byteatlas", write_with_byteatlas),
    Contender("kerchunk", "kerchunk", write_with_kerchunk),
    Contender("VirtualiZarr", "virtualizarr", write_with_virtualizarr),
)
READERS = (
    Contender("byteatlas", "byteatlas", load_with_byteatlas),
    Contender("ujson", "ujson", load_with_ujson),
    Contender("fsspec", "fsspec", load_with_fsspec),
    Contender("VirtualiZarr", "virtualizarr", load_with_virtualizarr),
)


def row_of(
    result: Measured, ours: Measured, right: Answer, limit_s: float
) -> tuple[str, str, str, str, str]:
    if result.problem:
        return (result.name, "", "", "", result.problem)
    difference = result.differs_from(right)
    remark = f"WRONG: {difference}" if difference else ""
    if result is ours and not difference:
        remark = verdict(is_met=result.least_cpu_s <= limit_s, limit=f"<= {seconds(limit_s)}")
    ratio = "" if ours.problem else f"{result.least_cpu_s / ours.least_cpu_s:.1f}"
    return (result.name, seconds(result.least_cpu_s), ratio, megabytes(result.peak), remark)


def write_foreign(index: str, folder: str) -> dict[str, str]:
    """Write the index as others do: name to path."""
    import ujson

    document = json.loads(Path(index).read_bytes())
    del document["byteatlas"]
    paths = {"as ujson spells it": f"{folder}/ujson.json", "with gaps": f"{folder}/gaps.json"}
    Path(paths["as ujson spells it"]).write_text(ujson.dumps(document))
    zarray = json.loads(document["refs"]["sst/.zarray"])
    zarray["shape"][0] *= 2
    metadata = {"sst/.zarray": json.dumps(zarray), ".zgroup": '{"zarr_format":2}'}
    chunks = {}
    for key, value in document["refs"].items():
        if isinstance(value, list):
            t, y, x = key.removeprefix("sst/").split(".")
            chunks[f"sst/{2 * int(t)}.{y}.{x}"] = value
    Path(paths["with gaps"]).write_text(json.dumps({"version": 1, "refs": metadata | chunks}))
    return paths


def main() -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="at most, of each")
    parser.add_argument("--markdown", action="store_true", help="print tables for a page")
    parser.add_argument("--enough-s", type=float, default=5, help="CPU seconds that end repeats")
    given = parser.parse_args()
    print_machine(PACKAGES)
    right = expected()
    is_right = True
    with tempfile.TemporaryDirectory() as folder:
        index = f"{folder}/byteatlas.json"
        for title, contenders, limit_s in (("written", WRITERS, 1), ("loaded", READERS, 2.5)):
            results = []
            for contender in contenders:
                is_peer_writing = title == "written" and contender.name != "byteatlas"
                path = f"{folder}/peer.json" if is_peer_writing else index
                results.append(
                    measure(contender, path, repeats=given.repeats, enough_s=given.enough_s)
                )
            rows = [row_of(result, results[0], right, limit_s) for result in results]
            size = Path(index).stat().st_size
            print_table(
                f"{title}: {COUNT:,} references, {size:,} bytes",
                HEADER,
                rows,
                is_markdown=given.markdown,
            )
            is_right &= not results[0].problem
            is_right &= not any(result.differs_from(right) for result in results)
        foreign = write_foreign(index, folder)
        results = [
            measure(READERS[0], path, repeats=given.repeats, enough_s=given.enough_s)
            for path in foreign.values()
        ]
        rows = [
            (name, *row_of(result, result, right, 2.5)[1:])
            for name, result in zip(foreign, results, strict=True)
        ]
        print_table(
            "loaded by byteatlas: as others spell it", HEADER, rows, is_markdown=given.markdown
        )
        is_right &= not any(result.problem or result.differs_from(right) for result in results)
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
