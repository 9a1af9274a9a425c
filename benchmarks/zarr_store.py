"""How fast do zarr-python and dask read through an index, by whom it is served?

The same array is served by byteatlas' store, by VirtualiZarr's ManifestStore, and by fsspec's
reference filesystem with what kerchunk wrote, and read by zarr-python (`array[...]`) and by dask
(`dask.array.from_zarr`): 1,000 and 10,000 tiny chunks, and 64 MiB in chunks of 64 KiB, from a local
file and over HTTP with 20 ms before each answer. byteatlas' store is read by zarr's own codec
pipeline, and by the one that byteatlas has for it. Over HTTP all may have 128 chunks under way at
once; zarr's default of 10 leaves a network idle.

All answers are compared with what h5py reads. Exits with 1 when one differs, or ours is missing,
whatever the time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from _contest import (
    Aim,
    Case,
    chosen,
    compete,
    contest_parser,
    header,
    is_right,
    judged,
    print_aims,
    rows_of,
)
from _files import cached, field, tiny_chunks
from _measure import Contender, print_machine, print_table
from _range_server import RangeServerProcess
from _reads import (
    REMOTE_CONCURRENCY,
    Opened,
    Request,
    _virtualizarr,
    answer_of,
    index_of,
    location,
    read_with_h5py,
)

PACKAGES = (
    "byteatlas", "numpy", "zarr", "numcodecs", "dask", "h5py", "virtualizarr", "kerchunk",
    "fsspec", "obstore",
)  # fmt: skip
PIPELINE = "byteatlas.store.zarr_pipeline.IndexCodecPipeline"
TASKS = 16
"""Where dask's chunks are not those of the file, it is given so many."""
LATENCY_S = 0.02


# --- who serves ---


def _byteatlas_store(request: Request) -> tuple[Any, int]:
    import byteatlas

    return byteatlas.open_store(location(request)), 2


def _virtualizarr_store(request: Request) -> tuple[Any, int]:
    return _virtualizarr()(request), 3


def _reference_store(request: Request) -> tuple[Any, int]:
    import fsspec.implementations.reference
    import zarr
    from kerchunk.hdf import SingleHdf5ToZarr

    with open(request["path"], "rb") as file:  # noqa: PTH123  # what it wants is such a file
        references = SingleHdf5ToZarr(file, location(request), inline_threshold=0).translate()
    filesystem = fsspec.implementations.reference.ReferenceFileSystem(
        references,
        asynchronous=True,
        remote_protocol="http" if request.get("url") else "file",
        remote_options={"asynchronous": True},
    )
    return zarr.storage.FsspecStore(filesystem, read_only=True, path=""), 2


# --- how it is read ---


def _opened(
    store_of: Callable[[Request], tuple[Any, int]], through: str, pipeline: str, request: Request
) -> Opened:
    import zarr

    settings: dict[str, Any] = {"codec_pipeline.path": pipeline} if pipeline else {}
    said = []
    if request.get("url"):
        settings["async.concurrency"] = REMOTE_CONCURRENCY
        said = [] if pipeline else [f"{REMOTE_CONCURRENCY} at once"]
    zarr.config.set(settings)
    store, zarr_format = store_of(request)
    array = zarr.open_array(store, path=request["variable"], zarr_format=zarr_format, mode="r")
    if through == "zarr":
        wanted = [index_of(selection) for selection in request["selections"]]
        return lambda: [array[index] for index in wanted], answer_of, ", ".join(said)
    return _read_by_dask(array, through), answer_of, ", ".join(said)


