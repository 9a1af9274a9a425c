"""Open an index, or a legacy file directly: as a model, a Zarr store, or an xarray dataset."""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from byteatlas.errors import LimitExceeded, NotRecognised, SourceMissing
from byteatlas.index.json_reader import read_json
from byteatlas.index.parquet_identity import no_index
from byteatlas.index.parquet_layout import METADATA, member_url
from byteatlas.index.parquet_reader import parquet_root, read_parquet
from byteatlas.limits import Limits
from byteatlas.model import ByteRange, Source, VirtualGroup, as_view
from byteatlas.read.access import check_sources, is_local, options_for
from byteatlas.read.filled import OnError
from byteatlas.scanners import ScanOptions
from byteatlas.scanning import HEAD, scan_source
from byteatlas.sources import ByteSource, open_source
from byteatlas.sources.cache import CachedReader
from byteatlas.sources.chunk_cache_option import CacheOption
from byteatlas.sources.urls import absolute_url

if TYPE_CHECKING:  # both take long to import, and not everybody needs them
    import xarray as xr

    from byteatlas.store.zarr_store import IndexStore

__all__ = [
    "Opened",
    "Target",
    "is_index",
    "open_dataset",
    "open_datatree",
    "open_group",
    "open_index",
    "open_store",
    "open_target",
]

Target: TypeAlias = str | os.PathLike[str] | Mapping[str, Any] | VirtualGroup
"""Path or URL of an index or a legacy file, an index as a JSON object, or a virtual group."""


def open_index(
    index: Target,
    *,
    storage_options: Mapping[str, Any] | None = None,
    allow: Sequence[str] = (),
    limits: Limits | None = None,
) -> VirtualGroup:
    """Read an index, and check that it may have the sources it names.

    Parameters
    ----------
    index
        Path or URL of a JSON index, plain or compressed with gzip or zstd, or of the directory
        that is a Parquet index; or the parsed JSON object. A virtual group is returned as it is.
    storage_options
        How to reach the index, in the words of fsspec. (Any: each protocol's own.)
    allow
        Prefixes of URLs that the index may name although it came over the network, such as
        ``"http://127.0.0.1:8000/data/"`` or ``"file:///archive/"``. Without them such an index
        has its own origin and public addresses only. A local index, or an object that the
        caller hands over, may name what it likes. ``..``, user info and unknown schemes are
        refused in any case.
    limits
        How large and deep the index may be, see `byteatlas.Limits`.

    Returns
    -------
    VirtualGroup
        The root group. No source has been asked for anything. Of a Parquet index the references
        are read when they are needed, by those who need them.

    Raises
    ------
    NotAllowed
        The index names a source that it may not have; the message says what to allow.
    NotRecognised
        It is no index.
    Malformed, Unsupported
        It breaks the specification, or holds what byte ranges cannot express.
    LimitExceeded
        It is larger or deeper than the limits allow; the message says which limit to raise.
    SourceError
        The index itself cannot be read.
    """
    if isinstance(index, VirtualGroup):
        return index
    if isinstance(index, Mapping):
        return _checked(read_json(index, limits=limits), None, allow)
    return _open(
        absolute_url(index), storage_options, allow, limits, expected=None, may_scan=False
    ).group


def open_group(
    target: Target,
    *,
    storage_options: Mapping[str, Any] | None = None,
    allow: Sequence[str] = (),
    limits: Limits | None = None,
) -> VirtualGroup:
    """Read an index, or scan a legacy file; the first bytes decide which it is.

    Parameters
    ----------
    target
        An index as for `open_index`, or the path or URL of a legacy file.
    storage_options
        How to reach it, in the words of fsspec. (Any: each protocol's own.)
    allow
        As for `open_index`.
    limits
        How large the index may be and what is read through it, see `byteatlas.Limits`.

    Raises
    ------
    ByteatlasError
        As `open_index` or `byteatlas.scan`.
    """
    return open_target(target, storage_options=storage_options, allow=allow, limits=limits).group


class Opened(NamedTuple):
    """A virtual group, and where it came from."""

    group: VirtualGroup
    origin: Source | None
    """The index as it was seen when it was read; None where the group was handed over, made of
    an object, or scanned."""


def open_target(
    target: Target,
    *,
    storage_options: Mapping[str, Any] | None = None,
    allow: Sequence[str] = (),
    limits: Limits | None = None,
    expected: Source | None = None,
) -> Opened:
    """Do as `open_group`, and tell which index the group came from.

    Parameters
    ----------
    expected
        The index as it was seen before: another one is an error.

    Raises
    ------
    SourceChanged
        The index is no longer the expected one.
    """
    if isinstance(target, VirtualGroup | Mapping):
        return Opened(open_index(target, allow=allow, limits=limits), None)
    url = absolute_url(target)
    return _open(url, storage_options, allow, limits, expected=expected, may_scan=True)


