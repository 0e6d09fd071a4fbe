"""The best trials of a study, compared only at steps that several of them have reached."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

MIN_AT_STEP = 3
"""So many values make a step one at which trials are compared: a best of two is a coin's toss."""
MIN_ELITE = 3
"""A step that has fewer in its best part is helped out by the steps below it."""
ONLY_STEP = math.inf
"""The step of a trial that reports nothing but its end."""


@dataclass(frozen=True)
class Elite:
    """What a study has shown so far.

    Attributes:
        trials: the best ones, best first.
        num_results: trials with a value at the lowest step at which trials are compared.
        evidence: how many times more was learned than by the first results: the ratio of the
            highest such step to the lowest, or of the trials at the highest to `MIN_AT_STEP`; 0
            where there are no results yet.
    """

    trials: tuple[FrozenTrial, ...] = ()
    num_results: int = 0
    evidence: float = 0.0


class Curves:
    """What trials have reached, worked out once for each trial as long as it is the same object.

    Storages give trials that have not changed as the objects that they were.

    Args:
        whole_from: values at steps below it were measured differently, and stand for themselves.
    """

    def __init__(self, direction: StudyDirection, whole_from: int = 0) -> None:
        self._sign = 1.0 if direction is StudyDirection.MINIMIZE else -1.0
        self._whole_from = whole_from
        self._known: dict[int, tuple[FrozenTrial, list[tuple[float, float]]]] = {}

    def of(self, trial: FrozenTrial) -> list[tuple[float, float]]:
        """Step and sort key, lower for better, of all that a trial reported, by step."""
        known = self._known.get(trial.number)
        if known is None or known[0] is not trial:
            known = self._known[trial.number] = trial, self._reached(trial)
        return known[1]

    def _reached(self, trial: FrozenTrial) -> list[tuple[float, float]]:
        found = []
        best, last = math.inf, math.inf
        for step, value in sorted(_curve(trial).items()):
            alone = step < self._whole_from or last < self._whole_from
            key = self._sign * value
            best, last = key if alone else min(best, key), step
            found.append((step, best))
        return found


def find_elite(trials: Sequence[FrozenTrial], reduction_factor: int, reached: Curves) -> Elite:
    """The best 1/`reduction_factor` of the trials at the highest step, then of those below.

    A trial's value at a step is its best up to there. Where trials report steps, those that report
    none (repetitions of others) are left out. Failed trials and values that are not finite are
    ignored; running, paused and pruned ones have their values so far.
    """
    keys: dict[float, list[tuple[float, int]]] = {}
    for place, trial in enumerate(trials):
        for step, best in reached.of(trial):
            keys.setdefault(step, []).append((best, place))
    if len(keys) > 1:
        keys.pop(ONLY_STEP, None)
    steps = sorted(step for step, found in keys.items() if len(found) >= MIN_AT_STEP)
    if not steps:
        return Elite()
    chosen: dict[int, None] = {}
    for step in reversed(steps):
        if len(chosen) < MIN_ELITE:
            found = sorted(keys[step])
            chosen |= dict.fromkeys(place for _, place in found[: len(found) // reduction_factor])
    shift = 1 - steps[0] if steps[0] <= 0 else 0  # Some count their steps from 0.
    ratio = (steps[-1] + shift) / (steps[0] + shift) if steps[-1] != ONLY_STEP else 1.0
    return Elite(
        trials=tuple(trials[place] for place in chosen),
        num_results=len(keys[steps[0]]),
        evidence=max(ratio, len(keys[steps[-1]]) / MIN_AT_STEP),
    )


def _curve(trial: FrozenTrial) -> dict[float, float]:
    if trial.state in (TrialState.FAIL, TrialState.WAITING):
        return {}
    curve = {float(s): v for s, v in trial.intermediate_values.items() if math.isfinite(v)}
    values = trial.values if trial.state is TrialState.COMPLETE else None
    if not curve and values and math.isfinite(values[0]):
        return {ONLY_STEP: values[0]}
    return curve
