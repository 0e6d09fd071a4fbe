"""The interface of a pruner, and the one that never stops a trial.

A pruner sees one `TrialCurve` per trial and keeps nothing that does not follow from them, so a
resumed sweep decides exactly as one that was never interrupted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from pipelines.objectives import Objective
from pipelines.training.reports import Reports
from pipelines.training.trial import Decision


@dataclass
class TrialCurve:
    """What a pruner knows of a trial.

    Attributes:
        values: step -> objective; `Reports` has the unit of steps.
        protected: never pruned, but others are compared with it.
        promoted_to: the step up to which it may train without another decision.
        paused: it waits at its last step.
        complete: it was trained to its end, or ended itself earlier.
        counts: whether others are compared with it; not those that failed.
    """

    number: int
    values: dict[int, float] = field(default_factory=dict)
    protected: bool = False
    promoted_to: int = 0
    paused: bool = False
    complete: bool = False
    counts: bool = True

    def best(self, objective: Objective, reports: Reports, step: int) -> float:
        """The best value up to a step, as a trial is measured by its best epoch."""
        return min(reports.comparable(self.values, step), key=objective.sort_key)


class Pruner(Protocol):
    """Decides after every report, and which paused trial deserves a free slot."""

    def decide(self, curve: TrialCurve, step: int) -> Decision:
        """Whether a trial that has just reported goes on."""

    def changed(self, curve: TrialCurve) -> None:
        """Learns that a trial has paused, goes on, or has ended; `decide` learns its values."""

    def next_promotion(self, *, no_more_trials: bool) -> int | None:
        """The paused trial to continue now; `no_more_trials` says that no new ones will come."""

    def unpromotable(self, num_trials: int) -> list[int]:
        """The paused trials that can never be promoted in a sweep of so many trials."""


class NoPruner:
    """Trains every trial in full."""

    def decide(self, curve: TrialCurve, step: int) -> Decision:
        """Goes on."""
        del curve, step
        return Decision.GO_ON

    def changed(self, curve: TrialCurve) -> None:
        """Nothing follows from it."""
        del curve

    def next_promotion(self, *, no_more_trials: bool) -> int | None:
        """Nothing ever waits."""
        del no_more_trials
        return None

    def unpromotable(self, num_trials: int) -> list[int]:
        """Nothing ever waits."""
        del num_trials
        return []
