"""Indexes that mean harm, and a program that opens each in a process of its own.

    python hostile_indexes.py DIRECTORY ORIGIN INTERNAL CANARY

writes every index into DIRECTORY, opens it from ORIGIN, where a server shows that directory, and
prints one JSON object for each: what came of it, the memory it took and the time. INTERNAL is
another server, and CANARY a local file; no index may reach either.
"""

from __future__ import annotations

import base64
import bz2
import gzip
import json
import lzma
import os
import resource
import signal
import struct
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

MIB = 2**20
ZEROS = bytes(MIB)


class Place(NamedTuple):
    """Where the parts of the stage are."""

    origin: str
    internal: str
    canary: str


class Case(NamedTuple):
    """One index, and what must come of it."""

    make: Callable[[Place], Any]
    """Returns the document, or the bytes of the file."""
    error: str = "ByteatlasError"
    """Name of an error; "" where it is read right."""
    declared: int = 0
    """Bytes that its chunks declare to decode to."""
    values: Any = None
    """What is read, where it is."""


CASES: dict[str, Case] = {}


# Documents


def index(refs: dict[str, Any], /, extra: Any = None, **zarray: Any) -> dict[str, Any]:
    """Return an index of one array ``t`` of 4 bytes in 1 chunk, changed as told."""
    metadata = {
        "chunks": [4], "compressor": None, "dtype": "|u1", "fill_value": None, "filters": None,
        "order": "C", "shape": [4], "zarr_format": 2,
    } | zarray  # fmt: skip
    sections = {} if extra is None else {"byteatlas": {"format": 1, **extra}}
    return {"version": 1, "refs": {"t/.zarray": json.dumps(metadata), **refs}, **sections}


def of_url(url: str) -> dict[str, Any]:
    return index({"t/0": [url, 0, 4]})


def inlined(data: bytes, **zarray: Any) -> dict[str, Any]:
    return index({"t/0": "base64:" + base64.b64encode(data).decode()}, **zarray)


def raw(text: str) -> bytes:
    return text.encode()


# Sources outside the policy

