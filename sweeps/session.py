"""One sweep from settings to summary: opens everything, runs the loop, closes everything."""

from __future__ import annotations

import shutil
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.download import print_progress
from pipelines.image_sets import UnavailableError
from pipelines.objectives import get_objective
from pipelines.prepared import PreparedData, prepare
from search_spaces.errors import redacted, scrubbed
from search_spaces.registry import get_space
from sweeps.board import Board
from sweeps.cli import DONE, FAILED, INTERRUPTED
from sweeps.devices import Allotment, allot, detect_machine
from sweeps.engines.base import TrialState
from sweeps.formatting import count, duration, params_text
from sweeps.interrupts import Interrupts
from sweeps.keeping import BestModels
from sweeps.leaderboard import leaderboard_columns, print_summary
from sweeps.preflight import STORE_SECONDS, check_places, within
from sweeps.recorder import Recorder
from sweeps.settings import SweepPaths, SweepSettings, budget_for, claim_name
from sweeps.sweep import Plan, StopReason, Sweep
from sweeps.views import make_view
from tracking.stores import DEFAULT_URI, compare_link, resolve_uri, ui_command

if TYPE_CHECKING:
    from search_spaces.space import Space
    from sweeps.engines.base import Engine
    from sweeps.executors.base import Executor
    from tracking.mlflow_tracker import MlflowTracker
    from tracking.records import SweepEnd

DEFAULT_DATASET, FALLBACK_DATASET = "mnist", "digits"
DRAIN_SECONDS = 60.0
NUM_COMPARED = 5


def run_sweep(settings: SweepSettings, *, quiet: bool) -> int:
    """Runs a sweep and prints its result; returns the exit status.

    Raises:
        InputError: The settings or the places they name cannot be used; nothing was started.
    """
    say = (lambda text: None) if quiet else _say
    say(f"keras-sweeps: space {settings.space}, {count(settings.num_trials, 'trial')}")
    check_places(settings)
    machine = detect_machine()
    allotment = allot(machine, settings.num_workers, settings.num_threads)
    data = prepare_data(settings.dataset, Path(settings.work_dir) / "data")
    settings = replace(settings, name=claim_name(settings, f"{settings.space}-{data.name}"))
    _say_plan(say, settings, data, allotment, machine.note)
    with Interrupts() as interrupts:
        try:
            session = open_session(settings, data, allotment, interrupts)
        except BaseException:
            # Nothing ran under the name, so it is free again.
            shutil.rmtree(_paths(settings).sweep, ignore_errors=True)
            raise
        return session.run(interrupts, quiet=quiet)


def _paths(settings: SweepSettings) -> SweepPaths:
    assert settings.name is not None
    return SweepPaths(Path(settings.work_dir).absolute(), settings.name)


def prepare_data(dataset: str | None, root: Path) -> PreparedData:
    """The prepared data; without a name MNIST, or the bundled digits where it cannot be had."""
    if dataset is not None:
        return prepare(dataset, root, print_progress)
    try:
        return prepare(DEFAULT_DATASET, root, print_progress)
    except UnavailableError as error:
        print(
            f"WARNING: sweeping the bundled digits (1,797 images), because: {error}",
            file=sys.stderr,
            flush=True,
        )
        return prepare(FALLBACK_DATASET, root, print_progress)


def _say(text: str) -> None:
    print(text, flush=True)


def _say_plan(
    say: Callable[[str], None],
    settings: SweepSettings,
    data: PreparedData,
    allotment: Allotment,
    note: str,
) -> None:
    budget = budget_for(settings, data.num_images["train"])
    limit = budget.timeout_seconds
    say(f"data      {data.name} ({data.origin}): {data.sizes()}; {data.split}")
    say(f"machine   {allotment.reason}" + (f". {note}" if note else ""))
    say(
        f"trials    {settings.num_trials} x {count(budget.num_epochs, 'epoch')}, at most "
        f"{duration(limit) if limit else 'any time'}, sampler {settings.sampler}, "
        f"seed {settings.seed}, objective {settings.objective}"
    )
    say(f"tracking  {redacted(resolve_uri(settings.tracking_uri))}, sweep {settings.name}")
    say("starting the workers: importing TensorFlow takes some seconds, once")


