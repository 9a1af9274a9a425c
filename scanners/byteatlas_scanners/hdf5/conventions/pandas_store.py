"""pandas: series and frames in PyTables files."""

from __future__ import annotations

from byteatlas_scanners.hdf5.conventions.view import GroupView, Member, Names, text

__all__ = ["pandas_store"]


def pandas_store(group: GroupView) -> dict[str, Names]:
    """Name the axes of a pandas object in PyTables (pandas, ``HDFStore``, fixed and table format).

    In the fixed format each array of labels is one dimension, and a block of values has its rows
    and its own items; in the table format the dataset ``table`` has one record a row.
    """
    kind = text(group.attrs.get("pandas_type"))
    members = group.members
    if kind.endswith("_table"):
        return {"table": ("index",)} if "table" in members else {}
    if kind not in ("frame", "series"):
        return {}
    found: dict[str, Names] = {}
    for name, member in members.items():
        if name in ("axis0", "axis1", "index") or name.endswith("_items"):
            found[name] = (name,)
        elif name == "values":
            found[name] = ("index",)
        elif name.endswith("_values"):
            items = name.removesuffix("values") + "items"
            rows = members.get("axis1", Member((), {})).shape
            if member.shape == rows + members.get(items, Member((), {})).shape:
                found[name] = ("axis1", items)
    return found
