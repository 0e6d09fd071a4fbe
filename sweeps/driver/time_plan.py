"""The plan for a sweep's time: its end is reserved for training the best candidates in full.

A sweep that tries points until its time is over has measured its best ones after a part of their
training only, in the middle of their learning rate schedules. So no new points are tried once what
is left is needed to train the best candidates to their ends. How long that takes follows from what
each has taken so far; the plan is looked at again with every report.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from sweeps.driver.plan import LoopPlan
from sweeps.driver.status import Board, TrialRow
from sweeps.engines.base import TrialState

NUM_CANDIDATES = 3
"""How many are trained in full at the end, where there is time."""
RESERVED_SHARE = 0.4
"""Of the whole time for that; a short sweep trains fewer candidates, but always one."""
MARGIN = 1.1
"""Times differ: an epoch took up to a tenth longer than those before it (docs/log.md)."""
START_SECONDS = 3.0
"""Before any start was seen: what a trial takes beside its training when it starts or goes on."""


@dataclass
class _Mean:
    total: float = 0.0
    num: int = 0

    def add(self, value: float) -> None:
        self.total, self.num = self.total + value, self.num + 1

    def value(self, default: float) -> float:
        return self.total / self.num if self.num else default


@dataclass
class TimePlan:
    """When new points end, and which trials go on then; the loop tells it what it sees.

    Args:
        waits: whether trials can wait and go on later: under pruners with rungs. Without, a trial
            is not started when it cannot end in time, unless it is the first that could.
    """

    plan: LoopPlan
    board: Board
    waits: bool
    is_closing: bool = False
    _pace: dict[int, float] = field(default_factory=dict)
    _start: _Mean = field(default_factory=_Mean)
    _validation: _Mean = field(default_factory=_Mean)

    def reported(
        self, row: TrialRow, metrics: Mapping[str, float], seconds: float, *, first: bool
    ) -> None:
        """Learns from a report.

        Args:
            seconds: since the report before, or since the trial was started.
            first: whether the trial was started before it.
        """
        self._pace[row.number] = pace = metrics.get("epoch_seconds", seconds)
        reports = row.schedule.reports
        before = max((step for step in row.curve if step < row.step), default=0)
        trained = pace * (row.step - before) / reports.per_epoch
        if first:
            self._start.add(max(0.0, seconds - trained))
        elif not reports.is_early(row.step):
            self._validation.add(max(0.0, seconds - trained))

    def closes(self) -> bool:
        """Whether no new points are tried any more; once it is so it stays so."""
        if not self.is_closing and self._time_is_up():
            self.is_closing = True
        return self.is_closing

    def goes_on(self, row: TrialRow) -> bool:
        """Whether a trial that runs is trained to its end now that the sweep closes."""
        return row in self._candidates()

    def next_waiting(self) -> TrialRow | None:
        """The paused trial to train to its end now: the best that can end in time.

        The very best goes on in any case while nothing is complete.
        """
        running = sum(self._seconds_to_end(row) for row in self.board.running())
        for row in self._ranked():
            if row.state is not TrialState.PAUSED:
                continue
            if self._left() * self.board.num_slots > running + self._seconds_to_end(row):
                return row
            if not self.board.ranking() and not self.board.running():
                return row
        return None

    @property
    def closing_from(self) -> float | None:
        """Seconds after the sweep's start at which its end begins, as things stand."""
        limit = self.plan.rules.timeout_seconds
        if limit is None or not self.waits:
            return None
        return 0.0 if self.is_closing else limit - self.reserved_seconds

    @property
    def reserved_seconds(self) -> float:
        """How long before the limit the last full trainings begin, as things stand."""
        return self._needed(self._candidates())

    def _time_is_up(self) -> bool:
        if self.plan.rules.timeout_seconds is None:
            return False
        if self.waits:
            return self._left() < self._needed(self._candidates())
        return bool(self.board.ranking()) and self._left() < self._typical_seconds()

    def _left(self) -> float:
        limit = self.plan.rules.timeout_seconds
        return math.inf if limit is None else limit - self.board.elapsed_seconds()

    def _candidates(self) -> list[TrialRow]:
        """The best that are not complete: as many as the reserved share of the time trains."""
        limit, ranked = self.plan.rules.timeout_seconds or math.inf, self._ranked()
        chosen = ranked[:1]
        for row in ranked[1:NUM_CANDIDATES]:
            if self._needed([*chosen, row]) > RESERVED_SHARE * limit:
                break
            chosen.append(row)
        return chosen

    def _ranked(self) -> list[TrialRow]:
        """Trials that are neither complete nor lost: by the highest rung reached, then by value."""
        key = self.board.objective.sort_key

        def standing(row: TrialRow) -> tuple[int, float, int]:
            rung = max((step for step in self.plan.rungs if step <= row.step), default=row.step)
            at = rung if rung in row.curve else row.step
            values = row.schedule.reports.comparable(row.curve, at)
            return -rung, min(map(key, values)), row.number

        going = (TrialState.RUNNING, TrialState.PAUSED)
        rows = [row for row in self.board.rows.values() if row.state in going and row.curve]
        return sorted(rows, key=standing)

    def _needed(self, rows: list[TrialRow]) -> float:
        seconds = [self._seconds_to_end(row) for row in rows]
        if not seconds:
            return 0.0
        return MARGIN * max(*seconds, sum(seconds) / self.board.num_slots)

    def _seconds_to_end(self, row: TrialRow) -> float:
        reports = row.schedule.reports
        epochs = (row.schedule.end_step - row.step) / reports.per_epoch
        waits = row.state is TrialState.PAUSED
        start = self._start.value(START_SECONDS) if waits else 0.0
        return start + epochs * self._pace_of(row) + math.ceil(epochs) * self._validation.value(1.0)

    def _pace_of(self, row: TrialRow) -> float:
        """Seconds of an epoch: as last seen, or as an earlier session of the sweep recorded."""
        if row.number in self._pace:
            return self._pace[row.number]
        return row.seconds / row.epochs if row.epochs else 0.0

    def _typical_seconds(self) -> float:
        done = [row.seconds for row in self.board.ranking()]
        return MARGIN * sum(done) / len(done)
