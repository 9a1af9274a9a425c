"""Start a child process, answer what it asks for, and collect what it finds.

The child reads the source's bytes through this process, so the transport, its retries and its
trace are the same for both, and the child needs no network and no credentials.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from byteatlas.errors import ByteatlasError, Malformed, SourceChanged
from byteatlas.fallback.child import FRAME, RANGE, receive
from byteatlas.model import ByteRange, as_view
from byteatlas.scanners import ScanOptions
from byteatlas.sources.cache import CachedReader

__all__ = ["Answer", "ask"]

WALL_S = 30.0
"""A child is ended after so long, the time not counted that it waits for bytes."""
BLOCK = 2**16
"""The child's reads are rounded out to blocks of this size, and kept."""
MAX_RESULT = 2**28
"""Bytes that one child may send."""

_CHILD = "from byteatlas.fallback.child import main; main()"
_ENVIRONMENT = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


@dataclass(slots=True)
class Answer:
    """What a child said, item by item, and how it ended."""

    items: list[tuple[dict[str, Any], list[memoryview]]] = field(default_factory=list)
    problem: str = ""


def ask(
    name: str, module: str, reader: CachedReader, options: ScanOptions, paths: list[str] | None
) -> Answer:
    """Let a child read what is asked for; whatever becomes of it is in the answer."""
    ours, theirs = socket.socketpair()
    answer = Answer()
    with ours, theirs:
        child = subprocess.Popen(  # noqa: S603  # our own interpreter and module
            [sys.executable, "-P", "-c", _CHILD, module],
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=_environment(),
        )
        theirs.close()
        try:
            job = {
                "size": reader.facts.size,
                "paths": paths,
                "max_inline": options.max_inline,
                "max_chunk": options.max_chunk,
            }
            answer.problem = _converse(ours, reader, job, answer)
        except TimeoutError:
            answer.problem = f"{name} was ended after {WALL_S:g} s"
        except (EOFError, ConnectionError):
            ours.close()
            answer.problem = _how_it_ended(child, name)
        except SourceChanged:
            raise
        except ByteatlasError as error:
            answer.problem = str(error)
        finally:
            child.kill()
            child.wait()
    return answer


def _how_it_ended(child: subprocess.Popen[bytes], name: str) -> str:
    try:
        code = child.wait(timeout=5)
    except subprocess.TimeoutExpired:
        return f"{name} stopped answering"
    return f"{name} was ended by signal {-code}" if code < 0 else f"{name} exited with {code}"


def _environment() -> dict[str, str]:
    """Return what a child needs to know: where modules and filters are, and no secrets."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if key in _ENVIRONMENT or key.startswith(("PYTHON", "LC_", "COVERAGE"))
    }
    # A pool of threads takes address space, of which there is only so much.
    return {**kept, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "BLOSC_NTHREADS": "1"}


def _converse(
    link: socket.socket, reader: CachedReader, job: dict[str, Any], answer: Answer
) -> str:
    """Send the job, answer what the child asks, and collect what it finds; return its problem."""
    until = time.monotonic() + WALL_S
    left = MAX_RESULT
    data = json.dumps(job).encode()
    link.sendall(FRAME.pack(b"j", len(data)) + data)
    while True:
        link.settimeout(max(until - time.monotonic(), 0.001))
        kind, length = FRAME.unpack(receive(link, FRAME.size))
        left -= length if kind != b"r" else 0
        if left < 0:
            return f"it found more than {MAX_RESULT} bytes"
        said = receive(link, length) if kind != b"r" else receive(link, RANGE.size)
        if kind == b".":
            return ""
        if kind == b"e":
            return bytes(said).decode("utf-8", "replace")
        if kind == b"d":
            answer.items.append(_item(said))
            continue
        began = time.monotonic()
        data = _block(reader, *RANGE.unpack(said))
        until += time.monotonic() - began
        link.sendall(FRAME.pack(b"b", len(data)))
        link.sendall(data)


def _block(reader: CachedReader, offset: int, length: int) -> bytes:
    """Return bytes of the source, read in whole blocks so that neighbours need no request."""
    size = reader.facts.size or 0
    if offset + length > size:
        raise Malformed(f"bytes {offset} to {offset + length} of {size} were asked for")
    first = offset // BLOCK * BLOCK
    starts = range(first, offset + length, BLOCK)
    blocks = reader.read([ByteRange(start, min(BLOCK, size - start)) for start in starts])
    data = b"".join(map(as_view, blocks))
    return data[offset - first : offset - first + length]


def _item(said: bytearray) -> tuple[dict[str, Any], list[memoryview]]:
    """Take an item of the result apart: facts as JSON values, and blobs.

    Raises
    ------
    Malformed
        It is none: whatever the child read may have taken it over.
    """
    blobs: list[memoryview] = []
    try:
        (length,) = struct.unpack_from("<I", said)
        facts, sizes = json.loads(said[4 : 4 + length])
        at = 4 + length
        for size in sizes:
            blobs.append(memoryview(said)[at : at + size])
            at += size
    except (struct.error, TypeError, ValueError, RecursionError) as error:
        raise Malformed(f"what it found cannot be understood ({error})") from error
    if not isinstance(facts, dict):
        raise Malformed(f"what it found is {facts!r:.40}, expected an object")
    return facts, blobs
