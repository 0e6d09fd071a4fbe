"""Which trial goes on: successive halving with promotion, Hyperband, Optuna's pruners, or none.

A pruner sees one `TrialCurve` per trial and keeps nothing that does not follow from them, so a
resumed sweep decides exactly as one that was never interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from pipelines.objectives import Objective
from pipelines.training.trial import Decision
from search_spaces.errors import unknown_name
from sweeps.engines.pruners.rungs import bracket_of, bracket_sizes, hopeless, promotable

if TYPE_CHECKING:
    import optuna

PRUNERS = {
    "asha": "asynchronous successive halving: the best 1/eta of a rung go on, the others wait",
    "hyperband": "successive halving from several first rungs, for curves that cross",
    "median": "stop what is worse than the median of earlier trials at the same epoch",
    "percentile": "stop what is not in the best quarter of earlier trials at the same epoch",
    "patient": "as median, but only after two epochs without improvement",
    "none": "train every trial in full",
}
STARTUP_TRIALS = 5
"""Optuna's default: so many trials are trained in full before its pruners stop any."""
PATIENCE_EPOCHS = 2
BEST_PERCENT = 25.0


@dataclass
class TrialCurve:
    """What a pruner knows of a trial.

    Attributes:
        values: epoch -> objective.
        protected: never pruned, but others are compared with it.
        promoted_to: epochs up to which it may train without another decision.
        paused: it waits at its last epoch.
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

    def best(self, objective: Objective, epoch: int) -> float:
        """The best value up to an epoch, as a trial is measured by its best epoch."""
        values = [value for step, value in self.values.items() if step <= epoch]
        return min(values, key=objective.sort_key)


class Pruner(Protocol):
    """Decides after every report, and which paused trial deserves a free slot."""

    def decide(self, curve: TrialCurve, epoch: int) -> Decision:
        """Whether a trial that has just reported goes on."""

    def next_promotion(self, *, closing: bool) -> int | None:
        """The paused trial to continue now; `closing` says that no new ones will come."""

    def hopeless(self, num_trials: int) -> list[int]:
        """The paused trials that can never be promoted in a sweep of so many trials."""


class NoPruner:
    """Trains every trial in full."""

    def decide(self, curve: TrialCurve, epoch: int) -> Decision:
        """Goes on."""
        del curve, epoch
        return Decision.GO_ON

    def next_promotion(self, *, closing: bool) -> int | None:
        """Nothing ever waits."""
        del closing
        return None

    def hopeless(self, num_trials: int) -> list[int]:
        """Nothing ever waits."""
        del num_trials
        return []


class OptunaPruner(NoPruner):
    """One of Optuna's own pruners, asked with the study's trial.

    Args:
        should_prune: answers for a trial's number, from what the study holds.
    """

    def __init__(self, should_prune: Callable[[int], bool]) -> None:
        self._should_prune = should_prune

    def decide(self, curve: TrialCurve, epoch: int) -> Decision:
        """Stops what the pruner would prune, for good."""
        del epoch
        if not curve.protected and self._should_prune(curve.number):
            return Decision.STOP
        return Decision.GO_ON


class HalvingPruner:
    """Asynchronous successive halving with promotion, in one bracket or in Hyperband's.

    A trial that reaches a rung and is among its best 1/eta goes on at once; the others pause with
    a checkpoint, and go on when enough others have arrived below them. The published algorithm
    picks the highest rung's candidate for every free slot; here a trial that deserves the next
    rung keeps the slot that it has, which saves a process and changes no promotion.
    """

    def __init__(
        self,
        curves: Mapping[int, TrialCurve],
        objective: Objective,
        rungs: tuple[int, ...],
        reduction_factor: int,
        *,
        hyperband: bool,
    ) -> None:
        self._curves = curves
        self._objective = objective
        self._rungs = rungs
        self._factor = reduction_factor
        self._sizes = bracket_sizes(len(rungs), reduction_factor) if hyperband else (1.0,)
        self._bracket: dict[int, int] = {}

    def decide(self, curve: TrialCurve, epoch: int) -> Decision:
        """At a rung: on, if among the best 1/eta of those that reached it, else pause."""
        if curve.protected or epoch < curve.promoted_to or epoch not in self._active(curve.number):
            return Decision.GO_ON
        keys = self._keys(self._bracket_of(curve.number), epoch)
        if curve.number in promotable(keys, self._factor):
            self._promote(curve, epoch)
            return Decision.GO_ON
        return Decision.PAUSE

    def next_promotion(self, *, closing: bool) -> int | None:
        """A paused trial among the best 1/eta of its rung, from the highest rung first.

        When no new trials come and nothing has been trained in full, the best one that waits goes
        on: a sweep that ends without any complete trial has no winner.
        """
        for bracket in range(len(self._sizes)):
            for epoch in reversed(self._rungs[bracket:-1]):
                for number in promotable(self._keys(bracket, epoch), self._factor):
                    curve = self._curves[number]
                    if curve.paused and max(curve.values) == epoch:
                        self._promote(curve, epoch)
                        return number
        if closing and not self._any_complete():
            waiting = [curve for curve in self._curves.values() if curve.paused]
            if waiting:
                best = min(waiting, key=self._standing)
                self._promote(best, max(best.values))
                return best.number
        return None

    def hopeless(self, num_trials: int) -> list[int]:
        """The paused trials whose rank in their rung can never suffice."""
        found = []
        for bracket in range(len(self._sizes)):
            for epoch in self._rungs[bracket:-1]:
                for number in hopeless(self._keys(bracket, epoch), self._factor, num_trials):
                    curve = self._curves[number]
                    if curve.paused and max(curve.values) == epoch:
                        found.append(number)
        return found

    def _standing(self, curve: TrialCurve) -> tuple[int, float, int]:
        reached = max(curve.values)
        value = curve.best(self._objective, reached)
        return -reached, self._objective.sort_key(value), curve.number

    def _any_complete(self) -> bool:
        return any(
            curve.complete or self._rungs[-1] in curve.values for curve in self._curves.values()
        )

    def _promote(self, curve: TrialCurve, epoch: int) -> None:
        curve.promoted_to = min(rung for rung in self._rungs if rung > epoch)

    def _active(self, number: int) -> tuple[int, ...]:
        """The rungs at which a trial is compared: those of its bracket, without the last."""
        return self._rungs[self._bracket_of(number) : -1]

    def _bracket_of(self, number: int) -> int:
        if number not in self._bracket:
            self._bracket[number] = bracket_of(number, self._sizes)
        return self._bracket[number]

    def _keys(self, bracket: int, epoch: int) -> dict[int, float]:
        """Sort keys of all trials that reached a rung; protected ones count in every bracket."""
        return {
            curve.number: self._objective.sort_key(curve.best(self._objective, epoch))
            for curve in self._curves.values()
            if curve.counts
            and epoch in curve.values
            and (curve.protected or self._bracket_of(curve.number) == bracket)
        }


def make_pruner(
    name: str,
    curves: Mapping[int, TrialCurve],
    objective: Objective,
    rungs: tuple[int, ...],
    reduction_factor: int,
    should_prune: Callable[[int], bool],
) -> Pruner:
    """The pruner of that name."""
    if name == "none":
        return NoPruner()
    if name in ("asha", "hyperband"):
        return HalvingPruner(
            curves, objective, rungs, reduction_factor, hyperband=name == "hyperband"
        )
    return OptunaPruner(should_prune)


def optuna_pruner(name: str, min_epochs: int) -> optuna.pruners.BasePruner:
    """The pruner that the study carries: Optuna's where it decides, else one that never does."""
    from optuna import pruners

    median = pruners.MedianPruner(STARTUP_TRIALS, n_warmup_steps=min_epochs)
    if name == "median":
        return median
    if name == "percentile":
        return pruners.PercentilePruner(
            BEST_PERCENT, n_startup_trials=STARTUP_TRIALS, n_warmup_steps=min_epochs
        )
    if name == "patient":
        return pruners.PatientPruner(median, patience=PATIENCE_EPOCHS)
    return pruners.NopPruner()


def check_pruner(name: str) -> None:
    """Raises InputError for a name that is not a pruner's."""
    if name not in PRUNERS:
        raise unknown_name("pruner", name, PRUNERS)


def schedule_text(name: str, rungs: Iterable[int], reduction_factor: int) -> str:
    """`asha: rungs at 1, 3, 9 epochs, the best 1/3 of each go on`."""
    if name in ("asha", "hyperband"):
        epochs = ", ".join(map(str, rungs))
        return f"{name}: rungs at {epochs} epochs, the best 1/{reduction_factor} of each go on"
    return f"{name}: {PRUNERS[name]}"
