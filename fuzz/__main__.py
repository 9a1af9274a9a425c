"""Run a campaign: `python -m fuzz`."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fuzz.campaign import (
    FINDINGS,
    KINDS,
    Outcome,
    Summary,
    all_seeds,
    as_json,
    minimised,
    run_files,
    run_mutants,
)
from fuzz.mutations import mutate
from fuzz.seeds import SEEDS, make_seed

CORPUS = Path(__file__).resolve().parents[2] / "shared" / "corpus" / "hdf5-cve"


def main() -> int:
    """Run the campaign that the arguments ask for; the exit status says whether it is clean."""
    options = _options()
    if options.share:
        _run_share(options)
        return 0
    start = time.monotonic()
    summaries: dict[str, Summary] = {}
    faults: list[dict[str, Any]] = []
    for name, facts in _all_shares(options):
        pristine = facts.pop("pristine")
        outcome = Outcome(**facts)
        before = Outcome(**pristine) if pristine else None
        summaries.setdefault(name, Summary()).add(outcome, before)
        if outcome.kind in FINDINGS:
            faults.append(facts)
        is_unlocated = "unlocated" in options.show and outcome.located < outcome.errors
        if not options.json and (outcome.kind in (*FINDINGS, *options.show) or is_unlocated):
            _print_outcome(outcome)
    wall = time.monotonic() - start
    if options.json:
        print(json.dumps(_as_json(summaries, faults)))
    else:
        _print_table(summaries, wall)
    if options.out and faults:
        _keep(faults, Path(options.out))
    return 1 if faults else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--mutations", type=int, default=20_000, help="all samples together")
    parser.add_argument("--first", type=int, default=0, help="number of each one's first mutant")
    parser.add_argument("--sample", action="append", default=[], choices=list(SEEDS))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="a folder of hostile files")
    parser.add_argument("--out", help="a folder for reproducers")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument(
        "--show",
        action="append",
        default=[],
        choices=[*KINDS, "unlocated"],
        help="print outcomes of this kind, too",
    )
    parser.add_argument("--share", help=argparse.SUPPRESS)
    return parser.parse_args()


def _run_share(options: argparse.Namespace) -> None:
    """Run every n-th mutant; print a line for each."""
    mine, shares = map(int, options.share.split("/"))

    def tell(name: str, outcome: Outcome, pristine: Outcome | None) -> None:
        facts = as_json(outcome) | {"pristine": as_json(pristine) if pristine else None}
        print(json.dumps([name, facts]), flush=True)

    seeds = all_seeds(options.sample)
    each = -(-options.mutations // len(seeds))
    last = options.first + each
    for seed in seeds:
        pristine, outcomes = run_mutants(seed, range(options.first + mine, last, shares))
        for _, outcome in outcomes:
            tell(seed.name, outcome, pristine)
    files = sorted(path for path in options.corpus.rglob("*") if path.is_file())
    for _, outcome in run_files(files[mine::shares]):
        tell("known files", outcome, None)


def _all_shares(options: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    """Run the shares side by side, and yield the outcomes."""
    command = [sys.executable, "-m", "fuzz", *sys.argv[1:]]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    processes = [
        subprocess.Popen(
            [*command, "--share", f"{number}/{options.jobs}"],
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        for number in range(options.jobs)
    ]
    for process in processes:
        assert process.stdout is not None
        for line in process.stdout:
            name, facts = json.loads(line)
            yield name, facts
        if process.wait():
            raise SystemExit(f"a share of the campaign ended with {process.returncode}")


def _print_outcome(outcome: Outcome) -> None:
    print(f"{outcome.kind}: {outcome.name}: {'; '.join(outcome.edits)}")
    for detail in outcome.details:
        print(f"    {detail}")


def _print_table(summaries: dict[str, Summary], wall: float) -> None:
    total = Summary()
    shown = [kind for kind in KINDS if any(one.counts[kind] for one in summaries.values())]
    print(f"{'sample':16} {'files':>6}", *(f"{kind:>8}" for kind in shown), "located   MiB  CPU x")
    for name, one in [*summaries.items(), ("all", total)]:
        if one is not total:
            total.counts += one.counts
            total.errors += one.errors
            total.located += one.located
            total.cpu_s += one.cpu_s
            total.memory = max(total.memory, one.memory)
            total.slowest = max(total.slowest, one.slowest)
        share = 100 * one.located / max(one.errors, 1)
        print(
            f"{name:16} {one.counts.total():6}",
            *(f"{one.counts[kind]:8}" for kind in shown),
            f"{share:5.1f} % {one.memory / 2**20:5.1f} {one.slowest:6.1f}",
        )
    print(
        f"{total.errors} errors; scans and reads: {total.counts.total() / total.cpu_s:.0f} files "
        f"per second of CPU; all: {total.counts.total() / wall:.0f} per second"
    )


def _as_json(summaries: dict[str, Summary], faults: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "samples": {
            name: {
                "counts": {kind: count for kind, count in one.counts.items() if count},
                "errors": one.errors,
                "unlocated": one.errors - one.located,
            }
            for name, one in summaries.items()
        },
        "findings": faults,
    }


def _keep(faults: list[dict[str, Any]], folder: Path) -> None:
    """Write the least of each finding's damage that shows it."""
    folder.mkdir(parents=True, exist_ok=True)
    for fault in faults:
        sample, _, number = fault["name"].partition("/")
        if sample not in SEEDS:
            continue
        seed = make_seed(sample)
        mutant = minimised(seed, mutate(seed, int(number)), fault["kind"])
        path = folder / f"{fault['kind']}-{sample}-{number}"
        path.write_bytes(mutant.data)
        path.with_suffix(".txt").write_text("\n".join([*mutant.edits, *fault["details"]]) + "\n")
        print(f"{path}: {'; '.join(mutant.edits[:6])}")


if __name__ == "__main__":
    raise SystemExit(main())
