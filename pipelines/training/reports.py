"""When a trial reports, and what it reports.

A step is the unit in which a trial counts its training: one epoch, or the part of one that the
sweep's rungs need. Optuna's intermediate values and the points of MLflow's curves are numbered by
it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Reports:
    """The steps after which a trial reports: a few within the first epoch, then every whole epoch.

    Attributes:
        per_epoch: steps of an epoch; with 1 a step is an epoch.
        early: rising steps below a whole epoch after which it reports, too.
    """

    per_epoch: int = 1
    early: tuple[int, ...] = ()

    def next_step(self, step: int) -> int:
        """The first step after `step` with a report."""
        for early in self.early:
            if early > step:
                return early
        return (step // self.per_epoch + 1) * self.per_epoch

    def is_early(self, step: int) -> bool:
        """Whether less than an epoch has been trained by then."""
        return step < self.per_epoch

    def epochs(self, step: int) -> float:
        """Epochs trained by then; a whole number where they are whole."""
        whole, rest = divmod(step, self.per_epoch)
        return step / self.per_epoch if rest else whole

    def text(self, step: int) -> str:
        """Epochs trained by then: `0.11`, `3`."""
        return f"{self.epochs(step):.2g}" if step % self.per_epoch else f"{self.epochs(step)}"

    def comparable(self, curve: Mapping[int, float], step: int) -> list[float]:
        """The values up to a step that were measured on the same images as the one at it.

        Args:
            curve: step -> value; it has `step`.
        """
        if self.is_early(step):
            return [curve[step]]
        return [value for at, value in curve.items() if self.per_epoch <= at <= step]

    @property
    def identity(self) -> list[object]:
        """What a checkpoint must agree in; nothing for whole epochs, as it was before others."""
        return [] if self.per_epoch == 1 else [[self.per_epoch, *self.early]]


EVERY_EPOCH = Reports()


@dataclass(frozen=True)
class TrialReport:
    """What a trial measured after a step; `step` counts from 1, in the unit of its `Reports`.

    `metrics` holds `epoch` (epochs trained so far), loss and accuracy (training, averaged since the
    report before), those of `pipelines.evaluation.metrics.validation_metrics`, learning_rate (at
    the end), epoch_seconds (training time since the report before, for a whole epoch at that
    pace), and images_per_second (training only). The first report of a process has
    compile_seconds: the part of the training time for which its steps were compiled. The first one
    of a trial has what `TrialTask.measures` asks for.
    """

    number: int
    step: int
    metrics: dict[str, float]
