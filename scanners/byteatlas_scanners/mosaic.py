"""Put parts of arrays together as one array, without touching a value.

A part says which positions of an array are shown where in the whole, axis by axis. It can be
expressed as long as chunks stay chunks: every chunk of the whole is one chunk of one part, or a
piece of one that is not encoded.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from byteatlas.codecs import decode, encode
from byteatlas.errors import Unsupported
from byteatlas.model import ChunkManifest, Encoding, VirtualArray
from byteatlas_scanners.chunk_pieces import contiguous_form, cut, is_plain
from byteatlas_scanners.mosaic_cells import Joint, Layout, check_overlaps, expand, locate

__all__ = ["Part", "Runs", "put_together"]

Positions: TypeAlias = NDArray[np.int64]

MAX_PIECES = 2**17
"""Chunks are cut into pieces up to this number..."""
LEAST_PIECE = 2**16
"""...unless the pieces are at least this large, in bytes."""
MAX_WORK = 2**27
"""Chunks that are looked at, over all parts."""
MAX_FILLED = 1000
"""Chunks of parts that were never written, and read as another value than what is between the
parts, are inlined up to this number..."""
MAX_FILLED_BYTES = 2**24
"""...and this many bytes."""
MAX_ENCODINGS = 255


class Runs(NamedTuple):
    """Ascending positions along one axis, as runs of neighbours that do not touch."""

    start: Positions
    length: Positions

    @classmethod
    def of(cls, start: int, length: int) -> Runs:
        """Return a single run, or none where it has no length."""
        count = 1 if length else 0
        return cls(np.array([start][:count], np.int64), np.array([length][:count], np.int64))

    @property
    def size(self) -> int:
        """Number of positions."""
        return sum(self.length.tolist()) if self.length.size < 8 else int(self.length.sum())

    @property
    def stop(self) -> int:
        """One more than the last position; 0 without any."""
        return int(self.start[-1] + self.length[-1]) if self.start.size else 0


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Positions of an array, and where in the whole they are shown."""

    array: VirtualArray
    name: str
    """Where the array is from, for reasons."""
    taken: tuple[Runs, ...]
    """Positions in the array, for each of its axes."""
    placed: tuple[Runs, ...]
    """Positions in the whole, for each axis of the whole. Elements correspond in C order."""


class _Fitted(NamedTuple):
    """A part whose axes are paired with those of the whole."""

    part: Part
    joints: tuple[Joint, ...]
    fixed: tuple[tuple[int, int], ...]
    """Axes of the array that the whole has not, and the one position taken of each."""

    def along(self, chunk: Sequence[int]) -> tuple[int, ...]:
        """Return which chunk shape of the array fits a chunk shape of the whole."""
        wanted = [1] * len(self.part.array.shape)
        for joint, size in zip(self.joints, chunk, strict=True):
            if joint.axis is not None:
                wanted[joint.axis] = size
        return tuple(wanted)

    @property
    def own_chunk(self) -> tuple[int, ...]:
        """The array's chunk shape along the axes of the whole."""
        chunk = self.part.array.chunk_shape
        return tuple(1 if joint.axis is None else chunk[joint.axis] for joint in self.joints)