URLS: dict[str, Callable[[Place], str]] = {
    "path": lambda p: p.canary,
    "file url": lambda p: f"file://{p.canary}",
    "file url with host": lambda p: f"file://localhost{p.canary}",
    "file url with one slash": lambda p: f"file:{p.canary}",
    "file url in capitals": lambda p: f"FILE://{p.canary}",
    "local url": lambda p: f"local://{p.canary}",
    "doubled slash": lambda p: f"/{p.canary}",
    "relative": lambda _: "../canary",
    "relative and encoded": lambda _: "%2e%2e/canary",
    "relative and deep": lambda _: "a/../../../../../../../etc/passwd",
    "backslash": lambda _: "..\\canary",
    "of the process": lambda _: "/proc/self/environ",
    "memory": lambda _: "memory://canary",
    "other port": lambda p: f"{p.internal}/canary",
    "localhost": lambda p: f"{p.internal.replace('127.0.0.1', 'localhost')}/canary",
    "localhost with a dot": lambda p: f"{p.internal.replace('127.0.0.1', 'localhost.')}/canary",
    "below localhost": lambda p: f"{p.internal.replace('127.0.0.1', 'a.localhost')}/canary",
    "short address": lambda p: f"{p.internal.replace('127.0.0.1', '127.1')}/canary",
    "other loopback": lambda p: f"{p.internal.replace('127.0.0.1', '127.9.9.9')}/canary",
    "hexadecimal": lambda p: f"{p.internal.replace('127.0.0.1', '0x7f000001')}/canary",
    "octal": lambda p: f"{p.internal.replace('127.0.0.1', '0177.0.0.1')}/canary",
    "one number": lambda p: f"{p.internal.replace('127.0.0.1', '2130706433')}/canary",
    "any address": lambda p: f"{p.internal.replace('127.0.0.1', '0.0.0.0')}/canary",
    "ipv6": lambda p: f"{p.internal.replace('127.0.0.1', '[::1]')}/canary",
    "ipv6 any": lambda p: f"{p.internal.replace('127.0.0.1', '[::]')}/canary",
    "ipv4 in ipv6": lambda p: f"{p.internal.replace('127.0.0.1', '[::ffff:127.0.0.1]')}/canary",
    "ipv4 in ipv6 in hex": lambda p: f"{p.internal.replace('127.0.0.1', '[::ffff:7f00:1]')}/c",
    "6to4": lambda _: "http://[2002:7f00:1::]/canary",
    "nat64": lambda _: "http://[64:ff9b::7f00:1]/canary",
    "full width digits": lambda p: p.internal.replace("127", "\uff11\uff12\uff17") + "/canary",
    "cloud metadata": lambda _: "http://169.254.169.254/latest/meta-data/",
    "link-local ipv6": lambda _: "http://[fe80::1]/canary",
    "unique local ipv6": lambda _: "http://[fd00::1]/canary",
    "private 10": lambda _: "http://10.0.0.1/canary",
    "private 172": lambda _: "http://172.16.0.1/canary",
    "private 192": lambda _: "http://192.168.0.1/canary",
    "carrier grade": lambda _: "http://100.64.0.1/canary",
    "multicast": lambda _: "http://224.0.0.1/canary",
    "user info": lambda p: f"{p.origin.replace('://', '://user:secret@')}/source.bin",
    "user info as host": lambda p: f"{p.origin}@169.254.169.254/canary",
    "backslash in the host": lambda p: f"{p.internal}\\@{p.origin[7:]}/canary",
    "dots in the path": lambda p: f"{p.origin}/a/%2e%2e/../canary",
    "chained zip": lambda p: f"zip://x::file://{p.canary}",
    "chained cache": lambda p: f"simplecache::{p.internal}/canary",
    "chained file cache": lambda p: f"filecache::{p.canary}",
    "chained reference": lambda p: f"reference://::{p.canary}",
    "chained own origin": lambda p: f"blockcache::{p.origin}/source.bin",
    "ftp": lambda _: "ftp://127.0.0.1/canary",
    "ssh": lambda _: "ssh://127.0.0.1/canary",
    "git": lambda _: "git://./canary",
    "unknown scheme": lambda _: "gopher://example.org/canary",
    "python": lambda _: "python://os.system",
    "line break": lambda p: f"{p.internal}/canary\r\nHost: x",
    "null byte": lambda p: f"{p.canary}\0.nc",
    "long": lambda p: f"{p.origin}/" + "x" * 9000,
    "no text": lambda _: 5,  # type: ignore[dict-item, return-value]
    "empty": lambda _: "",
}  # fmt: skip
CASES |= {f"url: {name}": Case(lambda place, of=of: of_url(of(place))) for name, of in URLS.items()}
CASES |= {
    "url: listed among the sources": Case(
        lambda p: index({"t/0": ["s", 0, 4]}, {"sources": [{"url": f"file://{p.canary}"}]})
    ),
    "url: redirect to another port": Case(lambda p: of_url(f"{p.origin}/redirected")),
    "url: own origin": Case(lambda p: of_url(f"{p.origin}/source.bin"), "", values=[0, 1, 2, 3]),
    "url: beside the index": Case(lambda _: of_url("source.bin"), "", values=[0, 1, 2, 3]),
}


# Templates and generators


def templated(url: str, /, **templates: str) -> dict[str, Any]:
    return {**of_url(url), "templates": templates}


def generating(url: str, key: str = "t/{{i}}", **dimensions: Any) -> dict[str, Any]:
    gen = [{"key": key, "url": url, "offset": "0", "length": "4", "dimensions": dimensions}]
    return {**index({}), "gen": gen}


