"""Heap IDs and collections, made by hand: what they say is bounded, whatever it is."""

import struct
import tracemalloc

import numpy as np
import pytest

from byteatlas import heap as heap_module
from byteatlas.errors import ByteatlasError, Malformed, Unsupported
from byteatlas.heap import Heap, HeapCodec, heap_ids, heap_of, read_strings
from byteatlas.model import ChunkManifest, Codec, Encoding, VirtualArray
from byteatlas.steps import run
from byteatlas.testing.memory import MemoryReader

HEAP = Heap(0, 8, 8)


def collection(objects, *, size=4096, magic=b"GCOL\1\0\0\0", stated=None):
    """Return the bytes of a collection of numbered objects."""
    whole = magic + struct.pack("<Q", size if stated is None else stated)
    for number, data in objects:
        whole += struct.pack("<HHIQ", number, 1, 0, len(data)) + data + bytes(-len(data) % 8)
    return whole.ljust(size, b"\0")


def ids_of(*ids, heap=HEAP):
    width = {2: "H", 4: "I", 8: "Q"}[heap.offset_size]
    data = b"".join(struct.pack(f"<I{width}I", *one) for one in ids)
    return np.frombuffer(data, np.uint8).reshape(-1, heap.id_size)


def look_up(data, *ids, heap=HEAP, reader=None, **options):
    steps = read_strings(ids_of(*ids, heap=heap), heap, len(data), **options)
    return run(steps, reader or MemoryReader(data)).tolist()


def test_a_heap_id_is_a_length_an_address_and_a_number():
    data = b"head" * 2 + collection([(1, b"one"), (2, b""), (3, "dr\u00e9i".encode())])
    found = look_up(data, (5, 8, 3), (3, 8, 1), (0, 8, 2), (2, 8, 1), (5, 8, 3))
    assert found == ["dr\u00e9i", "one", "", "on", "dr\u00e9i"]


@pytest.mark.parametrize("address", [0, 2**64 - 1])
def test_an_id_that_points_nowhere_is_an_empty_string(address):
    assert look_up(b"", (7, address, 1)) == [""]


@pytest.mark.parametrize(("offset_size", "length_size"), [(2, 2), (4, 8), (8, 4), (4, 4)])
def test_addresses_and_lengths_of_any_width_count_from_the_base(offset_size, length_size):
    data = bytes(100) + collection([(7, b"text")])
    heap = Heap(60, offset_size, length_size)
    assert look_up(data, (4, 40, 7), heap=heap) == ["text"]


def test_strings_end_at_a_null_byte():
    data = bytes(8) + collection([(1, b"ab\0\xff"), (2, b"\0"), (3, b"c")])
    assert look_up(data, (4, 8, 1), (1, 8, 2), (1, 8, 3)) == ["ab", "", "c"]


def test_of_objects_with_one_number_the_last_counts():
    assert look_up(bytes(8) + collection([(1, b"a"), (2, b"b"), (1, b"c")]), (1, 8, 1)) == ["c"]


def test_all_collections_are_read_in_two_rounds():
    small = [collection([(1, b"%d" % place)]) for place in range(50)]
    large = [collection([(1, b"x" * 5000), (2, b"y")], size=8192)] * 3
    data = bytes(8) + b"".join([*small, *large])
    begins = [8 + 4096 * place for place in range(50)] + [8 + 4096 * 50 + 8192 * n for n in (0, 2)]
    reader = MemoryReader(data)
    found = look_up(data, *[(1, begin, 1) for begin in begins[::-1]], reader=reader)
    assert found == ["x", "x", *[str(place)[0] for place in range(50)][::-1]]
    assert reader.rounds == 2


