"""The page on zarr-python, dask and fsspec is true: its code runs."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_on_zarr_runs(tmp_path):
    shutil.copy(ROOT / "sample_data" / "mooring_series.nc", tmp_path)
    text = (ROOT / "docs" / "zarr.md").read_text()
    blocks = re.findall(r"^```python run\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 7
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(blocks)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
