"""An index as a read-only store of zarr-python 3."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from zarr.abc.store import (
    ByteRequest,
    OffsetByteRequest,
    RangeByteRequest,
    Store,
    SuffixByteRequest,
)

from byteatlas.store.contents import Contents, Slice

if TYPE_CHECKING:
    from zarr.core.buffer import Buffer, BufferPrototype

    from byteatlas.limits import Limits
    from byteatlas.model import Buffer as Bytes
    from byteatlas.model import VirtualGroup
    from byteatlas.read.filled import OnError
    from byteatlas.sources.chunk_cache_option import CacheOption

__all__ = ["IndexStore"]


class IndexStore(Store):
    """The arrays of an index, as a Zarr store that fetches chunks from their sources.

    A key that the index lacks is a missing chunk, which reads as the fill value. A source that
    is missing, changed, denied or short is an error from every method, never a missing chunk.

    Parameters
    ----------
    group
        The root.
    zarr_format
        Version of Zarr whose keys and metadata are served. Version 2 by default: it has a
        spelling for every codec and data type of an index.
    storage_options
        How to reach the sources, in the words of fsspec.
    limits
        How large a chunk may be.
    on_error
        What to do with a chunk that cannot be read, where it is byteatlas that decodes
        (`byteatlas.store.zarr_pipeline`): "raise", or "fill-and-report", see `Reader`. With
        another codec pipeline it is an error in any case.
    cache
        Where to keep bytes that were fetched, such as ``"memory:256MiB"``, see
        `byteatlas.open_cache`.
    read_only
        Only True: an index is never written through.

    Examples
    --------
    >>> store = byteatlas.open_store("index.json")       # doctest: +SKIP
    >>> zarr.open_group(store, mode="r")["temp"][0]      # doctest: +SKIP
    """

    supports_writes = False
    supports_deletes = False
    supports_listing = True

    def __init__(
        self,
        group: VirtualGroup,
        *,
        zarr_format: Literal[2, 3] = 2,
        storage_options: Mapping[str, Any] | None = None,
        limits: Limits | None = None,
        on_error: OnError = "raise",
        cache: CacheOption = None,
        read_only: bool = True,
    ) -> None:
        if not read_only:
            raise ValueError("an index is read-only")
        super().__init__(read_only=True)
        self.contents = Contents(group, zarr_format, storage_options, limits, on_error, cache)

    def __eq__(self, value: object) -> bool:
        return isinstance(value, IndexStore) and self.contents == value.contents

    __hash__ = None  # type: ignore[assignment]  # compared by value, and large

    def __repr__(self) -> str:
        group = self.contents.group
        count = sum(1 for _ in group.walk_arrays())
        sources = ", ".join(source.public_url for source in group.sources[:3])
        return f"IndexStore({count} arrays of {sources}{', ...' * (len(group.sources) > 3)})"

    def with_read_only(self, read_only: bool = False) -> IndexStore:  # noqa: FBT001, FBT002  # zarr's own
        """Return a new store of the same index.

        Raises
        ------
        NotImplementedError
            `read_only` is False.
        """
        if not read_only:
            raise NotImplementedError(
                f"with_read_only is not implemented for the {type(self)} store type. "
                "An index is read-only."
            )
        copy = IndexStore.__new__(IndexStore)
        Store.__init__(copy, read_only=True)
        copy.contents = self.contents
        return copy

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return the value of a key or a part of it, None where the index lacks the key.

        Calls that are made at the same time are answered together, with few requests.

        Raises
        ------
        SourceError
            The bytes of a source could not be had, or are no longer those that were indexed.
        """
        await self._ensure_open()
        return _to_buffer(await self.contents.get(_slice(key, byte_range)), prototype)

    async def get_partial_values(
        self,
        prototype: BufferPrototype,
        key_ranges: Iterable[tuple[str, ByteRequest | None]],
    ) -> list[Buffer | None]:
        """Return parts of the values of many keys, merged into few requests.

        Raises
        ------
        SourceError
            The bytes of a source could not be had, or are no longer those that were indexed.
        """
        await self._ensure_open()
        answers = await self.contents.get_many([_slice(*wanted) for wanted in key_ranges])
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return [
            None if isinstance(answer, Exception) else _to_buffer(answer, prototype)
            for answer in answers
        ]

    async def _get_many(
        self, requests: Iterable[tuple[str, BufferPrototype, ByteRequest | None]]
    ) -> AsyncGenerator[tuple[str, Buffer | None], None]:
        several = list(requests)
        answers = await self.contents.get_many([_slice(key, part) for key, _, part in several])
        for (key, prototype, _), answer in zip(several, answers, strict=True):
            if isinstance(answer, Exception):
                raise answer
            yield key, _to_buffer(answer, prototype)

    async def get_ranges(
        self,
        key: str,
        byte_ranges: Sequence[ByteRequest | None],
        *,
        prototype: BufferPrototype,
        max_concurrency: int | None = None,
        max_gap_bytes: int | None = None,
        max_coalesced_bytes: int | None = None,
    ) -> AsyncIterator[Sequence[tuple[int, Buffer | None]]]:
        """Yield parts of one value, with their positions among those asked for.

        They are merged into few requests by byteatlas' own rule; the last three parameters, by
        which newer versions of zarr merge, are ignored.

        Raises
        ------
        BaseExceptionGroup
            Of a FileNotFoundError where the index lacks the key, or of what `get` raises.
        """
        del max_concurrency, max_gap_bytes, max_coalesced_bytes
        await self._ensure_open()
        answers = await self.contents.get_many([_slice(key, part) for part in byte_ranges])
        parts: list[tuple[int, Buffer | None]] = []
        errors: list[BaseException] = []
        for position, answer in enumerate(answers):
            if answer is None or isinstance(answer, Exception):
                errors.append(FileNotFoundError(key) if answer is None else answer)
            else:
                parts.append((position, _to_buffer(answer, prototype)))
        if errors:
            raise BaseExceptionGroup(f"parts of {key!r} cannot be read", errors)
        if parts:
            yield parts

    async def exists(self, key: str) -> bool:
        """Tell whether the index has a key; no source is asked."""
        return await self.contents.has(key)

    async def getsize(self, key: str) -> int:
        """Return the number of bytes of a value, without reading it.

        Raises
        ------
        FileNotFoundError
            The index lacks the key.
        """
        (size,) = await self.contents.sizes([key])
        if size is None:
            raise FileNotFoundError(key)
        return size

    async def getsize_prefix(self, prefix: str) -> int:
        """Return the number of bytes of all values under a prefix, without reading them."""
        if prefix and not prefix.endswith("/"):
            prefix += "/"
        await self.contents.load(prefix, is_deep=True)
        sizes = await self.contents.sizes(list(self.contents.keys(prefix)))
        return sum(size or 0 for size in sizes)

    async def list(self) -> AsyncIterator[str]:
        """Yield all keys: metadata first, then chunks, lazily."""
        await self.contents.load("", is_deep=True)
        for key in self.contents.keys():  # noqa: SIM118  # not a mapping
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Yield the keys that begin with a prefix."""
        await self.contents.load(prefix, is_deep=True)
        for key in self.contents.keys(prefix):
            yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Yield the names directly below a prefix."""
        await self.contents.load(prefix.strip("/"), is_deep=False)
        for name, _ in self.contents.names(prefix.strip("/")):
            yield name

    async def set(self, key: str, value: Buffer) -> None:
        """Refuse: an index is read-only."""
        del key, value
        self._check_writable()

    async def delete(self, key: str) -> None:
        """Refuse: an index is read-only."""
        del key
        self._check_writable()

    async def delete_dir(self, prefix: str) -> None:
        """Refuse: an index is read-only."""
        del prefix
        self._check_writable()

    def close(self) -> None:
        """Close the sources that were opened."""
        self.contents.reader.close()
        super().close()


def _slice(key: str, byte_range: ByteRequest | None) -> Slice:
    match byte_range:
        case None:
            return Slice(key)
        case RangeByteRequest():
            return Slice(key, byte_range.start, byte_range.end)
        case OffsetByteRequest():
            return Slice(key, byte_range.offset)
        case SuffixByteRequest():
            # the last 0 bytes are none, where a slice from -0 would be all
            return Slice(key, -byte_range.suffix) if byte_range.suffix else Slice(key, 0, 0)
    raise ValueError(f"Unexpected byte_range, got {byte_range}.")


def _to_buffer(value: Bytes | None, prototype: BufferPrototype) -> Buffer | None:
    return None if value is None else prototype.buffer.from_bytes(value)  # type: ignore[arg-type]  # any buffer will do
