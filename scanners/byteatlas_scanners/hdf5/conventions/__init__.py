"""Product conventions: names of dimensions where no dimension scale gives them.

One module per convention; `names_of` asks them in the order of its table.
"""

from byteatlas_scanners.hdf5.conventions.hdfeos5 import is_struct_metadata, parse_struct_metadata
from byteatlas_scanners.hdf5.conventions.table import NamedAxes, names_of
from byteatlas_scanners.hdf5.conventions.view import Fields, GroupView, Member

__all__ = [
    "Fields",
    "GroupView",
    "Member",
    "NamedAxes",
    "is_struct_metadata",
    "names_of",
    "parse_struct_metadata",
]
