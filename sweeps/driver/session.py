"""An opened sweep: runs the loop with all that it needs, and closes everything."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from pipelines.data.prepared import PreparedData
from pipelines.objectives import get_objective
from pipelines.training.cost import MeasureTask
from search_spaces.errors import scrubbed
from search_spaces.space import Space
from sweeps.cli.exit_codes import DONE, FAILED, INTERRUPTED
from sweeps.cli.resolved_config import CONFIG_FILE, resolved_config
from sweeps.driver.keeping import BestModels
from sweeps.driver.loop import Sweep
from sweeps.driver.plan import Plan
from sweeps.driver.recorder import Recorder
from sweeps.driver.sending import send_rest
from sweeps.driver.status import Board
from sweeps.driver.stop_rules import StopReason, StopRules, parse_target
from sweeps.engines.base import TrialState
from sweeps.formatting import params_text
from sweeps.interrupts import Interrupts
from sweeps.reporting.console import speaker
from sweeps.reporting.leaderboard import (
    leaderboard_columns,
    print_next_steps,
    print_summary,
    top_of,
)
from sweeps.reporting.progress import make_view
from sweeps.resources.calibration import measured_point
from sweeps.resources.gpu_monitor import GpuWatch, closed, watch_over
from sweeps.resources.machine import Allotment
from sweeps.resources.packer import packed
from sweeps.settings import SweepSettings, budget_for
from sweeps.setup.space import source_tags
from sweeps.setup.stores import open_tracker
from sweeps.state.paths import paths_of
from sweeps.state.recorded_options import compute_tags
from sweeps.state.sweep_file import (
    FINISHED,
    SweepFile,
    write_sweep_file,
)
from sweeps.state.sweep_file import (
    INTERRUPTED as WAITS,
)
from tracking.stores import resolve_uri
from tracking.tags import Tag

if TYPE_CHECKING:
    from sweeps.engines.base import Engine
    from sweeps.executors.base import Executor
    from tracking.runs.tracker import MlflowTracker
    from tracking.spool.records import SweepEnd
    from tracking.spool.sender import Sender
    from tracking.spool.spool import Spool


def _import_for_the_end() -> None:
    from sweeps.engines.optuna_study import plots

    plots.import_plotly()


class Session:
    """An opened sweep: the loop with everything that it needs."""

    def __init__(
        self,
        settings: SweepSettings,
        space: Space,
        data: PreparedData,
        allotment: Allotment,
        file: SweepFile,
        engine: Engine,
        executor: Executor,
        spool: Spool,
        tracker: MlflowTracker | None,
    ) -> None:
        objective = get_objective(settings.objective)
        self._settings, self._data, self._file = settings, data, file
        self._space, self._allotment = space, allotment
        self._engine, self._executor = engine, executor
        self._spool, self._tracker = spool, tracker
        self._paths = paths_of(settings)
        self._budget = budget = budget_for(settings, data.num_images["train"])
        self._board = Board(
            title=f"{settings.name}: {self._space.name} on {data.name}",
            objective=objective,
            num_trials=settings.num_trials,
            num_epochs=budget.num_epochs,
            num_slots=len(allotment.slots),
            timeout_seconds=budget.timeout_seconds,
            data_name=data.name,
            earlier_seconds=spool.active_seconds(),
        )
        models = BestModels(objective, settings.num_kept_models)
        self._recorder = Recorder(spool, self._space, data, self._paths, models, settings.compute)
        self._pages = {CONFIG_FILE: resolved_config(settings, data)}
        self._sender: Sender | None = None
        target = settings.target
        self._plan = Plan(
            space=self._space,
            data=data,
            num_trials=settings.num_trials,
            num_epochs=budget.num_epochs,
            patience=settings.patience,
            seed=settings.seed,
            slots=allotment.slots,
            paths=self._paths,
            rules=StopRules(
                timeout_seconds=budget.timeout_seconds,
                max_total_epochs=settings.max_total_epochs,
                target=None if target is None else parse_target(target, objective),
                patience_trials=settings.patience_trials,
            ),
            num_retries=settings.num_retries,
            stall_seconds=settings.stall_seconds,
            num_audited=settings.num_audited,
            deterministic=settings.deterministic,
            class_weights=settings.class_weights,
            layout=allotment.layout,
            level=allotment.level,
            trials_per_gpu=settings.trials_per_gpu,
            compute=settings.compute,
        )

    def run(self, interrupts: Interrupts, *, quiet: bool) -> int:
        """Runs the sweep, prints what it found, and returns the exit status."""
        try:
            self._start_record()
            self._start_sending()
            view = make_view(quiet)
        except BaseException:
            self._executor.close()
            raise
        reason, status, error = "the sweep broke off; it can be resumed", FAILED, ""
        watch, problems = watch_over(self._allotment.layout)
        suspended = True
        try:
            self._pack(watch, interrupts, speaker(quiet))
            sweep = Sweep(
                self._plan, self._board, self._engine, self._executor, self._recorder, view, watch
            )
            stop = sweep.run(interrupts, self._draw_plots)
            reason = stop.value
            suspended = stop in (StopReason.PREEMPTED, StopReason.CHANGED)
            error = sweep.source_changed
            if stop in (StopReason.INTERRUPTED, StopReason.PREEMPTED):
                status = INTERRUPTED
            elif stop is not StopReason.FAILING and not error and self._board.best() is not None:
                status = DONE
        except Exception as problem:  # A full disk, a lost database: say it, keep what there is.
            error = self._broke_off(problem)
        finally:
            view.close()
            problems += closed(watch)
        if interrupts.received and status == FAILED:
            reason, status, error = StopReason.INTERRUPTED.value, INTERRUPTED, ""
        problems += self._finish(status, reason, interrupts, suspended=suspended)
        print_summary(self._board, reason)
        if status == FAILED:
            self._print_failure(error)
        for line in problems:
            print(f"WARNING: {line}", file=sys.stderr)
        unfinished = suspended or status == INTERRUPTED
        print_next_steps(self._settings, self._board, self._tracker, unfinished=unfinished)
        rejected = bool(self._spool.rejections())
        return FAILED if rejected and status == DONE else status

    def _pack(
        self, watch: GpuWatch | None, interrupts: Interrupts, say: Callable[[str], None]
    ) -> None:
        """Settles how many trials share a GPU."""
        allotment = self._allotment.for_trials(self._settings.num_trials)
        try:
            found = packed(
                allotment, self._settings.trials_per_gpu, self._paths, self._recorder.packed,
                self._executor, watch, interrupts, self._measure_task,
                self._budget.timeout_seconds, say,
            )  # fmt: skip
        except BaseException:
            self._executor.close()  # Afterwards the loop does so.
            raise
        self._plan = replace(self._plan, slots=found.slots, level=found.level)
        self._board.num_slots = len(found.slots)

    def _measure_task(self) -> MeasureTask:
        point = measured_point(self._space, baselines=self._settings.baselines)
        return MeasureTask(
            self._space.key, (point,), self._data, self._budget.num_epochs, self._settings.seed,
            self._settings.compute,
        )  # fmt: skip

    def _broke_off(self, problem: Exception) -> str:
        """One line for people; the traceback goes to the sweep's folder, where there is room."""
        path = self._paths.sweep / "driver.log"
        text = self._scrubbed(f"{type(problem).__name__}: {' '.join(str(problem).split())[:500]}")
        try:
            whole = self._scrubbed("".join(traceback.format_exception(problem)))
            path.write_text(whole, encoding="utf-8")
        except OSError:
            return text
        return f"{text} (traceback in {path})"

    def _scrubbed(self, text: str) -> str:
        """Without the passwords of the sweep's addresses."""
        uri = resolve_uri(self._settings.tracking_uri)
        return scrubbed(scrubbed(text, uri), self._settings.storage)

    def _start_record(self) -> None:
        from tracking.provenance import git_tags, version_tags

        params = self._settings.as_params() | {
            "dataset": self._data.name,
            "num_epochs": self._budget.num_epochs,
            "timeout_seconds": self._budget.timeout_seconds,
        }
        assert self._settings.name is not None
        tags = {**git_tags(), **version_tags(), **source_tags(self._space, self._data),
                **compute_tags(self._settings.compute)}  # fmt: skip
        self._recorder.sweep_started(self._settings.name, self._file.uid, params, tags)

    def _start_sending(self) -> None:
        """Starts the thread that sends; what the end needs is imported there, too."""
        import threading

        threading.Thread(target=_import_for_the_end, daemon=True, name="imports").start()
        if self._settings.offline:
            return
        from tracking.spool.sender import Sender

        self._sender = Sender(self._spool, self._destination)

    def _destination(self) -> MlflowTracker:
        """The tracking store, opened when it is there again."""
        if self._tracker is None:
            self._tracker = open_tracker(self._settings, self._data.name, self._spool)
        if self._tracker is None:
            raise ConnectionError("the tracking store cannot be used")
        return self._tracker

    def _finish(
        self, status: int, reason: str, interrupts: Interrupts, *, suspended: bool
    ) -> list[str]:
        """Records how the sweep ended or waits, and sends what can be sent; one line per problem.

        Nothing is lost by what cannot: it stays in the spool.
        """
        problems: list[str] = []
        try:
            if suspended:
                self._recorder.sweep_waits("SCHEDULED", reason)
            else:
                self._recorder.sweep_ended(self._end_record(status, reason))
            # FAILED by one cause in all trials is an end, too; an interrupt is not.
            standing = WAITS if suspended or status == INTERRUPTED else FINISHED
            write_sweep_file(self._paths.state, replace(self._file, status=standing))
        except OSError as error:
            problems.append(f"the end of the sweep was not written: {error}; resume it")
        uri = resolve_uri(self._settings.tracking_uri)
        problems += send_rest(self._sender, self._spool, self._paths.name, uri, interrupts)
        return problems

    def _end_record(self, status: int, reason: str) -> SweepEnd:
        from tracking.spool.records import SweepEnd

        board = self._board
        tags, metrics = {Tag.STOPPED_BY: reason}, {}
        best = board.best()
        if best is not None and best.value is not None:
            tags[Tag.BEST_TRIAL] = str(best.number)
            tags[Tag.BEST_PARAMS] = params_text(best.params)
        metrics["total_training_seconds"] = board.compute_seconds()
        metrics["total_epochs"] = float(board.num_epochs_trained())
        metrics["wall_seconds"] = board.elapsed_seconds()
        for state in TrialState:
            if state.is_end:
                metrics[f"num_{state.value.lower()}"] = float(len(board.in_state(state)))
        if board.audits:
            metrics["num_audited"] = float(len(board.audits))
            metrics["audit_top"] = float(top_of(board))
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
        elif self._board.rows:
            print(
                "error: no trial completed within the limits; give more --timeout or fewer "
                "--epochs.",
                file=sys.stderr,
            )