def open_session(
    settings: SweepSettings,
    data: PreparedData,
    allotment: Allotment,
    interrupts: Interrupts,
) -> Session:
    """Opens storage, study, workers and tracker.

    The server of workers imports TensorFlow while MLflow is imported here: each takes seconds.

    Raises:
        InputError: A store cannot be used, or the name is taken.
        KeyboardInterrupt: An interrupt came before the first trial.
    """
    from sweeps.executors.processes import ProcessExecutor

    assert settings.name is not None
    space, objective = get_space(settings.space), get_objective(settings.objective)
    paths = _paths(settings)
    # First, because the server's import takes longest: everything else happens meanwhile.
    executor = ProcessExecutor("sweeps.preload", paths.server_log)
    try:
        from sweeps.engines.optuna_engine import OptunaEngine, open_storage

        what = f"--storage ({redacted(settings.storage)})"
        storage = within(STORE_SECONDS, what, lambda: open_storage(settings.storage))
        from tracking.mlflow_tracker import MlflowTracker

        uri = resolve_uri(settings.tracking_uri)
        tracker = MlflowTracker(uri, settings.experiment or f"{space.name}-{data.name}")
        if interrupts.received:
            raise KeyboardInterrupt
        engine = OptunaEngine(
            space,
            objective,
            storage,
            settings.name,
            settings.sampler,
            settings.seed,
            num_parallel=len(allotment.slots),
            baselines=space.distinct_baselines() if settings.baselines else (),
        )
    except BaseException:
        executor.close()
        raise
    return Session(settings, space, data, allotment, paths, engine, executor, tracker)


def _import_for_the_end() -> None:
    import pandas  # noqa: F401 - MLflow's log_table needs it.

    import sweeps.engines.study_plots as plots

    plots.import_plotly()


