"""What the reader takes of other writers' indexes, and what it refuses."""

from __future__ import annotations

import base64
import gzip
import json
import math
from typing import Any

import fsspec
import numpy as np
import pytest
from numcodecs.zstd import Zstd

from byteatlas.errors import ByteatlasError, Inconsistent, LimitExceeded, Malformed
from byteatlas.index import read_json, to_json_bytes
from byteatlas.limits import Limits
from byteatlas.model import WHOLE, Codec, Dimension, Source, VirtualGroup

ZARRAY: dict[str, Any] = {
    "zarr_format": 2,
    "shape": [4, 6],
    "chunks": [2, 3],
    "dtype": "<i4",
    "fill_value": None,
    "order": "C",
    "filters": None,
    "compressor": {"id": "zlib", "level": 1},
}

NODE: dict[str, Any] = {
    "zarr_format": 3,
    "node_type": "array",
    "shape": [4, 6],
    "data_type": "int32",
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2, 3]}},
    "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
    "fill_value": 0,
    "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
    "attributes": {},
    "dimension_names": ["y", "x"],
}


def refs(chunks: dict[str, Any], /, **changes: Any) -> dict[str, Any]:
    return {
        ".zgroup": '{"zarr_format":2}',
        "t/.zarray": json.dumps(ZARRAY | changes),
        "t/.zattrs": '{"_ARRAY_DIMENSIONS":["y","x"],"units":"K"}',
        **{f"t/{key}": value for key, value in chunks.items()},
    }


def document(chunks: dict[str, Any], /, **changes: Any) -> dict[str, Any]:
    return {"version": 1, "refs": refs(chunks, **changes)}


CHUNKS = {"0.0": ["http://h/a.nc", 10, 20], "1.1": ["http://h/b.nc"], "0.1": "base64:AAEC"}


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("packed", ["bytes", "gzip", "zstd", "parsed", "tuples"])
def test_both_versions_are_read_in_any_packing(version: int, packed: str) -> None:
    parsed: Any = refs(CHUNKS) if version == 0 else document(CHUNKS)
    text = json.dumps(parsed).encode()
    if packed == "tuples":
        parsed = json.loads(text)
        (parsed if version == 0 else parsed["refs"])["t/0.0"] = ("http://h/a.nc", 10, 20)
    data = {
        "bytes": text,
        "gzip": gzip.compress(text[:100]) + gzip.compress(text[100:]),
        "zstd": Zstd().encode(text),
    }.get(packed, parsed)

    group = read_json(data)
    array = group.arrays["t"]

    assert group.sources == (Source("http://h/a.nc"), Source("http://h/b.nc"))
    assert group.dimensions == {"y": Dimension(4), "x": Dimension(6)}
    assert array.dimensions == ("y", "x")
    assert array.attrs == {"units": "K"}
    assert array.encodings[0].codecs == (Codec("zlib", {"level": 1}),)
    assert array.manifest.index.tolist() == [0, 3]
    assert array.manifest.offset.tolist() == [10, 0]
    assert array.manifest.length.tolist() == [20, WHOLE]
    assert array.manifest.source.tolist() == [0, 1]
    assert array.manifest.inline == {1: b"\x00\x01\x02"}
    assert array.manifest.missing_count == 1


def test_inline_values_are_text_base64_or_objects_as_fsspec_serves_them() -> None:
    chunks = {"0.0": "plain é", "0.1": "base64:/w==", "1.0": {"a": [1, 2]}, "1.1": ""}
    filesystem = fsspec.filesystem("reference", fo=document(chunks), remote_protocol="file")

    inline = read_json(document(chunks)).arrays["t"].manifest.inline

    assert inline[0] == "plain é".encode()
    assert inline[1] == b"\xff"
    assert json.loads(inline[2]) == {"a": [1, 2]}
    assert inline[3] == b""
    for flat, key in ((0, "t/0.0"), (1, "t/0.1")):
        assert filesystem.cat_file(key) == inline[flat]


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        ({}, ["1.0", "1.1", "0.0"]),
        ({"dimension_separator": "/"}, ["1/0", "1/1", "0/0"]),
        ({"dimension_separator": "."}, ["1.0", "1.1", "0.0"]),
    ],
)
def test_chunk_keys_may_have_either_separator(changes: dict[str, str], keys: list[str]) -> None:
    chunks = {key: ["u://x", 7 * place, 1] for place, key in enumerate(keys)}

    manifest = read_json(document(chunks, **changes)).arrays["t"].manifest

    assert manifest.index.tolist() == [0, 2, 3]
    assert manifest.offset.tolist() == [14, 0, 7]


