"""Object headers and their messages (HDF5 File Format 3.0, IV.A.1)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from byteatlas.errors import Malformed, Unsupported
from byteatlas.model import as_view
from byteatlas_scanners.hdf5.checksum import verify

if TYPE_CHECKING:
    from collections.abc import Callable

    from byteatlas.model import ByteRange
    from byteatlas.steps import Steps
    from byteatlas_scanners.hdf5.file import Hdf5File

__all__ = ["Message", "parse_body", "read_header"]

T = TypeVar("T")

FIRST_READ = 1024
"""Most headers fit; the bytes of a longer one are asked for with its continuations."""
MAX_BLOCKS = 4096

NIL = 0x00
CONTINUATION = 0x10

_prefix_1 = struct.Struct("<BxHII").unpack_from  # version, messages, references, size
_message_1 = struct.Struct("<HHB3x").unpack_from  # type, size, flags
_message_2 = struct.Struct("<BHB").unpack_from  # type, size, flags


class Message(NamedTuple):
    """One header message."""

    type: int
    flags: int
    body: memoryview
    address: int
    """Where the body starts in the window."""

    @property
    def is_shared(self) -> bool:
        """Tell whether the body only points to the message (IV.A.1, flags bit 1)."""
        return bool(self.flags & 2)


def read_header(file: Hdf5File, address: int) -> Steps[list[Message]]:
    """Read an object header of either version with all its continuation blocks.

    One round for the header, one more for each generation of continuation blocks.

    Raises
    ------
    Malformed
        A signature, version, size or checksum is wrong, or blocks form a cycle.
    """
    first = file.guess(address, FIRST_READ, 16, "object header")
    (reply,) = yield [first]
    head = as_view(reply)
    messages: list[Message] = []
    blocks: list[ByteRange] = []
    if bytes(head[:4]) == b"OHDR":
        start, size, has_order = _prefix_version_2(head, first.offset)
        total = start + size + 4
        if total > len(head):
            (reply,) = yield [file.span(address, total, "object header")]
            head = as_view(reply)
        verify(head[:total], "object header", first.offset)
        _messages_version_2(
            file, head[start : total - 4], first.offset + start, messages, blocks, has_order
        )
    else:
        version, _count, _references, size = _prefix_1(head)
        if version != 1:
            raise Malformed(
                f"object header: expected version 1 or 'OHDR', found {bytes(head[:4])!r}",
                offset=first.offset,
            )
        if 16 + size > len(head):
            (reply,) = yield [file.span(address, 16 + size, "object header")]
            head = as_view(reply)
        has_order = None
        _messages_version_1(file, head[16 : 16 + size], first.offset + 16, messages, blocks)
    seen = {first.offset}
    while blocks:
        wanted, blocks = blocks, []
        for block in wanted:
            if block.offset in seen or len(seen) > MAX_BLOCKS:
                raise Malformed("object header: continuation blocks repeat", offset=block.offset)
            seen.add(block.offset)
        for block, data in zip(wanted, (yield wanted), strict=True):
            body = as_view(data)
            if has_order is None:
                _messages_version_1(file, body, block.offset, messages, blocks)
                continue
            if bytes(body[:4]) != b"OCHK":
                raise Malformed(
                    f"object header continuation: expected b'OCHK', found {bytes(body[:4])!r}",
                    offset=block.offset,
                )
            verify(body, "object header continuation", block.offset)
            _messages_version_2(file, body[4:-4], block.offset + 4, messages, blocks, has_order)
    return messages


def _prefix_version_2(head: memoryview, offset: int) -> tuple[int, int, bool]:
    """Return where messages start, how many bytes they take, and whether they are numbered."""
    version, flags = head[4], head[5]
    if version != 2:
        raise Unsupported(f"object header version {version}", offset=offset)
    start = 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
    width = 1 << (flags & 3)
    size = int.from_bytes(head[start : start + width], "little")
    return start + width, size, bool(flags & 0x04)


def _messages_version_2(
    file: Hdf5File,
    block: memoryview,
    offset: int,
    messages: list[Message],
    blocks: list[ByteRange],
    has_order: bool,  # noqa: FBT001  # a fact of the header, not a choice
) -> None:
    extra = 6 if has_order else 4
    position, end = 0, len(block)
    while position + extra <= end:
        kind, size, flags = _message_2(block, position)
        position += extra
        if position + size > end:
            raise Malformed(
                "object header message: longer than its block", offset=offset + position
            )
        _keep(
            file,
            kind,
            flags,
            block[position : position + size],
            offset + position,
            messages,
            blocks,
        )
        position += size


def _messages_version_1(
    file: Hdf5File,
    block: memoryview,
    offset: int,
    messages: list[Message],
    blocks: list[ByteRange],
) -> None:
    position, end = 0, len(block)
    while position + 8 <= end:
        kind, size, flags = _message_1(block, position)
        position += 8
        if position + size > end:
            raise Malformed(
                "object header message: longer than its block", offset=offset + position
            )
        _keep(
            file,
            kind,
            flags,
            block[position : position + size],
            offset + position,
            messages,
            blocks,
        )
        position += size


def _keep(
    file: Hdf5File,
    kind: int,
    flags: int,
    body: memoryview,
    offset: int,
    messages: list[Message],
    blocks: list[ByteRange],
) -> None:
    if kind == CONTINUATION:
        length = file.length_at(body, file.offset_size)
        blocks.append(file.span(file.offset_at(body, 0), length, "object header continuation"))
    elif kind != NIL:
        messages.append(Message(kind, flags, body, offset))


def parse_body(parse: Callable[[memoryview], T], message: Message, what: str) -> T:
    """Parse a message's body; a body that ends too early, or holds nonsense, is `Malformed`."""
    try:
        return parse(message.body)
    except (struct.error, IndexError, OverflowError) as error:
        raise Malformed(f"{what}: the message ends inside it", offset=message.address) from error
    except (Malformed, Unsupported) as error:
        raise error.at(offset=message.address) from None
