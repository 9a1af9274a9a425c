"""AnnData: annotated matrices of single-cell biology."""

from __future__ import annotations

from byteatlas_scanners.hdf5.conventions.view import GroupView, Names, first_axis, text

__all__ = ["anndata"]


def anndata(group: GroupView) -> dict[str, Names]:
    """Name observations and variables (AnnData, "On-disk format", encoding-type attributes)."""
    root: GroupView | None = group
    while root is not None and text(root.attrs.get("encoding-type")) not in ("anndata", "raw"):
        root = root.parent
    if root is None:
        return {}
    inner = group.path[len(root.path) + 1 :]
    first, _, rest = inner.partition("/")
    found: dict[str, Names] = {}
    for name, member in group.members.items():
        if inner == "layers" or (not inner and name == "X"):
            found[name] = ("obs", "var")
        elif first in ("obs", "var") and rest != "__categories" and name != "categories":
            found[name] = (first,)
        elif inner in ("obsm", "varm"):
            found[name] = first_axis(inner[:3], member)
    return found
