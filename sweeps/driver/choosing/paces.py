"""How long training takes: each trial's pace, and that of starts, compiling and validations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from sweeps.driver.board.row import TrialRow
from sweeps.engines.base import TrialState

START_SECONDS, TRACING_SECONDS, VALIDATION_SECONDS = 1.0, 1.5, 1.0
"""Before any was seen: until a trial that goes on trains, until its steps are compiled, and what
is measured after an epoch."""


@dataclass
class _Mean:
    total: float = 0.0
    weight: float = 0.0

    def add(self, value: float, weight: float = 1.0) -> None:
        self.total, self.weight = self.total + weight * value, self.weight + weight

    def value(self, default: float) -> float:
        return self.total / self.weight if self.weight else default


@dataclass
class Paces:
    """What a sweep has seen of the time that training takes, and the forecast that follows."""

    _pace: dict[int, float] = field(default_factory=dict)
    _paces: dict[int, _Mean] = field(default_factory=dict)
    _first: dict[int, tuple[float, float]] = field(default_factory=dict)
    _start: _Mean = field(default_factory=_Mean)
    _tracing: _Mean = field(default_factory=_Mean)
    _validation: _Mean = field(default_factory=_Mean)

    def started(self, row: TrialRow, seconds: float) -> None:
        """Learns what it took until a trial that goes on reported its last step again."""
        self._start.add(seconds)
        self._first.pop(row.number, None)

    def known_before(self, number: int, epochs: float, seconds: float) -> None:
        """Learns the pace of a trial from what earlier sessions recorded.

        Args:
            seconds: that those epochs took, without compiling.
        """
        if epochs:
            self._learn(number, seconds / epochs, epochs)

    def reported(
        self, row: TrialRow, metrics: Mapping[str, float], seconds: float, *, first: bool
    ) -> None:
        """Learns from a new report.

        Args:
            seconds: since the report before, or since the trial was started.
            first: whether the trial was started, or went on, since the report before: then its
                steps were compiled first.
        """
        reports = row.schedule.reports
        pace = metrics.get("epoch_seconds", seconds)
        before = max((step for step in row.curve if step < row.step), default=0)
        share = (row.step - before) / reports.per_epoch
        rest = max(0.0, seconds - pace * share)
        if first and "compile_seconds" in metrics:
            compiled = metrics["compile_seconds"]
            self._tracing.add(compiled)
            self._learn(row.number, pace - compiled / share, share)
            return
        if first:
            # How much of it was compiling is a guess until the next stretch.
            self._first[row.number] = pace * share, share
            compiled = min(self._tracing.value(TRACING_SECONDS), pace * share / 2)
            self._pace.setdefault(row.number, (pace * share - compiled) / share)
            return
        self._learn(row.number, pace, share)
        if row.number in self._first:
            stretch, share = self._first.pop(row.number)
            self._tracing.add(max(0.0, stretch - pace * share))
        if not reports.is_early(row.step):
            self._validation.add(rest)

    def _learn(self, number: int, pace: float, share: float) -> None:
        """The slower of its last epoch and of all of them: one quick epoch is no promise."""
        mean = self._paces.setdefault(number, _Mean())
        mean.add(pace, share)
        self._pace[number] = max(pace, mean.value(pace))

    def of(self, row: TrialRow) -> float:
        """Seconds of an epoch of a trial; 0 before it has reported."""
        return self._pace.get(row.number, 0.0)

    def seconds_to_end(self, row: TrialRow) -> float:
        """What training a trial to the end of its schedule takes from now on, by its own pace."""
        reports = row.schedule.reports
        epochs = (row.schedule.end_step - row.step) / reports.per_epoch
        start = 0.0
        if row.state is TrialState.PAUSED:
            start = self._start.value(START_SECONDS) + self._tracing.value(TRACING_SECONDS)
        validation = math.ceil(epochs) * self._validation.value(VALIDATION_SECONDS)
        return start + epochs * self.of(row) + validation
