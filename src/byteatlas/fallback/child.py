"""The process in which another library reads what our own reader refuses.

`byteatlas.fallback.process` starts it with the name of a module and a socket as standard input.
The library may crash, hang or ask for all memory here: limits of the system end the process, and
the parent says so. It opens nothing by itself: once everything is imported it may have no further
file or connection, so that no file can lead it to another one. The bytes that it reads come from
its parent, range by range.
"""

from __future__ import annotations

import codecs
import io
import json
import resource
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any, Protocol, TypeAlias

__all__ = ["FRAME", "RANGE", "Blobs", "Job", "LibraryReader", "Send", "main", "receive"]

MEMORY = 2 * 2**30
"""Bytes of address space, the libraries' own included."""
CPU_S = 30

FRAME = struct.Struct("<cQ")
"""What every message begins with: its kind and the length of what follows.

From the child: ``r`` a range it needs (`RANGE`), ``d`` an item of the result (JSON and blobs),
``e`` the reason why there is no more, ``.`` the end. To the child: ``j`` its job, ``b`` bytes.
"""
RANGE = struct.Struct("<QQ")

Job: TypeAlias = dict[str, Any]  # JSON values
Blobs: TypeAlias = "tuple[bytes, ...]"
Send: TypeAlias = Callable[..., None]
"""Called with an item of the result, JSON values, and the bytes that belong to it."""


class LibraryReader(Protocol):
    """What a module that is run here has to have."""

    def read(self, source: io.RawIOBase, job: Job, send: Send) -> None:
        """Read what the job asks for and send the items of the result."""


def receive(link: socket.socket, length: int) -> bytearray:
    """Return so many bytes of the other side.

    Raises
    ------
    EOFError
        It is gone.
    """
    data = bytearray(length)
    view = memoryview(data)
    while view:
        count = link.recv_into(view)
        if not count:
            raise EOFError
        view = view[count:]
    return data


class _Source(io.RawIOBase):
    """The source as a file, read through the parent."""

    def __init__(self, link: socket.socket, size: int) -> None:
        self._link = link
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:  # Any: whatever is a writable buffer
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self._size - self._at))
        if count:
            self._link.sendall(FRAME.pack(b"r", RANGE.size) + RANGE.pack(self._at, count))
            _, length = FRAME.unpack(receive(self._link, FRAME.size))
            view[:count] = receive(self._link, length)
        self._at += count
        return count


def _limit(what: int, most: int) -> None:
    _, hard = resource.getrlimit(what)
    value = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (value, value))


def main() -> None:
    """Do the one job that the parent sends."""
    _limit(resource.RLIMIT_AS, MEMORY)
    _limit(resource.RLIMIT_CPU, CPU_S)
    _limit(resource.RLIMIT_CORE, 0)
    link = socket.socket(fileno=0)

    def send(item: Any, *blobs: bytes) -> None:  # Any: JSON values
        head = json.dumps([item, [len(blob) for blob in blobs]]).encode()
        length = 4 + len(head) + sum(map(len, blobs))
        link.sendall(FRAME.pack(b"d", length) + struct.pack("<I", len(head)) + head)
        for blob in blobs:
            link.sendall(blob)

    try:
        module: LibraryReader = import_module(sys.argv[1])
        _, length = FRAME.unpack(receive(link, FRAME.size))
        job = json.loads(receive(link, length))
        for name in ("ascii", "latin-1", "utf-16", "utf-32"):
            codecs.lookup(name)  # imported at their first use, which would be too late
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
        module.read(_Source(link, job["size"]), job, send)
    except EOFError:
        return  # the parent is gone
    except BaseException as error:  # noqa: BLE001  # a library may fail in any way; it is a reason
        kind, reason = b"e", f"{type(error).__name__}: {error}"[:500].encode("utf-8", "replace")
    else:
        kind, reason = b".", b""
    with suppress(OSError):
        link.sendall(FRAME.pack(kind, len(reason)) + reason)