class Session:
    """An opened sweep: the loop with everything that it needs."""

    def __init__(
        self,
        settings: SweepSettings,
        space: Space,
        data: PreparedData,
        allotment: Allotment,
        paths: SweepPaths,
        engine: Engine,
        executor: Executor,
        tracker: MlflowTracker,
    ) -> None:
        from tracking.background import BackgroundCalls

        objective = get_objective(settings.objective)
        self._settings, self._data, self._space = settings, data, space
        self._engine, self._tracker, self._executor = engine, tracker, executor
        self._budget = budget = budget_for(settings, data.num_images["train"])
        self._board = Board(
            title=f"{settings.name}: {space.name} on {data.name}",
            objective=objective,
            num_trials=settings.num_trials,
            num_epochs=budget.num_epochs,
            num_slots=len(allotment.slots),
            timeout_seconds=budget.timeout_seconds,
        )
        models = BestModels(objective, settings.num_kept_models)
        calls = BackgroundCalls()
        # What the end needs is imported while the server of workers still imports TensorFlow.
        calls.put(_import_for_the_end)
        self._recorder = Recorder(tracker, calls, space, data, paths, models)
        self._paths = paths
        self._pages: dict[str, str] = {}
        self._plan = Plan(
            space=space,
            data=data,
            num_trials=settings.num_trials,
            num_epochs=budget.num_epochs,
            timeout_seconds=budget.timeout_seconds,
            patience=settings.patience,
            seed=settings.seed,
            slots=allotment.slots,
            paths=paths,
        )

    def run(self, interrupts: Interrupts, *, quiet: bool) -> int:
        """Runs the sweep, prints what it found, and returns the exit status.

        Raises:
            InputError: The tracking store refuses the sweep's run; no trial was started.
        """
        try:
            self._start_record()
            view = make_view(quiet)
        except BaseException:
            self._executor.close()
            raise
        reason, status, error = "the sweep broke off", FAILED, ""
        sweep = Sweep(self._plan, self._board, self._engine, self._executor, self._recorder, view)
        try:
            stop = sweep.run(interrupts, self._draw_plots)
            reason = stop.value
            if stop is StopReason.INTERRUPTED:
                status = INTERRUPTED
            elif stop is not StopReason.FAILING and self._board.best() is not None:
                status = DONE
        except Exception as problem:  # A full disk, a lost database: say it, keep what there is.
            error = self._broke_off(problem)
        finally:
            view.close()
        if interrupts.received and status != DONE:
            reason, status, error = StopReason.INTERRUPTED.value, INTERRUPTED, ""
        unsent = self._recorder.finish(
            self._end_record(status, reason), DRAIN_SECONDS, lambda: interrupts.urgent
        )
        print_summary(self._board, reason)
        if status == FAILED:
            self._print_failure(error)
        uri = resolve_uri(self._settings.tracking_uri)
        for line in unsent:
            print(f"WARNING: not recorded in MLflow: {scrubbed(line, uri)}", file=sys.stderr)
        if self._board.best() is not None:
            self._print_next_steps()
        return FAILED if unsent and status == DONE else status

    def _broke_off(self, problem: Exception) -> str:
        """One line for people; the traceback goes to the sweep's folder, where there is room."""
        path = self._paths.sweep / "driver.log"
        text = f"{type(problem).__name__}: {' '.join(str(problem).split())[:500]}"
        try:
            path.write_text("".join(traceback.format_exception(problem)), encoding="utf-8")
        except OSError:
            return text
        return f"{text} (traceback in {path})"

    def _start_record(self) -> None:
        from tracking.context import git_tags, version_tags

        params = self._settings.as_params() | {
            "dataset": self._data.name,
            "num_epochs": self._budget.num_epochs,
            "timeout_seconds": self._budget.timeout_seconds,
        }
        assert self._settings.name is not None
        tags = {**git_tags(), **version_tags()}
        self._recorder.sweep_started(self._settings.name, params, tags)

    def _end_record(self, status: int, reason: str) -> SweepEnd:
        from tracking.records import SweepEnd

        board = self._board
        tags, metrics = {"sweeps.stopped_by": reason}, {}
        best = board.best()
        if best is not None and best.value is not None:
            tags["sweeps.best_trial"] = str(best.number)
            tags["sweeps.best_params"] = params_text(best.params)
        metrics["total_training_seconds"] = board.compute_seconds()
        metrics["wall_seconds"] = board.elapsed_seconds()
        for state in TrialState:
            metrics[f"num_{state.value.lower()}"] = float(len(board.in_state(state)))
        name = {DONE: "FINISHED", INTERRUPTED: "KILLED"}.get(status, "FAILED")
        return SweepEnd(
            status=name,  # type: ignore[arg-type]
            tags=tags,
            metrics=metrics,
            texts=self._pages,
            leaderboard=leaderboard_columns(board) if board.rows else {},
        )

    def _draw_plots(self) -> None:
        try:
            self._pages["study.html"] = self._engine.plots_html()
        except Exception as problem:  # Pictures must not cost the sweep its end.
            print(f"WARNING: no plots of the study: {self._broke_off(problem)}", file=sys.stderr)

    def _print_failure(self, error: str) -> None:
        failed = self._board.in_state(TrialState.FAILED)
        if error:
            print(f"error: {error}", file=sys.stderr)
        elif failed:
            print(failed[-1].details.rstrip(), file=sys.stderr)
            print(f"error: no trial completed. Latest: {failed[-1].reason}", file=sys.stderr)

    def _print_next_steps(self) -> None:
        board, tracker = self._board, self._tracker
        uri = resolve_uri(self._settings.tracking_uri)
        ranking = board.ranking()
        command = ui_command(uri)
        found = [tracker.run_id(row.number) for row in ranking[:NUM_COMPARED]]
        link = compare_link(uri, tracker.experiment_id, [run for run in found if run])
        print("\nNext:")
        if command:
            print(f"  {command:<24}# then compare the best runs at")
        print(f"  {link}")
        model_id = tracker.model_id(ranking[0].number)
        if model_id:
            name = f"{self._space.name}-{self._data.name}"
            given = "" if uri == DEFAULT_URI else f"MLFLOW_TRACKING_URI={redacted(uri)} "
            code = f"import mlflow; mlflow.register_model('models:/{model_id}', '{name}')"
            print(f'  {given}python -c "{code}"  # register the best model')