@pytest.mark.parametrize(
    ("encoding", "key"),
    [
        ({"name": "default", "configuration": {"separator": "/"}}, "c/1/0"),
        ({"name": "default", "configuration": {"separator": "."}}, "c.1.0"),
        ({"name": "default"}, "c/1/0"),
        ({"name": "v2", "configuration": {"separator": "/"}}, "1/0"),
        ({"name": "v2"}, "1.0"),
    ],
)
def test_chunk_keys_of_zarr_3_follow_their_encoding(encoding: dict[str, Any], key: str) -> None:
    node = NODE | {"chunk_key_encoding": encoding}
    group = read_json({"t/zarr.json": json.dumps(node), f"t/{key}": ["u://x", 1, 2]})

    assert group.arrays["t"].manifest.index.tolist() == [2]


def test_scalars_have_one_key() -> None:
    scalar = ZARRAY | {"shape": [], "chunks": [], "compressor": None}
    node = NODE | {
        "shape": [],
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": []}},
        "dimension_names": [],
    }
    group = read_json(
        {
            "a/.zarray": scalar,
            "a/0": ["u://x", 1, 2],
            "g/b/zarr.json": node,
            "g/b/c": "base64:AQAAAA==",
        }
    )

    assert group.arrays["a"].manifest.offset.tolist() == [1]
    assert group["g/b"].manifest.inline == {0: b"\1\0\0\0"}


def test_groups_that_only_keys_tell_of_are_made() -> None:
    group = read_json({"a/b/t/.zarray": ZARRAY, "a/b/t/0.0": ["u://x"], "a/.zattrs": '{"n": 1}'})

    assert [path for path, _ in group.walk()] == ["", "/a", "/a/b"]
    assert group.groups["a"].attrs == {"n": np.int64(1)}
    assert group["a/b/t"].dimensions == ("t_dim_0", "t_dim_1")


def test_metadata_may_be_consolidated_only() -> None:
    metadata = {".zattrs": {"title": "x"}, "t/.zarray": ZARRAY, "t/.zattrs": {"units": "K"}}
    group = read_json({".zmetadata": {"metadata": metadata}, "t/0.0": ["u://x"]})

    assert group.attrs == {"title": "x"}
    assert group.arrays["t"].attrs == {"units": "K"}
    with pytest.raises(Malformed, match="differs from the array's own"):
        read_json({".zmetadata": {"metadata": metadata}, "t/.zarray": ZARRAY | {"dtype": "<f4"}})


def test_the_fill_value_of_version_2_is_the_attribute_as_in_xarray() -> None:
    array = read_json(document({}, fill_value=-9)).arrays["t"]

    assert array.fill_value == np.int32(-9)
    assert array.attrs["_FillValue"] == np.int32(-9)
    assert array.attrs["_FillValue"].dtype == np.int32


@pytest.mark.parametrize(
    ("dtype", "spelled", "expected"),
    [
        ("<f4", "NaN", np.float32("nan")),
        (">f8", "-Infinity", np.float64("-inf")),
        ("<f8", math.nan, np.float64("nan")),
        ("<f4", 7, np.float32(7)),
        ("<i2", 7.0, np.int16(7)),
        ("|b1", True, np.True_),
        ("|S3", base64.b64encode(b"ab").decode(), np.bytes_(b"ab")),
        ("<U3", "ab", np.str_("ab")),
        ("|O", "ab", "ab"),
        ("|O", 0, ""),
        ("<c8", [1.0, "NaN"], np.complex64(complex(1, math.nan))),
        ("<M8[ns]", "NaT", np.datetime64("NaT", "ns")),
        ("<M8[D]", 3, np.datetime64("1970-01-04")),
        ("|V2", base64.b64encode(b"ab").decode(), np.void(b"ab")),
    ],
)
def test_fill_values_are_read_in_every_spelling(dtype: str, spelled: Any, expected: Any) -> None:
    found = read_json(document({}, dtype=dtype, fill_value=spelled)).arrays["t"].fill_value

    if isinstance(expected, str):
        assert found == expected
    else:
        assert found.astype(expected.dtype).tobytes() == expected.tobytes()


