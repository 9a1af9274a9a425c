"""The files that are scanned: written once, kept in a cache directory, the same every time."""

from __future__ import annotations

import inspect
import itertools
import os
import tempfile
import zlib
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

import h5py
import netCDF4
import numpy as np
from numpy.typing import NDArray

CACHE = Path(tempfile.gettempdir()) / "byteatlas-benchmarks"


def cached(write: Callable[..., None], *arguments: int | bool, directory: Path = CACHE) -> Path:
    """Return the file that a function writes, which is called unless it was before.

    The function's text is part of the file's name, so that an edited one writes its file anew.
    """
    text = inspect.getsource(write) + repr(arguments)
    digest = blake2b(text.encode(), digest_size=4).hexdigest()
    path = directory / f"{write.__name__}-{digest}.h5"
    if not path.exists():
        directory.mkdir(parents=True, exist_ok=True)
        print(f"writing {path}", flush=True)
        partial = path.with_suffix(f".{os.getpid()}")
        write(partial, *arguments)
        partial.replace(path)
    return path


def product(path: Path, attributes: int) -> None:
    """Write a small satellite product: three axes, ten fields with so many attributes each.

    The library keeps an object's attributes in its header up to eight, its own ones included, and
    more than that in a heap.
    """
    rng = np.random.default_rng(0)
    with netCDF4.Dataset(path, "w") as dataset:
        for number in range(20):
            dataset.setncattr(f"history_{number}", f"step {number} of the processing chain")
        for name, size in (("time", None), ("lat", 100), ("lon", 180)):
            dataset.createDimension(name, size)
            axis = dataset.createVariable(name, "f8", (name,), chunksizes=(size or 1,))
            axis.setncatts({"units": "degrees", "long_name": name, "standard_name": name})
            axis[:] = np.arange(size or 1)
        for number in range(10):
            variable = dataset.createVariable(
                f"field_{number}",
                "i2",
                ("time", "lat", "lon"),
                zlib=True,
                complevel=4,
                chunksizes=(1, 50, 90),
                fill_value=-32768,
            )
            variable.set_auto_maskandscale(False)
            variable.setncatts({"units": "K", "scale_factor": np.float32(0.01)})
            variable.setncattr("valid_range", np.array([-9000, 9000], np.int16))
            for count in range(4, attributes):
                variable.setncattr(f"remark_{count}", "an invented quantity")
            variable[0] = rng.integers(0, 6600, (100, 180)) * (rng.random((100, 180)) < 0.95)


def collection(path: Path, references: int) -> None:
    """Write 30 variables of 40 attributes each in the root and two groups, chunks through time."""
    values = np.random.default_rng(0).integers(0, 500, 50 * 100).astype("<i2")
    chunk = zlib.compress(values.view("u1").reshape(-1, 2).T.tobytes())
    steps = references // 60
    with netCDF4.Dataset(path, "w") as dataset:
        for group in (dataset, dataset.createGroup("surface"), dataset.createGroup("ocean")):
            for name, size in (("time", None), ("y", 100), ("x", 100)):
                group.createDimension(name, size)
            for number in range(10):
                variable = group.createVariable(
                    f"field_{number}",
                    "i2",
                    ("time", "y", "x"),
                    zlib=True,
                    chunksizes=(1, 50, 100),
                )
                for count in range(40):
                    value = np.float64(count) if count % 3 else f"a text of attribute {count}"
                    variable.setncattr(f"attribute_{count}", value)
    with h5py.File(path, "r+") as file:
        groups = (file, file["surface"], file["ocean"])
        datasets = [group[f"field_{n}"] for group in groups for n in range(10)]
        for group in groups:
            group["time"].resize(steps, axis=0)
        for dataset in datasets:
            dataset.resize(steps, axis=0)
        for step, y in itertools.product(range(steps), (0, 50)):
            for dataset in datasets:
                dataset.id.write_direct_chunk((step, y, 0), chunk)


