"""Fixtures shared by all tests."""

from pathlib import Path

import pytest

CORPUS = Path(__file__).parents[2] / "shared" / "corpus"


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The folder of real files that other projects test with, kept beside the project."""
    if not (CORPUS / "MANIFEST.tsv").is_file():
        pytest.skip(f"no corpus of foreign files at {CORPUS}")
    return CORPUS
