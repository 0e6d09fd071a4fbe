"""Which configurations of a sweep are finalists, and what a final comparison of them began with."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from pipelines.objectives import Objective, get_objective
from pipelines.runtime.filesystem import write_json_atomically
from pipelines.training.reports import EVERY_EPOCH, Reports
from pipelines.training.trial import Schedule
from search_spaces.errors import InputError
from search_spaces.files import UnusableFileError, read_json
from search_spaces.hyperparameters import Params
from search_spaces.space import Space
from search_spaces.stored_values import as_kind
from sweeps.driver.plan import trial_seed
from sweeps.engines.base import PastTrial, Proposal, TrialPlan, TrialState
from sweeps.settings import DEFAULT_NUM_FINALISTS, FinalOptions, budget_for
from sweeps.state.paths import SweepPaths
from sweeps.state.sweep_file import StoredSweep
from tracking.spool.spool import Spool

FORMAT = 1
_FRESH = 0xF1A1
"""Parts the seeds of finalists from those of the sweep's own trials."""


@dataclass(frozen=True)
class Finalist:
    """A configuration of the sweep; `value` is the best objective that its trial reached."""

    trial: int
    name: str
    params: Params
    value: float


@dataclass(frozen=True)
class FinalistResult:
    """A finalist as its comparison judged it, over `num_seeds` trainings on fresh seeds.

    Attributes:
        trial: of the sweep, whose configuration it is.
        mean, low, high: of the objective, with the 95 % interval of the mean.
        probability_best: that its true mean is the best one.
        test_accuracy: the mean over its models.
    """

    trial: int
    name: str
    params: Params
    mean: float
    low: float
    high: float
    num_seeds: int
    probability_best: float
    test_accuracy: float


@dataclass(frozen=True)
class FinalistsFile:
    """What a comparison began with; it is never changed, but for its end.

    Attributes:
        uid: names this comparison among all sweeps and comparisons everywhere.
        seed: the seeds of its trainings follow from it.
        num_epochs: full budget of every training.
        num_asked: finalists that were asked for; a small sweep has fewer.
        num_trials: trials of the sweep when the finalists were picked.
        retrain: `all` or `none`.
        finished: whether the winner is recorded.
        report: the table as it was printed at the end.
        ranking: the same as values, best first; empty in files of before there was one.
    """

    uid: str
    seed: int
    num_seeds: int
    num_epochs: int
    num_asked: int
    num_trials: int
    retrain: str
    finalists: tuple[Finalist, ...]
    finished: bool = False
    report: str = ""
    ranking: tuple[FinalistResult, ...] = ()

    def plan(self, space: Space) -> list[Proposal]:
        """Every training, all finalists in turn, so that an interruption leaves them even."""
        schedule = Schedule(self.num_epochs, measure_test=True)
        return [
            self._proposal(
                seed * len(self.finalists) + place, finalist, space, schedule,
                f"fresh seed {seed + 1}",
            )
            for seed in range(self.num_seeds)
            for place, finalist in enumerate(self.finalists)
        ]  # fmt: skip

    def retraining(self, finalist: Finalist, space: Space, num_epochs: int) -> Proposal:
        """The winner's training on all data, which ends after so many epochs of the schedule."""
        schedule = Schedule(self.num_epochs, "train+validation", num_epochs, measure_test=True)
        return self._proposal(self.retrained_number, finalist, space, schedule, "all data")

    def _proposal(
        self, number: int, finalist: Finalist, space: Space, schedule: Schedule, what: str
    ) -> Proposal:
        return Proposal(
            number,
            finalist.params,
            name=f"{finalist.name}, {what}",
            plan=TrialPlan(schedule, space, trial_seed(self.seed, number)),
        )

    def finalist_of(self, params: Params) -> Finalist:
        """The finalist of a configuration; no two have the same."""
        return next(finalist for finalist in self.finalists if finalist.params == params)

    @property
    def retrained_number(self) -> int:
        """The number of the winner's training on all data."""
        return len(self.finalists) * self.num_seeds


def fresh_seed(sweep_seed: int) -> int:
    """What the seeds of a sweep's finalists follow from; none of its trials had one of them."""
    return int(np.random.SeedSequence([sweep_seed, _FRESH]).generate_state(1)[0])


def models_folder(paths: SweepPaths) -> Path:
    """Where the models of all trainings wait until the winner is known."""
    return paths.finalists.sweep / "models"


def sweep_run_id(paths: SweepPaths, trial: int | None = None) -> str | None:
    """The sweep's own run in MLflow, or a trial's; None where it was not sent yet."""
    key = "sweep" if trial is None else f"trial-{trial}"
    found = None
    for answer in Spool(paths.spool, read_only=True).answers():
        if answer["key"] == key:
            found = answer.get("id")  # A run that was made again has the latest.
    return found


