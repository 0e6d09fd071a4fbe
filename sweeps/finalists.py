"""Which configurations of a sweep are finalists, and what a final comparison of them began with."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.objectives import Objective
from search_spaces.errors import InputError
from search_spaces.hyperparameters import Params
from sweeps.engines.base import PastTrial, Proposal, TrialState
from sweeps.settings import SweepPaths
from tracking.records import EpochRecord, TrialEnd
from tracking.spool import Spool
from tracking.trial_lives import TrialLives

FORMAT = 1
FOLDER = "finalists"
UID_SUFFIX = "-finalists"
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
class FinalistsFile:
    """What a comparison began with; it is never changed, but for its end.

    Attributes:
        uid: names its records; it follows from the sweep's.
        seed: the seeds of its trainings follow from it.
        num_epochs: full budget of every training.
        num_asked: finalists that were asked for; a small sweep has fewer.
        num_trials: trials of the sweep when the finalists were picked.
        retrain: `all` or `none`.
        finished: whether the winner is recorded.
        report: the table as it was printed at the end.
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

    def plan(self) -> list[Proposal]:
        """Every training, all finalists in turn, so that an interruption leaves them even."""
        return [
            Proposal(
                seed * len(self.finalists) + place,
                finalist.params,
                name=f"{finalist.name}, fresh seed {seed + 1}",
            )
            for seed in range(self.num_seeds)
            for place, finalist in enumerate(self.finalists)
        ]

    def finalist_of(self, number: int) -> Finalist:
        """The finalist that a training belongs to."""
        return self.finalists[number % len(self.finalists)]

    @property
    def retrained_number(self) -> int:
        """The number of the winner's training on all data."""
        return len(self.finalists) * self.num_seeds


def fresh_seed(sweep_seed: int) -> int:
    """What the seeds of a sweep's finalists follow from; none of its trials had one of them."""
    return int(np.random.SeedSequence([sweep_seed, _FRESH]).generate_state(1)[0])


def finalists_paths(paths: SweepPaths) -> SweepPaths:
    """Where the comparison keeps its files: a folder of the sweep's."""
    return SweepPaths(paths.work_dir, f"{paths.name}/{FOLDER}")


def sweep_run_id(paths: SweepPaths) -> str | None:
    """The sweep's own run in MLflow; None where it was not sent yet."""
    for answer in Spool(paths.spool, read_only=True).answers():
        if answer["key"] == "sweep":
            return answer.get("id")
    return None


def pick_finalists(
    trials: Iterable[PastTrial], objective: Objective, count: int
) -> tuple[Finalist, ...]:
    """The `count` best distinct configurations, by the best value that each reached.

    Pruned trials take part: who was better after one epoch than others after four is a contender,
    whatever the pruner or a time limit made of it.

    Raises:
        InputError: No trial reached anything.
    """
    best: dict[str, Finalist] = {}
    for trial in trials:
        lost = trial.state in (TrialState.FAILED, TrialState.KILLED)
        if lost or not trial.curve or trial.facts.get("duplicate_of") is not None:
            continue
        value = min(trial.curve.values(), key=objective.sort_key)
        name = f"trial {trial.number}"
        if trial.baseline:
            name += f" ({trial.baseline.partition(',')[0]})"
        found = Finalist(trial.number, name, trial.params, value)
        key = json.dumps(trial.params, sort_keys=True)
        if key not in best or objective.beats(value, best[key].value):
            best[key] = found
    if not best:
        raise InputError(
            "Finalists are the best trials of a sweep. Received: a sweep in which no trial reached "
            "an epoch. Go on with it first: `keras-sweeps run --resume`."
        )
    ranked = sorted(best.values(), key=lambda f: (objective.sort_key(f.value), f.trial))
    return tuple(ranked[:count])


def past_trainings(
    spool: Spool, file: FinalistsFile, objective: Objective, models: Path
) -> list[PastTrial]:
    """The trainings that the spool holds, as the loop takes them over.

    A complete one whose model is not where it belongs was interrupted between the two, and one
    that was killed is wanted still: both go on.
    """
    lives, plan = TrialLives(spool), {proposal.number: proposal for proposal in file.plan()}
    curves: dict[int, dict[int, float]] = {}
    ends: dict[int, TrialEnd] = {}
    for record in spool.replay():
        if isinstance(record, EpochRecord) and record.number in plan:
            curves.setdefault(record.number, {})[record.epoch] = objective.value(record.metrics)
        elif isinstance(record, TrialEnd):
            ends[record.number] = record
    found = []
    for number, proposal in plan.items():
        told = lives.last_state(number)
        if told is None:
            continue
        state = TrialState(told)
        is_kept = number in ends and "model_bytes" in ends[number].metrics
        missing = is_kept and not (models / f"{number}.keras").exists()
        lost = state is TrialState.COMPLETE and missing
        if lost or not state.is_end or state in (TrialState.KILLED, TrialState.PRUNED):
            state = TrialState.RUNNING
        end = ends[number] if state.is_end else None
        metrics = dict(end.metrics) if end else {}
        found.append(
            PastTrial(
                number=number,
                params=proposal.params,
                state=state,
                value=metrics.get(f"best_{objective.metric}"),
                curve=curves.get(number, {}),
                reason=end.tags.get("sweeps.reason", "") if end else "",
                facts={
                    "best_epoch": int(metrics.get("best_epoch", 0)) or None,
                    "num_parameters": int(metrics.get("num_parameters", 0)) or None,
                    "seconds": metrics.get("training_seconds", 0.0),
                },
                ended_at=end.at_ms / 1000 if end else None,
                name=proposal.name,
            )
        )
    return found


def write_finalists(path: Path, file: FinalistsFile) -> None:
    """Writes the file so that a loss of power leaves the old or the new content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    with new.open("w", encoding="utf-8") as out:
        json.dump({"format": FORMAT, **asdict(file)}, out, indent=1)
        out.flush()
        os.fsync(out.fileno())
    new.replace(path)


def read_finalists(path: Path) -> FinalistsFile | None:
    """What `write_finalists` wrote; None where no comparison began.

    Raises:
        InputError: The file is damaged.
    """
    try:
        body: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if body.pop("format") != FORMAT:
            raise ValueError("format")
        file = FinalistsFile(**body)
        return replace(file, finalists=tuple(Finalist(**f) for f in body["finalists"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"A comparison of finalists is described by its file. Received: {path} "
            f"({type(error).__name__}). Restore it, or remove the folder {path.parent} to begin "
            "anew; the test split has been read then."
        ) from error
