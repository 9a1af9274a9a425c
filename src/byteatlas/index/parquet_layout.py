"""The kerchunk Parquet layout: which partition a chunk is in, and where partitions lie.

    ROOT/.zmetadata                  {"metadata": {key: object}, "record_size": N}
    ROOT/<array path>/refs.<r>.parq  the references of the flat chunk indices r N to (r + 1) N - 1

byteatlas notes in the extra key, of each array, which partitions there are and a digest of each
one's bytes: a partition that is gone, cut or another array's is told from one without chunks.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byteatlas.errors import Malformed, Unsupported, chain_links
from byteatlas.model import Buffer

__all__ = [
    "METADATA",
    "RECORD_SIZE",
    "PartitionTable",
    "bytes_digest",
    "check_directory",
    "check_writable",
    "has_parquet_name",
    "member_url",
    "partition_name",
]

METADATA = ".zmetadata"
"""Name of the file that makes a directory an index."""

RECORD_SIZE = 100_000
"""References in one partition, by default: some 300 KB.

Measured: with 10,000, a million references take three times as much CPU to write and twice as
much to read; with a million in one, the first chunk is found in 45 ms instead of 5.
"""


ENDINGS = (".parq", ".parquet", ".pq")
"""How the names of Parquet indexes end, in upper or lower case."""


def has_parquet_name(url: str) -> bool:
    """Tell whether a path or URL is named as a Parquet index, whatever may be there.

    >>> has_parquet_name("https://example.org/A.PARQUET/?sig=x")
    True
    """
    first = chain_links(url)[0] if "://" in url else url
    if first.lower().startswith(("http://", "https://")):
        first = first.partition("?")[0]
    return first.rstrip("/").lower().endswith(ENDINGS)


def partition_name(path: str, number: int) -> str:
    """Return where in an index the partition of an array is: ``a/temp/refs.0.parq``."""
    return f"{path.lstrip('/')}/refs.{number}.parq"


def check_directory(path: str) -> None:
    """Refuse an array path that cannot be a directory below the index.

    Raises
    ------
    Malformed
        It has a segment that leads elsewhere.
    """
    segments = path.lstrip("/").split("/")
    if any(part in ("", ".", "..") or "\\" in part or "\0" in part for part in segments):
        raise Malformed(f"{path!r:.200} cannot be a directory of an index", path=path)


def check_writable(path: str) -> None:
    """Refuse an array path that other readers of this layout take for metadata.

    Raises
    ------
    Unsupported
        A group or array has a name that begins with ``.z``.
    """
    check_directory(path)
    if any(part.startswith(".z") for part in path.split("/")):
        raise Unsupported(
            "a Parquet index cannot have names that begin with '.z'",
            path=path,
            hint="write a JSON index",
        )


def member_url(root: str, name: str) -> str:
    """Return the URL of a file of an index, given the index's own; both may have a query.

    >>> member_url("s3://bucket/a.parq/", ".zmetadata")
    's3://bucket/a.parq/.zmetadata'
    >>> member_url("https://example.org/a.parq?sig=x", "t/refs.0.parq")
    'https://example.org/a.parq/t/refs.0.parq?sig=x'
    >>> member_url("zip://a.parq::https://example.org/b.zip", ".zmetadata")
    'zip://a.parq/.zmetadata::https://example.org/b.zip'
    """
    links = chain_links(root) if "://" in root else [root]
    place = next((i for i, link in enumerate(links) if "://" in link), 0)
    link, query = links[place], ""
    if link.lower().startswith(("http://", "https://")):
        link, mark, rest = link.partition("?")
        query = mark + rest
        name = name.replace("%", "%25").replace("?", "%3F")
    links[place] = f"{link.rstrip('/')}/{name}{query}"
    return "::".join(links)


def bytes_digest(data: Buffer) -> int:
    """Return the digest of a partition's bytes: BLAKE2b of 8 bytes, as a little-endian number."""
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "little")  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True, eq=False)
class PartitionTable:
    """What the extra key knows of one array's partitions."""

    number: NDArray[np.uint64]
    """Which there are, ascending, shape (n,). All others hold no chunk."""
    size: NDArray[np.uint64]
    """Bytes of each, shape (n,)."""
    digest: NDArray[np.uint64]
    """Digest of each one's bytes, shape (n,)."""
    present: int
    """Chunks that are virtual or inlined, in all partitions."""
    inlined: int
    """Of these, chunks that are inlined."""
    columns: tuple[str, ...] = ()
    """Further columns of the partitions: ``encoding`` and ``digest``."""

    def find(self, number: int) -> tuple[int, int] | None:
        """Return size and digest of a partition, None where there is none."""
        row = int(np.searchsorted(self.number, np.uint64(number)))
        if row == self.number.size or int(self.number[row]) != number:
            return None
        return int(self.size[row]), int(self.digest[row])

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values; members that would be empty are left out."""
        entry: dict[str, Any] = {
            "size": _encoded(self.size),
            "digest": _encoded(self.digest),
        }
        if not np.array_equal(self.number, np.arange(self.number.size)):
            entry["number"] = _encoded(self.number)
        if self.inlined:
            entry["inlined"] = self.inlined
        if self.columns:
            entry["columns"] = list(self.columns)
        return entry

    @classmethod
    def from_json(cls, value: Any, present: Any, path: str) -> PartitionTable:
        """Return the table in the extra key of an index (Any: JSON, checked here).

        Raises
        ------
        Malformed
            It is none.
        """
        entry = value if isinstance(value, Mapping) else {}
        size = _decoded(entry, "size", path)
        digest = _decoded(entry, "digest", path)
        number = np.arange(size.size, dtype=np.uint64)
        if "number" in entry:
            number = _decoded(entry, "number", path)
        if not size.size == digest.size == number.size or (number[1:] <= number[:-1]).any():
            raise Malformed("the table of partitions is inconsistent", path=path)
        inlined, columns = entry.get("inlined", 0), entry.get("columns", [])
        is_count = all(type(count) is int and 0 <= count < 2**63 for count in (present, inlined))
        if not is_count or inlined > present:
            raise Malformed(
                f"the counts of chunks are {present!r:.40} and {inlined!r:.40}", path=path
            )
        known = ("encoding",), ("digest",), ("encoding", "digest"), ()
        if not isinstance(columns, list) or tuple(columns) not in known:
            raise Malformed(f"the columns {columns!r:.80} are not known", path=path)
        return cls(number, size, digest, present, inlined, tuple(columns))


def _encoded(column: NDArray[np.uint64]) -> str:
    return base64.b64encode(column.astype("<u8").tobytes()).decode("ascii")


def _decoded(entry: Mapping[str, Any], name: str, path: str) -> NDArray[np.uint64]:
    try:
        data = base64.b64decode(entry[name], validate=True)
        return np.frombuffer(data, "<u8").astype(np.uint64)
    except (KeyError, TypeError, ValueError) as error:
        raise Malformed(f"the table of partitions has no column {name!r}", path=path) from error
