"""Datasets whose values are not in them: external files and virtual datasets."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from byteatlas.errors import Unsupported
from byteatlas_scanners.hdf5.external_files import ExternalFiles, read_external_files
from byteatlas_scanners.hdf5.layout import Virtual
from byteatlas_scanners.hdf5.virtual_dataset import VirtualDataset, read_mappings

if TYPE_CHECKING:
    from byteatlas.steps import Steps
    from byteatlas_scanners.hdf5.dataset import DatasetHeader
    from byteatlas_scanners.hdf5.file import Hdf5File
    from byteatlas_scanners.hdf5.global_heap import GlobalHeap

__all__ = ["Elsewhere", "read_elsewhere"]

Elsewhere: TypeAlias = ExternalFiles | VirtualDataset


def read_elsewhere(file: Hdf5File, header: DatasetHeader, heap: GlobalHeap) -> Steps[Elsewhere]:
    """Read where the values of a dataset are.

    Raises
    ------
    Unsupported
        They could not be shown wherever they are.
    """
    if header.dataspace.is_null:
        raise Unsupported("a null dataspace: it has no elements, not even a shape")
    if header.datatype.refusal:
        raise Unsupported(header.datatype.refusal)
    if isinstance(header.layout, Virtual):
        return (yield from read_mappings(file, heap, header.layout))
    return (yield from read_external_files(file, header))
