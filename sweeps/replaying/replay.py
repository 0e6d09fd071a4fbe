"""A recorded run trained again, from what MLflow holds of it, and compared with itself.

Nothing is written to MLflow or to the sweep.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.data.prepared import PreparedData, open_prepared
from pipelines.runtime.compute import check_backend
from pipelines.runtime.filesystem import check_writable
from pipelines.training.reports import TrialReport
from pipelines.training.trial import Decision
from search_spaces.errors import InputError
from search_spaces.user_spaces.reference import find_reference
from sweeps.executors.base import Slot
from sweeps.executors.credentials import check_passed
from sweeps.interrupts import Interrupts
from sweeps.outcome import Outcome
from sweeps.replaying.comparison import Cause, Circumstances, Comparison, Difference, causes
from sweeps.replaying.recipe import Device, Recipe, parse_device, recipe_of, slot_like
from sweeps.resources.machine import detect_machine
from sweeps.setup.data import SHOWN, DataProgress, reopen_data
from sweeps.setup.stores import STORE_SECONDS, within
from sweeps.state.sweep_file import swept_spaces
from sweeps.workers.jobs import train_job
from sweeps.workers.start import JobFailedError, run_job, start_workers
from tracking.addresses import redacted
from tracking.provenance import git_tags, version_tags
from tracking.stores import check_existing_store, resolve_uri

if TYPE_CHECKING:
    from tracking.runs.run_reader import RecordedRun

ReportHook = Callable[[TrialReport, Sequence[Difference]], None]
"""Called after each report, with what differs in it."""


@dataclass(frozen=True)
class Replay:
    """A run that is about to be trained again: what it was, and with what it is now.

    Attributes:
        last_step: the last report that is compared, in the unit of the recipe's reports.
        pass_env: names of variables that its process gets although they are secrets.
    """

    run: RecordedRun
    recipe: Recipe
    data: PreparedData
    slot: Slot
    device: Device
    deterministic: bool
    last_step: int
    pass_env: tuple[str, ...] = ()

    def causes(self, device: Device) -> list[Cause]:
        """What is not as it was when the run was recorded."""
        recipe = self.recipe
        then = Circumstances(
            recipe.data_fingerprint, recipe.device, recipe.deterministic, self.run.tags
        )
        tags = {**git_tags(), **version_tags()}
        return causes(then, Circumstances(self.data.fingerprint, device, self.deterministic, tags))


@dataclass(frozen=True)
class ReplayResult:
    """How a replay ended.

    Attributes:
        outcome: DONE where everything is identical, FAILED where anything differs or the run could
            not be trained.
        run_id: the whole id of the run.
        num_reports: reports that were compared, of `num_recorded`.
        num_differing: those of them in which anything differs.
        extent: what was compared, in words.
        first: the first difference; None where there is none.
        causes: what is not as it was when the run was recorded; only where anything differs.
        error: why it could not be trained, one line; `details` has the traceback.
    """

    outcome: Outcome
    run_id: str
    num_reports: int
    num_recorded: int
    num_differing: int
    extent: str
    first: Difference | None = None
    causes: tuple[Cause, ...] = ()
    error: str = ""
    details: str = ""

    @property
    def is_identical(self) -> bool:
        """Whether all that was to be compared came out the same, bit for bit."""
        return self.outcome is Outcome.DONE


def open_replay(
    run_id: str,
    *,
    epochs: int | None = None,
    deterministic: bool = False,
    space: str | None = None,
    tracking_uri: str | None = None,
    work_dir: Path = Path(".sweeps"),
    pass_env: tuple[str, ...] = (),
    data_progress: DataProgress = SHOWN,
) -> Replay:
    """Reads a recorded run, and finds its data and a device like its own.

    Args:
        run_id: the run, as MLflow names it, or how its id begins.
        epochs: how many are trained and compared; None for all that were recorded.
        deterministic: whether to use only operations that repeat bit for bit; else as recorded.
        space: a custom space whose code may be run, where no sweep in `work_dir` is over it.
        tracking_uri: the store; None for MLFLOW_TRACKING_URI, or mlflow.db here.
        work_dir: where prepared data sets are.
        pass_env: as `start_workers` takes it. What the run's sweep had is not asked: whoever can
            write tags could have this machine's secrets given to code.

    Raises:
        InputError: There is no such run, or it cannot be trained again.
    """
    check_passed(pass_env)
    uri = resolve_uri(tracking_uri)
    what = f"--tracking-uri ({redacted(uri)})"
    within(STORE_SECONDS, what, lambda: check_existing_store(uri))
    from tracking.runs.run_reader import read_run

    found = read_run(uri, run_id)
    trusted = {find_reference(space).text} if space else set()
    recipe = recipe_of(found, trusted | swept_spaces(work_dir), pass_env)
    check_backend(recipe.compute.backend)
    first, last, reports = min(found.epochs), max(found.epochs), recipe.reports
    if epochs is not None:
        last = min(last, epochs * reports.per_epoch)
    if last < first:
        raise InputError(
            f"--epochs must be at least the first recorded epoch, {reports.text(first)}. "
            f"Received: {epochs}."
        )
    slot, device = slot_like(recipe, detect_machine(recipe.compute.backend))
    return Replay(
        run=found,
        recipe=recipe,
        data=_data_like(recipe, work_dir / "data", data_progress),
        slot=slot,
        device=device,
        deterministic=deterministic or bool(recipe.deterministic),
        last_step=last,
        pass_env=pass_env,
    )


def _data_like(recipe: Recipe, root: Path, progress: DataProgress) -> PreparedData:
    """The prepared data that the run was trained on, else what its data set's name means now."""
    known = open_prepared(root, recipe.data_name, recipe.data_fingerprint)
    if known is not None and known.fingerprint == recipe.data_fingerprint:
        return known
    check_writable(root, "--work-dir")
    return reopen_data(recipe.data_name, recipe.data_fingerprint, root, progress=progress)


