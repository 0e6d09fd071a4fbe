"""Side by side with what people use today: ours and each peer, in one go and in turns.

    python benchmarks/peers.py --part scale --output peers.jsonl
    python benchmarks/peers.py --part scale --only 'ours, random' --trials 1000 --output peers.jsonl

Each side runs in a process and an empty folder of its own. What it found becomes a line of
`--output`, and a side that has its line there is not run again: stop the script whenever you like
and start it with the same options. The table of all lines is printed at the end, with n (median).

The parts: `scale`, what a trial costs whoever drives it, up to 10,000 trials; `overhead`, what it
costs beside its training, over a bare Keras loop (`SWEEPS_DATA_DIR` is a folder with mnist.npz).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from peer_parts import overhead, scale

PARTS: dict[str, Any] = {"scale": scale, "overhead": overhead}
PACKAGES = ("optuna", "sqlalchemy")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what is missing, and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--part", choices=PARTS, default="scale")
    parser.add_argument("--only", metavar="SIDE", help="one side (default: all in turns)")
    parser.add_argument("--trials", type=int, help="default: those of the part")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("peers.jsonl"))
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    part = PARTS[given.part]
    given.trials = given.trials or part.DEFAULT_TRIALS
    if given.measure:
        print(json.dumps(part.measured(given.measure, given.trials)))
        return 0
    if given.only is not None and given.only not in part.SIDES:
        parser.error(f"--only must be one of: {'; '.join(part.SIDES)}. Received: {given.only}")
    sides = [given.only] if given.only else list(part.SIDES)
    for repeat in range(given.repeats):
        for side in sides if repeat % 2 == 0 else reversed(sides):
            if repeat not in {line["repeat"] for line in known(given, side)}:
                line = {
                    "part": given.part, "side": side, "trials": given.trials, "repeat": repeat,
                    "found": in_a_folder(given.part, side, given.trials),
                    "versions": {name: version(name) for name in PACKAGES}
                    | {"python": platform.python_version()},
                    "cores": len(os.sched_getaffinity(0)), "at": time.strftime("%Y-%m-%d"),
                }  # fmt: skip
                with given.output.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
                print(f"{side}: {json.dumps(line['found'])}", file=sys.stderr, flush=True)
    found = {side: [line["found"] for line in known(given, side)] for side in sides}
    print("\n".join(part.table({side: median(lines) for side, lines in found.items()})))
    print(f"\n{given.trials:,} trials; wall (CPU); n = {min(map(len, found.values()))}")
    return 0


def known(given: argparse.Namespace, side: str) -> list[dict[str, Any]]:
    """The lines of a side that are in the file already."""
    if not given.output.exists():
        return []
    lines = map(json.loads, given.output.read_text(encoding="utf-8").splitlines())
    wanted = (given.part, side, given.trials)
    return [line for line in lines if (line["part"], line["side"], line["trials"]) == wanted]


def in_a_folder(part: str, side: str, num_trials: int) -> dict[str, Any]:
    """What one side finds, in a process and a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, str(Path(__file__).resolve()), "--part", part, "--measure", side,
             "--trials", str(num_trials)],
            cwd=folder, stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def median(lines: Sequence[Any]) -> Any:
    """The median of each number of some results of one form."""
    first = lines[0]
    if isinstance(first, Mapping):
        return {key: median([line[key] for line in lines]) for key in first}
    if isinstance(first, list):
        return [median(values) for values in zip(*lines, strict=True)]
    return statistics.median(lines)


if __name__ == "__main__":
    sys.exit(main())
