"""The pruners by name: our own, and Optuna's median, percentile and patient."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from pipelines.objectives import Objective
from pipelines.training.trial import Decision
from search_spaces.errors import unknown_name
from sweeps.engines.pruners.base import NoPruner, Pruner, TrialCurve
from sweeps.engines.pruners.halving import HalvingPruner
from sweeps.engines.pruners.rungs import Rungs

if TYPE_CHECKING:
    import optuna

STARTUP_TRIALS = 5
"""Optuna's default: so many trials are trained in full before its pruners stop any."""
PATIENCE_EPOCHS = 2
BEST_PERCENT = 25.0
PRUNERS = {
    "asha": "asynchronous successive halving: the best 1/eta of a rung continue, the others wait",
    "hyperband": "successive halving from several first rungs, for curves that cross",
    "median": "stop what is worse than the median of earlier trials at the same epoch",
    "percentile": "stop what is not in the best quarter of earlier trials at the same epoch",
    "patient": "as median, but only after two epochs without improvement",
    "none": "train every trial in full",
}
HALVING = ("asha", "hyperband")
"""Those with rungs, at which trials wait."""


class OptunaPruner(NoPruner):
    """One of Optuna's own pruners, asked with the study's trial.

    Args:
        should_prune: whether a trial, given by number, is pruned, from what the study holds.
    """

    def __init__(self, should_prune: Callable[[int], bool]) -> None:
        self._should_prune = should_prune

    def decide(self, curve: TrialCurve, step: int) -> Decision:
        """Stops what the pruner would prune, for good."""
        del step
        if not curve.protected and self._should_prune(curve.number):
            return Decision.STOP
        return Decision.GO_ON


def optuna_pruner(name: str, warmup_steps: int) -> optuna.pruners.BasePruner:
    """The pruner that the study carries: Optuna's where it decides, else one that never does."""
    from optuna import pruners

    median = pruners.MedianPruner(STARTUP_TRIALS, n_warmup_steps=warmup_steps)
    if name == "median":
        return median
    if name == "percentile":
        return pruners.PercentilePruner(
            BEST_PERCENT, n_startup_trials=STARTUP_TRIALS, n_warmup_steps=warmup_steps
        )
    if name == "patient":
        return pruners.PatientPruner(median, patience=PATIENCE_EPOCHS)
    return pruners.NopPruner()


def make_pruner(
    name: str,
    curves: Mapping[int, TrialCurve],
    objective: Objective,
    rungs: Rungs,
    should_prune: Callable[[int], bool],
) -> Pruner:
    """The pruner of that name."""
    if name == "none":
        return NoPruner()
    if name in HALVING:
        return HalvingPruner(curves, objective, rungs, hyperband=name == "hyperband")
    return OptunaPruner(should_prune)


def check_pruner(name: str) -> None:
    """Raises InputError for a name that is not a pruner's."""
    if name not in PRUNERS:
        raise unknown_name("pruner", name, PRUNERS)


def schedule_text(name: str, rungs: Rungs) -> str:
    """`asha: rungs at 1, 3, 9 epochs, the best 1/3 of each continue`."""
    if name in HALVING:
        if len(rungs.steps) < 2:
            return f"{name}: nothing is pruned, because so few epochs have no rung before their end"
        return (
            f"{name}: rungs at {rungs.text}, the best 1/{rungs.reduction_factor} of each continue"
        )
    return f"{name}: {PRUNERS[name]}"
