"""A range server on loopback that logs what it is asked, and misbehaves as told."""

from __future__ import annotations

import argparse
import asyncio
import gzip
import os
import socket
import struct
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import formatdate, parsedate_to_datetime
from fnmatch import fnmatchcase
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple, Self
from urllib.parse import quote, unquote

__all__ = ["Fault", "Logged", "RangeServer"]

_REASONS = {
    200: "OK", 206: "Partial Content", 302: "Found", 403: "Forbidden", 404: "Not Found",
    405: "Method Not Allowed", 410: "Gone", 412: "Precondition Failed",
    416: "Range Not Satisfiable", 429: "Too Many Requests", 500: "Internal Server Error",
    503: "Service Unavailable",
}  # fmt: skip


_SLICE = 2**18
_SLOW_SLICE = 2**16


@dataclass(slots=True)
class Logged:
    """One request, and how it was answered so far."""

    method: str
    path: str
    """As sent, percent-encoded, with its query string."""
    range: tuple[int, int] | None
    """(offset, length) asked for, clipped to the file; None where no range was asked."""
    headers: Mapping[str, str]
    """As received, names in lower case."""
    at_s: float
    """When it arrived, in seconds of `time.monotonic`."""
    status: int = 0
    """0 while no status line is sent."""
    bytes_sent: int = 0
    """Bytes of the body."""


@dataclass(slots=True, kw_only=True)
class Fault:
    """Something that goes wrong with some requests. Fields combine."""

    path: str = "*"
    """Glob pattern of the paths concerned (decoded, without the leading slash)."""
    methods: tuple[str, ...] = ("GET", "HEAD")
    after: int = 0
    """So many requests are answered well before it strikes."""
    times: int | None = None
    """It strikes so often; None means for ever."""
    for_s: float | None = None
    """It strikes for so long after its first time; None means for ever."""
    having: str = ""
    """It strikes only requests with this header, in lower case."""
    status: int | None = None
    """Answer with this status and a short text instead of the file."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Added to the answer, in place of headers of the same name; an empty value removes one."""
    more_headers: Sequence[tuple[str, str]] = ()
    """Added to the answer beside headers of the same name."""
    body: bytes | None = None
    """Sent instead of the file's bytes, with its own Content-Length."""
    ignore_range: bool = False
    """Answer 200 with the whole file."""
    shift: int = 0
    """Send the bytes this far away from the range asked for."""
    flip: int | None = None
    """Invert the lowest bit of this byte of the body."""
    at_most: int | None = None
    """Send no more than the first so many bytes of the range, with headers that say so."""
    is_gzipped: bool = False
    """Compress the body, and say so."""
    cut: int | None = None
    """Close the connection after so many bytes of the body."""
    reset: int | None = None
    """Reset the connection after so many bytes of the body; -1: before the status line."""
    stall_s: float = 0.0
    """Pause for so long in the middle of the body."""
    stall_before_s: float = 0.0
    """Pause for so long before the status line."""
    drip_s: float = 0.0
    """Send the body byte by byte, with such pauses."""
    seen: int = 0
    """How many requests matched so far."""
    struck_at_s: float | None = None

    def strikes(self, method: str, path: str, headers: Mapping[str, str] | None = None) -> bool:
        """Tell whether this request is hit, counting it."""
        if method not in self.methods or not fnmatchcase(path, self.path):
            return False
        if self.having and self.having not in (headers or {}):
            return False
        self.seen += 1
        if self.seen <= self.after:
            return False
        if self.times is not None and self.seen > self.after + self.times:
            return False
        now = time.monotonic()
        if self.struck_at_s is None:
            self.struck_at_s = now
        return self.for_s is None or now - self.struck_at_s < self.for_s