def train_and_compare(
    replay: Replay, interrupts: Interrupts, on_report: ReportHook = lambda report, found: None
) -> ReplayResult:
    """Trains the run again in a process of its own, and compares each report."""
    comparison = Comparison(replay.run.epochs, replay.recipe.reports)

    def receive(report: TrialReport) -> Decision:
        on_report(report, comparison.add(report.step, report.metrics))
        # To be stopped, other than to come to its end, saves it the model's file.
        return Decision.STOP if report.step >= replay.last_step else Decision.GO_ON

    with tempfile.TemporaryDirectory(prefix="keras-sweeps-") as folder:
        task = replay.recipe.task(
            replay.data, folder, replay.last_step, deterministic=replay.deterministic
        )
        log_path = str(Path(folder) / "output.log")
        executor = start_workers(
            Path(folder) / "server.log", replay.recipe.compute.backend, pass_env=replay.pass_env
        )
        try:
            trained = run_job(executor, train_job, task, replay.slot, log_path, receive, interrupts)
        except JobFailedError as error:
            text = f"the run could not be trained again: {error}"
            return _result(replay, comparison, Outcome.FAILED, error=text, details=error.details)
        finally:
            executor.close()
    if trained is None:
        return _result(replay, comparison, Outcome.INTERRUPTED)
    if comparison.first is None:
        return _result(replay, comparison, Outcome.DONE)
    found = replay.causes(parse_device(trained.device))
    return _result(replay, comparison, Outcome.FAILED, found)


def _result(
    replay: Replay,
    comparison: Comparison,
    outcome: Outcome,
    found: Sequence[Cause] = (),
    *,
    error: str = "",
    details: str = "",
) -> ReplayResult:
    return ReplayResult(
        outcome=outcome,
        run_id=replay.run.run_id,
        num_reports=comparison.num_reports,
        num_recorded=len(replay.run.epochs),
        num_differing=comparison.num_differing,
        extent=comparison.extent,
        first=comparison.first,
        causes=tuple(found),
        error=error,
        details=details,
    )
