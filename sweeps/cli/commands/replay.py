"""`replay`: train a recorded run again and compare it with itself, epoch by epoch."""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.data.prepared import PreparedData, open_prepared
from pipelines.runtime.compute import check_backend
from pipelines.runtime.filesystem import check_writable
from pipelines.training.reports import TrialReport
from pipelines.training.trial import Decision, TrialResult
from search_spaces.errors import InputError
from search_spaces.user_spaces.reference import find_reference
from sweeps.cli.exit_codes import DONE, FAILED, INTERRUPTED
from sweeps.cli.shared_options import positive_int
from sweeps.executors.base import Slot
from sweeps.formatting import count
from sweeps.interrupts import Interrupts
from sweeps.replaying.comparison import Cause, Circumstances, Comparison, Difference, causes
from sweeps.replaying.recipe import Device, Recipe, parse_device, recipe_of, slot_like
from sweeps.reporting.console import say
from sweeps.resources.machine import detect_machine
from sweeps.setup.data import reopen_data
from sweeps.setup.stores import STORE_SECONDS, within
from sweeps.state.sweep_file import swept_spaces
from sweeps.workers.jobs import train_job
from sweeps.workers.start import JobFailedError, run_job, start_workers
from tracking.addresses import redacted
from tracking.provenance import git_tags, version_tags
from tracking.stores import check_existing_store, resolve_uri
from tracking.tags import Tag

if TYPE_CHECKING:
    from tracking.runs.run_reader import RecordedRun

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
        type=positive_int,
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
        default=".sweeps",
        metavar="DIR",
        help="folder of prepared data sets (default: %(default)s)",
    )


@dataclass(frozen=True)
class Replay:
    """A run that is about to be trained again: what it was, and with what it is now."""

    run: RecordedRun
    recipe: Recipe
    data: PreparedData
    slot: Slot
    device: Device
    deterministic: bool
    last_step: int

    def causes(self, device: Device) -> list[Cause]:
        """What is not as it was when the run was recorded."""
        recipe = self.recipe
        then = Circumstances(
            recipe.data_fingerprint, recipe.device, recipe.deterministic, self.run.tags
        )
        tags = {**git_tags(), **version_tags()}
        return causes(then, Circumstances(self.data.fingerprint, device, self.deterministic, tags))


def _trusted(arguments: argparse.Namespace) -> set[str]:
    """The user's own spaces whose code may be run: named here, or swept from this folder."""
    given = {find_reference(arguments.space).text} if arguments.space else set()
    return given | swept_spaces(Path(arguments.work_dir))


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; returns its exit status."""
    uri = resolve_uri(arguments.tracking_uri)
    what = f"--tracking-uri ({redacted(uri)})"
    within(STORE_SECONDS, what, lambda: check_existing_store(uri))
    from tracking.runs.run_reader import read_run

    found = read_run(uri, arguments.run_id)
    recipe = recipe_of(found, _trusted(arguments))
    check_backend(recipe.compute.backend)
    first, last, reports = min(found.epochs), max(found.epochs), recipe.reports
    if arguments.epochs is not None:
        last = min(last, arguments.epochs * reports.per_epoch)
    if last < first:
        raise InputError(
            f"--epochs must be at least the first recorded epoch, {reports.text(first)}. "
            f"Received: {arguments.epochs}."
        )
    slot, device = slot_like(recipe, detect_machine(recipe.compute.backend))
    replay = Replay(
        run=found,
        recipe=recipe,
        data=_data_like(recipe, Path(arguments.work_dir) / "data"),
        slot=slot,
        device=device,
        deterministic=arguments.deterministic or bool(recipe.deterministic),
        last_step=last,
    )
    _say_plan(replay)
    with Interrupts() as interrupts, tempfile.TemporaryDirectory(prefix="keras-sweeps-") as folder:
        return _train_and_compare(replay, Path(folder), interrupts)


def _data_like(recipe: Recipe, root: Path) -> PreparedData:
    """The prepared data that the run was trained on, else what its data set's name means now."""
    known = open_prepared(root, recipe.data_name, recipe.data_fingerprint)
    if known is not None and known.fingerprint == recipe.data_fingerprint:
        return known
    check_writable(root, "--work-dir")
    return reopen_data(recipe.data_name, recipe.data_fingerprint, root)


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
        print(f"WARNING: {cause.text}", file=sys.stderr, flush=True)
    title = recipe.compute.title
    say(f"starting the worker: importing {title} takes some seconds")


def _train_and_compare(replay: Replay, folder: Path, interrupts: Interrupts) -> int:
    comparison = Comparison(replay.run.epochs, replay.recipe.reports)

    def on_report(report: TrialReport) -> Decision:
        found = comparison.add(report.step, report.metrics)
        text = _epoch_text(report, found) if report.step in replay.run.epochs else "not recorded"
        say(f"epoch {_epochs(replay, report.step)}/{_epochs(replay, replay.last_step)}: {text}")
        # To be stopped, other than to come to its end, saves it the model's file.
        return Decision.STOP if report.step >= replay.last_step else Decision.GO_ON

    task = replay.recipe.task(
        replay.data, str(folder), replay.last_step, deterministic=replay.deterministic
    )
    log_path = str(folder / "output.log")
    executor = start_workers(folder / "server.log", replay.recipe.compute.backend)
    try:
        result = run_job(executor, train_job, task, replay.slot, log_path, on_report, interrupts)
    except JobFailedError as error:
        print(error.details.rstrip(), file=sys.stderr)
        print(f"error: the run could not be trained again: {error}", file=sys.stderr)
        return FAILED
    finally:
        executor.close()
    if result is None:
        done = f"{count(comparison.num_reports, 'report')} of {len(replay.run.epochs)}"
        say(f"interrupted after {done}; {_so_far(comparison)}")
        return INTERRUPTED
    return _verdict(replay, comparison, result)


def _epochs(replay: Replay, step: int) -> str:
    return replay.recipe.reports.text(step)


def _epoch_text(report: TrialReport, found: list[Difference]) -> str:
    if found:
        more = f"; {len(found) - 1} more differ" if len(found) > 1 else ""
        return found[0].values_text + more
    name = "val_accuracy" if "val_accuracy" in report.metrics else "accuracy"
    return f"identical, {name} {report.metrics[name]:.4f}"


def _so_far(comparison: Comparison) -> str:
    if comparison.first is not None:
        return f"first difference: {comparison.first.text}"
    return "no difference so far"


def _verdict(replay: Replay, comparison: Comparison, result: TrialResult) -> int:
    """Prints what was found; returns the exit status."""
    if comparison.first is None:
        say(f"identical: {comparison.extent}, bit for bit")
        return DONE
    say(f"first difference: {comparison.first.text}")
    say(f"differing: {comparison.num_differing} of {count(comparison.num_reports, 'report')}")
    found = [cause.text for cause in replay.causes(parse_device(result.device))]
    say("Possible causes (what changed since the run was recorded):")
    for line in found or [UNEXPLAINED]:
        say(f"  {line}")
    return FAILED