def _read_by_dask(array: Any, through: str) -> Callable[[], list[Any]]:
    import dask.array

    chunks = array.chunks
    if through == "dask":
        rows = max(chunks[0], -(-array.shape[0] // TASKS // chunks[0]) * chunks[0])
        chunks = (rows, *array.shape[1:])
    lazy = dask.array.from_zarr(array, chunks=chunks)
    return lambda: [lazy.compute()]


def load_byteatlas(through: str = "zarr", pipeline: str = "") -> Callable[[Request], Opened]:
    import byteatlas

    assert byteatlas
    return partial(_opened, _byteatlas_store, through, pipeline)


def load_virtualizarr(through: str = "zarr") -> Callable[[Request], Opened]:
    import virtualizarr

    assert virtualizarr
    return partial(_opened, _virtualizarr_store, through, "")


def load_reference(through: str = "zarr") -> Callable[[Request], Opened]:
    import kerchunk

    assert kerchunk
    return partial(_opened, _reference_store, through, "")


# Functions of this module, by whose names a process that reads finds them.


def load_byteatlas_pipeline() -> Callable[[Request], Opened]:
    return load_byteatlas("zarr", PIPELINE)


def load_byteatlas_dask() -> Callable[[Request], Opened]:
    return load_byteatlas("dask")


def load_byteatlas_dask_pipeline() -> Callable[[Request], Opened]:
    return load_byteatlas("dask", PIPELINE)


def load_virtualizarr_dask() -> Callable[[Request], Opened]:
    return load_virtualizarr("dask")


def load_reference_dask() -> Callable[[Request], Opened]:
    return load_reference("dask")


def load_byteatlas_tasks() -> Callable[[Request], Opened]:
    return load_byteatlas("a task a chunk")


def load_byteatlas_tasks_pipeline() -> Callable[[Request], Opened]:
    return load_byteatlas("a task a chunk", PIPELINE)


def load_virtualizarr_tasks() -> Callable[[Request], Opened]:
    return load_virtualizarr("a task a chunk")


def load_reference_tasks() -> Callable[[Request], Opened]:
    return load_reference("a task a chunk")


NAMES = ("byteatlas, its pipeline", "byteatlas", "VirtualiZarr", "fsspec reference")


def contenders(*loads: Callable[[], Any]) -> tuple[Contender, ...]:
    packages = ("byteatlas", "byteatlas", "virtualizarr", "kerchunk")
    return tuple(map(Contender, NAMES, packages, loads))


BY_ZARR = contenders(load_byteatlas_pipeline, load_byteatlas, load_virtualizarr, load_reference)
BY_DASK = contenders(
    load_byteatlas_dask_pipeline, load_byteatlas_dask, load_virtualizarr_dask, load_reference_dask
)
BY_TASKS = contenders(
    load_byteatlas_tasks_pipeline,
    load_byteatlas_tasks,
    load_virtualizarr_tasks,
    load_reference_tasks,
)


# --- what is read ---


def local_cases(*, is_quick: bool, directory: Path) -> list[Case]:
    steps, few, many = (16, 200, 1_000) if is_quick else (64, 1_000, 10_000)
    cases = []
    for count in (few, many):
        path = cached(tiny_chunks, count, directory=directory)
        title = f"{count:,} tiny chunks"
        aims = (Aim("CPU", 1e-4, per=count),)
        cases += [
            Case(title=f"{title}, zarr", path=path, contenders=BY_ZARR, aims=aims),
            Case(title=f"{title}, dask, {TASKS} tasks", path=path, contenders=BY_DASK, aims=aims),
        ]
    path = cached(tiny_chunks, few, directory=directory)
    cases.append(
        Case(title=f"{few:,} tiny chunks, dask, a task each", path=path, contenders=BY_TASKS)
    )
    path = cached(field, steps, 1, 128, 128, True, directory=directory)  # noqa: FBT003
    return [
        *cases,
        Case(title="whole, 64 KiB chunks, zarr", path=path, contenders=BY_ZARR),
        Case(title="whole, 64 KiB chunks, dask", path=path, contenders=BY_DASK),
    ]


def remote_cases(*, is_quick: bool, directory: Path) -> list[Case]:
    steps, few = (16, 200) if is_quick else (64, 1_000)
    tiny = cached(tiny_chunks, few, directory=directory)
    whole = cached(field, steps, 1, 128, 128, True, directory=directory)  # noqa: FBT003
    return [
        Case(title=f"{few:,} tiny chunks, zarr", path=tiny, contenders=BY_ZARR),
        Case(title="whole, 64 KiB chunks, zarr", path=whole, contenders=BY_ZARR),
        Case(title="whole, 64 KiB chunks, dask", path=whole, contenders=BY_DASK),
    ]


def main() -> int:
    parser = contest_parser(__doc__)
    given = parser.parse_args()
    print_machine(PACKAGES)
    places = {"is_quick": given.quick, "directory": given.files}
    outcomes = [_run(case, given, None) for case in chosen(local_cases(**places), given.only)]
    with RangeServerProcess(given.files) as server:
        remote = chosen(remote_cases(**places), given.only)
        outcomes += [_run(replace(case, latency_s=LATENCY_S), given, server) for case in remote]
    print_aims([row for _, rows in outcomes for row in rows], is_markdown=given.markdown)
    return 0 if all(is_fine for is_fine, _ in outcomes) else 1


def _run(
    case: Case, given: Any, server: RangeServerProcess | None
) -> tuple[bool, Sequence[tuple[str, ...]]]:
    """Let all contenders of a case read; return whether all is right, and which aims are met."""
    where = "local file" if server is None else f"HTTP, {LATENCY_S * 1e3:g} ms before each answer"
    who = tuple(one for one in case.contenders if one.name not in given.without)
    case = replace(
        case, contenders=who, expected=read_with_h5py(case), title=f"{case.title}, {where}"
    )
    entrants = compete(case, given.repeats, server)
    rows = rows_of(entrants)
    print_table(case.title, header(is_remote=server is not None), rows, is_markdown=given.markdown)
    return is_right(entrants), judged(case, entrants)


if __name__ == "__main__":
    sys.exit(main())
