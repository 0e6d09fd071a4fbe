"""Asynchronous successive halving with promotion (ASHA), and Hyperband over its brackets.

The pruner first, then its arithmetic: pure functions of numbers and values.

Sources: Li, Jamieson, DeSalvo, Rostamizadeh and Talwalkar, "Hyperband: A Novel Bandit-Based
Approach to Hyperparameter Optimization", JMLR 18 (2018), algorithm 1 (budgets and brackets); Li,
Jamieson, Rostamizadeh, Gonina, Hardt, Recht and Talwalkar, "A System for Massively Parallel
Hyperparameter Tuning", MLSys 2020, algorithm 2 (asynchronous promotion).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from pipelines.objectives import Objective
from pipelines.training.trial import Decision
from sweeps.engines.pruners.base import TrialCurve
from sweeps.engines.pruners.rungs import Rungs


class HalvingPruner:
    """Asynchronous successive halving with promotion, in one bracket or in Hyperband's.

    A trial that reaches a rung and is among its best 1/eta goes on at once; the others pause with
    a checkpoint, and go on when enough others have arrived below them. The published algorithm
    picks the highest rung's candidate for every free slot; here a trial that deserves the next
    rung keeps the slot that it has, which saves a process and changes no promotion.
    """

    def __init__(
        self,
        curves: Mapping[int, TrialCurve],
        objective: Objective,
        rungs: Rungs,
        *,
        hyperband: bool,
    ) -> None:
        self._curves = curves
        self._objective = objective
        self._rungs, self._reports = rungs.steps, rungs.reports
        self._factor = rungs.reduction_factor
        self._sizes = bracket_sizes(len(rungs.steps), self._factor) if hyperband else (1.0,)
        self._bracket: dict[int, int] = {}

    def decide(self, curve: TrialCurve, step: int) -> Decision:
        """At a rung: on, if among the best 1/eta of those that reached it, else pause."""
        if curve.protected or step < curve.promoted_to or step not in self._active(curve.number):
            return Decision.GO_ON
        keys = self._keys(self._bracket_of(curve.number), step)
        if curve.number in promotable(keys, self._factor):
            self._promote(curve, step)
            return Decision.GO_ON
        return Decision.PAUSE

    def next_promotion(self, *, no_more_trials: bool) -> int | None:
        """A paused trial among the best 1/eta of its rung, from the highest rung first.

        When no new trials come and nothing has been trained in full, the best one that waits goes
        on: a sweep that ends without any complete trial has no winner.
        """
        for bracket in range(len(self._sizes)):
            for step in reversed(self._rungs[bracket:-1]):
                for number in promotable(self._keys(bracket, step), self._factor):
                    curve = self._curves[number]
                    if curve.paused and self._rung_of(curve) == step:
                        self._promote(curve, step)
                        return number
        if no_more_trials and not self._any_complete():
            waiting = [curve for curve in self._curves.values() if curve.paused]
            if waiting:
                best = min(waiting, key=self._rank_key)
                self._promote(best, max(best.values))
                return best.number
        return None

    def unpromotable(self, num_trials: int) -> list[int]:
        """The paused trials whose rank in their rung is too low, whatever comes."""
        found = []
        for bracket in range(len(self._sizes)):
            for step in self._rungs[bracket:-1]:
                for number in unpromotable(self._keys(bracket, step), self._factor, num_trials):
                    curve = self._curves[number]
                    if curve.paused and self._rung_of(curve) == step:
                        found.append(number)
        return found

    def _rung_of(self, curve: TrialCurve) -> int:
        """The highest rung that a trial has reached; the end of a sweep may pause it beyond it."""
        return max((rung for rung in self._rungs if rung in curve.values), default=0)

    def _rank_key(self, curve: TrialCurve) -> tuple[int, float, int]:
        reached = max(curve.values)
        value = curve.best(self._objective, self._reports, reached)
        return -reached, self._objective.sort_key(value), curve.number

    def _any_complete(self) -> bool:
        return any(
            curve.complete or self._rungs[-1] in curve.values for curve in self._curves.values()
        )

    def _promote(self, curve: TrialCurve, step: int) -> None:
        curve.promoted_to = min(rung for rung in self._rungs if rung > step)

    def _active(self, number: int) -> tuple[int, ...]:
        """The rungs at which a trial is compared: those of its bracket, without the last."""
        return self._rungs[self._bracket_of(number) : -1]

    def _bracket_of(self, number: int) -> int:
        if number not in self._bracket:
            self._bracket[number] = bracket_of(number, self._sizes)
        return self._bracket[number]

    def _keys(self, bracket: int, step: int) -> dict[int, float]:
        """Sort keys of all trials that reached a rung; protected ones count in every bracket."""
        return {
            curve.number: self._objective.sort_key(curve.best(self._objective, self._reports, step))
            for curve in self._curves.values()
            if curve.counts
            and step in curve.values
            and (curve.protected or self._bracket_of(curve.number) == bracket)
        }


def promotable(keys: Mapping[int, float], reduction_factor: int) -> tuple[int, ...]:
    """The trials of a rung that deserve the next one: its best 1/eta, best first.

    Args:
        keys: trial number -> sort key (lower is better) of all that reached the rung.
    """
    return _ranked(keys)[: len(keys) // reduction_factor]


def unpromotable(
    keys: Mapping[int, float], reduction_factor: int, num_trials: int
) -> tuple[int, ...]:
    """The trials of a rung that can never be among its best 1/eta, worst last.

    A rung sees at most `num_trials` trials, so it promotes at most num_trials/eta of them, and a
    rank only falls as others arrive. One can always be promoted: the last rung is to be reached.
    """
    return _ranked(keys)[max(1, num_trials // reduction_factor) :]


def bracket_sizes(num_rungs: int, reduction_factor: int) -> tuple[float, ...]:
    """Relative numbers of trials in Hyperband's brackets.

    Bracket b starts at rung b: bracket 0 is plain successive halving over all rungs, the last one
    trains every trial in full. With s_max = num_rungs - 1 and s = s_max - b, the bracket has
    n_s = ceil((s_max + 1) / (s + 1) * eta^s) trials (algorithm 1, line 2).
    """
    top = num_rungs - 1
    return tuple(
        math.ceil((top + 1) / (top - bracket + 1) * reduction_factor ** (top - bracket))
        for bracket in range(num_rungs)
    )


def bracket_of(index: int, sizes: tuple[float, ...]) -> int:
    """The bracket of the trial with this index (from 0): always the one most behind its share.

    So every prefix of the trials is split as evenly as whole trials allow, and nothing has to be
    remembered for it.
    """
    counts = [0] * len(sizes)
    chosen = 0
    for position in range(index + 1):
        total = position + 1
        shortfalls = [size / sum(sizes) * total - n for size, n in zip(sizes, counts, strict=True)]
        chosen = shortfalls.index(max(shortfalls))
        counts[chosen] += 1
    return chosen


def _ranked(keys: Mapping[int, float]) -> tuple[int, ...]:
    return tuple(sorted(keys, key=lambda number: (keys[number], number)))
