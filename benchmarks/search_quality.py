"""What a default sweep finds: real sweeps over several seeds, in a script that can be stopped.

    python benchmarks/search_quality.py --dataset mnist --seeds 101,102,103 --output quality
    python benchmarks/search_quality.py --dataset mnist --seeds 101,102 --output quality \
        --side before=/path/to/another/checkout

Every sweep has a folder of its own in `--output`, and one that is finished is not run again: stop
the script whenever you like and start it with the same options; with others it asks for another
folder. For each sweep it prints

- points tried, and how many were trained in full;
- the best validation accuracy, all validation images, of a proposed point, of the point of the
  space's defaults, and of a published model;
- seconds from the first trial's start to a validation accuracy of 0.990 on all validation images;
- with `--test-seeds N`, the mean test accuracy of the winner on N fresh seeds (`finalize`).

With `--until-reached` each sweep is interrupted once it has reached 0.990: how long that takes is
all that is asked then. With `--picture FILE.svg` the first sweep is drawn: what was trained when,
and the best so far. With `--side` the sweeps of another checkout run in turn with those of this
one, and the ratio of the errors is printed with n. Everything after `--` goes to `run`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
HERE = "here"
REACHED = 0.990
NAME = "quality"
POLL_SECONDS = 5.0
INTERRUPTED = 130


@dataclass(frozen=True)
class Found:
    """What one sweep found; NaN where there is none.

    Attributes:
        best: validation accuracy of the best point that was proposed and trained in full.
        defaults: that of the point of the space's defaults, which is one of them.
        published: that of the best published model, where one was trained in full.
        seconds_to: to `REACHED` on all validation images, from the first trial's start.
        test: test accuracy of the winner on fresh seeds.
    """

    num_points: int
    num_full: int
    best: float
    defaults: float
    published: float
    winner_is_published: bool | None
    seconds_to: float
    test: list[float] = field(default_factory=list)


def main() -> int:
    """Runs what is missing, and prints everything."""
    arguments, more = _parsed()
    sides = {HERE: ROOT} | dict(_side(text) for text in arguments.side)
    task = Path(arguments.dataset).stem
    found: dict[str, list[Found]] = {side: [] for side in sides}
    for seed in arguments.seeds:
        for side, checkout in sides.items():
            folder = Path(arguments.output).absolute() / f"{side}-{task}-{seed}"
            result = _swept(checkout, folder, seed, arguments, more)
            found[side].append(result)
            print(f"{side}, seed {seed}: {_text(result)}", flush=True)
    if arguments.picture:
        first = f"{HERE}-{task}-{arguments.seeds[0]}"
        draw(Path(arguments.output) / first, Path(arguments.picture))
    for side, results in found.items():
        print(f"{side}: {_summary(results)}")
    for side in arguments.side:
        name = _side(side)[0]
        ratios = [
            (1 - _winner(one)) / (1 - _winner(other))
            for one, other in zip(found[HERE], found[name], strict=True)
        ]
        ratio = f"{statistics.median(ratios):.2f}"
        print(f"error here / error {name}: median {ratio}, {_list(ratios, 2)}, n = {len(ratios)}")
    return 0


def _parsed() -> tuple[argparse.Namespace, list[str]]:
    own, more = sys.argv[1:], []
    if "--" in own:
        place = own.index("--")
        own, more = own[:place], own[place + 1 :]
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--space", default="cnn")
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--seeds", default="101,102,103", help="numbers with commas between",
                        type=lambda text: [int(seed) for seed in text.split(",")])  # fmt: skip
    parser.add_argument("--timeout", default="auto")
    parser.add_argument("--output", required=True)
    parser.add_argument("--test-seeds", type=int, default=0)
    parser.add_argument("--until-reached", action="store_true",
                        help="interrupt each sweep once it has reached 0.990")  # fmt: skip
    parser.add_argument("--picture", help="file to draw the first sweep to")
    parser.add_argument("--side", action="append", default=[], metavar="NAME=CHECKOUT")
    return parser.parse_args(own), more


def _side(text: str) -> tuple[str, Path]:
    name, _, checkout = text.partition("=")
    return name, Path(checkout).absolute()


def _swept(
    checkout: Path, folder: Path, seed: int, arguments: argparse.Namespace, more: list[str]
) -> Found:
    """The sweep's result; it is run, or gone on with, where that is missing, and so are tests."""
    result = folder / "result.json"
    begin = [
        "--space", arguments.space, "--dataset", arguments.dataset, "--seed", str(seed),
        "--timeout", arguments.timeout, "--name", NAME, *more,
    ]  # fmt: skip
    _same_as_before(folder, [*begin, f"until reached: {arguments.until_reached}"])
    if result.exists():
        found = json.loads(result.read_text())
    else:
        known = (folder / ".sweeps" / "sweeps" / NAME / "sweep.json").exists()
        options = ["--resume", "--name", NAME] if known else begin
        _command(checkout, folder, "run", *options, until_reached=arguments.until_reached)
        found = _measured(folder)
        result.write_text(json.dumps(found))
    if arguments.test_seeds and not found["test"]:
        options = ["--finalists", "1", "--finalist-seeds", str(arguments.test_seeds)]
        _command(checkout, folder, "finalize", NAME, *options)
        found["test"] = _tested(folder)
        result.write_text(json.dumps(found))
    return Found(**found)


