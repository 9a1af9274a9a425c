"""Every other protocol and chained URLs, with fsspec."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from datetime import datetime
from email.utils import format_datetime
from typing import Any, TypeVar

import fsspec
from fsspec.asyn import AsyncFileSystem

from byteatlas.errors import (
    ByteatlasError,
    MissingDependency,
    ShortRead,
    SourceDenied,
    SourceError,
    SourceMissing,
    Unsupported,
    without_query,
)
from byteatlas.model import Source
from byteatlas.sources import loop
from byteatlas.sources.credentials import Options, Renewable
from byteatlas.sources.fetch import Fetch
from byteatlas.sources.urls import redact

__all__ = ["FsspecTransport"]

T = TypeVar("T")

_MODIFIED = ("LastModified", "Last-Modified", "last_modified", "mtime")  # as filesystems call it


class FsspecTransport:
    """One file of an fsspec filesystem.

    Asynchronous filesystems are asked concurrently, on their own loop; others one request at a
    time, for many of them share a position in a file.
    """

    def __init__(self, url: str, storage_options: Options) -> None:
        self._url = url
        self._storage_options = storage_options
        self._given: Mapping[str, Any] = {}
        self._opened: tuple[Any, str] | None = None  # fsspec has no types
        self._seen: Source | None = None

    @property
    def line(self) -> None:
        """Nothing: a foreign filesystem does not show when the first byte came."""

    async def get(self, fetch: Fetch) -> None:
        """Fetch one range. The source is looked at once, before the first range."""
        try:
            await self._get(fetch)
        except SourceDenied:
            renewable = self._storage_options
            if not isinstance(renewable, Renewable):
                raise
            if await asyncio.to_thread(renewable.renewed, self._given) is None:
                raise
            self._opened = self._seen = None
            await self._get(fetch)

    async def _get(self, fetch: Fetch) -> None:
        fetch.tries += 1
        if self._seen is None:
            self._seen = await self.head()
        fetch.meet(self._seen)
        size = self._seen.size
        end = None if fetch.length is None else fetch.offset + fetch.length
        if fetch.may_end and size is not None and end is not None:
            end = min(end, size)
        await fetch.make_room()
        data: bytes = await self._run("cat_file", start=fetch.offset, end=end)
        want = (size if end is None else end) or 0
        if len(data) != want - fetch.offset:
            raise ShortRead(f"{len(data)} of {want - fetch.offset} bytes came", length=fetch.length)
        fetch.length = len(data)
        fetch.take(data)

    async def head(self) -> Source:
        """Return how the source looks now."""
        fs, _ = await self._open()
        fs.invalidate_cache()
        return _identity(self._url, await self._run("info"))

    async def _open(self) -> tuple[Any, str]:
        if self._opened is None:
            options = self._storage_options
            if isinstance(options, Renewable):
                options = await asyncio.to_thread(options.current)
            self._given = options
            # opening a chain may read an archive's directory
            fs, path = await self._guarded(
                asyncio.to_thread(fsspec.core.url_to_fs, self._url, **options)
            )
            self._opened = fs, path
        return self._opened

    async def _run(self, method: str, **arguments: Any) -> Any:
        fs, path = await self._open()
        if isinstance(fs, AsyncFileSystem) and not fs.asynchronous:
            work = getattr(fs, f"_{method}")(path, **arguments)
            future = asyncio.run_coroutine_threadsafe(work, fs.loop)
            return await self._guarded(asyncio.wrap_future(future))
        async with loop.shared(("fsspec", id(fs)), asyncio.Lock):
            return await self._guarded(asyncio.to_thread(getattr(fs, method), path, **arguments))

    async def _guarded(self, work: Coroutine[Any, Any, T] | asyncio.Future[T]) -> T:
        try:
            return await work
        except ByteatlasError:
            raise
        except ImportError as error:
            raise MissingDependency(str(error), url=without_query(self._url)) from error
        except (FileNotFoundError, KeyError) as error:
            raise SourceMissing("no such file") from error
        except PermissionError as error:
            raise SourceDenied(redact(str(error))) from None
        except OSError as error:
            raise SourceError(f"{type(error).__name__}: {redact(str(error))}") from None
        except Exception as error:  # noqa: BLE001  # a filesystem plugin may fail in any way
            raise Unsupported(
                f"fsspec cannot read it: {type(error).__name__}: {redact(str(error))}"
            ) from None


def _identity(url: str, info: Mapping[str, Any]) -> Source:
    if info.get("type") == "directory":
        raise SourceError("is a directory")
    etag = info.get("ETag") or info.get("etag")
    modified = next(filter(None, map(info.get, _MODIFIED)), None)
    if isinstance(modified, datetime):
        modified = format_datetime(modified)
    return Source(
        url,
        info.get("size"),
        None if etag is None else str(etag),
        None if modified is None else str(modified),
    )
