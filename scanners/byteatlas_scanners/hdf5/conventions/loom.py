"""loom: annotated matrices of single-cell biology, in an older format."""

from __future__ import annotations

from byteatlas_scanners.hdf5.conventions.view import GroupView, Names, first_axis

__all__ = ["loom"]


def loom(group: GroupView) -> dict[str, Names]:
    """Name rows and columns (loom file format 3.0: matrix, layers, row and column attributes)."""
    root: GroupView = group
    while root.parent is not None:
        root = root.parent
    matrix = root.members.get("matrix")
    if matrix is None or not (
        "LOOM_SPEC_VERSION" in root.attrs
        or "LOOM_SPEC_VERSION" in (root.attrs_of("attrs") or {})
        or (root.attrs_of("row_attrs") is not None and root.attrs_of("col_attrs") is not None)
    ):
        return {}
    found: dict[str, Names] = {}
    for name, member in group.members.items():
        if (group.path, name) == ("", "matrix") or group.path == "/layers":
            found[name] = ("row", "col")
        elif group.path in ("/row_attrs", "/col_attrs"):
            found[name] = first_axis(group.path[1:4], member)
    return found
