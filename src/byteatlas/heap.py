"""The codec `byteatlas.heap`: strings that a chunk only points to, in HDF5's global heap.

A chunk of variable-length strings holds a heap ID for each (HDF5 File Format 3.0, IV.A.2.d, class
9): its length in bytes, the address of a collection, and the number of an object in it. Strings
that are too many to be kept in an index stay where they are: their array is encoded by
``vlen-utf8``, then `byteatlas.heap`, then the codecs of its chunks. Undoing `byteatlas.heap` takes
further reads of the source, so it is done by `read_strings`, which byteatlas' reader and store
drive; the codec by itself refuses.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple, NoReturn

import numpy as np
from numcodecs.abc import Codec as NumcodecsCodec
from numpy.typing import NDArray

from byteatlas.errors import Malformed, Unsupported
from byteatlas.model import ByteRange, ByteRanges, Codec, Encoding, VirtualArray
from byteatlas.steps import Steps

__all__ = ["MAX_TOGETHER", "Heap", "HeapCodec", "heap_ids", "heap_of", "read_strings"]

CODEC = "byteatlas.heap"

LEAST = 4096
"""The least size of a collection, in bytes: so much of each is read first."""
MAX_TOGETHER = 2**26
"""Bytes of collections that one read holds at once, unless a single one is larger."""
MAX_COLLECTION = 2**30
"""No collection of more bytes is read."""
MAX_OBJECTS = 2**16
"""Objects in a collection: they are numbered by 16 bits."""


class Heap(NamedTuple):
    """What the superblock of the file says of addresses."""

    base: int
    """Base address: every address counts from here."""
    offset_size: int
    """Bytes of an address: 2, 4 or 8."""
    length_size: int
    """Bytes of a length: 2, 4 or 8."""

    @property
    def id_size(self) -> int:
        """Bytes of a heap ID."""
        return 8 + self.offset_size

    def codecs(self) -> tuple[Codec, Codec]:
        """Return the codecs that begin the encoding of an array of such strings."""
        return Codec("vlen-utf8"), Codec(CODEC, self._asdict())


class HeapCodec(NumcodecsCodec):  # type: ignore[misc]  # numcodecs has no type information
    """The codec for readers that know nothing else of byteatlas: it refuses.

    Parameters
    ----------
    base, offset_size, length_size : see `Heap`.
    """

    codec_id: ClassVar[str] = CODEC

    def __init__(self, base: int, offset_size: int, length_size: int) -> None:
        self.base = base
        self.offset_size = offset_size
        self.length_size = length_size

    def encode(self, buf: Any) -> NoReturn:
        """Refuse: byteatlas reads, it does not write strings."""
        del buf
        raise NotImplementedError("byteatlas.heap only decodes")

    def decode(self, buf: Any, out: Any = None) -> NoReturn:
        """Refuse: the strings are elsewhere in the source than the chunk."""
        del buf, out
        raise Unsupported(
            "the chunk only points to its strings",
            hint="open the index with byteatlas.open_dataset or byteatlas.open_store",
        )


def heap_of(array: VirtualArray) -> Heap | None:
    """Return how the strings of an array are found, None where its chunks hold its values.

    Raises
    ------
    Malformed
        The codec is configured wrongly, or stands elsewhere than behind ``vlen-utf8``.
    """
    if array.dtype != object:
        return None
    if not any(codec.name == CODEC for one in array.encodings for codec in one.codecs):
        return None
    begins = [encoding.codecs[:2] for encoding in array.encodings]
    config = begins[0][-1].config if begins[0] else {}
    numbers = [config.get(name) for name in Heap._fields]
    if all(type(number) is int for number in numbers):
        heap = Heap(*numbers)  # type: ignore[arg-type]  # they are
        widths = {heap.offset_size, heap.length_size}
        if (
            0 <= heap.base < 2**62
            and widths <= {2, 4, 8}
            and all(one == heap.codecs() for one in begins)
        ):
            return heap
    raise Malformed(f"codec {CODEC!r} is configured wrongly: {begins!r:.200}")


def heap_ids(array: VirtualArray, heap: Heap) -> VirtualArray:
    """Return the array whose elements are the heap IDs as opaque bytes."""
    encodings = tuple(Encoding(encoding.codecs[2:]) for encoding in array.encodings)
    return replace(array, dtype=np.dtype(f"V{heap.id_size}"), encodings=encodings, fill_value=None)


def read_strings(
    ids: NDArray[np.uint8], heap: Heap, size: int | None = None, held: int = MAX_TOGETHER
) -> Steps[NDArray[np.object_]]:
    """Look strings up by their heap IDs: one round, two if a collection is larger than usual.

    Collections of more bytes in all than may be held are read in several such steps.

    Parameters
    ----------
    ids
        Heap IDs, shape (count, heap.id_size).
    heap
        How they are to be understood.
    size
        Of the source; None when it is not known.
    held
        Bytes of collections that are held at once, unless a single one is larger.

    Returns
    -------
    ndarray
        Texts, shape (count,), each up to its first null byte. Equal IDs share one object.

    Raises
    ------
    Malformed
        An ID points to nothing, a collection is damaged, or collections overlap.
    Unsupported
        A string is not UTF-8, or a collection is larger than `MAX_COLLECTION`.
    """
    texts = np.full(len(ids), "", object)
    length, address, number = _columns(ids, heap)
    undefined = np.uint64(2 ** (8 * heap.offset_size) - 1)
    some = np.flatnonzero((length > 0) & (address != 0) & (address != undefined))
    if not some.size:
        return texts
    places, owner = np.unique(address[some], return_inverse=True)
    begin = _checked_places(places, heap.base, size)
    wanted, which = _distinct(owner, number[some], length[some], begin)
    found = np.empty(wanted.shape[1], object)
    step = max(held // LEAST, 1)
    for first in range(0, begin.size, step):
        last = min(first + step, begin.size)
        heads = yield from _heads(begin[first:last])
        after = int(begin[last]) if last < begin.size else size
        lengths = _lengths(heads, begin[first:last], heap, after)
        for low, high in _together(lengths, held):
            block = yield from _collections(
                heads[low:high], begin[first + low : first + high], lengths[low:high]
            )
            mine = slice(*np.searchsorted(wanted[0], [first + low, first + high]))
            objects = _objects(block, heap)
            found[mine] = _texts(block, objects, wanted[:, mine], first + low)
    texts[some] = found[which]
    return texts


def _columns(
    ids: NDArray[np.uint8], heap: Heap
) -> tuple[NDArray[np.int64], NDArray[np.uint64], NDArray[np.int64]]:
    """Take heap IDs apart: length, address of the collection, number of the object."""
    width = heap.offset_size
    record = np.dtype([("length", "<u4"), ("address", f"<u{width}"), ("number", "<u4")])
    fields = np.ascontiguousarray(ids).view(record)[:, 0]
    return (
        fields["length"].astype(np.int64),
        fields["address"].astype(np.uint64),
        fields["number"].astype(np.int64),
    )


def _distinct(
    owner: NDArray[np.intp],
    number: NDArray[np.int64],
    length: NDArray[np.int64],
    begin: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
    """Return heap IDs without repeats, in columns, and which of them each ID is.

    The columns are the position of the collection, the object's number, and the string's length.
    """
    beyond = np.flatnonzero(number >= MAX_OBJECTS)
    if beyond.size:
        one = beyond[0]
        raise Malformed(f"global heap: no object {number[one]}", offset=int(begin[owner[one]]))
    key = owner * MAX_OBJECTS + number
    order = np.lexsort((length, key))
    ordered = np.stack([key[order], length[order]])
    is_first = np.ones(order.size, bool)
    is_first[1:] = (ordered[:, 1:] != ordered[:, :-1]).any(axis=0)
    which = np.empty(order.size, np.intp)
    which[order] = np.cumsum(is_first) - 1
    key, length = ordered[:, is_first]
    return np.stack([key // MAX_OBJECTS, key % MAX_OBJECTS, length]), which


def _checked_places(places: NDArray[np.uint64], base: int, size: int | None) -> NDArray[np.int64]:
    """Return where in the source collections begin, which must leave room for each."""
    room = 2**62 if size is None else size - base - LEAST
    beyond = np.flatnonzero(places > np.uint64(max(room, 0)))
    if room < 0 or beyond.size:
        address = int(places[beyond[0] if beyond.size else 0])
        raise Malformed(
            f"global heap: a collection does not fit into the source's {size} bytes",
            offset=base + address,
        )
    begin = places.astype(np.int64) + base
    close = np.flatnonzero(np.diff(begin) < LEAST)
    if close.size:
        raise Malformed("global heap: two collections overlap", offset=int(begin[close[0]]))
    return begin


def _heads(begin: NDArray[np.int64]) -> Steps[NDArray[np.uint8]]:
    """Read the first bytes of collections: all of most."""
    (data,) = yield [ByteRanges(begin.astype(np.uint64), LEAST)]
    heads: NDArray[np.uint8] = np.asarray(data)
    wrong = np.flatnonzero((heads[:, :5] != np.frombuffer(b"GCOL\1", np.uint8)).any(axis=1))
    if wrong.size:
        raise Malformed(
            f"global heap: expected b'GCOL' version 1, found {heads[wrong[0], :5].tobytes()!r}",
            offset=int(begin[wrong[0]]),
        )
    return heads


def _lengths(
    heads: NDArray[np.uint8], begin: NDArray[np.int64], heap: Heap, after: int | None
) -> NDArray[np.int64]:
    """Return the lengths of collections, which must not reach into each other."""
    stored = np.ascontiguousarray(heads[:, 8 : 8 + heap.length_size])
    lengths = stored.view(f"<u{heap.length_size}")[:, 0].astype(np.uint64)
    room = np.diff(begin, append=2**62 if after is None else after).astype(np.uint64)
    wrong = np.flatnonzero((lengths < LEAST) | (lengths > room))
    if wrong.size:
        raise Malformed(
            f"global heap: a collection of {lengths[wrong[0]]} bytes, expected {LEAST} to "
            f"{room[wrong[0]]}",
            offset=int(begin[wrong[0]]),
        )
    large = np.flatnonzero(lengths > MAX_COLLECTION)
    if large.size:
        raise Unsupported(
            f"global heap: a collection of {lengths[large[0]]} bytes, at most {MAX_COLLECTION} "
            "are read",
            offset=int(begin[large[0]]),
        )
    return lengths.astype(np.int64)


def _together(lengths: NDArray[np.int64], held: int) -> Iterator[tuple[int, int]]:
    """Split collections into runs that are held at once."""
    if int(lengths.max()) == LEAST:
        yield 0, lengths.size
        return
    run = np.cumsum(lengths) // held
    bounds = [0, *(np.flatnonzero(np.diff(run)) + 1).tolist(), lengths.size]
    yield from pairwise(bounds)


class _Block(NamedTuple):
    """Collections one behind the other."""

    data: NDArray[np.uint8]
    start: NDArray[np.int64]
    """Where each is in the data: a multiple of 8."""
    begin: NDArray[np.int64]
    """Where each is in the source."""
    length: NDArray[np.int64]

    def offset(self, collection: int, place: int) -> int:
        """Return where in the source a place of the data is."""
        return int(self.begin[collection] - self.start[collection]) + int(place)


def _collections(
    heads: NDArray[np.uint8], begin: NDArray[np.int64], lengths: NDArray[np.int64]
) -> Steps[_Block]:
    """Read what is missing of collections."""
    padded = -(-lengths // 8) * 8
    start = np.cumsum(padded) - padded
    longer = np.flatnonzero(lengths > LEAST)
    if not longer.size:
        return _Block(heads.reshape(-1), start, begin, lengths)
    rests = yield [
        ByteRange(offset + LEAST, length - LEAST)
        for offset, length in zip(begin[longer].tolist(), lengths[longer].tolist(), strict=True)
    ]
    data = np.zeros(int(padded.sum()), np.uint8)
    np.lib.stride_tricks.sliding_window_view(data, LEAST, writeable=True)[start] = heads
    for place, rest in zip((start[longer] + LEAST).tolist(), rests, strict=True):
        data[place : place + len(rest)] = np.frombuffer(rest, np.uint8)
    return _Block(data, start, begin, lengths)


class _Objects(NamedTuple):
    """The objects of some collections, sorted by collection and number."""

    key: NDArray[np.int64]
    """Position of the collection times `MAX_OBJECTS` plus the object's number."""
    start: NDArray[np.int64]
    """First byte in the block."""
    length: NDArray[np.int64]


