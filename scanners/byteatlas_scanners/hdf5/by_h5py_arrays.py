"""Arrays as h5py reads them, for `byteatlas_scanners.hdf5.by_h5py`: byte ranges, or values."""

from __future__ import annotations

import io
import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from h5py import h5d, h5t, h5z
from numpy.lib.recfunctions import repack_fields

from byteatlas.codecs import decode
from byteatlas.errors import Unsupported
from byteatlas.index.attributes import dtype_to_json, scalar_from_json, scalar_to_json
from byteatlas_scanners.hdf5.by_h5py_attributes import FAILURES, read_attributes
from byteatlas_scanners.hdf5.filters import Filter, encoding_of
from byteatlas_scanners.hdf5.netcdf4 import variable_name
from byteatlas_scanners.hdf5.values import encode_strings
from byteatlas_scanners.splitting import contiguous_manifest, split_rows

if TYPE_CHECKING:
    from byteatlas.fallback.child import Blobs, Job

__all__ = ["read_array"]

MAX_CELLS = 2**16
"""Chunks of one array that may be virtual: each is compared by itself."""
FEW_CHUNKS = 2**10
"""Up to so many chunks of one array are looked up one by one."""
MAX_COMPARED = 2**28
"""Bytes of one array that are read to be sure of its byte ranges."""
_NOT_PORTABLE = (np.dtype(np.longdouble), np.dtype(np.clongdouble))
"""Types whose bits differ between machines."""


def read_array(
    dataset: h5py.Dataset, job: Job, source: io.RawIOBase | io.BytesIO
) -> tuple[dict[str, Any], Blobs]:
    """Return what describes an array as JSON values, and its columns or its values."""
    if dataset.shape is None:
        raise Unsupported("a null dataspace")
    if dataset.is_virtual or dataset.external:
        raise Unsupported("its values are elsewhere, and the library may not open anything")
    base, inner = dataset.dtype.subdtype or (dataset.dtype, ())
    shape = dataset.shape + inner
    attrs, lost = read_attributes(dataset)
    facts: dict[str, Any] = {
        "shape": list(shape),
        "names": _axis_names(dataset) + [None] * len(inner),
        "attrs": attrs,
        "lost": lost,
    }
    if enum := h5py.check_enum_dtype(base):
        facts["enum"] = {str(name): int(value) for name, value in enum.items()}
    if not inner and (text := h5py.check_string_dtype(base)) and text.length is None:
        return _strings(dataset, facts, job)
    if base.hasobject or base.newbyteorder("=") in _NOT_PORTABLE:
        raise Unsupported(f"values of type {base}, which Zarr has no form for")
    _check_chunks(dataset, source)
    virtual = None
    if _is_stored_as(dataset, base):
        with suppress(*FAILURES):  # what cannot be virtual may still be inlined
            virtual = _virtual(dataset, base, shape, job, source)
    found, blobs = virtual or _inlined(dataset, base, shape, job)
    return facts | found, blobs


def _check_chunks(dataset: h5py.Dataset, source: io.RawIOBase | io.BytesIO) -> None:
    """Refuse chunks that do not hold what they should: the library may show memory in its place.

    Raises
    ------
    Malformed
        A chunk does not decode, or to another size. (Of filters without a codec here it is left
        to the library to notice that.)
    """
    if dataset.chunks is None:
        return
    nbytes = math.prod(dataset.chunks) * dataset.id.get_type().get_size()
    infos: list[Any] = []
    dataset.id.chunk_iter(infos.append)
    if sum(info.size for info in infos) > MAX_COMPARED or nbytes * len(infos) > MAX_COMPARED:
        raise Unsupported(f"chunks of more than {MAX_COMPARED} bytes in all")
    filters = _filters(dataset)
    for info in infos:
        try:
            encoding = encoding_of(filters, chunk_nbytes=nbytes, mask=info.filter_mask)
        except Unsupported:
            return
        source.seek(info.byte_offset)
        decode(source.read(info.size) or b"", encoding, size=nbytes)


def _is_stored_as(dataset: h5py.Dataset, dtype: np.dtype[Any]) -> bool:
    """Tell whether the stored elements are those of a numpy type, bit for bit."""
    try:
        stored = dataset.id.get_type()
        return bool(stored.equal(h5t.py_create(dataset.dtype, logical=True))) and (
            stored.get_size() == dataset.dtype.itemsize and dtype_to_json(dtype) is not None
        )
    except FAILURES:
        return False


