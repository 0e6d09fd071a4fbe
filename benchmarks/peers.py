"""Side by side with what people use today: ours and each peer, in one go and in turns.

    python benchmarks/peers.py                    # every part
    python benchmarks/peers.py --part scale
    python benchmarks/peers.py --part search --dataset mnist --minutes 5 --repeats 3
    python benchmarks/peers.py --part search --peer 'Optuna: TPE, median'
    python benchmarks/peers.py --report

Each side runs in a process and an empty folder of its own. What it found becomes a line of
`--output`, and a side that has its line there is not run again: stop the script whenever you like
and start it with the same options. One that fails is named at the end, and the others are run. The
table of all lines is printed at the end, with n (median).
`--report` writes all tables and plots of the file into `docs/benchmarks.md`. Sides whose packages
are missing are named and left out: `pip install -c constraints.txt -e '.[peers]'`.

The parts:

- `scale`: what a trial costs whoever drives it, up to 10,000 trials;
- `overhead`: what it costs beside its training, over a bare Keras loop;
- `search`: the best validation accuracy over wall time, one seed a repetition;
- `disk`: bytes and files that a trial leaves;
- `contact`: lines that a user writes, and seconds to the end of the first epoch;
- `faults`: what is lost, doubled and left where driver, worker and tracking server are killed.

`overhead`, and `search` on data other than the digits, take it from the folder `SWEEPS_DATA_DIR`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from peer_parts import contact, disk, faults, overhead, scale, search
from peer_parts.report import write_report
from peer_parts.results import append, by_side, lines_of, table_of

PARTS: dict[str, Any] = {
    "scale": scale, "overhead": overhead, "search": search, "disk": disk, "contact": contact,
    "faults": faults,
}  # fmt: skip
"""Each has `SIDES`, `DEFAULT_TRIALS`, `measured(side, trials, **options)` and `table(found)`.

Some have `OPTIONS` (which of `--dataset`, `--minutes`, `--epochs` and the seed they take),
`missing(side)` (the packages that a side lacks) and `combined(lines)` (of repetitions, instead of
their median).
"""
PACKAGES = (
    "tensorflow", "keras", "keras-tuner", "optuna", "optuna-integration", "ray", "mlflow",
    "sqlalchemy", "numpy",
)  # fmt: skip
RESULTS = Path(__file__).parent / "peers" / "results.jsonl"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what is missing, and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--part", choices=PARTS, help="default: all of them")
    parser.add_argument(
        "--peer", "--only", metavar="SIDE", action="append", dest="only",
        help="one side, ours or a peer (repeatable; default: all)",
    )  # fmt: skip
    parser.add_argument("--trials", type=int, help="default: those of the part")
    parser.add_argument("--repeats", "--seeds", type=int, default=1)
    parser.add_argument("--dataset", default="digits", help="of `search`")
    parser.add_argument("--minutes", type=float, default=5.0, help="of each side of `search`")
    parser.add_argument("--epochs", type=int, default=3, help="of a trial of `overhead`")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--report", action="store_true", help="write docs/benchmarks.md")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.report:
        write_report(lines_of(given.output), PARTS)
        return 0
    if given.part is None and (given.only or given.measure):
        parser.error("--peer needs --part: each part has sides of its own.")
    failed: list[str] = []
    trials = given.trials
    for name in [given.part] if given.part else PARTS:
        given.part, given.trials = name, PARTS[name].DEFAULT_TRIALS if trials is None else trials
        if given.measure:
            part = PARTS[name]
            print(json.dumps(part.measured(given.measure, given.trials, **options_of(given))))
            return 0
        failed += run_part(given, parser)
    for side in failed:
        print(f"{side} failed; see above", file=sys.stderr)
    return 1 if failed else 0


def run_part(given: argparse.Namespace, parser: argparse.ArgumentParser) -> list[str]:
    """Runs what is missing of a part, and prints its table; returns the sides that failed."""
    part = PARTS[given.part]
    failed: list[str] = []
    sides = [side for side in given.only or part.SIDES if is_there(part, side, parser)]
    for repeat in range(given.repeats):
        given.seed = repeat
        for side in sides if repeat % 2 == 0 else reversed(sides):
            if repeat in {line["repeat"] for line in known(given, side)}:
                continue
            load, at = round(os.getloadavg()[0], 2), time.strftime("%Y-%m-%d %H:%M")
            try:
                found = in_a_folder(given, side)
            except subprocess.CalledProcessError:
                failed.append(f"{given.part}, {side}")
                continue
            append(given.output, {
                "part": given.part, "side": side, "trials": given.trials, "repeat": repeat,
                "options": shared_options(given), "found": found, "versions": versions(),
                "commit": commit(), **machine(), "load": load, "at": at,
            })  # fmt: skip
            print(f"{side}: {json.dumps(found)}", file=sys.stderr, flush=True)
    results = by_side(part, [line for side in sides for line in known(given, side)])
    print("\n".join(table_of(part, results, shared_options(given))))
    num = min(map(len, results.values()), default=0)
    print(f"\n{given.part}: {given.trials:,} trials; wall (CPU); n = {num}")
    return failed


def is_there(part: Any, side: str, parser: argparse.ArgumentParser) -> bool:
    """Whether a side can run here; one that cannot is named."""
    if side not in part.SIDES:
        parser.error(f"--only must be one of: {'; '.join(part.SIDES)}. Received: {side}")
    lacks: str = part.missing(side) if hasattr(part, "missing") else ""
    if lacks:
        print(f"{side}: left out, {lacks} is not installed (extra `peers`)", file=sys.stderr)
    return not lacks


def options_of(given: argparse.Namespace) -> dict[str, Any]:
    """What a part is told beside side and trials."""
    return {name: getattr(given, name) for name in getattr(PARTS[given.part], "OPTIONS", ())}


def shared_options(given: argparse.Namespace) -> dict[str, Any]:
    """The same without the seed: what repetitions have in common."""
    return {name: value for name, value in options_of(given).items() if name != "seed"}


def known(given: argparse.Namespace, side: str) -> list[dict[str, Any]]:
    """The lines of a side that are in the file already, from a machine like this one."""
    wanted = (given.part, side, given.trials, shared_options(given))
    here = machine()
    return [
        line for line in lines_of(given.output)
        if (line["part"], line["side"], line["trials"], line.get("options", {})) == wanted
        and all(line.get(name, value) == value for name, value in here.items())
    ]  # fmt: skip


def machine() -> dict[str, Any]:
    """What lines must have in common to be compared: the cores that may be used, of which kind."""
    return {"cores": len(os.sched_getaffinity(0)), "processor": processor()}


def commit() -> str:
    """Which version of ours is measured; a `+` where files differ from it."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty=+"], cwd=Path(__file__).parent,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout.strip() or "unknown"


def versions() -> dict[str, str]:
    """The packages that are compared, and Python."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def processor() -> str:
    """The name of the processor, where the system tells."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def in_a_folder(given: argparse.Namespace, side: str) -> dict[str, Any]:
    """What one side finds, in a process and a folder of its own."""
    options = [
        word for name, value in options_of(given).items() for word in (f"--{name}", str(value))
    ]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, str(Path(__file__).resolve()), "--part", given.part, "--measure", side,
             "--trials", str(given.trials), *options],
            cwd=folder, stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    sys.exit(main())
