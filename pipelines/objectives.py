"""What a sweep optimises: a metric of validation, with its direction decided here alone."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from search_spaces.errors import InputError, shortened, shown, unknown_name
from search_spaces.recorded_metrics import recorded_metric
from search_spaces.user_spaces.fit_values import RETURNED_NUMBER


@dataclass(frozen=True)
class Objective:
    """A metric of an epoch report and which way is better; `min_classes` is what it needs."""

    metric: str
    direction: Literal["maximize", "minimize"]
    min_classes: int = 2

    @property
    def name(self) -> str:
        """What `get_objective` finds it by; the same for the same objective."""
        if self.metric in OBJECTIVES or self == RETURNED:
            return self.metric
        return f"{self.metric}:{self.direction[:3]}"

    def value(self, metrics: Mapping[str, float]) -> float:
        """The objective's value in a set of metrics."""
        return metrics[self.metric]

    def better(self, one: Mapping[str, float], other: Mapping[str, float]) -> bool:
        """Whether `one` is strictly better, so that of two equal epochs the earlier one stays."""
        return self.beats(self.value(one), self.value(other))

    def beats(self, one: float, other: float) -> bool:
        """Whether the value `one` is strictly better than the value `other`."""
        return one > other if self.direction == "maximize" else one < other

    def sort_key(self, value: float) -> float:
        """A key that sorts the best value first."""
        return -value if self.direction == "maximize" else value


OBJECTIVES = {
    objective.metric: objective
    for objective in (
        Objective("val_accuracy", "maximize"),
        Objective("val_loss", "minimize"),
        Objective("val_macro_f1", "maximize"),
        Objective("val_balanced_accuracy", "maximize"),
        Objective("val_auc", "maximize"),
        Objective("val_top5_accuracy", "maximize", min_classes=6),
    )
}


RETURNED = Objective(RETURNED_NUMBER, "minimize")
"""The number that a HyperModel's own `fit` returns."""
_OWN = re.compile(r"([^\x00-\x1f:][^\x00-\x1f]{0,249}):(max|min)")
"""A metric of the user's own, under its own name or the recorded one, and which way is better."""


def get_objective(name: str) -> Objective:
    """The objective of that name, or of a metric of the user's own: `NAME:max`, `NAME:min`.

    Raises:
        InputError: It is no such name.
    """
    if name in OBJECTIVES:
        return OBJECTIVES[name]
    if name == RETURNED_NUMBER:
        return RETURNED
    own = _OWN.fullmatch(name)
    if own is None:
        raise InputError(
            f"{unknown_name('objective', name, OBJECTIVES)} Or name a metric that your own model "
            f"or fit gives, with its direction: NAME:max or NAME:min."
        )
    metric = own[1] if own[1] in OBJECTIVES else recorded_metric(own[1])
    found = Objective(metric, "maximize" if own[2] == "max" else "minimize")
    known = OBJECTIVES.get(found.metric, found)
    if known.direction != found.direction:
        raise InputError(
            f"--objective {found.metric} is always {known.direction}d. Received: {name}. Leave "
            f":{own[2]} out."
        )
    return known


def check_objective(name: str, num_classes: int, data_name: str) -> None:
    """Raises InputError for an objective that says nothing about so few classes."""
    objective = get_objective(name)
    if num_classes < objective.min_classes:
        raise InputError(
            f"--objective {name} needs at least {objective.min_classes} classes. Received: "
            f"{data_name} with {num_classes}. Choose another objective, such as val_accuracy."
        )


def check_measured(name: str, own_metrics: Collection[str] | None, space: str) -> None:
    """Raises InputError for an objective that the trials of a space will not report.

    Args:
        own_metrics: as `Space.own_metrics`; None where nothing is known of them.
        space: what people call the space.
    """
    metric = get_objective(name).metric
    if metric in OBJECTIVES or own_metrics is None or metric in map(recorded_metric, own_metrics):
        return
    there = [*OBJECTIVES, *(own for own in own_metrics if own not in OBJECTIVES)]
    raise InputError(
        "--objective must be something that the space measures. Received: "
        f"{shortened(metric)}, which neither the fit nor the metrics of '{space}' give. Choose "
        f"one of: {', '.join(there)}."
    )


def parse_target(text: str, objective: Objective) -> float:
    """The value in `val_accuracy>=0.995` or `val_loss<=0.03`.

    Raises:
        InputError: It names another metric than the objective, or points the wrong way.
    """
    sign = ">=" if objective.direction == "maximize" else "<="
    match = re.fullmatch(
        r"(.+?)\s*(>=|<=)\s*(-?[0-9]+(?:\.[0-9]+)?(?:[eE]-?[0-9]+)?)", text.strip()
    )
    is_other = match is None or objective.metric not in (match[1], recorded_metric(match[1]))
    if match is None or is_other or match[2] != sign:
        raise InputError(
            f"--target must be the objective, {sign} and a number, such as "
            f"'{objective.metric}{sign}{0.995 if sign == '>=' else 0.03}'. Received: {shown(text)}."
        )
    return float(match[3])


def check_target(text: str, objective: Objective) -> None:
    """Raises InputError for a target of another form, or one that no value can reach."""
    value = parse_target(text, objective)
    is_share = objective.metric in OBJECTIVES and objective.direction == "maximize"
    if math.isfinite(value) and (not is_share or value <= 1):
        return
    why = "it is a share, at most 1" if is_share else "it must be finite"
    raise InputError(
        f"--target must be a value that {objective.metric} can reach: {why}. Received: "
        f"{shown(text)}."
    )
