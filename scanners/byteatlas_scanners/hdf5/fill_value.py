"""The fill value messages, old and new (HDF5 File Format 3.0, IV.A.2.e and IV.A.2.f)."""

from __future__ import annotations

import struct
from typing import NamedTuple

from byteatlas.errors import Malformed, Unsupported

__all__ = ["FillValue", "parse_fill_value", "parse_old_fill_value"]

WRITTEN_NEVER = 1


class FillValue(NamedTuple):
    """What unallocated parts of a dataset read as."""

    value: bytes | None = None
    """One element as it is stored; None for the default, all bits zero."""
    is_written: bool = True
    """Whether new chunks are filled with it before data goes in."""


def parse_old_fill_value(body: memoryview) -> FillValue:
    """Parse message 0x0004, whose only content is the value."""
    (size,) = struct.unpack_from("<I", body, 0)
    return FillValue(_value(body, 4, size))


def parse_fill_value(body: memoryview) -> FillValue:
    """Parse message 0x0005 of version 1, 2 or 3."""
    version = body[0]
    if version in (1, 2):
        written, is_defined = body[2], body[3]
        has_value = bool(is_defined) or version == 1
        position = 4
    elif version == 3:
        flags = body[1]
        written, has_value = flags >> 2 & 3, bool(flags & 0x20)
        position = 2
    else:
        raise Unsupported(f"fill value message version {version}")
    value = None
    if has_value and len(body) >= position + 4:
        (size,) = struct.unpack_from("<i", body, position)
        value = _value(body, position + 4, max(size, 0))
    return FillValue(value, written != WRITTEN_NEVER)


def _value(body: memoryview, position: int, size: int) -> bytes | None:
    if position + size > len(body):
        raise Malformed(f"fill value: {size} bytes, the message ends before")
    return bytes(body[position : position + size]) if size else None