class RangeServer:
    """Serves a directory, or a mapping of names to bytes, over HTTP/1.1 with ranges.

    Answers 412 where If-Match or If-Unmodified-Since does not hold.

    Runs in a thread of its own from `start` to `stop`, or inside a ``with`` statement. ETags
    follow from size and modification time.

    Parameters
    ----------
    content
        A directory, or file names with their bytes (which may be replaced while it runs).
    latency_s
        Pause before each answer.
    bandwidth
        Bytes of body per second for all connections together; None for no limit.
    faults
        What goes wrong; the first fault that strikes a request decides. May be changed later.
    modified_s
        Modification time of files given as bytes, in seconds since 1970; by default now.
    """

    def __init__(
        self,
        content: str | os.PathLike[str] | Mapping[str, bytes],
        *,
        latency_s: float = 0.0,
        bandwidth: float | None = None,
        faults: Sequence[Fault] = (),
        port: int = 0,
        modified_s: float | None = None,
    ) -> None:
        self._made = time.time() if modified_s is None else modified_s
        self._replaced = -1
        self.content = content
        self.latency_s = latency_s
        self.bandwidth = bandwidth
        self.faults = list(faults)
        self.log: list[Logged] = []
        self.port = port
        self._free_at = 0.0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="range-server", daemon=True)
        self._ready = threading.Event()
        self._connections: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    # --- life ---

    def start(self) -> Self:
        """Listen on loopback; `port` says where."""
        self._thread.start()
        self._ready.wait()
        return self

    def stop(self) -> None:
        """Close all connections and end the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def wait(self) -> None:
        """Wait until another thread stops it."""
        self._thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        start = asyncio.start_server(self._connected, "127.0.0.1", self.port, backlog=1024)
        server = self._loop.run_until_complete(start)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(self._hang_up(server))
        self._loop.close()

    async def _hang_up(self, server: asyncio.Server) -> None:
        for listening in server.sockets:
            self._loop.remove_reader(listening.fileno())
        for _ in range(10):  # turns of the loop: a connection that is just being accepted would
            await asyncio.sleep(0)  # be lost, its socket left open, if the server closed first
        server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
        for _ in range(3):  # an aborted connection closes its socket in the next turn
            await asyncio.sleep(0)

    # --- what a test looks at ---

    @property
    def content(self) -> str | os.PathLike[str] | Mapping[str, bytes]:
        """What is served. Replacing it changes the modification time of files given as bytes."""
        return self._content

    @content.setter
    def content(self, content: str | os.PathLike[str] | Mapping[str, bytes]) -> None:
        self._content = content
        self._replaced += 1

    def url(self, name: str) -> str:
        """Return the URL of a file, percent-encoded."""
        return f"http://127.0.0.1:{self.port}/{quote(name)}"

    @property
    def bytes_sent(self) -> int:
        """Bytes of all bodies sent so far."""
        return sum(entry.bytes_sent for entry in self.log)

    def clear(self) -> None:
        """Forget the log."""
        self.log.clear()

    # --- answering ---

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        task = self._loop.create_task(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.set_write_buffer_limits(high=2**20)
        try:
            while await self._answer(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request, and tell whether the connection lives on."""
        request = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        at_s = time.monotonic()
        method, target, _ = request[0].split(" ", 2)
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in request[1:] if line)
        }
        path = unquote(target.partition("?")[0]).removeprefix("/")
        fault = next((f for f in list(self.faults) if f.strikes(method, path, headers)), _NO_FAULT)
        answer = self._prepare(method, path, headers, fault)
        entry = Logged(method, target, answer.range, headers, at_s)
        self.log.append(entry)
        if self.latency_s or fault.stall_before_s:
            await asyncio.sleep(self.latency_s + fault.stall_before_s)
        if fault.reset == -1:
            _reset(writer)
            return False
        entry.status = answer.status
        lines = [f"HTTP/1.1 {answer.status} {_REASONS.get(answer.status, 'Status')}"]
        lines += [f"{name}: {value}" for name, value in answer.headers.items() if value]
        lines += [f"{name}: {value}" for name, value in fault.more_headers]
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
        body = memoryview(b"" if method == "HEAD" else answer.body)
        stop = len(body)
        for limit in (fault.cut, fault.reset):
            stop = stop if limit is None else min(stop, limit)
        if fault.drip_s:
            await self._drip(writer, body[:stop], entry, fault.drip_s)
            return stop == len(body)
        half = stop // 2 if fault.stall_s else 0
        await self._send(writer, body[:half], entry)
        await asyncio.sleep(fault.stall_s)
        await self._send(writer, body[half:stop], entry)
        if fault.reset is not None and stop < len(body):
            await asyncio.sleep(0.02)  # what was written shall arrive first
            _reset(writer)
            return False
        return stop == len(body) and answer.headers.get("Connection") != "close"

    async def _drip(
        self, writer: asyncio.StreamWriter, body: memoryview, entry: Logged, pause_s: float
    ) -> None:
        for at in range(len(body)):
            entry.bytes_sent += 1
            writer.write(body[at : at + 1])
            await writer.drain()
            await asyncio.sleep(pause_s)

    async def _send(self, writer: asyncio.StreamWriter, body: memoryview, entry: Logged) -> None:
        size = _SLOW_SLICE if self.bandwidth else _SLICE
        for start in range(0, len(body), size):
            part = body[start : start + size]
            await self._throttle(len(part))
            entry.bytes_sent += len(part)
            writer.write(part)
            await writer.drain()

    async def _throttle(self, count: int) -> None:
        if self.bandwidth:
            now = self._loop.time()
            self._free_at = max(self._free_at, now) + count / self.bandwidth
            if self._free_at - now > 0.001:
                await asyncio.sleep(self._free_at - now)

    def _prepare(
        self, method: str, path: str, headers: Mapping[str, str], fault: Fault
    ) -> _Prepared:
        if fault.status is not None:
            text = fault.body if fault.body is not None else f"fault {fault.status}\n".encode()
            base = {"Content-Length": str(len(text)), "Content-Type": "text/plain"}
            return _Prepared(fault.status, base | dict(fault.headers), text, None)
        if method not in ("GET", "HEAD"):
            return _Prepared(405, {"Content-Length": "0"}, b"", None)
        found = self._look_up(path)
        if found is None:
            return _Prepared(404, {"Content-Length": "10"}, b"not found\n", None)
        size, modified, file = found
        base = {
            "ETag": f'"{blake2b(f"{path} {size} {modified}".encode(), digest_size=8).hexdigest()}"',
            "Last-Modified": formatdate(modified, usegmt=True),
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
        }
        if not _holds(headers, base):
            return _Prepared(412, {"Content-Length": "0"}, b"", None)
        wanted = None if fault.ignore_range else _parse_range(headers.get("range"), size)
        if wanted is not None and fault.at_most is not None:
            wanted = wanted[0], min(wanted[1], fault.at_most)
        if wanted is None:
            status, offset, length = 200, 0, size
        elif wanted[0] >= size:
            base |= {"Content-Range": f"bytes */{size}", "Content-Length": "0"}
            return _Prepared(416, base | dict(fault.headers), b"", wanted)
        else:
            status, (offset, length) = 206, wanted
            base["Content-Range"] = f"bytes {offset}-{offset + length - 1}/{size}"
        if fault.body is not None:
            body: bytes | memoryview = fault.body
        elif method == "HEAD" and not fault.is_gzipped:
            base["Content-Length"] = str(length)
            return _Prepared(status, base | dict(fault.headers), b"", wanted)
        elif isinstance(file, Path):
            with file.open("rb") as handle:
                body = os.pread(handle.fileno(), length, offset + fault.shift)
        else:
            body = memoryview(file)[offset + fault.shift : offset + fault.shift + length]
        if fault.flip is not None and len(body):
            changed = bytearray(body)
            changed[min(fault.flip, len(body) - 1)] ^= 1
            body = bytes(changed)
        if fault.is_gzipped:
            body = gzip.compress(body, mtime=0)
            base["Content-Encoding"] = "gzip"
        base["Content-Length"] = str(len(body))
        return _Prepared(status, base | dict(fault.headers), body, wanted)

    def _look_up(self, path: str) -> tuple[int, float, Path | bytes] | None:
        if isinstance(self.content, Mapping):
            data = self.content.get(path)
            return None if data is None else (len(data), self._made + self._replaced, data)
        root = Path(self.content).resolve()
        file = (root / path).resolve()
        if not file.is_relative_to(root) or not file.is_file():
            return None
        status = file.stat()
        return status.st_size, status.st_mtime_ns / 1e9, file


