"""byteatlas: legacy scientific files as one virtual Zarr store, read where they lie.

group = byteatlas.scan("https://example.org/sst.nc")   # no data is copied
group.to_json("sst.json")                              # an index that kerchunk's users can read
dataset = byteatlas.open_dataset("sst.json")           # xarray, over range requests
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from byteatlas.errors import (
    ByteatlasError,
    Conflict,
    Inconsistent,
    LimitExceeded,
    Malformed,
    MissingDependency,
    NotAllowed,
    NotRecognised,
    RangeIgnored,
    ShortRead,
    SourceChanged,
    SourceDenied,
    SourceError,
    SourceMissing,
    Unsupported,
)
from byteatlas.version import __version__

if TYPE_CHECKING:
    from byteatlas.diagnosis import Check, Diagnosis, diagnose
    from byteatlas.limits import Limits
    from byteatlas.model import (
        ByteRange,
        ByteRanges,
        ChunkManifest,
        Codec,
        Dimension,
        Encoding,
        ScanReport,
        Skipped,
        Source,
        VirtualArray,
        VirtualGroup,
    )
    from byteatlas.opening import open_dataset, open_datatree, open_index, open_store
    from byteatlas.read import Cost, FilledChunk, FilledChunks, Pointwise, Reader
    from byteatlas.scanning import scan
    from byteatlas.sealing import seal
    from byteatlas.sources import Trace
    from byteatlas.sources.chunk_cache_disk import CacheWarning
    from byteatlas.sources.chunk_cache_option import open_cache
    from byteatlas.verification import VerifyReport, verify

__all__ = [
    "ByteRange",
    "ByteRanges",
    "ByteatlasError",
    "CacheWarning",
    "Check",
    "ChunkManifest",
    "Codec",
    "Conflict",
    "Cost",
    "Diagnosis",
    "Dimension",
    "Encoding",
    "FilledChunk",
    "FilledChunks",
    "Inconsistent",
    "LimitExceeded",
    "Limits",
    "Malformed",
    "MissingDependency",
    "NotAllowed",
    "NotRecognised",
    "Pointwise",
    "RangeIgnored",
    "Reader",
    "ScanReport",
    "ShortRead",
    "Skipped",
    "Source",
    "SourceChanged",
    "SourceDenied",
    "SourceError",
    "SourceMissing",
    "Trace",
    "Unsupported",
    "VerifyReport",
    "VirtualArray",
    "VirtualGroup",
    "__version__",
    "diagnose",
    "open_cache",
    "open_dataset",
    "open_datatree",
    "open_index",
    "open_store",
    "scan",
    "seal",
    "verify",
]

# Where the names that are imported on first use live, so that `import byteatlas` costs little.
_HOMES = {
    "ByteRange": "model",
    "ByteRanges": "model",
    "CacheWarning": "sources.chunk_cache_disk",
    "Check": "diagnosis",
    "ChunkManifest": "model",
    "Codec": "model",
    "Cost": "read",
    "Diagnosis": "diagnosis",
    "Dimension": "model",
    "Encoding": "model",
    "FilledChunk": "read",
    "FilledChunks": "read",
    "Limits": "limits",
    "Pointwise": "read",
    "Reader": "read",
    "ScanReport": "model",
    "Skipped": "model",
    "Source": "model",
    "Trace": "sources",
    "VerifyReport": "verification",
    "VirtualArray": "model",
    "VirtualGroup": "model",
    "diagnose": "diagnosis",
    "open_cache": "sources.chunk_cache_option",
    "open_dataset": "opening",
    "open_datatree": "opening",
    "open_index": "opening",
    "open_store": "opening",
    "scan": "scanning",
    "seal": "sealing",
    "verify": "verification",
}


def __getattr__(name: str) -> Any:  # Any: whatever the name stands for
    if name not in _HOMES:
        raise AttributeError(f"module 'byteatlas' has no attribute {name!r}")
    value = getattr(import_module(f"byteatlas.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
