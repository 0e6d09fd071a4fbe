"""What the loop of a sweep needs to know: about its trials, and when they are enough."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from pipelines.data.prepared import PreparedData
from pipelines.objectives import Objective
from pipelines.training.options import DEFAULT_TRAINING, TrainingOptions
from pipelines.training.trial import Schedule
from search_spaces.space import Space
from sweeps.driver.board.board import Board
from sweeps.engines.base import TrialState
from sweeps.engines.limits import Limit
from sweeps.executors.base import Job, Slot
from sweeps.resources.packing import GpuLayout, NodeSlots
from sweeps.settings import DEFAULT_NODE_WAIT_SECONDS
from sweeps.state.paths import SweepPaths
from sweeps.workers.jobs import train_job

FEW_TRIALS = 24
STOPPED = "the sweep was stopped"
"""Why a trial ended that a stop rule or an interrupt ended."""

MOST_MOVES = 5
"""A trial whose node is lost before it reports again goes on elsewhere so often: a point that ends
its nodes has an end."""


class StopReason(StrEnum):
    """Why a sweep ended."""

    TRIALS = "all trials ended"
    EXHAUSTED = "the space is exhausted"
    TIMEOUT = "the time limit was reached"
    EPOCHS = "the limit of epochs was reached"
    TARGET = "the target was reached"
    NO_IMPROVEMENT = "no further improvement"
    INTERRUPTED = "interrupted"
    PREEMPTED = "terminated; it can be resumed"
    CHANGED = "the space's source has changed; it can be resumed"
    TROUBLE = "trials fail one after the other because of the machine; it can be resumed"
    NO_NODE = "no node of the cluster is left; it can be resumed"
    FATAL = "the space ended the search; it can be resumed"
    FAILING = "the first trials all failed for one reason"

    @property
    def is_break(self) -> bool:
        """Whether trials wait for the sweep to be resumed."""
        return self in (
            StopReason.PREEMPTED, StopReason.CHANGED, StopReason.FATAL, StopReason.TROUBLE,
            StopReason.NO_NODE,
        )  # fmt: skip


@dataclass(frozen=True)
class StopRules:
    """What ends a sweep before its last trial; None means that a rule is not set.

    Attributes:
        timeout_seconds: of `Board.limited_seconds`.
        max_total_epochs: epochs of all trials together.
        target: value of the objective that is good enough.
        patience_trials: trials in a row that ended without a new best.
    """

    timeout_seconds: float | None = None
    max_total_epochs: int | None = None
    target: float | None = None
    patience_trials: int | None = None

    def reached(self, board: Board) -> StopReason | None:
        """The first rule that holds: nothing starts any more, what runs ends with its epoch."""
        if self._target_reached(board):
            return StopReason.TARGET
        if (
            self.max_total_epochs is not None
            and board.num_epochs_trained() >= self.max_total_epochs
        ):
            return StopReason.EPOCHS
        if self.timeout_seconds is not None and board.limited_seconds() >= self.timeout_seconds:
            return StopReason.TIMEOUT
        if self.patience_trials is not None and trials_without_best(board) >= self.patience_trials:
            return StopReason.NO_IMPROVEMENT
        return None

    def meets_target(self, objective: Objective, value: float) -> bool:
        """Whether a value is at least as good as the target."""
        return self.target is not None and not objective.beats(self.target, value)

    def _target_reached(self, board: Board) -> bool:
        best = board.best()
        if best is None or best.value is None:
            return False
        return self.meets_target(board.objective, best.value)


def trials_without_best(board: Board) -> int:
    """How many trials ended, complete or pruned, after the best one did."""
    best = board.best()
    if best is None or best.end_order is None:
        return 0
    counted = (TrialState.COMPLETE, TrialState.PRUNED)
    return sum(
        row.end_order is not None and row.end_order > best.end_order
        for row in board.ended()
        if row.state in counted
        and (row.curve or (row.duplicate_of is not None and board.counts_untrained))
    )


@dataclass(frozen=True)
class LoopPlan:
    """What the loop needs to know about its trials; `job` is what trains one.

    Attributes:
        num_trials: points to try at most; None for as many as the time allows.
        schedule: of every trial that has no plan of its own.
        rungs: the steps at which trials wait for others; empty under a pruner without.
        protects_baselines: whether published models train to their ends whatever they reach.
        training: how every trial trains.
        slots: where trials run on cores; on GPUs `layout` cuts them as they are needed.
        layout, level: the GPUs and how many trials share one; None on cores.
        trials_per_gpu: what was asked for; None for auto.
        num_retries: further tries of a trial that another try can help.
        stall_seconds: how long a trial may report nothing; None for the default rule.
        num_audited: pruned trials to train to the end afterwards.
        limits: what trials may cost.
        pool: the slots of a cluster, in place of this machine's.
        node_wait_seconds: how long trials wait where the cluster has no node.
        is_fixed: whether the trials are those of a fixed plan. Then each is wanted for itself, and
            some that fail for one reason do not end the others.
    """

    space: Space
    data: PreparedData
    num_trials: int | None
    schedule: Schedule
    seed: int
    slots: tuple[Slot, ...]
    paths: SweepPaths
    training: TrainingOptions = DEFAULT_TRAINING
    rules: StopRules = field(default_factory=StopRules)
    num_retries: int = 0
    stall_seconds: float | None = None
    num_audited: int = 0
    job: Job = train_job
    layout: GpuLayout | None = None
    level: int = 1
    trials_per_gpu: int | None = None
    is_fixed: bool = False
    rungs: tuple[int, ...] = ()
    protects_baselines: bool = False
    limits: tuple[Limit, ...] = ()
    pool: NodeSlots | None = None
    node_wait_seconds: float = DEFAULT_NODE_WAIT_SECONDS

    def most_trials(self, num_tried: int) -> int:
        """How many points there will be at most; twice as many as now where only time limits them.

        At least `FEW_TRIALS`: a small sweep with time left trains even its third best in full.
        """
        return max(FEW_TRIALS, self.num_trials or 2 * num_tried)


def trial_seed(sweep_seed: int, number: int) -> int:
    """The seed of a trial: it follows from the sweep's seed and the trial's number."""
    return int(np.random.SeedSequence([sweep_seed, number]).generate_state(1)[0])