def _open(
    url: str,
    storage_options: Mapping[str, Any] | None,
    allow: Sequence[str],
    limits: Limits | None,
    *,
    expected: Source | None,
    may_scan: bool,
) -> Opened:
    """Open an index in JSON or Parquet, or scan a legacy file where that will do."""
    root = parquet_root(url)
    if root is not None:
        return _open_parquet(root, storage_options, allow, limits, expected)
    source = open_source(url, storage_options=options_for(url, storage_options), expected=expected)
    try:
        reader = CachedReader(source)
        head = as_view(reader.read_head(HEAD))
        if is_index(head):
            group = read_json(_rest(source, head, limits), url=url, limits=limits)
            return Opened(_checked(group, url, allow), source.facts)
        if may_scan:
            group = scan_source(reader, ScanOptions(), storage_options=storage_options, allow=allow)
            return Opened(group, None)
        raise NotRecognised(
            f"the first bytes {bytes(head[:16])!r} are not those of an index",
            hint="scan a data file, or open it with open_dataset",
        ).at(url=url)
    except SourceMissing as error:
        if is_local(url):
            raise
        try:  # the directory of a Parquet index may have any name
            return _open_parquet(url, storage_options, allow, limits, expected)
        except SourceMissing:
            raise error from None
    finally:
        source.close()


def _open_parquet(
    root: str,
    storage_options: Mapping[str, Any] | None,
    allow: Sequence[str],
    limits: Limits | None,
    expected: Source | None,
) -> Opened:
    url = member_url(root, METADATA)
    source = open_source(url, storage_options=options_for(url, storage_options), expected=expected)
    try:
        data = _rest(source, as_view(source.read_head(HEAD)), limits)
    except SourceMissing as error:
        if expected is not None:  # it was an index, and is gone
            raise
        raise no_index(root, error, storage_options) from error
    finally:
        source.close()
    group = read_parquet(
        data,
        root,
        storage_options=storage_options,
        allow=allow,
        limits=limits,
        origin=source.facts,
    )
    return Opened(group, source.facts)


def open_store(
    target: Target,
    *,
    zarr_format: Literal[2, 3] = 2,
    storage_options: Mapping[str, Any] | None = None,
    allow: Sequence[str] = (),
    limits: Limits | None = None,
    on_error: OnError = "raise",
    cache: CacheOption = None,
) -> IndexStore:
    """Open an index or a legacy file as a read-only store of zarr-python 3.

    Parameters
    ----------
    target
        An index as for `open_index`, or the path or URL of a legacy file.
    zarr_format
        Version of Zarr whose keys and metadata are served.
    storage_options
        How to reach the index and its sources, in the words of fsspec. Where they are of
        different protocols, under the name of each: ``{"s3": {"anon": True}}``. (Any: each
        protocol's own.)
    allow
        As for `open_index`.
    limits
        How large the index may be and what is read through it, see `byteatlas.Limits`.
    on_error
        As for `byteatlas.Reader`, where it is byteatlas that decodes: by the codec pipeline
        `byteatlas.store.zarr_pipeline.IndexCodecPipeline`. zarr's own knows only errors.
    cache
        Where to keep bytes that were fetched: ``"memory:256MiB"``, ``"/a/folder:20GiB"``, or what
        `byteatlas.open_cache` returned, to share it. Nothing is kept by default.

    Examples
    --------
    >>> store = open_store("index.json")                 # doctest: +SKIP
    >>> zarr.open_group(store, mode="r")["temp"][0]      # doctest: +SKIP
    """
    from byteatlas.store.zarr_store import IndexStore  # noqa: PLC0415  # imports zarr

    group = open_group(target, storage_options=storage_options, allow=allow, limits=limits)
    return IndexStore(
        group,
        zarr_format=zarr_format,
        storage_options=storage_options,
        limits=limits,
        on_error=on_error,
        cache=cache,
    )


