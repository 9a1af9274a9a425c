"""Values that must be read to be indexed: they are kept in the index itself.

Variable-length strings lie in heaps, not in chunks; records that no array type describes are
rearranged when they are few; chunks that skipped a filter are encoded like all others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numcodecs.vlen import VLenBytes, VLenUTF8

from byteatlas.codecs import decode
from byteatlas.errors import Unsupported
from byteatlas.model import ByteRange, Encoding
from byteatlas_scanners.hdf5.global_heap import GlobalHeap, parse_heap_ids

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from byteatlas.model import ChunkManifest
    from byteatlas.steps import Steps
    from byteatlas_scanners.hdf5.datatype import Datatype
    from byteatlas_scanners.hdf5.file import Hdf5File

__all__ = [
    "assemble",
    "convert_chunks",
    "encode_strings",
    "fixed_records",
    "heap_bytes",
    "read_chunks",
    "read_records",
    "read_sequences",
    "read_strings",
    "record_ids",
]


def read_chunks(
    manifest: ChunkManifest,
    encodings: tuple[Encoding, ...],
    nbytes: int,
    rows: NDArray[np.intp] | None = None,
) -> Steps[dict[int, bytes]]:
    """Read and decode some rows of a manifest (all, unless told), in one round.

    Returns
    -------
    Flat chunk index to the decoded bytes, `nbytes` each; inline chunks are among them.
    """
    if rows is None:
        rows = np.arange(manifest.offset.size)
        result = {
            flat: _plain(data, encodings[0], nbytes) for flat, data in manifest.inline.items()
        }
    else:
        result = {}
    index = rows if manifest.index is None else manifest.index[rows]
    encoding = np.zeros(rows.size, int) if manifest.encoding is None else manifest.encoding[rows]
    replies = yield [
        ByteRange(*place)
        for place in zip(
            manifest.offset[rows].tolist(), manifest.length[rows].tolist(), strict=True
        )
    ]
    for flat, kind, data in zip(index.tolist(), encoding.tolist(), replies, strict=True):
        result[flat] = _plain(data, encodings[kind], nbytes)
    return result


def _plain(data: Any, encoding: Encoding, nbytes: int) -> bytes:
    return bytes(decode(data, encoding, size=nbytes))


def convert_chunks(chunks: dict[int, bytes], datatype: Datatype) -> dict[int, bytes]:
    """Rearrange the records of decoded chunks into the datatype's numpy form."""
    return {flat: datatype.values(data).tobytes() for flat, data in chunks.items()}


def heap_bytes(file: Hdf5File, elements: bytes, item_size: int = 1) -> int:
    """Return how many bytes the values of heap IDs say that they have."""
    return item_size * sum(count for count, _, _ in parse_heap_ids(file, elements))


def read_strings(
    file: Hdf5File, heap: GlobalHeap, elements: bytes, limit: int, *, is_text: bool = True
) -> Steps[list[bytes]]:
    """Read variable-length strings by their heap IDs, all in one round or two.

    Parameters
    ----------
    elements : the heap IDs, one after the other.
    is_text : whether they must be UTF-8.

    Raises
    ------
    Unsupported
        A string is not UTF-8 where it must be, or all together are longer than `limit` bytes.
    """
    ids = parse_heap_ids(file, elements)
    total = sum(count for count, _, _ in ids)
    if total > limit:
        raise Unsupported(
            f"{total} bytes of variable-length strings, at most {limit} are kept in an index",
            hint="raise max_inline",
        )
    yield from heap.load(address for count, address, _ in ids if count)
    strings = [bytes(item).partition(b"\0")[0] for item in heap.values(ids)]
    if not is_text:
        return strings
    try:
        b"\n".join(strings).decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unsupported(f"a variable-length string that is not UTF-8 ({error.reason})") from error
    return strings


def encode_strings(strings: list[bytes]) -> bytes:
    """Encode strings as one chunk of ``vlen-utf8``."""
    texts = np.empty(len(strings), object)
    texts[:] = [item.decode("utf-8") for item in strings]
    return bytes(VLenUTF8().encode(texts))


