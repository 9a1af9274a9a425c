"""What a chunk that is kept costs: in memory, in packs, and in files or a database instead.

    python benchmarks/chunk_cache.py

Processor time for each chunk in microseconds, the median of some repeats, taken in turn. Chunks are
asked for a mebibyte at a time, as reads ask. All check a CRC-32 of each chunk that they read,
memory aside.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import numpy as np
from _measure import print_machine

from byteatlas.model import Source
from byteatlas.sources.chunk_cache_option import open_cache

REPEATS = 7
SIZES = {2**10: 5000, 2**16: 1000, 2**20: 64}
"""Bytes of a chunk, and how many."""
SOURCE = Source("https://example.org/a.nc", 2**40, '"tag"')

Way = tuple[Callable[[Sequence[bytes]], None], Callable[[int, int], list[bytes | memoryview]]]
"""Keeps chunks; returns those from one number up to another."""


def by_cache(option: str, size: int) -> Way:
    """Use one of byteatlas' caches."""
    cache = open_cache(option)
    assert cache is not None

    def put(chunks: Sequence[bytes]) -> None:
        for first in range(0, len(chunks), 64):
            some = chunks[first : first + 64]
            offset = np.arange(first, first + len(some)) * size
            cache.put_many(SOURCE, offset, np.full(len(some), size), some)

    def get(first: int, stop: int) -> list[bytes | memoryview]:
        found = cache.get_many(SOURCE, np.arange(first, stop) * size, np.full(stop - first, size))
        return [one for one in found if isinstance(one, bytes | memoryview)]

    return put, get


def by_files(folder: Path) -> Way:
    """Keep each chunk in a file of its own, renamed into place."""
    folder.mkdir()

    def put(chunks: Sequence[bytes]) -> None:
        for number, chunk in enumerate(chunks):
            handle = os.open(f"{folder}/{number}.tmp", os.O_WRONLY | os.O_CREAT, 0o600)
            os.writev(handle, [zlib.crc32(chunk).to_bytes(4, "little"), chunk])
            os.close(handle)
            os.rename(f"{folder}/{number}.tmp", f"{folder}/{number}")  # noqa: PTH104  # as fast as can be

    def get(first: int, stop: int) -> list[bytes | memoryview]:
        return [one(number) for number in range(first, stop)]

    def one(number: int) -> memoryview:
        handle = os.open(f"{folder}/{number}", os.O_RDONLY)
        data = memoryview(os.pread(handle, os.fstat(handle).st_size, 0))
        os.close(handle)
        assert zlib.crc32(data[4:]) == int.from_bytes(data[:4], "little")
        return data[4:]

    return put, get


def by_sqlite(path: Path) -> Way:
    """Keep chunks in a database with a write-ahead log, which is never flushed."""
    base = sqlite3.connect(path)
    base.execute("pragma journal_mode=wal")
    base.execute("pragma synchronous=off")
    base.execute("create table chunks (number integer primary key, crc integer, data blob)")

    def put(chunks: Sequence[bytes]) -> None:
        for first in range(0, len(chunks), 64):
            some = enumerate(chunks[first : first + 64], first)
            rows = [(number, zlib.crc32(chunk), chunk) for number, chunk in some]
            base.executemany("insert into chunks values (?, ?, ?)", rows)
            base.commit()

    def get(first: int, stop: int) -> list[bytes | memoryview]:
        found = base.execute(
            "select crc, data from chunks where number between ? and ?", (first, stop - 1)
        )
        rows = found.fetchall()
        assert all(zlib.crc32(data) == crc for crc, data in rows)
        return [data for _, data in rows]

    return put, get


def measured(way: Way, chunks: Sequence[bytes]) -> tuple[float, float]:
    """Return the processor time to keep a chunk and to get it back, in microseconds."""
    put, get = way
    size, count = len(chunks[0]), len(chunks)
    step = max(2**20 // size, 1)
    start = time.process_time()
    put(chunks)
    put_s = time.process_time() - start
    hits: list[float] = []
    for _ in range(REPEATS):
        start = time.process_time()
        for first in range(0, count, step):
            found = get(first, min(first + step, count))
        hits.append(time.process_time() - start)
        assert [bytes(one) for one in found] == list(chunks[first:])
    return put_s / count * 1e6, median(hits) / count * 1e6


def main() -> None:
    """Measure, and print a table."""
    print_machine(["byteatlas", "numpy"])
    print(f"{'chunk':>8}  {'kept in':16}{'put, us':>10}{'hit, us':>10}")
    for size, count in SIZES.items():
        chunks = [os.urandom(size) for _ in range(count)]
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            ways = {
                "memory": by_cache("memory:1GiB", size),
                "packs": by_cache(f"{folder / 'packs'}:1GiB", size),
                "a file each": by_files(folder / "files"),
                "sqlite": by_sqlite(folder / "base"),
            }
            for kept_in, way in ways.items():
                put_us, hit_us = measured(way, chunks)
                print(f"{size // 2**10:>4} KiB  {kept_in:16}{put_us:>10.1f}{hit_us:>10.2f}")


if __name__ == "__main__":
    main()
