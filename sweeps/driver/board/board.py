"""How a sweep stands: all of its rows, best first, and what they add up to."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pipelines.objectives import Objective
from sweeps.driver.board.row import TrialRow
from sweeps.driver.board.rows import TrialRows
from sweeps.engines.base import TrialState


@dataclass(frozen=True)
class Progress:
    """How much of something that ends a sweep is done: `trials`, `seconds` or `epochs`."""

    unit: str
    total: float
    done: float

    @property
    def share(self) -> float:
        """0 to 1."""
        return min(1.0, self.done / self.total) if self.total else 0.0


@dataclass
class Board:
    """All rows of a sweep, with what does not change while it runs.

    Attributes:
        earlier_seconds: wall time of earlier sessions of a resumed sweep.
        ended_seconds: of those, up to the sweep's latest end: a time limit counts from there.
        num_trials: points to try at most; None for as many as the time allows.
        audits: pruned trial -> the objective that it reached when trained to the end.
        failed_audits: pruned trial -> why it could not be trained to the end.
        clock: seconds of a clock that only goes forward; a replay of recorded trials has its own.
        final_phase_from: `limited_seconds` from which the best candidates are trained in full, by
            present estimates; None where no time is reserved.
        counts_untrained: whether a trial that was not trained counts as tried, as in sweeps of
            before.
        max_epochs: of all trials together; None for no limit.
        rungs: the steps at which trials wait for others; empty without.
        reduction_factor: of so many trials of a rung one goes on; None without rungs.
        nodes: the machines of a cluster that take trials now; empty without one.
        competes: whether one trial is the best; published models are each compared with their own
            figure.
    """

    title: str
    objective: Objective
    num_trials: int | None
    num_slots: int
    timeout_seconds: float | None
    data_name: str = ""
    earlier_seconds: float = 0.0
    ended_seconds: float = 0.0
    audits: dict[int, float] = field(default_factory=dict)
    failed_audits: dict[int, str] = field(default_factory=dict)
    final_phase_from: float | None = None
    competes: bool = True
    counts_untrained: bool = False
    max_epochs: int | None = None
    rungs: tuple[int, ...] = ()
    reduction_factor: int | None = None
    nodes: tuple[str, ...] = ()
    clock: Callable[[], float] = time.monotonic
    rows: TrialRows = field(init=False)
    started: float = field(init=False)

    def __post_init__(self) -> None:
        self.rows = TrialRows(self.objective.sort_key)
        self.started = self.clock()

    def metric(self, row: TrialRow) -> str:
        """What is reported of a trial: the objective, where it validates."""
        return self.objective.metric if row.schedule.validates else "accuracy"

    def value(self, row: TrialRow, metrics: Mapping[str, float]) -> float:
        """The `metric` of a trial among those of a report; NaN where a `fit` does not return it."""
        if row.schedule.validates:
            return self.objective.value(metrics)
        return metrics.get("accuracy", math.nan)

    def running(self) -> list[TrialRow]:
        """The trials that train now."""
        return self.rows.running()

    def ended(self) -> list[TrialRow]:
        """The trials that ended, in whatever state."""
        return [row for row in self.rows.values() if row.state.is_end]

    def num_ended(self) -> int:
        """How many trials ended, in whatever state."""
        return sum(self.rows.num_in(state) for state in TrialState if state.is_end)

    def proposed(self) -> list[TrialRow]:
        """The trials that count as tried: a point that was killed is proposed again, and one that
        repeats another or breaks a limit is not trained.
        """
        return [
            row
            for row in self.rows.values()
            if row.state is not TrialState.KILLED and self.counts(row)
        ]

    def num_proposed(self) -> int:
        """How many trials count as tried."""
        return len(self.rows) - self.rows.num_in(TrialState.KILLED) - len(self._left_out())

    def counts(self, row: TrialRow) -> bool:
        """Whether a trial counts where trials are counted."""
        return self.counts_untrained or not row.is_untrained

    def num_tried(self) -> int:
        """How many of the trials that count have ended."""
        left_out = sum(row.state.is_end for row in self._left_out())
        return self.num_ended() - self.rows.num_in(TrialState.KILLED) - left_out

    def _left_out(self) -> list[TrialRow]:
        """The trials that were not killed, and do not count."""
        rows = [] if self.counts_untrained else self.rows.untrained()
        return [row for row in rows if row.state is not TrialState.KILLED]

    def num_epochs_trained(self) -> float:
        """Epochs of all trials together."""
        return sum(row.epochs for row in self.rows.values())

    def in_state(self, state: TrialState) -> list[TrialRow]:
        """The trials in one state."""
        return self.rows.in_state(state)

    def ranking(self) -> list[TrialRow]:
        """The complete trials, best first; of equals the earlier one."""
        return self.rows.ranking()

    def contenders(self) -> list[TrialRow]:
        """The complete trials, best first, then the pruned ones by the best that they reached.

        Those that ended within their first epoch come last: they were measured on fewer images.
        """
        key = self.objective.sort_key
        pruned = [row for row in self.in_state(TrialState.PRUNED) if row.curve]

        def rank_key(row: TrialRow) -> tuple[bool, float, int]:
            reports = row.schedule.reports
            reached = min(map(key, reports.comparable(row.curve, row.step)))
            return reports.is_early(row.step), reached, row.number

        return self.ranking() + sorted(pruned, key=rank_key)

    def best(self) -> TrialRow | None:
        """The best complete trial."""
        return self.rows.best()

    def reached(self, row: TrialRow, step: int) -> float | None:
        """The best value of a trial up to a step, of those that compare; None before any report."""
        reports = row.schedule.reports
        if reports.is_early(step) and step not in row.curve:
            return None
        values = reports.comparable(row.curve, step)
        return min(values, key=self.objective.sort_key, default=None)

    def is_ahead(self, row: TrialRow) -> bool:
        """Whether a trial that was not trained to its end is better than the best complete one.

        Than that is at its end, or than it was after as much training.
        """
        best, reached = self.best(), self.reached(row, row.step) if row.curve else None
        if best is None or best.value is None or reached is None or row.value is not None:
            return False
        then = self.reached(best, row.step)
        beats = self.objective.beats
        return beats(reached, best.value) or (then is not None and beats(reached, then))

    def best_reached(self, row: TrialRow) -> float | None:
        """The best that a trial has measured; None before a whole epoch, or where nothing counts.

        Within its first epoch it is measured on too few images to be compared.
        """
        if not self.competes or not row.schedule.validates or not row.curve or row.breaks_limit:
            return None
        if row.duplicate_of is not None or row.schedule.reports.is_early(row.step):
            return None
        reached = self.reached(row, row.step)
        return None if reached is None or math.isnan(reached) else reached

    def would_win(self, row: TrialRow) -> bool:
        """Whether a trial that ended now would be better than all that are complete or may be."""
        own = self.best_reached(row)
        states = (TrialState.COMPLETE, TrialState.PAUSED, TrialState.RUNNING)
        others = (
            self.best_reached(other)
            for state in states
            for other in self.in_state(state)
            if other is not row
        )
        return own is not None and all(
            other is None or self.objective.beats(own, other) for other in others
        )

    def ahead(self) -> list[TrialRow]:
        """The trials that wait, or were pruned, though `is_ahead`; those that came farthest first.

        What a limit left out is none of them.
        """
        states = (TrialState.PAUSED, TrialState.PRUNED)
        rows = [
            row
            for state in states
            for row in self.in_state(state)
            if not row.breaks_limit and self.is_ahead(row)
        ]
        key = self.objective.sort_key
        return sorted(rows, key=lambda row: (-row.step, key(row.last_value), row.number))

    def leader(self) -> TrialRow | None:
        """The best complete trial, or before there is one, the best of those that have reported."""
        reported = [row for row in self.rows.values() if row.curve and row.duplicate_of is None]
        key = self.objective.sort_key
        best = min(reported, key=lambda row: (key(row.last_value), row.number), default=None)
        return self.best() or best

    def elapsed_seconds(self) -> float:
        """Wall time since the sweep began, in all its sessions."""
        return self.earlier_seconds + self.clock() - self.started

    def limited_seconds(self) -> float:
        """Wall time that counts for the time limit: since the sweep began, or went on after an end.

        After an interruption the rest of the limit is left.
        """
        return self.elapsed_seconds() - self.ended_seconds

    def seconds_left(self) -> float | None:
        """An estimate from the trials that ended, never beyond the time limit; None before any."""
        return min((left for _, left in self._limits() if left is not None), default=None)

    def progress(self) -> Progress:
        """How far the sweep is, in the unit of the limit that ends it first, as far as is known."""
        limits = self._limits()
        if all(left is not None for _, left in limits):
            limits.sort(key=lambda one: one[1] or 0.0)
        else:
            limits.sort(key=lambda one: -one[0].share)
        return limits[0][0] if limits else Progress("trials", 0.0, 0.0)

    def _limits(self) -> list[tuple[Progress, float | None]]:
        """How far each limit is, and an estimate of the seconds to it; None before any trial."""
        done = [row for row in self.ended() if row.curve and not row.past]
        seconds = sum(row.seconds for row in done)
        limits: list[tuple[Progress, float | None]] = []
        if self.num_trials is not None:
            trials = Progress("trials", self.num_trials, self.num_tried())
            spent = sum(self.clock() - row.started for row in self.running())
            todo = seconds / max(1, len(done)) * (trials.total - trials.done) - spent
            limits.append((trials, max(0.0, todo / self.num_slots) if done else None))
        if self.timeout_seconds is not None:
            limit = self.timeout_seconds
            passed = min(limit, self.limited_seconds())
            left = max(0.0, limit - passed) if done else None
            limits.append((Progress("seconds", limit, passed), left))
        if self.max_epochs is not None:
            epochs = Progress("epochs", self.max_epochs, self.num_epochs_trained())
            pace = seconds / max(1e-9, sum(row.epochs for row in done))
            todo = pace * (epochs.total - epochs.done) / self.num_slots
            limits.append((epochs, max(0.0, todo) if done else None))
        return limits

    def rung_counts(self) -> dict[str, tuple[int, int]]:
        """For each rung, by its epoch: how many trials came to it, and how many of them wait."""
        if not self.rungs or not self.rows:
            return {}
        reports = next(iter(self.rows.values())).schedule.reports
        reached = [row for row in self.rows.values() if row.duplicate_of is None]
        waiting = [row for row in reached if row.state is TrialState.PAUSED]
        return {
            reports.text(rung): (
                sum(row.step >= rung for row in reached),
                sum(row.step == rung for row in waiting),
            )
            for rung in self.rungs
        }

    def compute_seconds(self) -> float:
        """Time that all trials took together."""
        return sum(row.seconds for row in self.rows.values())

    def audit_top(self) -> int:
        """How many trials are "the top" of a sweep: a tenth of them, at least one complete one."""
        complete = len(self.ranking())
        return min(complete, max(1, self.num_proposed() // 10))
