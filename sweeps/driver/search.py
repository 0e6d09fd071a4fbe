"""A sweep's own session: the loop under an engine that searches, and how its run ends."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pipelines.data.prepared import PreparedData
from pipelines.objectives import get_objective, parse_target
from pipelines.training.cost import MeasureTask
from pipelines.training.trial import Schedule
from search_spaces.hyperparameters.parameter import recorded_name
from search_spaces.space import Space
from sweeps.driver.board.board import Board
from sweeps.driver.board.leaderboard import leaderboard_columns
from sweeps.driver.board.row import TrialRow
from sweeps.driver.board.views import View, Views
from sweeps.driver.plan import LoopPlan, StopReason, StopRules
from sweeps.driver.records.recorder import BestModels, Recorder
from sweeps.driver.records.report import ReportView, write_report
from sweeps.driver.session import LoopEnd, Recording, Session
from sweeps.engines.base import Engine, TrialState
from sweeps.engines.limits import parse_limits
from sweeps.engines.pruners.registry import HALVING
from sweeps.executors.base import Executor
from sweeps.formatting import params_text
from sweeps.interrupts import Interrupts
from sweeps.outcome import Outcome
from sweeps.resources.calibration import Bench, measured_point, seconds_for
from sweeps.resources.gpu_monitor import GpuWatch
from sweeps.resources.machine import Allotment
from sweeps.resources.packer import packed
from sweeps.settings import SweepSettings, budget_for
from sweeps.state.log import sweep_log
from sweeps.state.paths import paths_of
from sweeps.state.sweep_file import FINISHED, INTERRUPTED, SweepFile, write_sweep_file
from tracking.spool.records import now_ms
from tracking.tags import Tag
from tracking.views.sweep_views import TrialsView, sweeps_tags, trials_tags

if TYPE_CHECKING:
    from tracking.spool.records import SweepEnd

log = logging.getLogger(__name__)
STATUS_NAMES = {Outcome.DONE: "FINISHED", Outcome.INTERRUPTED: "KILLED"}
"""How MLflow calls the end of a sweep's run; everything else is FAILED."""


@dataclass(frozen=True)
class SweepResult:
    """How a session of a sweep ended.

    Attributes:
        reason: why it ended, in words.
        error: what failed, one line; empty where a trial says it.
        problems: what else people should know, a line each.
        cause: what broke it off, where it was raised in this process.
        unfinished: whether it can be resumed.
        recorded: whether everything that could be sent was accepted.
    """

    outcome: Outcome
    board: Board
    reason: str
    error: str = ""
    problems: tuple[str, ...] = ()
    unfinished: bool = False
    recorded: bool = True
    cause: Exception | None = None

    @property
    def failed_trial(self) -> TrialRow | None:
        """The trial that failed last."""
        failed = self.board.in_state(TrialState.FAILED)
        return failed[-1] if failed else None


@dataclass
class OpenedSweep:
    """Everything that a sweep needs, opened; `run_search` closes it.

    Attributes:
        tags: of the sweep's run, beside those that follow from data and space.
        texts: files of the sweep's run: name -> content.
        say: tells a person, one line a call.
    """

    settings: SweepSettings
    space: Space
    data: PreparedData
    allotment: Allotment
    file: SweepFile
    engine: Engine
    executor: Executor
    recording: Recording
    tags: Mapping[str, str]
    texts: Mapping[str, str] = field(default_factory=dict)
    say: Callable[[str], None] = lambda text: None


def run_search(opened: OpenedSweep, view: View, interrupts: Interrupts) -> SweepResult:
    """Runs the sweep to its end, records it, and closes what was opened."""
    return _Search(opened, view, interrupts).run()


