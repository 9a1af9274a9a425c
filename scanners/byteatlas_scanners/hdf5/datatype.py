"""The datatype message (HDF5 File Format 3.0, IV.A.2.d), as numpy understands it.

A type whose stored bytes numpy can view directly is *plain*. Fixed-size types that it cannot
(padded or null-terminated strings, compounds with gaps or big-endian members) come with `moves`
that rearrange each element. Types whose values lie elsewhere in the file (variable-length
strings) carry `heap`, and types that have no array form carry the reason in `refusal`.
"""

from __future__ import annotations

import math
import re
import struct
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from byteatlas.convert import Move, convert
from byteatlas.errors import Malformed, Unsupported

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from byteatlas_scanners.hdf5.file import Hdf5File

__all__ = ["Datatype", "HeapStrings", "parse_datatype"]

MAX_DEPTH = 16
MAX_SIZE = 2**31
MAX_SLOTS = 10_000
"""Variable-length strings in an element."""

FIXED_POINT, FLOATING_POINT, TIME, STRING, BITFIELD, OPAQUE = 0, 1, 2, 3, 4, 5
COMPOUND, REFERENCE, ENUM, VARIABLE_LENGTH, ARRAY, COMPLEX = 6, 7, 8, 9, 10, 11

# Sign position, exponent position, size and bias, mantissa position and size: IEEE 754.
_IEEE = {
    (15, 10, 5, 15, 0, 10): "f2",
    (31, 23, 8, 127, 0, 23): "f4",
    (63, 52, 11, 1023, 0, 52): "f8",
}

_H5PY_DATE = re.compile(rb"NUMPY:([<>]?[mM]8(?:\[\w+\])?)")
"""The tag of opaque bytes in which h5py keeps dates and durations."""


@dataclass(frozen=True, slots=True)
class HeapStrings:
    """Variable-length strings: each element holds a length and a global heap ID."""

    is_utf8: bool


