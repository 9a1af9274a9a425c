"""Decode chunks, within bounds, and the numcodecs codecs that carry what Zarr has no word for.

`decode` undoes the codecs of one chunk, `decoder_of` those of many that are encoded alike. They
know beforehand how many bytes have to come out, so no chunk can make them allocate more: a
compressed stream is stopped at its expected size, and the size that a header claims is checked
before anything is allocated. Codecs come from an allow-list; a name in an index never imports or
runs anything else.
"""

from byteatlas.codecs.allowed import only_decodes
from byteatlas.codecs.chain import (
    MAX_CODECS,
    MAX_DECODED,
    decode,
    decode_objects,
    decoder_of,
    encode,
    part_decoder_of,
)
from byteatlas.codecs.checksum import fletcher32
from byteatlas.codecs.registered import (
    ENCODING_PREFIX,
    Convert,
    Encodings,
    encoding_prefix,
)
from byteatlas.codecs.shuffle import unshuffle

__all__ = [
    "ENCODING_PREFIX",
    "MAX_CODECS",
    "MAX_DECODED",
    "Convert",
    "Encodings",
    "decode",
    "decode_objects",
    "decoder_of",
    "encode",
    "encoding_prefix",
    "fletcher32",
    "only_decodes",
    "part_decoder_of",
    "unshuffle",
]
