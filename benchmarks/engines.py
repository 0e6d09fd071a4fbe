"""Both engines over one space, side by side, with the same epochs to spend.

Every side is a real sweep with the same space, data, seeds and total of epochs; they take
turns, so that what else the machine does meets all of them:

    python benchmarks/engines.py --space FILE.py:NAME --dataset digits --seeds 5
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import optuna

SIDES = {
    "optuna: tpe, asha": ("--sampler", "tpe"),
    "optuna: random, asha": ("--sampler", "random"),
    "keras-tuner: random, asha": ("--engine", "keras-tuner", "--oracle", "random"),
    "keras-tuner: bayesian, asha": ("--engine", "keras-tuner", "--oracle", "bayesian"),
    "keras-tuner: hyperband": ("--engine", "keras-tuner", "--oracle", "hyperband"),
}


@dataclass(frozen=True)
class Outcome:
    """What one sweep reached: best objective, configurations tried, epochs trained, seconds."""

    best: float
    num_trials: int
    num_epochs: int
    seconds: float


def main() -> None:
    """Runs every side with every seed and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--space", required=True)
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--epochs", type=int, default=9, help="full budget of a trial")
    parser.add_argument("--max-total-epochs", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", metavar="FILE", help="write every outcome there, too")
    arguments = parser.parse_args()
    found: dict[str, list[Outcome]] = {side: [] for side in SIDES}
    for seed in range(arguments.seeds):
        for side, options in SIDES.items():
            outcome = sweep(arguments, options, seed)
            found[side].append(outcome)
            print(f"seed {seed}  {side:<28} {outcome}", file=sys.stderr, flush=True)
    print(table(found, arguments))
    if arguments.json:
        record = {side: [vars(outcome) for outcome in rows] for side, rows in found.items()}
        Path(arguments.json).write_text(json.dumps(record, indent=1), encoding="utf-8")


def sweep(arguments: argparse.Namespace, options: tuple[str, ...], seed: int) -> Outcome:
    """One sweep in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="keras-sweeps-benchmark-") as folder:
        space = arguments.space
        file, colon, name = space.partition(":")
        if colon and Path(file).exists():
            space = f"{Path(file).absolute()}:{name}"
        command = [
            sys.executable, str(Path(__file__).parents[1] / "sweeps" / "run.py"),
            "--space", space, "--dataset", arguments.dataset, *options,
            "--epochs", str(arguments.epochs), "--trials", "1000", "--timeout", "none",
            "--max-total-epochs", str(arguments.max_total_epochs), "--no-baselines",
            "--seed", str(seed), "--name", "s", "--workers", "1", "--quiet", "--offline",
        ]  # fmt: skip
        started = time.monotonic()
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - started
        study = optuna.load_study(study_name="s", storage=f"sqlite:///{folder}/optuna.db")
        curves = [trial.intermediate_values for trial in study.trials]
        best = max(value for curve in curves for value in curve.values())
        num_epochs = sum(len(curve) for curve in curves)
        return Outcome(best, sum(bool(curve) for curve in curves), num_epochs, round(seconds, 1))


def table(found: dict[str, list[Outcome]], arguments: argparse.Namespace) -> str:
    """Medians over the seeds, ranges, and the ratio of seconds to the first side's."""
    first = next(iter(found.values()))
    lines = [
        f"{arguments.space} on {arguments.dataset}, {arguments.max_total_epochs} epochs a sweep, "
        f"at most {arguments.epochs} a trial, n = {len(first)} seeds",
        "| engine | best val_accuracy (median, range) | trials | epochs | seconds, ratio |",
        "| --- | --- | --- | --- | --- |",
    ]
    for side, rows in found.items():
        best = sorted(row.best for row in rows)
        ratios = [row.seconds / other.seconds for row, other in zip(rows, first, strict=True)]
        lines.append(
            f"| {side} | {statistics.median(best):.4f} ({best[0]:.4f} to {best[-1]:.4f}) "
            f"| {statistics.median(row.num_trials for row in rows):g} "
            f"| {statistics.median(row.num_epochs for row in rows):g} "
            f"| {statistics.median(row.seconds for row in rows):.0f}, "
            f"{statistics.median(ratios):.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
