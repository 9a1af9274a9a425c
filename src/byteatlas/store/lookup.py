"""Find the chunks that keys of one array name: many keys, one look into the manifest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from byteatlas.errors import ByteatlasError
from byteatlas.heap import Heap
from byteatlas.index.chunk_keys import ChunkKeys
from byteatlas.model import Buffer, ChunkManifest, Located, VirtualArray
from byteatlas.read.filled import concerns_one_chunk
from byteatlas.store.fetching import Ranges
from byteatlas.store.keys import flat_indices
from byteatlas.store.strings import Pointing

__all__ = ["Found", "Keyed", "find", "is_same", "may_read", "named", "pointing_chunks"]


class Keyed(NamedTuple):
    """An array, and how its chunk keys are spelled."""

    path: str
    """Of the array, as error messages name it."""
    array: VirtualArray
    keys: ChunkKeys
    is_prefixed: bool
    heap: Heap | None
    """Where its strings are, if its chunks only point to them."""
    serves_missing: bool
    """Chunks are served for those that are missing (`missing_chunk`)."""


class Found(NamedTuple):
    """Which of some keys name chunks of an array, and where these are."""

    keyed: Keyed
    place: NDArray[np.int64]
    """Position of each key that names a chunk among all that were asked for, shape (n,)."""
    flat: NDArray[np.int64]
    """Flat index of its chunk, shape (n,)."""
    located: Located
    """Where the chunks are; its positions are those of `flat`."""

    @property
    def missing(self) -> list[int]:
        """Positions of the chunks that are neither virtual nor inlined."""
        is_missing = np.ones(self.flat.size, bool)
        is_missing[self.located.virtual] = False
        is_missing[self.located.inlined] = False
        return np.flatnonzero(is_missing).tolist()

    @property
    def has_all(self) -> bool:
        """Whether there is a chunk under some key, and under each that names one."""
        return bool(self.flat.size) and (self.keyed.serves_missing or not self.missing)

    @property
    def ranges(self) -> Ranges:
        """Where the virtual chunks are."""
        located, count = self.located, self.located.virtual.size
        source, encoding, digest = located.source, located.encoding, located.digest
        prefix = np.full(count, -1)
        if self.keyed.is_prefixed:
            prefix[:] = 0 if encoding is None else encoding
        return Ranges(
            place=self.place[located.virtual],
            source=np.zeros(count, np.int64) if source is None else source.astype(np.int64),
            offset=located.offset.astype(np.int64),
            length=located.length.astype(np.int64),  # WHOLE becomes -1
            prefix=prefix,
            digest=np.zeros(count, np.uint64) if digest is None else digest,
            is_sealed=np.full(count, digest is not None),
        )


def may_read(manifest: ChunkManifest) -> bool:
    """Tell whether a manifest may have to read something to find chunks."""
    return type(manifest).locate is not ChunkManifest.locate


def find(keyed: Keyed, keys: Sequence[str], places: Sequence[int]) -> Found:
    """Find the chunks that keys name.

    Parameters
    ----------
    keyed
        The array that they would be chunks of.
    keys
        Any text.
    places
        A number for each key, by which it is known in the result.
    """
    manifest = keyed.array.manifest
    flat, place = flat_indices(keys, keyed.keys, manifest.grid_shape), np.array(places, np.int64)
    if (flat < 0).any():
        place, flat = place[flat >= 0], flat[flat >= 0]
    return Found(keyed, place, flat, manifest.locate(flat))


def named(error: ByteatlasError, keyed: Keyed, flat: int) -> ByteatlasError:
    """Name an array, and the chunk where an error concerns it alone, unless they are named."""
    if error.path is not None:
        return error
    grid = keyed.array.manifest.grid_shape
    index = tuple(int(at) for at in np.unravel_index(flat, grid)) if grid else ()
    return error.at(path=keyed.path, chunk=index if concerns_one_chunk(error) else None)


def is_same(one: ChunkManifest, other: ChunkManifest) -> bool:
    """Tell whether two manifests have the same chunks at the same places."""
    if one is other:
        return True
    if one.inline != other.inline:
        return False
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("offset", "length", "index", "source", "encoding", "digest")
    )


def pointing_chunks(
    found: Found, fetched: Sequence[Buffer | ByteatlasError | None]
) -> dict[int, tuple[list[int], list[Pointing]]]:
    """Return the chunks of an array that hold heap IDs, by their source.

    Parameters
    ----------
    found
        Chunks of an array whose strings are in a heap.
    fetched
        At the place of each virtual chunk, its bytes; others are left out.

    Returns
    -------
    dict
        Source to the places of its chunks, and the chunks.
    """
    array, heap, path = found.keyed.array, found.keyed.heap, found.keyed.path
    assert heap is not None
    chunks: dict[int, tuple[list[int], list[Pointing]]] = {}

    def add(source: int, position: int, data: Buffer, encoding: int, offset: int | None) -> None:
        places, several = chunks.setdefault(source, ([], []))
        places.append(int(found.place[position]))
        flat = int(found.flat[position])
        several.append(Pointing(array, heap, data, encoding, path, flat, offset))

    located, ranges = found.located, found.ranges
    for position, data in zip(located.inlined.tolist(), located.data, strict=True):
        add(0, position, data, 0, None)
    for row, position in enumerate(located.virtual.tolist()):
        body = fetched[int(ranges.place[row])]
        if body is not None and not isinstance(body, ByteatlasError):
            encoding = 0 if located.encoding is None else int(located.encoding[row])
            add(int(ranges.source[row]), position, body, encoding, int(ranges.offset[row]))
    return chunks
