"""Look for inputs that reach new code: `python -m fuzz.coverage_guided [folder] [options]`.

The options are libFuzzer's; inputs that reach new code are kept in the folder.

Every input is scanned and all its arrays are read, as in a campaign, but without an oracle: any
exception that is not ours, a hang or too much memory ends the run and leaves the input in a file.
Checksums of HDF5's metadata are taken for right, or hardly any input would get past them.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris  # type: ignore[import-untyped]  # it has no types

with atheris.instrument_imports(include=["byteatlas", "byteatlas_scanners"]):
    from fuzz.seeds import SEEDS, make_seed, unchecked
    from fuzz.subject import examine

LIMITS = ["-timeout=10", "-rss_limit_mb=2048", "-max_len=32768", "-len_control=0"]
"""Seconds for an input, and MiB for the whole process."""


def main() -> None:
    """Run until an input fails or the options say so; the samples are where it starts from."""
    with tempfile.TemporaryDirectory() as folder:
        samples = Path(folder, "samples")
        samples.mkdir()
        for name in SEEDS:
            (samples / name).write_bytes(make_seed(name).data)
        path = Path(folder, "input")

        def one_input(data: bytes) -> None:
            path.write_bytes(data)
            examine(path)

        with unchecked():
            atheris.Setup([sys.argv[0], *LIMITS, *sys.argv[1:], str(samples)], one_input)
            atheris.Fuzz()


if __name__ == "__main__":
    main()
