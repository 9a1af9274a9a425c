"""What parsers raise on damaged bytes, and the reasons that come of it."""

from __future__ import annotations

import struct

from byteatlas.errors import ByteatlasError, Malformed

__all__ = ["FAILURES", "located", "reason_of"]

FAILURES = (ByteatlasError, struct.error, IndexError, OverflowError)
"""What parsers raise on bytes that break the specification: reading past the end of a message is
found out by `struct` or by indexing, so that nothing is checked twice."""


def reason_of(error: Exception, offset: int) -> str:
    """Say why something is left out, and at which byte: by the error itself, else at `offset`."""
    return str(located(error, offset))


def located(error: Exception, offset: int) -> ByteatlasError:
    """Return one of FAILURES as an error of ours that names a byte."""
    if not isinstance(error, ByteatlasError):
        error = Malformed(
            f"its metadata is damaged: a structure is cut short or makes no sense ({error})"
        )
    return error.at(offset=offset)
