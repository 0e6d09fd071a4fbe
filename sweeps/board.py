"""How a sweep stands: one row per trial, kept by the loop, read by views and reports."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from pipelines.objectives import Objective
from search_spaces.hyperparameters import Params
from sweeps.engines.base import TrialState


@dataclass
class TrialRow:
    """One trial as the driver sees it. `curve` holds the objective after each epoch."""

    number: int
    name: str
    params: Params
    seed: int
    slot: int
    baseline: str | None = None
    state: TrialState = TrialState.RUNNING
    value: float | None = None
    best_epoch: int | None = None
    curve: list[float] = field(default_factory=list)
    num_parameters: int | None = None
    started: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    reason: str = ""
    details: str = ""


@dataclass
class Board:
    """All rows of a sweep, with what does not change while it runs."""

    title: str
    objective: Objective
    num_trials: int
    num_epochs: int
    num_slots: int
    timeout_seconds: float | None
    started: float = field(default_factory=time.monotonic)
    rows: dict[int, TrialRow] = field(default_factory=dict)

    def running(self) -> list[TrialRow]:
        """The trials that train now."""
        return [row for row in self.rows.values() if row.state is TrialState.RUNNING]

    def ended(self) -> list[TrialRow]:
        """The trials that ended, in whatever state."""
        return [row for row in self.rows.values() if row.state is not TrialState.RUNNING]

    def in_state(self, state: TrialState) -> list[TrialRow]:
        """The trials in one state."""
        return [row for row in self.rows.values() if row.state is state]

    def ranking(self) -> list[TrialRow]:
        """The complete trials, best first; of equals the earlier one."""
        complete = [row for row in self.rows.values() if row.value is not None]
        key = self.objective.sort_key
        return sorted(complete, key=lambda row: (key(row.value or 0.0), row.number))

    def best(self) -> TrialRow | None:
        """The best complete trial."""
        ranking = self.ranking()
        return ranking[0] if ranking else None

    def elapsed_seconds(self) -> float:
        """Wall time since the sweep began."""
        return time.monotonic() - self.started

    def seconds_left(self) -> float | None:
        """An estimate from the trials that ended, never beyond the time limit; None before any."""
        done = [row for row in self.ended() if row.state is TrialState.COMPLETE]
        if not done:
            return None
        mean = sum(row.seconds for row in done) / len(done)
        spent = sum(time.monotonic() - row.started for row in self.running())
        todo = self.num_trials - len(self.ended())
        left = max(0.0, (mean * todo - spent) / self.num_slots)
        if self.timeout_seconds is not None:
            left = min(left, max(0.0, self.timeout_seconds - self.elapsed_seconds()))
        return left

    def compute_seconds(self) -> float:
        """Time that all trials took together."""
        return sum(row.seconds for row in self.ended())
