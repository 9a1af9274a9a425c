"""Fixtures shared by all tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from byteatlas.sources import loop

CORPUS = Path(__file__).parents[2] / "shared" / "corpus"


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The folder of real files that other projects test with, kept beside the project."""
    if not (CORPUS / "MANIFEST.tsv").is_file():
        pytest.skip(f"no corpus of foreign files at {CORPUS}")
    return CORPUS


@pytest.fixture(autouse=True)
def _no_memory_of_hosts() -> Iterator[None]:
    """Forget how servers behaved: the port of one may be that of another test's."""
    yield
    thread = loop._current
    if thread is not None:
        for key in list(thread.shared):
            if isinstance(key, tuple) and key[0] == "host":
                thread.loop.call_soon_threadsafe(thread.shared.pop, key, None)
