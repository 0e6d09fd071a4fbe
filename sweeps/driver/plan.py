"""What the loop of a sweep needs to know about its trials."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pipelines.data.prepared import PreparedData
from pipelines.training.options import DEFAULT_TRAINING, TrainingOptions
from pipelines.training.trial import Schedule
from search_spaces.space import Space
from sweeps.driver.stop_rules import StopRules
from sweeps.executors.base import Job, Slot
from sweeps.resources.packing import GpuLayout
from sweeps.state.paths import SweepPaths
from sweeps.workers.jobs import train_job


@dataclass(frozen=True)
class LoopPlan:
    """What the loop needs to know about its trials; `job` is what trains one.

    Attributes:
        schedule: of every trial that has no plan of its own.
        training: how every trial trains.
        slots: where trials run on cores; on GPUs `layout` cuts them as they are needed.
        layout, level: the GPUs and how many trials share one; None on cores.
        trials_per_gpu: what was asked for; None for auto.
        num_retries: further tries of a trial that another try can help.
        stall_seconds: how long a trial may report nothing; None for the default rule.
        num_audited: pruned trials to train to the end afterwards.
    """

    space: Space
    data: PreparedData
    num_trials: int
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


def trial_seed(sweep_seed: int, number: int) -> int:
    """The seed of a trial: it follows from the sweep's seed and the trial's number."""
    return int(np.random.SeedSequence([sweep_seed, number]).generate_state(1)[0])
