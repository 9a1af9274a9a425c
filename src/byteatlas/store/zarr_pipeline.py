"""A codec pipeline for zarr-python that reads arrays of an index by byteatlas.

zarr's own pipelines fetch and decode chunk by chunk. This one hands what zarr asks of an
`IndexStore` to byteatlas' reader as one selection: its requests are merged, and its chunks are
decoded by several threads, straight into zarr's result. To switch it on:

    zarr.config.set({"codec_pipeline.path": "byteatlas.store.zarr_pipeline.IndexCodecPipeline"})

To import this module is cheap: zarr does so for everybody who has byteatlas installed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from zarr.core.codec_pipeline import BatchedCodecPipeline
from zarr.registry import register_pipeline

if TYPE_CHECKING:
    from zarr.core.buffer import NDBuffer

    from byteatlas.store.contents import Contents
    from byteatlas.store.zarr_batch import Entry

__all__ = ["IndexCodecPipeline"]


class IndexCodecPipeline(BatchedCodecPipeline):
    """Reads arrays of an `IndexStore` by byteatlas, and all others as zarr's default does.

    Values and fill values are those of the default pipeline. Errors are too, but that a chunk which
    cannot be decoded is an error of byteatlas, naming source and offset, and not one of a codec;
    and that the store's `Limits` hold for decoded chunks and results as well.
    """

    async def read(
        self, batch_info: Iterable[Entry], out: NDBuffer, drop_axes: tuple[int, ...] = ()
    ) -> Any:  # Any: what zarr returns depends on its version
        """Read parts of chunks into `out`.

        Raises
        ------
        SourceError
            The bytes of a source could not be had, or are no longer those that were indexed.
        Malformed, Unsupported
            A chunk cannot be decoded.
        """
        from byteatlas.store import zarr_batch  # noqa: PLC0415  # imports much

        batch = list(batch_info)
        contents = zarr_batch.contents_of(batch)
        if contents is None or zarr_batch.is_tiny(batch, contents):
            return await super().read(batch, out, drop_axes)
        found = await contents.find(zarr_batch.keys_of(batch))
        wanted = None if found is None or drop_axes else zarr_batch.wanted(found, batch, out)
        if found is None or wanted is None:
            return await self._read_held(contents, batch, out, drop_axes)
        await contents.reading.read(wanted)
        results = [{"status": "present"}] * len(batch)
        if not found.keyed.serves_missing:
            for position in found.missing:
                results[position] = {"status": "missing"}
        return tuple(results)

    async def _read_held(
        self, contents: Contents, batch: list[Entry], out: NDBuffer, drop_axes: tuple[int, ...]
    ) -> Any:
        """Fetch all chunks together, and leave the rest to zarr."""
        from byteatlas.store import zarr_batch  # noqa: PLC0415  # imports much

        default: Any = super()  # some versions of zarr return what was missing, others nothing
        results: list[Any] = []
        for entries in zarr_batch.groups(batch):
            held = await zarr_batch.with_values(contents, entries)
            results += await default.read(held, out, drop_axes) or ()
        return tuple(results)


register_pipeline(IndexCodecPipeline)
