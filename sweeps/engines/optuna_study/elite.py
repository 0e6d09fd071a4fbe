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


def find_elite(
    trials: Sequence[FrozenTrial],
    direction: StudyDirection,
    reduction_factor: int,
    whole_from: int = 0,
) -> Elite:
    """The best 1/`reduction_factor` of the trials at the highest step, then of those below.

    A trial's value at a step is its best up to there, but values at steps below `whole_from`, which
    are measured differently, stand for themselves. Where trials report steps, those that report
    none (repetitions of others) are left out. Failed trials and values that are not finite are
    ignored; running, paused and pruned ones have their values so far.
    """
    sign = 1.0 if direction is StudyDirection.MINIMIZE else -1.0
    keys: dict[float, list[tuple[float, int]]] = {}
    curves = [_curve(trial) for trial in trials]
    have_steps = any(curve and ONLY_STEP not in curve for curve in curves)
    for place, curve in enumerate(curves):
        best, last = math.inf, math.inf
        for step, value in sorted(curve.items()):
            if step == ONLY_STEP and have_steps:
                continue
            alone = step < whole_from or last < whole_from
            best, last = sign * value if alone else min(best, sign * value), step
            keys.setdefault(step, []).append((best, place))
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
