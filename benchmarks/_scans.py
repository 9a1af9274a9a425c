"""The scans that are compared: byteatlas, h5py, VirtualiZarr and kerchunk, each on one URL.

An answer is the number of virtual references, the sums of their offsets and lengths and, where it
can be compared, the number of attributes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from _measure import Action, Answer, Contender

# Kept by libraries for themselves: not attributes of the data.
BOOKKEEPING = {
    "CLASS",
    "DIMENSION_LIST",
    "NAME",
    "REFERENCE_LIST",
    "_NCProperties",
    "_Netcdf4Coordinates",
    "_Netcdf4Dimid",
    "_nc3_strict",
}


def load_byteatlas() -> Action:
    import byteatlas

    def summarise(group: Any) -> Answer:
        manifests = [array.manifest for _, array in group.walk_arrays()]
        return {
            "references": sum(manifest.virtual_count for manifest in manifests),
            "offsets": sum(int(manifest.offset.sum()) for manifest in manifests),
            "lengths": sum(int(manifest.length.sum()) for manifest in manifests),
            "attributes": sum(
                len(item.attrs)
                for _, inner in group.walk()
                for item in (inner, *inner.arrays.values())
            ),
        }

    return byteatlas.scan, summarise


def load_byteatlas_remote() -> Action:
    scan, summarise = load_byteatlas()

    def with_counts(group: Any) -> Answer:
        report = group.report
        return summarise(group) | {
            "rounds": report.rounds,
            "requests": report.requests,
            "bytes": report.bytes_read,
        }

    return scan, with_counts


def load_h5py() -> Action:
    import h5py

    def scan(path: str) -> tuple[list[Any], dict[str, Any]]:
        chunks: list[Any] = []
        attributes: dict[str, Any] = {}

        def visit(name: str, item: Any) -> None:
            for key in item.attrs:
                if key not in BOOKKEEPING:
                    attributes[f"{name}@{key}"] = item.attrs[key]
            if isinstance(item, h5py.Dataset):
                if item.chunks:
                    item.id.chunk_iter(chunks.append)
                elif (offset := item.id.get_offset()) is not None:
                    chunks.append(h5py.h5d.StoreInfo((), 0, offset, item.id.get_storage_size()))

        with h5py.File(path) as file:
            visit("", file)
            file.visititems(visit)
        return chunks, attributes

    def summarise(result: tuple[list[Any], dict[str, Any]]) -> Answer:
        chunks, attributes = result
        return {
            "references": len(chunks),
            "offsets": sum(chunk.byte_offset for chunk in chunks),
            "lengths": sum(chunk.size for chunk in chunks),
            "attributes": len(attributes),
        }

    return scan, summarise


def load_virtualizarr(reader: str = "BlockStoreReader") -> Action:
    from urllib.parse import urlparse

    import obspec_utils.readers
    from obspec_utils.registry import ObjectStoreRegistry
    from obstore.store import HTTPStore, LocalStore
    from virtualizarr.parsers import HDFParser

    parser = HDFParser(reader_factory=getattr(obspec_utils.readers, reader))

    def scan(url: str) -> Any:
        if "://" not in url:
            registry = ObjectStoreRegistry({"file://": LocalStore()})
            return parser(url=f"file://{url}", registry=registry)
        parts = urlparse(url)
        host = f"{parts.scheme}://{parts.netloc}"
        store = HTTPStore.from_url(host, client_options={"allow_http": True})
        return parser(url=url, registry=ObjectStoreRegistry({host: store}))

    def arrays_of(group: Any) -> Iterator[Any]:
        yield from group.arrays.values()
        for inner in group.groups.values():
            yield from arrays_of(inner)

    def summarise(store: Any) -> Answer:
        group = store._group  # noqa: SLF001  # nothing public leads there
        entries = [entry for array in arrays_of(group) for _, entry in array.manifest.iter_refs()]
        return _sums([(entry["offset"], entry["length"]) for entry in entries])

    return scan, summarise


def load_virtualizarr_eager() -> Action:
    return load_virtualizarr("EagerStoreReader")


def load_kerchunk(**storage_options: Any) -> Action:
    from kerchunk.hdf import SingleHdf5ToZarr

    def scan(url: str) -> Any:
        scanner = SingleHdf5ToZarr(url, inline_threshold=0, storage_options=storage_options)
        return scanner.translate()["refs"]

    def summarise(references: Any) -> Answer:
        return _sums([entry[1:] for entry in references.values() if isinstance(entry, list)])

    return scan, summarise


def load_kerchunk_first() -> Action:
    return load_kerchunk(cache_type="first")


def _sums(references: list[Any]) -> Answer:
    return {
        "references": len(references),
        "offsets": sum(offset for offset, _ in references),
        "lengths": sum(length for _, length in references),
    }


BYTEATLAS = Contender("byteatlas", "byteatlas", load_byteatlas)
BYTEATLAS_REMOTE = Contender("byteatlas", "byteatlas", load_byteatlas_remote)
H5PY = Contender("h5py", "h5py", load_h5py)
VIRTUALIZARR = Contender("VirtualiZarr", "virtualizarr", load_virtualizarr)
VIRTUALIZARR_EAGER = Contender("VirtualiZarr, eager", "virtualizarr", load_virtualizarr_eager)
KERCHUNK = Contender("kerchunk", "kerchunk", load_kerchunk)
KERCHUNK_FIRST = Contender("kerchunk, cache first", "kerchunk", load_kerchunk_first)
