"""Values that must be read to be indexed: they are kept in the index itself.

Variable-length strings lie in heaps, not in chunks; records that no array type describes are
rearranged when they are few; chunks that skipped a filter are encoded like all others.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numcodecs import get_codec
from numcodecs.vlen import VLenUTF8

from byteatlas.codecs import decode
from byteatlas.convert import convert
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
    "encode",
    "encode_strings",
    "read_chunks",
    "read_records",
    "read_strings",
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


def encode(data: bytes, encoding: Encoding) -> bytes:
    """Encode one chunk."""
    buffer: Any = data
    for codec in encoding.codecs:
        buffer = get_codec({"id": codec.name, **codec.config}).encode(buffer)
    return bytes(buffer)


def convert_chunks(chunks: dict[int, bytes], datatype: Datatype) -> dict[int, bytes]:
    """Rearrange the records of decoded chunks into the datatype's numpy form."""
    assert datatype.moves is not None
    stored = datatype.size // math.prod(datatype.shape)
    return {
        flat: convert(
            np.frombuffer(data, np.uint8), stored, datatype.dtype.itemsize, datatype.moves
        ).tobytes()
        for flat, data in chunks.items()
    }


def read_strings(
    file: Hdf5File, heap: GlobalHeap, elements: bytes, limit: int
) -> Steps[list[bytes]]:
    """Read variable-length strings by their heap IDs, all in one round or two.

    Parameters
    ----------
    elements : the heap IDs, one after the other.

    Raises
    ------
    Unsupported
        A string is not UTF-8, or all together are longer than `limit` bytes.
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
    records = np.frombuffer(elements, np.uint8).reshape(-1, datatype.size)
    width = 8 + file.offset_size
    parts, widths = [records], []
    for offset in datatype.string_offsets:
        ids = records[:, offset : offset + width].tobytes()
        strings = yield from read_strings(file, heap, ids, limit)
        widths.append(max(map(len, strings), default=1) or 1)
        if (datatype.size + sum(widths)) * len(records) > limit:
            raise Unsupported(
                f"{len(records)} records with strings of up to {max(widths)} bytes, at most "
                f"{limit} bytes are kept in an index",
                hint="raise max_inline",
            )
        column = np.array(strings, f"S{widths[-1]}")
        parts.append(column.view(np.uint8).reshape(len(strings), widths[-1]))
    fixed = datatype.with_fixed_strings(widths)
    if fixed.refusal:
        raise Unsupported(fixed.refusal)
    whole = np.concatenate(parts, axis=1)
    if fixed.moves is None:
        return fixed.dtype, whole.tobytes()
    return fixed.dtype, convert(whole, fixed.size, fixed.dtype.itemsize, fixed.moves).tobytes()


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
