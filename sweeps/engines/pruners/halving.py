"""Asynchronous successive halving with promotion (ASHA), and Hyperband over its brackets.

The pruner first, then the arithmetic of its brackets.

Sources: Li, Jamieson, DeSalvo, Rostamizadeh and Talwalkar, "Hyperband: A Novel Bandit-Based
Approach to Hyperparameter Optimization", JMLR 18 (2018), algorithm 1 (budgets and brackets); Li,
Jamieson, Rostamizadeh, Gonina, Hardt, Recht and Talwalkar, "A System for Massively Parallel
Hyperparameter Tuning", MLSys 2020, algorithm 2 (asynchronous promotion).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pipelines.objectives import Objective
from pipelines.training.trial import Decision
from sweeps.engines.pruners.base import TrialCurve
from sweeps.engines.pruners.rungs import Rungs
from sweeps.engines.pruners.standings import Standings


class HalvingPruner:
    """Asynchronous successive halving with promotion, in one bracket or in Hyperband's.

    A trial that reaches a rung and is among its best 1/eta goes on at once; the others pause with
    a checkpoint, and go on when enough others have arrived below them. The published algorithm
    picks the highest rung's candidate for every free slot; here a trial that deserves the next
    rung keeps the slot that it has, which saves a process and changes no promotion.

    Args:
        curves: all trials, by number; what changes in one is told by `changed`.
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
        sizes = bracket_sizes(len(rungs.steps), self._factor) if hyperband else (1.0,)
        self._places = brackets(sizes)
        self._bracket: list[int] = []
        self._rows = {(b, step): _Rung() for b in range(len(sizes)) for step in rungs.steps[b:-1]}
        # Bracket by bracket, and in each the highest rung first.
        self._order = [(b, s) for b in range(len(sizes)) for s in reversed(rungs.steps[b:-1])]
        self._any_complete = False

    def decide(self, curve: TrialCurve, step: int) -> Decision:
        """At a rung: on, if among the best 1/eta of those that reached it, else pause."""
        self.changed(curve)
        rung = self._rows.get((self._bracket_of(curve.number), step))
        if curve.protected or step < curve.promoted_to or rung is None:
            return Decision.GO_ON
        if curve.number in rung.reached and rung.is_promotable(curve.number, self._factor):
            self._promote(curve, step)
            return Decision.GO_ON
        return Decision.PAUSE

    def changed(self, curve: TrialCurve) -> None:
        """Takes in what has become of a trial: a value, a pause, an end."""
        self._any_complete |= curve.complete or self._rungs[-1] in curve.values
        waits_at = self._rung_of(curve) if curve.paused else None
        own = self._bracket_of(curve.number)
        for (bracket, step), rung in self._rows.items():
            if step not in curve.values or not (curve.protected or bracket == own):
                continue
            if not curve.counts:
                rung.reached.remove(curve.number)
                rung.waiting.remove(curve.number)
                continue
            if curve.number not in rung.reached:
                value = curve.best(self._objective, self._reports, step)
                rung.reached.put(curve.number, self._objective.sort_key(value))
            if step == waits_at:
                rung.waiting.put(curve.number, rung.reached.key(curve.number))
            else:
                rung.waiting.remove(curve.number)

    def next_promotion(self, *, no_more_trials: bool) -> int | None:
        """A paused trial among the best 1/eta of its rung, from the highest rung first.

        When no new trials come and nothing has been trained in full, the best one that waits goes
        on: a sweep that ends without any complete trial has no winner.
        """
        for bracket, step in self._order:
            rung = self._rows[bracket, step]
            best = next(iter(rung.waiting), None)
            if best is not None and rung.is_promotable(best, self._factor):
                self._promote(self._curves[best], step)
                return best
        if no_more_trials and not self._any_complete:
            waiting = [curve for curve in self._curves.values() if curve.paused]
            if waiting:
                first = min(waiting, key=self._rank_key)
                self._promote(first, max(first.values))
                return first.number
        return None

    def unpromotable(self, num_trials: int) -> list[int]:
        """The paused trials whose rank in their rung is too low, whatever comes."""
        return [
            number
            for rung in self._rows.values()
            for number in rung.unpromotable(self._factor, num_trials)
        ]

    def _rung_of(self, curve: TrialCurve) -> int:
        """The highest rung that a trial has reached; the end of a sweep may pause it beyond it."""
        return max((rung for rung in self._rungs if rung in curve.values), default=0)

    def _rank_key(self, curve: TrialCurve) -> tuple[int, float, int]:
        reached = max(curve.values)
        value = curve.best(self._objective, self._reports, reached)
        return -reached, self._objective.sort_key(value), curve.number

    def _promote(self, curve: TrialCurve, step: int) -> None:
        curve.promoted_to = min(rung for rung in self._rungs if rung > step)

    def _bracket_of(self, number: int) -> int:
        while number >= len(self._bracket):
            self._bracket.append(next(self._places))
        return self._bracket[number]


@dataclass
class _Rung:
    """The trials of one bracket at one rung.

    Attributes:
        reached: all that came to it; protected ones count in every bracket.
        waiting: of those, the ones that wait there.
    """

    reached: Standings = field(default_factory=Standings)
    waiting: Standings = field(default_factory=Standings)

    def is_promotable(self, number: int, reduction_factor: int) -> bool:
        """Whether a trial deserves the next rung: as one of the best 1/eta."""
        return self.reached.rank(number) < len(self.reached) // reduction_factor

    def unpromotable(self, reduction_factor: int, num_trials: int) -> list[int]:
        """Those that wait and can never be among the best 1/eta, best first.

        A rung sees at most `num_trials` trials, so it promotes at most num_trials/eta of them, and
        a rank only falls as others arrive. One can always be promoted: the last rung is to be
        reached.
        """
        first = max(1, num_trials // reduction_factor)
        if first >= len(self.reached):
            return []
        return self.waiting.since(self.reached.place(first))


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


def brackets(sizes: tuple[float, ...]) -> Iterator[int]:
    """The brackets of the trials, in their order: always the one most behind its share.

    So every prefix of the trials is split as evenly as whole trials allow, and nothing has to be
    remembered for it.
    """
    counts = [0] * len(sizes)
    for total in itertools.count(1):
        shortfalls = [size / sum(sizes) * total - n for size, n in zip(sizes, counts, strict=True)]
        chosen = shortfalls.index(max(shortfalls))
        counts[chosen] += 1
        yield chosen
