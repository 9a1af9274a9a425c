"""The checksum of HDF5's metadata: Bob Jenkins' lookup3 (HDF5 File Format 3.0, "checksum" fields).

Every checked structure ends in four bytes, little-endian, that hash all bytes before them. The
hash itself is numcodecs' compiled one: a microsecond per kilobyte.
"""

from __future__ import annotations

import numpy as np
from numcodecs.jenkins import jenkins_lookup3
from numpy.typing import NDArray

from byteatlas.errors import Malformed
from byteatlas.model import Buffer

__all__ = ["lookup3", "lookup3_rows", "verify", "verify_rows"]


def lookup3(data: Buffer) -> int:
    """Return the lookup3 hash of some bytes, as an unsigned 32-bit integer."""
    return int(jenkins_lookup3(data, 0))


def lookup3_rows(rows: NDArray[np.uint8], lengths: int | NDArray[np.int64]) -> NDArray[np.uint32]:
    """Return the lookup3 hash of the start of each row.

    Parameters
    ----------
    rows : shape (count, width).
    lengths : how many bytes of each row count, one number or shape (count,); 1 to width.

    Returns
    -------
    shape (count,). One call per row, which stands for hundreds of references.
    """
    length = np.broadcast_to(np.asarray(lengths, np.int64), rows.shape[0]).tolist()
    hashes = (jenkins_lookup3(row[:n], 0) for row, n in zip(rows, length, strict=True))
    return np.fromiter(hashes, np.uint32, len(length))


def verify(block: Buffer, what: str, offset: int) -> None:
    """Check that a block ends in the checksum of the bytes before it.

    Parameters
    ----------
    block : the whole structure, its four bytes of checksum included.
    what : its name, for the error.
    offset : where it starts in the source, for the error.

    Raises
    ------
    Malformed
        It does not, or is shorter than a checksum.
    """
    if len(block) < 4:
        raise Malformed(f"{what} is too short for its checksum", offset=offset)
    stored = int.from_bytes(bytes(block[-4:]), "little")
    computed = jenkins_lookup3(block[:-4], 0)
    if stored != computed:
        raise _mismatch(what, stored, computed, offset, len(block))


def verify_rows(
    rows: NDArray[np.uint8],
    lengths: int | NDArray[np.int64],
    what: str,
    offsets: NDArray[np.uint64],
) -> None:
    """Check that the start of each row is followed by its checksum.

    Parameters
    ----------
    rows : shape (count, width).
    lengths : bytes before the checksum, one number or shape (count,); at most width - 4.
    what : name of the structures, for the error.
    offsets : where each row starts in the source, shape (count,), for the error.

    Raises
    ------
    Malformed
        A row is not: the error names the first.
    """
    length = np.broadcast_to(np.asarray(lengths, np.int64), rows.shape[0])
    if len(length) == 1:  # most trees are a single node
        verify(rows[0, : int(length[0]) + 4], what, int(offsets[0]))
        return
    column = length[:, None] + np.arange(4)
    stored = np.take_along_axis(rows, column, axis=1).view("<u4")[:, 0]
    computed = lookup3_rows(rows, length)
    wrong = np.flatnonzero(stored != computed)
    if wrong.size:
        first = wrong[0]
        raise _mismatch(
            what,
            int(stored[first]),
            int(computed[first]),
            int(offsets[first]),
            int(length[first]) + 4,
        )


def _mismatch(what: str, stored: int, computed: int, offset: int, length: int) -> Malformed:
    return Malformed(
        f"{what} has checksum 0x{stored:08x}, but its bytes give 0x{computed:08x}",
        offset=offset,
        length=length,
        hint="the file is damaged here",
    )
