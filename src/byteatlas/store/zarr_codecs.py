"""Our codecs for Zarr version 3: zarr finds them by name through its entry points."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar, Self

import numpy as np
from numcodecs.abc import Codec as NumcodecsCodec
from zarr.abc.codec import BytesBytesCodec
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer

from byteatlas.codecs import Encodings, registered
from byteatlas.convert import Convert
from byteatlas.heap import HeapCodec

__all__ = [
    "AnyBloscCodec",
    "BitshuffleCodec",
    "Blosc2Codec",
    "ConvertCodec",
    "EncodingsCodec",
    "Hdf5Lz4Codec",
    "LzfCodec",
    "NbitCodec",
    "ScaleOffsetCodec",
    "StringsCodec",
    "SzipCodec",
    "ZfpCodec",
]


class _DecodingCodec(BytesBytesCodec):
    """A codec of numcodecs that only decodes, in the terms of Zarr version 3."""

    is_fixed_size = False
    kind: ClassVar[type[NumcodecsCodec]]
    prefix: ClassVar[str] = ""
    """What its name has in front of the codec's id."""

    def __init__(self, **configuration: Any) -> None:  # Any: JSON values
        self.configuration = configuration
        self._codec = self.kind(**configuration)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.configuration == other.configuration

    def __hash__(self) -> int:
        return hash(type(self))

    @classmethod
    def from_dict(cls, data: Any) -> Self:
        """Make the codec that an entry of ``codecs`` in zarr.json describes."""
        return cls(**data.get("configuration", {}))

    def to_dict(self) -> Any:
        """Return the entry of ``codecs`` in zarr.json."""
        return {"configuration": self.configuration, "name": self.prefix + self.kind.codec_id}

    def compute_encoded_size(self, input_byte_length: int, _chunk_spec: ArraySpec) -> int:
        """Refuse: nothing is encoded."""
        raise NotImplementedError(f"{self.kind.codec_id} only decodes")

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer:
        data = await asyncio.to_thread(self._codec.decode, chunk_bytes.as_numpy_array())
        return chunk_spec.prototype.buffer.from_array_like(np.frombuffer(data, np.uint8))

    async def _encode_single(self, _chunk_bytes: Buffer, _chunk_spec: ArraySpec) -> Buffer | None:
        raise NotImplementedError(f"{self.kind.codec_id} only decodes")


class ConvertCodec(_DecodingCodec):
    """`byteatlas.convert.Convert`."""

    kind = Convert


class EncodingsCodec(_DecodingCodec):
    """`byteatlas.codecs.Encodings`."""

    kind = Encodings


class StringsCodec(_DecodingCodec):
    """`byteatlas.heap.HeapCodec`, which refuses."""

    kind = HeapCodec


class AnyBloscCodec(_DecodingCodec):
    """`byteatlas.codecs.registered.AnyBlosc`."""

    kind = registered.AnyBlosc
    prefix = "numcodecs."


class BitshuffleCodec(_DecodingCodec):
    """`byteatlas.codecs.registered.Bitshuffle`."""

    kind = registered.Bitshuffle


class Blosc2Codec(_DecodingCodec):
    """`byteatlas.codecs.registered.Blosc2`."""

    kind = registered.Blosc2


class Hdf5Lz4Codec(_DecodingCodec):
    """`byteatlas.codecs.registered.Hdf5Lz4`."""

    kind = registered.Hdf5Lz4
    prefix = "numcodecs."


class LzfCodec(_DecodingCodec):
    """`byteatlas.codecs.registered.Lzf`."""

    kind = registered.Lzf


class NbitCodec(_DecodingCodec):
    """`byteatlas.codecs.registered.Nbit`."""

    kind = registered.Nbit


class ScaleOffsetCodec(_DecodingCodec):
    """`byteatlas.codecs.registered.ScaleOffset`."""

    kind = registered.ScaleOffset


class SzipCodec(_DecodingCodec):
    """`byteatlas.codecs.registered.Szip`."""

    kind = registered.Szip
    prefix = "numcodecs."


class ZfpCodec(_DecodingCodec):
    """`byteatlas.codecs.registered.Zfp`."""

    kind = registered.Zfp