CASES |= {
    "template: a local file": Case(lambda p: templated("{{a}}{{b}}", a="file:/", b=p.canary)),
    "template: another port": Case(lambda p: templated("{{a}}/canary", a=p.internal)),
    "template: attributes": Case(lambda _: templated("{{a.__class__}}", a="x")),
    "template: attributes of text": Case(lambda _: templated("{{''.__class__.__mro__}}", a="x")),
    "template: items": Case(lambda _: templated("{{a['b']}}", a="x")),
    "template: calls": Case(lambda _: templated("{{open('/etc/passwd')}}", a="x")),
    "template: import": Case(lambda _: templated("{{__import__('os')}}", a="x")),
    "template: statements": Case(lambda _: templated("{% for i in range(9) %}x{% endfor %}", a="")),
    "template: format fields": Case(lambda _: templated("{a.__init__}", a="x")),
    "template: width": Case(lambda _: templated("{{'%1000000000d' % 1}}", a="x")),
    "template: width by format": Case(lambda _: templated("{{'%999999999s'|format(1)}}", a="x")),
    "template: repeated text": Case(lambda _: templated("{{'x' * 1000000000}}", a="x")),
    "template: power": Case(lambda _: templated("{{9**9**9**9}}", a="x")),
    "template: shift": Case(lambda _: templated("{{1 << 99999999999}}", a="x")),
    "template: deep expression": Case(lambda _: templated("{{" + "(" * 4000 + "}}", a="x")),
    "template: long sum": Case(lambda _: templated("{{" + "1+" * 3000 + "1}}", a="x")),
    "template: doubling": Case(
        lambda _: templated(
            "{{a9}}", a0="x" * 999, **{f"a{i}": f"{{{{a{i - 1}}}}}" * 9 for i in range(1, 10)}
        ),
        "LimitExceeded",
    ),
    "template: itself": Case(lambda _: templated("{{a}}", a="{{a}}"), "LimitExceeded"),
    "template: unknown": Case(lambda _: templated("{{b}}", a="x")),
    "template: division by zero": Case(lambda _: templated("{{1/0}}", a="x")),
    "gen: 2^80 references": Case(
        lambda _: generating("u", "t/{{i}}{{j}}", i={"stop": 2**40}, j={"stop": 2**40}),
        "LimitExceeded",
    ),
    "gen: one beyond the limit": Case(
        lambda _: generating("u", i={"stop": 10_000_001}), "LimitExceeded"
    ),
    "gen: many dimensions": Case(
        lambda _: generating("u", **{f"d{i}": {"stop": 1} for i in range(99)})
    ),
    "gen: a local file": Case(lambda p: generating(f"file://{p.canary}", i={"stop": 1})),
    "gen: one key": Case(lambda _: generating("u", "t/0", i={"stop": 9})),
    "gen: endless": Case(lambda _: generating("u", i={"stop": 9, "step": 0})),
    "gen: long texts": Case(
        lambda _: generating("{{i}}" * 1000, i=["x" * 9] * 1000), "LimitExceeded"
    ),
    "gen: read": Case(
        lambda p: generating(f"{p.origin}/source.bin", i={"stop": 1}), "", values=[0, 1, 2, 3]
    ),
}


# JSON

REF = '{{"version":1,"refs":{{"t/.zarray":{},"t/0":["source.bin",{}]}}}}'
ZARRAY = json.dumps(index({})["refs"]["t/.zarray"])
NUMBERS = {
    "not a number": "NaN,4", "infinite": "0,Infinity", "fraction": "0.5,4", "whole float": "0.0,4",
    "exponent": "1e2,4", "true": "true,4", "text": '"0",4', "null": "null,4", "negative": "-1,4",
    "negative length": "0,-4", "2^63": f"{2**63},4", "2^64": f"0,{2**64}",
    "very large": "9" * 4000 + ",4", "one number": "0", "three numbers": "0,4,5",
    "both large": f"{2**63 - 1},{2**63 - 1}", "list": "[0],4",
}  # fmt: skip
CASES |= {
    f"json: offset {name}": Case(lambda _, text=text: raw(REF.format(ZARRAY, text)))
    for name, text in NUMBERS.items()
}
CASES |= {
    "json: reference given twice": Case(
        lambda _: raw(REF.format(ZARRAY, '0,4],"t/0":["/etc/passwd",0,4')), "Malformed"
    ),
    "json: section given twice": Case(lambda _: b'{"version":1,"refs":{},"refs":{}}', "Malformed"),
    "json: metadata given twice": Case(
        lambda _: raw(REF.format(json.dumps('{"shape":[4],"shape":[9]}'), "0,4")), "Malformed"
    ),
    "json: deep lists": Case(lambda _: b'{"a":' + b"[" * 10**6, "LimitExceeded"),
    "json: deep objects": Case(lambda _: b'{"a":' * 10**5 + b"1" + b"}" * 10**5, "LimitExceeded"),
    "json: deep metadata": Case(
        lambda _: index({"t/.zattrs": '{"x":' + "[" * 5000 + "]" * 5000 + "}"}), "LimitExceeded"
    ),
    "json: a little deep": Case(
        lambda _: index({"t/.zattrs": '{"x":' + "[" * 16 + "]" * 16 + "}"}), "LimitExceeded"
    ),
    "json: cut short": Case(lambda _: json.dumps(index({})).encode()[:-1], "Malformed"),
    "json: trailing text": Case(lambda _: json.dumps(index({})).encode() + b"{}", "Malformed"),
    "json: other encoding": Case(lambda _: json.dumps(index({})).encode("utf-16"), "NotRecognised"),
    "json: gzip bomb": Case(
        lambda _: gzip.compress(b"{" + b" " * 96 * MIB, 9), "LimitExceeded", 16 * MIB
    ),
    "json: gzip of gzip": Case(lambda _: gzip.compress(gzip.compress(b"{}"))),
    "json: zstd that claims 2^60": Case(
        lambda _: b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 2**60) + b"\0" * 20, "LimitExceeded"
    ),
}


