"""All Zarr metadata of a tree of groups, by key."""

from __future__ import annotations

from typing import Any, Literal

from byteatlas.errors import ByteatlasError, Malformed
from byteatlas.index import zarr_v2, zarr_v3
from byteatlas.model import VirtualGroup

__all__ = ["ZarrFormat", "zarr_metadata"]

ZarrFormat = Literal[2, 3]

_RESERVED = (".", "..", ".zarray", ".zattrs", ".zgroup", ".zmetadata", "zarr.json")


def zarr_metadata(group: VirtualGroup, zarr_format: ZarrFormat = 2) -> dict[str, Any]:
    """Return the metadata of a group and all it holds, consolidated metadata included.

    Parameters
    ----------
    group
        The root.
    zarr_format
        2 for ``.zgroup``, ``.zattrs``, ``.zarray`` and ``.zmetadata``; 3 for ``zarr.json``.

    Returns
    -------
    dict
        Key (such as ``temp/.zarray``) to JSON object.

    Raises
    ------
    ValueError
        There is no such version.
    Unsupported
        A data type has no spelling in this version of Zarr.
    Malformed
        The name of an array or group cannot be part of a key.
    """
    if zarr_format not in (2, 3):
        raise ValueError(f"zarr_format is 2 or 3, not {zarr_format!r}")
    version = zarr_v2 if zarr_format == 2 else zarr_v3
    found: dict[str, Any] = {}
    for path, part in group.walk():
        _add(found, path, version.group_metadata(part))
        for name, array in part.arrays.items():
            _check_name(f"{path}/{name}", name, part)
            try:
                _add(found, f"{path}/{name}", version.array_metadata(array))
            except ByteatlasError as error:
                raise error.at(path=f"{path}/{name}") from error
        for name in part.groups:
            _check_name(f"{path}/{name}", name, part)
    if zarr_format == 2:
        found[".zmetadata"] = {"metadata": dict(found), "zarr_consolidated_format": 1}
    else:
        members = {key.removesuffix("/zarr.json"): node for key, node in found.items()}
        root = members.pop("zarr.json")
        found["zarr.json"] = {
            "attributes": root["attributes"],
            "consolidated_metadata": {
                "kind": "inline",
                "metadata": members,
                "must_understand": False,
            },
            "node_type": "group",
            "zarr_format": 3,
        }
    return found


def _add(found: dict[str, Any], path: str, files: dict[str, Any]) -> None:
    found |= {f"{path}/{name}"[1:]: value for name, value in files.items()}


def _check_name(path: str, name: str, parent: VirtualGroup) -> None:
    if not name or "/" in name or "\0" in name or name in _RESERVED:
        raise Malformed(f"{name!r} cannot be the name of an array or group", path=path)
    if name in parent.arrays and name in parent.groups:
        raise Malformed("an array and a group have the same name", path=path)