def _virtual(
    dataset: h5py.Dataset,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    job: Job,
    source: io.RawIOBase | io.BytesIO,
) -> tuple[dict[str, Any], Blobs] | None:
    """Return an array as byte ranges, or None where it has none.

    All of it is read both ways and compared: what our own reader refused may be damaged, and then
    the library may tell other places than those that it reads.
    """
    facts = {"dtype": dtype_to_json(dtype), "fill": _fill(dataset, dtype), "codecs": []}
    whole = tuple(max(n, 1) for n in shape)
    nbytes = dtype.itemsize * math.prod(shape)
    if not dataset.id.get_storage_size() or not nbytes:  # nothing was ever written
        chunks = dataset.chunks + shape[len(dataset.shape) :] if dataset.chunks else whole
        return {**facts, "chunks": list(chunks), "columns": 0}, (b"", b"", b"")
    if nbytes > MAX_COMPARED:
        raise Unsupported(f"{nbytes} bytes, and at most {MAX_COMPARED} are read and compared")
    if dataset.chunks is not None:
        return _chunked(dataset, dtype, facts, source)
    start = dataset.id.get_offset()
    if start is None:
        return None  # compact
    source.seek(start)
    if source.read(nbytes) != np.ascontiguousarray(dataset[...]).tobytes():
        raise Unsupported("its bytes are not what the library reads")
    room = job["size"] - start - nbytes
    chunks = split_rows(shape, dtype.itemsize, job["max_chunk"], room_after=room)
    table = contiguous_manifest(shape, chunks, dtype.itemsize, start)
    index = np.arange(table.offset.size, dtype=np.uint64)
    facts |= {"chunks": list(chunks), "columns": index.size}
    return facts, (index.tobytes(), table.offset.tobytes(), table.length.tobytes())


def _chunked(
    dataset: h5py.Dataset,
    dtype: np.dtype[Any],
    facts: dict[str, Any],
    source: io.RawIOBase | io.BytesIO,
) -> tuple[dict[str, Any], Blobs]:
    inner = dataset.dtype.subdtype[1] if dataset.dtype.subdtype else ()
    chunks = dataset.chunks + inner
    grid = tuple(-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True))
    if math.prod(grid) > MAX_CELLS:
        raise Unsupported(f"{math.prod(grid)} chunks, at most {MAX_CELLS} are compared")
    corners = np.array(list(np.ndindex(grid))) * np.array(dataset.chunks)
    places, infos = _chunk_table(dataset, grid, corners)
    masks = {info.filter_mask for info in infos}
    if len(masks) > 1:
        raise Unsupported("chunks that skipped different filters")
    nbytes = math.prod(chunks) * dtype.itemsize
    encoding = encoding_of(_filters(dataset), chunk_nbytes=nbytes, mask=min(masks, default=0))
    nothing = np.full(chunks, scalar_from_json(facts["fill"], dtype), dtype)
    by_place = dict(zip(places.tolist(), infos, strict=True))
    for place, corner in enumerate(corners):
        ours = nothing
        if place in by_place:
            source.seek(by_place[place].byte_offset)
            raw = source.read(by_place[place].size) or b""
            ours = np.frombuffer(decode(raw, encoding, size=nbytes), dtype).reshape(chunks)
        stop = np.minimum(corner + np.array(dataset.chunks), dataset.shape)
        theirs = dataset[tuple(map(slice, corner.tolist(), stop.tolist()))]
        inside = ours[tuple(map(slice, (stop - corner).tolist()))]
        if inside.tobytes() != np.ascontiguousarray(theirs).tobytes():
            raise Unsupported("its chunks do not decode to what the library reads")
    offset = np.array([info.byte_offset for info in infos], np.uint64)
    length = np.array([info.size for info in infos], np.uint64)
    facts |= {
        "chunks": list(chunks),
        "columns": int(places.size),
        "codecs": [[codec.name, dict(codec.config)] for codec in encoding.codecs],
    }
    return facts, (places.astype(np.uint64).tobytes(), offset.tobytes(), length.tobytes())