class _Prepared(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes | memoryview
    range: tuple[int, int] | None


_NO_FAULT = Fault()


def _parse_range(text: str | None, size: int) -> tuple[int, int] | None:
    if not text or not text.startswith("bytes=") or "," in text:
        return None
    first, _, last = text.removeprefix("bytes=").partition("-")
    if not first:
        length = min(int(last), size)
        return size - length, length
    offset = int(first)
    end = min(int(last) + 1, size) if last else size
    return offset, end - offset


def _holds(headers: Mapping[str, str], base: Mapping[str, str]) -> bool:
    """Tell whether the conditions of a request hold (RFC 9110, 13.1.1 and 13.1.4)."""
    if "if-match" in headers:
        return headers["if-match"] in ("*", base["ETag"])
    since = headers.get("if-unmodified-since")
    if since is None:
        return True
    return parsedate_to_datetime(base["Last-Modified"]) <= parsedate_to_datetime(since)


def _reset(writer: asyncio.StreamWriter) -> None:
    link: socket.socket = writer.get_extra_info("socket")
    link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve a directory until interrupted: ``python -m byteatlas.testing DIRECTORY``."""
    parser = argparse.ArgumentParser(prog="python -m byteatlas.testing")
    parser.add_argument("directory")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--bandwidth", type=float, help="bytes per second, all together")
    given = parser.parse_args(arguments)
    server = RangeServer(
        given.directory, port=given.port, latency_s=given.latency, bandwidth=given.bandwidth
    )
    with server:
        print(server.url(""), flush=True)  # noqa: T201  # whoever started it reads this line
        with suppress(KeyboardInterrupt):
            server.wait()
