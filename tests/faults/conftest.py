"""One file, twenty-seven ways for a server to fail, and what must come of each."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import h5py
import numpy as np
import pytest

from byteatlas.sources import Policy
from byteatlas.testing.server import Fault, RangeServer

CHUNK, CHUNKS = 4096, 8
PAD = 2**18
"""Bytes between chunks: too many to be fetched with them."""
VARIABLES = {"raw": {}, "zlib": {"compression": 4}, "shuffle": {"compression": 4, "shuffle": True}}
NAME = "data/a.h5"
SECRET = "s3cr3t-t0ken"  # looked for wherever it must not be
HASTY = Policy(first_pause_s=0.01)
"""The real one with shorter pauses."""
STEADY = Policy(first_pause_s=0.02)
"""Its pauses, and outages of 0.1 s, are a fifth of the real ones."""
IMPATIENT = replace(HASTY, idle_s=0.08, patience_s=0.2, total_s=1.2)
"""For servers that fall silent."""
MADE_S = 1_600_000_000.0


def make_file() -> tuple[bytes, dict[str, Any]]:
    """Write three variables whose chunks lie far apart, with checksums in all metadata."""
    buffer = io.BytesIO()
    rng = np.random.default_rng(0)
    values = {}
    with h5py.File(buffer, "w", libver="latest") as file:
        shape = (CHUNK // 2 * CHUNKS,)
        for name, options in VARIABLES.items():
            values[name] = rng.integers(0, 1000, shape).astype("<i2")
            file.create_dataset(name, shape, "<i2", chunks=(CHUNK // 2,), **options)
        pads = len(VARIABLES) * CHUNKS
        pad = file.create_dataset("pad", (PAD * pads,), "u1", chunks=(PAD,))
        for number in range(pads):
            name, part = list(VARIABLES)[number % 3], number // 3
            rows = slice(part * CHUNK // 2, (part + 1) * CHUNK // 2)
            file[name][rows] = values[name][rows]
            file.flush()
            pad[number * PAD : (number + 1) * PAD] = number
            file.flush()
    return buffer.getvalue(), values


DATA, TRUTH = make_file()
BOMB = gzip.compress(bytes(2**20), mtime=0)

RIGHT, ERROR = "right", "error"


@dataclass(frozen=True)
class Case:
    """A fault, and what must come of it."""

    outcome: str
    make: Callable[[], Fault]
    most_tries: int = 6
    """Requests for one range at most."""
    undetectable: tuple[str, ...] = ()
    """Variables whose values can only be told wrong by digests."""
    bandwidth: float | None = None
    to_other_host: bool = False
    policy: Policy = HASTY


def fault(**options: Any) -> Callable[[], Fault]:
    return lambda: Fault(path="data/*", **options)


RAW = ("raw",)
CASES = {
    "ignore_range": Case(ERROR, fault(ignore_range=True), 1, bandwidth=1e6),
    "wrong_range": Case(ERROR, fault(headers={"Content-Range": f"bytes 0-4095/{len(DATA)}"}), 1),
    "lying_range": Case(ERROR, fault(shift=24), 1, undetectable=RAW),
    "bitflip": Case(ERROR, fault(flip=999), 1, undetectable=RAW),
    "short_206": Case(RIGHT, fault(at_most=1000)),
    "truncate_cl": Case(ERROR, fault(cut=10)),
    "truncate_nocl": Case(
        ERROR, fault(cut=10, headers={"Content-Length": "", "Connection": "close"})
    ),
    "truncate_once": Case(RIGHT, fault(cut=100, times=CHUNKS), 2),
    "reset_once": Case(RIGHT, fault(reset=100, times=CHUNKS), 2),
    "reset_before_once": Case(RIGHT, fault(reset=-1, times=CHUNKS), 2),
    "503_500ms": Case(RIGHT, fault(status=503, for_s=0.1), 4, policy=STEADY),
    "500_500ms": Case(RIGHT, fault(status=500, for_s=0.1), 4, policy=STEADY),
    "429_ra1": Case(RIGHT, fault(status=429, headers={"Retry-After": "1"}, for_s=0.1), 2),
    "503_forever": Case(ERROR, fault(status=503)),
    "403": Case(ERROR, fault(status=403), 1),
    "404": Case(ERROR, fault(status=404), 1),
    "410": Case(ERROR, fault(status=410), 1),
    "416": Case(ERROR, fault(status=416), 1),
    "gzip_ce": Case(RIGHT, fault(is_gzipped=True), 1),
    "gzip_bomb": Case(ERROR, fault(body=BOMB, headers={"Content-Encoding": "gzip"}), 1),
    "redirect_file": Case(ERROR, fault(status=302, headers={"Location": "file:///etc/passwd"}), 1),
    "redirect_loop": Case(ERROR, fault(status=302, headers={"Location": f"/{NAME}"})),
    "redirect_other_host": Case(RIGHT, fault(status=302), 2, to_other_host=True),
    "stall": Case(ERROR, fault(stall_s=60), policy=IMPATIENT),
    "soft404": Case(
        ERROR,
        fault(status=200, headers={"Content-Type": "text/html"}, body=b"<html>gone</html>"),
        1,
    ),
    "duplicate_headers": Case(ERROR, fault(more_headers=[("Content-Range", "bytes 0-9/99")]), 1),
    "slow_drip": Case(ERROR, fault(drip_s=0.02), policy=IMPATIENT),
}
TRANSIENT = (
    "truncate_once", "reset_once", "reset_before_once", "503_500ms", "500_500ms", "429_ra1",
)  # fmt: skip


@pytest.fixture
def server():
    with RangeServer({NAME: DATA}, modified_s=MADE_S) as server:
        yield server


@pytest.fixture
def break_server(server, monkeypatch):
    """Return a function that makes the server fail, and gives back another host."""
    from byteatlas.sources import http  # takes long

    # Seconds of Retry-After pass ten times as fast.
    read = http.retry_after
    monkeypatch.setattr(
        http, "retry_after", lambda value: None if read(value) is None else read(value) / 10
    )
    with RangeServer({NAME: DATA}, modified_s=MADE_S) as other:

        def strike(name: str, *, ranges: int = CHUNKS) -> RangeServer:
            case = CASES[name]
            made = case.make()
            if made.times is not None:
                made.times = ranges
            if case.to_other_host:
                made.headers = {"Location": other.url(NAME)}
            server.clear()
            server.bandwidth = case.bandwidth
            server.faults = [made]
            return other

        yield strike