def _chunk_table(
    dataset: h5py.Dataset,
    grid: tuple[int, ...],
    corners: Any,  # array of ints, shape (cells, rank)
) -> tuple[Any, list[Any]]:
    """Return flat chunk indices, ascending, and what h5py knows of these chunks.

    libhdf5 lists the chunks of an extensible array whose unlimited dimension is not the slowest as
    if none were moved, but finds each where it is. Finding takes as long as listing all.
    """
    infos: list[Any] = []
    if dataset.id.get_num_chunks() <= FEW_CHUNKS and len(corners) <= FEW_CHUNKS:
        found = [dataset.id.get_chunk_info_by_coord(tuple(corner)) for corner in corners.tolist()]
        infos = [info for info in found if info.byte_offset is not None]
        places = np.flatnonzero([info.byte_offset is not None for info in found])
        return places, infos
    dataset.id.chunk_iter(infos.append)
    starts = np.array([info.chunk_offset for info in infos]) // np.array(dataset.chunks)
    places = np.ravel_multi_index(tuple(starts.T), grid)  # a ValueError where one is outside
    order = np.argsort(places)
    if (np.diff(places[order]) == 0).any():
        raise Unsupported("a chunk that is stored twice")
    return places[order], [infos[row] for row in order.tolist()]


def _filters(dataset: h5py.Dataset) -> tuple[Filter, ...]:
    plist = dataset.id.get_create_plist()
    pipeline = [plist.get_filter(number) for number in range(plist.get_nfilters())]
    return tuple(
        Filter(code, bool(flags & h5z.FLAG_OPTIONAL), name.decode("utf-8", "replace"), client)
        for code, flags, client, name in pipeline
    )


def _inlined(
    dataset: h5py.Dataset, dtype: np.dtype[Any], shape: tuple[int, ...], job: Job
) -> tuple[dict[str, Any], Blobs]:
    packed = repack_fields(dtype, recurse=True) if dtype.fields else dtype
    spelled = dtype_to_json(packed)
    _check_size(math.prod(shape) * packed.itemsize, job)
    values = np.empty(shape, packed)
    memory = np.asarray(dataset[...])
    values[...] = repack_fields(memory, recurse=True) if dtype.fields else memory
    facts = {"dtype": spelled, "fill": None, "codecs": [], "chunks": [max(n, 1) for n in shape]}
    return facts, (values.tobytes(),)


def _strings(dataset: h5py.Dataset, facts: dict[str, Any], job: Job) -> tuple[Any, Blobs]:
    _check_size(8 * math.prod(dataset.shape), job)
    values = np.asarray(dataset[...], object)
    data = encode_strings([bytes(item) for item in values.ravel().tolist()])
    _check_size(len(data), job)
    facts |= {
        "dtype": "|O",
        "fill": "",
        "codecs": [["vlen-utf8", {}]],
        "chunks": [max(n, 1) for n in dataset.shape],
    }
    return facts, (data,)


def _check_size(nbytes: int, job: Job) -> None:
    if nbytes > job["max_inline"]:
        raise Unsupported(
            f"{nbytes} bytes of values, at most {job['max_inline']} are kept in an index"
        )


def _fill(dataset: h5py.Dataset, dtype: np.dtype[Any]) -> Any:  # a JSON value
    plist = dataset.id.get_create_plist()
    is_never = plist.get_fill_time() == h5d.FILL_TIME_NEVER
    value = np.zeros((), dtype)
    if not is_never and plist.fill_value_defined() == h5d.FILL_VALUE_USER_DEFINED:
        value = np.asarray(dataset.fillvalue, dtype)
    if value.shape:
        raise Unsupported("a fill value that differs within an array datatype")
    return scalar_to_json(value[()])


def _axis_names(dataset: h5py.Dataset) -> list[str | None]:
    """Name the axes that dimension scales name; of several scales the last."""
    names: list[str | None] = [None] * len(dataset.shape)
    with suppress(*FAILURES):
        if dataset.is_scale and names:
            names[0] = variable_name(dataset.name.rpartition("/")[2])
            return names
        for axis in range(len(names)):
            scales = dataset.dims[axis].values()
            if scales:
                names[axis] = variable_name(scales[-1].name.rpartition("/")[2])
    return names
