"""Serve an index to array libraries: a Zarr store, an fsspec filesystem, an xarray engine."""
