"""Object headers and their messages (HDF5 File Format 3.0, IV.A.1)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from byteatlas.errors import ByteatlasError, Malformed, Unsupported
from byteatlas.model import as_view
from byteatlas_scanners.hdf5.checksum import verify

if TYPE_CHECKING:
    from byteatlas.model import ByteRange
    from byteatlas.steps import Steps
    from byteatlas_scanners.hdf5.file import Hdf5File

__all__ = ["Message", "parse_body", "parse_structure", "read_header"]

T = TypeVar("T")

FIRST_READ = 4096
"""Most headers fit, and what libraries write next to one comes along: the chunk tree, the heap of
its strings. The bytes of a longer header are asked for with its continuations."""
MAX_BLOCKS = 4096

NIL = 0x00
CONTINUATION = 0x10
KNOWN = frozenset(range(0x19)) - {0x09}
"""The types of messages that the specification describes."""
FAIL_IF_UNKNOWN = 0x80  # flags, bit 7

_prefix_1 = struct.Struct("<BxHII").unpack_from  # version, messages, references, size


class _Form(NamedTuple):
    """How a message begins: with its type, size and flags, and perhaps its creation order."""

    width: int
    unpack: Callable[[memoryview, int], tuple[int, int, int]]


_VERSION_1 = _Form(8, struct.Struct("<HHB3x").unpack_from)
_VERSION_2 = _Form(4, struct.Struct("<BHB").unpack_from)
_VERSION_2_ORDERED = _Form(6, _VERSION_2.unpack)


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
    form, start, end, total = _prefix(head, first.offset)
    if total > len(head):
        (reply,) = yield [file.span(address, total, "object header")]
        head = as_view(reply)
    file.spend(total, first.offset)
    if form is not _VERSION_1:
        verify(head[:total], "object header", first.offset)
    messages: list[Message] = []
    blocks = _split(file, head[start:end], first.offset + start, form, messages)
    seen = {first.offset}
    while blocks:
        wanted, blocks = blocks, []
        for block in wanted:
            if block.offset in seen or len(seen) > MAX_BLOCKS:
                raise Malformed("object header: continuation blocks repeat", offset=block.offset)
            seen.add(block.offset)
            file.spend(block.length, block.offset)
        for block, data in zip(wanted, (yield wanted), strict=True):
            body, begins = as_view(data), block.offset
            if form is not _VERSION_1:
                if bytes(body[:4]) != b"OCHK":
                    raise Malformed(
                        f"object header continuation: expected b'OCHK', found {bytes(body[:4])!r}",
                        offset=begins,
                    )
                verify(body, "object header continuation", begins)
                body, begins = body[4:-4], begins + 4
            blocks += _split(file, body, begins, form, messages)
    return messages


def _prefix(head: memoryview, offset: int) -> tuple[_Form, int, int, int]:
    """Return the form of the messages, where they start and end, and the length of the block."""
    if bytes(head[:4]) != b"OHDR":
        version, _count, _references, size = _prefix_1(head)
        if version != 1:
            raise Malformed(
                f"object header: expected version 1 or 'OHDR', found {bytes(head[:4])!r}",
                offset=offset,
            )
        return _VERSION_1, 16, 16 + size, 16 + size
    version, flags = head[4], head[5]
    if version != 2:
        raise Unsupported(f"object header version {version}", offset=offset)
    start = 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
    width = 1 << (flags & 3)
    size = int.from_bytes(head[start : start + width], "little")
    start += width
    form = _VERSION_2_ORDERED if flags & 0x04 else _VERSION_2
    return form, start, start + size, start + size + 4


def _split(
    file: Hdf5File, block: memoryview, offset: int, form: _Form, messages: list[Message]
) -> list[ByteRange]:
    """Append the messages of one block to a list; return the blocks that continue it."""
    blocks: list[ByteRange] = []
    position, end = 0, len(block)
    while position + form.width <= end:
        kind, size, flags = form.unpack(block, position)
        position += form.width
        body = block[position : position + size]
        if len(body) < size:
            raise Malformed(
                "object header message: longer than its block", offset=offset + position
            )
        if kind == CONTINUATION:
            length = file.length_at(body, file.offset_size)
            blocks.append(file.span(file.offset_at(body, 0), length, "object header continuation"))
        elif flags & FAIL_IF_UNKNOWN and kind not in KNOWN:
            raise Unsupported(
                f"object header message {kind:#x}, which only those may read who know it",
                offset=offset + position,
            )
        elif kind != NIL:
            messages.append(Message(kind, flags, body, offset + position))
        position += size
    return blocks


def parse_body(parse: Callable[[memoryview], T], message: Message, what: str) -> T:
    """Parse a message's body; a body that ends too early, or holds nonsense, is `Malformed`."""
    try:
        return parse(message.body)
    except (struct.error, IndexError, OverflowError) as error:
        raise Malformed(f"{what}: the message ends inside it", offset=message.address) from error
    except (Malformed, Unsupported) as error:
        raise error.at(offset=message.address) from None


def parse_structure(parser: Steps[T], what: str, offset: int) -> Steps[T]:
    """Run a parser that reads more; give its errors the name and place of what it reads.

    Parameters
    ----------
    what : name of the structure, for bytes that end too early or hold nonsense.
    offset : where the structure starts, or what points to it, for errors that do not say.
    """
    try:
        return (yield from parser)
    except (struct.error, IndexError, OverflowError) as error:
        raise Malformed(f"{what}: it is damaged ({error})", offset=offset) from error
    except ByteatlasError as error:
        raise error.at(offset=offset) from error.__cause__