# Shapes, chunks and what they decode to


def lz4(claimed: int) -> bytes:
    return struct.pack("<I", claimed) + b"\x1f\0\1\0" + b"\xff" * 4000 + b"\0"


def blosc(claimed: int, data: bytes) -> bytes:
    return struct.pack("<BBBBIII", 2, 1, 0x21, 1, claimed, claimed, 16 + len(data)) + data


def zlib_bomb(mibs: int) -> bytes:
    stream = zlib.compressobj(9)
    return b"".join([*(stream.compress(ZEROS) for _ in range(mibs)), stream.flush()])


def coded(name: str, data: bytes, **config: Any) -> dict[str, Any]:
    return inlined(data, filters=[{"id": name, **config}])


CASES |= {
    "shape: grid of 2^40 chunks": Case(
        lambda _: index({}, shape=[2**40], chunks=[1]), "LimitExceeded"
    ),
    "shape: grid of 2^60 chunks": Case(
        lambda _: index({}, shape=[2**30, 2**30], chunks=[1, 1]), "LimitExceeded"
    ),
    "shape: grid of 2^64 chunks": Case(
        lambda _: index({}, shape=[2**32, 2**32], chunks=[1, 1]), "Unsupported"
    ),
    "shape: one chunk of 8 TiB, missing": Case(
        lambda _: index({}, shape=[2**43], chunks=[2**43]), "LimitExceeded"
    ),
    "shape: one chunk of 8 TiB, compressed": Case(
        lambda _: index(
            {"t/0": "base64:eJw="}, chunks=[2**43], compressor={"id": "zlib", "level": 1}
        ),
        "LimitExceeded",
    ),
    "shape: one chunk of 8 TiB, stored as 4 bytes": Case(
        lambda _: index({"t/0": ["source.bin", 0, 4]}, shape=[4], chunks=[2**43]),
        "",
        values=[0, 1, 2, 3],
    ),
    "shape: huge items": Case(lambda _: index({}, dtype="|V999999999")),
    "shape: huge text items": Case(lambda _: index({}, dtype="<U99999999")),
    "shape: negative": Case(lambda _: index({}, shape=[-4])),
    "shape: chunks of 0": Case(lambda _: index({}, chunks=[0])),
    "shape: float": Case(lambda _: index({}, shape=[4.0])),
    "shape: true": Case(lambda _: index({}, shape=[True])),
    "shape: 33 axes": Case(lambda _: index({}, shape=[1] * 33, chunks=[1] * 33)),
    "shape: chunk too short": Case(lambda _: index({"t/0": ["source.bin", 0, 3]})),
    "shape: chunk beyond the source": Case(lambda _: index({"t/0": ["source.bin", 2**40, 4]})),
    "shape: chunk beyond the size in the index": Case(
        lambda _: index(
            {"t/0": ["source.bin", 60, 5]}, {"sources": [{"url": "source.bin", "size": 64}]}
        ),
        "Malformed",
    ),
    "shape: chunk of 2^62 bytes": Case(
        lambda _: index({"t/0": ["source.bin", 0, 2**62]}, compressor={"id": "zlib"}),
        "LimitExceeded",
    ),
    "bomb: zlib inlined": Case(lambda _: coded("zlib", zlib_bomb(128)), "Malformed", 4096),
    "bomb: zlib in a source": Case(
        lambda _: index({"t/0": ["bomb.zlib"]}, compressor={"id": "zlib"}), "Malformed", 4096
    ),
    "bomb: zlib twice": Case(
        lambda _: inlined(
            zlib.compress(zlib_bomb(128)), filters=[{"id": "zlib"}, {"id": "zlib"}]
        ),
        "Malformed",
        2**18,
    ),
    "bomb: gzip": Case(
        lambda _: coded("gzip", gzip.compress(ZEROS * 80)), "Malformed", 4096
    ),
    "bomb: bz2": Case(lambda _: coded("bz2", bz2.compress(ZEROS * 80)), "Malformed", 4096),
    "bomb: lzma": Case(lambda _: coded("lzma", lzma.compress(ZEROS * 80)), "Malformed", 4096),
    "bomb: lzma with a large dictionary": Case(
        lambda _: coded("lzma", _lzma_of_a_large_dictionary()), "ByteatlasError", 4096
    ),
    "bomb: zstd that claims 2^40": Case(
        lambda _: coded("zstd", b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 2**40) + b"\1\0\0"),
        "Malformed",
    ),
    "bomb: zstd that claims 4": Case(
        lambda _: coded("zstd", b"\x28\xb5\x2f\xfd\x20\x04\x03\x00\x04" + b"\0"), "Malformed"
    ),
    "bomb: zstd without a size": Case(
        lambda _: coded("zstd", b"\x28\xb5\x2f\xfd\0\x58\x01\0\0"), "ByteatlasError"
    ),
    "bomb: lz4 that claims 2 GiB": Case(lambda _: coded("lz4", lz4(2**31 - 1)), "Malformed"),
    "bomb: lz4 that claims 4": Case(lambda _: coded("lz4", lz4(4)), "Malformed"),
    "bomb: blosc that claims 2 GiB": Case(
        lambda _: coded("blosc", blosc(2**31 - 17, b"\0" * 64)), "Malformed"
    ),
    "bomb: blosc that claims 4": Case(
        lambda _: coded("blosc", blosc(4, b"\xff" * 64)), "Malformed"
    ),
    "bomb: text of 2^31 items": Case(
        lambda _: inlined(
            struct.pack("<I", 2**31), dtype="|O", filters=[{"id": "vlen-utf8"}], chunks=[2**31]
        )
    ),
    "bomb: text that is longer than it is": Case(
        lambda _: inlined(
            struct.pack("<II", 1, 2**31 - 1), dtype="|O", filters=[{"id": "vlen-utf8"}],
            chunks=[1], shape=[1],
        )
    ),
    "bomb: records that grow": Case(
        lambda _: coded(
            "byteatlas.convert", bytes(1000), stored=1, decoded=2**30, moves=[]
        )
    ),
}  # fmt: skip


