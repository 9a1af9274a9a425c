"""The header of a netCDF classic file: its dimensions, attributes and variables.

After "The NetCDF Classic Format Specification" (netCDF User's Guide, appendix B), whose names are
kept here, and "The CDF-5 File Format Specification" of PnetCDF.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from byteatlas.errors import Malformed, Unsupported
from byteatlas.model import Attribute, ByteRange
from byteatlas.scanners import Window
from byteatlas.steps import Steps

__all__ = ["Dim", "Header", "Var", "is_netcdf3", "read_header"]

MAGIC = b"CDF"
CLASSIC, OFFSET_64, DATA_64 = VERSIONS = (1, 2, 5)

NC_DIMENSION, NC_VARIABLE, NC_ATTRIBUTE = 10, 11, 12

NC_TYPES: Mapping[int, np.dtype[Any]] = {
    1: np.dtype("i1"),  # NC_BYTE
    2: np.dtype("S1"),  # NC_CHAR
    3: np.dtype(">i2"),  # NC_SHORT
    4: np.dtype(">i4"),  # NC_INT
    5: np.dtype(">f4"),  # NC_FLOAT
    6: np.dtype(">f8"),  # NC_DOUBLE
    7: np.dtype("u1"),  # NC_UBYTE, which like those below is of version 5 only
    8: np.dtype(">u2"),  # NC_USHORT
    9: np.dtype(">u4"),  # NC_UINT
    10: np.dtype(">i8"),  # NC_INT64
    11: np.dtype(">u8"),  # NC_UINT64
}

_INT = struct.Struct(">I")

_MAX_HEADER = 16 * 2**20
"""Longer headers are refused; two thousand variables of ten attributes each need 1 MiB."""
_MAX_RANK = 1024
"""NC_MAX_VAR_DIMS of the netCDF library."""


class Dim(NamedTuple):
    """A dimension; `dim_length` is 0 for the record dimension."""

    name: str
    dim_length: int


@dataclass(frozen=True, slots=True)
class Var:
    """A variable."""

    name: str
    dimids: tuple[int, ...]
    """Positions in the header's `dim_list`."""
    vatt_list: Mapping[str, Attribute]
    dtype: np.dtype[Any]
    """Type of the values in the file, which are big-endian."""
    begin: int
    """Offset of the first value, in bytes."""
    start: int
    """Offset of this entry of the header."""


@dataclass(frozen=True, slots=True)
class Header:
    """All that comes before the data."""

    numrecs: int | None
    """Number of records; None (STREAMING) where only the source's size tells it."""
    dim_list: tuple[Dim, ...]
    gatt_list: Mapping[str, Attribute]
    var_list: tuple[Var, ...]
    length: int
    """Number of bytes of the header itself."""


def is_netcdf3(head: memoryview) -> bool:
    """Tell whether a source that starts with these bytes is a netCDF classic file."""
    return len(head) >= 4 and bytes(head[:3]) == MAGIC and head[3] in VERSIONS


def read_header(window: Window) -> Steps[Header]:
    """Parse the header, which as a rule lies in the window's head.

    Another round fetches more where the head ends before it: up to where data begins, as far as
    the variables already read tell, else twice the bytes at hand.

    Raises
    ------
    Malformed
        The bytes break the specification.
    Unsupported
        The header is longer than 16 MiB.
    """
    data = window.head
    while True:
        fields = _Fields(data, window.size)
        try:
            return _read_header(fields)
        except _HeaderGoesOnError as more:
            needed = more.length
        if needed > _MAX_HEADER:
            raise Unsupported(f"the header has more than {_MAX_HEADER} bytes", offset=0)
        have = len(data)
        wanted = max(2 * have, needed)
        if needed < fields.first_begin < 8 * wanted:
            wanted = fields.first_begin
        wanted = min(wanted, window.size, _MAX_HEADER)
        (rest,) = yield [ByteRange(have, wanted - have)]
        data = memoryview(bytes(data) + bytes(rest))


def _read_header(fields: _Fields) -> Header:
    numrecs = fields.numrecs()
    dim_list = tuple(Dim(fields.name(), fields.count()) for _ in fields.items(NC_DIMENSION))
    _check_distinct("dimension", [dim.name for dim in dim_list], fields.position)
    gatt_list = _read_attributes(fields)
    var_list = tuple(_read_var(fields, dim_list) for _ in fields.items(NC_VARIABLE))
    _check_distinct("variable", [var.name for var in var_list], fields.position)
    return Header(numrecs, dim_list, gatt_list, var_list, fields.position)


def _read_var(fields: _Fields, dim_list: tuple[Dim, ...]) -> Var:
    start = fields.position
    name = fields.name()
    rank = fields.count()
    if rank > _MAX_RANK:
        raise Malformed(f"variable {name!r} has {rank} dimensions", offset=start)
    dimids = tuple(fields.count() for _ in range(rank))
    if any(dimid >= len(dim_list) for dimid in dimids):
        raise Malformed(
            f"variable {name!r} has the dimids {dimids}, but there are {len(dim_list)} dimensions",
            offset=start,
        )
    if any(dim_list[dimid].dim_length == 0 for dimid in dimids[1:]):
        raise Malformed(
            f"variable {name!r} has the record dimension in another place than the first",
            offset=start,
        )
    vatt_list = _read_attributes(fields)
    dtype = fields.nc_type()
    fields.skip_vsize()
    return Var(name, dimids, vatt_list, dtype, fields.begin(), start)