def test_foreign_attributes_get_the_widest_type_of_their_kind() -> None:
    attrs = {
        "i": 1,
        "u": 2**63,
        "f": 1.5,
        "b": True,
        "li": [1, 2],
        "lf": [1, 2.5],
        "ls": ["a", "b"],
        "none": None,
        "object": {"a": [1]},
        "big": 2**70,
        "mixed": [-1, 2**63],
        "empty": [],
    }
    found = read_json({".zattrs": json.dumps(attrs)}).attrs

    assert {name: getattr(value, "dtype", type(value)) for name, value in found.items()} == {
        "i": np.dtype("i8"),
        "u": np.dtype("u8"),
        "f": np.dtype("f8"),
        "b": np.dtype("?"),
        "li": np.dtype("i8"),
        "lf": np.dtype("f8"),
        "ls": list,
        "none": str,
        "object": str,
        "big": str,
        "mixed": str,
        "empty": list,
    }
    assert found["object"] == '{"a": [1]}'
    assert found["ls"] == ["a", "b"]


@pytest.mark.parametrize(
    ("index_url", "url", "expected"),
    [
        ("https://h/d/i.json", "a.nc", "https://h/d/a.nc"),
        ("https://h/d/i.json?sig=x/y", "sub/a.nc", "https://h/d/sub/a.nc"),
        ("/data/i.json", "a.nc", "/data/a.nc"),
        ("/data/i.json", "/other/a.nc", "/other/a.nc"),
        ("https://h/d/i.json", "s3://b/a.nc", "s3://b/a.nc"),
        ("https://h/d/i.json", "zip://a.nc::https://h/z.zip", "zip://a.nc::https://h/z.zip"),
        ("i.json", "a.nc", "a.nc"),
        (None, "a.nc", "a.nc"),
    ],
)
def test_relative_urls_count_from_the_index(index_url: str, url: str, expected: str) -> None:
    group = read_json(json.dumps(document({"0.0": [url, 1, 2]})).encode(), url=index_url)

    assert [source.url for source in group.sources] == [expected]


