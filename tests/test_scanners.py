"""How the scanner that fits some bytes is found among those installed."""

import subprocess
import sys
from importlib.metadata import EntryPoint
from types import SimpleNamespace

import pytest

import byteatlas.scanners
from byteatlas.errors import MissingDependency, NotRecognised
from byteatlas.scanners import Scanner, ScanOptions, find_scanner, scanner_names

HDF5 = memoryview(b"\x89HDF\r\n\x1a\n")
CLASSIC = memoryview(b"CDF\x01")


def test_the_scanners_of_this_project_are_found_by_the_first_bytes():
    assert {"hdf5", "netcdf3"} <= set(scanner_names())
    assert find_scanner(HDF5).name == "hdf5"
    assert find_scanner(CLASSIC).name == "netcdf3"


def test_listing_scanners_imports_none_of_them():
    script = (
        "import sys, byteatlas.scanners; byteatlas.scanners.scanner_names();"
        "print([name for name in sys.modules if name.startswith('byteatlas_scanners')])"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True
    )
    assert found.stdout.strip() == "[]"


def test_bytes_that_nobody_knows_are_not_recognised():
    with pytest.raises(NotRecognised, match=r"b'<!DOCTYPE html>'.*hdf5.*netcdf3") as caught:
        find_scanner(memoryview(b"<!DOCTYPE html>\n<html>"[:15]))
    assert "not a web page" in caught.value.hint


def test_no_bytes_at_all_are_not_recognised():
    with pytest.raises(NotRecognised, match="it is empty"):
        find_scanner(memoryview(b""))


def test_only_the_scanners_named_are_asked():
    assert find_scanner(HDF5, only=["hdf5"]).name == "hdf5"
    with pytest.raises(NotRecognised):
        find_scanner(HDF5, only=["netcdf3"])
    with pytest.raises(NotRecognised, match=r"no scanner 'nonsense'; there is hdf5, netcdf3"):
        find_scanner(HDF5, only=["nonsense"])


# With scanners of somebody else.


@pytest.fixture
def install(monkeypatch):
    """Install scanners, each given by its name and the bytes that it claims."""

    def install(**claims):
        points = []
        for name, claim in claims.items():
            value = claim
            if isinstance(claim, bytes):
                value = Scanner(
                    name=name,
                    matches=lambda head, claim=claim: bytes(head).startswith(claim),
                    scan=lambda _window, _options: None,
                )
            module = f"installed_for_{name}_{len(points)}"
            if value is not None:
                monkeypatch.setitem(sys.modules, module, SimpleNamespace(scanner=value))
            points.append(
                EntryPoint(name, f"{module}:scanner", byteatlas.scanners.ENTRY_POINT_GROUP)
            )
        monkeypatch.setattr("byteatlas.scanners._entry_points", lambda: tuple(points))
        byteatlas.scanners._load.cache_clear()

    yield install
    byteatlas.scanners._load.cache_clear()


def test_two_claims_on_the_same_bytes_list_both(install):
    install(one=b"AB", two=b"ABC", other=b"X")
    with pytest.raises(NotRecognised, match="several scanners: one, two") as caught:
        find_scanner(memoryview(b"ABCD"))
    assert caught.value.hint == "name the one to use"
    assert find_scanner(memoryview(b"ABCD"), only=["two"]).name == "two"
    assert find_scanner(memoryview(b"ABX")).name == "one"


def test_a_broken_scanner_does_no_harm_to_the_others(install):
    install(broken=None, good=b"AB")
    assert find_scanner(memoryview(b"AB")).name == "good"


def test_a_broken_scanner_is_named_when_no_other_fits(install):
    install(broken=None, good=b"AB")
    with pytest.raises(
        MissingDependency, match=r"could not be loaded: broken \(ModuleNotFoundError"
    ):
        find_scanner(memoryview(b"X"))


def test_an_entry_point_that_is_no_scanner_is_broken(install):
    install(odd=SimpleNamespace(name="odd"))
    with pytest.raises(MissingDependency, match=r"odd \(TypeError.*is a SimpleNamespace"):
        find_scanner(memoryview(b"X"))


# Options.


@pytest.mark.parametrize(
    ("include", "exclude", "wanted"),
    [
        ((), (), {"/t", "/g/t", "/g/p", "/g/h/t"}),
        (("t",), (), {"/t"}),
        (("/t",), (), {"/t"}),
        (("*t",), (), {"/t", "/g/t", "/g/h/t"}),
        (("/g/*",), (), {"/g/t", "/g/p", "/g/h/t"}),
        (("g/?",), (), {"/g/t", "/g/p"}),
        (("t", "g/p"), (), {"/t", "/g/p"}),
        ((), ("*/p", "g/h/*"), {"/t", "/g/t"}),
        (("g/*",), ("g/h/*",), {"/g/t", "/g/p"}),
        (("t",), ("t",), set()),
        (("T",), (), set()),
    ],
)
def test_patterns_choose_paths_and_exclusion_wins(include, exclude, wanted):
    options = ScanOptions(include=include, exclude=exclude)
    paths = ["/t", "/g/t", "/g/p", "/g/h/t"]
    assert {path for path in paths if options.wants(path)} == wanted
