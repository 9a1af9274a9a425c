"""Which HTTP client can keep the transport's promises, and at what price?

For each client: CPU of small ranged GETs with 128 in flight against a loopback server (its own
process) that answers after 50 ms, and what the client shows of an answer. Run:

    python benchmarks/http_clients.py
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import numpy as np

from byteatlas.testing.server import Fault, RangeServer

REQUESTS, IN_FLIGHT, LENGTH, LATENCY_S = 2000, 128, 3000, 0.05
SIZE = 64 * 2**20

Get = Callable[[int], Awaitable[bytes]]


async def with_aiohttp(url: str, offsets: list[int]) -> int:
    import aiohttp

    connector = aiohttp.TCPConnector(limit=IN_FLIGHT)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:

        async def get(offset: int) -> bytes:
            headers = {"Range": f"bytes={offset}-{offset + LENGTH - 1}"}
            async with session.get(url, headers=headers) as answer:
                return await answer.read()

        return await run(get, offsets)


async def with_obstore(url: str, offsets: list[int]) -> int:
    import obstore
    from obstore.store import HTTPStore

    base, _, name = url.rpartition("/")
    store = HTTPStore.from_url(base, client_options={"allow_http": True})

    async def get(offset: int) -> bytes:
        return bytes(await obstore.get_range_async(store, name, start=offset, length=LENGTH))

    return await run(get, offsets)


async def with_httpx(url: str, offsets: list[int]) -> int:
    import httpx

    limits = httpx.Limits(max_connections=IN_FLIGHT, max_keepalive_connections=IN_FLIGHT)
    async with httpx.AsyncClient(limits=limits, timeout=30) as client:

        async def get(offset: int) -> bytes:
            headers = {"Range": f"bytes={offset}-{offset + LENGTH - 1}"}
            return (await client.get(url, headers=headers)).content

        return await run(get, offsets)


async def with_urllib3(url: str, offsets: list[int]) -> int:
    import urllib3

    with (
        urllib3.PoolManager(maxsize=IN_FLIGHT, block=True) as pool,
        ThreadPoolExecutor(IN_FLIGHT) as threads,
    ):

        def get(offset: int) -> int:
            headers = {"Range": f"bytes={offset}-{offset + LENGTH - 1}"}
            return len(pool.request("GET", url, headers=headers).data)

        return sum(threads.map(get, offsets))


async def with_byteatlas(url: str, offsets: list[int]) -> int:
    from byteatlas.model import ByteRanges
    from byteatlas.sources import open_source

    source = open_source(url, gap=0)
    (rows,) = await source.aread([ByteRanges(np.array(offsets, np.uint64), LENGTH)])
    return rows.nbytes


async def run(get: Get, offsets: list[int]) -> int:
    """Send all requests, at most IN_FLIGHT at a time, without a task for each."""
    todo, total = iter(offsets), 0

    async def work() -> None:
        nonlocal total
        for offset in todo:
            length = len(await get(offset))
            total += length

    await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))
    return total


CLIENTS = {
    "aiohttp": with_aiohttp,
    "obstore": with_obstore,
    "httpx": with_httpx,
    "urllib3": with_urllib3,
    "byteatlas": with_byteatlas,
}


def measure(name: str, url: str) -> None:
    """Print CPU and wall seconds of one client; the first, warming run does not count."""
    offsets = np.random.default_rng(0).integers(0, SIZE // 65536, REQUESTS) * 65536
    asyncio.run(CLIENTS[name](url, offsets[:IN_FLIGHT].tolist()))
    unique = (np.random.default_rng(1).permutation(REQUESTS) * 30_000).tolist()
    wall, cpu = time.perf_counter(), time.process_time()
    assert asyncio.run(CLIENTS[name](url, unique)) == REQUESTS * LENGTH
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    shown = "" if name == "byteatlas" else version(name)
    print(f"{name:10} {shown:9} {1e3 * cpu / REQUESTS:6.3f} ms CPU per GET, {wall:5.2f} s wall")


def show_obstore() -> None:
    """Print what obstore tells of answers that break a promise, and what they cost."""
    import obstore
    from obstore.store import HTTPStore

    async def ask(server: RangeServer) -> str:
        store = HTTPStore.from_url(
            server.url("")[:-1],
            client_options={"allow_http": True},
            retry_config={"max_retries": 3},
        )
        try:
            answer = await obstore.get_async(store, "a", options={"range": (100, 200)})
            await answer.bytes_async()
        except Exception as error:  # noqa: BLE001  # what it raises is what is shown
            return f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"
        return f"answer with attributes {sorted(n for n in dir(answer) if n[0] != '_')}"

    cases = {
        "a good 206": [],
        "200 to a range request": [Fault(ignore_range=True)],
        "another Content-Range": [Fault(headers={"Content-Range": f"bytes 0-99/{SIZE}"})],
        "403": [Fault(status=403)],
        "429, Retry-After: 2, once": [Fault(status=429, headers={"Retry-After": "2"}, times=1)],
    }
    for case, faults in cases.items():
        with RangeServer({"a": bytes(SIZE)}, faults=faults) as server:
            began = time.perf_counter()
            text = asyncio.run(ask(server))
            seconds = time.perf_counter() - began
            time.sleep(0.2)
            print(f"  {case}: {text}")
            print(f"    {len(server.log)} requests, {seconds:.2f} s")


def main() -> None:
    if len(sys.argv) == 3:
        measure(*sys.argv[1:])
        return
    print(f"{REQUESTS} GETs of {LENGTH} bytes, {IN_FLIGHT} in flight, {LATENCY_S} s latency")
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "a").write_bytes(os.urandom(SIZE))
        command = [sys.executable, "-m", "byteatlas.testing", directory]
        with subprocess.Popen(
            [*command, "--latency", str(LATENCY_S)], stdout=subprocess.PIPE, text=True
        ) as server:
            url = server.stdout.readline().strip() + "a"
            for name in CLIENTS:
                subprocess.run([sys.executable, __file__, name, url], check=True)
            server.terminate()
    print("obstore, asked for a range:")
    show_obstore()


if __name__ == "__main__":
    main()