def pick_finalists(
    trials: Iterable[PastTrial],
    objective: Objective,
    count: int,
    reports: Reports = EVERY_EPOCH,
) -> tuple[Finalist, ...]:
    """The `count` best distinct configurations, by the best value that each reached.

    Trials that broke a limit do not take part. Pruned ones do: who was better after one epoch than
    others after four is a contender, whatever the pruner or a time limit made of it. Those that
    ended within their first epoch come last: they were measured on fewer images.

    Raises:
        InputError: No trial reached anything.
    """
    best: dict[str, tuple[tuple[bool, float, int], Finalist]] = {}
    for trial in trials:
        lost = trial.state in (TrialState.FAILED, TrialState.KILLED)
        lost = lost or bool(trial.facts.get("breaks_limit"))
        if lost or not trial.curve or trial.facts.get("duplicate_of") is not None:
            continue
        reached = max(trial.curve)
        value = min(reports.comparable(trial.curve, reached), key=objective.sort_key)
        name = f"trial {trial.number}"
        if trial.baseline:
            name += f" ({trial.baseline.partition(',')[0]})"
        found = Finalist(trial.number, name, trial.params, value)
        key = json.dumps(trial.params, sort_keys=True)
        rank = (reports.is_early(reached), objective.sort_key(value), trial.number)
        if key not in best or rank < best[key][0]:
            best[key] = rank, found
    if not best:
        raise InputError(
            "There are no finalists: no trial of the sweep has completed an epoch. Continue it "
            "first: `keras-sweeps run --resume`."
        )
    ranked = sorted(best.values(), key=lambda entry: entry[0])
    return tuple(finalist for _, finalist in ranked[:count])


def write_finalists(path: Path, file: FinalistsFile) -> None:
    """Writes the file so that a loss of power leaves the old or the new content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json_atomically(path, {"format": FORMAT, **asdict(file)})


def read_finalists(path: Path) -> FinalistsFile | None:
    """What `write_finalists` wrote; None where no comparison began.

    Raises:
        InputError: The file is damaged.
    """
    try:
        body = read_json(path)
        if not isinstance(body, dict) or type(body.get("format")) is not int:
            raise UnusableFileError("it has no format")
        if body["format"] > FORMAT:
            raise UnusableFileError(f"a later version wrote it, in format {body['format']}")
        return as_kind(FinalistsFile, {k: v for k, v in body.items() if k != "format"})
    except FileNotFoundError:
        return None
    except UnusableFileError as error:
        raise InputError(
            f"{path} is damaged ({error}), so its comparison of finalists cannot be "
            "opened. Restore it from a copy."
        ) from error


def begin_finalists(
    sweep: StoredSweep, space: Space, options: FinalOptions, num_train_images: int
) -> FinalistsFile:
    """The comparison of a sweep: the one that began already, or a new one.

    Raises:
        InputError: One began with other options, or the sweep has nothing to compare.
    """
    path = sweep.paths.finalists_file
    found = read_finalists(path)
    if found is not None:
        _check_same(found, options)
        return found
    from sweeps.engines.optuna_study.storage import open_storage, read_study

    settings = sweep.file.settings
    try:
        trials = read_study(
            open_storage(settings.storage, existing=True), sweep.paths.name, space,
            settings.sampler,
        )  # fmt: skip
    except KeyError:
        raise InputError(
            f"The Optuna study of sweep '{sweep.paths.name}' is not in this --storage. Name the "
            "storage that the sweep began with."
        ) from None
    num_finalists = options.num_finalists or settings.num_finalists or DEFAULT_NUM_FINALISTS
    budget = budget_for(settings, num_train_images)
    objective = get_objective(settings.objective)
    picked = pick_finalists(trials, objective, num_finalists, budget.rungs.reports)
    file = FinalistsFile(
        uid=uuid.uuid4().hex,
        seed=fresh_seed(settings.seed),
        num_seeds=options.num_seeds or settings.num_finalist_seeds,
        num_epochs=budget.num_epochs,
        num_asked=num_finalists,
        num_trials=len(trials),
        retrain=options.retrain or settings.retrain,
        finalists=picked,
    )
    write_finalists(path, file)
    return file


def _check_same(file: FinalistsFile, options: FinalOptions) -> None:
    for option, asked, began in (
        ("--finalists", options.num_finalists, file.num_asked),
        ("--finalist-seeds", options.num_seeds, file.num_seeds),
        ("--retrain", options.retrain, file.retrain),
    ):
        if asked not in (None, began):
            raise InputError(
                f"The finalists of this sweep were compared with {option} {began} and cannot be "
                f"compared again with {asked}: their test results are known. Leave {option} out."
            )
