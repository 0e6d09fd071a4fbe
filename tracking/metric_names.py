"""Under which name a metric is in MLflow: decided here alone.

Records, tables and files of our own call a metric by its plain name: `val_accuracy` after each
epoch, `best_val_accuracy` at a trial's end. MLflow's pages make a section of what stands before a
slash and sort by the alphabet, so there the sections are

    best/      the objective, first on every page
    epoch/     what is measured after each epoch, a user's own metrics too
    model/, test/, training/    single figures of a trial
    sweep/, winner/             those of a sweep and of its finalists
    system/    the machine, which MLflow shows on a page of its own

Sweeps of earlier versions have the plain names. A sweep keeps the names with which it began: the
tag `sweeps.metric_names` of its record says which, and every run of its trials has that tag, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from search_spaces.recorded_metrics import accepted_metric
from tracking.tags import Tag

SYSTEM = "system/"
"""What a metric's name begins with when the machine was measured, not the model."""
GROUPED, PLAIN = "sections", "plain"
_EPOCH, _BEST, _WINNER, _SWEEP = "epoch/", "best/", "winner/", "sweep/"
_SINGLE = {
    "num_parameters": "model/parameters",
    "model_bytes": "model/bytes",
    "multiply_adds": "model/multiply_adds",
    "latency_ms": "model/latency_ms",
    "training_seconds": "training/seconds",
    "num_epochs": "training/epochs",
    "best_epoch": "training/best_epoch",
    "epoch_seconds": "training/epoch_seconds",
    "images_per_second": "training/images_per_second",
    "compile_seconds": "training/compile_seconds",
    "test_accuracy": "test/accuracy",
    "test_loss": "test/loss",
    "published_test_accuracy": "test/published_accuracy",
    "published_test_loss": "test/published_loss",
}
_OF_LAST_EPOCH = ("loss", "accuracy")
"""What a training without validation ends with."""
_PLAIN_NAMES = {name: plain for plain, name in _SINGLE.items()}


@dataclass(frozen=True)
class MetricNames:
    """The names of one sweep's metrics in MLflow.

    Attributes:
        is_grouped: whether they have sections; else they are the plain ones.
        objective: the plain name of what the sweep optimises; of grouped names only.
    """

    is_grouped: bool = False
    objective: str = ""

    @classmethod
    def of(cls, tags: Mapping[str, str]) -> MetricNames:
        """The names that the tags of a sweep's record, or of any of its runs, tell."""
        return cls(tags.get(Tag.METRIC_NAMES) == GROUPED, tags.get(Tag.OBJECTIVE, ""))

    @property
    def tags(self) -> dict[str, str]:
        """What a sweep's record says of them."""
        if not self.is_grouped:
            return {Tag.METRIC_NAMES: PLAIN}
        return {Tag.METRIC_NAMES: GROUPED, Tag.OBJECTIVE: self.objective}

    def of_report(self, name: str) -> str:
        """The name of what is measured after each epoch."""
        if not self.is_grouped or name.startswith(SYSTEM):
            return accepted_metric(name)
        return _SINGLE.get(name) or accepted_metric(name, _EPOCH)

    def of_end(self, name: str) -> str:
        """The name of what a trial, a sweep or a comparison ends with."""
        if not self.is_grouped or name.startswith(SYSTEM):
            return accepted_metric(name)
        if name in _SINGLE:
            return _SINGLE[name]
        for prefix, section in (("best_", _BEST), ("winner_", _WINNER)):
            if name.startswith(prefix):
                return accepted_metric(name.removeprefix(prefix), section)
        return accepted_metric(name, _SWEEP)

    def report(self, metrics: Mapping[str, float], step: int) -> dict[str, float]:
        """A report's metrics by their names in MLflow.

        Grouped ones lack the number of epochs where it is the step itself.
        """
        return {
            self.of_report(name): value
            for name, value in metrics.items()
            if not (self.is_grouped and name == "epoch" and value == step)
        }

    def end(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """The metrics of an end by their names in MLflow.

        Grouped ones lack what the curves say: all but the objective of the best epoch's values,
        and those of the last epoch.
        """
        return {self.of_end(name): value for name, value in metrics.items() if self._is_new(name)}

    def _is_new(self, name: str) -> bool:
        if not self.is_grouped or name in _SINGLE:
            return True
        is_best = name.startswith("best_")
        return name == f"best_{self.objective}" if is_best else name not in _OF_LAST_EPOCH

    def plain(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Metrics that MLflow holds, by their plain names."""
        return {self.plain_name(name): value for name, value in metrics.items()}

    def plain_name(self, name: str) -> str:
        """The plain name of a metric that MLflow holds."""
        if not self.is_grouped:
            return name
        if name in _PLAIN_NAMES:
            return _PLAIN_NAMES[name]
        for section, prefix in ((_EPOCH, ""), (_SWEEP, ""), (_BEST, "best_"), (_WINNER, "winner_")):
            if name.startswith(section):
                return prefix + name.removeprefix(section)
        return name
