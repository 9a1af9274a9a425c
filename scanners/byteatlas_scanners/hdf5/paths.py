"""Where links and paths lead: to an object of the file, or out of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from byteatlas_scanners.hdf5.links import Link

if TYPE_CHECKING:
    from byteatlas_scanners.hdf5.objects import Object, Objects

__all__ = ["Outside", "find", "follow"]

MAX_SOFT_LINKS = 32


class Outside(NamedTuple):
    """An object of another file, by what an external link says."""

    file: str
    path: str


def find(objects: Objects, path: str) -> Object | Outside | None:
    """Return the object at a path that counts from the root group; None where there is none."""
    return follow(objects, objects.root, Link("", target=f"/{path}"))


def follow(objects: Objects, group: Object, link: Link) -> Object | Outside | None:
    """Return what a link of a group leads to, through soft links too; None where there is none.

    An external link on the way leads outside, with the rest of the path.
    """
    here, step, path, hops = group, link, list[str](), 0
    while True:
        if step.address is not None:
            found = objects.by_address.get(step.address)
            if found is None:
                return None
            here = found
        elif step.outside is not None:
            file, start = step.outside
            parts = [*start.split("/"), *path[::-1]]
            return Outside(file, "/" + "/".join(one for one in parts if one not in ("", ".")))
        elif step.target is None or hops == MAX_SOFT_LINKS:
            return None
        else:
            hops += 1
            if step.target.startswith("/"):
                here = objects.root
            path += [part for part in step.target.split("/")[::-1] if part not in ("", ".")]
        if not path:
            return here
        name = path.pop()
        if name not in here.links:
            return None
        step = here.links[name]
