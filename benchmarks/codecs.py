"""How fast are HDF5's filters undone, beside h5py?

One chunk of a million numbers per filter, decoded by byteatlas from its stored bytes, and read by
h5py (with hdf5plugin) from a file in memory without a chunk cache. Figures are decoded bytes per
second of CPU, the best of the repeats. Exits with 1 when a value differs.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial

import h5py
import hdf5plugin
import numpy as np
from _measure import argument_parser, print_machine, print_table

from byteatlas.codecs import decode
from byteatlas_scanners.hdf5.filters import Filter, encoding_of

PACKAGES = ("byteatlas", "numpy", "numcodecs", "imagecodecs", "h5py", "hdf5plugin")
FILTERS = {
    "deflate, shuffle": {"compression": 4, "shuffle": True},
    "lzf, shuffle": {"compression": "lzf", "shuffle": True},
    "bitshuffle": hdf5plugin.Bitshuffle(cname="none"),
    "bitshuffle, lz4": hdf5plugin.Bitshuffle(),
    "bitshuffle, zstd": hdf5plugin.Bitshuffle(cname="zstd"),
    "lz4, shuffle": {**hdf5plugin.LZ4(), "shuffle": True},
    "scale-offset": {"scaleoffset": 2},
    "n-bit": None,
    "szip": {"compression": "szip"},
    "blosc2": hdf5plugin.Blosc2(),
    "zfp by rate": hdf5plugin.Zfp(rate=8),
    "zfp by accuracy": hdf5plugin.Zfp(accuracy=0.01),
}


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


def rate(action: Callable[[], object], nbytes: int, repeats: int) -> float:
    """Return bytes per second of CPU."""
    least = float("inf")
    for _ in range(repeats):
        begin = time.process_time()
        action()
        least = min(least, time.process_time() - begin)
    return nbytes / max(least, 1e-9)


def main() -> int:
    """Print the table."""
    parser = argument_parser(__doc__)
    parser.add_argument("--numbers", type=int, default=10**6, help="numbers of a chunk")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    print_machine(PACKAGES)
    draw = np.random.default_rng(0).normal(size=options.numbers)
    values = np.round(np.sin(np.arange(options.numbers) / 5000) * 300 + 3 * draw, 2).astype("<f4")
    rows, wrong = [], []
    with h5py.File("made", "w", driver="core", backing_store=False, rdcc_nbytes=0) as file:
        for name, written in FILTERS.items():
            dataset = write(file, name, values)
            file.flush()
            plist = dataset.id.get_create_plist()
            found = map(plist.get_filter, range(plist.get_nfilters()))
            pipeline = tuple(
                Filter(number, is_optional=True, name="", client=client)
                for number, _, client, _ in found
            )
            mask, stored = dataset.id.read_direct_chunk((0,))
            out = np.empty(dataset.shape, "<i2" if written is None else dataset.dtype)
            encoding = encoding_of(pipeline, chunk_nbytes=out.nbytes, mask=mask)
            undo = partial(decode, stored, encoding, size=out.nbytes)
            theirs = rate(partial(dataset.read_direct, out), out.nbytes, options.repeats)
            ours = rate(undo, out.nbytes, options.repeats)
            decoded = np.frombuffer(undo(), out.dtype)
            if written is None:  # as stored: without the bits above the twelfth
                out &= 0xFFF
            if not np.array_equal(decoded, out):
                wrong.append(name)
            size = f"{out.nbytes / len(stored):.1f}"
            rows.append((name, size, f"{ours / 1e6:,.0f} MB/s", f"{theirs / 1e6:,.0f} MB/s", ""))
    print_table("decoded", ("filter", "ratio", "byteatlas", "h5py", ""), rows)
    print("\nvalues that differ:", ", ".join(wrong) or "none")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