def test_many_collections_are_held_in_parts():
    sizes = [4096, 4096, 12288, 4096, 40960, 8192, 4096, 4096]
    data, begins = bytes(8), []
    for place, size in enumerate(sizes):
        begins.append(len(data))
        data += collection([(9, b"text %d" % place)], size=size)
    expected = [f"text {place}" for place in range(len(sizes))]
    for held, rounds in ((3 * 4096, 6), (2**26, 2)):
        reader = MemoryReader(data)
        ids = [(6, begin, 9) for begin in begins]
        assert look_up(data, *ids, reader=reader, held=held) == expected
        assert reader.rounds == rounds
        assert look_up(data, *ids[::-1], held=held) == expected[::-1]


def test_equal_ids_share_one_string():
    data = bytes(8) + collection([(1, b"x" * 100)])
    one, other = look_up(data, (100, 8, 1), (100, 8, 1))
    assert one is other


GOOD = bytes(8) + collection([(1, b"one"), (2, b"two")])


@pytest.mark.parametrize(
    ("data", "ids", "reason", "offset"),
    [
        (GOOD, [(3, 8, 3)], "no object 3", 8),
        (GOOD, [(3, 8, 2**31)], "no object 2147483648", 8),
        (GOOD, [(3, 8, 0)], "no object 0", 8),
        (GOOD, [(4, 8, 1)], "object 1 has 3 bytes, 4 are referred to", 40),
        (GOOD, [(2**32 - 1, 8, 1)], "4294967295 are referred to", 40),
        (GOOD, [(1, 9, 1)], "does not fit", 9),
        (GOOD, [(1, 2**64 - 2, 1)], "does not fit", 2**64 - 2),
        (GOOD + GOOD, [(1, 8, 1), (1, 9, 1)], "collections overlap", 8),
        (GOOD + b"x", [(1, 9, 1)], r"expected b'GCOL' version 1, found b'COL", 9),
        (
            bytes(8) + collection([(1, b"one")], magic=b"GCOL\2\0\0\0"),
            [(1, 8, 1)],
            "expected b'GCOL' version 1",
            8,
        ),
        (
            bytes(8) + collection([(1, b"x")], stated=2**63),
            [(1, 8, 1)],
            "a collection of 9223372036854775808 bytes",
            8,
        ),
        (
            bytes(8) + collection([(1, b"x")], stated=4095),
            [(1, 8, 1)],
            "a collection of 4095 bytes",
            8,
        ),
        (
            bytes(8) + collection([], stated=8192) + collection([(1, b"x")]),
            [(1, 8, 1), (1, 4104, 1)],
            "a collection of 8192 bytes",
            8,
        ),
        (bytes(8) + collection([]), [(1, 8, 1)], "no objects", 8),
        (
            GOOD[:32] + struct.pack("<Q", 2**64 - 3) + GOOD[40:],
            [(1, 8, 1)],
            "object 1 is longer than its collection",
            40,
        ),
        (
            bytes(8) + collection([(1, b"x" * 4000)]),
            [(count, 8, 1) for count in (3000, 3001)],
            "strings overlap",
            8,
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_damaged_is_an_error_that_names_the_byte(data, ids, reason, offset):
    with pytest.raises(Malformed, match=reason) as caught:
        look_up(data, *ids)
    assert caught.value.offset == offset


def test_a_string_that_is_no_utf8_is_an_error():
    data = bytes(8) + collection([(1, b"good"), (2, b"caf\xe9")])
    assert look_up(data, (4, 8, 1)) == ["good"]
    with pytest.raises(Unsupported, match="not UTF-8") as caught:
        look_up(data, (4, 8, 1), (4, 8, 2))
    assert caught.value.offset == data.index(b"caf")


def test_a_collection_of_too_many_bytes_or_objects_is_refused(monkeypatch):
    monkeypatch.setattr(heap_module, "MAX_COLLECTION", 2**20)
    large = bytes(8) + collection([(1, b"x")], size=2**20 + 8)
    with pytest.raises(Unsupported, match="at most 1048576"):
        look_up(large, (1, 8, 1))
    many = bytes(8) + collection([(1, b"")] * 2**16, size=2**20 + 16)[: 2**20]
    many = many[:16] + struct.pack("<Q", 2**20) + many[24:]
    assert look_up(many, (0, 8, 1)) == [""]
    monkeypatch.setattr(heap_module, "MAX_OBJECTS", 1000)
    with pytest.raises(Malformed, match="more than 999 objects"):
        look_up(many, (1, 8, 1))


def test_many_ids_of_one_long_string_take_no_more_than_it():
    data = bytes(8) + collection([(1, b"x" * 2**20)], size=2**20 + 4096)
    ids = np.repeat(ids_of((2**20, 8, 1)), 100_000, axis=0)
    tracemalloc.start()
    texts = run(read_strings(ids, HEAP, len(data)), MemoryReader(data))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(texts) == 100_000
    assert peak < 64 * 2**20


@pytest.mark.parametrize("seed", range(20))
def test_any_damage_is_an_error_of_ours_or_leaves_texts(seed):
    rng = np.random.default_rng(seed)
    objects = [(n, bytes(rng.integers(97, 123, n, np.uint8))) for n in range(1, 40)]
    whole = bytes(8) + collection(objects) + collection([(1, b"x" * 5000)], size=8192)
    good = ids_of(*[(n, 8, n) for n in range(1, 40)], (5000, 4104, 1))
    offsets, texts = [], []
    for place in range(200):
        data, ids = np.frombuffer(whole, np.uint8).copy(), good.copy()
        part = (data[:1200], ids.reshape(-1))[place % 2]
        part[rng.integers(0, part.size)] = rng.integers(0, 256)
        try:
            found = run(read_strings(ids, HEAP, data.size), MemoryReader(data.tobytes()))
        except ByteatlasError as error:
            offsets.append(error.offset)
        else:
            texts += found.tolist()
    assert offsets
    assert None not in offsets
    assert texts
    assert all(isinstance(text, str) for text in texts)


def pointing(*codec_lists, dtype="O"):
    return VirtualArray(
        (4,),
        np.dtype(dtype),
        (4,),
        ChunkManifest.empty((1,)),
        encodings=tuple(map(Encoding, codec_lists)),
    )


def test_an_array_points_to_its_strings_where_its_codecs_say_so():
    zlib = Codec("zlib", {"level": 1})
    array = pointing((*HEAP.codecs(), zlib), HEAP.codecs())
    assert heap_of(array) == HEAP
    ids = heap_ids(array, HEAP)
    assert ids.dtype == np.dtype("V16")
    assert ids.encodings == (Encoding((zlib,)), Encoding())
    assert heap_of(pointing((Codec("vlen-utf8"),))) is None
    assert heap_of(pointing(())) is None
    assert heap_of(pointing((zlib,), dtype="i4")) is None


@pytest.mark.parametrize(
    "codecs",
    [
        [HEAP.codecs()[1:]],
        [HEAP.codecs()[::-1]],
        [HEAP.codecs(), (Codec("vlen-utf8"),)],
        [HEAP.codecs(), Heap(1, 8, 8).codecs()],
        [Heap(-1, 8, 8).codecs()],
        [Heap(0, 3, 8).codecs()],
        [(Codec("vlen-utf8"), Codec("byteatlas.heap", {"base": 0}))],
        [(Codec("vlen-utf8"), Codec("byteatlas.heap", {**HEAP._asdict(), "base": "0"}))],
    ],
)
def test_a_codec_of_another_form_is_refused(codecs):
    with pytest.raises(Malformed, match=r"byteatlas\.heap"):
        heap_of(pointing(*codecs))


def test_the_codec_by_itself_refuses():
    codec = HeapCodec(**HEAP._asdict())
    assert codec.get_config() == {"id": "byteatlas.heap", **HEAP._asdict()}
    with pytest.raises(Unsupported, match="only points to its strings"):
        codec.decode(b"")
    with pytest.raises(NotImplementedError):
        codec.encode(b"")
