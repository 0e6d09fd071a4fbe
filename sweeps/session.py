"""One sweep from settings to summary: opens everything, runs the loop, closes everything."""

from __future__ import annotations

import shutil
import sys
import traceback
import uuid
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.compute import compute_tags
from pipelines.measuring import MeasureTask
from pipelines.objectives import get_objective
from pipelines.prepared import PreparedData
from search_spaces.errors import InputError, redacted, scrubbed
from search_spaces.references import is_reference
from search_spaces.registry import get_space, short_name
from search_spaces.space import Space
from sweeps.board import Board
from sweeps.calibration import measured_point
from sweeps.chosen_space import source_tags, space_of
from sweeps.cli import DONE, FAILED, INTERRUPTED
from sweeps.compute_choice import decide_compute
from sweeps.data_opening import sweep_data
from sweeps.devices import Allotment, allot, detect_machine, with_gpus
from sweeps.engines.base import TrialState
from sweeps.formatting import count, params_text
from sweeps.gpu_watch import GpuWatch, closed, watch_over
from sweeps.interrupts import Interrupts
from sweeps.jobs import warm_up
from sweeps.keeping import BestModels
from sweeps.leaderboard import leaderboard_columns, print_summary, top_of
from sweeps.next_steps import print_next_steps
from sweeps.opening import open_engine, open_tracker
from sweeps.packing_start import packed
from sweeps.places import SweepPaths, claim_name
from sweeps.plan import Plan
from sweeps.plan_texts import left_out_text, pruner_text, trials_text
from sweeps.preflight import check_places
from sweeps.recorder import Recorder
from sweeps.resolved import CONFIG_FILE, resolved_config
from sweeps.resuming import merged, sweep_to_resume
from sweeps.sending import send_rest
from sweeps.settings import FinalOptions, SweepSettings, budget_for
from sweeps.stop_rules import StopReason, StopRules, parse_target
from sweeps.stored_sweep import StoredSweep
from sweeps.sweep import Sweep
from sweeps.sweep_file import (
    FINISHED,
    RUNNING,
    SweepFile,
    check_same_data,
    check_same_store,
    driving,
    write_sweep_file,
)
from sweeps.sweep_file import (
    INTERRUPTED as WAITS,
)
from sweeps.views import make_view, speaker
from sweeps.workers import start_workers
from tracking.stores import resolve_uri

if TYPE_CHECKING:
    from sweeps.engines.base import Engine
    from sweeps.executors.base import Executor
    from tracking.mlflow_tracker import MlflowTracker
    from tracking.records import SweepEnd
    from tracking.sender import Sender
    from tracking.spool import Spool


@dataclass(frozen=True)
class Start:
    """What was asked for on the command line, beside the settings themselves.

    Attributes:
        given: names of the settings that were given; the others are defaults.
        resume: whether a sweep is to be resumed.
        accept_changes: whether settings that matter may change then.
    """

    given: Collection[str] = ()
    resume: bool = False
    accept_changes: bool = False
    quiet: bool = False


def run_sweep(settings: SweepSettings, start: Start) -> int:
    """Runs a sweep, or goes on with one, and prints its result; returns the exit status.

    Raises:
        InputError: The settings or the places they name cannot be used; nothing was started.
    """
    say = speaker(start.quiet)
    earlier = sweep_to_resume(settings, start.given, resume=start.resume)
    if earlier is not None:
        settings = merged(earlier, settings, start.given, accept=start.accept_changes)
        settings.validate(resumed=True)
    name = short_name(settings.space)
    say(f"keras-sweeps: space {name}, {count(settings.num_trials, 'trial')}")
    check_places(settings, resume=earlier is not None)
    machine = with_gpus(detect_machine(settings.backend), settings.gpus)
    allotment = allot(machine, settings.num_workers, settings.num_threads, settings.trials_per_gpu)
    data = sweep_data(settings, earlier)
    space = _open_space(settings, data, say)
    how = ""
    if earlier is None:
        decided = decide_compute(settings, space, data, allotment.slots[0], say)
        settings, how = decided.settings, decided.reason
        settings = replace(settings, name=claim_name(settings, f"{name}-{data.name}"))
    paths = _paths(settings)
    with ExitStack() as stack:
        stack.enter_context(driving(paths))
        if "trials_per_gpu" in start.given:
            paths.packing.unlink(missing_ok=True)  # What an earlier session found out.
        file = _sweep_file(settings, data, space, earlier)
        _say_plan(say, settings, data, allotment, how, resumed=earlier is not None)
        interrupts = stack.enter_context(Interrupts())
        settings = file.settings
        try:
            session = open_session(settings, space, data, allotment, interrupts, file, earlier)
        except InputError:
            if earlier is None:
                # There is no study, so the name is free again. After an interrupt there may be
                # one: then the sweep has begun, and can be resumed.
                shutil.rmtree(paths.sweep, ignore_errors=True)
            raise
        status = session.run(interrupts, quiet=start.quiet)
        if status != DONE or not settings.num_finalists:
            return status
        from sweeps.finalization import finalize

        options = FinalOptions(
            settings.num_finalists, settings.num_finalist_seeds, settings.retrain
        )
        return finalize(StoredSweep(paths, file), options, interrupts, quiet=start.quiet)


