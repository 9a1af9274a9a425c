"""The codec `byteatlas.convert`: fixed-size records, rearranged on decoding.

Some formats store elements that no array type describes: strings that end at a null byte or in
spaces, records with gaps or with big-endian members, integers and floats of unusual widths. Each is
a fixed number of bytes, so decoding is a short list of moves, each done for all records at once.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

import numpy as np
from numcodecs.abc import Codec as NumcodecsCodec
from numpy.typing import NDArray

from byteatlas.errors import Malformed

__all__ = ["Convert", "Move", "convert"]


@dataclass(frozen=True, slots=True)
class Move:
    """Bytes of a stored record that go to a place of the decoded one."""

    kind: Literal["copy", "swap", "null", "space", "integer", "float"]
    """``copy`` as they are; ``swap`` the byte order of each item; ``null``: a string that ends at
    its first null byte; ``space``: a string that ends before its trailing spaces. What follows a
    string's end is decoded as nulls. ``integer`` and ``float``: each item is some bits, `layout`,
    of its bytes, and becomes a little-endian number of `width` bytes."""
    stored: int
    """First byte in the stored record."""
    decoded: int
    """First byte in the decoded record."""
    size: int
    """Number of stored bytes."""
    item: int = 1
    """Bytes of one item, for ``swap``, ``integer`` and ``float``."""
    width: int = 0
    """Bytes of one decoded number; 0 for all other kinds, which keep their size."""
    order: Literal["<", ">", "vax"] = "<"
    """Byte order of a stored number: least or most significant byte first, or least significant
    byte first in 16-bit words of which the most significant is first."""
    layout: tuple[int, ...] = ()
    """Bits are counted from the least significant. Of an ``integer``: its first bit, the number of
    bits, and 1 if the last is a sign. Of a ``float``: the bit of the sign, the first bit, number of
    bits and bias of the exponent, the first bit and number of bits of the mantissa, of which the
    leading 1 is not stored."""

    @property
    def decoded_size(self) -> int:
        """Number of decoded bytes."""
        return self.size // self.item * self.width if self.width else self.size

    def is_sound(self, stored: int, decoded: int) -> bool:
        """Tell whether the move makes sense for records of so many bytes before and after."""
        return (
            (_is_number(self) if self.kind in _NUMBERS else not self.width)
            and self.kind in ("copy", "swap", "null", "space", *_NUMBERS)
            and self.size >= 0
            and 0 <= self.stored <= stored - self.size
            and self.item >= 1
            and self.size % self.item == 0
            and 0 <= self.decoded <= decoded - self.decoded_size
        )


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
        target = result[:, move.decoded : move.decoded + move.decoded_size]
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
            case "integer" | "float":
                numbers = _NUMBERS[move.kind](_significant(part, move), move)
                target[:] = numbers.view(np.uint8).reshape(target.shape)
    return result


def _significant(part: NDArray[np.uint8], move: Move) -> NDArray[np.uint8]:
    """Return the bytes of each item, least significant first; shape (items, bytes)."""
    items = part.reshape(-1, move.item)
    if move.order == "vax":
        return items.reshape(len(items), -1, 2)[:, ::-1].reshape(items.shape)
    return items[:, ::-1] if move.order == ">" else items


def _bits(items: NDArray[np.uint8], first: int, count: int) -> NDArray[np.uint64]:
    """Return up to 64 bits of each item, as whole numbers."""
    start, shift = divmod(first, 8)
    part = items[:, start : -(-(first + count) // 8)]
    words = np.zeros((len(items), 16), np.uint8)
    words[:, : part.shape[1]] = part
    low, high = words.view("<u8").T
    if shift:
        low = low >> np.uint64(shift) | high << np.uint64(64 - shift)
    bits: NDArray[np.uint64] = low & np.uint64(2**count - 1)
    return bits


def _integers(items: NDArray[np.uint8], move: Move) -> NDArray[Any]:
    first, count, is_signed = move.layout
    numbers = _bits(items, first, count)
    if is_signed:
        sign = np.uint64(1 << count - 1)
        numbers = (numbers ^ sign) - sign
    return numbers.astype(f"<u{move.width}")


def _floats(items: NDArray[np.uint8], move: Move) -> NDArray[Any]:
    """Return floats of IEEE 754; where all bits of the exponent are set: infinite, or not a number.

    As in libhdf5, all bits of the mantissa are set in what is not a number.
    """
    sign, first, count, bias, mantissa, digits = move.layout
    exponent = _bits(items, first, count).astype(np.int64)
    fraction = _bits(items, mantissa, digits)
    is_normal = exponent > 0
    scaled = np.where(is_normal, fraction | np.uint64(1 << digits), fraction).astype("<f8")
    with np.errstate(over="ignore"):  # what is too large has an exponent of all bits set
        exact = np.ldexp(scaled, np.maximum(exponent, 1) - bias - digits)
        numbers: NDArray[Any] = exact.astype(f"<f{move.width}")
    is_special = exponent == 2**count - 1
    numbers[is_special] = np.inf
    words = numbers.view(f"<u{move.width}")
    words[is_special & (fraction > 0)] = 2 ** (8 * move.width - 1) - 1
    words |= (_bits(items, sign, 1) << np.uint64(8 * move.width - 1)).astype(words.dtype)
    return numbers


_NUMBERS = {"integer": _integers, "float": _floats}


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
        self._moves = tuple(
            Move(**{**move, "layout": tuple(move.get("layout", ()))}) for move in moves
        )
        fits = all(move.is_sound(stored, decoded) for move in self._moves)
        if stored < 1 or decoded < 1 or not fits:
            raise Malformed(f"{self.codec_id}: moves that do not fit their records")

    @staticmethod
    def config(stored: int, decoded: int, moves: tuple[Move, ...]) -> dict[str, Any]:
        """Return the codec's configuration as JSON values."""
        return {"stored": stored, "decoded": decoded, "moves": [_spelled(move) for move in moves]}

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


def _spelled(move: Move) -> dict[str, Any]:
    """Return a move as JSON values, without what only numbers have unless it is one."""
    names = [one.name for one in fields(move)]
    values = {name: getattr(move, name) for name in names if move.width or name in _OF_ALL}
    return {name: list(one) if isinstance(one, tuple) else one for name, one in values.items()}


_OF_ALL = ("kind", "stored", "decoded", "size", "item")


def _is_number(move: Move) -> bool:
    """Tell whether a number's bits lie in its item and fit its decoded type."""
    item = 8 * move.item
    is_known = move.order in ("<", ">") or (move.order == "vax" and move.item % 2 == 0)
    if not is_known or not all(0 <= number < 2**32 for number in move.layout):
        return False
    if move.kind == "integer" and len(move.layout) == 3:
        first, count, is_signed = move.layout
        is_inside = 1 <= count <= min(64, 8 * move.width) and first + count <= item
        return move.width in (1, 2, 4, 8) and is_inside and is_signed in (0, 1)
    if move.kind == "float" and len(move.layout) == 6 and move.width in (2, 4, 8):
        sign, first, count, bias, mantissa, digits = move.layout
        limits = np.finfo(f"f{move.width}")
        return (
            sign < item
            and 1 <= count <= 16
            and first + count <= item
            and 1 <= digits <= limits.nmant
            and mantissa + digits <= item
            and 2**count - 1 - bias <= limits.maxexp
            and 1 - bias >= limits.minexp
        )
    return False
