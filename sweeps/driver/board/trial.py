"""A trial as programs and callbacks see it: a frozen view of what the driver or a study knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipelines.training.reports import Reports
from search_spaces.hyperparameters import Params
from sweeps.driver.board.row import TrialRow
from sweeps.engines.base import PastTrial, TrialState


@dataclass(frozen=True)
class Trial:
    """One trial of a sweep.

    Attributes:
        number: from 0, in the order of proposals.
        state: equal to its name: `trial.state == "COMPLETE"`.
        value: the objective that it reached; None unless it is complete.
        params: its active parameters.
        curve: epochs trained -> the objective after them, parts of epochs among them.
        seconds: time that it took on its slots, in all sessions.
        reason: why it ended, or what it waits for; empty where it was trained to its end.
        baseline: the published model that it is, or the space's defaults; None for other points.
        proposed_by: what its point was drawn from; empty where nobody knows.
        best_epoch: where `value` was reached.
        num_parameters: weights of its model.
        duplicate_of: the earlier trial of the same point; then this one was not trained.
    """

    number: int
    state: TrialState
    value: float | None
    params: Params
    curve: Mapping[float, float]
    seconds: float
    reason: str = ""
    baseline: str | None = None
    proposed_by: str = ""
    best_epoch: float | None = None
    num_parameters: int | None = None
    duplicate_of: int | None = None


def trial_of_row(row: TrialRow) -> Trial:
    """The trial of a sweep that runs, as it is now."""
    return Trial(
        number=row.number,
        state=row.state,
        value=row.value,
        params=dict(row.params),
        curve=_by_epoch(row.curve, row.schedule.reports),
        seconds=round(row.seconds, 3),  # As the study has it.
        reason=row.reason,
        baseline=row.baseline,
        proposed_by=row.proposed_by,
        best_epoch=row.best_epoch,
        num_parameters=row.num_parameters,
        duplicate_of=row.duplicate_of,
    )


def stored_trial(past: PastTrial, reports: Reports) -> Trial:
    """The trial of a study.

    Args:
        reports: the unit of the steps that it reported.
    """
    return Trial(
        number=past.number,
        state=past.state,
        value=past.value,
        params=dict(past.params),
        curve=_by_epoch(past.curve, reports),
        seconds=past.facts.get("seconds", 0.0),
        reason=past.reason,
        baseline=past.baseline,
        proposed_by=past.proposed_by,
        best_epoch=past.facts.get("best_epoch"),
        num_parameters=past.facts.get("num_parameters"),
        duplicate_of=past.facts.get("duplicate_of"),
    )


def _by_epoch(curve: Mapping[int, float], reports: Reports) -> dict[float, float]:
    return {float(reports.epochs(step)): value for step, value in curve.items()}
