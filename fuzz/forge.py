"""Hostile files, built byte by byte: what no library would write."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from byteatlas_scanners.hdf5.checksum import lookup3

__all__ = ["UNDEFINED", "Forge"]

UNDEFINED = 2**64 - 1


class Forge:
    """A file of the latest format with addresses and lengths of 8 bytes (HDF5 File Format 3.0).

    What is put into it lies one after the other behind the superblock.
    """

    def __init__(self) -> None:
        self.data = bytearray(48)

    @property
    def end(self) -> int:
        """Address of what is put next."""
        return len(self.data)

    def put(self, raw: bytes) -> int:
        """Append some bytes; return their address."""
        address = len(self.data)
        self.data += raw + bytes(-len(raw) % 8)
        return address

    def checked(self, raw: bytes) -> int:
        """Append a structure and its checksum."""
        return self.put(raw + lookup3(raw).to_bytes(4, "little"))

    def header(self, messages: Iterable[tuple[int, bytes]]) -> int:
        """Append an object header of version 2; each message is a type and a body."""
        body = b"".join(struct.pack("<BHB", kind, len(one), 0) + one for kind, one in messages)
        return self.checked(b"OHDR\x02\x02" + struct.pack("<I", len(body)) + body)

    def old_header(self, messages: Iterable[tuple[int, bytes]]) -> int:
        """Append an object header of version 1, which has no checksum."""
        return self.put(self.old_prefix(self.old_messages(messages)))

    @staticmethod
    def old_messages(messages: Iterable[tuple[int, bytes]]) -> bytes:
        """Return messages as headers of version 1 hold them."""
        padded = ((kind, one + bytes(-len(one) % 8)) for kind, one in messages)
        return b"".join(struct.pack("<HHB3x", kind, len(one), 0) + one for kind, one in padded)

    @staticmethod
    def old_prefix(body: bytes) -> bytes:
        """Return an object header of version 1 around its messages."""
        return struct.pack("<BxHII4x", 1, 1, 1, len(body)) + body

    def group(self, links: Iterable[tuple[bytes, int]], *others: tuple[int, bytes]) -> int:
        """Append a group: names and addresses of its members, and other messages."""
        return self.header([(10, b"\0\0"), *((6, link(*one)) for one in links), *others])

    def file(self, root: int) -> bytes:
        """Return the whole file."""
        head = b"\x89HDF\r\n\x1a\n\x02\x08\x08\x00"
        head += struct.pack("<QQQQ", 0, UNDEFINED, len(self.data), root)
        self.data[:48] = head + lookup3(head).to_bytes(4, "little")
        return bytes(self.data)


def link(name: bytes, address: int) -> bytes:
    """Return a hard link message."""
    return struct.pack("<BBH", 1, 1, len(name)) + name + struct.pack("<Q", address)


def dataspace(*shape: int) -> bytes:
    """Return a dataspace message of version 2."""
    return struct.pack("<BBBB", 2, len(shape), 0, 1) + struct.pack(f"<{len(shape)}Q", *shape)


INT8 = bytes([0x10, 0x08, 0, 0, 1, 0, 0, 0]) + struct.pack("<HH", 0, 8)
TEXT = bytes([0x19, 1, 0, 0, 16, 0, 0, 0]) + bytes([0x10, 0, 0, 0, 1, 0, 0, 0, 0, 0, 8, 0])
"""Variable-length strings."""


def attribute(name: bytes, datatype: bytes, space: bytes, data: bytes) -> bytes:
    """Return an attribute message of version 3."""
    head = struct.pack("<BBHHHB", 3, 0, len(name) + 1, len(datatype), len(space), 0)
    return head + name + b"\0" + datatype + space + data


def collection(objects: Iterable[bytes], size: int | None = None) -> bytes:
    """Return a global heap collection; its objects are numbered from 1."""
    body = b""
    for number, one in enumerate(objects, 1):
        body += struct.pack("<HHIQ", number, 1, 0, len(one)) + one + bytes(-len(one) % 8)
    return b"GCOL\x01\0\0\0" + struct.pack("<Q", size or 16 + len(body)) + body
