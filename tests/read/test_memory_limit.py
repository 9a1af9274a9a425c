"""A read takes the memory of its result, and not much more: the address space is limited.

The limit holds for the whole process: interpreter, libraries, thread stacks and all. Larger
results: ``BYTEATLAS_TEST_SCALE=8``.
"""

import gc
import os
import pickle
import subprocess
import sys
import time
import weakref
import zlib

import numpy as np
import pytest

from byteatlas.model import ChunkManifest, Codec, Encoding, Source, VirtualArray
from byteatlas.read import Reader
from byteatlas.testing import RangeServer

pytest.importorskip("resource")

SCALE = int(os.environ.get("BYTEATLAS_TEST_SCALE", "1"))
MIB = 2**20
RESULT = 64 * MIB * SCALE
BESIDES = 300_000_000

CHILD = """
import pickle, resource, sys, zlib

array, sources, sums, limit = pickle.load(sys.stdin.buffer)
from byteatlas.read import Reader

resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    bytearray(limit)
except MemoryError:
    pass
else:
    sys.exit("the limit does not hold")
reader = Reader(sources)
for _ in range(2):  # nothing of the first read stays
    values = reader.read(array)
    assert [zlib.crc32(values[at]) for at in range(len(values))] == sums
    del values
print("all values are right")
"""

ENCODINGS = {
    "raw": (),
    # as many bytes to fetch as to give
    "shuffled": (Codec("shuffle", {"elementsize": 4}), Codec("zlib", {"level": 0})),
}


def encoded(chunk, codecs):
    data = chunk.tobytes()
    for codec in codecs:
        if codec.name == "shuffle":
            data = chunk.view("u1").reshape(-1, 4).T.tobytes()
        else:
            data = zlib.compress(data, 0)
    return data


def write_chunks(path, codecs, chunk):
    """Write RESULT bytes in chunks of `chunk` bytes; return their array, and a sum of each."""
    random = np.random.default_rng(0)
    pattern = random.integers(0, 2**32, chunk // 4, "u4")
    lengths, sums = [], []
    with path.open("wb") as file:
        for number in range(RESULT // chunk):
            values = pattern ^ np.uint32(number)
            lengths.append(file.write(encoded(values, codecs)))
            sums.append(zlib.crc32(values))
    count = len(lengths)
    manifest = ChunkManifest.build(
        (count, 1),
        np.arange(count, dtype="u8"),
        np.cumsum([0, *lengths[:-1]]).astype("u8"),
        np.array(lengths, "u8"),
    )
    shape = (count, chunk // 4)
    chunk_shape = (1, chunk // 4)
    encodings = (Encoding(codecs),)
    return VirtualArray(shape, np.dtype("<u4"), chunk_shape, manifest, encodings), sums


def read_in_child(array, sources, sums):
    """Read an array in a process of limited address space; return what it says."""
    question = pickle.dumps((array, sources, sums, RESULT + BESIDES))
    result = subprocess.run(
        [sys.executable, "-c", CHILD], input=question, capture_output=True, check=False
    )
    assert result.returncode == 0, result.stderr.decode()
    return result.stdout.decode()


@pytest.mark.parametrize("place", ["local", "http"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_read_succeeds_in_the_memory_of_its_result_and_300_mb(tmp_path, encoding, place):
    array, sums = write_chunks(tmp_path / "data.bin", ENCODINGS[encoding], MIB)
    size = (tmp_path / "data.bin").stat().st_size
    if place == "local":
        said = read_in_child(array, [Source(str(tmp_path / "data.bin"), size)], sums)
    else:
        with RangeServer(tmp_path) as server:
            said = read_in_child(array, [Source(server.url("data.bin"), size)], sums)
    assert said == "all values are right\n"


@pytest.mark.parametrize("place", ["local", "http"])
def test_nothing_holds_a_result_but_its_reader(tmp_path, place):
    array, _ = write_chunks(tmp_path / "data.bin", (), MIB)
    with RangeServer(tmp_path) as server:
        url = str(tmp_path / "data.bin") if place == "local" else server.url("data.bin")
        reader = Reader([Source(url)])
        gc.disable()
        try:
            for _ in range(8):
                values = reader.read(array, slice(16))
                owner = weakref.ref(values if values.base is None else values.base)
                del values
                for _ in range(200):  # threads that helped may just be putting it down
                    if owner() is not None:
                        time.sleep(0.01)
                assert owner() is None
        finally:
            gc.enable()
