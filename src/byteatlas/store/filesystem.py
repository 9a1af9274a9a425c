"""An index as a read-only fsspec filesystem of Zarr keys: ``fsspec.filesystem("byteatlas")``."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NoReturn

from fsspec.asyn import AsyncFileSystem
from fsspec.spec import AbstractBufferedFile

from byteatlas.errors import ByteatlasError
from byteatlas.limits import Limits
from byteatlas.opening import open_group
from byteatlas.sources.chunk_cache_option import CacheOption
from byteatlas.store.contents import Contents, Slice

__all__ = ["ByteatlasFileSystem"]


class ByteatlasFileSystem(AsyncFileSystem):  # type: ignore[misc]  # fsspec has no type information
    """The keys of an index as files, whose bytes come from the sources.

    ``FileNotFoundError`` means that the index lacks a key. A source that is missing, changed,
    denied or short is a `SourceError` from every method.

    Parameters
    ----------
    fo
        An index (path, URL, JSON object, `VirtualGroup`), or a legacy file, which is scanned.
    storage_options
        How to reach the index and its sources, in the words of fsspec.
    allow
        Prefixes of URLs that the index may name although it came over the network, see
        `byteatlas.open_index`.
    zarr_format
        Version of Zarr whose keys and metadata are served.
    limits
        How large the index and its chunks may be, see `byteatlas.Limits`.
    cache
        Where to keep bytes that were fetched, such as ``"memory:256MiB"``, see
        `byteatlas.open_cache`.
    **kwargs
        As for every fsspec filesystem, such as ``asynchronous``.

    Examples
    --------
    >>> fs = fsspec.filesystem("byteatlas", fo="index.json")        # doctest: +SKIP
    >>> fs.ls("temp")                                              # doctest: +SKIP
    >>> xr.open_dataset("byteatlas://", engine="zarr",
    ...                 storage_options={"fo": "index.json"})      # doctest: +SKIP
    """

    protocol = "byteatlas"
    root_marker = ""
    cachable = False  # fsspec would tell instances apart by the text of their arguments

    def __init__(
        self,
        fo: Any = None,
        *,
        storage_options: Mapping[str, Any] | None = None,
        allow: Sequence[str] = (),
        zarr_format: Literal[2, 3] = 2,
        limits: Limits | None = None,
        cache: CacheOption = None,
        **kwargs: Any,  # of fsspec
    ) -> None:
        super().__init__(**kwargs)
        if fo is None:
            raise ValueError("the byteatlas filesystem needs an index: fo='index.json'")
        group = open_group(fo, storage_options=storage_options, allow=allow, limits=limits)
        self.contents = Contents(group, zarr_format, storage_options, limits, cache=cache)

    # Looking around. Names begin with as many slashes as the path that was asked for.

    async def _ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:  # noqa: FBT001, FBT002
        path = self._strip_protocol(path)
        lead = path + "/" if path else ""
        await self.contents.load(path.lstrip("/"), is_deep=False)
        names = list(self.contents.names(path.lstrip("/")))
        if names and not detail:
            return [lead + name for name, _ in names]
        infos = await self._infos(lead, names) if names else [await self._info(path)]
        return infos if detail else [info["name"] for info in infos]

    async def _find(
        self,
        path: str,
        maxdepth: int | None = None,
        withdirs: bool = False,  # noqa: FBT001, FBT002  # fsspec's own signature
        **options: Any,
    ) -> Any:
        if maxdepth is not None or withdirs or options.get("detail"):
            return await super()._find(path, maxdepth=maxdepth, withdirs=withdirs, **options)
        path = self._strip_protocol(path)  # names alone need no walk
        key = path.lstrip("/")
        slashes = path[: len(path) - len(key)]
        if await self.contents.has(key):
            return [path]
        await self.contents.load(key, is_deep=True)
        return sorted(slashes + found for found in self.contents.keys(f"{key}/" if key else ""))

    async def _info(self, path: str, **_: Any) -> dict[str, Any]:
        path = self._strip_protocol(path)
        key = path.lstrip("/")
        (size,) = await self.contents.sizes([key])
        if size is not None:
            return {"name": path, "size": size, "type": "file"}
        await self.contents.load(key, is_deep=False)
        if self.contents.is_directory(key):
            return {"name": path, "size": 0, "type": "directory"}
        raise _no_such_key(path)

    async def _infos(self, lead: str, names: Sequence[tuple[str, bool]]) -> list[dict[str, Any]]:
        """Describe the names in a directory."""
        keys = [(lead + name).lstrip("/") for name, is_folder in names if not is_folder]
        sizes = iter(await self.contents.sizes(keys))
        return [
            {"name": lead + name, "size": 0, "type": "directory"}
            if is_folder
            else {"name": lead + name, "size": next(sizes), "type": "file"}
            for name, is_folder in names
        ]

    # Reading

    async def _cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **_: Any
    ) -> bytes:
        value = await self.contents.get(self._slice(path, start, end))
        if value is None:
            raise _no_such_key(path)
        return bytes(value)

    async def _cat_ranges(
        self,
        paths: list[str],
        starts: Iterable[int | None] | int | None,
        ends: Iterable[int | None] | int | None,
        max_gap: int | None = None,
        batch_size: int | None = None,
        on_error: str = "return",
        **_: Any,
    ) -> list[bytes | Exception]:
        """Read parts of many files, merged into few requests by the reader's own rule."""
        del max_gap, batch_size
        firsts = starts if isinstance(starts, Iterable) else [starts] * len(paths)
        lasts = ends if isinstance(ends, Iterable) else [ends] * len(paths)
        wanted = [self._slice(*one) for one in zip(paths, firsts, lasts, strict=True)]
        values: list[bytes | Exception] = []
        for path, value in zip(paths, await self.contents.get_many(wanted), strict=True):
            if value is None:
                values.append(_no_such_key(path))
            else:
                values.append(value if isinstance(value, ByteatlasError) else bytes(value))
            if on_error == "raise" and isinstance(values[-1], Exception):
                raise values[-1]
        return values

    async def _cat(
        self,
        path: str | list[str],
        recursive: bool = False,  # noqa: FBT001, FBT002  # fsspec's own signature
        on_error: str = "raise",
        **_: Any,
    ) -> Any:
        paths = await self._expand_path(path, recursive=recursive)
        if recursive:
            sizes = await self.contents.sizes([one.lstrip("/") for one in paths])
            paths = [one for one, size in zip(paths, sizes, strict=True) if size is not None]
        values = await self._cat_ranges(paths, None, None, on_error=on_error)
        for value in values:
            # to leave it out would be to call it missing, whatever on_error says
            if isinstance(value, ByteatlasError):
                raise value
        if isinstance(path, str) and paths == [self._strip_protocol(path)]:
            return values[0]
        pairs = zip(paths, values, strict=True)
        return {
            one: value
            for one, value in pairs
            if on_error != "omit" or not isinstance(value, Exception)
        }

    async def _get_file(self, rpath: str, lpath: str, **_: Any) -> None:
        if await self._isdir(rpath):
            os.makedirs(lpath, exist_ok=True)  # noqa: PTH103  # as fsspec's own filesystems do
            return
        os.makedirs(os.path.dirname(lpath) or ".", exist_ok=True)  # noqa: PTH103, PTH120
        with open(lpath, "wb") as target:  # noqa: ASYNC230, PTH123
            target.write(await self._cat_file(rpath))

    def _open(
        self, path: str, mode: str = "rb", block_size: int | None = None, **kwargs: Any
    ) -> _KeyFile:
        if mode != "rb":
            _refuse()
        return _KeyFile(self, path, mode, block_size or 2**22, **kwargs)

    def _slice(self, path: str, start: int | None, end: int | None) -> Slice:
        return Slice(self._strip_protocol(path).lstrip("/"), start or 0, end)

    # Writing: never

    async def _read_only(self, *_: Any, **__: Any) -> NoReturn:
        _refuse()

    _pipe_file = _put_file = _rm_file = _cp_file = _mkdir = _makedirs = _read_only

    def created(self, path: str) -> NoReturn:
        """Refuse: an index does not know."""
        raise NotImplementedError("an index does not say when a key was made")

    modified = created


class _KeyFile(AbstractBufferedFile):  # type: ignore[misc]  # fsspec has no type information
    """The value of a key, read in blocks."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        data: bytes = self.fs.cat_file(self.path, start, end)
        return data


def _no_such_key(path: str) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, "the index has no such key", path)


def _refuse() -> NoReturn:
    raise OSError(errno.EROFS, "the byteatlas filesystem is read-only")