def open_dataset(
    target: Target,
    group: str | None = None,
    *,
    storage_options: Mapping[str, Any] | None = None,
    allow: Sequence[str] = (),
    limits: Limits | None = None,
    on_error: OnError = "raise",
    cache: CacheOption | bool = None,
    **options: Any,
) -> xr.Dataset:
    """Open one group of an index or a legacy file as an xarray dataset.

    Parameters
    ----------
    target
        An index as for `open_index`, or the path or URL of a legacy file.
    group
        Path of the group, such as ``"forecast/ocean"``; the root by default.
    storage_options
        How to reach the index and its sources, in the words of fsspec. Where they are of
        different protocols, under the name of each: ``{"s3": {"anon": True}}``. (Any: each
        protocol's own.)
    allow
        As for `open_index`.
    limits
        How large the index may be and what is read through it, see `byteatlas.Limits`.
    on_error
        What to do with a chunk that does not decode: "raise", or "fill-and-report", which fills
        it, warns, and lists it in ``.byteatlas.filled``.
    cache
        Where to keep bytes that were fetched: ``"memory:256MiB"``, ``"/a/folder:20GiB"``, or a
        cache that `byteatlas.open_cache` opened. True and False are xarray's own ``cache``, of
        values in memory.
    **options
        Of `xarray.open_dataset`, such as ``chunks`` or ``decode_times``. (Any: xarray's own.)

    Returns
    -------
    xarray.Dataset
        Lazy: values are fetched when they are needed. Decoded as xarray decodes the source
        itself with ``engine="netcdf4"``.
    """
    import xarray as xr  # noqa: PLC0415  # takes long to import

    from byteatlas.store.xarray_engine import ByteatlasBackendEntrypoint  # noqa: PLC0415

    return xr.open_dataset(
        target,  # type: ignore[arg-type]  # the engine takes more than xarray's own engines
        engine=ByteatlasBackendEntrypoint,
        group=group,
        storage_options=storage_options,
        allow=allow,
        limits=limits,
        on_error=on_error,
        **({"cache": cache} if isinstance(cache, bool) else {"chunk_cache": cache}),
        **options,
    )


def open_datatree(
    target: Target,
    *,
    storage_options: Mapping[str, Any] | None = None,
    allow: Sequence[str] = (),
    limits: Limits | None = None,
    on_error: OnError = "raise",
    cache: CacheOption | bool = None,
    **options: Any,
) -> xr.DataTree:
    """Open all groups of an index or a legacy file as an xarray tree.

    Parameters
    ----------
    target
        An index as for `open_index`, or the path or URL of a legacy file.
    storage_options
        How to reach the index and its sources, in the words of fsspec. Where they are of
        different protocols, under the name of each: ``{"s3": {"anon": True}}``. (Any: each
        protocol's own.)
    allow
        As for `open_index`.
    limits
        How large the index may be and what is read through it, see `byteatlas.Limits`.
    on_error
        What to do with a chunk that does not decode: "raise", or "fill-and-report", which fills
        it, warns, and lists it in ``.byteatlas.filled``.
    cache
        Where to keep bytes that were fetched: ``"memory:256MiB"``, ``"/a/folder:20GiB"``, or a
        cache that `byteatlas.open_cache` opened. True and False are xarray's own ``cache``, of
        values in memory.
    **options
        Of `xarray.open_datatree`, such as ``chunks`` or ``decode_times``. (Any: xarray's own.)
    """
    import xarray as xr  # noqa: PLC0415  # takes long to import

    from byteatlas.store.xarray_engine import ByteatlasBackendEntrypoint  # noqa: PLC0415

    return xr.open_datatree(
        target,  # type: ignore[arg-type]  # the engine takes more than xarray's own engines
        engine=ByteatlasBackendEntrypoint,
        storage_options=storage_options,
        allow=allow,
        limits=limits,
        on_error=on_error,
        **({"cache": cache} if isinstance(cache, bool) else {"chunk_cache": cache}),
        **options,
    )


def is_index(head: memoryview) -> bool:
    """Tell from its first bytes whether something is an index: a JSON object, plain or compressed.

    Parameters
    ----------
    head
        The first bytes; some hundred are enough.
    """
    start = bytes(head[:1024])
    if start.startswith(b"\x1f\x8b"):
        try:
            start = zlib.decompressobj(wbits=31).decompress(start, 64)
        except zlib.error:
            return False
    # no scanner's format begins with the magic of zstd
    return start.lstrip().startswith((b"{", b"\x28\xb5\x2f\xfd"))


def _rest(source: ByteSource, head: memoryview, limits: Limits | None) -> bytes:
    size = source.facts.size or len(head)
    try:
        (limits or Limits()).check("index", size, "the index")
    except LimitExceeded as error:
        raise error.at(url=source.url) from None
    if size <= len(head):
        return bytes(head)
    (rest,) = source.read([ByteRange(len(head), size - len(head))])
    return bytes(head) + bytes(rest)


def _checked(group: VirtualGroup, url: str | None, allow: Sequence[str]) -> VirtualGroup:
    return replace(group, sources=tuple(check_sources(group.sources, url, allow)))
