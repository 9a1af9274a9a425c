"""Ctrl-C ends a read at once, and leaves nothing behind that works on."""

import pickle
import select
import signal
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest

from byteatlas.model import ChunkManifest, Codec, Encoding, Source, VirtualArray
from byteatlas.testing import Fault, RangeServer

MIB = 2**20
CHUNKS = 192
PATIENCE_S = 10
"""A read that does not end is given up; one that does ends within a second on a free machine."""

CHILD = """
import pickle, signal, sys, threading, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may ignore it
array, sources, again = pickle.load(sys.stdin.buffer)
import byteatlas.sources.http  # an interrupt of an import is none of a read
from byteatlas.read import Reader

reader = Reader(sources)
print("reading", flush=True)
try:
    while True:
        reader.read(array)
except KeyboardInterrupt:
    print("interrupted", flush=True)
sys.stdin.buffer.read(1)  # until the test has seen it
began = time.process_time()
time.sleep(0.3)
worked = time.process_time() - began
assert worked < 0.1, f"{worked} s of processor time after the interrupt"
print("quiet", flush=True)
time.sleep(0.2)
sources, selection, expected = again
assert (Reader(sources).read(array, selection) == expected).all()
print("read again", flush=True)
"""


def stored(path):
    """Write chunks of 1 MiB, which take long enough to decode; return their array."""
    values = (np.arange(MIB // 4, dtype="u4") * 2654435761 >> 9) & 0xFFF0F
    data = zlib.compress(values.astype("<u4").tobytes(), 1)
    with path.open("wb") as file:
        for _ in range(CHUNKS):
            file.write(data)
    count = np.arange(CHUNKS, dtype="u8")
    length = np.full(CHUNKS, len(data), "u8")
    manifest = ChunkManifest.build((CHUNKS, 1), count, count * len(data), length)
    shape, chunk = (CHUNKS, MIB // 4), (1, MIB // 4)
    array = VirtualArray(
        shape, np.dtype("<u4"), chunk, manifest, encodings=(Encoding((Codec("zlib"),)),)
    )
    return array, values


def line_of(child):
    """Return the next line that a child says; fail when it is silent for too long."""
    ready, _, _ = select.select([child.stdout], [], [], PATIENCE_S)
    assert ready, "the child is silent"
    return child.stdout.readline().decode().strip()


def say(child, words):
    child.stdin.write(words)
    child.stdin.flush()


@pytest.fixture
def interrupted():
    """Return a function that runs a child, interrupts it while it reads, and gives it."""
    children = []

    def run(question, is_reading=lambda: True):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        children.append(child)
        say(child, pickle.dumps(question))
        assert line_of(child) == "reading"
        began = time.monotonic()
        while not is_reading() and time.monotonic() - began < PATIENCE_S:
            time.sleep(0.01)
        time.sleep(0.3)
        child.send_signal(signal.SIGINT)
        assert line_of(child) == "interrupted"
        say(child, b"x")
        assert line_of(child) == "quiet"
        return child

    yield run
    for child in children:
        child.kill()
        child.communicate()


def rest_of(child):
    """Return what a child says until it ends."""
    said, complaint = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 0, complaint.decode()
    return said.decode().strip()


def test_an_interrupt_ends_a_local_read(tmp_path, interrupted):
    array, values = stored(tmp_path / "data.bin")
    sources = [Source(str(tmp_path / "data.bin"))]
    again = (sources, (CHUNKS - 1, slice(None)), values)
    assert rest_of(interrupted((array, sources, again))) == "read again"


FAULTS = {
    "stalls in its answer": Fault(stall_s=600),
    "always fails": Fault(status=503, headers={"Retry-After": "100"}),
    "is slow": None,
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_an_interrupt_ends_a_read_from_a_server(tmp_path, interrupted, fault):
    array, values = stored(tmp_path / "data.bin")
    with RangeServer(tmp_path, bandwidth=None if fault else 2e6) as server:
        server.faults += [fault] if fault else []
        sources = [Source(server.url("data.bin"))]
        again = ([Source(str(tmp_path / "data.bin"))], (0, slice(None)), values)
        child = interrupted((array, sources, again), lambda: server.log)
        asked = len(server.log)
        assert rest_of(child) == "read again"
        assert len(server.log) == asked
