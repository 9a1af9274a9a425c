"""Imports point left only: each part knows those before it, and none of those after it."""

import ast
from pathlib import Path

import pytest

import byteatlas
import byteatlas_scanners

PACKAGES = [byteatlas, byteatlas_scanners]
ORDER = [
    {"version", "errors", "garbage"},
    {"limits", "convert", "external_links"},
    {"model", "display"},
    {"steps", "codecs", "sources"},
    {"heap", "scanners"},
    {"formats"},
    {"index"},
    {"read", "others"},
    {"fallback", "sealing"},
    {"scanning"},
    {"opening"},
    {"store", "reference", "diagnosis", "verification", "testing"},
    {"byteatlas"},
    {"cli"},
    {"__main__"},
]
"""From left to right; parts of one set may know each other."""
PLACE = {part: place for place, parts in enumerate(ORDER) for part in parts}
ALLOWED = {
    # They speak to the process that started them in the words of an index file.
    ("byteatlas_scanners.hdf5.by_h5py_arrays", "byteatlas.index.attributes"),
    ("byteatlas_scanners.hdf5.by_h5py_attributes", "byteatlas.index.attributes"),
}


def part_of(module):
    package, _, rest = module.partition(".")
    if package == "byteatlas_scanners":
        return "formats"
    return rest.partition(".")[0] or "byteatlas"


def modules():
    for package in PACKAGES:
        root = Path(package.__file__).parent
        for path in sorted(root.rglob("*.py")):
            parts = [package.__name__, *path.relative_to(root).with_suffix("").parts]
            yield ".".join(parts).removesuffix(".__init__"), path


MODULES = dict(modules())


def imported(path):
    """Return the modules that are imported when a module is: not within functions or for types."""
    found, waiting = set(), list(ast.parse(path.read_text()).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{one.name}" for one in node.names}
            found |= {name if name in MODULES else node.module for name in names}
        elif isinstance(node, ast.Import):
            found |= {one.name for one in node.names}
        elif isinstance(node, ast.Try | ast.With | ast.ClassDef):
            waiting += node.body
    return {name for name in found if name.partition(".")[0].startswith("byteatlas")}


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_left(module):
    here = PLACE[part_of(module)]
    right = {name for name in imported(MODULES[module]) if PLACE[part_of(name)] > here}
    assert {name for name in right if (module, name) not in ALLOWED} == set()


def test_every_exception_is_needed():
    assert all(name in imported(MODULES[module]) for module, name in ALLOWED)