def _open_space(settings: SweepSettings, data: PreparedData, say: Callable[[str], None]) -> Space:
    """The sweep's space; says what people should know of it."""
    if is_reference(settings.space):
        title = settings.compute.title
        say(f"looking at the space: importing {title} and building models takes some seconds")
    space = space_of(settings, data)
    for note in space.notes:
        print(f"WARNING: {note}", file=sys.stderr, flush=True)
    if space.narrowing:
        left_out = left_out_text(space, get_space(settings.space)) if settings.baselines else ""
        say(f"narrowed  {' '.join(space.narrowing)}{left_out}")
    return space


def _sweep_file(
    settings: SweepSettings, data: PreparedData, space: Space, earlier: SweepFile | None
) -> SweepFile:
    """The description to store; raises InputError where data or space are not what they were."""
    if earlier is not None:
        check_same_data(earlier, data.fingerprint, space.fingerprint)
    uid = earlier.uid if earlier is not None else uuid.uuid4().hex
    # As resolved now: another environment must not send the rest of the sweep somewhere else.
    settings = replace(settings, tracking_uri=resolve_uri(settings.tracking_uri))
    return SweepFile(uid, RUNNING, settings, data.name, data.fingerprint, space.fingerprint)


def _paths(settings: SweepSettings) -> SweepPaths:
    assert settings.name is not None
    return SweepPaths(Path(settings.work_dir).absolute(), settings.name)


def _say_plan(
    say: Callable[[str], None],
    settings: SweepSettings,
    data: PreparedData,
    allotment: Allotment,
    how: str,
    *,
    resumed: bool,
) -> None:
    budget = budget_for(settings, data.num_images["train"])
    say(f"data      {data.name} ({data.origin}): {data.sizes()}; {data.split}")
    for line in data.notes:
        say(f"          {line}")
    say(f"machine   {allotment.reason}")
    say(f"compute   {settings.compute.text}{f' ({how})' if how else ''}")
    say(f"trials    {trials_text(settings, budget)}")
    say(f"pruner    {pruner_text(settings, budget)}")
    where = redacted(resolve_uri(settings.tracking_uri))
    if settings.offline:
        where = f"offline; `keras-sweeps sync {settings.name}` sends it to {where}"
    say(f"tracking  {where}, sweep {settings.name}" + (", resumed" if resumed else ""))
    say(f"starting the workers: importing {settings.compute.title} takes some seconds, once")


def open_session(
    settings: SweepSettings,
    space: Space,
    data: PreparedData,
    allotment: Allotment,
    interrupts: Interrupts,
    file: SweepFile,
    earlier: SweepFile | None,
) -> Session:
    """Opens storage, study, workers, spool and tracker.

    The server of workers imports TensorFlow while MLflow is imported here: each takes seconds.

    Raises:
        InputError: A store cannot be used, or the name is taken.
        KeyboardInterrupt: An interrupt came before the first trial.
    """
    paths = _paths(settings)
    # First, because the server's import takes longest: everything else happens meanwhile.
    # What repeats bit for bit is decided before a device starts: no process is warm by then.
    spare = None if settings.deterministic else warm_up
    executor = start_workers(paths.server_log, settings.backend, warm_up=spare)
    try:
        from tracking.spool import Spool

        spool = Spool(paths.spool)
        if earlier is not None:
            uri = resolve_uri(settings.tracking_uri)
            check_same_store(earlier, uri, sent=bool(spool.answers()))
        else:
            # Before the study: a study that no sweep on disk knows would block the name.
            write_sweep_file(paths.state, file)
        tracker = None
        if not settings.offline:
            tracker = open_tracker(settings, data.name, spool)
        # The study last: what can be refused is refused before it exists.
        num = allotment.num_parallel
        engine = open_engine(settings, space, data, file, num, begun=spool.has("trial-0"))
        if earlier is not None:
            write_sweep_file(paths.state, file)  # Only now: the addresses are good.
        if interrupts.received:
            raise KeyboardInterrupt
    except BaseException:
        executor.close()
        raise
    return Session(settings, space, data, allotment, file, engine, executor, spool, tracker)


def _import_for_the_end() -> None:
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
        self._paths = _paths(settings)
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
                allotment, self._settings.trials_per_gpu, self._paths, self._recorder,
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
        from tracking.context import git_tags, version_tags

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
        from tracking.sender import Sender

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
        from tracking.records import SweepEnd

        board = self._board
        tags, metrics = {"sweeps.stopped_by": reason}, {}
        best = board.best()
        if best is not None and best.value is not None:
            tags["sweeps.best_trial"] = str(best.number)
            tags["sweeps.best_params"] = params_text(best.params)
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
