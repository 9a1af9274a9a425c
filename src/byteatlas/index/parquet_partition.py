"""One partition of a Parquet index: columns of references to the bytes of a file, and back.

The columns are ``path``, ``offset``, ``size`` and ``raw``, and where chunks need them
``encoding`` and ``digest``. What makes a file that all readers of the layout read alike:

- No pandas and no Arrow metadata: with them, missing paths become NaN in one reader, and paths
  become numbers in another.
- The first four columns are always there, in this order, as text, two numbers and bytes.
- Numbers have statistics: fastparquet, by which fsspec reads, takes those without for floats.
- Numbers are delta-encoded where all deltas lie within 28 bits, else plain. fastparquet gives
  wrong numbers for wider deltas, without an error. Where offsets jump further, as from one
  source to the next, a new row group begins.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from byteatlas.errors import Malformed, MissingDependency
from byteatlas.limits import Limits
from byteatlas.model import WHOLE, Buffer

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Rows", "decode_partition", "encode_partition", "lengths_of", "require_pyarrow"]

_MAX_DELTA_RANGE = 2**28
_LEAST_ROWS = 2000
"""Rows of a row group, on average: each costs a reader about as much as so many rows."""
_FREE = 16 * 2**20
"""Bytes of text and inlined chunks that a partition may always have, however small it is."""


class Rows(NamedTuple):
    """The references of one partition; row i is the i-th chunk of its part of the grid."""

    urls: list[str]
    """The distinct URLs."""
    url: NDArray[np.int32]
    """Position in `urls`, -1 where there is none, shape (rows,)."""
    offset: NDArray[np.int64]
    """First byte, shape (rows,)."""
    size: NDArray[np.int64]
    """Number of bytes, shape (rows,); 0 at offset 0 means the whole source."""
    raw: dict[int, bytes]
    """Row to the bytes of an inlined chunk; with a URL, an empty range of it."""
    encoding: NDArray[np.uint8] | None = None
    """Position in the array's table of encodings, shape (rows,)."""
    digest: NDArray[np.uint64] | None = None
    """Digest of each chunk, shape (rows,)."""


def require_pyarrow() -> None:
    """Refuse to go on without pyarrow.

    Raises
    ------
    MissingDependency
        It is not installed; the message says how to install it.
    """
    try:
        import pyarrow.parquet  # noqa: F401, PLC0415  # heavy, and only for Parquet indexes
    except ImportError as error:
        raise MissingDependency(
            f"a Parquet index needs pyarrow: {error}", hint="pip install 'byteatlas[parquet]'"
        ) from error


def encode_partition(rows: Rows) -> bytes:
    """Return the bytes of a partition's file, the same for the same rows."""
    import pyarrow as pa  # noqa: PLC0415  # heavy, and only for Parquet indexes
    import pyarrow.parquet as pq  # noqa: PLC0415

    numbers = {"offset": rows.offset, "size": rows.size}
    raw = pa.nulls(rows.url.size, pa.binary())
    if rows.raw:
        kept = np.zeros(rows.url.size, object)
        kept[:] = None
        kept[list(rows.raw)] = list(rows.raw.values())
        raw = pa.array(kept, pa.binary())
    place = pa.array(rows.url, mask=rows.url < 0)
    columns: dict[str, Any] = {
        "path": pa.DictionaryArray.from_arrays(place, pa.array(rows.urls, pa.string())),
        **{name: pa.array(column) for name, column in numbers.items()},
        "raw": raw,
    }
    fields = [
        pa.field("path", columns["path"].type),
        *(pa.field(name, pa.int64(), nullable=False) for name in numbers),
        pa.field("raw", pa.binary()),
    ]
    for name, column in (("encoding", rows.encoding), ("digest", rows.digest)):
        if column is not None:
            columns[name] = pa.array(column)
            fields.append(pa.field(name, columns[name].type, nullable=False))
    table = pa.table(list(columns.values()), schema=pa.schema(fields))
    bounds = _row_groups(rows.offset)
    smooth = [name for name, column in numbers.items() if _is_smooth(column, bounds)]
    if "offset" not in smooth:
        bounds = [0, table.num_rows]
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        table.schema,
        compression="zstd",
        compression_level=3,
        use_dictionary=["path"],
        column_encoding=dict.fromkeys(smooth, "DELTA_BINARY_PACKED") or None,
        write_statistics=[name for name in columns if name not in ("path", "raw")],
        store_schema=False,
    ) as writer:
        for first, after in pairwise(bounds):
            writer.write_table(table.slice(first, after - first), max(after - first, 1))
    return bytes(sink.getvalue())