REFUSED: dict[str, Any] = {
    "two elements": document({"0.0": ["u://x", 1]}),
    "four elements": document({"0.0": ["u://x", 1, 2, 3]}),
    "no elements": document({"0.0": []}),
    "null url": document({"0.0": [None, 1, 2]}),
    "empty url": document({"0.0": ["", 1, 2]}),
    "list url": document({"0.0": [["u://x"], 1, 2]}),
    "long url": document({"0.0": ["u://" + "x" * 8192, 1, 2]}),
    "surrogate url": document({"0.0": ["u://\ud800", 1, 2]}),
    "negative offset": document({"0.0": ["u://x", -1, 2]}),
    "huge offset": document({"0.0": ["u://x", 2**63, 2]}),
    "very huge offset": document({"0.0": ["u://x", 2**70, 2]}),
    "float offset": document({"0.0": ["u://x", 1.0, 2]}),
    "bool length": document({"0.0": ["u://x", 1, True]}),
    "text length": document({"0.0": ["u://x", 1, "2"]}),
    "null reference": document({"0.0": None}),
    "number reference": document({"0.0": 5}),
    "broken base64": document({"0.0": "base64:A"}),
    "foreign base64": document({"0.0": "base64:AA_-"}),
    "surrogate text": document({"0.0": "\ud800"}),
    "outside the grid": document({"0.2": ["u://x"]}),
    "leading zero": document({"0.01": ["u://x"]}),
    "negative chunk": document({"0.-1": ["u://x"]}),
    "spaced chunk": document({"0. 1": ["u://x"]}),
    "one axis": document({"0": ["u://x"]}),
    "three axes": document({"0.0.0": ["u://x"]}),
    "other separator": document({"0/0": ["u://x"]}),
    "no number": document({"a": ["u://x"]}),
    "empty chunk": document({"": ["u://x"]}),
    "line break": document({"0.0\n0.1": ["u://x"]}),
    "line break and prefix": document({"0.0\nt/0.1": ["u://x"]}),
    "beyond 64 bits": document({f"0.{2**64}": ["u://x"]}),
    "arabic digit": document({"0.\u0661": ["u://x"]}),
    "stray key": {"stray": ["u://x"]},
    "stray key in a group": {"g/.zgroup": '{"zarr_format":2}', "g/x": "y"},
    "root array": {".zarray": ZARRAY, "0.0": ["u://x"]},
    "array in an array": {"t/.zarray": ZARRAY, "t/u/.zarray": ZARRAY},
    "deep": {"/".join("a" * 300) + "/.zgroup": '{"zarr_format":2}'},
    "surrogate name": {"\ud800/.zgroup": '{"zarr_format":2}'},
    "version 2": {"version": 2, "refs": {}},
    "version true": {"version": True, "refs": {}},
    "version missing": {"refs": {}},
    "unknown section": {"version": 1, "refs": {}, "extra": {}},
    "refs as list": {"version": 1, "refs": []},
    "templates as list": {"version": 1, "templates": ["a"], "refs": {}},
    "metadata as reference": {".zattrs": ["u://x"]},
    "metadata no JSON": {".zattrs": "{"},
    "metadata no object": {".zattrs": "[]"},
    "zgroup 3": {".zgroup": '{"zarr_format":3}'},
    "format 9": {"version": 1, "refs": {}, "byteatlas": {"format": 9}},
    "facts as list": {"version": 1, "refs": {}, "byteatlas": []},
    "key no text": {5: "x"},
    **{
        f"zarray {changes}": document({}, **changes)
        for changes in (
            {"zarr_format": 3}, {"order": "F"}, {"order": None}, {"shape": [4]}, {"shape": [-1, 6]},
            {"shape": [4.0, 6]}, {"shape": None}, {"chunks": [0, 3]}, {"chunks": [True, 3]},
            {"chunks": None}, {"dtype": "|O8x"}, {"dtype": None}, {"dtype": "<i3"},
            {"dtype": "i4,i4"}, {"dtype": "|S999999999"}, {"dtype": [["a"]]}, {"dtype": []},
            {"dtype": [["a", "|O"]]}, {"filters": {}}, {"filters": [5]}, {"compressor": "zlib"},
            {"compressor": {"level": 1}}, {"fill_value": "x"}, {"fill_value": 1.5},
            {"fill_value": 2**40}, {"fill_value": [1]}, {"fill_value": {}}, {"fill_value": True},
            {"dimension_separator": "-"}, {"shape": [2**62, 2**62], "chunks": [1, 1]},
            {"shape": [1] * 40, "chunks": [1] * 40},
        )
    },
    **{
        f"zarr.json {changes}": {"t/zarr.json": NODE | changes}
        for changes in (
            {"zarr_format": 2}, {"data_type": "int33"}, {"data_type": None}, {"data_type": {}},
            {"data_type": {"name": "struct", "configuration": {"fields": 5}}}, {"codecs": None},
            {"codecs": [5]}, {"codecs": [{"name": "sharding_indexed", "configuration": {}}]},
            {"codecs": [{"name": "transpose", "configuration": {"order": [1, 0]}}]},
            {"chunk_grid": {"name": "rectilinear"}}, {"chunk_grid": None},
            {"chunk_key_encoding": {"name": "other"}}, {"attributes": []}, {"fill_value": "x"},
            {"storage_transformers": [{}]}, {"dimension_names": ["y"]},
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("parsed", REFUSED.values(), ids=REFUSED)
def test_what_is_wrong_is_refused_with_our_error(parsed: Any) -> None:
    with pytest.raises(ByteatlasError) as caught:
        read_json(parsed, url="https://h/index.json?signature=secret")

    assert "https://h/index.json" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"t/.zgroup":"{}","t/.zgroup":"{}"}', "given twice"),
        (b'{"version":1,"refs":{},"refs":{}}', "'refs' is given twice"),
        (b"[" * 100_000, "more than 16 deep"),
        (b'{"a":' * 100_000, "more than 16 deep"),
        (b"[1]", "expected an object"),
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not JSON"),
        (gzip.compress(b"{}")[:-4], "ends early"),
        (b"\x1f\x8bnonsense", "broken"),
        (b"\x28\xb5\x2f\xfd", "does not say its size"),
        (b"\x28\xb5\x2f\xfd\xe0" + b"\xff" * 8, "the limit is"),
        (Zstd().encode(b"{}" * 100)[:-9], "broken"),
    ],
)
def test_text_that_is_no_index_is_refused(text: bytes, message: str) -> None:
    with pytest.raises(ByteatlasError, match=message):
        read_json(text)


def test_a_decompression_bomb_is_stopped() -> None:
    limits = Limits(index=2**16)

    for bomb in (gzip.compress(bytes(2**20)), Zstd().encode(bytes(2**20)), b" " * (2**16 + 1)):
        with pytest.raises(LimitExceeded, match="the limit is 65536"):
            read_json(bomb, limits=limits)
    for packed in (gzip.compress(b"{}".ljust(2**16)), b"{}".ljust(2**16)):
        assert read_json(packed, limits=limits).arrays == {}


