"""The superblock and its extension (HDF5 File Format 3.0, II.A, II.B and IV.A.2)."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import TYPE_CHECKING

from byteatlas.errors import Malformed, Unsupported
from byteatlas_scanners.hdf5.checksum import verify
from byteatlas_scanners.hdf5.file import Hdf5File
from byteatlas_scanners.hdf5.object_header import read_header

if TYPE_CHECKING:
    from byteatlas.scanners import Window
    from byteatlas.steps import Steps

__all__ = ["find_signature", "read_superblock"]

SIGNATURE = b"\x89HDF\r\n\x1a\n"

# Message types of the superblock extension (IV.A.2).
SHARED_MESSAGE_TABLE = 0x0F
BTREE_K_VALUES = 0x13
DRIVER_INFO = 0x14
FILE_SPACE_INFO = 0x17
CACHE_IMAGE = 0x18

PAGED = 1  # a strategy of the file space info message


def find_signature(head: memoryview) -> int | None:
    """Return where the superblock starts: at byte 0, 512, 1024, 2048 and so on; or None."""
    start = 0
    while start + 8 <= len(head):
        if head[start : start + 8] == SIGNATURE:
            return start
        start = max(512, start * 2)
    return None


def read_superblock(window: Window) -> Steps[tuple[Hdf5File, int]]:
    """Read the superblock and its extension; return the facts and the root group's address."""
    base = find_signature(window.head)
    if base is None:
        raise Malformed("no HDF5 signature at byte 0, 512, 1024, ...", offset=0)
    block = window.head[base:]
    if len(block) < 48:
        raise Malformed("superblock: the source ends inside it", offset=base)
    version = block[8]
    if version in (0, 1):
        file, root = _version_0_1(block, base, window)
        return file, root
    if version not in (2, 3):
        raise Unsupported(f"superblock version {version}; 0 to 3 are known", offset=base)
    file = Hdf5File(
        size=window.size,
        head=window.head,
        base=base,
        offset_size=block[9],
        length_size=block[10],
    )
    width = file.offset_size
    end = 12 + 4 * width + 4
    verify(block[:end], "superblock", base)
    extension = file.offset_at(block, 12 + width)
    root = file.offset_at(block, 12 + 3 * width)
    if extension != file.undefined:
        file = yield from _read_extension(file, extension)
    return file, root


def _version_0_1(block: memoryview, base: int, window: Window) -> tuple[Hdf5File, int]:
    leaf_k, internal_k = struct.unpack_from("<HH", block, 16)
    start, istore_k = 24, 32
    if block[8] == 1:
        (istore_k,) = struct.unpack_from("<H", block, 24)
        start = 28
    file = Hdf5File(
        size=window.size,
        head=window.head,
        base=base,
        offset_size=block[13],
        length_size=block[14],
        group_leaf_k=leaf_k,
        group_internal_k=internal_k,
        istore_k=istore_k,
    )
    width = file.offset_size
    if len(block) < start + 6 * width:
        raise Malformed("superblock: the source ends inside it", offset=base)
    if file.offset_at(block, start + 3 * width) != file.undefined:
        raise Unsupported(
            "the file is split or written by a special driver (driver information block)",
            offset=base,
            hint="join its members first, for example with h5repart",
        )
    # The root group's symbol table entry: its second field is the object header's address.
    return file, file.offset_at(block, start + 5 * width)


def _read_extension(file: Hdf5File, address: int) -> Steps[Hdf5File]:
    header = yield from read_header(file, address)
    for message in header:
        body = message.body
        if message.type == BTREE_K_VALUES:
            istore_k, internal_k, leaf_k = struct.unpack_from("<HHH", body, 1)
            file = replace(
                file, istore_k=istore_k, group_internal_k=internal_k, group_leaf_k=leaf_k
            )
        elif message.type == SHARED_MESSAGE_TABLE:
            count = body[1 + file.offset_size]
            file = replace(file, shared_table=(file.offset_at(body, 1), count))
        elif message.type == FILE_SPACE_INFO:
            file = replace(file, page_size=_page_size(file, body))
        elif message.type == CACHE_IMAGE:
            address, length = file.offset_at(body, 1), file.length_at(body, 1 + file.offset_size)
            if address != file.undefined and length:
                file = replace(file, cache_image=(address, length))
        elif message.type == DRIVER_INFO:
            raise Unsupported(
                "the file is split or written by a special driver (driver information)",
                offset=message.address,
                hint="join its members first, for example with h5repart",
            )
    return file


def _page_size(file: Hdf5File, body: memoryview) -> int:
    """Return the bytes of a page from a file space info message of version 1; else 0."""
    if body[0] != 1 or body[1] != PAGED:
        return 0
    return file.length_at(body, 3 + file.length_size)
