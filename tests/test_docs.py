"""The documentation is true: its code runs, its lists are complete, its links lead somewhere."""

import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest

import byteatlas
from byteatlas.testing import RangeServer

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [*DOCS.rglob("*.md"), *ROOT.glob("*.md"), *(ROOT / "sample_data").glob("*.md")]
FENCE = re.compile(r"^```(\w+)?(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page, label):
    return [found[3] for found in FENCE.finditer(page.read_text()) if found[2] == label]


def script(page):
    """The blocks that run, each on the lines that it has on its page, for tracebacks."""
    text = page.read_text()
    lines = [""] * text.count("\n")
    for found in FENCE.finditer(text):
        if found[1] == "python" and found[2] == "run":
            first = text[: found.start(3)].count("\n")
            body = found[3].splitlines()
            lines[first : first + len(body)] = body
    return "\n".join(lines)


def run_page(page, directory):
    path = directory / f"{page.stem}.py"
    path.write_text(script(page))
    result = subprocess.run(
        [sys.executable, "-W", "error", path.name],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_tutorial_runs(tmp_path):
    directory = tmp_path / "data"
    shutil.copytree(ROOT / "sample_data", directory)
    said = run_page(DOCS / "tutorial.md", directory)
    assert "variables equal to netCDF4" in said or "variables equal to h5py" in said


def test_the_readme_is_true(tmp_path):
    data = (ROOT / "sample_data" / "climate_grid.nc").read_bytes()
    text = (ROOT / "README.md").read_text()
    with RangeServer({"archive/tas.nc": data}) as server:
        text = text.replace("https://example.org/", server.url(""))
        (python,) = [found[3] for found in FENCE.finditer(text) if found[1] == "python"]
        commands = re.findall(r"^\$ byteatlas ([^#\n]*)", text, re.MULTILINE)
        steps = [["-m", "byteatlas.cli", *command.split()] for command in commands]
        assert len(steps) == 7
        for step in [*steps, ["-W", "error", "-c", python]]:
            result = subprocess.run(
                [sys.executable, *step], cwd=tmp_path, capture_output=True, text=True, check=False
            )
            assert result.returncode == 0, result.stderr


def test_the_page_on_adding_a_scanner_can_be_followed(tmp_path):
    page = DOCS / "add-a-scanner.md"
    (code,) = blocks(page, "file=byteatlas_npy.py")
    (tmp_path / "byteatlas_npy.py").write_text(code)
    # What `pip install .` makes of the page's pyproject.toml:
    project = tomllib.loads(blocks(page, "file=pyproject.toml")[0])["project"]
    installed = tmp_path / "byteatlas_npy-0.1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    lines = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items())
        for group, points in project["entry-points"].items()
    ]
    (installed / "entry_points.txt").write_text("".join(lines))
    run_page(page, tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file(page):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_every_page_is_on_the_first_page():
    linked = re.findall(r"\]\(([^)#\s]+)", (DOCS / "index.md").read_text())
    for page in DOCS.rglob("*.md"):
        assert page.name == "index.md" or str(page.relative_to(DOCS)) in linked


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_of_python_is_python(page):
    for found in FENCE.finditer(page.read_text()):
        if found[1] == "python":
            compile(found[3], str(page), "exec")


def test_the_page_on_the_command_line_shows_the_help_as_it_is():
    text = (DOCS / "cli.md").read_text()
    updated = runpy.run_path(str(DOCS / "update_cli.py"))["updated"](text)
    # versions of click wrap lines differently
    assert text.split() == updated.split(), "run: python docs/update_cli.py"


def test_every_command_has_its_section():
    from byteatlas.cli.app import COMMANDS

    text = (DOCS / "cli.md").read_text()
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == list(COMMANDS)


def test_every_public_name_is_explained():
    text = (DOCS / "api.md").read_text()
    named = re.findall(r"^\| `([A-Za-z_]+)", text, re.MULTILINE)
    assert sorted(named) == sorted(byteatlas.__all__)


def test_every_dependency_has_its_reason():
    text = (DOCS / "dependencies.md").read_text()
    named = {
        re.match(r"[\w.-]+", line)[0].lower()
        for line in requires("byteatlas")
        if "bench" not in line and "lint" not in line
    }
    rows = re.findall(r"^\| ([^|]+) \|", text, re.MULTILINE)
    explained = {name.strip().lower() for row in rows for name in row.split(",")}
    assert named == explained - {"package"} - {"---"}
