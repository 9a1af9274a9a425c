"""Indexes that mean harm are refused or read right, within memory and time, and reach nothing."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest

from byteatlas.testing.server import Fault, RangeServer

PROGRAM = Path(__file__).with_name("hostile_indexes.py")
CASES = runpy.run_path(str(PROGRAM))["CASES"]
CANARY = b"CANARY: nobody may read this"


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Run the program once; the outcome of each case, and what the servers saw."""
    root = tmp_path_factory.mktemp("hostile")
    (root / "public").mkdir()
    (root / "canary").write_bytes(CANARY)
    (root / "public" / "source.bin").write_bytes(bytes(range(64)))
    bomb = zlib.compressobj(9)
    parts = [*(bomb.compress(bytes(2**20)) for _ in range(128)), bomb.flush()]
    (root / "public" / "bomb.zlib").write_bytes(b"".join(parts))
    with RangeServer(root / "public") as public, RangeServer({"canary": CANARY}) as internal:
        target = {"Location": internal.url("canary")}
        public.faults.append(Fault(path="redirected", status=302, headers=target))
        servers = public.url("").rstrip("/"), internal.url("").rstrip("/")
        done = subprocess.run(
            [sys.executable, PROGRAM, root / "public", *servers, root / "canary"],
            capture_output=True,
            text=True,
            check=False,
            cwd=root,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert done.returncode == 0, done.stderr
        found = {line["name"]: line for line in map(json.loads, done.stdout.splitlines())}
        found["asked of the internal server"] = [entry.path for entry in internal.log]
        found["files"] = sorted(path.name for path in root.iterdir())
    return found


def test_there_are_many_of_them() -> None:
    assert len(CASES) > 200


@pytest.mark.parametrize("name", CASES)
def test_an_index_that_means_harm_does_none(outcomes: dict[str, Any], name: str) -> None:
    case, outcome = CASES[name], outcomes[name]

    assert "signal" not in outcome, "killed by a signal, such as after ten seconds"
    if case.error:
        assert "error" in outcome, f"was read as {outcome}"
        assert outcome["is_ours"], outcome
        assert case.error in outcome["error"], outcome
    else:
        assert outcome.get("values") == case.values, outcome
    assert not outcome["leaks"]
    assert outcome["memory"] <= case.declared + 64 * 2**20


def test_nothing_outside_the_policy_was_asked_for(outcomes: dict[str, Any]) -> None:
    assert outcomes["asked of the internal server"] == []
    assert outcomes["files"] == ["canary", "public"]


def test_an_error_names_the_index_or_the_source(outcomes: dict[str, Any]) -> None:
    for name in CASES:
        text = outcomes[name].get("text", "http://")
        assert "://" in text or "/t" in text, (name, text)
