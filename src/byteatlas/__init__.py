"""byteatlas: legacy scientific files as virtual Zarr stores, read where they lie."""
