"""How fast are the codecs of chunks undone, beside h5py and beside other libraries?

1. Each filter of HDF5 on one chunk, decoded by byteatlas from its stored bytes, and read by h5py
   (with hdf5plugin) from a file in memory without a chunk cache.
2. zlib by each library that there is.
3. Parts of chunks, beside the whole chunk.
4. What a decoder costs more than the function of the library that it calls.

Figures are of CPU time of this process, the medians of repeats that take turns. "Others run" is
how much another thread of Python gets done meanwhile, beside one that has the interpreter to
itself: near 0 where the decoder holds the interpreter's lock. Exits with 1 when a value differs.
"""

from __future__ import annotations

import statistics
import sys
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import Any

import h5py
import hdf5plugin
import numcodecs
import numpy as np
from _measure import argument_parser, print_machine, print_table

from byteatlas.codecs import decoder_of, part_decoder_of
from byteatlas.model import Codec, Encoding
from byteatlas_scanners.hdf5.filters import Filter, encoding_of

PACKAGES = (
    "byteatlas",
    "numpy",
    "numcodecs",
    "deflate",
    "imagecodecs",
    "isal",
    "zlib-ng",
    "h5py",
    "hdf5plugin",
)
FILTERS: dict[str, Any] = {
    "deflate": {"compression": 4},
    "shuffle, deflate": {"compression": 4, "shuffle": True},
    "shuffle, deflate, fletcher32": {"compression": 4, "shuffle": True, "fletcher32": True},
    "shuffle": {"shuffle": True},
    "fletcher32": {"fletcher32": True},
    "shuffle, lzf": {"compression": "lzf", "shuffle": True},
    "shuffle, zstd": {**hdf5plugin.Zstd(), "shuffle": True},
    "blosc lz4": hdf5plugin.Blosc(),
    "blosc zstd": hdf5plugin.Blosc(cname="zstd"),
    "blosc2": hdf5plugin.Blosc2(),
    "bitshuffle": hdf5plugin.Bitshuffle(cname="none"),
    "bitshuffle lz4": hdf5plugin.Bitshuffle(),
    "bitshuffle zstd": hdf5plugin.Bitshuffle(cname="zstd"),
    "shuffle, lz4": {**hdf5plugin.LZ4(), "shuffle": True},
    "shuffle, bzip2": {**hdf5plugin.BZip2(), "shuffle": True},
    "scale-offset": {"scaleoffset": 2},
    "n-bit": None,
    "szip": {"compression": "szip"},
    "zfp by rate": hdf5plugin.Zfp(rate=8),
    "zfp by accuracy": hdf5plugin.Zfp(accuracy=0.01),
}


def numbers(count: int) -> np.ndarray:
    """Return a wave with noise, rounded to two digits."""
    draw = np.random.default_rng(0).normal(size=count)
    return np.round(np.sin(np.arange(count) / 5000) * 300 + 3 * draw, 2).astype("<f4")


def write(file: h5py.File, name: str, values: np.ndarray) -> h5py.Dataset:
    """Write one chunk; by n-bit as integers of 12 bits."""
    options = FILTERS[name]
    if options is not None:
        return file.create_dataset(name, data=values, chunks=values.shape, **options)
    kind = h5py.h5t.STD_I16LE.copy()
    kind.set_precision(12)
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk(values.shape)
    plist.set_filter(h5py.h5z.FILTER_NBIT)
    space = h5py.h5s.create_simple(values.shape)
    dataset = h5py.Dataset(h5py.h5d.create(file.id, name.encode(), kind, space, plist))
    dataset[...] = values.astype("<i2")
    return dataset


def stored(dataset: h5py.Dataset) -> tuple[Encoding, bytes]:
    """Return how the only chunk of a dataset is encoded, and its bytes."""
    plist = dataset.id.get_create_plist()
    found = map(plist.get_filter, range(plist.get_nfilters()))
    pipeline = tuple(
        Filter(number, is_optional=True, name="", client=client) for number, _, client, _ in found
    )
    mask, raw = dataset.id.read_direct_chunk((0,))
    nbytes = dataset.size * dataset.dtype.itemsize
    return encoding_of(pipeline, chunk_nbytes=nbytes, mask=mask), raw


