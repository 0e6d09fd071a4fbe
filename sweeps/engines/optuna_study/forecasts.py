"""What a point will take, by what the trials of the study took: seconds, and milliseconds.

A trial's time for an epoch is taken as a part for each image, one for each multiply-add of it, and
one for each step: constants that are no less than 0, fitted so that the squares of the relative
errors are least (Lawson and Hanson, "Solving Least Squares Problems", 1974, chapter 23). How well
that predicts is written down in docs/log.md.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial

from search_spaces.hyperparameters import Params

MEASURED = "measured"
"""User attribute of a trial: quantity -> what was measured of it first, and with what features."""
MIN_TRIALS = 6
"""Before so many trials were measured nothing is predicted."""
PREDICTED = ("epoch_seconds", "latency_ms")
"""The quantities that no layer tells."""


class Forecasts:
    """Predictions that follow from a study's trials alone."""

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        self._constants: dict[str, np.ndarray] = {}
        for quantity in PREDICTED:
            found = [pair for t in trials if (pair := _measured(t, quantity)) is not None]
            if len(found) >= MIN_TRIALS:
                rows, values = map(np.array, zip(*found, strict=True))
                self._constants[quantity] = _fitted(rows / values[:, None])

    def knows(self, quantity: str) -> bool:
        """Whether enough trials were measured."""
        return quantity in self._constants

    def of(self, quantity: str, params: Params, multiply_adds: float | None) -> float | None:
        """What is predicted for a point; None where too little is known."""
        if multiply_adds is None or quantity not in self._constants:
            return None
        return float(self._constants[quantity] @ _features(params, multiply_adds))


def _measured(trial: FrozenTrial, quantity: str) -> tuple[list[float], float] | None:
    """The features of a trial's point, and what was measured."""
    measured: Mapping[str, float] = trial.user_attrs.get(MEASURED, {})
    value, multiply_adds = measured.get(quantity, 0.0), measured.get("multiply_adds")
    if value <= 0 or multiply_adds is None:
        return None
    return _features(measured, multiply_adds), value


def features_of(params: Params, multiply_adds: float | None) -> dict[str, float]:
    """What is to be kept of a point beside what was measured, as far as it has it."""
    found = {} if multiply_adds is None else {"multiply_adds": multiply_adds}
    batch_size = params.get("batch_size")
    return found | ({"batch_size": batch_size} if isinstance(batch_size, int | float) else {})


def _features(params: Mapping[str, Any], multiply_adds: float) -> list[float]:
    """One for each part of the time; a space without a batch size has the same for all points."""
    batch_size = params.get("batch_size")
    steps = 1 / batch_size if isinstance(batch_size, int | float) and batch_size > 0 else 0.0
    return [1.0, multiply_adds, steps]


def _fitted(rows: np.ndarray) -> np.ndarray:
    """The constants, none below 0, with which the rows come nearest to 1.

    With three constants the best one of all subsets is found by trying each.
    """
    scale = np.abs(rows).max(axis=0)
    scale[scale == 0] = 1.0
    rows = rows / scale
    best: np.ndarray = np.zeros(rows.shape[1])
    least = np.inf
    for size in range(1, rows.shape[1] + 1):
        for columns in map(list, itertools.combinations(range(rows.shape[1]), size)):
            found = np.linalg.lstsq(rows[:, columns], np.ones(len(rows)), rcond=None)[0]
            error = float(((rows[:, columns] @ found - 1) ** 2).sum())
            if (found >= 0).all() and error < least * (1 - 1e-9):
                best, least = np.zeros(rows.shape[1]), error
                best[columns] = found
    found_constants: np.ndarray = best / scale
    return found_constants
