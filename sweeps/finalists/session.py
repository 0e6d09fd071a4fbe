"""The final comparison of a sweep: the best configurations on fresh seeds, and the winner's model.

The winner follows from the validation values of the fresh seeds. The test split is read for the
first time here, once per trained model, and decides nothing: what it says of the winner is not the
best of several tries.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from pipelines.data.prepared import PreparedData
from pipelines.objectives import get_objective
from pipelines.training.trial import Schedule
from search_spaces.hyperparameters.parameter import recorded_params
from search_spaces.space import Space
from sweeps.driver.board.board import Board
from sweeps.driver.board.row import TrialRow
from sweeps.driver.board.views import View
from sweeps.driver.plan import LoopPlan
from sweeps.driver.records.recorder import metric_names
from sweeps.driver.records.spooled_trials import past_trials, read_trials, with_curve
from sweeps.driver.session import LoopEnd, Recording, Session
from sweeps.engines.base import Proposal, TrialState
from sweeps.engines.fixed import FixedEngine
from sweeps.finalists.estimates import RankedFinalist, compare, median_key
from sweeps.finalists.page import show_finalists
from sweeps.finalists.recording import FinalistRecorder, WinnerRecorder, remove_leftovers
from sweeps.finalists.report import scale_of
from sweeps.finalists.selection import (
    FinalistResult,
    FinalistsFile,
    begin_finalists,
    models_folder,
    sweep_run_id,
)
from sweeps.formatting import count
from sweeps.interrupts import Interrupts
from sweeps.outcome import Outcome
from sweeps.resources.machine import Allotment, allot, detect_machine, with_gpus
from sweeps.resources.packer import read_packing
from sweeps.settings import LOCAL_NOTE, FinalOptions
from sweeps.setup.data import SHOWN, DataProgress, reopen_data
from sweeps.setup.space import source_tags, space_of
from sweeps.setup.stores import Destination, check_tracking
from sweeps.state.log import sweep_log, told
from sweeps.state.paths import compiled_folder
from sweeps.state.recorded_options import compute_tags
from sweeps.state.sweep_file import StoredSweep, check_same_data
from sweeps.workers.jobs import train_job, warm_up
from sweeps.workers.start import start_workers
from tracking.spool.records import SweepEnd, TrialRecord, now_ms
from tracking.tags import Tag
from tracking.views.sweep_views import TrialsView, finalists_tags

Say = Callable[[str], None]


@dataclass(frozen=True)
class ComparisonResult:
    """How a session of a comparison ended.

    Attributes:
        report: the table; empty where there is none yet.
        error: what failed, one line.
        problems: what else people should know, a line each.
        cause: what broke it off, where it was raised in this process.
        ranking: the finalists, best first; the first one is the winner.
        keeps_model: whether the winner's model could be kept.
        sent: whether anything was sent to the tracking store.
        recorded: whether everything that was sent was accepted.
        ran: whether this session trained anything; else an earlier one had ended the comparison.
    """

    outcome: Outcome
    report: str = ""
    error: str = ""
    problems: tuple[str, ...] = ()
    keeps_model: bool = True
    sent: bool = True
    recorded: bool = True
    ran: bool = True
    ranking: tuple[FinalistResult, ...] = ()
    cause: Exception | None = None


@dataclass(frozen=True)
class Output:
    """Where progress goes: `view` receives trials, `say` the rest, one line a call."""

    view: Callable[[], View]
    say: Say
    data_progress: DataProgress = SHOWN


def finalize(
    sweep: StoredSweep, options: FinalOptions, interrupts: Interrupts, output: Output
) -> ComparisonResult:
    """Runs the comparison of a sweep, or goes on with it, or tells what it found.

    The sweep's lock must be held.

    Raises:
        InputError: Data or space changed, or a comparison with other options began.
    """
    output = replace(output, say=told(output.say))
    settings, name, say = sweep.file.settings, sweep.paths.name, output.say
    data = reopen_data(
        sweep.file.data_name,
        sweep.file.data_fingerprint,
        sweep.paths.data,
        settings,
        progress=output.data_progress,
    )
    space = space_of(settings, data)
    check_same_data(sweep.file, data.fingerprint, space.fingerprint)
    if not sweep.paths.finalists_file.exists():
        check_tracking(sweep)  # What is begun is fixed for ever.
    file = begin_finalists(sweep, space, options, data.num_images["train"])
    if file.finished:
        remove_leftovers(sweep.paths, file)  # A kill may have come before it was done.
        say(f"{name}: its finalists were compared after {count(file.num_trials, 'trial')}")
        return ComparisonResult(Outcome.DONE, file.report, ran=False, ranking=file.ranking)
    machine = with_gpus(detect_machine(settings.training.backend), settings.gpus)
    asked = settings.trials_per_gpu
    allotment = allot(machine, settings.num_workers, settings.num_threads, asked)
    places = (sweep.paths.finalists.packing, sweep.paths.packing)
    known = next(filter(None, (read_packing(p, allotment, asked) for p in places)), None)
    # What the sweep found out; without that, a comparison of a few trainings measures nothing.
    allotment = allotment.at(known.level if known is not None else asked or 1)
    num_trainings = len(file.finalists) * file.num_seeds
    say(f"finalists of {name}: {', '.join(finalist.name for finalist in file.finalists)}")
    say(f"trainings {num_trainings}: {count(file.num_seeds, 'fresh seed')} of each, "
        f"{count(file.num_epochs, 'epoch')}")  # fmt: skip
    say(f"machine   {allotment.reason}{LOCAL_NOTE if settings.executor == 'ray' else ''}")
    say(f"compute   {settings.training.compute.text}")
    try:
        return _Comparison(sweep, space, file, data, allotment, interrupts, output).run()
    finally:
        space.rest()


class _Comparison:
    """One session of a comparison. The sweep's lock must be held.

    Args:
        file: what the comparison began with.
    """

    def __init__(
        self,
        sweep: StoredSweep,
        space: Space,
        file: FinalistsFile,
        data: PreparedData,
        allotment: Allotment,
        interrupts: Interrupts,
        output: Output,
    ) -> None:
        from tracking.spool.spool import Spool

        settings = sweep.file.settings
        self._sweep, self._file, self._data, self._space = sweep, file, data, space
        self._settings, self._output, self._interrupts = settings, output, interrupts
        self._objective = get_objective(settings.objective)
        paths, self._models = sweep.paths.finalists, models_folder(sweep.paths)
        self._spool = Spool(paths.spool)
        self._recorder = FinalistRecorder(
            file, self._objective, self._models, self._spool, space, data, paths,
            settings.training, metric_names(Spool(sweep.paths.spool, read_only=True)),
        )  # fmt: skip
        num_trials = len(file.finalists) * file.num_seeds + (file.retrain == "all")
        plan = LoopPlan(
            space=space,
            data=data,
            num_trials=num_trials,
            schedule=Schedule(file.num_epochs),
            seed=file.seed,
            slots=allotment.slots,
            paths=paths,
            training=settings.training,
            num_retries=settings.num_retries,
            stall_seconds=settings.stall_seconds,
            job=train_job,
            layout=allotment.layout,
            level=allotment.level,
            trials_per_gpu=settings.trials_per_gpu,
            is_fixed=True,
        )
        board = Board(
            title=f"{sweep.paths.name}: finalists on fresh seeds",
            objective=self._objective,
            num_trials=num_trials,
            num_slots=len(allotment.slots),
            timeout_seconds=None,
            data_name=data.name,
        )
        spare = None if settings.training.deterministic else warm_up
        executor = start_workers(
            paths.server_log, settings.training.backend, spare, compiled_folder(settings),
            settings.pass_env,
        )  # fmt: skip
        try:
            self._destination = None
            if not settings.offline:
                parent = partial(sweep_run_id, sweep.paths)
                self._destination = Destination(settings, data.name, self._spool, parent)
                if not self._spool.has("sweep"):
                    self._destination()  # A store that cannot be used is said before any training.
            recording = Recording(
                self._spool, sweep.paths.name, sweep.uri, self._destination, (settings.storage,)
            )
            self._session = Session(
                plan, board, self._recorder, recording, executor, output.view(), interrupts
            )
        except BaseException:
            executor.close()
            raise

    def run(self) -> ComparisonResult:
        """Trains what is missing, chooses, and records."""
        self._session.begin(self._start_record)
        end = self._session.run_loop(self._engine)
        result = self._concluded(end)
        problems = [*end.problems, *result.problems, *self._session.send_rest()]
        if result.outcome is Outcome.DONE:
            problems += show_finalists(self._sweep, self._data.name, self._interrupts)
        sweep_log.info("the comparison of finalists is %s. %s", result.outcome.value, result.error)
        return ComparisonResult(
            result.outcome, result.report, result.error, tuple(problems), result.keeps_model,
            sent=self._destination is not None, recorded=not self._spool.aside_lines(),
            ranking=result.ranking, cause=end.cause,
        )  # fmt: skip

    def _engine(self) -> FixedEngine:
        """What is to be trained still; what earlier sessions completed is not trained again."""
        found, file = read_trials(self._spool), self._file
        retrained = [self._retrained(record) for record in self._spool.replay()
                     if isinstance(record, TrialRecord)
                     and record.number == file.retrained_number in found.ends]  # fmt: skip
        plan = [*file.plan(self._space), *retrained]
        past, wanted = past_trials(plan, found, self._objective, self._is_lost)
        if any(trial.number == file.retrained_number for trial in past):
            # The winner is known: finalists that failed before it was trained stay left out.
            return FixedEngine((), past)
        wanted = [proposal for proposal in wanted if proposal.number != file.retrained_number]
        return FixedEngine(wanted, past, self._retraining)

    def _retrained(self, record: TrialRecord) -> Proposal:
        """The winner's training on all data as an earlier session recorded its begin."""
        trial = int(record.tags[Tag.FINALIST_OF])
        finalist = next(f for f in self._file.finalists if f.trial == trial)
        num_epochs = int(str(record.params["last_epoch"]))
        return self._file.retraining(finalist, self._space, num_epochs)

    def _start_record(self) -> None:
        from tracking.provenance import git_tags, version_tags

        file, training = self._file, self._settings.training.stored()
        params = {
            "num_finalists": len(file.finalists),
            "num_finalist_seeds": file.num_seeds,
            "num_epochs": file.num_epochs,
            "retrain": file.retrain,
            "objective": self._settings.objective,
            "dataset": self._data.name,
            **training,
            "seed": file.seed,
        }
        tags = {
            **git_tags(),
            **version_tags(),
            **source_tags(self._space, self._data),
            **self._sweep.file.space_tags,
            **compute_tags(self._settings.training.compute),
            Tag.KIND: "finalists",
            Tag.SWEEP: self._sweep.paths.name,
            Tag.NUM_SEEDS: str(file.num_seeds),
            Tag.FINALISTS: ", ".join(str(f.trial) for f in file.finalists),
        }
        name = f"{self._sweep.paths.name} finalists"
        self._recorder.sweep_started(name, file.uid, params, tags)
        self._recorder.views(finalists_tags(self._view(), now_ms()))

    def _view(self) -> TrialsView:
        points = [
            recorded_params(self._space.parameters, finalist.params)
            for finalist in self._file.finalists
        ]
        differing = {
            name: None for point in points for name in point if point[name] != points[0].get(name)
        }
        return TrialsView(
            self._sweep.paths.name,
            self._file.uid,
            self._objective.metric,
            list(differing),
            self._recorder.names,
            minimize=self._objective.direction == "minimize",
        )

    def _is_lost(self, number: int) -> bool:
        """Whether a complete training's model is not where it belongs: a kill came before that."""
        end = read_trials(self._spool).ends[number]
        return "model_bytes" in end.metrics and not (self._models / f"{number}.keras").exists()

    # The winner

    def _retraining(self) -> Sequence[Proposal]:
        """The winner's training on all data, once all finalists have been trained."""
        judged, _ = self._judged()
        known = self._file.retrained_number in self._session.board.rows
        if self._file.retrain != "all" or not judged or known:
            return ()
        place = self._ranking(judged)[0].key
        rows = judged[place]
        num_epochs = math.ceil(sum(row.best_epoch or 1 for row in rows) / len(rows))
        finalist = self._file.finalists[place]
        self._output.say(f"{finalist.name}: training on all data for {count(num_epochs, 'epoch')}")
        proposal = self._file.retraining(finalist, self._space, num_epochs)
        return [with_curve(proposal, read_trials(self._spool), self._objective)]

    def _judged(self) -> tuple[dict[int, list[TrialRow]], dict[int, str]]:
        """The trainings of each finalist that is compared, and which finalists lack some.

        A configuration of which some seeds fail is judged only where that is so with all of them:
        those that completed would be the best of them, and their mean too high.
        """
        file = self._file
        rows: dict[int, list[TrialRow]] = {}
        for row in self._session.board.in_state(TrialState.COMPLETE):
            if row.number != file.retrained_number:
                rows.setdefault(row.number % len(file.finalists), []).append(row)
        whole = {p: found for p, found in rows.items() if len(found) == file.num_seeds}
        judged = whole or {p: found for p, found in rows.items() if len(found) > 1}
        short = {
            place: f"{finalist.name}: {len(rows.get(place, []))} of {file.num_seeds} trainings "
            "completed"
            for place, finalist in enumerate(file.finalists)
            if len(rows.get(place, [])) < file.num_seeds
        }
        return dict(sorted(judged.items())), short

    def _ranking(self, judged: dict[int, list[TrialRow]]) -> list[RankedFinalist]:
        """The compared finalists, best first; by validation on fresh seeds alone."""
        return compare(
            {place: [_value(row) for row in rows] for place, rows in judged.items()},
            maximize=self._objective.direction == "maximize",
            seed=self._file.seed,
            scale=scale_of(self._objective.metric, self._data.num_images["validation"]),
        )

    def _concluded(self, end: LoopEnd) -> ComparisonResult:
        """Records the winner, or why there is none yet."""
        try:
            return self._conclude(end)
        except OSError as problem:  # A full disk: it can go on later.
            return ComparisonResult(Outcome.FAILED, error=self._session.broke_off(problem))

    def _conclude(self, end: LoopEnd) -> ComparisonResult:
        if end.interrupted:
            self._recorder.sweep_waits("SCHEDULED", end.reason)
            return ComparisonResult(Outcome.INTERRUPTED)
        if end.error or end.stop is None:
            self._recorder.sweep_waits("SCHEDULED", f"broke off: {end.error}")
            return ComparisonResult(Outcome.FAILED, error=end.error)
        judged, short = self._judged()
        if not judged:
            self._recorder.sweep_ended(SweepEnd("FAILED", {Tag.STOPPED_BY: end.reason}))
            error = "no finalist completed two trainings, so there is nothing to compare"
            return ComparisonResult(Outcome.FAILED, error=error, problems=tuple(short.values()))
        ranking = self._ranking(judged)
        rows = judged[ranking[0].key]
        chosen = median_key({row.number: _value(row) for row in rows})
        if self._file.retrain == "all":
            retrained = self._session.board.rows.get(self._file.retrained_number)
            if retrained is None or retrained.state is not TrialState.COMPLETE:
                reason = retrained.reason if retrained is not None else end.reason
                error = f"the winner could not be trained on all data: {reason}"
                self._recorder.sweep_waits("SCHEDULED", f"broke off: {error}")
                return ComparisonResult(Outcome.FAILED, error=error, problems=tuple(short.values()))
            chosen = retrained.number
        winner_of = WinnerRecorder(
            self._sweep.paths, self._file, self._objective, self._data, self._spool, self._recorder
        )
        left_out = [line for place, line in short.items() if place not in judged]
        report = winner_of.record(ranking, judged, chosen, left_out)
        return ComparisonResult(
            Outcome.DONE,
            report,
            problems=tuple(short.values()),
            keeps_model=winner_of.keeps_model,
            ranking=winner_of.ranking,
        )


def _value(row: TrialRow) -> float:
    assert row.value is not None  # Complete trainings have one.
    return row.value