def _same_as_before(folder: Path, options: list[str]) -> None:
    """Notes how a sweep is run; ends the script where the folder has one that was run otherwise."""
    noted = folder / "options.json"
    before = json.loads(noted.read_text()) if noted.exists() else None
    if before != options and (before is not None or folder.exists()):
        sys.exit(
            f"{folder} has a sweep that was run with other options: choose another --output, or "
            f"remove it.\nBefore: {before}\nNow: {options}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    noted.write_text(json.dumps(options))


def _command(
    checkout: Path, folder: Path, name: str, *options: str, until_reached: bool = False
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(checkout), "MLFLOW_DISABLE_TELEMETRY": "true"}
    interrupted = False
    with (folder / f"{name}.log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, str(checkout / "sweeps" / f"{name}.py"), *options],
            cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        while until_reached and not interrupted and process.poll() is None:
            time.sleep(POLL_SECONDS)
            if _has_reached(folder):
                process.send_signal(signal.SIGINT)
                interrupted = True
        status = process.wait()
    if status and not (interrupted and status == INTERRUPTED):
        sys.exit(f"{name} of {folder} ended with {status}: see {name}.log in it")


def _has_reached(folder: Path) -> bool:
    spool = folder / ".sweeps" / "sweeps" / NAME / "spool"
    return spool.exists() and bool(_times_reached(_records(spool)))


def _records(spool: Path) -> list[Any]:
    from tracking.spool.spool import Spool

    return list(Spool(spool, read_only=True).replay())


def _measured(folder: Path) -> dict[str, Any]:
    from tracking.spool.records import TrialEnd, TrialRecord

    records = _records(folder / ".sweeps" / "sweeps" / NAME / "spool")
    trials = {r.number: r for r in records if isinstance(r, TrialRecord)}
    values, defaults, published, num_full = [], [], [], 0
    for end in (r for r in records if isinstance(r, TrialEnd) and r.state == "COMPLETE"):
        is_published = "sweeps.baseline" in trials[end.number].tags
        if "best_val_accuracy" in end.metrics:
            kind = published if is_published else values
            kind.append(end.metrics["best_val_accuracy"])
            if trials[end.number].tags.get("sweeps.proposed_by") == "default":
                defaults.append(end.metrics["best_val_accuracy"])
            num_full += not end.tags.get("sweeps.reason", "").startswith("trained for ")
    began = min(trial.at_ms for trial in trials.values())
    reached = _times_reached(records)
    from tracking.spool.records import SweepEnd

    was_interrupted = any(isinstance(r, SweepEnd) and r.status == "KILLED" for r in records)
    beats: bool | None = max(published, default=0.0) > max(values, default=0.0)
    if was_interrupted and not values:
        beats = None
    found = Found(
        num_points=len(trials),
        num_full=num_full,
        best=max(values, default=math.nan),
        defaults=max(defaults, default=math.nan),
        published=max(published, default=math.nan),
        winner_is_published=beats,
        seconds_to=(min(reached) - began) / 1000 if reached else math.inf,
    )
    return asdict(found)


def _times_reached(records: Iterable[Any]) -> list[int]:
    """When all validation images were measured at `REACHED` or better, in ms."""
    from tracking.spool.records import EpochRecord

    return [
        r.at_ms for r in records
        if isinstance(r, EpochRecord) and _is_whole(r.metrics)
        and r.metrics.get("val_accuracy", 0.0) >= REACHED
    ]  # fmt: skip


def draw(folder: Path, path: Path) -> None:
    """Draws a sweep: each stretch of training by the epochs it reached, and the best so far."""
    from matplotlib.figure import Figure

    from tracking.spool.records import EpochRecord, TrialRecord

    records = _records(folder / ".sweeps" / "sweeps" / NAME / "spool")
    trials = {r.number: r for r in records if isinstance(r, TrialRecord)}
    began = min(trial.at_ms for trial in trials.values())
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    best: list[tuple[float, float]] = []
    ends: dict[int, tuple[float, float]] = {}
    for record in (r for r in records if isinstance(r, EpochRecord)):
        minutes, epoch = (record.at_ms - began) / 60_000, record.metrics.get("epoch", record.epoch)
        known = record.number in ends
        start, reached = ends.get(record.number, (minutes, 0.0))
        span = record.metrics["epoch_seconds"] * (epoch - reached) / 60
        color = "tab:orange" if "sweeps.baseline" in trials[record.number].tags else "tab:blue"
        from_minutes = max(minutes - span, start) if known else minutes - span
        upper.plot([from_minutes, minutes], [reached, epoch], color=color, linewidth=1.4)
        ends[record.number] = minutes, epoch
        value = record.metrics["val_accuracy"]
        if epoch >= 1 and (not best or value > best[-1][1]):
            best.append((minutes, value))
    upper.set(ylabel="epochs trained", title="Each line is a trial; published models in orange")
    best.append((max(minutes for minutes, _ in ends.values()), best[-1][1]))
    lower.step(*zip(*best, strict=True), where="post", color="tab:green")
    lower.set(xlabel="minutes", ylabel="best validation\naccuracy so far")
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
    figure.savefig(path)


def _is_whole(metrics: Mapping[str, float]) -> bool:
    """Whether all validation images were measured; a sweep before steps did so always."""
    return metrics.get("epoch", 1.0) >= 1.0


def _tested(folder: Path) -> list[float]:
    from tracking.spool.records import TrialEnd

    spools = sorted((folder / ".sweeps" / "sweeps" / NAME).glob("final*/spool"))
    ends = [r for spool in spools for r in _records(spool) if isinstance(r, TrialEnd)]
    return [end.metrics["test_accuracy"] for end in ends if "test_accuracy" in end.metrics]


def _winner(found: Found) -> float:
    """The winner's value, whether it was proposed or published."""
    return max(value for value in (found.best, found.published, 0.0) if not math.isnan(value))


def _text(found: Found) -> str:
    test = f", test {statistics.mean(found.test):.4f} ({_list(found.test)})" if found.test else ""
    winner = ", the winner is a published model" if found.winner_is_published else ""
    if found.winner_is_published is None:
        winner = ", interrupted before a proposed point was complete"
    return (
        f"{found.num_points} points, {found.num_full} in full, best {found.best:.4f}, defaults "
        f"{found.defaults:.4f}, published {found.published:.4f}, "
        f"{REACHED} after {found.seconds_to:.0f} s{test}{winner}"
    )


def _summary(found: list[Found]) -> str:
    judged = [result for result in found if result.winner_is_published is not None]
    best = statistics.mean([_winner(result) for result in judged] or [math.nan])
    seconds = statistics.median(result.seconds_to for result in found)
    tests = [statistics.mean(result.test) for result in found if result.test]
    test = f", mean test {statistics.mean(tests):.4f}" if tests else ""
    beaten = sum(not result.winner_is_published for result in judged)
    gains = [r.best - r.defaults for r in judged if not math.isnan(r.best - r.defaults)]
    gain = f", {statistics.mean(gains):+.4f} beside the defaults" if gains else ""
    return (
        f"mean of the winners {best:.4f}{test}, {REACHED} after {seconds:.0f} s (median), winner "
        f"proposed in {beaten} of {len(judged)}{gain}, n = {len(found)}"
    )


def _list(values: list[float], digits: int = 4) -> str:
    return " ".join(f"{value:.{digits}f}" for value in values)


if __name__ == "__main__":
    sys.exit(main())