def put_together(
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    fill_value: Any,
    parts: Sequence[Part],
    *,
    max_chunk: int,
) -> VirtualArray:
    """Return the array that parts of others make up.

    Parameters
    ----------
    shape, dtype
        Of the whole.
    fill_value
        What the whole reads as where no part is. (Any: follows dtype.)
    parts
        Their manifests count sources as that of the whole will.
    max_chunk
        Chunks that are not encoded are cut down to so many bytes, where that is possible.

    Raises
    ------
    Unsupported
        Chunks would not stay chunks, or the parts disagree; the message is the reason.
    """
    fitted = [one for one in (_fit(part, shape, dtype) for part in parts) if one is not None]
    if not fitted:
        whole = tuple(max(n, 1) for n in shape)
        empty = ChunkManifest.empty(tuple(min(n, 1) for n in shape))
        return VirtualArray(shape, dtype, whole, empty, fill_value=fill_value)
    chunk = _chunk_shape(fitted, shape, dtype, max_chunk)
    grid = tuple(-(-n // c) for n, c in zip(shape, chunk, strict=True))
    layouts = [Layout(one.joints, one.fixed, chunk, grid) for one in fitted]
    check_overlaps(layouts)
    mosaic = _Mosaic(dtype, chunk, fill_value)
    for one, layout in zip(fitted, layouts, strict=True):
        mosaic.add(one, layout)
    manifest, encodings = mosaic.finish(grid)
    return VirtualArray(
        shape=shape,
        dtype=dtype,
        chunk_shape=chunk,
        manifest=manifest,
        encodings=encodings,
        fill_value=fill_value if manifest.missing_count else None,
    )


# Axes


def _fit(part: Part, shape: tuple[int, ...], dtype: np.dtype[Any]) -> _Fitted | None:
    """Pair the axes of a part with those of the whole; None where it has no elements."""
    array = part.array
    if array.dtype != dtype:
        raise Unsupported(f"{part.name} has values of type {array.dtype}, not {dtype}")
    for what, size, runs in (("it", array.shape, part.taken), ("the whole", shape, part.placed)):
        if len(size) != len(runs) or any(one.stop > n for n, one in zip(size, runs, strict=True)):
            raise Unsupported(f"{part.name}: a selection that reaches beyond {what}, of {size}")
    taken, placed = [one.size for one in part.taken], [one.size for one in part.placed]
    if math.prod(taken) != math.prod(placed):
        raise Unsupported(f"{part.name}: {taken} elements are shown as {placed}")
    if 0 in taken:
        return None
    if taken == placed:
        pairs: list[int | None] = list(range(len(taken)))
    else:
        left = [axis for axis, count in enumerate(taken) if count > 1]
        if [taken[axis] for axis in left] != [count for count in placed if count > 1]:
            raise Unsupported(f"{part.name}: {taken} elements are reshaped to {placed}")
        rest = iter(left)
        pairs = [next(rest) if count > 1 else None for count in placed]
    one_place = np.zeros(1, np.int64), np.ones(1, np.int64)
    joints = [
        Joint(None, one_place[0], runs.start, one_place[1])
        if axis is None
        else _joint(axis, part.taken[axis], runs)
        for axis, runs in zip(pairs, part.placed, strict=True)
    ]
    fixed = [
        (axis, int(runs.start[0])) for axis, runs in enumerate(part.taken) if axis not in pairs
    ]
    return _Fitted(part, tuple(joints), tuple(fixed))


def _joint(axis: int, taken: Runs, placed: Runs) -> Joint:
    """Cut the runs of both sides where either ends."""
    if taken.start.size == placed.start.size == 1:
        return Joint(axis, taken.start, placed.start, taken.length)
    ends_taken = np.concatenate([[0], np.cumsum(taken.length)])
    ends_placed = np.concatenate([[0], np.cumsum(placed.length)])
    cuts = np.union1d(ends_taken, ends_placed)
    begin = cuts[:-1]
    i = np.searchsorted(ends_taken, begin, side="right") - 1
    j = np.searchsorted(ends_placed, begin, side="right") - 1
    return Joint(
        axis,
        taken.start[i] + begin - ends_taken[i],
        placed.start[j] + begin - ends_placed[j],
        np.diff(cuts),
    )


# Chunks


def _chunk_shape(
    fitted: Sequence[_Fitted], shape: tuple[int, ...], dtype: np.dtype[Any], max_chunk: int
) -> tuple[int, ...]:
    """Choose the chunk shape of the whole, and check that each part's chunks can be it."""
    encoded = [one for one in fitted if not is_plain(one.part.array)]
    plain = [one for one in fitted if is_plain(one.part.array)]
    if encoded:
        chunk = encoded[0].own_chunk
    else:
        chunk = _common_pieces(plain, shape)
        chunk = _cut_down(chunk, dtype.itemsize, max_chunk)
    for one in fitted:
        _check_chunks(one, chunk, shape)
    cells = math.prod(-(-n // c) for n, c in zip(shape, chunk, strict=True))
    nbytes = math.prod(chunk) * dtype.itemsize
    is_cut = any(one.own_chunk != chunk for one in plain)
    if is_cut and cells > MAX_PIECES and nbytes < LEAST_PIECE:
        raise Unsupported(
            f"parts that fit together only if they are cut into {cells} chunks of {nbytes} bytes"
        )
    return chunk


def _common_pieces(plain: Sequence[_Fitted], shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the largest chunk shape into which all parts can be cut."""
    chunk = []
    for axis, size in enumerate(shape):
        common = np.zeros(1, np.int64)
        for one in plain:
            joint = one.joints[axis]
            at_edge = joint.placed + joint.length == size
            own = np.array([one.own_chunk[axis]])
            lengths = joint.length[~at_edge]
            numbers = np.concatenate([common, own, joint.taken, joint.placed, lengths])
            common = np.gcd.reduce(numbers, keepdims=True)
        chunk.append(int(common[0]))
    for _ in shape:
        for one in plain:
            wanted = contiguous_form(one.part.array.chunk_shape, one.along(chunk))
            for axis, joint in enumerate(one.joints):
                if joint.axis is not None:
                    chunk[axis] = min(chunk[axis], wanted[joint.axis])
    return tuple(chunk)


def _cut_down(chunk: tuple[int, ...], itemsize: int, max_chunk: int) -> tuple[int, ...]:
    """Cut chunks that are not encoded along their first axes, evenly."""
    smaller = list(chunk)
    for axis, size in enumerate(chunk):
        row = itemsize * math.prod(smaller) // size
        if row * size <= max_chunk:
            break
        most = max(max_chunk // row, 1)
        divisors = np.arange(1, min(most, 2**20) + 1)
        smaller[axis] = int(divisors[size % divisors == 0][-1])
    return tuple(smaller)


def _check_chunks(one: _Fitted, chunk: tuple[int, ...], shape: tuple[int, ...]) -> None:
    """Refuse a part whose chunks cannot be chunks of the whole."""
    array, wanted = one.part.array, one.along(chunk)
    name, own = one.part.name, array.chunk_shape
    for axis, (joint, size) in enumerate(zip(one.joints, chunk, strict=True)):
        if joint.axis is None and size != 1:
            raise Unsupported(f"{name} is one index of axis {axis}, where chunks have {size}")
        at_edge = joint.placed + joint.length == shape[axis]
        is_off = (joint.taken % size != 0) | (joint.placed % size != 0)
        is_off |= ~at_edge & (joint.length % size != 0)
        if joint.axis is not None and is_off.any():
            first = int(is_off.argmax())
            raise Unsupported(
                f"{name}: its positions {int(joint.taken[first])} to "
                f"{int(joint.taken[first] + joint.length[first])} along axis {joint.axis} are "
                f"shown from {int(joint.placed[first])}, and chunks of {size} do not align so"
            )
    if wanted == own:
        return
    if not is_plain(array):
        raise Unsupported(f"{name} has chunks of {own}, where {wanted} are needed")
    is_even = all(n % c == 0 for n, c in zip(own, wanted, strict=True))
    if not is_even or contiguous_form(own, wanted) != wanted:
        raise Unsupported(f"{name} has pieces of {own}, which cannot be cut into {wanted}")


# Values


class _Mosaic:
    """Collects the chunks of the parts."""

    def __init__(self, dtype: np.dtype[Any], chunk: tuple[int, ...], fill_value: Any) -> None:
        self._dtype = dtype
        self._chunk = chunk
        self._fill = _bits(fill_value, dtype)
        self._encodings: dict[str, Encoding] = {}
        self._kinds: list[NDArray[np.uint8]] = []
        self._places: list[Positions] = []
        self._rows: list[tuple[ChunkManifest, Positions]] = []
        self._inline: dict[int, tuple[bytes, Encoding]] = {}
        self._filled: list[tuple[Positions, bytes]] = []
        self._cuts: dict[tuple[int, tuple[int, ...]], ChunkManifest] = {}
        self._numbers: dict[int, NDArray[np.uint8]] = {}
        self._work = 0

    def add(self, one: _Fitted, layout: Layout) -> None:
        """Add the chunks of a part."""
        array, wanted = one.part.array, one.along(self._chunk)
        key = id(array), wanted
        if key not in self._cuts:
            self._cuts[key] = cut(array, wanted)
        manifest = self._cuts[key]
        found = locate(layout, manifest)
        self._work += found.work
        if self._work > MAX_WORK:
            raise Unsupported(f"more than {MAX_WORK} chunks would have to be looked at")
        if found.missing:
            self._fill_in(one, layout, manifest, found.missing)
        numbers = self._numbers.get(id(array))
        if numbers is None:
            numbers = np.array([self._number(one) for one in array.encodings], np.uint8)
            self._numbers[id(array)] = numbers
        column = manifest.encoding
        kind = np.zeros(found.row.size, np.uint8) if column is None else column[found.row]
        self._kinds.append(numbers[kind])
        self._places.append(found.place)
        self._rows.append((manifest, found.row))
        for place, flat in found.inline.items():  # few by nature
            self._inline[place] = manifest.inline[flat], array.encodings[0]

    def _fill_in(self, one: _Fitted, layout: Layout, manifest: ChunkManifest, count: int) -> None:
        """Keep what was never written of a part, where it does not read as the whole's fill."""
        fill = _bits(one.part.array.fill_value, self._dtype)
        if fill == self._fill:
            return
        nbytes = self._dtype.itemsize * math.prod(self._chunk)
        total = count + sum(places.size for places, _ in self._filled)
        if total > MAX_FILLED or total * nbytes > MAX_FILLED_BYTES or self._dtype.kind == "O":
            raise Unsupported(
                f"{one.part.name}: {count} of its chunks were never written, and read as another "
                "fill value than that of the whole"
            )
        taken, placed = expand(layout, manifest.grid_shape)
        kept = np.fromiter(manifest.inline, np.int64, len(manifest.inline))
        missing = (manifest.rows(taken) < 0) & ~np.isin(taken, kept)
        self._filled.append((placed[missing], fill))

    def _number(self, encoding: Encoding) -> int:
        """Return the position of an encoding in the table; those that decode alike are one."""
        steps = [(codec.name, _to_decode(codec.name, codec.config)) for codec in encoding.codecs]
        key = json.dumps(steps, sort_keys=True)
        self._encodings.setdefault(key, encoding)
        if len(self._encodings) > MAX_ENCODINGS:
            raise Unsupported(f"parts of more than {MAX_ENCODINGS} different encodings")
        return list(self._encodings).index(key)

    def finish(self, grid: tuple[int, ...]) -> tuple[ChunkManifest, tuple[Encoding, ...]]:
        """Return the manifest and the table of encodings, the most common one first."""
        kinds = np.concatenate(self._kinds)
        order = np.argsort(-np.bincount(kinds, minlength=len(self._encodings)), kind="stable")
        table = list(self._encodings.values())
        encodings = tuple(table[kind] for kind in order.tolist())
        if len(encodings) > 1 and any(
            codec.name == "byteatlas.heap" for one in encodings for codec in one.codecs
        ):
            raise Unsupported("text in heaps of different layouts")
        rank = np.empty(order.size, np.uint8)
        rank[order] = np.arange(order.size)
        inline = {
            place: self._encoded(data, encoding, encodings[0])
            for place, (data, encoding) in self._inline.items()
        }
        for places, fill in self._filled:
            data = encode(fill * math.prod(self._chunk), encodings[0])
            inline |= dict.fromkeys(places.tolist(), data)
        manifest = ChunkManifest.build(
            grid,
            np.concatenate(self._places).astype(np.uint64),
            np.concatenate([manifest.offset[rows] for manifest, rows in self._rows]),
            np.concatenate([manifest.length[rows] for manifest, rows in self._rows]),
            source=np.concatenate([_sources(*one) for one in self._rows]),
            encoding=rank[kinds],
            inline=inline,
        )
        return manifest, encodings

    def _encoded(self, data: bytes, encoding: Encoding, wanted: Encoding) -> bytes:
        if self._number(encoding) == self._number(wanted):
            return data
        nbytes = self._dtype.itemsize * math.prod(self._chunk)
        return encode(bytes(decode(data, encoding, size=nbytes)), wanted)


def _sources(manifest: ChunkManifest, rows: Positions) -> NDArray[np.uint32]:
    return np.zeros(rows.size, np.uint32) if manifest.source is None else manifest.source[rows]


def _bits(value: Any, dtype: np.dtype[Any]) -> bytes:
    """Return a fill value's bytes, to compare fill values by."""
    if dtype.kind == "O":
        return str(value or "").encode()
    return np.zeros((), dtype).tobytes() if value is None else np.asarray(value, dtype).tobytes()


def _to_decode(name: str, config: Any) -> Any:
    """Return what of a codec's configuration decoding depends on (Any: JSON values)."""
    if name == "blosc":
        return {}
    ignored = {"level"} if name in ("zlib", "gzip", "bz2", "zstd") else set()
    return {key: value for key, value in config.items() if key not in ignored}