def _read_attributes(fields: _Fields) -> dict[str, Attribute]:
    """Read a list of attributes; of two with one name the first counts, as for netCDF4."""
    attributes: dict[str, Attribute] = {}
    for _ in fields.items(NC_ATTRIBUTE):
        name, dtype = fields.name(), fields.nc_type()
        values = fields.padded(fields.count() * dtype.itemsize)
        attributes.setdefault(name, _attribute(name, dtype, values))
    return attributes


def _attribute(name: str, dtype: np.dtype[Any], values: memoryview) -> Attribute:
    """Return an attribute's value as netCDF4 gives it."""
    if dtype.kind == "S":
        if name == "_FillValue":
            return np.bytes_(values)
        return str(values, "utf-8", "replace").replace("\0", "")
    array = np.frombuffer(values, dtype).astype(dtype.newbyteorder("="))
    if array.size != 1:
        return array
    scalar: np.generic = array[0]
    return scalar


def _check_distinct(what: str, names: list[str], end: int) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise Malformed(f"there are two {what}s of the name {name!r}", offset=end)
        seen.add(name)


class _HeaderGoesOnError(Exception):
    """The first `length` bytes of the window are needed, more than are at hand."""

    def __init__(self, length: int) -> None:
        super().__init__(length)
        self.length = length


class _Fields:
    """Takes the header's fields one after the other, none from beyond the window's end."""

    def __init__(self, data: memoryview, size: int) -> None:
        self.position = 0
        self.first_begin = 2**63
        """The smallest offset of data read so far; the header ends there at the latest."""
        self._data = data
        self._size = size
        magic = self.padded(4)
        if not is_netcdf3(magic):
            raise Malformed(f"expected CDF and a version of {VERSIONS}, found {bytes(magic)!r}")
        version = magic[3]
        # Counts of 32 bits are unsigned for the netCDF library, though not for the specification.
        self._count = struct.Struct(">q" if version == DATA_64 else ">I")
        self._begin = struct.Struct(">i" if version == CLASSIC else ">q")
        self._last_type = 11 if version == DATA_64 else 6

    def _pass_over(self, length: int) -> int:
        """Move on by so many bytes, and return where they start."""
        start = self.position
        end = start + length
        if end > self._size:
            raise Malformed(
                f"the header goes on, but the source ends at byte {self._size}",
                offset=start,
                length=length,
            )
        if end > len(self._data):
            raise _HeaderGoesOnError(end)
        self.position = end
        return start

    def _not_negative(self, form: struct.Struct) -> int:
        start = self._pass_over(form.size)
        value: int = form.unpack_from(self._data, start)[0]
        if value < 0:
            raise Malformed(f"expected a number that is not negative, found {value}", offset=start)
        return value

    def _int32(self) -> int:
        value: int = _INT.unpack_from(self._data, self._pass_over(4))[0]
        return value

    def padded(self, length: int) -> memoryview:
        """Take bytes that are padded to a multiple of 4."""
        start = self._pass_over(length + -length % 4)
        return self._data[start : start + length]

    def numrecs(self) -> int | None:
        """Take the number of records; None for STREAMING, which is all ones."""
        width = self._count.size
        if self._data[self.position : self.position + width] == b"\xff" * width:
            self.position += width
            return None
        return self.count()

    def count(self) -> int:
        """Take a count, a length or a dimid."""
        return self._not_negative(self._count)

    def skip_vsize(self) -> None:
        """Pass over a vsize: it follows from the rest, and is too narrow for a large variable."""
        self._pass_over(self._count.size)

    def begin(self) -> int:
        """Take the offset of a variable's data."""
        begin = self._not_negative(self._begin)
        self.first_begin = min(self.first_begin, begin)
        return begin

    def nc_type(self) -> np.dtype[Any]:
        """Take the type of stored values."""
        code = self._int32()
        if not 1 <= code <= self._last_type:
            raise Malformed(
                f"expected an nc_type from 1 to {self._last_type}, found {code}",
                offset=self.position - 4,
            )
        return NC_TYPES[code]

    def items(self, tag: int) -> range:
        """Take what precedes the items of a list: its tag and their number."""
        start = self.position
        found, nelems = self._int32(), self.count()
        if nelems and found != tag:
            raise Malformed(f"expected a list with the tag {tag}, found {found}", offset=start)
        return range(nelems)

    def name(self) -> str:
        """Take a name: in UTF-8, but older files may hold any bytes."""
        raw = self.padded(self.count())
        try:
            name = str(raw, "utf-8")
        except UnicodeDecodeError:
            name = str(raw, "latin-1")
        return name.partition("\0")[0]
