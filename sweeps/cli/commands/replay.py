"""`replay`: train a recorded run again and compare it with itself, epoch by epoch."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from pipelines.training.reports import TrialReport
from sweeps.cli.exit_codes import EXIT_CODES
from sweeps.cli.shared_options import add_pass_env_option, argument_type, passed_names
from sweeps.formatting import count
from sweeps.interrupts import Interrupts
from sweeps.option_values import path, positive_int
from sweeps.outcome import Outcome
from sweeps.replaying.comparison import Difference
from sweeps.replaying.replay import Replay, ReplayResult, open_replay, train_and_compare
from sweeps.reporting.console import say, warn
from tracking.tags import Tag

DESCRIPTION = (
    "Train a recorded run again, from what MLflow holds of it, and compare every epoch bit for "
    "bit. Nothing is written to MLflow or to the sweep."
)
EXAMPLES = """
examples:
  {prog} 0b0b5c4f3131491d861ff237461e7dc4
  {prog} 0b0b5c --epochs 1
  {prog} 0b0b5c --tracking-uri http://127.0.0.1:5000

It ends with 0 where everything is identical and with 1 where anything differs.
"""
UNEXPLAINED = (
    "none found: data, libraries, commit and device are as recorded. The CPU model, its "
    "instruction sets and the GPU driver are not recorded."
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `replay`."""
    add = parser.add_argument
    add("run_id", metavar="RUN_ID", help="id of the run in MLflow, or at least its first 6 digits")
    add(
        "--epochs",
        type=argument_type(positive_int),
        metavar="N",
        help="train and compare only the first N epochs (default: all that were recorded)",
    )
    add(
        "--deterministic",
        action="store_true",
        help="use only deterministic operations (default: as the run was recorded)",
    )
    add(
        "--space",
        metavar="FILE.py:NAME",
        help="allow this space's code to run; needed for a space of your own that no sweep in "
        "--work-dir searched",
    )
    add(
        "--tracking-uri",
        metavar="URI",
        help="MLflow server or database (default: MLFLOW_TRACKING_URI or sqlite:///mlflow.db)",
    )
    add(
        "--work-dir",
        type=argument_type(path),
        default=".sweeps",
        metavar="DIR",
        help="folder of prepared data sets (default: %(default)s)",
    )
    add_pass_env_option(parser, "none")


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; returns its exit status."""
    replay = open_replay(
        arguments.run_id,
        epochs=arguments.epochs,
        deterministic=arguments.deterministic,
        space=arguments.space,
        tracking_uri=arguments.tracking_uri,
        work_dir=Path(arguments.work_dir),
        pass_env=passed_names(arguments) or (),
    )
    _say_plan(replay)
    with Interrupts() as interrupts:
        result = train_and_compare(replay, interrupts, partial(_say_report, replay))
    _print_result(result)
    return EXIT_CODES[result.outcome]


def _say_plan(replay: Replay) -> None:
    run, recipe, data = replay.run, replay.recipe, replay.data
    state = run.tags.get(Tag.STATE, "state unknown")
    say(f"run       {run.run_id}: {run.name} of {run.tags.get(Tag.SWEEP, '?')}, {state}")
    all_epochs = _epochs(replay, max(run.epochs))
    unit = "epoch" if all_epochs == "1" else "epochs"
    epochs = f"{_epochs(replay, replay.last_step)} of {all_epochs} {unit}"
    mode = f"deterministic mode {'on' if replay.deterministic else 'off'}"
    say(
        f"training  {epochs} on {recipe.train_on}, seed {recipe.seed}, {replay.device.text}, {mode}"
    )
    say(f"compute   {recipe.compute.text}")
    say(f"data      {data.name} ({data.origin}): {data.sizes()}")
    for cause in replay.causes(replay.device):
        warn(cause.text)
    title = recipe.compute.title
    say(f"starting the worker: importing {title} takes some seconds")


def _say_report(replay: Replay, report: TrialReport, found: Sequence[Difference]) -> None:
    text = _report_text(report, found) if report.step in replay.run.epochs else "not recorded"
    say(f"epoch {_epochs(replay, report.step)}/{_epochs(replay, replay.last_step)}: {text}")


def _epochs(replay: Replay, step: int) -> str:
    return replay.recipe.reports.text(step)


def _report_text(report: TrialReport, found: Sequence[Difference]) -> str:
    if found:
        more = f"; {len(found) - 1} more differ" if len(found) > 1 else ""
        return found[0].values_text + more
    name = "val_accuracy" if "val_accuracy" in report.metrics else "accuracy"
    return f"identical, {name} {report.metrics[name]:.4f}"


def _print_result(result: ReplayResult) -> None:
    first = f"first difference: {result.first.text}" if result.first is not None else ""
    if result.error:
        print(result.details.rstrip(), file=sys.stderr)
        print(f"error: {result.error}", file=sys.stderr)
    elif result.outcome is Outcome.INTERRUPTED:
        done = f"{count(result.num_reports, 'report')} of {result.num_recorded}"
        say(f"interrupted after {done}; {first or 'no difference so far'}")
    elif result.is_identical:
        say(f"identical: {result.extent}, bit for bit")
    else:
        say(first)
        say(f"differing: {result.num_differing} of {count(result.num_reports, 'report')}")
        say("Possible causes (what changed since the run was recorded):")
        for line in [cause.text for cause in result.causes] or [UNEXPLAINED]:
            say(f"  {line}")
