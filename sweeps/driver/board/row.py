"""One trial as the driver sees it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from pipelines.training.trial import Schedule
from search_spaces.hyperparameters import Params
from search_spaces.space import Space
from sweeps.driver.board.rows import TrialRows
from sweeps.engines.base import TrialState


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
