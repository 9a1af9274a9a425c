"""NWB: Neurodata Without Borders."""

from __future__ import annotations

from byteatlas_scanners.hdf5.conventions.view import GroupView, Names, first_axis, texts

__all__ = ["nwb"]


def nwb(group: GroupView) -> dict[str, Names]:
    """Name the rows of tables and the times of series (NWB and HDMF Common schemas, "dims")."""
    if "neurodata_type" not in group.attrs:
        return {}
    members, found = group.members, dict[str, Names]()
    columns = set(texts(group.attrs.get("colnames")))
    if columns and "id" in members and len(members["id"].shape) == 1:
        rows = members["id"].shape
        for name, member in members.items():
            is_column = name == "id" or name.removesuffix("_index") in columns
            if is_column and member.shape[:1] == rows and f"{name}_index" not in members:
                found[name] = first_axis("num_rows", member)
    times = members.get("timestamps")
    if times is not None and len(times.shape) == 1:
        for name in ("data", "timestamps", "control"):
            if name in members and members[name].shape[:1] == times.shape:
                found[name] = first_axis("num_times", members[name])
    return found
