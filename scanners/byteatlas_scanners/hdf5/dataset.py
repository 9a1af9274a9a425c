"""A dataset's header messages, and the virtual array that they describe."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from byteatlas.codecs import encode, only_decodes
from byteatlas.convert import Convert, convert
from byteatlas.errors import Malformed, MissingDependency, Unsupported
from byteatlas.heap import Heap
from byteatlas.model import ChunkManifest, Codec, Encoding, VirtualArray
from byteatlas_scanners.hdf5.chunks import ChunkColumns, ChunkLayout, read_chunk_index
from byteatlas_scanners.hdf5.filters import Filter, encoding_of
from byteatlas_scanners.hdf5.layout import Compact, Contiguous, Virtual
from byteatlas_scanners.hdf5.values import (
    assemble,
    convert_chunks,
    encode_strings,
    heap_bytes,
    read_chunks,
    read_records,
    read_sequences,
    read_strings,
)
from byteatlas_scanners.splitting import contiguous_manifest, split_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from byteatlas.scanners import ScanOptions
    from byteatlas.steps import Steps
    from byteatlas_scanners.hdf5.dataspace import Dataspace
    from byteatlas_scanners.hdf5.datatype import Datatype
    from byteatlas_scanners.hdf5.file import Hdf5File
    from byteatlas_scanners.hdf5.fill_value import FillValue
    from byteatlas_scanners.hdf5.global_heap import GlobalHeap

__all__ = ["DatasetHeader", "fill_value_of", "read_array", "uncut"]

FEW_CHUNKS = 1000
"""Chunks that skipped a filter are kept inline up to this number..."""
FEW_BYTES = 2**20
"""...and this many bytes; so are values that must be rearranged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetHeader:
    """What the messages of a dataset's header say."""

    dataspace: Dataspace
    datatype: Datatype
    layout: Compact | Contiguous | ChunkLayout | Virtual
    filters: tuple[Filter, ...]
    fill: FillValue
    external_files: bytes | None = None
    """The message that lists the files of external data, as it is stored."""

    @property
    def is_elsewhere(self) -> bool:
        """Tell whether the values lie in other files or other datasets."""
        return self.external_files is not None or isinstance(self.layout, Virtual)

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents with those of an array datatype."""
        return self.dataspace.shape + self.datatype.shape


def read_array(
    file: Hdf5File, header: DatasetHeader, heap: GlobalHeap, options: ScanOptions
) -> Steps[VirtualArray]:
    """Turn a dataset into a virtual array, without dimension names or attributes.

    Raises
    ------
    Unsupported
        No byte ranges express it; the message is the reason that the report gives.
    """
    datatype = header.datatype
    if header.dataspace.is_null:
        raise Unsupported("a null dataspace: it has no elements, not even a shape")
    if datatype.refusal:
        raise Unsupported(datatype.refusal)
    if isinstance(header.layout, Virtual):
        raise Unsupported("a virtual dataset, whose values are in other datasets")
    if header.external_files is not None:
        raise Unsupported("its values are in external files")
    if isinstance(header.layout, ChunkLayout):
        chunk_shape, manifest, encodings = yield from _chunked(file, header, header.layout)
    else:
        chunk_shape, manifest = _unchunked(file, header, options)
        encodings = (Encoding(),)
    if datatype.is_read_now:
        return (
            yield from _from_heap(file, header, heap, options, chunk_shape, manifest, encodings)
        )
    if datatype.moves is not None:
        manifest, encodings = yield from _converted(header, chunk_shape, manifest, encodings)
    if _differs_within_element(header) and manifest.missing_count:
        manifest, fill_value = _filled(header, chunk_shape, manifest, encodings), None
    else:
        fill_value = fill_value_of(header) if manifest.missing_count else None
    return VirtualArray(
        shape=header.shape,
        dtype=datatype.dtype,
        chunk_shape=chunk_shape,
        manifest=manifest,
        encodings=encodings,
        fill_value=fill_value,
        notes={"enum": datatype.enum} if datatype.enum else {},
    )


def _unchunked(
    file: Hdf5File, header: DatasetHeader, options: ScanOptions
) -> tuple[tuple[int, ...], ChunkManifest]:
    """Compact and contiguous data: uncompressed, in C order."""
    datatype, shape = header.datatype, header.shape
    itemsize = datatype.size // math.prod(datatype.shape)
    nbytes = header.dataspace.elements * datatype.size
    whole = tuple(max(n, 1) for n in shape)
    grid = tuple(min(n, 1) for n in shape)
    layout = header.layout
    if isinstance(layout, Compact):
        if len(layout.data) < nbytes:
            raise Malformed(f"compact data of {len(layout.data)} bytes, {nbytes} are needed")
        return whole, ChunkManifest.empty(grid, {0: layout.data[:nbytes]} if nbytes else None)
    assert isinstance(layout, Contiguous)
    if layout.address is None or not nbytes:
        chunk_shape = split_rows(shape, itemsize, options.max_chunk, room_after=0)
        cells = tuple(-(-n // c) for n, c in zip(shape, chunk_shape, strict=True))
        return chunk_shape, ChunkManifest.empty(cells)
    if layout.size is not None and layout.size < nbytes:
        raise Malformed(
            f"contiguous data of {layout.size} bytes, {nbytes} are needed",
            offset=file.base + layout.address,
        )
    begin = file.span(layout.address, nbytes, "contiguous data").offset
    if datatype.is_read_now or datatype.moves is not None:
        chunk_shape = whole
    else:
        room = file.size - begin - nbytes
        chunk_shape = split_rows(shape, itemsize, options.max_chunk, room_after=room)
    return chunk_shape, contiguous_manifest(shape, chunk_shape, itemsize, begin)


def uncut(file: Hdf5File, header: DatasetHeader, array: VirtualArray) -> VirtualArray:
    """Return an array with its contiguous data in one piece, whatever its size."""
    shape = array.shape
    whole = tuple(max(n, 1) for n in shape)
    layout = header.layout
    if not isinstance(layout, Contiguous) or layout.address is None or array.chunk_shape == whole:
        return array
    begin = file.base + layout.address
    manifest = contiguous_manifest(shape, whole, array.dtype.itemsize, begin)
    return replace(array, chunk_shape=whole, manifest=manifest)


def _chunked(
    file: Hdf5File, header: DatasetHeader, layout: ChunkLayout
) -> Steps[tuple[tuple[int, ...], ChunkManifest, tuple[Encoding, ...]]]:
    datatype, dataspace = header.datatype, header.dataspace
    if len(layout.chunk_shape) != len(dataspace.shape):
        raise Malformed(
            f"chunks of rank {len(layout.chunk_shape)} in a dataset of rank {len(dataspace.shape)}"
        )
    nbytes = math.prod(layout.chunk_shape) * datatype.size
    if nbytes != layout.chunk_nbytes:
        raise Malformed(f"chunks of {layout.chunk_nbytes} bytes, the datatype gives {nbytes}")
    chunk_shape = layout.chunk_shape + datatype.shape
    grid = tuple(-(-n // c) for n, c in zip(header.shape, chunk_shape, strict=True))
    columns = yield from read_chunk_index(file, layout, dataspace.shape, dataspace.max_shape)
    encodings, encoding = _encodings(header.filters, columns, nbytes)
    manifest = ChunkManifest.build(
        grid, columns.index, columns.address, columns.size, encoding=encoding
    )
    if len(encodings) > 1:
        manifest, encodings = yield from _same_encoding(manifest, encodings, nbytes)
    return chunk_shape, manifest, encodings


def _encodings(
    filters: tuple[Filter, ...], columns: ChunkColumns, nbytes: int
) -> tuple[tuple[Encoding, ...], NDArray[np.uint8] | None]:
    """Return the encodings that filter masks make, the most common first, and a column of them."""
    if columns.mask is None:
        return (encoding_of(filters, chunk_nbytes=nbytes),), None
    known = np.uint32((1 << len(filters)) - 1)
    masks, kinds, counts = np.unique(columns.mask & known, return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    if masks.size > 255:
        raise Unsupported(f"chunks of {masks.size} different filter masks")
    encodings = tuple(
        encoding_of(filters, chunk_nbytes=nbytes, mask=mask) for mask in masks[order].tolist()
    )
    place = np.empty(order.size, np.uint8)
    place[order] = np.arange(order.size)
    return encodings, place[kinds]


def _same_encoding(
    manifest: ChunkManifest, encodings: tuple[Encoding, ...], nbytes: int
) -> Steps[tuple[ChunkManifest, tuple[Encoding, ...]]]:
    """Encode a few odd chunks like all others and keep them inline, so that any client reads."""
    assert manifest.encoding is not None
    odd = manifest.encoding != 0
    rows = np.flatnonzero(odd)
    if only_decodes(encodings[0]):
        return manifest, encodings
    if rows.size > FEW_CHUNKS or int(manifest.length[rows].sum()) > FEW_BYTES:
        return manifest, encodings
    if rows.size * nbytes > 64 * FEW_BYTES:
        return manifest, encodings
    chunks = yield from read_chunks(manifest, encodings, nbytes, rows)
    index = np.arange(odd.size, dtype=np.uint64) if manifest.index is None else manifest.index
    return (
        ChunkManifest.build(
            manifest.grid_shape,
            index[~odd],
            manifest.offset[~odd],
            manifest.length[~odd],
            inline={flat: encode(data, encodings[0]) for flat, data in chunks.items()},
        ),
        encodings[:1],
    )


def _from_heap(
    file: Hdf5File,
    header: DatasetHeader,
    heap: GlobalHeap,
    options: ScanOptions,
    chunk_shape: tuple[int, ...],
    manifest: ChunkManifest,
    encodings: tuple[Encoding, ...],
) -> Steps[VirtualArray]:
    """Read values with variable-length strings, and keep them as one inline chunk.

    Strings that take too much room are left where they are, to be looked up on reading.
    """
    shape, datatype = header.shape, header.datatype
    item = datatype.size // math.prod(datatype.shape)
    nbytes = item * math.prod(-(-n // c) * c for n, c in zip(shape, chunk_shape, strict=True))
    fill = (header.fill.value or bytes(item))[:item]
    if len(fill) != item:
        raise Malformed(f"a fill value of {len(fill)} bytes for elements of {item}")
    is_large = nbytes > options.max_inline
    if is_large and not datatype.heap:
        raise Unsupported(
            f"{math.prod(shape)} elements with values in the heap, at most {options.max_inline} "
            "bytes of their heap IDs are read",
            hint="raise max_inline",
        )
    elements = fill  # the fill value is read as well
    if not is_large:
        chunks: dict[int, bytes] = {}
        if nbytes:
            chunks = yield from read_chunks(manifest, encodings, math.prod(chunk_shape) * item)
        elements = assemble(chunks, shape, chunk_shape, fill) + fill
    if is_large or (datatype.heap and heap_bytes(file, elements) > options.max_inline):
        return (
            yield from _pointing(
                file, header, heap, options, chunk_shape, manifest, encodings, fill
            )
        )
    dtype, encoding = datatype.dtype, Encoding((Codec("vlen-utf8"),))
    notes: dict[str, Any] = {}
    fill_value: Any = None
    if datatype.heap:
        *strings, last = yield from read_strings(file, heap, elements, options.max_inline)
        data, fill_value = encode_strings(strings), last.decode("utf-8")
    elif datatype.is_reference:  # `resolve_references` makes paths of the addresses
        data, notes = elements[:-item], {"reference": "object"}
    elif datatype.sequence:
        base = datatype.sequence
        data = yield from read_sequences(file, heap, elements[:-item], base, options.max_inline)
        encoding, notes = Encoding((Codec("vlen-bytes"),)), {"sequence": base.dtype.str}
    else:
        encoding = Encoding()
        dtype, data = yield from read_records(file, heap, elements, datatype, options.max_inline)
        data, fill_value = data[: -dtype.itemsize], np.frombuffer(data, dtype)[-1]
    return VirtualArray(
        shape=shape,
        dtype=dtype,
        chunk_shape=tuple(max(n, 1) for n in shape),
        manifest=ChunkManifest.empty(tuple(min(n, 1) for n in shape), {0: data} if nbytes else {}),
        encodings=(encoding,),
        fill_value=fill_value,
        notes=notes,
    )


def _pointing(
    file: Hdf5File,
    header: DatasetHeader,
    heap: GlobalHeap,
    options: ScanOptions,
    chunk_shape: tuple[int, ...],
    manifest: ChunkManifest,
    encodings: tuple[Encoding, ...],
    fill: bytes,
) -> Steps[VirtualArray]:
    """Leave strings in the heap: the chunks are virtual, and hold heap IDs."""
    if file.cache_image:
        raise Unsupported(
            "strings whose heap may be in the metadata cache image, and not yet in its place",
            hint="raise max_inline, or rewrite the file, for example with h5repack",
        )
    shape = header.shape
    if isinstance(header.layout, Contiguous) and manifest.virtual_count == 1:
        begin = int(manifest.offset[0])
        room = file.size - begin - len(fill) * math.prod(shape)
        chunk_shape = split_rows(shape, len(fill), options.max_chunk, room_after=room)
        manifest = contiguous_manifest(shape, chunk_shape, len(fill), begin)
    (text,) = yield from read_strings(file, heap, fill, options.max_inline)
    codecs = Heap(file.base, file.offset_size, file.length_size).codecs()
    return VirtualArray(
        shape=shape,
        dtype=np.dtype(object),
        chunk_shape=chunk_shape,
        manifest=manifest,
        encodings=tuple(Encoding((*codecs, *encoding.codecs)) for encoding in encodings),
        fill_value=text.decode("utf-8"),
    )


def _converted(
    header: DatasetHeader,
    chunk_shape: tuple[int, ...],
    manifest: ChunkManifest,
    encodings: tuple[Encoding, ...],
) -> Steps[tuple[ChunkManifest, tuple[Encoding, ...]]]:
    """Rearrange records now when they are few, else on decoding."""
    datatype = header.datatype
    assert datatype.moves is not None
    stored = datatype.size // math.prod(datatype.shape)
    decoded = datatype.dtype.itemsize
    nbytes = math.prod(chunk_shape) * stored
    if manifest.present_count * nbytes <= FEW_BYTES:
        with suppress(MissingDependency):  # whoever reads them may have what scanning has not
            chunks = yield from read_chunks(manifest, encodings, nbytes)
            inline = convert_chunks(chunks, datatype)
            return ChunkManifest.empty(manifest.grid_shape, inline), (Encoding(),)
    codec = Codec("byteatlas.convert", Convert.config(stored, decoded, datatype.moves))
    return manifest, tuple(Encoding((codec, *encoding.codecs)) for encoding in encodings)


def _differs_within_element(header: DatasetHeader) -> bool:
    """Tell whether the fill value of an array datatype is not one value all over."""
    value, datatype = header.fill.value, header.datatype
    if not datatype.shape or value is None or not header.fill.is_written:
        return False
    if len(value) != datatype.size:
        return False  # `fill_value_of` says so
    item = datatype.element.size
    return value != value[:item] * (datatype.size // item)


def _filled(
    header: DatasetHeader,
    chunk_shape: tuple[int, ...],
    manifest: ChunkManifest,
    encodings: tuple[Encoding, ...],
) -> ChunkManifest:
    """Keep chunks that were never written inline, where Zarr's one fill value does not do."""
    datatype, value = header.datatype, header.fill.value
    assert value is not None
    count = math.prod(chunk_shape) // math.prod(datatype.shape)
    nbytes = count * datatype.dtype.itemsize * math.prod(datatype.shape)
    if (
        manifest.missing_count > FEW_CHUNKS
        or manifest.missing_count * nbytes > FEW_BYTES
        or only_decodes(encodings[0])
    ):
        raise Unsupported("a fill value that differs within an array datatype")
    chunk = encode(datatype.values(value).tobytes() * count, encodings[0])
    is_missing = manifest.rows(np.arange(manifest.cells)) < 0
    is_missing[list(manifest.inline)] = False
    missing = dict.fromkeys(np.flatnonzero(is_missing).tolist(), chunk)
    return replace(manifest, inline={**manifest.inline, **missing})


def fill_value_of(header: DatasetHeader) -> Any:
    """Return the value of missing chunks, as a numpy scalar (Any: it follows the datatype).

    Where the file says that fill values are never written, what was not written has no defined
    value, and reads as zeros with h5py and here.
    """
    datatype, value = header.datatype, header.fill.value
    if value is None or not any(value) or not header.fill.is_written:
        return np.zeros((), datatype.dtype)[()]
    if len(value) != datatype.size:
        raise Malformed(f"a fill value of {len(value)} bytes for elements of {datatype.size}")
    data = np.frombuffer(value, np.uint8)
    if datatype.moves is not None:
        stored = datatype.size // math.prod(datatype.shape)
        data = convert(data, stored, datatype.dtype.itemsize, datatype.moves).reshape(-1)
    values = np.frombuffer(data.tobytes(), datatype.dtype)
    if values.size > 1 and (values != values[0]).any():
        raise Unsupported("a fill value that differs within an array datatype")
    return values[0]
