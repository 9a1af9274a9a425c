"""Codecs registered with numcodecs: Zarr readers find them by name through its entry points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numcodecs.abc import Codec as NumcodecsCodec

from byteatlas.codecs.chain import decode
from byteatlas.codecs.interface import flat
from byteatlas.convert import Convert
from byteatlas.errors import Malformed, Unsupported
from byteatlas.model import Codec, Encoding

__all__ = [
    "ENCODING_PREFIX",
    "AnyBlosc",
    "Bitshuffle",
    "Blosc2",
    "Convert",
    "Encodings",
    "Hdf5Lz4",
    "Lzf",
    "Nbit",
    "ScaleOffset",
    "Szip",
    "Zfp",
    "encoding_prefix",
]

ENCODING_PREFIX = b"\x93byteatlas.enc1\n"
"""Magic in front of a chunk that says by which of its array's encodings it was encoded."""


def encoding_prefix(position: int) -> bytes:
    """Return the 20 bytes that mark a chunk as encoded by the encoding at `position`."""
    return ENCODING_PREFIX + position.to_bytes(4, "little")


class Encodings(NumcodecsCodec):  # type: ignore[misc]  # numcodecs has no type information
    """Decodes arrays whose chunks are not all encoded alike.

    Each chunk begins with a prefix of 20 bytes: a magic and the position (4 bytes, little-endian)
    of its encoding in the list that configures this codec. The byteatlas store and filesystem
    put it there. Whoever reads the chunk's bytes from its source directly finds no prefix, and
    is refused.

    Parameters
    ----------
    encodings
        Each encoding: a list of numcodecs configurations in the order of encoding.
    """

    codec_id = "byteatlas.encodings"

    def __init__(self, encodings: Sequence[Sequence[Mapping[str, Any]]]) -> None:
        self.encodings = [[dict(codec) for codec in encoding] for encoding in encodings]

    def encode(self, buf: Any) -> Any:
        """Refuse: an index is only read."""
        del buf
        raise Unsupported("arrays read through byteatlas cannot be written")

    def decode(self, buf: Any, out: Any = None) -> Any:
        """Decode a chunk by the encoding that its prefix names."""
        whole = flat(buf)
        start = len(ENCODING_PREFIX) + 4
        if bytes(whole[: len(ENCODING_PREFIX)]) != ENCODING_PREFIX or len(whole) < start:
            raise Malformed(
                "chunk has no encoding prefix",
                hint="its array has several encodings; open the index with byteatlas",
            )
        position = int.from_bytes(whole[len(ENCODING_PREFIX) : start], "little")
        if position >= len(self.encodings):
            raise Malformed(f"chunk has encoding {position}, but there are {len(self.encodings)}")
        codecs = (
            Codec(config["id"], {key: value for key, value in config.items() if key != "id"})
            for config in self.encodings[position]
        )
        decoded = decode(whole[start:], Encoding(tuple(codecs)), size=None)
        return _into(decoded, out)


class _Hdf5Filter(NumcodecsCodec):  # type: ignore[misc]  # numcodecs has no type information
    """A filter of HDF5, which is only undone; its parameters are those of `decode`'s codec."""

    codec_id: ClassVar[str]

    def __init__(self, **config: Any) -> None:  # Any: JSON values
        self._encoding = Encoding((Codec(self.codec_id, config),))

    def get_config(self) -> dict[str, Any]:
        """Return the codec as JSON values."""
        return {"id": self.codec_id, **self._encoding.codecs[0].config}

    def encode(self, buf: Any) -> Any:
        """Refuse: byteatlas reads."""
        del buf
        raise Unsupported(f"{self.codec_id} only decodes")

    def decode(self, buf: Any, out: Any = None) -> Any:
        """Decode a chunk."""
        return _into(decode(flat(buf), self._encoding, size=None), out)


def _into(decoded: Any, out: Any) -> Any:
    if out is None:
        return decoded
    np.frombuffer(out, np.uint8)[:] = np.frombuffer(decoded, np.uint8)
    return out


class Bitshuffle(_Hdf5Filter):
    """HDF5's filter 32008; see `byteatlas.codecs.bitshuffle`."""

    codec_id = "byteatlas.bitshuffle"


class Lzf(_Hdf5Filter):
    """HDF5's filter 32000; see `byteatlas.codecs.lzf`."""

    codec_id = "byteatlas.lzf"


class Nbit(_Hdf5Filter):
    """HDF5's filter 5; see `byteatlas.codecs.nbit`."""

    codec_id = "byteatlas.nbit"


class ScaleOffset(_Hdf5Filter):
    """HDF5's filter 6; see `byteatlas.codecs.scaleoffset`."""

    codec_id = "byteatlas.scaleoffset"


class Hdf5Lz4(_Hdf5Filter):
    """HDF5's filter 32004, by the name that it has in imagecodecs."""

    codec_id = "imagecodecs_lz4h5"


class Szip(_Hdf5Filter):
    """HDF5's filter 4, by the name that it has in imagecodecs."""

    codec_id = "imagecodecs_szip"


class AnyBlosc(_Hdf5Filter):
    """HDF5's filter 32001 with Snappy, by the name that it has in imagecodecs."""

    codec_id = "imagecodecs_blosc"


class Zfp(_Hdf5Filter):
    """HDF5's filter 32013; see `byteatlas.codecs.zfp`."""

    codec_id = "byteatlas.zfp"


class Blosc2(_Hdf5Filter):
    """HDF5's filter 32026; see `byteatlas.codecs.blosc2`."""

    codec_id = "byteatlas.blosc2"