def _row_groups(offset: NDArray[np.int64]) -> list[int]:
    """Return where row groups begin, and the number of rows: at jumps, where they are few."""
    jumps = np.flatnonzero(np.abs(np.diff(offset)) >= _MAX_DELTA_RANGE // 2) + 1
    few = jumps if jumps.size * _LEAST_ROWS <= offset.size else jumps[:0]
    return [0, *few.tolist(), offset.size]


def _is_smooth(column: NDArray[np.int64], bounds: Sequence[int]) -> bool:
    """Tell whether all deltas of each row group lie in a range that all readers can undo."""
    deltas = np.diff(column)
    within = np.ones(deltas.size, np.bool_)
    within[np.array(bounds[1:-1], np.intp) - 1] = False
    deltas = deltas[within]
    return deltas.size > 0 and int(deltas.max()) - int(deltas.min()) < _MAX_DELTA_RANGE


def decode_partition(data: Buffer, rows: int, extra: Sequence[str], limits: Limits) -> Rows:
    """Return the references in a partition's file.

    Parameters
    ----------
    data
        The file.
    rows
        How many references are needed of it; further ones are padding.
    extra
        The columns that it must have beside those of the layout.
    limits
        How much it may hold.

    Raises
    ------
    Malformed
        It is no Parquet file, lacks a column or rows, or has other types or values.
    LimitExceeded
        It holds more than it may.
    """
    import pyarrow as pa  # noqa: PLC0415  # heavy, and only for Parquet indexes
    import pyarrow.parquet as pq  # noqa: PLC0415

    with _as_malformed():
        metadata = pq.read_metadata(pa.BufferReader(data))
        names = metadata.schema.to_arrow_schema().names
        file = pq.ParquetFile(
            pa.BufferReader(data),
            metadata=metadata,
            read_dictionary=["path"] if names.count("path") == 1 else None,
        )
        wanted = _wanted(file.schema_arrow, extra)
        _check_size(metadata, len(data), rows, limits)
        table = file.read(wanted, use_threads=False).slice(0, rows).combine_chunks()
        columns = {name: _single(table.column(name)) for name in wanted}
    if table.num_rows < rows:
        raise Malformed(f"the partition has {table.num_rows} rows, {rows} chunks need one each")
    urls, url = _paths(columns["path"]) if "path" in columns else ([], np.full(rows, -1, np.int32))
    raw = _inlined(columns["raw"], limits) if "raw" in columns else {}
    offset = _numbers(columns.get("offset"), url >= 0, "offset")
    size = _numbers(columns.get("size"), url >= 0, "size")
    more = {name: columns[name].to_numpy(zero_copy_only=False) for name in extra}
    return Rows(urls, url, offset, size, raw, **more)


@contextmanager
def _as_malformed() -> Iterator[None]:
    import pyarrow as pa  # noqa: PLC0415

    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        text = " ".join(str(error).split())
        raise Malformed(f"the partition cannot be read as Parquet: {text:.200}") from error


def _wanted(schema: pa.Schema, extra: Sequence[str]) -> list[str]:
    """Return the names of the columns to read, which must be there once and of the right type."""
    import pyarrow.types as kinds  # noqa: PLC0415

    def is_text(kind: pa.DataType) -> bool:
        kind = kind.value_type if kinds.is_dictionary(kind) else kind
        return bool(is_bytes(kind) or kinds.is_string(kind) or kinds.is_large_string(kind))

    def is_bytes(kind: pa.DataType) -> bool:
        return bool(kinds.is_binary(kind) or kinds.is_large_binary(kind) or kinds.is_null(kind))

    right = {
        "path": is_text,
        "offset": kinds.is_integer,
        "size": kinds.is_integer,
        "raw": lambda kind: is_bytes(kind) or is_text(kind),
        "encoding": kinds.is_uint8,
        "digest": kinds.is_uint64,
    }
    found = [name for name in ("path", "offset", "size", "raw", *extra) if name in schema.names]
    references = {"path", "offset", "size"}
    is_enough = references <= set(found) or (found == ["raw"])
    if not is_enough or not set(extra) <= set(found):
        raise Malformed(
            f"the partition has the columns {schema.names!r:.200}, expected"
            f" {['path', 'offset', 'size', 'raw', *extra]}"
        )
    for name in found:
        if schema.names.count(name) > 1:
            raise Malformed(f"the partition has the column {name!r} twice")
        if not right[name](schema.field(name).type):
            raise Malformed(f"the column {name!r} is of type {schema.field(name).type!s:.80}")
    return found


def _check_size(metadata: pa.FileMetaData, stored: int, rows: int, limits: Limits) -> None:
    """Refuse a partition that says it takes much memory."""
    limits.check("keys", max(rows, metadata.num_rows), "the number of rows of a partition")
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    claimed = sum(group.total_byte_size for group in groups) - 64 * metadata.num_rows
    if claimed > _FREE:
        limits.check("expansion", -(-claimed // max(stored, 1)), "the content of a partition")


def _single(column: pa.ChunkedArray) -> pa.Array:
    """Return a column of one or several row groups as one array."""
    import pyarrow as pa  # noqa: PLC0415

    if column.num_chunks == 1:
        return column.chunk(0)
    if pa.types.is_dictionary(column.type):
        column = column.unify_dictionaries()
    return column.combine_chunks()


def _paths(column: pa.Array) -> tuple[list[str], NDArray[np.int32]]:
    import pyarrow as pa  # noqa: PLC0415

    with _as_malformed():
        if pa.types.is_null(column.type):
            return [], np.full(len(column), -1, np.int32)
        if not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        column.validate(full=True)
        urls = column.dictionary.cast(pa.string()).to_pylist()
    if None in urls:
        raise Malformed("the dictionary of paths has a null")
    place = column.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return urls, place.astype(np.int32)


def _inlined(column: pa.Array, limits: Limits) -> dict[int, bytes]:
    import pyarrow as pa  # noqa: PLC0415

    if column.null_count == len(column):
        return {}
    with _as_malformed():
        rows = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
        kept = column.take(pa.array(rows)).cast(pa.large_binary()).to_pylist()
    limits.check("inline", max(map(len, kept)), "an inlined chunk")
    return dict(zip(rows.tolist(), kept, strict=True))


def _numbers(column: pa.Array | None, is_used: NDArray[np.bool_], name: str) -> NDArray[np.int64]:
    """Return offsets or sizes, which must be whole numbers from 0 to 2**63 - 1 where used."""
    if column is None:
        return np.zeros(is_used.size, np.int64)
    if column.null_count:
        is_null = column.is_null().to_numpy(zero_copy_only=False)
        if (is_null & is_used).any():
            raise Malformed(f"the column {name!r} has a null where there is a path")
        column = column.fill_null(0)
    values = column.to_numpy(zero_copy_only=False)
    wrong = np.flatnonzero(((values < 0) | (values > np.int64(2**63 - 1))) & is_used)
    if wrong.size:
        row = int(wrong[0])
        raise Malformed(f"the column {name!r} has {values[row]} in row {row}, expected 0 or more")
    numbers: NDArray[np.int64] = values.astype(np.int64)
    return numbers


def lengths_of(rows: Rows) -> NDArray[np.uint64]:
    """Return the lengths of references as a manifest has them: `WHOLE` where they are 0 at 0."""
    length = rows.size.astype(np.uint64)
    whole = (rows.size == 0) & (rows.offset == 0) & (rows.url >= 0)
    whole[list(rows.raw)] = False
    length[whole] = WHOLE
    return length
