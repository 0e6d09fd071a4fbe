"""The interface of an engine, and the states that a trial can have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from pipelines.training.trial import Decision, Schedule
from search_spaces.hyperparameters import Params
from search_spaces.space import Space

LEFT_OUT_VALUE = "left_out_value"
"""The fact of a trial that has the objective of one that a limit left out after its training."""
RUN_PAGE = "run_page"
"""The fact of a trial that is the address of its run in MLflow."""

DEFAULTS = "default"
"""What the point of the space's own defaults is said to be drawn from."""
AT_RUNG = "waits at a rung with its checkpoint"
"""The reason of a trial that its pruner has paused."""


class TrialState(StrEnum):
    """The state of a trial, the same in the study and in MLflow; the last four are ends.

    PAUSED waits at a rung with a checkpoint, or waits for a sweep to be resumed. COMPLETE trained
    to its end (or stopped early by its own patience), PRUNED was stopped by the driver, FAILED
    raised or died, KILLED was ended because the sweep was.
    """

    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    COMPLETE = "COMPLETE"
    PRUNED = "PRUNED"
    FAILED = "FAILED"
    KILLED = "KILLED"

    @property
    def is_end(self) -> bool:
        """Whether the trial has ended."""
        return self not in (TrialState.RUNNING, TrialState.PAUSED)


@dataclass(frozen=True)
class TrialPlan:
    """What is fixed for one trial, where a search leaves it to the sweep.

    Attributes:
        space: whose point it is.
        seed: the random seed of its training.
    """

    schedule: Schedule
    space: Space
    seed: int


@dataclass(frozen=True)
class Proposal:
    """One trial to run.

    Attributes:
        baseline: the published configuration that it is, if any.
        duplicate_of: an earlier trial of the very same point; it need not be trained again.
        name: what people call it; empty for the trial's number.
        plan: how it is trained; None for as all trials of the sweep.
        curve: step -> what an earlier session recorded of it, as in `PastTrial`.
        proposed_by: what the point was drawn from, for people; empty where nobody knows.
        breaks_limit: the limit that it breaks, as `parameters 312k > 200k`; it is not trained.
    """

    number: int
    params: Params
    baseline: str | None = None
    duplicate_of: int | None = None
    name: str = ""
    plan: TrialPlan | None = None
    curve: Mapping[int, float] = field(default_factory=dict)
    proposed_by: str = ""
    breaks_limit: str = ""


@dataclass(frozen=True)
class PastTrial:
    """A trial of an earlier session, as the study holds it.

    Attributes:
        curve: step -> objective; the trial's `Reports` have the unit of steps.
        facts: what `tell` was given.
        ended_at: seconds since 1970, for trials that have ended.
        proposed_by, breaks_limit: as in `Proposal`; a limit only of one that was not trained yet.
        measured: what `report` was given.
    """

    number: int
    params: Params
    state: TrialState
    value: float | None
    curve: Mapping[int, float]
    baseline: str | None = None
    reason: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    duplicate_of: int | None = None
    ended_at: float | None = None
    name: str = ""
    plan: TrialPlan | None = None
    proposed_by: str = ""
    breaks_limit: str = ""
    measured: Mapping[str, float] = field(default_factory=dict)


class Wait:
    """No proposal now: a running trial has to end first, or a paused one has to be promoted."""


class Engine(Protocol):
    """Proposes trials, decides which go on, and learns from what they reach."""

    def past(self) -> list[PastTrial]:
        """The trials that the study holds already, by number."""

    def ask(self) -> Proposal | Wait | None:
        """The next new trial, or None when the space is exhausted.

        Returns `Wait` only while a trial runs, or when `next_promotion` has one.
        """

    def add(self, params: Params) -> None:
        """Makes a point of somebody's own the next that is asked for.

        Raises:
            InputError: This engine proposes only points of its own.
        """

    def report(
        self, number: int, step: int, value: float, measured: Mapping[str, float] | None = None
    ) -> Decision:
        """Records the objective after a step (from 1), once, and decides how the trial goes on.

        A step that is recorded already is only decided upon.

        Args:
            measured: quantity (`sweeps.engines.limits`) -> what the trial costs; the first is kept.
        """

    def pause(self, number: int) -> None:
        """The trial waits; it is neither running nor ended."""

    def next_promotion(self, *, no_more_trials: bool) -> int | None:
        """The paused trial that deserves the next free slot; it counts as running from now on.

        Args:
            no_more_trials: no new trials will be asked for.
        """

    def resume(self, number: int) -> None:
        """A paused trial goes on beyond the rung where it waits, promoted or not.

        It counts as running from now on.
        """

    def unpromotable(self, num_trials: int) -> list[int]:
        """The paused trials that cannot be promoted any more in a sweep of `num_trials`."""

    def tell(
        self,
        number: int,
        state: TrialState,
        value: float | None = None,
        reason: str = "",
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """Ends a trial. `value` is required for COMPLETE and ignored otherwise.

        Args:
            facts: JSON values to be found again in `past`.
        """