def _lzma_of_a_large_dictionary() -> bytes:
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 2**20}]
    packed = bytearray(lzma.compress(bytes(100), filters=filters))
    place = packed.index(b"\x21\x01")  # the filter's id and the size of its properties
    packed[place + 2] = 40  # a dictionary of 4 GiB
    return bytes(packed)


# Codecs and types

CODECS: dict[str, Any] = {
    name: [{"id": name}]
    for name in ("pickle", "json2", "json", "msgpack", "msgpack2", "categorize", "base64", "",
                 "os.system", "numcodecs.pickle", "importlib:import_module", "../zlib", "packbits")
}  # fmt: skip
CODECS |= {
    "nine in a chain": [{"id": "shuffle", "elementsize": 1}] * 9,
    "no object": ["zlib"],
    "no id": [{"level": 1}],
    "id as a list": [{"id": ["zlib"]}],
    "no list": {"id": "zlib"},
    "shuffle of 0": [{"id": "shuffle", "elementsize": 0}],
    "shuffle of -1": [{"id": "shuffle", "elementsize": -1}],
    "shuffle of text": [{"id": "shuffle", "elementsize": "4"}],
    "delta of objects": [{"id": "delta", "dtype": "|O"}],
    "delta of nothing": [{"id": "delta"}],
    "delta of huge items": [{"id": "delta", "dtype": "|V999999999"}],
    "astype to objects": [{"id": "astype", "encode_dtype": "|O", "decode_dtype": "|u1"}],
    "scale by text": [{"id": "fixedscaleoffset", "scale": "x", "offset": 0, "dtype": "<f8"}],
    "too short for a checksum": [{"id": "crc32"}, {"id": "crc32"}],
    "convert by 0": [{"id": "byteatlas.convert", "stored": 0, "decoded": 4, "moves": []}],
    "convert beyond the record": [
        {"id": "byteatlas.convert", "stored": 1, "decoded": 1, "moves": [
            {"kind": "copy", "stored": -9, "decoded": 99, "size": 2**40, "item": 1}]}
    ],
    "encodings of encodings": [
        {"id": "byteatlas.encodings", "encodings": [[{"id": "byteatlas.encodings"}]]}
    ],
    "no encodings": [{"id": "byteatlas.encodings", "encodings": []}],
    "257 encodings": [{"id": "byteatlas.encodings", "encodings": [[]] * 257}],
}  # fmt: skip
CASES |= {
    f"codec: {name}": Case(lambda _, chain=chain: inlined(bytes(4), filters=chain))
    for name, chain in CODECS.items()
}
PICKLED = b"cos\nsystem\n(S'echo owned > OWNED'\ntR."
CASES |= {
    "codec: pickled objects": Case(
        lambda _: inlined(PICKLED, dtype="|O", filters=[{"id": "pickle"}])
    ),
    "codec: objects without a codec": Case(lambda _: inlined(PICKLED, dtype="|O")),
    "codec: pickle in version 3": Case(
        lambda _: {"version": 1, "refs": {"t/zarr.json": json.dumps({
            "zarr_format": 3, "node_type": "array", "shape": [4], "data_type": "uint8",
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [4]}},
            "chunk_key_encoding": {"name": "default"}, "fill_value": 0,
            "codecs": [{"name": "bytes"}, {"name": "numcodecs.pickle"}]}),
            "t/c/0": "base64:AAAAAA=="}}
    ),
    "type: object in a record": Case(lambda _: index({}, dtype=[["a", "|O"]])),
    "type: deep record": Case(lambda _: index({}, dtype=json.loads(
        '[["a",' * 12 + '"<i2"' + "]]" * 12))),
    "type: record of huge arrays": Case(lambda _: index({}, dtype=[["a", "<i2", [2**31, 2**31]]])),
    "type: code": Case(lambda _: index({}, dtype="__import__('os')")),
    "type: commas": Case(lambda _: index({}, dtype="i4,i4")),
    "fill: of another type": Case(lambda _: index({}, fill_value={"a": 1})),
    "fill: too large": Case(lambda _: index({}, fill_value=2**70)),
    "base64: of other letters": Case(lambda _: index({"t/0": "base64:AA_-"})),
    "base64: cut short": Case(lambda _: index({"t/0": "base64:A"})),
    "base64: of 32 MiB": Case(lambda _: index({"t/0": "base64:" + "A" * 2**25}), "LimitExceeded",
                              2**27),
}  # fmt: skip


