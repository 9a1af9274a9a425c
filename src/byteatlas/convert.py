"""The codec `byteatlas.convert`: fixed-size records, rearranged on decoding.

Some formats store elements that no array type describes: strings that end at a null byte or in
spaces, records with gaps or with big-endian members. Each is a fixed number of bytes, so decoding
is a short list of moves, each done for all records at once.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numcodecs.abc import Codec as NumcodecsCodec
from numpy.typing import NDArray

from byteatlas.errors import Malformed

__all__ = ["Convert", "Move", "convert"]


@dataclass(frozen=True, slots=True)
class Move:
    """Bytes of a stored record that go to a place of the decoded one."""

    kind: Literal["copy", "swap", "null", "space"]
    """``copy`` as they are; ``swap`` the byte order of each item; ``null``: a string that ends at
    its first null byte; ``space``: a string that ends before its trailing spaces. What follows a
    string's end is decoded as nulls."""
    stored: int
    """First byte in the stored record."""
    decoded: int
    """First byte in the decoded record."""
    size: int
    """Number of bytes."""
    item: int = 1
    """Bytes of one item, for ``swap``."""


def convert(
    data: NDArray[np.uint8], stored: int, decoded: int, moves: tuple[Move, ...]
) -> NDArray[np.uint8]:
    """Rearrange records of `stored` bytes into records of `decoded` bytes.

    Parameters
    ----------
    data : uint8 array of any shape, holding whole records one after the other.

    Returns
    -------
    New array, shape (records, decoded), uint8; bytes that no move reaches are 0.
    """
    if data.size % stored:
        raise Malformed(f"{data.size} bytes are not whole records of {stored}")
    records = data.reshape(-1, stored)
    result = np.zeros((len(records), decoded), np.uint8)
    for move in moves:
        part = records[:, move.stored : move.stored + move.size]
        target = result[:, move.decoded : move.decoded + move.size]
        match move.kind:
            case "copy":
                target[:] = part
            case "swap":
                items = (len(records), move.size // move.item, move.item)
                target[:] = part.reshape(items)[:, :, ::-1].reshape(part.shape)
            case "null":
                target[:] = part * np.logical_and.accumulate(part != 0, axis=1)
            case "space":
                is_text = np.logical_or.accumulate((part != 32)[:, ::-1], axis=1)[:, ::-1]
                target[:] = part * is_text
    return result


class Convert(NumcodecsCodec):  # type: ignore[misc]  # numcodecs has no type information
    """The numcodecs codec of `convert`; it only decodes.

    Parameters
    ----------
    stored, decoded : bytes of a record before and after.
    moves : list of moves as JSON objects, see `Move`.
    """

    codec_id: ClassVar[str] = "byteatlas.convert"

    def __init__(self, stored: int, decoded: int, moves: list[dict[str, Any]]) -> None:
        self.stored = stored
        self.decoded = decoded
        self.moves = moves
        self._moves = tuple(Move(**move) for move in moves)
        fits = all(_fits(move, stored, decoded) for move in self._moves)
        if stored < 1 or decoded < 1 or not fits:
            raise Malformed(f"{self.codec_id}: moves that do not fit their records")

    @staticmethod
    def config(stored: int, decoded: int, moves: tuple[Move, ...]) -> dict[str, Any]:
        """Return the codec's configuration as JSON values."""
        return {"stored": stored, "decoded": decoded, "moves": [asdict(move) for move in moves]}

    def encode(self, buf: Any) -> Any:
        """Refuse: byteatlas reads, it does not write such records."""
        raise NotImplementedError("byteatlas.convert only decodes")

    def decode(self, buf: Any, out: Any = None) -> Any:
        """Return the decoded records, shape (records * decoded,), uint8."""
        data = np.frombuffer(buf, np.uint8)
        result = convert(data, self.stored, self.decoded, self._moves).reshape(-1)
        if out is None:
            return result
        np.frombuffer(out, np.uint8)[:] = result
        return out


def _fits(move: Move, stored: int, decoded: int) -> bool:
    return (
        move.kind in ("copy", "swap", "null", "space")
        and move.size >= 0
        and 0 <= move.stored <= stored - move.size
        and 0 <= move.decoded <= decoded - move.size
        and move.item >= 1
        and move.size % move.item == 0
    )
