"""Optuna's own pruners: median, percentile and patient."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pipelines.training.trial import Decision
from sweeps.engines.pruners.base import NoPruner, TrialCurve

if TYPE_CHECKING:
    import optuna

STARTUP_TRIALS = 5
"""Optuna's default: so many trials are trained in full before its pruners stop any."""
PATIENCE_EPOCHS = 2
BEST_PERCENT = 25.0


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
