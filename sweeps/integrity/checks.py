"""The invariants of a sweep, asked of its study, its spool and its MLflow runs.

1. Every trial of the study has exactly one run, with the same params, value, state and reports.
2. Nothing is RUNNING without a live driver.
3. No run belongs to no trial, no model is kept twice, no checkpoint outlives its trial.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pipelines.objectives import get_objective
from pipelines.training.checkpoints import CHECKPOINT_FILE
from search_spaces.errors import InputError
from search_spaces.hyperparameters.narrowing import narrowed
from search_spaces.hyperparameters.parameter import recorded_name, recorded_params
from search_spaces.registry import SPACES, get_space
from search_spaces.space import Space
from search_spaces.user_spaces.reference import is_given, is_reference
from sweeps.engines.base import PastTrial, TrialState
from sweeps.finalists.selection import (
    read_finalists,
)
from sweeps.formatting import count, in_work_dir
from sweeps.setup.data import reopen_data
from sweeps.setup.space import space_of
from sweeps.state.lock import is_driven
from sweeps.state.sweep_file import BASELINES, StoredSweep
from tracking.spool.records import (
    EpochRecord,
    ModelRecord,
    TrialRecord,
    earlier_statuses,
    run_status,
)

if TYPE_CHECKING:
    from tracking.runs.run_reader import RunReader, StoredRun


def swept_space(sweep: StoredSweep) -> Space | None:
    """The space that a sweep searches; a user's is made for the sweep's data set.

    None where it was an object of a program, which is stored nowhere.
    """
    settings = sweep.file.settings
    if sweep.file.kind == BASELINES:
        return next(iter(SPACES.values()))  # They are points of several; no check asks which.
    if is_given(settings.space):
        return None
    if not is_reference(settings.space):  # What ours ask for follows from no data.
        return narrowed(get_space(settings.space), settings.narrowing)
    data = reopen_data(
        sweep.file.data_name, sweep.file.data_fingerprint, sweep.paths.data, settings
    )
    return space_of(settings, data)


def study_of(sweep: StoredSweep, space: Space | None) -> list[PastTrial]:
    """The trials of a sweep's study; published models have none, and their spool is the study.

    Raises:
        InputError: The storage does not hold it.
    """
    if sweep.file.kind == BASELINES:
        return _spooled_study(sweep)
    from sweeps.engines.optuna_study.storage import open_storage, read_study, study_errors

    settings = sweep.file.settings
    try:
        with study_errors(settings.storage):
            storage = open_storage(settings.storage, existing=True)
            return read_study(storage, sweep.paths.name, space, settings.sampler)
    except KeyError:
        raise InputError(
            f"The Optuna study of sweep '{sweep.paths.name}' is not in this --storage. Name the "
            "storage that the sweep began with."
        ) from None


def _spooled_study(sweep: StoredSweep) -> list[PastTrial]:
    from tracking.spool.history import TrialHistory
    from tracking.spool.spool import Spool

    spool = Spool(sweep.paths.spool, read_only=True)
    history = TrialHistory(spool)
    metric = get_objective(sweep.file.settings.objective).metric
    curves: dict[int, dict[int, float]] = {}
    for record in spool.replay():
        if isinstance(record, TrialRecord):
            curves.setdefault(record.number, {})
        elif isinstance(record, EpochRecord) and metric in record.metrics:
            curves[record.number][record.epoch] = record.metrics[metric]
    return [
        PastTrial(number, {}, TrialState(history.last_state(number) or "RUNNING"), None, curve)
        for number, curve in sorted(curves.items())
    ]


class Checkup:
    """One look at a sweep; `examine` returns its problems, one line each."""

    def __init__(self, sweep: StoredSweep) -> None:
        from tracking.runs.run_reader import RunReader
        from tracking.spool.history import TrialHistory
        from tracking.spool.spool import Spool

        self._sweep = sweep
        self._space = swept_space(sweep)
        self._objective = get_objective(sweep.file.settings.objective)
        self._spool = Spool(sweep.paths.spool, read_only=True)
        self._history = TrialHistory(self._spool)
        # First: a store that is not there yet is made where it is opened.
        self._trials = study_of(sweep, self._space)
        self._reader: RunReader = RunReader(sweep.uri, sweep.file.uid, self._objective.metric)
        self._driven = is_driven(sweep.paths)
        # What a running sweep has not sent yet is on its way.
        self._is_behind = self._driven and self._spool.num_waiting > 0
        final = sweep.paths.finalists.spool
        self._final = Spool(final, read_only=True) if final.exists() else None
        self._num_runs = 0
        self._num_reports = 0

    def summary(self) -> str:
        """What holds, in one line."""
        text = (
            f"{count(len(self._trials), 'trial')}, {count(self._num_runs, 'run')}, "
            f"{count(self._num_reports, 'report')}: study, spool and MLflow agree"
        )
        lost = sum(trial.state.is_end and self._history.last_state(trial.number) is None
                   for trial in self._trials)  # fmt: skip
        if lost:
            text = text.replace(", spool and", " and") + (
                f"; the local records of {count(lost, 'trial')} were lost, so that MLflow alone "
                "has them"
            )
        return text

    def examine(self) -> list[str]:
        """One line per problem; empty when every invariant holds."""
        problems = []
        if self._spool.num_waiting and not self._driven:
            problems.append(f"{count(self._spool.num_waiting, 'record')} not sent to MLflow yet")
        problems += [f"not recorded in MLflow: {line}" for line in self._spool.aside_lines()]
        runs = self._reader.trial_runs()
        self._num_runs = sum(len(found) for found in runs.values())
        for trial in self._trials:
            problems += self._of_trial(trial, runs.pop(trial.number, []))
        problems += [f"trial {number}: a run without a trial in the study" for number in runs]
        problems += self._of_sweep()
        return problems

    def _of_trial(self, trial: PastTrial, runs: list[StoredRun]) -> list[str]:
        label = f"trial {trial.number}"
        if not runs and not trial.state.is_end and self._history.last_state(trial.number) is None:
            return [] if self._driven else [f"{label}: proposed and not started; resume the sweep"]
        if not runs and self._is_behind:
            return []
        if len(runs) != 1:
            return [f"{label}: {count(len(runs), 'run')} in MLflow instead of one"]
        (run,) = runs
        self._num_reports += run.num_points
        problems = []
        parameters = self._space.parameters if self._space else ()
        names = {recorded_name(parameter.name) for parameter in parameters}
        expected = recorded_params(parameters, trial.params)
        if self._space is not None:
            expected = {name: text for name, text in expected.items() if name in names}
        given = {name: value for name, value in run.params.items() if name in expected}
        if trial.params and given != expected:
            wrong = sorted(name for name in expected if given.get(name) != expected[name])
            problems.append(f"{label}: params differ: {', '.join(wrong)}")
        if self._is_behind and set(run.reports) < set(trial.curve):
            return problems
        if set(run.reports) != set(trial.curve):
            problems.append(
                f"{label}: reported epochs {_epochs(trial.curve)} in the study, "
                f"{_epochs(run.reports)} in MLflow"
            )
        elif any(not _equal(run.reports[epoch], trial.curve[epoch]) for epoch in trial.curve):
            problems.append(f"{label}: reported values differ")
        if run.num_points != len(run.reports):
            problems.append(f"{label}: an epoch is reported twice in MLflow")
        problems += self._of_state(label, trial, run)
        # While a sweep runs, figures are drawn, and trials audited, from what has ended.
        if trial.state.is_end and not self._driven:
            checkpoint = self._sweep.paths.trial(trial.number) / CHECKPOINT_FILE
            if checkpoint.exists():
                problems.append(f"{label}: a checkpoint is left of a trial that has ended")
        return problems

    def _of_state(self, label: str, trial: PastTrial, run: StoredRun) -> list[str]:
        if self._driven and (self._is_behind or not trial.state.is_end):
            return []
        # A trial that the study calls running waits for its sweep, when no process runs that.
        state = trial.state if trial.state.is_end else TrialState.PAUSED
        problems = []
        known = (run_status(state.value), *earlier_statuses(state.value))
        if run.state != state or run.status not in known:
            problems.append(
                f"{label}: {trial.state.value} in the study, {run.state} ({run.status}) in MLflow"
            )
        if self._sweep.file.is_finished and not trial.state.is_end:
            problems.append(f"{label}: {trial.state.value} in a sweep that is finished")
        name = f"best_{self._objective.metric}"
        has_value = trial.facts.get("duplicate_of") is None and self._sweep.file.kind != BASELINES
        if trial.state is TrialState.COMPLETE and has_value:
            value = run.metrics.get(name, math.nan)
            if trial.value is None or not _equal(value, trial.value):
                problems.append(f"{label}: value {trial.value} in the study, {value} in MLflow")
        return problems

    def _of_sweep(self) -> list[str]:
        problems = []
        parents = self._reader.sweep_runs()
        if len(parents) != 1 and not (self._is_behind and not parents):
            problems.append(f"{count(len(parents), 'parent run')} of the sweep instead of one")
        elif parents and parents[0].status == "RUNNING" and not self._driven:
            problems.append("MLflow shows the sweep as RUNNING but no process is running it")
        if lost := self._reader.files_problem():
            problems.append(f"files cannot be found: {lost}")
        kept, most = self._reader.model_numbers(), self._sweep.file.settings.num_kept_models
        if len(kept) != len(set(kept)):
            problems.append("a model is kept twice")
        # One that the local records do not know, because they were lost, is dropped by nobody.
        known = [number for number in kept if self._history.last_state(number) is not None]
        if len(known) > most and not self._driven:
            problems.append(f"{count(len(known), 'model')} kept, more than --keep-models {most}")
        return problems + self._of_finalists()

    def _of_finalists(self) -> list[str]:
        """What a comparison of finalists left, where no process runs it."""
        from tracking.runs.run_reader import RunReader

        file = read_finalists(self._sweep.paths.finalists_file)
        if self._final is None or self._driven or file is None:
            return []
        problems, name = [], self._sweep.paths.name
        where = in_work_dir(self._sweep.paths.work_dir)
        if self._final.num_waiting:
            waiting = count(self._final.num_waiting, "record")
            problems.append(f"finalists: {waiting} not sent to MLflow yet")
        problems += [
            f"finalists: not recorded in MLflow: {line}" for line in self._final.aside_lines()
        ]
        reader = RunReader(self._sweep.uri, file.uid, self._objective.metric)
        running = reader.num_running()
        if running:
            problems.append(
                f"finalists: MLflow shows {count(running, 'run')} as RUNNING but no process is "
                f"running them; `keras-sweeps finalize {name}{where}` continues"
            )
        trainings = reader.finalist_runs()
        for record in self._final.replay():
            if isinstance(record, TrialRecord):
                found = trainings.pop(record.number, [])
                if len(found) != 1:
                    label = f"finalists: training {record.number}"
                    problems.append(f"{label}: {count(len(found), 'run')} in MLflow instead of one")
        problems += [f"finalists: training {number}: a run that is not in the spool"
                     for number in trainings]  # fmt: skip
        winners = reader.num_winners()
        if file.finished and winners != 1:
            problems.append(f"finalists: {count(winners, 'winner')} instead of one")
        kept = sum(isinstance(record, ModelRecord) for record in self._final.replay())
        if file.finished and len(reader.all_model_numbers()) != kept:
            problems.append("finalists: MLflow does not hold exactly the winner's model")
        return problems


def _epochs(reports: object) -> str:
    return ", ".join(str(epoch) for epoch in sorted(reports)) or "none"  # type: ignore[call-overload]


def _equal(one: float, other: float) -> bool:
    return one == other or math.isclose(one, other, rel_tol=1e-9)
