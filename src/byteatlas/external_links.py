"""Paths of an HDF5 file that h5py must not follow: they lead into another file.

h5py, which has a file open as a Python object, takes it for every file that an external link names,
and would show what has the same path there.
"""

from __future__ import annotations

from typing import Any

__all__ = ["leads_to_another_file"]

MAX_SOFT_LINKS = 32


def leads_to_another_file(root: Any, path: str) -> bool:
    """Tell whether a path goes through a link to another file, by way of soft links too.

    Parameters
    ----------
    root : an open `h5py.File` or its root group (Any: h5py has no types).
    path : a path from the root.

    Raises
    ------
    Whatever h5py does for a path that leads nowhere.
    """
    import h5py  # noqa: PLC0415  # slow to import

    waiting, done, hops = path.split("/")[::-1], list[str](), 0
    while waiting and hops <= MAX_SOFT_LINKS:
        part = waiting.pop()
        if part in ("", "."):
            continue
        link = root.get("/".join([*done, part]), getlink=True)
        if isinstance(link, h5py.ExternalLink):
            return True
        if isinstance(link, h5py.SoftLink):
            hops += 1
            done = [] if link.path.startswith("/") else done
            waiting += link.path.split("/")[::-1]
        else:
            done.append(part)
    return False
