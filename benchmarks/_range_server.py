"""A range server on loopback in a process of its own, which costs little and counts everything.

It shares the machine with the client that is measured, so it does as little as it can: one thread,
bodies by `sendfile`. Each answer waits for the latency; all connections share the bandwidth.
"""

from __future__ import annotations

import argparse
import errno
import heapq
import itertools
import json
import os
import re
import select
import socket
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import NamedTuple, Self
from urllib.parse import unquote

TURN = 2**20
"""Bytes that one connection is sent before others have their turn."""
CAPPED_TURN = 2**16
RANGE = re.compile(rb"\r\nrange: *bytes=(\d*)-(\d*) *\r", re.IGNORECASE)
IF_MATCH = re.compile(rb"\r\nif-match: *([^\r]*?) *\r", re.IGNORECASE)
CATCH_UP_S = 0.01
"""How long unused bandwidth is kept: timers are not more exact than some milliseconds."""


class Counts(NamedTuple):
    """What the server saw since it was asked last."""

    requests: int
    size: int
    """Bytes of all bodies."""
    peak: int
    """Most requests that were in flight at once."""
    cpu_s: float
    """CPU seconds of the server itself."""


class RangeServerProcess:
    """Serves the files of a directory from a process of its own, inside a ``with`` statement."""

    def __init__(self, directory: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.port, self.default_port = self._reply()
        """The port, and 80 if it could be had too, else None."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        self._process.communicate()

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.port}/{name}"

    def behave(self, *, latency_s: float, bandwidth: float | None) -> None:
        """Set the pause before each answer, and the bytes a second of all answers together."""
        self._ask({"latency_s": latency_s, "bandwidth": bandwidth})

    def take(self) -> Counts:
        """Return the counts since the last time, and begin anew."""
        return Counts(*self._ask({}))

    def _ask(self, request: dict[str, float | None]) -> list[float]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._reply()

    def _reply(self) -> list:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


# --- what runs in the process ---


@dataclass(slots=True, eq=False)
class _Connection:
    link: socket.socket
    received: bytearray = field(default_factory=bytearray)
    head: bytes = b""
    """What is left to send of an answer's head."""
    file: int = -1
    offset: int = 0
    left: int = 0
    """Bytes of the body that are not sent yet."""


class _Server:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.latency_s = 0.0
        self.bandwidth: float | None = None
        self.poll = select.epoll()
        self.listening = [self._listen(0)]
        ports = [self.listening[0].getsockname()[1], None]
        try:
            self.listening.append(self._listen(80))
            ports[1] = 80
        except OSError:  # taken, or not allowed
            pass
        self.poll.register(0, select.EPOLLIN)
        self.connections: dict[int, _Connection] = {}
        self.files: dict[bytes, tuple[int, int, str, str]] = {}
        self.due: list[tuple[float, int, _Connection]] = []
        self.numbers = itertools.count()
        self.waiting: deque[_Connection] = deque()
        """Connections that have something to send, and whose sockets take more."""
        self.free_at = 0.0
        self.requests = self.size = self.peak = self.in_flight = 0
        self.cpu_s = time.process_time()
        self.commands = b""
        self._say(ports)

    def _listen(self, port: int) -> socket.socket:
        listening = socket.create_server(("127.0.0.1", port), backlog=1024)
        listening.settimeout(0)
        self.poll.register(listening.fileno(), select.EPOLLIN)
        return listening

    def run(self) -> None:
        while True:
            for number, _ in self.poll.poll(self._pause()):
                if number == 0:
                    self._obey()
                elif number in self.connections:
                    self._turn(self.connections[number])
                else:
                    self._accept(number)
            now = time.monotonic()
            while self.due and self.due[0][0] <= now:
                self.waiting.append(heapq.heappop(self.due)[2])
            for _ in range(len(self.waiting)):
                if self.bandwidth and self.free_at > time.monotonic():
                    break
                self._send(self.waiting.popleft())

    def _pause(self) -> float | None:
        """Return for how many seconds nothing has to be done."""
        until = [self.due[0][0]] if self.due else []
        if self.waiting:
            until.append(self.free_at if self.bandwidth else 0.0)
        return max(0.0, min(until) - time.monotonic()) if until else None

    def _say(self, value: object) -> None:
        os.write(1, json.dumps(value).encode() + b"\n")

    def _obey(self) -> None:
        data = os.read(0, 2**16)
        if not data:
            sys.exit()
        *lines, self.commands = (self.commands + data).split(b"\n")
        for line in lines:
            for name, value in json.loads(line).items():
                setattr(self, name, value)
            cpu_s = time.process_time()
            self._say([self.requests, self.size, self.peak, cpu_s - self.cpu_s])
            self.requests = self.size = self.peak = 0
            self.cpu_s = cpu_s

    def _accept(self, number: int) -> None:
        for listening in self.listening:
            if listening.fileno() == number:
                link, _ = listening.accept()
                link.settimeout(0)
                link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.connections[link.fileno()] = _Connection(link)
                self.poll.register(link.fileno(), select.EPOLLIN)

    def _turn(self, connection: _Connection) -> None:
        if connection.head or connection.left:  # its socket takes more
            self.poll.modify(connection.link.fileno(), select.EPOLLIN)
            self.waiting.append(connection)
            return
        try:
            data = connection.link.recv(2**16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._hang_up(connection)
            return
        connection.received += data
        if connection.received.endswith(b"\r\n\r\n"):
            self._answer(connection, bytes(connection.received))
            connection.received.clear()

    def _hang_up(self, connection: _Connection) -> None:
        del self.connections[connection.link.fileno()]
        self.poll.unregister(connection.link.fileno())
        connection.link.close()

    def _answer(self, connection: _Connection, request: bytes) -> None:
        method, target, _ = request.split(b" ", 2)
        self.requests += 1
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        file, size, tag, modified = self._open(target)
        asked, condition = RANGE.search(request), IF_MATCH.search(request)
        wanted = _range_of(asked, size) if asked else None
        status, more = "200 OK", ""
        offset, length = wanted or (0, size)
        if file < 0:
            status, offset, length = "404 Not Found", 0, 0
        elif condition and condition[1].decode() not in (tag, "*"):
            status, offset, length = "412 Precondition Failed", 0, 0
        elif wanted and length <= 0:
            status, offset, length = "416 Range Not Satisfiable", 0, 0
        elif wanted:
            status = "206 Partial Content"
            more = f"Content-Range: bytes {offset}-{offset + length - 1}/{size}\r\n"
        head = (
            f"HTTP/1.1 {status}\r\nContent-Length: {length}\r\nETag: {tag}\r\n{more}"
            f"Last-Modified: {modified}\r\nAccept-Ranges: bytes\r\n"
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        connection.head = head.encode()
        connection.file, connection.offset = file, offset
        connection.left = 0 if method == b"HEAD" else length
        at_s = time.monotonic() + self.latency_s
        heapq.heappush(self.due, (at_s, next(self.numbers), connection))

    def _open(self, target: bytes) -> tuple[int, int, str, str]:
        found = self.files.get(target)
        if found is None:
            path = unquote(target.partition(b"?")[0].decode("latin-1")).removeprefix("/")
            try:
                file = os.open(self.directory / path, os.O_RDONLY)
            except OSError:
                return -1, 0, '"none"', formatdate(0, usegmt=True)
            status = os.fstat(file)
            tag = f'"{status.st_size:x}-{status.st_mtime_ns:x}"'
            modified = formatdate(status.st_mtime, usegmt=True)
            found = self.files[target] = file, status.st_size, tag, modified
        return found

    def _send(self, connection: _Connection) -> None:
        """Send one turn's worth of an answer."""
        if connection.link.fileno() < 0:
            self.in_flight -= 1
            return
        try:
            if connection.head:
                flags = socket.MSG_MORE if connection.left else 0
                sent = connection.link.send(connection.head, flags)
                connection.head = connection.head[sent:]
            count = min(connection.left, CAPPED_TURN if self.bandwidth else TURN)
            if count and not connection.head:
                sent = os.sendfile(
                    connection.link.fileno(), connection.file, connection.offset, count
                )
                connection.offset += sent
                connection.left -= sent
                self.size += sent
                if self.bandwidth:
                    earliest = time.monotonic() - CATCH_UP_S
                    self.free_at = max(self.free_at, earliest) + sent / self.bandwidth
        except BlockingIOError:
            self.poll.modify(connection.link.fileno(), select.EPOLLIN | select.EPOLLOUT)
            return
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.ECONNRESET):
                raise
            self.in_flight -= 1
            self._hang_up(connection)
            return
        if connection.left or connection.head:
            self.waiting.append(connection)
        else:
            self.in_flight -= 1


def _range_of(asked: re.Match[bytes], size: int) -> tuple[int, int]:
    """Return offset and length of a range, clipped to the file."""
    first, last = asked.groups()
    if not first:
        length = min(int(last), size)
        return size - length, length
    return int(first), (min(int(last) + 1, size) if last else size) - int(first)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    _Server(parser.parse_args().directory).run()