# Keys, and an extra key that lies

KEYS = ("1", "00", "-1", "+0", "0x0", "1e0", "0.0", " 0", "0 ", "", "a", "\u0660", "0/0", "../0",
        "0\n", "9" * 5000)  # fmt: skip
CASES |= {
    f"key: {key[:10]!r}": Case(lambda _, key=key: index({f"t/{key}": "abcd"})) for key in KEYS
}
CASES |= {
    "key: outside all arrays": Case(lambda _: index({"u/0": "abcd"})),
    "key: absolute": Case(lambda _: index({"/etc/passwd": "abcd"})),
    "key: array in an array": Case(
        lambda _: index({"t/u/.zarray": index({})["refs"]["t/.zarray"]})
    ),
    "key: groups 300 deep": Case(lambda _: index({"g/" * 300 + ".zgroup": '{"zarr_format":2}'})),
    "key: metadata in a source": Case(lambda _: index({"t/.zattrs": ["source.bin", 0, 4]})),
}

GOOD: dict[str, Any] = {"0": ["source.bin", 0, 4]}
ARRAY_LIES: dict[str, Any] = {
    "more chunks": {"present": 2}, "fewer chunks": {"present": 0}, "minus one": {"present": -1},
    "a fraction": {"present": 1.5}, "text": {"present": "1"}, "none": {"present": None},
    "unsaid": {},
    "encodings that are not there": {"present": 1, "encoding": "AQ=="},
    "too many encodings": {"present": 1, "encoding": "AAA="},
    "encodings that are no base64": {"present": 1, "encoding": "*"},
    "other digest": {"present": 1, "digest": "AAAAAAAAAAA="},
    "half a digest": {"present": 1, "digest": "AAAA"},
    "filled as text": {"present": 1, "filled": ["0"]},
    "filled below 0": {"present": 1, "filled": [-1]},
    "another type": {"present": 1, "dtype": [["a", "<f8"]]},
    "a fill value that does not fit": {"present": 1, "fill_value": 999},
    "types of another kind": {"present": 1, "types": []},
    "a type that is huge": {"present": 1, "types": {"x": "|S99999999"}},
    "notes of another kind": {"present": 1, "notes": 5},
    "an entry of another kind": 5,
}  # fmt: skip
CASES |= {
    f"lie: {name}": Case(
        lambda _, entry=entry: index(
            {"t/.zattrs": '{"x":"a"}', "t/0": ["source.bin", 0, 4]},
            {"digest": "blake2b-64", "arrays": {"/t": entry}},
        ),
    )
    for name, entry in ARRAY_LIES.items()
}
EXTRA_LIES: dict[str, Any] = {
    "format 2": {"format": 2}, "format true": {"format": True}, "format text": {"format": "1"},
    "format missing": {"format": None}, "unknown digest": {"digest": "crc32"},
    "an array that is not there": {"arrays": {"/u": {"present": 0}}},
    "sources of another kind": {"sources": {}},
    "a source without a url": {"sources": [{}]},
    "a source of negative size": {"sources": [{"url": "source.bin", "size": -1}]},
    "a source of size 1.0": {"sources": [{"url": "source.bin", "size": 1.0}]},
    "a source that is smaller": {"sources": [{"url": "source.bin", "size": 3}]},
    "a source that is larger": {"sources": [{"url": "source.bin", "size": 2**40}]},
    "a source of another etag": {"sources": [{"url": "source.bin", "etag": '"other"'}]},
    "groups of another kind": {"groups": []},
    "a dimension of negative size": {"groups": {"/": {"dimensions": {"x": {"size": -1}}}}},
    "skipped of another kind": {"skipped": [5]},
    "scanner of another kind": {"scanner": 5},
}  # fmt: skip
CASES |= {
    f"lie: {name}": Case(lambda _, facts=facts: index({"t/0": ["source.bin", 0, 4]}, facts))
    for name, facts in EXTRA_LIES.items()
}
CASES |= {
    "lie: none": Case(
        lambda _: index({"t/0": ["source.bin", 0, 4]}, {"arrays": {"/t": {"present": 1}}}),
        "",
        values=[0, 1, 2, 3],
    )
}


