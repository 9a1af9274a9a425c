"""Whether the files of a Parquet index are still those of the index that was opened.

`.zmetadata` is what was opened; its partitions are read later, by name. What another program
wrote has nothing that ties them together, so `.zmetadata` is looked at again for each round of
partitions. Of byteatlas' own index the digests of the partitions tell, and it is looked at only
to say what is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from byteatlas.errors import (
    ByteatlasError,
    Inconsistent,
    NotRecognised,
    SourceChanged,
    SourceError,
    SourceMissing,
)
from byteatlas.index.parquet_layout import METADATA, member_url
from byteatlas.model import Source
from byteatlas.sources import open_source
from byteatlas.sources.credentials import Options, options_for
from byteatlas.sources.identity import check_identity
from byteatlas.sources.local import local_path
from byteatlas.sources.urls import is_chained, scheme_of

__all__ = ["OTHER_BYTES", "check_index", "explained", "no_index"]

OTHER_BYTES = "the partition has other bytes than were written"
_WRITE_AGAIN = "it is damaged, or was replaced alone: write the index again (scan or convert)"


def check_index(root: str, origin: Source | None, storage_options: Options) -> None:
    """Refuse an index that is no longer the one that was opened; one request.

    Parameters
    ----------
    root
        URL of the index.
    origin
        `.zmetadata` as it was seen when it was opened; None: nothing is compared.
    storage_options
        How to reach it. (Any: each protocol's own.)

    Raises
    ------
    SourceMissing
        There is no index any more.
    SourceChanged
        It is another one by now. The error has both sightings, as `recorded` and `seen`.
    SourceError
        It cannot be looked at.
    """
    if origin is None:
        return
    url = member_url(root, METADATA)
    source = open_source(url, storage_options=options_for(url, storage_options))
    try:
        check_identity(origin, source.stat())
    except SourceMissing as error:
        raise SourceMissing(
            f"the index is gone since it was opened: it has no {METADATA} any more",
            url=root,
            hint="open it again where it is now",
        ) from error
    except SourceChanged as error:
        how = error.problem.removeprefix("the source changed: ")
        told = SourceChanged(
            f"the index was replaced since it was opened: of its {METADATA}, {how}",
            url=root,
            hint="open it again",
        )
        told.recorded, told.seen = error.recorded, error.seen
        raise told from error
    finally:
        source.close()


def explained(
    error: ByteatlasError, root: str, origin: Source | None, storage_options: Options
) -> ByteatlasError:
    """Return what an error says of a partition whose size and digest are known.

    Where the whole index is gone or replaced, it is that; else the partition is.
    """
    if not isinstance(error, SourceMissing | SourceChanged | Inconsistent):
        return error
    try:
        check_index(root, origin, storage_options)
    except (SourceMissing, SourceChanged) as whole:
        return whole
    except SourceError as unknown:  # then the first error is what is known
        error.__context__ = unknown
    if isinstance(error, SourceMissing):
        told: ByteatlasError = SourceMissing(
            f"the index lists this partition, but it is not there: {error.problem}",
            url=error.url,
            path=error.path,
            hint="write the index again (scan or convert)",
        )
    else:
        how = error.problem.removeprefix("the source changed: ")
        problem = OTHER_BYTES if how == OTHER_BYTES else f"{OTHER_BYTES}: {how}"
        told = Inconsistent(problem, url=error.url, path=error.path, hint=_WRITE_AGAIN)
    told.__cause__ = error
    return told


def no_index(
    root: str, missing: SourceMissing, storage_options: Mapping[str, Any] | None
) -> ByteatlasError:
    """Return what to say of a place that has no `.zmetadata`: one more request, where it is remote.

    Parameters
    ----------
    root
        URL of what was taken for a Parquet index.
    missing
        What became of its `.zmetadata`.
    storage_options
        How to reach it, in the words of fsspec. (Any: each protocol's own.)

    Returns
    -------
    ByteatlasError
        `NotRecognised` where something else is there, else SourceMissing.
    """
    here = not is_chained(root) and scheme_of(root) in ("", "file", "local")
    if here:
        folder = Path(local_path(root))
        if any((folder / name).exists() for name in ("zarr.json", ".zgroup", ".zarray")):
            return NotRecognised(
                f"a Zarr store, not an index of references: it has no {METADATA}",
                url=root,
                hint="open it with zarr, or with xarray.open_zarr",
            )
    elif not _is_there(root, storage_options):
        return SourceMissing(
            f"nothing is there: {missing.problem}, and the same of its {METADATA}", url=root
        )
    return NotRecognised(
        f"not an index: it has no {METADATA}",
        url=root,
        hint="scan the files in it" if here or root.endswith("/") else "scan it, if it is data",
    )


def _is_there(root: str, storage_options: Mapping[str, Any] | None) -> bool:
    source = open_source(root, storage_options=options_for(root, storage_options))
    try:
        source.read_head(1)
    except SourceError:
        return False
    finally:
        source.close()
    return True
