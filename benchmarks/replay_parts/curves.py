"""Recorded learning curves, as `record_curves.py` writes them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

FITTED, TRAINED = "fitted", "trained"


@dataclass(frozen=True)
class Curve:
    """What a point reports.

    Attributes:
        values: epochs trained -> (fitted, trained): validation accuracy as each is measured.
        early: the same below an epoch, of the images that are measured there.
        epoch_seconds, validation_seconds: of one.
    """

    values: Mapping[Fraction, tuple[float, float]]
    early: Mapping[Fraction, tuple[float, float]]
    epoch_seconds: float
    validation_seconds: float

    def at(self, epochs: Fraction, kind: str) -> float:
        """The value that is reported; NaN where the training had broken off."""
        found = (self.early if epochs < 1 else self.values).get(epochs)
        return math.nan if found is None else found[kind == TRAINED]


def curve_of_line(line: Mapping[str, Any]) -> Curve:
    """A recorded point."""
    values, early = {}, {}
    reports = line["reports"]
    for report in reports:
        epochs = Fraction(report["epoch"]).limit_denominator(9)
        values[epochs] = report[FITTED], report[TRAINED]
        if epochs < 1:
            early[epochs] = report["fitted_early"], report["trained_early"]
    whole = [report for report in reports if report["epoch"] > 1] or reports
    means = [
        statistics.median(report[name] for report in whole) if whole else 10.0
        for name in ("train_seconds", "validation_seconds")
    ]
    return Curve(values, early, *means)