# The program


def main(directory: str, origin: str, internal: str, canary: str) -> None:
    """Open each index in a process of its own, and print what came of it."""
    for module in ("opening", "read.reader", "sources.http", "sources.foreign",
                   "sources.object_store"):  # fmt: skip
        import_module(f"byteatlas.{module}")  # once, and not in each process
    place, secret = Place(origin, internal, canary), Path(canary).read_bytes()
    for number, (name, case) in enumerate(CASES.items()):
        made = case.make(place)
        data = made if isinstance(made, bytes) else json.dumps(made).encode()
        (Path(directory) / f"{number}.json").write_bytes(data)
        del made, data
        print(json.dumps({"name": name} | in_child(f"{origin}/{number}.json", secret)), flush=True)  # noqa: T201


def in_child(url: str, secret: bytes) -> dict[str, Any]:
    """Open an index and read its array, in a child that is killed after 10 seconds of CPU."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        signal.alarm(120)  # by the clock: a busy machine is no fault
        resource.setrlimit(resource.RLIMIT_CPU, (10, 10))
        before = resident()
        began = time.process_time()
        outcome = dict(attempt(url, secret))
        outcome["seconds"] = time.process_time() - began
        outcome["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
        os.write(writing, json.dumps(outcome).encode()[:60_000])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    return json.loads(answer) if answer else {"signal": os.waitstatus_to_exitcode(status)}


def attempt(url: str, secret: bytes) -> Iterator[tuple[str, Any]]:
    """Open an index from the network and read its array; yield what came of it."""
    from byteatlas.errors import ByteatlasError
    from byteatlas.opening import open_index
    from byteatlas.read.reader import Reader

    stage = "open"
    try:
        group = open_index(url)
        stage = "read"
        values = Reader(group.sources).read(group.arrays["t"], path="/t")
        yield "values", values.tolist() if values.size < 100 else f"{values.size} values"
        yield "leaks", secret[:4] in values.tobytes()
    except BaseException as error:  # whatever it is, it is told
        yield "error", [kind.__name__ for kind in type(error).__mro__]
        yield "is_ours", isinstance(error, ByteatlasError)
        yield "text", str(error)[:1000]
        yield "leaks", secret.decode() in str(error)
    yield "stage", stage


def resident() -> int:
    """Return the bytes of memory that this process has now."""
    with open("/proc/self/statm") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main(*sys.argv[1:])
