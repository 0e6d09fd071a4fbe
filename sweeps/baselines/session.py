"""`--baselines-only`: every published model trained as published, beside what was published."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.data.prepared import PreparedData
from pipelines.objectives import OBJECTIVES, get_objective
from pipelines.training.options import TrainingOptions
from pipelines.training.trial import Schedule, TrialResult
from search_spaces.errors import InputError, unknown_name
from search_spaces.registry import all_baselines, baselines_of, earlier_name, get_space
from search_spaces.space import Baseline
from sweeps.baselines.report import BaselinesReport, Reproduced
from sweeps.driver.board.board import Board
from sweeps.driver.board.row import TrialRow
from sweeps.driver.board.views import View
from sweeps.driver.plan import LoopPlan, trial_seed
from sweeps.driver.records.recorder import BestModels, Recorder
from sweeps.driver.records.spooled_trials import past_trials, read_trials
from sweeps.driver.search import STATUS_NAMES
from sweeps.driver.session import LoopEnd, Recording, Session
from sweeps.engines.base import Proposal, TrialPlan, TrialState
from sweeps.engines.fixed import FixedEngine
from sweeps.formatting import count
from sweeps.interrupts import Interrupts
from sweeps.outcome import Outcome
from sweeps.resources.auto_compute import decide_compute
from sweeps.resources.machine import Allotment, allot, detect_machine, with_gpus
from sweeps.settings import SweepSettings
from sweeps.setup.data import prepare_data, reopen_data
from sweeps.setup.resume import merged
from sweeps.setup.stores import Destination, check_locations, chosen_experiment
from sweeps.state.lock import driving
from sweeps.state.log import told
from sweeps.state.paths import SweepPaths, claim_name, compiled_folder, paths_of
from sweeps.state.sweep_file import (
    BASELINES,
    FINISHED,
    INTERRUPTED,
    RUNNING,
    SweepFile,
    check_same_data,
    check_same_store,
    write_sweep_file,
)
from sweeps.workers.jobs import train_job, warm_up
from sweeps.workers.start import start_workers
from tracking.addresses import redacted
from tracking.spool.records import SweepEnd
from tracking.stores import resolve_uri
from tracking.tags import Tag

if TYPE_CHECKING:
    from tracking.spool.spool import Spool

NUM_FURTHER_SEEDS = 2
"""RMSprop at 0.001 without decay has a heavy lower tail after five epochs (four seeds of
`cnn3_valid_60k` reached 0.9822, 0.9898, 0.9916, 0.9935), so one seed is not a verdict. A baseline
off by more than the tolerance is trained on this many further seeds, whatever they bring, and the
median of all of them is compared; every value is shown."""


@dataclass(frozen=True)
class BaselinesStart:
    """What was asked for, beside the settings themselves.

    Attributes:
        say: tells a person, one line a call.
        given: names of the settings that were given; the others are defaults.
        earlier: the training of published models that is to go on; None for a new one.
        accept_changes: whether settings that matter may change then.
    """

    say: Callable[[str], None]
    view: Callable[[], View]
    given: Collection[str] = ()
    earlier: SweepFile | None = None
    accept_changes: bool = False


@dataclass(frozen=True)
class BaselinesResult:
    """How a session ended.

    Attributes:
        error: what broke it off, one line.
        problems: what else people should know, a line each.
        recorded: whether the server has everything that was to be sent, and accepted it.
    """

    outcome: Outcome
    report: BaselinesReport
    file: SweepFile
    error: str = ""
    problems: tuple[str, ...] = ()
    recorded: bool = True


def reproduce_baselines(settings: SweepSettings, start: BaselinesStart) -> BaselinesResult:
    """Trains the baselines of one space, or of all; or goes on with them.

    One seed each; one that is off is trained on two further seeds, and the median counts. The
    outcome is FAILED where a baseline failed or, on the data set of its publication, differs by
    more than seeds explain.

    Raises:
        InputError: The settings or places cannot be used; nothing was started.
        KeyboardInterrupt: An interrupt came before the first training.
    """
    start = replace(start, say=told(start.say))
    say, earlier = start.say, start.earlier
    if earlier is not None:
        settings = merged(earlier, settings, start.given, accept=start.accept_changes)
    settings.validate_common(resumed=earlier is not None)
    if get_objective(settings.objective).metric not in OBJECTIVES:
        raise unknown_name("objective", settings.objective, OBJECTIVES)
    check_locations(settings, with_study=False, resume=earlier is not None)
    if earlier is None:
        settings = replace(settings, experiment=chosen_experiment(settings, say))
    had_earlier_names = earlier is not None and earlier.has_earlier_names
    chosen = list(baselines_of(settings.space, earlier=had_earlier_names))
    settings.training.check(get_space(chosen[0].space))
    say(f"keras-sweeps: {count(len(chosen), 'published baseline')}, trained as published")
    root = Path(settings.work_dir).absolute()
    if earlier is None:
        data = prepare_data(settings.dataset or "mnist", root / "data", settings.image_options)
    else:
        data = reopen_data(earlier.data_name, earlier.data_fingerprint, root / "data", settings)
    machine = with_gpus(detect_machine(settings.training.backend), settings.gpus)
    allotment = allot(machine, settings.num_workers, settings.num_threads, 1)
    if earlier is None:
        first = get_space(chosen[0].space)
        settings = decide_compute(settings, first, data, allotment.slots[0], say).settings
        settings = replace(
            settings,
            name=claim_name(settings, f"baselines-{data.name}"),
            experiment=settings.experiment or f"baselines-{data.name}",
            dataset=settings.dataset or data.name,
            tracking_uri=resolve_uri(settings.tracking_uri),
        )
        file = SweepFile(
            uuid.uuid4().hex, RUNNING, settings, data.name, data.fingerprint, "", BASELINES
        )
    else:
        check_same_data(earlier, data.fingerprint, earlier.space_fingerprint)
        file = replace(earlier, status=RUNNING, settings=settings)
    name, uri = settings.name, resolve_uri(settings.tracking_uri)
    say(f"data      {data.name} ({data.origin}): {data.sizes()}")
    say(f"machine   {allotment.reason}")
    say(f"compute   {settings.training.compute.text}")
    resumed = ", resumed" if earlier is not None else ""
    say(f"tracking  {redacted(uri)}, run {name}{resumed}")
    with driving(paths_of(settings)), Interrupts() as interrupts:
        try:
            opened = _Baselines(file, chosen, data, allotment, interrupts, start)
        except InputError:
            if earlier is None:  # Nothing has begun: the name is free again.
                shutil.rmtree(paths_of(settings).sweep, ignore_errors=True)
            raise
        return opened.run()


class _Baselines:
    """One session. The lock of its folder must be held."""

    def __init__(
        self,
        file: SweepFile,
        chosen: list[Baseline],
        data: PreparedData,
        allotment: Allotment,
        interrupts: Interrupts,
        start: BaselinesStart,
    ) -> None:
        from tracking.spool.spool import Spool

        settings = file.settings
        self._file, self._chosen, self._data, self._start = file, chosen, data, start
        self._settings, self._paths = settings, paths_of(settings)
        self._objective = get_objective(settings.objective)
        self._spool: Spool = Spool(self._paths.spool)
        uri = resolve_uri(settings.tracking_uri)
        if start.earlier is not None:
            check_same_store(start.earlier, uri, sent=bool(self._spool.answers()))
        # As published: nothing ends a training early, and no class weighs more than another.
        compute = settings.training.compute
        training = replace(settings.training, early_stopping=None, class_weights="none")
        self._recorder = _BaselineRecorder(
            chosen, self._spool, data, self._paths, training, earlier=file.has_earlier_names
        )
        plan = LoopPlan(
            space=get_space(chosen[0].space),
            data=data,
            num_trials=len(chosen) * (1 + NUM_FURTHER_SEEDS),
            schedule=Schedule(1),  # Each has its own.
            seed=settings.seed,
            slots=allotment.slots,
            paths=self._paths,
            training=training,
            num_retries=settings.num_retries,
            stall_seconds=settings.stall_seconds,
            layout=allotment.layout,
            level=allotment.level,
            trials_per_gpu=1,
            is_fixed=True,
            job=train_job,
        )
        board = Board(
            title=f"published models on {data.name}",
            objective=self._objective,
            num_trials=len(chosen),
            num_slots=len(allotment.slots),
            timeout_seconds=None,
            data_name=data.name,
            competes=False,
        )
        spare = None if training.deterministic else warm_up
        executor = start_workers(
            self._paths.server_log, compute.backend, spare, compiled_folder(settings),
            settings.pass_env,
        )  # fmt: skip
        try:
            destination = None
            if not settings.offline:
                destination = Destination(settings, data.name, self._spool)
                destination.check()
            write_sweep_file(self._paths.state, file)
            assert settings.name is not None
            self._session = Session(
                plan, board, self._recorder,
                Recording(self._spool, settings.name, uri, destination),
                executor, start.view(), interrupts,
            )  # fmt: skip
        except BaseException:
            executor.close()
            raise

    def run(self) -> BaselinesResult:
        """Trains what is missing, and compares."""
        self._session.begin(self._start_record)
        end = self._session.run_loop(self._engine)
        report = self._report()
        outcome, error = self._outcome(end, report), end.error
        problems = [*end.problems, *self._record_end(end, outcome), *self._session.send_rest()]
        waiting = 0 if self._settings.offline else self._spool.num_waiting
        recorded = not waiting and not self._spool.aside_lines()
        return BaselinesResult(outcome, report, self._file, error, tuple(problems), recorded)

    def _engine(self) -> FixedEngine:
        """What is to be trained still; those that were off go on with their further seeds."""
        wanted = [*self._plan(0), *self._further_seeds(say=False)]
        past, wanted = past_trials(wanted, read_trials(self._spool), self._objective)
        return FixedEngine(wanted, past, self._further_seeds)

    def _plan(self, attempt: int) -> list[Proposal]:
        return [self._proposal(baseline, attempt) for baseline in self._chosen]

    def _proposal(self, baseline: Baseline, attempt: int) -> Proposal:
        # The same seeds whichever baselines are chosen, and whichever needed more of them.
        everything = [known.name for known in all_baselines()]
        seed = trial_seed(
            self._settings.seed, everything.index(baseline.name) + attempt * len(everything)
        )
        schedule = Schedule(
            self._settings.num_epochs or baseline.num_epochs,
            baseline.train_on,
            keep="last",
            reload=baseline.reload,
            measure_test=True,
        )
        return Proposal(
            self._number(baseline, attempt),
            baseline.params,
            baseline=baseline.name,
            name=baseline.name,
            plan=TrialPlan(schedule, get_space(baseline.space), seed),
        )

    def _number(self, baseline: Baseline, attempt: int) -> int:
        return self._chosen.index(baseline) + attempt * len(self._chosen)

    def _further_seeds(self, *, say: bool = True) -> Sequence[Proposal]:
        """Further seeds of the baselines whose first one was off."""
        results, wanted = self._results(), []
        for baseline in self._chosen:
            first = results[baseline.name][:1]
            if not first or not self._as_published(baseline) or not first[0].is_off(baseline):
                continue
            further = [self._proposal(baseline, 1 + k) for k in range(NUM_FURTHER_SEEDS)]
            if say and further[0].number not in self._session.board.rows:
                gap = first[0].difference_points(baseline)
                self._start.say(
                    f"{baseline.name} is off by {gap:+.2f} percentage points: training two more "
                    "seeds"
                )
            wanted += further
        return wanted

    def _results(self) -> dict[str, list[Reproduced]]:
        """By baseline, what the spool holds of each seed that is complete; the first one first."""
        ends = read_trials(self._spool).ends
        found: dict[str, list[Reproduced]] = {}
        for baseline in self._chosen:
            numbers = [self._number(baseline, k) for k in range(1 + NUM_FURTHER_SEEDS)]
            found[baseline.name] = [
                Reproduced.of(ends[number].metrics) for number in numbers if number in ends
            ]
        return found

    def _as_published(self, baseline: Baseline) -> bool:
        return self._settings.num_epochs is None and baseline.dataset == self._data.name

    def _report(self) -> BaselinesReport:
        failures = {
            row.baseline: row.reason for row in self._session.board.in_state(TrialState.FAILED)
        }
        return BaselinesReport(
            tuple(self._chosen),
            self._results(),
            self._data.name,
            frozenset(b.name for b in self._chosen if self._as_published(b)),
            {name: reason for name, reason in failures.items() if name is not None},
        )

    def _outcome(self, end: LoopEnd, report: BaselinesReport) -> Outcome:
        if end.interrupted:
            return Outcome.INTERRUPTED
        return Outcome.FAILED if end.error or report.problems() else Outcome.DONE

    def _start_record(self) -> None:
        from tracking.provenance import git_tags, version_tags

        assert self._settings.name is not None
        params: dict[str, object] = {
            "dataset": self._data.name,
            "seed": self._settings.seed,
            **self._session.plan.training.stored(),
        }
        tags = {**git_tags(), **version_tags(), Tag.TEST_SPLIT_READ: "true"}
        self._recorder.sweep_started(self._settings.name, self._file.uid, params, tags)

    def _record_end(self, end: LoopEnd, outcome: Outcome) -> list[str]:
        """Records how it ended or waits; one line per problem."""
        waits = end.suspended or outcome is Outcome.INTERRUPTED
        try:
            if end.suspended:
                self._recorder.sweep_waits("SCHEDULED", end.reason)
            else:
                status = STATUS_NAMES.get(outcome, "FAILED")
                self._recorder.sweep_ended(SweepEnd(status, {Tag.STOPPED_BY: end.reason}))  # type: ignore[arg-type]
            state = replace(self._file, status=INTERRUPTED if waits else FINISHED)
            write_sweep_file(self._paths.state, state)
        except OSError as error:
            return [f"the end was not written: {error}; resume it"]
        return []


class _BaselineRecorder(Recorder):
    """Records trainings of published models, with what was published beside what they reach."""

    has_view = False

    def __init__(
        self,
        chosen: Sequence[Baseline],
        spool: Spool,
        data: PreparedData,
        paths: SweepPaths,
        training: TrainingOptions,
        *,
        earlier: bool,
    ) -> None:
        models = BestModels(get_objective("val_accuracy"), 0)
        super().__init__(spool, None, data, paths, models, training)
        self._earlier = earlier
        self._by_name = {baseline.name: baseline for baseline in chosen}

    def models_known(self, board: Board) -> None:
        """No model is kept."""

    def progress(self, board: Board) -> None:
        """Baselines do not compete."""

    def _params_of(self, row: TrialRow) -> dict[str, object]:
        return {**super()._params_of(row), "train_on": row.schedule.train_on}

    def _tags_of(self, row: TrialRow) -> dict[str, str]:
        name = row.space.name
        return {**super()._tags_of(row), Tag.SPACE: earlier_name(name) if self._earlier else name}

    def _metrics_of(self, row: TrialRow, result: TrialResult) -> dict[str, float]:
        baseline = self._by_name[row.baseline or ""]
        metrics = {
            "published_test_accuracy": baseline.accuracy,
            "num_parameters": float(result.num_parameters),
            "training_seconds": round(result.training_seconds, 3),
        }
        if baseline.loss is not None:
            metrics["published_test_loss"] = baseline.loss
        return metrics