def many_datasets(path: Path, count: int, size: int) -> None:
    """Write datasets of two chunks each into one group; their chunks take `size` bytes.

    A first dataset of 1 MiB keeps the group out of the bytes that a scan begins with.
    """
    chunk = bytes(size // (2 * count))
    with h5py.File(path, "w") as file:
        file.create_dataset("first", data=np.zeros(2**20, np.uint8))
        group = file.create_group("group")
        for number in range(count):
            dataset = group.create_dataset(
                f"dataset_{number}", (2 * len(chunk),), "u1", chunks=(len(chunk),)
            )
            dataset.attrs["units"] = "1"
            for start in (0, len(chunk)):
                dataset.id.write_direct_chunk((start,), chunk)


def scattered(path: Path, chunks: int, variables: int, size: int, is_paged: bool) -> None:  # noqa: FBT001
    """Write variables in step, chunk by chunk, so that their metadata lies all over the file.

    With `is_paged`, metadata is gathered in pages of 4 MiB.
    """
    rng = np.random.default_rng(0)
    count = chunks // variables
    rows = -(-count // 60)
    pool = rng.bytes(2**21)
    lengths = rng.uniform(0.5, 1.5, (count, variables))
    lengths = (lengths * (size / lengths.sum())).astype(int)
    paging = {"fs_strategy": "page", "fs_page_size": 2**22} if is_paged else {}
    with h5py.File(path, "w", **paging) as file:
        datasets = [
            file.create_dataset(
                f"field_{number}",
                (rows * 4, 60 * 32, 32),
                "f4",
                chunks=(4, 32, 32),
                shuffle=True,
                compression="gzip",
            )
            for number in range(variables)
        ]
        for step in range(count):
            row, column = divmod(step, 60)
            for dataset, length in zip(datasets, lengths[step].tolist(), strict=True):
                dataset.id.write_direct_chunk((row * 4, column * 32, 0), pool[length : 2 * length])


def smooth(count: int) -> NDArray[np.float32]:
    """Return values like those of a measured quantity: slow waves, noise, two decimal places."""
    at = np.arange(count)
    noise = np.random.default_rng(1).normal(0, 0.3, count)
    return np.round(280 + 10 * np.sin(at / 5000) + noise, 2).astype("f4")


def field(path: Path, steps: int, deep: int, rows: int, columns: int, is_packed: bool) -> None:  # noqa: FBT001
    """Write steps of 512 x 512 values of 4 bytes, in chunks of this shape, 0: one piece.

    With `is_packed`, chunks are shuffled and deflated at level 4: to 2.2 times less.
    """
    packing = {"shuffle": True, "compression": "gzip", "compression_opts": 4} if is_packed else {}
    chunks = (deep, rows, columns) if deep else None
    with h5py.File(path, "w") as file:
        values = smooth(steps * 512 * 512).reshape(steps, 512, 512)
        file.create_dataset("v", data=values, chunks=chunks, **packing)


def tiny_chunks(path: Path, count: int) -> None:
    """Write so many chunks of 16 x 16 values, shuffled and deflated."""
    with h5py.File(path, "w") as file:
        values = smooth(count * 256).reshape(count, 16, 16)
        file.create_dataset(
            "v",
            data=values,
            chunks=(1, 16, 16),
            shuffle=True,
            compression="gzip",
            compression_opts=4,
        )


def series(path: Path, steps: int) -> None:
    """Write four chunks for each step, one of every quarter, of some 8 KB each.

    997 different chunks take turns.
    """
    values = smooth(997 * 64 * 72).reshape(997, 64 * 72)
    planes = values.view(np.uint8).reshape(997, -1, 4).transpose(0, 2, 1)
    pool = [zlib.compress(plane.tobytes(), 4) for plane in planes]
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset(
            "v", (steps, 128, 144), "f4", chunks=(1, 64, 72), shuffle=True, compression="gzip"
        )
        places = itertools.product(range(steps), (0, 64), (0, 72))
        for number, place in enumerate(places):
            dataset.id.write_direct_chunk(place, pool[number % 997])
