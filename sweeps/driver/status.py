"""How a sweep stands: one row per trial, kept by the loop, shown by views and reports."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pipelines.objectives import Objective
from pipelines.training.trial import Schedule
from search_spaces.hyperparameters import Params
from search_spaces.space import Space
from sweeps.driver.rows import TrialRows
from sweeps.engines.base import TrialState
from sweeps.formatting import params_text


@dataclass
class TrialRow:
    """One trial as the driver sees it.

    Attributes:
        schedule, space: what it trains on and for how long, and the space of its point.
        curve: step -> `metric`, in the unit of the schedule's `Reports`.
        waiting: it is to run as soon as a slot is free, after a failure or in a resumed sweep.
        in_doubt: it waits until another trial shows whether its failure was the machine's.
        failed_on: machines of a cluster on which it failed by what may be their fault.
        num_elsewhere: how often it went on on another one after that.
        seconds: time on slots in earlier stretches; `started` is when the present one began.
        num_retries: further tries after failures.
        num_repacked: further tries with fewer neighbours on the GPU.
        node: the machine of a cluster that it runs or ran on last; empty for the driver's.
        num_moved: further tries because its node was lost.
        moved_in_a_row: those of them without a report in between.
        lost_seconds: what it had trained then beyond its last report.
        ran_out_of_memory: its memory ran out before, so it runs alone, with smaller predictions.
        proposed_by: what the point was drawn from, for people; empty where nobody knows.
        duplicate_of: the trial of the same point; this one was not trained.
        past: it ended in an earlier session.
        failure_cause: what failures of one cause have in common, as `Failure.cause`.
        measured: what it costs (`sweeps.engines.limits`), by its first report.
        breaks_limit: the limit that it broke, as `epoch_seconds 41 > 30`.
        left_out_value: what it reached where it was trained to its end all the same.
        end_order: how many trials of the sweep had ended before it; None before its own end.
        measured_at: wall time of the sweep when it last reported; None where nobody knows.
        rows: those that it is one of, which are told what changes.
    """

    number: int
    name: str
    params: Params
    seed: int
    schedule: Schedule
    space: Space
    slot: int = 0
    baseline: str | None = None
    proposed_by: str = ""
    state: TrialState = TrialState.RUNNING
    value: float | None = None
    best_epoch: float | None = None
    curve: dict[int, float] = field(default_factory=dict)
    num_parameters: int | None = None
    started: float = 0.0
    seconds: float = 0.0
    reason: str = ""
    details: str = ""
    failure_cause: str = ""
    waiting: bool = False
    in_doubt: bool = False
    failed_on: frozenset[str] = frozenset()
    num_elsewhere: int = 0
    num_retries: int = 0
    num_repacked: int = 0
    node: str = ""
    num_moved: int = 0
    moved_in_a_row: int = 0
    lost_seconds: float = 0.0
    ran_out_of_memory: bool = False
    duplicate_of: int | None = None
    past: bool = False
    end_order: int | None = None
    measured: dict[str, float] = field(default_factory=dict)
    breaks_limit: str = ""
    left_out_value: float | None = None
    measured_at: float | None = None
    rows: TrialRows | None = field(default=None, init=False, repr=False, compare=False)

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        if name in TrialRows.WATCHED and (rows := self.__dict__.get("rows")) is not None:
            rows.changed(self)

    @property
    def step(self) -> int:
        """The last step that was reported; 0 before the first."""
        return max(self.curve, default=0)

    @property
    def epochs(self) -> float:
        """Epochs trained so far."""
        return self.schedule.reports.epochs(self.step)

    @property
    def epochs_text(self) -> str:
        """Epochs trained so far: `0.11`, `3`."""
        return self.schedule.reports.text(self.step)

    @property
    def last_value(self) -> float:
        """What was reported last; NaN before the first report."""
        return self.curve[self.step] if self.curve else math.nan

    @property
    def is_untrained(self) -> bool:
        """Whether it ended without training, because its point repeats or breaks a limit.

        A limit is broken before the first report, or after it: it is looked at when it is set.
        """
        return self.duplicate_of is not None or bool(self.breaks_limit and not self.curve)

    @property
    def num_tries(self) -> int:
        """How often it was started, for whatever reason."""
        again = self.num_retries + self.num_repacked + self.num_moved + self.num_elsewhere
        return 1 + again


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


def leaderboard_columns(board: Board) -> dict[str, list[object]]:
    """The whole table by columns, best first, then the trials without a value."""
    ranking = board.ranking()
    contenders = board.contenders()
    rows = contenders + [row for row in board.rows.values() if row not in contenders]
    metric = board.objective.metric
    return {
        "rank": [k + 1 if k < len(ranking) else None for k in range(len(rows))],
        "trial": [row.number for row in rows],
        "baseline": [row.baseline or "" for row in rows],
        "state": [row.state.value for row in rows],
        metric: [row.value for row in rows],
        f"last_{metric}": [row.last_value if row.curve else None for row in rows],
        "best_epoch": [row.best_epoch for row in rows],
        "num_parameters": [row.num_parameters for row in rows],
        "seconds": [round(row.seconds, 1) for row in rows],
        "params": [params_text(row.params) for row in rows],
        "num_epochs": [row.epochs for row in rows],
        "audit_value": [board.audits.get(row.number) for row in rows],
        "reason": [row.reason for row in rows],
        **param_columns([row.params for row in rows]),
    }


def param_columns(points: Sequence[Mapping[str, object]]) -> dict[str, list[object]]:
    """A column `params_NAME` for each parameter, as exports have it; None where it is inactive."""
    names = dict.fromkeys(name for point in points for name in point)
    return {f"params_{name}": [point.get(name) for point in points] for name in names}


class View(Protocol):
    """Receives every change of a sweep."""

    def started(self, board: Board, row: TrialRow, *, again: bool = False) -> None:
        """A trial started, or goes on."""

    def retried(self, board: Board, row: TrialRow, reason: str) -> None:
        """A trial failed and will be tried again."""

    def reported(self, board: Board, row: TrialRow) -> None:
        """A trial reported an epoch."""

    def ended(self, board: Board, row: TrialRow) -> None:
        """A trial ended, or paused."""

    def update(self, board: Board) -> None:
        """Time has passed."""

    def close(self) -> None:
        """The sweep has ended."""