def test_fortran_order_is_read_where_it_is_no_different() -> None:
    changes = {"order": "F", "chunks": [1, 3]}

    assert read_json(document({}, **changes)).arrays["t"].chunk_shape == (1, 3)


def test_filters_and_compressor_come_in_the_order_of_encoding() -> None:
    chain = [{"id": "delta", "dtype": "<i4"}, {"id": "shuffle", "elementsize": 4}]
    array = read_json(document({}, filters=chain)).arrays["t"]

    assert array.encodings[0].codecs == (
        Codec("delta", {"dtype": "<i4"}),
        Codec("shuffle", {"elementsize": 4}),
        Codec("zlib", {"level": 1}),
    )


def facts(**changes: Any) -> dict[str, Any]:
    chunks = {"0.0": ["http://h/a.nc", 10, 20], "0.1": "base64:AAEC"}
    entry = {"present": 2, "types": {"units": None}} | changes
    extra = {"format": 1, "sources": [{"url": "http://h/a.nc", "size": 30}]}
    return document(chunks) | {"byteatlas": extra | {"arrays": {"/t": entry}}}


def test_facts_are_checked_against_the_references() -> None:
    assert read_json(facts()).sources == (Source("http://h/a.nc", 30),)
    with pytest.raises(Inconsistent, match="holds 2 chunks, but was written with 3"):
        read_json(facts(present=3))
    with pytest.raises(Malformed, match="encoding column"):
        read_json(facts(encoding="AAE="))
    with pytest.raises(Malformed, match="encoding column"):
        read_json(facts(encoding="AQ=="))
    short = facts()
    short["byteatlas"]["sources"][0]["size"] = 29
    with pytest.raises(Malformed, match="beyond the end of its source") as caught:
        read_json(short)
    assert caught.value.offset == 10
    gone = facts()
    gone["byteatlas"]["arrays"]["/gone"] = {"present": 0}
    with pytest.raises(Malformed, match="no metadata") as caught:
        read_json(gone)
    assert caught.value.path == "/gone"


@pytest.mark.parametrize(
    "changes",
    [
        {"types": []},
        {"types": {"units": "<i4"}},
        {"types": {"units": "garbage"}},
        {"attributes": []},
        {"attributes": {"_FillValue": "x"}, "types": {"_FillValue": "<i4"}},
        {"fill_value": "x"},
        {"filled": 5},
        {"filled": [-1]},
        {"filled": ["a"]},
        {"encoding": 5},
        {"encoding": "?"},
        {"notes": []},
    ],
    ids=str,
)
def test_facts_that_are_wrong_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ByteatlasError) as caught:
        read_json(facts(**changes))
    assert caught.value.path == "/t"


@pytest.mark.parametrize(
    ("section", "value"),
    [
        *((name, value) for name in ("sources", "skipped") for value in (5, "x", [5], {"a": 5})),
        *((name, value) for name in ("groups", "arrays") for value in (5, "x", [5], {"a": 5})),
        ("sources", [{"url": 5}]),
        ("sources", [{"url": "u://x", "size": -1}]),
        ("sources", [{"url": "u://x", "etag": 1}]),
        ("skipped", [{"path": "/t"}]),
        ("scanner", 5),
        ("scanner", {"name": 5}),
        ("groups", {"/": {"dimensions": 5}}),
        ("groups", {"/": {"dimensions": {"x": 5}}}),
        ("groups", {"/": {"dimensions": {"x": {"size": -1}}}}),
        ("groups", {"/": {"types": 5}}),
    ],
    ids=str,
)
def test_sections_of_facts_that_are_wrong_are_refused(section: str, value: Any) -> None:
    with pytest.raises(ByteatlasError):
        read_json({"version": 1, "refs": {}, "byteatlas": {"format": 1, section: value}})


def test_flipped_bytes_give_a_group_or_our_error(zoo: Any) -> None:
    text = to_json_bytes(zoo[0])
    rng = np.random.default_rng(11)
    outcomes = set()
    for _ in range(300):
        broken = bytearray(text)
        for place in rng.integers(0, len(text), 2):
            broken[place] = rng.choice(list(b'\0"{}[]:,0919-.e\\\xff az'))
        try:
            outcomes.add(type(read_json(bytes(broken))))
        except ByteatlasError as error:
            outcomes.add(type(error))
    assert VirtualGroup in outcomes
    assert Malformed in outcomes
