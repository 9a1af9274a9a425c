"""Index files: a virtual group on disk, that other tools can open too."""

from byteatlas.index.atomic import revision
from byteatlas.index.json_reader import read_json
from byteatlas.index.json_writer import to_json_bytes, write_json
from byteatlas.index.parquet_reader import parquet_root, read_parquet
from byteatlas.index.parquet_writer import write_parquet
from byteatlas.index.zarr_metadata import zarr_metadata
from byteatlas.index.zarr_v2 import is_prefixed

__all__ = [
    "is_prefixed",
    "parquet_root",
    "read_json",
    "read_parquet",
    "revision",
    "to_json_bytes",
    "write_json",
    "write_parquet",
    "zarr_metadata",
]