class _Search:
    def __init__(self, opened: OpenedSweep, view: View, interrupts: Interrupts) -> None:
        settings, data, allotment = opened.settings, opened.data, opened.allotment
        objective = get_objective(settings.objective)
        budget = budget_for(settings, data.num_images["train"])
        self._opened, self._interrupts, self._budget = opened, interrupts, budget
        self._paths, self._pages = paths_of(settings), dict(opened.texts)
        self._note = ""
        self._board = Board(
            title=f"{settings.name}: {opened.space.name} on {data.name}",
            objective=objective,
            num_trials=budget.num_trials,
            num_slots=len(allotment.slots),
            timeout_seconds=budget.timeout_seconds,
            data_name=data.name,
            earlier_seconds=opened.recording.spool.active_seconds(),
            ended_seconds=opened.recording.spool.active_seconds(up_to_end=True),
            counts_untrained=settings.counts_untrained,
            max_epochs=settings.max_total_epochs,
            rungs=budget.rungs.steps if settings.pruner in HALVING else (),
            reduction_factor=settings.reduction_factor if settings.pruner in HALVING else None,
        )
        recorder = Recorder(
            opened.recording.spool, opened.space, data, self._paths,
            BestModels(objective, settings.num_kept_models), settings.training,
            run_page=opened.recording.run_page,
        )  # fmt: skip
        target = settings.target
        plan = LoopPlan(
            space=opened.space,
            data=data,
            num_trials=budget.num_trials,
            schedule=Schedule(budget.num_epochs, reports=budget.rungs.reports),
            seed=settings.seed,
            slots=allotment.slots,
            paths=self._paths,
            training=settings.training,
            rules=StopRules(
                timeout_seconds=budget.timeout_seconds,
                max_total_epochs=settings.max_total_epochs,
                target=None if target is None else parse_target(target, objective),
                patience_trials=settings.patience_trials,
            ),
            num_retries=settings.num_retries,
            stall_seconds=settings.stall_seconds,
            num_audited=settings.num_audited,
            layout=allotment.layout,
            level=allotment.level,
            trials_per_gpu=settings.trials_per_gpu,
            protects_baselines=settings.protect_baselines,
            rungs=budget.rungs.steps if settings.pruner in HALVING else (),
            limits=parse_limits(settings.limits),
            pool=allotment.pool,
            node_wait_seconds=settings.node_wait_seconds,
        )
        views = Views((view, ReportView(self._paths)))
        self._session = Session(
            plan, self._board, recorder, opened.recording, opened.executor, views, interrupts
        )

    def run(self) -> SweepResult:
        """Runs the sweep to its end."""
        self._session.begin(self._start_record)
        _import_for_the_end()
        end = self._session.run_loop(lambda: self._opened.engine, self._packed, self._write_report)
        outcome, reason, error = self._outcome(end), end.reason, end.error
        if self._interrupts.received and outcome is Outcome.FAILED:
            outcome, reason, error = Outcome.INTERRUPTED, StopReason.INTERRUPTED.value, ""
        problems = [*end.problems, *self._record_end(outcome, reason, suspended=end.suspended)]
        problems += self._session.send_rest()
        best, seconds = self._board.best(), self._board.elapsed_seconds()
        reached = f", best {best.value:.6g} ({best.name})" if best is not None else ""
        sweep_log.info(
            "the sweep is %s after %.0f s: %s%s", outcome.value, seconds, reason, reached
        )
        return SweepResult(
            outcome,
            self._board,
            reason,
            error,
            tuple(problems),
            unfinished=end.suspended or outcome is Outcome.INTERRUPTED,
            recorded=not self._opened.recording.spool.aside_lines(),
            cause=end.cause,
        )

    def _outcome(self, end: LoopEnd) -> Outcome:
        if end.interrupted:
            return Outcome.INTERRUPTED
        if end.stop is None or end.error or end.stop is StopReason.FAILING:
            return Outcome.FAILED
        return Outcome.FAILED if self._board.best() is None else Outcome.DONE

    def _start_record(self) -> None:
        settings, data = self._opened.settings, self._opened.data
        params = settings.as_params() | {
            "dataset": data.name,
            "num_trials": self._budget.num_trials,
            "num_epochs": self._budget.num_epochs,
            "rungs": self._budget.rungs.text,
            "timeout_seconds": self._budget.timeout_seconds,
        }
        assert settings.name is not None
        self._session.recorder.sweep_started(
            settings.name, self._opened.file.uid, params, self._opened.tags
        )
        self._save_view()

    def _save_view(self, telling: Sequence[str] = (), frame: Sequence[float] | None = None) -> None:
        """What MLflow's page of the trials shows.

        Args:
            telling: the parameters to show, in their order; empty while nothing was tried.
            frame: what the curves show of the objective, from and to; None for all of it.
        """
        space, objective = self._opened.space, self._board.objective
        parameters = {
            recorded_name(parameter.name): parameter
            for parameter in space.parameters
            if parameter.kind != "fixed"
        }
        # What is drawn on a log axis, the learning rate above all, decides most.
        by_scale = sorted(parameters, key=lambda name: parameters[name].sampling != "log")
        names = [name for name in telling if name in parameters] or by_scale
        view = TrialsView(
            name=self._paths.name,
            uid=self._opened.file.uid,
            metric=objective.metric,
            params=names,
            log_params=[name for name in names if parameters[name].sampling == "log"],
            minimize=objective.direction == "minimize",
            names=self._session.recorder.names,
            has_steps=self._budget.rungs.reports.per_epoch > 1,
            frame=frame,
        )
        of_sweeps = sweeps_tags(view.metric, view.names, now_ms(), minimize=view.minimize)
        self._session.recorder.views({**trials_tags(view, now_ms()), **of_sweeps})

    def _packed(self, plan: LoopPlan, watch: GpuWatch | None) -> LoopPlan:
        """Settles how many trials share a GPU."""
        opened = self._opened
        bench = Bench(
            self._measure_task, opened.executor, watch, self._interrupts,
            self._paths.sweep / "measuring", seconds_for(self._budget.timeout_seconds), opened.say,
        )  # fmt: skip
        found = packed(
            opened.allotment, opened.settings.trials_per_gpu, self._budget.num_trials,
            self._paths.packing, self._session.recorder.packed, bench,
        )  # fmt: skip
        self._board.num_slots = len(found.slots)
        return replace(plan, slots=found.slots, level=found.level)

    def _measure_task(self) -> MeasureTask:
        settings, space = self._opened.settings, self._opened.space
        point = measured_point(space, baselines=settings.baselines)
        return MeasureTask(
            space.key, (point,), self._opened.data, self._budget.num_epochs, settings.seed,
            settings.training, sources=space.sources,
        )  # fmt: skip

    def _write_report(self, stop: StopReason) -> None:
        try:
            report = write_report(self._paths, stop.value)
            self._pages |= report.texts
            self._note = report.note
            self._save_view(report.telling, report.frame)
        except Exception as problem:  # A page must not cost the sweep its end.
            log.warning("no report: %s", self._session.broke_off(problem))

    def _record_end(self, outcome: Outcome, reason: str, *, suspended: bool) -> list[str]:
        """Records how the sweep ended or waits; one line per problem."""
        recorder = self._session.recorder
        try:
            if suspended:
                recorder.sweep_waits("SCHEDULED", reason)
            else:
                recorder.sweep_ended(self._end_record(outcome, reason))
            # FAILED by one cause in all trials is an end, too; an interrupt is not.
            waits = suspended or outcome is Outcome.INTERRUPTED
            state = replace(self._opened.file, status=INTERRUPTED if waits else FINISHED)
            write_sweep_file(self._paths.state, state)
        except OSError as error:
            return [f"the end of the sweep was not written: {error}; resume it"]
        return []

    def _end_record(self, outcome: Outcome, reason: str) -> SweepEnd:
        from tracking.spool.records import SweepEnd

        board = self._board
        tags, metrics = {Tag.STOPPED_BY: reason}, {}
        if self._note:
            tags[Tag.RUN_NOTE] = self._note
        best = board.best()
        if best is not None and best.value is not None:
            tags[Tag.BEST_TRIAL] = str(best.number)
            tags[Tag.BEST_PARAMS] = params_text(best.params)
        metrics["total_training_seconds"] = round(board.compute_seconds(), 3)
        metrics["total_epochs"] = round(float(board.num_epochs_trained()), 3)
        metrics["wall_seconds"] = round(board.elapsed_seconds(), 3)
        for state in TrialState:
            if state.is_end:
                metrics[f"num_{state.value.lower()}"] = float(len(board.in_state(state)))
        if board.audits:
            metrics["num_audited"] = float(len(board.audits))
            metrics["audit_top"] = float(board.audit_top())
        return SweepEnd(
            status=STATUS_NAMES.get(outcome, "FAILED"),  # type: ignore[arg-type]
            tags=tags,
            metrics=metrics,
            texts=self._pages,
            leaderboard=leaderboard_columns(board) if board.rows else {},
        )


def _import_for_the_end() -> None:
    """Imports what the report needs while the first trial trains."""
    import threading

    def work() -> None:
        import matplotlib.figure  # noqa: F401
        import plotly.offline  # noqa: F401

        import sweeps.engines.optuna_study.importance  # noqa: F401

    threading.Thread(target=work, daemon=True, name="imports").start()
