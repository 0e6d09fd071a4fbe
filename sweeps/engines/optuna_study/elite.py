"""The best trials of a study, compared only at steps that several of them have reached."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from sweeps.engines.pruners.standings import Standings

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
    """What trials have reached, in order at each step: only what changed is worked out anew.

    Storages give trials that have not changed as the objects that they were.

    Args:
        whole_from: values at steps below it were measured differently, and stand for themselves.
        counts: which trials are compared at all; None for all.
    """

    def __init__(
        self,
        direction: StudyDirection,
        whole_from: int = 0,
        counts: Callable[[FrozenTrial], bool] | None = None,
    ) -> None:
        self._counts = counts
        self._sign = 1.0 if direction is StudyDirection.MINIMIZE else -1.0
        self._whole_from = whole_from
        self._trials: list[FrozenTrial] = []
        self._steps: list[list[float]] = []
        self._standings: dict[float, Standings] = {}

    def of(self, trials: Sequence[FrozenTrial]) -> dict[float, Standings]:
        """Step -> places in `trials` by the best up to there, of all that came to it."""
        for place in range(len(trials), len(self._trials)):
            self._remove(place)
        del self._trials[len(trials) :], self._steps[len(trials) :]
        changed = [
            place
            for place, (known, trial) in enumerate(zip(self._trials, trials, strict=False))
            if known is not trial
        ]
        for place in changed:
            self._remove(place)
        for place in (*changed, *range(len(self._trials), len(trials))):
            reached = self._reached(trials[place])
            self._trials[place : place + 1] = [trials[place]]
            self._steps[place : place + 1] = [[step for step, _ in reached]]
            for step, best in reached:
                self._standings.setdefault(step, Standings()).put(place, best)
        return {step: found for step, found in self._standings.items() if len(found)}

    def _remove(self, place: int) -> None:
        for step in self._steps[place]:
            self._standings[step].remove(place)

    def _reached(self, trial: FrozenTrial) -> list[tuple[float, float]]:
        """Step and sort key, lower for better, of all that a trial reported, by step."""
        found: list[tuple[float, float]] = []
        if self._counts is not None and not self._counts(trial):
            return found
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
    standings = reached.of(trials)
    if len(standings) > 1:
        standings.pop(ONLY_STEP, None)
    steps = sorted(step for step, found in standings.items() if len(found) >= MIN_AT_STEP)
    if not steps:
        return Elite()
    chosen: dict[int, None] = {}
    for step in reversed(steps):
        if len(chosen) < MIN_ELITE:
            found = standings[step]
            chosen |= dict.fromkeys(found.first(len(found) // reduction_factor))
    shift = 1 - steps[0] if steps[0] <= 0 else 0  # Some count their steps from 0.
    ratio = (steps[-1] + shift) / (steps[0] + shift) if steps[-1] != ONLY_STEP else 1.0
    return Elite(
        trials=tuple(trials[place] for place in chosen),
        num_results=len(standings[steps[0]]),
        evidence=max(ratio, len(standings[steps[-1]]) / MIN_AT_STEP),
    )


def _curve(trial: FrozenTrial) -> dict[float, float]:
    if trial.state in (TrialState.FAIL, TrialState.WAITING):
        return {}
    curve = {float(s): v for s, v in trial.intermediate_values.items() if math.isfinite(v)}
    values = trial.values if trial.state is TrialState.COMPLETE else None
    if not curve and values and math.isfinite(values[0]):
        return {ONLY_STEP: values[0]}
    return curve
