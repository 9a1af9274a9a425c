"""HDF5's Fletcher checksum at the end of a chunk."""

from __future__ import annotations

import numpy as np
from numcodecs import Fletcher32

from byteatlas.codecs.interface import Bound, Bytes, Config, Step
from byteatlas.errors import Malformed

__all__ = ["fletcher32", "prepare_fletcher32"]

_ROW = 4096
_ROW_WEIGHTS = np.stack([np.ones(_ROW), np.arange(_ROW, 0.0, -1.0)], axis=1)


def prepare_fletcher32(config: Config, bound: Bound) -> Step:
    """Verify the checksum in the last four bytes, and return those before it.

    numcodecs verifies it, at 4 GB/s. What it refuses is computed again: it may be in the order in
    which HDF5 before 1.6.3 wrote it.
    """
    del config, bound  # fewer bytes come out than go in
    verify = Fletcher32().decode

    def step(data: Bytes) -> Bytes:
        if len(data) < 4:
            raise Malformed(f"chunk of {len(data)} bytes has no room for its checksum of 4")
        body = memoryview(data)[:-4]
        try:
            verify(data)
        except RuntimeError:
            stored = bytes(data[-4:])
            computed = fletcher32(body).to_bytes(4, "little")
            if stored not in (computed, bytes(computed[byte] for byte in (1, 0, 3, 2))):
                raise Malformed(
                    f"checksum is {computed.hex()}, but the chunk says {stored.hex()}"
                ) from None
        return body

    return step


def fletcher32(data: Bytes) -> int:
    """Return HDF5's Fletcher checksum: two sums of big-endian 16-bit words, modulo 65535.

    The first sum counts each word once, the second the last word once, the one before it twice
    and so on. An odd last byte is the high half of a word. A sum is 0 only if all words are.
    (HDF5 library, ``H5_checksum_fletcher32``.)
    """
    source = np.frombuffer(data, np.uint8)
    count = -(-source.size // 2)
    rows = -(-count // _ROW)
    words = np.zeros(rows * _ROW)  # float64: a row's sums stay below 2**53, and BLAS is fast
    words[: source.size // 2] = source[: source.size // 2 * 2].view(">u2")
    if source.size % 2:
        words[count - 1] = int(source[-1]) << 8
    plain, falling = (words.reshape(rows, _ROW) @ _ROW_WEIGHTS).astype(np.int64).T
    below = (count - _ROW * np.arange(1, rows + 1)) % 65535  # words after a row, as its weight
    first = int(plain.sum())
    second = int(falling.sum()) + int((plain * below).sum())
    return (_fold(second) << 16) | _fold(first)


def _fold(total: int) -> int:
    return (total - 1) % 65535 + 1 if total else 0
