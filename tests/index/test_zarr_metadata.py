"""Arrays and groups have the Zarr metadata that other readers take as it is meant."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from xarray.backends.zarr import FillValueCoder

from byteatlas.errors import Malformed, Unsupported
from byteatlas.index import is_prefixed, read_json, to_json_bytes, zarr_metadata
from byteatlas.index.attributes import attribute_from_json, attribute_to_json, attribute_type
from byteatlas.model import ChunkManifest, Codec, Encoding, VirtualArray, VirtualGroup

SHUFFLE = Codec("shuffle", {"elementsize": 4})
ZLIB = Codec("zlib", {"level": 4})
FLETCHER = Codec("fletcher32")
S2 = {"name": "null_terminated_bytes", "configuration": {"length_bytes": 2}}
RECORD = [("a", "<i2"), ("b", ">f4")]


def array(*codecs: Codec, dtype: Any = "<i4", missing: bool = False, **kwargs: Any) -> VirtualArray:
    nothing = np.zeros(0 if missing else 1, np.uint64)
    manifest = ChunkManifest.build((1,), nothing, nothing, nothing)
    options = {"encodings": (Encoding(codecs),), "dimensions": ("x",)} | kwargs
    return VirtualArray((3,), np.dtype(dtype), (3,), manifest, **options)


def metadata(array: VirtualArray, zarr_format: Any) -> dict[str, Any]:
    return zarr_metadata(VirtualGroup(arrays={"t": array}), zarr_format)


@pytest.mark.parametrize(
    ("codecs", "filters", "compressor"),
    [
        ((), None, None),
        ((ZLIB,), None, {"id": "zlib", "level": 4}),
        ((SHUFFLE,), [{"id": "shuffle", "elementsize": 4}], None),
        ((SHUFFLE, ZLIB), [{"id": "shuffle", "elementsize": 4}, {"id": "zlib", "level": 4}], None),
        ((ZLIB, FLETCHER), [{"id": "zlib", "level": 4}, {"id": "fletcher32"}], None),
        (
            (Codec("zstd", {"level": 3, "checksum": False}),),
            None,
            {"id": "zstd", "level": 3},
        ),
        (
            (Codec("zstd", {"level": 3, "checksum": True}),),
            None,
            {"id": "zstd", "level": 3, "checksum": True},
        ),
    ],
)
def test_codecs_of_version_2_stand_where_most_readers_look(
    codecs: tuple[Codec, ...], filters: Any, compressor: Any
) -> None:
    zarray = metadata(array(*codecs), 2)["t/.zarray"]

    assert zarray["filters"] == filters
    assert zarray["compressor"] == compressor


@pytest.mark.parametrize(
    ("codec", "expected"),
    [
        (Codec("gzip", {"level": 2}), {"name": "gzip", "configuration": {"level": 2}}),
        (
            Codec("zstd", {"level": 3}),
            {"name": "zstd", "configuration": {"level": 3, "checksum": False}},
        ),
        (
            Codec("blosc", {"cname": "lz4", "clevel": 5, "shuffle": 2, "blocksize": 0}),
            {
                "name": "blosc",
                "configuration": {
                    "cname": "lz4",
                    "clevel": 5,
                    "shuffle": "bitshuffle",
                    "blocksize": 0,
                    "typesize": 4,
                },
            },
        ),
        (ZLIB, {"name": "numcodecs.zlib", "configuration": {"level": 4}}),
        (FLETCHER, {"name": "numcodecs.fletcher32", "configuration": {}}),
        (Codec("crc32c"), {"name": "crc32c", "configuration": {}}),
        (
            Codec("byteatlas.convert", {"a": 1}),
            {"name": "byteatlas.convert", "configuration": {"a": 1}},
        ),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_codecs_of_version_3_have_core_names_where_they_decode_alike(
    codec: Codec, expected: dict[str, Any]
) -> None:
    group = VirtualGroup(arrays={"t": array(codec)})
    codecs = zarr_metadata(group, 3)["t/zarr.json"]["codecs"]
    found = read_json(
        to_json_bytes(VirtualGroup(arrays={"t": array(codec, missing=True)}), zarr_format=3)
    )

    assert codecs == [{"name": "bytes", "configuration": {"endian": "little"}}, expected]
    assert found.arrays["t"].encodings == (Encoding((codec,)),)


def test_codecs_between_arrays_come_before_the_bytes_in_version_3() -> None:
    codecs = (Codec("delta", {"dtype": "<i4"}), ZLIB)
    names = [codec["name"] for codec in metadata(array(*codecs), 3)["t/zarr.json"]["codecs"]]

    assert names == ["numcodecs.delta", "bytes", "numcodecs.zlib"]


F4 = np.float32


@pytest.mark.parametrize(
    ("missing", "fill_value", "own", "v2", "attribute_stays"),
    [
        (False, None, None, None, False),
        (False, F4(5), None, None, False),
        (True, None, None, None, False),
        (True, F4(0), None, None, False),
        (True, F4(5), None, 5.0, False),
        (True, F4("nan"), None, "NaN", False),
        (False, None, F4(-9), -9.0, False),
        (False, F4(5), F4(-9), -9.0, False),
        (True, F4(-9), F4(-9), -9.0, False),
        (True, F4("nan"), F4("nan"), "NaN", False),
        (False, None, np.float64(-9), -9.0, False),
        (False, None, np.float64(0.1), None, True),
        (False, None, "text", None, True),
        (True, F4(5), "text", 5.0, True),
    ],
)
def test_the_fill_value_of_version_2_says_what_xarray_masks(
    missing: bool, fill_value: Any, own: Any, v2: Any, attribute_stays: bool
) -> None:
    attrs = {} if own is None else {"_FillValue": own}
    example = array(dtype="<f4", missing=missing, fill_value=fill_value, attrs=attrs)
    found = metadata(example, 2)

    assert found["t/.zarray"]["fill_value"] == v2
    assert ("_FillValue" in found["t/.zattrs"]) == attribute_stays
    assert not is_prefixed(example)


@pytest.mark.parametrize(("fill_value", "v2"), [(None, None), (F4(0), None), (F4(5), 5.0)])
def test_where_missing_chunks_are_not_the_attribute_the_array_fails_loudly(
    fill_value: Any, v2: Any
) -> None:
    example = array(
        ZLIB, dtype="<f4", missing=True, fill_value=fill_value, attrs={"_FillValue": F4(-9)}
    )
    found = metadata(example, 2)

    assert is_prefixed(example)
    assert found["t/.zarray"]["fill_value"] == v2
    assert found["t/.zattrs"]["_FillValue"] == -9.0
    assert found["t/.zarray"]["filters"] == [
        {"id": "byteatlas.encodings", "encodings": [[{"id": "zlib", "level": 4}]]}
    ]
    assert found["t/.zarray"]["compressor"] is None


def test_few_missing_chunks_that_are_not_the_attribute_are_inlined() -> None:
    example = array(ZLIB, dtype="<f4", missing=True, attrs={"_FillValue": F4(-9)})
    text = to_json_bytes(VirtualGroup(arrays={"t": example}))
    refs = json.loads(text)["refs"]

    assert refs["t/0"].startswith("base64:")
    assert json.loads(refs["t/.zarray"])["fill_value"] == -9.0
    assert read_json(text).arrays["t"].manifest.missing_count == 1


@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<i2", "|u1", "|S3", "<c8", "|b1"])
def test_version_3_spells_the_masked_value_as_xarray_does(dtype: str) -> None:
    own = np.array(b"ab" if "S" in dtype else 1, dtype)[()]
    example = array(dtype=dtype, missing=True, attrs={"_FillValue": own})
    node = metadata(example, 3)["t/zarr.json"]

    assert node["attributes"]["_FillValue"] == FillValueCoder.encode(own, np.dtype(dtype))
    assert node["fill_value"] != node["attributes"]["_FillValue"]
    text = {"t/zarr.json": node}
    assert read_json(text).arrays["t"].attrs["_FillValue"] == own


@pytest.mark.parametrize(
    ("dtype", "v2", "v3"),
    [
        ("<i4", "<i4", "int32"),
        (">i4", ">i4", "int32"),
        ("u1", "|u1", "uint8"),
        ("?", "|b1", "bool"),
        ("<f2", "<f2", "float16"),
        (">c16", ">c16", "complex128"),
        ("S5", "|S5", {"name": "null_terminated_bytes", "configuration": {"length_bytes": 5}}),
        ("<U5", "<U5", {"name": "fixed_length_utf32", "configuration": {"length_bytes": 20}}),
        ("V3", "|V3", {"name": "raw_bytes", "configuration": {"length_bytes": 3}}),
        (object, "|O", "string"),
        (
            "<M8[10ns]",
            "<M8[10ns]",
            {"name": "numpy.datetime64", "configuration": {"unit": "ns", "scale_factor": 10}},
        ),
        (
            [("a", "<i4"), ("b", "S2")],
            [["a", "<i4"], ["b", "|S2"]],
            {
                "name": "structured",
                "configuration": {
                    "fields": [
                        ["a", "int32"],
                        ["b", S2],
                    ]
                },
            },
        ),
        (
            [("a", ">i4"), ("b", "<f8", (2,))],
            "|V20",
            {"name": "raw_bytes", "configuration": {"length_bytes": 20}},
        ),
        (
            [("a", "<i4"), ("b", [("c", "<f8")])],
            "|V12",
            {"name": "raw_bytes", "configuration": {"length_bytes": 12}},
        ),
        ([("a", ">i4"), ("b", "<f8")], [["a", ">i4"], ["b", "<f8"]], None),
    ],
    ids=str,
)  # fmt: skip
def test_data_types_are_spelled_and_read_back(dtype: Any, v2: Any, v3: Any) -> None:
    codecs = (Codec("vlen-utf8"),) if dtype is object else ()
    group = VirtualGroup(arrays={"t": array(*codecs, dtype=dtype, missing=True)})

    assert zarr_metadata(group, 2)["t/.zarray"]["dtype"] == v2
    assert read_json(to_json_bytes(group)).arrays["t"].dtype == np.dtype(dtype)
    if v3 is None:
        with pytest.raises(Unsupported, match="zarr_format=2") as caught:
            zarr_metadata(group, 3)
        assert caught.value.path == "/t"
        return
    assert zarr_metadata(group, 3)["t/zarr.json"]["data_type"] == v3
    found = read_json(to_json_bytes(group, zarr_format=3)).arrays["t"]
    assert found.dtype == np.dtype(dtype)
    assert found.encodings[0].codecs == codecs


def test_fields_with_gaps_are_refused() -> None:
    dtype = np.dtype({"names": ["a"], "formats": ["<i4"], "offsets": [4]})

    with pytest.raises(Unsupported, match="packed"):
        metadata(array(dtype=dtype), 2)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_consolidated_metadata_repeats_all_other(zarr_format: Any) -> None:
    group = VirtualGroup(groups={"g": VirtualGroup(arrays={"t": array()}, attrs={"a": "b"})})
    found = zarr_metadata(group, zarr_format)

    if zarr_format == 2:
        consolidated = found.pop(".zmetadata")
        assert consolidated == {"zarr_consolidated_format": 1, "metadata": found}
        assert set(found) == {
            ".zgroup", ".zattrs", "g/.zgroup", "g/.zattrs", "g/t/.zarray", "g/t/.zattrs",
        }  # fmt: skip
    else:
        consolidated = found["zarr.json"]["consolidated_metadata"]
        assert consolidated["metadata"] == {
            "g": found["g/zarr.json"],
            "g/t": found["g/t/zarr.json"],
        }
        assert consolidated["must_understand"] is False


@pytest.mark.parametrize("name", ["", "a/b", "a\0b", ".", "..", ".zarray", "zarr.json"])
def test_a_name_that_is_no_part_of_a_key_is_refused(name: str) -> None:
    with pytest.raises(Malformed, match="cannot be the name"):
        zarr_metadata(VirtualGroup(arrays={name: array()}))
    with pytest.raises(Malformed, match="cannot be the name"):
        zarr_metadata(VirtualGroup(groups={name: VirtualGroup()}))


def test_an_array_and_a_group_of_one_name_are_refused() -> None:
    with pytest.raises(Malformed, match="same name"):
        zarr_metadata(VirtualGroup(arrays={"t": array()}, groups={"t": VirtualGroup()}))


@pytest.mark.parametrize(
    ("value", "spelled", "kind"),
    [
        ("text", "text", None),
        (["a", "b"], ["a", "b"], None),
        (np.float32(0.5), 0.5, "<f4"),
        (np.float64("nan"), "NaN", "<f8"),
        (np.float64("-inf"), "-Infinity", "<f8"),
        (np.array([1, math.inf], ">f8"), [1.0, "Infinity"], ">f8"),
        (np.array([1, 2], ">i2"), [1, 2], ">i2"),
        (np.array([[1], [2]], "u1"), [[1], [2]], "|u1"),
        (np.array([], "u8"), [], "<u8"),
        (np.uint64(2**64 - 1), 2**64 - 1, "<u8"),
        (np.True_, True, "|b1"),
        (np.complex64(1 + 2j), [1.0, 2.0], "<c8"),
        (np.array([1, 2j], "<c8"), [[1.0, 0.0], [0.0, 2.0]], "<c8"),
        (np.bytes_(b"a\xff"), "a\xff", "|S2"),
        (np.void(b"\0\1"), "AAE=", "|V2"),
        (np.array([(1, 2)], RECORD)[0], "AQBAAAAA", [["a", "<i2"], ["b", ">f4"]]),
        (np.datetime64("2000-01-01", "D"), 10957, "<M8[D]"),
    ],
    ids=repr,
)  # fmt: skip
def test_attributes_are_spelled_and_keep_their_type(value: Any, spelled: Any, kind: Any) -> None:
    assert attribute_to_json(value) == spelled
    assert attribute_type(value) == kind
    found = attribute_from_json(json.loads(json.dumps(spelled)), kind)
    assert type(found) is type(value)
    if kind is None:
        assert found == value
    else:
        assert found.dtype == value.dtype
        assert found.tobytes() == value.tobytes()


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("x", "<i4"),
        (1.5, "<i4"),
        (2**40, "<i4"),
        (True, "<i4"),
        ("1", "<i4"),
        ([1, "x"], "<f4"),
        ([1, [2]], "<f4"),
        ([2**70], "<i8"),
        ([2**40], "<i4"),
        ([-1], "<u4"),
        ([1, 2.5], "<i4"),
        ([1, True], "<i4"),
        (["x"], "|b1"),
        (5, "|S2"),
        ("é€", "|S2"),
        ("?", "|V2"),
        ("AA==", "|V2"),
        ([1], "<c8"),
        ({}, "<f8"),
        (None, "<f8"),
        (1, "|O"),
        (1, "f99"),
        (1, ["a"]),
    ],
    ids=repr,
)
def test_attributes_that_do_not_fit_their_type_are_refused(value: Any, kind: Any) -> None:
    with pytest.raises(Malformed):
        attribute_from_json(value, kind)


@pytest.mark.parametrize("zarr_format", [1, 4, "3"])
def test_there_are_two_versions_of_zarr(zarr_format):
    with pytest.raises(ValueError, match="zarr_format is 2 or 3"):
        zarr_metadata(VirtualGroup(), zarr_format)
