"""Scanner of netCDF classic files: classic, 64-bit offset and 64-bit data (CDF-1, -2 and -5)."""

from __future__ import annotations

from byteatlas.model import VirtualGroup
from byteatlas.scanners import Scanner, ScanOptions, Window
from byteatlas.steps import Steps
from byteatlas_scanners.netcdf3.header import is_netcdf3, read_header
from byteatlas_scanners.netcdf3.layout import virtual_group

__all__ = ["scanner"]


def _scan(window: Window, options: ScanOptions) -> Steps[VirtualGroup]:
    header = yield from read_header(window)
    return virtual_group(header, window.size, options)


scanner = Scanner(name="netcdf3", matches=is_netcdf3, scan=_scan)