@dataclass(frozen=True, slots=True)
class Datatype:
    """One datatype. Where `refusal` is set, nothing but `size` is meant."""

    size: int
    """Bytes of one element in the file, all of `shape` included."""
    dtype: np.dtype[Any] = field(default_factory=lambda: np.dtype("V1"))
    """Type of the values as they are presented."""
    shape: tuple[int, ...] = ()
    """Extents of an array datatype, which become further axes of its dataset."""
    moves: tuple[Move, ...] | None = None
    """How stored bytes are rearranged into `dtype`; None when they are it already."""
    heap: HeapStrings | None = None
    members: tuple[tuple[str, int, Datatype], ...] = ()
    """Name, offset and type of the members of a compound that holds variable-length strings; its
    `dtype` is known once the longest of them are, see `with_fixed_strings`."""
    is_reference: bool = False
    """Object references: the stored bytes are addresses, shown as the paths of what is there."""
    sequence: Datatype | None = None
    """The elements of a variable-length sequence, stored in the global heap."""
    enum: dict[str, int] | None = None
    is_fixed_string: bool = False
    refusal: str | None = None
    """Why no array can present it."""
    length: int = 0
    """Bytes that this description takes in its message."""

    @property
    def is_in_heap(self) -> bool:
        """Tell whether values, or some of their members, lie in the global heap."""
        return self.heap is not None or self.sequence is not None or bool(self.members)

    @property
    def is_read_now(self) -> bool:
        """Tell whether values can only be kept in the index: they lie elsewhere than in chunks."""
        return self.is_in_heap or self.is_reference

    @property
    def element(self) -> Datatype:
        """One element of the datatype's array."""
        if not self.shape:
            return self
        return replace(self, size=self.size // math.prod(self.shape), shape=())

    @property
    def id_size(self) -> int:
        """Bytes of a heap ID among the values; 0 where there is none."""
        if self.heap or self.sequence:
            return self.element.size
        return max((member.id_size for _, _, member in self.members), default=0)

    def values(self, data: memoryview | bytes) -> NDArray[Any]:
        """Return stored elements as values of `dtype`, shape (elements, *shape)."""
        if self.moves is not None:
            raw = np.frombuffer(data, np.uint8)
            data = convert(raw, self.element.size, self.dtype.itemsize, self.moves).tobytes()
        return np.frombuffer(data, self.dtype).reshape(-1, *self.shape)

    def string_slots(self) -> tuple[list[tuple[int, int]], int]:
        """Return where in an element the heap IDs of strings are, and how many members these make.

        Returns
        -------
        Offset of each, ascending, with the number of its member; and the number of such members.
        """
        slots, count = _slots(self, 0, 0)
        return sorted(slots), count

    def with_fixed_strings(self, widths: list[int]) -> Datatype:
        """Return this type with strings of fixed size in the place of each heap ID.

        Parameters
        ----------
        widths : bytes of the longest string of each member of variable length.
        """
        return _with_fixed_strings(self, iter(widths))


def _slots(
    datatype: Datatype, offset: int, member_number: int
) -> tuple[list[tuple[int, int]], int]:
    step, count = datatype.element.size, math.prod(datatype.shape)
    if not datatype.heap and not datatype.members:
        return [], member_number
    inner: list[tuple[int, int]] = [(0, member_number)] if datatype.heap else []
    last = member_number + len(inner)
    for _, start, member in datatype.members:
        found, last = _slots(member, start, last)
        inner += found
        if len(inner) > MAX_SLOTS:
            break
    if count * len(inner) > MAX_SLOTS:
        raise Unsupported(f"an element with more than {MAX_SLOTS} variable-length strings")
    return [(offset + i * step + at, number) for i in range(count) for at, number in inner], last


def _with_fixed_strings(datatype: Datatype, widths: Iterator[int]) -> Datatype:
    if not datatype.heap and not datatype.members:
        return datatype
    if datatype.heap:
        width = next(widths)
        element = Datatype(width, np.dtype(f"S{width}"), is_fixed_string=True)
    else:
        # Members that were not stored in the order of their offsets keep their order.
        fixed = [_with_fixed_strings(member, widths) for _, _, member in datatype.members]
        growth = [
            sum(
                after.size - before.size
                for after, (_, place, before) in zip(fixed, datatype.members, strict=True)
                if place < offset
            )
            for _, offset, _ in datatype.members
        ]
        members = [
            (name, offset + grown, member)
            for (name, offset, _), grown, member in zip(
                datatype.members, growth, fixed, strict=True
            )
        ]
        size = datatype.element.size + sum(
            after.size - before.size
            for after, (_, _, before) in zip(fixed, datatype.members, strict=True)
        )
        element = _record(members, size)
    return replace(element, size=element.size * math.prod(datatype.shape), shape=datatype.shape)


def parse_datatype(file: Hdf5File, body: memoryview, depth: int = 0) -> Datatype:
    """Parse a datatype message.

    Raises
    ------
    Malformed
        Sizes or counts contradict each other, or types are nested too deep.
    """
    if depth > MAX_DEPTH:
        raise Malformed(f"datatype: nested more than {MAX_DEPTH} deep")
    word, size = _header(body, 0)
    kind, version, bits = word & 15, word >> 4 & 15, word >> 8
    if not 1 <= version <= 5:
        raise Unsupported(f"datatype version {version}")
    if not 0 < size < MAX_SIZE:
        raise Malformed(f"datatype: an element of {size} bytes")
    parse = _CLASSES.get(kind)
    if parse is None:
        raise Unsupported(f"datatype class {kind}")
    return parse(file, body, version, bits, size, depth)


_header = struct.Struct("<II").unpack_from


def _order(bits: int) -> str:
    return ">" if bits & 1 else "<"


def _fixed_point(
    _file: Hdf5File, body: memoryview, _version: int, bits: int, size: int, _depth: int
) -> Datatype:
    return _integer(body, size, "i" if bits & 8 else "u", bits)


def _bitfield(
    _file: Hdf5File, body: memoryview, _version: int, bits: int, size: int, _depth: int
) -> Datatype:
    return _integer(body, size, "u", bits)


def _integer(body: memoryview, size: int, sign: str, bits: int) -> Datatype:
    offset, precision = struct.unpack_from("<HH", body, 8)
    if not 1 <= precision <= 8 * size - offset:
        raise Malformed(f"datatype: {precision} bits from bit {offset} of {size} bytes")
    if size in (1, 2, 4, 8) and precision == 8 * size:
        return Datatype(size, np.dtype(f"{_order(bits)}{sign}{size}"), length=12)
    if precision > 64:
        reason = f"integers of {precision} bits, numpy has at most 64"
        return Datatype(size, refusal=reason, length=12)
    width = next((width for width in (1, 2, 4) if size <= width), 8)
    order: Literal["<", ">"] = ">" if bits & 1 else "<"
    layout = (offset, precision, int(sign == "i"))
    move = Move("integer", 0, 0, size, size, width, order, layout)
    return Datatype(size, np.dtype(f"<{sign}{width}"), moves=(move,), length=12)


def _floating_point(
    _file: Hdf5File, body: memoryview, _version: int, bits: int, size: int, _depth: int
) -> Datatype:
    offset, precision, exponent, exponent_size, mantissa, mantissa_size, bias = struct.unpack_from(
        "<HHBBBBI", body, 8
    )
    sign = bits >> 8 & 255
    order: Literal["<", ">", "vax"] = "vax" if bits & 0x41 == 0x41 else ">" if bits & 1 else "<"
    layout = (sign, exponent, exponent_size, bias, mantissa, mantissa_size)
    refusal = f"floating point of {precision} bits that is not IEEE 754"
    if bits >> 4 & 3 != 2:  # the most significant bit of the mantissa is stored
        return Datatype(size, refusal=refusal, length=20)
    name = _IEEE.get(layout)
    if name and order != "vax" and (offset, precision) == (0, 8 * size) == (0, 8 * int(name[1])):
        return Datatype(size, np.dtype(order + name), length=20)
    for width in (2, 4, 8):  # the least that holds all values, as h5py chooses it
        move = Move("float", 0, 0, size, size, width, order, layout)
        if width >= size and move.is_sound(size, width):
            return Datatype(size, np.dtype(f"<f{width}"), moves=(move,), length=20)
    return Datatype(size, refusal=refusal, length=20)


def _time(
    _file: Hdf5File, _body: memoryview, _version: int, _bits: int, size: int, _depth: int
) -> Datatype:
    return Datatype(size, refusal="the HDF5 time datatype, which no library reads", length=10)


def _string(
    _file: Hdf5File, _body: memoryview, _version: int, bits: int, size: int, _depth: int
) -> Datatype:
    padding = bits & 15
    dtype = np.dtype(f"S{size}")
    if padding > 2:
        return Datatype(size, refusal=f"string padding {padding}", length=8)
    kind: Literal["null", "copy", "space"] = ("null", "copy", "space")[padding]
    if kind == "copy" or (kind == "null" and size == 1):
        return Datatype(size, dtype, is_fixed_string=True, length=8)
    moves = (Move(kind, 0, 0, size),)
    return Datatype(size, dtype, moves=moves, is_fixed_string=True, length=8)


def _opaque(
    _file: Hdf5File, body: memoryview, _version: int, bits: int, size: int, _depth: int
) -> Datatype:
    tag = bytes(body[8 : 8 + (bits & 255)]).rstrip(b"\0")
    length = 8 + (bits & 255)
    date = _H5PY_DATE.fullmatch(tag)
    if date and size == 8:
        with suppress(TypeError, ValueError, OverflowError):  # no such unit
            return Datatype(size, np.dtype(date[1].decode()), length=length)
    return Datatype(size, np.dtype(f"V{size}"), length=length)


def _reference(
    file: Hdf5File, _body: memoryview, _version: int, bits: int, size: int, _depth: int
) -> Datatype:
    if bits & 15 == 0:
        if size != file.offset_size:
            raise Malformed(f"datatype: an object reference of {size} bytes")
        return Datatype(size, np.dtype(object), is_reference=True, length=8)
    what = "region" if bits & 15 == 1 else "HDF5 1.12"
    return Datatype(
        size, refusal=f"{what} references, which mean nothing outside the file", length=8
    )


def _name(body: memoryview, position: int, version: int) -> tuple[str, int]:
    """Read a member's null-terminated name; return it and the position after it."""
    end = position
    while body[end]:
        end += 1
    name = bytes(body[position:end]).decode("utf-8", "backslashreplace")
    length = end - position + 1
    return name, position + (length if version >= 3 else -(-length // 8) * 8)


def _enum(
    file: Hdf5File, body: memoryview, version: int, bits: int, size: int, depth: int
) -> Datatype:
    base = parse_datatype(file, body[8:], depth + 1)
    count, position = bits & 0xFFFF, 8 + base.length
    names = []
    for _ in range(count):
        name, position = _name(body, position, version)
        names.append(name)
    length = position + count * base.size
    if len(body) < length:
        raise Malformed(f"datatype: an enumeration of {count} names and fewer values")
    if base.refusal or base.dtype.kind not in "iu" or base.size != size:
        why = base.refusal or "something else than integers"
        return Datatype(size, refusal=f"an enumeration of {why}", length=length)
    values = base.values(body[position:length])
    enum = dict(zip(names, values.tolist(), strict=True))
    if enum == {"FALSE": 0, "TRUE": 1} and size == 1 and base.moves is None:
        return Datatype(size, np.dtype("?"), length=length)
    return replace(base, enum=enum, length=length)


def _variable_length(
    file: Hdf5File, body: memoryview, _version: int, bits: int, size: int, depth: int
) -> Datatype:
    base = parse_datatype(file, body[8:], depth + 1)
    length = 8 + base.length
    if size != 8 + file.offset_size:
        raise Malformed(f"datatype: a heap reference of {size} bytes")
    if bits & 15 == 1:
        return Datatype(
            size, np.dtype(object), heap=HeapStrings(is_utf8=bits >> 8 & 15 == 1), length=length
        )
    why = base.refusal or ("references" if base.is_reference else None)
    if base.is_in_heap:
        why = "other values of variable length"
    elif base.shape or base.dtype.fields:
        why = "arrays" if base.shape else "compounds"
    return Datatype(
        size,
        np.dtype(object),
        sequence=base,
        refusal=f"variable-length sequences of {why}, which Zarr has no form for" if why else None,
        length=length,
    )


def _array(
    file: Hdf5File, body: memoryview, version: int, _bits: int, size: int, depth: int
) -> Datatype:
    rank = body[8]
    position = 12 if version < 3 else 9
    shape = struct.unpack_from(f"<{rank}I", body, position)
    position += 4 * rank * (2 if version < 3 else 1)
    base = parse_datatype(file, body[position:], depth + 1)
    count = math.prod(shape)
    if count * base.size != size:
        raise Malformed(f"datatype: an array {shape} of {base.size} bytes each, in {size} bytes")
    return replace(base, size=size, shape=shape + base.shape, length=position + base.length)


def _complex(
    file: Hdf5File, body: memoryview, _version: int, _bits: int, size: int, depth: int
) -> Datatype:
    base = parse_datatype(file, body[8:], depth + 1)
    length = 8 + base.length
    is_plain = not base.refusal and base.moves is None and base.dtype.kind == "f"
    if not is_plain or base.dtype.itemsize < 4 or 2 * base.size != size:
        return Datatype(
            size, refusal="complex numbers that are no pairs of 4- or 8-byte floats", length=length
        )
    return Datatype(size, np.dtype(f"{base.dtype.str[0]}c{size}"), length=length)


def _compound(
    file: Hdf5File, body: memoryview, version: int, bits: int, size: int, depth: int
) -> Datatype:
    position = 8
    members: list[tuple[str, int, Datatype]] = []
    for _ in range(bits & 0xFFFF):
        name, position = _name(body, position, version)
        if version >= 3:
            width = (size.bit_length() + 7) // 8
            offset = int.from_bytes(body[position : position + width], "little")
            position += width
        else:
            (offset,) = struct.unpack_from("<I", body, position)
            position += 4
        shape: tuple[int, ...] = ()
        if version == 1:
            rank = body[position]
            shape = struct.unpack_from("<4I", body, position + 12)[:rank]
            position += 28
        member = parse_datatype(file, body[position:], depth + 1)
        position += member.length
        if 0 in shape:
            raise Malformed(f"datatype: member {name!r} is an array {shape}")
        if shape:
            member = replace(member, size=member.size * math.prod(shape), shape=shape)
        if offset + member.size > size:
            raise Malformed(f"datatype: member {name!r} reaches beyond its {size} bytes")
        members.append((name, offset, member))
    result = _complex_pair(members, size) or _record(members, size)
    return replace(result, length=position)


def _complex_pair(members: list[tuple[str, int, Datatype]], size: int) -> Datatype | None:
    """Return complex for a compound (r, i) of two equal floats, as h5py does."""
    if len(members) != 2:
        return None
    (real, at_real, first), (imaginary, at_imaginary, second) = members
    if (real, imaginary) != ("r", "i") or first.refusal or second.refusal:
        return None
    if first.dtype != second.dtype or first.dtype.kind != "f" or first.shape or second.shape:
        return None
    half = first.dtype.itemsize
    if half < 4:
        return None
    if first.moves is None and (at_real, at_imaginary, size) == (0, half, 2 * half):
        return Datatype(size, np.dtype(f"{first.dtype.str[0]}c{size}"))
    moves = _member_moves(first, at_real, 0, 1) + _member_moves(second, at_imaginary, half, 1)
    return Datatype(size, np.dtype(f"<c{2 * half}"), moves=tuple(moves))


def _record(members: list[tuple[str, int, Datatype]], size: int) -> Datatype:
    """Return a packed little-endian record, with the moves that make it unless it is stored so.

    Clients disagree about big-endian members and gaps of records, so those are never shown.
    """
    fields: list[tuple[Any, ...]] = []
    moves: list[Move] = []
    position = 0
    if not members:
        return Datatype(size, refusal="a compound without members")
    names = [name for name, _, _ in members]
    if len(set(names)) != len(names) or "" in names:
        return Datatype(size, refusal=f"a compound with member names {names}")
    for name, _, member in members:
        what = member.refusal
        if member.sequence is not None:
            what = "variable-length sequences"
        if member.is_reference:
            what = "object references"
        if what:
            return Datatype(size, refusal=f"a compound whose member {name!r} holds {what}")
    if any(member.is_in_heap for _, _, member in members):
        places = sorted((offset, offset + member.size) for _, offset, member in members)
        if any(end > start for (_, end), (start, _) in pairwise(places)):
            return Datatype(size, refusal="a compound whose members overlap")
        return Datatype(size, np.dtype(object), members=tuple(members))
    for name, offset, member in members:
        target = member.dtype.newbyteorder("<") if member.dtype.kind != "V" else member.dtype
        fields.append((name, target, member.shape) if member.shape else (name, target))
        count = math.prod(member.shape)
        moves += _member_moves(member, offset, position, count)
        position += target.itemsize * count
    dtype = np.dtype(fields)
    is_stored_so = position == size and all(
        move.kind == "copy" and move.stored == move.decoded for move in moves
    )
    return Datatype(size, dtype, moves=None if is_stored_so else tuple(moves))


def _member_moves(member: Datatype, offset: int, position: int, count: int) -> list[Move]:
    dtype = member.dtype
    if member.moves is not None:
        step = member.size // count
        return [
            replace(
                move,
                stored=offset + i * step + move.stored,
                decoded=position + i * dtype.itemsize + move.decoded,
            )
            for i in range(count)
            for move in member.moves
        ]
    width = dtype.itemsize // 2 if dtype.kind == "c" else dtype.itemsize
    if dtype.kind != "V" and dtype.str[0] == ">" and width > 1:
        return [Move("swap", offset, position, dtype.itemsize * count, width)]
    return [Move("copy", offset, position, dtype.itemsize * count)]


_CLASSES = {
    FIXED_POINT: _fixed_point,
    FLOATING_POINT: _floating_point,
    TIME: _time,
    STRING: _string,
    BITFIELD: _bitfield,
    OPAQUE: _opaque,
    COMPOUND: _compound,
    REFERENCE: _reference,
    ENUM: _enum,
    VARIABLE_LENGTH: _variable_length,
    ARRAY: _array,
    COMPLEX: _complex,
}