def _objects(block: _Block, heap: Heap) -> _Objects:
    """Find all objects, one of each collection at a time (III.E, "Global heap object")."""
    words = block.data.view("<u8")
    mask = np.uint64(2 ** (8 * heap.length_size) - 1)
    owner = np.arange(block.start.size)
    at, end = block.start // 8 + 2, block.start + block.length
    parts = []
    for _ in range(MAX_OBJECTS):
        inside = at * 8 + 16 <= end[owner]
        owner, at = owner[inside], at[inside]
        number = (words[at] & np.uint64(MAX_OBJECTS - 1)).astype(np.int64)
        used = number > 0  # number 0 is the free space, which is last
        owner, at, number = owner[used], at[used], number[used]
        if not owner.size:
            break
        length, first = words[at + 1] & mask, at * 8 + 16
        longer = np.flatnonzero(length > (end[owner] - first).astype(np.uint64))
        if longer.size:
            one = longer[0]
            raise Malformed(
                f"global heap: object {number[one]} is longer than its collection",
                offset=block.offset(owner[one], first[one]),
            )
        known = length.astype(np.int64)
        parts.append(np.stack([owner * MAX_OBJECTS + number, first, known]))
        at = at + 2 + -(-known // 8)
    else:
        raise Malformed(
            f"global heap: more than {MAX_OBJECTS - 1} objects", offset=int(block.begin[owner[0]])
        )
    if not parts:
        raise Malformed("global heap: no objects", offset=int(block.begin[0]))
    found = np.concatenate(parts, axis=1)
    return _Objects(*found[:, np.argsort(found[0], kind="stable")])


def _texts(
    block: _Block, objects: _Objects, wanted: NDArray[np.int64], first: int
) -> NDArray[np.object_]:
    """Return the strings of heap IDs, which are without repeats; `first` is the first's owner."""
    owner, number, length = wanted[0] - first, wanted[1], wanted[2]
    key = owner * MAX_OBJECTS + number
    # Of several objects with one number the last counts, as in libhdf5.
    place = np.searchsorted(objects.key, key, "right") - 1
    unknown = np.flatnonzero((place < 0) | (objects.key.take(place, mode="clip") != key))
    if unknown.size:
        one = unknown[0]
        begin = int(block.begin[owner[one]])
        raise Malformed(f"global heap: no object {number[one]}", offset=begin)
    start = objects.start[place]
    longer = np.flatnonzero(length > objects.length[place])
    if longer.size:
        one = longer[0]
        raise Malformed(
            f"global heap: object {number[one]} has {objects.length[place[one]]} bytes, "
            f"{length[one]} are referred to",
            offset=block.offset(owner[one], start[one]),
        )
    if int(length.sum()) > block.data.size:
        raise Malformed("global heap: strings overlap", offset=int(block.begin[0]))
    data = block.data.tobytes()
    bounds = zip(start.tolist(), (start + length).tolist(), strict=True)
    parts = [data[begin:end] for begin, end in bounds]
    if b"\0" in b"".join(parts):  # as for the library, it ends the string
        parts = [part.partition(b"\0")[0] for part in parts]
    texts = np.empty(len(parts), object)
    try:
        texts[:] = [part.decode() for part in parts]
    except UnicodeDecodeError as error:
        one = parts.index(error.object)
        raise Unsupported(
            f"a variable-length string that is not UTF-8 ({error.reason})",
            offset=block.offset(owner[one], start[one]),
        ) from error
    return texts
