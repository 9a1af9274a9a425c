"""What every parser of a file needs to know: its size, base address and widths."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from byteatlas.errors import Malformed, Unsupported
from byteatlas.model import ByteRange

__all__ = ["Hdf5File"]

SPARE = 32 * 2**20
"""Bytes of structures that a file may have besides, so that no small file comes near the bound."""

_UNSIGNED = {2: struct.Struct("<H"), 4: struct.Struct("<I"), 8: struct.Struct("<Q")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hdf5File:
    """Facts of the superblock and its extension, handed to every parser."""

    size: int
    """Bytes in the window."""
    head: memoryview = field(default=memoryview(b""), repr=False)
    """Its first bytes, which are at hand: `byteatlas.steps.from_head`."""
    base: int = 0
    """Base address: every address in the file counts from here."""
    offset_size: int = 8
    """Width of an address ("size of offsets"), in bytes."""
    length_size: int = 8
    """Width of a length ("size of lengths"), in bytes."""
    group_leaf_k: int = 4
    """A symbol table node holds up to 2K entries."""
    group_internal_k: int = 16
    """K of the version 1 B-trees of groups."""
    istore_k: int = 32
    """K of the version 1 B-trees of chunks."""
    shared_table: tuple[int, int] | None = None
    """Address of the table of shared messages and the number of its indexes."""
    page_size: int = 0
    """Bytes of a page, where file space is managed in pages; else 0."""
    cache_image: tuple[int, int] | None = None
    """Address and length of the metadata cache image, where the file was closed with one."""
    spent: list[int] = field(default_factory=lambda: [0], repr=False, compare=False)
    """Bytes of structures parsed so far, one number that all copies share; see `spend`."""
    undefined: int = field(init=False)
    """The undefined address: all bits set."""
    _offset: struct.Struct = field(init=False, repr=False)
    _length: struct.Struct = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for width in (self.offset_size, self.length_size):
            if width not in _UNSIGNED:
                raise Unsupported(f"superblock: addresses or lengths of {width} bytes")
        object.__setattr__(self, "undefined", 2 ** (8 * self.offset_size) - 1)
        object.__setattr__(self, "_offset", _UNSIGNED[self.offset_size])
        object.__setattr__(self, "_length", _UNSIGNED[self.length_size])

    def offset_at(self, data: memoryview | bytes, position: int) -> int:
        """Read an address (not yet counted from the base)."""
        return int(self._offset.unpack_from(data, position)[0])

    def length_at(self, data: memoryview | bytes, position: int) -> int:
        """Read a length."""
        return int(self._length.unpack_from(data, position)[0])

    def span(self, address: int, length: int, what: str) -> ByteRange:
        """Return the window's byte range of a structure at an address of the file.

        Raises
        ------
        Malformed
            The address is undefined, or the structure does not fit into the window.
        """
        start = self.base + address
        if address == self.undefined or length < 0 or start + length > self.size:
            raise Malformed(
                f"{what}: {length} bytes do not fit into the source's {self.size}", offset=start
            )
        return ByteRange(start, length)

    def spend(self, length: int, offset: int | None = None) -> None:
        """Count bytes of a structure that is about to be parsed.

        Structures do not overlap, and hardly any is read twice, so all together they are hardly
        more than the source. A forged file could name the same bytes again and again.

        Raises
        ------
        Malformed
            Far more bytes were parsed than the source has.
        """
        self.spent[0] += length
        if self.spent[0] > 4 * self.size + SPARE:
            raise Malformed(
                f"its structures overlap: {self.spent[0]} bytes of them, in {self.size}",
                offset=offset,
            )

    def guess(self, address: int, length: int, least: int, what: str) -> ByteRange:
        """Return a range of up to `length` bytes, for a structure whose size is not known yet.

        It is cut at the window's end, but never below `least` bytes.
        """
        start = self.base + address
        room = self.size - start
        return self.span(address, max(least, min(length, room)), what)
