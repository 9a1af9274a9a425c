"""Sixty-four threads that read one dataset at once get right values, each of them."""

import pickle
import threading

import dask
import h5py
import numpy as np
import pytest
import zarr

import byteatlas
from byteatlas.read import Reader
from byteatlas.testing import RangeServer

THREADS = 64
SHAPE = (24, 60, 50)
READS = 2


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """A file with a variable of each layout, and what is in them."""
    path = tmp_path_factory.mktemp("archive") / "archive.h5"
    random = np.random.default_rng(0)
    values = {
        "packed": random.integers(0, 50, SHAPE).astype("f4"),
        "plain": random.normal(size=SHAPE),
        "whole": random.integers(0, 2**15, SHAPE).astype(">i2"),
        "text": np.array([f"station {number} {'x' * 5000}" for number in range(24)], object),
    }
    with h5py.File(path, "w") as file:
        options = {"chunks": (5, 20, 50), "compression": 1, "shuffle": True}
        file.create_dataset("packed", data=values["packed"], **options)
        file.create_dataset("plain", data=values["plain"], chunks=(8, 32, 20))
        file.create_dataset("whole", data=values["whole"])
        file.create_dataset("text", data=list(values["text"]), chunks=(7,))
    return path, values


@pytest.fixture(params=["local", "http"])
def opened(request, archive):
    """The scanned file, and its values."""
    path, values = archive
    if request.param == "local":
        yield byteatlas.scan(str(path)), values
        return
    with RangeServer(path.parent) as server:
        yield byteatlas.scan(server.url("archive.h5")), values


def selections(thread, shape):
    """What a thread reads, one after the other: everything, and random parts."""
    random = np.random.default_rng(thread)
    for _ in range(READS):
        picks = []
        for size in shape:
            start, stop = np.sort(random.integers(0, size + 1, 2)).tolist()
            picks.append(slice(start, stop, int(random.integers(1, 4))))
        yield tuple(picks)
    yield tuple(int(random.integers(size)) for size in shape)
    if thread % 8 == 0:
        yield ...


def wrong_reads(read, values):
    """Have all threads read at once; return what went wrong."""
    together = threading.Barrier(THREADS)
    wrong = []

    def work(thread):
        together.wait()
        names = list(values)
        for name in names[thread % len(names) :] + names[: thread % len(names)]:
            for selection in selections(thread, values[name].shape):
                try:
                    result = read(name, selection)
                    if not np.array_equal(result, values[name][selection]):
                        wrong.append((name, selection))
                except Exception as error:  # whatever it is, it is wrong
                    wrong.append((name, selection, error))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return wrong


def test_one_reader_serves_many_threads(opened):
    group, values = opened
    reader = Reader(group.sources)
    assert wrong_reads(lambda name, at: reader.read(group[name], at), values) == []


def test_one_dataset_serves_many_threads(opened):
    group, values = opened
    dataset = byteatlas.open_dataset(group)
    assert wrong_reads(lambda name, at: dataset[name][at].values, values) == []


def test_one_store_serves_many_threads(opened):
    group, values = opened
    store = zarr.open_group(byteatlas.open_store(group), mode="r")
    numbers = {name: values[name] for name in ("packed", "plain", "whole")}
    assert wrong_reads(lambda name, at: store[name][at], numbers) == []


def test_dask_reads_on_many_threads(opened):
    group, values = opened
    dataset = pickle.loads(pickle.dumps(byteatlas.open_dataset(group, chunks={})))
    with dask.config.set(scheduler="threads", num_workers=THREADS):
        for name, expected in values.items():
            np.testing.assert_array_equal(dataset[name].values, expected)
        total = (dataset["packed"] + dataset["plain"]).sum("phony_dim_0").compute()
    expected = (values["packed"] + values["plain"]).sum(axis=0)
    np.testing.assert_allclose(total, expected, rtol=1e-12)
