"""Where a source is that another source names: beside it or below, or where the caller allows.

Anybody can write a name into a file. So a scan follows names only within the directory that the
naming source itself is in, links of the file system resolved, unless its caller allows more.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from posixpath import basename, normpath
from urllib.parse import quote

from byteatlas.errors import NotAllowed, SourceMissing
from byteatlas.sources.local import local_path
from byteatlas.sources.urls import is_chained, scheme_of

__all__ = ["url_beside"]

MAX_NAME = 4096
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")


def url_beside(
    base: str, name: str, *, is_allowed: Callable[[str], bool], finds_moved: bool = False
) -> str:
    """Return the URL of the source that another one names.

    Parameters
    ----------
    base
        URL or absolute path of the source that holds the name.
    name
        A path, relative to the directory of `base`, or absolute. It is never a URL.
    is_allowed
        Tells whether the caller allows a URL outside that directory.
    finds_moved
        Look for an absolute path that does not exist beside `base`, by its last part.

    Raises
    ------
    NotAllowed
        The name leads out of the directory. The hint is the argument that allows it.
    SourceMissing
        No source can have such a name.
    """
    if not name or "\0" in name or len(name) > MAX_NAME:
        raise SourceMissing(f"no source can have the name {name!r:.80}")
    if "://" in name:
        raise NotAllowed(f"{name!r} is a URL, and sources may name each other only by path")
    if not is_chained(base) and scheme_of(base) in ("", "file", "local"):
        return _local(base, name, is_allowed, finds_moved=finds_moved)
    is_absolute = name.startswith("/") or _DRIVE.match(name) is not None
    if is_absolute and not finds_moved:
        raise NotAllowed(f"{name!r} is a path of the machine where the source was written")
    if is_absolute:
        name = basename(name.replace("\\", "/"))
    return _remote(base, name, is_allowed)


def _local(base: str, name: str, is_allowed: Callable[[str], bool], *, finds_moved: bool) -> str:
    folder = Path(local_path(base)).absolute().parent
    target = folder / name
    if finds_moved and Path(name).is_absolute() and not _exists(target):
        target = folder / Path(name).name
    real = Path(os.path.realpath(target))
    is_inside = real.is_relative_to(os.path.realpath(folder))
    if not is_inside and not is_allowed(str(real)) and not is_allowed(os.path.normpath(target)):
        raise _outside(name, f"{str(real.parent).rstrip('/')}/")
    path = str(real if ".." in target.parts else target)
    return path if not scheme_of(base) else f"{scheme_of(base)}://{quote(path)}"


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # it cannot be told, so opening it shall fail
        return True


def _remote(base: str, name: str, is_allowed: Callable[[str], bool]) -> str:
    first, chain, rest = base.partition("::") if is_chained(base) else (base, "", "")
    scheme, _, place = first.partition("://")
    is_web = scheme.lower() in ("http", "https")
    place, query, secret = place.partition("?") if is_web else (place, "", "")
    folder = place.split("/")[:-1] or ([] if chain else [place])
    parts = normpath(name).split("/")
    climbs = parts.count("..")  # all of them come first
    if climbs > len(folder) - (not chain) or parts[climbs:] in ([], ["."]):
        raise NotAllowed(f"{name!r} leads out of {scheme}://{'' if chain else folder[0]}")
    below = "/".join(parts[climbs:])
    path = "/".join([*folder[: len(folder) - climbs], quote(below) if is_web else below])
    url = f"{scheme}://{path}"
    if climbs and not is_allowed(url + chain + rest):
        raise _outside(name, url + chain + rest if chain else url.rpartition("/")[0] + "/")
    # What the query grants (a token for a whole container, say) may serve its neighbours too.
    return url + query + secret + chain + rest


def _outside(name: str, prefix: str) -> NotAllowed:
    return NotAllowed(
        f"{name!r} is outside the directory of the source that names it",
        hint=f"if you trust it, pass allow=[{prefix!r}] (--allow {prefix})",
    )