def read_records(
    file: Hdf5File, heap: GlobalHeap, elements: bytes, datatype: Datatype, limit: int
) -> Steps[tuple[np.dtype[Any], bytes]]:
    """Read compounds with variable-length strings; these become strings of fixed size.

    Returns
    -------
    The records' dtype and bytes.
    """
    ids = record_ids(file, elements, datatype)
    strings = yield from read_strings(file, heap, ids, limit, is_text=False)
    return fixed_records(elements, datatype, strings, limit)


def record_ids(file: Hdf5File, elements: bytes, datatype: Datatype) -> bytes:
    """Return the heap IDs in compounds: those of the first string of each, then of the second."""
    records = np.frombuffer(elements, np.uint8).reshape(-1, datatype.element.size)
    slots, _ = datatype.element.string_slots()
    return b"".join(records[:, at : at + 8 + file.offset_size].tobytes() for at, _ in slots)


def fixed_records(
    elements: bytes, datatype: Datatype, strings: list[bytes], limit: int
) -> tuple[np.dtype[Any], bytes]:
    """Put strings into compounds, in the place of their heap IDs, all of the longest's size."""
    datatype = datatype.element
    records = np.frombuffer(elements, np.uint8).reshape(-1, datatype.size)
    slots, count = datatype.string_slots()
    columns = [strings[place * len(records) :][: len(records)] for place in range(len(slots))]
    widths = [1] * count
    for (_, number), column in zip(slots, columns, strict=True):
        widths[number] = max(widths[number], *map(len, column), 1)
    fixed = datatype.with_fixed_strings(widths)
    if fixed.refusal:
        raise Unsupported(fixed.refusal)
    if fixed.size * len(records) > limit:
        raise Unsupported(
            f"{len(records)} records with strings of up to {max(widths)} bytes, at most "
            f"{limit} bytes are kept in an index",
            hint="raise max_inline",
        )
    parts, position = [], 0
    for (at, number), column in zip(slots, columns, strict=True):
        texts = np.array(column, f"S{widths[number]}").view(np.uint8)
        parts += [records[:, position:at], texts.reshape(len(records), widths[number])]
        position = at + datatype.id_size
    whole = np.concatenate([*parts, records[:, position:]], axis=1)
    return fixed.dtype, fixed.values(whole.tobytes()).tobytes()


def read_sequences(
    file: Hdf5File, heap: GlobalHeap, elements: bytes, base: Datatype, limit: int
) -> Steps[bytes]:
    """Read variable-length sequences, and encode them as one chunk of ``vlen-bytes``.

    Each item is the bytes of a sequence's values, of the numpy type of `base`.

    Raises
    ------
    Unsupported
        All together are longer than `limit` bytes.
    """
    total = heap_bytes(file, elements, base.size)
    if total > limit:
        raise Unsupported(
            f"{total} bytes of variable-length sequences, at most {limit} are kept in an index",
            hint="raise max_inline",
        )
    ids = parse_heap_ids(file, elements)
    yield from heap.load(address for count, address, _ in ids if count)
    items = np.empty(len(ids), object)
    items[:] = [base.values(item).tobytes() for item in heap.values(ids, base.size)]
    return bytes(VLenBytes().encode(items))


def assemble(
    chunks: dict[int, bytes], shape: tuple[int, ...], chunk_shape: tuple[int, ...], fill: bytes
) -> bytes:
    """Put decoded chunks of opaque elements together as one array in C order."""
    element = np.dtype(f"V{len(fill)}")
    whole = np.full(shape, np.frombuffer(fill, element)[0])
    grid = tuple(-(-n // c) for n, c in zip(shape, chunk_shape, strict=True))
    for flat, data in chunks.items():
        place = np.unravel_index(flat, grid) if grid else ()
        start = tuple(int(i) * c for i, c in zip(place, chunk_shape, strict=True))
        target = tuple(
            slice(first, min(first + c, n))
            for first, c, n in zip(start, chunk_shape, shape, strict=True)
        )
        inside = tuple(slice(0, part.stop - part.start) for part in target)
        whole[target] = np.frombuffer(data, element).reshape(chunk_shape)[inside]
    return whole.tobytes()
