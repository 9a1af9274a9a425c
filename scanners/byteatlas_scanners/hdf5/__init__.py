"""HDF5 and netCDF-4: our own reader of the metadata (HDF5 File Format Specification 3.0).

One module per structure of the specification. `superblock` says how to read the rest, `objects`
walks what is reachable, `tree` turns it into groups and arrays.
"""

from byteatlas.scanners import Scanner
from byteatlas_scanners.hdf5.superblock import find_signature
from byteatlas_scanners.hdf5.tree import scan

__all__ = ["scanner"]


def _matches(head: memoryview) -> bool:
    return find_signature(head) is not None


scanner = Scanner(
    name="hdf5",
    matches=_matches,
    scan=scan,
    engines={"h5py": "byteatlas_scanners.hdf5.by_h5py"},
)