def seconds(actions: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """Return the median CPU seconds of each action; they take turns."""
    times: list[list[float]] = [[] for _ in actions]
    calls = []
    for action in actions:
        begin = time.process_time()
        action()
        calls.append(max(1, int(0.02 / max(time.process_time() - begin, 1e-6))))
    for _ in range(repeats):
        for action, found, count in zip(actions, times, calls, strict=True):
            begin = time.process_time()
            for _ in range(count):
                action()
            found.append((time.process_time() - begin) / count)
    return [max(statistics.median(found), 1e-9) for found in times]


def share_of_others(action: Callable[[], object]) -> str:
    """Return what another thread gets done during an action, of what it does during a pause.

    Neither thread is made to give up the interpreter's lock: the other one does so at each step,
    and the action does, or does not.
    """
    steps, is_over = [0], threading.Event()

    def count() -> None:
        while not is_over.is_set():
            steps[0] += 1
            time.sleep(0)

    def rate(action: Callable[[], object]) -> float:
        begin, before = time.perf_counter(), steps[0]
        while time.perf_counter() < begin + 0.05:
            action()
        return (steps[0] - before) / (time.perf_counter() - begin)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(10)
    other = threading.Thread(target=count)
    other.start()
    try:
        alone = statistics.median(rate(partial(time.sleep, 0.05)) for _ in range(5))
        beside = statistics.median(rate(action) for _ in range(5))
    finally:
        is_over.set()
        other.join()
        sys.setswitchinterval(interval)
    return f"{beside / alone:.0%}"


def mb(nbytes: int, taken: float) -> str:
    return f"{nbytes / taken / 1e6:,.0f}"


def filters(chunk: int, repeats: int, file: h5py.File) -> list[str]:
    """Print the first table, and return the filters whose values differ."""
    rows, wrong = [], []
    values = numbers(chunk // 4)
    for name, written in FILTERS.items():
        dataset = write(file.require_group(str(chunk)), name, values)
        file.flush()
        encoding, raw = stored(dataset)
        out = np.empty(dataset.shape, "<i2" if written is None else dataset.dtype)
        undo = partial(decoder_of(encoding, size=out.nbytes), raw)
        ours, theirs = seconds([undo, partial(dataset.read_direct, out)], repeats)
        decoded = np.frombuffer(undo(), out.dtype)
        if written is None:  # as stored: without the bits above the twelfth
            out &= 0xFFF
        if not np.array_equal(decoded, out):
            wrong.append(name)
        ratio, times = f"{out.nbytes / len(raw):.1f}", f"{theirs / ours:.2f}"
        # Of a large chunk: the system takes a while to wake the other thread.
        others = share_of_others(undo) if chunk >= 2**22 else ""
        rows.append((name, ratio, mb(out.nbytes, ours), mb(out.nbytes, theirs), times, others))
    header = ("filters", "ratio", "byteatlas MB/s", "h5py MB/s", "times as fast", "others run")
    print_table(f"Chunks of {chunk // 1024} KiB", header, rows)
    return wrong


def inflating(chunk: int, repeats: int) -> None:
    """Print the second table."""
    shuffled = numbers(chunk // 4).view(np.uint8).reshape(-1, 4).T.tobytes()
    data = memoryview(zlib.compress(shuffled, 4))
    decoder = decoder_of(Encoding((Codec("zlib"),)), size=chunk)
    ways: dict[str, Callable[[], Any]] = {
        "zlib": lambda: zlib.decompressobj().decompress(data, chunk + 1),
        "byteatlas": lambda: decoder(data),
    }
    for name, module, inflate in [
        ("deflate", "deflate", lambda package: package.zlib_decompress(data, chunk)),
        ("isal", "isal.isal_zlib", lambda package: package.decompress(data, bufsize=chunk)),
        ("zlib-ng", "zlib_ng.zlib_ng", lambda package: package.decompress(data, bufsize=chunk)),
        (
            "imagecodecs (libdeflate)",
            "imagecodecs",
            lambda package: package.deflate_decode(data, raw=False, out=chunk),
        ),
    ]:
        try:
            ways[name] = partial(inflate, import_module(module))
        except ImportError:
            print(f"missing: {module}")
    assert all(bytes(way()) == shuffled for way in ways.values())
    taken = dict(zip(ways, seconds(list(ways.values()), repeats), strict=True))
    rows = [
        (name, mb(chunk, of_it), f"{taken['zlib'] / of_it:.2f}", "")
        for name, of_it in taken.items()
    ]
    print_table(f"zlib, {chunk // 1024} KiB", ("library", "MB/s", "times zlib", ""), rows)


def parts(chunk: int, repeats: int, file: h5py.File) -> None:
    """Print the third table."""
    values, rows = numbers(chunk // 4), []
    encodings = {
        f"blosc {cname}": (
            Encoding((Codec("blosc"),)),
            bytes(numcodecs.Blosc(cname, 5, 1).encode(values)),
        )
        for cname in ("lz4", "zstd")
    }
    for name in ("bitshuffle lz4", "bitshuffle zstd"):
        encodings[name] = stored(file[f"{chunk}/{name}"])
    for name, (encoding, raw) in encodings.items():
        whole = decoder_of(encoding, size=chunk)
        part = part_decoder_of(encoding, size=chunk)
        assert part is not None
        stops = [chunk // 64, chunk // 16, chunk // 4, chunk // 2, chunk]
        assert all(bytes(part(raw, 4, stop)) == values.tobytes()[4:stop] for stop in stops)
        actions = [partial(whole, raw), *(partial(part, raw, 4, stop) for stop in stops)]
        least, *taken = seconds(actions, repeats)
        rows.append((name, f"{least * 1e6:,.0f} us", *(f"{of_it / least:.2f}" for of_it in taken)))
    header = ("codec", "whole", "1/64", "1/16", "1/4", "1/2", "all")
    print_table(f"Parts of {chunk // 1024} KiB, beside the whole", header, rows)


def overhead(repeats: int) -> None:
    """Print the fourth table."""
    plain, rows = bytes(range(200)), []
    for name in ("", "zlib", "zstd", "lz4", "blosc", "fletcher32"):
        codec = numcodecs.get_codec({"id": name}) if name else None
        data = memoryview(bytes(codec.encode(plain)) if codec else plain)
        decoder = decoder_of(Encoding((Codec(name),) if name else ()), size=200)
        decode = {
            "zlib": lambda data: import_module("deflate").zlib_decompress(data, 200),
            "": lambda data: data,
        }.get(name, getattr(codec, "decode", None))
        ours, theirs = seconds([partial(decoder, data), partial(decode, data)], repeats)
        rows.append((name or "none", f"{ours * 1e6:.2f} us", f"{theirs * 1e6:.2f} us", ""))
    print_table("200 bytes", ("codec", "decoder", "library", ""), rows)


def main() -> int:
    """Print the tables."""
    parser = argument_parser(__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument(
        "--kib", type=int, nargs="*", default=[64, 1024, 8192], help="sizes of the chunks"
    )
    parser.add_argument("--quick", action="store_true", help="64 KiB only, 3 repeats")
    options = parser.parse_args()
    if options.quick:
        options.repeats, options.kib = 3, [64]
    print_machine(PACKAGES)
    wrong: list[str] = []
    with h5py.File("made", "w", driver="core", backing_store=False, rdcc_nbytes=0) as file:
        for kib in options.kib:
            wrong += filters(kib * 1024, options.repeats, file)
        for kib in options.kib:
            inflating(kib * 1024, options.repeats)
        for kib in options.kib:
            parts(kib * 1024, options.repeats, file)
    overhead(options.repeats)
    print("\nvalues that differ:", ", ".join(wrong) or "none")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
